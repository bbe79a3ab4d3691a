//! Experiments: what a user wants to know of a cluster, measured in virtual time.
//!
//! A [`Scenario`] makes one trial from a [`Setup`] and a seed, and figures from many trials. Trials
//! depend on nothing but their seed, so that whoever runs them may do it on several threads.
//!
//! ```
//! use rolecall::sim::scenario::{Meter, Scenario, Setup, Spread};
//!
//! let setup = Setup { nodes: 32, trials: 3, ..Setup::default() };
//! let report = setup.run(&Spread::default(), &Meter::default());
//! assert_eq!(report.figures.missed, 0);
//! println!("known to all of 32 nodes after {:?} ms", report.figures.p50_ms);
//! ```

mod agreement;
mod anomaly;
mod changes;
mod churn;
mod crash;
mod join;
mod links;
mod partition;
mod pauses;
mod repair;
mod spread;
mod steady;
mod storm;

use std::time::Duration;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::faults::Faults;
use super::host::{HostId, HostSpec};
use super::simulation::Simulation;
use crate::config::Config;
use crate::proto::Rules;

pub use anomaly::{Anomaly, AnomalyFigures, AnomalyTrial};
pub use changes::{Changes, ChangesFigures, ChangesTrial};
pub use churn::{Churn, ChurnFigures, ChurnTrial};
pub use crash::{Crash, CrashFigures};
pub use join::{Join, JoinFigures};
pub use links::{LinkFault, Links, LinksFigures, LinksTrial};
pub use partition::{Partition, PartitionFigures, PartitionTrial};
pub use pauses::{Pauses, PausesFigures, PausesTrial};
pub use repair::{Repair, RepairFigures, RepairTrial};
pub use spread::{Spread, SpreadFigures, Via};
pub use steady::{Steady, SteadyFigures};
pub use storm::{Storm, StormFigures};

const SECOND: Duration = Duration::from_secs(1);

/// How long an acquainted cluster runs before anything is measured: each node has probed a few
/// others then, and compared itself with somebody.
const SETTLING: Duration = Duration::from_secs(10);

/// What all trials of a scenario have in common.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Nodes in the cluster.
    pub nodes: usize,
    /// Trials, each with a cluster and a seed of its own.
    pub trials: u32,
    /// The seed that the trials' seeds are drawn from.
    pub seed: u64,
    /// What the network does.
    pub faults: Faults,
    /// Every node's tuning.
    pub config: Config,
    /// The refinements over SWIM that are in force.
    pub rules: Rules,
    /// How many scopes there are.
    pub scopes: usize,
    /// In how many of them each node is.
    pub scopes_per_node: usize,
    /// How many roles each node has in each of its scopes.
    pub roles: usize,
    /// How long the scenario lasts, for those that can be longer or shorter.
    pub duration: Option<Duration>,
}

impl Default for Setup {
    /// 64 nodes of the `lan` preset on a data centre's network, all in one scope with one role.
    fn default() -> Setup {
        Setup {
            nodes: 64,
            trials: 10,
            seed: 1,
            faults: Faults::default(),
            config: Config::lan(),
            rules: Rules::ALL,
            scopes: 1,
            scopes_per_node: 3,
            roles: 1,
            duration: None,
        }
    }
}

/// Reads the machine's clock and allocator, which the simulator itself does not know.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    /// Time that has passed since some moment.
    pub wall: fn() -> Duration,
    /// Bytes allocated now; `None` if nobody counts.
    pub heap: fn() -> Option<usize>,
}

impl Default for Meter {
    /// Knows nothing.
    fn default() -> Meter {
        Meter { wall: || Duration::ZERO, heap: || None }
    }
}

/// What one trial measured.
#[derive(Clone, Debug)]
pub struct Measured<T> {
    /// The measurements.
    pub of: T,
    /// How long it lasted.
    pub virtual_time: Duration,
}

/// An experiment.
pub trait Scenario {
    /// What one trial measures.
    type Trial;
    /// What all of them add up to, by the names that they have in JSON.
    type Figures: Serialize;
    /// Its name on the command line.
    const NAME: &'static str;
    /// Whether trials can run side by side without disturbing what they measure.
    const SIDE_BY_SIDE: bool = true;

    /// Makes a trial.
    fn trial(&self, setup: &Setup, seed: u64, meter: &Meter) -> Measured<Self::Trial>;

    /// Adds trials up.
    fn figures(&self, setup: &Setup, trials: &[Self::Trial]) -> Self::Figures;

    /// Who knows what when, for a picture.
    fn curves(&self, setup: &Setup, trials: &[Self::Trial]) -> Vec<Curve>;
}

/// A line in a picture.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Curve {
    /// What it shows.
    pub label: String,
    /// Milliseconds, and a share from 0 to 1 or a count.
    pub points: Vec<(f64, f64)>,
}

impl Curve {
    /// The share of `of` that has been reached at each moment.
    pub(super) fn of_moments(label: &str, mut moments: Vec<f64>, of: usize) -> Curve {
        moments.sort_by(f64::total_cmp);
        let share = |(n, at): (usize, &f64)| (*at, ratio(n + 1, of));
        let points = std::iter::once((0.0, 0.0)).chain(moments.iter().enumerate().map(share));
        Curve { label: label.into(), points: points.collect() }
    }

