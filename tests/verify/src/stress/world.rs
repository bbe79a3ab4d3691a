//! What there is to read and write: few names, scopes and roles, so that everybody meets; and
//! nodes that tell when they are torn or freed.

use std::thread;
use std::time::Duration;

use bytes::Bytes;

use crate::node::{Node, NodeId, NodeName, ScopeName};
use crate::role::Role;

pub(crate) const NAMES: usize = 12;
/// Scopes that come and go by what roles there are in them.
pub(crate) const SCOPES: usize = 3;
/// Enough for tables to grow four times, and to be purged.
pub(crate) const ROLES: usize = 80;

/// The name of node 0, which is always up.
pub(crate) const LOCAL: usize = 0;

/// splitmix64.
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Seeded chance.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(mix(seed))
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = mix(self.0);
        usize::try_from(self.0 % limit as u64).expect("below a usize")
    }

    /// Lets others run now and then, at a place where it may hurt.
    pub(crate) fn pause(&mut self) {
        match self.below(64) {
            0 => thread::sleep(Duration::from_micros(50)),
            1..=4 => thread::yield_now(),
            _ => {}
        }
    }
}

pub(crate) fn node_name(name: usize) -> NodeName {
    NodeName::new(&format!("node-{name:02}")).expect("a valid name")
}

pub(crate) fn scope_name(scope: usize) -> ScopeName {
    ScopeName::new(&format!("scope-{scope}")).expect("a valid name")
}

pub(crate) fn role(role: usize) -> Role {
    Role::from(format!("role-{role:02}"))
}

/// A node whose metadata are a version, followed by what follows from that and from the name.
pub(crate) fn node(name: usize, run: u64, version: u64) -> Node {
    let id = NodeId::from_u64(run).expect("not zero");
    let mut meta = version.to_le_bytes().to_vec();
    meta.extend(filler(name, version));
    Node::new(node_name(name), id, ([127, 0, 0, 1], 7946).into(), Bytes::from(meta))
}

fn filler(name: usize, version: u64) -> impl Iterator<Item = u8> {
    let words = 1 + version % 6;
    (0..words).flat_map(move |word| mix(version ^ (name as u64) << 48 ^ word << 56).to_le_bytes())
}

/// Name and version of a node, after a look at whether it is whole.
pub(crate) fn inspect(node: &Node) -> (usize, u64) {
    let name = node.name().strip_prefix("node-").and_then(|name| name.parse().ok());
    let name = name.filter(|name| *name < NAMES).expect("a torn or freed name");
    let (version, rest) = node.meta().split_first_chunk().expect("torn or freed metadata");
    let version = u64::from_le_bytes(*version);
    assert!(rest.iter().copied().eq(filler(name, version)), "torn or freed metadata");
    (name, version)
}
