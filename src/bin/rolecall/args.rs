//! What all experiments are told: how many nodes, on which network, with which tuning.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use rolecall::Config;
use rolecall::sim::scenario::Setup;
use rolecall::sim::{Faults, Latency, Loss};

use crate::job::Outcome;
use crate::table;
use crate::tuning::Tuning;

/// The cluster that is simulated.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArgs {
    /// Nodes in the cluster
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub(crate) nodes: u32,
    /// Trials, each with a cluster and a seed of its own [default: see below]
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) trials: Option<u32>,
    /// What all chance is drawn from: the same seed, the same figures
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Share of the datagrams that the network loses: `0.05` or `5%`
    #[arg(long, value_name = "P", default_value = "0")]
    pub(crate) loss: Share,
    /// How long a datagram is under way: `500us..1500us`, or one value if it is always the same
    #[arg(long, value_name = "MIN..MAX", default_value = "500us..1500us",
          value_parser = latency)]
    pub(crate) latency: Latency,
    /// How long the experiment lasts, in virtual time
    #[arg(long, value_name = "D", value_parser = humantime::parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Scopes that there are
    #[arg(long, value_name = "K", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) scopes: u32,
    /// In how many of them each node is, chosen by the seed [default: 3, or all if there are fewer]
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) scopes_per_node: Option<u32>,
    /// Roles that each node has in each of its scopes
    #[arg(long, value_name = "R", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(crate) roles: u32,
    #[command(flatten)]
    pub(crate) tuning: Tuning,
}

/// What becomes of the figures.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    #[command(flatten)]
    pub(crate) plain: PlainArgs,
    /// Draw who knows what when into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

/// The same, where there is nothing to draw.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
pub(crate) struct PlainArgs {
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// Show no progress on long runs
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl ClusterArgs {
    /// What the scenario is given. `trials` is how many it makes unless told otherwise.
    pub(crate) fn setup(&self, config: Config, trials: u32) -> Result<Setup, String> {
        let scopes_per_node = self.scopes_per_node.unwrap_or(self.scopes.min(3));
        if scopes_per_node > self.scopes {
            let scopes = self.scopes;
            return Err(format!(
                "--scopes-per-node {scopes_per_node} is not allowed: it must be at most --scopes, \
                 which is {scopes}"
            ));
        }
        Ok(Setup {
            nodes: self.nodes as usize,
            trials: self.trials.unwrap_or(trials),
            seed: self.seed,
            faults: Faults {
                latency: self.latency,
                loss: Loss::Random(self.loss.0),
                ..Faults::default()
            },
            config,
            scopes: self.scopes as usize,
            scopes_per_node: scopes_per_node as usize,
            roles: self.roles as usize,
            duration: self.duration,
            ..Setup::default()
        })
    }

    /// What was asked for, in a line.
    pub(crate) fn words(&self, outcome: &Outcome) -> String {
        let trials = outcome.text("trials");
        let plural = if trials == "1" { "" } else { "s" };
        let loss = table::number(self.loss.0 * 100.0);
        let scopes = match (self.scopes, self.roles) {
            (1, 1) => String::new(),
            (scopes, roles) => format!(", {scopes} scopes, {roles} roles"),
        };
        let ms = |duration: Duration| table::number(duration.as_secs_f64() * 1e3);
        let latency = match self.latency {
            Latency::Uniform { min, max } => format!("{} to {}", ms(min), ms(max)),
            other => ms(other.floor()),
        };
        let tuning = self.tuning.words();
        format!(
            "{} nodes, {trials} trial{plural}, seed {}, loss {loss} %, latency {latency} ms\
             {scopes}, {tuning}",
            self.nodes, self.seed,
        )
    }
}

/// A share from 0 to 1, also written in per cent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share(pub(crate) f64);

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Share, String> {
        let (number, unit) = match text.trim().strip_suffix('%') {
            Some(number) => (number, 100.0),
            None => (text, 1.0),
        };
        let share = number.trim().parse::<f64>().map(|number| number / unit);
        let valid = share.ok().filter(|share| (0.0..=1.0).contains(share));
        valid.map(Share).ok_or_else(|| "it must be 0 to 1, or 0% to 100%".into())
    }
}

fn latency(text: &str) -> Result<Latency, String> {
    let duration = |text: &str| {
        humantime::parse_duration(text.trim()).map_err(|error| format!("`{text}`: {error}"))
    };
    let Some((min, max)) = text.split_once("..") else { return duration(text).map(Latency::Fixed) };
    let (min, max) = (duration(min)?, duration(max)?);
    if min > max {
        return Err("the range is empty: the shortest comes first".into());
    }
    Ok(Latency::Uniform { min, max })
}
