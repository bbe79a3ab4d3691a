//! Who is declared down, and who is not: silent deaths, one or many at once; pauses; links that
//! work one way only, now and then, or between some nodes and not others. And on what evidence.
#![cfg(feature = "sim")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use rolecall::sim::scenario::{
    LinkFault, Links, LinksFigures, Meter, Pauses, PausesFigures, Setup,
};
use rolecall::sim::{Faults, HostId, HostSpec, Loss, Simulation};
use rolecall::{Config, DownReason, Event, Evidence, NodeId, Sight};

const SECOND: Duration = Duration::from_secs(1);

/// Nodes that have known each other for a while. They die at other moments of their probe rounds
/// with each seed.
fn cluster(seed: u64, nodes: usize, loss: f64) -> (Simulation, Vec<HostId>) {
    let mut sim = Simulation::new(seed, Config::lan()).lean();
    let spec = |n| HostSpec::new(&format!("n{n}")).seeds((0..2).map(Simulation::nth_addr));
    let hosts = sim.start_acquainted((0..nodes).map(spec));
    sim.set_faults(Faults { loss: Loss::Random(loss), ..Faults::default() });
    sim.run(5 * SECOND + SECOND.mul_f64(0.37) * u32::try_from(seed % 100).unwrap());
    (sim, hosts)
}

/// What the nodes told their users of others.
#[derive(Default)]
struct Told {
    /// The evidence for each node-down, by who was told of whom.
    downs: BTreeMap<(HostId, NodeId), Vec<Evidence>>,
    ups: BTreeMap<(HostId, NodeId), usize>,
}

impl Told {
    fn of_downs(&self) -> BTreeSet<NodeId> {
        self.downs.keys().map(|(_, id)| *id).collect()
    }

    /// How often each of these was told of a node-down of that one.
    fn downs_of(&self, id: NodeId, hosts: &[HostId]) -> Vec<usize> {
        hosts.iter().map(|host| self.downs.get(&(*host, id)).map_or(0, Vec::len)).collect()
    }
}

fn watch(sim: &mut Simulation, duration: Duration) -> Told {
    let mut told = Told::default();
    sim.watch(duration, |heard| {
        match heard.event {
            Event::NodeDown { node, reason: DownReason::Failed(evidence) } => {
                told.downs.entry((heard.host, node.id())).or_default().push(evidence.clone());
            }
            Event::NodeDown { node, reason } => panic!("{node} is {reason}"),
            Event::NodeUp { node } => *told.ups.entry((heard.host, node.id())).or_default() += 1,
            _ => {}
        }
        ControlFlow::Continue(())
    });
    told
}

/// Some of the nodes, those of a row of the ring or any; and the others.
fn split(
    sim: &Simulation,
    hosts: &[HostId],
    count: usize,
    adjacent: bool,
) -> (Vec<HostId>, Vec<HostId>) {
    let mut order = hosts.to_vec();
    if adjacent {
        order.sort_by_key(|host| sim.id_of(*host));
    }
    let rest = order.split_off(count);
    (order, rest)
}

/// They die at the same moment: each survivor hears of each death once, within `limit`, and of
/// nothing else.
#[track_caller]
fn assert_found(
    (seed, nodes, loss): (u64, usize, f64),
    victims: usize,
    adjacent: bool,
    limit: Duration,
) {
    let (mut sim, hosts) = cluster(seed, nodes, loss);
    let (dying, survivors) = split(&sim, &hosts, victims, adjacent);
    let dead: BTreeSet<NodeId> = dying.iter().map(|host| sim.id_of(*host)).collect();
    dying.iter().for_each(|host| sim.crash(*host));
    let told = watch(&mut sim, limit);
    let of = format!("seed {seed}: {victims} of {nodes}, adjacent {adjacent}, loss {loss}");
    assert_eq!(told.of_downs(), dead, "{of}");
    for id in dead {
        assert_eq!(told.downs_of(id, &survivors), vec![1; survivors.len()], "{of}: {id}");
    }
    assert_eq!(told.ups.len(), 0, "{of}");
}

#[test]
fn many_that_die_at_once_are_found_and_nobody_else_is() {
    for seed in 1..=3 {
        assert_found((seed, 64, 0.0), 10, false, 20 * SECOND);
    }
}

