//! The writer of the read side: folds events, and publishes what they add up to.
//!
//! The published maps are the state; beside them there is only what has changed since the last
//! publication. So nothing is kept twice, and an event that changes nothing is found out by
//! comparing with what readers see.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex};

use super::epoch_map::{MapWriter, Reclaimer, epoch_cell, epoch_map};
use super::fold::{ScopeFold, Scratch, What};
use super::node_list::{NodeList, same_value};
use super::{ClusterView, Registry, hash_name};
use crate::event::Event;
use crate::node::{Node, NodeName, Nodes, ScopeName};
use crate::role::Role;

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
    members: NodeList,
    by_name: MapWriter<NodeName, Node>,
    /// Nodes that came up, changed or went down since the last publication.
    changed_members: BTreeMap<NodeName, MemberChange>,
    /// The scopes that show something or are about to.
    scopes: BTreeMap<ScopeName, ScopeFold>,
    scratch: Scratch,
    reclaimer: Reclaimer,
    /// Whether something was published since the last [`poll`](Publisher::poll).
    is_busy: bool,
}

/// The last value of a node, and whether it is up.
struct MemberChange {
    node: Node,
    is_up: bool,
}

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
            members: NodeList::new(members_writer),
            by_name: by_name_writer,
            changed_members: BTreeMap::new(),
            scopes: BTreeMap::new(),
            scratch: Scratch::default(),
            reclaimer,
            is_busy: false,
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
                if let Some(live) = self.live_run(node).cloned() {
                    self.node_down(live);
                }
            }
            Event::RoleAdded { scope, node, role } => {
                // The live value rather than the event's: its metadata may be newer.
                if let Some(live) = self.live_run(node).cloned() {
                    self.fold(scope).note(&live, What::Shown(role.clone()));
                }
            }
            Event::RoleRemoved { scope, node, role } => {
                if let Some(live) = self.live_run(node).cloned()
                    && let Some(fold) = self.scopes.get_mut(scope)
                {
                    fold.note(&live, What::Hidden(role.clone()));
                }
            }
            Event::NameConflict { .. } | Event::LimitReached { .. } | Event::Lagged { .. } => {}
        }
    }

    /// Makes all that was applied visible, each set at once, and says which sets changed.
    ///
    /// Also [`poll`](Publisher::poll)s, when enough was replaced since that was last done.
    pub fn publish(&mut self) -> Published {
        let members = self.publish_members();
        let mut published = Published { roles: Vec::new(), members };
        let mut has_empty = false;
        for (scope, fold) in &mut self.scopes {
            if fold.has_changes() {
                let scratch = &mut self.scratch;
                fold.publish(scope, &mut self.reclaimer, scratch, &mut published.roles);
                has_empty |= fold.writer.is_empty();
            }
        }
        if has_empty {
            let cluster = &self.cluster;
            for (scope, fold) in self.scopes.extract_if(.., |_, fold| fold.writer.is_empty()) {
                cluster.registry().entry(&scope).writer = Some(fold.writer);
            }
        }
        self.is_busy |= !published.is_empty();
        if self.reclaimer.fresh_count() >= POLL_AFTER
            || self.reclaimer.pending_bytes() >= POLL_AFTER_BYTES
        {
            self.reclaimer.poll();
        }
        published
    }

    /// Frees what was replaced and no reader can hold any more, a bounded number of things; returns
    /// how many. Costs nothing when nothing is pending; otherwise call it now and then also when
    /// there is nothing to publish.
    pub fn poll(&mut self) -> usize {
        if !mem::take(&mut self.is_busy) {
            self.members.forget_before();
            self.scopes.values_mut().for_each(|fold| fold.writer.all.forget_before());
        }
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
            Some(change) => change.is_up.then_some(&change.node),
            None => self.by_name.get(hash_name(name), name),
        }
    }

    /// The same if it is the same run.
    fn live_run(&self, node: &Node) -> Option<&Node> {
        self.live(node.node_name()).filter(|live| live.id() == node.id())
    }

    fn node_up(&mut self, node: &Node) {
        match self.live(node.node_name()).cloned() {
            Some(live) if live.id() != node.id() => self.node_down(live),
            Some(live) if !same_value(&live, node) => self.note(node, || What::Renewed),
            _ => {}
        }
        self.member_changed(node.clone(), true);
    }

    fn node_down(&mut self, node: Node) {
        self.note(&node, || What::Gone);
        self.member_changed(node, false);
    }

    /// Notes what happened to a live node in all scopes that it may concern.
    fn note(&mut self, node: &Node, what: impl Fn() -> What) {
        for fold in self.scopes.values_mut() {
            if fold.may_show(node.node_name()) {
                fold.note(node, what());
            }
        }
    }

    fn member_changed(&mut self, node: Node, is_up: bool) {
        self.changed_members.insert(node.node_name().clone(), MemberChange { node, is_up });
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
        if self.changed_members.is_empty() {
            return false;
        }
        let changes = mem::take(&mut self.changed_members);
        let shown = changes.values().map(|change| (&change.node, change.is_up));
        if !self.members.update(&mut self.reclaimer, shown) {
            return false;
        }
        for (name, MemberChange { node, is_up }) in changes {
            let hash = hash_name(&name);
            if is_up {
                self.by_name.insert(&mut self.reclaimer, hash, name, node);
            } else {
                self.by_name.remove(&mut self.reclaimer, hash, &name);
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
