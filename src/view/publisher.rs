//! The writer of the read side: folds events, and publishes what they add up to.
//!
//! The published maps are the state; beside them there is only what has changed since the last
//! publication. So nothing is kept twice, and an event that changes nothing is found out by
//! comparing with what readers see.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex};

use super::epoch_map::{CellWriter, MapWriter, Reclaimer, epoch_cell, epoch_map};
use super::{ClusterView, Registry, ScopeWriter, hash_name};
use crate::event::Event;
use crate::node::{Node, NodeName, Nodes, ScopeName};
use crate::role::{Role, Roles};

/// Things replaced after which a publication frees what it can: to find that out costs as much as
/// a few updates.
const POLL_AFTER: usize = 64;

/// Or bytes: what is freed soon is still in the caches when it is used again.
const POLL_AFTER_BYTES: usize = 256 << 10;

/// The one writer of a cluster's published state.
///
/// [`apply`](Publisher::apply) any number of events, then [`publish`](Publisher::publish) once:
/// each set that changed is rebuilt once, however many events touched it.
///
/// What it shows is always consistent, whatever the events: of each name there is at most one
/// node, the one that came up last, and only nodes that are up have roles. An event that does not
/// fit (a role of a node that is not up, or of an earlier run) changes nothing, nor does the
/// same event applied again.
///
/// ```
/// use rolecall::view::Publisher;
/// use rolecall::{DownReason, Event, Node, NodeId, NodeName, Role, ScopeName};
///
/// let node = |name, id| {
///     let (name, id) = (NodeName::new(name).unwrap(), NodeId::from_u64(id).unwrap());
///     Node::new(name, id, "127.0.0.1:7946".parse().unwrap(), bytes::Bytes::new())
/// };
/// let (mut publisher, cluster) = Publisher::new(node("a", 1));
/// let scope = ScopeName::new("default").unwrap();
/// let view = cluster.scope(&scope);
///
/// let b = node("b", 2);
/// publisher.apply(&Event::NodeUp { node: b.clone() });
/// publisher.apply(&Event::RoleAdded { scope, node: b.clone(), role: Role::from("web") });
/// assert!(view.nodes("web").is_empty());
///
/// let published = publisher.publish();
/// assert!(published.members_changed());
/// assert_eq!(view.nodes("web").names(), ["b"]);
///
/// publisher.apply(&Event::NodeDown { node: b, reason: DownReason::Left });
/// let _ = publisher.publish();
/// assert!(view.nodes("web").is_empty());
/// ```
pub struct Publisher {
    cluster: Arc<ClusterView>,
    members: CellWriter<Nodes>,
    by_name: MapWriter<NodeName, Node>,
    /// Nodes that came up, changed or went down (`None`) since the last publication.
    changed_members: NodeChanges,
    /// The scopes that show something or are about to.
    scopes: BTreeMap<ScopeName, ScopeFold>,
    reclaimer: Reclaimer,
}

/// For each name, the node that a set is to show; `None` for none.
type NodeChanges = BTreeMap<NodeName, Option<Node>>;

/// What the last [`Publisher::publish`] changed, for those who wait for it.
///
/// ```
/// use rolecall::view::Publisher;
/// use rolecall::{Event, Node, NodeId, NodeName, Role, ScopeName};
///
/// let name = NodeName::new("a").unwrap();
/// let addr = "127.0.0.1:7946".parse().unwrap();
/// let local = Node::new(name, NodeId::from_u64(1).unwrap(), addr, bytes::Bytes::new());
/// let (mut publisher, _cluster) = Publisher::new(local.clone());
///
/// let (scope, role) = (ScopeName::new("default").unwrap(), Role::from("web"));
/// let event = Event::RoleAdded { scope: scope.clone(), node: local, role: role.clone() };
/// publisher.apply(&event);
/// assert_eq!(publisher.publish().roles(), [(scope, role)]);
///
/// publisher.apply(&event);
/// assert!(publisher.publish().is_empty());
/// ```
#[must_use = "watchers of what changed are to be told"]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    roles: Vec<(ScopeName, Role)>,
    members: bool,
}

