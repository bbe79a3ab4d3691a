//! Whatever a node that has the key says of the others, each of them has the last word on itself.

#[path = "support/net.rs"]
mod net;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use net::{CLUSTER, Net, addr, scope};
use rolecall::proto::{Command, Outcome, Sealing};
use rolecall::time::Instant;
use rolecall::wire::frame::{
    Alive, Boot, Failed, Incarnation, JoinReply, Left, Membership, Profile, Replaced, RoleOp,
    Roles, Verdict,
};
use rolecall::wire::sealed::begin_sealed;
use rolecall::wire::{ClusterId, Frame, Header, ScopeId, begin, decode_frames, finish};
use rolecall::{Config, Event, Generation, Keyring, NodeId, NodeName, Role, Sight};

const NODES: u16 = 6;
const LIAR: u16 = NODES;

struct World {
    net: Net,
    liar: NodeId,
}

impl World {
    /// Six nodes with a role each, and one that was a member and lies from now on.
    fn new(seed: u64, keyring: Option<Keyring>) -> World {
        let mut net = Net::new(seed, Config::lan());
        net.keyring = keyring;
        for n in 0..=LIAR {
            let role = format!("own-{n}");
            let scopes = [("default", &[role.as_str()][..])];
            net.start_with(&format!("n{n}"), addr(n), &[addr(0)], &scopes);
        }
        net.run_until(Duration::from_secs(30), Net::agrees);
        let liar = net.id(addr(LIAR));
        drop(net.kill(addr(LIAR)));
        net.refuses = true;
        net.forget_events();
        World { net, liar }
    }

    fn id(&self, n: u16) -> NodeId {
        self.net.id(addr(n))
    }

    /// The liar tells node `to`.
    fn tell(&mut self, to: u16, frame: impl Into<Frame>) {
        self.say((self.liar, addr(LIAR)), to, frame);
    }

    /// A run somewhere tells node `to`.
    fn say(&mut self, (from, at): (NodeId, SocketAddr), to: u16, frame: impl Into<Frame>) {
        let header = Header { cluster: ClusterId::of(CLUSTER), from, to: Some(self.id(to)) };
        let mut datagram = Vec::new();
        begin(header, &mut datagram);
        frame.into().encode(&mut datagram);
        finish(&mut datagram, header.cluster);
        self.net.deliver(at, addr(to), datagram);
    }

    /// The liar sends node `to` a datagram that is sealed in the name of `of`; false when that has
    /// no more numbers.
    fn forge(&mut self, forger: &mut Sealing, of: u16, to: u16) -> bool {
        let (from, run) = (self.id(of), Some(self.id(to)));
        let mut datagram = Vec::new();
        begin_sealed(Header { cluster: ClusterId::of(CLUSTER), from, to: run }, &mut datagram);
        let sealed = forger.seal(run, &mut datagram);
        if sealed {
            self.net.deliver(addr(LIAR), addr(to), datagram);
        }
        sealed
    }

    /// Datagrams that node `at` dropped as too old.
    fn replayed(&self, at: u16) -> u64 {
        self.net.node(addr(at)).stats().dropped.replayed
    }

    /// All agree in the end, the liar is gone, and nobody has stopped.
    fn settle(&mut self) {
        self.net.run_until(Duration::from_secs(900), Net::agrees);
        assert!(self.net.hosts.values().all(|host| !host.node.is_stopped()));
    }

    /// What is true of a node.
    fn profile(&self, n: u16) -> Profile {
        let node = self.net.node(addr(n)).local();
        let membership =
            Membership { scope: ScopeId::of("default"), generation: Generation::from_u64(1) };
        Profile {
            id: node.id(),
            boot: Boot(1001 + u64::from(n)),
            version: 900,
            incarnation: Incarnation(0),
            name: node.node_name().clone(),
            addr: node.addr(),
            meta: Bytes::new(),
            scopes: [membership].into(),
        }
    }

    fn told(&self, at: u16, what: &str) -> bool {
        self.net.told(addr(at)).iter().any(|event| event.starts_with(what))
    }

    fn roles(&self, at: u16, of: u16) -> Vec<Role> {
        self.net.node(addr(at)).roles("default", self.id(of)).to_vec()
    }
}

fn whole(id: NodeId, to: u64, role: &str) -> Roles {
    let (scope, from, to) = (ScopeId::of("default"), Generation::ZERO, Generation::from_u64(to));
    Roles { id, scope, from, to, whole: true, ops: vec![RoleOp { code: 0, role: role.into() }] }
}

#[test]
fn who_is_said_to_have_left_comes_back_in_another_life() {
    let mut world = World::new(1, None);
    let victim = world.id(2);
    world.tell(3, Left { id: victim, incarnation: Incarnation(0) });
    assert!(world.told(3, "down n2 left"), "it is believed at first");
    world.settle();
    assert!(world.told(3, "up n2"));
    assert!(world.net.node(addr(2)).stats().refutations > 0);
}

