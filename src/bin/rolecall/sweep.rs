//! The same experiment for many values of a knob.

use std::ops::RangeInclusive;
use std::str::FromStr;

use clap::Args;
use serde_json::{Value, json};
use toml::Value as Setting;

use crate::axis::Axis;
use crate::experiments::Experiments;
use crate::job::{Outcome, Progress};
use crate::picture::{Canvas, Panel, Series};
use crate::table;
use crate::tuning::{Assignment, plain};

/// More values than anybody wants to see in a picture.
const MAX_VALUES: usize = 100;

/// Run an experiment for each value of a knob: what it buys, and for which price
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  rolecall sim sweep --over gossip_fanout=2..16 spread --nodes 256 --svg fanout.svg
  rolecall sim sweep --over probe_interval=500ms,1s,2s crash --trials 20 --loss 5%
  rolecall sim sweep --over max_datagram_bytes=600..1400:200 join --json

The picture shows time against cost, a point for each value, and who knows what when.")]
pub(crate) struct Sweep {
    /// A key of `rolecall config`, and a range (`2..16`, `2..16:2`) or a list (`1s,2s,5s`)
    #[arg(long, value_name = "KEY=VALUES")]
    over: Over,
    #[command(subcommand)]
    experiment: Experiments,
}

/// A knob and the values that it is to have.
#[derive(Clone, Debug)]
struct Over(Vec<Assignment>);

impl FromStr for Over {
    type Err = String;

    fn from_str(text: &str) -> Result<Over, String> {
        let (key, values) = text.split_once('=').ok_or("it must be KEY=VALUES")?;
        let values = match values.split_once("..") {
            Some((first, rest)) => numbers(first, rest)?,
            None => values.split(',').map(|value| value.trim().to_string()).collect(),
        };
        let values = values.iter().map(|value| Assignment::new(key.trim(), value));
        Ok(Over(values.collect::<Result<_, _>>()?))
    }
}

/// The numbers of a range, its end included.
fn numbers(first: &str, rest: &str) -> Result<Vec<String>, String> {
    let (last, step) = rest.split_once(':').unwrap_or((rest, "1"));
    let number = |text: &str| {
        let text = text.trim();
        let number = text.trim_start_matches('=').parse::<u32>();
        number.map_err(|_| format!("`{text}` is no whole number; other values go in a list: a,b,c"))
    };
    let (range, step): (RangeInclusive<u32>, u32) = (number(first)?..=number(last)?, number(step)?);
    if range.is_empty() || step == 0 {
        return Err("the range is empty".into());
    }
    let values: Vec<String> =
        range.step_by(step as usize).take(MAX_VALUES + 1).map(|it| it.to_string()).collect();
    if values.len() > MAX_VALUES {
        return Err(format!("these are more than {MAX_VALUES} values"));
    }
    Ok(values)
}

impl Sweep {
    /// Runs it; returns what there is to print.
    pub(crate) fn run(self) -> Result<String, String> {
        let job = self.experiment.job();
        let output = job.output();
        let values = &self.over.0;
        let setups: Vec<_> =
            values.iter().map(|it| job.setup(Some(it))).collect::<Result<_, _>>()?;
        let canvas = output.svg.as_deref().map(Canvas::new).transpose()?;
        let trials = setups.iter().map(|setup| job.trials(setup)).sum();
        let progress = Progress::new(&output.plain, trials, "trials");
        let outcomes = setups.iter().map(|setup| job.measure(setup, &|| progress.step()));
        let outcomes: Vec<Outcome> = outcomes.collect::<Result<_, _>>()?;
        drop(progress);
        let points: Vec<Point<'_>> = values
            .iter()
            .zip(&outcomes)
            .map(|(value, outcome)| Point { value: value.value(), outcome })
            .collect();
        let key = values[0].key();
        let (title, words) =
            (format!("{} over {key}", outcomes[0].name()), { job.cluster().words(&outcomes[0]) });
        if let Some(canvas) = canvas {
            canvas.draw(&title, &words, &panels(key, &points))?;
        }
        if output.plain.json {
            let reports = outcomes.into_iter().map(|outcome| outcome.report);
            let reports: Vec<Value> = reports.map(Value::Object).collect();
            let values: Vec<&Setting> = values.iter().map(Assignment::value).collect();
            let all = json!({ "sweep": key, "values": values, "reports": reports });
            return Ok(format!("{all}\n"));
        }
        let rows = points.iter().map(|point| (plain(point.value), point.outcome));
        Ok(format!("{title}: {words}\n{}\n", table::sweep(key, rows)))
    }
}

