//! Lifeguard's experiments: some nodes are slow, and healthy ones may pay for it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use rand::seq::index::sample;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{Curve, Measured, Meter, SECOND, Scenario, Setup, ms, quantile, rounded};
use crate::event::{DownReason, Event};
use crate::node::NodeId;
use crate::sim::{Heard, HostId, Simulation};
use crate::time::Instant;

/// The quiet before the first anomaly (Lifeguard, section V.D).
const QUIET: Duration = Duration::from_secs(15);

/// Anomalies go on for at least so long (likewise).
const SPAN: Duration = Duration::from_secs(120);

/// Some nodes are [blocked](crate::sim::Activity::Blocked), over and over again, all at the same
/// times (Lifeguard, section V.D, the *interval* experiment), or once (the *threshold* experiment).
#[derive(Clone, Copy, Debug)]
pub struct Anomaly {
    /// How many nodes block (the paper's C).
    pub concurrent: usize,
    /// For how long at a time (its D).
    pub anomaly: Duration,
    /// How long they run between (its I).
    pub interval: Duration,
    /// Whether they block only once: what is asked then is how soon that is found out.
    pub threshold: bool,
}

/// What anomalies did.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(documented::DocumentedFields))]
pub struct AnomalyFigures {
    /// False positives: healthy nodes declared down, at each node where that was witnessed.
    pub fp: u64,
    /// Those seen at healthy nodes.
    pub fp_healthy: u64,
    /// Datagrams that all nodes sent.
    pub messages: u64,
    /// Their bytes (UDP payload).
    pub bytes: u64,
    /// From the start of an anomaly until a first healthy node declares its node down: median over
    /// nodes and trials. Of `threshold` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_p50_ms: Option<f64>,
    /// The 99th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_p99_ms: Option<f64>,
    /// The 99.9th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_p999_ms: Option<f64>,
    /// Until the last healthy node knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_p50_ms: Option<f64>,
    /// The 99th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_p99_ms: Option<f64>,
    /// The 99.9th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_p999_ms: Option<f64>,
    /// Anomalies that nobody declared a node down for, which is right if they were short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undetected: Option<usize>,
}

/// One trial.
#[derive(Clone, Debug, Default)]
pub struct AnomalyTrial {
    /// False positives at any node, and at a healthy one.
    pub(crate) fp: (u64, u64),
    /// Datagrams and bytes.
    pub(crate) sent: (u64, u64),
    /// For each blocked node, when the first and when the last healthy node knew, if any did.
    pub(crate) first: Vec<f64>,
    pub(crate) full: Vec<f64>,
    blocked: usize,
    /// When false positives were seen, in milliseconds.
    moments: Vec<f64>,
}

/// Sees who is declared down where.
struct Witnessed {
    healthy: usize,
    start: Instant,
    blocked: BTreeMap<NodeId, BTreeSet<HostId>>,
    blocked_hosts: BTreeSet<HostId>,
    first: BTreeMap<NodeId, f64>,
    full: BTreeMap<NodeId, f64>,
    trial: AnomalyTrial,
}

impl Witnessed {
    fn hear(&mut self, heard: Heard<'_>) {
        let Event::NodeDown { node, reason: DownReason::Failed(_) } = heard.event else { return };
        let at_healthy = !self.blocked_hosts.contains(&heard.host);
        let at = ms(heard.at - self.start);
        match self.blocked.get_mut(&node.id()) {
            Some(knowing) if at_healthy => {
                self.first.entry(node.id()).or_insert(at);
                if knowing.insert(heard.host) && knowing.len() == self.healthy {
                    self.full.insert(node.id(), at);
                }
            }
            Some(_) => {}
            None => {
                self.trial.fp.0 += 1;
                self.trial.fp.1 += u64::from(at_healthy);
                self.trial.moments.push(at);
            }
        }
    }

    fn all_know(&self) -> bool {
        self.full.len() == self.blocked.len()
    }
}

