//! What an insider, a node that has the cluster's key, cannot make others keep: each limit of
//! `Config` with its error at home, its one event abroad, and what stays as it was.

#![allow(clippy::cast_possible_truncation, reason = "small numbers, in a test")]

#[path = "support/fold.rs"]
mod fold;
#[path = "support/frames.rs"]
mod frames;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fold::Fold;
use frames::{addr, id, meet};
use rolecall::proto::{Command, CommandError, LocalNode, Protocol};
use rolecall::time::Instant;
use rolecall::wire::frame::{
    Alive, Boot, Failed, Incarnation, Large, Left, Membership, Object, Profile, RoleOp, Roles,
};
use rolecall::wire::{ClusterId, Frame, Header, ScopeId, begin, decode_frames, finish};
use rolecall::{
    Config, Event, Generation, Limit, NodeName, Role, RoleError, ScopeError, ScopeName, Sight,
};

/// A limit that was reached: by which node, and in which scope.
type Reached = (Limit, String, Option<String>);

/// A node called "n0" at machine 0, whom others tell things.
struct Victim {
    node: Protocol,
    fold: Fold,
    reached: Vec<Reached>,
    now: Instant,
}

fn cluster() -> ClusterId {
    ClusterId::of("test")
}

fn scope() -> ScopeName {
    ScopeName::new("default").unwrap()
}

/// The others answer nothing, and are not to be missed.
fn patient() -> Config {
    Config { pause_tolerance: Duration::from_secs(600), ..Config::lan() }
}

impl Victim {
    fn new(config: &Config) -> Victim {
        let (name, meta) = (NodeName::new("n0").unwrap(), Bytes::new());
        let local = LocalNode { cluster: cluster(), name, addr: addr(0), boot: 1, meta };
        let mut node = Protocol::new(config, local, 1, Instant::ORIGIN).unwrap();
        node.handle_command(Instant::ORIGIN, Command::JoinScope(scope())).unwrap();
        let fold = Fold::new(node.local());
        Victim { node, fold, reached: Vec::new(), now: Instant::ORIGIN }
    }

    /// The run with this number says something; what the node has to say to that.
    fn hear(&mut self, from: u64, frame: impl Into<Frame>) -> Vec<Frame> {
        let mut datagram = Vec::new();
        begin(Header { cluster: cluster(), from: id(from), to: None }, &mut datagram);
        frame.into().encode(&mut datagram);
        finish(&mut datagram, cluster());
        self.node.handle_datagram(self.now, addr(from as usize), &datagram).unwrap();
        self.settle()
    }

    /// A run joins, whose name is "b" for 2, and so on.
    fn meet(&mut self, run: u64) {
        self.meet_with(&profile(run, 1, &["default"]));
    }

    fn meet_with(&mut self, profile: &Profile) {
        meet(&mut self.node, self.now, cluster(), profile);
        self.settle();
    }

    fn settle(&mut self) -> Vec<Frame> {
        while let Some(event) = self.node.poll_event() {
            self.fold.apply(&event);
            if let Event::LimitReached { limit, node, scope } = event {
                let scope = scope.map(|scope| scope.to_string());
                self.reached.push((limit, node.name().to_string(), scope));
            }
        }
        let (mut datagram, mut frames, mut said) = (Vec::new(), Vec::new(), Vec::new());
        while self.node.poll_transmit(&mut datagram).is_some() {
            decode_frames(&datagram, &mut frames).unwrap();
            said.append(&mut frames);
        }
        self.fold.agrees(&self.node);
        #[cfg(debug_assertions)]
        self.node.check();
        said
    }

    fn command(&mut self, command: Command) -> Result<(), CommandError> {
        let result = self.node.handle_command(self.now, command);
        self.settle();
        result
    }