impl Published {
    /// The roles whose set of nodes changed, each once, in the order of scopes.
    pub fn roles(&self) -> &[(ScopeName, Role)] {
        &self.roles
    }

    /// Whether a node came up, went down or changed its metadata.
    pub fn members_changed(&self) -> bool {
        self.members
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.roles.is_empty() && !self.members
    }
}

impl Publisher {
    /// A publisher and the view it writes, in which this node is up and nobody has a role.
    pub fn new(local: Node) -> (Publisher, Arc<ClusterView>) {
        let mut reclaimer = Reclaimer::default();
        let graveyard = reclaimer.graveyard();
        let (members_writer, members) = epoch_cell(graveyard, Nodes::from_iter([local.clone()]));
        let (mut by_name_writer, by_name) = epoch_map(graveyard);
        let scopes = Mutex::new(Registry::new(Arc::clone(graveyard)));
        let name = local.node_name().clone();
        by_name_writer.insert(&mut reclaimer, hash_name(&name), name, local);
        let cluster = Arc::new(ClusterView { members, by_name, scopes });
        let publisher = Publisher {
            cluster: Arc::clone(&cluster),
            members: members_writer,
            by_name: by_name_writer,
            changed_members: NodeChanges::new(),
            scopes: BTreeMap::new(),
            reclaimer,
        };
        (publisher, cluster)
    }

    /// Takes one event into account; readers see it after the next [`publish`](Publisher::publish).
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::NodeUp { node } => self.node_up(node),
            Event::NodeUpdated { node } => {
                if self.live_run(node).is_some() {
                    self.node_up(node);
                }
            }
            Event::NodeDown { node, .. } => {
                if self.live_run(node).is_some() {
                    self.node_down(node.node_name());
                }
            }
            Event::RoleAdded { scope, node, role } => {
                // The live value rather than the event's: its metadata may be newer.
                if let Some(live) = self.live_run(node).cloned() {
                    self.fold(scope).show(role, live.node_name(), Some(&live));
                }
            }
            Event::RoleRemoved { scope, node, role } => {
                if self.live_run(node).is_some()
                    && let Some(fold) = self.scopes.get_mut(scope)
                {
                    fold.show(role, node.node_name(), None);
                }
            }
            Event::NameConflict { .. } | Event::Lagged { .. } => {}
        }
    }

    /// Makes all that was applied visible, each set at once, and says which sets changed.
    ///
    /// Also [`poll`](Publisher::poll)s, when enough was replaced since that was last done.
    pub fn publish(&mut self) -> Published {
        let members = self.publish_members();
        let mut published = Published { roles: Vec::new(), members };
        for (scope, fold) in &mut self.scopes {
            if fold.has_changes() {
                let roles = fold.publish(&self.by_name, &mut self.reclaimer);
                published.roles.extend(roles.into_iter().map(|role| (scope.clone(), role)));
            }
        }
        let cluster = &self.cluster;
        for (scope, fold) in self.scopes.extract_if(.., |_, fold| fold.writer.is_empty()) {
            cluster.registry().entry(&scope).writer = Some(fold.writer);
        }
        if self.reclaimer.fresh_count() >= POLL_AFTER
            || self.reclaimer.pending_bytes() >= POLL_AFTER_BYTES
        {
            self.poll();
        }
        published
    }

    /// Frees what was replaced and no reader can hold any more, a bounded number of things; returns
    /// how many. Costs nothing when nothing is pending; otherwise call it now and then also when
    /// there is nothing to publish.
    pub fn poll(&mut self) -> usize {
        self.reclaimer.poll()
    }

    /// About how many bytes wait to be freed. Only a reader that stays inside for long, such as a
    /// [`View`](super::View) that is not refreshed, makes it grow.
    pub fn pending_bytes(&self) -> usize {
        self.reclaimer.pending_bytes()
    }

    /// How many replaced sets and tables wait to be freed.
    pub fn pending_count(&self) -> usize {
        self.reclaimer.pending_count()
    }

    /// The node of that name that is up, after all events applied so far.
    fn live(&self, name: &NodeName) -> Option<&Node> {
        match self.changed_members.get(name) {
            Some(change) => change.as_ref(),
            None => self.by_name.get(hash_name(name), name),
        }
    }

    /// The same if it is the same run.
    fn live_run(&self, node: &Node) -> Option<&Node> {
        self.live(node.node_name()).filter(|live| live.id() == node.id())
    }

    fn node_up(&mut self, node: &Node) {
        let name = node.node_name();
        match self.live(name) {
            Some(live) if live.id() != node.id() => self.node_down(name),
            Some(live) if !same_value(live, node) => {
                for fold in self.scopes.values_mut() {
                    for role in &fold.roles_of(name) {
                        fold.show(role, name, Some(node));
                    }
                }
            }
            _ => {}
        }
        self.changed_members.insert(name.clone(), Some(node.clone()));
    }

    fn node_down(&mut self, name: &NodeName) {
        for fold in self.scopes.values_mut() {
            for role in &fold.roles_of(name) {
                fold.show(role, name, None);
            }
        }
        self.changed_members.insert(name.clone(), None);
    }

    /// The fold of a scope, which has the writing side of its view.
    fn fold(&mut self, scope: &ScopeName) -> &mut ScopeFold {
        let cluster = &self.cluster;
        self.scopes.entry(scope.clone()).or_insert_with(|| {
            let writer = cluster.registry().entry(scope).writer.take();
            ScopeFold::new(writer.expect("it is in the registry when it is not in a fold"))
        })
    }

    fn publish_members(&mut self) -> bool {
        let changes = mem::take(&mut self.changed_members);
        let Some(members) = merge_nodes(self.members.get(), &changes) else { return false };
        self.members.store(&mut self.reclaimer, members);
        for (name, node) in changes {
            let hash = hash_name(&name);
            match node {
                Some(node) => self.by_name.insert(&mut self.reclaimer, hash, name, node),
                None => {
                    self.by_name.remove(&mut self.reclaimer, hash, &name);
                }
            }
        }
        true
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("cluster", &self.cluster)
            .field("pending_bytes", &self.pending_bytes())
            .finish_non_exhaustive()
    }
}

