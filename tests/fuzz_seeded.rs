//! The fuzz targets' generators, fed with seeded random bytes: what a fuzzer does for hours,
//! `cargo test` does for a moment.

#[path = "support/cluster_world.rs"]
mod cluster_world;
#[path = "support/datagram_laws.rs"]
mod datagram_laws;
#[path = "support/fold.rs"]
mod fold;
#[path = "support/frames.rs"]
mod frames;
#[path = "support/net.rs"]
mod net;
#[path = "support/pull_world.rs"]
mod pull_world;
#[path = "support/sealed_world.rs"]
mod sealed_world;
#[path = "support/world.rs"]
mod world;

use arbitrary::Unstructured;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rolecall::wire::{ClusterId, Header, begin};

fn random_bytes(rng: &mut ChaCha8Rng, max: usize) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(0..=max)];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// Runs a target on seeded bytes: so many seeds, unless `FUZZ_SEEDS` and `FUZZ_FIRST` say others.
fn on_seeds(seeds: u64, run: fn(&[u8])) {
    let number = |name, default| {
        std::env::var(name).map_or(default, |text| text.parse::<u64>().expect("a number"))
    };
    let first = number("FUZZ_FIRST", 0);
    for seed in first..first + number("FUZZ_SEEDS", seeds) {
        let bytes = random_bytes(&mut ChaCha8Rng::seed_from_u64(seed), 4096);
        let run = std::panic::catch_unwind(|| run(&bytes));
        assert!(run.is_ok(), "seed {seed}");
    }
}

#[test]
fn nodes_withstand_arbitrary_inputs() {
    on_seeds(1500, world::run);
}

#[test]
fn a_node_with_a_keyring_withstands_arbitrary_inputs() {
    on_seeds(1500, sealed_world::run);
}

#[test]
fn a_node_that_pulls_withstands_a_hostile_peer() {
    on_seeds(1500, pull_world::run);
}

#[test]
fn a_hostile_node_does_not_come_between_the_others() {
    on_seeds(100, cluster_world::run);
}

#[test]
fn random_bytes_obey_the_laws_of_datagrams() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let cluster = ClusterId::of("test");
    let mut decoded = Vec::new();
    for _ in 0..20_000 {
        datagram_laws::check_bytes(&random_bytes(&mut rng, 200), cluster, &mut decoded);
    }
}

#[test]
fn generated_and_damaged_datagrams_obey_the_laws_of_datagrams() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut decoded = Vec::new();
    let mut frames_seen = 0;
    let pools = frames::Pools::new(&[]);
    for _ in 0..10_000 {
        let bytes = random_bytes(&mut rng, 600);
        let mut u = Unstructured::new(&bytes);
        let header = Header {
            cluster: ClusterId::of("test"),
            from: pools.id(&mut u),
            to: Some(pools.id(&mut u)),
        };
        let mut datagram = Vec::new();
        begin(header, &mut datagram);
        let mut made = Vec::new();
        while !u.is_empty() {
            made.push(pools.frame(&mut u));
        }
        made.iter().for_each(|frame| frame.encode(&mut datagram));
        datagram_laws::check_bytes(&datagram, header.cluster, &mut decoded);
        assert_eq!(decoded, made, "a frame is decoded to itself");
        frames_seen += decoded.len();
        for _ in 0..4 {
            let at = rng.random_range(0..datagram.len());
            datagram[at] = rng.random();
            datagram_laws::check_bytes(&datagram, header.cluster, &mut decoded);
        }
        datagram.truncate(rng.random_range(0..datagram.len()));
        datagram_laws::check_bytes(&datagram, header.cluster, &mut decoded);
    }
    assert!(frames_seen > 50_000, "{frames_seen}");
}

/// Found by fuzzing: it was sent as it is, and no datagram is as long.
#[test]
fn who_lost_its_name_to_a_run_with_a_large_profile_may_ask_for_that() {
    cluster_world::run(include_bytes!("../fuzz/seeds/cluster/large-heir"));
}
