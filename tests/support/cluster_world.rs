//! Seven nodes and a hostile one that has the key and says anything at all, of itself, of others
//! and in the names of others. When it falls silent, the seven have to agree with the truth about
//! each other. Used by the fuzz target `cluster`, and seeded by `tests/fuzz_seeded.rs`.

#![allow(dead_code, unreachable_pub, reason = "included by a test and by a fuzz target")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use arbitrary::Unstructured;
use bytes::Bytes;
use rolecall::proto::{Command, Protocol, Sealing};
use rolecall::time::Instant;
use rolecall::wire::frame::Verdict;
use rolecall::wire::limits::MAX_DATAGRAM_BYTES;
use rolecall::wire::sealed::begin_sealed;
use rolecall::wire::{ClusterId, Frame, Header, begin, decode_frames, finish};
use rolecall::{Config, Keyring, NodeId};

use super::fold::Fold;
use super::frames::{Pools, any, below, one_in, role, scope};
use super::net::{CLUSTER, Net, addr};

const HONEST: u16 = 7;
const MAX_STEPS: usize = 60;
/// The hostile node has to be found dead, what it made up too, and who was declared down again and
/// again to be trusted anew.
const CALM: Duration = Duration::from_secs(1200);
/// Datagrams that a run of the hostile node's may be ahead of what it has sealed so far.
const MAX_SKIPPED: usize = 3000;

struct World {
    net: Net,
    pools: Pools,
    hostile: NodeId,
    keyring: Option<Keyring>,
    /// What the hostile node seals with, in its own name and in others'.
    sealings: BTreeMap<NodeId, Sealing>,
    /// The numbers that it has come to in them, at least.
    numbers: BTreeMap<NodeId, u64>,
    /// What has been sent to it.
    heard: Rc<RefCell<VecDeque<Vec<u8>>>>,
    asked: VecDeque<Frame>,
    /// In whose name it has said that a name is taken.
    vouched: BTreeSet<NodeId>,
}

/// Lets the bytes do what they want to a cluster.
pub fn run(bytes: &[u8]) {
    let u = &mut Unstructured::new(bytes);
    let sealed = one_in(u, 2);
    let mut world = World::new(sealed);
    for _ in 0..MAX_STEPS {
        if u.is_empty() {
            break;
        }
        world.step(u);
    }
    world.settle();
}

impl World {
    fn new(sealed: bool) -> World {
        let mut net = Net::new(1, Config::lan());
        let keyring = sealed.then(|| Keyring::new([7; 32]));
        net.keyring.clone_from(&keyring);
        for n in 0..=HONEST {
            let own = format!("own-{n}");
            let roles: [&str; 2] = [&own, "web"];
            let scopes = [("default", &roles[..]), ("jobs", &roles[..1])];
            let joined = if n % 2 == 0 { 2 } else { 1 };
            net.start_with(&format!("n{n}"), addr(n), &[addr(0)], &scopes[..joined]);
        }
        net.run_until(Duration::from_secs(30), Net::agrees);
        let ids: Vec<NodeId> = (0..=HONEST).map(|n| net.id(addr(n))).collect();
        let hostile = *ids.last().expect("eight nodes");
        drop(net.kill(addr(HONEST)));
        net.refuses = true;
        let heard: Rc<RefCell<VecDeque<Vec<u8>>>> = Rc::default();
        let to_it = heard.clone();
        net.tap = Some(Box::new(move |_, to, bytes| {
            if to == addr(HONEST) && to_it.borrow().len() < 64 {
                to_it.borrow_mut().push_back(bytes.to_vec());
            }
        }));
        World {
            net,
            pools: Pools::new(&ids),
            hostile,
            keyring,
            sealings: BTreeMap::new(),
            numbers: BTreeMap::new(),
            heard,
            asked: VecDeque::new(),
            vouched: BTreeSet::new(),
        }
    }

    fn step(&mut self, u: &mut Unstructured<'_>) {
        match below(u, 8) {
            0 => self.net.run(Duration::from_millis(1 + u64::from(any::<u8>(u)) * 16)),
            1 => self.change(u),
            2 | 3 => self.answer(u),
            _ => {
                let frames = (0..=below(u, 4)).map(|_| self.pools.frame(u)).collect::<Vec<_>>();
                let from = if one_in(u, 3) { self.pools.id(u) } else { self.hostile };
                self.tell(u, from, &frames);
            }
        }
    }

    /// One of the seven changes something.
    fn change(&mut self, u: &mut Unstructured<'_>) {
        let at = addr(u16::try_from(below(u, HONEST.into())).expect("few nodes"));
        let command = match below(u, 8) {
            0 => Command::SetMeta(Bytes::from(vec![any(u)])),
            1 => Command::JoinScope(scope(u)),
            2 => Command::LeaveScope(scope(u)),
            3 | 4 => Command::RemoveRoles { scope: scope(u), roles: vec![role(u)] },
            _ => Command::AddRoles { scope: scope(u), roles: vec![role(u)] },
        };
        let host = self.net.hosts.get_mut(&at).expect("it runs");
        // Some are refused, as by a node that has stopped.
        let _ = host.node.handle_command(self.net.now, command);
        self.net.drain(at);
    }

    /// The hostile node answers something that it was asked, in its own name or another's.
    fn answer(&mut self, u: &mut Unstructured<'_>) {
        self.listen();
        let Some(asked) = self.asked.pop_front() else { return };
        let frames = self.pools.answers(u, &asked);
        let from = if one_in(u, 8) { self.pools.id(u) } else { self.hostile };
        if !frames.is_empty() {
            self.tell(u, from, &frames);
        }
    }

