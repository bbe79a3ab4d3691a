//! SWIM (DSN 2002) and Lifeguard (2018) as their papers have them: what rolecall's own detector is
//! compared with, in the simulator only.
//!
//! ```text
//!   Probe timer                timeout                   Probe timer (round ends)
//!   ---------->  pinged  ------------------->  asked  ------------------------->  failed:
//!                  |     k helpers are asked    |         neither answered        accuse
//!                  +------------+---------------+
//!                               | ack, direct or through a helper
//!                               v
//!                            answered
//!            accusation by X                     accusation by Y, Z (independent)
//!   alive ---------------------> suspected ------------------------------------+
//!     ^                             |  ^------ deadline shrinks from max to min +
//!     | refutation                  | deadline
//!     +-----------------------------+-------------> verdict: failed
//! ```
//! SWIM, sections 3.1 and 4.3: targets are taken from a shuffled list, so that each member is
//! probed once per walk of it. Deviation: a new member is on the next walk's list only.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::node::NodeId;
use crate::time::Instant;
use crate::wire::frame::Incarnation;

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
    /// The probe of this round.
    Round { target: NodeId },
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
    /// When helpers are asked.
    ask_at: Option<Instant>,
    answered: bool,
    helpers: Vec<NodeId>,
    nacked: Vec<NodeId>,
}

/// The probe list, the current round, and the probes made for others.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// Who is still to be probed in this walk.
    walk: Vec<NodeId>,
    round: Option<Round>,
    relays: BTreeMap<u16, Relay>,
    /// When each of them is to be nacked, and after that, forgotten.
    relay_deadlines: Deadlines<u16>,
}

