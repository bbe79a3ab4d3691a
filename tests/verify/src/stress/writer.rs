//! The writer: random events, and a model of what they add up to in std's sets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::event::{DownReason, Event};
use crate::node::Node;
use crate::view::{ClusterView, Publisher};
use crate::world::{Dice, LOCAL, NAMES, ROLES, SCOPES, inspect, node, node_name, role, scope_name};

/// Publications between two comparisons with the model.
const PUBLICATIONS_PER_CHECK: u64 = 256;

pub(crate) struct Writer {
    publisher: Publisher,
    cluster: Arc<ClusterView>,
    dice: Dice,
    passing_scopes: usize,
    /// Runs and versions of the nodes that are up.
    up: BTreeMap<usize, (u64, u64)>,
    /// Scope, role and node.
    held: BTreeSet<(usize, usize, usize)>,
    steps: u64,
    publications: u64,
}

impl Writer {
    pub(crate) fn new(dice: Dice, passing_scopes: usize) -> (Writer, Arc<ClusterView>) {
        let (publisher, cluster) = Publisher::new(node(LOCAL, 1, 0));
        let writer = Writer {
            publisher,
            cluster: Arc::clone(&cluster),
            dice,
            passing_scopes,
            up: BTreeMap::from([(LOCAL, (1, 0))]),
            held: BTreeSet::new(),
            steps: 0,
            publications: 0,
        };
        (writer, cluster)
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    pub(crate) fn publications(&self) -> u64 {
        self.publications
    }

    pub(crate) fn pending(&self) -> usize {
        self.publisher.pending_count()
    }

    pub(crate) fn poll(&mut self) {
        self.publisher.poll();
    }

    /// One event or a batch of them; then perhaps a publication, or a look at what can be freed.
    pub(crate) fn step(&mut self) {
        self.steps += 1;
        let name = self.dice.below(NAMES);
        match self.dice.below(16) {
            0 | 1 => self.node_up(name, self.steps + 1),
            2 if name != LOCAL => self.node_down(name),
            3 | 4 => self.node_updated(name),
            5..=9 => self.some_roles(name, true),
            10..=13 => self.some_roles(name, false),
            14 if self.passing_scopes > 0 => self.passing_scope(name),
            _ if self.dice.below(16) == 0 => self.drop_scope(),
            _ => {}
        }
        match self.dice.below(4) {
            0 | 1 => self.publish(),
            2 => self.poll(),
            _ => {}
        }
        self.dice.pause();
    }

    fn publish(&mut self) {
        let _ = self.publisher.publish();
        self.publications += 1;
        if self.publications.is_multiple_of(PUBLICATIONS_PER_CHECK) {
            self.check();
        }
    }

    fn live(&self, name: usize) -> Option<Node> {
        self.up.get(&name).map(|(run, version)| node(name, *run, *version))
    }

    /// A node joins, or comes back as another run, which has no roles yet.
    fn node_up(&mut self, name: usize, run: u64) {
        self.up.insert(name, (run, self.steps));
        self.held.retain(|held| held.2 != name);
        let node = node(name, run, self.steps);
        self.publisher.apply(&Event::NodeUp { node });
    }

    fn node_down(&mut self, name: usize) {
        let Some(node) = self.live(name) else { return };
        self.up.remove(&name);
        self.held.retain(|held| held.2 != name);
        self.publisher.apply(&Event::NodeDown { node, reason: DownReason::Left });
    }

    fn node_updated(&mut self, name: usize) {
        let Some((run, version)) = self.up.get_mut(&name) else { return };
        *version = self.steps;
        let node = node(name, *run, *version);
        self.publisher.apply(&Event::NodeUpdated { node });
    }

    fn some_roles(&mut self, name: usize, holds: bool) {
        let (scope, first) = (self.dice.below(SCOPES), self.dice.below(ROLES));
        let count = if self.dice.below(16) == 0 { ROLES } else { 1 + self.dice.below(3) };
        for offset in 0..count {
            self.set(scope, (first + offset) % ROLES, name, holds);
        }
    }

    fn set(&mut self, scope: usize, number: usize, name: usize, holds: bool) {
        let Some(node) = self.live(name) else { return };
        let held = (scope, number, name);
        let (scope, role) = (scope_name(scope), role(number));
        if holds {
            self.held.insert(held);
            self.publisher.apply(&Event::RoleAdded { scope, node, role });
        } else {
            self.held.remove(&held);
            self.publisher.apply(&Event::RoleRemoved { scope, node, role });
        }
    }

    /// A scope is there for one publication.
    fn passing_scope(&mut self, name: usize) {
        let scope = SCOPES + self.dice.below(self.passing_scopes);
        self.set(scope, 0, name, true);
        self.publish();
        self.set(scope, 0, name, false);
    }

    /// Nobody has a role in a scope any more.
    fn drop_scope(&mut self) {
        let scope = self.dice.below(SCOPES);
        for (_, role, name) in self.held.clone().into_iter().filter(|held| held.0 == scope) {
            self.set(scope, role, name, false);
        }
    }

    /// Publishes what is left, and compares all there is with the model.
    pub(crate) fn check(&mut self) {
        let _ = self.publisher.publish();
        let described = |name: &usize| (*name, self.up[name].1);
        assert!(
            self.cluster.members().iter().map(inspect).eq(self.up.keys().map(described)),
            "the members are not those of the model"
        );
        for number in 0..SCOPES {
            let scope = self.cluster.scope(&scope_name(number));
            for role_number in 0..ROLES {
                let shown = scope.nodes(role(role_number));
                let from = (number, role_number, 0)..(number, role_number, NAMES);
                let held = self.held.range(from).map(|held| described(&held.2));
                assert!(
                    shown.iter().map(inspect).eq(held),
                    "role {role_number} of scope {number} is not that of the model"
                );
            }
            for name in 0..NAMES {
                let held = self.held.iter().filter(|held| held.0 == number && held.2 == name);
                let roles = held.map(|held| role(held.1));
                let shown = scope.roles(&node_name(name));
                assert!(shown.iter().eq(&roles.collect::<Vec<_>>()), "{name}: other roles");
            }
        }
    }
}
