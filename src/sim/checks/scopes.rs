//! Scopes: generations only rise, and what is of one scope stays in it.

use std::collections::{BTreeMap, BTreeSet};

use super::Verdict;
use crate::event::Event;
use crate::node::{Generation, NodeId, ScopeName};
use crate::wire::frame::{Object, Table};
use crate::wire::{Frame, ReceivedHeader, ScopeId};

/// A run's generation in a scope never falls, neither its own, whatever it leaves and joins again,
/// nor as another knows it, until one of the two leaves the scope; and nobody knows a later one
/// than the run itself has made.
#[derive(Debug, Default)]
pub struct Generations {
    own: BTreeMap<(ScopeId, NodeId), Generation>,
    /// Per observer: what it knows, and of which version of the run's profile.
    seen: BTreeMap<NodeId, BTreeMap<ScopeId, BTreeMap<NodeId, (Generation, u32)>>>,
    rises: u64,
}

impl Generations {
    pub(super) const NAME: &'static str = "generations";

    /// Rises that others than the run itself have seen.
    pub fn exercised(&self) -> u64 {
        self.rises
    }

    /// What a run says of itself.
    ///
    /// # Errors
    /// When it fell.
    pub fn own(&mut self, scope: ScopeId, run: NodeId, now: Generation) -> Verdict {
        let known = self.own.entry((scope, run)).or_default();
        if now < *known {
            return Err(format!("{run} fell back from its {known:?} in {scope:?} to {now:?}"));
        }
        *known = now;
        Ok(())
    }

    /// What an observer knows of a run's roles in a scope, by that version of the run's profile.
    ///
    /// # Errors
    /// When it fell, or is above what the run itself has made.
    pub fn see(
        &mut self,
        observer: NodeId,
        (scope, run): (ScopeId, NodeId),
        now: Generation,
        version: u32,
    ) -> Verdict {
        if self.own.get(&(scope, run)).is_some_and(|own| now > *own) {
            return Err(format!("{run} has not made {now:?} in {scope:?} yet"));
        }
        let seen = self.seen.entry(observer).or_default().entry(scope).or_default();
        let (before, of) = seen.insert(run, (now, version)).unwrap_or((now, version));
        // A later profile may come after one that was without the scope.
        if now < before && version == of {
            return Err(format!("{run} in {scope:?}: {before:?}, then {now:?}"));
        }
        self.rises += u64::from(now > before && observer != run);
        Ok(())
    }

    /// An observer has forgotten a run, or knows that it is gone for good.
    pub fn forgot(&mut self, observer: NodeId, run: NodeId) {
        for seen in self.seen.get_mut(&observer).into_iter().flat_map(BTreeMap::values_mut) {
            seen.remove(&run);
        }
    }

    /// An observer has left a scope, and may forget all that it knew there.
    pub fn left(&mut self, observer: NodeId, scope: ScopeId) {
        if let Some(seen) = self.seen.get_mut(&observer) {
            seen.remove(&scope);
        }
    }
}

/// Roles of a scope are told only by members of it to runs that have been in it; and a user hears
/// of no scope that its node is not in.
#[derive(Debug, Default)]
pub struct Isolation {
    ever: BTreeMap<ScopeId, BTreeSet<NodeId>>,
    runs: BTreeSet<NodeId>,
    told: u64,
}

impl Isolation {
    pub(super) const NAME: &'static str = "isolation of scopes";

    /// Frames with roles that were sent while there were runs that may not see them.
    pub fn exercised(&self) -> u64 {
        self.told
    }

    /// A run is in a scope.
    pub fn joined(&mut self, scope: ScopeId, run: NodeId) {
        self.ever.entry(scope).or_default().insert(run);
        self.runs.insert(run);
    }

    /// A run sends a frame behind this header, to another run or to whoever is at an address.
    ///
    /// # Errors
    /// When the other may not see it, or the sender cannot know it.
    pub fn sent(&mut self, header: ReceivedHeader, frame: &Frame) -> Verdict {
        let (Frame::Roles(crate::wire::frame::Roles { scope, .. })
        | Frame::Part(crate::wire::frame::Part { object: Object::Roles(_, scope), .. })
        | Frame::Large(crate::wire::frame::Large { object: Object::Roles(_, scope), .. })
        | Frame::Page(crate::wire::frame::Page { table: Table::Scope(scope), .. })) = frame
        else {
            return Ok(());
        };
        let ever = self.ever.get(scope);
        let sender_was_in = ever.is_some_and(|ever| ever.contains(&header.from));
        let receiver_was_in = header.is_addressed()
            && ever.is_some_and(|ever| ever.iter().any(|run| header.is_for(*run)));
        if !sender_was_in || !receiver_was_in {
            return Err(format!("{header:?} of {scope:?}, which is not for both: {frame:?}"));
        }
        self.told += u64::from(ever.is_some_and(|ever| ever.len() < self.runs.len()));
        Ok(())
    }