/// One scope: its writing side, and what has changed since the last publication.
struct ScopeFold {
    writer: ScopeWriter,
    /// By role: who is to be shown as playing it.
    changed_roles: BTreeMap<Role, NodeChanges>,
    /// The same by node: which roles are to be shown of it.
    changed_nodes: BTreeMap<NodeName, BTreeMap<Role, bool>>,
}

impl ScopeFold {
    fn new(writer: ScopeWriter) -> ScopeFold {
        ScopeFold { writer, changed_roles: BTreeMap::new(), changed_nodes: BTreeMap::new() }
    }

    /// Notes that `role` is to show this node under its name, or none.
    fn show(&mut self, role: &Role, name: &NodeName, node: Option<&Node>) {
        let nodes = self.changed_roles.entry(role.clone()).or_default();
        nodes.insert(name.clone(), node.cloned());
        let roles = self.changed_nodes.entry(name.clone()).or_default();
        roles.insert(role.clone(), node.is_some());
    }

    fn has_changes(&self) -> bool {
        !self.changed_nodes.is_empty()
    }

    fn published_roles(&self, name: &NodeName) -> &[Role] {
        self.writer.nodes.get(hash_name(name), name).map_or(&[], |roles| roles)
    }

    /// The roles of a node, after all events applied so far, in any order.
    fn roles_of(&self, name: &NodeName) -> Vec<Role> {
        let published = self.published_roles(name);
        let Some(changes) = self.changed_nodes.get(name) else { return published.to_vec() };
        let kept = published.iter().filter(|role| !changes.contains_key(*role));
        let shown = changes.iter().filter(|(_, shown)| **shown).map(|(role, _)| role);
        kept.chain(shown).cloned().collect()
    }