impl Anomaly {
    /// Stalls the nodes once, or over and over.
    fn afflict(&self, sim: &mut Simulation, hosts: &[HostId], witnessed: &mut Witnessed) {
        let mut watch = |sim: &mut Simulation, duration: Duration, until_known: bool| {
            sim.watch(duration, |heard| {
                witnessed.hear(heard);
                let over = until_known && witnessed.all_know();
                if over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        };
        let start = sim.now();
        loop {
            hosts.iter().for_each(|host| sim.block(*host));
            let known = watch(sim, self.anomaly, self.threshold).is_some();
            hosts.iter().for_each(|host| sim.resume(*host));
            if self.threshold {
                if !known {
                    // What was decided while it lasted may still be on its way.
                    watch(sim, 5 * SECOND, true);
                }
                return;
            }
            if sim.now() - start >= SPAN {
                return;
            }
            watch(sim, self.interval, false);
        }
    }
}

impl Scenario for Anomaly {
    type Trial = AnomalyTrial;
    type Figures = AnomalyFigures;
    const NAME: &'static str = "anomaly";

    fn trial(&self, setup: &Setup, seed: u64, _: &Meter) -> Measured<AnomalyTrial> {
        let mut sim = setup.empty(seed);
        let hosts = sim.start_acquainted(setup.specs(seed));
        let mut rng = ChaCha8Rng::seed_from_u64(!seed);
        sim.run(QUIET + SECOND.mul_f64(rng.random()));
        let concurrent = self.concurrent.min(hosts.len());
        let chosen: Vec<HostId> =
            sample(&mut rng, hosts.len(), concurrent).iter().map(|n| hosts[n]).collect();
        let mut witnessed = Witnessed {
            healthy: hosts.len() - concurrent,
            start: sim.now(),
            blocked: chosen.iter().map(|host| (sim.id_of(*host), BTreeSet::new())).collect(),
            blocked_hosts: chosen.iter().copied().collect(),
            first: BTreeMap::new(),
            full: BTreeMap::new(),
            trial: AnomalyTrial { blocked: concurrent, ..AnomalyTrial::default() },
        };
        self.afflict(&mut sim, &chosen, &mut witnessed);
        let carried = sim.network().carried();
        let of = AnomalyTrial {
            sent: (carried.sent, carried.sent_bytes),
            first: witnessed.first.into_values().collect(),
            full: witnessed.full.into_values().collect(),
            ..witnessed.trial
        };
        Measured { of, virtual_time: sim.now() - Instant::ORIGIN }
    }

    fn figures(&self, _: &Setup, trials: &[AnomalyTrial]) -> AnomalyFigures {
        let mut figures = AnomalyFigures::default();
        for trial in trials {
            figures.fp += trial.fp.0;
            figures.fp_healthy += trial.fp.1;
            figures.messages += trial.sent.0;
            figures.bytes += trial.sent.1;
        }
        if self.threshold {
            let first: Vec<f64> = trials.iter().flat_map(|it| it.first.iter().copied()).collect();
            let full: Vec<f64> = trials.iter().flat_map(|it| it.full.iter().copied()).collect();
            let of = |values: &[f64], share| quantile(values, share).map(rounded);
            figures.first_p50_ms = of(&first, 0.5);
            figures.first_p99_ms = of(&first, 0.99);
            figures.first_p999_ms = of(&first, 0.999);
            figures.full_p50_ms = of(&full, 0.5);
            figures.full_p99_ms = of(&full, 0.99);
            figures.full_p999_ms = of(&full, 0.999);
            let blocked: usize = trials.iter().map(|trial| trial.blocked).sum();
            figures.undetected = Some(blocked - first.len());
        }
        figures
    }

    fn curves(&self, _: &Setup, trials: &[AnomalyTrial]) -> Vec<Curve> {
        let all = |of: fn(&AnomalyTrial) -> &Vec<f64>| {
            trials.iter().flat_map(|trial| of(trial).iter().copied()).collect::<Vec<f64>>()
        };
        if self.threshold {
            let blocked = trials.iter().map(|trial| trial.blocked).sum();
            let label = "blocked nodes declared down by ";
            return vec![
                Curve::of_moments(&format!("{label}one"), all(|trial| &trial.first), blocked),
                Curve::of_moments(&format!("{label}all"), all(|trial| &trial.full), blocked),
            ];
        }
        let moments = all(|trial| &trial.moments);
        vec![Curve::of_counts("false positives per trial", moments, trials.len())]
    }
}
