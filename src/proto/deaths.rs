//! Deaths that others tell of wait a moment, so that those who died together, a rack or a switch,
//! are taken out together and their users hear of all of them at once.

use std::time::Duration;

use crate::node::NodeId;
use crate::time::Instant;

/// Deaths heard of, each with what was claimed.
#[derive(Debug)]
pub(super) struct Deaths<C> {
    waiting: Vec<(NodeId, C)>,
    due: Option<Instant>,
}

impl<C> Default for Deaths<C> {
    fn default() -> Deaths<C> {
        Deaths { waiting: Vec::new(), due: None }
    }
}

impl<C> Deaths<C> {
    /// A death is heard of; the first one waits for `pause`, and those that come meanwhile go with
    /// it. Further claims of one that waits say nothing new.
    pub(super) fn add(&mut self, now: Instant, pause: Duration, id: NodeId, claim: C) {
        if self.waiting.iter().all(|(waiting, _)| *waiting != id) {
            self.waiting.push((id, claim));
            self.due.get_or_insert(now + pause);
        }
    }

    /// All of them, when the first one has waited long enough.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(NodeId, C)> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.due = None;
        std::mem::take(&mut self.waiting)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_come_within_the_pause_go_together() {
        let mut deaths = Deaths::default();
        let (start, ms) = (Instant::ORIGIN, Duration::from_millis);
        let id = |n| NodeId::from_u64(n).unwrap();
        deaths.add(start, ms(20), id(1), "a");
        deaths.add(start + ms(15), ms(20), id(2), "b");
        deaths.add(start + ms(16), ms(20), id(1), "again");
        assert_eq!(deaths.next_deadline(), Some(start + ms(20)));
        assert!(deaths.take_due(start + ms(19)).is_empty());
        assert_eq!(deaths.take_due(start + ms(20)), [(id(1), "a"), (id(2), "b")]);
        assert!(deaths.take_due(start + ms(40)).is_empty());
        assert_eq!(deaths.next_deadline(), None);
    }
}