    fn add<const N: usize>(&mut self, roles: [&str; N]) -> Result<(), RoleError> {
        let roles = roles.map(Role::from).to_vec();
        match self.command(Command::AddRoles { scope: scope(), roles }) {
            Err(CommandError::Role(error)) => Err(error),
            other => {
                other.unwrap();
                Ok(())
            }
        }
    }

    fn roles(&self, run: u64) -> Vec<Role> {
        self.node.roles("default", id(run)).iter().cloned().collect()
    }

    fn over_limit(&self) -> u64 {
        self.node.stats().dropped.over_limit
    }

    fn reached(&mut self) -> Vec<Reached> {
        std::mem::take(&mut self.reached)
    }
}

fn name(run: u64) -> String {
    char::from(b'a' + (run - 1) as u8).to_string()
}

fn profile(run: u64, version: u32, scopes: &[&str]) -> Profile {
    let membership = |name: &&str| {
        let (scope, generation) = (ScopeId::of(name), Generation::ZERO);
        Membership { scope, generation }
    };
    let mut scopes: Vec<_> = scopes.iter().map(membership).collect();
    scopes.sort_unstable_by_key(|it| it.scope);
    Profile {
        id: id(run),
        boot: Boot(run),
        version,
        incarnation: Incarnation(0),
        name: NodeName::new(&name(run)).unwrap(),
        addr: addr(run as usize),
        meta: Bytes::new(),
        scopes: Arc::from(scopes),
    }
}

/// All roles of a run at a generation.
fn whole<R: Into<Role>>(run: u64, to: u64, roles: impl IntoIterator<Item = R>) -> Roles {
    let mut roles: Vec<Role> = roles.into_iter().map(Into::into).collect();
    roles.sort_unstable();
    Roles {
        id: id(run),
        scope: ScopeId::of("default"),
        from: Generation::ZERO,
        to: Generation::from_u64(to),
        whole: true,
        ops: roles.into_iter().map(|role| RoleOp { code: 0, role }).collect(),
    }
}

/// Roles that a run took since a generation, in one step.
fn more<R: Into<Role>>(run: u64, from: u64, roles: impl IntoIterator<Item = R>) -> Roles {
    let all = whole(run, from + 1, roles);
    let ops = all.ops.into_iter().map(|op| RoleOp { code: 2, ..op }).collect();
    Roles { from: Generation::from_u64(from), whole: false, ops, ..all }
}

fn large(run: u64, version: u64) -> Large {
    Large { object: Object::Roles(id(run), ScopeId::of("default")), version }
}

fn fetches(said: &[Frame]) -> bool {
    said.iter().any(|frame| matches!(frame, Frame::Fetch(_) | Frame::FetchPart(_)))
}

/// Two members, b with the role "web"; b then tells of a set that is over `limit`, twice, and of
/// one that is not.
fn refuses(config: &Config, limit: Limit, bad: &[Role]) {
    let mut victim = Victim::new(config);
    victim.meet(2);
    victim.meet(3);
    victim.hear(2, whole(2, 1, ["web"]));
    let reached = vec![(limit, "b".to_string(), Some("default".to_string()))];
    for (round, to) in [(0, 2), (1, 6)] {
        let before = victim.over_limit();
        victim.hear(2, whole(2, to, bad.iter().cloned()));
        victim.hear(3, more(2, to - 1, bad.iter().cloned()));
        victim.hear(2, whole(2, to + 1, bad.iter().cloned()));
        assert_eq!(victim.over_limit() - before, 3);
        assert_eq!(victim.reached(), reached, "told once, and again after it was taken in");
        assert_eq!(victim.roles(2), [Role::from("web")], "what was known stays");
        // As long as it is so, nobody is asked for it, whoever says that it is there.
        assert!(!fetches(&victim.hear(2, large(2, to + 1))));
        assert!(!fetches(&victim.hear(3, large(2, to))));
        let roles = ["api", "db"].into_iter().take(round + 1);
        victim.hear(3, whole(3, round as u64 + 1, roles));
        assert_eq!(victim.roles(3).len(), round + 1, "the others' roles go on");
        assert!(fetches(&victim.hear(3, large(2, to + 2))), "a later one may fit");
        victim.hear(2, whole(2, to + 2, ["web", "job"]));
        assert_eq!(victim.roles(2).len(), 2);
        victim.hear(2, whole(2, to + 3, ["web"]));
        assert_eq!(victim.reached(), []);
    }
}

