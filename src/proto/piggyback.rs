//! What rides on datagrams, how often, in which order (SWIM, section 4.1).
//!
//! A rumor is a key; what it says is looked up when it is sent, so that the freshest state
//! travels. Each audience has its own queue: a scope's rumors are never looked at for anybody else.

use std::collections::{BTreeMap, BTreeSet};

use std::time::Duration;

use crate::config::Config;
use crate::node::{Generation, NodeId};
use crate::time::Instant;
use crate::wire::ScopeId;

/// Rumors that are looked at for one datagram; those told less often come first.
const MAX_OFFERS: usize = 1024;

/// Something to tell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Rumor {
    /// A run's profile.
    Profile(NodeId),
    /// Whether a run is alive, failed, gone.
    State(NodeId),
    /// A suspicion of the first by the second.
    Suspicion(NodeId, NodeId),
    /// A run's roles in a scope.
    Roles(NodeId, ScopeId),
}

/// Who is to hear it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Audience {
    Cluster,
    Scope(ScopeId),
}

impl Rumor {
    /// Of whom it tells: they need not hear it. (That they are suspected they hear first of all.)
    pub(super) const fn subject(self) -> NodeId {
        match self {
            Rumor::Profile(id)
            | Rumor::State(id)
            | Rumor::Suspicion(id, _)
            | Rumor::Roles(id, _) => id,
        }
    }

    pub(super) const fn audience(self) -> Audience {
        match self {
            Rumor::Profile(_) | Rumor::State(_) | Rumor::Suspicion(..) => Audience::Cluster,
            Rumor::Roles(_, scope) => Audience::Scope(scope),
        }
    }
}

#[derive(Clone, Debug)]
struct Entry {
    sent: u32,
    /// Rounds of gossip that it was there for, sent or not.
    rounds: u32,
    age: u64,
    from: Generation,
    /// Who has heard it here, or told it, and when: each entry is one ride, so they are few.
    told: Vec<(NodeId, Instant)>,
}

/// Who a datagram goes to, and when: nobody is told the same again before all `peers` of the
/// audience have been told, and then not within `pause`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carriage {
    pub(super) now: Instant,
    pub(super) receiver: NodeId,
    pub(super) pause: Duration,
    pub(super) peers: usize,
}

/// The rumors of one audience.
#[derive(Debug, Default)]
struct Queue {
    entries: BTreeMap<Rumor, Entry>,
    /// Least sent first (SWIM, section 4.1), and among equals the one that has waited longest: when
    /// there is more to tell than can be sent, everything grows equally old, and nothing starves.
    order: BTreeSet<(u32, u64, Rumor)>,
}

impl Queue {
    fn insert(&mut self, rumor: Rumor, entry: Entry) {
        self.remove(rumor);
        self.order.insert((entry.sent, entry.age, rumor));
        self.entries.insert(rumor, entry);
    }

    fn remove(&mut self, rumor: Rumor) -> Option<Entry> {
        let entry = self.entries.remove(&rumor)?;
        self.order.remove(&(entry.sent, entry.age, rumor));
        Some(entry)
    }
}

/// What became of a rumor that was looked up for a datagram.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ride {
    /// It is in the datagram.
    Sent,
    /// There was no room for it.
    NoRoom,
    /// There is nothing left to say.
    Obsolete,
    /// It is not for this receiver.
    NotForThem,
}

/// All rumors that still travel.
#[derive(Debug, Default)]
pub(super) struct Piggyback {
    queues: BTreeMap<Audience, Queue>,
    next_age: u64,
    /// What this node has to tell first-hand, until the fast path takes it.
    news: BTreeMap<Rumor, Generation>,
    /// Whether a rumor has never been sent yet.
    fresh: bool,
}

impl Piggyback {
    /// Starts to spread a rumor, anew if it was on its way. For roles, `from` is the generation
    /// that hearers are thought to have. Whoever told it does not need to hear it.
    pub(super) fn spread(
        &mut self,
        rumor: Rumor,
        from: Generation,
        teller: Option<(NodeId, Instant)>,
    ) {
        let queue = self.queues.entry(rumor.audience()).or_default();
        let before = queue.entries.get(&rumor);
        let from = before.map_or(from, |entry| entry.from.min(from));
        self.next_age += 1;
        // What has not been sent yet keeps its place, however often it changes.
        let age = before.filter(|entry| entry.sent == 0).map_or(self.next_age, |entry| entry.age);
        let told = teller.into_iter().collect();
        queue.insert(rumor, Entry { sent: 0, rounds: 0, age, from, told });
        self.fresh = true;
    }