/// What came out for a value.
struct Point<'a> {
    value: &'a Setting,
    outcome: &'a Outcome,
}

impl Point<'_> {
    fn figure(&self, name: &str) -> Option<f64> {
        self.outcome.report.get(name).and_then(Value::as_f64)
    }

    /// The value as a number to draw: durations in milliseconds.
    fn number(&self) -> Option<f64> {
        match self.value {
            #[expect(clippy::cast_precision_loss, reason = "pixels")]
            Setting::Integer(number) => Some(*number as f64),
            Setting::String(text) => {
                humantime::parse_duration(text).ok().map(|it| it.as_secs_f64() * 1e3)
            }
            _ => None,
        }
    }
}

/// What is bought, for which price, and who knows what when.
fn panels(key: &str, points: &[Point<'_>]) -> Vec<Panel> {
    let mut panels = vec![trade_off(key, points)];
    for (n, curve) in points[0].outcome.curves.iter().enumerate() {
        let of = points.iter().filter_map(|point| {
            let curve = point.outcome.curves.get(n)?;
            Some((format!("{key} = {}", plain(point.value)), curve))
        });
        panels.push(Panel::of_curves(&curve.label, &of.collect::<Vec<_>>()));
    }
    panels
}

/// The name of an axis of a knob's values.
fn along_the_knob(key: &str, points: &[Point<'_>]) -> String {
    let unit = if points[0].value.is_str() { ", ms" } else { "" };
    format!("{key}{unit}")
}

/// Times against cost, where the scenario has both; otherwise what it has against the value.
fn trade_off(key: &str, points: &[Point<'_>]) -> Panel {
    let names = || points[0].outcome.figures.iter().map(|(name, _)| *name);
    let times: Vec<&str> = names().filter(|name| name.ends_with("_ms")).collect();
    let cost = names().find(|name| name.starts_with("bytes"));
    let (x, drawn) = match cost {
        Some(cost) if !times.is_empty() => (Some(cost), times),
        Some(cost) => (None, vec![cost]),
        None => (None, times),
    };
    let along = |point: &Point<'_>| x.map_or_else(|| point.number(), |cost| point.figure(cost));
    let series = drawn.iter().map(|name| {
        let at = |point: &Point<'_>| along(point).zip(point.figure(name));
        Series { label: (*name).into(), points: points.iter().filter_map(at).collect() }
    });
    let series: Vec<Series> = series.collect();
    let top =
        |point: &Point<'_>| drawn.iter().filter_map(|name| point.figure(name)).reduce(f64::max);
    let note = |point: &Point<'_>| Some((along(point)?, top(point)?, plain(point.value)));
    let all = || series.iter().flat_map(|series| series.points.iter().copied());
    let unit = table::unit(drawn.first().unwrap_or(&""));
    Panel {
        caption: format!("what each {key} buys and costs"),
        x: (
            x.map_or_else(|| along_the_knob(key, points), Into::into),
            Axis::of(all().map(|(x, _)| x)),
        ),
        y: (unit.into(), Axis::of(all().map(|(_, y)| y))),
        notes: points.iter().filter_map(note).collect(),
        marks: true,
        series,
    }
}
