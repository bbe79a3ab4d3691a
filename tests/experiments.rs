//! The experiments of `rolecall::sim::scenario`: what must come out whatever the figures are.
#![cfg(feature = "sim")]

use std::time::Duration;

use rolecall::Config;
use rolecall::sim::scenario::{
    Changes, Crash, Join, Meter, Repair, Scenario, Setup, Spread, Steady, Storm, Via,
};
use rolecall::sim::{Faults, Loss};
use serde_json::Value;

/// A change's budget of transmissions is of a round or two when the fanout is as large. Such a
/// budget once ended within its first round, which told the same few by id and never the others.
#[test]
fn a_fanout_that_uses_the_budget_up_at_once_leaves_nobody_out() {
    for gossip_fanout in [16, 20] {
        let config = Config { gossip_fanout, ..Config::lan() };
        let setup = Setup { nodes: 64, trials: 10, config, ..Setup::default() };
        let spread = setup.run(&Spread::default(), &Meter::default()).figures;
        assert_eq!(spread.missed, 0, "{spread:?}");
        assert!(spread.max_ms.is_some_and(|ms| ms < 100.0), "{spread:?}");
    }
}

/// Figures by name. No clock is read and no allocator asked, so that all depend on the seed alone.
fn figures<S: Scenario>(scenario: &S, setup: &Setup, trials: usize) -> Value {
    let seeds = setup.seeds().take(trials);
    let trials = seeds.map(|seed| scenario.trial(setup, seed, &Meter::default())).collect();
    let report = setup.report(scenario, trials, Duration::ZERO);
    serde_json::to_value(report.figures).expect("figures have names")
}

/// A scenario of which all trials come to an end, so that none of these counts anything. The same
/// seed makes the same trials, however many more there are; another seed makes others.
#[track_caller]
fn assert_complete<S: Scenario>(scenario: &S, counts: &[&str]) {
    assert_complete_in(&Setup::default(), scenario, counts);
}

/// The same with other faults, or other scopes.
#[track_caller]
fn assert_complete_in<S: Scenario>(setup: &Setup, scenario: &S, counts: &[&str]) {
    let setup = Setup { nodes: 24, trials: 3, ..setup.clone() };
    let three = figures(scenario, &setup, 3);
    for (name, value) in three.as_object().expect("an object") {
        let unknown = value.is_null() && name != "heap_bytes_per_pair";
        assert!(!unknown, "{} has no {name}: {three}", S::NAME);
    }
    for count in counts {
        assert_eq!(three[*count], 0, "{}, {count}: {three}", S::NAME);
    }
    assert_eq!(figures(scenario, &setup, 3), three, "{}", S::NAME);
    let more = Setup { trials: 5, ..setup.clone() };
    assert_eq!(figures(scenario, &more, 3), three, "{}", S::NAME);
    let report = setup.run(scenario, &Meter::default());
    let all = serde_json::to_value(report.figures).expect("figures have names");
    assert_eq!((all, report.trials), (three.clone(), 3), "{}", S::NAME);
    // In a steady cluster the same happens, whatever the seed.
    let other = Setup { seed: 2, ..setup };
    assert_eq!(figures(scenario, &other, 3) == three, S::NAME == "steady", "{}", S::NAME);
}

#[test]
fn steady_suspects_nobody() {
    assert_complete(&Steady, &["false_suspicions", "false_downs"]);
}

#[test]
fn spread_misses_nobody() {
    assert_complete(&Spread::default(), &["missed"]);
    assert_complete(&Spread { dead: 0.2, ..Spread::default() }, &["missed"]);
    assert_complete(&Spread { via: Via::Gossip, ..Spread::default() }, &["missed"]);
}

#[test]
fn crash_is_known_to_all() {
    assert_complete(&Crash { victims: 2, ..Crash::default() }, &["unaware", "false_downs"]);
    let row = Crash { victims: 6, adjacent: true, killed: false };
    assert_complete(&row, &["unaware", "false_downs"]);
    let killed = Crash { victims: 2, adjacent: false, killed: true };
    assert_complete(&killed, &["unaware", "false_downs"]);
}

