//! A scope, as a service holds it, and what follows one role in it.

use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use rand::seq::IndexedRandom;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use crate::cluster::Handle;
use crate::error::{RoleError, ScopeError};
use crate::node::{Generation, Node, Nodes, ScopeName};
use crate::proto::{Command, CommandError, Outcome};
use crate::role::{AsRole, Role, Roles};
use crate::view::ScopeView;
use crate::wire::{Domain, StableHasher};

/// A handle to a scope: a named, isolated set of roles.
///
/// Cheap to clone, `Send + Sync`; it keeps the node running like a [`Cluster`](crate::Cluster)
/// does.
/// A handle exists whether or not the node is in the scope; reads of a scope that it is not in are
/// empty.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use rolecall::Cluster;
/// # let cluster = Cluster::builder("a").bind("127.0.0.1:0").start().await?;
/// let jobs = cluster.scope("jobs");
/// assert!(!jobs.is_joined());
/// jobs.add_roles(["worker", "leader"])?;
/// jobs.add_role(("shard", 1))?;
/// assert!(jobs.is_joined());
/// assert_eq!(jobs.nodes(("shard", 1)).names(), ["a"]);
/// assert_eq!(jobs.generation().as_u64(), 2);
/// assert!(cluster.nodes("worker").is_empty(), "scopes are isolated");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Scope {
    handle: Arc<Handle>,
    view: Arc<ScopeView>,
}

impl Scope {
    pub(crate) fn new(handle: Arc<Handle>, name: &ScopeName) -> Scope {
        let view = handle.shared.view.scope(name);
        Scope { handle, view }
    }

    /// The scope's name.
    pub fn name(&self) -> &ScopeName {
        self.view.name()
    }

    /// Whether this node is in the scope.
    pub fn is_joined(&self) -> bool {
        self.handle.shared.core().protocol.scopes().contains(self.name())
    }

    /// How often this node's roles here have changed.
    pub fn generation(&self) -> Generation {
        let core = self.handle.shared.core();
        let local = core.protocol.local().id();
        core.protocol.generation(self.name(), local)
    }

    /// Enters the scope.
    ///
    /// # Errors
    /// [`ScopeError::AlreadyJoined`] when the node is in it; others as they say.
    pub fn join(&self) -> Result<(), ScopeError> {
        self.command(Command::JoinScope(self.checked_name()?)).map_err(into_scope_error)
    }

    /// Leaves the scope.
    ///
    /// # Errors
    /// [`ScopeError::NotJoined`] when the node is not in it.
    pub fn leave(&self) -> Result<(), ScopeError> {
        self.command(Command::LeaveScope(self.checked_name()?)).map_err(into_scope_error)
    }

    /// Takes a role. Joins the scope first if need be; a role held already is no error and changes
    /// nothing. When it returns, every read on this node sees it.
    ///
    /// # Errors
    /// [`RoleError::TooLarge`] and others as they say; nothing changed.
    pub fn add_role(&self, role: impl Into<Role>) -> Result<(), RoleError> {
        self.add_roles([role])
    }

    /// Takes several roles: one generation, one announcement for the whole batch.
    ///
    /// # Errors
    /// As [`Scope::add_role`]; either all are taken or none.
    pub fn add_roles<I>(&self, roles: I) -> Result<(), RoleError>
    where
        I: IntoIterator,
        I::Item: Into<Role>,
    {
        self.change_roles(roles, |scope, roles| Command::AddRoles { scope, roles })
    }

    /// Gives a role up. One that is not held is no error and changes nothing; the scope is not
    /// joined for it.
    ///
    /// # Errors
    /// [`RoleError::Stopped`].
    pub fn remove_role(&self, role: impl Into<Role>) -> Result<(), RoleError> {
        self.remove_roles([role])
    }

    /// Gives several roles up: one generation, one announcement for the whole batch.
    ///
    /// # Errors
    /// [`RoleError::Stopped`].
    pub fn remove_roles<I>(&self, roles: I) -> Result<(), RoleError>
    where
        I: IntoIterator,
        I::Item: Into<Role>,
    {
        self.change_roles(roles, |scope, roles| Command::RemoveRoles { scope, roles })
    }

