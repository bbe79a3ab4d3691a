//! Runs an experiment: trials side by side, progress, and what comes out.

use std::fmt::Debug;
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use documented::DocumentedFields;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use rolecall::sim::scenario::{Curve, Meter, Scenario, Setup};
use serde_json::{Map, Value};

use crate::args::{ClusterArgs, OutputArgs, PlainArgs};
use crate::experiments::Experiment;
use crate::picture::{Canvas, Panel};
use crate::table;
use crate::tuning::Assignment;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The machine's clock and this program's allocator.
const METER: Meter = Meter { wall: || START.elapsed(), heap };

#[expect(clippy::unnecessary_wraps, reason = "the meter's shape")]
fn heap() -> Option<usize> {
    let stats = crate::HEAP.stats();
    Some(stats.bytes_allocated.saturating_sub(stats.bytes_deallocated))
}

type Figures<E> = <<E as Experiment>::Scenario as Scenario>::Figures;

/// A scenario with all that it is told.
#[derive(Args, Clone, Debug)]
pub(crate) struct Run<E: Experiment> {
    #[command(flatten)]
    own: E,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// An experiment, whatever its scenario.
pub(crate) trait Job {
    fn cluster(&self) -> &ClusterArgs;
    fn output(&self) -> &OutputArgs;
    /// What the scenario is given, with one more knob turned if there is one to turn.
    fn setup(&self, last: Option<&Assignment>) -> Result<Setup, String>;
    /// How many trials that means.
    fn trials(&self, setup: &Setup) -> usize;
    /// Makes all trials, and says of each that it is done.
    fn measure(&self, setup: &Setup, done: &(dyn Fn() + Sync)) -> Result<Outcome, String>;
}

/// What came out of an experiment.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The report as it is in JSON.
    pub(crate) report: Map<String, Value>,
    pub(crate) curves: Vec<Curve>,
    /// The scenario's own figures, and what they mean.
    pub(crate) figures: Vec<(&'static str, &'static str)>,
}

impl Outcome {
    /// The scenario's name.
    pub(crate) fn name(&self) -> &str {
        self.report.get("scenario").and_then(Value::as_str).unwrap_or_default()
    }

    /// A figure as people write it.
    pub(crate) fn text(&self, figure: &str) -> String {
        table::text(self.report.get(figure).unwrap_or(&Value::Null))
    }
}

impl<E: Experiment> Job for Run<E> {
    fn cluster(&self) -> &ClusterArgs {
        &self.cluster
    }

    fn output(&self) -> &OutputArgs {
        &self.output
    }

    fn setup(&self, last: Option<&Assignment>) -> Result<Setup, String> {
        if self.cluster.duration.is_some() && !E::LASTS {
            let name = E::Scenario::NAME;
            return Err(format!("--duration is not for `{name}`, which ends by itself"));
        }
        let config = self.cluster.tuning.config(last, |config| self.own.tune(config))?;
        self.own.scenario(self.cluster.nodes)?;
        self.cluster.setup(config, self.own.trials(self.cluster.nodes))
    }

    fn trials(&self, setup: &Setup) -> usize {
        self.own.seeds(setup).len()
    }

    fn measure(&self, setup: &Setup, done: &(dyn Fn() + Sync)) -> Result<Outcome, String> {
        let scenario = self.own.scenario(self.cluster.nodes)?;
        let start = START.elapsed();
        let trial = |seed| {
            let measured = scenario.trial(setup, seed, &METER);
            done();
            measured
        };
        let seeds = self.own.seeds(setup);
        let trials = if E::Scenario::SIDE_BY_SIDE {
            seeds.into_par_iter().map(trial).collect()
        } else {
            seeds.into_iter().map(trial).collect()
        };
        let report = setup.report(&scenario, trials, START.elapsed().saturating_sub(start));
        let Ok(Value::Object(json)) = serde_json::to_value(&report) else {
            panic!("a report is an object");
        };
        let meanings = Figures::<E>::FIELD_NAMES.iter().zip(Figures::<E>::FIELD_DOCS);
        // Figures that only a variant of the scenario has are left out of its other reports.
        let figures = meanings.filter(|(name, _)| json.contains_key(**name));
        let figures = figures.map(|(name, meaning)| (*name, *meaning)).collect();
        Ok(Outcome { report: json, curves: report.curves, figures })
    }
}

/// Runs an experiment; returns what there is to print.
pub(crate) fn run(job: &dyn Job) -> Result<String, String> {
    let setup = job.setup(None)?;
    let canvas = job.output().svg.as_deref().map(Canvas::new).transpose()?;
    let progress = Progress::new(&job.output().plain, job.trials(&setup), "trials");
    let outcome = job.measure(&setup, &|| progress.step())?;
    drop(progress);
    let words = job.cluster().words(&outcome);
    if let Some(canvas) = canvas {
        let curves: Vec<_> = outcome.curves.iter().map(|it| (it.label.clone(), it)).collect();
        let caption = if let [(label, _)] = &curves[..] { label } else { "" };
        canvas.draw(outcome.name(), &words, &[Panel::of_curves(caption, &curves)])?;
    }
    if job.output().plain.json {
        return Ok(format!("{}\n", Value::Object(outcome.report)));
    }
    Ok(format!("{}: {words}\n{}\n", outcome.name(), table::report(&outcome)))
}

/// A bar on a terminal, for runs that take longer than a moment.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// Closed when the run is over, which ends the wait for the moment to pass.
    over: Option<Sender<()>>,
}

impl Progress {
    pub(crate) fn new(output: &PlainArgs, steps: usize, what: &str) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::hidden());
        if output.quiet {
            return Progress { bar, over: None };
        }
        let template = format!("{{elapsed_precise}} {{wide_bar}} {{pos}}/{{len}} {what}");
        bar.set_style(ProgressStyle::with_template(&template).expect("the template is valid"));
        let (over, running) = channel::<()>();
        let shown = bar.clone();
        thread::spawn(move || {
            if running.recv_timeout(Duration::from_secs(1)).is_err_and(|it| it == TIMEOUT) {
                shown.set_draw_target(ProgressDrawTarget::stderr());
                shown.enable_steady_tick(Duration::from_millis(200));
            }
        });
        Progress { bar, over: Some(over) }
    }

    pub(crate) fn step(&self) {
        self.bar.inc(1);
    }

    /// Prints a line on stderr, above the bar if there is one.
    pub(crate) fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }
}

const TIMEOUT: std::sync::mpsc::RecvTimeoutError = std::sync::mpsc::RecvTimeoutError::Timeout;

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.over.take());
        self.bar.finish_and_clear();
    }
}
