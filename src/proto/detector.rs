//! The failure detector: whom to probe and when, what an answer means, how long silence lasts.
//!
//! ```text
//!   a round; a doubt; a request of another member
//!       |
//!       v            no answer in the peer's own round-trip time: again
//!    pinged ---+
//!       |  ^   | PINGS in vain                  silent for the whole pause tolerance
//!       |  +---+----------------> suspected --------------------------------> silent
//!       |                             |  (suspicion.rs: witnesses are            |
//!       | ack                         |   asked, and decide)                     | told to whoever
//!       v                             v ack, or a witness's                      v asked
//!    answered <-----------------------+                                      verdict, or not
//! ```
//! There is one probe of a peer at a time, whoever wants to know: this node itself, members that
//! asked it to be a witness, or both.
//!
//! **The schedule.** Members lie on a ring in the order of their ids, which are random. In each
//! round a node probes the next one of them that it is not probing already, and in every
//! [`RANDOM_EVERY`]th round somebody at random instead, so that no two nodes can hide each other.
//! So a dead node is probed by the living one before it within two rounds, within half a round on
//! average; in SWIM (DSN 2002, section 3.1) that takes e/(e-1) = 1.58 rounds, and sometimes many.
//! Who suspects somebody probes the next one at once, so that a row of dead neighbours is found in
//! one sweep.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::event::Sight;
use crate::node::NodeId;
use crate::time::Instant;

use super::timer::Deadlines;

/// Probes under way at one time; whoever else is doubted has to wait.
pub(super) const MAX_PROBES: usize = 1024;

/// Those of them that this node wants to know of itself. One that is cut off is silent to itself,
/// not to the others.
const MAX_OWN: usize = 32;

/// Members that may wait for the outcome of one probe; further ones ask in vain.
pub(super) const MAX_ASKERS: usize = 16;

/// Each so manieth round goes to somebody at random.
const RANDOM_EVERY: u32 = 8;

/// Pings in vain until witnesses are asked. By simulation: where a fifth of all datagrams is lost,
/// a node sends 125, 94 and 84 bytes a second with 3, 4 and 5, and suspects somebody in vain every
/// 19, 55 and 154 s; a row of dead neighbours is found the later the more there are.
const PINGS: usize = 4;

/// While silence lasts, a peer is pinged so often within the pause tolerance. One that hears a
/// fifth of all datagrams is heard of for certain then, by somebody.
const PINGS_IN_SILENCE: u32 = 8;

/// After that it is pinged so many times less often, until there is a verdict.
const AFTER_SILENCE: u32 = 4;

/// Peers that are followed at one time.
const MAX_FOLLOWED: usize = 64;

/// A peer that has been reached only through others so many times in a row is named.
const NAMED_AFTER: u32 = 3;

/// A probe of a peer.
#[derive(Debug)]
struct Probe {
    /// The numbers of its pings, and when they went.
    pings: Vec<(u16, Instant)>,
    /// Since when there is silence.
    since: Instant,
    /// For how long those who asked had waited before.
    credit: Duration,
    /// When the next ping goes, or the silence has lasted long enough.
    due: Instant,
    /// Whether this node itself wants to know.
    own: bool,
    suspected: bool,
    /// Who else wants to know, and the numbers of their requests.
    askers: Vec<(NodeId, u16)>,
    /// What has been seen for long enough.
    saw: Option<Sight>,
}

/// What a probe needs done.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ping it again.
    Ping { target: NodeId, seq: u16 },
    /// It has not answered this node: ask witnesses.
    Suspect { target: NodeId },
    /// It was silent long enough: whoever asked is to know.
    Silent { target: NodeId, saw: Sight, own: bool, askers: Vec<(NodeId, u16)> },
}

/// A peer has answered.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answered {
    /// How long that took.
    pub(super) round_trip: Duration,
    /// Whether this node itself wanted to know.
    pub(super) own: bool,
    /// Who else did.
    pub(super) askers: Vec<(NodeId, u16)>,
}

/// What became of a request to be a witness.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Watched {
    /// Ping it.
    Ping(u16),
    /// That is being done.
    UnderWay,
    /// It has been seen already, a moment ago.
    Saw(Sight),
    /// Too much is under way.
    Refused,
}

