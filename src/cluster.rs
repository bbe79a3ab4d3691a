//! What a service holds: a running node of a cluster.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::builder::Builder;
use crate::config::Config;
use crate::driver::hub::Events;
use crate::driver::socket::reaches;
use crate::driver::{self, Shared};
use crate::error::{ConfigError, JoinError, LeaveError, MetaError, RoleError, ScopeError};
use crate::keyring::{Key, KeyId, KeyringError};
use crate::node::{Node, Nodes, ScopeName};
use crate::proto::{Command, CommandError, Outcome};
use crate::role::{AsRole, Role, Roles};
use crate::scope::Scope;
use crate::stats::Stats;
use crate::view::View;
use bytes::Bytes;

/// Keeps the node running: the last one to go stops it.
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// A running node of a cluster, as its service holds it.
///
/// Cheap to clone, `Send + Sync`. When the last clone (of it or of a [`Scope`]) is dropped, the
/// node stops abruptly, as if it had crashed; [`Cluster::leave`] says goodbye first. All calls but
/// those that return futures are synchronous and short. Reads of members, nodes and roles take no
/// lock; calls about this node itself (its roles, scopes, tuning, counters), and those that change
/// something, take a short one.
///
/// ```
/// use rolecall::{Cluster, Config};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let a = Cluster::builder("a").bind("127.0.0.1:0").config(Config::local()).start().await?;
/// let b = Cluster::builder("b")
///     .bind("127.0.0.1:0")
///     .seed(a.local_addr().to_string())
///     .config(Config::local())
///     .role("web")
///     .start()
///     .await?;
///
/// let web = a.default_scope().wait_for("web", 1).await;
/// assert_eq!(web.names(), ["b"]);
/// b.leave().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Cluster {
    pub(crate) handle: Arc<Handle>,
    pub(crate) default_scope: Scope,
}

impl Cluster {
    /// A builder for a node of this name. The name is the node's alone in its cluster, and stable:
    /// a node that restarts keeps it, and takes the place of its last run.
    pub fn builder(name: impl Into<String>) -> Builder {
        Builder::new(name.into())
    }

    /// Tells the others goodbye, hands over what is still to be told, and stops the node. The
    /// others see `NodeDown` with [`DownReason::Left`](crate::DownReason::Left) at once. Reads go
    /// on answering with what was known last; changes are refused; event streams end.
    ///
    /// # Errors
    /// [`LeaveError::Unacknowledged`] when some peers did not answer within
    /// [`leave_timeout`](Config::leave_timeout): the node has stopped all the same.
    pub async fn leave(&self) -> Result<(), LeaveError> {
        let left = self.handle.shared.on_left();
        self.handle.shared.command(Command::Leave).map_err(|_| LeaveError::Stopped)?;
        match left.await {
            Ok(Outcome::Left { unheard: 0 }) => Ok(()),
            Ok(Outcome::Left { unheard }) => Err(LeaveError::Unacknowledged { unheard }),
            Ok(_) | Err(_) => Err(LeaveError::Stopped),
        }
    }

