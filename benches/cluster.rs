//! Whole clusters on the virtual network of the tests (0.5 to 1.5 ms one way, no loss, `lan`): how
//! long a change and a crash take to be known by all, and what an idle node sends.
//!
//! `cargo bench --bench cluster -- 64 256 1000`

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "small numbers, for a person to read"
)]

#[path = "../tests/support/net.rs"]
mod net;

use std::time::{Duration, Instant as Clock};

use net::{Net, addr};
use rolecall::Config;

const SECOND: Duration = Duration::from_secs(1);
const CHANGES: u16 = 10;
const CRASHES: u16 = 5;

fn main() {
    let sizes = std::env::args().skip(1).filter_map(|text| text.parse().ok());
    let mut sizes: Vec<u16> = sizes.collect();
    if sizes.is_empty() {
        sizes = vec![64, 256];
    }
    for nodes in sizes {
        measure(nodes);
    }
}

fn sent(net: &Net) -> (u64, u64) {
    net.hosts.values().fold((0, 0), |(datagrams, bytes), host| {
        let stats = host.node.stats();
        (datagrams + stats.datagrams_out, bytes + stats.bytes_out)
    })
}

fn measure(nodes: u16) {
    let wall = Clock::now();
    let mut net = Net::new(1, Config::lan());
    for n in 0..nodes {
        net.start(&format!("n{n}"), addr(n), &[addr(0), addr(1), addr(2)]);
        net.run(Duration::from_millis(1));
    }
    let formed = until(&mut net, SECOND / 5, |net| usize::from(net.agrees()), 1);
    println!("{nodes} nodes, started 1 ms apart: all agree {formed:.1?} after the last start");

    net.run(10 * SECOND);
    let before = sent(&net);
    net.run(20 * SECOND);
    let after = sent(&net);
    let per_node = |total: u64| total as f64 / f64::from(nodes);
    let (datagrams, idle) = (after.0 - before.0, per_node(after.1 - before.1) / 20.0);
    println!(
        "  idle: {:.2} datagrams, {idle:.1} B per node and second",
        per_node(datagrams) / 20.0
    );

    let mut times = Vec::new();
    let mut bytes = 0.0;
    for n in 0..CHANGES {
        let (start, origin) = (sent(&net).1, addr(n * (nodes / CHANGES)));
        let (role, id, from) = (u64::from(n), net.id(origin), net.now);
        net.add(origin, "default", role);
        let known = |net: &Net| {
            let hosts = net.hosts.values();
            hosts.filter(|host| host.node.roles("default", id).has(role)).count()
        };
        times.push(until(&mut net, SECOND / 1000, known, usize::from(nodes)));
        net.run(5 * SECOND);
        let idle = idle * (net.now - from).as_secs_f64();
        bytes += per_node(sent(&net).1 - start) - idle;
    }
    report("change known to all", times);
    println!("  bytes per node and change, beyond idle: {:.0}", bytes / f64::from(CHANGES));

    let mut times = Vec::new();
    for n in 0..CRASHES {
        let name = net.kill(addr(nodes - 1 - n)).node.local().name().to_string();
        let known = |net: &Net| {
            let hosts = net.hosts.values();
            hosts.filter(|host| host.node.members().iter().all(|it| it.name() != name)).count()
        };
        let all = usize::from(nodes - 1 - n);
        times.push(until(&mut net, SECOND / 20, known, all));
        net.run(10 * SECOND);
    }
    report("crash known to all", times);
    println!("  measured in {:.1?}", wall.elapsed());
}

/// Lets time pass in steps until so many nodes know.
fn until(net: &mut Net, step: Duration, known: impl Fn(&Net) -> usize, all: usize) -> Duration {
    let start = net.now;
    while known(net) < all {
        net.run(step);
        assert!(net.now - start < 300 * SECOND, "it never happens");
    }
    net.now - start
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let (median, max) = (times[times.len() / 2], times[times.len() - 1]);
    println!("  {what}: median {median:.1?}, max {max:.1?} of {}", times.len());
}
