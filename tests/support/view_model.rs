//! The published view beside a model of std maps: operations, the model, and a run of the first
//! on both. Used by `tests/view_model.rs` and by the fuzz target `view`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use rolecall::view::{ClusterView, Published, Publisher, ScopeView};
use rolecall::{DownReason, Event, Node, NodeId, NodeName, Nodes, Role, ScopeName};

/// Few names, runs, scopes and roles, so that operations meet.
const NAMES: u8 = 8;
const RUNS: u8 = 3;
const SCOPES: u8 = 3;
const ROLES: u8 = 200;

/// Replaced sets that may wait to be freed at the end, when nobody holds any.
const POLLS_UNTIL_FREED: usize = 1_000_000;

/// One thing to do to a publisher or with what it published.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Op {
    Up(Run),
    Updated(Run),
    Down(Run),
    Added(Held),
    Removed(Held),
    /// A batch of roles, as tables only grow with many.
    AddedMany {
        of: Held,
        count: u8,
    },
    RemovedMany {
        of: Held,
        count: u8,
    },
    /// The same event twice in a row.
    AddedTwice(Held),
    Publish,
    Poll,
    /// A reader that stays inside for the next operations.
    Stay {
        operations: u8,
    },
    /// Views of scopes that nobody keeps; with enough of them the registry forgets some.
    PassingScopes {
        count: u8,
    },
    /// A snapshot, which must never change.
    Snapshot {
        scope: u8,
        role: u8,
    },
}

/// A run of a node, with a byte of metadata.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) struct Run {
    name: u8,
    number: u8,
    meta: u8,
}

/// A role of a run in a scope.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) struct Held {
    run: Run,
    scope: u8,
    role: u8,
}

impl Run {
    fn name(self) -> String {
        format!("node-{}", self.name % NAMES)
    }

    fn id(self) -> u64 {
        u64::from(self.number % RUNS) + 1
    }

    fn node(self) -> Node {
        let name = NodeName::new(&self.name()).expect("a valid name");
        let id = NodeId::from_u64(self.id()).expect("not zero");
        let meta = Bytes::copy_from_slice(&[self.meta]);
        Node::new(name, id, ([127, 0, 0, 1], 7946).into(), meta)
    }
}

impl Held {
    fn nth(self, offset: u8) -> Held {
        Held { role: self.role.wrapping_add(offset), ..self }
    }

    fn scope(self) -> u8 {
        self.scope % SCOPES
    }

    fn role(self) -> u8 {
        self.role % ROLES
    }
}

fn scope_name(scope: u8) -> ScopeName {
    ScopeName::new(&format!("scope-{scope}")).expect("a valid name")
}

fn role_name(role: u8) -> String {
    format!("role-{role}")
}

/// What a publisher should show.
#[derive(Clone, Default, PartialEq)]
struct State {
    /// By name: the run that is up, and its metadata.
    up: BTreeMap<String, (u64, u8)>,
    /// Who holds which role in which scope: scope, role, name.
    held: BTreeSet<(u8, u8, String)>,
}

impl State {
    fn is_up(&self, run: Run) -> bool {
        self.up.get(&run.name()).is_some_and(|(id, _)| *id == run.id())
    }

    fn up(&mut self, run: Run) {
        if !self.is_up(run) {
            self.down(&run.name());
        }
        self.up.insert(run.name(), (run.id(), run.meta));
    }

    fn down(&mut self, name: &str) {
        self.up.remove(name);
        self.held.retain(|(_, _, holder)| holder != name);
    }

    fn set(&mut self, held: Held, holds: bool) {
        if !self.is_up(held.run) {
            return;
        }
        let entry = (held.scope(), held.role(), held.run.name());
        if holds {
            self.held.insert(entry);
        } else {
            self.held.remove(&entry);
        }
    }

    /// Names, runs and metadata of those who are up, as `describe` puts it.
    fn members(&self) -> Vec<Described> {
        let up = self.up.iter();
        up.map(|(name, (id, meta))| (name.clone(), *id, *meta)).collect()
    }

    /// Names, runs and metadata of those who hold a role, as `describe` puts it.
    fn holders(&self, scope: u8, role: Option<u8>) -> Vec<Described> {
        let held = self.held.iter().filter(|held| held.0 == scope);
        let held = held.filter(|held| role.is_none_or(|role| held.1 == role));
        let names: BTreeSet<&String> = held.map(|held| &held.2).collect();
        let described = names.into_iter().map(|name| {
            let (id, meta) = self.up[name];
            (name.clone(), id, meta)
        });
        described.collect()
    }
}

