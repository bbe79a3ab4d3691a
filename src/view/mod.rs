//! The published read side: what a node knows, as maps that any thread reads without a lock.
//!
//! Events go into a [`Publisher`]; what they add up to comes out of a [`ClusterView`] (who is up)
//! and of one [`ScopeView`] per scope (who plays which role there). This module is a fold over
//! [`Event`](crate::Event)s and knows nothing of how they come about, so it can be fuzzed and
//! measured alone.
//!
//! ```
//! use rolecall::view::Publisher;
//! use rolecall::{Event, Node, NodeId, NodeName, Role, ScopeName};
//!
//! let name = NodeName::new("a").unwrap();
//! let addr = "127.0.0.1:7946".parse().unwrap();
//! let local = Node::new(name, NodeId::from_u64(1).unwrap(), addr, bytes::Bytes::new());
//! let (mut publisher, cluster) = Publisher::new(local.clone());
//!
//! let scope = ScopeName::new("default").unwrap();
//! let view = cluster.scope(&scope);
//! assert!(view.nodes("web").is_empty());
//!
//! publisher.apply(&Event::RoleAdded { scope, node: local, role: Role::from("web") });
//! let published = publisher.publish();
//! assert_eq!(published.roles().len(), 1);
//! assert_eq!(view.nodes("web").names(), ["a"]);
//! ```
//!
//! # Consistency
//! Each read is of one moment: it sees all that was published before it began, and one published
//! state of the set it asks for. Two reads are two moments.
//!
//! # Cost
//! A read hashes its key (not for a `&Role`, which carries its hash), enters the epoch (not in a
//! [`View`], which is inside), looks at one or two cache lines of the table and at the entry's. It
//! never waits, retries or allocates, and frees nothing of what the publisher made; only a
//! thread's first read allocates, as it registers the thread. (A role that is neither a `&Role`
//! nor a string, and long, is written on the heap to be looked up.) A thread that stays inside a
//! read delays nobody: it only keeps memory ([`Publisher::pending_bytes`]) from being freed.
//!
//! What was published outlives its publisher: it goes with the last handle to it.
//!
//! # Across `.await`
//! Snapshots ([`Nodes`], [`Roles`]) may be held for as long as you like. A [`View`] is not `Send`,
//! and a task that sleeps with one keeps all that is replaced meanwhile. Where tasks do not move
//! between threads only clippy can forbid that, by this in `clippy.toml`:
//!
//! ```toml
//! await-holding-invalid-types = ["rolecall::view::View"]
//! ```

mod edit;
mod epoch_map;
mod fold;
mod guard;
mod node_list;
mod publisher;
mod role_list;
mod sync;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use crate::node::{Node, NodeName, Nodes, ScopeName};
use crate::role::{self, AsRole, Role, Roles};
use epoch_map::{
    EpochCell, EpochGuard, EpochMap, Graveyard, HeapBytes, MapWriter, epoch_cell, epoch_map,
};
use node_list::NodeList;
use role_list::RoleList;

pub use publisher::{Published, Publisher};

#[cfg(test)]
mod tests;

/// Scopes that the registry keeps before it looks for ones that nobody uses.
const UNUSED_SCOPES_KEPT: usize = 64;

/// The empty set, shared so that a read which finds nothing does not allocate.
static NO_NODES: LazyLock<Nodes> = LazyLock::new(Nodes::default);

/// Who is up, for any number of readers.
///
/// ```
/// use rolecall::view::Publisher;
/// use rolecall::{Node, NodeId, NodeName};
///
/// let name = NodeName::new("a").unwrap();
/// let addr = "127.0.0.1:7946".parse().unwrap();
/// let local = Node::new(name, NodeId::from_u64(1).unwrap(), addr, bytes::Bytes::new());
/// let (_publisher, cluster) = Publisher::new(local.clone());
///
/// assert_eq!(cluster.members().names(), ["a"]);
/// assert_eq!(cluster.node("a"), Some(local));
/// assert_eq!(cluster.node("b"), None);
/// ```
pub struct ClusterView {
    members: EpochCell<Nodes>,
    by_name: EpochMap<NodeName, Node>,
    scopes: Mutex<Registry>,
}

impl ClusterView {
    /// Every live node, the local one included, in any scope.
    pub fn members(&self) -> Nodes {
        self.members.load(&EpochGuard::enter()).clone()
    }

    /// A live node by its name.
    pub fn node(&self, name: &str) -> Option<Node> {
        self.node_in(&EpochGuard::enter(), name).cloned()
    }

    /// The view of one scope, the same one for every call; empty until something is published.
    ///
    /// Takes a short lock: keep what it returns rather than ask again before each read.
    pub fn scope(&self, name: &ScopeName) -> Arc<ScopeView> {
        Arc::clone(&self.registry().entry(name).view)
    }

