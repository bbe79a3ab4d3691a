//! Random weather on the virtual network, then calm: everything must agree with the truth.

#[path = "support/net.rs"]
mod net;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use net::{Net, addr, scope};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rolecall::Config;
use rolecall::proto::Command;

const SECOND: Duration = Duration::from_secs(1);
const SCOPES: [&str; 3] = ["x", "y", "z"];

/// How often each kind of fault really happened, so that a green run cannot be an empty one.
#[derive(Default, Debug)]
struct Exercised(BTreeMap<&'static str, u32>);

impl Exercised {
    fn count(&mut self, fault: &'static str) {
        *self.0.entry(fault).or_default() += 1;
    }
}

struct Weather {
    net: Net,
    rng: ChaCha8Rng,
    nodes: u16,
    /// Where each node runs, while it runs.
    at: BTreeMap<u16, SocketAddr>,
    next_address: u16,
    exercised: Exercised,
}

impl Weather {
    fn new(seed: u64) -> Weather {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let nodes = rng.random_range(3..12);
        let mut config = if rng.random_bool(0.5) { Config::lan() } else { Config::local() };
        if rng.random_bool(0.2) {
            config.max_datagram_bytes = 512;
        }
        let mut weather = Weather {
            net: Net::new(seed, config),
            rng,
            nodes,
            at: BTreeMap::new(),
            next_address: 100,
            exercised: Exercised::default(),
        };
        for n in 0..nodes {
            weather.start(n, addr(n));
        }
        weather.net.run(weather.rng.random_range(0..5) * SECOND);
        weather
    }

    fn start(&mut self, n: u16, at: SocketAddr) {
        let seeds = [addr(0), addr(1), addr(2)];
        self.net.start(&format!("n{n}"), at, &seeds);
        self.at.insert(n, at);
    }

    fn running(&mut self) -> Option<(u16, SocketAddr)> {
        let n = self.rng.random_range(0..self.nodes);
        self.at.get(&n).map(|at| (n, *at))
    }

    fn step(&mut self) {
        self.nobody_lost_its_name();
        let Some((n, at)) = self.running() else {
            // It is down: start it, mostly where it was.
            let n = (0..self.nodes).find(|n| !self.at.contains_key(n)).unwrap();
            let moved = n > 2 && self.rng.random_bool(0.3);
            self.next_address += u16::from(moved);
            let at = if moved { addr(self.next_address) } else { addr(n) };
            if !self.net.hosts.contains_key(&at) {
                self.exercised.count(if moved { "restart elsewhere" } else { "restart" });
                self.start(n, at);
            }
            return;
        };
        let name = SCOPES[self.rng.random_range(0..3)];
        let role = self.rng.random_range(0..6u32);
        let paused = self.net.hosts[&at].paused;
        match self.rng.random_range(0..100) {
            _ if paused => {
                self.exercised.count("resume");
                self.net.resume(at);
            }
            0..30 => self.net.add(at, name, role),
            30..55 => self.net.remove(at, name, role),
            55..62 => {
                let many = (0..self.rng.random_range(1..400)).map(|n| (n + 10).into()).collect();
                self.net.command(at, Command::AddRoles { scope: scope(name), roles: many });
            }
            62..68 => {
                let leave = Command::LeaveScope(scope(name));
                if self.net.node(at).scopes().contains(&scope(name)) {
                    self.exercised.count("leave scope");
                    self.net.command(at, leave);
                }
            }
            68..71 => {
                let len = self.rng.random_range(0..3000);
                self.net.command(at, Command::SetMeta(vec![1; len].into()));
            }
            71..76 => {
                self.exercised.count("crash");
                self.net.kill(at);
                self.at.remove(&n);
            }
            76..78 => {
                self.exercised.count("leave");
                self.net.command(at, Command::Leave);
                self.net.run(SECOND / 5);
                self.net.kill(at);
                self.at.remove(&n);
            }
            78..84 => {
                self.exercised.count("pause");
                self.net.hosts.get_mut(&at).unwrap().paused = true;
            }
            84..88 => {
                self.exercised.count("partition");
                let all: Vec<_> = self.net.hosts.keys().copied().collect();
                let cut = self.rng.random_range(0..=all.len());
                self.net.partition(&all[..cut], &all[cut..]);
            }
            88..92 => {
                self.exercised.count("one-way");
                let other = addr(self.rng.random_range(0..self.nodes));
                self.net.cut.insert((at, other));
            }
            92..97 => self.net.cut.clear(),
            _ => self.net.loss = self.rng.random_range(0.0..0.3),
        }
    }

    /// No two runs of a name were ever alive at the same time, so none may have lost it.
    fn nobody_lost_its_name(&self) {
        for (at, host) in &self.net.hosts {
            assert!(!host.node.is_stopped(), "{} at {at} lost its name", host.node.local());
        }
    }

    fn calm(&mut self) {
        self.net.cut.clear();
        self.net.loss = 0.0;
        let paused: Vec<_> = self.net.hosts.iter().filter(|(_, host)| host.paused).collect();
        let paused: Vec<SocketAddr> = paused.into_iter().map(|(at, _)| *at).collect();
        for at in paused {
            self.net.resume(at);
        }
        self.nobody_lost_its_name();
    }
}

fn live_through(seed: u64) -> Exercised {
    let mut weather = Weather::new(seed);
    for _ in 0..weather.rng.random_range(20..150) {
        weather.step();
        let pause = weather.rng.random_range(0..2_000_000u64);
        weather.net.run(Duration::from_micros(pause * pause / 1_000_000));
    }
    weather.calm();
    let start = weather.net.now;
    while !weather.net.agrees() {
        weather.net.run(SECOND);
        weather.calm();
        if weather.net.now - start > 240 * SECOND {
            for (at, host) in &weather.net.hosts {
                println!("{at} {:?} sees {:?}", host.node.local(), weather.net.names(*at));
                for name in SCOPES {
                    let roles = weather.net.hosts.values().map(|other| {
                        let id = other.node.local().id();
                        let here = host.node.roles(name, id).len();
                        (
                            host.node.generation(name, id).as_u64(),
                            here,
                            other.node.roles(name, id).len(),
                        )
                    });
                    println!("  {name}: {:?}", roles.collect::<Vec<_>>());
                }
            }
            panic!("seed {seed}: no agreement, {:?}", weather.exercised);
        }
    }
    weather.exercised
}

#[test]
fn after_any_weather_all_agree_with_the_truth() {
    let seeds: u64 = std::env::var("WEATHER_SEEDS").map_or(60, |text| text.parse().unwrap());
    let first: u64 = std::env::var("WEATHER_FIRST").map_or(0, |text| text.parse().unwrap());
    let mut total = Exercised::default();
    // Each of these found a defect once.
    for seed in (first..first + seeds).chain([20_024]) {
        println!("seed {seed}");
        for (fault, count) in live_through(seed).0 {
            *total.0.entry(fault).or_default() += count;
        }
    }
    println!("{total:?}");
    if seeds >= 60 {
        for fault in ["crash", "restart", "restart elsewhere", "pause", "partition", "leave scope"]
        {
            assert!(total.0.get(fault).is_some_and(|count| *count > 20), "{fault}: {total:?}");
        }
    }
}
