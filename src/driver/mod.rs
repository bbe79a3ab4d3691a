//! The only async code: one task that owns the socket and the timer, and the state that it shares
//! with the user's calls under one short lock.
//!
//! ```text
//!   socket --> handle_datagram --+                         +--> published maps
//!   timer ---> handle_timeout ---+--> Protocol --> events -+--> subscribers
//!   user ----> handle_command ---+        |
//!   kernel --> handle_hint ------+        +--> datagrams --> socket
//! ```
//! A turn takes what has arrived before it looks at timers, so that an answer that waits in the
//! socket is never called late; it is bounded, and never waits for a peer.

mod bounced;
pub(crate) mod hub;
mod log;
mod refused;
mod resolve;
pub(crate) mod socket;
mod tether;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tracing::Level;

use crate::event::Event;
use crate::node::{Nodes, ScopeName};
use crate::proto::{Command, CommandError, Hint, Outcome, Protocol};
use crate::role::Role;
use crate::stats::Stats;
use crate::time::Instant;
use crate::view::{ClusterView, Publisher};
use crate::wire::ClusterId;
use hub::Hub;
use refused::Refusals;
use resolve::{Resolving, resolve_all};
pub(crate) use resolve::{check_seed, resolve};
use socket::{Io, NodeSocket, Sockets};
use tether::{Counts, Identity, Tethers};

/// Datagrams received, datagrams sent, and datagrams that came back, in one turn: the lock is held
/// that long.
const DATAGRAMS_PER_TURN: usize = 64;

/// Watches that are kept before those that nobody reads are looked for.
const UNUSED_WATCHES_KEPT: usize = 64;

/// Garbage that no reader sees any more is looked after this often while there is some.
const RECLAIM_PAUSE: Duration = Duration::from_millis(50);

/// Garbage that readers hold back is warned of past this, once.
const RECLAIM_WARNING_BYTES: usize = 64 << 20;

/// What the driver and the user's calls share.
pub(crate) struct Shared {
    core: Mutex<Core>,
    wake: Notify,
    closed: AtomicBool,
    origin: std::time::Instant,
    pub(crate) view: Arc<ClusterView>,
    pub(crate) handler_panics: Arc<AtomicU64>,
    pub(crate) bound: SocketAddr,
    /// In which everything happens that this node logs.
    span: tracing::Span,
}

/// What is under the lock.
pub(crate) struct Core {
    pub(crate) protocol: Protocol,
    publisher: Publisher,
    view: Arc<ClusterView>,
    pub(crate) hub: Hub,
    watches: BTreeMap<(ScopeName, Role), watch::Sender<Nodes>>,
    /// At how many watches to look for those that nobody reads any more.
    sweep_watches_at: usize,
    waiting: BTreeMap<u64, oneshot::Sender<Outcome>>,
    next_token: u64,
    started: Option<oneshot::Sender<Outcome>>,
    leaving: Vec<oneshot::Sender<Outcome>>,
    /// How the goodbye ended; told when the socket is closed, so that its port is free by then.
    left: Option<Outcome>,
    seeds: Vec<String>,
    resolve: bool,
    stopped: bool,
    socket_errors: u64,
    hints_unreachable: u64,
    hints_tether_closed: u64,
    tethers: Counts,
    /// How often members have come, gone or changed: other tethers may be wanted then.
    member_events: u64,
    warned_of_garbage: bool,
}

impl Shared {
    pub(crate) fn new(
        protocol: Protocol,
        (publisher, view): (Publisher, Arc<ClusterView>),
        seeds: Vec<String>,
        (bound, origin): (SocketAddr, std::time::Instant),
    ) -> Shared {
        let local = protocol.local();
        let span = tracing::info_span!("rolecall", node = %local, id = %local.id());
        let core = Core {
            protocol,
            publisher,
            view: view.clone(),
            hub: Hub::default(),
            watches: BTreeMap::new(),
            sweep_watches_at: UNUSED_WATCHES_KEPT,
            waiting: BTreeMap::new(),
            next_token: 1,
            started: None,
            leaving: Vec::new(),
            left: None,
            seeds,
            resolve: false,
            stopped: false,
            socket_errors: 0,
            hints_unreachable: 0,
            hints_tether_closed: 0,
            tethers: Counts::default(),
            member_events: 0,
            warned_of_garbage: false,
        };
        Shared {
            core: Mutex::new(core),
            wake: Notify::new(),
            closed: AtomicBool::new(false),
            origin,
            view,
            handler_panics: Arc::default(),
            bound,
            span,
        }
    }

