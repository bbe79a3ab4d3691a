//! The roads of SWIM and Lifeguard as published, in the simulator's experiments only.

use std::time::Duration;

use super::super::Protocol;
use super::super::health::Sign;
use super::super::members::Claimed;
use super::super::piggyback::Rumor;
use super::super::rules::{Classic, Rules};
use super::super::state::State;
use super::super::swim::{Accused, Acked, Ended};
use super::Origin;
use super::membership::Claim;
use crate::event::Sight;
use crate::node::{Generation, NodeId};
use crate::time::Instant;
use crate::wire::frame::{Ack, Incarnation, Nack, Ping, PingReq};

impl Protocol {
    /// Switches refinements off, for experiments that ask what they are worth.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
        if let Some(classic) = rules.classic {
            self.health.set_max(classic.max_local_health);
        }
    }

    fn classic(&self) -> Classic {
        self.rules.classic.expect("only experiments with it come here")
    }

    /// Ends a probe round and begins the next (SWIM, section 3.1).
    pub(super) fn swim_round(&mut self) {
        if let Ended::Failed { target, nacks_missed } = self.swim.rounds.end_round() {
            self.health.saw(Sign::ProbeFailed);
            for _ in 0..nacks_missed {
                self.health.saw(Sign::NackMissed);
            }
            self.swim_suspect(target);
        }
        let peers = self.members.peers();
        if let Some(target) = self.swim.rounds.next_target(peers, &mut self.rng) {
            self.swim_probe(target);
        }
        self.next_round();
    }

    /// Begins a round with this peer.
    fn swim_probe(&mut self, target: NodeId) {
        self.counters.plain.probes += 1;
        let seq = self.detector.take_seq();
        let ask_at = self.now + self.health.scale(self.config.probe_timeout());
        self.swim.rounds.begin_round(target, seq, ask_at);
        self.send_probe(target, seq);
    }

    /// What is due in this round, or for others.
    pub(super) fn swim_pursue(&mut self) {
        if let Some((target, seq)) = self.swim.rounds.take_unanswered(self.now) {
            let peers = self.members.peers();
            let count = self.classic().indirect_probes;
            let helpers = Protocol::choose(&mut self.rng, peers, count, |id| id != target);
            for helper in &helpers {
                self.send_to(*helper, PingReq { seq, target, waited: 0 });
            }
            self.swim.rounds.asked(helpers);
        }
        for relay in self.swim.rounds.due_nacks(self.now) {
            self.send_to(relay.origin, Nack { seq: relay.origin_seq });
        }
    }

    pub(super) fn swim_answered(&mut self, from: NodeId, seq: u16) {
        match self.swim.rounds.handle_ack(from, seq) {
            Acked::Round { target } => {
                self.health.saw(Sign::ProbeAnswered);
                self.members.heard(self.now, target);
            }
            Acked::Relay(relay) => self.send_to(relay.origin, Ack { seq: relay.origin_seq }),
            Acked::Nothing => {}
        }
    }

    pub(super) fn swim_relay(&mut self, origin: Origin, request: PingReq) {
        if !origin.member || self.members.live(request.target).is_none() {
            return;
        }
        let timeout = self.health.scale(self.config.probe_timeout());
        let (asked, seq) = ((origin.id, request.seq), self.detector.take_seq());
        if self.swim.rounds.relay(self.now, timeout, asked, (request.target, seq)) {
            self.send_to(request.target, Ping { seq });
        }
    }

    /// This node suspects, or hears that somebody does.
    pub(super) fn swim_accuse(
        &mut self,
        origin: Option<Origin>,
        about: (NodeId, Incarnation),
        by: NodeId,
    ) {
        let bounds = self.swim_bounds();
        let alive = self.members.live_count();
        match self.swim.accusations.accuse(self.now, bounds, alive, about, by) {
            Accused::New | Accused::Confirmed if by == self.local => {
                self.news(Rumor::Suspicion(about.0, by), Generation::ZERO);
            }
            Accused::New | Accused::Confirmed => self.tell(Rumor::Suspicion(about.0, by), origin),
            Accused::Known => {}
        }
    }

    /// `alpha * max(1, log10 n) * probe_interval` (Lifeguard, section V, after SWIM's dissemination
    /// bound), and `beta` times that.
    #[expect(clippy::cast_precision_loss, reason = "a node count is far below 2^52")]
    fn swim_bounds(&self) -> (Duration, Duration) {
        let Classic { alpha, beta, .. } = self.classic();
        let scale = (self.members.live_count() as f64).log10().max(1.0);
        let min = (self.config.probe_interval * alpha).mul_f64(scale);
        (min, min * beta)
    }

    /// This node's own probes got no answer from a run.
    fn swim_suspect(&mut self, id: NodeId) {
        let Some(member) = self.members.live(id) else { return };
        let claim = Claim::new(State::Suspect, member.incarnation, Some(self.local));
        let (local, addr) = (self.local, self.local().addr());
        let origin = Origin { id: local, addr, member: true, pulled: None, spread: false };
        self.hear_claim(origin, id, claim);
    }

    /// Suspicions whose time is up become verdicts.
    pub(super) fn swim_verdicts(&mut self) {
        while let Some((id, incarnation)) = self.swim.accusations.expired(self.now) {
            let by = self.swim.accusations.of(id).map_or(id, |held| held.accusers[0]);
            let claim = (State::Failed, incarnation);
            if let Claimed::Changed { from, to } =
                self.members.apply_claim(self.now, id, claim, Some(by))
            {
                self.counters.plain.verdicts += 1;
                self.state_changed(None, (id, by), (from, to));
            }
            self.swim.accusations.remove(id);
        }
    }

    /// Who accused a run that is dead now are its witnesses.
    pub(super) fn swim_remember_accusers(&mut self, id: NodeId) {
        if let Some(held) = self.swim.accusations.remove(id) {
            let saw = held.accusers.iter().map(|by| (*by, Sight::Silence));
            self.members.testify(id, saw.collect());
        }
    }

    pub(super) fn swim_deadlines(&self) -> (Option<Instant>, Option<Instant>) {
        (self.swim.rounds.next_deadline(), self.swim.accusations.next_deadline())
    }
}