fn left(n: u64) -> Left {
    Left { id: id(n), incarnation: Incarnation(0) }
}

#[test]
fn a_role_has_so_many_bytes() {
    let config = Config { max_role_bytes: 16, ..patient() };
    let mut own = Victim::new(&config);
    own.add(["fourteen-bytes"]).unwrap();
    let error = own.add(["web", "of-fifteen-byte"]).unwrap_err();
    assert_eq!(error, RoleError::TooLarge { len: 17, max: 16 });
    assert_eq!(own.node.roles("default", own.node.local().id()).len(), 1, "nothing changed");
    refuses(&config, Limit::MaxRoleBytes, &["x", "of-fifteen-byte"].map(Role::from));
}

#[test]
fn a_node_has_so_many_roles_in_a_scope() {
    let config = Config { max_roles_per_node: 3, ..patient() };
    let mut own = Victim::new(&config);
    own.add(["a", "b"]).unwrap();
    assert_eq!(own.add(["c", "d", "a"]).unwrap_err(), RoleError::TooMany { count: 4, max: 3 });
    own.add(["c", "a"]).unwrap();
    refuses(&config, Limit::MaxRolesPerNode, &["a", "b", "c", "web"].map(Role::from));
}

#[test]
fn a_nodes_roles_in_a_scope_have_so_many_bytes() {
    let config = Config { max_node_role_bytes: 1024, ..patient() };
    let [a, b, c] = ["a", "b", "c"].map(|letter| letter.repeat(400));
    let mut own = Victim::new(&config);
    own.add([&a, &b]).unwrap();
    assert_eq!(own.add([&c]).unwrap_err(), RoleError::TooManyBytes { len: 1206, max: 1024 });
    refuses(&config, Limit::MaxNodeRoleBytes, &[&a, &b, &c, "web"].map(Role::from));
}

/// Roles that count 1,024 bytes each.
fn kibibytes(letter: char, count: usize) -> Vec<Role> {
    let role = |n| Role::from(format!("{n:02}{}", letter.to_string().repeat(956)));
    let roles: Vec<Role> = (0..count).map(role).collect();
    assert!(roles.iter().all(|role| role.as_bytes().len() + 64 == 1024));
    roles
}

#[test]
fn all_roles_together_have_so_many_bytes() {
    let config = Config { max_total_role_bytes: 64 << 10, ..patient() };
    refuses(&config, Limit::MaxTotalRoleBytes, &kibibytes('x', 65));
    let mut own = Victim::new(&config);
    own.meet(2);
    own.hear(2, whole(2, 1, kibibytes('x', 40)));
    let mut add = |roles| own.command(Command::AddRoles { scope: scope(), roles });
    add(kibibytes('y', 20)).unwrap();
    let Err(CommandError::Role(error)) = add(kibibytes('z', 5)) else { panic!() };
    assert_eq!(error, RoleError::TotalTooLarge { len: 65 << 10, max: 64 << 10 });
    assert_eq!(
        error.to_string(),
        "all roles that this node keeps would take 66560 bytes, more than 65536"
    );
    add(kibibytes('z', 4)).unwrap();
}

