//! Chaos drawn from a seed: a small cluster whose hosts and network suffer everything that the
//! simulator knows while its users change roles, and then a calm in which all must agree.
//!
//! Every step throws all its dice before it looks at what they mean, so that leaving one kind of
//! fault out ([`Weather::without`]) does not change what else happens: that is how a seed which
//! fails is cut down to what it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::checks::Violation;
use super::faults::{self, Faults, Flapping, Latency, Loss, Partition, Uplink};
use super::host::{Activity, HostId, HostSpec};
use super::simulation::Simulation;
use super::swarm::Exercised;
use crate::config::Config;
use crate::node::{MAX_META_BYTES, ScopeName};
use crate::proto::Command;
use crate::role::Role;
use crate::time::Instant;

/// The scopes that there are.
const SCOPES: [&str; 4] = ["w", "x", "y", "z"];

/// How many hosts know, and how many nodes seek, as seeds; the first of them never moves.
const SEEDS: usize = 3;

/// What happens to a host that runs, or to the network, and how often.
const RUNNING: [(&str, u32); 23] = [
    ("add role", 150),
    ("remove role", 110),
    ("add many roles", 40),
    ("remove many roles", 25),
    ("join scope", 40),
    ("leave scope", 45),
    ("new metadata", 35),
    ("receipt", 20),
    ("reconfigure", 15),
    ("crash", 55),
    ("leave", 20),
    ("pause", 55),
    ("stall", 40),
    ("block", 20),
    ("clock drift", 30),
    ("partition", 45),
    ("one-way partition", 40),
    ("flapping", 30),
    ("heal", 80),
    ("other network", 60),
    ("perfect network", 30),
    ("slow uplink", 25),
    ("small mtu", 25),
];

/// What happens to a host that is down.
const DOWN: [(&str, u32); 5] = [
    ("restart", 30),
    ("restart elsewhere", 20),
    ("address taken over", 10),
    ("wall clock back", 15),
    ("stays down", 40),
];

/// What happens to a host that is paused or stalled.
const SUSPENDED: [(&str, u32); 3] = [("resume", 45), ("crash", 5), ("stays suspended", 50)];

/// Every kind of fault that [`Exercised`] may count: what is done, and what came of it on the way.
pub const FAULTS: [&str; 41] = [
    "add role",
    "remove role",
    "add many roles",
    "remove many roles",
    "join scope",
    "leave scope",
    "new metadata",
    "receipt",
    "reconfigure",
    "crash",
    "leave",
    "pause",
    "stall",
    "block",
    "resume",
    "clock drift",
    "wall clock back",
    "restart",
    "restart elsewhere",
    "address taken over",
    "partition",
    "one-way partition",
    "flapping",
    "heal",
    "other network",
    "perfect network",
    "slow uplink",
    "small mtu",
    "fixed latency",
    "uniform latency",
    "log-normal latency",
    "two zones",
    "bursts of loss",
    "datagrams lost",
    "datagrams cut",
    "datagrams duplicated",
    "datagrams reordered",
    "datagrams corrupted",
    "datagrams over the mtu",
    "uplink queue full",
    "socket buffer full",
];

/// The kinds of weather that are done, and that [`Weather::without`] leaves out.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    let done = |kind: &&str| {
        let mut all = RUNNING.iter().chain(&DOWN).chain(&SUSPENDED);
        all.any(|(name, _)| name == kind)
    };
    FAULTS.into_iter().filter(done)
}

/// What a step may turn on.
struct Dice {
    kind: u32,
    host: usize,
    other: usize,
    scope: usize,
    role: u32,
    count: u32,
    share: f64,
    coin: f64,
    ppm: i32,
    pause: f64,
    network: u64,
}

impl Dice {
    /// Many roles: mostly short ones, sometimes more than some datagrams hold, sometimes such as
    /// hardly fit into one.
    fn roles(&self) -> Vec<Role> {
        let roles = |count: u32, pad: usize| {
            (10..10 + count).map(move |n| Role::from(format!("{n:0pad$}"))).collect()
        };
        match self.coin {
            0.0..0.04 => roles(self.count * 20, 1),
            0.04..0.15 => roles(self.count / 20, 100 + self.other % 3000),
            _ => roles(self.count, 1),
        }
    }
}

/// A cluster and what befalls it.
///
/// ```
/// use rolecall::sim::weather::Weather;
///
/// let exercised = Weather::new(3).without("stall").live_through().expect("all agree at last");
/// assert_eq!(exercised.faults.get("stall"), None);
/// ```
pub struct Weather {
    seed: u64,
    sim: Simulation,
    rng: ChaCha8Rng,
    hosts: Vec<HostId>,
    steps: u32,
    /// A pause between steps is this long on average.
    pace: Duration,
    /// Addresses that were given to hosts on the move.
    moves: u8,
    /// Hosts that were told to leave.
    leaving: BTreeSet<HostId>,
    masked: BTreeSet<&'static str>,
    faults: BTreeMap<&'static str, u64>,
}

