//! What has changed in one scope since the last publication, and what that adds up to.

use std::mem;

use super::edit::merge;
use super::epoch_map::Reclaimer;
use super::node_list::edits;
use super::role_list::{Edited, RoleList};
use super::{ScopeWriter, hash_name};
use crate::node::{Node, NodeName, Nodes, ScopeName};
use crate::role::Role;

/// Changes for which room is kept from one publication to the next.
const ROOM_KEPT: usize = 16;

/// One scope: its writing side, and what has changed since the last publication.
pub(super) struct ScopeFold {
    pub(super) writer: ScopeWriter,
    /// In the order in which it happened.
    log: Vec<Change>,
}

/// What happened to a node that was live then.
struct Change {
    node: Node,
    what: What,
}

pub(super) enum What {
    /// It is to be shown as playing that role.
    Shown(Role),
    /// It is not.
    Hidden(Role),
    /// It went down: it is to be shown nowhere.
    Gone,
    /// Its value is another: that one is to be shown, where it is.
    Renewed,
}

/// What the publication of a scope works with, kept so that it need not be allocated each time.
#[derive(Default)]
pub(super) struct Scratch {
    toggles: Vec<(Role, bool)>,
    shown_as: Vec<ShownAs>,
    /// In the order of their names: nodes to be listed in the scope or not.
    listed: Vec<(Node, bool)>,
}

/// Whether a node is shown as playing a role.
struct ShownAs {
    role: Role,
    node: Node,
    shown: bool,
}

impl ScopeFold {
    pub(super) fn new(writer: ScopeWriter) -> ScopeFold {
        ScopeFold { writer, log: Vec::new() }
    }

    /// Notes what happened to a live node.
    pub(super) fn note(&mut self, node: &Node, what: What) {
        self.log.push(Change { node: node.clone(), what });
    }

    /// Whether the scope shows this node or may be about to.
    pub(super) fn may_show(&self, name: &NodeName) -> bool {
        !self.log.is_empty() || self.writer.nodes.get(hash_name(name), name).is_some()
    }

    pub(super) fn has_changes(&self) -> bool {
        !self.log.is_empty()
    }

    /// Publishes what has changed, each set once; adds the roles whose sets differ.
    pub(super) fn publish(
        &mut self,
        scope: &ScopeName,
        reclaimer: &mut Reclaimer,
        scratch: &mut Scratch,
        differ: &mut Vec<(ScopeName, Role)>,
    ) {
        let mut log = mem::take(&mut self.log);
        log.sort_by(|a, b| a.node.node_name().cmp(b.node.node_name()));
        for changes in log.chunk_by(|a, b| a.node.node_name() == b.node.node_name()) {
            self.publish_roles_of_node(changes, reclaimer, scratch);
        }
        log.clear();
        log.shrink_to(ROOM_KEPT);
        self.log = log;

        let shown_as = &mut scratch.shown_as;
        let order = |a: &ShownAs, b: &ShownAs| {
            a.role.cmp(&b.role).then_with(|| a.node.node_name().cmp(b.node.node_name()))
        };
        shown_as.sort_by(order);
        debug_assert!(shown_as.is_sorted_by(|a, b| order(a, b).is_lt()), "each once");
        for of_role in shown_as.chunk_by(|a, b| a.role == b.role) {
            if self.publish_nodes_of_role(of_role, reclaimer) {
                differ.push((scope.clone(), of_role[0].role.clone()));
            }
        }
        shown_as.clear();
        shown_as.shrink_to(ROOM_KEPT);

        let listed = scratch.listed.iter().map(|(node, shown)| (node, *shown));
        self.writer.all.update(reclaimer, listed);
        scratch.listed.clear();
        scratch.listed.shrink_to(ROOM_KEPT);
    }

    /// Folds all that happened to one node, and publishes its roles; the rest goes to `scratch`.
    fn publish_roles_of_node(
        &mut self,
        changes: &[Change],
        reclaimer: &mut Reclaimer,
        scratch: &mut Scratch,
    ) {
        let Some(Change { node, .. }) = changes.last() else { return };
        let (name, hash) = (node.node_name(), hash_name(node.node_name()));
        let published = self.writer.nodes.get(hash, name);

        let went = changes.iter().rposition(|change| matches!(change.what, What::Gone));
        let since = &changes[went.map_or(0, |at| at + 1)..];
        let is_new = went.is_some() || since.iter().any(|it| matches!(it.what, What::Renewed));
        // Of each role what happened last.
        let toggles = &mut scratch.toggles;
        toggles.extend(since.iter().rev().filter_map(|change| match &change.what {
            What::Shown(role) => Some((role.clone(), true)),
            What::Hidden(role) => Some((role.clone(), false)),
            What::Gone | What::Renewed => None,
        }));
        toggles.sort_by(|(a, _), (b, _)| a.cmp(b));
        toggles.dedup_by(|(later, _), (first, _)| later == first);

        let shown_as =
            |role: &Role, shown| ShownAs { role: role.clone(), node: node.clone(), shown };
        scratch.shown_as.extend(toggles.iter().map(|(role, shown)| shown_as(role, *shown)));
        if let (true, Some(published)) = (is_new, published) {
            let is_toggled = |role| toggles.binary_search_by(|(known, _)| known.cmp(role)).is_ok();
            let others = published.iter().filter(|role| !is_toggled(role));
            scratch.shown_as.extend(others.map(|role| shown_as(role, went.is_none())));
        }

        let was_listed = published.is_some();
        let kept = published.filter(|_| went.is_none());
        let edited = RoleList::edited(kept, toggles);
        toggles.clear();
        toggles.shrink_to(ROOM_KEPT);
        let is_listed = match edited {
            Edited::Now(roles) => {
                self.writer.nodes.insert(reclaimer, hash, name.clone(), roles);
                true
            }
            Edited::Same if kept.is_some() => true,
            Edited::Gone | Edited::Same => {
                self.writer.nodes.remove(reclaimer, hash, name);
                false
            }
        };
        if is_listed != was_listed || is_new {
            scratch.listed.push((node.clone(), is_listed));
        }
    }

    /// Publishes the nodes of one role, of which some are in the order of names; whether they
    /// differ from those before.
    fn publish_nodes_of_role(&mut self, changes: &[ShownAs], reclaimer: &mut Reclaimer) -> bool {
        let Some(ShownAs { role, .. }) = changes.first() else { return false };
        let (hash, roles) = (role.hash64(), &mut self.writer.roles);
        let old: &[Node] = roles.get(hash, role).map_or(&[], |nodes| nodes);
        let edits = edits(old, changes.iter().map(|change| (&change.node, change.shown)));
        let Some(new) = merge(old, edits) else { return false };
        if new.is_empty() {
            roles.remove(reclaimer, hash, role);
        } else {
            roles.insert(reclaimer, hash, role.clone(), Nodes::from_sorted(new));
        }
        true
    }
}
