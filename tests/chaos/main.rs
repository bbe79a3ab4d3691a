//! Chaos on real sockets: processes in network namespaces on one bridge, which are killed, stopped,
//! moved and cut off, several at once, while their roles change and clients read. Then all is
//! mended, and all must agree with the truth.
//!
//! ```text
//! cargo test --test chaos -- --nocapture     # as root: 8 processes, two to three minutes
//! CHAOS_NODES=30 CHAOS_MINUTES=60 CHAOS_SEED=7 cargo test --release --test chaos -- --nocapture
//! SOAK_MINUTES=60 cargo test --release --test chaos soak -- --nocapture
//! ```
//!
//! | variable | is | else |
//! |---|---|---|
//! | `CHAOS_SEED` | the same means the same faults; with an odd one datagrams are sealed | 3 |
//! | `CHAOS_NODES` | how many processes, 4 to 100 | 8 |
//! | `CHAOS_MINUTES` | no phase begins after that time | 1.5 |
//! | `SOAK_MINUTES` | how long the soak takes | no soak |
//! | `RUST_LOG` | what the processes log; their files stay then, or if the test fails | errors |
//!
//! A phase is some faults ([`schedule::Kind`]) and the calm after them. It must not happen
//! - that some node differs from the truth in a member, a scope or a role after two minutes of
//!   calm;
//! - that a node is told to be down which was neither killed, nor told to leave, nor stopped for
//!   longer than `pause_tolerance`, nor cut off in that phase. Nodes that were cut off may tell it
//!   of any other;
//! - that an answer does not come, is malformed, names somebody twice, or is wrong about the
//!   roles of the node that was asked;
//! - that events do not follow from each other, or from them another state than that of the maps;
//! - that a process ends by itself or panics, or that an old one holds ever more.
//!
//! Needs root, `ip` (iproute2) and `nft` (nftables); where it cannot have them it says so and does
//! nothing else.

#![cfg(target_os = "linux")]
#![allow(unreachable_pub, reason = "the modules of one test")]

use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

mod calm;
mod check;
mod faults;
mod fleet;
mod fold;
#[path = "../support/network.rs"]
mod network;
#[path = "../support/process.rs"]
mod process;
mod report;
mod run;
mod schedule;
mod soak;

use fleet::Fleet;
use schedule::Schedule;

/// A role of each node changes that often.
const CHANGE_EVERY: Duration = Duration::from_millis(500);

/// One test at a time: they would disturb each other.
static ALONE: Mutex<()> = Mutex::new(());

/// What the environment says, if it says it.
fn variable<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number is meant")))
}

fn minutes(minutes: f64) -> Duration {
    Duration::from_secs_f64(minutes * 60.0)
}

#[test]
fn whatever_happens_all_agree_when_it_is_calm() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = variable("CHAOS_SEED").unwrap_or(3);
    let nodes: usize = variable("CHAOS_NODES").unwrap_or(8);
    assert!((4..=100).contains(&nodes), "CHAOS_NODES={nodes}: 4 to 100 are possible");
    let time = minutes(variable("CHAOS_MINUTES").unwrap_or(1.5));
    let Some(mut fleet) = Fleet::start("chaos", nodes, seed, CHANGE_EVERY) else { return };
    println!("CHAOS_SEED={seed} CHAOS_NODES={nodes}, {time:.0?}");
    fleet.calm();
    fleet.weigh_elders();
    let mut schedule = Schedule::new(seed, nodes);
    let end = Instant::now() + time;
    while Instant::now() < end {
        let phase = schedule.next_phase();
        fleet.report.phases += 1;
        println!(
            "phase {}: {} faults in {:.0?}",
            fleet.report.phases,
            phase.faults.len(),
            phase.length
        );
        for (at, slot) in &phase.back {
            println!("    {:6.2} s: back {slot}", at.as_secs_f64());
        }
        phase.faults.iter().for_each(|fault| println!("    {fault}"));
        fleet.live_through(&phase);
        fleet.calm();
        fleet.judge_downs();
        fleet.weigh_elders();
    }
    fleet.finish(&format!("seed {seed}, {nodes} nodes"));
}

#[test]
fn a_seed_means_the_same_faults() {
    let story = |seed| {
        let mut schedule = Schedule::new(seed, 8);
        (0..20).map(|_| format!("{:?}", schedule.next_phase())).collect::<Vec<_>>()
    };
    assert_eq!(story(3), story(3));
    assert_ne!(story(3), story(4));
}