    /// Notes what this node has to tell first-hand, for the fast path. `from` is as in
    /// [`spread`](Piggyback::spread).
    pub(super) fn note(&mut self, rumor: Rumor, from: Generation) {
        let known = self.news.entry(rumor).or_insert(from);
        *known = from.min(*known);
    }

    /// Those for whom there is news that the fast path has not taken.
    pub(super) fn news_audiences(&self) -> BTreeSet<Audience> {
        self.news.keys().map(|rumor| rumor.audience()).collect()
    }

    /// The news for an audience, which are the caller's to spread now.
    pub(super) fn take_news(&mut self, audience: Audience) -> Vec<(Rumor, Generation)> {
        let taken = self.news.extract_if(.., |rumor, _| rumor.audience() == audience);
        taken.collect()
    }

    /// Stops spreading to a scope that this node has left.
    pub(super) fn drop_scope(&mut self, scope: ScopeId) {
        self.queues.remove(&Audience::Scope(scope));
        self.news.retain(|rumor, _| rumor.audience() != Audience::Scope(scope));
    }

    /// Whether something was added since the last call: worth a round at once.
    pub(super) fn take_fresh(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }

    /// A round of gossip is over. What nobody is left to hear goes after `rounds` of them.
    pub(super) fn end_round(&mut self, rounds: u32) {
        for queue in self.queues.values_mut() {
            queue.entries.values_mut().for_each(|entry| entry.rounds += 1);
            let over = queue.entries.iter().filter(|(_, entry)| entry.rounds > rounds);
            for rumor in over.map(|(rumor, _)| *rumor).collect::<Vec<_>>() {
                queue.remove(rumor);
            }
        }
        self.queues.retain(|_, queue| !queue.entries.is_empty());
    }

    /// Those who have something to hear.
    pub(super) fn audiences(&self) -> Vec<Audience> {
        self.queues.keys().copied().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queues.values().map(|queue| queue.entries.len()).sum()
    }