/// Members, sorted, in the order in which they come on the ring from a point on.
pub(super) fn ring_from(members: &[NodeId], point: u64) -> impl Iterator<Item = NodeId> {
    let at = members.partition_point(|id| id.as_u64() < point);
    let (before, after) = members.split_at(at);
    after.iter().chain(before).copied()
}

/// All probes under way.
#[derive(Debug)]
pub(super) struct Detector {
    probes: BTreeMap<NodeId, Probe>,
    deadlines: Deadlines<NodeId>,
    /// The numbers of all pings that may still be answered.
    numbers: BTreeSet<u16>,
    next_seq: u16,
    round: u32,
    /// Peers that are probed again soon, whoever's turn it is: how often in a row each was reached
    /// only through others.
    followed: BTreeMap<NodeId, u32>,
    last_followed: NodeId,
}

impl Detector {
    pub(super) fn new(rng: &mut ChaCha8Rng) -> Detector {
        Detector {
            probes: BTreeMap::new(),
            deadlines: Deadlines::default(),
            numbers: BTreeSet::new(),
            // A random start makes a blind forger guess it, beside the id of who is asked.
            next_seq: rng.random(),
            round: rng.random_range(0..RANDOM_EVERY),
            followed: BTreeMap::new(),
            last_followed: NodeId::MIN,
        }
    }

    /// A number for a ping that no other ping of this node has had for long, and none that is still
    /// waited for here.
    pub(super) fn take_seq(&mut self) -> u16 {
        loop {
            self.next_seq = self.next_seq.wrapping_add(1);
            if !self.numbers.contains(&self.next_seq) {
                return self.next_seq;
            }
        }
    }

    /// Whom to probe in a new round, of these peers (sorted, without `local`).
    pub(super) fn next_target(
        &mut self,
        peers: &[NodeId],
        local: NodeId,
        rng: &mut ChaCha8Rng,
    ) -> Option<NodeId> {
        self.round = (self.round + 1) % RANDOM_EVERY;
        if self.round == 0 && !peers.is_empty() {
            let drawn = peers[rng.random_range(0..peers.len())];
            return Some(drawn).filter(|id| !self.is_own(*id));
        }
        self.next_on_ring(peers, local)
    }

    /// A peer is to be probed again soon.
    pub(super) fn follow(&mut self, target: NodeId) {
        if self.followed.len() < MAX_FOLLOWED {
            self.followed.entry(target).or_default();
        }
    }

    /// A peer has answered others, and not this node.
    pub(super) fn reached_through_others(&mut self, target: NodeId) {
        self.follow(target);
        if let Some(times) = self.followed.get_mut(&target) {
            *times += 1;
        }
    }

    /// A peer has answered this node.
    pub(super) fn reached(&mut self, target: NodeId) {
        self.followed.remove(&target);
    }

    /// The peer that is to be probed again in this round.
    pub(super) fn next_followed(&mut self) -> Option<NodeId> {
        let after = self.last_followed.next().unwrap_or(NodeId::MIN);
        let next = self.followed.range(after..).next().or(self.followed.first_key_value());
        self.last_followed = *next?.0;
        Some(self.last_followed).filter(|id| !self.is_own(*id))
    }

    /// Peers that this node reaches only through others.
    pub(super) fn reached_indirectly(&self) -> impl Iterator<Item = NodeId> {
        let named = self.followed.iter().filter(|(_, times)| **times >= NAMED_AFTER);
        named.map(|(id, _)| *id)
    }

    /// The next member on the ring that this node is not probing.
    pub(super) fn next_on_ring(&self, peers: &[NodeId], local: NodeId) -> Option<NodeId> {
        ring_from(peers, local.as_u64()).find(|id| !self.is_own(*id))
    }

    /// Whether this node itself wants to know of a peer, and does not yet.
    pub(super) fn is_own(&self, target: NodeId) -> bool {
        self.probes.get(&target).is_some_and(|probe| probe.own)
    }

    /// For how long a peer has not answered this node.
    pub(super) fn waited(&self, now: Instant, target: NodeId) -> Duration {
        self.probes.get(&target).map_or(Duration::ZERO, |probe| now - probe.since)
    }

