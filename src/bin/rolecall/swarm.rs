//! `rolecall sim swarm`: random weather for many seeds, and how much of it there really was.

use std::cell::RefCell;
use std::ops::Range;
use std::panic;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use rolecall::sim::checks::Checks;
use rolecall::sim::swarm::{self, Exercised, Failure, Swarm};
use rolecall::sim::weather::{self, FAULTS, Weather};
use serde_json::{Value, json};

use crate::args::PlainArgs;
use crate::job::Progress;
use crate::table;

thread_local! {
    /// Where the seed that this thread lives through has panicked; `None` while there is no seed.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Live through random weather for many seeds: is any rule ever broken?
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Each seed draws a cluster, a network and what befalls both; every rule is checked at every turn, and
in the calm after it all must agree with the truth. Seeds that fail are printed as they are found,
and end with exit code 1.

Examples:
  rolecall sim swarm --seeds 0..10000
  rolecall sim swarm --seeds 1363                           one seed again
  rolecall sim swarm --seeds 1363 --without stall,\"other network\"   what does it take to fail?")]
pub(crate) struct SwarmArgs {
    /// The seeds, the last one excluded; or a single one
    #[arg(long, value_name = "A..B", default_value = "0..200", value_parser = seeds)]
    seeds: Range<u64>,
    /// Leave out kinds of weather
    #[arg(long, value_name = "KIND,...", value_delimiter = ',', value_parser = kind)]
    without: Vec<&'static str>,
    #[command(flatten)]
    output: PlainArgs,
}

impl SwarmArgs {
    /// Lives through all; returns what there is to print, and whether that is good or bad.
    pub(crate) fn run(&self) -> (String, ExitCode) {
        hush();
        let start = Instant::now();
        let swarm = self.all(|seed| self.live(seed));
        let wall_s = start.elapsed().as_secs_f64();
        let code = if swarm.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        (self.report(&swarm, wall_s), code)
    }

    /// What came of all seeds, each of which `live` lives through, side by side.
    fn all(&self, live: impl Fn(u64) -> Result<Exercised, Failure> + Sync) -> Swarm {
        let count = usize::try_from(self.seeds.end - self.seeds.start).unwrap_or(usize::MAX);
        let progress = Progress::new(&self.output, count, "seeds");
        let one = |seed| {
            let result = live(seed);
            if let Err(failure) = &result {
                progress.say(&failure.to_string());
            }
            progress.step();
            let mut swarm = Swarm::default();
            swarm.add(seed, &result);
            swarm
        };
        let both = |mut one: Swarm, other: Swarm| {
            one.merge(&other);
            one
        };
        self.seeds.clone().into_par_iter().map(one).reduce(Swarm::default, both)
    }

    fn live(&self, seed: u64) -> Result<Exercised, Failure> {
        let weather = self.without.iter().fold(Weather::new(seed), |it, kind| it.without(kind));
        PLACE.set(Some(String::new()));
        let result = swarm::live_through(weather);
        let place = PLACE.take().filter(|place| !place.is_empty());
        result.map_err(|Failure { seed, what }| {
            let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
            Failure { seed, what: format!("{what}{place}") }
        })
    }

    fn report(&self, swarm: &Swarm, wall_s: f64) -> String {
        if self.output.json {
            return format!("{}\n", self.json(swarm, wall_s));
        }
        let exercised = &swarm.exercised;
        let counts = |kinds: &[&'static str], of: fn(&Exercised, &str) -> Option<u64>| {
            let count = |kind: &&'static str| (*kind, of(exercised, kind).unwrap_or(0));
            kinds.iter().map(count).collect::<Vec<_>>()
        };
        let faults = counts(&FAULTS, |it, kind| it.faults.get(kind).copied());
        let checks = counts(&Checks::NAMES, |it, kind| it.checks.get(kind).copied());
        let table = table::exercised(&[("weather", &faults), ("check", &checks)]);
        let seeds = match self.seeds {
            Range { start, .. } if swarm.seeds == 1 => format!("1 seed ({start})"),
            Range { start, end } => format!("{} seeds ({start}..{end})", swarm.seeds),
        };
        let without = match &self.without[..] {
            [] => String::new(),
            kinds => format!(", without {}", kinds.join(", ")),
        };
        let failing = match &swarm.failing_seeds[..] {
            [] => String::new(),
            seeds => format!("\nfailing seeds: {}", words(seeds)),
        };
        format!(
            "swarm: {seeds}{without}: {} failed, in {} s\n{table}\n\
             All agreed after at most {} ms of calm, at most {} % of what is allowed.{failing}\n",
            swarm.failures,
            table::number(wall_s),
            table::text(&exercised.slowest_calm_ms.into()),
            exercised.tightest_calm_percent,
        )
    }