#[test]
fn who_is_said_to_have_failed_refutes_that() {
    let mut world = World::new(2, None);
    let victim = world.id(2);
    let witnesses = [1, 3, 4].map(|n| (world.id(n), Sight::Silence)).into();
    let by = world.id(1);
    world.tell(5, Failed { id: victim, incarnation: Incarnation(0), by, witnesses });
    world.net.run(Duration::from_millis(100));
    assert!(world.told(5, "down n2"), "it is believed at first");
    world.settle();
}

#[test]
fn nobody_gives_way_to_an_heir_that_is_not_there() {
    let mut world = World::new(3, None);
    let (victim, heir) = (world.id(2), NodeId::from_u64(77).unwrap());
    let claim = Replaced { id: victim, incarnation: Incarnation(0), by: heir };
    for n in 0..NODES {
        world.tell(n, claim);
    }
    world.settle();
}

#[test]
fn nobody_gives_way_to_an_heir_of_another_name() {
    let mut world = World::new(4, None);
    let (victim, heir) = (world.id(2), world.id(4));
    // It lives, and answers; but it has a name of its own.
    for n in 0..NODES {
        world.tell(n, Replaced { id: victim, incarnation: Incarnation(0), by: heir });
        world.tell(n, Profile { name: NodeName::new("n2").unwrap(), ..world.profile(4) });
    }
    world.settle();
}

#[test]
fn who_has_lost_its_name_to_a_run_that_says_so_stops() {
    let mut world = World::new(5, None);
    let (victim, heir) = (world.id(2), NodeId::from_u64(77).unwrap());
    world.tell(2, Replaced { id: victim, incarnation: Incarnation(0), by: heir });
    let boot = Boot(5000);
    world.tell(2, Profile { id: heir, boot, addr: addr(40), ..world.profile(2) });
    world.net.log = Some(Vec::new());
    world.net.run(Duration::from_millis(100));
    let log = world.net.log.take().unwrap();
    let mut frames = Vec::new();
    for (_, _, _, bytes) in log.iter().filter(|(_, _, to, _)| *to == addr(40)) {
        let mut decoded = Vec::new();
        decode_frames(bytes, &mut decoded).unwrap();
        frames.append(&mut decoded);
    }
    let seq = |frame: &Frame| if let Frame::Join(join) = frame { Some(join.seq) } else { None };
    let seq = frames.iter().find_map(seq).expect("the heir is asked");
    let reply = JoinReply { seq, verdict: Verdict::NameTaken { holder: addr(40) } };
    world.say((heir, addr(40)), 2, reply);
    let stopped = Outcome::NameTaken { holder: addr(40), stopped: true };
    assert!(world.net.hosts[&addr(2)].outcomes.contains(&stopped));
    assert!(world.net.hosts[&addr(2)].events.iter().any(|(_, event)| {
        matches!(event, Event::NameConflict { other, .. } if *other == addr(40))
    }));
}

#[test]
fn roles_that_others_write_are_outdone() {
    for generation in [1, 2, 500, 1 << 51] {
        let mut world = World::new(6, None);
        let victim = world.id(2);
        world.net.add(addr(2), "default", "second");
        if generation == 2 {
            // Before the true one comes, under its number.
            world.net.run(Duration::from_micros(1));
        }
        for n in [3, 4] {
            world.tell(n, whole(victim, generation.max(2), "forged"));
        }
        world.settle();
        assert_eq!(world.roles(3, 2), world.roles(2, 2));
        assert_eq!(world.roles(2, 2), ["own-2", "second"].map(Role::from));
    }
}

#[test]
fn a_generation_out_of_reach_is_refused() {
    let mut world = World::new(7, None);
    let victim = world.id(2);
    world.tell(3, whole(victim, u64::MAX, "forged"));
    assert_eq!(world.net.node(addr(3)).stats().dropped.refused, 1);
    assert_eq!(world.roles(3, 2), ["own-2"].map(Role::from));
    world.tell(3, Alive { id: victim, incarnation: Incarnation(u32::MAX) });
    world.tell(3, Left { id: victim, incarnation: Incarnation(u32::MAX) });
    world.tell(3, Profile { version: u32::MAX, ..world.profile(2) });
    assert_eq!(world.net.node(addr(3)).stats().dropped.refused, 4);
    world.settle();
}

