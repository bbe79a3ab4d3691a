//! What a service holds: the [`Cluster`], and the [`Builder`] that starts one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rand::RngExt;

use crate::config::Config;
use crate::driver::hub::{Events, run_handler};
use crate::driver::socket::{NodeSocket, advertised};
use crate::driver::{self, Shared};
use crate::error::{
    ConfigError, JoinError, LeaveError, MetaError, RoleError, ScopeError, StartError,
};
use crate::event::EventHandler;
use crate::node::{MAX_META_BYTES, Node, NodeName, Nodes, ScopeName};
use crate::proto::{Command, CommandError, LocalNode, Outcome, Protocol};
use crate::role::{AsRole, Role, Roles};
use crate::scope::Scope;
use crate::stats::Stats;
use crate::time::Instant;
use crate::view::{Publisher, View};
use crate::wire::ClusterId;

/// Where a node listens unless it is told otherwise.
const DEFAULT_BIND: &str = "0.0.0.0:7946";

/// The cluster's name, and the default scope's, unless they are chosen.
const DEFAULT_NAME: &str = "default";

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
    handle: Arc<Handle>,
    default_scope: Scope,
}

impl Cluster {
    /// A builder for a node of this name. The name is the node's alone in its cluster, and stable:
    /// a node that restarts keeps it, and takes the place of its last run.
    pub fn builder(name: impl Into<String>) -> Builder {
        Builder {
            name: name.into(),
            cluster: DEFAULT_NAME.into(),
            bind: DEFAULT_BIND.into(),
            advertise: None,
            seeds: Vec::new(),
            default_scope: DEFAULT_NAME.into(),
            scopes: Vec::new(),
            roles: Vec::new(),
            meta: Bytes::new(),
            config: Config::default(),
            handler: None,
        }
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
    /// [`JoinError::NoAnswer`] when none did.
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
        let shared = &self.handle.shared;
        shared.add_seeds(&seeds);
        let mut addrs = driver::resolve(&seeds).await;
        addrs.retain(|addr| addr.is_ipv4() == shared.bound.is_ipv4() || shared.bound.is_ipv6());
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

/// What a node is to be, before it starts. Made by [`Cluster::builder`].
///
/// Nothing is checked before [`Builder::start`], which then says what is wrong.
///
/// ```
/// use rolecall::{Cluster, Config};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), rolecall::StartError> {
/// let cluster = Cluster::builder("node-1")
///     .bind("127.0.0.1:0")
///     .default_scope("my_cluster")
///     .role("data")
///     .roles(["web", "api"])
///     .scope("analytics")
///     .meta(b"http=10.0.0.5:8080".as_slice())
///     .config(Config::lan())
///     .start()
///     .await?;
/// assert_eq!(cluster.scopes(), ["analytics", "my_cluster"]);
/// # Ok(()) }
/// ```
#[must_use = "a builder does nothing before start()"]
pub struct Builder {
    name: String,
    cluster: String,
    bind: String,
    advertise: Option<String>,
    seeds: Vec<String>,
    default_scope: String,
    scopes: Vec<String>,
    roles: Vec<Role>,
    meta: Bytes,
    config: Config,
    handler: Option<Box<dyn EventHandler>>,
}

impl Builder {
    /// The cluster's name, `"default"` unless it is chosen. Nodes of differently named clusters
    /// ignore each other, even when they get each other's addresses as seeds.
    pub fn cluster(mut self, name: impl Into<String>) -> Builder {
        self.cluster = name.into();
        self
    }

    /// The address to listen on, as `host:port`; `"0.0.0.0:7946"` unless it is chosen. Port 0 picks
    /// a free one; `"[::]:7946"` serves IPv6 and IPv4.
    pub fn bind(mut self, addr: impl Into<String>) -> Builder {
        self.bind = addr.into();
        self
    }

    /// The address that others should dial, as `host:port`. Port 0 stands for the bound port.
    /// Without it, the bound address is used; when that is a wildcard, the one that the system
    /// would send from towards the first seed.
    pub fn advertise(mut self, addr: impl Into<String>) -> Builder {
        self.advertise = Some(addr.into());
        self
    }

    /// The address of a node that may be there already, as `host:port`. Names are resolved anew on
    /// every attempt. Repeatable.
    pub fn seed(mut self, seed: impl Into<String>) -> Builder {
        self.seeds.push(seed.into());
        self
    }

    /// Several seeds.
    pub fn seeds<I>(mut self, seeds: I) -> Builder
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.seeds.extend(seeds.into_iter().map(Into::into));
        self
    }

    /// The name of the scope that calls on the [`Cluster`] itself mean, `"default"` unless it is
    /// chosen. It is always joined at start.
    pub fn default_scope(mut self, name: impl Into<String>) -> Builder {
        self.default_scope = name.into();
        self
    }

    /// A further scope to be in from the start. Repeatable.
    pub fn scope(mut self, name: impl Into<String>) -> Builder {
        self.scopes.push(name.into());
        self
    }

    /// Several further scopes.
    pub fn scopes<I>(mut self, names: I) -> Builder
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.scopes.extend(names.into_iter().map(Into::into));
        self
    }

    /// A role to have in the default scope from the start. Repeatable.
    pub fn role(mut self, role: impl Into<Role>) -> Builder {
        self.roles.push(role.into());
        self
    }

    /// Several roles to have in the default scope from the start.
    pub fn roles<I>(mut self, roles: I) -> Builder
    where
        I: IntoIterator,
        I::Item: Into<Role>,
    {
        self.roles.extend(roles.into_iter().map(Into::into));
        self
    }