    /// Whether a peer has left pings unanswered.
    pub(super) fn is_doubted(&self, target: NodeId) -> bool {
        self.probes.get(&target).is_some_and(|probe| probe.pings.len() > 1)
    }

    /// This node wants to know whether a peer is there: the number of the ping to send, unless one
    /// is under way.
    pub(super) fn begin(&mut self, now: Instant, target: NodeId, wait: Duration) -> Option<u16> {
        if self.probes.values().filter(|probe| probe.own).count() >= MAX_OWN {
            return None;
        }
        if let Some(probe) = self.probes.get_mut(&target) {
            if !probe.own {
                probe.own = true;
                (probe.due, probe.saw) = (now, None);
                self.deadlines.set(target, now);
            }
            return None;
        }
        self.open(now, target, wait, |probe| probe.own = true)
    }

    /// Another member wants to know, and has waited for so long itself. A pause that is tolerated
    /// and had begun by then is over when that and this node's own silence are as long together.
    pub(super) fn watch(
        &mut self,
        now: Instant,
        target: NodeId,
        wait: Duration,
        (asker, credit): ((NodeId, u16), Duration),
    ) -> Watched {
        let Some(probe) = self.probes.get_mut(&target) else {
            let opened = self.open(now, target, wait, |probe| {
                probe.askers.push(asker);
                probe.credit = credit;
            });
            return opened.map_or(Watched::Refused, Watched::Ping);
        };
        if let Some(saw) = probe.saw {
            return Watched::Saw(saw);
        }
        if !probe.askers.contains(&asker) {
            if probe.askers.len() >= MAX_ASKERS {
                return Watched::Refused;
            }
            probe.askers.push(asker);
            let credit = credit.saturating_sub(now - probe.since);
            probe.credit = probe.credit.max(credit);
        }
        Watched::UnderWay
    }

    fn open(
        &mut self,
        now: Instant,
        target: NodeId,
        wait: Duration,
        wants: impl FnOnce(&mut Probe),
    ) -> Option<u16> {
        if self.probes.len() >= MAX_PROBES {
            return None;
        }
        let seq = self.take_seq();
        self.numbers.insert(seq);
        let (since, due) = (now, now + wait);
        let mut probe = Probe {
            pings: vec![(seq, now)],
            since,
            credit: Duration::ZERO,
            due,
            own: false,
            suspected: false,
            askers: Vec::new(),
            saw: None,
        };
        wants(&mut probe);
        self.probes.insert(target, probe);
        self.deadlines.set(target, due);
        Some(seq)
    }

    /// An ack came: what it answers, if it was waited for and is its target's.
    pub(super) fn handle_ack(&mut self, now: Instant, from: NodeId, seq: u16) -> Option<Answered> {
        let pings = &self.probes.get(&from)?.pings;
        let (_, sent) = *pings.iter().find(|(number, _)| *number == seq)?;
        let probe = self.forget(from)?;
        Some(Answered { round_trip: now - sent, own: probe.own, askers: probe.askers })
    }

    /// The kernel says that nobody listens at a peer's address: that counts as silence long
    /// enough. Nothing, if it is not being probed.
    pub(super) fn bounced(&mut self, now: Instant, target: NodeId) -> Option<Step> {
        let probe = self.probes.get_mut(&target).filter(|probe| probe.saw.is_none())?;
        let saw = Sight::Unreachable;
        probe.saw = Some(saw);
        let (own, askers) = (probe.own, std::mem::take(&mut probe.askers));
        if own && !std::mem::replace(&mut probe.suspected, true) {
            probe.due = now;
        }
        Some(Step::Silent { target, saw, own, askers })
    }

    /// Silence that was seen so far says nothing: all probes begin anew.
    pub(super) fn start_again(&mut self, now: Instant) {
        for target in self.probes.keys().copied().collect::<Vec<_>>() {
            self.start_one_again(now, target);
        }
    }

    /// A peer has said to others that it lives: its silence so far says nothing.
    pub(super) fn refuted(&mut self, now: Instant, target: NodeId) {
        self.reached(target);
        self.start_one_again(now, target);
    }