    /// The state. A panic under the lock is a bug of ours: it stops this node, not its host.
    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        Instant::ORIGIN + self.origin.elapsed()
    }

    /// Obeys a command: when it returns, every reader sees what it changed.
    pub(crate) fn command(&self, command: Command) -> Result<(), CommandError> {
        let mut core = self.core();
        if core.stopped || self.core.is_poisoned() {
            return Err(CommandError::Stopped);
        }
        let _in_span = self.span.enter();
        let now = self.now();
        let result = core.protocol.handle_command(now, command);
        core.finish_turn();
        drop(core);
        self.wake.notify_one();
        result
    }

    /// Obeys a command whose outcome comes later, under a number of its own.
    pub(crate) fn ask(
        &self,
        command: impl FnOnce(u64) -> Command,
    ) -> Result<oneshot::Receiver<Outcome>, CommandError> {
        let (sender, receiver) = oneshot::channel();
        let token = {
            let mut core = self.core();
            core.next_token += 1;
            core.waiting.retain(|_, waiter| !waiter.is_closed());
            let token = core.next_token;
            core.waiting.insert(token, sender);
            token
        };
        self.command(command(token))?;
        Ok(receiver)
    }

    /// Hears when the first pull is complete, or the name is taken.
    pub(crate) fn on_start(&self) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        self.core().started = Some(sender);
        receiver
    }

    /// Hears when the goodbye is over.
    pub(crate) fn on_left(&self) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        self.core().leaving.push(sender);
        receiver
    }

    /// Seeds to be tried from now on, besides those there are.
    pub(crate) fn add_seeds(&self, seeds: &[String]) {
        let mut core = self.core();
        for seed in seeds {
            if !core.seeds.contains(seed) {
                core.seeds.push(seed.clone());
            }
        }
    }

    /// No seed has let this node in so far.
    pub(crate) fn warn_of_silent_seeds(&self) {
        let _in_span = self.span.enter();
        let seeds = self.core().seeds.join(", ");
        log::log(Level::WARN, move || {
            tracing::warn!(
                seeds,
                "no seed has let this node in yet: it is alone, and goes on trying"
            );
        });
    }

    /// The latest nodes of a role, whenever they change.
    pub(crate) fn watch(&self, scope: &ScopeName, role: &Role) -> watch::Receiver<Nodes> {
        let nodes = || self.view.scope(scope).nodes(role);
        let mut core = self.core();
        if core.stopped {
            return watch::channel(nodes()).1;
        }
        if core.watches.len() >= core.sweep_watches_at {
            core.watches.retain(|_, watchers| watchers.receiver_count() > 0);
            core.sweep_watches_at = UNUSED_WATCHES_KEPT.max(2 * core.watches.len());
        }
        let key = (scope.clone(), role.clone());
        core.watches.entry(key).or_insert_with(|| watch::channel(nodes()).0).subscribe()
    }

    /// The last handle is gone: the driver is to stop.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    pub(crate) fn stats(&self) -> Stats {
        let core = self.core();
        Stats {
            events_missed: core.hub.missed,
            handler_panics: self.handler_panics.load(Ordering::Relaxed),
            socket_errors: core.socket_errors,
            hints_unreachable: core.hints_unreachable,
            hints_tether_closed: core.hints_tether_closed,
            tethers_out: core.tethers.outgoing,
            tethers_in: core.tethers.incoming,
            tethers_refused: core.tethers.refused,
            reclaim_pending_bytes: core.publisher.pending_bytes(),
            ..core.protocol.stats()
        }
    }
}

impl Core {
    /// Publishes what was learned, and then tells of it.
    pub(crate) fn finish_turn(&mut self) {
        while let Some(line) = self.protocol.poll_log() {
            log::hand_over(line);
        }
        let mut events = Vec::new();
        while let Some(event) = self.protocol.poll_event() {
            self.publisher.apply(&event);
            if let Event::NodeUp { .. } | Event::NodeDown { .. } | Event::NodeUpdated { .. } = event
            {
                self.member_events += 1;
            }
            events.push(event);
        }
        if !events.is_empty() {
            let published = self.publisher.publish();
            for (scope, role) in published.roles() {
                self.tell_watchers(scope, role);
            }
            self.hub.send(&events);
        }
        while let Some(outcome) = self.protocol.poll_outcome() {
            self.conclude(outcome);
        }
    }

    /// Passes on what the kernel noticed of the peers at these addresses.
    fn hint(&mut self, now: Instant, peers: &mut Vec<SocketAddr>, hint: Hint) {
        // Many datagrams that came back from one address say no more than one.
        peers.sort_unstable();
        peers.dedup();
        for peer in peers.drain(..) {
            match hint {
                Hint::Unreachable => self.hints_unreachable += 1,
                Hint::TetherClosed => self.hints_tether_closed += 1,
            }
            self.protocol.handle_hint(now, peer, hint);
        }
    }

