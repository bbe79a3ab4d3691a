//! The scenarios by name. One more is a variant of [`Experiments`], a line in its `job`, and an
//! [`Experiment`] that knows the scenario's own arguments.

use std::fmt::Debug;
use std::time::Duration;

use clap::{Args, Subcommand};
use documented::DocumentedFields;
use rolecall::Config;
use rolecall::sim::scenario::{
    Anomaly, Changes, Churn, Crash, Join, LinkFault, Links, Partition, Pauses, Repair, Scenario,
    Setup, Spread, Steady, Storm, Via,
};

use crate::args::Share;
use crate::job::{Job, Run};

/// Which scenario, and what it is told.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Experiments {
    /// Nothing happens: what is sent, suspected, allocated and computed
    #[command(after_help = "\
Makes 1 trial, which lasts --duration (60 s).

Examples:
  rolecall sim steady --duration 10m --loss 1%
  rolecall sim steady --nodes 1000 --scopes 100 --scopes-per-node 2")]
    Steady(Run<SteadyArgs>),
    /// One node takes a role: until every other one knows it
    #[command(after_help = "\
Makes 100 trials, fewer of more than 512 nodes. With --via gossip and --via piggyback gossip_fanout
is 3, as in memberlist, unless --set says otherwise.

Examples:
  rolecall sim spread --nodes 256 --loss 5% --svg spread.svg
  rolecall sim spread --nodes 1000 --dead 2%
  rolecall sim spread --via gossip --set gossip_fanout=5 --json")]
    Spread(Run<SpreadArgs>),
    /// Nodes die silently, all at once: until the first, and until the last has noticed
    #[command(after_help = "\
Makes 50 trials, fewer of more than 512 nodes.

Examples:
  rolecall sim crash --set probe_interval=500ms --set pause_tolerance=500ms
  rolecall sim crash --nodes 1000 --trials 10 --victims 10
  rolecall sim crash --nodes 256 --victims 32 --adjacent --json
  rolecall sim crash --nodes 256 --killed --set tethers=0")]
    Crash(Run<CrashArgs>),
    /// One node joins: until all know it, and until it knows all
    #[command(after_help = "\
Makes 20 trials, fewer of more than 512 nodes.

Examples:
  rolecall sim join --nodes 256
  rolecall sim join --preset wan --latency 20ms..80ms --svg join.svg")]
    Join(Run<JoinArgs>),
    /// All nodes start within a second: until everybody knows everybody
    #[command(after_help = "\
Makes 5 trials, fewer of more than 256 nodes.

Examples:
  rolecall sim storm --nodes 256
  rolecall sim storm --loss 5% --json")]
    Storm(Run<StormArgs>),
    /// Some nodes block over and over: who pays for it (Lifeguard's experiment)
    #[command(
        mut_arg("nodes", |arg| arg.default_value("128")),
        after_help = "\
Makes 10 trials, fewer of more than 128 nodes: 15 s of quiet, then 120 s of anomalies. With
--threshold there is one anomaly, and what counts is how soon its nodes are declared down.

Examples:
  rolecall sim anomaly --concurrent 32 --anomaly 8s --interval 1s
  rolecall sim anomaly --threshold --concurrent 1 --anomaly 32s --svg threshold.svg
  rolecall sim sweep --over pause_tolerance=1s..4s anomaly --trials 2"
    )]
    Anomaly(Run<AnomalyArgs>),
    /// Some nodes are paused at any moment, and nobody dies: who is declared down all the same
    #[command(after_help = "\
Makes 5 trials, fewer of more than 64 nodes. Each lasts --duration (300 s), and 5 s of calm.

Examples:
  rolecall sim pauses --nodes 128
  rolecall sim pauses --pause 900ms --share 20% --loss 1%
  rolecall sim sweep --over pause_tolerance=500ms,1s,2s pauses --nodes 32 --trials 1")]
    Pauses(Run<PausesArgs>),
    /// Some links are bad, one way, between some nodes or now and then: who is declared down
    #[command(after_help = "\
Makes 5 trials, fewer of more than 64 nodes. Each lasts --duration (300 s). The faults `flapping`
and `lossy` are those of Rapid's experiments (ATC 2018, section 7).