#[test]
fn roles_that_were_given_up_make_room() {
    let mut node = Victim::new(&Config { max_total_role_bytes: 64 << 10, ..patient() });
    let own = node.node.local().id();
    let add = |node: &mut Victim, roles| {
        node.command(Command::AddRoles { scope: scope(), roles }).unwrap();
    };
    add(&mut node, kibibytes('-', 40));
    node.meet(2);
    node.hear(2, whole(2, 1, kibibytes('z', 20)));
    let (mut held, letters) = (kibibytes('z', 20), ('a'..='z').cycle());
    for (to, letter) in (2..100).zip(letters) {
        // Each gives up what it had, and takes as much under other names. The removals alone would
        // be over the limit soon.
        let mut passing = kibibytes(letter.to_ascii_uppercase(), 4);
        add(&mut node, passing.clone());
        passing.reverse();
        node.command(Command::RemoveRoles { scope: scope(), roles: passing }).unwrap();
        let given_up = std::mem::replace(&mut held, kibibytes(letter, 20));
        let mut delta = more(2, to - 1, held.clone());
        delta.ops.extend(given_up.into_iter().map(|role| RoleOp { code: 1 << 1 | 1, role }));
        delta.ops.sort_by(|a, b| a.role.cmp(&b.role));
        node.hear(2, delta);
        assert_eq!(node.roles(2), held);
    }
    let own = node.node.roles("default", own).len();
    assert_eq!((node.reached(), own), (vec![], 40));
}

#[test]
fn what_did_not_fit_is_fetched_when_others_have_made_room() {
    let mut victim = Victim::new(&Config { max_total_role_bytes: 64 << 10, ..patient() });
    (2..5).for_each(|run| victim.meet(run));
    victim.hear(2, whole(2, 1, kibibytes('b', 40)));
    victim.hear(3, whole(3, 1, kibibytes('c', 20)));
    victim.hear(4, whole(4, 1, kibibytes('d', 10)));
    let reached = vec![(Limit::MaxTotalRoleBytes, "d".into(), Some("default".into()))];
    assert_eq!(victim.reached(), reached);
    assert!(!fetches(&victim.hear(4, large(4, 1))));
    // Others change what they have as long as they take no more.
    victim.hear(2, whole(2, 2, kibibytes('e', 40)));
    assert_eq!(victim.roles(2).len(), 40);
    victim.hear(3, whole(3, 2, kibibytes('c', 14)));
    assert!(fetches(&victim.hear(4, large(4, 1))), "there is room");
    victim.hear(4, whole(4, 1, kibibytes('d', 10)));
    assert_eq!((victim.roles(4).len(), victim.reached()), (10, vec![]));
}

#[test]
fn roles_of_the_dead_make_room_for_those_of_the_living() {
    let mut victim = Victim::new(&Config { max_total_role_bytes: 64 << 10, ..patient() });
    (2..5).for_each(|run| victim.meet(run));
    let fail = |victim: &mut Victim, run| {
        let (id, by) = (id(run), id(4));
        let seen_by = [by, victim.node.local().id(), frames::id(2), frames::id(3)];
        let witnesses: Vec<_> = seen_by.map(|id| (id, Sight::Silence)).to_vec();
        let incarnation = Incarnation(0);
        let witnesses = witnesses.into();
        victim.hear(4, Failed { id, incarnation, by, witnesses });
        victim.now += Duration::from_secs(1);
        victim.node.handle_timeout(victim.now);
        victim.settle();
        assert!(victim.node.members().iter().all(|node| node.id() != id));
    };
    victim.hear(2, whole(2, 1, kibibytes('b', 20)));
    victim.hear(3, whole(3, 1, kibibytes('c', 20)));
    fail(&mut victim, 2);
    fail(&mut victim, 3);
    victim.hear(4, whole(4, 1, kibibytes('d', 30)));
    assert_eq!((victim.roles(4).len(), victim.reached()), (30, vec![]));
    let back = |victim: &mut Victim, run| {
        let alive = Alive { id: id(run), incarnation: Incarnation(1) };
        victim.hear(run, alive);
        victim.roles(run).len()
    };
    assert_eq!(back(&mut victim, 3), 20, "who died later keeps its roles");
    assert_eq!(back(&mut victim, 2), 0, "the longest dead's are to be told anew");
    victim.hear(2, whole(2, 1, kibibytes('b', 14)));
    assert_eq!((victim.roles(2).len(), victim.reached()), (14, vec![]));
    // Nobody is dead any more.
    victim.hear(2, whole(2, 2, kibibytes('b', 15)));
    assert_eq!(victim.reached().len(), 1);
    victim.hear(3, left(3));
    victim.hear(2, whole(2, 3, kibibytes('b', 15)));
    assert_eq!((victim.roles(2).len(), victim.reached()), (15, vec![]));
}