    fn start_one_again(&mut self, now: Instant, target: NodeId) {
        let Some(probe) = self.probes.get_mut(&target) else { return };
        (probe.since, probe.due, probe.credit) = (now, now, Duration::ZERO);
        (probe.suspected, probe.saw) = (false, None);
        for (seq, _) in probe.pings.drain(..probe.pings.len() - 1) {
            self.numbers.remove(&seq);
        }
        self.deadlines.set(target, now);
    }

    /// This node need not know any more; others may still want to.
    pub(super) fn disown(&mut self, target: NodeId) {
        let Some(probe) = self.probes.get_mut(&target) else { return };
        (probe.own, probe.suspected) = (false, false);
        if probe.askers.is_empty() {
            drop(self.forget(target));
        }
    }

    /// Nobody wants to know of a peer any more.
    pub(super) fn clear(&mut self, target: NodeId) {
        self.followed.remove(&target);
        drop(self.forget(target));
    }

    fn forget(&mut self, target: NodeId) -> Option<Probe> {
        let probe = self.probes.remove(&target)?;
        self.deadlines.clear(target);
        for (seq, _) in &probe.pings {
            self.numbers.remove(seq);
        }
        Some(probe)
    }

    /// What is due, given how long a peer's answer is waited for, how long a pause is tolerated,
    /// and when anything was last heard from anybody.
    pub(super) fn due(
        &mut self,
        now: Instant,
        tolerance: Duration,
        last_heard: Instant,
        wait_for: impl Fn(NodeId) -> Duration,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        for target in self.deadlines.due(now) {
            self.advance(now, target, (tolerance, last_heard), wait_for(target), &mut steps);
        }
        steps
    }

