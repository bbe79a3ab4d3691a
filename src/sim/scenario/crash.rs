//! How long a death takes to be known.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use rand::seq::index::sample;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{Curve, Measured, Meter, SECOND, Scenario, Setup, ms, quantile, ratio, rounded};
use crate::event::Event;
use crate::node::NodeId;
use crate::sim::{Heard, HostId, Simulation};
use crate::time::Instant;

/// Whoever does not know by then does not count as knowing.
const LIMIT: Duration = Duration::from_secs(180);

/// Some nodes of a converged cluster die silently, all at once: one, unless there are to be more.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// How many die.
    pub victims: usize,
    /// Whether they are neighbours in the order of node ids, which is the ring that the failure
    /// detector goes round: a rack that happens to lie in one row. Else they are drawn at random.
    pub adjacent: bool,
    /// Whether only their processes die: the kernels of their hosts close tethers and answer
    /// datagrams ([`Simulation::kill`]).
    pub killed: bool,
}

impl Default for Crash {
    fn default() -> Crash {
        Crash { victims: 1, adjacent: false, killed: false }
    }
}

impl Crash {
    /// Who dies.
    fn choose(self, sim: &Simulation, hosts: &[HostId], rng: &mut ChaCha8Rng) -> Vec<HostId> {
        let victims = self.victims.clamp(1, hosts.len() - 1);
        if !self.adjacent {
            return sample(rng, hosts.len(), victims).iter().map(|n| hosts[n]).collect();
        }
        let mut by_id = hosts.to_vec();
        by_id.sort_unstable_by_key(|host| sim.id_of(*host));
        let first = rng.random_range(0..by_id.len());
        by_id.into_iter().cycle().skip(first).take(victims).collect()
    }
}

/// How a death became known.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(documented::DocumentedFields))]
pub struct CrashFigures {
    /// Until the first node declares a victim down: median of the victims of all trials.
    pub first_p50_ms: Option<f64>,
    /// The 99th percentile.
    pub first_p99_ms: Option<f64>,
    /// Until every survivor knows of every victim: median of the trials, of those in which all came
    /// to know.
    pub all_p50_ms: Option<f64>,
    /// The 99th percentile.
    pub all_p99_ms: Option<f64>,
    /// The worst trial.
    pub all_max_ms: Option<f64>,
    /// At how many different moments a survivor heard of victims' deaths: median over the survivors
    /// of all trials.
    pub batches_p50: Option<f64>,
    /// The survivor that heard at the most.
    pub batches_max: Option<f64>,
    /// Other nodes declared down, at each node where that was seen.
    pub false_downs: u64,
    /// Victims that a survivor still held alive after 180 s, at each survivor, of all trials.
    pub unaware: usize,
}

/// One trial.
#[derive(Clone, Debug)]
pub struct CrashTrial {
    /// When each survivor knew of each victim, in milliseconds, in order.
    moments: Vec<f64>,
    /// When the first survivor knew, for each victim.
    first: Vec<f64>,
    /// At how many moments each survivor heard of deaths.
    batches: Vec<f64>,
    /// Survivors, times victims.
    pairs: usize,
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
        let chosen = self.choose(&sim, &hosts, &mut rng);
        let ids: BTreeSet<NodeId> = chosen.iter().map(|host| sim.id_of(*host)).collect();
        let pairs = (hosts.len() - chosen.len()) * chosen.len();
        let start = sim.now();
        let end = if self.killed { Simulation::kill } else { Simulation::crash };
        chosen.iter().for_each(|host| end(&mut sim, *host));
        let mut knows: BTreeMap<(NodeId, HostId), Instant> = BTreeMap::new();
        let mut first: BTreeMap<NodeId, Instant> = BTreeMap::new();
        let mut false_downs = 0;
        let watcher = |heard: Heard<'_>| {
            if let Event::NodeDown { node, .. } = heard.event {
                if ids.contains(&node.id()) {
                    first.entry(node.id()).or_insert(heard.at);
                    knows.entry((node.id(), heard.host)).or_insert(heard.at);
                } else {
                    false_downs += 1;
                }
            }
            let all = knows.len() == pairs;
            if all { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        sim.watch(LIMIT, watcher);
        let mut moments: Vec<f64> = knows.values().map(|at| ms(*at - start)).collect();
        moments.sort_by(f64::total_cmp);
        let first = first.values().map(|at| ms(*at - start)).collect();
        let mut heard: BTreeMap<HostId, BTreeSet<Instant>> =
            sim.running().map(|(host, _)| (host, BTreeSet::new())).collect();
        for ((_, host), at) in &knows {
            heard.entry(*host).or_default().insert(*at);
        }
        let batches = heard.values().map(|moments| ratio(moments.len(), 1)).collect();
        let of = CrashTrial { moments, first, batches, pairs, false_downs };
        Measured { of, virtual_time: sim.now() - Instant::ORIGIN }
    }

    fn figures(&self, _: &Setup, trials: &[CrashTrial]) -> CrashFigures {
        let complete = || trials.iter().filter(|trial| trial.moments.len() == trial.pairs);
        let first: Vec<f64> = trials.iter().flat_map(|it| it.first.iter().copied()).collect();
        let all: Vec<f64> = complete().filter_map(|it| it.moments.last().copied()).collect();
        let batches: Vec<f64> = trials.iter().flat_map(|it| it.batches.iter().copied()).collect();
        let of = |values: &[f64], share| quantile(values, share).map(rounded);
        CrashFigures {
            first_p50_ms: of(&first, 0.5),
            first_p99_ms: of(&first, 0.99),
            all_p50_ms: of(&all, 0.5),
            all_p99_ms: of(&all, 0.99),
            all_max_ms: of(&all, 1.0),
            batches_p50: of(&batches, 0.5),
            batches_max: of(&batches, 1.0),
            false_downs: trials.iter().map(|trial| trial.false_downs).sum(),
            unaware: trials.iter().map(|trial| trial.pairs - trial.moments.len()).sum(),
        }
    }

    fn curves(&self, _: &Setup, trials: &[CrashTrial]) -> Vec<Curve> {
        let moments = trials.iter().flat_map(|trial| trial.moments.iter().copied()).collect();
        let pairs = trials.iter().map(|trial| trial.pairs).sum();
        vec![Curve::of_moments("know of the crash", moments, pairs)]
    }
}