#[test]
fn a_row_of_the_ring_is_found_in_one_sweep() {
    for seed in 1..=3 {
        assert_found((seed, 64, 0.0), 16, true, 20 * SECOND);
    }
}

#[test]
fn a_third_at_once_is_found() {
    for seed in 1..=3 {
        assert_found((seed, 64, 0.0), 21, false, 30 * SECOND);
        assert_found((seed, 12, 0.0), 4, false, 30 * SECOND);
    }
}

/// One of them may be a witness of the other's death, or its only prober.
#[test]
fn two_that_die_at_the_same_moment_take_nobody_with_them() {
    for seed in 0..20 {
        for nodes in [4, 6, 9] {
            assert_found((seed, nodes, 0.0), 2, seed % 2 == 0, 30 * SECOND);
        }
        assert_found((seed, 8, 0.05), 2, false, 30 * SECOND);
    }
}

#[test]
fn small_clusters_find_a_death_and_no_other_on_a_bad_network() {
    for seed in 0..30 {
        for nodes in [2, 3, 5] {
            let (mut sim, hosts) = cluster(seed, nodes, 0.2);
            let told = watch(&mut sim, 120 * SECOND);
            assert_eq!(told.downs, BTreeMap::new(), "seed {seed}: {nodes} nodes");
            assert!(sim.network().carried().lost > 0);
            drop((sim, hosts));
            assert_found((seed, nodes, 0.2), 1, false, 30 * SECOND);
        }
    }
}

/// What comes of bad links in three clusters of which a tenth has them, or two of few nodes.
fn links(fault: LinkFault, nodes: usize, duration: Duration) -> LinksFigures {
    let setup = Setup { nodes, trials: 3, duration: Some(duration), ..Setup::default() };
    let faulty = if nodes < 20 { 0.2 } else { 0.1 };
    let figures = setup.run(&Links { fault, faulty }, &Meter::default()).figures;
    assert_eq!(figures.healthy_downs, 0, "{fault:?}: {figures:?}");
    figures
}

#[test]
fn who_receives_nothing_or_is_not_heard_goes_down_once_and_stays() {
    for fault in [LinkFault::Deaf, LinkFault::Mute] {
        let figures = links(fault, 24, 60 * SECOND);
        assert!(figures.faulty_down_p50_ms.is_some_and(|ms| ms < 5000.0), "{fault:?}: {figures:?}");
        assert_eq!(figures.faulty_downs_p50, Some(1.0), "{fault:?}: {figures:?}");
        assert_eq!(figures.faulty_downs_max, Some(1.0), "{fault:?}: {figures:?}");
        assert!(figures.suspicions > 0, "{fault:?}: {figures:?}");
    }
}

/// Nodes probe their neighbours on the ring, and others at random only now and then, so that in a
/// small cluster and a long time each end of a pair has tried the other.
#[test]
fn who_is_out_of_reach_of_one_node_only_is_not_declared_down() {
    let figures = links(LinkFault::Apart, 8, 300 * SECOND);
    assert_eq!(figures.healthy_downs_at_faulty, 0, "{figures:?}");
    assert_eq!(figures.faulty_down_p50_ms, None, "{figures:?}");
    assert_eq!(figures.reached_indirectly, Some(3 * 2), "{figures:?}");
    assert!(figures.suspicions > 0, "{figures:?}");
}

#[test]
fn links_that_lose_most_of_what_goes_one_way_do_not_make_a_node_flap() {
    let figures = links(LinkFault::Lossy, 24, 120 * SECOND);
    assert!(figures.faulty_downs_max.is_some_and(|downs| downs <= 2.0), "{figures:?}");
    assert!(figures.suspicions > 0, "{figures:?}");
}

/// Seven and a half times, for 20 s each.
#[test]
fn links_that_come_and_go_do_not_make_a_node_flap() {
    for nodes in [8, 24, 64] {
        let figures = links(LinkFault::Flapping, nodes, 300 * SECOND);
        let downs = figures.faulty_downs_max.expect("there are pairs");
        assert!((1.0..=2.0).contains(&downs), "{figures:?}");
    }
}

#[test]
fn links_that_come_and_go_take_their_node_down_and_no_other() {
    let figures = links(LinkFault::Flapping, 24, 60 * SECOND);
    assert_eq!(
        figures.faulty_downs_p50,
        Some(2.0),
        "one for each time that they fail: {figures:?}"
    );
    assert!(figures.faulty_down_p50_ms.is_some_and(|ms| ms < 5000.0), "{figures:?}");
}

