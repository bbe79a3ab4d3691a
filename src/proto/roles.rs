//! Who holds which role in which scope; generations and deltas.
//!
//! Each (node, scope) has one writer, its node. Every role that it holds or held is marked with the
//! generation of its last change, so that whoever has the set can make the delta from any
//! generation at or above the set's floor: the marks above it are all there, removals included.

mod quota;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::sketch::Sketch;
use crate::id_map::IdMap;
use crate::node::{Generation, NodeId, ScopeName};
use crate::role::Role;
use crate::wire::frame::{RoleOp, Roles, Stamp, Summary, Table};
use crate::wire::limits::{MAX_ROLE_SET_BYTES, MAX_ROLES_PER_NODE};
use crate::wire::{ScopeId, print};

pub(super) use quota::Over;
use quota::{Kept, Limits, Withheld, cost};

/// Removals that a set remembers, if it does not hold more roles than that.
const MIN_TOMBSTONES: usize = 64;

/// A generation that is further ahead of what is known is not believed: who counts wrong in
/// another's name must not use up its generations.
const MAX_LEAP: u64 = 1 << 52;

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Generation,
    held: bool,
}

/// One node's roles in one scope.
#[derive(Clone, Debug, Default)]
pub(super) struct RoleSet {
    generation: Generation,
    /// Deltas from below it cannot be made: removals before it are forgotten.
    floor: Generation,
    /// Sorted by role.
    marks: Vec<(Role, Mark)>,
    held: usize,
    bytes: usize,
    /// The sum of the prints of those that are held.
    print: u64,
    /// What all marks cost, as the limit on the total counts them.
    kept: u64,
}

/// The difference that a change made, as the user sees it: roles, and whether they are held now, in
/// the order in which their node changed them as far as that is known.
#[must_use]
#[derive(Debug, Default, PartialEq)]
pub(super) struct Difference {
    pub(super) changes: Vec<(Role, bool)>,
}

/// What a delta did to a set.
#[must_use]
#[derive(Debug, PartialEq)]
pub(super) enum Merged {
    /// The node is not known to be in the scope, or this node is not.
    Unlisted,
    /// Everything in it was known.
    Known,
    /// It starts above what is known: the rest is to be fetched.
    Gap { known: Generation },
    /// It contradicts itself.
    Refused,
    /// It would exceed a limit.
    Over(Over),
    /// It was taken in, from the generation that was known before.
    Changed { from: Generation, difference: Difference },
}

impl RoleSet {
    pub(super) fn generation(&self) -> Generation {
        self.generation
    }

    pub(super) fn len(&self) -> usize {
        self.held
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is compared of it.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp { number: self.generation.as_u64(), print: print::fold(self.print) }
    }

    /// The roles held, in order.
    pub(super) fn held(&self) -> impl Iterator<Item = &Role> {
        self.marks.iter().filter(|(_, mark)| mark.held).map(|(role, _)| role)
    }

    pub(super) fn holds(&self, role: &Role) -> bool {
        self.mark_of(role).is_some_and(|mark| mark.held)
    }

    fn mark_of(&self, role: &Role) -> Option<Mark> {
        Some(self.marks[self.place(role).ok()?].1)
    }

    fn place(&self, role: &Role) -> Result<usize, usize> {
        self.marks.binary_search_by(|(other, _)| other.cmp(role))
    }

    /// Marks roles, each named once; returns those of which that changed whether they are held.
    fn mark(&mut self, news: Vec<(Role, Mark)>) -> Vec<(Role, bool)> {
        let (mut changes, mut fresh) = (Vec::new(), Vec::new());
        for (role, mark) in news {
            let before = if let Ok(at) = self.place(&role) {
                std::mem::replace(&mut self.marks[at].1, mark).held
            } else {
                fresh.push((role.clone(), mark));
                false
            };
            if mark.held == before {
                continue;
            }
            let (len, print) = (role.as_bytes().len(), print::of_role(&role));
            if mark.held {
                self.held += 1;
                self.bytes += len;
                self.print = self.print.wrapping_add(print);
            } else {
                self.held -= 1;
                self.bytes -= len;
                self.print = self.print.wrapping_sub(print);
            }
            changes.push((role, mark.held));
        }
        self.add(fresh);
        changes
    }

