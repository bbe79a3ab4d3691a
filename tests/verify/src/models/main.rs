//! Models of the read side under loom: all interleavings of small cases, and all values that the
//! memory model lets a load return, up to a bound of preemptions.
//!
//! `models [--short] [NAME]..` runs those of that name, or all; with `--short`, with one preemption
//! less.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

mod over_crossbeam;
mod over_standin;
mod standin;

/// Steps that one execution may have: a purge takes many.
const MAX_STEPS: usize = 50_000;

/// What `src/view/sync.rs` has from std, from loom.
mod over_loom {
    use std::marker::PhantomData;

    use loom::lazy_static::Lazy;

    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
    pub(crate) use loom::sync::{Arc, Mutex};
    pub(crate) use loom::thread::{spawn, yield_now};
    pub(crate) use loom::thread_local;
    pub(crate) use std::sync::PoisonError;

    /// Made anew in each execution.
    pub(crate) struct OnceLock<T: 'static>(std::sync::OnceLock<&'static Lazy<T>>);

    impl<T> OnceLock<T> {
        pub(crate) const fn new() -> OnceLock<T> {
            OnceLock(std::sync::OnceLock::new())
        }

        pub(crate) fn get_or_init(&self, init: fn() -> T) -> &'static T {
            let lazy = || &*Box::leak(Box::new(Lazy { init, _p: PhantomData }));
            self.0.get_or_init(lazy).get()
        }
    }

    /// Lives as long as the value that has it.
    pub(crate) struct Canary(AtomicU64);

    impl Canary {
        const ALIVE: u64 = 0x5eed_cafe_f00d_d00d;

        pub(crate) fn new() -> Canary {
            Canary(AtomicU64::new(Canary::ALIVE))
        }

        /// Orders nothing: loom fails unless something else orders it after the canary was made.
        pub(crate) fn is_alive(&self) -> bool {
            self.0.load(Ordering::Relaxed) == Canary::ALIVE
        }
    }

    impl Drop for Canary {
        /// Not atomic: loom fails unless all other accesses are ordered before it.
        fn drop(&mut self) {
            self.0.with_mut(|alive| *alive = 0);
        }
    }
}

/// A case, the number of its readers, and how often threads may be preempted in one execution.
struct Model {
    name: &'static str,
    case: fn(usize),
    readers: usize,
    preemptions: usize,
}

impl Model {
    const fn new(name: &'static str, case: fn(usize), readers: usize, preemptions: usize) -> Model {
        Model { name, case, readers, preemptions }
    }

    fn check(&self, fewer_preemptions: usize) {
        let started = Instant::now();
        let executions = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&executions);
        let (case, readers) = (self.case, self.readers);
        let preemptions = self.preemptions - fewer_preemptions;
        println!("model {}: {readers} readers, up to {preemptions} preemptions", self.name);
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.max_branches = MAX_STEPS;
        builder.check(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            case(readers);
        });
        let executions = executions.load(Ordering::Relaxed);
        println!("    {executions} executions, {:.1} s", started.elapsed().as_secs_f32());
    }
}

const MODELS: &[Model] = {
    use over_crossbeam::cases as real;
    use over_standin::cases as small;
    &[
        Model::new("publish", small::publish, 2, 4),
        Model::new("update", small::update, 2, 4),
        Model::new("remove", small::remove, 2, 4),
        Model::new("grow", small::grow, 2, 4),
        Model::new("purge", small::purge, 2, 3),
        Model::new("ticket", small::ticket, 2, 4),
        Model::new("ticket_of_a_key", small::ticket_of_a_key, 2, 4),
        Model::new("refresh", small::refresh, 2, 4),
        Model::new("outlive", small::outlive, 2, 4),
        Model::new("crossbeam_publish", real::publish, 1, 2),
        Model::new("crossbeam_update", real::update, 1, 2),
        Model::new("crossbeam_remove", real::remove, 1, 2),
        Model::new("crossbeam_grow", real::grow, 1, 2),
        Model::new("crossbeam_purge", real::purge, 1, 2),
        Model::new("crossbeam_ticket", real::ticket, 1, 2),
        Model::new("crossbeam_ticket_of_a_key", real::ticket_of_a_key, 1, 2),
        Model::new("crossbeam_refresh", real::refresh, 1, 2),
        Model::new("crossbeam_outlive", real::outlive, 1, 2),
    ]
};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (flags, wanted): (Vec<_>, Vec<_>) = args.iter().partition(|arg| arg.starts_with("--"));
    let started = Instant::now();
    let is_wanted = |model: &&Model| wanted.is_empty() || wanted.contains(&&model.name.to_owned());
    let models: Vec<_> = MODELS.iter().filter(is_wanted).collect();
    models.iter().for_each(|model| model.check(flags.len()));
    println!("{} models hold, {:.0} s", models.len(), started.elapsed().as_secs_f32());
}
