//! The fast path: an update to everybody in a few hops, each acknowledged.
//!
//! ```text
//!   the teller's part of all ids: [ low                  self                     high ]
//!   split, by the members it knows: [ part ][ part ][ part ]  [ part ][ part ][ part ]
//!                                        \ one datagram to one member in each, its owner,
//!                                          which splits the rest of it again, and so on
//!
//!   opened --ack of any who was tried--> done
//!     ^  \ no ack in time
//!     |   `-> another member of the part --+-> after a few tries: given up,
//!     +------------------------------------+   left to gossip and pull
//! ```
//! Parts are ranges of ids, not places in a list: whoever knows of more members in its part than
//! the one who gave it tells them too, and nobody's part is counted differently by two nodes.
//! The teller itself lies between two parts, so that nobody is told twice.
//!
//! The tree is that of El-Ansary, Alima, Brand and Haridi, "Efficient Broadcast in Structured P2P
//! Networks" (IPTPS 2003), where each node splits the part of the ring that it was given. That
//! hops are acknowledged and tried with others is ours.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::node::NodeId;
use crate::time::Instant;

use super::timer::Deadlines;

/// Hops that wait for an acknowledgement at one time; further ones are left to gossip.
pub(super) const MAX_HOPS: usize = 4096;

/// Members of a part that are tried, or times that its only one is.
const MAX_TRIES: usize = 7;

/// A range of ids that somebody is to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part {
    pub(super) low: NodeId,
    pub(super) high: NodeId,
}

impl Part {
    /// All ids.
    pub(super) const ALL: Part = Part { low: NodeId::MIN, high: NodeId::MAX };

    /// Those of a sorted list that are in it.
    pub(super) fn of(self, ids: &[NodeId]) -> &[NodeId] {
        let start = ids.partition_point(|id| *id < self.low);
        let end = ids.partition_point(|id| *id <= self.high);
        ids.get(start..end).unwrap_or_default()
    }

    /// Splits it into about `count` parts of equally many of `ids` (sorted, all in it, without
    /// `local`), each with one of them at least. `local` is in none of them, so that what is
    /// passed on and on comes to an end, whoever knows whom. Only where it begins (`first`) every
    /// id is in a part, even if that is `local`'s own: a newcomer knows nobody but its seed.
    #[must_use]
    pub(super) fn split(
        self,
        local: NodeId,
        ids: &[NodeId],
        count: usize,
        first: bool,
    ) -> Vec<Part> {
        let (before, after) = ids.split_at(ids.partition_point(|id| *id < local));
        let count = count.max(1).min(ids.len());
        // Each side gets its share, rounded, but something if it has anybody.
        let least = usize::from(!before.is_empty());
        let most = count.saturating_sub(usize::from(!after.is_empty())).max(least);
        let share = (count * before.len() + ids.len() / 2).checked_div(ids.len()).unwrap_or(0);
        let share = share.clamp(least, most);
        let rest = (count - share.min(count)).max(usize::from(!after.is_empty()));
        let (below, above) = (local.previous(), local.next().unwrap_or(local));
        let mut parts = Vec::with_capacity(share + rest);
        let end = if first && after.is_empty() { self.high } else { self.high.min(below) };
        cut(Part { high: end, ..self }, before, share, &mut parts);
        let start = if first && before.is_empty() { self.low } else { self.low.max(above) };
        cut(Part { low: start, ..self }, after, rest, &mut parts);
        parts
    }
}

/// Cuts a part into `count` of equally many of the ids in it.
fn cut(part: Part, ids: &[NodeId], count: usize, parts: &mut Vec<Part>) {
    let mut low = part.low;
    for n in 1..=count.min(ids.len()) {
        let count = count.min(ids.len());
        let last = ids[ids.len() * n / count - 1];
        let high = if n == count { part.high } else { last };
        parts.push(Part { low, high });
        low = high.next().unwrap_or(high);
    }
}

/// What may be sent: bytes that come in at a steady rate, up to one second's worth.
#[derive(Debug)]
struct Budget {
    bytes: u64,
    filled_at: Instant,
}

