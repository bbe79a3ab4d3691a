//! How long a cluster takes to form when all nodes start at once.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{
    Curve, Measured, Meter, SECOND, Scenario, Setup, mean, ms, per_node, quantile, rounded,
};
use crate::event::Event;
use crate::sim::{Heard, HostId};
use crate::time::Instant;

const LIMIT: Duration = Duration::from_secs(300);

/// All nodes start within a second of each other, through three seeds which are among them.
#[derive(Clone, Copy, Debug)]
pub struct Storm;

/// How a cluster formed.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(documented::DocumentedFields))]
pub struct StormFigures {
    /// From the first start until every node knows every other and its roles: median of the trials,
    /// of those in which that came about.
    pub all_converged_ms: Option<f64>,
    /// Until 99 % of the nodes know every other.
    pub p99_converged_ms: Option<f64>,
    /// Bytes (UDP payload) that a node sent until then.
    pub bytes_per_node: f64,
    /// Trials that were not complete after 300 s.
    pub incomplete: usize,
}

/// One trial.
#[derive(Clone, Debug)]
pub struct StormTrial {
    /// When each node knew all others, in milliseconds, in order.
    moments: Vec<f64>,
    nodes: usize,
    bytes: f64,
}

impl Scenario for Storm {
    type Trial = StormTrial;
    type Figures = StormFigures;
    const NAME: &'static str = "storm";

    fn trial(&self, setup: &Setup, seed: u64, _: &Meter) -> Measured<StormTrial> {
        let mut sim = setup.empty(seed);
        let mut rng = ChaCha8Rng::seed_from_u64(!seed);
        let hosts: Vec<HostId> = setup.specs(seed).into_iter().map(|it| sim.install(it)).collect();
        let mut starts: Vec<(Duration, HostId)> =
            hosts.iter().map(|host| (SECOND.mul_f64(rng.random()), *host)).collect();
        starts.sort_unstable();
        let others = hosts.len() - 1;
        let mut met = vec![0_usize; hosts.len()];
        let mut complete: BTreeMap<HostId, Instant> = BTreeMap::new();
        let mut watcher = |heard: Heard<'_>| {
            let count = &mut met[heard.host.index()];
            match heard.event {
                Event::NodeUp { .. } => *count += 1,
                Event::NodeDown { .. } => *count -= 1,
                _ => return ControlFlow::Continue(()),
            }
            if *count == others {
                complete.insert(heard.host, heard.at);
            } else {
                complete.remove(&heard.host);
            }
            let all = complete.len() == others + 1;
            if all { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        for (at, host) in starts {
            sim.watch(at.saturating_sub(sim.now() - Instant::ORIGIN), &mut watcher);
            sim.restart(host);
        }
        sim.watch(LIMIT, &mut watcher);
        let mut moments: Vec<f64> = complete.values().map(|at| ms(*at - Instant::ORIGIN)).collect();
        moments.sort_by(f64::total_cmp);
        let bytes = per_node(sim.network().carried().sent_bytes, hosts.len());
        let of = StormTrial { moments, nodes: hosts.len(), bytes };
        Measured { of, virtual_time: sim.now() - Instant::ORIGIN }
    }

    fn figures(&self, _: &Setup, trials: &[StormTrial]) -> StormFigures {
        let complete = || trials.iter().filter(|trial| trial.moments.len() == trial.nodes);
        let all: Vec<f64> = complete().filter_map(|it| it.moments.last().copied()).collect();
        let most: Vec<f64> =
            trials.iter().filter_map(|it| it.moments.get(it.nodes * 99 / 100).copied()).collect();
        StormFigures {
            all_converged_ms: quantile(&all, 0.5).map(rounded),
            p99_converged_ms: quantile(&most, 0.5).map(rounded),
            bytes_per_node: rounded(mean(trials.iter().map(|trial| trial.bytes))),
            incomplete: trials.len() - complete().count(),
        }
    }

    fn curves(&self, _: &Setup, trials: &[StormTrial]) -> Vec<Curve> {
        let moments = trials.iter().flat_map(|trial| trial.moments.iter().copied()).collect();
        let nodes = trials.iter().map(|trial| trial.nodes).sum();
        vec![Curve::of_moments("know everybody", moments, nodes)]
    }
}
