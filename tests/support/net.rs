//! A small virtual network for tests: real `Protocol`s, virtual time, seeded latency and loss.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rolecall::proto::{Command, LocalNode, Outcome, Protocol};
use rolecall::time::Instant;
use rolecall::wire::ClusterId;
use rolecall::{Config, Event, Keyring, Node, NodeId, NodeName, Role, ScopeName};

/// The cluster that all nodes are in.
pub const CLUSTER: &str = "test";

/// One machine of the network: whatever runs at an address.
pub struct Host {
    pub node: Protocol,
    pub seeds: Vec<SocketAddr>,
    pub events: Vec<(Instant, Event)>,
    pub outcomes: Vec<Outcome>,
    /// Nothing runs; datagrams wait.
    pub paused: bool,
    inbox: Vec<(SocketAddr, Vec<u8>)>,
}

/// Looks at every datagram before it travels: from, to, bytes.
pub type Tap = Box<dyn FnMut(SocketAddr, SocketAddr, &[u8])>;

/// The network.
pub struct Net {
    pub now: Instant,
    pub config: Config,
    /// What nodes are started with.
    pub keyring: Option<Keyring>,
    /// Whether datagrams may be refused; otherwise that is a failure.
    pub refuses: bool,
    pub hosts: BTreeMap<SocketAddr, Host>,
    pub loss: f64,
    /// The share of datagrams that arrive twice.
    pub duplication: f64,
    /// Every datagram that was sent, when and from where to where, if somebody asked for that.
    pub log: Option<Vec<(Instant, SocketAddr, SocketAddr, Vec<u8>)>>,
    /// Pairs that cannot hear each other.
    pub cut: BTreeSet<(SocketAddr, SocketAddr)>,
    pub tap: Option<Tap>,
    rng: ChaCha8Rng,
    flying: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sent: u64,
    boots: u64,
    drains: u64,
    /// A hash of everything that was delivered, when and where.
    pub trace: u64,
}

pub fn addr(n: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, u8::try_from(n >> 8).unwrap(), u8::try_from(n & 255).unwrap()], 7946))
}

pub fn scope(name: &str) -> ScopeName {
    ScopeName::new(name).unwrap()
}

impl Net {
    pub fn new(seed: u64, config: Config) -> Net {
        Net {
            now: Instant::ORIGIN,
            config,
            keyring: None,
            refuses: false,
            hosts: BTreeMap::new(),
            loss: 0.0,
            duplication: 0.0,
            log: None,
            cut: BTreeSet::new(),
            tap: None,
            rng: ChaCha8Rng::seed_from_u64(seed),
            flying: BTreeMap::new(),
            sent: 0,
            boots: 1000,
            drains: 0,
            trace: 0,
        }
    }

    /// Starts a node called `name` at an address, in the scope "default".
    pub fn start(&mut self, name: &str, at: SocketAddr, seeds: &[SocketAddr]) {
        self.start_with(name, at, seeds, &[("default", &[])]);
    }

    /// Starts a node with scopes and roles.
    pub fn start_with(
        &mut self,
        name: &str,
        at: SocketAddr,
        seeds: &[SocketAddr],
        scopes: &[(&str, &[&str])],
    ) {
        self.boots += 1;
        let local = LocalNode {
            cluster: ClusterId::of(CLUSTER),
            name: NodeName::new(name).unwrap(),
            addr: at,
            boot: self.boots,
            meta: Bytes::new(),
        };
        let mut node = Protocol::new(&self.config, local, self.rng.random(), self.now).unwrap();
        if let Some(keyring) = &self.keyring {
            node = node.with_keyring(keyring.clone());
        }
        let host = Host {
            node,
            seeds: seeds.to_vec(),
            events: Vec::new(),
            outcomes: Vec::new(),
            paused: false,
            inbox: Vec::new(),
        };
        self.hosts.insert(at, host);
        for (name, roles) in scopes {
            self.command(at, Command::JoinScope(scope(name)));
            let roles = roles.iter().map(|role| Role::from(*role)).collect();
            self.command(at, Command::AddRoles { scope: scope(name), roles });
        }
        self.drain(at);
    }

