//! rolecall and its peers in one virtual network: the same scenarios, the same loop.

mod chitchat;
mod cluster;
mod foca;
mod heap;
mod kinship;
mod lookup;
mod node;
mod plumtree;
mod report;
mod rolecall;
mod scenarios;
mod streams;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::heap::CountingAllocator;
use crate::report::Row;
use crate::scenarios::{Plan, Scenario};

#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator;

#[derive(Parser)]
#[command(about = "rolecall and its peers in one virtual network")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Nothing happens: what a cluster at rest costs.
    Steady(Options),
    /// One node makes a change: until all others have it.
    Spread(Options),
    /// One node dies silently: until all others have declared it down.
    Crash(Options),
    /// One more node joins a cluster: until all know it, and it knows all.
    Join(Options),
    /// All nodes start within a second through 3 seeds.
    Storm(Options),
    /// A network that loses datagrams.
    Loss(Options),
    /// Not the network: what a lookup costs, beside other concurrent maps.
    Lookup(lookup::Options),
}

#[derive(Args)]
struct Options {
    /// How many nodes a cluster has.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(5..=100_000))]
    nodes: u32,
    /// How often to try; each scenario has its own default. Heavy systems may do fewer.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    trials: Option<u32>,
    /// All chances come from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Which systems run.
    #[arg(long, value_delimiter = ',', default_value = "rolecall,foca,kinship,chitchat")]
    systems: Vec<Peer>,
    /// The shares of datagrams that are lost in `loss`.
    #[arg(long, value_delimiter = ',', default_values_t = [0.05, 0.2])]
    loss: Vec<f64>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Peer {
    Rolecall,
    Foca,
    Kinship,
    Chitchat,
    ChitchatV0,
    Plumtree,
}

fn main() -> ExitCode {
    let (scenario, options) = match Cli::parse().command {
        Command::Steady(options) => (Scenario::Steady, options),
        Command::Spread(options) => (Scenario::Spread, options),
        Command::Crash(options) => (Scenario::Crash, options),
        Command::Join(options) => (Scenario::Join, options),
        Command::Storm(options) => (Scenario::Storm, options),
        Command::Loss(options) => (Scenario::Loss, options),
        Command::Lookup(options) => return lookup::run(&options),
    };
    let plan = Plan {
        nodes: options.nodes,
        trials: options.trials,
        seed: options.seed,
        losses: options.loss,
    };
    let rows: Vec<Row> =
        options.systems.iter().flat_map(|peer| peer.run(scenario, &plan)).collect();
    if options.json {
        println!("{}", serde_json::to_string_pretty(&rows).expect("rows are plain"));
    } else {
        println!("{}", report::table(&rows));
    }
    ExitCode::SUCCESS
}

impl Peer {
    fn run(self, scenario: Scenario, plan: &Plan) -> Vec<Row> {
        match self {
            Peer::Rolecall => scenario.run::<self::rolecall::Rolecall>(plan),
            Peer::Foca => scenario.run::<self::foca::FocaSystem>(plan),
            Peer::Kinship => scenario.run::<self::kinship::Kinship>(plan),
            Peer::Chitchat => scenario.run::<self::chitchat::ChitchatSystem<1>>(plan),
            Peer::ChitchatV0 => scenario.run::<self::chitchat::ChitchatSystem<0>>(plan),
            Peer::Plumtree => scenario.run::<self::plumtree::Plumtree>(plan),
        }
    }
}