    /// How much has happened up to each moment, on average of so many trials.
    pub(super) fn of_counts(label: &str, mut moments: Vec<f64>, trials: usize) -> Curve {
        moments.sort_by(f64::total_cmp);
        let each = ratio(1, trials);
        let count = |(n, at): (usize, &f64)| (*at, ratio(n + 1, 1) * each);
        Curve { label: label.into(), points: moments.iter().enumerate().map(count).collect() }
    }
}

/// What a scenario found out.
#[derive(Clone, Debug, Serialize)]
pub struct Report<F> {
    /// Its name.
    pub scenario: &'static str,
    /// Nodes in the cluster.
    pub nodes: usize,
    /// Trials made.
    pub trials: usize,
    /// The seed.
    pub seed: u64,
    /// The share of datagrams that the network loses in the long run.
    pub loss: f64,
    /// How long it took to compute, in seconds.
    pub wall_s: f64,
    /// How long all trials together lasted, in seconds of their own time.
    pub virtual_s: f64,
    /// What was measured.
    #[serde(flatten)]
    pub figures: F,
    /// Who knows what when.
    #[serde(skip)]
    pub curves: Vec<Curve>,
}

impl Setup {
    /// Makes all trials, one after the other.
    pub fn run<S: Scenario>(&self, scenario: &S, meter: &Meter) -> Report<S::Figures> {
        let start = (meter.wall)();
        let trials = self.seeds().map(|seed| scenario.trial(self, seed, meter)).collect();
        self.report(scenario, trials, (meter.wall)().saturating_sub(start))
    }

    /// The seeds of the trials.
    pub fn seeds(&self) -> impl Iterator<Item = u64> + use<> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        std::iter::repeat_with(move || rng.random()).take(self.trials as usize)
    }

    /// Adds up trials that were made in some other way, in `wall` of real time.
    pub fn report<S: Scenario>(
        &self,
        scenario: &S,
        trials: Vec<Measured<S::Trial>>,
        wall: Duration,
    ) -> Report<S::Figures> {
        let virtual_time: Duration = trials.iter().map(|trial| trial.virtual_time).sum();
        let trials: Vec<_> = trials.into_iter().map(|trial| trial.of).collect();
        Report {
            scenario: S::NAME,
            nodes: self.nodes,
            trials: trials.len(),
            seed: self.seed,
            loss: self.faults.loss.mean(),
            wall_s: rounded(wall.as_secs_f64()),
            virtual_s: rounded(virtual_time.as_secs_f64()),
            figures: scenario.figures(self, &trials),
            curves: scenario.curves(self, &trials),
        }
    }

    /// What is installed on the hosts: each node is in some of the scopes, chosen by the seed.
    pub(super) fn specs(&self, seed: u64) -> Vec<HostSpec> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut scopes: Vec<usize> = (0..self.scopes.max(1)).collect();
        let spec = |n: usize| {
            let seeds = (0..3).filter(|seed| *seed != n).map(Simulation::nth_addr);
            let mut spec = HostSpec::new(&format!("n{n}")).seeds(seeds);
            let (chosen, _) = scopes.partial_shuffle(&mut rng, self.scopes_per_node.max(1));
            for scope in chosen {
                let roles = (0..self.roles).map(|role| format!("role-{role}"));
                spec = spec.scope(&format!("scope-{scope}"), roles);
            }
            spec
        };
        (0..self.nodes).map(spec).collect()
    }

    /// An empty network. It has faults only from the moment that something is measured.
    pub(super) fn empty(&self, seed: u64) -> Simulation {
        let mut sim = Simulation::new(seed, self.config.clone()).lean();
        sim.set_faults(self.faults.clone());
        sim.set_rules(self.rules);
        sim
    }

    /// A cluster in which everybody knows everybody, and which has run for a while.
    pub(super) fn converged(&self, seed: u64) -> (Simulation, Vec<HostId>) {
        let mut sim = self.empty(seed);
        let hosts = sim.start_acquainted(self.specs(seed));
        sim.run(SETTLING);
        (sim, hosts)
    }
}

/// The smallest value that at least this share of the values does not exceed (nearest rank).
pub(super) fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts are small, and shares positive"
    )]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// Milliseconds.
pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// To the microsecond, or whatever a millionth is.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(super) fn ratio(part: usize, of: usize) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(super) fn per_node(total: u64, nodes: usize) -> f64 {
    if nodes == 0 { 0.0 } else { total as f64 / nodes as f64 }
}

/// How many a share of some nodes is: at least one, at most so many.
pub(super) fn share_of(share: f64, nodes: usize, most: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "shares of small counts"
    )]
    let count = (share * ratio(nodes, 1)).round() as usize;
    count.clamp(1, most.max(1))
}

/// Suspicions that all running nodes have begun so far.
pub(super) fn suspicions(sim: &Simulation) -> u64 {
    sim.running().map(|(_, node)| node.stats().suspicions).sum()
}

/// The mean of some values; 0 of none.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), Some(50.0));
        assert_eq!(quantile(&values, 0.99), Some(99.0));
        assert_eq!(quantile(&values, 1.0), Some(100.0));
        assert_eq!(quantile(&[3.0], 0.5), Some(3.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
