//! The published view against a model of std maps: `cargo +nightly fuzz run view`.
#![no_main]

#[path = "../../tests/support/view_model.rs"]
mod view_model;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| view_model::run(&view_model::decode(bytes)));
