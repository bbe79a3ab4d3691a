//! One or two nodes in the hands of a fuzzer: datagrams well formed and not, answers to what the
//! nodes asked, replays, commands, time that passes and jumps; drained in any order or not at all.
//! After each input everything that must hold is checked. Used by the fuzz target `protocol`, and
//! seeded by `tests/fuzz_seeded.rs`.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_lossless,
    reason = "small numbers, in a test"
)]
#![allow(dead_code, unreachable_pub, reason = "included by a test and by a fuzz target")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use arbitrary::Unstructured;
use bytes::Bytes;
use rolecall::proto::{Command, LocalNode, Outcome, Protocol};
use rolecall::time::Instant;
use rolecall::wire::frame::{
    Ack, Boot, Has, Introduce, Join, JoinReply, Nack, Object, Page, Part, Profile, Roles, Same,
    Verdict,
};
use rolecall::wire::{
    ClusterId, Frame, HEADER_BYTES, Header, begin, decode_frames, decode_header, finish,
};
use rolecall::{Config, Generation, Node, NodeName, Role};

use super::fold::Fold;
use super::frames::{PHANTOMS, Pools, addr, any, below, one_in, role, scope, some_bytes};

/// Inputs of one run.
const MAX_STEPS: usize = 200;

/// Datagrams that the network remembers.
const MAX_WIRE: usize = 64;

/// Calls of `handle_timeout` in a row without time moving on: each timer once, and some slack.
const MAX_TIMEOUTS_AT_ONCE: u32 = 20;

/// What the queues of one node may hold: the limits of `src/proto`.
const MAX_SEND_QUEUE: usize = 16_384;
const MAX_FETCH_QUEUE: usize = 4096;
const MAX_PULL_SESSIONS: usize = 64;
const MAX_DEAD: usize = 4096 + 1;

const CLUSTER: &str = "fuzz";

/// A real node.
struct Host {
    node: Protocol,
    fold: Fold,
}

/// A datagram that a real node sent.
struct Sent {
    by: usize,
    to: SocketAddr,
    bytes: Vec<u8>,
}

pub struct World {
    now: Instant,
    cluster: ClusterId,
    hosts: Vec<Host>,
    pools: Pools,
    wire: VecDeque<Sent>,
    /// Prints every input: `FUZZ_TRACE=1`.
    trace: bool,
}

/// Lets the bytes do what they want with one or two nodes.
pub fn run(bytes: &[u8]) {
    let u = &mut Unstructured::new(bytes);
    let mut world = World::new(u);
    for _ in 0..MAX_STEPS {
        if u.is_empty() {
            break;
        }
        world.step(u);
    }
    world.drain_everything();
}

fn config(u: &mut Unstructured<'_>) -> Config {
    let mut config = match below(u, 4) {
        0 => Config::local(),
        1 => Config::wan(),
        _ => Config::lan(),
    };
    if one_in(u, 2) {
        config.max_datagram_bytes = 512 + below(u, 3000);
        config.dead_retention = Duration::from_secs(1 + below(u, 20) as u64);
        config.pause_tolerance = Duration::from_millis(50 << below(u, 7));
        config.gossip_fanout = 1 + below(u, 5);
        config.retransmit_mult = 1 + below(u, 4) as u32;
        config.pull_timeout = Duration::from_millis(10 << below(u, 8));
    }
    config
}

impl World {
    fn new(u: &mut Unstructured<'_>) -> World {
        let cluster = ClusterId::of(CLUSTER);
        let mut hosts: Vec<Host> = Vec::new();
        for n in 0..=below(u, 2) {
            // Sometimes both want one name, or sit at one address behind the other's back.
            let name = if one_in(u, 8) { 0 } else { n };
            let config = config(u);
            let local = LocalNode {
                cluster,
                name: NodeName::new(&format!("n{name}")).unwrap(),
                addr: addr(n),
                boot: 1000,
                meta: Bytes::new(),
            };
            let node = Protocol::new(&config, local, n as u64 + 1, Instant::ORIGIN).unwrap();
            let fold = Fold::new(node.local());
            hosts.push(Host { node, fold });
        }
        let ids: Vec<_> = hosts.iter().map(|host| host.node.local().id()).collect();
        let (now, wire) = (Instant::ORIGIN, VecDeque::new());
        let trace = std::env::var_os("FUZZ_TRACE").is_some();
        World { now, cluster, hosts, pools: Pools::new(&ids), wire, trace }
    }

