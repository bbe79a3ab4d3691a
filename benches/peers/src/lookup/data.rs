//! What every contender holds, and the order in which it is asked for.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use rolecall::{Node, NodeId, NodeName, Role, ScopeName};

/// Nodes that share the roles.
const NODES: usize = 100;
/// How many of them a role has, and one more after every second change.
pub(super) const NODES_PER_ROLE: usize = 3;

/// What a contender whose types are ours to choose holds.
pub(super) type Map = HashMap<Arc<str>, Arc<[Node]>>;

/// The roles, their nodes, and the keys to look them up by.
pub(super) struct Data {
    pub(super) scope: ScopeName,
    pub(super) nodes: Vec<Node>,
    names: Vec<Arc<str>>,
    roles: Vec<Role>,
    /// Numbers of roles, without a pattern that a processor could learn.
    order: Vec<usize>,
}

/// A role's set of nodes becomes another one.
#[derive(Clone, Copy)]
pub(super) struct Change {
    pub(super) role: usize,
    /// Whether one more node plays it now, or one node fewer.
    pub(super) grows: bool,
}

impl Data {
    pub(super) fn new(roles: usize) -> Data {
        let names: Vec<Arc<str>> = (0..roles).map(|n| format!("service-{n}").into()).collect();
        let mut random = 1_u64;
        let order = std::iter::repeat_with(|| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(random >> 33).expect("31 bits") % roles
        });
        Data {
            scope: ScopeName::new("lookup").expect("a valid name"),
            nodes: (0..NODES).map(node).collect(),
            order: order.take((16 * roles).clamp(1 << 14, 1 << 18)).collect(),
            roles: names.iter().map(|name| Role::from(&**name)).collect(),
            names,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn order(&self) -> &[usize] {
        &self.order
    }

    pub(super) fn name(&self, role: usize) -> &str {
        &self.names[role]
    }

    pub(super) fn role(&self, role: usize) -> &Role {
        &self.roles[role]
    }

    /// The key that a writer has at hand.
    pub(super) fn key(&self, role: usize) -> Arc<str> {
        Arc::clone(&self.names[role])
    }

    /// The node that plays a role beside those that always do, after every second change.
    pub(super) fn extra_node(&self, role: usize) -> &Node {
        &self.nodes[(role + NODES_PER_ROLE) % NODES]
    }

    pub(super) fn holders(&self, role: usize) -> impl Iterator<Item = &Node> {
        (0..NODES_PER_ROLE).map(move |n| &self.nodes[(role + n) % NODES])
    }

    /// The set of a role from which no change is left.
    pub(super) fn set(&self, role: usize) -> Arc<[Node]> {
        self.set_after(Change { role, grows: false })
    }

    /// The set that a change leads to, made anew: to make it is part of what an update costs.
    pub(super) fn set_after(&self, change: Change) -> Arc<[Node]> {
        let count = NODES_PER_ROLE + usize::from(change.grows);
        std::array::from_fn::<usize, { NODES_PER_ROLE + 1 }, _>(|n| (change.role + n) % NODES)
            [..count]
            .iter()
            .map(|&n| self.nodes[n].clone())
            .collect()
    }

    /// All entries, made for one table.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Arc<str>, Arc<[Node]>)> {
        (0..self.len()).map(|role| (self.name(role).into(), self.set(role)))
    }

    /// Reads the keys of a batch, as one who asks has its key at hand.
    pub(super) fn touch(&self, order: &[usize]) {
        for &role in order {
            let (name, role) = (self.name(role).as_bytes(), self.role(role).as_bytes());
            black_box((name[0], role[0]));
        }
    }
}

pub(super) fn node(number: usize) -> Node {
    let name = NodeName::new(&format!("node-{number:06}")).expect("a valid name");
    let id = NodeId::from_u64(number as u64 + 1).expect("not zero");
    Node::new(name, id, ([127, 0, 0, 1], 7946).into(), Bytes::new())
}

/// Changes of ever other roles, each made and undone by turns.
pub(super) struct Changes<'d> {
    order: std::iter::Cycle<std::slice::Iter<'d, usize>>,
    grown: Vec<bool>,
}

impl<'d> Changes<'d> {
    pub(super) fn new(data: &'d Data) -> Changes<'d> {
        Changes { order: data.order.iter().cycle(), grown: vec![false; data.len()] }
    }
}

impl Iterator for Changes<'_> {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        let role = *self.order.next()?;
        self.grown[role] = !self.grown[role];
        Some(Change { role, grows: self.grown[role] })
    }
}
