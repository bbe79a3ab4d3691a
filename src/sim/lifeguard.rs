//! The experiments of the Lifeguard paper (Dadgar, Phillips, Currey: "Lifeguard: Local Health
//! Awareness for More Accurate Failure Detection", DSN-W 2018), rerun with this implementation.
//!
//! A [`Grid`] is a list of [`Cell`]s, each of which is one run; whoever has several cores may run
//! them side by side. [`tables`] adds them up like the paper's Tables IV, V and VI.

use std::time::Duration;

use serde::Serialize;

use super::scenario::{Anomaly, AnomalyTrial, Meter, Scenario, Setup, quantile, ratio, rounded};
use crate::config::Config;
use crate::proto::Rules;

/// Agents in each run (the paper, section V.B).
const NODES: usize = 128;

/// Concurrent anomalies (section V.D).
const CONCURRENT: [usize; 9] = [1, 4, 8, 12, 16, 20, 24, 28, 32];

/// Durations of anomalies, in milliseconds.
const ANOMALY_MS: [u64; 6] = [128, 512, 2048, 8192, 16_384, 32_768];

/// Intervals between anomalies, in milliseconds.
const INTERVAL_MS: [u64; 8] = [1, 4, 16, 64, 256, 1024, 4096, 16_384];

/// Runs of each combination.
const REPEATS: u64 = 10;

/// Which protocol runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// SWIM with suspicions: all of Lifeguard off, and all that is ours; a suspicion lasts
    /// `5 * log10(n)` probe intervals.
    Swim,
    /// Lifeguard with alpha 5 and beta 6, and nothing that is ours.
    Lifeguard,
    /// The `lan` preset, as it is.
    Rolecall,
}

impl Variant {
    /// All of them.
    pub const ALL: [Variant; 3] = [Variant::Swim, Variant::Lifeguard, Variant::Rolecall];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Variant::Swim => "swim",
            Variant::Lifeguard => "lifeguard",
            Variant::Rolecall => "rolecall",
        }
    }

    /// A cluster of this variant.
    ///
    /// What the paper says of memberlist's settings is `lan`'s already: probes each second, with a
    /// timeout of 500 ms and 3 helpers, gossip to 3 each 200 ms. Its pulls came each 30 s.
    pub fn setup(self) -> Setup {
        let lan = Config::lan();
        let slow_repair = Config {
            gossip_fanout: 3,
            pull_interval: Duration::from_secs(30),
            reconnect_interval: Duration::from_secs(30),
            ..lan.clone()
        };
        let (config, rules) = match self {
            Variant::Swim => (slow_repair, Rules::SWIM),
            Variant::Lifeguard => (slow_repair, Rules::LIFEGUARD),
            Variant::Rolecall => (lan, Rules::ALL),
        };
        Setup { nodes: NODES, trials: 1, config, rules, ..Setup::default() }
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// Which protocol runs.
    pub variant: Variant,
    /// What goes wrong.
    pub anomaly: Anomaly,
    /// The seed.
    pub seed: u64,
}

impl Cell {
    /// Makes the run.
    pub fn run(&self) -> AnomalyTrial {
        self.anomaly.trial(&self.variant.setup(), self.seed, &Meter::default()).of
    }
}

/// Which combinations are run.
#[derive(Clone, Debug)]
pub struct Grid {
    concurrent: Vec<usize>,
    anomaly_ms: Vec<u64>,
    interval_ms: Vec<u64>,
    repeats: u64,
}

impl Grid {
    /// The paper's: 432 combinations, `repeats` times (10 in the paper).
    pub fn full(repeats: u64) -> Grid {
        Grid {
            concurrent: CONCURRENT.to_vec(),
            anomaly_ms: ANOMALY_MS.to_vec(),
            interval_ms: INTERVAL_MS.to_vec(),
            repeats,
        }
    }

    /// A subset that takes minutes: every third C, every second D from 512 ms on, every second I;
    /// once each.
    pub fn quick() -> Grid {
        Grid {
            concurrent: vec![4, 16, 28],
            anomaly_ms: vec![512, 8192, 32_768],
            interval_ms: vec![4, 64, 1024, 16_384],
            repeats: 1,
        }
    }