    fn step(&mut self, u: &mut Unstructured<'_>) {
        let at = below(u, self.hosts.len());
        match below(u, 16) {
            0..=3 => self.crafted(u, at),
            4 => {
                let bytes = some_bytes(u, 64).to_vec();
                let from = self.pools.addr(u);
                self.hand_over(at, from, &bytes);
            }
            5 => self.replay(u, at),
            6 => self.carry(u),
            7 | 8 => self.answer(u),
            9 | 10 => self.command(u, at),
            11 => self.wait(u, at),
            12 => {
                // A timeout that is early, late, or meant for nobody.
                self.now += Duration::from_micros(any::<u32>(u).into());
                self.hosts[at].node.handle_timeout(self.now);
            }
            13 => self.now += Duration::from_millis(any::<u16>(u).into()),
            14 => self.drain(u, at),
            _ => self.drain_all(at),
        }
        self.check();
    }

    fn hand_over(&mut self, at: usize, from: SocketAddr, bytes: &[u8]) {
        if self.trace {
            let mut frames = Vec::new();
            let decoded = decode_frames(bytes, &mut frames);
            let header = decode_header(bytes, self.cluster);
            eprintln!("{:?} {from} -> {at}: {header:?} {decoded:?} {frames:#?}", self.now);
        }
        let _ = self.hosts[at].node.handle_datagram(self.now, from, bytes);
    }

    /// A well-formed datagram with arbitrary frames.
    fn crafted(&mut self, u: &mut Unstructured<'_>, at: usize) {
        // A phantom at its own address, mostly, and to the right node.
        let phantom = self.hosts.len() + below(u, PHANTOMS);
        let (from, id) = match below(u, 8) {
            0 => (self.pools.addr(u), self.pools.id(u)),
            _ => (addr(phantom), self.pools.ids[phantom]),
        };
        let to = match below(u, 8) {
            0 => None,
            1 => Some(self.pools.id(u)),
            _ => Some(self.hosts[at].node.local().id()),
        };
        let mut bytes = Vec::new();
        begin(Header { cluster: self.cluster, from: id, to }, &mut bytes);
        for _ in 0..=below(u, 4) {
            self.pools.frame(u).encode(&mut bytes);
        }
        finish(&mut bytes, self.cluster);
        self.hand_over(at, from, &bytes);
    }

    /// A datagram that a node sent comes again: to anybody, from anybody, perhaps damaged.
    fn replay(&mut self, u: &mut Unstructured<'_>, at: usize) {
        if self.wire.is_empty() {
            return;
        }
        let mut bytes = self.wire[below(u, self.wire.len())].bytes.clone();
        let from = self.pools.addr(u);
        if one_in(u, 2) {
            bytes[7..15].copy_from_slice(&self.pools.id(u).as_u64().to_le_bytes());
        }
        if one_in(u, 2) {
            let to = self.hosts[at].node.local().id();
            bytes[15..19].copy_from_slice(&to.as_u64().to_le_bytes()[..4]);
        }
        for _ in 0..below(u, 4) {
            let flipped = below(u, bytes.len());
            bytes[flipped] = any(u);
        }
        if one_in(u, 8) {
            bytes.truncate(below(u, bytes.len()));
        }
        if bytes.len() >= HEADER_BYTES && !one_in(u, 8) {
            // As a forger would: the checksum is no secret.
            finish(&mut bytes, self.cluster);
        }
        self.hand_over(at, from, &bytes);
    }

    /// The network does its work for once: datagrams between the real nodes, in any order.
    fn carry(&mut self, u: &mut Unstructured<'_>) {
        for _ in 0..=below(u, 32) {
            let real = |sent: &Sent| (0..self.hosts.len()).find(|n| addr(*n) == sent.to);
            let between: Vec<usize> =
                (0..self.wire.len()).filter(|n| real(&self.wire[*n]).is_some()).collect();
            let Some(chosen) = between.get(below(u, between.len().max(1))) else { return };
            let sent = self.wire.remove(*chosen).expect("it was counted just now");
            let to = real(&sent).expect("the receiver is real");
            self.hand_over(to, addr(sent.by), &sent.bytes);
            self.drain_all(to);
            self.check();
        }
    }

    /// A phantom answers what a node asked, more or less as it should.
    fn answer(&mut self, u: &mut Unstructured<'_>) {
        if self.wire.is_empty() {
            return;
        }
        let sent = &self.wire[below(u, self.wire.len())];
        let (at, from) = (sent.by, sent.to);
        let header =
            decode_header(&sent.bytes, self.cluster).expect("a node's own datagram is well formed");
        let mut frames = Vec::new();
        decode_frames(&sent.bytes, &mut frames).expect("a node's own datagram is well formed");
        let ids = || self.pools.ids.iter().copied();
        let asked = if header.is_addressed() {
            let members = self.hosts[at].node.members();
            ids().chain(members.iter().map(Node::id)).find(|id| header.is_for(*id))
        } else {
            ids().enumerate().find(|(n, _)| addr(*n) == from).map(|(_, id)| id)
        };
        let Some(id) = asked else { return };
        let to = Some(header.from);
        let mut bytes = Vec::new();
        begin(Header { cluster: self.cluster, from: id, to }, &mut bytes);
        for frame in &frames {
            for answer in self.answers(u, id, frame) {
                answer.encode(&mut bytes);
            }
        }
        finish(&mut bytes, self.cluster);
        self.hand_over(at, from, &bytes);
    }