    /// Contacts more seeds, which are tried again from then on like those given at start. Returns
    /// how many of their addresses answered within [`join_timeout`](Config::join_timeout).
    ///
    /// # Errors
    /// [`JoinError::NoAnswer`] when none did; others as they say. That a seed answers does not mean
    /// that it lets this node in: whose name a live node has hears
    /// [`Event::NameConflict`](crate::Event::NameConflict).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use rolecall::Cluster;
    /// let a = Cluster::builder("a").bind("127.0.0.1:0").start().await?;
    /// let b = Cluster::builder("b").bind("127.0.0.1:0").start().await?;
    /// assert_eq!(b.join([a.local_addr().to_string()]).await?, 1);
    /// # Ok(()) }
    /// ```
    pub async fn join<I>(&self, seeds: I) -> Result<usize, JoinError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let seeds: Vec<String> = seeds.into_iter().map(Into::into).collect();
        if seeds.is_empty() {
            return Err(JoinError::NoSeeds);
        }
        for seed in &seeds {
            driver::check_seed(seed)
                .map_err(|reason| JoinError::InvalidSeed { seed: seed.clone(), reason })?;
        }
        let shared = &self.handle.shared;
        shared.add_seeds(&seeds);
        let mut addrs = driver::resolve(&seeds).await;
        addrs.retain(|addr| reaches(shared.bound, *addr));
        let answered = shared
            .ask(|token| Command::Contact { addrs, token: Some(token) })
            .map_err(|_| JoinError::Stopped)?;
        match answered.await {
            Ok(Outcome::Answered { count: 0, .. }) => Err(JoinError::NoAnswer),
            Ok(Outcome::Answered { count, .. }) => Ok(count),
            Ok(_) | Err(_) => Err(JoinError::Stopped),
        }
    }

    /// Enters a scope. Its members' roles are here within a round trip.
    ///
    /// # Errors
    /// [`ScopeError::AlreadyJoined`] the second time; others as they say.
    pub fn join_scope(&self, name: &str) -> Result<Scope, ScopeError> {
        let scope = self.scope(name);
        scope.join()?;
        Ok(scope)
    }

    /// Leaves a scope: this node's roles there are gone for everybody, and what it knew of the
    /// scope is dropped.
    ///
    /// # Errors
    /// [`ScopeError::NotJoined`] when the node is not in it.
    pub fn leave_scope(&self, name: &str) -> Result<(), ScopeError> {
        self.scope(name).leave()
    }

    /// Replaces this node's metadata; peers get [`Event::NodeUpdated`](crate::Event::NodeUpdated).
    ///
    /// # Errors
    /// [`MetaError::TooLarge`] over [`MAX_META_BYTES`](crate::MAX_META_BYTES).
    pub fn set_meta(&self, meta: impl Into<Bytes>) -> Result<(), MetaError> {
        let result = self.handle.shared.command(Command::SetMeta(meta.into()));
        result.map_err(|error| match error {
            CommandError::Meta(error) => error,
            _ => MetaError::Stopped,
        })
    }

    /// Adds a key, so that what is sent with it is understood. No message is sent with it before
    /// [`use_key`](Cluster::use_key).
    ///
    /// A key is replaced on the running cluster in three steps, each on all nodes before the next:
    /// install the new one, use it, remove the old one. A node that was away meanwhile (stopped,
    /// cut off) takes part with the old key as long as the others have not removed it; then it
    /// needs the new one. Keys never travel: bring them to each node as the first one came.
    ///
    /// ```
    /// use rolecall::{Cluster, Key, Keyring};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (old, new) = (Key::generate(), Key::generate());
    /// let keyring = Keyring::new(old.clone());
    /// let a = Cluster::builder("a").bind("127.0.0.1:0").keyring(keyring).start().await?;
    /// a.install_key(new.clone())?;
    /// a.use_key(new.id())?;
    /// assert_eq!(a.keys(), [new.id(), old.id()]);
    /// a.remove_key(old.id())?;
    /// assert_eq!(a.keys(), [new.id()]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`KeyringError::Full`]; [`KeyringError::NotEncrypted`] when the node was started without a
    /// keyring. A key that is there already is no error.
    pub fn install_key(&self, key: impl Into<Key>) -> Result<(), KeyringError> {
        self.change_keyring(Command::InstallKey(key.into()))
    }

    /// Sends with an installed key from now on; to members that are known not to have it, still
    /// with the one that they were last heard with. See [`install_key`](Cluster::install_key).
    ///
    /// # Errors
    /// [`KeyringError::Unknown`] when it is not installed.
    pub fn use_key(&self, id: KeyId) -> Result<(), KeyringError> {
        self.change_keyring(Command::UseKey(id))
    }

    /// Forgets a key: what is sent with it is dropped from now on. See
    /// [`install_key`](Cluster::install_key).
    ///
    /// # Errors
    /// [`KeyringError::InUse`] for the key that this node sends with, [`KeyringError::Unknown`]
    /// when it is not installed.
    pub fn remove_key(&self, id: KeyId) -> Result<(), KeyringError> {
        self.change_keyring(Command::RemoveKey(id))
    }

    /// The ids of this node's keys, first that of the one that it sends with; none if the cluster
    /// is not encrypted.
    pub fn keys(&self) -> Vec<KeyId> {
        self.handle.shared.core().protocol.keys()
    }

    fn change_keyring(&self, command: Command) -> Result<(), KeyringError> {
        self.handle.shared.command(command).map_err(|error| match error {
            CommandError::Keyring(error) => error,
            _ => KeyringError::Stopped,
        })
    }

    /// Replaces the tuning of the running node: the new intervals hold from now on.
    ///
    /// # Errors
    /// The field that is not allowed; nothing changed. After the node has stopped, a valid
    /// configuration changes nothing and is no error.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use rolecall::{Cluster, Config};
    /// # let cluster = Cluster::builder("a").bind("127.0.0.1:0").start().await?;
    /// cluster.reconfigure(Config { gossip_fanout: 5, ..cluster.config() })?;
    /// assert_eq!(cluster.config().gossip_fanout, 5);
    /// # Ok(()) }
    /// ```
    pub fn reconfigure(&self, config: Config) -> Result<(), ConfigError> {
        config.validate()?;
        match self.handle.shared.command(Command::Reconfigure(Box::new(config))) {
            Err(CommandError::Config(error)) => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The tuning in force.
    pub fn config(&self) -> Config {
        self.handle.shared.core().protocol.config().clone()
    }

    /// This node, as its peers see it.
    pub fn local_node(&self) -> Node {
        self.handle.shared.core().protocol.local().clone()
    }

    /// The address that the socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.shared.bound
    }

    /// Whether this node has that name.
    pub fn is_local(&self, name: &str) -> bool {
        self.handle.shared.core().protocol.local().name() == name
    }

    /// Every live node, this one included, in any scope.
    pub fn members(&self) -> Nodes {
        self.handle.shared.view.members()
    }

    /// A live node by its name.
    pub fn node(&self, name: &str) -> Option<Node> {
        self.handle.shared.view.node(name)
    }

    /// A handle to a scope, whether or not this node is in it.
    ///
    /// It takes a short lock; keep the handle rather than ask again before each read.
    pub fn scope(&self, name: &str) -> Scope {
        Scope::new(self.handle.clone(), &ScopeName::unchecked(name))
    }

    /// A handle to the default scope.
    pub fn default_scope(&self) -> Scope {
        self.default_scope.clone()
    }

    /// The scopes that this node is in, by name.
    pub fn scopes(&self) -> Vec<ScopeName> {
        self.handle.shared.core().protocol.scopes()
    }

    /// A subscription to events from now on; each call makes its own.
    pub fn events(&self) -> Events {
        let mut core = self.handle.shared.core();
        let capacity = core.protocol.config().event_capacity;
        if core.is_stopped() {
            return Events::ended();
        }
        core.hub.subscribe(capacity)
    }

    /// A pinned reader for tight loops on one thread.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use rolecall::Cluster;
    /// let cluster = Cluster::builder("a").bind("127.0.0.1:0").role("web").start().await?;
    /// let scope = cluster.default_scope();
    /// let mut view = cluster.view();
    /// for _request in 0..1000 {
    ///     assert_eq!(view.nodes(&scope, "web").len(), 1);
    ///     view.refresh();
    /// }
    /// # Ok(()) }
    /// ```
    pub fn view(&self) -> View<'_> {
        self.handle.shared.view.view()
    }

    /// The counters, as they are now.
    pub fn stats(&self) -> Stats {
        self.handle.shared.stats()
    }

    /// [`Scope::add_role`] in the default scope.
    ///
    /// # Errors
    /// As there.
    pub fn add_role(&self, role: impl Into<Role>) -> Result<(), RoleError> {
        self.default_scope.add_role(role)
    }

    /// [`Scope::add_roles`] in the default scope.
    ///
    /// # Errors
    /// As there.
    pub fn add_roles<I>(&self, roles: I) -> Result<(), RoleError>
    where
        I: IntoIterator,
        I::Item: Into<Role>,
    {
        self.default_scope.add_roles(roles)
    }

    /// [`Scope::remove_role`] in the default scope.
    ///
    /// # Errors
    /// As there.
    pub fn remove_role(&self, role: impl Into<Role>) -> Result<(), RoleError> {
        self.default_scope.remove_role(role)
    }

    /// [`Scope::remove_roles`] in the default scope.
    ///
    /// # Errors
    /// As there.
    pub fn remove_roles<I>(&self, roles: I) -> Result<(), RoleError>
    where
        I: IntoIterator,
        I::Item: Into<Role>,
    {
        self.default_scope.remove_roles(roles)
    }

    /// [`Scope::my_roles`] in the default scope.
    pub fn my_roles(&self) -> Roles {
        self.default_scope.my_roles()
    }

    /// [`Scope::nodes`] in the default scope.
    pub fn nodes(&self, role: impl AsRole) -> Nodes {
        self.default_scope.nodes(role)
    }

    /// [`Scope::with_nodes`] in the default scope.
    pub fn with_nodes<R>(&self, role: impl AsRole, f: impl FnOnce(&[Node]) -> R) -> R {
        self.default_scope.with_nodes(role, f)
    }

    /// [`Scope::roles`] in the default scope.
    pub fn roles(&self, node: &str) -> Roles {
        self.default_scope.roles(node)
    }

    /// [`Scope::all_nodes`] in the default scope.
    pub fn all_nodes(&self) -> Nodes {
        self.default_scope.all_nodes()
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let members = self.members();
        f.debug_struct("Cluster")
            .field("local", &self.local_node())
            .field("members", &members.len())
            .finish_non_exhaustive()
    }
}