    /// Adds marks of roles that have none.
    fn add(&mut self, mut fresh: Vec<(Role, Mark)>) {
        self.kept += fresh.iter().map(|(role, _)| cost(role)).sum::<u64>();
        if fresh.len() == 1 {
            let entry = fresh.remove(0);
            let at = self.marks.partition_point(|(role, _)| *role < entry.0);
            self.marks.insert(at, entry);
            return;
        }
        fresh.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        self.marks.reserve_exact(fresh.len());
        self.marks.append(&mut fresh);
        // Two sorted runs: this sort merges them.
        self.marks.sort_by(|a, b| a.0.cmp(&b.0));
    }

    /// Forgets the older half of the removals when there are too many.
    fn prune(&mut self) {
        let removals = self.marks.len() - self.held;
        if removals <= MIN_TOMBSTONES.max(self.held) {
            return;
        }
        let removed = self.marks.iter().filter(|(_, mark)| !mark.held);
        let mut ages: Vec<_> = removed.map(|(_, mark)| mark.at).collect();
        let middle = ages.len() / 2;
        let (_, &mut cut, _) = ages.select_nth_unstable(middle);
        self.forget_removals(cut);
    }

    /// Forgets the removals up to a generation, so that no delta can be made from before it.
    fn forget_removals(&mut self, cut: Generation) {
        self.floor = self.floor.max(cut);
        self.marks.retain(|(_, mark)| mark.held || mark.at > cut);
        self.kept = self.marks.iter().map(|(role, _)| cost(role)).sum();
    }

    /// The generation before the last change.
    fn last_change(&self) -> Generation {
        Generation::from_u64(self.generation.as_u64().saturating_sub(1))
    }

    fn has_old_removals(&self) -> bool {
        let old = |mark: &Mark| !mark.held && mark.at <= self.last_change();
        self.marks.len() > self.held && self.marks.iter().any(|(_, mark)| old(mark))
    }

    /// What is new in a delta: when each role was taken or given up.
    fn news<'a>(&'a self, delta: &'a Roles) -> impl Iterator<Item = (&'a Role, Mark)> {
        delta.ops.iter().filter_map(|op| {
            let at = Generation::from_u64(delta.from.as_u64().saturating_add(op.code >> 1));
            let known = self.mark_of(&op.role).map_or(Generation::ZERO, |mark| mark.at);
            let new = at > known.max(self.generation) && at <= delta.to;
            new.then_some((&op.role, Mark { at, held: op.code & 1 == 0 }))
        })
    }

    fn apply_delta(&mut self, delta: &Roles) -> Difference {
        let mut news: Vec<_> = self.news(delta).map(|(role, mark)| (role.clone(), mark)).collect();
        news.sort_by_key(|(_, mark)| mark.at);
        let changes = self.mark(news);
        self.generation = delta.to;
        self.prune();
        Difference { changes }
    }

    fn replace_with(&mut self, whole: &Roles) -> Difference {
        let old = std::mem::take(self);
        // What is newer than the floor of a whole set is not known, so its floor is its end.
        let mark = Mark { at: whole.to, held: true };
        let mut added = self.mark(whole.ops.iter().map(|op| (op.role.clone(), mark)).collect());
        added.retain(|(role, _)| !old.holds(role));
        // What is gone went before what is there now came, as far as anybody can tell.
        let removed = old.held().filter(|role| !self.holds(role));
        let mut changes: Vec<_> = removed.map(|role| (role.clone(), false)).collect();
        changes.append(&mut added);
        self.generation = whole.to;
        self.floor = whole.to;
        Difference { changes }
    }

    /// The delta from `from` on; the whole set when that is too long ago, or when so much has
    /// changed that the delta would be over the limits which a set keeps.
    fn delta(&self, id: NodeId, scope: ScopeId, from: Generation) -> Roles {
        let to = self.generation;
        let news = || self.marks.iter().filter(|(_, mark)| mark.at > from);
        let (count, bytes) = news()
            .fold((0, 0), |(count, bytes), (role, _)| (count + 1, bytes + role.as_bytes().len()));
        let too_much = count > MAX_ROLES_PER_NODE || bytes > MAX_ROLE_SET_BYTES;
        let whole = from < self.floor || from > to || too_much;
        let ops = if whole {
            self.held().map(|role| RoleOp { code: 0, role: role.clone() }).collect()
        } else {
            let op = |(role, mark): &(Role, Mark)| RoleOp {
                code: (mark.at.as_u64() - from.as_u64()) << 1 | u64::from(!mark.held),
                role: role.clone(),
            };
            news().map(op).collect()
        };
        let from = if whole { Generation::ZERO } else { from };
        Roles { id, scope, from, to, whole, ops }
    }
}

