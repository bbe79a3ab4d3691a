//! What pauses of the machines do to a cluster in which nobody dies.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{Curve, Measured, Meter, SECOND, Scenario, Setup, mean, ms, per_node, rounded};
use super::{share_of, suspicions};
use crate::event::{DownReason, Event};
use crate::sim::{Activity, HostId, Simulation};
use crate::time::Instant;

/// What was decided while nodes paused may still be on its way.
const CALM: Duration = Duration::from_secs(5);

/// For `duration` (300 s) some of the nodes are [paused](crate::sim::Activity::Paused) at any
/// moment, drawn at random one after another: garbage collectors, virtual machines that move.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    /// How long each pause is.
    pub pause: Duration,
    /// The share of the nodes that is paused at a time; at least one node is, and one is not.
    pub share: f64,
}

impl Default for Pauses {
    /// A twentieth of the nodes, for a second each: as long as the default tolerance.
    fn default() -> Pauses {
        Pauses { pause: SECOND, share: 0.05 }
    }
}

/// What pauses did.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(documented::DocumentedFields))]
pub struct PausesFigures {
    /// Pauses made.
    pub pauses: u64,
    /// Nodes declared down though nobody died, at each node where that was seen, of all trials.
    pub false_downs: u64,
    /// Suspicions begun, at each node that began one.
    pub suspicions: u64,
    /// UDP payload that a node sends per second.
    pub bytes_per_node_s: f64,
}

/// One trial.
#[derive(Clone, Debug)]
pub struct PausesTrial {
    figures: PausesFigures,
    /// When nodes were declared down, in milliseconds.
    moments: Vec<f64>,
}

impl Pauses {
    /// Pauses nodes for so long, each of so many at a time in a turn of its own; how many pauses
    /// that were.
    fn afflict(
        &self,
        sim: &mut Simulation,
        hosts: &[HostId],
        duration: Duration,
        rng: &mut ChaCha8Rng,
        mut watch: impl FnMut(&mut Simulation, Duration),
    ) -> u64 {
        let at_a_time = share_of(self.share, hosts.len(), hosts.len() - 1);
        let end = sim.now() + duration;
        let begins = |_| (sim.now() + self.pause.mul_f64(rng.random()), None);
        let mut turns: BTreeSet<(Instant, Option<HostId>)> = (0..at_a_time).map(begins).collect();
        let mut pauses = 0;
        while let Some((at, woken)) = turns.pop_first().filter(|(at, _)| *at < end) {
            let before = at - sim.now();
            watch(sim, before);
            // The next one is chosen before this one wakes, so that no pause grows into the next.
            let running = |host: &&HostId| sim.activity(**host) == Activity::Running;
            let running: Vec<HostId> = hosts.iter().filter(running).copied().collect();
            let next = *running.choose(rng).expect("somebody runs");
            sim.pause(next);
            pauses += 1;
            turns.insert((at + self.pause, Some(next)));
            woken.into_iter().for_each(|host| sim.resume(host));
        }
        let left = end - sim.now();
        watch(sim, left);
        hosts.iter().for_each(|host| sim.resume(*host));
        pauses
    }
}

impl Scenario for Pauses {
    type Trial = PausesTrial;
    type Figures = PausesFigures;
    const NAME: &'static str = "pauses";

    fn trial(&self, setup: &Setup, seed: u64, _: &Meter) -> Measured<PausesTrial> {
        let (mut sim, hosts) = setup.converged(seed);
        let mut rng = ChaCha8Rng::seed_from_u64(!seed);
        let duration = setup.duration.unwrap_or(300 * SECOND);
        let (start, sent) = (sim.now(), sim.network().carried().sent_bytes);
        let doubted = suspicions(&sim);
        let mut moments = Vec::new();
        let mut watch = |sim: &mut Simulation, duration: Duration| {
            sim.watch(duration, |heard| {
                if let Event::NodeDown { reason: DownReason::Failed(_), .. } = heard.event {
                    moments.push(ms(heard.at - start));
                }
                ControlFlow::Continue(())
            });
        };
        let pauses = self.afflict(&mut sim, &hosts, duration, &mut rng, &mut watch);
        let sent = sim.network().carried().sent_bytes - sent;
        watch(&mut sim, CALM);
        let figures = PausesFigures {
            pauses,
            false_downs: moments.len() as u64,
            suspicions: suspicions(&sim) - doubted,
            bytes_per_node_s: per_node(sent, hosts.len()) / duration.as_secs_f64().max(1e-9),
        };
        let of = PausesTrial { figures, moments };
        Measured { of, virtual_time: sim.now() - Instant::ORIGIN }
    }

    fn figures(&self, _: &Setup, trials: &[PausesTrial]) -> PausesFigures {
        let all = || trials.iter().map(|trial| &trial.figures);
        PausesFigures {
            pauses: all().map(|it| it.pauses).sum(),
            false_downs: all().map(|it| it.false_downs).sum(),
            suspicions: all().map(|it| it.suspicions).sum(),
            bytes_per_node_s: rounded(mean(all().map(|it| it.bytes_per_node_s))),
        }
    }

    fn curves(&self, _: &Setup, trials: &[PausesTrial]) -> Vec<Curve> {
        let moments = trials.iter().flat_map(|trial| trial.moments.iter().copied()).collect();
        vec![Curve::of_counts("false downs per trial", moments, trials.len())]
    }
}