#[test]
fn a_node_is_in_so_many_scopes() {
    let mut victim = Victim::new(&Config { max_scopes_per_node: 2, ..patient() });
    let join = |victim: &mut Victim, name| {
        victim.command(Command::JoinScope(ScopeName::new(name).unwrap()))
    };
    join(&mut victim, "jobs").unwrap();
    let Err(CommandError::Scope(error)) = join(&mut victim, "cache") else { panic!() };
    assert_eq!(error, ScopeError::TooMany { max: 2 });
    victim.meet(2);
    victim.meet(3);
    victim.hear(2, whole(2, 1, ["web"]));
    let many = |version| profile(2, version, &["default", "jobs", "cache"]);
    let reached = vec![(Limit::MaxScopesPerNode, "b".to_string(), None)];
    (2..5).for_each(|version| drop(victim.hear(2, many(version))));
    assert_eq!((victim.reached(), victim.over_limit()), (reached.clone(), 3));
    assert_eq!(victim.roles(2), [Role::from("web")]);
    let told = Large { object: Object::Profile(id(2)), version: 4 };
    assert!(!fetches(&victim.hear(3, told)));
    // It goes on at its former version, and takes part with it.
    victim.hear(2, whole(2, 2, ["web", "api"]));
    assert_eq!(victim.roles(2).len(), 2);
    let stranger = profile(4, 1, &["default", "jobs", "cache"]);
    victim.meet_with(&stranger);
    victim.meet_with(&stranger);
    assert_eq!(victim.reached(), [(Limit::MaxScopesPerNode, "d".to_string(), None)]);
    assert_eq!(victim.node.members().names(), ["b", "c", "n0"]);
    // With as many as it may it is taken in, and a later refusal is told again.
    victim.hear(2, profile(2, 5, &["default", "jobs"]));
    victim.hear(2, many(6));
    assert_eq!(victim.reached(), reached);
    victim.meet(4);
    assert_eq!(victim.node.members().names(), ["b", "c", "d", "n0"]);
}

#[test]
fn a_flood_of_made_up_nodes_is_one_event_and_puts_nobody_out() {
    let mut victim = Victim::new(&Config { max_nodes: 40, ..patient() });
    victim.meet(2);
    victim.hear(2, whole(2, 1, ["web"]));
    for run in 100..400_u64 {
        let made_up = NodeName::new(&format!("x{run}")).unwrap();
        let plain = profile(3, 1, &["default"]);
        let at = addr(100 + (run % 100) as usize);
        victim.hear(2, Profile { id: id(run), name: made_up, addr: at, ..plain });
    }
    let reached = victim.reached();
    assert_eq!(reached.len(), 1, "{reached:?}");
    assert_eq!((&reached[0].0, &reached[0].2), (&Limit::MaxNodes, &None));
    assert_eq!(victim.node.members().len(), 40);
    assert_eq!(victim.over_limit(), 300 - 38);
    assert_eq!(victim.roles(2), [Role::from("web")]);
    victim.hear(2, more(2, 1, ["api"]));
    assert_eq!(victim.roles(2).len(), 2);
    assert!(!fetches(&victim.hear(2, Large { object: Object::Profile(id(999)), version: 1 })));
    let rumor = Alive { id: id(999), incarnation: Incarnation(1) };
    assert!(!fetches(&victim.hear(2, rumor)), "nobody is asked for whom there is no room");
    // The dead make room, the longest dead first.
    victim.hear(2, left(101));
    victim.meet(3);
    assert_eq!(victim.node.members().len(), 40);
    assert!(victim.node.members().iter().any(|node| node.name() == "c"));
    assert_eq!(victim.reached(), []);
}