#[test]
fn a_profile_that_others_make_is_outdone() {
    let lies: [fn(Profile) -> Profile; 5] = [
        |truth| Profile { meta: Bytes::from_static(b"no"), ..truth },
        |truth| Profile { addr: addr(50), ..truth },
        |truth| Profile { name: NodeName::new("x").unwrap(), ..truth },
        |truth| Profile { scopes: [].into(), ..truth },
        // With a number that the node takes itself in a moment.
        |truth| Profile { meta: Bytes::from_static(b"no"), version: 3, ..truth },
    ];
    for (seed, lie) in (10..).zip(lies) {
        let mut world = World::new(seed, None);
        for n in [1, 3, 4] {
            let lie = lie(world.profile(2));
            world.tell(n, lie);
        }
        world.net.command(addr(2), Command::SetMeta(Bytes::from_static(b"yes")));
        world.settle();
        let members = world.net.node(addr(3)).members();
        let seen = members.iter().find(|node| node.name() == "n2").unwrap();
        assert_eq!((seen.meta(), seen.addr()), (&b"yes"[..], addr(2)));
        assert_eq!(world.net.node(addr(3)).scopes(), [scope("default")]);
        assert_eq!(world.roles(3, 2), ["own-2"].map(Role::from));
    }
}

#[test]
fn numbers_that_others_seal_with_are_passed() {
    let keyring = Keyring::new([7; 32]);
    let mut world = World::new(20, Some(keyring.clone()));
    let mut forger = Sealing::new(keyring, ClusterId::of(CLUSTER), world.id(2));
    forger.number_on(Instant::ORIGIN, 1_000_000);
    assert!(world.forge(&mut forger, 2, 3));
    world.net.run(Duration::from_secs(20));
    let before = world.replayed(3);
    assert!(before > 0, "what it sends seems old for a moment");
    world.net.run(Duration::from_secs(20));
    assert_eq!(world.replayed(3), before, "it has heard of that");
    world.settle();
    assert!(!world.told(3, "down n2"), "nobody was held dead meanwhile");
}

#[test]
fn numbers_far_ahead_are_reached_in_steps_and_nothing_is_beyond_the_last() {
    let keyring = Keyring::new([7; 32]);
    let mut world = World::new(21, Some(keyring.clone()));
    let mut forger = Sealing::new(keyring, ClusterId::of(CLUSTER), world.id(2));
    // Each is as far ahead of the one before as one can get at once.
    for step in 1..=3 {
        forger.number_on(Instant::from_micros(step * 1_000_000), step << 36);
        assert!(world.forge(&mut forger, 2, 3));
    }
    world.net.run(Duration::from_secs(60));
    let before = world.replayed(3);
    world.net.run(Duration::from_secs(20));
    assert_eq!(world.replayed(3), before, "it has caught up");
    world.settle();
    for second in 4..5000 {
        forger.number_on(Instant::from_micros(second * 1_000_000), u64::MAX);
    }
    assert!(!world.forge(&mut forger, 2, 3), "there are no more");
}

#[test]
fn a_run_that_was_replaced_while_it_stood_still_gives_way() {
    let mut world = World::new(22, None);
    world.net.run(Duration::from_secs(60));
    world.net.hosts.get_mut(&addr(2)).unwrap().paused = true;
    world.net.run(Duration::from_secs(20));
    // Rescheduled: the same name, at another address.
    world.net.start("n2", addr(30), &[addr(0)]);
    world.net.run(Duration::from_secs(20));
    let heir = world.id(30);
    world.net.resume(addr(2));
    world.net.run(Duration::from_secs(20));
    let stopped = Outcome::NameTaken { holder: addr(30), stopped: true };
    assert!(world.net.hosts[&addr(2)].outcomes.contains(&stopped), "it has asked, and stops");
    drop(world.net.kill(addr(2)));
    world.settle();
    let members = world.net.node(addr(0)).members();
    assert_eq!(members.iter().find(|node| node.name() == "n2").unwrap().id(), heir);
    assert!(!world.told(0, "down n2 replaced by") || world.told(0, "up n2"));
}

#[test]
fn a_stranger_cannot_put_anybody_out_under_another_name() {
    let mut world = World::new(23, None);
    let lie = Profile { name: NodeName::new("x").unwrap(), ..world.profile(2) };
    world.liar = NodeId::from_u64(99).unwrap();
    world.tell(3, lie);
    assert!(!world.told(3, "down n2"), "nobody knows who says so");
    world.settle();
}

#[test]
fn who_is_lied_about_all_the_time_does_not_tell_everybody_each_time() {
    let mut world = World::new(24, None);
    let victim = world.id(2);
    world.net.run(Duration::from_secs(5));
    let before = world.net.node(addr(2)).stats().refutations;
    for n in 0..100 {
        world.tell(2, whole(victim, 500 + n, "forged"));
        world.net.run(Duration::from_millis(10));
    }
    let refuted = world.net.node(addr(2)).stats().refutations - before;
    assert!((1..=3).contains(&refuted), "{refuted} in a second");
    world.settle();
}