    /// All runs: for Tables IV and VI every combination with recurring anomalies, for Table V
    /// single ones that are long enough to be found out.
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for variant in Variant::ALL {
            let mut seed = 0;
            let mut push = |concurrent, anomaly_ms, interval_ms: Option<u64>| {
                seed += 1;
                let anomaly = Anomaly {
                    concurrent,
                    anomaly: Duration::from_millis(anomaly_ms),
                    interval: Duration::from_millis(interval_ms.unwrap_or_default()),
                    threshold: interval_ms.is_none(),
                };
                cells.push(Cell { variant, anomaly, seed });
            };
            for _ in 0..self.repeats {
                for &concurrent in &self.concurrent {
                    for &anomaly_ms in &self.anomaly_ms {
                        for &interval_ms in &self.interval_ms {
                            push(concurrent, anomaly_ms, Some(interval_ms));
                        }
                    }
                }
            }
            // Single anomalies are few: as often as the paper had them.
            for _ in 0..REPEATS {
                for &concurrent in &self.concurrent {
                    push(concurrent, ANOMALY_MS[ANOMALY_MS.len() - 1], None);
                }
            }
        }
        cells
    }

    /// How many runs with recurring anomalies there are of each variant, beside the paper's number.
    pub fn runs(&self) -> (u64, u64) {
        let full = Grid::full(REPEATS);
        let count = |grid: &Grid| {
            let lists = [grid.concurrent.len(), grid.anomaly_ms.len(), grid.interval_ms.len()];
            lists.iter().product::<usize>() as u64 * grid.repeats
        };
        (count(self), count(&full))
    }
}

/// Seconds: median, 99th and 99.9th percentile.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Latencies {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The 99.9th percentile.
    pub p999: f64,
}

impl Latencies {
    fn of_ms(values: &[f64]) -> Latencies {
        let at = |share| rounded(quantile(values, share).unwrap_or(f64::NAN) / 1e3);
        Latencies { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }
}

/// A variant's row in the tables.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// Runs with recurring anomalies.
    pub runs: u64,
    /// Table IV: false positives, at any node.
    pub fp: u64,
    /// Table IV: those at healthy nodes.
    pub fp_healthy: u64,
    /// Table V: until a first healthy node declares a blocked one down.
    pub first: Latencies,
    /// Table V: until all healthy nodes know.
    pub full: Latencies,
    /// Table VI: datagrams sent, in millions.
    pub messages_m: f64,
    /// Table VI: bytes sent, in GiB.
    pub gib: f64,
}

/// What the paper prints (Tables IV, V and VI).
pub fn paper() -> [Row; 2] {
    let seconds = |p50, p99, p999| Latencies { p50, p99, p999 };
    let runs = Grid::full(REPEATS).runs().0;
    [
        Row {
            name: "swim",
            runs,
            fp: 339_002,
            fp_healthy: 1326,
            first: seconds(12.44, 16.96, 19.40),
            full: seconds(12.90, 16.93, 20.17),
            messages_m: 435.33,
            gib: 149.15,
        },
        Row {
            name: "lifeguard",
            runs,
            fp: 5193,
            fp_healthy: 25,
            first: seconds(12.45, 17.90, 21.20),
            full: seconds(12.91, 18.05, 21.68),
            messages_m: 481.42,
            gib: 146.13,
        },
    ]
}

/// Adds runs up, a row for each variant.
pub fn tables(runs: &[(Cell, AnomalyTrial)]) -> Vec<Row> {
    let row = |variant: Variant| {
        let of = |threshold: bool| {
            let mine = runs.iter().filter(move |(cell, _)| cell.variant == variant);
            mine.filter(move |(cell, _)| cell.anomaly.threshold == threshold).map(|(_, it)| it)
        };
        let first: Vec<f64> = of(true).flat_map(|trial| trial.first.iter().copied()).collect();
        let full: Vec<f64> = of(true).flat_map(|trial| trial.full.iter().copied()).collect();
        let count = |sum: u64| usize::try_from(sum).unwrap_or(usize::MAX);
        Row {
            name: variant.name(),
            runs: of(false).count() as u64,
            fp: of(false).map(|trial| trial.fp.0).sum(),
            fp_healthy: of(false).map(|trial| trial.fp.1).sum(),
            first: Latencies::of_ms(&first),
            full: Latencies::of_ms(&full),
            messages_m: ratio(count(of(false).map(|trial| trial.sent.0).sum()), 1_000_000),
            gib: ratio(count(of(false).map(|trial| trial.sent.1).sum()), 1 << 30),
        }
    };
    Variant::ALL.map(row).to_vec()
}