    /// This node's roles here.
    pub fn my_roles(&self) -> Roles {
        let core = self.handle.shared.core();
        core.protocol.roles(self.name(), core.protocol.local().id())
    }

    /// Every node with that role here, sorted by name; empty if there is none.
    ///
    /// An owned snapshot of one moment, after all that was published before the call: it costs one
    /// reference count, which threads that ask for the same role at once contend for, and may be
    /// held across `.await`. Two calls are two moments ([more on that](crate::view#consistency)).
    pub fn nodes(&self, role: impl AsRole) -> Nodes {
        self.view.nodes(role)
    }

    /// Calls `f` with every node of that role: as [`nodes`](Scope::nodes), without touching a
    /// reference count or the heap. The hot path. While `f` runs, nothing that is replaced is
    /// freed, so it had better be short.
    pub fn with_nodes<R>(&self, role: impl AsRole, f: impl FnOnce(&[Node]) -> R) -> R {
        self.view.with_nodes(role, f)
    }

    /// The roles of the node of that name here; empty if it has none or is unknown.
    pub fn roles(&self, node: &str) -> Roles {
        self.view.roles(node)
    }

    /// Every node with at least one role here, each once, sorted by name.
    pub fn all_nodes(&self) -> Nodes {
        self.view.all_nodes()
    }

    /// Follows the nodes of one role: for whoever asks for the same one again and again. Takes a
    /// short lock; what it returns does not, unless there is something new.
    pub fn watch(&self, role: impl Into<Role>) -> RoleWatch {
        let latest = self.handle.shared.watch(self.name(), &role.into());
        let nodes = latest.borrow().clone();
        RoleWatch { nodes, changes: None, latest }
    }

    /// Waits until at least `count` nodes hold the role, and returns them. When the node stops
    /// before that, returns those there were.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use rolecall::Cluster;
    /// let cluster = Cluster::builder("a").bind("127.0.0.1:0").role("web").start().await?;
    /// assert_eq!(cluster.default_scope().wait_for("web", 1).await.len(), 1);
    /// # Ok(()) }
    /// ```
    pub async fn wait_for(&self, role: impl Into<Role>, count: usize) -> Nodes {
        let mut latest = self.handle.shared.watch(self.name(), &role.into());
        loop {
            let nodes = latest.borrow_and_update().clone();
            if nodes.len() >= count || latest.changed().await.is_err() {
                return nodes;
            }
        }
    }

    /// The receipt for this node's changes here up to a generation: which of the scope's members
    /// have them. Resolves when all have said so, or after
    /// [`pull_timeout`](crate::Config::pull_timeout).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use rolecall::Cluster;
    /// let cluster = Cluster::builder("a").bind("127.0.0.1:0").role("web").start().await?;
    /// let scope = cluster.default_scope();
    /// let delivery = scope.delivered(scope.generation()).await;
    /// assert!(delivery.missing.is_empty());
    /// # Ok(()) }
    /// ```
    pub async fn delivered(&self, generation: Generation) -> Delivery {
        let scope = self.name().clone();
        let ask = |token| Command::Deliver { token, scope, generation };
        let Ok(outcome) = self.handle.shared.ask(ask) else { return Delivery::default() };
        match outcome.await {
            Ok(Outcome::Delivered { reached, missing, .. }) => Delivery { reached, missing },
            Ok(_) | Err(_) => Delivery::default(),
        }
    }

    /// A random node of those that hold the role.
    pub fn pick(&self, role: impl AsRole) -> Option<Node> {
        self.with_nodes(role, |nodes| nodes.choose(&mut rand::rng()).cloned())
    }

