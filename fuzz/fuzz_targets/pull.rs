//! A node that compares and pulls from a hostile peer: `cargo +nightly fuzz run pull`.
#![no_main]

#[path = "../../tests/support/fold.rs"]
mod fold;
#[path = "../../tests/support/frames.rs"]
mod frames;
#[path = "../../tests/support/pull_world.rs"]
mod pull_world;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| pull_world::run(bytes));