impl Weather {
    /// The weather of a seed: size, tuning, network and all.
    pub fn new(seed: u64) -> Weather {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let crowd = rng.random_range(0..25) == 0;
        let (few, many) = (rng.random_range(2..=16), rng.random_range(30..=40));
        let count = if crowd { many } else { few };
        let steps = rng.random_range(20..200) / if crowd { 4 } else { 1 };
        let (config, specs) = (draw_config(&mut rng), rng.random());
        let mut weather = Weather {
            seed,
            pace: config.probe_interval.mul_f64(1.4),
            sim: Simulation::new(seed, config).checked(),
            rng,
            hosts: Vec::new(),
            steps,
            moves: 0,
            leaving: BTreeSet::new(),
            masked: BTreeSet::new(),
            faults: BTreeMap::new(),
        };
        weather.populate(count, specs);
        weather
    }

    /// Leaves out a kind of weather: one of [`kinds`].
    #[must_use]
    pub fn without(mut self, kind: &'static str) -> Weather {
        self.masked.insert(kind);
        self
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The cluster.
    pub fn simulation(&self) -> &Simulation {
        &self.sim
    }

    /// Chaos, then calm.
    ///
    /// # Errors
    /// When not all agree when the bound of the calm is over.
    ///
    /// # Panics
    /// When a rule is broken meanwhile.
    pub fn live_through(mut self) -> Result<Exercised, Violation> {
        for _ in 0..self.steps {
            self.step();
        }
        self.calm();
        self.sim.converge()?;
        Ok(self.exercised())
    }

    fn populate(&mut self, count: usize, seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let uneven = rng.random_bool(0.15);
        for n in 0..count {
            let mut spec = HostSpec::new(&format!("n{n}")).seeds(seeds());
            for scope in SCOPES {
                let (is_in, roles) = (rng.random_bool(0.6), rng.random_range(0..4u32));
                if is_in {
                    spec = spec.scope(scope, 0..roles);
                }
            }
            let (bytes, fanout) = (rng.random_range(512..3000), rng.random_range(1..6));
            if uneven {
                let config = self.sim.config.clone();
                let config = Config { max_datagram_bytes: bytes, gossip_fanout: fanout, ..config };
                spec = spec.config(config);
            }
            let host = self.sim.install(spec);
            self.hosts.push(host);
            self.sim.restart(host);
            if rng.random_bool(0.3) {
                self.sim.run(self.pace / 4);
            }
        }
        let warm = self.pace * rng.random_range(0..6);
        self.sim.run(warm);
    }

    fn throw(&mut self) -> Dice {
        Dice {
            kind: self.rng.random(),
            host: self.rng.random_range(0..1 << 20),
            other: self.rng.random_range(0..1 << 20),
            scope: self.rng.random_range(0..SCOPES.len()),
            role: self.rng.random_range(0..6),
            count: self.rng.random_range(1..400),
            share: self.rng.random(),
            coin: self.rng.random(),
            ppm: self.rng.random_range(-50_000..50_000),
            pause: self.rng.random(),
            network: self.rng.random(),
        }
    }

    fn step(&mut self) {
        let dice = self.throw();
        let host = self.hosts[dice.host % self.hosts.len()];
        let kind = match self.sim.activity(host) {
            Activity::Running => pick(&RUNNING, dice.kind),
            Activity::Paused | Activity::Stalled | Activity::Blocked => pick(&SUSPENDED, dice.kind),
            Activity::Down => pick(&DOWN, dice.kind),
        };
        if !self.masked.contains(kind) && self.act(kind, host, &dice) {
            tracing::info!(at = ?self.sim.now(), host = host.index(), kind, "weather");
            *self.faults.entry(kind).or_default() += 1;
        }
        // Short ones often, long ones sometimes: the mean of a square is a third.
        self.sim.run(self.pace.mul_f64(3.0 * dice.pause * dice.pause));
    }

    /// Does it; false when it cannot be done just now.
    fn act(&mut self, kind: &str, host: HostId, dice: &Dice) -> bool {
        match kind {
            "crash" => self.sim.crash(host),
            "leave" => {
                self.sim.leave(host);
                self.leaving.insert(host);
            }
            "pause" => self.sim.pause(host),
            "stall" => self.sim.stall(host),
            "block" => self.sim.block(host),
            "resume" => self.sim.resume(host),
            "clock drift" => self.sim.set_drift(host, dice.ppm),
            "wall clock back" => {
                self.sim.set_wall_clock(host, -i64::from(dice.role) * 60_000_000);
            }
            "restart" => return self.restart(host),
            "restart elsewhere" => return self.move_away(host),
            "address taken over" => return self.take_over(host, dice),
            "stays down" | "stays suspended" => return false,
            "partition" | "one-way partition" | "flapping" => self.cut(kind, host, dice),
            "heal" => self.sim.heal_all(),
            "other network" | "perfect network" | "small mtu" | "slow uplink" => {
                self.change_network(kind, host, dice);
            }
            _ => return self.command(kind, host, dice),
        }
        true
    }

    fn restart(&mut self, host: HostId) -> bool {
        let free = self.sim.host_at(self.sim.addr(host)).is_none();
        if free {
            self.leaving.remove(&host);
            self.sim.restart(host);
        }
        free
    }

    fn move_away(&mut self, host: HostId) -> bool {
        if host.index() == 0 || self.moves == u8::MAX {
            return false;
        }
        self.moves += 1;
        self.leaving.remove(&host);
        let addr = SocketAddr::from(([10, 200, 0, self.moves], 7946));
        self.sim.restart_at(host, addr);
        true
    }

    /// A node of another name starts where one was.
    fn take_over(&mut self, host: HostId, dice: &Dice) -> bool {
        let addr = self.sim.addr(host);
        let taken = self.sim.host_at(addr).is_some();
        if host.index() == 0 || taken || self.hosts.len() >= 48 {
            return false;
        }
        let spec = HostSpec::new(&format!("n{}", self.hosts.len())).addr(addr).seeds(seeds());
        let spec = spec.scope(SCOPES[dice.scope], [dice.role]);
        let host = self.sim.start(spec);
        self.hosts.push(host);
        true
    }

    fn cut(&mut self, kind: &str, host: HostId, dice: &Dice) {
        let mut all: Vec<SocketAddr> = self.hosts.iter().map(|it| self.sim.addr(*it)).collect();
        let (addr, len) = (self.sim.addr(host), all.len());
        all.rotate_left(dice.other % len);
        let right = all.split_off(dice.host % len);
        let halves = Partition::between(all, right);
        let one_way = match dice.role % 3 {
            0 => Partition::towards(addr),
            1 => Partition::away_from(addr),
            _ => Partition { both_ways: false, ..halves.clone() },
        };
        let partial = if dice.coin < 0.3 { 0.3 + 0.7 * dice.share } else { 1.0 };
        let partition = match kind {
            "one-way partition" => one_way,
            "partition" if dice.coin < 0.6 => halves,
            "partition" => Partition::around(addr),
            _ => {
                let bad = self.pace.mul_f64(0.1 + 3.0 * dice.share);
                let good = self.pace.mul_f64(0.1 + 3.0 * dice.coin);
                let flapping = Some(Flapping { bad, good, from: self.sim.now() });
                let steady = if dice.role < 3 { one_way } else { halves };
                Partition { flapping, ..steady }
            }
        };
        self.sim.partition(Partition { loss: partial, ..partition });
    }

    fn change_network(&mut self, kind: &str, host: HostId, dice: &Dice) {
        let mut faults = self.sim.network().faults().clone();
        match kind {
            "other network" => faults = self.draw_network(dice.network),
            "small mtu" => faults.mtu = Some(400 + dice.count as usize * 3),
            "slow uplink" => {
                let bytes_per_second = 1_000 + u64::from(dice.count) * 50;
                let uplink = Uplink { bytes_per_second, queue_bytes: 6 << 10 };
                let addr = self.sim.addr(host);
                self.sim.network_mut().set_uplink(addr, Some(uplink));
            }
            _ => faults = Faults::default(),
        }
        self.sim.set_faults(faults);
    }

    /// A network from dice of its own.
    fn draw_network(&mut self, seed: u64) -> Faults {
        let faults = faults::draw(&mut ChaCha8Rng::seed_from_u64(seed));
        let latency = match faults.latency {
            Latency::Fixed(_) => "fixed latency",
            Latency::Uniform { .. } => "uniform latency",
            Latency::LogNormal { .. } => "log-normal latency",
            Latency::TwoZones { .. } => "two zones",
        };
        *self.faults.entry(latency).or_default() += 1;
        if matches!(faults.loss, Loss::Bursts { .. }) {
            *self.faults.entry("bursts of loss").or_default() += 1;
        }
        faults
    }

    /// A user does something; false when the node refuses or nothing changes.
    fn command(&mut self, kind: &str, host: HostId, dice: &Dice) -> bool {
        let scope = ScopeName::new(SCOPES[dice.scope]).expect("it is a good name");
        let command = match kind {
            "add role" => Command::AddRoles { scope, roles: vec![dice.role.into()] },
            "remove role" => Command::RemoveRoles { scope, roles: vec![dice.role.into()] },
            "add many roles" => Command::AddRoles { scope, roles: dice.roles() },
            "remove many roles" => Command::RemoveRoles { scope, roles: dice.roles() },
            "join scope" => Command::JoinScope(scope),
            "leave scope" => Command::LeaveScope(scope),
            "new metadata" => {
                let len = dice.other % MAX_META_BYTES;
                let byte = u8::try_from(dice.count % 256).expect("it is less");
                Command::SetMeta(vec![byte; len].into())
            }
            "reconfigure" => {
                let config = draw_config(&mut ChaCha8Rng::seed_from_u64(dice.network));
                Command::Reconfigure(Box::new(config))
            }
            _ => {
                let node = self.sim.node(host).expect("it runs");
                let generation = node.generation(&scope, node.local().id());
                Command::Deliver { token: 1, scope, generation }
            }
        };
        self.sim.command(host, command).is_ok()
    }

    /// Everything that was done to the network and to hosts is over; who is down stays down, but
    /// for the first seed if no other is up: without any, who is alone stays alone.
    fn calm(&mut self) {
        self.sim.set_faults(Faults::default());
        self.sim.heal_all();
        for host in self.hosts.clone() {
            let addr = self.sim.addr(host);
            self.sim.network_mut().set_uplink(addr, None);
            self.sim.set_drift(host, 0);
            self.sim.resume(host);
        }
        let stays = |seed| self.sim.host_at(seed).is_some_and(|it| !self.leaving.contains(&it));
        if !seeds().any(stays) {
            self.sim.crash(self.hosts[0]);
            self.sim.restart(self.hosts[0]);
        }
        tracing::info!(at = ?self.sim.now(), "calm");
    }

    fn exercised(mut self) -> Exercised {
        let carried = self.sim.network().carried();
        for (kind, count) in [
            ("datagrams lost", carried.lost),
            ("datagrams cut", carried.cut),
            ("datagrams duplicated", carried.duplicated),
            ("datagrams reordered", carried.reordered),
            ("datagrams corrupted", carried.corrupted),
            ("datagrams over the mtu", carried.too_large),
            ("uplink queue full", carried.queue_full),
            ("socket buffer full", self.sim.overflowed()),
        ] {
            self.faults.insert(kind, count);
        }
        let checks = self.sim.checks().expect("it is checked");
        let longest = checks.convergence.longest().as_millis();
        let lasted = self.sim.now() - Instant::ORIGIN;
        Exercised {
            checks: checks.exercised(),
            slowest_calm_ms: u64::try_from(longest).unwrap_or(u64::MAX),
            tightest_calm_percent: checks.convergence.tightest_percent(),
            virtual_ms: u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
            faults: self.faults,
        }
    }
}

/// The addresses that every node asks to let it in.
fn seeds() -> impl Iterator<Item = SocketAddr> {
    (0..SEEDS).map(Simulation::nth_addr)
}

/// One of a list, by weight.
fn pick(list: &[(&'static str, u32)], die: u32) -> &'static str {
    let total: u32 = list.iter().map(|(_, weight)| weight).sum();
    let mut left = die % total;
    for (kind, weight) in list {
        if left < *weight {
            return kind;
        }
        left -= weight;
    }
    unreachable!("the weights add up to the total")
}

/// A preset, and sometimes other values.
fn draw_config(rng: &mut ChaCha8Rng) -> Config {
    let preset = rng.random_range(0..20);
    let preset = match preset {
        0..9 => Config::local(),
        9..18 => Config::lan(),
        _ => Config::wan(),
    };
    let varied = Config {
        gossip_fanout: rng.random_range(1..6),
        retransmit_mult: rng.random_range(1..6),
        pause_tolerance: Duration::from_millis(rng.random_range(200..2500)),
        pull_interval: Duration::from_millis(rng.random_range(500..10_000)),
        pull_timeout: Duration::from_millis(rng.random_range(1000..6000)),
        dead_retention: Duration::from_secs(rng.random_range(120..3600)),
        ..preset.clone()
    };
    let (is_varied, is_small) = (rng.random_bool(0.5), rng.random_bool(0.2));
    let mut config = if is_varied { varied } else { preset };
    config.receive_buffer_bytes = rng.random_range(8 << 10..32 << 10);
    if is_small {
        config.max_datagram_bytes = 512;
    }
    config
}
