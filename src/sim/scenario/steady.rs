//! What a cluster costs in which nothing happens.

use std::ops::ControlFlow;

use serde::Serialize;

use super::{Curve, Measured, Meter, SECOND, Scenario, Setup};
use super::{mean, ms, per_node, rounded, suspicions};
use crate::event::Event;

/// Nothing happens for `duration` (60 s): what is sent, what is suspected, what it costs.
#[derive(Clone, Copy, Debug)]
pub struct Steady;

/// What a quiet cluster costs.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(documented::DocumentedFields))]
pub struct SteadyFigures {
    /// UDP payload that a node sends per second.
    pub bytes_per_node_s: f64,
    /// Datagrams that a node sends per second.
    pub datagrams_per_node_s: f64,
    /// Suspicions begun, at each node that began one, whether by its own probes or by hearsay.
    pub false_suspicions: u64,
    /// Nodes declared down, at each node where that was seen.
    pub false_downs: u64,
    /// Heap for each pair of an observer and a node that it knows; what nodes have in common in one
    /// process (names, addresses) counted once. `None` if nobody counts.
    pub heap_bytes_per_pair: Option<f64>,
    /// Microseconds of computing per node and second, the simulator's own share included.
    pub cpu_us_per_node_s: f64,
}

/// One trial.
#[derive(Clone, Debug)]
pub struct SteadyTrial {
    figures: SteadyFigures,
    /// Bytes that all nodes sent, second by second.
    bytes: Vec<u64>,
}

impl Scenario for Steady {
    type Trial = SteadyTrial;
    type Figures = SteadyFigures;
    const NAME: &'static str = "steady";
    const SIDE_BY_SIDE: bool = false;

    fn trial(&self, setup: &Setup, seed: u64, meter: &Meter) -> Measured<SteadyTrial> {
        let heap = (meter.heap)();
        let (mut sim, hosts) = setup.converged(seed);
        let duration = setup.duration.unwrap_or(60 * SECOND);
        let (before, doubted) = (sim.network().carried(), suspicions(&sim));
        let (start, wall) = (sim.now(), (meter.wall)());
        let mut false_downs = 0;
        let mut bytes = Vec::new();
        while sim.now() - start < duration {
            let sent = sim.network().carried().sent_bytes;
            sim.watch(SECOND.min(duration.saturating_sub(sim.now() - start)), |heard| {
                false_downs += u64::from(matches!(heard.event, Event::NodeDown { .. }));
                ControlFlow::Continue(())
            });
            bytes.push(sim.network().carried().sent_bytes - sent);
        }
        let wall = (meter.wall)().saturating_sub(wall);
        let after = sim.network().carried();
        let node_seconds = |total: f64| total / (duration.as_secs_f64().max(1e-9));
        let per_node_s = |total: u64| rounded(node_seconds(per_node(total, hosts.len())));
        let pairs = hosts.len() * hosts.len().saturating_sub(1);
        let grown = heap.zip((meter.heap)()).map(|(before, after)| after.saturating_sub(before));
        let micros = u64::try_from(wall.as_micros()).unwrap_or(u64::MAX);
        let figures = SteadyFigures {
            bytes_per_node_s: per_node_s(after.sent_bytes - before.sent_bytes),
            datagrams_per_node_s: per_node_s(after.sent - before.sent),
            false_suspicions: suspicions(&sim) - doubted,
            false_downs,
            heap_bytes_per_pair: grown.map(|bytes| rounded(super::ratio(bytes, pairs))),
            cpu_us_per_node_s: per_node_s(micros),
        };
        let virtual_time = sim.now() - crate::time::Instant::ORIGIN;
        Measured { of: SteadyTrial { figures, bytes }, virtual_time }
    }

    fn figures(&self, _: &Setup, trials: &[SteadyTrial]) -> SteadyFigures {
        let all = || trials.iter().map(|trial| &trial.figures);
        let heap: Vec<f64> = all().filter_map(|figures| figures.heap_bytes_per_pair).collect();
        SteadyFigures {
            bytes_per_node_s: rounded(mean(all().map(|it| it.bytes_per_node_s))),
            datagrams_per_node_s: rounded(mean(all().map(|it| it.datagrams_per_node_s))),
            false_suspicions: all().map(|it| it.false_suspicions).sum(),
            false_downs: all().map(|it| it.false_downs).sum(),
            heap_bytes_per_pair: (!heap.is_empty()).then(|| rounded(mean(heap.into_iter()))),
            cpu_us_per_node_s: rounded(mean(all().map(|it| it.cpu_us_per_node_s))),
        }
    }

    fn curves(&self, setup: &Setup, trials: &[SteadyTrial]) -> Vec<Curve> {
        let Some(first) = trials.first() else { return Vec::new() };
        let at = |second: usize| ms(SECOND * u32::try_from(second).unwrap_or(u32::MAX));
        let points = first.bytes.iter().enumerate();
        let points = points.map(|(n, bytes)| (at(n + 1), per_node(*bytes, setup.nodes)));
        vec![Curve { label: "bytes per node and second".into(), points: points.collect() }]
    }
}
