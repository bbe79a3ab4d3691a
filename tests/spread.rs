//! The fast path, the receipt and the repair of what they miss, on a simulated network.
#![cfg(feature = "sim")]

use std::collections::BTreeSet;
use std::time::Duration;

use rolecall::proto::{Command, Outcome};
use rolecall::sim::{Faults, HostId, HostSpec, Loss, Simulation};
use rolecall::{Config, Role, ScopeName, Stats};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn scope(name: &str) -> ScopeName {
    ScopeName::new(name).unwrap()
}

/// Acquainted nodes, each in these of the scopes.
fn cluster(
    seed: u64,
    config: Config,
    count: usize,
    scopes: impl Fn(usize) -> Vec<String>,
) -> (Simulation, Vec<HostId>) {
    let mut sim = Simulation::new(seed, config);
    let spec = |n: usize| {
        let spec = HostSpec::new(&format!("n{n}"));
        scopes(n).iter().fold(spec, |spec, scope| spec.scope(scope, ["member"]))
    };
    let hosts = sim.start_acquainted((0..count).map(spec));
    // So that round trips have been measured.
    sim.run(3 * SECOND);
    (sim, hosts)
}

fn one_scope(seed: u64, count: usize) -> (Simulation, Vec<HostId>) {
    cluster(seed, Config::lan(), count, |_| vec!["s".into()])
}

fn add(sim: &mut Simulation, host: HostId, scope_name: &str, role: impl Into<Role>) {
    let roles = vec![role.into()];
    sim.command(host, Command::AddRoles { scope: scope(scope_name), roles }).unwrap();
}

/// How many running nodes know that the host has the role.
fn knowing(sim: &Simulation, host: HostId, scope_name: &str, role: &Role) -> usize {
    let id = sim.node(host).expect("it runs").local().id();
    let knows = |node: &rolecall::proto::Protocol| node.roles(scope_name, id).contains(role);
    sim.running().filter(|(_, node)| knows(node)).count()
}

fn sum(sim: &Simulation, of: impl Fn(&Stats) -> u64) -> u64 {
    sim.running().map(|(_, node)| of(&node.stats())).sum()
}

fn sent(stats: &Stats, kind: &str) -> u64 {
    stats.sent.iter().filter(|it| it.kind == kind).map(|it| it.datagrams).sum()
}

#[test]
fn everybody_is_told_once_and_nobody_gossips() {
    let (mut sim, hosts) = one_scope(1, 200);
    let before = sim.network().carried().sent;
    add(&mut sim, hosts[17], "s", "news");
    sim.run(20 * MS);
    assert_eq!(knowing(&sim, hosts[17], "s", &"news".into()), 200);
    let datagrams = sim.network().carried().sent - before;
    let hops = sum(&sim, |stats| stats.hops);
    assert_eq!((hops, sum(&sim, |stats| stats.hops_repeated)), (199, 0));
    // A hop and its acknowledgement, and a probe now and then.
    assert!((398..420).contains(&datagrams), "{datagrams}");
    assert_eq!(sum(&sim, |stats| stats.piggyback_queue as u64), 0);
}

#[test]
fn only_members_of_the_scope_get_anything() {
    let scopes = |n: usize| vec![format!("s{}", n % 10)];
    let (mut sim, hosts) = cluster(2, Config::lan(), 100, scopes);
    add(&mut sim, hosts[3], "s3", "news");
    sim.run(50 * MS);
    assert_eq!(knowing(&sim, hosts[3], "s3", &"news".into()), 10);
    for (host, node) in sim.running() {
        let got = node.stats().received.iter().any(|it| it.kind == "Delegate");
        assert_eq!(got, host.index() % 10 == 3 && host != hosts[3], "{host:?}");
    }
}

#[test]
fn a_burst_shares_datagrams() {
    let (mut sim, hosts) = one_scope(3, 50);
    for n in 0..500 {
        add(&mut sim, hosts[0], "s", n);
        if n % 10 == 0 {
            sim.run(MS / 5);
        }
    }
    sim.run(50 * MS);
    assert_eq!(knowing(&sim, hosts[0], "s", &499.into()), 50);
    let trees = sum(&sim, |stats| stats.hops) / 49;
    assert!((2..20).contains(&trees), "500 changes within 10 ms went out in {trees} trees");
}