Examples:
  rolecall sim links --fault flapping --nodes 128
  rolecall sim links --fault apart --faulty 5% --duration 1m --json")]
    Links(Run<LinksArgs>),
    /// The halves are cut off from each other, roles change, it heals: until all agree
    #[command(after_help = "\
Makes 10 trials, fewer of more than 256 nodes. The halves are apart for --duration (60 s).

Examples:
  rolecall sim partition --duration 5m
  rolecall sim partition --nodes 256 --set reconnect_interval=2s")]
    Partition(Run<PartitionArgs>),
    /// Nodes crash, start again and change their roles all the time: how far views lag behind
    #[command(after_help = "\
Makes 5 trials, fewer of more than 128 nodes. Each lasts --duration (120 s), and the calm after it.

Examples:
  rolecall sim churn --loss 5%
  rolecall sim churn --nodes 256 --duration 10m --json")]
    Churn(Run<ChurnArgs>),
    /// Roles change all the time: how far views lag behind, and what it costs
    #[command(after_help = "\
Makes 1 trial. Each lasts --duration (60 s), and the calm after it.

Examples:
  rolecall sim changes --nodes 256 --rate 20 --loss 1%
  rolecall sim changes --rate 500 --set gossip_bytes_per_second=4096 --json")]
    Changes(Run<ChangesArgs>),
    /// Two nodes of a cluster know different things: what it costs them to find and mend that
    #[command(after_help = "\
Makes 20 trials, fewer of more than 1024 nodes. All other nodes are only known, and never run.

Examples:
  rolecall sim repair --nodes 1000 --differences 100
  rolecall sim repair --nodes 1000 --scopes 100 --scopes-per-node 100 --latency 1ms --json")]
    Repair(Run<RepairArgs>),
}

impl Experiments {
    pub(crate) fn job(self) -> Box<dyn Job> {
        match self {
            Experiments::Steady(run) => Box::new(run),
            Experiments::Spread(run) => Box::new(run),
            Experiments::Crash(run) => Box::new(run),
            Experiments::Join(run) => Box::new(run),
            Experiments::Storm(run) => Box::new(run),
            Experiments::Anomaly(run) => Box::new(run),
            Experiments::Pauses(run) => Box::new(run),
            Experiments::Links(run) => Box::new(run),
            Experiments::Partition(run) => Box::new(run),
            Experiments::Churn(run) => Box::new(run),
            Experiments::Changes(run) => Box::new(run),
            Experiments::Repair(run) => Box::new(run),
        }
    }
}

/// What the command adds to a scenario; implemented by the scenario's own arguments.
pub(crate) trait Experiment: Args + Clone + Debug {
    /// Its figures' doc comments are their meanings in the table.
    type Scenario: Scenario<Trial: Send, Figures: DocumentedFields> + Sync;

    /// Whether `--duration` says anything to it.
    const LASTS: bool = false;

    /// The scenario as the arguments want it, for a cluster of so many nodes.
    fn scenario(&self, nodes: u32) -> Result<Self::Scenario, String>;

    /// Turns knobs that stand elsewhere for it than in the preset.
    fn tune(&self, _: &mut Config) {}

    /// How many trials it makes unless told otherwise, so that they take about a minute at most.
    fn trials(&self, nodes: u32) -> u32;

    /// The seeds of its trials.
    fn seeds(&self, setup: &Setup) -> Vec<u64> {
        setup.seeds().collect()
    }
}

/// So many trials of up to so many nodes, and in proportion fewer of more.
fn scaled(trials: u32, up_to: u32, nodes: u32) -> u32 {
    let scaled = u64::from(trials) * u64::from(up_to) / u64::from(nodes.max(up_to));
    u32::try_from(scaled).unwrap_or(trials).max(1)
}

/// Nothing but what all scenarios are told.
#[derive(Args, Clone, Debug)]
pub(crate) struct SteadyArgs {}

impl Experiment for SteadyArgs {
    type Scenario = Steady;

    const LASTS: bool = true;

    fn scenario(&self, _: u32) -> Result<Steady, String> {
        Ok(Steady)
    }