    fn tell_watchers(&mut self, scope: &ScopeName, role: &Role) {
        if self.watches.is_empty() {
            return;
        }
        let key = (scope.clone(), role.clone());
        let Some(watchers) = self.watches.get(&key) else { return };
        if watchers.receiver_count() == 0 {
            self.watches.remove(&key);
            return;
        }
        watchers.send_replace(self.view.scope(scope).nodes(role));
    }

    /// Hands an outcome to whoever waits for it.
    fn conclude(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::ResolveSeeds => self.resolve = !self.seeds.is_empty(),
            Outcome::Synced | Outcome::NameTaken { stopped: false, .. } => {
                if let Some(waiter) = self.started.take() {
                    // Whoever started the node may have stopped waiting.
                    let _ = waiter.send(outcome);
                }
            }
            Outcome::NameTaken { .. } | Outcome::Left { .. } => {
                if let Some(waiter) = self.started.take() {
                    let _ = waiter.send(outcome.clone());
                }
                self.left = Some(outcome);
            }
            Outcome::Answered { token, .. } | Outcome::Delivered { token, .. } => {
                if let Some(waiter) = self.waiting.remove(&token) {
                    let _ = waiter.send(outcome);
                }
            }
        }
    }

    /// Frees what no reader sees any more; says whether some is left.
    fn reclaim(&mut self) -> bool {
        if self.publisher.pending_count() == 0 {
            return false;
        }
        self.publisher.poll();
        let pending = self.publisher.pending_bytes();
        if pending > RECLAIM_WARNING_BYTES && !self.warned_of_garbage {
            self.warned_of_garbage = true;
            log::log(Level::WARN, move || {
                tracing::warn!(pending, "a reader holds a view for long: memory cannot be freed");
            });
        }
        self.publisher.pending_count() > 0
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    fn stop(&mut self) {
        self.stopped = true;
        self.tethers = Counts { refused: self.tethers.refused, ..Counts::default() };
        self.hub.close();
        self.watches.clear();
        self.waiting.clear();
        self.started = None;
        for waiter in self.leaving.drain(..) {
            if let Some(outcome) = &self.left {
                // Whoever called may have stopped waiting.
                let _ = waiter.send(outcome.clone());
            }
        }
    }
}

/// Whatever ends the driver, also the end of its runtime, ends the node.
struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.core().stop();
    }
}

/// What a turn leaves to wait for.
struct Wait {
    /// There is more to do at once.
    busy: bool,
    until: Option<std::time::Instant>,
    stop: bool,
}

/// The driver's task: runs until the last handle is gone, or the node has left.
pub(crate) fn run(
    shared: Arc<Shared>,
    sockets: Sockets,
    cluster: ClusterId,
) -> impl Future<Output = ()> + Send {
    // Made before the task is first polled: its runtime may end before that.
    drive(StopOnDrop(shared), sockets, cluster)
}

async fn drive(guard: StopOnDrop, sockets: Sockets, cluster: ClusterId) {
    let shared = &guard.0;
    let mut driver = Driver::new(shared, sockets, cluster);
    let sleep = tokio::time::sleep(Duration::ZERO);
    tokio::pin!(sleep);
    loop {
        let wait = driver.turn(shared);
        if wait.stop {
            break;
        }
        if wait.busy {
            // Others on this runtime have their turn too.
            tokio::task::yield_now().await;
            continue;
        }
        let until = wait.until.map(tokio::time::Instant::from_std);
        if let Some(until) = until {
            sleep.as_mut().reset(until);
        }
        let Driver { socket, resolving, unsent, tethers, .. } = &mut driver;
        tokio::select! {
            _ = socket.readable() => {}
            () = socket.writable(), if unsent.is_some() => {}
            () = tethers.reported() => {}
            () = &mut sleep, if until.is_some() => {}
            () = shared.wake.notified() => {}
            addrs = async { resolving.as_mut().expect("asked only if it is there").await },
                if resolving.is_some() =>
            {
                *resolving = None;
                driver.contact(shared, addrs);
            }
        }
    }
    // Whoever was dropped rather than left is to others a process that has died.
    if shared.core().protocol.is_stopped() && !shared.core.is_poisoned() {
        driver.tethers.end().await;
        log::written().await;
    }
}

struct Driver {
    socket: NodeSocket,
    receive: Vec<u8>,
    send: Vec<u8>,
    /// The datagram in `send` found no room in the socket's buffer.
    unsent: Option<SocketAddr>,
    resolving: Option<Resolving>,
    tethers: Tethers,
    refusals: Refusals,
    /// Peers of whom the kernel noticed something; empty between turns.
    noticed: Vec<SocketAddr>,
}