#[test]
fn join_is_complete() {
    assert_complete(&Join, &["incomplete"]);
}

#[test]
fn storm_converges() {
    assert_complete(&Storm, &["incomplete"]);
}

/// Gossip with memberlist's fanout is slower, and much slower if no round comes before its time; it
/// costs more, too.
#[test]
fn each_way_to_spread_is_slower_than_the_one_before() {
    let measured = |via, gossip_fanout| {
        let config = Config { gossip_fanout, ..Config::lan() };
        let setup = Setup { trials: 5, config, ..Setup::default() };
        let figures = setup.run(&Spread { via, ..Spread::default() }, &Meter::default()).figures;
        (figures.p50_ms.expect("it is known to all"), figures.bytes_per_node)
    };
    let fast = measured(Via::FastPath, Config::lan().gossip_fanout);
    let [gossip, piggyback] = [Via::Gossip, Via::Piggyback].map(|via| measured(via, 3));
    assert!(fast.0 < gossip.0 && 2.0 * gossip.0 < piggyback.0, "{fast:?} {gossip:?} {piggyback:?}");
    assert!(2.0 * fast.1 < gossip.1.min(piggyback.1), "{fast:?} {gossip:?} {piggyback:?}");
}

#[test]
fn changes_are_known_to_all() {
    let setup = Setup { duration: Some(Duration::from_secs(3)), ..Setup::default() };
    let counts = ["lost_updates", "false_downs", "apart"];
    assert_complete_in(&setup, &Changes::default(), &counts);
    let apart = Setup { scopes: 4, scopes_per_node: 2, ..setup };
    assert_complete_in(&apart, &Changes { rate: 20 }, &counts);
}

/// A budget far below what the changes need delays them, and no more.
#[test]
fn changes_over_budget_are_late_and_not_lost() {
    let config = Config { gossip_bytes_per_second: 4096, ..Config::lan() };
    let setup =
        Setup { nodes: 32, trials: 1, duration: Some(Duration::from_secs(5)), ..Setup::default() };
    let changes = Changes { rate: 500 };
    let usual = setup.run(&changes, &Meter::default()).figures;
    let tight = Setup { config, ..setup }.run(&changes, &Meter::default()).figures;
    for figures in [&usual, &tight] {
        assert_eq!((figures.lost_updates, figures.apart), (0, 0), "{figures:?}");
        assert_eq!(figures.changes, 2500);
    }
    assert!(usual.known_p50_ms < tight.known_p50_ms, "{usual:?} {tight:?}");
}

#[test]
fn repair_ends_in_agreement() {
    assert_complete(&Repair::default(), &["apart"]);
    let lossy = Faults { loss: Loss::Random(0.3), ..Faults::default() };
    let lossy = Setup { faults: lossy, ..Setup::default() };
    assert_complete_in(&lossy, &Repair { differences: 60 }, &["apart"]);
}

/// What is equal costs nothing, however much of it there is.
#[test]
fn repair_costs_what_differs() {
    let setup = Setup { nodes: 100, trials: 5, ..Setup::default() };
    let large = Setup { scopes: 20, scopes_per_node: 20, ..setup.clone() };
    let bytes = |setup: &Setup, differences: u32| {
        let repair = Repair { differences: differences as usize };
        let figures = setup.run(&repair, &Meter::default()).figures;
        assert_eq!((figures.apart, figures.differences), (0, Some(f64::from(differences))));
        figures.bytes_total.expect("all agreed")
    };
    let [few, many, few_of_large] = [bytes(&setup, 4), bytes(&setup, 40), bytes(&large, 4)];
    assert!(few < 2500.0 && 2.0 * few < many, "{few} {many}");
    assert!(few_of_large < 1.5 * few, "{few} {few_of_large}");
}