/// A node in a scope. The set behind it may be shared with other observers, in a simulation.
#[derive(Debug, Default)]
struct Listed {
    set: Arc<RoleSet>,
    live: bool,
}

/// One scope that this node is in.
#[derive(Debug)]
pub(super) struct RoleTable {
    pub(super) name: ScopeName,
    sets: IdMap<Listed>,
    /// The live members of the scope but this node, sorted.
    peers: Vec<NodeId>,
    /// Of the live.
    sketch: Sketch,
    /// Sets that would exceed a limit, and are not kept.
    withheld: BTreeMap<NodeId, Withheld>,
}

impl RoleTable {
    /// The live members of the scope but this node.
    pub(super) fn peers(&self) -> &[NodeId] {
        &self.peers
    }

    pub(super) fn set(&self, id: NodeId) -> Option<&RoleSet> {
        self.sets.get(id).map(|listed| &*listed.set)
    }

    /// The live members with their generations, to be compared.
    pub(super) fn sketch(&self) -> &Sketch {
        &self.sketch
    }

    pub(super) fn summary(&self) -> Summary {
        self.sketch.summary()
    }

    /// The live members in a range of ids, with what is compared of their roles.
    pub(super) fn range(&self, low: NodeId, high: NodeId) -> impl Iterator<Item = (NodeId, Stamp)> {
        let live = self.sets.range(low, high).filter(|(_, listed)| listed.live);
        live.map(|(id, listed)| (id, listed.set.stamp()))
    }

    /// The stamp of an entry.
    fn stamp(&self, id: NodeId) -> Stamp {
        self.sets[id].set.stamp()
    }
}

/// The roles of every node in every scope that this node is in.
#[derive(Debug)]
pub(super) struct RoleTables {
    local: NodeId,
    tables: BTreeMap<ScopeId, RoleTable>,
    /// This node's generation in scopes that it has left, so that it never falls back.
    rested: BTreeMap<ScopeId, Generation>,
    limits: Limits,
    kept: Kept,
}

impl RoleTables {
    pub(super) fn new(local: NodeId) -> RoleTables {
        let (limits, kept) = (Limits::default(), Kept::default());
        RoleTables { local, tables: BTreeMap::new(), rested: BTreeMap::new(), limits, kept }
    }

    /// Joins a scope; this node's generation there goes on where it was.
    pub(super) fn join(&mut self, scope: ScopeId, name: ScopeName) {
        let sketch = Sketch::new(Table::Scope(scope));
        let (sets, peers, withheld) = (IdMap::default(), Vec::new(), BTreeMap::new());
        let table = RoleTable { name, sets, peers, sketch, withheld };
        self.tables.insert(scope, table);
        self.list(scope, self.local);
        let generation = self.rested.remove(&scope).unwrap_or_default();
        self.edit(scope, self.local, |set| {
            set.generation = generation;
            set.floor = generation;
        });
    }

    /// Leaves a scope, and returns its table.
    pub(super) fn leave(&mut self, scope: ScopeId) -> Option<RoleTable> {
        let table = self.tables.remove(&scope)?;
        let own = &table.sets[self.local].set;
        // Leaving is a change of its own where there were roles.
        let generation = if own.held == 0 { own.generation } else { own.generation.next() };
        self.rested.insert(scope, generation);
        for (_, listed) in table.sets.iter() {
            self.kept.take(listed.live, listed.set.weight());
        }
        Some(table)
    }

