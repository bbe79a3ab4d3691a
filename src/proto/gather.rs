//! Who has what was told on the fast path: reports go back the way it came.
//!
//! ```text
//!   begun --a report of every hop, or the deadline--> done: one report of this node and all below
//! ```
//! A report counts who is reached and adds their ids up. Only if that is exactly whom the asker
//! knows in the part do all of them count as reached: views that differ, or somebody who was told
//! twice, show as a difference, and the asker asks one by one. Parts from which nothing was heard
//! are named, so that they spoil nothing for the others.

use std::collections::BTreeMap;

use crate::node::{Generation, NodeId};
use crate::time::Instant;
use crate::wire::ScopeId;
use crate::wire::frame::Reached;
use crate::wire::limits::MAX_UNHEARD_PARTS;

/// Gatherings under way at one time; further ones are left out, and asked one by one.
pub(super) const MAX_GATHERINGS: usize = 1024;

/// Whom a report is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asker {
    /// This node itself: who has its roles in a scope at a generation.
    Local(ScopeId, Generation),
    /// Who gave this node its part, under that number.
    Teller(NodeId, u16),
}

/// The ids from `low` to `high`.
type Ids = (NodeId, NodeId);

#[derive(Debug)]
struct Gathering {
    asker: Asker,
    part: Ids,
    deadline: Instant,
    open: BTreeMap<u16, Ids>,
    reached: Reached,
}

/// A gathering that is complete, or whose time is up.
#[must_use]
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Gathered {
    pub(super) asker: Asker,
    /// What it is about.
    pub(super) part: Ids,
    pub(super) reached: Reached,
}

/// All gatherings.
#[derive(Debug, Default)]
pub(super) struct Gatherings {
    list: Vec<Gathering>,
}

impl Gatherings {
    /// Begins to wait for reports from these hops. `itself` is this node, if it counts.
    pub(super) fn begin(
        &mut self,
        deadline: Instant,
        (asker, part): (Asker, Ids),
        itself: Option<NodeId>,
        hops: impl IntoIterator<Item = (u16, Ids)>,
    ) {
        if self.list.len() >= MAX_GATHERINGS {
            return;
        }
        let seq = match asker {
            Asker::Local(..) => 0,
            Asker::Teller(_, seq) => seq,
        };
        let mut reached = Reached { seq, count: 0, ids: 0, unheard: Vec::new() };
        if let Some(id) = itself {
            (reached.count, reached.ids) = (1, id.as_u64());
        }
        let open = hops.into_iter().collect();
        self.list.push(Gathering { asker, part, deadline, open, reached });
    }

    /// A report of a hop came.
    pub(super) fn handle_report(&mut self, report: &Reached) {
        let Some(gathering) = self.list.iter_mut().find(|it| it.open.contains_key(&report.seq))
        else {
            return;
        };
        gathering.open.remove(&report.seq);
        let sum = &mut gathering.reached;
        sum.count = sum.count.saturating_add(report.count);
        sum.ids = sum.ids.wrapping_add(report.ids);
        sum.unheard.extend_from_slice(&report.unheard);
    }

    /// Takes one that is complete or due, with the parts named from which nothing was heard. `None`
    /// too when there would be too many of those: then the asker hears nothing.
    pub(super) fn take_done(&mut self, now: Instant) -> Option<Gathered> {
        loop {
            let over = |it: &Gathering| it.open.is_empty() || it.deadline <= now;
            let at = self.list.iter().position(over)?;
            let Gathering { asker, part, open, mut reached, .. } = self.list.swap_remove(at);
            reached.unheard.extend(open.into_values());
            reached.unheard.sort_unstable();
            if reached.unheard.len() <= MAX_UNHEARD_PARTS {
                return Some(Gathered { asker, part, reached });
            }
        }
    }

