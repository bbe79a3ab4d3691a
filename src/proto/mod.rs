//! The state machine: no clock, no socket, no thread.
//!
//! [`Protocol`] is the conductor. The rules are in the leaf modules, which know nothing of each
//! other and return what is to be done; the files under `route/` carry it from one to the next.
//! Read them as a datagram travels: `route/receive` takes it apart, `route/membership`,
//! `route/joining`, `route/scopes` and `route/repair` do what its frames ask, `route/send` puts the
//! answers together; `route/timeouts` is what time asks, `route/commands` what the user asks,
//! `route/detect` whether others are there.

mod clash;
mod contract;
mod deaths;
mod detector;
mod faces;
mod fetch;
mod gather;
mod goodbye;
mod health;
mod join;
mod members;
mod piggyback;
mod pull;
mod receipt;
mod refusals;
mod roles;
mod round_trips;
mod route;
mod rules;
mod seal;
mod sketch;
mod spread;
mod standing;
mod state;
mod succession;
mod suspicion;
#[cfg(feature = "sim")]
mod swim;
mod timer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::config::Config;
use crate::error::ConfigError;
use crate::event::Event;
use crate::keyring::{KeyId, Keyring};
use crate::node::{Generation, MAX_META_BYTES, Node, NodeId, Nodes, ScopeName};
use crate::role::Roles;
use crate::stats::Stats;
use crate::time::Instant;
use crate::wire::frame::{Boot, Incarnation, Profile};
use crate::wire::{ClusterId, DecodeError, Frame, ScopeId};

use clash::Clashes;
pub use contract::{Command, CommandError, Hint, LocalNode, LogLine, Outcome, Transmit};
use deaths::Deaths;
use detector::Detector;
use fetch::Fetches;
use gather::Gatherings;
use goodbye::Goodbye;
use health::LocalHealth;
use join::{CookieJar, Joins};
use members::Members;
use piggyback::Piggyback;
use pull::{Decodings, Pulls};
use receipt::Receipts;
use refusals::Refused;
use roles::RoleTables;
use round_trips::RoundTrips;
use route::{Cargo, Corrections, Counters, Hearsay, Outgoing, PartCache};
pub use seal::Sealing;
use spread::Hops;
use standing::Standing;
use succession::Succession;
use suspicion::Suspicions;
#[cfg(feature = "sim")]
use swim::Swim;
use timer::{Deadlines, Timer, TimerTable};

#[cfg(not(feature = "sim"))]
use rules::Rules;
#[cfg(feature = "sim")]
pub use rules::Rules;

#[cfg(feature = "sim")]
pub(crate) use standing::PROBATION;

#[cfg(feature = "sim")]
pub use route::{Blocked, Digest, Introduction, Queue, RunState, Sighting};

