//! Measures real nodes over loopback, all in this process, and prints a table.
//!
//! ```text
//! cargo run --release --example figures                # all sections, with Config::lan()
//! cargo run --release --example figures -- --local     # with Config::local()
//! cargo run --release --example figures -- join role   # some of: memory join role lost hostile
//! ```
//!
//! - `memory`: resident memory with 1, 5 and 50 nodes; what 50 quiet nodes send.
//! - `join`: from the first start until all see all; from a kill until all have the node-down.
//! - `role`: from a role's change until every other node shows it, and what that took.
//! - `lost`: many quick changes on all nodes; how long until all views are equal.
//! - `hostile`: a million bad datagrams at one of three nodes.
//!
//! The machine is part of every number: say which one, and what else it did.

use std::collections::hash_map::{Entry, HashMap};
use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rolecall::{Cluster, Config, Event, Stats, wire};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What has not happened by then does not happen.
const LIMIT: Duration = Duration::from_mins(2);

const SECTIONS: [&str; 5] = ["memory", "join", "role", "lost", "hostile"];

#[tokio::main]
async fn main() -> Result<()> {
    let (flags, mut chosen): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|arg| arg.starts_with("--"));
    let config = match flags.first().map(String::as_str) {
        None | Some("--lan") => Config::lan(),
        Some("--local") => Config::local(),
        Some(other) => return Err(format!("there are --lan and --local, not {other}").into()),
    };
    if chosen.is_empty() {
        chosen = SECTIONS.map(Into::into).to_vec();
    }
    let cores = std::thread::available_parallelism()?;
    println!("preset {}, {cores} cores\n", flags.first().map_or("--lan", String::as_str));
    for section in &chosen {
        println!("{section}");
        match section.as_str() {
            "memory" => memory(&config).await?,
            "join" => join(&config).await?,
            "role" => role(&config).await?,
            "lost" => lost(&config).await?,
            "hostile" => hostile(&config).await?,
            other => return Err(format!("there are {SECTIONS:?}, not {other}").into()),
        }
        println!();
    }
    Ok(())
}