    /// A reader that stays inside, for tight loops on one thread.
    ///
    /// ```
    /// # use rolecall::view::Publisher;
    /// # use rolecall::{Node, NodeId, NodeName, ScopeName};
    /// # let name = NodeName::new("a").unwrap();
    /// # let addr = "127.0.0.1:7946".parse().unwrap();
    /// # let id = NodeId::from_u64(1).unwrap();
    /// # let (_publisher, cluster) =
    /// #     Publisher::new(Node::new(name, id, addr, bytes::Bytes::new()));
    /// let scope = cluster.scope(&ScopeName::new("default").unwrap());
    /// let mut view = cluster.view();
    /// for _ in 0..3 {
    ///     assert_eq!(view.nodes(&scope, "web"), []);
    ///     view.refresh();
    /// }
    /// ```
    pub fn view(&self) -> View<'_> {
        View { cluster: self, guard: EpochGuard::enter() }
    }

    fn node_in<'g>(&'g self, guard: &'g EpochGuard, name: &str) -> Option<&'g Node> {
        self.by_name.get(guard, hash_name(name), |known| known == name)
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // Nothing panics while it is held, and if so, it is not left half-changed.
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ClusterView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterView").field("members", &self.members()).finish_non_exhaustive()
    }
}

/// Who plays which role in one scope, for any number of readers.
///
/// ```
/// use rolecall::view::Publisher;
/// use rolecall::{Event, Node, NodeId, NodeName, Role, ScopeName};
///
/// let name = NodeName::new("a").unwrap();
/// let addr = "127.0.0.1:7946".parse().unwrap();
/// let local = Node::new(name, NodeId::from_u64(1).unwrap(), addr, bytes::Bytes::new());
/// let (mut publisher, cluster) = Publisher::new(local.clone());
/// let scope = ScopeName::new("default").unwrap();
/// let view = cluster.scope(&scope);
///
/// let web = Role::from("web");
/// publisher.apply(&Event::RoleAdded { scope, node: local.clone(), role: web.clone() });
/// let _ = publisher.publish();
///
/// assert_eq!(view.nodes(&web).names(), ["a"]);
/// assert_eq!(view.with_nodes("web", |nodes| nodes.len()), 1);
/// assert_eq!(view.roles("a").to_vec(), [web]);
/// assert_eq!(view.all_nodes().to_vec(), [local]);
/// ```
pub struct ScopeView {
    name: ScopeName,
    roles: EpochMap<Role, Nodes>,
    nodes: EpochMap<NodeName, RoleList>,
    all: EpochCell<Nodes>,
}

impl ScopeView {
    /// A view without content, and the other side of it.
    fn new(name: ScopeName, graveyard: &Arc<Graveyard>) -> (ScopeWriter, ScopeView) {
        let (roles_writer, roles) = epoch_map(graveyard);
        let (nodes_writer, nodes) = epoch_map(graveyard);
        let (all_writer, all) = epoch_cell(graveyard, Nodes::default());
        let all_writer = NodeList::new(all_writer);
        let writer = ScopeWriter { roles: roles_writer, nodes: nodes_writer, all: all_writer };
        (writer, ScopeView { name, roles, nodes, all })
    }

    /// The scope's name.
    pub fn name(&self) -> &ScopeName {
        &self.name
    }

    /// Every node with that role; empty if there is none.
    ///
    /// The snapshot is the caller's to keep, also across `.await`. It costs one reference count,
    /// which threads that ask for the same role at the same time contend for; and who drops the
    /// last snapshot of a set that was replaced meanwhile frees it.
    pub fn nodes(&self, role: impl AsRole) -> Nodes {
        self.nodes_in(&EpochGuard::enter(), role).unwrap_or(&NO_NODES).clone()
    }

    /// Calls `f` with every node of that role: like [`nodes`](ScopeView::nodes), without touching
    /// a reference count.
    pub fn with_nodes<R>(&self, role: impl AsRole, f: impl FnOnce(&[Node]) -> R) -> R {
        let guard = EpochGuard::enter();
        f(self.nodes_in(&guard, role).map_or(&[], |nodes| nodes))
    }

    /// The roles of the node of that name; empty if it has none or is unknown.
    ///
    /// Costs one reference count; of a node with more than 128 roles here, a copy of all of them.
    pub fn roles(&self, name: &str) -> Roles {
        self.roles_in(&EpochGuard::enter(), name)
    }

    /// Every node with at least one role here, each once.
    pub fn all_nodes(&self) -> Nodes {
        self.all.load(&EpochGuard::enter()).clone()
    }

    #[inline]
    fn nodes_in<'g>(&'g self, guard: &'g EpochGuard, role: impl AsRole) -> Option<&'g Nodes> {
        role.with_key(|key| self.roles.get(guard, key.hash(), |known| key.is(known)))
    }

    #[inline]
    fn roles_in(&self, guard: &EpochGuard, name: &str) -> Roles {
        let roles = self.nodes.get(guard, hash_name(name), |known| known == name);
        roles.map(RoleList::to_roles).unwrap_or_default()
    }
}

impl AsRef<ScopeView> for ScopeView {
    fn as_ref(&self) -> &ScopeView {
        self
    }
}

