//! A cluster of eight, one of which is hostile and has the key:
//! `cargo +nightly fuzz run cluster`.
#![no_main]

#[path = "../../tests/support/cluster_world.rs"]
mod cluster_world;
#[path = "../../tests/support/fold.rs"]
mod fold;
#[path = "../../tests/support/frames.rs"]
mod frames;
#[path = "../../tests/support/net.rs"]
mod net;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cluster_world::run(bytes));
