//! How long a death takes to be known.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{Curve, Measured, Meter, SECOND, Scenario, Setup, ms, quantile, rounded};
use crate::event::Event;
use crate::sim::{Heard, HostId};
use crate::time::Instant;

/// Whoever does not know by then does not count as knowing.
const LIMIT: Duration = Duration::from_secs(180);

/// One node of a converged cluster dies silently.
#[derive(Clone, Copy, Debug)]
pub struct Crash;

/// How a death became known.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(documented::DocumentedFields))]
pub struct CrashFigures {
    /// Until the first node declares it down: median of the trials.
    pub first_p50_ms: Option<f64>,
    /// The 99th percentile.
    pub first_p99_ms: Option<f64>,
    /// Until the last node knows: median of the trials, of those in which all came to know.
    pub all_p50_ms: Option<f64>,
    /// The 99th percentile.
    pub all_p99_ms: Option<f64>,
    /// The worst trial.
    pub all_max_ms: Option<f64>,
    /// Other nodes declared down, at each node where that was seen.
    pub false_downs: u64,
    /// Nodes that still held it alive after 180 s, of all trials.
    pub unaware: usize,
}

/// One trial.
#[derive(Clone, Debug)]
pub struct CrashTrial {
    /// When each node knew, in milliseconds, in order.
    moments: Vec<f64>,
    survivors: usize,
    false_downs: u64,
}

impl Scenario for Crash {
    type Trial = CrashTrial;
    type Figures = CrashFigures;
    const NAME: &'static str = "crash";

    fn trial(&self, setup: &Setup, seed: u64, _: &Meter) -> Measured<CrashTrial> {
        let (mut sim, hosts) = setup.converged(seed);
        let mut rng = ChaCha8Rng::seed_from_u64(!seed);
        // At any moment of the probe rounds.
        sim.run(SECOND.mul_f64(rng.random()));
        let victim = hosts[rng.random_range(0..hosts.len())];
        let id = sim.node(victim).expect("it runs").local().id();
        let survivors = hosts.len() - 1;
        let start = sim.now();
        sim.crash(victim);
        let mut knows: BTreeMap<HostId, Instant> = BTreeMap::new();
        let mut false_downs = 0;
        let watcher = |heard: Heard<'_>| {
            if let Event::NodeDown { node, .. } = heard.event {
                if node.id() == id {
                    knows.entry(heard.host).or_insert(heard.at);
                } else {
                    false_downs += 1;
                }
            }
            let all = knows.len() == survivors;
            if all { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        sim.watch(LIMIT, watcher);
        let mut moments: Vec<f64> = knows.values().map(|at| ms(*at - start)).collect();
        moments.sort_by(f64::total_cmp);
        let of = CrashTrial { moments, survivors, false_downs };
        Measured { of, virtual_time: sim.now() - Instant::ORIGIN }
    }

    fn figures(&self, _: &Setup, trials: &[CrashTrial]) -> CrashFigures {
        let complete = || trials.iter().filter(|trial| trial.moments.len() == trial.survivors);
        let first: Vec<f64> = trials.iter().filter_map(|it| it.moments.first().copied()).collect();
        let all: Vec<f64> = complete().filter_map(|it| it.moments.last().copied()).collect();
        let of = |values: &[f64], share| quantile(values, share).map(rounded);
        CrashFigures {
            first_p50_ms: of(&first, 0.5),
            first_p99_ms: of(&first, 0.99),
            all_p50_ms: of(&all, 0.5),
            all_p99_ms: of(&all, 0.99),
            all_max_ms: of(&all, 1.0),
            false_downs: trials.iter().map(|trial| trial.false_downs).sum(),
            unaware: trials.iter().map(|trial| trial.survivors - trial.moments.len()).sum(),
        }
    }

    fn curves(&self, _: &Setup, trials: &[CrashTrial]) -> Vec<Curve> {
        let moments = trials.iter().flat_map(|trial| trial.moments.iter().copied()).collect();
        let survivors = trials.iter().map(|trial| trial.survivors).sum();
        vec![Curve::of_moments("know of the crash", moments, survivors)]
    }
}