    /// Takes one of this asker that is complete already.
    pub(super) fn take_done_for(&mut self, asker: Asker) -> Option<Gathered> {
        let at = self.list.iter().position(|it| it.asker == asker && it.open.is_empty())?;
        let Gathering { asker, part, reached, .. } = self.list.swap_remove(at);
        Some(Gathered { asker, part, reached })
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.list.iter().map(|gathering| gathering.deadline).min()
    }

    #[cfg(feature = "sim")]
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }
}

impl Gathered {
    /// Those of the asker's `peers` (sorted) who have it for certain.
    pub(super) fn certain(&self, peers: &[NodeId]) -> Vec<NodeId> {
        let (low, high) = self.part;
        let unheard = |id: NodeId| self.reached.unheard.iter().any(|it| it.0 <= id && id <= it.1);
        let expected = peers.iter().copied().filter(|id| (low..=high).contains(id));
        let expected: Vec<NodeId> = expected.filter(|id| !unheard(*id)).collect();
        let sum = expected.iter().fold(0, |sum: u64, id| sum.wrapping_add(id.as_u64()));
        let exact = self.reached.count as usize == expected.len() && self.reached.ids == sum;
        if exact { expected } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> NodeId {
        NodeId::from_u64(n).unwrap()
    }

    fn report(seq: u16, ids: &[u64], unheard: &[Ids]) -> Reached {
        let count = u32::try_from(ids.len()).unwrap();
        Reached { seq, count, ids: ids.iter().sum(), unheard: unheard.to_vec() }
    }

    #[test]
    fn reports_add_up_to_exactly_those_who_are_known() {
        let mut gatherings = Gatherings::default();
        let asker = Asker::Local(ScopeId::of("s"), Generation::from_u64(3));
        let part = (id(1), id(99));
        let deadline = Instant::from_micros(100);
        let hops = [(7, (id(1), id(49))), (8, (id(50), id(99)))];
        gatherings.begin(deadline, (asker, part), None, hops);
        gatherings.handle_report(&report(9, &[77], &[]));
        gatherings.handle_report(&report(7, &[10, 20], &[]));
        gatherings.handle_report(&report(7, &[10, 20], &[]));
        assert_eq!(gatherings.take_done(Instant::ORIGIN), None);
        gatherings.handle_report(&report(8, &[60], &[(id(70), id(80))]));
        let gathered = gatherings.take_done(Instant::ORIGIN).unwrap();
        let peers: Vec<NodeId> = [10, 20, 60, 75].map(id).to_vec();
        assert_eq!(gathered.certain(&peers), [10, 20, 60].map(id));
        let more: Vec<NodeId> = [10, 20, 30, 60, 75].map(id).to_vec();
        assert_eq!(gathered.certain(&more), [], "who is unknown to others spoils the sum");
        assert_eq!(gathered.certain(&peers[1..]), [], "and so does who is known to them only");
        assert_eq!(gatherings.next_deadline(), None);
    }

    #[test]
    fn what_was_not_heard_in_time_is_named_or_nothing_is_said() {
        let mut gatherings = Gatherings::default();
        let deadline = Instant::from_micros(100);
        let asker = Asker::Teller(id(5), 33);
        let hops = |count: u16| {
            (0..count).map(|n| (n, (id(u64::from(n) * 10 + 100), id(u64::from(n) * 10 + 109))))
        };
        gatherings.begin(deadline, (asker, (id(100), id(900))), Some(id(105)), hops(2));
        gatherings.handle_report(&report(1, &[111], &[]));
        let gathered = gatherings.take_done(deadline).unwrap();
        assert_eq!(gathered.reached, report(33, &[105, 111], &[(id(100), id(109))]));
        let many = u16::try_from(MAX_UNHEARD_PARTS + 1).unwrap();
        gatherings.begin(deadline, (asker, (id(100), id(900))), None, hops(many));
        assert_eq!(gatherings.take_done(deadline), None);
        assert_eq!(gatherings.next_deadline(), None, "it is over all the same");
    }
}
