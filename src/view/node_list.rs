//! A published list of nodes that may be long: few changes of many nodes cost no copy of all.
//!
//! The version before the published one is kept with what has led on from it. When no reader has it
//! any more, it is brought up to date in place and published in its turn: a copy would touch the
//! reference count of every node.

use super::edit::{Edit, change, merge, merge_all};
use super::epoch_map::{CellWriter, Reclaimer};
use crate::node::{Node, Nodes};

/// From how many nodes on the version before is kept: a shorter list is copied as fast.
const KEEP_FROM: usize = 256;

/// The writing side of such a list.
pub(super) struct NodeList {
    published: CellWriter<Nodes>,
    before: Option<Before>,
}

/// The version before the published one, and the edits that lead from it to that.
struct Before {
    nodes: Nodes,
    edits: Vec<Edit<Node>>,
}

impl NodeList {
    pub(super) fn new(published: CellWriter<Nodes>) -> NodeList {
        NodeList { published, before: None }
    }

    /// Publishes the list after some changes in the order of names: of each of these nodes whether
    /// it is shown. Returns whether that changes anything.
    pub(super) fn update<'a>(
        &mut self,
        reclaimer: &mut Reclaimer,
        changes: impl Iterator<Item = (&'a Node, bool)>,
    ) -> bool {
        let published = self.published.get();
        let owned = |edit: Edit<&Node>| Edit { place: edit.place, new: edit.new.cloned() };
        let edits: Vec<_> = edits(published, changes).map(owned).collect();
        if edits.is_empty() {
            return false;
        }
        let published = published.clone();
        let is_long = published.len() >= KEEP_FROM;
        let new = match self.take_before(reclaimer) {
            Some(mut before) if is_long => {
                let list = before.nodes.list_mut().expect("checked when it was taken");
                change(list, &before.edits);
                change(list, &edits);
                before.nodes
            }
            _ if is_long => {
                let edits = edits.iter().map(Edit::as_ref);
                Nodes::from_sorted_list(merge_all(&published, edits.len(), edits))
            }
            _ => {
                let merged = merge(&published, edits.iter().map(Edit::as_ref));
                Nodes::from_sorted(merged.expect("there are edits"))
            }
        };
        self.published.store(reclaimer, new);
        self.before =
            (is_long && published.is_list()).then_some(Before { nodes: published, edits });
        true
    }

    /// Frees what is kept to make the next change cheap.
    pub(super) fn forget_before(&mut self) {
        self.before = None;
    }

    /// The version before if nobody else has it.
    fn take_before(&mut self, reclaimer: &mut Reclaimer) -> Option<Before> {
        let mut before = self.before.take()?;
        if before.nodes.list_mut().is_none() {
            // What it was published in may just not have been freed yet.
            reclaimer.poll();
        }
        before.nodes.list_mut().is_some().then_some(before)
    }
}

/// What changes, which are in the order of names, do to a sorted set of nodes: of each of these
/// nodes whether it is shown.
pub(super) fn edits<'a>(
    old: &[Node],
    changes: impl Iterator<Item = (&'a Node, bool)>,
) -> impl Iterator<Item = Edit<&'a Node>> {
    changes.filter_map(|(node, shown)| {
        let place = old.binary_search_by(|known| known.node_name().cmp(node.node_name()));
        match place {
            Ok(at) if shown && same_value(&old[at], node) => None,
            Err(_) if !shown => None,
            place => Some(Edit { place, new: shown.then_some(node) }),
        }
    })
}

