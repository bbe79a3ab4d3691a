//! What a node's roles may take, what all of them take, and the sets that are not kept because they
//! would take more.

use super::{RoleSet, RoleTables};
use crate::config::Config;
use crate::event::Limit;
use crate::node::{Generation, NodeId};
use crate::role::Role;
use crate::wire::frame::{Roles, Stamp};
use crate::wire::limits::{MAX_ROLE_SET_BYTES, MAX_ROLES_PER_NODE};
use crate::wire::{ScopeId, print};

/// What a role counts in the total besides its bytes: its place in a set.
const ROLE_OVERHEAD_BYTES: u64 = 64;

/// What is kept besides the roles of the living is let go when it is more than this share of the
/// limit on the total: less is not worth the search through all sets.
const SPARE_SHARE: u64 = 64;

/// What a role counts in the total.
pub(super) fn cost(role: &Role) -> u64 {
    cost_of(1, role.as_bytes().len())
}

fn cost_of(roles: usize, bytes: usize) -> u64 {
    bytes as u64 + ROLE_OVERHEAD_BYTES * roles as u64
}

/// How large a set is, or would be.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(in crate::proto) struct Size {
    roles: usize,
    bytes: usize,
    /// Of the longest role that it does not hold yet.
    longest: usize,
    /// The sum of the prints of its roles.
    print: u64,
}

impl Size {
    /// What the roles that are held count in the total.
    fn cost(&self) -> u64 {
        cost_of(self.roles, self.bytes)
    }
}

/// A set would exceed a limit.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(in crate::proto) struct Over {
    pub(in crate::proto) limit: Limit,
    size: Size,
}

/// What a set may be.
#[derive(Debug)]
pub(super) struct Limits {
    roles: usize,
    role_bytes: usize,
    set_bytes: usize,
    total: u64,
}

impl Default for Limits {
    /// What the wire format takes.
    fn default() -> Limits {
        Limits {
            roles: MAX_ROLES_PER_NODE,
            role_bytes: usize::MAX,
            set_bytes: MAX_ROLE_SET_BYTES,
            total: u64::MAX,
        }
    }
}

/// What a set counts in the total: the roles that are held, and with the removals that are
/// remembered.
#[derive(Clone, Copy)]
pub(super) struct Weight {
    held: u64,
    all: u64,
}

/// What all sets together count.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Kept {
    /// Roles that the living hold.
    pub(super) held: u64,
    /// What can be let go: removals, and whatever is kept of the dead.
    pub(super) spare: u64,
}

impl Kept {
    /// A set comes.
    pub(super) fn add(&mut self, live: bool, set: Weight) {
        let held = if live { set.held } else { 0 };
        self.held += held;
        self.spare += set.all - held;
    }

    /// A set goes.
    pub(super) fn take(&mut self, live: bool, set: Weight) {
        let held = if live { set.held } else { 0 };
        self.held -= held;
        self.spare -= set.all - held;
    }

    /// The node of a set rose, or fell.
    pub(super) fn move_to(&mut self, live: bool, set: Weight) {
        self.take(!live, set);
        self.add(live, set);
    }
}

/// A set that is not kept.
#[derive(Debug)]
pub(super) struct Withheld {
    /// Of the set that was refused.
    stamp: Stamp,
    size: Size,
    /// The limits that the user has been told of.
    told: Vec<Limit>,
}

impl RoleSet {
    pub(super) fn weight(&self) -> Weight {
        Weight { held: self.size().cost(), all: self.kept }
    }

    fn size(&self) -> Size {
        let RoleSet { held: roles, bytes, print, .. } = *self;
        Size { roles, bytes, longest: 0, print }
    }

    /// How large the set would be with this delta, at most; `None` when that cannot be told.
    pub(super) fn size_with(&self, delta: &Roles) -> Option<Size> {
        // In order, so that no role is named twice and the sums are true.
        if !delta.ops.is_sorted_by(|a, b| a.role < b.role) {
            return None;
        }
        let len = |role: &Role| role.as_bytes().len();
        let mut size = Size { longest: 0, ..self.size() };
        if delta.whole {
            let roles = || delta.ops.iter().map(|op| &op.role);
            let new = roles().filter(|role| !self.holds(role));
            size = Size {
                roles: delta.ops.len(),
                bytes: roles().map(len).sum(),
                longest: new.map(len).max().unwrap_or(0),
                print: print::of_roles(roles()),
            };
            return Some(size);
        }
        let mut removed = (0, 0);
        for (role, mark) in self.news(delta) {
            match (self.holds(role), mark.held) {
                (false, true) => {
                    size.roles += 1;
                    size.bytes += len(role);
                    size.longest = size.longest.max(len(role));
                    size.print = size.print.wrapping_add(print::of_role(role));
                }
                (true, false) => {
                    removed = (removed.0 + 1, removed.1 + len(role));
                    size.print = size.print.wrapping_sub(print::of_role(role));
                }
                _ => {}
            }
        }
        Some(Size { roles: size.roles - removed.0, bytes: size.bytes - removed.1, ..size })
    }
}

impl RoleTables {
    /// The limits from now on; nothing is dropped for them, they only refuse growth.
    pub(in crate::proto) fn limit(&mut self, config: &Config) {
        self.limits = Limits {
            roles: config.max_roles_per_node,
            role_bytes: config.max_role_bytes,
            set_bytes: config.max_node_role_bytes,
            total: config.max_total_role_bytes,
        };
    }