    /// Rebuilds what has changed, each set once; returns the roles whose sets differ.
    fn publish(
        &mut self,
        by_name: &MapWriter<NodeName, Node>,
        reclaimer: &mut Reclaimer,
    ) -> Vec<Role> {
        let mut differ = Vec::new();
        for (role, changes) in mem::take(&mut self.changed_roles) {
            let hash = role.hash64();
            let old = self.writer.roles.get(hash, &role);
            let Some(new) = merge_nodes(old.map_or(&[], |nodes| nodes), &changes) else { continue };
            if new.is_empty() {
                self.writer.roles.remove(reclaimer, hash, &role);
            } else {
                self.writer.roles.insert(reclaimer, hash, role.clone(), new);
            }
            differ.push(role);
        }

        let mut all_changes = NodeChanges::new();
        for (name, changes) in &self.changed_nodes {
            let published = self.published_roles(name);
            let mut has_roles = !published.is_empty();
            if let Some(roles) = merge_roles(published, changes) {
                has_roles = !roles.is_empty();
                let (hash, nodes) = (hash_name(name), &mut self.writer.nodes);
                if has_roles {
                    nodes.insert(reclaimer, hash, name.clone(), roles);
                } else {
                    nodes.remove(reclaimer, hash, name);
                }
            }
            let live = has_roles.then(|| {
                let live = by_name.get(hash_name(name), name);
                live.expect("only nodes that are up have roles").clone()
            });
            all_changes.insert(name.clone(), live);
        }
        self.changed_nodes.clear();
        if let Some(all) = merge_nodes(self.writer.all.get(), &all_changes) {
            self.writer.all.store(reclaimer, all);
        }
        differ
    }
}

/// A sorted set of nodes after some changes; `None` if they change nothing.
fn merge_nodes(old: &[Node], changes: &NodeChanges) -> Option<Nodes> {
    let edits = changes.iter().filter_map(|(name, new)| {
        let place = old.binary_search_by(|node| node.node_name().cmp(name));
        match (place, new) {
            (Ok(at), Some(new)) if same_value(&old[at], new) => None,
            (Err(_), None) => None,
            (place, new) => Some(Edit { place, new: new.as_ref() }),
        }
    });
    merge(old, edits).map(Nodes::from_sorted)
}

/// A sorted set of roles after some, that are to be shown or not; `None` if they change nothing.
fn merge_roles(old: &[Role], changes: &BTreeMap<Role, bool>) -> Option<Roles> {
    let edits = changes.iter().filter_map(|(role, shown)| {
        let place = old.binary_search(role);
        (place.is_ok() != *shown).then_some(Edit { place, new: shown.then_some(role) })
    });
    merge(old, edits).map(Roles::from_sorted)
}

/// What is to stand at a place of a sorted list, or be inserted before it.
struct Edit<'a, T> {
    place: Result<usize, usize>,
    new: Option<&'a T>,
}

impl<T> Edit<'_, T> {
    fn start(&self) -> usize {
        let (Ok(at) | Err(at)) = self.place;
        at
    }

    fn end(&self) -> usize {
        self.start() + usize::from(self.place.is_ok())
    }
}

/// A list after some edits, in the order of their places; `None` if there are none. What stays is
/// copied in stretches: in order, so that there is nothing to sort.
fn merge<'a, T: Clone>(
    old: &'a [T],
    mut edits: impl Iterator<Item = Edit<'a, T>>,
) -> Option<Arc<[T]>> {
    let first = edits.next()?;
    let Some(second) = edits.next() else {
        // As a rule it is one: then the length is known, and all is copied only once.
        let (before, after) = (&old[..first.start()], &old[first.end()..]);
        return Some(before.iter().chain(first.new).chain(after).cloned().collect());
    };
    let more = 2 + edits.size_hint().1.unwrap_or_default();
    let mut merged = Vec::with_capacity(old.len() + more);
    let mut copied = 0;
    for edit in [first, second].into_iter().chain(edits) {
        merged.extend_from_slice(&old[copied..edit.start()]);
        merged.extend(edit.new.cloned());
        copied = edit.end();
    }
    merged.extend_from_slice(&old[copied..]);
    Some(merged.into())
}

/// Whether two values of a node are alike in all that can be seen of them: equality looks at name
/// and id alone.
fn same_value(a: &Node, b: &Node) -> bool {
    a == b && a.addr() == b.addr() && a.meta() == b.meta()
}