    /// Takes in what was sent to it.
    fn listen(&mut self) {
        let mut frames = Vec::new();
        for bytes in self.heard.take() {
            if let Some(keyring) = &self.keyring {
                let (cluster, now) = (ClusterId::of(CLUSTER), self.net.now);
                let mut opened = Vec::new();
                let mut own = Sealing::new(keyring.clone(), cluster, self.hostile);
                if own.open(now, &bytes, &mut opened).is_err() {
                    continue;
                }
                let mut plain = Vec::new();
                begin(Header { cluster, from: self.hostile, to: None }, &mut plain);
                plain.extend_from_slice(&opened);
                decode_frames(&plain, &mut frames).expect("an honest node's frames");
            } else {
                decode_frames(&bytes, &mut frames).expect("an honest node's frames");
            }
            for frame in frames.drain(..) {
                match &frame {
                    Frame::Pull(pull) => self.pools.note(pull.token),
                    Frame::Compare(compare) => self.pools.note(compare.token),
                    Frame::Ping(ping) => self.pools.note(ping.seq.into()),
                    Frame::Probe(probe) => self.pools.note(probe.seq.into()),
                    Frame::PingReq(request) => self.pools.note(request.seq.into()),
                    _ => {}
                }
                self.asked.push_back(frame);
            }
        }
        while self.asked.len() > 64 {
            self.asked.pop_front();
        }
    }

    /// A datagram to one of the seven, in a run's name, from some address.
    fn tell(&mut self, u: &mut Unstructured<'_>, from: NodeId, frames: &[Frame]) {
        let cluster = ClusterId::of(CLUSTER);
        let at = below(u, HONEST.into());
        let (to, target) = (self.pools.ids[at], addr(u16::try_from(at).expect("few nodes")));
        let source = if one_in(u, 4) { self.pools.addr(u) } else { addr(HONEST) };
        let taken =
            |frame: &Frame| matches!(frame, Frame::JoinReply(it) if is_name_taken(it.verdict));
        if frames.iter().any(taken) {
            self.vouched.insert(from);
        }
        let header = Header { cluster, from, to: Some(to) };
        let mut bytes = Vec::new();
        if let Some(keyring) = &self.keyring {
            begin_sealed(header, &mut bytes);
            frames.iter().for_each(|frame| frame.encode(&mut bytes));
            let fresh = || Sealing::new(keyring.clone(), cluster, from);
            let sealing = self.sealings.entry(from).or_insert_with(fresh);
            // Beyond what the run itself has sealed, or not.
            let number = self.numbers.entry(from).or_default();
            *number += 1 + below(u, MAX_SKIPPED) as u64;
            // Each call counts, as if a second had passed since the one before.
            let now = Instant::from_micros(*number * 1_000_000);
            sealing.number_on(now, *number);
            assert!(sealing.seal(Some(to), &mut bytes), "there are numbers left");
        } else {
            begin(header, &mut bytes);
            frames.iter().for_each(|frame| frame.encode(&mut bytes));
            finish(&mut bytes, cluster);
        }
        if bytes.len() <= MAX_DATAGRAM_BYTES {
            self.net.deliver(source, target, bytes);
        }
    }

    /// The hostile node falls silent: in the end all is as it should be.
    fn settle(&mut self) {
        let start = self.net.now;
        while let Some(wrong) = self.disagreement() {
            let took = self.net.now - start;
            assert!(took < CALM, "after {took:?} of calm: {wrong}");
            self.net.run(Duration::from_secs(1));
        }
        for host in self.net.hosts.values() {
            let mut fold = Fold::new(host.node.local());
            host.events.iter().for_each(|(_, event)| fold.apply(event));
            fold.agrees(&host.node);
        }
    }

    /// Where one of the seven is wrong about another one.
    fn disagreement(&self) -> Option<String> {
        let running = || {
            let hosts = self.net.hosts.iter();
            hosts.filter(|(at, host)| !self.gave_way(**at, &host.node)).map(|(_, host)| &host.node)
        };
        running().flat_map(|node| running().map(move |other| (node, other))).find_map(
            |(node, other)| {
                let (local, truth) = (node.local(), other.local());
                let members = node.members();
                let Some(seen) = members.iter().find(|it| it.id() == truth.id()) else {
                    return Some(format!("{local} does not know {truth}"));
                };
                let same = seen == truth && seen.addr() == truth.addr();
                if !same || seen.meta() != truth.meta() {
                    return Some(format!("{local} knows {seen:?} instead of {truth:?}"));
                }
                node.scopes().iter().find_map(|scope| {
                    let roles = other.roles(scope, truth.id());
                    let known = node.roles(scope, truth.id());
                    (known != roles)
                        .then(|| format!("{scope}: {local} knows {known:?} of {truth}: {roles:?}"))
                })
            },
        )
    }

    /// Whether a node has stopped because another run said that it has its name.
    fn gave_way(&self, at: SocketAddr, node: &Protocol) -> bool {
        let made_up = self.vouched.iter().any(|id| !self.pools.ids[..8].contains(id));
        assert!(!node.is_stopped() || made_up, "{at} stopped, and there was no heir");
        node.is_stopped()
    }
}

fn is_name_taken(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::NameTaken { .. })
}
