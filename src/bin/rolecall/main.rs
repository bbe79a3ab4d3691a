//! The command `rolecall`: experiments in the simulator, and the configuration explained.
//!
//! Reading order: `args` and `tuning` (what it is told), `experiments` (what it can do), `job` (how
//! an experiment runs), `sweep` (the same for many values), `swarm` (random weather), `lifeguard`
//! (a paper's tables), `table` and `picture` (what comes out), `knobs` (the configuration).

mod args;
mod tuning;

mod experiments;
mod job;
mod sweep;

mod lifeguard;
mod swarm;

mod axis;
mod picture;
mod table;

mod knobs;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::experiments::Experiments;
use crate::knobs::Knobs;
use crate::lifeguard::LifeguardArgs;
use crate::swarm::SwarmArgs;
use crate::sweep::Sweep;

/// Counts what is allocated, for the scenarios that tell what a node costs.
#[global_allocator]
static HEAP: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

/// Try rolecall's cluster membership in virtual time, and see its configuration explained
#[derive(Parser, Debug)]
#[command(
    version,
    after_help = "\
Examples:
  rolecall sim spread                                how fast a role is known to 64 nodes
  rolecall sim crash --nodes 256 --loss 5%           how fast a crash is noticed on a bad network
  rolecall sim sweep --over gossip_fanout=2..8 spread    what a larger fanout buys and costs
  rolecall config --preset wan                       every knob and its meaning

Bad arguments end with exit code 2, a swarm in which a seed failed with 1."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run an experiment on a simulated cluster
    #[command(subcommand)]
    Sim(Sim),
    Config(Knobs),
}

#[derive(Subcommand, Debug)]
#[command(after_help = "\
Examples:
  rolecall sim spread --nodes 256 --loss 5%
  rolecall sim crash --set probe_interval=500ms --set pause_tolerance=500ms
  rolecall sim steady --nodes 1000 --scopes 100 --scopes-per-node 2 --json
  rolecall sim join --preset wan --latency 20ms..80ms --svg join.svg
  rolecall sim swarm --seeds 0..1000

Trials run side by side on all cores; RAYON_NUM_THREADS=1 runs one after the other, with the same
figures. Times are virtual, unless they say otherwise.")]
enum Sim {
    #[command(flatten)]
    Once(Experiments),
    Sweep(Sweep),
    Swarm(SwarmArgs),
    Lifeguard(LifeguardArgs),
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let fine = |text| (text, ExitCode::SUCCESS);
    let outcome = match command {
        Command::Sim(Sim::Once(experiment)) => job::run(&*experiment.job()).map(fine),
        Command::Sim(Sim::Sweep(sweep)) => sweep.run().map(fine),
        Command::Sim(Sim::Swarm(swarm)) => Ok(swarm.run()),
        Command::Sim(Sim::Lifeguard(lifeguard)) => Ok(fine(lifeguard.run())),
        Command::Config(knobs) => knobs.text().map(fine),
    };
    match outcome.and_then(|(text, code)| print(&text).map(|()| code)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn print(text: &str) -> Result<(), String> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // Whoever reads has read enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| format!("cannot print: {error}")),
    }
}
