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
        let new = match self.take_before(reclaimer) {
            Some(mut before) => {
                let list = before.nodes.list_mut().expect("checked when it was taken");
                change(list, &before.edits);
                change(list, &edits);
                before.nodes
            }
            None if published.len() < KEEP_FROM => {
                let merged = merge(&published, edits.iter().map(Edit::as_ref));
                Nodes::from_sorted(merged.expect("there are edits"))
            }
            None => {
                let edits = edits.iter().map(Edit::as_ref);
                Nodes::from_sorted_list(merge_all(&published, edits.len(), edits))
            }
        };
        self.published.store(reclaimer, new);
        self.before = published.is_list().then_some(Before { nodes: published, edits });
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