/// Name, run and metadata of a node.
type Described = (String, u64, u8);

fn describe(nodes: &[Node]) -> Vec<Described> {
    let described =
        nodes.iter().map(|node| (node.name().to_owned(), node.id().as_u64(), node.meta()[0]));
    described.collect()
}

/// A publisher, the model of it, and what was kept on the way.
struct Bench {
    publisher: Publisher,
    cluster: Arc<ClusterView>,
    scopes: Vec<Arc<ScopeView>>,
    working: State,
    visible: State,
    snapshots: Vec<(Nodes, Vec<Described>)>,
}

impl Bench {
    fn new() -> Bench {
        let local = Run { name: 0, number: 0, meta: 0 };
        let (publisher, cluster) = Publisher::new(local.node());
        let mut working = State::default();
        working.up(local);
        // One view is made by readers first, the others by whoever comes first.
        let scopes = vec![cluster.scope(&scope_name(0))];
        let visible = working.clone();
        Bench { publisher, cluster, scopes, working, visible, snapshots: Vec::new() }
    }

    fn run(&mut self, ops: &mut std::slice::Iter<'_, Op>, at_most: usize) {
        for _ in 0..at_most {
            let Some(&op) = ops.next() else { return };
            match op {
                Op::Publish => self.publish(),
                Op::Stay { operations } => self.stay(ops, operations.into()),
                Op::Snapshot { scope, role } => {
                    let (scope, role) = (scope % SCOPES, role % ROLES);
                    let view = self.cluster.scope(&scope_name(scope));
                    let nodes = view.nodes(role_name(role));
                    self.snapshots.push((nodes, self.visible.holders(scope, Some(role))));
                }
                Op::PassingScopes { count } => {
                    (SCOPES..SCOPES.saturating_add(count)).for_each(|scope| {
                        assert!(self.cluster.scope(&scope_name(scope)).all_nodes().is_empty());
                    });
                }
                Op::Poll => {
                    self.publisher.poll();
                }
                event => self.apply(event),
            }
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Up(run) => {
                self.working.up(run);
                self.publisher.apply(&Event::NodeUp { node: run.node() });
            }
            Op::Updated(run) => {
                if self.working.is_up(run) {
                    self.working.up(run);
                }
                self.publisher.apply(&Event::NodeUpdated { node: run.node() });
            }
            Op::Down(run) => {
                if self.working.is_up(run) {
                    self.working.down(&run.name());
                }
                let (node, reason) = (run.node(), DownReason::Left);
                self.publisher.apply(&Event::NodeDown { node, reason });
            }
            Op::Added(held) => self.set(held, true),
            Op::Removed(held) => self.set(held, false),
            Op::AddedTwice(held) => {
                self.set(held, true);
                self.set(held, true);
            }
            Op::AddedMany { of, count } => (0..count).for_each(|n| self.set(of.nth(n), true)),
            Op::RemovedMany { of, count } => (0..count).for_each(|n| self.set(of.nth(n), false)),
            Op::Publish
            | Op::Poll
            | Op::Stay { .. }
            | Op::PassingScopes { .. }
            | Op::Snapshot { .. } => unreachable!("not an event"),
        }
    }

    fn set(&mut self, held: Held, holds: bool) {
        self.working.set(held, holds);
        let (scope, node) = (scope_name(held.scope()), held.run.node());
        let role = Role::from(role_name(held.role()));
        self.publisher.apply(&if holds {
            Event::RoleAdded { scope, node, role }
        } else {
            Event::RoleRemoved { scope, node, role }
        });
    }

    fn publish(&mut self) {
        let published = self.publisher.publish();
        let before = std::mem::replace(&mut self.visible, self.working.clone());
        self.check_summary(&before, &published);
        self.check_reads();
        assert!(self.publisher.publish().is_empty());
    }

    /// The summary names exactly the sets that differ.
    fn check_summary(&self, before: &State, published: &Published) {
        assert_eq!(published.members_changed(), before.up != self.visible.up);
        let mut differ = BTreeSet::new();
        for (scope, role, _) in before.held.union(&self.visible.held) {
            let role_before = before.holders(*scope, Some(*role));
            if role_before != self.visible.holders(*scope, Some(*role)) {
                differ.insert((scope_name(*scope), Role::from(role_name(*role))));
            }
        }
        assert_eq!(published.roles().iter().cloned().collect::<BTreeSet<_>>(), differ);
        assert_eq!(published.roles().len(), differ.len());
    }