    /// Offers the rumors of an audience, least sent first, until one has no room; those that have
    /// been sent `limit` times have travelled enough.
    pub(super) fn ride(
        &mut self,
        audience: Audience,
        limit: u32,
        carriage: Carriage,
        mut offer: impl FnMut(Rumor, Generation) -> Ride,
    ) {
        let Some(queue) = self.queues.get_mut(&audience) else {
            return;
        };
        let Carriage { now, receiver, pause, peers } = carriage;
        // Time begins at zero, where nothing lies before.
        let lately = Instant::from_micros(now.as_micros().saturating_sub(micros(pause)));
        let mut taken = Vec::new();
        for &(_, _, rumor) in queue.order.iter().take(MAX_OFFERS) {
            let entry = &queue.entries[&rumor];
            let once = entry.told.len() < peers;
            if entry.told.iter().any(|(id, at)| *id == receiver && (once || *at > lately)) {
                continue;
            }
            match offer(rumor, entry.from) {
                Ride::Sent => taken.push((rumor, true)),
                Ride::Obsolete => taken.push((rumor, false)),
                Ride::NotForThem => {}
                Ride::NoRoom => break,
            }
        }
        for (rumor, sent) in taken {
            let mut entry = queue.remove(rumor).expect("it was in the queue just now");
            entry.sent += 1;
            entry.told.push((receiver, now));
            if sent && entry.sent < limit {
                queue.insert(rumor, entry);
            }
        }
        if queue.entries.is_empty() {
            self.queues.remove(&audience);
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// `retransmit_mult * ceil(log10(n + 1))` datagrams of each node carry a rumor (SWIM, section 4.1:
/// a multiple of log n; the base is memberlist's); at least as many as one round of gossip has.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a logarithm of a node count is a small positive number"
)]
pub(super) fn transmit_limit(config: &Config, audience: usize) -> u32 {
    let scale = ((audience + 1) as f64).log10().ceil() as u32;
    let round = u32::try_from(config.gossip_fanout + 1).unwrap_or(u32::MAX);
    (config.retransmit_mult * scale.max(1)).max(round)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rumor(n: u64) -> Rumor {
        Rumor::State(NodeId::from_u64(n).unwrap())
    }

    fn id(n: u64) -> NodeId {
        NodeId::from_u64(n).unwrap()
    }

    fn to(receiver: u64) -> Carriage {
        let pause = Duration::from_millis(200);
        Carriage { now: Instant::from_micros(1000), receiver: id(receiver), pause, peers: 2 }
    }

    #[test]
    fn the_least_sent_ride_first_and_stop_at_the_limit() {
        let mut piggyback = Piggyback::default();
        piggyback.spread(rumor(1), Generation::ZERO, None);
        let mut offered = Vec::new();
        piggyback.ride(Audience::Cluster, 3, to(11), |rumor, _| {
            offered.push(rumor);
            Ride::Sent
        });
        piggyback.spread(rumor(2), Generation::ZERO, None);
        piggyback.spread(rumor(3), Generation::ZERO, None);
        offered.clear();
        piggyback.ride(Audience::Cluster, 3, to(12), |rumor, _| {
            offered.push(rumor);
            if offered.len() < 3 { Ride::Sent } else { Ride::NoRoom }
        });
        assert_eq!(offered, vec![rumor(2), rumor(3), rumor(1)]);
        for receiver in 13..15 {
            piggyback.ride(Audience::Cluster, 3, to(receiver), |_, _| Ride::Sent);
        }
        assert!(piggyback.is_empty());
    }

    #[test]
    fn what_has_waited_longest_goes_first_however_often_it_changes() {
        let mut piggyback = Piggyback::default();
        for n in [5, 1, 3, 5, 1] {
            piggyback.spread(rumor(n), Generation::ZERO, None);
        }
        let mut offered = Vec::new();
        piggyback.ride(Audience::Cluster, 9, to(11), |rumor, _| {
            offered.push(rumor);
            if offered.len() < 2 { Ride::Sent } else { Ride::NoRoom }
        });
        assert_eq!(offered, vec![rumor(5), rumor(1)]);
        piggyback.spread(rumor(5), Generation::ZERO, None);
        offered.clear();
        piggyback.ride(Audience::Cluster, 9, to(12), |rumor, _| {
            offered.push(rumor);
            Ride::Sent
        });
        assert_eq!(offered, vec![rumor(1), rumor(3), rumor(5)]);
    }

    #[test]
    fn nobody_is_told_the_same_twice_in_a_row_nor_what_they_told() {
        let mut piggyback = Piggyback::default();
        let teller = (id(7), Instant::from_micros(900));
        piggyback.spread(rumor(1), Generation::ZERO, Some(teller));
        let mut count = |receiver: Carriage| {
            let mut offers = 0;
            piggyback.ride(Audience::Cluster, 9, receiver, |_, _| {
                offers += 1;
                Ride::Sent
            });
            offers
        };
        assert_eq!(count(to(7)), 0);
        assert_eq!(count(to(8)), 1);
        assert_eq!(count(to(8)), 0);
        let later = Carriage { now: Instant::from_micros(300_000), ..to(8) };
        assert_eq!(count(later), 1);
    }

    #[test]
    fn what_nobody_is_left_to_hear_goes_in_the_end() {
        let mut piggyback = Piggyback::default();
        piggyback.spread(rumor(1), Generation::ZERO, None);
        for _ in 0..3 {
            piggyback.ride(Audience::Cluster, 9, to(8), |_, _| Ride::NotForThem);
            assert!(!piggyback.is_empty());
            piggyback.end_round(2);
        }
        assert!(piggyback.is_empty());
    }

    #[test]
    fn an_update_of_an_update_spreads_from_the_older_generation() {
        let mut piggyback = Piggyback::default();
        let scope = ScopeId::of("s");
        let roles = Rumor::Roles(id(1), scope);
        piggyback.spread(roles, Generation::from_u64(4), None);
        piggyback.spread(roles, Generation::from_u64(5), None);
        assert!(piggyback.take_fresh());
        assert!(!piggyback.take_fresh());
        let mut from = None;
        piggyback.ride(Audience::Scope(scope), 9, to(2), |_, generation| {
            from = Some(generation);
            Ride::Obsolete
        });
        assert_eq!(from, Some(Generation::from_u64(4)));
        assert_eq!(piggyback.len(), 0);
    }

    #[test]
    fn the_limit_grows_with_the_logarithm() {
        let lan = Config::lan();
        let narrow = Config { gossip_fanout: 3, ..lan.clone() };
        assert_eq!(transmit_limit(&narrow, 1), 4);
        assert_eq!(transmit_limit(&narrow, 9), 4);
        assert_eq!(transmit_limit(&narrow, 10), 8);
        assert_eq!(transmit_limit(&narrow, 1000), 16);
        assert_eq!(transmit_limit(&lan, 1), 9, "a whole round");
        let wide = Config { gossip_fanout: 30, ..lan };
        assert_eq!(transmit_limit(&wide, 1000), 31, "a whole round");
    }
}