    /// Notes that a live node is in the scope.
    pub(super) fn list(&mut self, scope: ScopeId, id: NodeId) {
        let local = self.local;
        let Some(table) = self.tables.get_mut(&scope) else { return };
        match table.sets.get_mut(id) {
            Some(listed) if listed.live => return,
            Some(listed) => {
                listed.live = true;
                self.kept.move_to(true, listed.set.weight());
            }
            None => {
                let replaced = table.sets.insert(id, Listed { live: true, ..Listed::default() });
                debug_assert!(replaced.is_none(), "it was looked up just now");
            }
        }
        table.sketch.insert(id, table.stamp(id));
        if id != local
            && let Err(at) = table.peers.binary_search(&id)
        {
            table.peers.insert(at, id);
        }
    }

    /// Notes that a node in the scope is dead; its roles are kept, unseen, in case it comes back.
    pub(super) fn hide(&mut self, scope: ScopeId, id: NodeId) {
        let Some(table) = self.tables.get_mut(&scope) else { return };
        if !table.sets.get(id).is_some_and(|listed| listed.live) {
            return;
        }
        table.sketch.remove(id, table.stamp(id));
        let listed = table.sets.get_mut(id).expect("it was found just now");
        listed.live = false;
        self.kept.move_to(false, listed.set.weight());
        if let Ok(at) = table.peers.binary_search(&id) {
            table.peers.remove(at);
        }
    }

    /// Forgets a node's roles in the scope, and returns those it held.
    pub(super) fn forget(&mut self, scope: ScopeId, id: NodeId) -> Vec<Role> {
        self.hide(scope, id);
        let Some(table) = self.tables.get_mut(&scope) else { return Vec::new() };
        table.withheld.remove(&id);
        let Some(listed) = table.sets.remove(id) else { return Vec::new() };
        self.kept.take(false, listed.set.weight());
        listed.set.held().cloned().collect()
    }

    /// Takes in a delta.
    pub(super) fn merge(&mut self, delta: &Roles) -> Merged {
        let table = self.tables.get(&delta.scope);
        let Some(set) = table.and_then(|table| table.set(delta.id)) else {
            return Merged::Unlisted;
        };
        let known = set.generation;
        if delta.to <= known {
            return Merged::Known;
        }
        if delta.from > known {
            return Merged::Gap { known };
        }
        let leap = delta.to.as_u64() - known.as_u64();
        let Some(size) = set.size_with(delta).filter(|_| leap <= MAX_LEAP) else {
            return Merged::Refused;
        };
        if let Some(over) = self.over(delta.scope, delta.id, size) {
            return Merged::Over(over);
        }
        self.take_back(delta);
        let difference = self.edit(delta.scope, delta.id, |set| {
            if delta.whole { set.replace_with(delta) } else { set.apply_delta(delta) }
        });
        Merged::Changed { from: known, difference }
    }

    /// Changes this node's own roles by one generation, if that changes anything. The scope must
    /// be joined.
    pub(super) fn change_own(
        &mut self,
        scope: ScopeId,
        roles: impl Iterator<Item = Role>,
        held: bool,
    ) -> Option<Difference> {
        let own = &self.tables[&scope].sets[self.local].set;
        let at = own.generation.next();
        let mut roles: Vec<Role> = roles.filter(|role| own.holds(role) != held).collect();
        roles.sort_unstable();
        roles.dedup();
        if roles.is_empty() {
            return None;
        }
        self.edit(scope, self.local, |set| {
            let changes = set.mark(roles.into_iter().map(|it| (it, Mark { at, held })).collect());
            set.generation = at;
            set.prune();
            Some(Difference { changes })
        })
    }

    /// Somebody has this of this node's own roles: unless it is what they were or are, they become
    /// newer than that, and whoever has another version takes them whole. Says whether they did.
    pub(super) fn outdo(&mut self, scope: ScopeId, theirs: Stamp) -> bool {
        let Some(own) = self.set(scope, self.local) else { return false };
        let (ours, leap) = (own.stamp(), theirs.number.saturating_sub(own.generation.as_u64()));
        let wrong = theirs.number > ours.number
            || (theirs.number == ours.number && theirs.print != ours.print);
        if !wrong || leap > MAX_LEAP || theirs.number == u64::MAX {
            return false;
        }
        let generation = Generation::from_u64(theirs.number).next();
        self.edit(scope, self.local, |set| {
            set.generation = generation;
            // No delta leads here from what others have.
            set.forget_removals(generation);
        });
        true
    }

