//! A node with a keyring under anything at all: `cargo +nightly fuzz run encrypted_datagram`.
#![no_main]

#[path = "../../tests/support/frames.rs"]
mod frames;
#[path = "../../tests/support/sealed_world.rs"]
mod sealed_world;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| sealed_world::run(bytes));
