//! One enum of timers, one table; and deadlines by key for those who have many.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Instant;

/// What a deadline is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Timer {
    /// A probe round ends and the next one begins.
    Probe,
    /// A ping was not answered in time.
    Answer,
    /// A witness is to be asked, or a suspicion becomes a verdict.
    Suspicion,
    /// Deaths that others told of have waited for more of them.
    Deaths,
    /// News that waited for more of them are sent.
    News,
    /// A hop of the fast path was not acknowledged.
    Hop,
    /// A report of who was reached is due.
    Report,
    /// A gossip round.
    Gossip,
    /// A comparison with a random peer.
    Pull,
    /// A page did not come.
    PullRetry,
    /// A fetched object did not come.
    Fetch,
    /// A seed did not answer.
    Join,
    /// The dead and the seeds are tried again.
    Reconnect,
    /// A name that two nodes claim is decided, or an heir to this node's has stayed silent.
    Clash,
    /// A node whose roles do not come is announced without them.
    Announce,
    /// A goodbye was not acknowledged.
    Leave,
    /// Somebody waits to hear who has a change.
    Receipt,
    /// The dead are forgotten.
    Purge,
}

impl Timer {
    const ALL: [Timer; 18] = [
        Timer::Probe,
        Timer::Answer,
        Timer::Suspicion,
        Timer::Deaths,
        Timer::News,
        Timer::Hop,
        Timer::Report,
        Timer::Gossip,
        Timer::Pull,
        Timer::PullRetry,
        Timer::Fetch,
        Timer::Join,
        Timer::Reconnect,
        Timer::Clash,
        Timer::Announce,
        Timer::Leave,
        Timer::Receipt,
        Timer::Purge,
    ];
}

/// The deadline of each timer that is set.
#[derive(Debug, Default)]
pub(super) struct TimerTable {
    deadlines: [Option<Instant>; Timer::ALL.len()],
}

impl TimerTable {
    /// Sets the timer, or clears it.
    pub(super) fn set(&mut self, timer: Timer, deadline: Option<Instant>) {
        self.deadlines[timer as usize] = deadline;
    }

    /// Sets the timer unless it is due earlier.
    pub(super) fn set_earlier(&mut self, timer: Timer, deadline: Instant) {
        let slot = &mut self.deadlines[timer as usize];
        *slot = Some(slot.map_or(deadline, |old| old.min(deadline)));
    }

    /// Clears and returns the first timer that is due, in the order of the enum.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        let due = |timer: &&Timer| self.deadlines[**timer as usize].is_some_and(|at| at <= now);
        let timer = *Timer::ALL.iter().find(due)?;
        self.deadlines[timer as usize] = None;
        Some(timer)
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.deadlines.iter().flatten().min().copied()
    }

    /// The earliest deadline of some of the timers.
    #[cfg(feature = "sim")]
    pub(super) fn next_of(&self, is_one: impl Fn(Timer) -> bool) -> Option<Instant> {
        let ours = Timer::ALL.iter().filter(|timer| is_one(**timer));
        ours.filter_map(|timer| self.deadlines[*timer as usize]).min()
    }
}

/// A deadline for each of several keys, and the first of them at hand.
#[derive(Debug)]
pub(super) struct Deadlines<K> {
    by_key: BTreeMap<K, Instant>,
    in_order: BTreeSet<(Instant, K)>,
}

impl<K: Ord> Default for Deadlines<K> {
    fn default() -> Deadlines<K> {
        Deadlines { by_key: BTreeMap::new(), in_order: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Deadlines<K> {
    /// Sets a key's deadline, whatever it was before.
    pub(super) fn set(&mut self, key: K, deadline: Instant) {
        self.clear(key);
        self.by_key.insert(key, deadline);
        self.in_order.insert((deadline, key));
    }

    pub(super) fn clear(&mut self, key: K) {
        if let Some(deadline) = self.by_key.remove(&key) {
            self.in_order.remove(&(deadline, key));
        }
    }

    pub(super) fn contains(&self, key: K) -> bool {
        self.by_key.contains_key(&key)
    }

    /// The keys, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = K> {
        self.by_key.keys().copied()
    }

    /// Forgets the keys that are due, where nothing is to be done for them.
    pub(super) fn expire(&mut self, now: Instant) {
        for key in self.due(now) {
            self.clear(key);
        }
    }

    /// The keys that are due, in the order of the keys.
    pub(super) fn due(&self, now: Instant) -> Vec<K> {
        let due = self.in_order.iter().take_while(|(deadline, _)| *deadline <= now);
        let mut due: Vec<K> = due.map(|(_, key)| *key).collect();
        due.sort_unstable();
        due
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.in_order.first().map(|(deadline, _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_once_when_due() {
        let mut table = TimerTable::default();
        let at = Instant::from_micros;
        assert_eq!(table.next(), None);
        table.set(Timer::Gossip, Some(at(20)));
        table.set_earlier(Timer::Gossip, at(30));
        table.set(Timer::Probe, Some(at(25)));
        assert_eq!(table.next(), Some(at(20)));
        assert_eq!(table.take_due(at(19)), None);
        assert_eq!(table.take_due(at(25)), Some(Timer::Probe));
        assert_eq!(table.take_due(at(25)), Some(Timer::Gossip));
        assert_eq!(table.take_due(at(99)), None);
    }

    #[test]
    fn deadlines_are_due_in_the_order_of_their_keys() {
        let mut deadlines = Deadlines::default();
        let at = Instant::from_micros;
        for (key, deadline) in [(3, 10), (1, 20), (2, 30), (3, 25)] {
            deadlines.set(key, at(deadline));
        }
        assert_eq!(deadlines.next(), Some(at(20)));
        assert_eq!(deadlines.due(at(25)), [1, 3]);
        deadlines.clear(1);
        deadlines.clear(1);
        assert_eq!(deadlines.next(), Some(at(25)));
        assert!(deadlines.contains(3) && !deadlines.contains(1));
        assert_eq!(deadlines.keys().collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn the_list_is_in_the_order_of_the_enum() {
        for (position, timer) in Timer::ALL.iter().enumerate() {
            assert_eq!(*timer as usize, position);
        }
    }
}