    fn trials(&self, _: u32) -> u32 {
        1
    }
}

/// What the scenario is told besides.
#[derive(Args, Clone, Debug)]
pub(crate) struct SpreadArgs {
    /// Share of the nodes that die silently right before, so that nobody has noticed yet
    #[arg(long, value_name = "P", default_value = "0")]
    dead: Share,
    /// How the change reaches the others
    #[arg(long, value_enum, default_value = "fast-path")]
    via: Via,
}

impl Experiment for SpreadArgs {
    type Scenario = Spread;

    fn scenario(&self, _: u32) -> Result<Spread, String> {
        Ok(Spread { dead: self.dead.0, via: self.via })
    }

    fn tune(&self, config: &mut Config) {
        if self.via != Via::FastPath {
            config.gossip_fanout = 3;
        }
    }

    fn trials(&self, nodes: u32) -> u32 {
        scaled(100, 512, nodes)
    }
}

/// What the scenario is told besides.
#[derive(Args, Clone, Debug)]
pub(crate) struct CrashArgs {
    /// How many nodes die at once
    #[arg(long, value_name = "V", default_value_t = 1)]
    victims: u32,
    /// They are neighbours in the order of their ids, as a rack may be that lies in one row on the
    /// failure detector's ring, and not drawn at random
    #[arg(long)]
    adjacent: bool,
    /// Only processes die: the kernels of their hosts close tethers and answer datagrams
    #[arg(long)]
    killed: bool,
}

impl Experiment for CrashArgs {
    type Scenario = Crash;

    fn scenario(&self, nodes: u32) -> Result<Crash, String> {
        if (1..nodes).contains(&self.victims) {
            let CrashArgs { adjacent, killed, .. } = *self;
            return Ok(Crash { victims: self.victims as usize, adjacent, killed });
        }
        Err(format!(
            "--victims {} is not allowed: it must be 1 to {}, one less than --nodes",
            self.victims,
            nodes - 1
        ))
    }

    fn trials(&self, nodes: u32) -> u32 {
        scaled(50, 512, nodes)
    }
}

/// Nothing but what all scenarios are told.
#[derive(Args, Clone, Debug)]
pub(crate) struct JoinArgs {}

impl Experiment for JoinArgs {
    type Scenario = Join;

    fn scenario(&self, _: u32) -> Result<Join, String> {
        Ok(Join)
    }

    fn trials(&self, nodes: u32) -> u32 {
        scaled(20, 512, nodes)
    }
}

/// Nothing but what all scenarios are told.
#[derive(Args, Clone, Debug)]
pub(crate) struct StormArgs {}

impl Experiment for StormArgs {
    type Scenario = Storm;

    fn scenario(&self, _: u32) -> Result<Storm, String> {
        Ok(Storm)
    }

    fn trials(&self, nodes: u32) -> u32 {
        scaled(5, 256, nodes)
    }
}

/// Who is slow, and when.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Anomalies")]
pub(crate) struct AnomalyArgs {
    /// How many nodes block, all at the same times
    #[arg(long, value_name = "C", default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(1..))]
    concurrent: u32,
    /// For how long at a time
    #[arg(long, value_name = "D", default_value = "16.384s",
          value_parser = humantime::parse_duration)]
    anomaly: Duration,
    /// How long they run between
    #[arg(long, value_name = "I", default_value = "64ms",
          value_parser = humantime::parse_duration)]
    interval: Duration,
    /// They block only once
    #[arg(long, conflicts_with = "interval")]
    threshold: bool,
}

impl Experiment for AnomalyArgs {
    type Scenario = Anomaly;

    fn scenario(&self, nodes: u32) -> Result<Anomaly, String> {
        let AnomalyArgs { concurrent, anomaly, interval, threshold } = *self;
        if concurrent >= nodes {
            return Err(format!(
                "--concurrent {concurrent} is not allowed: somebody must be healthy, so that it \
                 must be less than --nodes, which is {nodes}"
            ));
        }
        // The shorter they are, the more of them fill the time.
        if anomaly < Duration::from_millis(1) {
            let anomaly = humantime::format_duration(anomaly);
            return Err(format!("--anomaly {anomaly} is not allowed: it must be at least 1ms"));
        }
        Ok(Anomaly { concurrent: concurrent as usize, anomaly, interval, threshold })
    }

