//! One or two nodes under arbitrary inputs: `cargo +nightly fuzz run protocol`.
#![no_main]

#[path = "../../tests/support/fold.rs"]
mod fold;
#[path = "../../tests/support/frames.rs"]
mod frames;
#[path = "../../tests/support/world.rs"]
mod world;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| world::run(bytes));
