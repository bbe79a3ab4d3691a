//! The cases of the models under shuttle: with more readers, over the real crossbeam-epoch, and in
//! schedules drawn at random, of which each has a seed that is printed when one fails.
//!
//! `schedules [ITERATIONS]`: of each case with each way to draw schedules.

use std::error::Error;
use std::time::Instant;

mod sync {
    pub(super) use std::sync::{OnceLock, PoisonError};

    pub(super) use crossbeam_epoch::{Collector, Guard, LocalHandle};
    pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
    pub(super) use shuttle::sync::{Arc, Mutex};
    pub(super) use shuttle::thread::{spawn, yield_now};
    pub(super) use shuttle::thread_local;

    /// Lives as long as the value that has it. Of std, as a freed one must not confuse shuttle.
    pub(super) struct Canary(std::sync::atomic::AtomicU64);

    impl Canary {
        const ALIVE: u64 = 0x5eed_cafe_f00d_d00d;

        pub(super) fn new() -> Canary {
            Canary(Canary::ALIVE.into())
        }

        pub(super) fn is_alive(&self) -> bool {
            yield_now(); // this is where it could be freed
            self.0.load(Ordering::Relaxed) == Canary::ALIVE
        }
    }

    impl Drop for Canary {
        fn drop(&mut self) {
            self.0.store(0, Ordering::Relaxed);
        }
    }
}

#[path = "../../../../src/view/epoch_map.rs"]
#[expect(dead_code, reason = "the cases need only part of it")]
mod epoch_map;

#[path = "../../../../src/view/guard.rs"]
mod guard;

#[path = "../models/cases.rs"]
mod cases;

const READERS: usize = 3;

/// How many preemptions, at places drawn at random, are enough for the bugs that are looked for.
const DEPTH: usize = 4;

const CASES: &[(&str, fn(usize))] = &[
    ("publish", cases::publish),
    ("update", cases::update),
    ("remove", cases::remove),
    ("grow", cases::grow),
    ("purge", cases::purge),
    ("ticket", cases::ticket),
    ("ticket_of_a_key", cases::ticket_of_a_key),
    ("refresh", cases::refresh),
    ("outlive", cases::outlive),
];

fn main() -> Result<(), Box<dyn Error>> {
    let iterations = std::env::args().nth(1).map_or(Ok(10_000), |number| number.parse())?;
    let started = Instant::now();
    for &(name, case) in CASES {
        println!("schedules of {name}: {READERS} readers, {iterations} of each kind");
        shuttle::check_random(move || case(READERS), iterations);
        shuttle::check_pct(move || case(READERS), iterations, DEPTH);
    }
    println!("{} cases hold, {:.0} s", CASES.len(), started.elapsed().as_secs_f32());
    Ok(())
}