/// One node of the cluster as a pure state machine.
///
/// There are four kinds of methods. **Inputs** (`handle_*`) take the time first, which never goes
/// back. **Outputs** (`poll_*`) are drained after any input, each until `None`, in this order:
/// [`poll_event`](Protocol::poll_event), [`poll_outcome`](Protocol::poll_outcome),
/// [`poll_transmit`](Protocol::poll_transmit), then [`poll_timeout`](Protocol::poll_timeout) once.
/// **Getters** change nothing. A call of `handle_timeout` that is late or early is harmless.
///
/// Peers' bytes never panic it and never reach the application as an error; a broken invariant of
/// our own always panics. The same inputs and the same seed give the same outputs.
///
/// ```
/// use rolecall::proto::{Command, LocalNode, Protocol};
/// use rolecall::time::Instant;
/// use rolecall::wire::ClusterId;
/// use rolecall::{Config, Event, NodeName, Role, ScopeName};
///
/// let local = LocalNode {
///     cluster: ClusterId::of("example"),
///     name: NodeName::new("a").unwrap(),
///     addr: "127.0.0.1:7946".parse().unwrap(),
///     boot: 1,
///     meta: bytes::Bytes::new(),
/// };
/// let mut now = Instant::ORIGIN;
/// let mut node = Protocol::new(&Config::lan(), local, 42, now)?;
/// let scope = ScopeName::new("jobs").unwrap();
/// node.handle_command(now, Command::AddRoles { scope, roles: vec![Role::from("worker")] })?;
/// assert!(matches!(node.poll_event(), Some(Event::RoleAdded { .. })));
/// let mut datagram = Vec::new();
/// while let Some(transmit) = node.poll_transmit(&mut datagram) {
///     println!("{} bytes to {}", datagram.len(), transmit.to);
/// }
/// now = node.poll_timeout().unwrap();
/// node.handle_timeout(now);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Protocol {
    config: Config,
    cluster: ClusterId,
    local: NodeId,
    now: Instant,
    rng: ChaCha8Rng,

    members: Members,
    detector: Detector,
    suspicions: Suspicions,
    #[cfg(feature = "sim")]
    swim: Swim,
    round_trips: RoundTrips,
    health: LocalHealth,
    standing: Standing,
    deaths: Deaths<Hearsay>,
    /// Who was held dead, and until when its word on others' deaths does not count.
    risen: Deadlines<NodeId>,
    rules: Rules,
    piggyback: Piggyback,
    hops: Hops<Cargo>,
    roles: RoleTables,
    fetches: Fetches,
    pulls: Pulls,
    refusals: Refused,
    decoding: Decodings,
    joins: Joins,
    cookies: CookieJar,
    clashes: Clashes,
    succession: Succession,
    corrections: Corrections,
    receipts: Receipts,
    gatherings: Gatherings,
    /// Scopes in which somebody waits to hear who has the news that go out next.
    asked_about: BTreeSet<ScopeId>,
    /// When this node last began to tell of its roles in a scope, and from which generation on.
    told_lately: BTreeMap<ScopeId, (Instant, Generation)>,
    goodbye: Option<Goodbye>,
    timers: TimerTable,

    /// Nodes whose roles are still on their way, and when they are announced without them.
    announcing: Deadlines<NodeId>,
    /// Seeds that have let this node in and are not in the table yet.
    welcomed: BTreeMap<NodeId, SocketAddr>,
    parts: PartCache,
    phase: Phase,
    /// Attempts to reach a seed since this node was last among others.
    lonely_tries: u32,
    last_gossip: Option<Instant>,
    /// When a probe last carried a digest.
    last_compared: Option<Instant>,
    /// Whether somebody is to be compared with sooner than that.
    unsettled: bool,
    /// When news were last sent on the fast path.
    last_launch: Option<Instant>,
    contact: Contact,

    /// If the cluster is encrypted.
    sealing: Option<Box<Sealing>>,
    buffers: Buffers,
    events: VecDeque<Event>,
    outcomes: VecDeque<Outcome>,
    log: VecDeque<LogLine>,
    outgoing: VecDeque<Outgoing>,
    counters: Counters,
}

/// What a datagram is taken apart in, so that it costs no allocation of its own.
#[derive(Debug, Default)]
struct Buffers {
    /// The frames of a sealed datagram, decrypted.
    opened: Vec<u8>,
    frames: Vec<Frame>,
}

/// When this node last had to do with others.
#[derive(Debug)]
struct Contact {
    /// A member was heard.
    heard: Instant,
    /// A ping of this node was answered.
    answered: Instant,
    /// Since then its pings have been answered without a longer pause.
    unbroken: Instant,
    /// This node began a suspicion.
    suspected: Option<Instant>,
}

/// How far a node has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Nothing has been pulled yet.
    Alone,
    /// The first pull is under way.
    Joining,
    /// As good as the others.
    Synced,
    /// It has left, or lost its name.
    Stopped,
}

