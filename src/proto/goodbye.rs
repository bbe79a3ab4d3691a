//! Leaving: every live peer is told directly, and asked to acknowledge.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::node::NodeId;
use crate::time::Instant;

/// Peers told in one go; the rest follow a moment later.
const BATCH: usize = 512;

/// The pause between batches, so that a large cluster does not overrun the socket.
const BATCH_PAUSE: Duration = Duration::from_millis(5);

/// How far the goodbye has come.
#[must_use]
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// Tell these.
    Tell(Vec<NodeId>),
    /// Nothing to do yet.
    Wait,
    /// It is over; so many did not acknowledge.
    Over { unheard: usize },
}

/// A goodbye under way.
#[derive(Debug)]
pub(super) struct Goodbye {
    /// The number of the ping that carries it.
    pub(super) seq: u16,
    untold: Vec<NodeId>,
    unheard: BTreeSet<NodeId>,
    next_at: Instant,
    deadline: Instant,
    retry: Duration,
}

impl Goodbye {
    pub(super) fn new(
        now: Instant,
        seq: u16,
        peers: &[NodeId],
        (timeout, retry): (Duration, Duration),
    ) -> Goodbye {
        Goodbye {
            seq,
            untold: peers.to_vec(),
            unheard: peers.iter().copied().collect(),
            next_at: now,
            deadline: now + timeout,
            retry,
        }
    }

    pub(super) fn handle_ack(&mut self, from: NodeId, seq: u16) {
        if seq == self.seq {
            self.unheard.remove(&from);
        }
    }

    pub(super) fn progress(&mut self, now: Instant) -> Progress {
        if self.unheard.is_empty() || self.deadline <= now {
            return Progress::Over { unheard: self.unheard.len() };
        }
        if self.next_at > now {
            return Progress::Wait;
        }
        let batch = self.untold.split_off(self.untold.len().saturating_sub(BATCH));
        if self.untold.is_empty() {
            self.untold = self.unheard.iter().copied().collect();
            self.next_at = now + self.retry;
        } else {
            self.next_at = now + BATCH_PAUSE;
        }
        Progress::Tell(batch.into_iter().filter(|id| self.unheard.contains(id)).collect())
    }

    pub(super) fn next_deadline(&self) -> Instant {
        self.next_at.min(self.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_told_until_they_acknowledge_or_time_is_up() {
        let ids: Vec<NodeId> = (1..=600).filter_map(NodeId::from_u64).collect();
        let times = (Duration::from_secs(1), Duration::from_millis(100));
        let mut now = Instant::ORIGIN;
        let mut goodbye = Goodbye::new(now, 7, &ids, times);
        let mut told = BTreeSet::new();
        loop {
            match goodbye.progress(now) {
                Progress::Tell(some) => told.extend(some),
                Progress::Wait => {}
                Progress::Over { unheard } => break assert_eq!(unheard, 1),
            }
            for id in &ids[1..] {
                if told.contains(id) {
                    goodbye.handle_ack(*id, 7);
                }
            }
            goodbye.handle_ack(ids[0], 8);
            now = goodbye.next_deadline().max(now);
        }
        assert_eq!(told.len(), 600);
        assert_eq!(now - Instant::ORIGIN, times.0);
    }

    #[test]
    fn alone_it_is_over_at_once() {
        let times = (Duration::from_secs(1), Duration::from_millis(100));
        let mut goodbye = Goodbye::new(Instant::ORIGIN, 7, &[], times);
        assert_eq!(goodbye.progress(Instant::ORIGIN), Progress::Over { unheard: 0 });
    }
}
