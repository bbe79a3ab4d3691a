//! What a partition leaves behind.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::agreement::{agree, lost_updates};
use super::{Curve, Measured, Meter, SECOND, Scenario, Setup, ms, quantile, rounded};
use crate::proto::{Command, Protocol};
use crate::role::Role;
use crate::sim;
use crate::sim::{HostId, Simulation};
use crate::time::Instant;

/// Halves that have not found each other by then have not found each other.
const LIMIT: Duration = Duration::from_secs(300);

/// How often agreement is looked for after the healing.
const STEP: Duration = Duration::from_millis(50);

/// Role changes on each side while they are apart.
const MIN_CHANGES: u32 = 20;

/// The halves of a cluster are cut off from each other for `duration` (60 s), roles change on both
/// sides, the network heals.
#[derive(Clone, Copy, Debug)]
pub struct Partition;

/// How a cluster healed.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(documented::DocumentedFields))]
pub struct PartitionFigures {
    /// From the healing until all agree on members and roles: median of the trials, of those in
    /// which that came about.
    pub agreed_ms: Option<f64>,
    /// The worst trial.
    pub agreed_max_ms: Option<f64>,
    /// Trials in which not all agreed within 300 s.
    pub apart: usize,
    /// Role changes that somebody of the scope still lacked at the end, of all trials.
    pub lost_updates: u64,
    /// The largest share of the nodes that a node held dead before the healing: about half, if the
    /// partition was longer than a detection takes.
    pub held_dead: f64,
}

/// One trial.
#[derive(Clone, Debug)]
pub struct PartitionTrial {
    agreed: Option<f64>,
    lost: u64,
    held_dead: f64,
    /// The share of the nodes that know all others, as time passes after the healing.
    whole: Vec<(f64, f64)>,
}

/// A node gives up a role that it has and takes another.
fn change_roles(sim: &mut Simulation, host: HostId, n: u32) {
    let node = sim.node(host).expect("it runs");
    let scope = node.scopes()[0].clone();
    let old = node.roles(&scope, node.local().id()).first().cloned();
    let take = Command::AddRoles { scope: scope.clone(), roles: vec![Role::from(n)] };
    let drop = Command::RemoveRoles { scope, roles: old.into_iter().collect() };
    for command in [take, drop] {
        sim.command(host, command).expect("a running node can");
    }
}

impl Scenario for Partition {
    type Trial = PartitionTrial;
    type Figures = PartitionFigures;
    const NAME: &'static str = "partition";

    fn trial(&self, setup: &Setup, seed: u64, _: &Meter) -> Measured<PartitionTrial> {
        let (mut sim, hosts) = setup.converged(seed);
        let mut rng = ChaCha8Rng::seed_from_u64(!seed);
        let (left, right) = hosts.split_at(hosts.len() / 2);
        let addrs = |side: &[HostId]| side.iter().map(|host| sim.addr(*host)).collect::<Vec<_>>();
        let cut = sim::Partition::between(addrs(left), addrs(right));
        let cut = sim.partition(cut);
        let duration = setup.duration.unwrap_or(60 * SECOND);
        // A node in ten changes what it has.
        let tenth = u32::try_from(hosts.len() / 20).unwrap_or(u32::MAX);
        let changes = MIN_CHANGES.max(tenth);
        for n in 0..changes {
            for side in [left, right] {
                change_roles(&mut sim, side[rng.random_range(0..side.len())], n);
            }
            sim.run(duration / changes);
        }
        let nodes = hosts.len();
        let of_all = |members: usize| super::ratio(nodes - members.min(nodes), nodes);
        let members = |node: &Protocol| node.digest().members.count as usize;
        let held = sim.running().map(|(_, node)| of_all(members(node)));
        let held_dead = held.fold(0.0, f64::max);
        sim.heal(cut);
        let start = sim.now();
        let mut whole = Vec::new();
        let agreed = sim.run_until(LIMIT, STEP, |sim| {
            let complete = sim.running().filter(|(_, node)| members(node) == nodes).count();
            whole.push((ms(sim.now() - start), super::ratio(complete, nodes)));
            complete == nodes && agree(sim)
        });
        let lost = lost_updates(&sim);
        let of = PartitionTrial { agreed: agreed.map(ms), lost, held_dead, whole };
        Measured { of, virtual_time: sim.now() - Instant::ORIGIN }
    }

    fn figures(&self, _: &Setup, trials: &[PartitionTrial]) -> PartitionFigures {
        let agreed: Vec<f64> = trials.iter().filter_map(|trial| trial.agreed).collect();
        PartitionFigures {
            agreed_ms: quantile(&agreed, 0.5).map(rounded),
            agreed_max_ms: quantile(&agreed, 1.0).map(rounded),
            apart: trials.len() - agreed.len(),
            lost_updates: trials.iter().map(|trial| trial.lost).sum(),
            held_dead: rounded(trials.iter().map(|trial| trial.held_dead).fold(0.0, f64::max)),
        }
    }

    fn curves(&self, _: &Setup, trials: &[PartitionTrial]) -> Vec<Curve> {
        let trials = trials.iter().enumerate().take(10);
        let curve = |(n, trial): (usize, &PartitionTrial)| Curve {
            label: format!("nodes that know all, trial {}", n + 1),
            points: trial.whole.clone(),
        };
        trials.map(curve).collect()
    }
}
