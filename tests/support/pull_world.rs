//! A node that compares and pulls, in the hands of a hostile peer: sketches, pages, parts and
//! objects that are not what they should be. Used by the fuzz target `pull`, and seeded by
//! `tests/fuzz_seeded.rs`.

#![allow(dead_code, unreachable_pub, reason = "included by a test and by a fuzz target")]

use std::collections::VecDeque;
use std::time::Duration;

use arbitrary::Unstructured;
use bytes::Bytes;
use rolecall::proto::{Command, Protocol};
use rolecall::time::Instant;
use rolecall::wire::frame::{Boot, Incarnation, Membership, Profile};
use rolecall::wire::limits::MAX_SKETCH_CELLS;
use rolecall::wire::{ClusterId, Frame, Header, ScopeId, begin, decode_frames, finish};
use rolecall::{Generation, NodeName, Role, ScopeName};

use super::fold::Fold;
use super::frames::{Pools, addr, below, lone_node, meet, one_in};

const MAX_STEPS: usize = 150;
const SCOPE: &str = "default";
/// Roles of the node itself, which no peer may change.
const OWN_ROLES: u64 = 40;
/// Datagrams that one of the peer's may bring about at once.
const MAX_ANSWERS: usize = 64;
/// Cells that the node sends for one comparison, with those of an answer that crosses it.
const MAX_CELLS_SENT: usize = 2 * MAX_SKETCH_CELLS;

struct World {
    now: Instant,
    node: Protocol,
    fold: Fold,
    pools: Pools,
    /// What the node has asked the peer and is not answered yet.
    asked: VecDeque<Frame>,
}

/// Lets the bytes do what they want with a node that pulls.
pub fn run(bytes: &[u8]) {
    let u = &mut Unstructured::new(bytes);
    let mut world = World::new();
    for _ in 0..MAX_STEPS {
        if u.is_empty() {
            break;
        }
        world.step(u);
        world.assert_sound();
    }
}

impl World {
    /// A node with roles that has met one peer.
    fn new() -> World {
        let cluster = ClusterId::of("fuzz");
        let node = lone_node(cluster);
        let pools = Pools::new(&[node.local().id()]);
        let fold = Fold::new(node.local());
        let mut world = World { now: Instant::ORIGIN, node, fold, pools, asked: VecDeque::new() };
        let roles = (0..OWN_ROLES).map(|n| Role::from(("own", n))).collect();
        let scope = ScopeName::new(SCOPE).unwrap();
        world.node.handle_command(world.now, Command::AddRoles { scope, roles }).unwrap();
        let membership =
            Membership { scope: ScopeId::of(SCOPE), generation: Generation::from_u64(3) };
        let profile = Profile {
            id: world.pools.ids[1],
            boot: Boot(1000),
            version: 1,
            incarnation: Incarnation(0),
            name: NodeName::new("n1").unwrap(),
            addr: addr(1),
            meta: Bytes::new(),
            scopes: [membership].into(),
        };
        meet(&mut world.node, world.now, cluster, &profile);
        world.drain();
        assert_eq!(world.node.stats().members, 2);
        world
    }

    fn step(&mut self, u: &mut Unstructured<'_>) {
        if one_in(u, 3) {
            self.wait(u);
            return;
        }
        let frames = match self.asked.pop_front() {
            Some(asked) if !one_in(u, 8) => self.pools.answers(u, &asked),
            _ => vec![self.unasked(u)],
        };
        if !frames.is_empty() {
            self.tell(&frames);
        }
    }

    fn unasked(&self, u: &mut Unstructured<'_>) -> Frame {
        match below(u, 8) {
            0 | 1 => self.pools.symbols(u).into(),
            2 => self.pools.page(u).into(),
            3 => self.pools.pull(u).into(),
            4 => self.pools.compare(u).into(),
            _ => self.pools.frame(u),
        }
    }

    /// The peer sends a datagram.
    fn tell(&mut self, frames: &[Frame]) {
        let cluster = ClusterId::of("fuzz");
        let (from, to) = (self.pools.ids[1], Some(self.pools.ids[0]));
        let mut bytes = Vec::new();
        begin(Header { cluster, from, to }, &mut bytes);
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        finish(&mut bytes, cluster);
        if bytes.len() <= rolecall::wire::limits::MAX_DATAGRAM_BYTES {
            let _ = self.node.handle_datagram(self.now, addr(1), &bytes);
            let sent = self.drain();
            assert!(sent <= MAX_ANSWERS, "{sent} datagrams for one");
        }
    }

    /// Time passes until the node has something to do.
    fn wait(&mut self, u: &mut Unstructured<'_>) {
        for _ in 0..=below(u, 16) {
            let Some(due) = self.node.poll_timeout() else { return };
            self.now = self.now.max(due) + Duration::from_micros(1);
            self.node.handle_timeout(self.now);
            self.drain();
        }
    }

    /// Takes what the node has to say; returns how many datagrams that were.
    fn drain(&mut self) -> usize {
        while let Some(event) = self.node.poll_event() {
            self.fold.apply(&event);
        }
        while self.node.poll_outcome().is_some() {}
        let (mut bytes, mut frames, mut sent) = (Vec::new(), Vec::new(), 0);
        while self.node.poll_transmit(&mut bytes).is_some() {
            sent += 1;
            decode_frames(&bytes, &mut frames).expect("a node's own datagram is well formed");
            for frame in frames.drain(..) {
                match &frame {
                    Frame::Pull(pull) => self.pools.note(pull.token),
                    Frame::Compare(compare) => self.pools.note(compare.token),
                    Frame::Symbols(symbols) => {
                        let end = symbols.first as usize + symbols.cells.0.len();
                        assert!(end <= MAX_CELLS_SENT, "cells up to {end}");
                    }
                    _ => {}
                }
                self.asked.push_back(frame);
            }
        }
        while self.asked.len() > 64 {
            self.asked.pop_front();
        }
        sent
    }

    fn assert_sound(&self) {
        #[cfg(debug_assertions)]
        self.node.check();
        self.fold.agrees(&self.node);
        if self.node.is_stopped() {
            return;
        }
        let own = self.node.roles(SCOPE, self.node.local().id());
        assert_eq!(own.len() as u64, OWN_ROLES, "a peer changed this node's roles");
        let stats = self.node.stats();
        assert!(stats.pull_sessions <= 64 && stats.fetch_queue <= 4096, "{stats:?}");
    }
}
