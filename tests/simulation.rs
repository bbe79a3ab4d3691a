//! The simulator itself: same seed, same trace; hosts that crash, pause, stall, move and drift.
#![cfg(feature = "sim")]

use std::ops::ControlFlow;
use std::time::Duration;

use rolecall::proto::Command;
use rolecall::sim::{
    Activity, Faults, Flapping, HostId, HostSpec, Latency, Loss, Partition, Simulation, Uplink,
};
use rolecall::{Config, DownReason, Event, Role, ScopeName};

const SECOND: Duration = Duration::from_secs(1);

fn scope(name: &str) -> ScopeName {
    ScopeName::new(name).unwrap()
}

/// A few nodes that know each other, each in "default" with a role of its own name.
fn cluster(seed: u64, nodes: usize) -> (Simulation, Vec<HostId>) {
    let mut sim = Simulation::new(seed, Config::lan());
    let hosts = (0..nodes).map(|n| {
        let name = format!("n{n}");
        let spec = HostSpec::new(&name).seeds([Simulation::nth_addr(0), Simulation::nth_addr(1)]);
        sim.start(spec.scope("default", [name.as_str()]))
    });
    let hosts = hosts.collect();
    sim.run(3 * SECOND);
    (sim, hosts)
}

fn names(sim: &Simulation, host: HostId) -> String {
    sim.view(host).members().names().join(" ")
}

/// Everything at once, with many scopes: what a trace could differ by.
fn rough_life(seed: u64) -> (u64, u64) {
    let mut sim = Simulation::new(seed, Config::local());
    sim.set_faults(Faults {
        latency: Latency::LogNormal { median: Duration::from_millis(1), sigma: 0.5 },
        loss: Loss::Bursts { well: 0.01, ill: 0.7, fall_ill: 0.02, get_well: 0.2 },
        duplication: 0.05,
        reordering: 0.05,
        corruption: 0.02,
        mtu: Some(1350),
        uplink: Some(Uplink { bytes_per_second: 500_000, queue_bytes: 20_000 }),
        ..Faults::default()
    });
    let hosts: Vec<HostId> = (0..24)
        .map(|n| {
            let mut spec = HostSpec::new(&format!("n{n}")).seeds([Simulation::nth_addr(0)]);
            for s in 0..8 {
                let roles = (0..3).map(|role| i64::from((n * 7 + s * 3 + role) % 11));
                spec = spec.scope(&format!("s{}", (n + s * 3) % 20), roles);
            }
            sim.start(spec)
        })
        .collect();
    sim.run(5 * SECOND);
    sim.crash(hosts[3]);
    sim.pause(hosts[4]);
    sim.stall(hosts[5]);
    sim.set_drift(hosts[6], 500);
    let flapping = Flapping { bad: SECOND, good: SECOND, from: sim.now() };
    let around = Partition::around(sim.addr(hosts[7]));
    sim.partition(Partition { flapping: Some(flapping), ..around });
    for (n, host) in hosts.iter().enumerate().skip(8) {
        let roles = vec![Role::from("late"), Role::from(i64::try_from(n).unwrap())];
        sim.command(*host, Command::AddRoles { scope: scope("s1"), roles }).unwrap();
    }
    sim.run(5 * SECOND);
    sim.restart(hosts[3]);
    sim.resume(hosts[4]);
    sim.resume(hosts[5]);
    sim.leave(hosts[9]);
    sim.run(10 * SECOND);
    (sim.trace_hash(), sim.network().carried().arrived)
}

#[test]
fn same_seed_same_trace() {
    let (first, arrived) = rough_life(7);
    assert_eq!(rough_life(7), (first, arrived));
    assert_ne!(rough_life(8).0, first);
    assert!(arrived > 3000, "{arrived} datagrams");
    // The same in debug and release builds, and on every machine.
    assert_eq!(format!("{first:016x}"), TRACE, "the protocol or the simulator says other things");
}

/// Of `rough_life(7)`; any change of what is said, or when, changes it.
const TRACE: &str = "bbabae1bdc9c6205";

