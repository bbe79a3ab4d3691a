//! How long a datagram takes: to encode, to decode, to seal, to open, and to be dealt with by a
//! node. Encoding and decoding are part of sealing and opening here.
//!
//! `cargo bench --bench datagram`. A row is the median and the 99th percentile of the means of
//! batches; bytes are those of the datagram, in megabytes per second at the median.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_lossless,
    reason = "small numbers, in a test"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use bytes::Bytes;
use rolecall::proto::{Command, LocalNode, Protocol, Sealing};
use rolecall::time::Instant;
use rolecall::wire::frame::{
    Alive, Boot, Incarnation, Membership, Page, Ping, Profile, RoleOp, Roles, Table,
};
use rolecall::wire::sealed::begin_sealed;
use rolecall::wire::{
    ClusterId, Frame, Header, ScopeId, begin, decode_cargo, decode_frames, decode_header, finish,
};
use rolecall::{Config, Generation, Keyring, NodeId, NodeName, Role, ScopeName};

const BATCH: u32 = 100;
const WARM_UP_BATCHES: usize = 100;
const BATCHES: usize = 1_000;
const CLUSTER: &str = "bench";
const SCOPE: &str = "default";
/// When the news of who is there has been told: before the first probe is due.
const TOLD: Instant = Instant::from_micros(59_000_000);

fn id(n: u64) -> NodeId {
    // Spread over the whole range, as drawn ones are.
    NodeId::from_u64((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).expect("an odd factor")
}

fn profile(n: u64) -> Profile {
    let scopes =
        Arc::from([Membership { scope: ScopeId::of(SCOPE), generation: Generation::ZERO }]);
    Profile {
        id: id(n),
        boot: Boot(1_700_000_000_000_000),
        version: 1,
        incarnation: Incarnation(0),
        name: NodeName::new(&format!("node-{n}")).expect("a short name"),
        addr: ([10, 0, (n >> 8) as u8, n as u8], 7946).into(),
        meta: Bytes::new(),
        scopes,
    }
}

fn delta(of: u64, from: u64, roles: std::ops::Range<u64>) -> Roles {
    let ops = roles.map(|n| RoleOp { code: 2, role: Role::from(("shard", n)) });
    let mut ops: Vec<RoleOp> = ops.collect();
    ops.sort_by(|a, b| a.role.cmp(&b.role));
    let (from, to) = (Generation::from_u64(from), Generation::from_u64(from + 1));
    Roles { id: id(of), scope: ScopeId::of(SCOPE), from, to, whole: false, ops }
}

fn header(to: Option<NodeId>) -> Header {
    Header { cluster: ClusterId::of(CLUSTER), from: id(1), to }
}

fn datagram(to: Option<NodeId>, frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_datagram(header(to), frames, &mut bytes);
    bytes
}

fn write_datagram(header: Header, frames: &[Frame], out: &mut Vec<u8>) {
    begin(header, out);
    frames.iter().for_each(|frame| frame.encode(out));
    finish(out, header.cluster);
}

fn typical() -> Vec<(&'static str, Vec<Frame>)> {
    let ping = Frame::from(Ping { seq: 77 });
    let updates = (0..10).map(|n| Alive { id: id(n), incarnation: Incarnation(1) }.into());
    let page = Page { token: 1, table: Table::Members, low: id(1), through: id(2), done: false };
    let profiles = (0..30).map(|n| profile(n).into());
    vec![
        ("ping", vec![ping.clone()]),
        ("ping, 10 updates", std::iter::once(ping).chain(updates).collect()),
        ("page, 30 profiles", std::iter::once(page.into()).chain(profiles).collect()),
        ("delta of 50 roles", vec![delta(1, 1, 0..50).into()]),
    ]
}

/// Measures batches of `turn`, which gets the number of the turn.
fn measure(what: &str, bytes: usize, mut turn: impl FnMut(u32)) {
    let mut means: Vec<f64> = Vec::with_capacity(BATCHES);
    let mut next = 0..;
    for batch in 0..WARM_UP_BATCHES + BATCHES {
        let start = Clock::now();
        for number in next.by_ref().take(BATCH as usize) {
            turn(number);
        }
        if batch >= WARM_UP_BATCHES {
            means.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH));
        }
    }
    means.sort_unstable_by(f64::total_cmp);
    let (median, p99) = (means[BATCHES / 2], means[BATCHES * 99 / 100]);
    let rate = bytes as f64 * 1e3 / median;
    println!("{what:<44} {bytes:>7} {median:>10.0} {p99:>10.0} {rate:>9.0}");
}