    /// What the roles of the living count.
    pub(in crate::proto) fn held_by_the_living(&self) -> u64 {
        self.kept.held
    }

    /// Whether so much is kept that what can be let go has to go.
    pub(in crate::proto) fn must_make_room(&self) -> bool {
        let Kept { held, spare } = self.kept;
        held + spare > self.limits.total && spare > self.limits.total / SPARE_SHARE
    }

    /// Forgets removals of all sets but the last one of each, which its news is made of.
    pub(in crate::proto) fn forget_removals(&mut self) {
        let mut old = Vec::new();
        for (scope, table) in &self.tables {
            let sets = table.sets.iter().filter(|(_, listed)| listed.set.has_old_removals());
            old.extend(sets.map(|(id, _)| (*scope, id)));
        }
        for (scope, id) in old {
            self.edit(scope, id, |set| set.forget_removals(set.last_change()));
        }
    }

    /// Whether a set that grows to this size would exceed a limit.
    pub(super) fn over(&self, scope: ScopeId, id: NodeId, size: Size) -> Option<Over> {
        let listed = self.tables.get(&scope).and_then(|table| table.sets.get(id));
        let now = listed.map(|listed| listed.set.size()).unwrap_or_default();
        // What is kept of the dead can be let go.
        let counts = listed.is_some_and(|listed| listed.live);
        let total = || self.kept.held - now.cost() + size.cost();
        let grows = |now: usize, then: usize, max: usize| then > max && then > now;
        let limit = if size.longest > self.limits.role_bytes {
            Limit::MaxRoleBytes
        } else if grows(now.roles, size.roles, self.limits.roles) {
            Limit::MaxRolesPerNode
        } else if grows(now.bytes, size.bytes, self.limits.set_bytes) {
            Limit::MaxNodeRoleBytes
        } else if counts && size.cost() > now.cost() && total() > self.limits.total {
            Limit::MaxTotalRoleBytes
        } else {
            return None;
        };
        Some(Over { limit, size })
    }

    /// What all that the living hold would count with these of this node's own, if that is over
    /// the limit on the total. They are not in the scope yet, each named once.
    pub(in crate::proto) fn over_total(&self, new: &[&Role]) -> Option<u64> {
        let total = self.kept.held + new.iter().map(|role| cost(role)).sum::<u64>();
        (total > self.limits.total && !new.is_empty()).then_some(total)
    }

    /// Notes that a set is not kept; says whether that is news to the user.
    pub(in crate::proto) fn withhold(&mut self, delta: &Roles, over: Over) -> bool {
        let Some(table) = self.tables.get_mut(&delta.scope) else { return false };
        let size = over.size;
        let stamp = Stamp { number: delta.to.as_u64(), print: print::fold(size.print) };
        let fresh = || Withheld { stamp, size, told: Vec::new() };
        let withheld = table.withheld.entry(delta.id).or_insert_with(fresh);
        if stamp.number >= withheld.stamp.number {
            (withheld.stamp, withheld.size) = (stamp, size);
        }
        let news = !withheld.told.contains(&over.limit);
        if news {
            withheld.told.push(over.limit);
        }
        news
    }

    /// A set is taken in, so that it is no longer withheld.
    pub(super) fn take_back(&mut self, delta: &Roles) {
        if let Some(table) = self.tables.get_mut(&delta.scope)
            && table.withheld.get(&delta.id).is_some_and(|it| it.stamp.number <= delta.to.as_u64())
        {
            table.withheld.remove(&delta.id);
        }
    }

    /// Whether a node's roles at a generation, or up to it, were refused and would be again.
    pub(in crate::proto) fn withholds(
        &self,
        scope: ScopeId,
        id: NodeId,
        generation: Generation,
    ) -> bool {
        let withheld = self.tables.get(&scope).and_then(|table| table.withheld.get(&id));
        let known = |it: &Withheld| it.stamp.number >= generation.as_u64();
        withheld.is_some_and(|it| known(it) && self.over(scope, id, it.size).is_some())
    }

    /// The live nodes of a scope whose roles are withheld: the stamps of those that are known, and
    /// of those that are not kept.
    pub(in crate::proto) fn withheld(
        &self,
        scope: ScopeId,
    ) -> impl Iterator<Item = (NodeId, Stamp, Stamp)> {
        let table = self.tables.get(&scope).into_iter();
        let all = table.flat_map(|table| table.withheld.iter().map(move |it| (table, it)));
        all.filter_map(move |(table, (id, withheld))| {
            let listed = table.sets.get(*id).filter(|listed| listed.live)?;
            let (known, refused) = (listed.set.stamp(), withheld.stamp);
            let kept_out = refused.number > known.number;
            (kept_out && self.over(scope, *id, withheld.size).is_some())
                .then_some((*id, known, refused))
        })
    }

    #[cfg(any(test, debug_assertions, feature = "sim"))]
    pub(super) fn check_quotas(&self) {
        let mut sum = Kept::default();
        for (scope, table) in &self.tables {
            for (_, listed) in table.sets.iter() {
                let kept: u64 = listed.set.marks.iter().map(|(role, _)| cost(role)).sum();
                assert_eq!(kept, listed.set.kept, "a set knows what it counts");
                sum.add(listed.live, listed.set.weight());
            }
            for id in table.withheld.keys() {
                assert!(self.set(*scope, *id).is_some(), "only sets of the listed are withheld");
            }
        }
        assert_eq!(sum, self.kept, "the total follows the sets");
    }
}