#[test]
fn a_crash_is_silent_and_a_restart_is_a_new_run() {
    let (mut sim, hosts) = cluster(1, 5);
    sim.crash(hosts[4]);
    assert_eq!(sim.activity(hosts[4]), Activity::Down);
    assert!(sim.node(hosts[4]).is_none());
    assert_eq!(names(&sim, hosts[0]), "n0 n1 n2 n3 n4");
    sim.run(40 * SECOND);
    assert_eq!(names(&sim, hosts[0]), "n0 n1 n2 n3");
    sim.restart(hosts[4]);
    sim.run(2 * SECOND);
    assert_eq!(names(&sim, hosts[0]), "n0 n1 n2 n3 n4");
    // Same name at another address; what was known of the former run is gone.
    sim.crash(hosts[3]);
    sim.restart_at(hosts[3], "10.9.9.9:7946".parse().unwrap());
    sim.run(5 * SECOND);
    let moved = sim.view(hosts[0]).node("n3").unwrap();
    assert_eq!(moved.addr(), sim.addr(hosts[3]));
    assert_eq!(sim.view(hosts[0]).scope(&scope("default")).nodes("n3").names(), ["n3"]);
}

#[test]
fn another_name_takes_an_address_over() {
    let (mut sim, hosts) = cluster(2, 4);
    let addr = sim.addr(hosts[3]);
    sim.crash(hosts[3]);
    let seeds = [Simulation::nth_addr(0)];
    let other = sim.start(HostSpec::new("other").addr(addr).seeds(seeds));
    assert_eq!(sim.host_at(addr), Some(other));
    sim.run(60 * SECOND);
    for host in [hosts[0], hosts[1], hosts[2], other] {
        assert_eq!(names(&sim, host), "n0 n1 n2 other");
    }
}

#[test]
fn a_wall_clock_that_jumped_back_is_put_right_by_the_cluster() {
    let (mut sim, hosts) = cluster(3, 3);
    let boot = sim.node(hosts[2]).unwrap().boot();
    sim.crash(hosts[2]);
    sim.set_wall_clock(hosts[2], -3_600_000_000);
    sim.restart(hosts[2]);
    assert!(sim.node(hosts[2]).unwrap().boot() < boot);
    sim.run(5 * SECOND);
    assert!(sim.node(hosts[2]).unwrap().boot() > boot);
    assert_eq!(names(&sim, hosts[0]), "n0 n1 n2");
}

#[test]
fn a_paused_host_does_nothing_and_reads_what_waited() {
    let (mut sim, hosts) = cluster(4, 4);
    sim.pause(hosts[1]);
    let sent = sim.node(hosts[1]).unwrap().stats().datagrams_out;
    let add = Command::AddRoles { scope: scope("default"), roles: vec![Role::from("new")] };
    sim.command(hosts[0], add).unwrap();
    sim.run(SECOND);
    assert_eq!(sim.node(hosts[1]).unwrap().stats().datagrams_out, sent);
    let seen = |sim: &Simulation| sim.view(hosts[1]).scope(&scope("default")).nodes("new").len();
    assert_eq!(seen(&sim), 0);
    sim.resume(hosts[1]);
    sim.run(Duration::from_micros(1));
    assert_eq!(seen(&sim), 1, "it waited in the socket");
    assert_eq!(sim.overflowed(), 0);
}

#[test]
fn buffers_overflow_while_a_host_is_paused() {
    let tight = Config { receive_buffer_bytes: 8 << 10, ..Config::lan() };
    let mut sim = Simulation::new(5, tight);
    let first = sim.start(HostSpec::new("a"));
    let second = sim.start(HostSpec::new("b").seeds([sim.addr(first)]));
    sim.run(SECOND);
    sim.pause(second);
    for n in 0..200 {
        let meta = vec![n; 900].into();
        sim.command(first, Command::SetMeta(meta)).unwrap();
        sim.run(SECOND / 10);
    }
    assert!(sim.overflowed() > 0);
    sim.resume(second);
    let meta = |sim: &Simulation| {
        sim.view(second).node("a").is_some_and(|it| it.meta().first() == Some(&199))
    };
    sim.run_until(60 * SECOND, SECOND / 10, meta).expect("nothing is lost for good");
}

