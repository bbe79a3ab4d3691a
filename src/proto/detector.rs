//! The failure detector: whom to probe, what an answer means, when a probe has failed.
//!
//! ```text
//!   Probe timer                ProbeTimeout              Probe timer (round ends)
//!   ---------->  pinged  ------------------->  asked  ------------------------->  failed:
//!                  |     ping again, and k       |         neither answered        accuse
//!                  |     helpers to ping         |
//!                  +------------+----------------+
//!                               | ack, direct or through a helper
//!                               v
//!                            answered
//! ```
//! SWIM (DSN 2002), sections 3.1 and 4.3: targets are taken from a shuffled list, so that each
//! member is probed once per walk of it. Deviation: the direct ping is repeated together with the
//! indirect ones, which over lossy links costs one datagram and saves most false suspicions.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::node::NodeId;
use crate::time::Instant;

use super::timer::Deadlines;

/// Probes made for others at one time; further requests are ignored.
pub(super) const MAX_RELAYS: usize = 1024;

/// A helper's nack is due at this share of its probe timeout (Lifeguard, section IV.A: 80 %).
const NACK_SHARE: f64 = 0.8;

/// A probe made for another member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relay {
    /// Who asked.
    pub(super) origin: NodeId,
    /// Its number for the probe.
    pub(super) origin_seq: u16,
    /// Who was probed.
    pub(super) target: NodeId,
    nacked: bool,
    forget_at: Instant,
}

/// What an ack answered.
#[must_use]
#[derive(Clone, Copy, Debug)]
pub(super) enum Acked {
    /// The probe of this round; how long it took, if the target answered the first ping itself.
    Round { target: NodeId, round_trip: Option<Duration> },
    /// A probe made for somebody else: pass it on.
    Relay(Relay),
    /// Nothing that is still waited for.
    Nothing,
}

/// How a round ended.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    /// Nobody was probed.
    Idle,
    /// The target answered.
    Answered,
    /// It did not, and so many helpers sent neither ack nor nack.
    Failed { target: NodeId, nacks_missed: u32 },
}

#[derive(Debug)]
struct Round {
    target: NodeId,
    seq: u16,
    begun: Instant,
    /// Whether the target was pinged again, so that nobody knows which ping it answers.
    repeated: bool,
    answered: bool,
    helpers: Vec<NodeId>,
    nacked: Vec<NodeId>,
}

/// The probe list, the current round, and the probes made for others.
#[derive(Debug)]
pub(super) struct Detector {
    order: Vec<NodeId>,
    cursor: usize,
    next_seq: u16,
    round: Option<Round>,
    relays: BTreeMap<u16, Relay>,
    /// When each of them is to be nacked, and after that, forgotten.
    relay_deadlines: Deadlines<u16>,
}

impl Detector {
    pub(super) fn new(rng: &mut ChaCha8Rng) -> Detector {
        Detector {
            order: Vec::new(),
            cursor: 0,
            // A random start makes a blind forger guess it, beside the id of who is asked.
            next_seq: rng.random(),
            round: None,
            relays: BTreeMap::new(),
            relay_deadlines: Deadlines::default(),
        }
    }

    /// A number for a ping that no other ping of this node has had for long, and none that is still
    /// waited for here.
    pub(super) fn take_seq(&mut self) -> u16 {
        loop {
            self.next_seq = self.next_seq.wrapping_add(1);
            if !self.is_in_use(self.next_seq) {
                return self.next_seq;
            }
        }
    }

    /// At most one round and [`MAX_RELAYS`] relays hold a number, so most are free.
    fn is_in_use(&self, seq: u16) -> bool {
        let of_round = self.round.as_ref().is_some_and(|round| round.seq == seq);
        of_round || self.relays.contains_key(&seq)
    }

    /// SWIM, section 4.3: a new member is inserted at a random place of the list.
    pub(super) fn add(&mut self, id: NodeId, rng: &mut ChaCha8Rng) {
        let at = rng.random_range(0..=self.order.len());
        self.order.insert(at, id);
        if at < self.cursor {
            self.cursor += 1;
        }
    }

    /// Begins with all of these, in the middle of a walk.
    #[cfg(feature = "sim")]
    pub(super) fn acquaint(&mut self, others: &[NodeId], rng: &mut ChaCha8Rng) {
        self.order = others.to_vec();
        self.order.shuffle(rng);
        self.cursor = rng.random_range(0..=self.order.len());
    }