/// A node that knows `members` others.
fn node(members: u64) -> Protocol {
    let local = LocalNode {
        cluster: ClusterId::of(CLUSTER),
        name: NodeName::new("local").expect("a short name"),
        addr: ([10, 1, 0, 1], 7946).into(),
        boot: 1,
        meta: Bytes::new(),
    };
    // Nobody is probed meanwhile, so that nobody is suspected.
    let config = Config { probe_interval: Duration::from_secs(600), ..Config::lan() };
    let mut node = Protocol::new(&config, local, 1, Instant::ORIGIN).expect("a valid preset");
    let scope = ScopeName::new(SCOPE).expect("a short name");
    node.handle_command(Instant::ORIGIN, Command::JoinScope(scope)).expect("the first join");
    for n in 0..members {
        let bytes = datagram(None, &[profile(n).into()]);
        let from = ([10, 0, 0, 1], 7946).into();
        node.handle_datagram(Instant::ORIGIN, from, &bytes).expect("well formed");
    }
    // Let it tell the news of so many nodes, so that none of that rides along.
    let mut out = Vec::new();
    while node.stats().piggyback_queue > 0 {
        drain(&mut node, &mut out);
        let now = node.poll_timeout().expect("gossip goes on");
        assert!(now < TOLD, "the news takes a few hundred rounds");
        node.handle_timeout(now);
    }
    drain(&mut node, &mut out);
    node
}

fn drain(node: &mut Protocol, out: &mut Vec<u8>) {
    while node.poll_event().is_some() {}
    while node.poll_outcome().is_some() {}
    while node.poll_transmit(out).is_some() {
        black_box(&*out);
    }
}

/// What encryption costs.
fn sealed(out: &mut Vec<u8>) {
    let keyring = || Keyring::new([7; 32]);
    let (cluster, [from, to, other]) = (ClusterId::of(CLUSTER), [1, 2, 3].map(id));
    let mut sender = Sealing::new(keyring(), cluster, from);
    let mut seal = |to, frames: &[Frame], out: &mut Vec<u8>| {
        begin_sealed(Header { cluster, from, to: Some(to) }, out);
        frames.iter().for_each(|frame| frame.encode(out));
        assert!(sender.seal(Some(to), out), "there are numbers enough");
    };
    for (what, frames) in typical() {
        seal(to, &frames, out);
        measure(&format!("seal {what}"), out.len(), |_| {
            seal(to, &frames, out);
            black_box(&*out);
        });
    }
    let (mut opened, mut decoded) = (Vec::new(), Vec::new());
    for (what, frames) in typical() {
        let mut receiver = Sealing::new(keyring(), cluster, to);
        seal(to, &frames, out);
        receiver.open(Instant::ORIGIN, out, &mut opened).expect("it has the key");
        // What is meant for another run takes no number, and can be opened again and again.
        seal(other, &frames, out);
        measure(&format!("open {what}"), out.len(), |_| {
            let header = receiver.open(Instant::ORIGIN, black_box(out), &mut opened);
            black_box(header.expect("it has the key"));
            decode_cargo(&opened, &mut decoded).expect("well formed");
            black_box(&decoded);
        });
    }
    let mut node = node(100).with_keyring(keyring());
    drain(&mut node, out);
    let local = node.local().id();
    let pings: Vec<Vec<u8>> = (0..(BATCHES + WARM_UP_BATCHES) * BATCH as usize)
        .map(|_| {
            let mut ping = Vec::new();
            seal(local, &[Ping { seq: 7 }.into()], &mut ping);
            ping
        })
        .collect();
    measure("answer a sealed ping, 100 members", pings[0].len(), |turn| {
        let ping = &pings[turn as usize];
        node.handle_datagram(TOLD, profile(1).addr, ping).expect("well formed");
        drain(&mut node, out);
    });
}

fn main() {
    println!("{:<44} {:>7} {:>10} {:>10} {:>9}", "", "bytes", "median ns", "p99 ns", "MB/s");
    let mut out = Vec::new();
    for (what, frames) in typical() {
        let bytes = datagram(None, &frames);
        let header = header(None);
        measure(&format!("encode {what}"), bytes.len(), |_| {
            write_datagram(header, &frames, &mut out);
            black_box(&out);
        });
    }
    let mut decoded = Vec::new();
    for (what, frames) in typical() {
        let bytes = datagram(None, &frames);
        let cluster = ClusterId::of(CLUSTER);
        measure(&format!("decode {what}"), bytes.len(), |_| {
            black_box(decode_header(black_box(&bytes), cluster)).expect("well formed");
            decode_frames(black_box(&bytes), &mut decoded).expect("well formed");
            black_box(&decoded);
        });
    }
    sealed(&mut out);
    for members in [100, 1_000] {
        let mut node = node(members);
        let (to, from) = (Some(node.local().id()), profile(1).addr);
        let now = TOLD;
        drain(&mut node, &mut out);
        let ping = datagram(to, &[Ping { seq: 7 }.into()]);
        measure(&format!("answer a ping, {members} members"), ping.len(), |_| {
            node.handle_datagram(now, from, &ping).expect("well formed");
            drain(&mut node, &mut out);
        });
        // One role comes and goes, so that the set stays as small as it is.
        let deltas: Vec<_> = (0..(BATCHES + WARM_UP_BATCHES) as u64 * u64::from(BATCH))
            .map(|n| {
                let mut delta = delta(1, n, 0..1);
                delta.ops[0].code += n & 1;
                datagram(to, &[delta.into()])
            })
            .collect();
        let len = deltas[0].len();
        measure(&format!("take in a role and gossip it, {members} members"), len, |turn| {
            node.handle_datagram(now, from, &deltas[turn as usize]).expect("well formed");
            node.handle_timeout(now);
            drain(&mut node, &mut out);
        });
    }
}