#[test]
fn owners_that_die_with_their_part_lose_nothing() {
    let mut fewest = usize::MAX;
    for seed in 10..15 {
        let (mut sim, hosts) = one_scope(seed, 100);
        add(&mut sim, hosts[0], "s", "news");
        // Some have acknowledged their part by now, and have told nobody.
        sim.run(MS);
        for host in hosts[1..].iter().step_by(4) {
            sim.crash(*host);
        }
        sim.run(8 * MS);
        fewest = fewest.min(knowing(&sim, hosts[0], "s", &"news".into()));
        sim.run(10 * SECOND);
        assert_eq!(knowing(&sim, hosts[0], "s", &"news".into()), 75, "seed {seed}");
    }
    assert!(fewest < 75, "some part was lost with its owner: {fewest}");
}

#[test]
fn lost_datagrams_and_the_freshly_dead_leave_nobody_out() {
    for seed in 20..23 {
        let (mut sim, hosts) = one_scope(seed, 150);
        sim.set_faults(Faults { loss: Loss::Random(0.2), ..Faults::default() });
        (5..15).for_each(|n| sim.crash(hosts[n]));
        add(&mut sim, hosts[0], "s", "news");
        let all = |sim: &Simulation| knowing(sim, hosts[0], "s", &"news".into()) == 140;
        let took = sim.run_until(5 * SECOND, 5 * MS, all);
        assert!(took.is_some_and(|took| took < 2 * SECOND), "seed {seed}: {took:?}");
    }
}

#[test]
fn a_receipt_comes_back_the_way_the_change_went() {
    let (mut sim, hosts) = one_scope(30, 120);
    add(&mut sim, hosts[9], "s", "news");
    let generation = sim.node(hosts[9]).unwrap().generation("s", id_of(&sim, hosts[9]));
    deliver(&mut sim, hosts[9], 5, generation);
    sim.run(40 * MS);
    println!(
        "reports {} begun {:?}",
        sum(&sim, |stats| sent(stats, "Reached")),
        sim.node(hosts[9]).unwrap().queues().iter().map(|q| (q.name, q.len)).collect::<Vec<_>>()
    );
    let receipt = receipt(&mut sim, hosts[9]).expect("it is there");
    assert_eq!((receipt.0.len(), receipt.1), (119, BTreeSet::new()));
    assert_eq!(sum(&sim, |stats| sent(stats, "Ask")), 0, "nobody was asked");
}

#[test]
fn a_receipt_is_exact_about_whom_it_has_not_heard_of() {
    let patient = Config { pause_tolerance: 60 * SECOND, ..Config::lan() };
    let (mut sim, hosts) = cluster(31, patient, 120, |_| vec!["s".into()]);
    let dead: BTreeSet<String> = [20, 50, 77].map(|n| format!("n{n}")).into();
    for n in [20, 50, 77] {
        sim.crash(hosts[n]);
    }
    sim.set_faults(Faults { loss: Loss::Random(0.05), ..Faults::default() });
    add(&mut sim, hosts[0], "s", "news");
    let generation = sim.node(hosts[0]).unwrap().generation("s", id_of(&sim, hosts[0]));
    deliver(&mut sim, hosts[0], 5, generation);
    sim.run(Config::lan().pull_timeout + SECOND);
    let (reached, missing) = receipt(&mut sim, hosts[0]).expect("it is bounded in time");
    assert_eq!((reached.len(), missing), (116, dead));
    // Those in parts that were reported whole were not asked.
    let asks = sum(&sim, |stats| sent(stats, "Ask"));
    assert!(asks < 500, "{asks}");
}

fn id_of(sim: &Simulation, host: HostId) -> rolecall::NodeId {
    sim.node(host).expect("it runs").local().id()
}

fn deliver(sim: &mut Simulation, host: HostId, token: u64, generation: rolecall::Generation) {
    sim.command(host, Command::Deliver { token, scope: scope("s"), generation }).unwrap();
}