    /// A node's roles in a scope, to be shared.
    #[cfg(feature = "sim")]
    pub(super) fn shared(&self, scope: ScopeId, id: NodeId) -> Option<Arc<RoleSet>> {
        Some(self.tables.get(&scope)?.sets.get(id)?.set.clone())
    }

    /// Notes that a live node is in the scope with these roles, if this node is in it too.
    #[cfg(feature = "sim")]
    pub(super) fn acquaint(&mut self, scope: ScopeId, id: NodeId, set: &Arc<RoleSet>) {
        let Some(table) = self.tables.get_mut(&scope) else { return };
        let replaced = table.sets.insert(id, Listed { set: set.clone(), live: true });
        assert!(replaced.is_none(), "a node is introduced once");
        table.sketch.insert(id, table.stamp(id));
        table.peers.push(id);
        self.kept.add(true, set.weight());
    }

    /// The delta of a node's roles from `from` on, if this node has them.
    pub(super) fn delta(&self, scope: ScopeId, id: NodeId, from: Generation) -> Option<Roles> {
        Some(self.set(scope, id)?.delta(id, scope, from))
    }

    pub(super) fn table(&self, scope: ScopeId) -> Option<&RoleTable> {
        self.tables.get(&scope)
    }

    pub(super) fn set(&self, scope: ScopeId, id: NodeId) -> Option<&RoleSet> {
        self.tables.get(&scope)?.set(id)
    }

    /// The scopes that this node is in, by id.
    pub(super) fn scopes(&self) -> impl Iterator<Item = (ScopeId, &RoleTable)> {
        self.tables.iter().map(|(scope, table)| (*scope, table))
    }

    pub(super) fn count(&self) -> usize {
        self.tables.len()
    }

    /// This node's generation in a scope, joined or not.
    pub(super) fn own_generation(&self, scope: ScopeId) -> Generation {
        let joined = self.set(scope, self.local).map(RoleSet::generation);
        joined.or_else(|| self.rested.get(&scope).copied()).unwrap_or_default()
    }

    /// Changes a set while the table's sketch follows.
    fn edit<R>(&mut self, scope: ScopeId, id: NodeId, change: impl FnOnce(&mut RoleSet) -> R) -> R {
        let table = self.tables.get_mut(&scope).expect("callers looked the scope up");
        let live = table.sets[id].live;
        let before = table.stamp(id);
        let listed = table.sets.get_mut(id).expect("callers looked the node up");
        self.kept.take(live, listed.set.weight());
        let result = change(Arc::make_mut(&mut listed.set));
        self.kept.add(live, listed.set.weight());
        let after = listed.set.stamp();
        if live && after != before {
            table.sketch.remove(id, before);
            table.sketch.insert(id, after);
        }
        result
    }

