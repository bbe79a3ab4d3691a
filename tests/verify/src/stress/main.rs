//! One writer and many readers of the published views, for a while, with every read checked: to be
//! run under sanitizers and valgrind, or as it is.
//!
//! `stress [--seed N] [--seconds N] [--steps N] [--readers N] [--passing-scopes N]`: the writer
//! does what the seed says; what meets what is up to the machine, and to pauses drawn from the
//! seed.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

mod reader;
mod world;
mod writer;

// The library's own files, so that each checker builds only what it checks, and twins are quick.
#[path = "../../../../src/error.rs"]
#[allow(dead_code, reason = "only part of the library is here")]
mod error;
#[path = "../../../../src/event.rs"]
#[allow(dead_code, reason = "only part of the library is here")]
mod event;
#[path = "../../../../src/node.rs"]
#[allow(dead_code, reason = "only part of the library is here")]
mod node;
#[path = "../../../../src/role/mod.rs"]
#[allow(dead_code, unused_imports, reason = "only part of the library is here")]
mod role;
#[path = "../../../../src/view/mod.rs"]
#[allow(dead_code, unused_imports, reason = "only part of the library is here")]
mod view;

use reader::Reader;
use world::Dice;
use writer::Writer;

/// Polls, a moment apart, after which everything is freed once no reader is left.
const POLLS_UNTIL_FREED: usize = 10_000;

struct Options {
    seed: u64,
    seconds: u64,
    steps: u64,
    readers: u64,
    /// Scopes whose views nobody keeps: by default more than are kept for nobody.
    passing_scopes: usize,
}

impl Options {
    fn from_args() -> Result<Options, Box<dyn Error>> {
        let mut options =
            Options { seed: 1, seconds: 10, steps: u64::MAX, readers: 4, passing_scopes: 100 };
        let mut args = std::env::args().skip(1);
        while let Some(flag) = args.next() {
            let value: u64 = args.next().ok_or("a flag without its value")?.parse()?;
            match flag.as_str() {
                "--seed" => options.seed = value,
                "--seconds" => options.seconds = value,
                "--steps" => options.steps = value,
                "--readers" => options.readers = value,
                "--passing-scopes" => options.passing_scopes = value.try_into()?,
                _ => return Err(format!("no such flag: {flag}").into()),
            }
        }
        Ok(options)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::from_args()?;
    let Options { seed, seconds, steps, readers, passing_scopes } = options;
    println!("stress: seed {seed}, {readers} readers, up to {seconds} s and {steps} steps");
    let (mut writer, cluster) = Writer::new(Dice::new(seed), passing_scopes);
    // What the first read of all makes is there when threads start.
    assert!(cluster.scope(&world::scope_name(0)).nodes("nobody").is_empty());
    let done = AtomicBool::new(false);
    let end = Instant::now() + Duration::from_secs(seconds);
    let reads: u64 = thread::scope(|scope| {
        let start = |reader| {
            let dice = Dice::new(seed ^ (reader << 32));
            let reader = Reader::new(Arc::clone(&cluster), dice, passing_scopes);
            let done = &done;
            move || reader.run(done)
        };
        let threads: Vec<_> = (1..=readers).map(|reader| scope.spawn(start(reader))).collect();
        let stop = StopOnDrop(&done);
        while writer.steps() < steps && Instant::now() < end {
            writer.step();
        }
        drop(stop);
        threads.into_iter().map(|thread| thread.join().expect("no reader fails")).sum()
    });
    writer.check();
    for _ in 0..POLLS_UNTIL_FREED {
        writer.poll();
        if writer.pending() == 0 {
            break;
        }
        thread::yield_now();
    }
    assert_eq!(writer.pending(), 0, "without readers all is freed");
    let (steps, publications) = (writer.steps(), writer.publications());
    println!("stress holds: {steps} steps, {publications} publications, {reads} reads");
    Ok(())
}

/// Ends the readers, also when the writer fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