    fn advance(
        &mut self,
        now: Instant,
        target: NodeId,
        (tolerance, last_heard): (Duration, Instant),
        wait: Duration,
        steps: &mut Vec<Step>,
    ) {
        let pause = tolerance / PINGS_IN_SILENCE;
        let probe = self.probes.get_mut(&target).expect("only what is there has a deadline");
        let late = now - probe.due;
        if late > pause {
            // This node has slept: the silence of that time was its own.
            probe.since += late;
        }
        if probe.own && !probe.suspected && probe.pings.len() >= PINGS {
            probe.suspected = true;
            steps.push(Step::Suspect { target });
        }
        // What others have waited is no excuse for this node's own suspicions.
        let credit = if probe.own { Duration::ZERO } else { probe.credit };
        let silent_at = probe.since + tolerance.saturating_sub(credit);
        if now >= silent_at && probe.saw.is_none() {
            let deaf = !probe.own && last_heard <= probe.since;
            if deaf {
                // Who has heard nobody else either has nothing to say of this one.
                (probe.since, probe.credit) = (now, Duration::ZERO);
            } else {
                let (saw, askers) = (Sight::Silence, std::mem::take(&mut probe.askers));
                probe.saw = Some(saw);
                steps.push(Step::Silent { target, saw, own: probe.own, askers });
            }
        }
        if probe.saw.is_some() && !probe.own {
            if now < probe.since + 2 * tolerance {
                // For those who ask a little later.
                probe.due = probe.since + 2 * tolerance;
                self.deadlines.set(target, probe.due);
                return;
            }
            // Nothing has come of it: whoever asked may be gone, or cut off.
            (probe.own, probe.suspected, probe.saw) = (true, true, None);
            steps.push(Step::Suspect { target });
        }
        let sent = probe.pings.len();
        let pause = if probe.saw.is_some() { pause * AFTER_SILENCE } else { pause };
        let next = if sent < PINGS { (wait * (1 << (sent / 2))).min(pause) } else { pause };
        probe.due = now + next;
        if probe.saw.is_none() && silent_at > now {
            probe.due = probe.due.min(silent_at);
        }
        self.deadlines.set(target, probe.due);
        let seq = self.take_seq();
        self.numbers.insert(seq);
        let probe = self.probes.get_mut(&target).expect("it was there just now");
        if probe.pings.len() >= PINGS + 3 * PINGS_IN_SILENCE as usize {
            let (old, _) = probe.pings.remove(0);
            self.numbers.remove(&old);
        }
        probe.pings.push((seq, now));
        steps.push(Step::Ping { target, seq });
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Probes under way.
    #[cfg(feature = "sim")]
    pub(super) fn len(&self) -> usize {
        self.probes.len()
    }

    /// Whether a peer will be probed again before long, or there are too many.
    #[cfg(any(test, debug_assertions, feature = "sim"))]
    pub(super) fn follows(&self, target: NodeId) -> bool {
        self.followed.contains_key(&target) || self.followed.len() >= MAX_FOLLOWED
    }

    /// Who is being probed.
    #[cfg(any(test, debug_assertions, feature = "sim"))]
    pub(super) fn targets(&self) -> impl Iterator<Item = NodeId> {
        self.probes.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const WAIT: Duration = Duration::from_millis(10);
    const TOLERANCE: Duration = Duration::from_millis(800);

    fn id(n: u64) -> NodeId {
        NodeId::from_u64(n).unwrap()
    }

    fn detector() -> Detector {
        Detector::new(&mut ChaCha8Rng::seed_from_u64(1))
    }

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    /// Runs it until something else than a ping is due; whoever else is heard of now and then.
    fn run(detector: &mut Detector, pings: &mut usize) -> (Instant, Step) {
        loop {
            let now = detector.next_deadline().expect("something is under way");
            for step in detector.due(now, TOLERANCE, now, |_| WAIT) {
                match step {
                    Step::Ping { .. } => *pings += 1,
                    other => return (now, other),
                }
            }
        }
    }

    #[test]
    fn the_next_on_the_ring_is_probed_and_each_eighth_time_somebody_else() {
        let (mut detector, mut rng) = (detector(), ChaCha8Rng::seed_from_u64(2));
        let peers: Vec<NodeId> = (1..=100).filter(|n| *n != 40).map(id).collect();
        let drawn: Vec<_> =
            (0..80).map(|_| detector.next_target(&peers, id(40), &mut rng).unwrap()).collect();
        let next = drawn.iter().filter(|it| **it == id(41)).count();
        assert!((70..80).contains(&next), "{next}");
        for window in drawn.windows(2) {
            assert!(window.contains(&id(41)), "never twice in a row somebody else");
        }
        assert_eq!(detector.next_on_ring(&peers, id(101)), Some(id(1)), "it is a ring");
        assert_eq!(detector.next_target(&[], id(40), &mut rng), None);
    }

    #[test]
    fn whoever_is_being_probed_is_passed_over() {
        let mut detector = detector();
        let peers = [id(1), id(2), id(3)];
        for n in 1..=3 {
            assert_eq!(detector.next_on_ring(&peers, id(9)), Some(id(n)));
            assert!(detector.begin(at(0), id(n), WAIT).is_some());
        }
        assert_eq!(detector.next_on_ring(&peers, id(9)), None);
    }

    #[test]
    fn silence_is_suspected_early_and_reported_when_it_has_lasted() {
        let mut detector = detector();
        assert!(detector.begin(at(0), id(1), WAIT).is_some());
        let mut pings = 1;
        let (now, step) = run(&mut detector, &mut pings);
        assert_eq!((step, pings), (Step::Suspect { target: id(1) }, PINGS));
        // 10, 10, 20, 20 ms.
        assert_eq!(now, at(60));
        let (now, step) = run(&mut detector, &mut pings);
        let Step::Silent { saw, own, .. } = step else { panic!("{step:?}") };
        assert_eq!((saw, own), (Sight::Silence, true));
        assert_eq!(now, at(0) + TOLERANCE);
        assert!(pings > PINGS + 4, "{pings}");
    }

    #[test]
    fn who_has_refuted_a_suspicion_and_stays_silent_is_suspected_again() {
        let mut detector = detector();
        assert!(detector.begin(at(0), id(1), WAIT).is_some());
        let mut pings = 1;
        let (now, step) = run(&mut detector, &mut pings);
        assert_eq!(step, Step::Suspect { target: id(1) });
        detector.refuted(now, id(1));
        let (again, step) = run(&mut detector, &mut pings);
        assert_eq!(step, Step::Suspect { target: id(1) });
        let (silent, step) = run(&mut detector, &mut pings);
        assert!(matches!(step, Step::Silent { own: true, .. }), "{step:?}");
        assert!(again > now && silent == now + TOLERANCE, "counted from the refutation");
    }

    #[test]
    fn any_of_the_pings_can_be_answered_by_the_target_alone() {
        let mut detector = detector();
        let first = detector.begin(at(0), id(1), WAIT).unwrap();
        let steps = detector.due(at(10), TOLERANCE, at(10), |_| WAIT);
        let [Step::Ping { target, seq }] = steps[..] else { panic!("{steps:?}") };
        assert!(detector.is_doubted(target));
        assert_eq!(detector.handle_ack(at(12), id(2), seq), None, "somebody else");
        let unused = detector.take_seq();
        assert_eq!(detector.handle_ack(at(12), id(1), unused), None, "no number of ours");
        let answered = detector.handle_ack(at(12), id(1), first).unwrap();
        assert_eq!(answered.round_trip, Duration::from_millis(12), "that of the first ping");
        assert!(answered.own && answered.askers.is_empty());
        assert_eq!(detector.handle_ack(at(12), id(1), seq), None);
        assert_eq!((detector.next_deadline(), detector.numbers.len()), (None, 0));
    }

    #[test]
    fn a_witness_tells_all_who_asked_and_knows_it_for_a_while() {
        let mut detector = detector();
        let (asker, other) = ((id(5), 50), (id(6), 60));
        assert!(matches!(
            detector.watch(at(0), id(1), WAIT, (asker, Duration::ZERO)),
            Watched::Ping(_)
        ));
        assert_eq!(detector.watch(at(5), id(1), WAIT, (other, Duration::ZERO)), Watched::UnderWay);
        assert_eq!(detector.watch(at(6), id(1), WAIT, (other, Duration::ZERO)), Watched::UnderWay);
        let (now, step) = run(&mut detector, &mut 1);
        let Step::Silent { own, askers, .. } = step else { panic!("it suspects nobody itself") };
        assert_eq!((own, askers), (false, vec![asker, other]));
        assert_eq!(
            detector.watch(now, id(1), WAIT, (asker, Duration::ZERO)),
            Watched::Saw(Sight::Silence)
        );
        // If nothing comes of it, it wants to know itself.
        assert_eq!(run(&mut detector, &mut 1).1, Step::Suspect { target: id(1) });
        assert!(detector.is_own(id(1)));
    }

    #[test]
    fn a_witness_waits_for_what_is_left_of_the_silence() {
        let mut detector = detector();
        let ask = ((id(5), 50), Duration::from_millis(300));
        assert!(matches!(detector.watch(at(0), id(1), WAIT, ask), Watched::Ping(_)));
        let (now, _) = run(&mut detector, &mut 1);
        assert_eq!(now, at(500));
    }

    #[test]
    fn who_hears_nobody_is_no_witness() {
        let mut detector = detector();
        assert!(matches!(
            detector.watch(at(0), id(1), WAIT, ((id(5), 50), Duration::ZERO)),
            Watched::Ping(_)
        ));
        for _ in 0..100 {
            let now = detector.next_deadline().unwrap();
            let steps = detector.due(now, TOLERANCE, at(0), |_| WAIT);
            assert!(steps.iter().all(|step| matches!(step, Step::Ping { .. })), "{steps:?}");
        }
        assert!(detector.next_deadline().unwrap() > at(0) + 4 * TOLERANCE);
    }

    #[test]
    fn the_silence_of_a_sleeper_is_its_own() {
        let mut detector = detector();
        assert!(detector.begin(at(0), id(1), WAIT).is_some());
        let woken = at(0) + 10 * TOLERANCE;
        let steps = detector.due(woken, TOLERANCE, woken, |_| WAIT);
        assert!(matches!(steps[..], [Step::Ping { .. }]), "{steps:?}");
        let mut pings = 2;
        assert_eq!(run(&mut detector, &mut pings).1, Step::Suspect { target: id(1) });
        let (now, _) = run(&mut detector, &mut pings);
        assert!(now + WAIT >= woken + TOLERANCE, "{now:?}");
    }

    #[test]
    fn the_silence_of_a_time_in_which_nobody_was_heard_is_void() {
        let mut detector = detector();
        let first = detector.begin(at(0), id(1), WAIT).unwrap();
        let mut pings = 1;
        assert_eq!(run(&mut detector, &mut pings).1, Step::Suspect { target: id(1) });
        let (silent, step) = run(&mut detector, &mut pings);
        assert!(matches!(step, Step::Silent { .. }), "{step:?}");
        let asker = ((id(5), 50), Duration::ZERO);
        assert_eq!(detector.watch(silent, id(1), WAIT, asker), Watched::Saw(Sight::Silence));
        let heard = silent + TOLERANCE;
        detector.start_again(heard);
        assert_eq!(detector.waited(heard, id(1)), Duration::ZERO);
        assert_eq!(detector.watch(heard, id(1), WAIT, asker), Watched::UnderWay);
        assert_eq!(detector.handle_ack(heard, id(1), first), None, "that was before");
        pings = 1;
        assert_eq!(
            run(&mut detector, &mut pings),
            (heard + 5 * WAIT, Step::Suspect { target: id(1) })
        );
        assert_eq!(pings, PINGS);
        let (now, _) = run(&mut detector, &mut pings);
        assert_eq!(now, heard + TOLERANCE, "and its silence has to last anew");
    }

    #[test]
    fn a_bounced_ping_counts_as_seen() {
        let mut detector = detector();
        assert_eq!(detector.bounced(at(0), id(1)), None, "nobody asked");
        assert!(matches!(
            detector.watch(at(0), id(1), WAIT, ((id(5), 50), Duration::ZERO)),
            Watched::Ping(_)
        ));
        assert_eq!(detector.begin(at(0), id(1), WAIT), None, "under way");
        let saw = Sight::Unreachable;
        let step = Step::Silent { target: id(1), saw, own: true, askers: vec![(id(5), 50)] };
        assert_eq!(detector.bounced(at(1), id(1)), Some(step));
        assert_eq!(detector.bounced(at(2), id(1)), None, "that is known");
        assert_eq!(
            detector.watch(at(2), id(1), WAIT, ((id(6), 60), Duration::ZERO)),
            Watched::Saw(saw)
        );
        detector.disown(id(1));
        assert_eq!(detector.next_deadline(), None);
    }

    #[test]
    fn a_number_that_is_waited_for_is_not_taken_again() {
        let mut detector = detector();
        let waited = detector.begin(at(0), id(1), WAIT).unwrap();
        let free = usize::from(u16::MAX);
        let mut taken: Vec<_> = (0..free).map(|_| detector.take_seq()).collect();
        let again = detector.take_seq();
        assert_eq!(again, taken[0], "they come round");
        assert!(!taken.contains(&waited));
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), free, "and all others were taken once");
    }

