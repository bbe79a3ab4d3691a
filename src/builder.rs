//! What a node is to be, and how it starts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};

use crate::cluster::{Cluster, Handle};
use crate::config::Config;
use crate::driver::hub::run_handler;
use crate::driver::socket::{NodeSocket, Sockets, advertised, has_runtime};
use crate::driver::{self, Shared};
use crate::error::{MetaError, StartError};
use crate::event::EventHandler;
use crate::keyring::Keyring;
use crate::node::{MAX_META_BYTES, NodeName, ScopeName};
use crate::proto::{LocalNode, Outcome, Protocol};
use crate::role::Role;
use crate::scope::Scope;
use crate::time::Instant;
use crate::view::Publisher;
use crate::wire::ClusterId;

/// Where a node listens unless it is told otherwise.
const DEFAULT_BIND: &str = "0.0.0.0:7946";

/// The cluster's name, and the default scope's, unless they are chosen.
const DEFAULT_NAME: &str = "default";

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
    keyring: Option<Keyring>,
    handler: Option<Box<dyn EventHandler>>,
}

impl Builder {
    pub(crate) fn new(name: String) -> Builder {
        Builder {
            name,
            cluster: DEFAULT_NAME.into(),
            bind: DEFAULT_BIND.into(),
            advertise: None,
            seeds: Vec::new(),
            default_scope: DEFAULT_NAME.into(),
            scopes: Vec::new(),
            roles: Vec::new(),
            meta: Bytes::new(),
            config: Config::default(),
            keyring: None,
            handler: None,
        }
    }

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

    /// Encrypts and authenticates every datagram with these keys: this node believes nothing that
    /// was not sent by a node that has one of them, and only such nodes understand it. All nodes of
    /// a cluster have a keyring or none has.
    ///
    /// ```
    /// use rolecall::{Cluster, Key, Keyring};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let key = Key::generate(); // or Key::from_file("/etc/my_service/cluster.key")?
    /// let a = Cluster::builder("a")
    ///     .bind("127.0.0.1:0")
    ///     .keyring(Keyring::new(key.clone()))
    ///     .start()
    ///     .await?;
    /// assert_eq!(a.keys(), [key.id()]);
    /// # Ok(()) }
    /// ```
    pub fn keyring(mut self, keyring: Keyring) -> Builder {
        self.keyring = Some(keyring);
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
    /// returns too, and a warning is logged. The node then runs alone and keeps trying.
    ///
    /// # Errors
    /// As [`StartError`] lists; nothing is left behind.
    pub async fn start(self) -> Result<Cluster, StartError> {
        self.config.validate()?;
        let name = node_name(&self.name)?;
        ScopeName::new(&self.cluster).ok_or_else(|| invalid_name("cluster", &self.cluster))?;
        let scopes = self.check_scopes()?;
        for seed in &self.seeds {
            driver::check_seed(seed)
                .map_err(|reason| StartError::InvalidAddress { address: seed.clone(), reason })?;
        }
        let (len, max) = (self.meta.len(), MAX_META_BYTES);
        if len > max {
            return Err(MetaError::TooLarge { len, max }.into());
        }
        if !has_runtime() {
            return Err(StartError::NoRuntime);
        }
        let bind = resolve_one(&self.bind).await?;
        let sockets = Sockets::bind(bind, &self.config)
            .map_err(|source| StartError::Bind { addr: bind, source })?;
        let addr = self.advertised(&sockets.udp).await?;
        let origin = std::time::Instant::now();
        let cluster_id = ClusterId::of(&self.cluster);
        let local = LocalNode {
            cluster: cluster_id,
            name,
            addr,
            boot: start_stamp(),
            meta: self.meta.clone(),
        };
        let seed = fresh_seed();
        let mut protocol = Protocol::new(&self.config, local, seed, Instant::ORIGIN)?;
        if let Some(keyring) = &self.keyring {
            protocol = protocol.with_keyring(keyring.clone());
        }
        let published = Publisher::new(protocol.local().clone());
        let bound = (sockets.udp.local, origin);
        let shared = Arc::new(Shared::new(protocol, published, self.seeds.clone(), bound));
        let handle = Arc::new(Handle { shared: shared.clone() });
        let default_scope = Scope::new(handle.clone(), &scopes[0]);
        let cluster = Cluster { handle, default_scope };
        let seeded = !self.seeds.is_empty();
        self.prepare(&cluster, &scopes)?;
        let started = shared.on_start();
        let join_timeout = cluster.config().join_timeout;
        tokio::spawn(driver::run(shared.clone(), sockets, cluster_id));
        if seeded {
            match tokio::time::timeout(join_timeout, started).await {
                Ok(Ok(Outcome::NameTaken { holder, .. })) => {
                    let name = cluster.local_node().node_name().clone();
                    return Err(StartError::NameTaken { name, holder });
                }
                Ok(_) => {}
                Err(_) => shared.warn_of_silent_seeds(),
            }
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

/// What the run's id comes from: of the system, as a process that forked would draw what its parent
/// draws, and two runs of one id would seal with the same key and numbers.
fn fresh_seed() -> u64 {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).expect("the system has a source of randomness");
    u64::from_le_bytes(bytes)
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