    /// What must always hold.
    #[cfg(any(test, debug_assertions, feature = "sim"))]
    pub(super) fn check(&self) {
        for table in self.tables.values() {
            let live = || table.sets.iter().filter(|(_, listed)| listed.live);
            table.sketch.check(live().map(|(id, listed)| (id, listed.set.stamp())));
            let peers: Vec<_> = live().map(|(id, _)| id).filter(|id| *id != self.local).collect();
            assert_eq!(peers, table.peers);
            for (_, Listed { set, .. }) in table.sets.iter() {
                assert!(set.marks.is_sorted_by(|a, b| a.0 < b.0), "each role has one mark");
                assert_eq!(set.held().count(), set.held);
                assert_eq!(print::of_roles(set.held()), set.print);
                assert!(set.floor <= set.generation);
                assert!(set.marks.iter().all(|(_, mark)| mark.at <= set.generation));
            }
        }
        self.check_quotas();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> NodeId {
        NodeId::from_u64(n).unwrap()
    }

    /// Two nodes in one scope: 1 writes, 2 follows.
    fn pair() -> (ScopeId, RoleTables, RoleTables) {
        let scope = ScopeId::of("s");
        let name = ScopeName::new("s").unwrap();
        let mut writer = RoleTables::new(id(1));
        let mut follower = RoleTables::new(id(2));
        writer.join(scope, name.clone());
        follower.join(scope, name);
        follower.list(scope, id(1));
        (scope, writer, follower)
    }

    fn add(tables: &mut RoleTables, scope: ScopeId, role: u64) {
        assert!(tables.change_own(scope, [Role::from(role)].into_iter(), true).is_some());
    }

    fn remove(tables: &mut RoleTables, scope: ScopeId, role: u64) {
        assert!(tables.change_own(scope, [Role::from(role)].into_iter(), false).is_some());
    }

    #[test]
    fn one_step_per_call_that_changes_anything() {
        let (scope, mut writer, _) = pair();
        let roles = || ["a", "b", "a"].map(Role::from).into_iter();
        let difference = writer.change_own(scope, roles(), true).unwrap();
        assert_eq!(difference.changes.len(), 2);
        assert!(writer.change_own(scope, roles(), true).is_none());
        assert_eq!(writer.own_generation(scope), Generation::from_u64(1));
        writer.check();
    }

    #[test]
    fn a_delta_applies_from_at_or_below_what_is_known_and_a_gap_is_told() {
        let (scope, mut writer, mut follower) = pair();
        for n in 0..4 {
            add(&mut writer, scope, n);
        }
        remove(&mut writer, scope, 1);
        let at = Generation::from_u64;
        let gap = writer.delta(scope, id(1), at(3)).unwrap();
        assert_eq!(follower.merge(&gap), Merged::Gap { known: at(0) });
        let whole = writer.delta(scope, id(1), at(0)).unwrap();
        let Merged::Changed { from, difference } = follower.merge(&whole) else { panic!() };
        assert_eq!((from, difference.changes.len()), (at(0), 3));
        assert_eq!(follower.merge(&gap), Merged::Known);
        add(&mut writer, scope, 1);
        let overlap = writer.delta(scope, id(1), at(2)).unwrap();
        let Merged::Changed { difference, .. } = follower.merge(&overlap) else { panic!() };
        assert_eq!(difference, Difference { changes: vec![(Role::from(1), true)] });
        follower.check();
    }

    #[test]
    fn a_delta_over_several_changes_tells_them_in_the_order_in_which_they_were_made() {
        let (scope, mut writer, mut follower) = pair();
        add(&mut writer, scope, 5);
        let first = writer.delta(scope, id(1), Generation::ZERO).unwrap();
        assert!(matches!(follower.merge(&first), Merged::Changed { .. }));
        add(&mut writer, scope, 9);
        remove(&mut writer, scope, 5);
        add(&mut writer, scope, 1);
        let delta = writer.delta(scope, id(1), Generation::from_u64(1)).unwrap();
        let Merged::Changed { difference, .. } = follower.merge(&delta) else { panic!() };
        let order = [(9, true), (5, false), (1, true)];
        assert_eq!(difference.changes, order.map(|(role, held)| (Role::from(role), held)));
    }

    #[test]
    fn a_set_that_is_exchanged_for_another_as_large_as_allowed_arrives() {
        let (scope, mut writer, mut follower) = pair();
        let half = MAX_ROLES_PER_NODE as u64 / 2 + 1000;
        let range = |from: u64, count: u64| (from..from + count).map(Role::from);
        let known = |follower: &RoleTables| follower.set(scope, id(1)).unwrap().generation();
        let mut carry = |writer: &RoleTables| {
            let delta = writer.delta(scope, id(1), known(&follower)).unwrap();
            assert!(delta.ops.len() <= MAX_ROLES_PER_NODE);
            assert!(matches!(follower.merge(&delta), Merged::Changed { .. }));
            follower.check();
        };
        assert!(writer.change_own(scope, range(0, half), true).is_some());
        carry(&writer);
        // Together, what goes and what comes are over the limit; the result is not.
        assert!(writer.change_own(scope, range(0, half), false).is_some());
        assert!(writer.change_own(scope, range(half, half), true).is_some());
        carry(&writer);
        assert!(writer.change_own(scope, range(2 * half, 30_000), true).is_some());
        carry(&writer);
        assert!(writer.change_own(scope, range(2 * half, 2_000), false).is_some());
        assert!(writer.change_own(scope, range(0, 2_500), true).is_some());
        carry(&writer);
        let held = |tables: &RoleTables| {
            tables.set(scope, id(1)).unwrap().held().cloned().collect::<Vec<_>>()
        };
        assert_eq!(held(&follower), held(&writer));
    }

    #[test]
    fn a_whole_set_is_swapped_in_as_a_difference() {
        let (scope, mut writer, mut follower) = pair();
        for n in 0..3 {
            add(&mut writer, scope, n);
        }
        let first = writer.delta(scope, id(1), Generation::ZERO).unwrap();
        assert!(matches!(follower.merge(&first), Merged::Changed { .. }));
        for n in 3..200 {
            add(&mut writer, scope, n);
            remove(&mut writer, scope, n);
        }
        remove(&mut writer, scope, 2);
        // The removals since are forgotten, so the delta is the whole set.
        let late = writer.delta(scope, id(1), Generation::from_u64(3)).unwrap();
        assert!(late.whole);
        let Merged::Changed { difference, .. } = follower.merge(&late) else { panic!() };
        assert_eq!(difference, Difference { changes: vec![(Role::from(2), false)] });
        writer.check();
    }

    #[test]
    fn generations_survive_leaving_and_rejoining() {
        let (scope, mut writer, _) = pair();
        add(&mut writer, scope, 1);
        let left = writer.leave(scope).unwrap();
        assert_eq!(left.set(id(1)).unwrap().len(), 1);
        assert_eq!(writer.own_generation(scope), Generation::from_u64(2));
        writer.join(scope, ScopeName::new("s").unwrap());
        assert_eq!(writer.own_generation(scope), Generation::from_u64(2));
        add(&mut writer, scope, 1);
        assert_eq!(writer.own_generation(scope), Generation::from_u64(3));
        writer.check();
    }

    #[test]
    fn the_total_follows_every_way_in_and_out() {
        let (scope, mut writer, mut follower) = pair();
        let carry = |writer: &RoleTables, follower: &mut RoleTables| {
            let known = follower.set(scope, id(1)).map(RoleSet::generation);
            let delta = writer.delta(scope, id(1), known.unwrap_or_default()).unwrap();
            let merged = follower.merge(&delta);
            follower.check();
            assert!(matches!(merged, Merged::Changed { .. }), "{merged:?}");
        };
        let cost = cost(&Role::from(1));
        (1..=3).for_each(|role| add(&mut writer, scope, role));
        carry(&writer, &mut follower);
        assert_eq!(follower.kept, Kept { held: 3 * cost, spare: 0 });
        remove(&mut writer, scope, 1);
        carry(&writer, &mut follower);
        let with_a_removal = Kept { held: 2 * cost, spare: cost };
        assert_eq!(follower.kept, with_a_removal);
        follower.hide(scope, id(1));
        assert_eq!(follower.kept, Kept { held: 0, spare: 3 * cost });
        follower.list(scope, id(1));
        assert_eq!(follower.kept, with_a_removal);
        follower.check();
        follower.forget_removals();
        assert_eq!(follower.kept, with_a_removal, "the last change is to be told still");
        add(&mut writer, scope, 4);
        carry(&writer, &mut follower);
        follower.forget_removals();
        assert_eq!(follower.kept, Kept { held: 3 * cost, spare: 0 });
        follower.check();
        follower.hide(scope, id(1));
        assert_eq!(follower.forget(scope, id(1)).len(), 3);
        follower.check();
        assert_eq!(follower.kept, Kept::default());
        assert!(writer.leave(scope).is_some());
        writer.check();
        assert_eq!(writer.kept, Kept::default());
    }

    #[test]
    fn a_hidden_set_comes_back_as_it_was() {
        let (scope, mut writer, mut follower) = pair();
        add(&mut writer, scope, 1);
        let delta = writer.delta(scope, id(1), Generation::ZERO).unwrap();
        assert!(matches!(follower.merge(&delta), Merged::Changed { .. }));
        let summary = follower.table(scope).unwrap().summary();
        follower.hide(scope, id(1));
        assert_ne!(follower.table(scope).unwrap().summary(), summary);
        follower.list(scope, id(1));
        assert_eq!(follower.table(scope).unwrap().summary(), summary);
        assert_eq!(follower.forget(scope, id(1)), vec![Role::from(1)]);
        assert_eq!(follower.merge(&delta), Merged::Unlisted);
        follower.check();
    }
}
