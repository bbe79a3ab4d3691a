//! rolecall's published view, and every way to read it.

use std::sync::{Arc, Mutex};

use rolecall::Event;
use rolecall::Node;
use rolecall::Role;
use rolecall::view::{ClusterView, Publisher, ScopeView};

use super::contenders::{Reader, Table, Writer, len, sum};
use super::data::{Change, Data};

/// How a set is read.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// `nodes`: a snapshot of one's own.
    Owned,
    /// `with_nodes`: borrowed for a call.
    Borrowed,
    /// `View::nodes`: borrowed from a reader that stays inside for a batch.
    View,
}

/// What it is looked up by.
#[derive(Clone, Copy)]
pub(super) enum Key {
    Str,
    /// A role made before, whose hash is at hand.
    Role,
}

pub(super) struct Ours {
    cluster: Arc<ClusterView>,
    scope: Arc<ScopeView>,
    publisher: Mutex<Publisher>,
    way: Way,
    key: Key,
}

impl Ours {
    pub(super) fn new(data: &Data, way: Way, key: Key) -> Ours {
        let (mut publisher, cluster) = Publisher::new(data.nodes[0].clone());
        for node in &data.nodes {
            publisher.apply(&Event::NodeUp { node: node.clone() });
        }
        for number in 0..data.len() {
            let role = Role::from(data.name(number));
            for node in data.holders(number) {
                publisher.apply(&role_event(data, node, role.clone(), true));
            }
        }
        let _ = publisher.publish();
        while publisher.poll() > 0 {}
        let scope = cluster.scope(&data.scope);
        Ours { cluster, scope, publisher: Mutex::new(publisher), way, key }
    }
}

impl Table for Ours {
    fn reader<'t>(&'t self, data: &'t Data) -> Reader<'t> {
        let (cluster, scope) = (&*self.cluster, &*self.scope);
        match (self.way, self.key) {
            (Way::Owned, Key::Str) => {
                Box::new(|order| sum(order, |role| len(&scope.nodes(data.name(role)))))
            }
            (Way::Owned, Key::Role) => {
                Box::new(|order| sum(order, |role| len(&scope.nodes(data.role(role)))))
            }
            (Way::Borrowed, Key::Str) => {
                Box::new(|order| sum(order, |role| scope.with_nodes(data.name(role), len)))
            }
            (Way::Borrowed, Key::Role) => {
                Box::new(|order| sum(order, |role| scope.with_nodes(data.role(role), len)))
            }
            (Way::View, Key::Str) => Box::new(|order| {
                let view = cluster.view();
                sum(order, |role| len(view.nodes(scope, data.name(role))))
            }),
            (Way::View, Key::Role) => Box::new(|order| {
                let view = cluster.view();
                sum(order, |role| len(view.nodes(scope, data.role(role))))
            }),
        }
    }

    fn writer<'t>(&'t self, data: &'t Data) -> Option<Writer<'t>> {
        let mut publisher = self.publisher.lock().expect("no writer panics");
        Some(Box::new(move |changes| {
            for &Change { role, grows } in changes {
                let node = data.extra_node(role);
                publisher.apply(&role_event(data, node, data.role(role).clone(), grows));
            }
            let _ = publisher.publish();
        }))
    }
}

fn role_event(data: &Data, node: &Node, role: Role, added: bool) -> Event {
    let (scope, node) = (data.scope.clone(), node.clone());
    if added {
        Event::RoleAdded { scope, node, role }
    } else {
        Event::RoleRemoved { scope, node, role }
    }
}
