//! What peers must not be able to do to a node, whatever they send. Each test here is a rule that
//! the fuzz target `protocol` once saw broken.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_lossless,
    reason = "small numbers, in a test"
)]

#[path = "support/fold.rs"]
mod fold;
#[path = "support/frames.rs"]
mod frames;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fold::Fold;
use frames::{addr, id, meet};
use rolecall::proto::{Command, LocalNode, Protocol};
use rolecall::time::Instant;
use rolecall::wire::frame::{
    Alive, Ask, Boot, Compare, Delegate, Failed, Fetch, FetchPart, Incarnation, Introduce, Large,
    Left, Membership, MoreSymbols, Nack, Object, Ping, PingReq, Probe, Profile, Pull, Push, RoleOp,
    Roles, Suspect, Table, WrongRun,
};
use rolecall::wire::{ClusterId, DecodeError, Frame, Header, ScopeId, begin, finish};
use rolecall::{Config, Generation, NodeName, Role, ScopeName, Sight};

/// A node called "n0" at machine 0, and what a user hears of it.
struct Victim {
    node: Protocol,
    fold: Fold,
    now: Instant,
}

impl Victim {
    fn new() -> Victim {
        let local = LocalNode {
            cluster: ClusterId::of("test"),
            name: NodeName::new("n0").unwrap(),
            addr: addr(0),
            boot: 1,
            meta: Bytes::new(),
        };
        // The others answer nothing, and are not to be missed.
        let patient = Config { pause_tolerance: Duration::from_secs(600), ..Config::lan() };
        let mut node = Protocol::new(&patient, local, 1, Instant::ORIGIN).unwrap();
        let scope = ScopeName::new("default").unwrap();
        node.handle_command(Instant::ORIGIN, Command::JoinScope(scope)).unwrap();
        let fold = Fold::new(node.local());
        Victim { node, fold, now: Instant::ORIGIN }
    }

    /// The run with this number says something, from the machine of that number.
    fn hear(&mut self, from: u64, frame: impl Into<Frame>) -> Result<(), DecodeError> {
        let mut datagram = Vec::new();
        let header = Header { cluster: ClusterId::of("test"), from: id(from), to: None };
        begin(header, &mut datagram);
        frame.into().encode(&mut datagram);
        finish(&mut datagram, header.cluster);
        let heard = self.node.handle_datagram(self.now, addr(from as usize), &datagram);
        self.settle();
        heard
    }

    /// A run joins.
    fn meet(&mut self, profile: &Profile) {
        meet(&mut self.node, self.now, ClusterId::of("test"), profile);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(event) = self.node.poll_event() {
            self.fold.apply(&event);
        }
        let mut datagram = Vec::new();
        while self.node.poll_transmit(&mut datagram).is_some() {}
        self.fold.agrees(&self.node);
        #[cfg(debug_assertions)]
        self.node.check();
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(due) = self.node.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.node.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
    }
}

fn profile(run: u64, name: &str, at: usize) -> Profile {
    let membership = Membership { scope: ScopeId::of("default"), generation: Generation::ZERO };
    Profile {
        id: id(run),
        boot: Boot(run),
        version: 1,
        incarnation: Incarnation(0),
        name: NodeName::new(name).unwrap(),
        addr: addr(at),
        meta: Bytes::new(),
        scopes: Arc::from([membership]),
    }
}

fn delta(run: u64, (from, to): (u64, u64), ops: &[(u64, &str)]) -> Roles {
    let ops = ops.iter().map(|(code, role)| RoleOp { code: *code, role: Role::from(*role) });
    Roles {
        id: id(run),
        scope: ScopeId::of("default"),
        from: Generation::from_u64(from),
        to: Generation::from_u64(to),
        whole: false,
        ops: ops.collect(),
    }
}

#[test]
fn a_delta_that_names_a_role_twice_is_refused() {
    let mut victim = Victim::new();
    victim.meet(&profile(2, "b", 2));
    let twice = delta(2, (0, 3), &[(2, "web"), (5, "web"), (6, "web")]);
    assert_eq!(victim.hear(2, twice), Err(DecodeError::Frame { kind: 24 }));
    assert!(victim.node.roles("default", id(2)).is_empty());
    victim.hear(2, delta(2, (0, 3), &[(6, "web")])).unwrap();
    assert_eq!(victim.node.roles("default", id(2)).len(), 1);
}

