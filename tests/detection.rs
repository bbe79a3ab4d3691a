//! The failure detector on real sockets: processes in network namespaces, one each, joined by a
//! bridge. Who dies or is cut off is down everywhere, and nobody else is.
//!
//! ```text
//! cargo test --test detection              # some nodes and rounds
//! DETECTION=full cargo test --release --test detection -- --nocapture --test-threads 1
//! ```
//!
//! The second takes a quarter of an hour and prints how quick it was: from what was done to a host
//! until the last of the others had told of it, as read here. Nothing here asserts times.
//!
//! Needs root, `ip` (iproute2) and `nft` (nftables); where it cannot have them it says so and does
//! nothing else.

#![cfg(target_os = "linux")]
#![allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

#[path = "support/network.rs"]
mod network;
#[path = "support/process.rs"]
mod support;

use network::{Host, Network};
use support::{Process, eventually, node_binary, text};

const LOSS_PERCENT: u32 = 20;
/// Tethers of a node, unless the test has none.
const TETHERS: usize = 2;

/// Tethers that do not hold by then are not waited for.
const TETHERED_BY_THEN: Duration = Duration::from_secs(20);

/// A process that should have stood still for a second and did so for longer than this shows
/// nothing.
const STOPPED_AT_MOST: Duration = Duration::from_millis(1030);
/// What spreads of a node that stood still has spread by then.
const AFTERMATH: Duration = Duration::from_millis(300);

/// How much is done.
struct Scale {
    nodes: usize,
    kills: usize,
    kills_without_tethers: usize,
    cuts: usize,
    stops: usize,
    stopped: Duration,
    quiet: Duration,
    loss: Duration,
}

impl Scale {
    /// In a run of all tests the machine is busy: a process that is to stand still for as long as
    /// is tolerated would stand still for longer.
    const SHORT: Scale = Scale {
        nodes: 8,
        kills: 1,
        kills_without_tethers: 1,
        cuts: 2,
        stops: 5,
        stopped: Duration::from_millis(800),
        quiet: Duration::from_secs(1),
        loss: Duration::from_secs(6),
    };

    const FULL: Scale = Scale {
        nodes: 30,
        kills: 40,
        kills_without_tethers: 20,
        cuts: 12,
        stops: 100,
        stopped: Duration::from_secs(1),
        quiet: Duration::from_secs(60),
        loss: Duration::from_secs(300),
    };

    fn of_this_run() -> Scale {
        if std::env::var("DETECTION").is_ok_and(|it| it == "full") {
            Scale::FULL
        } else {
            Scale::SHORT
        }
    }
}

/// One test at a time: they would disturb each other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nodes, each on a host of its own.
struct Fleet {
    nodes: Vec<Process>,
    /// The run of each.
    ids: Vec<String>,
    /// Of each node to others, and of others to it on average.
    tethers: usize,
    config: PathBuf,
    hosts: Vec<Host>,
    network: Network,
    rng: ChaCha8Rng,
    _alone: MutexGuard<'static, ()>,
}

