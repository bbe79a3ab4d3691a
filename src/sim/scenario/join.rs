//! How long a newcomer takes to be known, and to know.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use serde::Serialize;

use super::{Curve, Measured, Meter, Scenario, Setup, mean, ms, per_node, quantile, rounded};
use crate::event::Event;
use crate::sim::{Heard, HostId, HostSpec, Simulation};
use crate::time::Instant;

const LIMIT: Duration = Duration::from_secs(300);

/// For so long traffic is compared, before and after.
const WINDOW: Duration = Duration::from_secs(10);

/// One more node joins a converged cluster through three seeds.
#[derive(Clone, Copy, Debug)]
pub struct Join;

/// How a newcomer got on.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(documented::DocumentedFields))]
pub struct JoinFigures {
    /// Until the last of the others knows it: median of the trials.
    pub known_by_all_p50_ms: Option<f64>,
    /// The 99th percentile.
    pub known_by_all_p99_ms: Option<f64>,
    /// Until it knows all others and their roles: median of the trials.
    pub knows_all_p50_ms: Option<f64>,
    /// The 99th percentile.
    pub knows_all_p99_ms: Option<f64>,
    /// Trials in which one or the other did not come about within 300 s.
    pub incomplete: usize,
    /// Bytes (UDP payload) that all nodes together sent beyond what they send anyway.
    pub bytes_total: f64,
}

/// One trial.
#[derive(Clone, Debug)]
pub struct JoinTrial {
    /// When each of the others knew it, in milliseconds, in order.
    known: Vec<f64>,
    /// When it knew each of the others.
    learned: Vec<f64>,
    others: usize,
    bytes: f64,
}

impl Scenario for Join {
    type Trial = JoinTrial;
    type Figures = JoinFigures;
    const NAME: &'static str = "join";

    fn trial(&self, setup: &Setup, seed: u64, _: &Meter) -> Measured<JoinTrial> {
        let (mut sim, hosts) = setup.converged(seed);
        let others = hosts.len();
        let carried = sim.network().carried();
        sim.run(WINDOW);
        let idle = sim.network().carried();
        let start = sim.now();
        let newcomer = sim.start(newcomer(setup, seed));
        let id = sim.node(newcomer).expect("it runs").local().id();
        let mut known: BTreeMap<HostId, Instant> = BTreeMap::new();
        let (mut met, mut learned) = (BTreeSet::new(), Vec::new());
        let watcher = |heard: Heard<'_>| {
            if let Event::NodeUp { node } = heard.event {
                if heard.host == newcomer && met.insert(node.id()) {
                    learned.push(ms(heard.at - start));
                } else if node.id() == id {
                    known.entry(heard.host).or_insert(heard.at);
                }
            }
            let all = known.len() == others && learned.len() == others;
            if all { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        sim.watch(LIMIT, watcher);
        sim.run(WINDOW.saturating_sub(sim.now() - start));
        let after = sim.network().carried();
        let windows = (sim.now() - start).as_secs_f64() / WINDOW.as_secs_f64();
        let usual = per_node(idle.sent_bytes - carried.sent_bytes, others) * windows;
        #[expect(clippy::cast_precision_loss, reason = "a number of hosts")]
        let usual = usual * (others + 1) as f64;
        let mut known: Vec<f64> = known.values().map(|at| ms(*at - start)).collect();
        known.sort_by(f64::total_cmp);
        let bytes = per_node(after.sent_bytes - idle.sent_bytes, 1) - usual;
        let of = JoinTrial { known, learned, others, bytes };
        Measured { of, virtual_time: sim.now() - Instant::ORIGIN }
    }

    fn figures(&self, _: &Setup, trials: &[JoinTrial]) -> JoinFigures {
        let last = |moments: &Vec<f64>, others: usize| moments.get(others.max(1) - 1).copied();
        let known: Vec<f64> = trials.iter().filter_map(|it| last(&it.known, it.others)).collect();
        let learned: Vec<f64> =
            trials.iter().filter_map(|it| last(&it.learned, it.others)).collect();
        let complete =
            |it: &&JoinTrial| it.known.len() == it.others && it.learned.len() == it.others;
        let of = |values: &[f64], share| quantile(values, share).map(rounded);
        JoinFigures {
            known_by_all_p50_ms: of(&known, 0.5),
            known_by_all_p99_ms: of(&known, 0.99),
            knows_all_p50_ms: of(&learned, 0.5),
            knows_all_p99_ms: of(&learned, 0.99),
            incomplete: trials.len() - trials.iter().filter(complete).count(),
            bytes_total: rounded(mean(trials.iter().map(|trial| trial.bytes))),
        }
    }

    fn curves(&self, _: &Setup, trials: &[JoinTrial]) -> Vec<Curve> {
        let others: usize = trials.iter().map(|trial| trial.others).sum();
        let all = |of: fn(&JoinTrial) -> &Vec<f64>| {
            trials.iter().flat_map(|trial| of(trial).iter().copied()).collect::<Vec<_>>()
        };
        vec![
            Curve::of_moments("know the newcomer", all(|trial| &trial.known), others),
            Curve::of_moments("the newcomer knows", all(|trial| &trial.learned), others),
        ]
    }
}

/// A node like the others, beside them.
fn newcomer(setup: &Setup, seed: u64) -> HostSpec {
    let one_more = Setup { nodes: setup.nodes + 1, ..setup.clone() };
    let spec = one_more.specs(seed).pop().expect("there is at least one");
    spec.addr(Simulation::nth_addr(setup.nodes))
}