impl fmt::Debug for ScopeView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopeView").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A reader that stays inside from call to call: lookups cost no more than in a plain hash map.
///
/// Each call sees the latest state. What the calls return is borrowed from the view and cannot
/// outlive the next [`refresh`](View::refresh). Nothing that was replaced since the last one is
/// freed, so refresh now and then: a view that is held for long costs memory.
///
/// It is bound to its thread and cannot be held across `.await` in a task that moves:
///
/// ```compile_fail,E0277
/// fn must_be_send<T: Send>() {}
/// must_be_send::<rolecall::view::View<'static>>();
/// ```
///
/// ```
/// use rolecall::view::Publisher;
/// use rolecall::{Node, NodeId, NodeName, ScopeName};
///
/// let name = NodeName::new("a").unwrap();
/// let addr = "127.0.0.1:7946".parse().unwrap();
/// let local = Node::new(name, NodeId::from_u64(1).unwrap(), addr, bytes::Bytes::new());
/// let (_publisher, cluster) = Publisher::new(local.clone());
///
/// let mut view = cluster.view();
/// assert_eq!(view.members(), [local]);
/// assert_eq!(view.node("a").map(Node::name), Some("a"));
/// view.refresh();
/// ```
#[must_use = "a view is for more than one read; for a single one ask the scope"]
pub struct View<'c> {
    cluster: &'c ClusterView,
    guard: EpochGuard,
}

impl View<'_> {
    /// Lets go of all that was read so far, so that it can be freed.
    pub fn refresh(&mut self) {
        self.guard.refresh();
    }

    /// Every node with that role in that scope; empty if there is none.
    #[inline]
    pub fn nodes<'v, S>(&'v self, scope: &'v S, role: impl AsRole) -> &'v [Node]
    where
        S: AsRef<ScopeView> + ?Sized,
    {
        scope.as_ref().nodes_in(&self.guard, role).map_or(&[], |nodes| nodes)
    }

    /// The roles of a node in that scope; empty if it has none or is unknown. They are the caller's
    /// to keep, as from [`ScopeView::roles`].
    pub fn roles<S>(&self, scope: &S, name: &str) -> Roles
    where
        S: AsRef<ScopeView> + ?Sized,
    {
        scope.as_ref().roles_in(&self.guard, name)
    }

    /// Every node with at least one role in that scope, each once.
    pub fn all_nodes<'v, S>(&'v self, scope: &'v S) -> &'v [Node]
    where
        S: AsRef<ScopeView> + ?Sized,
    {
        scope.as_ref().all.load(&self.guard)
    }

    /// Every live node, the local one included.
    pub fn members(&self) -> &[Node] {
        self.cluster.members.load(&self.guard)
    }

    /// A live node by its name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.cluster.node_in(&self.guard, name)
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("members", &self.members()).finish_non_exhaustive()
    }
}

/// The writing side of a [`ScopeView`].
struct ScopeWriter {
    roles: MapWriter<Role, Nodes>,
    nodes: MapWriter<NodeName, RoleList>,
    all: NodeList,
}

impl ScopeWriter {
    fn is_empty(&self) -> bool {
        self.nodes.len() == 0
    }
}

/// All scope views of a cluster, each made once: by whoever asks first, reader or publisher.
///
/// The writing side waits here until the publisher takes it, so that a reader can make a view
/// and there is still only one writer. The publisher brings it back when the scope is empty.
struct Registry {
    entries: BTreeMap<ScopeName, RegistryEntry>,
    /// At how many entries to look for unused ones next.
    sweep_at: usize,
    graveyard: Arc<Graveyard>,
}

struct RegistryEntry {
    view: Arc<ScopeView>,
    /// `None` while the publisher has it.
    writer: Option<ScopeWriter>,
}

impl Registry {
    fn new(graveyard: Arc<Graveyard>) -> Registry {
        Registry { entries: BTreeMap::new(), sweep_at: UNUSED_SCOPES_KEPT, graveyard }
    }

    fn entry(&mut self, name: &ScopeName) -> &mut RegistryEntry {
        if self.entries.len() >= self.sweep_at && !self.entries.contains_key(name) {
            // One that only this registry holds cannot be got elsewhere than under its lock.
            let is_used = |entry: &RegistryEntry| {
                entry.writer.is_none() || Arc::strong_count(&entry.view) > 1
            };
            self.entries.retain(|_, entry| is_used(entry));
            self.sweep_at = UNUSED_SCOPES_KEPT.max(2 * self.entries.len());
        }
        self.entries.entry(name.clone()).or_insert_with(|| {
            let (writer, view) = ScopeView::new(name.clone(), &self.graveyard);
            RegistryEntry { view: Arc::new(view), writer: Some(writer) }
        })
    }
}

/// Node names come from the network as roles do, so they are hashed with the same secret key.
fn hash_name(name: &str) -> u64 {
    role::hash_text(name.as_bytes())
}

impl HeapBytes for Node {
    fn heap_bytes(&self) -> usize {
        0 // as a rule shared with other snapshots
    }
}

impl HeapBytes for Nodes {
    fn heap_bytes(&self) -> usize {
        size_of_val::<[Node]>(self)
    }
}