#[test]
fn a_set_that_is_withheld_does_not_hold_its_node_back() {
    let mut victim = Victim::new(&Config { max_roles_per_node: 2, ..patient() });
    let mut newcomer = profile(2, 1, &["default"]);
    newcomer.scopes = Arc::from([Membership {
        scope: ScopeId::of("default"),
        generation: Generation::from_u64(4),
    }]);
    victim.meet_with(&newcomer);
    assert_eq!(victim.node.members().names(), ["n0"], "its roles are waited for");
    victim.hear(2, whole(2, 4, ["a", "b", "c"]));
    assert_eq!(victim.node.members().names(), ["b", "n0"]);
    assert!(victim.roles(2).is_empty());
    assert_eq!(victim.reached().len(), 1);
}

#[test]
fn a_limit_that_is_lowered_drops_nothing_and_refuses_growth() {
    let mut victim = Victim::new(&patient());
    victim.meet(2);
    victim.meet(3);
    victim.hear(2, whole(2, 1, ["a", "b", "c"]));
    victim.add(["a", "b", "c"]).unwrap();
    let (max_nodes, max_scopes_per_node, max_roles_per_node) = (2, 1, 1);
    let lower = Config { max_nodes, max_scopes_per_node, max_roles_per_node, ..patient() };
    victim.command(Command::Reconfigure(Box::new(lower))).unwrap();
    assert_eq!((victim.node.members().len(), victim.roles(2).len()), (3, 3));
    victim.add(["a"]).unwrap();
    assert_eq!(victim.add(["d"]).unwrap_err(), RoleError::TooMany { count: 4, max: 1 });
    victim.hear(2, whole(2, 2, ["b", "c", "d"]));
    assert_eq!((victim.roles(2).len(), victim.reached()), (3, vec![]));
    victim.hear(2, whole(2, 3, ["b", "c", "d", "e"]));
    assert_eq!(victim.reached().len(), 1);
    victim.command(Command::Reconfigure(Box::new(patient()))).unwrap();
    assert!(fetches(&victim.hear(2, large(2, 3))), "a limit that is raised lets it in");
    victim.hear(2, whole(2, 3, ["b", "c", "d", "e"]));
    assert_eq!(victim.roles(2).len(), 4);
}

#[cfg(feature = "sim")]
mod clusters {
    use std::time::Duration;

    use rolecall::proto::{Command, Outcome};
    use rolecall::sim::{HostId, HostSpec, Simulation};
    use rolecall::{Config, Event, Limit, Role};

    use super::scope;

    const SECOND: Duration = Duration::from_secs(1);

    /// Nodes that have found each other, the last of them with a configuration of its own.
    fn cluster(
        nodes: usize,
        low: &Config,
        roles: impl Fn(usize) -> Vec<Role>,
    ) -> (Simulation, Vec<HostId>) {
        let mut sim = Simulation::new(7, Config::lan());
        let hosts = (0..nodes).map(|n| {
            let spec = HostSpec::new(&format!("n{n}")).seeds([Simulation::nth_addr(0)]);
            let spec = if n + 1 == nodes { spec.config(low.clone()) } else { spec };
            sim.start(spec.scope("default", roles(n)))
        });
        let hosts = hosts.collect();
        sim.run(30 * SECOND);
        (sim, hosts)
    }

    fn seen(sim: &Simulation, by: HostId, of: HostId) -> usize {
        sim.node(by).unwrap().roles("default", sim.id_of(of)).len()
    }