impl Fleet {
    /// All know all. Nothing, where there can be no network.
    fn start(test: &str, nodes: usize, tethers: usize) -> Option<Fleet> {
        let alone = alone();
        let mut network = Network::new(test)?;
        let hosts: Vec<Host> = (0..nodes).map(|number| network.add_host(number)).collect();
        let config = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("detection-{}-{test}.toml", std::process::id()));
        std::fs::write(&config, format!("tethers = {tethers}\n")).expect("a file can be written");
        let mut fleet = Fleet {
            nodes: Vec::new(),
            ids: Vec::new(),
            tethers,
            config,
            hosts,
            network,
            rng: ChaCha8Rng::seed_from_u64(1),
            _alone: alone,
        };
        for number in 0..nodes {
            let (node, id) = fleet.start_node(number);
            fleet.nodes.push(node);
            fleet.ids.push(id);
        }
        fleet.wait_until_all_know_all();
        Some(fleet)
    }

    /// A node on its host, with two others as seeds, and the id of its run.
    fn start_node(&self, number: usize) -> (Process, String) {
        let mut command = self.hosts[number].command(node_binary());
        command.args(["--preset", "lan", "--config"]).arg(&self.config);
        command.args(["--bind", &format!("{}:7946", self.hosts[number].address)]);
        for seed in self.hosts.iter().enumerate().filter(|(it, _)| *it != number).take(2) {
            command.args(["--seed", &format!("{}:7946", seed.1.address)]);
        }
        let mut node = Process::start(&format!("n{number:02}"), command);
        let id = text(&node.ready()["id"]);
        (node, id)
    }

    fn restart(&mut self, number: usize) {
        (self.nodes[number], self.ids[number]) = self.start_node(number);
    }

    /// Waits until all know the runs of all.
    fn wait_until_all_know_all(&mut self) {
        let Fleet { nodes, ids, .. } = self;
        eventually("all know all", || {
            nodes.iter_mut().all(|node| {
                let answer = node.ask("members");
                let members = answer["members"].as_array().expect("a list").iter();
                members.map(|it| text(&it["id"])).eq(ids.iter().cloned())
            })
        });
    }

    /// Waits until all hold their tethers, but not for ever: one that was refused, because who
    /// dialled was not known yet, is tried again after 5 s, then 10 s, and so on.
    fn wait_for_tethers(&mut self) {
        let deadline = Instant::now() + TETHERED_BY_THEN;
        let wanted = self.nodes.len() * self.tethers;
        while self.sum("tethers_out") != wanted || self.sum("tethers_in") != wanted {
            if Instant::now() >= deadline {
                return println!("some tethers do not hold yet");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Who is next, after up to a round of probes.
    fn draw(&mut self) -> usize {
        std::thread::sleep(Duration::from_millis(self.rng.random_range(0..1000)));
        self.rng.random_range(0..self.nodes.len())
    }

    /// What the others tell of a node to which something has been done at that moment.
    fn fall(&mut self, number: usize, at: Instant) -> Fall {
        let id = &self.ids[number];
        let others = self.nodes.iter_mut().enumerate().filter(|(it, _)| *it != number);
        let told = others.map(|(_, node)| {
            let line = node.event(&format!("n{number:02} is down"), |event| {
                event["event"] == "node_down" && event["id"] == **id && event["reason"] == "failed"
            });
            (line.at - at, line.value)
        });
        let mut told: Vec<(Duration, Value)> = told.collect();
        told.sort_by_key(|(time, _)| *time);
        Fall { told }
    }

    /// Nobody has told that anybody is down, those runs apart. Forgets what was told.
    fn nobody_was_down_but(&mut self, fallen: &[&str]) {
        for node in &mut self.nodes {
            node.ask("stats");
            for line in node.events.drain(..) {
                let event = text(&line.value["event"]);
                let is_bad = match event.as_str() {
                    "node_down" => !fallen.contains(&text(&line.value["id"]).as_str()),
                    "lagged" | "name_conflict" => true,
                    _ => false,
                };
                assert!(!is_bad, "{} told {}", node.name, line.value);
            }
        }
    }

    /// The sum over all nodes.
    fn sum(&mut self, key: &str) -> usize {
        self.nodes.iter_mut().map(|node| count(&stats(node), key)).sum()
    }

    /// Prints what a node does in a second, by its counters over some time.
    fn watch(&mut self, what: &str, time: Duration) {
        const RATES: [&str; 4] = ["datagrams_out", "bytes_out", "datagrams_in", "bytes_in"];
        const COUNTS: [&str; 3] = ["suspicions", "verdicts", "refutations"];
        let start = Instant::now();
        let rates_before = RATES.map(|key| self.sum(key));
        let before = COUNTS.map(|key| self.sum(key));
        std::thread::sleep(time);
        let per = start.elapsed().as_secs_f64() * self.nodes.len() as f64;
        let rates = RATES.iter().zip(rates_before);
        let rates = rates
            .map(|(key, before)| format!("{key} {:.1}", (self.sum(key) - before) as f64 / per));
        let rates: Vec<String> = rates.collect();
        let counts = COUNTS.iter().zip(before);
        let counts = counts.map(|(key, before)| format!("{key} {}", self.sum(key) - before));
        let counts: Vec<String> = counts.collect();
        println!(
            "{what}, {:.0?}: per node and second {}; of all {}",
            start.elapsed(),
            rates.join(", "),
            counts.join(", "),
        );
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.config);
    }
}

fn stats(node: &mut Process) -> Value {
    node.ask("stats")["stats"].take()
}

fn count(stats: &Value, key: &str) -> usize {
    let count = stats[key].as_u64().unwrap_or_else(|| panic!("no {key} in {stats}"));
    usize::try_from(count).expect("it fits")
}

/// What others told of a node that is down, the first one first.
struct Fall {
    told: Vec<(Duration, Value)>,
}

impl Fall {
    fn last(&self) -> Duration {
        self.told.last().expect("there are others").0
    }

    fn print(&self, round: usize) {
        let (first, event) = &self.told[0];
        println!(
            "  {round}: {} {:.1} to {:.1} ms, {} {}",
            text(&event["node"]),
            millis(*first),
            millis(self.last()),
            text(&event["detail"]),
            event["witnesses"],
        );
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn print_times(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    // The smallest that so many of a hundred do not exceed.
    let at = |percent: usize| millis(times[(times.len() * percent).div_ceil(100).max(1) - 1]);
    println!(
        "{what}: {} times, median {:.1} ms, 99 % {:.1} ms, max {:.1} ms",
        times.len(),
        at(50),
        at(99),
        at(100),
    );
}

/// Prints how quick it was, and what it was that witnesses saw.
fn print_falls(what: &str, falls: &[Fall]) {
    for (round, fall) in falls.iter().enumerate() {
        fall.print(round + 1);
    }
    print_times(&format!("{what}, told by the last"), falls.iter().map(Fall::last).collect());
    let told = falls.iter().flat_map(|fall| &fall.told);
    print_times(&format!("{what}, told by each"), told.clone().map(|it| it.0).collect());
    let mut verdicts: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    for (_, event) in told {
        let witnesses = event["witnesses"].as_array().expect("a list").iter();
        let mut saw: Vec<String> = witnesses.map(|it| text(&it["saw"])).collect();
        saw.sort();
        saw.dedup();
        *verdicts.entry(saw).or_default() += 1;
    }
    let all: usize = verdicts.values().sum();
    for (saw, times) in verdicts {
        let part = 100.0 * times as f64 / all as f64;
        println!("{what}, witnesses saw {}: {part:.1} % of {all}", saw.join(" and "));
    }
}

/// Kills a process, waits until all know of it, starts it again, waits until all know that.
fn kill_some(fleet: &mut Fleet, rounds: usize) -> Vec<Fall> {
    let round = |_| {
        fleet.wait_for_tethers();
        let number = fleet.draw();
        let at = Instant::now();
        fleet.nodes[number].child.0.kill().expect("it runs");
        let fall = fleet.fall(number, at);
        let killed = fleet.ids[number].clone();
        fleet.restart(number);
        fleet.wait_until_all_know_all();
        fleet.nobody_was_down_but(&[&killed]);
        fall
    };
    (0..rounds).map(round).collect()
}

#[test]
fn a_process_that_is_killed_is_down_everywhere() {
    let scale = Scale::of_this_run();
    let Some(mut fleet) = Fleet::start("kill", scale.nodes, TETHERS) else { return };
    let falls = kill_some(&mut fleet, scale.kills);
    print_falls("killed", &falls);
}

#[test]
fn a_process_that_is_killed_is_down_everywhere_without_tethers_too() {
    let scale = Scale::of_this_run();
    let Some(mut fleet) = Fleet::start("untied", scale.nodes, 0) else { return };
    let falls = kill_some(&mut fleet, scale.kills_without_tethers);
    print_falls("killed, no tethers", &falls);
}

/// Whoever was down for a moment is back at once, but not the second time: each has one turn.
#[test]
fn a_host_that_is_cut_off_is_down_until_it_is_plugged_in() {
    let scale = Scale::of_this_run();
    let Some(mut fleet) = Fleet::start("cut", scale.nodes, TETHERS) else { return };
    let (mut falls, mut returns) = (Vec::new(), Vec::new());
    let first = fleet.draw();
    for round in 0..scale.cuts {
        let _ = fleet.draw();
        let number = (first + round) % scale.nodes;
        let at = Instant::now();
        fleet.network.unplug(&fleet.hosts[number]);
        falls.push(fleet.fall(number, at));
        // In every second round it has time to believe that all others are down.
        if round % 2 == 1 {
            std::thread::sleep(Duration::from_secs(4));
        }
        let at = Instant::now();
        fleet.network.plug_in(&fleet.hosts[number]);
        fleet.wait_until_all_know_all();
        returns.push(at.elapsed());
        let others_were_down = fleet.nodes[number].events.clone();
        fleet.nodes[number].events.clear();
        fleet.nobody_was_down_but(&[&fleet.ids[number].clone()]);
        let of_others = |line: &&support::Line| line.value["event"] == "node_down";
        println!(
            "  {}: back after {:.1?}; it told that {} are down",
            round + 1,
            returns[round],
            others_were_down.iter().filter(of_others).count(),
        );
    }
    print_falls("cut off", &falls);
    print_times("plugged in, all know all", returns);
}

#[test]
fn a_process_that_stands_still_for_as_long_as_is_tolerated_is_not_down() {
    let scale = Scale::of_this_run();
    let Some(mut fleet) = Fleet::start("stop", scale.nodes, TETHERS) else { return };
    let (mut times, mut silences, mut too_long) = (Vec::new(), Vec::new(), 0);
    while times.len() < scale.stops {
        let number = fleet.draw();
        let node = &mut fleet.nodes[number];
        let start = Instant::now();
        node.signal("-STOP");
        std::thread::sleep(scale.stopped.saturating_sub(start.elapsed()));
        node.signal("-CONT");
        let stopped = start.elapsed();
        node.ask("scopes");
        silences.push(start.elapsed());
        std::thread::sleep(AFTERMATH);
        if stopped <= STOPPED_AT_MOST {
            times.push(stopped);
            fleet.nobody_was_down_but(&[]);
        } else {
            too_long += 1;
            assert!(
                too_long <= scale.stops,
                "this machine is too busy to stop anybody for a second"
            );
            let id = fleet.ids[number].clone();
            fleet.wait_until_all_know_all();
            fleet.nobody_was_down_but(&[&id]);
        }
    }
    print_times("stopped", times);
    print_times("stopped, until it had answered", silences);
    println!("stopped for longer than {STOPPED_AT_MOST:?} and not counted: {too_long}");
    println!("suspicions: {}", fleet.sum("suspicions"));
}

#[test]
fn nobody_is_down_where_a_fifth_of_all_datagrams_is_lost() {
    let scale = Scale::of_this_run();
    let Some(mut fleet) = Fleet::start("lossy", scale.nodes, TETHERS) else { return };
    fleet.watch("quiet", scale.quiet);
    fleet.network.lose(LOSS_PERCENT);
    fleet.watch(&format!("{LOSS_PERCENT} % loss"), scale.loss);
    fleet.nobody_was_down_but(&[]);
    let (passing, dropped) = fleet.network.counts();
    println!("{dropped} of {passing} datagrams were dropped");
    // There are some hundred in the short form: a fifth of so few can be a tenth.
    assert!(dropped * 20 > passing, "they were to be dropped");
}
