//! What a user believes who hears every event, and what the published maps show, is what the node
//! knows.

use std::collections::{BTreeMap, BTreeSet};

use super::Verdict;
use crate::event::Event;
use crate::node::{Node, NodeId, ScopeName};
use crate::proto::Protocol;
use crate::role::Role;
use crate::sim::HostId;
use crate::view::ClusterView;

/// What the events add up to.
#[derive(Debug, Default, PartialEq)]
struct Fold {
    up: BTreeMap<NodeId, Node>,
    roles: BTreeMap<(ScopeName, NodeId), BTreeSet<Role>>,
}

impl Fold {
    /// What a node says when it is asked.
    fn of(node: &Protocol) -> Fold {
        let mut fold = Fold::default();
        for member in node.members() {
            for scope in node.scopes() {
                let held: BTreeSet<Role> =
                    node.roles(&scope, member.id()).iter().cloned().collect();
                if !held.is_empty() {
                    fold.roles.insert((scope, member.id()), held);
                }
            }
            fold.up.insert(member.id(), member);
        }
        fold
    }

    /// Hears an event, which must be a real difference.
    fn apply(&mut self, local: NodeId, event: &Event) -> Verdict {
        let wrong = |why: &str| Err(format!("{why}: {event:?}"));
        match event {
            Event::NodeUp { node } => {
                if self.up.values().any(|other| other.name() == node.name()) {
                    return wrong("the name is up already");
                }
                self.up.insert(node.id(), node.clone());
            }
            Event::NodeDown { node, .. } => {
                if node.id() == local || self.up.remove(&node.id()).is_none() {
                    return wrong("it was not up, or is the node itself");
                }
                if self.roles.keys().any(|(_, id)| *id == node.id()) {
                    return wrong("its roles go first");
                }
            }
            Event::NodeUpdated { node } if self.up.contains_key(&node.id()) => {
                self.up.insert(node.id(), node.clone());
            }
            Event::NodeUpdated { .. } => return wrong("it was not up"),
            Event::RoleAdded { scope, node, role } => {
                let up = self.up.contains_key(&node.id());
                let roles = self.roles.entry((scope.clone(), node.id())).or_default();
                if !up || !roles.insert(role.clone()) {
                    return wrong("it was there, or its node is not up");
                }
            }
            Event::RoleRemoved { scope, node, role } => {
                let key = (scope.clone(), node.id());
                let Some(roles) = self.roles.get_mut(&key).filter(|roles| roles.contains(role))
                else {
                    return wrong("it was not there");
                };
                roles.remove(role);
                if roles.is_empty() {
                    self.roles.remove(&key);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Where this differs from what the node says.
    fn difference(&self, node: &Protocol) -> Verdict {
        let truth = Fold::of(node);
        if *self == truth {
            return Ok(());
        }
        Err(format!("the events add up to {self:?}, the node knows {truth:?}"))
    }

    /// Whether the maps show this, in these scopes and in no others.
    fn is_shown(&self, view: &ClusterView, scopes: &BTreeSet<ScopeName>) -> Verdict {
        let mut up: Vec<&Node> = self.up.values().collect();
        up.sort_unstable();
        if !view.members().iter().eq(up.iter().copied()) {
            return Err(format!("shown {:?}, true {up:?}", view.members()));
        }
        let found = |node: &&Node| view.node(node.name()).as_ref() == Some(*node);
        if !up.iter().all(found) {
            return Err("a member is not found by its name".into());
        }
        scopes.iter().try_for_each(|scope| self.is_shown_in(view, scope, &up))
    }

    fn is_shown_in(&self, view: &ClusterView, scope: &ScopeName, up: &[&Node]) -> Verdict {
        let shown = view.scope(scope);
        let mut holders: BTreeMap<&Role, Vec<&Node>> = BTreeMap::new();
        let mut all = Vec::new();
        for node in up {
            let held = self.roles.get(&(scope.clone(), node.id()));
            let held: Vec<&Role> = held.into_iter().flatten().collect();
            let roles = shown.roles(node.name());
            if !roles.iter().eq(held.iter().copied()) {
                return Err(format!("{scope}, {node}: shown {roles:?}, true {held:?}"));
            }
            if !held.is_empty() {
                all.push(*node);
            }
            for role in held {
                holders.entry(role).or_default().push(node);
            }
        }
        if !shown.all_nodes().iter().eq(all.iter().copied()) {
            return Err(format!("{scope}: shown {:?}, true {all:?}", shown.all_nodes()));
        }
        for (role, nodes) in holders {
            if !shown.nodes(role).iter().eq(nodes.iter().copied()) {
                return Err(format!("{scope}, {role}: true {nodes:?}"));
            }
        }
        Ok(())
    }
}

/// Of one host.
#[derive(Debug, Default)]
struct Reader {
    /// `None` until its first turn is over: what happened before it started is not told.
    fold: Option<Fold>,
    scopes: BTreeSet<ScopeName>,
    changed: bool,
}

/// Events are real differences, their sum is what the node knows, and so is what the published
/// maps show.
#[derive(Debug, Default)]
pub struct Views {
    readers: BTreeMap<HostId, Reader>,
    compared: u64,
}

impl Views {
    pub(super) const NAME: &'static str = "views";

    /// Comparisons after something had changed.
    pub fn exercised(&self) -> u64 {
        self.compared
    }

    /// A new process.
    pub fn started(&mut self, host: HostId) {
        self.readers.insert(host, Reader::default());
    }

    /// Its user, on the run `local`, is told something.
    ///
    /// # Errors
    /// When that is no difference.
    pub fn heard(&mut self, host: HostId, local: NodeId, event: &Event) -> Verdict {
        let reader = self.readers.entry(host).or_default();
        reader.changed = true;
        reader.fold.as_mut().map_or(Ok(()), |fold| fold.apply(local, event))
    }

    /// Its turn is over, and its maps are published; they are looked at when that is asked for, if
    /// anything has changed.
    ///
    /// # Errors
    /// When the three differ.
    pub fn turned(
        &mut self,
        host: HostId,
        node: &Protocol,
        view: Option<&ClusterView>,
        look: bool,
    ) -> Verdict {
        let reader = self.readers.entry(host).or_default();
        let first = reader.fold.is_none();
        if !(first || (look && reader.changed)) {
            return Ok(());
        }
        reader.changed = false;
        self.compared += 1;
        reader.scopes.extend(node.scopes());
        let fold = reader.fold.get_or_insert_with(|| Fold::of(node));
        fold.difference(node)?;
        view.map_or(Ok(()), |view| fold.is_shown(view, &reader.scopes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::event::DownReason;
    use crate::sim::{HostSpec, Simulation};
    use std::time::Duration;

    fn pair() -> (Simulation, HostId, Node) {
        let mut sim = Simulation::new(1, Config::lan());
        let a = sim.start(HostSpec::new("a").scope("s", ["one"]));
        let b = sim.start(HostSpec::new("b").scope("s", ["two"]).seeds([sim.addr(a)]));
        sim.run(Duration::from_secs(2));
        let other = sim.node(b).unwrap().local().clone();
        (sim, a, other)
    }

    #[test]
    fn events_that_are_no_differences_are_found() {
        let (sim, a, other) = pair();
        let node = sim.node(a).unwrap();
        let (local, scope) = (node.local().id(), ScopeName::new("s").unwrap());
        let (held, new) = (Role::from("two"), Role::from("new"));
        let up = Event::NodeUp { node: other.clone() };
        let itself = Event::NodeDown { node: node.local().clone(), reason: DownReason::Left };
        let early = Event::NodeDown { node: other.clone(), reason: DownReason::Left };
        let again = Event::RoleAdded { scope: scope.clone(), node: other.clone(), role: held };
        let never = Event::RoleRemoved { scope: scope.clone(), node: other.clone(), role: new };
        for wrong in [up, itself, early, again, never] {
            Fold::of(node).apply(local, &wrong).unwrap_err();
        }
        let role = Role::from("three");
        let mut fold = Fold::of(node);
        fold.apply(local, &Event::RoleAdded { scope, node: other, role }).unwrap();
        fold.difference(node).unwrap_err();
        fold.is_shown(sim.view(a), &node.scopes().into_iter().collect()).unwrap_err();
    }

    #[test]
    fn maps_that_show_something_else_are_found() {
        let (mut sim, a, other) = pair();
        let mut views = Views::default();
        views.started(a);
        views.turned(a, sim.node(a).unwrap(), Some(sim.view(a)), true).unwrap();
        assert_eq!(views.exercised(), 1);
        let (local, scope) = (sim.node(a).unwrap().local().id(), ScopeName::new("s").unwrap());
        let role = Role::from("three");
        views.heard(a, local, &Event::RoleAdded { scope, node: other, role }).unwrap();
        views.turned(a, sim.node(a).unwrap(), Some(sim.view(a)), false).unwrap();
        views.turned(a, sim.node(a).unwrap(), Some(sim.view(a)), true).unwrap_err();
        // What is kept of a scope that was left is found too.
        let (node, shown) = (Fold::of(sim.node(a).unwrap()), sim.view(a).clone());
        let scopes = sim.node(a).unwrap().scopes().into_iter().collect();
        node.is_shown(&shown, &scopes).unwrap();
        sim.command(a, crate::proto::Command::LeaveScope(ScopeName::new("s").unwrap())).unwrap();
        node.is_shown(&shown, &scopes).unwrap_err();
    }
}