fn row(what: &str, value: impl std::fmt::Display) {
    println!("  {what:<62} {value:>16}");
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

/// Adds `count` nodes, all at once when there is a first one for them to join.
async fn grow(nodes: &mut Vec<Cluster>, count: usize, config: &Config) -> Result<()> {
    let mut starting = JoinSet::new();
    for _ in 0..count {
        let name = format!("n{:02}", nodes.len() + starting.len());
        let mut builder = Cluster::builder(name).bind("127.0.0.1:0").role("member");
        builder = builder.config(config.clone());
        match nodes.first() {
            None => nodes.push(builder.start().await?),
            Some(first) => {
                let seed = first.local_addr().to_string();
                starting.spawn(builder.seed(seed).start());
            }
        }
    }
    while let Some(started) = starting.join_next().await {
        nodes.push(started??);
    }
    Ok(())
}

/// Whether every node sees every node and its role.
fn all_see_all(nodes: &[Cluster]) -> bool {
    let count = nodes.len();
    nodes
        .iter()
        .all(|node| node.members().len() == count && node.with_nodes("member", <[_]>::len) == count)
}

async fn until(what: &str, mut so: impl FnMut() -> bool) -> Result<Instant> {
    let deadline = Instant::now() + LIMIT;
    while !so() {
        if Instant::now() > deadline {
            return Err(format!("never so: {what}").into());
        }
        sleep(Duration::from_millis(1)).await;
    }
    Ok(Instant::now())
}

async fn join(config: &Config) -> Result<()> {
    for count in [5, 50] {
        let mut nodes = Vec::new();
        let start = Instant::now();
        grow(&mut nodes, count, config).await?;
        let converged = until("all see all", || all_see_all(&nodes)).await?;
        row(&format!("{count} nodes: first start to all see all"), ms(converged - start));
        kill_one(&mut nodes, config).await?;
    }
    Ok(())
}

async fn kill_one(nodes: &mut Vec<Cluster>, config: &Config) -> Result<()> {
    // What was joined a moment ago is still being told: a kill in a quiet cluster is meant.
    sleep(config.probe_interval * 5).await;
    let count = nodes.len();
    let victim = nodes.swap_remove(count / 2);
    let name = victim.local_node().name().to_string();
    let mut watching = JoinSet::new();
    for node in nodes.iter() {
        let (mut events, name) = (node.events(), name.clone());
        watching.spawn(async move {
            while let Some(event) = events.next().await {
                if matches!(&event, Event::NodeDown { node, .. } if node.name() == name) {
                    return Some(Instant::now());
                }
            }
            None
        });
    }
    let killed = Instant::now();
    drop(victim);
    let seen = timeout(LIMIT, watching.join_all()).await?;
    let mut times: Vec<_> = seen.into_iter().flatten().map(|at| at - killed).collect();
    times.sort_unstable();
    let (first, last) = (times[0], times[times.len() - 1]);
    row(&format!("{count} nodes: kill to node-down on the first"), ms(first));
    row(&format!("{count} nodes: kill to node-down on all {}", times.len()), ms(last));
    let others = nodes.iter().all(|node| node.members().len() == count - 1);
    row(&format!("{count} nodes: nobody else was declared down"), others);
    Ok(())
}

async fn role(config: &Config) -> Result<()> {
    const COUNT: usize = 50;
    const TRIES: usize = 100;
    let mut nodes = Vec::new();
    grow(&mut nodes, COUNT, config).await?;
    until("all see all", || all_see_all(&nodes)).await?;
    sleep(config.pull_interval).await;
    let (mut each, mut all) = (Vec::new(), Vec::new());
    let before = hops(&nodes);
    for n in 0..TRIES {
        let origin = n % COUNT;
        let mut watching = JoinSet::new();
        for (index, node) in nodes.iter().enumerate() {
            let scope = node.default_scope();
            if index != origin {
                watching.spawn(async move {
                    scope.wait_for(("try", n), 1).await;
                    Instant::now()
                });
            }
        }
        // The watchers are at their posts.
        sleep(Duration::from_millis(20)).await;
        let changed = Instant::now();
        nodes[origin].add_role(("try", n))?;
        let seen = timeout(LIMIT, watching.join_all()).await?;
        each.extend(seen.iter().map(|at| *at - changed));
        all.extend(seen.iter().max().map(|at| *at - changed));
        // Each try is alone: no other change gives it a lift.
        sleep(config.gossip_interval * 2).await;
    }
    for (what, mut times) in [("on one other node", each), ("on all 49 others", all)] {
        times.sort_unstable();
        let what = format!("50 nodes: role change to visible {what}");
        row(&format!("{what}, median"), ms(times[times.len() / 2]));
        row(&format!("{what}, p99"), ms(times[(times.len() - 1) * 99 / 100]));
        row(&format!("{what}, maximum"), ms(times[times.len() - 1]));
    }
    for ((what, before), (_, after)) in before.into_iter().zip(hops(&nodes)) {
        row(&format!("50 nodes, 100 changes: {what}"), after - before);
    }
    Ok(())
}

/// What the fast path has done so far, on all nodes together.
fn hops(nodes: &[Cluster]) -> [(&'static str, u64); 4] {
    let stats: Vec<Stats> = nodes.iter().map(Cluster::stats).collect();
    let sum = |count: fn(&Stats) -> u64| stats.iter().map(count).sum();
    [
        ("hops", sum(|stats| stats.hops)),
        ("hops repeated", sum(|stats| stats.hops_repeated)),
        ("hops given up", sum(|stats| stats.hops_given_up)),
        ("hops left to gossip for want of budget", sum(|stats| stats.hops_over_budget)),
    ]
}

async fn lost(config: &Config) -> Result<()> {
    const CHANGES: u32 = 1000;
    let mut nodes = Vec::new();
    grow(&mut nodes, 10, config).await?;
    until("all see all", || all_see_all(&nodes)).await?;
    let start = Instant::now();
    let mut changing = JoinSet::new();
    for (index, node) in nodes.iter().cloned().enumerate() {
        changing.spawn_blocking(move || {
            let mut rng = SmallRng::seed_from_u64(index as u64);
            for _ in 0..CHANGES {
                let role = ("r", rng.random_range(0..100_u32));
                // A role that is there goes, one that is not comes: every call changes something.
                let is_there = node.my_roles().has(role);
                let change = if is_there { node.remove_role(role) } else { node.add_role(role) };
                change.expect("roles this small are allowed");
            }
        });
    }
    changing.join_all().await;
    let last = Instant::now();
    let equal = until("all views are equal", || views_are_equal(&nodes)).await?;
    row("10 nodes, 1,000 changes each: the changes took", ms(last - start));
    row("10 nodes: last change to all views equal", ms(equal - last));
    sleep(config.pull_interval).await;
    row("10 nodes: all views equal, a pull interval later", views_are_equal(&nodes));
    let generations = nodes.iter().map(|node| node.default_scope().generation().as_u64());
    row("10 nodes: generations in all", generations.sum::<u64>());
    let stats = nodes.iter().map(Cluster::stats);
    row("10 nodes: gaps, each filled by asking", stats.map(|stats| stats.gaps).sum::<u64>());
    Ok(())
}

/// Whether everybody knows of everybody what that one knows of itself.
fn views_are_equal(nodes: &[Cluster]) -> bool {
    nodes.iter().all(|owner| {
        let (local, truth) = (owner.local_node(), owner.my_roles());
        nodes.iter().all(|node| node.roles(local.name()) == truth)
    })
}

async fn memory(config: &Config) -> Result<()> {
    const QUIET: Duration = Duration::from_secs(20);
    let before = resident_kib()?;
    row("resident before any node", format!("{before} KiB"));
    let mut nodes = Vec::new();
    for count in [1, 5, 50] {
        let more = count - nodes.len();
        grow(&mut nodes, more, config).await?;
        until("all see all", || all_see_all(&nodes)).await?;
        sleep(config.pull_interval).await;
        let now = resident_kib()?;
        row(&format!("resident with {count} nodes"), format!("{now} KiB"));
        let each = (now - before) / count;
        row(&format!("resident per node, of {count}"), format!("{each} KiB"));
    }
    let sum = |nodes: &[Cluster]| {
        let each = nodes.iter().map(Cluster::stats);
        each.fold((0, 0), |sum, stats| (sum.0 + stats.datagrams_out, sum.1 + stats.bytes_out))
    };
    let (datagrams, bytes) = sum(&nodes);
    sleep(QUIET).await;
    let (more_datagrams, more_bytes) = sum(&nodes);
    for (what, more) in [("datagrams", more_datagrams - datagrams), ("bytes", more_bytes - bytes)] {
        let rate = per_second(more, QUIET) / f64::from(u32::try_from(nodes.len())?);
        row(&format!("50 quiet nodes: {what} out per node per second"), format!("{rate:.1}"));
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// `VmRSS` of this process.
fn resident_kib() -> Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.ok_or("no VmRSS in /proc/self/status")?.trim().parse()?)
}

/// Stands between a node and its peers, who know its address only, and keeps what passes by.
struct Tap {
    outside: UdpSocket,
    inside: Mutex<Option<SocketAddr>>,
    seen: Mutex<Vec<Vec<u8>>>,
}

impl Tap {
    async fn run(self: Arc<Tap>) {
        let mut lines: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        let mut buffer = vec![0; 65_536];
        while let Ok((len, from)) = self.outside.recv_from(&mut buffer).await {
            let Some(inside) = *self.inside.lock().expect("nobody panics with it") else {
                continue;
            };
            self.keep(&buffer[..len]);
            let line = match lines.entry(from) {
                Entry::Occupied(line) => line.into_mut(),
                Entry::Vacant(place) => {
                    let Ok(line) = UdpSocket::bind("127.0.0.1:0").await.map(Arc::new) else {
                        return;
                    };
                    tokio::spawn(self.clone().back(line.clone(), from));
                    place.insert(line)
                }
            };
            let _ = line.send_to(&buffer[..len], inside).await;
        }
    }

    /// The way back to one peer.
    async fn back(self: Arc<Tap>, line: Arc<UdpSocket>, peer: SocketAddr) {
        let mut buffer = vec![0; 65_536];
        while let Ok(len) = line.recv(&mut buffer).await {
            self.keep(&buffer[..len]);
            let _ = self.outside.send_to(&buffer[..len], peer).await;
        }
    }

    fn keep(&self, datagram: &[u8]) {
        self.seen.lock().expect("nobody panics with it").push(datagram.to_vec());
    }
}

/// Real datagrams of a cluster that is joined, changed and asked for a while, and the cluster.
async fn tapped(config: &Config) -> Result<(Vec<Cluster>, Vec<Vec<u8>>)> {
    let outside = UdpSocket::bind("127.0.0.1:0").await?;
    let advertised = outside.local_addr()?.to_string();
    let tap = Arc::new(Tap { outside, inside: Mutex::default(), seen: Mutex::default() });
    tokio::spawn(tap.clone().run());
    let mut builder = Cluster::builder("n00").bind("127.0.0.1:0").advertise(&advertised);
    builder = builder.role("member").meta("http=:80").config(config.clone());
    let mut nodes = vec![builder.start().await?];
    *tap.inside.lock().expect("nobody panics with it") = Some(nodes[0].local_addr());
    for name in ["n01", "n02"] {
        let mut builder = Cluster::builder(name).bind("127.0.0.1:0").seed(&advertised);
        builder = builder.role("member").config(config.clone());
        nodes.push(builder.start().await?);
    }
    until("all see all", || all_see_all(&nodes)).await?;
    for round in 0..40_u32 {
        let node = &nodes[round as usize % 3];
        node.scope("jobs").add_role(("shard", round))?;
        node.add_role(format!("role {round}"))?;
        node.set_meta(format!("round {round}"))?;
        node.scope("jobs").delivered(node.scope("jobs").generation()).await;
    }
    let passing = Cluster::builder("n03").bind("127.0.0.1:0").seed(&advertised);
    passing.config(config.clone()).start().await?.leave().await?;
    sleep(config.pull_interval).await;
    let seen = std::mem::take(&mut *tap.seen.lock().expect("nobody panics with it"));
    Ok((nodes, seen))
}

/// One bad datagram: noise, noise behind a true header, a real one cut short, or with flipped bits.
fn bad_datagram(rng: &mut SmallRng, real: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = real[rng.random_range(0..real.len())].clone();
    match rng.random_range(0..6_u32) {
        kind @ (0 | 1) => {
            let header = if kind == 0 { 0 } else { wire::HEADER_BYTES };
            bytes.truncate(header);
            let len = rng.random_range(0..1400_usize);
            bytes.extend((0..len).map(|_| rng.random::<u8>()));
        }
        2 | 3 => bytes.truncate(rng.random_range(0..bytes.len())),
        _ => {
            for _ in 0..rng.random_range(1..=8_u32) {
                let bit = rng.random_range(0..bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
    bytes
}

async fn hostile(config: &Config) -> Result<()> {
    let (nodes, real) = tapped(config).await?;
    row("real datagrams to make bad ones of", real.len());
    let victim = &nodes[1];
    let mut events = victim.events();
    let before = resident_kib()?;
    attack(victim, &real).await?;
    row("resident before", format!("{before} KiB"));
    row("resident after", format!("{} KiB", resident_kib()?));
    println!("  dropped: {:?}", victim.stats().dropped);
    let mut downs = Vec::new();
    while let Ok(Some(event)) = timeout(Duration::from_millis(1), events.next()).await {
        if let Event::NodeDown { node, reason } = event {
            downs.push(format!("{node:?} {reason}"));
        }
    }
    row("node-downs seen by the node meanwhile", downs.len());
    downs.iter().take(5).for_each(|down| println!("    {down}"));
    let attack_over = Instant::now();
    victim.add_role("still here")?;
    let healed = until("the cluster is as it was", || {
        all_see_all(&nodes) && views_are_equal(&nodes) && nodes[0].nodes("still here").len() == 1
    });
    match healed.await {
        Ok(at) => row("attack's end to all views equal, with a new role", ms(at - attack_over)),
        Err(error) => {
            row("attack's end to all views equal", error);
            for node in &nodes {
                println!("    {:?} {:?}", node.members(), node.roles("n01"));
            }
        }
    }
    sleep(config.pull_interval).await;
    row("all views equal, a pull interval later", all_see_all(&nodes) && views_are_equal(&nodes));
    Ok(())
}

/// A million bad datagrams at one node, as quickly as it takes them in.
async fn attack(victim: &Cluster, real: &[Vec<u8>]) -> Result<()> {
    const DATAGRAMS: u64 = 1_000_000;
    /// As many as surely fit the socket's buffer: all are to reach the node.
    const BURST: u64 = 64;
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(victim.local_addr()).await?;
    let mut rng = SmallRng::seed_from_u64(7);
    let (start, in_before) = (Instant::now(), victim.stats().datagrams_in);
    let arrived = || victim.stats().datagrams_in - in_before;
    let (mut sent, mut most_members) = (0, 0);
    while sent < DATAGRAMS {
        for _ in 0..BURST {
            socket.send(&bad_datagram(&mut rng, real)).await?;
        }
        sent += BURST;
        let soon = Instant::now() + Duration::from_millis(50);
        while arrived() < sent && Instant::now() < soon {
            tokio::task::yield_now().await;
        }
        most_members = most_members.max(victim.members().len());
        if start.elapsed() > LIMIT * 5 {
            return Err("the node does not take datagrams any more".into());
        }
    }
    row("bad datagrams sent", sent);
    row("datagrams that the node took in meanwhile", arrived());
    let rate = per_second(sent, start.elapsed());
    row("bad datagrams per second (made, sent, handled)", format!("{rate:.0}"));
    row("most members at any moment, of 3", most_members);
    Ok(())
}