    fn answers(&self, u: &mut Unstructured<'_>, id: rolecall::NodeId, frame: &Frame) -> Vec<Frame> {
        let own = |u: &mut Unstructured<'_>| Frame::from(Profile { id, ..self.pools.profile(u) });
        match frame {
            Frame::Ping(ping) if one_in(u, 8) => vec![Nack { seq: ping.seq }.into()],
            Frame::Ping(ping) => vec![Ack { seq: ping.seq }.into()],
            Frame::Probe(probe) => vec![Ack { seq: probe.seq }.into()],
            Frame::Delegate(delegate) => vec![Ack { seq: delegate.seq }.into()],
            Frame::PingReq(request) => vec![Ack { seq: request.seq }.into()],
            Frame::Join(join) => {
                let verdict = match below(u, 6) {
                    0 => Verdict::Prove { cookie: any(u) },
                    1 => Verdict::RaiseBoot { above: Boot(990 + below(u, 20) as u64) },
                    2 => Verdict::Wait,
                    3 => Verdict::NameTaken { holder: self.pools.addr(u) },
                    _ => Verdict::Welcome,
                };
                vec![JoinReply { seq: join.seq, verdict }.into(), own(u)]
            }
            Frame::JoinReply(reply) => match reply.verdict {
                Verdict::Prove { cookie } => {
                    let at = self.pools.ids.iter().position(|other| *other == id).unwrap_or(99);
                    let name = NodeName::new(&format!("n{at}")).unwrap();
                    let boot = Boot(999 + below(u, 4) as u64);
                    let (seq, addr) = (reply.seq, self.pools.addr(u));
                    vec![Join { seq, cookie, name, boot, addr, padding: [0; 16] }.into(), own(u)]
                }
                _ => vec![own(u)],
            },
            Frame::Introduce(_) => vec![own(u)],
            Frame::Pull(pull) => {
                let done = one_in(u, 2);
                let through = if done { pull.high } else { self.pools.id(u) };
                let (token, table, low) = (pull.token, pull.table, pull.low);
                let mut page = vec![Page { token, table, low, through, done }.into()];
                page.extend((0..below(u, 4)).map(|_| self.pools.frame(u)));
                page
            }
            Frame::Compare(compare) if one_in(u, 2) => vec![Same { token: compare.token }.into()],
            Frame::Fetch(fetch) => {
                fetch.wants.iter().map(|(object, _)| self.object(u, *object)).collect()
            }
            Frame::FetchPart(fetch) => {
                let mut body = self.object(u, fetch.object).to_body();
                let total = u32::try_from(body.len()).unwrap();
                body.drain(..(fetch.offset as usize).min(body.len()));
                body.truncate(1 + below(u, 1400));
                let (object, offset, bytes) = (fetch.object, fetch.offset, body.into());
                vec![Part { object, version: fetch.version.max(1), total, offset, bytes }.into()]
            }
            Frame::Ask(ask) => {
                let generation = Generation::from_u64(below(u, 12) as u64);
                vec![Has { scope: ask.scope, generation }.into()]
            }
            Frame::Ack(_) => vec![Introduce.into()],
            _ => Vec::new(),
        }
    }

    fn object(&self, u: &mut Unstructured<'_>, object: Object) -> Frame {
        match object {
            Object::Profile(id) => Profile { id, ..self.pools.profile(u) }.into(),
            Object::Roles(id, scope) => Roles { id, scope, ..self.pools.roles(u) }.into(),
        }
    }

    fn command(&mut self, u: &mut Unstructured<'_>, at: usize) {
        let command = match below(u, 16) {
            0..=3 => Command::AddRoles { scope: scope(u), roles: roles(u) },
            4 | 5 => Command::RemoveRoles { scope: scope(u), roles: roles(u) },
            6 | 7 => Command::JoinScope(scope(u)),
            8 => Command::LeaveScope(scope(u)),
            9 => Command::SetMeta(Bytes::from(vec![any(u); below(u, 5000)])),
            10 | 11 => {
                let addrs = (0..below(u, 4)).map(|_| self.pools.addr(u)).collect();
                Command::Contact { addrs, token: any(u) }
            }
            12 => {
                let generation = Generation::from_u64(below(u, 12) as u64);
                Command::Deliver { token: any(u), scope: scope(u), generation }
            }
            13 => Command::Reconfigure(Box::new(config(u))),
            14 if one_in(u, 4) => Command::Leave,
            _ => {
                let addrs = (0..=PHANTOMS).map(addr).collect();
                Command::Contact { addrs, token: None }
            }
        };
        if self.trace {
            eprintln!("{:?} command to {at}: {command:?}", self.now);
        }
        let _ = self.hosts[at].node.handle_command(self.now, command);
    }

