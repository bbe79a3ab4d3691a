//! Random weather on simulated clusters, then calm: while it lasts no rule is broken, and after it
//! all agree with the truth. The checks are in `rolecall::sim::checks`.
//!
//! `SWARM_SEEDS=1000..9000 cargo test --release --features sim --test swarm environment` lives
//! through more seeds, on all cores, and prints what they exercised; `SWARM_WITHOUT=stall,pause`
//! leaves kinds of faults out of them, and `RUST_LOG=rolecall=debug` tells the story of one.
#![cfg(feature = "sim")]

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rolecall::sim::swarm::{self, Swarm};
use rolecall::sim::weather::{FAULTS, Weather};

/// Lives through some seeds, none of which may fail, and all of which together must have seen
/// every kind of fault and put every checker to the test.
fn all_hold(seeds: Range<u64>) {
    let mut total = Swarm::default();
    for seed in seeds {
        let result = swarm::run(seed);
        if let Err(failure) = &result {
            println!("{failure}");
        }
        total.add(seed, &result);
    }
    println!("{}", serde_json::to_string_pretty(&total).unwrap());
    assert_eq!(total.failures, 0, "see above");
    assert_eq!(total.exercised.missing(), [""; 0], "a green run is not an empty one");
}

#[test]
fn after_any_weather_all_agree_with_the_truth_1() {
    all_hold(0..50);
}

#[test]
fn after_any_weather_all_agree_with_the_truth_2() {
    all_hold(50..100);
}

#[test]
fn after_any_weather_all_agree_with_the_truth_3() {
    all_hold(100..150);
}

#[test]
fn after_any_weather_all_agree_with_the_truth_4() {
    all_hold(150..200);
}

/// Lives through one seed that found a defect once.
fn holds(seed: u64) {
    if let Err(failure) = swarm::run(seed) {
        panic!("{failure}");
    }
}

#[test]
fn same_seed_same_weather() {
    assert_eq!(swarm::run(11), swarm::run(11));
    assert_ne!(swarm::run(11), swarm::run(12));
}

#[test]
fn seeds_of_the_environment() {
    let Ok(text) = std::env::var("SWARM_SEEDS") else { return };
    let (first, end) = text.split_once("..").expect("SWARM_SEEDS is FIRST..END");
    let (first, end): (u64, u64) = (first.parse().unwrap(), end.parse().unwrap());
    let without = std::env::var("SWARM_WITHOUT").unwrap_or_default();
    let without: Vec<&'static str> =
        FAULTS.into_iter().filter(|kind| without.split(',').any(|it| it == *kind)).collect();
    if std::env::var("RUST_LOG").is_ok() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().init();
    }
    let (next, total) = (AtomicU64::new(first), Mutex::new(Swarm::default()));
    let live = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let weather = without.iter().fold(Weather::new(seed), |it, kind| it.without(kind));
            let result = swarm::live_through(weather);
            if let Err(failure) = &result {
                println!("{failure}");
            }
            total.lock().unwrap().add(seed, &result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(live);
        }
    });
    let total = total.into_inner().unwrap();
    println!("{}", serde_json::to_string_pretty(&total).unwrap());
    assert_eq!(total.failures, 0, "{:?}", total.failing_seeds);
}

/// A run whose clock had jumped back was let in by a seed that had just started; others heard of it
/// only, and buried it for its dead former run at the same address.
#[test]
fn seed_44_hearsay_of_an_earlier_stamp_buries_nobody() {
    holds(44);
}

/// A run whose clock had jumped back did not answer somebody who remembered its dead former run,
/// and was declared replaced by that one.
#[test]
fn seed_31_silence_buries_nobody_for_a_dead_run() {
    holds(31);
}

/// The first pull failed, the only peer was at no seed's address: nothing was ever pulled again.
#[test]
fn seed_1363_a_first_pull_that_failed_is_begun_again() {
    holds(1363);
}

/// The only one left knew a restarted seed's dead former run, at the same address and with a later
/// stamp. It said so, and was not believed, because it was no member yet; so it let nobody in.
#[test]
fn seed_12_who_proved_an_address_may_say_that_a_stamp_is_too_low() {
    holds(12);
}

/// A run that was cut off and held dead lost its name for good to an echo of its former run, heard
/// in a pull.
#[test]
fn seed_461_an_echo_in_a_pull_replaces_nobody() {
    holds(461);
    holds(1290);
    holds(2681);
}

/// The same, heard from datagrams of the former run that had waited in a paused host's socket.
#[test]
fn seed_1975_an_echo_in_a_socket_replaces_nobody() {
    holds(1975);
}

/// A node knocked at a failed run's address and dialled the same address as a seed: the answer to
/// the knock, that another run is there, ended the dial, each time.
#[test]
fn seed_9149_a_knock_does_not_end_a_dial() {
    holds(6208);
    holds(9149);
}