impl Budget {
    fn fill(&mut self, now: Instant, per_second: u64) {
        let passed = u64::try_from((now - self.filled_at).as_micros()).unwrap_or(u64::MAX);
        let gained = per_second.saturating_mul(passed.min(1_000_000)) / 1_000_000;
        if passed >= 1_000_000 {
            (self.bytes, self.filled_at) = (per_second, now);
        } else if gained > 0 {
            // Only the time that whole bytes took is used up.
            self.filled_at += Duration::from_micros(gained * 1_000_000 / per_second);
            self.bytes = self.bytes.saturating_add(gained).min(per_second);
        }
    }
}

/// A part that was given to somebody who has not acknowledged it.
#[derive(Debug)]
struct Hop<C> {
    part: Part,
    cargo: C,
    /// Who was asked, the last one last.
    tried: Vec<NodeId>,
    sent: Instant,
}

/// A hop whose acknowledgement is overdue.
#[must_use]
#[derive(Debug)]
pub(super) enum Overdue<C> {
    /// It is to be tried with somebody else, if there is one.
    Again { seq: u16, part: Part, cargo: C, tried: Vec<NodeId> },
    /// Enough was tried.
    GivenUp { part: Part, cargo: C },
}

/// The hops under way, what is known of the way, and what may be sent.
#[derive(Debug)]
pub(super) struct Hops<C> {
    open: BTreeMap<u16, Hop<C>>,
    retries: Deadlines<u16>,
    budget: Budget,
}

impl<C: Clone> Hops<C> {
    pub(super) fn new(now: Instant) -> Hops<C> {
        Hops {
            open: BTreeMap::new(),
            retries: Deadlines::default(),
            // Full: what is not there yet has come in before.
            budget: Budget { bytes: u64::MAX, filled_at: now },
        }
    }

    /// Takes so many bytes from the budget, if they are there.
    #[must_use]
    pub(super) fn spend(&mut self, now: Instant, per_second: usize, bytes: usize) -> bool {
        self.budget.bytes = self.budget.bytes.min(per_second as u64);
        self.budget.fill(now, per_second as u64);
        let left = self.budget.bytes.checked_sub(bytes as u64);
        self.budget.bytes = left.unwrap_or(self.budget.bytes);
        left.is_some()
    }

    /// What is left of the budget, in bytes.
    pub(super) fn left(&mut self, now: Instant, per_second: usize) -> usize {
        let filled = self.spend(now, per_second, 0);
        debug_assert!(filled, "nothing can always be spent");
        usize::try_from(self.budget.bytes).unwrap_or(usize::MAX)
    }

    /// Whether a number is that of a hop.
    pub(super) fn is_open(&self, seq: u16) -> bool {
        self.open.contains_key(&seq)
    }

    /// A part is given to somebody; false when too many are under way.
    #[must_use]
    pub(super) fn open(
        &mut self,
        (now, wait): (Instant, Duration),
        seq: u16,
        (part, to): (Part, NodeId),
        cargo: C,
    ) -> bool {
        if self.open.len() >= MAX_HOPS {
            return false;
        }
        self.retries.set(seq, now + wait);
        self.open.insert(seq, Hop { part, cargo, tried: vec![to], sent: now });
        true
    }

    /// The part is given to somebody else. Each try waits twice as long as the one before, at most
    /// `ceiling`.
    pub(super) fn reopen(
        &mut self,
        now: Instant,
        (wait, ceiling): (Duration, Duration),
        seq: u16,
        to: NodeId,
    ) {
        let Some(hop) = self.open.get_mut(&seq) else { return };
        let doublings = hop.tried.len().min(MAX_TRIES);
        hop.tried.push(to);
        self.retries.set(seq, now + (wait * (1 << doublings)).min(ceiling));
    }