impl Protocol {
    /// A node that knows only itself.
    ///
    /// # Errors
    /// The first value of the configuration that is not allowed.
    ///
    /// # Panics
    /// When the metadata is over the limit: the caller checks that.
    pub fn new(
        config: &Config,
        local: LocalNode,
        seed: u64,
        now: Instant,
    ) -> Result<Protocol, ConfigError> {
        config.validate()?;
        assert!(local.meta.len() <= MAX_META_BYTES, "the caller checks the metadata");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let id = NodeId::from_u64(rng.random()).unwrap_or(NodeId::MIN);
        let cluster = local.cluster;
        let profile = first_profile(local, id);
        let mut protocol = Protocol {
            config: config.clone(),
            cluster,
            local: id,
            now,
            members: Members::new(&profile),
            detector: Detector::new(&mut rng),
            suspicions: Suspicions::default(),
            #[cfg(feature = "sim")]
            swim: Swim::default(),
            round_trips: RoundTrips::default(),
            health: LocalHealth::new(),
            standing: Standing::default(),
            deaths: Deaths::default(),
            risen: Deadlines::default(),
            rules: Rules::ALL,
            piggyback: Piggyback::default(),
            hops: Hops::new(now),
            roles: RoleTables::new(profile.id),
            fetches: Fetches::default(),
            pulls: Pulls::default(),
            refusals: Refused::default(),
            decoding: Decodings::default(),
            joins: Joins::default(),
            cookies: CookieJar::new(&mut rng),
            clashes: Clashes::default(),
            succession: Succession::default(),
            corrections: Corrections::default(),
            receipts: Receipts::default(),
            gatherings: Gatherings::default(),
            asked_about: BTreeSet::new(),
            told_lately: BTreeMap::new(),
            goodbye: None,
            timers: TimerTable::default(),
            announcing: Deadlines::default(),
            welcomed: BTreeMap::new(),
            parts: PartCache::default(),
            phase: Phase::Alone,
            lonely_tries: 0,
            last_gossip: None,
            last_compared: None,
            unsettled: false,
            last_launch: None,
            contact: Contact { heard: now, answered: now, unbroken: now, suspected: None },
            sealing: None,
            buffers: Buffers::default(),
            events: VecDeque::new(),
            outcomes: VecDeque::new(),
            log: VecDeque::new(),
            outgoing: VecDeque::new(),
            counters: Counters::default(),
            rng,
        };
        protocol.apply_limits();
        protocol.start_timers();
        Ok(protocol)
    }

    /// The same node with a keyring: it seals all that it sends and believes nothing that is not
    /// sealed. No two nodes with a keyring in common may have been made from one seed.
    ///
    /// # Panics
    /// When it has a keyring already: its datagrams would be numbered anew.
    #[must_use]
    pub fn with_keyring(mut self, keyring: Keyring) -> Protocol {
        assert!(self.sealing.is_none(), "a node gets one keyring");
        self.sealing = Some(Box::new(Sealing::new(keyring, self.cluster, self.local)));
        self
    }

    // Inputs.

