//! Random weather for many seeds: what failed, and how much a run that did not has really seen.
//!
//! ```
//! use rolecall::sim::swarm::{self, Swarm};
//!
//! let mut swarm = Swarm::default();
//! for seed in 0..2 {
//!     swarm.add(seed, &swarm::run(seed));
//! }
//! assert_eq!((swarm.seeds, swarm.failures), (2, 0));
//! ```

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;

use super::weather::Weather;

/// How often each kind of fault happened and each checker was put to the test.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Exercised {
    /// Faults, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Checks, by [checker](super::checks::Checks::NAMES).
    pub checks: BTreeMap<&'static str, u64>,
    /// The longest that it took until all agreed, in milliseconds of virtual time.
    pub slowest_calm_ms: u64,
    /// The largest share of its [bound](super::checks::Convergence::bound) that any needed.
    pub tightest_calm_percent: u64,
    /// How long it lasted, in milliseconds of virtual time.
    pub virtual_ms: u64,
}

impl Exercised {
    /// Adds what another run has seen.
    pub fn merge(&mut self, other: &Exercised) {
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (checker, count) in &other.checks {
            *self.checks.entry(checker).or_default() += count;
        }
        self.slowest_calm_ms = self.slowest_calm_ms.max(other.slowest_calm_ms);
        self.virtual_ms += other.virtual_ms;
        self.tightest_calm_percent = self.tightest_calm_percent.max(other.tightest_calm_percent);
    }

    /// The faults and the checks that have not happened at all.
    pub fn missing(&self) -> Vec<&'static str> {
        let checks = super::checks::Checks::NAMES.iter();
        let checks = checks.filter(|name| self.checks.get(*name).is_none_or(|count| *count == 0));
        let faults = super::weather::FAULTS.iter();
        let faults = faults.filter(|name| self.faults.get(*name).is_none_or(|count| *count == 0));
        checks.chain(faults).copied().collect()
    }
}

/// A seed that broke a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Which rule, when, where, and what was seen; or the panic's text.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.what)
    }
}

impl std::error::Error for Failure {}

/// Lives through the weather of one seed.
///
/// # Errors
/// When a rule is broken, or anything panics.
pub fn run(seed: u64) -> Result<Exercised, Failure> {
    live_through(Weather::new(seed))
}

/// Lives through some weather.
///
/// # Errors
/// When a rule is broken, or anything panics.
pub fn live_through(weather: Weather) -> Result<Exercised, Failure> {
    let seed = weather.seed();
    let failed = |what| Failure { seed, what };
    // What panicked is dropped with it, and never looked at again.
    match catch_unwind(AssertUnwindSafe(|| weather.live_through())) {
        Ok(lived) => lived.map_err(|violation| failed(violation.to_string())),
        Err(panic) => Err(failed(text_of(panic.as_ref()))),
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    text.unwrap_or_else(|| "a panic without a text".into())
}

/// What came of many seeds.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Swarm {
    /// How many there were.
    pub seeds: u64,
    /// How many failed.
    pub failures: u64,
    /// Those that failed.
    pub failing_seeds: Vec<u64>,
    /// What the others have seen.
    pub exercised: Exercised,
}

impl Swarm {
    /// Adds what came of one seed.
    pub fn add(&mut self, seed: u64, result: &Result<Exercised, Failure>) {
        self.seeds += 1;
        if let Ok(exercised) = result {
            self.exercised.merge(exercised);
        } else {
            self.failures += 1;
            self.failing_seeds.push(seed);
        }
    }

    /// Adds what came of other seeds.
    pub fn merge(&mut self, other: &Swarm) {
        self.seeds += other.seeds;
        self.failures += other.failures;
        self.failing_seeds.extend(&other.failing_seeds);
        self.failing_seeds.sort_unstable();
        self.exercised.merge(&other.exercised);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swarm_adds_up() {
        let failure = Err(Failure { seed: 7, what: "no".into() });
        let faults = BTreeMap::from([("crash", 2)]);
        let lived = Ok(Exercised { faults, slowest_calm_ms: 5, ..Exercised::default() });
        let (mut all, mut some) = (Swarm::default(), Swarm::default());
        some.add(7, &failure);
        all.add(8, &lived);
        all.merge(&some);
        all.add(9, &lived);
        assert_eq!((all.seeds, all.failures, &all.failing_seeds[..]), (3, 1, &[7][..]));
        assert_eq!((all.exercised.faults["crash"], all.exercised.slowest_calm_ms), (4, 5));
        assert!(all.exercised.missing().contains(&"pause"));
        assert!(!all.exercised.missing().contains(&"crash"));
        let json = serde_json::to_value(&all).unwrap();
        assert_eq!(json["failing_seeds"], serde_json::json!([7]));
        assert_eq!(json["exercised"]["faults"]["crash"], 4);
    }
}
