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

/// What a role counts in the total.
pub(super) fn cost(role: &Role) -> u64 {
    role.as_bytes().len() as u64 + ROLE_OVERHEAD_BYTES
}

/// How large a set is, or would be.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(in crate::proto) struct Size {
    roles: usize,
    bytes: usize,
    /// Of the longest role that it does not hold yet.
    longest: usize,
    /// What it counts in the total.
    kept: u64,
    /// The sum of the prints of its roles.
    print: u64,
}

/// A set would exceed a limit.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(in crate::proto) struct Over {
    pub(in crate::proto) limit: Limit,
    /// Bytes that have to go before it fits, if it is the limit on the total.
    pub(in crate::proto) excess: u64,
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

/// What all sets together count.
#[derive(Debug, Default)]
pub(super) struct Kept {
    live: u64,
    /// Of the dead.
    hidden: u64,
}

impl Kept {
    /// A set counted `before`, and counts `after`.
    pub(super) fn count(&mut self, live: bool, before: u64, after: u64) {
        let side = if live { &mut self.live } else { &mut self.hidden };
        *side = *side - before + after;
    }

    /// The node of a set rose, or fell.
    pub(super) fn move_to(&mut self, live: bool, kept: u64) {
        self.count(!live, kept, 0);
        self.count(live, 0, kept);
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
    fn size(&self) -> Size {
        let RoleSet { held: roles, bytes, kept, print, .. } = *self;
        Size { roles, bytes, longest: 0, kept, print }
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
                kept: roles().map(cost).sum(),
                print: print::of_roles(roles()),
            };
            return Some(size);
        }
        let mut removed = (0, 0);
        for (role, mark) in self.news(delta) {
            let before = self.mark_of(role);
            if before.is_none() {
                size.kept += cost(role);
            }
            match (before.is_some_and(|mark| mark.held), mark.held) {
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

    /// What all roles count.
    pub(in crate::proto) fn kept(&self) -> u64 {
        self.kept.live + self.kept.hidden
    }

    /// What those of the dead do of that.
    pub(in crate::proto) fn kept_of_the_dead(&self) -> u64 {
        self.kept.hidden
    }

    /// Whether a set that grows to this size would exceed a limit.
    pub(super) fn over(&self, scope: ScopeId, id: NodeId, size: Size) -> Option<Over> {
        let now = self.set(scope, id).map(RoleSet::size).unwrap_or_default();
        let excess = (self.kept() - now.kept + size.kept).saturating_sub(self.limits.total);
        let grows = |now: usize, then: usize, max: usize| then > max && then > now;
        let limit = if size.longest > self.limits.role_bytes {
            Limit::MaxRoleBytes
        } else if grows(now.roles, size.roles, self.limits.roles) {
            Limit::MaxRolesPerNode
        } else if grows(now.bytes, size.bytes, self.limits.set_bytes) {
            Limit::MaxNodeRoleBytes
        } else if excess > 0 && size.kept > now.kept {
            Limit::MaxTotalRoleBytes
        } else {
            return None;
        };
        Some(Over { limit, excess, size })
    }

    /// By how much this node's own roles would exceed the limit on the total with these. They are
    /// not in the scope yet, each named once.
    pub(in crate::proto) fn own_excess(&self, scope: ScopeId, new: &[&Role]) -> u64 {
        let own = self.set(scope, self.local);
        let fresh = new.iter().filter(|role| own.is_none_or(|own| own.mark_of(role).is_none()));
        let growth: u64 = fresh.map(|role| cost(role)).sum();
        if growth == 0 {
            return 0;
        }
        (self.kept() + growth).saturating_sub(self.limits.total)
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
        withheld.is_some_and(|it| known(it) && self.is_over(scope, id, it.size))
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
            (kept_out && self.is_over(scope, *id, withheld.size)).then_some((*id, known, refused))
        })
    }

    /// Whether a set of this size is over a limit, whatever of the dead is forgotten for it.
    fn is_over(&self, scope: ScopeId, id: NodeId, size: Size) -> bool {
        let over = self.over(scope, id, size);
        over.is_some_and(|over| {
            over.limit != Limit::MaxTotalRoleBytes || over.excess > self.kept.hidden
        })
    }

    #[cfg(any(test, debug_assertions, feature = "sim"))]
    pub(super) fn check_quotas(&self) {
        let (mut live, mut hidden) = (0, 0);
        for (scope, table) in &self.tables {
            for (_, listed) in table.sets.iter() {
                let kept: u64 = listed.set.marks.iter().map(|(role, _)| cost(role)).sum();
                assert_eq!(kept, listed.set.kept, "a set knows what it counts");
                *(if listed.live { &mut live } else { &mut hidden }) += kept;
            }
            for id in table.withheld.keys() {
                assert!(self.set(*scope, *id).is_some(), "only sets of the listed are withheld");
            }
        }
        assert_eq!(
            (live, hidden),
            (self.kept.live, self.kept.hidden),
            "the total follows the sets"
        );
    }
}