    /// The wall clock that start stamps come from jumps.
    pub fn set_clock(&mut self, boot: u64) {
        self.boots = boot;
    }

    /// What runs there is gone at once.
    pub fn kill(&mut self, at: SocketAddr) -> Host {
        self.hosts.remove(&at).unwrap()
    }

    pub fn command(&mut self, at: SocketAddr, command: Command) {
        self.hosts.get_mut(&at).unwrap().node.handle_command(self.now, command).unwrap();
        self.drain(at);
    }

    pub fn add(&mut self, at: SocketAddr, name: &str, role: impl Into<Role>) {
        let roles = vec![role.into()];
        self.command(at, Command::AddRoles { scope: scope(name), roles });
    }

    pub fn remove(&mut self, at: SocketAddr, name: &str, role: impl Into<Role>) {
        let roles = vec![role.into()];
        self.command(at, Command::RemoveRoles { scope: scope(name), roles });
    }

    /// Both sides of every pair cannot hear each other any more.
    pub fn partition(&mut self, left: &[SocketAddr], right: &[SocketAddr]) {
        for a in left {
            for b in right {
                self.cut.insert((*a, *b));
                self.cut.insert((*b, *a));
            }
        }
    }

    /// Takes everything that a node has to say.
    pub fn drain(&mut self, at: SocketAddr) {
        let host = self.hosts.get_mut(&at).unwrap();
        let mut resolve = false;
        while let Some(event) = host.node.poll_event() {
            host.events.push((self.now, event));
        }
        while let Some(outcome) = host.node.poll_outcome() {
            if let Outcome::NameTaken { .. } = outcome {
                println!("{:?} {at} {} {outcome:?}", self.now, host.node.local());
            }
            resolve |= outcome == Outcome::ResolveSeeds;
            host.outcomes.push(outcome);
        }
        let mut datagram = Vec::new();
        while let Some(transmit) = host.node.poll_transmit(&mut datagram) {
            if let Some(tap) = &mut self.tap {
                tap(at, transmit.to, &datagram);
            }
            if let Some(log) = &mut self.log {
                log.push((self.now, at, transmit.to, datagram.clone()));
            }
            // Every die is thrown, so that masking one fault does not shift the others.
            let lost = self.rng.random_bool(self.loss);
            let twice = self.rng.random_bool(self.duplication);
            let latency = || Duration::from_micros(self.rng.random_range(500..1500));
            let latencies = std::iter::repeat_with(latency).take(2).collect::<Vec<_>>();
            if lost || self.cut.contains(&(at, transmit.to)) {
                continue;
            }
            for latency in latencies.into_iter().take(1 + usize::from(twice)) {
                self.sent += 1;
                let key = (self.now + latency, self.sent);
                self.flying.insert(key, (at, transmit.to, datagram.clone()));
            }
        }
        self.drains += 1;
        #[cfg(debug_assertions)]
        if self.drains.is_multiple_of(self.hosts.len() as u64 / 4 + 1) {
            self.hosts[&at].node.check();
        }
        let seeds = self.hosts[&at].seeds.clone();
        if resolve && !seeds.is_empty() {
            let contact = Command::Contact { addrs: seeds, token: None };
            // A node that is saying goodbye refuses.
            let _ = self.hosts.get_mut(&at).unwrap().node.handle_command(self.now, contact);
            self.drain(at);
        }
    }