fn receipt(sim: &mut Simulation, host: HostId) -> Option<(BTreeSet<String>, BTreeSet<String>)> {
    let names = |nodes: &rolecall::Nodes| nodes.iter().map(|it| it.name().to_owned()).collect();
    sim.take_outcomes(host).iter().find_map(|outcome| match outcome {
        Outcome::Delivered { reached, missing, .. } => Some((names(reached), names(missing))),
        _ => None,
    })
}

#[test]
fn a_budget_bounds_what_is_sent_and_everything_arrives_in_the_end() {
    let config = Config { gossip_bytes_per_second: 2048, ..Config::lan() };
    let (mut sim, hosts) = cluster(40, config, 40, |_| vec!["s".into()]);
    let (start, before) = (sim.now(), sum(&sim, |stats| stats.bytes_out));
    for n in 0..2000_usize {
        add(&mut sim, hosts[n % 40], "s", n as u64);
        sim.run(5 * MS);
    }
    assert!(sum(&sim, |stats| stats.hops_over_budget) > 100, "the budget was too small");
    let seconds = (sim.now() - start).as_secs_f64();
    let bytes = sum(&sim, |stats| stats.bytes_out) - before;
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let rate = bytes as f64 / 40.0 / seconds;
    // Not of the budget are probes, answers, and repair, which brings each of the 200 changes a
    // second at some 40 bytes.
    assert!(rate < 2048.0 + 2.0 * 8000.0, "{rate} bytes a node and second");
    let last = |n: usize| Role::from(1960 + n as u64);
    let all = |sim: &Simulation| (0..40).all(|n| knowing(sim, hosts[n], "s", &last(n)) == 40);
    let took = sim.run_until(60 * SECOND, 100 * MS, all);
    assert!(took.is_some(), "all is caught up");
}

#[test]
fn a_node_that_does_not_answer_costs_a_bounded_number_of_tries() {
    let (mut sim, hosts) = one_scope(50, 60);
    sim.pause(hosts[30]);
    let before = sum(&sim, |stats| stats.hops_repeated);
    for n in 0..10 {
        add(&mut sim, hosts[0], "s", n);
        sim.run(20 * MS);
    }
    sim.run(SECOND);
    let repeated = sum(&sim, |stats| stats.hops_repeated) - before;
    assert!((10..=10 * 14).contains(&repeated), "{repeated} tries of one node for ten changes");
    assert_eq!(knowing(&sim, hosts[0], "s", &9.into()), 59);
    sim.resume(hosts[30]);
    sim.run(10 * SECOND);
    assert_eq!(knowing(&sim, hosts[0], "s", &9.into()), 60);
}

#[test]
fn a_goodbye_reaches_all_in_a_few_hops() {
    let (mut sim, hosts) = one_scope(60, 100);
    let (name, before) = ("n5", sim.network().carried().sent);
    sim.leave(hosts[5]);
    sim.run(15 * MS);
    let still = sim.running().filter(|(_, it)| it.members().iter().any(|it| it.name() == name));
    assert_eq!(still.count(), 0);
    let datagrams = sim.network().carried().sent - before;
    assert!((2 * 99..2 * 99 + 20).contains(&datagrams), "{datagrams}");
}

#[test]
fn a_probe_finds_what_a_node_missed_and_little_is_sent_for_it() {
    let (mut sim, hosts) = one_scope(70, 80);
    let cut = sim.partition(rolecall::sim::Partition::around(sim.addr(hosts[40])));
    for host in &hosts[..10] {
        add(&mut sim, *host, "s", "news");
    }
    // Long enough that nobody tries it any more, too short to declare it down.
    sim.run(2 * SECOND);
    sim.heal(cut);
    let all = |sim: &Simulation| (0..10).all(|n| knowing(sim, hosts[n], "s", &"news".into()) == 80);
    let took = sim.run_until(20 * SECOND, 10 * MS, all);
    assert!(took.is_some(), "it catches up");
    assert_eq!(sum(&sim, |stats| sent(stats, "Page")), 0, "no table was paged");
}
