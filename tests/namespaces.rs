//! Real processes in network namespaces, one each, joined by a bridge that drops a tenth of all
//! datagrams: no role is lost, nobody is declared down.
//!
//! ```text
//! cargo test --test namespaces -- --nocapture   # as root; prints how quick it was
//! ```
//!
//! Needs root, `ip` (iproute2) and `nft` (nftables); where it cannot have them it says so and does
//! nothing else.

#![cfg(target_os = "linux")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

#[path = "support/network.rs"]
mod network;
#[path = "support/process.rs"]
mod support;

use network::{Host, Network};
use support::{LIMIT, Process, eventually, node_binary};

const NODES: usize = 12;
const LOSS_PERCENT: u32 = 10;

/// All nodes with their roles.
type Picture = BTreeMap<String, BTreeSet<String>>;

/// A change whose way is watched: no other change is of the same role.
struct Change {
    at: Instant,
    event: &'static str,
    owner: String,
    role: String,
}

/// The processes, and what is true of them.
struct Nodes {
    processes: Vec<Process>,
    /// The roles of each, the oldest first.
    roles: Vec<Vec<String>>,
    /// Those that have the role `flip` too.
    flipped: BTreeSet<usize>,
    changes: usize,
    counted: [u64; 8],
}

impl Nodes {
    /// A node on each host, with the first as everybody's seed.
    fn start(hosts: &[Host]) -> Nodes {
        let start = |(number, host): (usize, &Host)| {
            let mut command = host.command(node_binary());
            command.args(["--preset", "lan", "--role", "first"]);
            command.args(["--bind", &format!("{}:7946", host.address)]);
            if number > 0 {
                command.args(["--seed", &format!("{}:7946", hosts[0].address)]);
            }
            Process::start(&format!("n{number:02}"), command)
        };
        let processes: Vec<Process> = hosts.iter().enumerate().map(start).collect();
        let roles = vec![vec!["first".to_string()]; hosts.len()];
        Nodes { processes, roles, flipped: BTreeSet::new(), changes: 0, counted: [0; 8] }
    }

    /// A node takes a role; with the next change it gives up the oldest that it has.
    fn change(&mut self) -> Change {
        let number = self.changes;
        self.changes += 1;
        let index = number / 2 * 5 % NODES;
        let (word, event, role) = if number.is_multiple_of(2) {
            let role = format!("role-{number}");
            self.roles[index].push(role.clone());
            ("add", "role_added", role)
        } else {
            ("remove", "role_removed", self.roles[index].remove(0))
        };
        let (at, process) = (Instant::now(), &mut self.processes[index]);
        process.tell(&format!("{word} {role}"));
        Change { at, event, owner: process.name.clone(), role }
    }

    /// A node has a role, or has it not, three times: nobody need see what was between.
    fn flip(&mut self) {
        let index = self.changes % NODES;
        let words = if self.flipped.remove(&index) {
            ["remove", "add", "remove"]
        } else {
            self.flipped.insert(index);
            ["add", "remove", "add"]
        };
        for word in words {
            self.processes[index].tell(&format!("{word} flip"));
        }
    }

    /// From a change until all had told of it.
    fn time_to_all(&mut self, change: &Change) -> Duration {
        let Change { at, event, owner, role } = change;
        let what = format!("{event} {owner} {role}");
        let told = self.processes.iter_mut().map(|process| {
            let is_it = |line: &serde_json::Value| {
                line["event"] == *event && line["node"] == **owner && line["role"] == **role
            };
            process.event(&what, is_it).at
        });
        told.max().expect("there are processes") - *at
    }