impl Driver {
    fn new(shared: &Shared, sockets: Sockets, cluster: ClusterId) -> Driver {
        let core = shared.core();
        let _in_span = shared.span.enter();
        let identity = Identity { cluster, local: core.protocol.local().id() };
        let Sockets { udp: socket, tcp } = sockets;
        Driver {
            receive: vec![0; 65_536],
            send: Vec::with_capacity(2048),
            unsent: None,
            resolving: None,
            tethers: Tethers::new(identity, socket.local, shared.view.clone(), tcp),
            refusals: Refusals::default(),
            noticed: Vec::new(),
            socket,
        }
    }

    /// One turn: receive, timers, publish, send.
    fn turn(&mut self, shared: &Shared) -> Wait {
        let mut core = shared.core();
        let _in_span = shared.span.enter();
        let mut busy = self.receive_some(shared, &mut core);
        let hinted = self.take_hints(shared, &mut core);
        let now = shared.now();
        if core.protocol.poll_timeout().is_some_and(|at| at <= now) {
            core.protocol.handle_timeout(now);
        }
        core.finish_turn();
        busy |= self.send_some(&mut core);
        if std::mem::take(&mut core.resolve) && self.resolving.is_none() {
            self.resolving = Some(resolve_all(core.seeds.clone()));
        }
        let follow = self.tethers.follow(&core.protocol, core.member_events);
        core.tethers = self.tethers.counts();
        let garbage = core.reclaim();
        let timeout = core.protocol.poll_timeout();
        let stop = core.protocol.is_stopped() && !busy;
        let now = shared.now();
        let until = timeout.map(|at| std::time::Instant::now() + (at - now));
        let reclaim = garbage.then(|| std::time::Instant::now() + RECLAIM_PAUSE);
        Wait {
            busy: busy || hinted,
            until: until.into_iter().chain(reclaim).chain(follow).min(),
            stop: stop || shared.closed.load(Ordering::Acquire) || shared.core.is_poisoned(),
        }
    }

    /// Takes what has arrived; says whether there may be more.
    fn receive_some(&mut self, shared: &Shared, core: &mut Core) -> bool {
        for _ in 0..DATAGRAMS_PER_TURN {
            match self.socket.try_receive(&mut self.receive) {
                Io::Done((len, from)) => {
                    let datagram = &self.receive[..len];
                    let now = shared.now();
                    if let Err(error) = core.protocol.handle_datagram(now, from, datagram) {
                        self.refusals.note(now, from, error);
                    }
                }
                Io::NotReady => return false,
                Io::Bounced => {}
                Io::Failed(error) => {
                    core.socket_errors += 1;
                    log::log(Level::DEBUG, move || tracing::debug!(%error, "receiving failed"));
                }
            }
        }
        true
    }

    /// Takes what the kernel noticed of peers; says whether there may be more.
    fn take_hints(&mut self, shared: &Shared, core: &mut Core) -> bool {
        let mut more = true;
        for _ in 0..DATAGRAMS_PER_TURN {
            match self.socket.try_bounced() {
                Io::Done(addr) => self.noticed.extend(addr),
                Io::NotReady => {
                    more = false;
                    break;
                }
                Io::Bounced => {}
                Io::Failed(error) => {
                    core.socket_errors += 1;
                    log::log(Level::DEBUG, move || {
                        tracing::debug!(%error, "reading the error queue failed");
                    });
                }
            }
        }
        core.hint(shared.now(), &mut self.noticed, Hint::Unreachable);
        more |= self.tethers.take_reports(&core.protocol, &mut self.noticed);
        core.hint(shared.now(), &mut self.noticed, Hint::TetherClosed);
        more
    }

    /// Sends what is to be sent; says whether there may be more.
    fn send_some(&mut self, core: &mut Core) -> bool {
        for _ in 0..DATAGRAMS_PER_TURN {
            let to = match self.unsent.take() {
                Some(to) => to,
                None => match core.protocol.poll_transmit(&mut self.send) {
                    Some(transmit) => transmit.to,
                    None => return false,
                },
            };
            match self.socket.try_send(&self.send, to) {
                Io::Done(()) | Io::Bounced => {}
                Io::NotReady => {
                    self.unsent = Some(to);
                    return false;
                }
                Io::Failed(error) => {
                    // Nobody there, no route, a full queue, a firewall: UDP loses datagrams, and
                    // the protocol is made for that.
                    core.socket_errors += 1;
                    log::log(Level::DEBUG, move || tracing::debug!(%to, %error, "sending failed"));
                }
            }
        }
        true
    }

    /// The seeds' addresses are known.
    fn contact(&self, shared: &Shared, mut addrs: Vec<SocketAddr>) {
        addrs.retain(|addr| self.socket.can_reach(*addr));
        // A refusal means that the node has stopped meanwhile.
        let _ = shared.command(Command::Contact { addrs, token: None });
    }
}