    #[test]
    fn who_is_reached_through_others_is_followed_and_named() {
        let mut detector = detector();
        assert_eq!(detector.next_followed(), None);
        for _ in 0..NAMED_AFTER {
            assert_eq!(detector.reached_indirectly().count(), 0);
            detector.reached_through_others(id(7));
        }
        detector.follow(id(3));
        assert_eq!(detector.reached_indirectly().collect::<Vec<_>>(), [id(7)]);
        let turns: Vec<_> = (0..4).map(|_| detector.next_followed().unwrap()).collect();
        assert_eq!(turns, [id(3), id(7), id(3), id(7)]);
        detector.reached(id(7));
        assert_eq!(detector.reached_indirectly().count(), 0);
    }

    #[test]
    fn what_is_kept_for_others_is_bounded() {
        let mut detector = detector();
        for n in 0..MAX_ASKERS as u64 + 5 {
            let watched = detector.watch(at(0), id(1), WAIT, ((id(100 + n), 1), Duration::ZERO));
            assert_eq!(watched == Watched::Refused, n >= MAX_ASKERS as u64, "{n}");
        }
        let own = (2..100).filter(|n| detector.begin(at(0), id(*n), WAIT).is_some());
        assert_eq!(own.count(), MAX_OWN);
        for n in 100..MAX_PROBES as u64 + 100 {
            let _ = detector.watch(at(0), id(n), WAIT, ((id(1), 1), Duration::ZERO));
        }
        assert_eq!(detector.probes.len(), MAX_PROBES);
        assert_eq!(
            detector.watch(at(0), id(99_999), WAIT, ((id(1), 1), Duration::ZERO)),
            Watched::Refused
        );
    }
}