/// Whether two values of a node are alike in all that can be seen of them: equality looks at name
/// and id alone.
pub(super) fn same_value(a: &Node, b: &Node) -> bool {
    a == b && a.addr() == b.addr() && a.meta() == b.meta()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::node::{NodeId, NodeName};
    use crate::view::epoch_map::{EpochCell, EpochGuard, epoch_cell};

    fn node(number: u64, meta: &'static [u8]) -> Node {
        let name = NodeName::new(&format!("node-{number:04}")).expect("a valid name");
        let id = NodeId::from_u64(number + 1).expect("not zero");
        Node::new(name, id, ([127, 0, 0, 1], 7946).into(), Bytes::from_static(meta))
    }

    /// A list beside a plain map.
    struct Beside {
        reclaimer: Reclaimer,
        list: NodeList,
        readers: Arc<EpochCell<Nodes>>,
        map: BTreeMap<NodeName, Node>,
    }

    impl Beside {
        fn new() -> Beside {
            let reclaimer = Reclaimer::default();
            let (writer, readers) = epoch_cell(reclaimer.graveyard(), Nodes::default());
            let (list, readers) = (NodeList::new(writer), Arc::new(readers));
            Beside { reclaimer, list, readers, map: BTreeMap::new() }
        }

        fn update(&mut self, changes: &[(Node, bool)]) {
            let before = self.map.clone();
            for (node, shown) in changes {
                if *shown {
                    self.map.insert(node.node_name().clone(), node.clone());
                } else {
                    self.map.remove(node.node_name());
                }
            }
            let given = changes.iter().map(|(node, shown)| (node, *shown));
            let is_other = self.list.update(&mut self.reclaimer, given);
            let is_same = before.len() == self.map.len()
                && before.values().zip(self.map.values()).all(|(a, b)| same_value(a, b));
            assert_eq!(is_other, !is_same);
            self.assert_shows_the_map();
        }

        fn assert_shows_the_map(&self) {
            let shown = self.snapshot();
            assert_eq!(shown.len(), self.map.len());
            assert!(shown.iter().zip(self.map.values()).all(|(a, b)| same_value(a, b)));
        }

        fn snapshot(&self) -> Nodes {
            self.readers.load(&EpochGuard::enter()).clone()
        }

        /// Every seventh node, from the `round`-th on, comes, goes or changes.
        fn round(&mut self, round: u64) {
            let meta: &[u8] = if round.is_multiple_of(3) { b"" } else { b"new" };
            let change = |n| (node(n, meta), !(n + round).is_multiple_of(4));
            let changes: Vec<_> = (round % 7..2_000).step_by(7).map(change).collect();
            self.update(&changes);
        }
    }

    #[test]
    fn a_list_that_nobody_holds_is_changed_in_place() {
        let mut beside = Beside::new();
        beside.update(&(0..2_000).map(|n| (node(n, b""), true)).collect::<Vec<_>>());
        let before_last = |beside: &mut Beside, round| {
            let place = beside.snapshot().as_ptr();
            beside.round(2 * round);
            beside.round(2 * round + 1);
            beside.snapshot().as_ptr() == place
        };
        // Other tests of this process may be inside now and then.
        let in_place =
            (0..2_000_u64).filter(|round| before_last(&mut beside, *round)).take(20).count();
        assert_eq!(in_place, 20);
    }

    #[test]
    fn what_a_reader_holds_stays_as_it_is() {
        let mut beside = Beside::new();
        beside.update(&(0..2_000).map(|n| (node(n, b""), true)).collect::<Vec<_>>());
        for round in 0..20 {
            beside.round(round);
            // One holds a snapshot, another is inside, for three changes.
            let snapshot = beside.snapshot();
            let readers = Arc::clone(&beside.readers);
            let guard = EpochGuard::enter();
            let borrowed: &[Node] = readers.load(&guard);
            let copy = borrowed.to_vec();
            for more in 1..4 {
                beside.update(&[(node(round + more, b"x"), true), (node(3_000, b""), more != 2)]);
            }
            for held in [borrowed, &snapshot] {
                assert!(copy.len() == held.len());
                assert!(copy.iter().zip(held).all(|(a, b)| same_value(a, b)));
            }
        }
    }

    #[test]
    fn a_list_becomes_short_again_and_is_forgotten() {
        let mut beside = Beside::new();
        beside.update(&(0..2_000).map(|n| (node(n, b""), true)).collect::<Vec<_>>());
        beside.update(&(10..2_000).map(|n| (node(n, b""), false)).collect::<Vec<_>>());
        beside.list.forget_before();
        assert!(beside.list.before.is_none());
        beside.update(&[(node(5, b""), false)]);
        beside.update(&(0..3).map(|n| (node(n, b"y"), true)).collect::<Vec<_>>());
        assert!(beside.list.before.is_none() && !beside.snapshot().is_list());
    }
}