#[test]
fn a_stalled_hosts_timers_run_and_its_datagrams_are_stuck() {
    let (mut sim, hosts) = cluster(6, 8);
    sim.stall(hosts[1]);
    let before = sim.node(hosts[1]).unwrap().stats();
    sim.run(20 * SECOND);
    let after = sim.node(hosts[1]).unwrap().stats();
    assert!(after.probes > before.probes, "it goes on probing");
    assert_eq!(after.datagrams_in, before.datagrams_in);
    assert_eq!(names(&sim, hosts[0]), "n0 n2 n3 n4 n5 n6 n7", "the others hold it dead");
    sim.resume(hosts[1]);
    sim.run(20 * SECOND);
    for host in hosts {
        assert_eq!(names(&sim, host), "n0 n1 n2 n3 n4 n5 n6 n7");
    }
}

#[test]
fn a_node_that_leaves_is_gone_at_once() {
    let (mut sim, hosts) = cluster(7, 4);
    sim.leave(hosts[2]);
    sim.run(SECOND);
    assert_eq!(sim.activity(hosts[2]), Activity::Down);
    let down = |(_, event): &(_, Event)| {
        let Event::NodeDown { node, reason } = event else { return false };
        node.name() == "n2" && *reason == DownReason::Left
    };
    assert!(sim.take_events(hosts[0]).iter().any(down));
    assert!(sim.take_events(hosts[0]).is_empty(), "they were taken");
}

#[test]
fn drifting_clocks_change_the_rate_of_timers() {
    let (mut sim, hosts) = cluster(8, 6);
    sim.set_drift(hosts[1], 200_000);
    sim.set_drift(hosts[2], -200_000);
    let probes = |sim: &Simulation, n: usize| sim.node(hosts[n]).unwrap().stats().probes;
    let before: Vec<u64> = (0..3).map(|n| probes(&sim, n)).collect();
    sim.run(100 * SECOND);
    let made: Vec<u64> = (0..3).map(|n| probes(&sim, n) - before[n]).collect();
    assert!((99..=101).contains(&made[0]), "{made:?}");
    assert!((119..=121).contains(&made[1]), "{made:?}");
    assert!((79..=81).contains(&made[2]), "{made:?}");
}

#[test]
fn a_watcher_sees_events_as_they_happen_and_can_break_off() {
    let (mut sim, hosts) = cluster(9, 10);
    let add = Command::AddRoles { scope: scope("default"), roles: vec![Role::from("new")] };
    sim.command(hosts[0], add).unwrap();
    let mut told = Vec::new();
    let took = sim.watch(10 * SECOND, |heard| {
        if matches!(heard.event, Event::RoleAdded { .. }) {
            told.push(heard.host);
        }
        if told.len() == 9 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(took.expect("all hear of it") < SECOND);
    told.sort();
    assert_eq!(told, hosts[1..]);
    assert_eq!(sim.watch(SECOND, |_| ControlFlow::Continue(())), None);
}

#[test]
fn acquainted_nodes_are_a_cluster_from_the_start() {
    let mut sim = Simulation::new(10, Config::lan());
    let specs = (0..20).map(|n| HostSpec::new(&format!("n{n:02}")).scope("default", [n]));
    let hosts = sim.start_acquainted(specs);
    for host in &hosts {
        assert_eq!(sim.view(*host).members().len(), 20);
        let holders = sim.view(*host).scope(&scope("default")).nodes(Role::from(7));
        assert_eq!(holders.names(), ["n07"]);
    }
    sim.run(20 * SECOND);
    assert!(hosts.iter().all(|host| sim.take_events(*host).is_empty()), "nothing changed");
    sim.crash(hosts[3]);
    sim.run(40 * SECOND);
    assert!(hosts.iter().all(|host| *host == hosts[3] || sim.view(*host).members().len() == 19));
}
