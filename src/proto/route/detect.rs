//! Whether peers are there: probes, doubts and the kernel's hints on their way to the detector, and
//! its findings on their way to witnesses, to suspicions and, in the end, to everybody.

use std::net::SocketAddr;
use std::time::Duration;

use tracing::Level;

use super::super::detector::{Answered, Step, Watched, ring_from};
use super::super::health::Sign;
use super::super::members::Claimed;
use super::super::round_trips::RoundTrips;
use super::super::standing::PROBATION;
use super::super::state::State;
use super::super::suspicion::{CANDIDATES, Question, Verdict, Waits, credible};
use super::super::timer::Timer;
use super::super::{Hint, Protocol};
use super::Origin;
use super::membership::Claim;
use crate::event::Sight;
use crate::node::{NodeId, NodeName};
use crate::time::Instant;
use crate::wire::frame::{Ack, Incarnation, Nack, Ping, PingReq, Probe, Saw};
use crate::wire::{Domain, stable_hash};

/// A verdict waits for others for this share of the probe interval at most.
const COMPANY_SHARE: u32 = 4;

/// A node whose pings nobody has answered for so many probe intervals is cut off.
const UNANSWERED: u32 = 3;

/// A node that begins suspicions more often than each so many probe intervals loses many datagrams.
const OFTEN: u32 = 5;

/// Neighbours on the ring that are probed as soon as one is suspected: with two, a row of dead ones
/// is found in as many steps as its length has bits.
const SWEEP: usize = 2;

/// The shortest wait for an answer to a ping, as a share of the silence that counts.
const PING_SHARE: u32 = 64;

impl Protocol {
    /// Begins a round: somebody is probed, and somebody who is followed besides.
    pub(super) fn probe_round(&mut self) {
        #[cfg(feature = "sim")]
        if self.rules.classic.is_some() {
            return self.swim_round();
        }
        let peers = self.members.peers();
        if let Some(target) = self.detector.next_target(peers, self.local, &mut self.rng) {
            self.look_at(target, true);
        }
        if let Some(target) = self.detector.next_followed() {
            self.look_at(target, false);
        }
        self.next_round();
    }

    pub(super) fn next_round(&mut self) {
        let next = self.now + self.health.scale(self.config.probe_interval);
        self.timers.set(Timer::Probe, Some(next));
    }

    /// How long an answer to a ping is waited for before the next one goes: longer than an
    /// acknowledgement, so that a busy host is not asked for more.
    fn ping_waits(&self) -> impl Fn(&RoundTrips, NodeId) -> Duration + use<> {
        let ceiling = self.config.probe_timeout();
        let floor = (self.config.silence() / PING_SHARE).min(ceiling);
        move |trips, id| trips.wait_for(id, ceiling).max(floor)
    }

    fn ping_wait(&self, target: NodeId) -> Duration {
        self.ping_waits()(&self.round_trips, target)
    }

    /// Probes a peer, unless that is being done.
    fn look_at(&mut self, target: NodeId, compare: bool) {
        let wait = self.ping_wait(target);
        let Some(seq) = self.detector.begin(self.now, target, wait) else { return };
        self.counters.plain.probes += 1;
        if compare {
            self.send_probe(target, seq);
        } else {
            self.send_to(target, Ping { seq });
        }
    }

    /// There is reason to ask whether a peer is there.
    pub(super) fn doubt(&mut self, id: NodeId) {
        if self.rules.classic.is_none() && id != self.local && self.members.live(id).is_some() {
            self.look_at(id, false);
        }
    }

    /// Asks whether a peer is there, and with it whether it knows the same.
    pub(super) fn send_probe(&mut self, target: NodeId, seq: u16) {
        match self.digest_with(target, seq) {
            Some(digest) => {
                self.note_comparison();
                self.send_to(target, Probe { seq, digest });
            }
            None => self.send_to(target, Ping { seq }),
        }
    }

    /// A member says something. If nobody has for as long as a pause is tolerated, the silence
    /// that this node has seen meanwhile was its own, and that of others who were cut off with it.
    pub(super) fn note_contact(&mut self) {
        let before = std::mem::replace(&mut self.contact.heard, self.now);
        if self.now - before > self.config.silence() {
            self.suspicions.clear();
            self.detector.start_again(self.now);
        }
    }

