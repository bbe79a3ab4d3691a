//! A node with a keyring in the hands of a fuzzer: bytes, bytes behind a sealed header, datagrams
//! of insiders, and what was genuine once, damaged or again. Used by the fuzz target
//! `encrypted_datagram`, and seeded by `tests/fuzz_seeded.rs`.

#![allow(dead_code, unreachable_pub, reason = "included by a test and by a fuzz target")]

use std::time::Duration;

use arbitrary::Unstructured;
use rolecall::proto::{Command, Protocol, Sealing};
use rolecall::time::Instant;
use rolecall::wire::sealed::{SEALED_HEADER_BYTES, Seal, begin_sealed, is_sealed, set_seal};
use rolecall::wire::{ClusterId, DecodeError, Header};
use rolecall::{Key, Keyring, ScopeName};

use super::frames::{Pools, addr, any, below, lone_node, one_in, some_bytes};

const MAX_STEPS: usize = 100;
/// Keys that there are; the node begins with the first two.
const KEYS: usize = 4;

fn key(n: usize) -> Key {
    Key::from_bytes([u8::try_from(n).expect("few keys"); 32])
}

struct World {
    now: Instant,
    cluster: ClusterId,
    node: Protocol,
    /// Two insiders, of whom one has only the old key.
    insiders: Vec<Sealing>,
    pools: Pools,
    /// What the node has taken, and may not take again.
    taken: Vec<(usize, Vec<u8>)>,
}

/// Lets the bytes do what they want with a node.
pub fn run(bytes: &[u8]) {
    let u = &mut Unstructured::new(bytes);
    let mut world = World::new();
    for _ in 0..MAX_STEPS {
        if u.is_empty() {
            break;
        }
        world.step(u);
    }
}

impl World {
    fn new() -> World {
        let cluster = ClusterId::of("fuzz");
        let mut node = lone_node(cluster).with_keyring(Keyring::new(key(0)).with(key(1)));
        let scope = ScopeName::new("default").unwrap();
        node.handle_command(Instant::ORIGIN, Command::JoinScope(scope)).unwrap();
        let pools = Pools::new(&[node.local().id()]);
        let insider = |n: usize, keyring| Sealing::new(keyring, cluster, pools.ids[n]);
        let insiders =
            vec![insider(1, Keyring::new(key(0)).with(key(1))), insider(2, Keyring::new(key(1)))];
        World { now: Instant::ORIGIN, cluster, node, insiders, pools, taken: Vec::new() }
    }

    fn step(&mut self, u: &mut Unstructured<'_>) {
        match below(u, 8) {
            0 => {
                let bytes = some_bytes(u, 80).to_vec();
                self.refused(&bytes);
            }
            1 => self.forged(u),
            2..=4 => self.insider(u),
            5 => self.again(u),
            6 => self.rotate(u),
            _ => {
                self.now += Duration::from_millis(any::<u16>(u).into());
                self.node.handle_timeout(self.now);
            }
        }
        self.drain();
    }

    /// Hands over what cannot be genuine.
    fn refused(&mut self, bytes: &[u8]) {
        let before = self.node.stats();
        let handled = self.node.handle_datagram(self.now, addr(3), bytes);
        assert!(handled.is_err(), "taken: {bytes:?}");
        let after = self.node.stats();
        assert_eq!(after.dropped.total(), before.dropped.total() + 1);
        assert_eq!((after.members, after.dead), (before.members, before.dead));
    }

    /// A header as it should be, and after it whatever the bytes say.
    fn forged(&mut self, u: &mut Unstructured<'_>) {
        let mut bytes = Vec::new();
        let (from, to) = (self.pools.id(u), self.node.local().id());
        begin_sealed(Header { cluster: self.cluster, from, to: Some(to) }, &mut bytes);
        let hint = |n: usize| key(n).id().as_u64().to_be_bytes()[7];
        let (key, primary) = (hint(below(u, KEYS)), hint(below(u, KEYS)));
        set_seal(&mut bytes, Seal { key, primary, counter: u64::from(any::<u32>(u)) });
        bytes.extend_from_slice(some_bytes(u, 100));
        self.refused(&bytes);
    }

    /// Who has a key says anything at all.
    fn insider(&mut self, u: &mut Unstructured<'_>) {
        let n = below(u, self.insiders.len());
        let to = if one_in(u, 8) { None } else { Some(self.node.local().id()) };
        let mut bytes = Vec::new();
        let from = self.pools.ids[1 + n];
        begin_sealed(Header { cluster: self.cluster, from, to }, &mut bytes);
        for _ in 0..=below(u, 4) {
            match below(u, 8) {
                0 => bytes.extend_from_slice(some_bytes(u, 30)),
                _ => self.pools.frame(u).encode(&mut bytes),
            }
        }
        if bytes.len() > 60_000 || !self.insiders[n].seal(to, &mut bytes) {
            return;
        }
        if one_in(u, 4) {
            let mut damaged = bytes.clone();
            let at = below(u, damaged.len());
            damaged[at] ^= 1 << below(u, 8);
            self.refused(&damaged);
        }
        let handled = self.node.handle_datagram(self.now, addr(1 + n), &bytes);
        match handled {
            Ok(()) | Err(DecodeError::Frame { .. } | DecodeError::TooManyFrames) => {
                self.taken.push((n, bytes));
            }
            Err(DecodeError::WrongKey) => assert!(self.node.keys().len() < KEYS),
            Err(error) => panic!("an insider's datagram is refused: {error}"),
        }
    }

    /// What was taken comes again, perhaps from elsewhere, perhaps much later.
    fn again(&mut self, u: &mut Unstructured<'_>) {
        if self.taken.is_empty() {
            return;
        }
        if one_in(u, 2) {
            self.now += Duration::from_secs(any::<u16>(u).into());
        }
        let (_, bytes) = self.taken[below(u, self.taken.len())].clone();
        self.refused(&bytes);
    }

    fn rotate(&mut self, u: &mut Unstructured<'_>) {
        let key = key(below(u, KEYS));
        let command = match below(u, 3) {
            0 => Command::InstallKey(key),
            1 => Command::UseKey(key.id()),
            _ => Command::RemoveKey(key.id()),
        };
        // Refused where it makes no sense.
        let _ = self.node.handle_command(self.now, command);
        assert!((1..=KEYS).contains(&self.node.keys().len()));
    }

    fn drain(&mut self) {
        while self.node.poll_event().is_some() {}
        while self.node.poll_outcome().is_some() {}
        let mut bytes = Vec::new();
        while self.node.poll_transmit(&mut bytes).is_some() {
            assert!(is_sealed(&bytes) && bytes.len() > SEALED_HEADER_BYTES);
            assert!(bytes.len() <= self.node.config().max_datagram_bytes);
        }
        #[cfg(debug_assertions)]
        self.node.check();
    }
}