    /// Bytes that every peer sees with this node, at most
    /// [`MAX_META_BYTES`](crate::MAX_META_BYTES).
    pub fn meta(mut self, meta: impl Into<Bytes>) -> Builder {
        self.meta = meta.into();
        self
    }

    /// The tuning; [`Config::lan`] unless it is chosen.
    pub fn config(mut self, config: Config) -> Builder {
        self.config = config;
        self
    }

    /// Callbacks, run on a thread of their own. A node has one handler: the last one given.
    pub fn event_handler(mut self, handler: impl EventHandler) -> Builder {
        self.handler = Some(Box::new(handler));
        self
    }

    /// Starts the node on the current tokio runtime, which must have I/O and time enabled.
    ///
    /// Returns once a seed has answered and the first pull is complete: reads are then as good as
    /// the seed's. Without seeds, or when their names resolve to no address but this node's own, it
    /// returns at once; when no seed answers within [`join_timeout`](Config::join_timeout) it
    /// returns too. The node then runs alone and keeps trying.
    ///
    /// # Errors
    /// As [`StartError`] lists; nothing is left behind.
    pub async fn start(self) -> Result<Cluster, StartError> {
        self.config.validate()?;
        let name = node_name(&self.name)?;
        ScopeName::new(&self.cluster).ok_or_else(|| invalid_name("cluster", &self.cluster))?;
        let scopes = self.check_scopes()?;
        let (len, max) = (self.meta.len(), MAX_META_BYTES);
        if len > max {
            return Err(MetaError::TooLarge { len, max }.into());
        }
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(StartError::NoRuntime);
        }
        let bind = resolve_one(&self.bind).await?;
        let socket = NodeSocket::bind(bind, self.config.receive_buffer_bytes)
            .map_err(|source| StartError::Bind { addr: bind, source })?;
        let addr = self.advertised(&socket).await?;
        let origin = std::time::Instant::now();
        let local = LocalNode {
            cluster: ClusterId::of(&self.cluster),
            name,
            addr,
            boot: start_stamp(),
            meta: self.meta.clone(),
        };
        let seed = rand::rng().random();
        let protocol = Protocol::new(&self.config, local, seed, Instant::ORIGIN)?;
        let published = Publisher::new(protocol.local().clone());
        let bound = (socket.local, origin);
        let shared = Arc::new(Shared::new(protocol, published, self.seeds.clone(), bound));
        let handle = Arc::new(Handle { shared: shared.clone() });
        let default_scope = Scope::new(handle.clone(), &scopes[0]);
        let cluster = Cluster { handle, default_scope };
        let seeded = !self.seeds.is_empty();
        self.prepare(&cluster, &scopes)?;
        let started = shared.on_start();
        let join_timeout = cluster.config().join_timeout;
        tokio::spawn(driver::run(shared, socket));
        if seeded
            && let Ok(Ok(Outcome::NameTaken { holder, .. })) =
                tokio::time::timeout(join_timeout, started).await
        {
            let name = cluster.local_node().node_name().clone();
            return Err(StartError::NameTaken { name, holder });
        }
        Ok(cluster)
    }

    /// The default scope's name first, then the others, each once.
    fn check_scopes(&self) -> Result<Vec<ScopeName>, StartError> {
        let mut names: Vec<ScopeName> = Vec::new();
        for text in std::iter::once(&self.default_scope).chain(&self.scopes) {
            let name = ScopeName::new(text).ok_or_else(|| invalid_name("scope", text))?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }

    async fn advertised(&self, socket: &NodeSocket) -> Result<SocketAddr, StartError> {
        let Some(text) = &self.advertise else {
            let seed = match self.seeds.first() {
                Some(seed) if socket.local.ip().is_unspecified() => {
                    driver::resolve(std::slice::from_ref(seed)).await.first().copied()
                }
                _ => None,
            };
            return Ok(advertised(socket.local, seed));
        };
        let mut addr = resolve_one(text).await?;
        if addr.ip().is_unspecified() {
            let reason = "nobody can dial a wildcard address".into();
            return Err(StartError::InvalidAddress { address: text.clone(), reason });
        }
        if addr.port() == 0 {
            addr.set_port(socket.local.port());
        }
        Ok(addr)
    }

    /// Takes the scopes and roles of the start, before anybody hears of this node.
    fn prepare(self, cluster: &Cluster, scopes: &[ScopeName]) -> Result<(), StartError> {
        if let Some(handler) = self.handler {
            let panics = cluster.handle.shared.handler_panics.clone();
            // Without a thread there is no handler; everything else works.
            if let Err(error) = run_handler(handler, cluster.events(), panics) {
                tracing::error!(%error, "cannot start the event handler's thread");
            }
        }
        for scope in scopes {
            cluster.scope(scope).join()?;
        }
        cluster.add_roles(self.roles)?;
        Ok(())
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("name", &self.name)
            .field("bind", &self.bind)
            .field("seeds", &self.seeds)
            .finish_non_exhaustive()
    }
}

fn node_name(text: &str) -> Result<NodeName, StartError> {
    NodeName::new(text).ok_or_else(|| invalid_name("node", text))
}

fn invalid_name(what: &'static str, name: &str) -> StartError {
    StartError::InvalidName { what, name: name.into() }
}

/// Microseconds of the wall clock: later runs have higher stamps, as a rule; where the clock has
/// jumped back, the cluster says so and the stamp is raised.
fn start_stamp() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

async fn resolve_one(text: &str) -> Result<SocketAddr, StartError> {
    let invalid = |reason: String| StartError::InvalidAddress { address: text.into(), reason };
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    let mut found =
        tokio::net::lookup_host(text).await.map_err(|error| invalid(error.to_string()))?;
    found.next().ok_or_else(|| invalid("it has no address".into()))
}