    /// The kernel noticed something of the peer at an address.
    pub(in crate::proto) fn take_hint(&mut self, addr: SocketAddr, hint: Hint) {
        let Some(target) = self.members.peer_at(addr).filter(|_| self.is_active()) else { return };
        self.log(Level::DEBUG, move || {
            tracing::debug!(peer = %target, ?hint, "the kernel noticed something");
        });
        self.doubt(target);
        if hint == Hint::Unreachable
            && let Some(step) = self.detector.bounced(self.now, target)
        {
            self.take_step(step);
        }
        self.suspect(target);
        self.suspicions.hinted(target);
    }

    /// Probes that are due go on.
    pub(super) fn pursue_probes(&mut self) {
        #[cfg(feature = "sim")]
        if self.rules.classic.is_some() {
            return self.swim_pursue();
        }
        let (silence, waits) = (self.config.silence(), self.ping_waits());
        let wait_for = |id| waits(&self.round_trips, id);
        for step in self.detector.due(self.now, silence, self.contact.heard, wait_for) {
            self.take_step(step);
        }
    }

    fn take_step(&mut self, step: Step) {
        match step {
            Step::Ping { target, seq } => self.send_to(target, Ping { seq }),
            Step::Suspect { target } => {
                self.suspect(target);
                for _ in 0..SWEEP {
                    let peers = self.members.peers();
                    if let Some(next) = self.detector.next_on_ring(peers, self.local) {
                        self.look_at(next, false);
                    }
                }
            }
            Step::Silent { target, saw, own, askers } => {
                for (asker, seq) in askers {
                    self.send_to(asker, Saw { seq, saw });
                }
                if own {
                    self.suspect(target);
                    self.suspicions.saw_itself(self.now, target, saw);
                }
            }
        }
    }

    /// A peer does not answer: witnesses are asked.
    fn suspect(&mut self, target: NodeId) {
        let Some(member) = self.members.live(target) else { return };
        if self.suspicions.contains(target) || !self.detector.is_own(target) {
            return;
        }
        let incarnation = member.incarnation;
        let seq = self.free_seq();
        let others = self.members.peers().len() - 1;
        let candidates = self.witnesses_of(target, incarnation);
        let waits = self.waits();
        let about = (target, incarnation);
        self.suspicions.begin(self.now, about, seq, (others, candidates), waits);
        self.counters.plain.suspicions += 1;
        self.log(Level::DEBUG, move || tracing::debug!(node = %target, "suspected"));
        let often = self.config.probe_interval * OFTEN;
        if self.contact.suspected.is_some_and(|at| self.now - at < often) {
            self.standing.trouble(self.now, self.config.probe_interval);
        }
        self.contact.suspected = Some(self.now);
        self.pursue_suspicions();
    }

    fn waits(&self) -> Waits {
        let tolerance = self.config.silence();
        Waits {
            answer: self.round_trips.wait(self.config.probe_timeout()),
            tolerance,
            doubtful: self.health.scale(tolerance),
            company: self.config.probe_interval / COMPANY_SHARE,
        }
    }

    /// The members that are to be witnesses of a suspicion, the first to be asked first: for each
    /// number, the one on the ring after its hash. Those suspected themselves come last.
    fn witnesses_of(&self, target: NodeId, incarnation: Incarnation) -> Vec<NodeId> {
        let peers = self.members.peers();
        let mut chosen: Vec<NodeId> = Vec::with_capacity(CANDIDATES);
        let about = [target.as_u64().to_le_bytes(), u64::from(incarnation.0).to_le_bytes()];
        for n in 0u64..4 * CANDIDATES as u64 {
            let parts: [&[u8]; 3] = [&about[0], &about[1], &n.to_le_bytes()];
            let point = stable_hash(Domain::Witness, &parts);
            let mut ring = ring_from(peers, point);
            let next = ring.find(|id| *id != target && !chosen.contains(id));
            chosen.extend(next);
            if chosen.len() == CANDIDATES || next.is_none() {
                break;
            }
        }
        let doubted = |id: &NodeId| self.detector.is_doubted(*id) || self.suspicions.contains(*id);
        chosen.sort_by_key(doubted);
        chosen
    }

    /// Asks witnesses, and declares what they have decided.
    pub(super) fn pursue_suspicions(&mut self) {
        #[cfg(feature = "sim")]
        if self.rules.classic.is_some() {
            return self.swim_verdicts();
        }
        let due = self.suspicions.due(self.now, self.waits());
        for Question { to, seq, target } in due.questions {
            let waited = self.detector.waited(self.now, target).as_millis();
            let waited = u16::try_from(waited).unwrap_or(u16::MAX);
            self.send_to(to, PingReq { seq, target, waited });
        }
        for _ in 0..due.unheard {
            self.health.saw(Sign::Unheard);
        }
        // Whoever is held dead has no witnesses, but still gets answers from those whom it pings.
        if due.is_cut_off && !self.is_in_contact() {
            self.standing.trouble(self.now, self.config.probe_interval);
        }
        for verdict in due.verdicts {
            self.declare(verdict);
        }
    }