    pub(super) fn remove(&mut self, id: NodeId) {
        if let Some(at) = self.order.iter().position(|other| *other == id) {
            self.order.remove(at);
            if at < self.cursor {
                self.cursor -= 1;
            }
        }
    }

    /// Ends the round before, if any.
    pub(super) fn end_round(&mut self) -> Ended {
        match self.round.take() {
            None => Ended::Idle,
            Some(round) if round.answered => Ended::Answered,
            Some(round) => {
                let missed = round.helpers.len() - round.nacked.len();
                Ended::Failed {
                    target: round.target,
                    nacks_missed: u32::try_from(missed).unwrap_or(u32::MAX),
                }
            }
        }
    }

    /// Begins a round: the target and the number of its ping, unless there is nobody to probe.
    pub(super) fn begin_round(
        &mut self,
        now: Instant,
        rng: &mut ChaCha8Rng,
    ) -> Option<(NodeId, u16)> {
        if self.cursor >= self.order.len() {
            self.order.shuffle(rng);
            self.cursor = 0;
        }
        let target = *self.order.get(self.cursor)?;
        self.cursor += 1;
        Some((target, self.begin_round_with(now, target)))
    }

    /// Begins a round with this target, and returns the number of its ping.
    pub(super) fn begin_round_with(&mut self, now: Instant, target: NodeId) -> u16 {
        let seq = self.take_seq();
        self.round = Some(Round {
            target,
            seq,
            begun: now,
            repeated: false,
            answered: false,
            helpers: Vec::new(),
            nacked: Vec::new(),
        });
        seq
    }

    /// The target and number of this round's ping while it is unanswered.
    pub(super) fn unanswered(&self) -> Option<(NodeId, u16)> {
        self.round.as_ref().filter(|round| !round.answered).map(|round| (round.target, round.seq))
    }

    /// Notes who was asked to help.
    pub(super) fn asked(&mut self, helpers: Vec<NodeId>) {
        if let Some(round) = &mut self.round {
            round.helpers = helpers;
            round.repeated = true;
        }
    }

    /// An ack came. A round's answer counts from its target or from one of its helpers.
    pub(super) fn handle_ack(&mut self, now: Instant, from: NodeId, seq: u16) -> Acked {
        if let Some(round) = &mut self.round
            && round.seq == seq
            && (round.target == from || round.helpers.contains(&from))
        {
            let first = !round.answered && !round.repeated;
            round.answered = true;
            let round_trip = first.then(|| now - round.begun);
            return Acked::Round { target: round.target, round_trip };
        }
        match self.relays.get(&seq) {
            Some(relay) if relay.target == from => {
                let relay = self.relays.remove(&seq).expect("it was found just now");
                self.relay_deadlines.clear(seq);
                Acked::Relay(relay)
            }
            _ => Acked::Nothing,
        }
    }

    /// A nack came: the helper lives and has tried.
    pub(super) fn handle_nack(&mut self, from: NodeId, seq: u16) {
        if let Some(round) = &mut self.round
            && round.seq == seq
            && round.helpers.contains(&from)
            && !round.nacked.contains(&from)
        {
            round.nacked.push(from);
        }
    }

    /// Takes on a probe for another member: the number for the ping, unless there are too many.
    pub(super) fn relay(
        &mut self,
        now: Instant,
        timeout: Duration,
        (origin, origin_seq): (NodeId, u16),
        target: NodeId,
    ) -> Option<u16> {
        if self.relays.len() >= MAX_RELAYS {
            return None;
        }
        let seq = self.take_seq();
        let forget_at = now + timeout * 4;
        let relay = Relay { origin, origin_seq, target, nacked: false, forget_at };
        self.relays.insert(seq, relay);
        self.relay_deadlines.set(seq, now + timeout.mul_f64(NACK_SHARE));
        Some(seq)
    }

    /// Forgets old probes made for others, and returns those whose nack is due.
    pub(super) fn due_nacks(&mut self, now: Instant) -> Vec<Relay> {
        let mut due = Vec::new();
        for seq in self.relay_deadlines.due(now) {
            let relay = self.relays.get_mut(&seq).expect("only what waits has a deadline");
            if relay.forget_at <= now {
                self.relays.remove(&seq);
                self.relay_deadlines.clear(seq);
            } else if !std::mem::replace(&mut relay.nacked, true) {
                self.relay_deadlines.set(seq, relay.forget_at);
                due.push(*relay);
            }
        }
        due
    }