#[test]
fn a_disputed_name_is_never_held_by_two_runs() {
    let mut victim = Victim::new();
    victim.meet(&profile(2, "b", 2));
    let holder = |victim: &Victim| {
        let members = victim.node.members();
        let named: Vec<_> = members.iter().filter(|node| node.name() == "b").collect();
        assert_eq!(named.len(), 1);
        named[0].id()
    };
    // Run 3 claims the name from elsewhere; while that is open, somebody says that run 4 is at the
    // address of run 2.
    victim.meet(&profile(5, "e", 5));
    victim.hear(5, profile(3, "b", 3)).unwrap();
    victim.hear(5, profile(4, "b", 2)).unwrap();
    assert_eq!(holder(&victim), id(2), "hearsay replaces nobody");
    victim.wait(Duration::from_secs(5));
    assert_eq!(holder(&victim), id(2), "nobody answered: that proves nothing");
}

#[test]
fn a_run_let_in_by_the_end_of_a_dispute_is_not_let_in_twice() {
    let mut victim = Victim::new();
    victim.meet(&profile(2, "b", 2));
    victim.meet(&profile(5, "e", 5));
    victim.hear(5, profile(3, "b", 3)).unwrap();
    // The challenger is now said to be where the other one was.
    victim.hear(5, Profile { version: 2, ..profile(3, "b", 2) }).unwrap();
    victim.wait(Duration::from_secs(2));
    let named = victim.node.members().iter().filter(|node| node.name() == "b").count();
    assert_eq!(named, 1);
}

#[test]
fn a_challenger_that_is_a_member_under_another_name_stays_what_it_is() {
    let mut victim = Victim::new();
    victim.meet(&profile(9, "b", 2));
    victim.meet(&profile(5, "e", 5));
    // An older run claims the name, then turns up under another one, and stays silent.
    let none: Arc<[Membership]> = Arc::from([]);
    victim.hear(5, Profile { version: 7, ..profile(3, "b", 3) }).unwrap();
    victim.hear(5, Profile { scopes: none, ..profile(3, "c", 3) }).unwrap();
    victim.wait(Duration::from_millis(1500));
    assert_eq!(victim.node.members().names(), ["b", "c", "e", "n0"]);
}

#[test]
fn roles_of_a_scope_left_while_held_dead_do_not_come_back() {
    let mut victim = Victim::new();
    victim.meet(&profile(2, "b", 2));
    victim.meet(&profile(3, "c", 3));
    victim.hear(2, delta(2, (0, 1), &[(2, "web")])).unwrap();
    let (id, by) = (id(2), id(3));
    let witnesses = Arc::from([(by, Sight::Silence), (victim.node.local().id(), Sight::Silence)]);
    victim.hear(3, Failed { id, incarnation: Incarnation(0), by, witnesses }).unwrap();
    let none: Arc<[Membership]> = Arc::from([]);
    victim.hear(3, Profile { version: 2, scopes: none, ..profile(2, "b", 2) }).unwrap();
    victim.hear(3, Alive { id, incarnation: Incarnation(1) }).unwrap();
    assert_eq!(victim.node.members().names(), ["b", "c", "n0"]);
    assert!(victim.node.roles("default", id).is_empty());
}

#[test]
fn a_lowered_limit_on_datagrams_holds_for_those_that_wait() {
    let mut victim = Victim::new();
    victim.node.handle_command(victim.now, Command::SetMeta(vec![1; 900].into())).unwrap();
    let mut datagram = Vec::new();
    begin(Header { cluster: ClusterId::of("test"), from: id(2), to: None }, &mut datagram);
    Frame::from(profile(2, "b", 2)).encode(&mut datagram);
    Frame::from(rolecall::wire::frame::Introduce).encode(&mut datagram);
    finish(&mut datagram, ClusterId::of("test"));
    victim.node.handle_datagram(victim.now, addr(2), &datagram).unwrap();
    let small = Config { max_datagram_bytes: 512, ..Config::lan() };
    victim.node.handle_command(victim.now, Command::Reconfigure(Box::new(small))).unwrap();
    while victim.node.poll_transmit(&mut datagram).is_some() {
        assert!(datagram.len() <= 512, "{}", datagram.len());
    }
}

/// What a node sends because of a datagram, all of it.
fn answers(
    victim: &mut Victim,
    from: u64,
    frames: &[Frame],
) -> (usize, Vec<(SocketAddr, Vec<u8>)>) {
    let mut datagram = Vec::new();
    let cluster = ClusterId::of("test");
    begin(Header { cluster, from: id(from), to: None }, &mut datagram);
    frames.iter().for_each(|frame| frame.encode(&mut datagram));
    finish(&mut datagram, cluster);
    victim.node.handle_datagram(victim.now, addr(from as usize), &datagram).unwrap();
    let (mut sent, mut bytes) = (Vec::new(), Vec::new());
    while let Some(transmit) = victim.node.poll_transmit(&mut bytes) {
        sent.push((transmit.to, bytes.clone()));
    }
    victim.settle();
    (datagram.len(), sent)
}