    /// Whether somebody has answered this node lately.
    fn is_in_contact(&self) -> bool {
        self.now - self.contact.answered < self.config.probe_interval * UNANSWERED
    }

    /// Whether somebody has answered this node all the time, for as long as a probation takes: what
    /// has failed is none of its own links.
    pub(super) fn is_in_unbroken_contact(&self) -> bool {
        self.is_in_contact()
            && self.now - self.contact.unbroken >= self.config.probe_interval * PROBATION
    }

    /// A suspicion has come to a verdict. One without witnesses is this node's own view: whoever
    /// hears nobody may be the one that is cut off.
    fn declare(&mut self, verdict: Verdict) {
        let Verdict { target, incarnation, own, witnesses } = verdict;
        let Some(member) = self.members.live(target) else { return };
        if member.incarnation > incarnation {
            return self.detector.disown(target);
        }
        self.counters.plain.verdicts += 1;
        // Those whom this node alone holds dead could have seen it too: else the last one of all
        // that it hears no more would be told to everybody.
        let others = self.members.peers().len() - 1 + self.members.private_deaths();
        let known = credible(others) <= witnesses.len();
        let saw: Vec<(NodeId, Sight)> =
            std::iter::once((self.local, own)).chain(witnesses).collect();
        let claim = Claim {
            state: State::Failed,
            incarnation,
            by: Some(self.local),
            witnesses: saw.into(),
        };
        if let Claimed::Changed { from, to } =
            self.members.apply_claim(self.now, target, claim.about(), claim.by)
        {
            self.members.testify(target, claim.witnesses);
            if !known {
                self.members.keep_to_itself(target, self.is_in_contact());
            }
            let origin = (!known).then(|| self.origin_of_secrets());
            self.state_changed(origin, (target, self.local), (from, to));
        }
    }

    /// A run that only this node holds dead says something. If it answers, it is back: nobody else
    /// has heard that it was gone, so it need not be told, nor refute anything.
    pub(super) fn hear_the_private_dead(&mut self, id: NodeId, answers: bool) {
        let Some(member) = self.members.find(id) else { return };
        // As if it had refuted the death: the rule of names is the same.
        let alive = (State::Alive, member.incarnation.next());
        if !answers {
            self.knock(id);
        } else if self.name_stands_against(id, alive) {
            // Another run has its name by now.
        } else if self.members.revive(id) {
            self.heard_an_answer();
            let (origin, risen) = (self.origin_of_secrets(), self.risen.contains(id));
            self.state_changed(Some(origin), (id, id), (State::Failed, State::Alive));
            if !risen {
                // That this node alone did not hear it says nothing of the other's links.
                self.risen.clear(id);
            }
        }
    }

    /// Somebody has answered what this node asked of itself, a peer or a witness. A round that was
    /// put off when nobody did is not waited for any more.
    fn heard_an_answer(&mut self) {
        self.health.saw(Sign::ProbeAnswered);
        let next = self.now + self.health.scale(self.config.probe_interval);
        self.timers.set_earlier(Timer::Probe, next);
    }

    /// What comes from here is not passed on.
    fn origin_of_secrets(&self) -> Origin {
        let (id, addr) = (self.local, self.local().addr());
        Origin { id, addr, member: true, pulled: None, spread: true }
    }

    /// An ack came that may answer a probe, or tell that a witness has heard a suspect.
    pub(super) fn answer_came(&mut self, from: NodeId, seq: u16) {
        #[cfg(feature = "sim")]
        if self.rules.classic.is_some() {
            return self.swim_answered(from, seq);
        }
        if let Some(answered) = self.detector.handle_ack(self.now, from, seq) {
            let Answered { round_trip, own, askers } = answered;
            if !self.is_in_contact() {
                self.contact.unbroken = self.now;
            }
            self.contact.answered = self.now;
            self.round_trips.measured(from, round_trip);
            self.members.heard(self.now, from);
            for (asker, seq) in askers {
                self.send_to(asker, Ack { seq });
            }
            self.detector.reached(from);
            if own {
                self.heard_an_answer();
                self.clear_suspicion(from);
            }
            if self.members.live(from).is_some_and(|it| it.state == State::Suspect) {
                // It has heard of the dispute just now, and settles it, or is asked again.
                self.detector.follow(from);
            }
        }
        if let Some(target) = self.suspicions.handle_ack(from, seq) {
            self.heard_an_answer();
            self.clear_suspicion(target);
            self.detector.disown(target);
            self.detector.reached_through_others(target);
        }
    }

