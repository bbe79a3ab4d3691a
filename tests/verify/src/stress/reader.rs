//! A reader that reads in all ways there are, and checks each read against those before it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::node::{Node, Nodes};
use crate::role::Role;
use crate::view::{ClusterView, ScopeView};
use crate::world::{Dice, LOCAL, NAMES, ROLES, SCOPES, inspect, node_name, role, scope_name};

/// Snapshots that are kept for a while.
const KEPT: usize = 16;
/// Reads of a view before it is refreshed, at most.
const READS_PER_STAY: usize = 12;

/// Where a node was seen: versions there never go back.
#[derive(Clone, Copy)]
enum Place {
    Members,
    Name,
    All(usize),
    Role(usize, usize),
}

impl Place {
    const COUNT: usize = 2 + SCOPES + SCOPES * ROLES;

    fn index(self) -> usize {
        match self {
            Place::Members => 0,
            Place::Name => 1,
            Place::All(scope) => 2 + scope,
            Place::Role(scope, role) => 2 + SCOPES + scope * ROLES + role,
        }
    }
}

/// What a reader has seen so far.
struct Seen {
    /// By place and name.
    versions: Vec<[u64; NAMES]>,
    reads: u64,
}

impl Seen {
    fn node(&mut self, place: Place, node: &Node) {
        let (name, version) = inspect(node);
        let seen = &mut self.versions[place.index()][name];
        assert!(version >= *seen, "{} went back from version {seen} to {version}", node.name());
        *seen = version;
    }

    fn set(&mut self, place: Place, nodes: &[Node]) {
        assert!(nodes.is_sorted_by(|a, b| a.name() < b.name()), "a set is not in order");
        nodes.iter().for_each(|node| self.node(place, node));
        self.reads += 1;
    }
}

pub(crate) struct Reader {
    cluster: Arc<ClusterView>,
    scopes: Vec<Arc<ScopeView>>,
    roles: Vec<Role>,
    dice: Dice,
    passing_scopes: usize,
    seen: Seen,
    /// Snapshots and the versions in them.
    kept: VecDeque<(Nodes, Vec<(usize, u64)>)>,
}

impl Reader {
    pub(crate) fn new(cluster: Arc<ClusterView>, dice: Dice, passing_scopes: usize) -> Reader {
        let scopes = (0..SCOPES).map(|scope| cluster.scope(&scope_name(scope))).collect();
        let seen = Seen { versions: vec![[0; NAMES]; Place::COUNT], reads: 0 };
        let roles = (0..ROLES).map(role).collect();
        Reader { cluster, scopes, roles, dice, passing_scopes, seen, kept: VecDeque::new() }
    }

    /// Reads until the writer is done; returns how often.
    pub(crate) fn run(mut self, done: &AtomicBool) -> u64 {
        while !done.load(Ordering::Relaxed) {
            match self.dice.below(8) {
                0 | 1 => self.role(),
                2 => self.snapshot(),
                3 => self.members(),
                4 => self.node(),
                5 => self.roles_of_a_node(),
                6 if self.passing_scopes > 0 => self.passing_scope(),
                _ => self.stay(),
            }
            self.dice.pause();
        }
        self.seen.reads
    }

    fn role(&mut self) {
        let (scope, number) = (self.dice.below(SCOPES), self.dice.below(ROLES));
        let place = Place::Role(scope, number);
        let last = self.scopes[scope].with_nodes(&self.roles[number], |nodes| {
            self.seen.set(place, nodes);
            self.dice.pause();
            self.seen.set(place, nodes);
            nodes.last().map(inspect)
        });
        // The nodes themselves are published before the roles that they have.
        if let Some((name, version)) = last
            && let Some(node) = self.cluster.node(&node_name(name))
        {
            assert!(inspect(&node).1 >= version, "a role was published before its node");
        }
    }

    fn snapshot(&mut self) {
        let (scope, number) = (self.dice.below(SCOPES), self.dice.below(ROLES));
        let nodes = self.scopes[scope].nodes(&*format!("role-{number:02}"));
        self.seen.set(Place::Role(scope, number), &nodes);
        let versions = nodes.iter().map(inspect).collect();
        self.kept.push_back((nodes, versions));
        if self.kept.len() > KEPT {
            let (nodes, versions) = self.kept.pop_front().expect("there are some");
            assert!(nodes.iter().map(inspect).eq(versions), "a snapshot changed");
        }
    }

    fn members(&mut self) {
        let members = self.cluster.members();
        self.seen.set(Place::Members, &members);
        assert_eq!(inspect(&members[0]).0, LOCAL);
        let scope = self.dice.below(SCOPES);
        self.seen.set(Place::All(scope), &self.scopes[scope].all_nodes());
    }

    fn node(&mut self) {
        let name = self.dice.below(NAMES);
        let node = self.cluster.node(&node_name(name));
        assert!(node.is_some() || name != LOCAL, "the local node is always up");
        node.iter().for_each(|node| self.seen.node(Place::Name, node));
        self.seen.reads += 1;
    }

    fn roles_of_a_node(&mut self) {
        let (scope, name) = (self.dice.below(SCOPES), self.dice.below(NAMES));
        let roles = self.scopes[scope].roles(&node_name(name));
        assert!(roles.is_sorted_by(|a, b| a < b), "roles are not in order");
        assert!(roles.iter().all(|role| self.roles.contains(role)), "a torn or freed role");
        self.seen.reads += 1;
    }

    /// A scope whose view is made for one read, and forgotten.
    fn passing_scope(&mut self) {
        let scope = self.cluster.scope(&scope_name(SCOPES + self.dice.below(self.passing_scopes)));
        scope.with_nodes("role-00", |nodes| nodes.iter().map(inspect).for_each(drop));
        self.seen.reads += 1;
    }

    /// Stays inside: what is borrowed stays as it was until the view is refreshed.
    fn stay(&mut self) {
        let mut view = self.cluster.view();
        for _ in 0..2 {
            let mut held = Vec::new();
            for _ in 0..self.dice.below(READS_PER_STAY) {
                let (scope, number) = (self.dice.below(SCOPES), self.dice.below(ROLES));
                let place = Place::Role(scope, number);
                let nodes = view.nodes(&self.scopes[scope], &self.roles[number]);
                self.seen.set(place, nodes);
                held.push((nodes, nodes.iter().map(inspect).collect::<Vec<_>>()));
                self.seen.set(Place::All(scope), view.all_nodes(&self.scopes[scope]));
                self.dice.pause();
            }
            self.seen.set(Place::Members, view.members());
            let name = node_name(self.dice.below(NAMES));
            view.node(&name).iter().for_each(|node| self.seen.node(Place::Name, node));
            for (nodes, versions) in held {
                assert!(nodes.iter().map(inspect).eq(versions), "a borrowed set changed");
            }
            view.refresh();
        }
    }
}