    /// Time passes as the node wants it.
    fn wait(&mut self, u: &mut Unstructured<'_>, at: usize) {
        let mut at_once = 0;
        for _ in 0..=below(u, 64) {
            let Some(due) = self.hosts[at].node.poll_timeout() else { break };
            at_once = if due <= self.now { at_once + 1 } else { 0 };
            assert!(at_once <= MAX_TIMEOUTS_AT_ONCE, "time stands still");
            self.now = self.now.max(due);
            self.hosts[at].node.handle_timeout(self.now);
            self.drain_all(at);
            self.check();
        }
    }

    /// Takes some of what a node has to say, from any of its mouths.
    fn drain(&mut self, u: &mut Unstructured<'_>, at: usize) {
        for _ in 0..below(u, 8) {
            match below(u, 3) {
                0 => drop(self.take_event(at)),
                1 => drop(self.hosts[at].node.poll_outcome()),
                _ => drop(self.take_datagram(at)),
            }
        }
    }

    fn drain_all(&mut self, at: usize) {
        while self.take_event(at) {}
        while let Some(outcome) = self.hosts[at].node.poll_outcome() {
            if let Outcome::Delivered { reached, missing, .. } = outcome {
                assert!(reached.iter().all(|node| !missing.contains(node)));
            }
        }
        while self.take_datagram(at) {}
        let Host { node, fold } = &self.hosts[at];
        fold.agrees(node);
        assert_eq!(node.stats().send_queue, 0);
    }

    fn drain_everything(&mut self) {
        for at in 0..self.hosts.len() {
            self.drain_all(at);
        }
        self.check();
    }

    fn take_event(&mut self, at: usize) -> bool {
        let Host { node, fold } = &mut self.hosts[at];
        let event = node.poll_event();
        event.is_some_and(|event| {
            fold.apply(&event);
            true
        })
    }

    fn take_datagram(&mut self, at: usize) -> bool {
        let node = &mut self.hosts[at].node;
        let mut bytes = Vec::new();
        let Some(transmit) = node.poll_transmit(&mut bytes) else { return false };
        let max = node.config().max_datagram_bytes;
        assert!(bytes.len() <= max, "{} bytes, {max} are allowed", bytes.len());
        let mut frames = Vec::new();
        decode_frames(&bytes, &mut frames).expect("a node's own datagram is well formed");
        for frame in &frames {
            match frame {
                Frame::Ping(ping) => self.pools.note(ping.seq.into()),
                Frame::Probe(probe) => self.pools.note(probe.seq.into()),
                Frame::Delegate(delegate) => self.pools.note(delegate.seq.into()),
                Frame::PingReq(request) => self.pools.note(request.seq.into()),
                Frame::Join(join) => self.pools.note(join.seq.into()),
                Frame::Compare(compare) => self.pools.note(compare.token),
                Frame::Pull(pull) => self.pools.note(pull.token),
                _ => {}
            }
        }
        if self.wire.len() == MAX_WIRE {
            self.wire.pop_front();
        }
        self.wire.push_back(Sent { by: at, to: transmit.to, bytes });
        true
    }

    fn check(&self) {
        for Host { node, .. } in &self.hosts {
            #[cfg(debug_assertions)]
            node.check();
            let stats = node.stats();
            assert!(stats.send_queue <= MAX_SEND_QUEUE, "{stats:?}");
            assert!(stats.fetch_queue <= MAX_FETCH_QUEUE, "{stats:?}");
            assert!(stats.pull_sessions <= MAX_PULL_SESSIONS, "{stats:?}");
            assert!(stats.dead <= MAX_DEAD, "{stats:?}");
            assert!(stats.suspects < stats.members, "{stats:?}");
        }
    }
}

/// Some roles; now and then more than a datagram has room for.
fn roles(u: &mut Unstructured<'_>) -> Vec<Role> {
    if one_in(u, 8) {
        let (first, count) = (below(u, 500), below(u, 500));
        return (first..first + count).map(|n| Role::from(("shard", n as u64))).collect();
    }
    (0..below(u, 5)).map(|_| role(u)).collect()
}