    fn change(sim: &mut Simulation, host: HostId, roles: std::ops::Range<i64>, add: bool) {
        let (scope, roles) = (scope(), roles.map(Role::from).collect());
        let command = if add {
            Command::AddRoles { scope, roles }
        } else {
            Command::RemoveRoles { scope, roles }
        };
        sim.command(host, command).unwrap();
    }

    /// Datagrams and bytes that all nodes send meanwhile, per node and second.
    fn traffic(sim: &mut Simulation, seconds: u32) -> (f64, f64) {
        let sent = |sim: &Simulation| {
            let all = sim.running().map(|(_, node)| node.stats());
            all.fold((0, 0), |sum, it| (sum.0 + it.datagrams_out, sum.1 + it.bytes_out))
        };
        let before = sent(sim);
        sim.run(seconds * SECOND);
        let after = sent(sim);
        let nodes = f64::from(u32::try_from(sim.running().count()).unwrap());
        let rate =
            |count: u64| f64::from(u32::try_from(count).unwrap()) / f64::from(seconds) / nodes;
        (rate(after.0 - before.0), rate(after.1 - before.1))
    }

    fn reached(sim: &mut Simulation, host: HostId) -> Vec<(Limit, String)> {
        let events = sim.take_events(host).into_iter();
        let reached = events.filter_map(|(_, event)| match event {
            Event::LimitReached { limit, node, .. } => Some((limit, node.name().to_string())),
            _ => None,
        });
        reached.collect()
    }

    #[test]
    fn a_node_with_a_lower_limit_harms_nobody_and_heals() {
        let low = Config { max_roles_per_node: 4, ..Config::lan() };
        let (mut sim, hosts) = cluster(8, &low, |_| vec![Role::from(0)]);
        let (owner, low) = (hosts[2], hosts[7]);
        let quiet = traffic(&mut sim, 60);
        change(&mut sim, owner, 0..7, true);
        let (token, scope) = (9, scope());
        let generation = sim.node(owner).unwrap().generation("default", sim.id_of(owner));
        sim.command(owner, Command::Deliver { token, scope, generation }).unwrap();
        let withheld = traffic(&mut sim, 60);
        println!("withheld: {withheld:?}, quiet: {quiet:?} datagrams, bytes per node and second");
        assert!(withheld.0 <= 2.0 * quiet.0, "{withheld:?}, quiet {quiet:?}");
        assert!(withheld.1 <= 5.0 * quiet.1, "{withheld:?}, quiet {quiet:?}");
        assert_eq!(reached(&mut sim, low), [(Limit::MaxRolesPerNode, "n2".to_string())]);
        for host in &hosts[..7] {
            assert_eq!(seen(&sim, *host, owner), 7);
            assert_eq!(reached(&mut sim, *host), []);
        }
        assert_eq!(seen(&sim, low, owner), 1, "the old state");
        let digests: Vec<_> =
            hosts[..7].iter().map(|host| sim.node(*host).unwrap().digest()).collect();
        assert!(digests.iter().all(|it| *it == digests[0]), "the others agree");
        let receipt = sim.take_outcomes(owner).into_iter().find_map(|outcome| match outcome {
            Outcome::Delivered { reached, missing, .. } => Some((reached, missing)),
            _ => None,
        });
        let (told, missing) = receipt.expect("it is due");
        assert_eq!((told.len(), missing.names()), (6, vec!["n7"]), "it does not say it has it");
        // What others do arrives both ways meanwhile.
        change(&mut sim, low, 5..7, true);
        change(&mut sim, hosts[3], 5..8, true);
        sim.run(10 * SECOND);
        assert!(hosts.iter().all(|host| seen(&sim, *host, low) == 3));
        assert!(hosts.iter().all(|host| seen(&sim, *host, hosts[3]) == 4));
        change(&mut sim, owner, 0..5, false);
        sim.run(20 * SECOND);
        assert!(hosts.iter().all(|host| seen(&sim, *host, owner) == 2));
        assert_eq!(reached(&mut sim, low), []);
        let digests: Vec<_> = hosts.iter().map(|host| sim.node(*host).unwrap().digest()).collect();
        assert!(digests.iter().all(|it| *it == digests[0]), "all agree");
    }