    fn clear_suspicion(&mut self, target: NodeId) {
        if self.suspicions.remove(target) {
            self.log(Level::DEBUG, move || tracing::debug!(node = %target, "no longer suspected"));
        }
    }

    /// A member asks this one to be a witness. Only known members are probed, at the addresses
    /// known here: nobody can make this node scan.
    pub(super) fn receive_ping_req(&mut self, origin: Origin, request: PingReq) {
        #[cfg(feature = "sim")]
        if self.rules.classic.is_some() {
            return self.swim_relay(origin, request);
        }
        let PingReq { seq, target, waited } = request;
        if !origin.member || target == self.local {
            return;
        }
        if self.members.live(target).is_none() {
            // That is known already, to all or to this node alone.
            if let Some(frame) = self.claim_frame(target) {
                self.send(origin.addr, Some(origin.id), frame);
            } else if self.members.is_sure_death(target)
                && let Some((_, saw)) = self.members.testimony(target).first()
            {
                self.send_to(origin.id, Saw { seq, saw: *saw });
            }
            return;
        }
        let wait = self.ping_wait(target);
        // Nobody can have it judge in no time at all.
        let credit = Duration::from_millis(waited.into()).min(self.config.silence() / 2);
        let ask = ((origin.id, seq), credit);
        match self.detector.watch(self.now, target, wait, ask) {
            Watched::Ping(number) => {
                self.send_to(target, Ping { seq: number });
                self.send_to(origin.id, Nack { seq });
            }
            Watched::UnderWay => self.send_to(origin.id, Nack { seq }),
            Watched::Saw(saw) => self.send_to(origin.id, Saw { seq, saw }),
            Watched::Refused => {}
        }
    }

    pub(super) fn receive_nack(&mut self, from: NodeId, seq: u16) {
        #[cfg(feature = "sim")]
        if self.rules.classic.is_some() {
            return self.swim.rounds.handle_nack(from, seq);
        }
        let waits = self.waits();
        self.suspicions.handle_nack(self.now, from, seq, waits);
    }

    pub(super) fn receive_saw(&mut self, from: NodeId, saw: Saw) {
        self.suspicions.handle_saw(self.now, from, saw.seq, saw.saw);
        self.pursue_suspicions();
    }

    /// A run is dead, or was and no longer is: what was asked about it before is void.
    pub(super) fn forget_probes(&mut self, id: NodeId) {
        self.detector.clear(id);
        self.suspicions.remove(id);
        self.round_trips.forget(id);
    }

    /// When the detector's next steps are due, and those of suspicions.
    pub(super) fn detection_deadlines(&self) -> (Option<Instant>, Option<Instant>) {
        #[cfg(feature = "sim")]
        if self.rules.classic.is_some() {
            return self.swim_deadlines();
        }
        (self.detector.next_deadline(), self.suspicions.next_deadline())
    }

    /// The live members to which this node is to hold a [tether](crate::Config::tethers), and where
    /// they are reached.
    pub fn tethers(&self) -> Vec<(NodeId, SocketAddr)> {
        if !self.is_synced() {
            return Vec::new();
        }
        let ring = ring_from(self.members.peers(), self.local.as_u64());
        let ends = ring.take(self.config.tethers).filter_map(|id| self.members.live(id));
        ends.map(|member| (member.node.id(), member.node.addr())).collect()
    }

    /// Where a live member is reached.
    pub fn addr_of_member(&self, id: NodeId) -> Option<SocketAddr> {
        Some(self.members.live(id)?.node.addr())
    }

    pub(in crate::proto) fn suspect_count(&self) -> usize {
        #[cfg(feature = "sim")]
        if self.rules.classic.is_some() {
            return self.swim.accusations.len();
        }
        self.suspicions.len()
    }

    pub(in crate::proto) fn reached_indirectly(&self) -> Vec<NodeName> {
        let peers = self.detector.reached_indirectly();
        let peers = peers.filter_map(|id| self.members.live(id));
        peers.map(|member| member.node.node_name().clone()).collect()
    }
}