    /// Takes in a datagram that came from `from`.
    ///
    /// # Errors
    /// Why it was refused, for logs; it was counted and changed nothing.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), DecodeError> {
        self.advance(now);
        let received = self.receive(from, datagram);
        self.settle();
        received
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        self.run_timers();
        self.settle();
    }

    /// Does what the user asks.
    ///
    /// # Errors
    /// Why it was refused; nothing changed.
    pub fn handle_command(&mut self, now: Instant, command: Command) -> Result<(), CommandError> {
        self.advance(now);
        let result = self.obey(command);
        self.settle();
        result
    }

    /// Takes in what the kernel noticed of the peer at an address. It is looked into at once, and
    /// decides nothing by itself.
    pub fn handle_hint(&mut self, now: Instant, peer: SocketAddr, hint: Hint) {
        self.advance(now);
        self.take_hint(peer, hint);
        self.settle();
    }

    // Outputs.

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next outcome.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// The next line for the log.
    pub fn poll_log(&mut self) -> Option<LogLine> {
        self.log.pop_front()
    }

    /// Writes the next datagram into `datagram` (cleared first), and says where it goes. What rides
    /// on it is chosen now, so that it is the freshest there is.
    pub fn poll_transmit(&mut self, datagram: &mut Vec<u8>) -> Option<Transmit> {
        self.next_datagram(datagram)
    }

    /// When [`handle_timeout`](Protocol::handle_timeout) is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    // Getters.

    /// This node, as its peers see it.
    pub fn local(&self) -> &Node {
        &self.members.local().node
    }

    /// The start stamp of this run.
    pub fn boot(&self) -> u64 {
        self.members.local().boot.0
    }

    /// The tuning in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The ids of this node's keys, first that of the one that it seals with; none if it has no
    /// keyring.
    pub fn keys(&self) -> Vec<KeyId> {
        self.sealing.as_ref().map(|sealing| sealing.ids()).unwrap_or_default()
    }

    /// Whether the node has left or lost its name.
    pub fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopped
    }

    /// Whether the first pull is complete.
    pub fn is_synced(&self) -> bool {
        self.phase == Phase::Synced
    }

    /// The live members that have been announced, this node included.
    pub fn members(&self) -> Nodes {
        let local = std::iter::once(self.local().clone());
        let peers = self.members.peers().iter().filter_map(|id| self.members.live(*id));
        let announced = peers.filter(|member| member.announced).map(|member| member.node.clone());
        local.chain(announced).collect()
    }

    /// The scopes that this node is in, by name.
    pub fn scopes(&self) -> Vec<ScopeName> {
        let mut names: Vec<_> = self.roles.scopes().map(|(_, table)| table.name.clone()).collect();
        names.sort_unstable();
        names
    }

    /// The roles of a live, announced node in a scope.
    pub fn roles(&self, scope: &str, id: NodeId) -> Roles {
        let known = self.members.live(id).is_some_and(|member| member.announced);
        let set = self.roles.set(ScopeId::of(scope), id).filter(|_| known);
        set.map(|set| set.held().cloned().collect()).unwrap_or_default()
    }

    /// The generation of a node's roles in a scope as it is known here; of this node's own also
    /// when it is not in the scope.
    pub fn generation(&self, scope: &str, id: NodeId) -> Generation {
        let scope = ScopeId::of(scope);
        if id == self.local {
            return self.roles.own_generation(scope);
        }
        self.roles.set(scope, id).map(roles::RoleSet::generation).unwrap_or_default()
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        Stats {
            members: self.members.live_count(),
            suspects: self.suspect_count(),
            reached_indirectly: self.reached_indirectly(),
            dead: self.members.dead_count(),
            scopes: self.roles.count(),
            role_bytes: self.roles.held_by_the_living(),
            members_on_other_keys: self.members_on_other_keys(),
            local_health: self.health.score(),
            on_probation: self.standing.is_out(self.now),
            piggyback_queue: self.piggyback.len(),
            fetch_queue: self.fetches.len(),
            pull_sessions: self.pulls.len(),
            send_queue: self.outgoing.len(),
            ..self.counters.stats()
        }
    }

    fn members_on_other_keys(&self) -> usize {
        let peers = self.members.peers();
        self.sealing.as_ref().map_or(0, |sealing| sealing.count_on_other_keys(peers))
    }

    /// Time only moves on, whatever the caller says.
    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn start_timers(&mut self) {
        // The first rounds come at a random moment, so that nodes that start together spread out.
        let within = |rng: &mut ChaCha8Rng, interval: std::time::Duration| {
            interval.mul_f64(rng.random_range(0.1..1.0))
        };
        let probe = self.now + within(&mut self.rng, self.config.probe_interval);
        let pull = self.now + within(&mut self.rng, self.config.pull_interval);
        self.timers.set(Timer::Probe, Some(probe));
        self.timers.set(Timer::Pull, Some(pull));
        self.timers.set(Timer::Reconnect, Some(self.now));
    }
}

/// What a node says of itself before it has met anybody.
fn first_profile(local: LocalNode, id: NodeId) -> Profile {
    Profile {
        id,
        boot: Boot(local.boot),
        version: 1,
        incarnation: Incarnation(0),
        name: local.name,
        addr: local.addr,
        meta: local.meta,
        scopes: std::sync::Arc::from([]),
    }
}