    #[test]
    fn a_limit_that_is_raised_heals_by_itself() {
        let low = Config { max_roles_per_node: 4, ..Config::lan() };
        let (mut sim, hosts) = cluster(8, &low, |_| vec![Role::from(0)]);
        let (owner, low) = (hosts[2], hosts[7]);
        change(&mut sim, owner, 0..7, true);
        sim.run(10 * SECOND);
        assert_eq!(seen(&sim, low, owner), 1);
        sim.command(low, Command::Reconfigure(Box::new(Config::lan()))).unwrap();
        sim.run(20 * SECOND);
        assert_eq!(seen(&sim, low, owner), 7);
    }

    #[test]
    fn hundreds_of_withheld_sets_cost_no_more_than_one() {
        // Each set has a kilobyte; of 120 the low node keeps about half.
        let roles = |n: usize| vec![Role::from(format!("{n:03}{}", "x".repeat(950)))];
        let (mut plain, _) = cluster(120, &Config::lan(), roles);
        let quiet = traffic(&mut plain, 30);
        let low = Config { max_total_role_bytes: 64 << 10, ..Config::lan() };
        let (mut sim, hosts) = cluster(120, &low, roles);
        let low = hosts[119];
        let kept = hosts.iter().filter(|host| seen(&sim, low, **host) == 1).count();
        assert_eq!(kept, 64, "as many as fit");
        let told = reached(&mut sim, low);
        assert_eq!(told.len(), 120 - 64, "one event for each");
        let others = &hosts[..119];
        assert!(others.iter().all(|by| hosts.iter().all(|of| seen(&sim, *by, *of) == 1)));
        let before = sim.node(low).unwrap().stats();
        let withheld = traffic(&mut sim, 30);
        let after = sim.node(low).unwrap().stats();
        let own = (after.bytes_out - before.bytes_out, after.bytes_in - before.bytes_in);
        println!("withheld: {withheld:?}, quiet: {quiet:?}; bytes of the low node {own:?}");
        assert!(withheld.0 <= 1.5 * quiet.0 && withheld.1 <= 1.5 * quiet.1);
        assert!(own.0 + own.1 <= 30 * 2000, "{own:?}");
        assert_eq!(reached(&mut sim, low), []);
        // Some leave, and others take their place.
        hosts[..60].iter().for_each(|host| sim.leave(*host));
        sim.run(40 * SECOND);
        assert!(hosts[60..].iter().all(|of| seen(&sim, low, *of) == 1));
    }

    #[test]
    fn a_node_that_keeps_fewer_nodes_takes_part_at_a_bounded_cost() {
        let (mut plain, _) = cluster(40, &Config::lan(), |_| vec![Role::from(0)]);
        let quiet = traffic(&mut plain, 60);
        let low = Config { max_nodes: 16, ..Config::lan() };
        let (mut sim, hosts) = cluster(40, &low, |_| vec![Role::from(0)]);
        let low = hosts[39];
        assert_eq!(sim.node(low).unwrap().members().len(), 16);
        let told = reached(&mut sim, low);
        assert_eq!(told.len(), 1, "{told:?}");
        let refused = traffic(&mut sim, 60);
        println!("refused: {refused:?}, quiet: {quiet:?}");
        assert!(refused.0 <= 2.0 * quiet.0 && refused.1 <= 5.0 * quiet.1, "{refused:?} {quiet:?}");
        let others = &hosts[..39];
        assert!(others.iter().all(|it| sim.node(*it).unwrap().members().len() == 40));
    }
}