impl Rounds {
    /// Whom to probe in a new round, of these peers.
    pub(super) fn next_target(&mut self, peers: &[NodeId], rng: &mut ChaCha8Rng) -> Option<NodeId> {
        loop {
            if self.walk.is_empty() {
                self.walk = peers.to_vec();
                self.walk.shuffle(rng);
            }
            let next = self.walk.pop()?;
            if peers.binary_search(&next).is_ok() {
                return Some(next);
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

    /// Begins a round with this target; helpers are asked at `ask_at`.
    pub(super) fn begin_round(&mut self, target: NodeId, seq: u16, ask_at: Instant) {
        self.round = Some(Round {
            target,
            seq,
            ask_at: Some(ask_at),
            answered: false,
            helpers: Vec::new(),
            nacked: Vec::new(),
        });
    }

    /// The target and number of this round's ping, when it is time to ask helpers.
    pub(super) fn take_unanswered(&mut self, now: Instant) -> Option<(NodeId, u16)> {
        let round = self.round.as_mut()?;
        round.ask_at.filter(|at| *at <= now)?;
        round.ask_at = None;
        (!round.answered).then_some((round.target, round.seq))
    }

    /// Notes who was asked to help.
    pub(super) fn asked(&mut self, helpers: Vec<NodeId>) {
        if let Some(round) = &mut self.round {
            round.helpers = helpers;
        }
    }

    /// An ack came. A round's answer counts from its target or from one of its helpers.
    pub(super) fn handle_ack(&mut self, from: NodeId, seq: u16) -> Acked {
        if let Some(round) = &mut self.round
            && round.seq == seq
            && (round.target == from || round.helpers.contains(&from))
        {
            round.answered = true;
            round.ask_at = None;
            return Acked::Round { target: round.target };
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

    /// Takes on a probe for another member, whose ping has this number, unless there are too many.
    pub(super) fn relay(
        &mut self,
        now: Instant,
        timeout: Duration,
        (origin, origin_seq): (NodeId, u16),
        (target, seq): (NodeId, u16),
    ) -> bool {
        if self.relays.len() >= MAX_RELAYS {
            return false;
        }
        let forget_at = now + timeout * 4;
        let relay = Relay { origin, origin_seq, target, nacked: false, forget_at };
        self.relays.insert(seq, relay);
        self.relay_deadlines.set(seq, now + timeout.mul_f64(NACK_SHARE));
        true
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

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let ask = self.round.as_ref().and_then(|round| round.ask_at);
        ask.into_iter().chain(self.relay_deadlines.next()).min()
    }
}

/// Independent confirmations that bring the deadline down to its minimum (Lifeguard's K, section
/// V: 3).
const CONFIRMATIONS: usize = 3;

/// Accusers that are remembered as witnesses, the first among them.
const MAX_ACCUSERS: usize = 8;

/// A member that is suspected.
#[derive(Clone, Debug)]
pub(super) struct Accusation {
    pub(super) incarnation: Incarnation,
    /// The first is the accuser, the others confirmed.
    pub(super) accusers: Vec<NodeId>,
    started: Instant,
    min: Duration,
    max: Duration,
    needed: usize,
}

impl Accusation {
    /// Lifeguard, section IV.B: `max - (max - min) * log(C + 1) / log(K + 1)`, at least `min`.
    #[expect(clippy::cast_precision_loss, reason = "both counts are at most 8")]
    fn deadline(&self) -> Instant {
        let confirmed = self.accusers.len() - 1;
        if confirmed >= self.needed {
            return self.started + self.min;
        }
        let share = ((confirmed + 1) as f64).ln() / ((self.needed + 1) as f64).ln();
        let shrunk = self.max.saturating_sub(self.max.saturating_sub(self.min).mul_f64(share));
        self.started + shrunk.max(self.min)
    }
}

/// What an accusation did.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Accused {
    /// It began a suspicion.
    New,
    /// It confirmed one: worth passing on.
    Confirmed,
    /// Nothing new.
    Known,
}

/// All suspicions that this node holds.
#[derive(Debug, Default)]
pub(super) struct Accusations {
    by_node: BTreeMap<NodeId, Accusation>,
    deadlines: Deadlines<NodeId>,
}

impl Accusations {
    /// Records an accusation in a cluster of `alive` live nodes (this one included).
    pub(super) fn accuse(
        &mut self,
        now: Instant,
        (min, max): (Duration, Duration),
        alive: usize,
        (id, incarnation): (NodeId, Incarnation),
        by: NodeId,
    ) -> Accused {
        if let Some(held) = self.by_node.get_mut(&id)
            && held.incarnation >= incarnation
        {
            let known = held.incarnation > incarnation || held.accusers.contains(&by);
            if known || held.accusers.len() == MAX_ACCUSERS {
                return Accused::Known;
            }
            held.accusers.push(by);
            self.deadlines.set(id, held.deadline());
            return Accused::Confirmed;
        }
        let suspicion = Accusation {
            incarnation,
            accusers: vec![by],
            started: now,
            min,
            max,
            // Neither the suspect nor its accuser can confirm.
            needed: CONFIRMATIONS.min(alive.saturating_sub(2)),
        };
        self.deadlines.set(id, suspicion.deadline());
        self.by_node.insert(id, suspicion);
        Accused::New
    }

    /// Ends a suspicion, whatever it came to.
    pub(super) fn remove(&mut self, id: NodeId) -> Option<Accusation> {
        self.deadlines.clear(id);
        self.by_node.remove(&id)
    }

    /// A suspicion whose deadline has passed; the caller declares the verdict and removes it.
    pub(super) fn expired(&self, now: Instant) -> Option<(NodeId, Incarnation)> {
        let id = *self.deadlines.due(now).first()?;
        Some((id, self.by_node[&id].incarnation))
    }

    pub(super) fn of(&self, id: NodeId) -> Option<&Accusation> {
        self.by_node.get(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.by_node.len()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// What must always hold.
    pub(super) fn check(&self) {
        let first = self.by_node.values().map(Accusation::deadline).min();
        assert_eq!(self.deadlines.next(), first, "the first deadline is a suspicion's");
        assert!(self.deadlines.keys().eq(self.by_node.keys().copied()));
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Swim {
    pub(super) rounds: Rounds,
    pub(super) accusations: Accusations,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const BOUNDS: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(24));

    fn id(n: u64) -> NodeId {
        NodeId::from_u64(n).unwrap()
    }

    #[test]
    fn confirmations_shrink_the_deadline_from_max_to_min() {
        let mut all = Accusations::default();
        let victim = (id(9), Incarnation(0));
        let start = Instant::ORIGIN;
        assert_eq!(all.accuse(start, BOUNDS, 10, victim, id(1)), Accused::New);
        assert_eq!(all.next_deadline().unwrap() - start, Duration::from_secs(24));
        assert_eq!(all.accuse(start, BOUNDS, 10, victim, id(1)), Accused::Known);
        assert_eq!(all.accuse(start, BOUNDS, 10, victim, id(2)), Accused::Confirmed);
        let one = all.next_deadline().unwrap() - start;
        assert!(one < Duration::from_secs(24) && one > Duration::from_secs(4), "{one:?}");
        assert_eq!(all.accuse(start, BOUNDS, 10, victim, id(3)), Accused::Confirmed);
        assert_eq!(all.accuse(start, BOUNDS, 10, victim, id(4)), Accused::Confirmed);
        assert_eq!(all.next_deadline().unwrap() - start, Duration::from_secs(4));
        assert_eq!(all.expired(start + Duration::from_secs(3)), None);
        assert_eq!(all.expired(start + Duration::from_secs(4)), Some(victim));
    }

    #[test]
    fn with_two_nodes_nobody_can_confirm_and_the_minimum_holds() {
        let mut all = Accusations::default();
        let accused = all.accuse(Instant::ORIGIN, BOUNDS, 2, (id(9), Incarnation(0)), id(1));
        assert_eq!(accused, Accused::New);
        assert_eq!(all.next_deadline(), Some(Instant::ORIGIN + Duration::from_secs(4)));
    }

    #[test]
    fn a_newer_incarnation_starts_over() {
        let mut all = Accusations::default();
        let start = Instant::ORIGIN;
        assert_eq!(all.accuse(start, BOUNDS, 10, (id(9), Incarnation(1)), id(1)), Accused::New);
        assert_eq!(all.accuse(start, BOUNDS, 10, (id(9), Incarnation(0)), id(2)), Accused::Known);
        assert_eq!(all.accuse(start, BOUNDS, 10, (id(9), Incarnation(2)), id(2)), Accused::New);
        assert_eq!(all.of(id(9)).unwrap().accusers, vec![id(2)]);
    }

    #[test]
    fn each_member_is_probed_once_per_walk() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut rounds = Rounds::default();
        let peers: Vec<_> = (1..=7).map(id).collect();
        for _ in 0..5 {
            let walk = (0..7).map(|_| rounds.next_target(&peers, &mut rng).unwrap());
            let mut seen: Vec<_> = walk.collect();
            seen.sort_unstable();
            assert_eq!(seen, peers);
        }
        let gone = rounds.next_target(&peers, &mut rng).unwrap();
        let rest: Vec<_> = peers.into_iter().filter(|id| *id != gone).collect();
        let walk = (0..12).map(|_| rounds.next_target(&rest, &mut rng).unwrap());
        assert!(walk.into_iter().all(|id| id != gone));
    }

    #[test]
    fn only_the_target_or_a_helper_can_answer() {
        let mut rounds = Rounds::default();
        let at = Instant::ORIGIN + Duration::from_millis(500);
        rounds.begin_round(id(1), 5, at);
        assert!(matches!(rounds.handle_ack(id(77), 5), Acked::Nothing));
        assert_eq!(rounds.take_unanswered(Instant::ORIGIN), None);
        assert_eq!(rounds.take_unanswered(at), Some((id(1), 5)));
        rounds.asked(vec![id(50), id(51)]);
        rounds.handle_nack(id(50), 5);
        rounds.handle_nack(id(50), 5);
        assert_eq!(rounds.end_round(), Ended::Failed { target: id(1), nacks_missed: 1 });
        rounds.begin_round(id(2), 6, at);
        assert!(matches!(rounds.handle_ack(id(2), 6), Acked::Round { target } if target == id(2)));
        assert_eq!(rounds.end_round(), Ended::Answered);
        assert_eq!(rounds.end_round(), Ended::Idle);
    }

    #[test]
    fn a_relay_nacks_once_and_is_forgotten() {
        let mut rounds = Rounds::default();
        let timeout = Duration::from_millis(100);
        let start = Instant::ORIGIN;
        assert!(rounds.relay(start, timeout, (id(1), 9), (id(2), 4)));
        assert!(rounds.due_nacks(start + Duration::from_millis(79)).is_empty());
        assert_eq!(rounds.due_nacks(start + Duration::from_millis(80)).len(), 1);
        assert!(rounds.due_nacks(start + Duration::from_millis(81)).is_empty());
        assert!(matches!(rounds.handle_ack(id(2), 4), Acked::Relay(r) if r.origin_seq == 9));
        assert!(matches!(rounds.handle_ack(id(2), 4), Acked::Nothing));
        assert_eq!(rounds.next_deadline(), None);
    }
}