/// Those whose links have just come back have each seen a healthy node be silent, for as long as
/// they heard nobody at all.
#[test]
fn those_who_were_cut_off_together_are_no_witnesses() {
    let duration = Some(25 * SECOND);
    let setup = Setup { nodes: 32, trials: 12, duration, seed: 1, ..Setup::default() };
    let links = Links { fault: LinkFault::Flapping, faulty: 0.1 };
    let figures = setup.run(&links, &Meter::default()).figures;
    assert_eq!(figures.healthy_downs, 0, "{figures:?}");
    assert!(figures.healthy_downs_at_faulty > 0, "they did hold others dead: {figures:?}");
}

fn pauses(pause: Duration, share: f64) -> PausesFigures {
    let setup = Setup { nodes: 24, trials: 3, duration: Some(60 * SECOND), ..Setup::default() };
    setup.run(&Pauses { pause, share }, &Meter::default()).figures
}

#[test]
fn pauses_within_the_tolerance_are_tolerated() {
    let tolerance = Config::lan().pause_tolerance;
    for share in [0.05, 0.25] {
        let figures = pauses(tolerance.mul_f64(0.95), share);
        assert_eq!(figures.false_downs, 0, "{figures:?}");
        assert!(figures.pauses > 150 && figures.suspicions > 100, "{figures:?}");
    }
    let longer = pauses(3 * tolerance, 0.05);
    assert!(longer.false_downs > 0, "{longer:?}");
}

#[test]
fn who_pauses_for_longer_is_down_and_back_when_it_wakes() {
    for seed in 0..10 {
        let (mut sim, hosts) = cluster(seed, 16, 0.0);
        let (paused, others) = (hosts[5], [&hosts[..5], &hosts[6..]].concat());
        let id = sim.id_of(paused);
        sim.pause(paused);
        let told = watch(&mut sim, 4 * SECOND);
        assert_eq!(told.of_downs(), BTreeSet::from([id]), "seed {seed}");
        assert_eq!(told.downs_of(id, &others), [1; 15], "seed {seed}");
        assert!(told.ups.is_empty());
        sim.resume(paused);
        let told = watch(&mut sim, 10 * SECOND);
        assert_eq!(told.downs, BTreeMap::new(), "seed {seed}: it thinks ill of nobody");
        let back: BTreeMap<_, _> = others.iter().map(|host| ((*host, id), 1)).collect();
        assert_eq!(told.ups, back, "seed {seed}");
    }
}

#[test]
fn the_evidence_names_the_accuser_and_enough_witnesses() {
    for seed in 0..5 {
        for nodes in [3, 4, 5, 8, 32] {
            let (mut sim, hosts) = cluster(seed, nodes, 0.0);
            let victim = sim.id_of(hosts[0]);
            let alive: BTreeSet<NodeId> = hosts[1..].iter().map(|host| sim.id_of(*host)).collect();
            sim.crash(hosts[0]);
            let told = watch(&mut sim, 10 * SECOND);
            assert_eq!(told.downs_of(victim, &hosts[1..]), vec![1; nodes - 1], "seed {seed}");
            let needed = (nodes - 2).min(5) / 2 + 1;
            for ((at, _), evidence) in told.downs {
                let evidence = &evidence[0];
                let of = format!("seed {seed}, {nodes} nodes, at {at:?}: {evidence:?}");
                let accuser = evidence.accuser.as_ref().unwrap_or_else(|| panic!("{of}")).id();
                let witnesses: BTreeSet<NodeId> =
                    evidence.witnesses.iter().map(|it| it.node.id()).collect();
                assert_eq!(witnesses.len(), evidence.witnesses.len(), "each once: {of}");
                assert!(witnesses.contains(&accuser), "{of}");
                assert!(witnesses.is_subset(&alive), "{of}");
                assert!(witnesses.len() > needed, "{of}");
                assert!(evidence.witnesses.iter().all(|it| it.saw == Sight::Silence), "{of}");
                let tolerance = Config::lan().pause_tolerance;
                assert!(evidence.last_heard.is_none_or(|ago| ago >= tolerance), "{of}");
            }
        }
    }
}