    fn trials(&self, nodes: u32) -> u32 {
        scaled(10, 128, nodes)
    }
}

/// Who pauses, and for how long.
#[derive(Args, Clone, Debug)]
pub(crate) struct PausesArgs {
    /// How long each pause is
    #[arg(long, value_name = "D", default_value = "1s", value_parser = humantime::parse_duration)]
    pause: Duration,
    /// Share of the nodes that is paused at any moment; at least one is
    #[arg(long, value_name = "P", default_value = "5%")]
    share: Share,
}

impl Experiment for PausesArgs {
    type Scenario = Pauses;

    const LASTS: bool = true;

    fn scenario(&self, _: u32) -> Result<Pauses, String> {
        let PausesArgs { pause, share } = *self;
        // The shorter they are, the more of them fill the time.
        if pause < Duration::from_millis(1) {
            let pause = humantime::format_duration(pause);
            return Err(format!("--pause {pause} is not allowed: it must be at least 1ms"));
        }
        Ok(Pauses { pause, share: share.0 })
    }

    fn trials(&self, nodes: u32) -> u32 {
        scaled(5, 64, nodes)
    }
}

/// Whose links are bad, and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct LinksArgs {
    /// What is wrong
    #[arg(long, value_enum, default_value = "deaf")]
    fault: LinkFault,
    /// Share of the nodes that have it; at least one has
    #[arg(long, value_name = "P", default_value = "1%")]
    faulty: Share,
}

impl Experiment for LinksArgs {
    type Scenario = Links;

    const LASTS: bool = true;

    fn scenario(&self, _: u32) -> Result<Links, String> {
        Ok(Links { fault: self.fault, faulty: self.faulty.0 })
    }

    fn trials(&self, nodes: u32) -> u32 {
        scaled(5, 64, nodes)
    }
}

/// Nothing but what all scenarios are told.
#[derive(Args, Clone, Debug)]
pub(crate) struct PartitionArgs {}

impl Experiment for PartitionArgs {
    type Scenario = Partition;

    const LASTS: bool = true;

    fn scenario(&self, _: u32) -> Result<Partition, String> {
        Ok(Partition)
    }

    fn trials(&self, nodes: u32) -> u32 {
        scaled(10, 256, nodes)
    }
}

/// Nothing but what all scenarios are told.
#[derive(Args, Clone, Debug)]
pub(crate) struct ChurnArgs {}

impl Experiment for ChurnArgs {
    type Scenario = Churn;

    const LASTS: bool = true;

    fn scenario(&self, _: u32) -> Result<Churn, String> {
        Ok(Churn)
    }

    fn trials(&self, nodes: u32) -> u32 {
        scaled(5, 128, nodes)
    }
}

/// What the scenario is told besides.
#[derive(Args, Clone, Debug)]
pub(crate) struct ChangesArgs {
    /// Role changes per second, in the whole cluster
    #[arg(long, value_name = "R", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
}

impl Experiment for ChangesArgs {
    type Scenario = Changes;

    const LASTS: bool = true;

    fn scenario(&self, _: u32) -> Result<Changes, String> {
        Ok(Changes { rate: self.rate })
    }

    fn trials(&self, _: u32) -> u32 {
        1
    }
}

/// What the scenario is told besides.
#[derive(Args, Clone, Debug)]
pub(crate) struct RepairArgs {
    /// How many nodes' roles in a scope the two know differently; for half of them the one is
    /// ahead, for half the other
    #[arg(long, value_name = "D", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    differences: u32,
}

impl Experiment for RepairArgs {
    type Scenario = Repair;

    fn scenario(&self, nodes: u32) -> Result<Repair, String> {
        if nodes < 3 {
            return Err(format!(
                "--nodes {nodes} is not allowed: it must be at least 3, two of them to know \
                 different things of the others"
            ));
        }
        Ok(Repair { differences: self.differences as usize })
    }

    fn trials(&self, nodes: u32) -> u32 {
        scaled(20, 1024, nodes)
    }
}