    pub fn deliver(&mut self, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        for byte in &datagram {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
        self.trace = self.trace.rotate_left(7) ^ self.now.as_micros();
        let Some(host) = self.hosts.get_mut(&to) else { return };
        if host.paused {
            host.inbox.push((from, datagram));
            return;
        }
        if let Err(error) = host.node.handle_datagram(self.now, from, &datagram) {
            assert!(self.refuses, "{to} refuses a datagram of {from}: {error}");
        }
        self.drain(to);
    }

    pub fn resume(&mut self, at: SocketAddr) {
        let host = self.hosts.get_mut(&at).unwrap();
        host.paused = false;
        for (from, datagram) in std::mem::take(&mut host.inbox) {
            self.deliver(from, at, datagram);
        }
    }

    /// Lets virtual time pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.run_until_time(end, |_| false);
    }

    /// Lets time pass until `done`, at most `limit`; says how long it took.
    pub fn run_until(&mut self, limit: Duration, done: impl FnMut(&Net) -> bool) -> Duration {
        let start = self.now;
        assert!(self.run_until_time(start + limit, done), "not within {limit:?}");
        self.now - start
    }

    fn run_until_time(&mut self, end: Instant, mut done: impl FnMut(&Net) -> bool) -> bool {
        let mut asked = None;
        loop {
            // Asking is dear in a large cluster: twice a millisecond is often enough.
            if asked.is_none_or(|at| self.now - at >= Duration::from_micros(500)) {
                asked = Some(self.now);
                if done(self) {
                    return true;
                }
            }
            let running = self.hosts.iter().filter(|(_, host)| !host.paused);
            let timeout = running.filter_map(|(at, host)| Some((host.node.poll_timeout()?, *at)));
            let timeout = timeout.min();
            let flight = self.flying.first_key_value().map(|((at, _), _)| *at);
            let next = flight.into_iter().chain(timeout.map(|(at, _)| at)).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return false;
            };
            self.now = self.now.max(next);
            if flight == Some(next) {
                let (_, (from, to, datagram)) = self.flying.pop_first().unwrap();
                self.deliver(from, to, datagram);
            } else {
                let (_, at) = timeout.unwrap();
                self.hosts.get_mut(&at).unwrap().node.handle_timeout(self.now);
                self.drain(at);
            }
        }
    }

    pub fn node(&self, at: SocketAddr) -> &Protocol {
        &self.hosts[&at].node
    }

    pub fn names(&self, at: SocketAddr) -> Vec<String> {
        self.node(at).members().iter().map(|node| node.name().to_string()).collect()
    }

    pub fn id(&self, at: SocketAddr) -> NodeId {
        self.node(at).local().id()
    }

    /// Whether every running node knows every running node and its roles in common scopes, and
    /// nobody else.
    pub fn agrees(&self) -> bool {
        let all: Vec<Node> = self.hosts.values().map(|host| host.node.local().clone()).collect();
        self.hosts.values().all(|host| {
            let members = host.node.members();
            members.len() == all.len()
                && all.iter().all(|node| members.contains(node))
                && self.agrees_about_roles(&host.node)
        })
    }

    fn agrees_about_roles(&self, node: &Protocol) -> bool {
        node.scopes().iter().all(|name| {
            self.hosts.values().all(|other| {
                let id = other.node.local().id();
                let truth = other.node.roles(name, id);
                let joined = other.node.scopes().contains(name);
                let seen = node.roles(name, id);
                seen == truth && (joined || seen.is_empty())
            })
        })
    }

    /// The events of a node, as short text.
    pub fn told(&self, at: SocketAddr) -> Vec<String> {
        self.hosts[&at].events.iter().map(|(_, event)| short(event)).collect()
    }

    pub fn forget_events(&mut self) {
        for host in self.hosts.values_mut() {
            host.events.clear();
        }
    }
}

/// An event in a few words.
pub fn short(event: &Event) -> String {
    match event {
        Event::NodeUp { node } => format!("up {node}"),
        Event::NodeDown { node, reason } => {
            let reason = reason.to_string();
            format!("down {node} {}", reason.split([' ', '(']).next().unwrap())
        }
        Event::RoleAdded { scope, node, role } => format!("+ {scope} {node} {role}"),
        Event::RoleRemoved { scope, node, role } => format!("- {scope} {node} {role}"),
        other => format!("{other:?}"),
    }
}