    /// All ways to read show what the model says.
    fn check_reads(&mut self) {
        let state = &self.visible;
        assert_eq!(describe(&self.cluster.members()), state.members());
        let view = self.cluster.view();
        for number in 0..NAMES {
            let name = Run { name: number, number: 0, meta: 0 }.name();
            let node = self.cluster.node(&name);
            let described = node.map(|node| (node.id().as_u64(), node.meta()[0]));
            assert_eq!(described, state.up.get(&name).copied());
        }
        for number in 0..SCOPES {
            let scope = self.cluster.scope(&scope_name(number));
            assert_eq!(describe(&scope.all_nodes()), state.holders(number, None));
            let held = state.held.iter().filter(|held| held.0 == number);
            let played: BTreeSet<u8> = held.map(|held| held.1).collect();
            for role in 0..ROLES {
                let found = view.nodes(&scope, role_name(role));
                if played.contains(&role) {
                    let holders = state.holders(number, Some(role));
                    assert_eq!(describe(found), holders);
                    assert_eq!(scope.with_nodes(role_name(role), describe), holders);
                    assert_eq!(describe(&scope.nodes(role_name(role))), holders);
                } else {
                    assert!(found.is_empty());
                }
            }
            for name in state.up.keys() {
                let held = state.held.iter().filter(|held| held.0 == number && held.2 == *name);
                let roles: BTreeSet<Role> = held.map(|held| role_name(held.1).into()).collect();
                assert!(scope.roles(name).iter().eq(&roles));
            }
            if number as usize == self.scopes.len() {
                self.scopes.push(scope); // from now on a reader has it all the time
            }
        }
    }

    /// Runs the next operations while a reader stays inside: what it borrowed stays as it was.
    fn stay(&mut self, ops: &mut std::slice::Iter<'_, Op>, operations: usize) {
        let (cluster, scope) = (Arc::clone(&self.cluster), Arc::clone(&self.scopes[0]));
        let state = self.visible.clone();
        let mut view = cluster.view();
        let borrowed: Vec<&[Node]> =
            (0..ROLES).map(|role| view.nodes(&scope, role_name(role))).collect();
        let (members, all) = (view.members(), view.all_nodes(&scope));
        self.run(ops, operations % 16);
        assert_eq!(describe(members), state.members());
        assert_eq!(describe(all), state.holders(0, None));
        for (role, nodes) in (0..ROLES).zip(borrowed) {
            let held = state.held.iter().any(|held| (held.0, held.1) == (0, role));
            assert_eq!(nodes.is_empty(), !held);
            if held {
                assert_eq!(describe(nodes), state.holders(0, Some(role)));
            }
        }
        view.refresh();
        assert_eq!(describe(view.members()), self.visible.members());
        assert_eq!(describe(view.all_nodes(&scope)), self.visible.holders(0, None));
    }

    /// The publisher ends with something to be freed that a reader still holds.
    fn end(mut self) {
        let cluster = Arc::clone(&self.cluster);
        let view = cluster.view();
        let (before, members) = (self.visible.members(), view.members());
        let newcomer = Run { name: 1, number: RUNS - 1, meta: 0 };
        self.apply(Op::Up(newcomer));
        let _ = self.publisher.publish();
        drop(self.publisher);
        assert_eq!(describe(members), before);
        assert_eq!(describe(view.members()), self.working.members());
    }
}

/// The operations that these bytes stand for; any bytes will do. `Vec`'s own way would flip a coin
/// before each operation whether to end.
pub(crate) fn decode(bytes: &[u8]) -> Vec<Op> {
    let mut bytes = Unstructured::new(bytes);
    let more = || (!bytes.is_empty()).then(|| Op::arbitrary(&mut bytes).ok()).flatten();
    std::iter::from_fn(more).collect()
}

/// Does these operations to a publisher and to the model, and compares whenever it publishes.
pub(crate) fn run(ops: &[Op]) {
    let mut bench = Bench::new();
    let mut left = ops.iter();
    while !left.as_slice().is_empty() {
        bench.run(&mut left, usize::MAX);
    }
    bench.publish();
    for (nodes, expected) in &bench.snapshots {
        assert_eq!(&describe(nodes), expected);
    }
    for _ in 0..POLLS_UNTIL_FREED {
        if bench.publisher.pending_count() == 0 {
            assert_eq!(bench.publisher.pending_bytes(), 0);
            return bench.end();
        }
        bench.publisher.poll();
    }
    panic!("{} replaced sets are never freed", bench.publisher.pending_count());
}
