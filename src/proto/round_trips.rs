//! How long answers take: of each peer that was asked lately, and of all together.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::node::NodeId;

/// Peers whose round trips are kept; beyond it some are forgotten, and measured anew.
const MAX_PEERS: usize = 256;

/// The shortest wait for an answer: a busy host may take so long to look at its socket (a guess).
const MIN_WAIT: Duration = Duration::from_millis(3);

/// Before any round trip was measured, the first wait is this share of the ceiling.
const FIRST_WAIT_SHARE: u32 = 8;

/// A mean and how far samples are from it, smoothed (Jacobson, "Congestion Avoidance and Control",
/// SIGCOMM 1988; RFC 6298).
#[derive(Clone, Copy, Debug)]
struct Estimate {
    mean_micros: u64,
    deviation_micros: u64,
}

impl Estimate {
    fn first(sample: u64) -> Estimate {
        Estimate { mean_micros: sample, deviation_micros: sample / 2 }
    }

    fn add(&mut self, sample: u64) {
        let off = self.mean_micros.abs_diff(sample);
        self.deviation_micros = (3 * self.deviation_micros + off) / 4;
        self.mean_micros = (7 * self.mean_micros + sample) / 8;
    }

    fn wait(self) -> Duration {
        Duration::from_micros(self.mean_micros + 4 * self.deviation_micros)
    }
}

/// The round trips measured so far. The nearest peer's do not say how far the others are: where
/// one peer is waited for, it is its own that count, if there are any.
#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    all: Option<Estimate>,
    of: BTreeMap<NodeId, Estimate>,
}

impl RoundTrips {
    /// An answer of a peer took so long.
    pub(super) fn measured(&mut self, peer: NodeId, round_trip: Duration) {
        let micros = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
        let sample = micros.clamp(1, 1 << 40);
        match &mut self.all {
            Some(all) => all.add(sample),
            None => self.all = Some(Estimate::first(sample)),
        }
        if let Some(known) = self.of.get_mut(&peer) {
            return known.add(sample);
        }
        if self.of.len() >= MAX_PEERS {
            // Ids are random, so the one after the newcomer is as good as any.
            let next = self.of.range(peer..).next().or(self.of.first_key_value());
            let forgotten = next.map(|(id, _)| *id);
            forgotten.and_then(|id| self.of.remove(&id));
        }
        self.of.insert(peer, Estimate::first(sample));
    }

    pub(super) fn forget(&mut self, peer: NodeId) {
        self.of.remove(&peer);
    }

    /// How long to wait for an answer of anybody, at most `ceiling`.
    pub(super) fn wait(&self, ceiling: Duration) -> Duration {
        within(self.all, ceiling)
    }

    /// How long to wait for an answer of this peer, at most `ceiling`.
    pub(super) fn wait_for(&self, peer: NodeId, ceiling: Duration) -> Duration {
        within(self.of.get(&peer).copied().or(self.all), ceiling)
    }
}

fn within(estimate: Option<Estimate>, ceiling: Duration) -> Duration {
    match estimate {
        None => ceiling / FIRST_WAIT_SHARE,
        Some(estimate) => estimate.wait().max(MIN_WAIT).min(ceiling),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CEILING: Duration = Duration::from_millis(500);

    fn id(n: u64) -> NodeId {
        NodeId::from_u64(n).unwrap()
    }

    #[test]
    fn waits_follow_the_round_trips_within_floor_and_ceiling() {
        let mut trips = RoundTrips::default();
        assert_eq!(trips.wait(CEILING), CEILING / FIRST_WAIT_SHARE);
        (0..50).for_each(|_| trips.measured(id(1), Duration::from_micros(100)));
        assert_eq!(trips.wait(CEILING), MIN_WAIT);
        (0..50).for_each(|_| trips.measured(id(1), Duration::from_millis(80)));
        let wait = trips.wait(CEILING);
        assert!((80..120).contains(&wait.as_millis()), "{wait:?}");
        (0..50).for_each(|_| trips.measured(id(1), Duration::from_secs(3)));
        assert_eq!(trips.wait(CEILING), CEILING);
    }

    #[test]
    fn a_far_peer_is_waited_for_longer_than_a_near_one() {
        let mut trips = RoundTrips::default();
        for _ in 0..50 {
            trips.measured(id(1), Duration::from_millis(5));
            trips.measured(id(2), Duration::from_millis(100));
        }
        let (near, far) = (trips.wait_for(id(1), CEILING), trips.wait_for(id(2), CEILING));
        assert!(near < Duration::from_millis(10) && far >= Duration::from_millis(100));
        assert_eq!(trips.wait_for(id(3), CEILING), trips.wait(CEILING));
        trips.forget(id(1));
        assert_eq!(trips.wait_for(id(1), CEILING), trips.wait(CEILING));
    }

    #[test]
    fn only_so_many_peers_are_kept() {
        let mut trips = RoundTrips::default();
        let peers = MAX_PEERS as u64 + 100;
        (1..=peers).for_each(|n| trips.measured(id(n), Duration::from_millis(5)));
        assert_eq!(trips.of.len(), MAX_PEERS);
        assert!(trips.of.contains_key(&id(peers)), "the last one is among them");
    }
}