    #[cfg(feature = "sim")]
    pub(super) fn relays_len(&self) -> usize {
        self.relays.len()
    }

    pub(super) fn next_relay_deadline(&self) -> Option<Instant> {
        self.relay_deadlines.next()
    }

    #[cfg(any(test, debug_assertions, feature = "sim"))]
    pub(super) fn probed(&self) -> &[NodeId] {
        &self.order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn id(n: u64) -> NodeId {
        NodeId::from_u64(n).unwrap()
    }

    fn with_members(count: u64) -> (Detector, ChaCha8Rng) {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut detector = Detector::new(&mut rng);
        for n in 1..=count {
            detector.add(id(n), &mut rng);
        }
        (detector, rng)
    }

    #[test]
    fn each_member_is_probed_once_per_walk() {
        let (mut detector, mut rng) = with_members(7);
        for _ in 0..5 {
            let mut seen: Vec<_> = (0..7)
                .map(|_| detector.begin_round(Instant::ORIGIN, &mut rng).unwrap().0.as_u64())
                .collect();
            seen.sort_unstable();
            assert_eq!(seen, vec![1, 2, 3, 4, 5, 6, 7]);
        }
    }

    #[test]
    fn removal_skips_nobody() {
        let (mut detector, mut rng) = with_members(5);
        let first = detector.begin_round(Instant::ORIGIN, &mut rng).unwrap().0;
        detector.remove(first);
        let mut rest: Vec<_> =
            (0..4).map(|_| detector.begin_round(Instant::ORIGIN, &mut rng).unwrap().0).collect();
        rest.sort_unstable();
        rest.dedup();
        assert_eq!(rest.len(), 4);
        assert!(!rest.contains(&first));
    }

    #[test]
    fn only_the_target_or_a_helper_can_answer() {
        let (mut detector, mut rng) = with_members(4);
        let (target, seq) = detector.begin_round(Instant::ORIGIN, &mut rng).unwrap();
        let stranger = id(77);
        assert!(matches!(detector.handle_ack(Instant::ORIGIN, stranger, seq), Acked::Nothing));
        detector.asked(vec![id(50), id(51)]);
        detector.handle_nack(id(50), seq);
        detector.handle_nack(id(50), seq);
        assert_eq!(detector.unanswered(), Some((target, seq)));
        assert_eq!(detector.end_round(), Ended::Failed { target, nacks_missed: 1 });
        let (target, seq) = detector.begin_round(Instant::ORIGIN, &mut rng).unwrap();
        let answered = detector.handle_ack(Instant::ORIGIN, target, seq);
        assert!(matches!(answered, Acked::Round { target: t, .. } if t == target));
        assert_eq!(detector.end_round(), Ended::Answered);
        assert_eq!(detector.end_round(), Ended::Idle);
    }

    #[test]
    fn a_relay_nacks_once_and_is_forgotten() {
        let (mut detector, _) = with_members(2);
        let timeout = Duration::from_millis(100);
        let start = Instant::ORIGIN;
        let seq = detector.relay(start, timeout, (id(1), 9), id(2)).unwrap();
        assert!(detector.due_nacks(start + Duration::from_millis(79)).is_empty());
        assert_eq!(detector.due_nacks(start + Duration::from_millis(80)).len(), 1);
        assert!(detector.due_nacks(start + Duration::from_millis(81)).is_empty());
        let passed_on = detector.handle_ack(Instant::ORIGIN, id(2), seq);
        assert!(matches!(passed_on, Acked::Relay(r) if r.origin_seq == 9));
        assert!(matches!(detector.handle_ack(Instant::ORIGIN, id(2), seq), Acked::Nothing));
        assert_eq!(detector.next_relay_deadline(), None);
    }

    #[test]
    fn a_number_that_is_waited_for_is_not_taken_again() {
        let (mut detector, mut rng) = with_members(2);
        let (_, of_round) = detector.begin_round(Instant::ORIGIN, &mut rng).unwrap();
        let timeout = Duration::from_millis(100);
        let of_relay = detector.relay(Instant::ORIGIN, timeout, (id(1), 9), id(2)).unwrap();
        let free = usize::from(u16::MAX) - 1;
        let mut taken: Vec<_> = (0..free).map(|_| detector.take_seq()).collect();
        let again = detector.take_seq();
        assert_eq!(again, taken[0], "they come round");
        assert!(!taken.contains(&of_round) && !taken.contains(&of_relay));
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), free, "and all others were taken once");
    }
}