    /// A user is told something; these are the scopes that the node was in before and is in now.
    ///
    /// # Errors
    /// When it is of another scope.
    pub fn told(&self, before: &[ScopeName], now: &[ScopeName], event: &Event) -> Verdict {
        let known = match event {
            Event::RoleAdded { scope, .. } => now.contains(scope),
            Event::RoleRemoved { scope, .. } => now.contains(scope) || before.contains(scope),
            _ => true,
        };
        if known { Ok(()) } else { Err(format!("in {now:?}, before {before:?}: {event:?}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::Role;
    use crate::wire::frame::{Page, Part, Roles};
    use crate::wire::{ClusterId, Header};

    fn id(n: u64) -> NodeId {
        NodeId::from_u64(n).unwrap()
    }

    #[test]
    fn generations_bite() {
        let mut checker = Generations::default();
        let (scope, at) = (ScopeId::of("s"), Generation::from_u64);
        checker.own(scope, id(1), at(3)).unwrap();
        checker.see(id(2), (scope, id(1)), at(2), 1).unwrap();
        checker.see(id(2), (scope, id(1)), at(3), 1).unwrap();
        assert_eq!(checker.exercised(), 1);
        checker.see(id(2), (scope, id(1)), at(4), 1).unwrap_err();
        checker.see(id(2), (scope, id(1)), at(1), 2).unwrap();
        checker.see(id(2), (scope, id(1)), at(0), 2).unwrap_err();
        checker.forgot(id(2), id(1));
        checker.see(id(2), (scope, id(1)), at(1), 2).unwrap();
        checker.see(id(2), (scope, id(1)), at(0), 2).unwrap_err();
        checker.left(id(2), scope);
        checker.see(id(2), (scope, id(1)), at(0), 2).unwrap();
        checker.own(scope, id(1), at(2)).unwrap_err();
    }

    fn header(from: NodeId, to: Option<NodeId>) -> ReceivedHeader {
        Header { cluster: ClusterId::of("c"), from, to }.into()
    }

    #[test]
    fn isolation_bites() {
        let mut checker = Isolation::default();
        let scope = ScopeId::of("s");
        checker.joined(scope, id(1));
        checker.joined(scope, id(2));
        checker.joined(ScopeId::of("other"), id(3));
        let (from, to) = (Generation::ZERO, Generation::ZERO.next());
        let roles = Roles { id: id(1), scope, from, to, whole: true, ops: Vec::new() };
        checker.sent(header(id(1), Some(id(2))), &roles.clone().into()).unwrap();
        assert_eq!(checker.exercised(), 1);
        checker.sent(header(id(1), Some(id(3))), &roles.clone().into()).unwrap_err();
        checker.sent(header(id(1), None), &roles.clone().into()).unwrap_err();
        checker.sent(header(id(3), Some(id(2))), &roles.into()).unwrap_err();
        let table = Table::Scope(scope);
        let page = Page { token: 1, table, low: id(1), through: id(1), done: true };
        checker.sent(header(id(1), Some(id(3))), &page.into()).unwrap_err();
        let object = Object::Roles(id(1), scope);
        let part = Part { object, version: 1, total: 0, offset: 0, bytes: bytes::Bytes::new() };
        checker.sent(header(id(1), Some(id(3))), &part.into()).unwrap_err();
    }

    #[test]
    fn events_of_other_scopes_are_found() {
        let checker = Isolation::default();
        let name = |name| ScopeName::new(name).unwrap();
        let addr = "10.0.0.1:1".parse().unwrap();
        let node = crate::node::NodeName::new("n").unwrap();
        let node = crate::node::Node::new(node, id(1), addr, bytes::Bytes::new());
        let (scope, role) = (name("s"), Role::from(1));
        let added =
            Event::RoleAdded { scope: scope.clone(), node: node.clone(), role: role.clone() };
        let removed = Event::RoleRemoved { scope, node, role };
        checker.told(&[], &[name("s")], &added).unwrap();
        checker.told(&[name("s")], &[], &removed).unwrap();
        checker.told(&[name("s")], &[], &added).unwrap_err();
        checker.told(&[], &[name("t")], &removed).unwrap_err();
    }
}
