//! What the user of a simulation holds: hosts, the network, time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::Hasher;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use siphasher::sip::SipHasher13;

use super::checks::Checks;
use super::faults::{Faults, Partition};
use super::host::{Activity, Host, HostId, HostSpec};
use super::network::{Network, PartitionId};
use super::turns::ignore;
use crate::config::Config;
use crate::event::Event;
use crate::node::NodeId;
use crate::proto::{Blocked, Command, CommandError, Hint, Outcome, Protocol, Rules};
use crate::time::Instant;
use crate::view::ClusterView;

/// Something that a host's user is told.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// When.
    pub at: Instant,
    /// On which host.
    pub host: HostId,
    /// What.
    pub event: &'a Event,
    /// The node that runs there, which knows of it.
    pub node: &'a Protocol,
}

/// What a kernel notices of another host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Noticed {
    TetherClosed,
    Unreachable,
}

impl From<Noticed> for Hint {
    fn from(noticed: Noticed) -> Hint {
        match noticed {
            Noticed::TetherClosed => Hint::TetherClosed,
            Noticed::Unreachable => Hint::Unreachable,
        }
    }
}

/// What is to see every event; it may end the run.
pub(super) type Watcher<'a> = &'a mut dyn FnMut(Heard<'_>) -> ControlFlow<()>;

/// A cluster in virtual time.
///
/// See the [module](crate::sim) for an example.
pub struct Simulation {
    pub(super) now: Instant,
    pub(super) config: Config,
    pub(super) network: Network,
    pub(super) hosts: Vec<Host>,
    /// What runs at an address.
    pub(super) at: BTreeMap<SocketAddr, HostId>,
    /// When hosts are to be called. An entry counts if it is what its host says.
    pub(super) wakes: BinaryHeap<Reverse<(Instant, HostId)>>,
    pub(super) rng: ChaCha8Rng,
    pub(super) trace: SipHasher13,
    pub(super) rules: Rules,
    pub(super) has_views: bool,
    pub(super) keeps_events: bool,
    /// Addresses of hosts that live on without their process, and whose kernels say so.
    pub(super) bereft: BTreeSet<SocketAddr>,
    /// What kernels have noticed of others and not told their nodes yet.
    pub(super) hints: BinaryHeap<Reverse<(Instant, HostId, SocketAddr, Noticed)>>,
    /// What looks at every turn, if that is wanted.
    pub(super) checks: Option<Box<Checks>>,
    /// Datagrams that found no room in a socket's buffer.
    pub(super) overflowed: u64,
    /// The bytes of the datagram that just arrives, and of the one that is just being written.
    pub(super) buffer: Vec<u8>,
    pub(super) buffer_out: Vec<u8>,
}

impl Simulation {
    /// A simulation without hosts, on a data centre's network without faults.
    ///
    /// # Panics
    /// When the tuning is not allowed; [`Config::validate`] tells beforehand.
    pub fn new(seed: u64, config: Config) -> Simulation {
        config.validate().expect("a valid configuration");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Simulation {
            now: Instant::ORIGIN,
            config,
            network: Network::new(rng.random(), Faults::default()),
            hosts: Vec::new(),
            at: BTreeMap::new(),
            wakes: BinaryHeap::new(),
            rng,
            trace: SipHasher13::new(),
            rules: Rules::ALL,
            has_views: true,
            keeps_events: true,
            bereft: BTreeSet::new(),
            hints: BinaryHeap::new(),
            checks: None,
            overflowed: 0,
            buffer: Vec::new(),
            buffer_out: Vec::new(),
        }
    }

    /// Keeps neither views nor events, from the hosts started from now on: for thousands of hosts,
    /// where [`watch`](Simulation::watch) and [`node`](Simulation::node) tell what is needed.
    #[must_use]
    pub fn lean(mut self) -> Simulation {
        self.has_views = false;
        self.keeps_events = false;
        self
    }

    /// Switches refinements of the protocol off, on the hosts started from now on.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Looks at every turn of every host, from now on, with all [`checks`](super::checks): what
    /// breaks a rule panics. To be called before hosts are started.
    ///
    /// # Panics
    /// When something runs already.
    #[must_use]
    pub fn checked(mut self) -> Simulation {
        assert!(self.at.is_empty(), "checks see the whole life of a run");
        self.checks = Some(Box::default());
        self
    }

    /// What the checks have seen, if there are any.
    pub fn checks(&self) -> Option<&Checks> {
        self.checks.as_deref()
    }

    // The hosts.

    /// Sets a host up and starts its node.
    ///
    /// # Panics
    /// When something runs at its address, or its roles or metadata are over the limits.
    pub fn start(&mut self, spec: HostSpec) -> HostId {
        let id = self.install(spec);
        self.boot(id);
        id
    }

    /// Sets hosts up and starts their nodes as if they had been a cluster for long: everybody knows
    /// everybody and their roles, and nothing is under way. Quicker than having them join.
    ///
    /// # Panics
    /// As [`start`](Simulation::start) does, and when two have one name.
    pub fn start_acquainted(&mut self, specs: impl IntoIterator<Item = HostSpec>) -> Vec<HostId> {
        let hosts: Vec<HostId> = specs.into_iter().map(|spec| self.install(spec)).collect();
        let mut everybody = Vec::with_capacity(hosts.len());
        for host in &hosts {
            self.load(*host);
            everybody.extend(self.node(*host).map(Protocol::introduction));
        }
        everybody.sort_unstable_by_key(|introduction| introduction.node().id());
        for host in &hosts {
            let process = self.hosts[host.index()].process.as_mut().expect("it was just made");
            process.node.acquaint(Instant::ORIGIN, &everybody);
            self.show(*host);
            let _: ControlFlow<()> = self.turn(*host, &mut ignore);
        }
        hosts
    }

    /// The nodes of some hosts, before they have said anything: for who drives them by hand.
    pub(super) fn unstarted(mut self, specs: impl IntoIterator<Item = HostSpec>) -> Vec<Protocol> {
        let made = |spec| {
            let host = self.install(spec);
            self.load(host);
            self.hosts[host.index()].stop().expect("it was just made").node
        };
        specs.into_iter().map(made).collect()
    }

    /// Sets a host up, to be started with [`restart`](Simulation::restart).
    ///
    /// # Panics
    /// When there are 2^32 hosts.
    pub fn install(&mut self, spec: HostSpec) -> HostId {
        let id = HostId(u32::try_from(self.hosts.len()).expect("fewer than 2^32 hosts"));
        let addr = spec.addr.unwrap_or_else(|| Simulation::nth_addr(id.index()));
        self.hosts.push(Host::new(spec, addr));
        id
    }

    /// The address of the how-manieth host, unless its [`HostSpec::addr`] says otherwise.
    ///
    /// # Panics
    /// When there are 2^24 hosts.
    pub fn nth_addr(index: usize) -> SocketAddr {
        let [high, a, b, c] = u32::try_from(index).expect("fewer than 2^24 hosts").to_be_bytes();
        assert_eq!(high, 0, "fewer than 2^24 hosts");
        SocketAddr::from(([10, a, b, c], 7946))
    }

    /// Ends what runs on a host at once, without a word.
    pub fn crash(&mut self, host: HostId) {
        let crashed = &mut self.hosts[host.index()];
        if let Some(process) = crashed.stop() {
            self.at.remove(&crashed.addr);
            if let Some(checks) = &mut self.checks {
                checks.ended(host, &process.node);
            }
        }
    }

    /// Ends the process on a host at once, while the host lives on: its kernel closes the process's
    /// [tethers](Config::tethers), and from now on answers datagrams with an ICMP message that
    /// nobody listens, until something runs there again.
    pub fn kill(&mut self, host: HostId) {
        let Some(node) = self.node(host) else { return };
        let (addr, id) = (self.addr(host), node.local().id());
        let out: BTreeSet<SocketAddr> = node.tethers().into_iter().map(|(_, to)| to).collect();
        let is_tied = |node: &Protocol| node.tethers().iter().any(|(to, _)| *to == id);
        let tied = self.running().filter(|(_, it)| is_tied(it) || out.contains(&it.local().addr()));
        let tied: Vec<HostId> = tied.map(|(host, _)| host).collect();
        self.crash(host);
        self.bereft.insert(addr);
        for other in tied.into_iter().filter(|other| *other != host) {
            self.notice(other, addr, Noticed::TetherClosed);
        }
    }

    /// Starts a host's node again, as a new run, where it was.
    ///
    /// # Panics
    /// When something runs there.
    pub fn restart(&mut self, host: HostId) {
        self.boot(host);
    }

    /// Starts a host's node again, as a new run, at another address.
    ///
    /// # Panics
    /// When something runs there.
    pub fn restart_at(&mut self, host: HostId, addr: SocketAddr) {
        assert!(self.hosts[host.index()].process.is_none(), "it runs");
        self.hosts[host.index()].addr = addr;
        self.boot(host);
    }

    /// Has a node say goodbye; it ends when that is done.
    pub fn leave(&mut self, host: HostId) {
        // A node that is leaving already refuses.
        let _ = self.command(host, Command::Leave);
    }

    /// Nothing runs on the host until it [resumes](Simulation::resume); datagrams to it wait in the
    /// socket's buffer, as many as find room.
    pub fn pause(&mut self, host: HostId) {
        self.suspend(host, Activity::Paused);
    }

    /// What the host sends and receives is stuck until it [resumes](Simulation::resume).
    pub fn stall(&mut self, host: HostId) {
        self.suspend(host, Activity::Stalled);
    }

    /// What the host receives is stuck, and whatever is about to send waits, until it
    /// [resumes](Simulation::resume): see [`Activity::Blocked`].
    pub fn block(&mut self, host: HostId) {
        self.suspend(host, Activity::Blocked);
        self.schedule(host);
    }

    fn suspend(&mut self, host: HostId, activity: Activity) {
        let suspended = &mut self.hosts[host.index()];
        if suspended.activity == Activity::Running {
            suspended.activity = activity;
            if activity == Activity::Paused {
                suspended.wake = None;
            }
        }
    }

    /// A paused, stalled or blocked host goes on. As in the driver, what waits in the socket is
    /// read before the timers are looked at.
    pub fn resume(&mut self, host: HostId) {
        let resumed = &mut self.hosts[host.index()];
        if matches!(resumed.activity, Activity::Down | Activity::Running) {
            return;
        }
        resumed.activity = Activity::Running;
        resumed.blocked = Blocked::default();
        let (addr, outbox) = (resumed.addr, resumed.outbox.take());
        // What waits in the inbox is read when the host is called, which is at once.
        resumed.wake = Some(self.now);
        self.wakes.push(Reverse((self.now, host)));
        for (to, datagram) in outbox {
            self.network.send(self.now, addr, to, &datagram);
        }
    }

    /// From now on the host's clock gains this many parts per million (loses, if negative).
    ///
    /// # Panics
    /// When the clock would stand still or run backwards.
    pub fn set_drift(&mut self, host: HostId, ppm: i32) {
        assert!(ppm > -1_000_000, "clocks run forward");
        let now = self.now;
        let drifting = &mut self.hosts[host.index()];
        drifting.drift_ppm = ppm;
        drifting.clock.set_drift(now, ppm);
        self.schedule(host);
    }

    /// By how many microseconds the host's wall clock is ahead (behind, if negative) from now on:
    /// the next run's start stamp comes from it, nothing else does.
    pub fn set_wall_clock(&mut self, host: HostId, ahead_micros: i64) {
        self.hosts[host.index()].wall_offset_micros = ahead_micros;
    }

    /// Gives a running node a command, as its user would.
    ///
    /// # Errors
    /// Why it was refused; nothing changed.
    ///
    /// # Panics
    /// When nothing runs there, or it is paused.
    pub fn command(&mut self, host: HostId, command: Command) -> Result<(), CommandError> {
        let commanded = &mut self.hosts[host.index()];
        assert_ne!(commanded.activity, Activity::Paused, "a paused process calls nothing");
        let now = commanded.clock.local(self.now);
        let process = commanded.process.as_mut().expect("something runs there");
        let result = process.node.handle_command(now, command);
        let _: ControlFlow<()> = self.turn(host, &mut ignore);
        result
    }

    // The network.

    /// Replaces the network's faults.
    pub fn set_faults(&mut self, faults: Faults) {
        self.network.set_faults(faults);
    }

    /// Cuts some hosts from others.
    pub fn partition(&mut self, partition: Partition) -> PartitionId {
        self.network.partition(partition)
    }

    /// Ends a partition.
    pub fn heal(&mut self, partition: PartitionId) {
        self.network.heal(partition);
    }

    /// Ends all partitions.
    pub fn heal_all(&mut self) {
        self.network.heal_all();
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The network, for what has no name here.
    pub fn network_mut(&mut self) -> &mut Network {
        &mut self.network
    }

    // Time.

    /// Lets virtual time pass.
    pub fn run(&mut self, duration: Duration) {
        self.watch(duration, ignore);
    }

    /// Lets time pass until `done`, which is asked after every `step`, at most for `limit`; says
    /// how long it took.
    pub fn run_until(
        &mut self,
        limit: Duration,
        step: Duration,
        mut done: impl FnMut(&Simulation) -> bool,
    ) -> Option<Duration> {
        let start = self.now;
        while !done(self) {
            if self.now - start >= limit {
                return None;
            }
            self.run(step.min(limit));
        }
        Some(self.now - start)
    }

    /// Lets time pass while `watcher` sees every event as it happens, at most for `limit`; says how
    /// long it took until the watcher broke off, if it did.
    pub fn watch(
        &mut self,
        limit: Duration,
        mut watcher: impl FnMut(Heard<'_>) -> ControlFlow<()>,
    ) -> Option<Duration> {
        let start = self.now;
        let end = start + limit;
        while let Some(at) = self.next().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            if self.step(&mut watcher).is_break() {
                return Some(self.now - start);
            }
        }
        self.now = end;
        None
    }

    // What there is.

    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// All hosts, running or not.
    pub fn hosts(&self) -> impl Iterator<Item = HostId> + use<> {
        (0..u32::try_from(self.hosts.len()).unwrap_or(u32::MAX)).map(HostId)
    }

    /// The hosts on which something runs, paused ones among them.
    pub fn running(&self) -> impl Iterator<Item = (HostId, &Protocol)> {
        self.hosts().filter_map(|host| Some((host, self.node(host)?)))
    }

    /// What a host does.
    pub fn activity(&self, host: HostId) -> Activity {
        self.hosts[host.index()].activity
    }

    /// Where a host is.
    pub fn addr(&self, host: HostId) -> SocketAddr {
        self.hosts[host.index()].addr
    }

    /// The host at an address, if something runs there.
    pub fn host_at(&self, addr: SocketAddr) -> Option<HostId> {
        self.at.get(&addr).copied()
    }

    /// The node that runs on a host.
    pub fn node(&self, host: HostId) -> Option<&Protocol> {
        self.hosts[host.index()].process.as_ref().map(|process| &process.node)
    }

    /// The id of the run on a host.
    ///
    /// # Panics
    /// When nothing runs there.
    pub fn id_of(&self, host: HostId) -> NodeId {
        self.node(host).expect("something runs there").local().id()
    }

    /// What the user of the node reads: the same maps as in a service.
    ///
    /// # Panics
    /// When nothing runs there, or the simulation is [lean](Simulation::lean).
    pub fn view(&self, host: HostId) -> &Arc<ClusterView> {
        let process = self.hosts[host.index()].process.as_ref().expect("something runs there");
        &process.view.as_ref().expect("the simulation is not lean").1
    }

    /// What the user of the running node was told since it started, or since these were taken last.
    pub fn take_events(&mut self, host: HostId) -> Vec<(Instant, Event)> {
        let process = self.hosts[host.index()].process.as_mut();
        process.map(|process| std::mem::take(&mut process.events)).unwrap_or_default()
    }

    /// What became of the running node's commands since it started, or since these were taken last.
    pub fn take_outcomes(&mut self, host: HostId) -> Vec<Outcome> {
        let process = self.hosts[host.index()].process.as_mut();
        process.map(|process| std::mem::take(&mut process.outcomes)).unwrap_or_default()
    }

    /// A hash of everything that arrived so far: when, where, what.
    pub fn trace_hash(&self) -> u64 {
        self.trace.finish()
    }

    /// Datagrams that found no room in a paused or stalled host's buffers.
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }
}