#[test]
fn a_stranger_gets_no_more_bytes_than_it_sent_and_only_where_it_sent_from() {
    let mut victim = Victim::new();
    victim.meet(&profile(2, "b", 2));
    victim.wait(Duration::from_secs(2));
    let (seq, token) = (7, 7);
    let scope = ScopeId::of("default");
    let table = Table::Members;
    let (low, high) = (id(1), id(u64::MAX));
    let one_of_each: Vec<Frame> = vec![
        Ping { seq }.into(),
        Probe { seq, digest: 1 }.into(),
        PingReq { seq, target: id(2), waited: 0 }.into(),
        Nack { seq }.into(),
        Introduce.into(),
        WrongRun.into(),
        profile(6, "f", 6).into(),
        profile(7, "g", 7).into(),
        Alive { id: id(2), incarnation: Incarnation(9) }.into(),
        Left { id: id(2), incarnation: Incarnation(0) }.into(),
        delta(2, (0, 3), &[(6, "web")]).into(),
        Fetch { wants: vec![(Object::Profile(id(2)), 0)] }.into(),
        FetchPart { object: Object::Profile(id(2)), version: 0, offset: 0 }.into(),
        Pull { token, table, low, high, known: Vec::new() }.into(),
        Compare { token, mutual: true, tables: Vec::new() }.into(),
        MoreSymbols { first: 0 }.into(),
        Ask { scope }.into(),
        Push.into(),
        Large { object: Object::Profile(id(2)), version: 9 }.into(),
    ];
    let mut answered = 0;
    let pings = vec![Frame::from(Ping { seq }); 500];
    let profiles = vec![Frame::from(profile(6, "f", 6)); 20];
    let delegate = |frame: Frame| {
        let mut cargo = Vec::new();
        (0..50).for_each(|_| frame.encode(&mut cargo));
        [Frame::from(Delegate { seq, low, high, patience: 9, cargo: cargo.into() })]
    };
    let local = victim.node.local().id();
    let doubt = Suspect { id: local, incarnation: Incarnation(3), by: id(2) };
    let delegates = [delegate(profile(6, "f", 6).into()), delegate(doubt.into())];
    let each = one_of_each.iter().map(std::slice::from_ref);
    let each = each.chain(delegates.iter().map(|frames| &frames[..]));
    for frames in each.chain([&pings[..], &profiles, &one_of_each]) {
        let (received, sent) = answers(&mut victim, 6, frames);
        let bytes: usize = sent.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes <= received, "{bytes} bytes for {received}: {frames:?}");
        // A doubt about the node itself is refuted, to members.
        let may_go_to = |to| to == addr(6) || to == addr(2);
        assert!(sent.iter().all(|(to, _)| may_go_to(*to)), "{frames:?} brings {sent:?}");
        answered += usize::from(bytes > 0);
    }
    assert!(answered >= 8, "{answered}");
    assert_eq!(victim.node.members().names(), ["b", "n0"]);
}

#[test]
fn who_does_not_prove_its_address_is_never_probed_nor_told_of() {
    let mut victim = Victim::new();
    victim.meet(&profile(2, "b", 2));
    let mut datagram = Vec::new();
    for run in 10..40 {
        // From its own address, from another one, and of somebody else.
        victim.hear(run, profile(run, "x", run as usize)).unwrap();
        victim.hear(run, profile(run, "y", 90)).unwrap();
        victim.hear(run, profile(run + 100, "z", 91)).unwrap();
    }
    let end = victim.now + Duration::from_secs(60);
    while let Some(due) = victim.node.poll_timeout().filter(|due| *due <= end) {
        victim.now = victim.now.max(due);
        victim.node.handle_timeout(victim.now);
        while let Some(transmit) = victim.node.poll_transmit(&mut datagram) {
            assert_eq!(transmit.to, addr(2), "a stranger's address is sent to");
        }
        victim.settle();
    }
    assert_eq!(victim.node.members().names(), ["b", "n0"]);
    // Who does prove it is a member.
    victim.meet(&profile(10, "x", 10));
    assert_eq!(victim.node.members().names(), ["b", "n0", "x"]);
}

#[test]
fn a_forged_address_of_a_member_does_not_take_its_name() {
    let mut victim = Victim::new();
    victim.meet(&profile(2, "b", 2));
    // As if from the member's own address: a newer run of its name.
    let mut datagram = Vec::new();
    begin(Header { cluster: ClusterId::of("test"), from: id(9), to: None }, &mut datagram);
    Frame::from(profile(9, "b", 2)).encode(&mut datagram);
    finish(&mut datagram, ClusterId::of("test"));
    victim.node.handle_datagram(victim.now, addr(2), &datagram).unwrap();
    victim.settle();
    victim.wait(Duration::from_secs(30));
    assert_eq!(victim.node.members().names(), ["b", "n0"]);
    assert!(victim.node.members().iter().all(|node| node.id() != id(9)));
}
