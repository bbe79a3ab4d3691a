//! What a user who hears every event believes: each event must be a real difference, and the sum
//! of them is what the node itself says.

#![allow(unreachable_pub, reason = "included by a test and by a fuzz target")]

use std::collections::{BTreeMap, BTreeSet};

use rolecall::proto::Protocol;
use rolecall::{Event, Node, NodeId, Role, ScopeName};

#[derive(Debug)]
pub struct Fold {
    local: NodeId,
    up: BTreeMap<NodeId, Node>,
    roles: BTreeMap<(ScopeName, NodeId), BTreeSet<Role>>,
}

impl Fold {
    /// A user who knows of the local node only.
    pub fn new(local: &Node) -> Fold {
        let up = BTreeMap::from([(local.id(), local.clone())]);
        Fold { local: local.id(), up, roles: BTreeMap::new() }
    }

    /// Hears an event.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::NodeUp { node } => {
                let name = node.name();
                let others = || self.up.values().all(|other| other.name() != name);
                assert!(others(), "{name} is up once");
                assert!(self.up.insert(node.id(), node.clone()).is_none(), "{node} was up");
            }
            Event::NodeDown { node, .. } => {
                assert_ne!(node.id(), self.local, "a node does not see itself die");
                assert!(self.up.remove(&node.id()).is_some(), "{node} was not up");
                let left = self.roles.keys().any(|(_, id)| *id == node.id());
                assert!(!left, "roles go before their node: {self:?}");
            }
            Event::NodeUpdated { node } => {
                let old = self.up.insert(node.id(), node.clone());
                assert!(old.is_some(), "{node} was not up");
            }
            Event::RoleAdded { scope, node, role } => {
                assert!(self.up.contains_key(&node.id()), "{node} is not up");
                let roles = self.roles.entry((scope.clone(), node.id())).or_default();
                assert!(roles.insert(role.clone()), "{role} was there");
            }
            Event::RoleRemoved { scope, node, role } => {
                assert!(self.up.contains_key(&node.id()), "{node} is not up");
                let key = (scope.clone(), node.id());
                let roles = self.roles.get_mut(&key);
                assert!(roles.is_some_and(|roles| roles.remove(role)), "{role} was not there");
                self.roles.retain(|_, roles| !roles.is_empty());
            }
            _ => {}
        }
    }

    /// Whether it all adds up.
    pub fn agrees(&self, node: &Protocol) {
        let members: BTreeMap<NodeId, Node> =
            node.members().iter().map(|member| (member.id(), member.clone())).collect();
        assert_eq!(members.keys().collect::<Vec<_>>(), self.up.keys().collect::<Vec<_>>());
        for (id, member) in &members {
            assert_eq!(member.addr(), self.up[id].addr());
            assert_eq!(member.meta(), self.up[id].meta());
        }
        let mut held = 0;
        for scope in node.scopes() {
            for id in members.keys() {
                let roles = node.roles(&scope, *id);
                let heard = self.roles.get(&(scope.clone(), *id));
                let heard: Vec<&Role> = heard.into_iter().flatten().collect();
                assert_eq!(roles.iter().collect::<Vec<_>>(), heard, "in {scope} of {id}");
                held += usize::from(!heard.is_empty());
            }
        }
        assert_eq!(held, self.roles.len(), "no roles of who is gone, or in scopes left");
    }
}
