//! The experiments of `rolecall::sim::scenario`: what must come out whatever the figures are.
#![cfg(feature = "sim")]

use std::time::Duration;

use rolecall::Config;
use rolecall::sim::scenario::{Crash, Join, Meter, Scenario, Setup, Spread, Steady, Storm};
use serde_json::Value;

/// A change's budget of transmissions is of a round or two when the fanout is as large. Such a
/// budget once ended within its first round, which told the same few by id and never the others.
#[test]
fn a_fanout_that_uses_the_budget_up_at_once_leaves_nobody_out() {
    for gossip_fanout in [16, 20] {
        let config = Config { gossip_fanout, ..Config::lan() };
        let setup = Setup { nodes: 64, trials: 10, config, ..Setup::default() };
        let spread = setup.run(&Spread, &Meter::default()).figures;
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
    let setup = Setup { nodes: 24, trials: 3, ..Setup::default() };
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
    let other = Setup { seed: 2, ..setup };
    assert_ne!(figures(scenario, &other, 3), three, "{}", S::NAME);
}

#[test]
fn steady_suspects_nobody() {
    assert_complete(&Steady, &["false_suspicions", "false_downs"]);
}

#[test]
fn spread_misses_nobody() {
    assert_complete(&Spread, &["missed"]);
}

#[test]
fn crash_is_known_to_all() {
    assert_complete(&Crash { victims: 2 }, &["unaware", "false_downs"]);
}

#[test]
fn join_is_complete() {
    assert_complete(&Join, &["incomplete"]);
}

#[test]
fn storm_converges() {
    assert_complete(&Storm, &["incomplete"]);
}