    /// The node, of those that hold the role, which every node agrees on for this key: rendezvous
    /// hashing (Thaler and Ravishankar, 1998) of node names, the same on every platform. When a
    /// node goes, only its own keys move.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use rolecall::Cluster;
    /// let cluster = Cluster::builder("a").bind("127.0.0.1:0").role("cache").start().await?;
    /// let owner = cluster.default_scope().owner("cache", "user:42").unwrap();
    /// assert_eq!(owner.name(), "a");
    /// # Ok(()) }
    /// ```
    pub fn owner(&self, role: impl AsRole, key: impl Hash) -> Option<Node> {
        let mut hasher = StableHasher::new(Domain::Owner);
        key.hash(&mut hasher);
        let key = hasher.finish();
        let weight = |node: &&Node| {
            let mut hasher = StableHasher::new(Domain::Owner);
            hasher.write_u64(key);
            hasher.write(node.name().as_bytes());
            (hasher.finish(), node.id())
        };
        self.with_nodes(role, |nodes| nodes.iter().max_by_key(weight).cloned())
    }

    fn change_roles<I>(
        &self,
        roles: I,
        command: impl FnOnce(ScopeName, Vec<Role>) -> Command,
    ) -> Result<(), RoleError>
    where
        I: IntoIterator,
        I::Item: Into<Role>,
    {
        let roles: Vec<Role> = roles.into_iter().map(Into::into).collect();
        if roles.is_empty() {
            return Ok(());
        }
        self.command(command(self.checked_name()?, roles)).map_err(into_role_error)
    }

    fn checked_name(&self) -> Result<ScopeName, ScopeError> {
        let name = self.name().as_str();
        ScopeName::new(name).ok_or_else(|| ScopeError::InvalidName { name: name.into() })
    }

    fn command(&self, command: Command) -> Result<(), CommandError> {
        self.handle.shared.command(command)
    }
}

impl AsRef<ScopeView> for Scope {
    fn as_ref(&self) -> &ScopeView {
        &self.view
    }
}

impl std::fmt::Debug for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scope").field("name", self.name()).finish_non_exhaustive()
    }
}

fn into_scope_error(error: CommandError) -> ScopeError {
    match error {
        CommandError::Scope(error) => error,
        _ => ScopeError::Stopped,
    }
}

fn into_role_error(error: CommandError) -> RoleError {
    match error {
        CommandError::Role(error) => error,
        CommandError::Scope(error) => RoleError::Scope(error),
        _ => RoleError::Stopped,
    }
}

/// A receipt: who has a change, and who has not said so.
///
/// ```
/// let delivery = rolecall::Delivery::default();
/// assert!(delivery.reached.is_empty() && delivery.missing.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// The members of the scope that have it.
    pub reached: Nodes,
    /// Those that have not said so in time.
    pub missing: Nodes,
}

/// Follows the nodes of one role: the current set at once, then each new one; the latest wins.
///
/// A `Stream` of snapshots that ends when the node stops, and a cheap look at the latest one.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use rolecall::Cluster;
/// let cluster = Cluster::builder("a").bind("127.0.0.1:0").start().await?;
/// let mut web = cluster.default_scope().watch("web");
/// assert!(web.get().is_empty());
/// cluster.add_role("web")?;
/// assert_eq!(web.get().len(), 1);
/// assert_eq!(web.next().await.unwrap().names(), ["a"]);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct RoleWatch {
    nodes: Nodes,
    latest: watch::Receiver<Nodes>,
    /// Made when the watch is first used as a stream.
    changes: Option<WatchStream<Nodes>>,
}

impl RoleWatch {
    /// The latest set. When nothing changed since the last call this is one load of a version;
    /// else a short lock and one reference count. The set stays as it is until the next call, so
    /// it may be held across `.await`, like the watch itself.
    pub fn get(&mut self) -> &[Node] {
        if self.latest.has_changed().unwrap_or(true) {
            self.nodes = self.latest.borrow_and_update().clone();
        }
        &self.nodes
    }

    /// The next set: the current one the first time; `None` when the node has stopped.
    pub async fn next(&mut self) -> Option<Nodes> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for RoleWatch {
    type Item = Nodes;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Nodes>> {
        let this = &mut *self;
        let changes = this.changes.get_or_insert_with(|| WatchStream::new(this.latest.clone()));
        Pin::new(changes).poll_next(context)
    }
}
