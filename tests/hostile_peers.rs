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

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fold::Fold;
use frames::{addr, id};
use rolecall::proto::{Command, LocalNode, Protocol};
use rolecall::time::Instant;
use rolecall::wire::frame::{Alive, Boot, Failed, Incarnation, Membership, Profile, RoleOp, Roles};
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
    victim.hear(2, profile(2, "b", 2)).unwrap();
    let twice = delta(2, (0, 3), &[(2, "web"), (5, "web"), (6, "web")]);
    assert_eq!(victim.hear(2, twice), Err(DecodeError::Frame { kind: 24 }));
    assert!(victim.node.roles("default", id(2)).is_empty());
    victim.hear(2, delta(2, (0, 3), &[(6, "web")])).unwrap();
    assert_eq!(victim.node.roles("default", id(2)).len(), 1);
}

#[test]
fn a_disputed_name_is_never_held_by_two_runs() {
    let mut victim = Victim::new();
    victim.hear(2, profile(2, "b", 2)).unwrap();
    let holder = |victim: &Victim| {
        let members = victim.node.members();
        let named: Vec<_> = members.iter().filter(|node| node.name() == "b").collect();
        assert_eq!(named.len(), 1);
        named[0].id()
    };
    // Run 3 claims the name from elsewhere; while that is open, somebody says that run 4 is at the
    // address of run 2.
    victim.hear(3, profile(3, "b", 3)).unwrap();
    victim.hear(5, profile(4, "b", 2)).unwrap();
    assert_eq!(holder(&victim), id(2), "hearsay replaces nobody");
    victim.wait(Duration::from_secs(5));
    assert_eq!(holder(&victim), id(2), "nobody answered: that proves nothing");
}

#[test]
fn a_run_let_in_by_the_end_of_a_dispute_is_not_let_in_twice() {
    let mut victim = Victim::new();
    victim.hear(2, profile(2, "b", 2)).unwrap();
    victim.hear(3, profile(3, "b", 3)).unwrap();
    // The challenger says now that it is where the other one was.
    victim.hear(3, Profile { version: 2, ..profile(3, "b", 2) }).unwrap();
    victim.wait(Duration::from_secs(2));
    let named = victim.node.members().iter().filter(|node| node.name() == "b").count();
    assert_eq!(named, 1);
}

#[test]
fn a_challenger_that_is_a_member_under_another_name_stays_what_it_is() {
    let mut victim = Victim::new();
    victim.hear(9, profile(9, "b", 2)).unwrap();
    // An older run claims the name, then turns up under another one, and stays silent.
    let none: Arc<[Membership]> = Arc::from([]);
    victim.hear(5, Profile { version: 7, ..profile(3, "b", 3) }).unwrap();
    victim.hear(5, Profile { scopes: none, ..profile(3, "c", 3) }).unwrap();
    victim.wait(Duration::from_millis(1500));
    assert_eq!(victim.node.members().names(), ["b", "c", "n0"]);
}

#[test]
fn roles_of_a_scope_left_while_held_dead_do_not_come_back() {
    let mut victim = Victim::new();
    victim.hear(2, profile(2, "b", 2)).unwrap();
    victim.hear(3, profile(3, "c", 3)).unwrap();
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