    /// Makes some changes: a few alone, some at once, and so on. Prints how long they took.
    fn make_changes(&mut self, count: usize, what: &str) {
        let (mut alone, mut at_once) = (Vec::new(), Vec::new());
        for _ in 0..count / 10 {
            for _ in 0..4 {
                let change = self.change();
                alone.push(self.time_to_all(&change));
            }
            let changes: Vec<Change> = (0..6).map(|_| self.change()).collect();
            self.flip();
            at_once.extend(changes.iter().map(|change| self.time_to_all(change)));
        }
        for (how, mut times) in [("alone", alone), ("at once", at_once)] {
            times.sort_unstable();
            let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
            let (median, p99, most) = (at(50), at(99), at(100));
            println!(
                "{what}: {} changes {how}, visible on all {NODES}: \
                 median {median:.1} ms, p99 {p99:.1} ms, max {most:.1} ms",
                times.len(),
            );
        }
        self.all_show_the_truth();
        self.print_counters(what);
    }

    fn truth(&self) -> Picture {
        let owners = self.processes.iter().zip(&self.roles).enumerate();
        let truth = owners.map(|(index, (process, roles))| {
            let flip = self.flipped.contains(&index).then(|| "flip".to_string());
            (process.name.clone(), roles.iter().cloned().chain(flip).collect())
        });
        truth.collect()
    }

    /// Waits until every node shows what is true of every node, nothing more and nothing less.
    fn all_show_the_truth(&mut self) {
        let truth = self.truth();
        let deadline = Instant::now() + LIMIT;
        loop {
            let pictures = self.processes.iter_mut().map(|process| {
                let picture = process.picture("default").into_iter();
                let picture = picture.map(|(node, roles)| (node, roles.into_iter().collect()));
                (process.name.clone(), picture.collect::<Picture>())
            });
            let wrong: Vec<_> = pictures.filter(|(_, picture)| *picture != truth).collect();
            if wrong.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{truth:#?} is true; wrong are {wrong:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Nobody was declared down, and no event was missed.
    fn nobody_was_down(&self) {
        for process in &self.processes {
            let bad = |event: &&str| ["node_down", "lagged", "name_conflict"].contains(event);
            let told = process
                .events
                .iter()
                .filter(|line| line.value["event"].as_str().as_ref().is_some_and(bad));
            let told: Vec<_> = told.map(|line| line.value.to_string()).collect();
            assert!(told.is_empty(), "{} told {told:#?}", process.name);
        }
    }

    /// Prints what all nodes together have counted since this was last done.
    fn print_counters(&mut self, what: &str) {
        const KEYS: [&str; 8] = [
            "hops",
            "hops_repeated",
            "hops_given_up",
            "hops_over_budget",
            "gaps",
            "fetches",
            "suspicions",
            "refutations",
        ];
        let stats: Vec<_> = self.processes.iter_mut().map(|it| it.ask("stats")).collect();
        let sums = KEYS.map(|key| -> u64 {
            stats.iter().map(|it| it["stats"][key].as_u64().expect("a counter")).sum()
        });
        let since = KEYS.iter().zip(&sums).zip(&self.counted);
        let words = since.map(|((key, now), before)| format!("{key} {}", now - before));
        println!("{what}: {}", words.collect::<Vec<_>>().join(", "));
        self.counted = sums;
    }
}

#[test]
fn no_role_is_lost_and_nobody_is_down_where_a_tenth_of_all_datagrams_is_lost() {
    let Some(mut network) = Network::new("loss") else { return };
    network.lose(LOSS_PERCENT);
    let hosts: Vec<Host> = (0..NODES).map(|number| network.add_host(number)).collect();
    let start = Instant::now();
    let mut nodes = Nodes::start(&hosts);
    let names: Vec<String> = nodes.processes.iter().map(|it| it.name.clone()).collect();
    eventually("all know all", || nodes.processes.iter_mut().all(|it| it.members() == names));
    nodes.all_show_the_truth();
    println!("{NODES} nodes: first start to all know all: {:.1?}", start.elapsed());
    nodes.print_counters("first start to all know all");

    nodes.make_changes(100, &format!("{LOSS_PERCENT} % loss"));
    let (passing, dropped) = network.counts();
    println!("{dropped} of {passing} datagrams were dropped");
    assert!(dropped * 20 > passing, "they were to be dropped");

    network.heal();
    nodes.make_changes(40, "no loss");
    nodes.nobody_was_down();
}