    /// Somebody acknowledged a hop: how long that took, if it was waited for, and was not repeated
    /// so that nobody knows what was acknowledged (Karn's rule).
    pub(super) fn handle_ack(&mut self, now: Instant, from: NodeId, seq: u16) -> Option<Duration> {
        let hop = self.open.get(&seq).filter(|hop| hop.tried.contains(&from))?;
        let took = (hop.tried.len() == 1).then(|| now - hop.sent);
        self.open.remove(&seq);
        self.retries.clear(seq);
        took
    }

    /// Hops whose acknowledgement is overdue; each is [reopened](Hops::reopen), or
    /// [given up](Hops::give_up), by the caller.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<Overdue<C>> {
        let due = self.retries.due(now);
        let mut overdue = Vec::with_capacity(due.len());
        for seq in due {
            let hop = &self.open[&seq];
            let (part, cargo) = (hop.part, hop.cargo.clone());
            overdue.push(if hop.tried.len() < MAX_TRIES {
                Overdue::Again { seq, part, cargo, tried: hop.tried.clone() }
            } else {
                self.give_up(seq);
                Overdue::GivenUp { part, cargo }
            });
        }
        overdue
    }

    /// Nobody is tried any more.
    pub(super) fn give_up(&mut self, seq: u16) {
        self.open.remove(&seq);
        self.retries.clear(seq);
    }

    /// The parts that nobody has acknowledged yet.
    pub(super) fn open_parts(&self) -> impl Iterator<Item = (Part, &C)> {
        self.open.values().map(|hop| (hop.part, &hop.cargo))
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.retries.next()
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use std::collections::BTreeSet;

    const CEILING: Duration = Duration::from_millis(500);
    const WAIT: Duration = Duration::from_millis(10);

    fn id(n: u64) -> NodeId {
        NodeId::from_u64(n).unwrap()
    }

    fn draw(rng: &mut ChaCha8Rng, count: usize) -> Vec<NodeId> {
        let mut ids: Vec<NodeId> = (0..count).map(|_| id(rng.random_range(1..u64::MAX))).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    #[test]
    fn parts_hold_everybody_once_and_leave_no_id_out() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for round in 0..500 {
            let count = rng.random_range(1..40);
            let ids = draw(&mut rng, count);
            let local = id(rng.random_range(1..u64::MAX));
            let ids: Vec<NodeId> = ids.into_iter().filter(|it| *it != local).collect();
            let fanout = rng.random_range(1..12);
            let parts = Part::ALL.split(local, &ids, fanout, true);
            assert!(parts.len() <= fanout.max(2), "{round}");
            assert!(parts.iter().all(|part| !part.of(&ids).is_empty()), "{round}");
            assert_eq!((parts[0].low, parts.last().unwrap().high), (NodeId::MIN, NodeId::MAX));
            for pair in parts.windows(2) {
                let next = pair[0].high.next().unwrap();
                let beside_local = next == local && local.next() == Some(pair[1].low);
                assert!(next == pair[1].low || beside_local, "{round}: {pair:?}");
            }
        }
    }

    /// Everybody passes its part on as it knows the others; returns how often each was told.
    fn walk(views: &BTreeMap<NodeId, Vec<NodeId>>, fanout: usize) -> BTreeMap<NodeId, usize> {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let mut told: BTreeMap<NodeId, usize> = BTreeMap::new();
        let first = *views.keys().next().unwrap();
        let mut duties = vec![(first, None, Part::ALL)];
        while let Some((local, teller, part)) = duties.pop() {
            let known = part.of(&views[&local]).iter().copied();
            let known: Vec<NodeId> =
                known.filter(|it| Some(*it) != teller && *it != first).collect();
            for part in part.split(local, &known, fanout, teller.is_none()) {
                let inside = part.of(&known);
                let owner = inside[rng.random_range(0..inside.len())];
                *told.entry(owner).or_default() += 1;
                duties.push((owner, Some(local), part));
            }
            assert!(told.values().sum::<usize>() < 10 * views.len(), "it ends");
        }
        told
    }

    #[test]
    fn everybody_is_told_once_where_all_know_all() {
        let ids = draw(&mut ChaCha8Rng::seed_from_u64(3), 1000);
        let others = |of: NodeId| ids.iter().copied().filter(|it| *it != of).collect();
        let views: BTreeMap<_, Vec<_>> = ids.iter().map(|it| (*it, others(*it))).collect();
        for fanout in [1, 2, 3, 8, 64] {
            let told = walk(&views, fanout);
            assert_eq!(told.len(), ids.len() - 1, "fanout {fanout}");
            let twice = told.values().sum::<usize>() - told.len();
            assert!(twice < ids.len() / 20, "{twice} were told twice, fanout {fanout}");
        }
    }

    #[test]
    fn views_that_differ_lose_nobody_whom_the_owners_know() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let ids = draw(&mut rng, 300);
        let first = ids[0];
        // The first one knows a single node, which knows all: a newcomer and its seed.
        let seed = ids[137];
        let mut views: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
        for local in &ids {
            let others = ids.iter().copied().filter(|it| it != local);
            views.insert(*local, others.collect());
        }
        views.insert(first, vec![seed]);
        let told: BTreeSet<NodeId> = walk(&views, 8).into_keys().collect();
        assert_eq!(told.len(), ids.len() - 1);
    }

    #[test]
    fn a_hop_is_tried_with_others_and_given_up_in_the_end() {
        let mut hops: Hops<&str> = Hops::new(Instant::ORIGIN);
        let mut now = Instant::ORIGIN;
        assert!(hops.open((now, WAIT), 5, (Part::ALL, id(1)), "news"));
        assert!(hops.overdue(now).is_empty());
        let mut tries = 1;
        loop {
            let deadline = hops.next_deadline().unwrap();
            assert!(deadline > now);
            now = deadline;
            match hops.overdue(now).pop().unwrap() {
                Overdue::Again { seq, tried, .. } => {
                    assert_eq!(tried.len(), tries);
                    tries += 1;
                    hops.reopen(now, (WAIT, CEILING), seq, id(tries as u64));
                }
                Overdue::GivenUp { cargo, .. } => {
                    assert_eq!((cargo, tries), ("news", MAX_TRIES));
                    break;
                }
            }
        }
        assert_eq!((hops.len(), hops.next_deadline()), (0, None));
    }

    #[test]
    fn whoever_was_tried_may_acknowledge_and_nobody_else() {
        let mut hops: Hops<()> = Hops::new(Instant::ORIGIN);
        let now = Instant::ORIGIN;
        assert!(hops.open((now, WAIT), 5, (Part::ALL, id(1)), ()));
        hops.reopen(now, (WAIT, CEILING), 5, id(2));
        assert_eq!(hops.handle_ack(now, id(3), 5), None);
        assert_eq!(hops.handle_ack(now, id(1), 6), None);
        assert_eq!(hops.len(), 1);
        assert_eq!(hops.handle_ack(now, id(1), 5), None, "it was repeated");
        assert_eq!(hops.len(), 0);
        assert!(hops.open((now, WAIT), 7, (Part::ALL, id(1)), ()));
        assert_eq!(hops.handle_ack(now + WAIT, id(1), 7), Some(WAIT));
    }

    #[test]
    fn the_budget_comes_in_steadily_and_a_second_of_it_is_saved() {
        let mut hops: Hops<()> = Hops::new(Instant::ORIGIN);
        let at = Instant::from_micros;
        assert!(hops.spend(at(0), 1000, 1000));
        assert!(!hops.spend(at(0), 1000, 1));
        assert!(hops.spend(at(10_000), 1000, 10));
        assert!(!hops.spend(at(10_500), 1000, 1));
        assert!(hops.spend(at(60_000_000), 1000, 1000));
        assert!(!hops.spend(at(60_000_000), 1000, 1));
        let mut spent = 0;
        for n in 0..1_000_000 {
            spent += usize::from(hops.spend(at(60_000_000 + n), 1000, 1));
        }
        assert!((999..=1000).contains(&spent), "calls in between lose nothing: {spent}");
    }
}