    /// Each seed draws its own nodes and losses, so that there are none to tell.
    fn json(&self, swarm: &Swarm, wall_s: f64) -> Value {
        let mut report = json!({
            "scenario": "swarm",
            "nodes": null,
            "trials": swarm.seeds,
            "seed": self.seeds.start,
            "loss": null,
            "wall_s": table::rounded(wall_s),
            "virtual_s": Duration::from_millis(swarm.exercised.virtual_ms).as_secs_f64(),
        });
        let own = serde_json::to_value(swarm).expect("a swarm is an object");
        if let (Some(all), Value::Object(own)) = (report.as_object_mut(), own) {
            all.extend(own);
        }
        report
    }
}

fn words(seeds: &[u64]) -> String {
    seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

/// From now on a panic in a seed says nothing: it is a result. All others are as loud as ever.
fn hush() {
    let loud = panic::take_hook();
    panic::set_hook(Box::new(move |panicked| {
        let in_a_seed = PLACE.with_borrow_mut(|place| {
            let Some(place) = place else { return false };
            *place = panicked.location().map(ToString::to_string).unwrap_or_default();
            true
        });
        if !in_a_seed {
            loud(panicked);
        }
    }));
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| {
        let text = text.trim();
        text.parse::<u64>().map_err(|_| format!("`{text}` is no whole number"))
    };
    let Some((first, end)) = text.split_once("..") else {
        let seed = number(text)?;
        let end = seed.checked_add(1).ok_or_else(|| format!("`{seed}` is too large"))?;
        return Ok(seed..end);
    };
    let seeds = number(first)?..number(end)?;
    if seeds.is_empty() {
        return Err("there are no seeds in it: the last one is excluded".into());
    }
    Ok(seeds)
}

fn kind(text: &str) -> Result<&'static str, String> {
    let known = weather::kinds().find(|kind| *kind == text.trim());
    known.ok_or_else(|| {
        let all: Vec<&str> = weather::kinds().collect();
        format!("there is no such weather\n\nThe kinds are: {}", all.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(seeds: Range<u64>, json: bool) -> SwarmArgs {
        SwarmArgs { seeds, without: vec!["stall"], output: PlainArgs { json, quiet: true } }
    }

    #[test]
    fn seeds_that_fail_are_counted_and_named() {
        let live = |seed: u64| match seed % 3 {
            0 => Err(Failure { seed, what: "made to fail".into() }),
            _ => swarm::run(seed),
        };
        let args = of(1..7, false);
        let swarm = args.all(live);
        assert_eq!((swarm.seeds, swarm.failures, &swarm.failing_seeds[..]), (6, 2, &[3, 6][..]));
        let text = args.report(&swarm, 1.5);
        assert!(text.starts_with("swarm: 6 seeds (1..7), without stall: 2 failed, in 1.5 s\n"));
        assert!(text.ends_with("failing seeds: 3, 6\n"), "{text}");
    }

    #[test]
    fn a_panic_in_a_seed_is_told_with_its_place_and_otherwise_silent() {
        hush();
        PLACE.set(Some(String::new()));
        let caught = panic::catch_unwind(|| panic!("a rule is broken"));
        assert!(caught.is_err());
        assert!(PLACE.take().is_some_and(|place| place.contains("swarm.rs:")));
    }

    #[test]
    fn seeds_are_a_range_or_one() {
        assert_eq!(seeds("3..7"), Ok(3..7));
        assert_eq!(seeds("3"), Ok(3..4));
        for bad in ["7..7", "7..3", "a..b", "..", "-1", "18446744073709551615"] {
            assert!(seeds(bad).is_err(), "{bad}");
        }
        assert_eq!(kind("stall"), Ok("stall"));
        assert!(kind("datagrams lost").is_err_and(|text| text.contains("one-way partition")));
    }
}
