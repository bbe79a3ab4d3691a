//! Limits on what is kept of others: what is over one is refused as a whole, the user hears of it
//! once, and it is not asked for again before it may fit.

use std::time::Duration;

use tracing::Level;

use super::super::Protocol;
use super::super::members::Profiled;
use super::super::roles::Over;
use crate::error::RoleError;
use crate::event::{Event, Limit};
use crate::node::{Generation, Node, NodeId};
use crate::role::Role;
use crate::wire::ScopeId;
use crate::wire::frame::{Object, Profile, Roles};

impl Protocol {
    /// The limits of the configuration hold from now on.
    pub(in crate::proto) fn apply_limits(&mut self) {
        self.members.limit(self.config.max_nodes);
        self.roles.limit(&self.config);
    }

    /// What may not be kept beside the roles of the living goes: removals, and then roles of the
    /// dead, those of the longest dead first. A run that comes back is asked for them.
    pub(super) fn make_room_for_roles(&mut self) {
        if !self.roles.must_make_room() {
            return;
        }
        self.roles.forget_removals();
        for id in self.members.dead().collect::<Vec<_>>() {
            if !self.roles.must_make_room() {
                break;
            }
            self.forget_in_scopes(id);
        }
    }

    /// What there is of a run besides its entry in the table goes with that.
    pub(super) fn forget_run(&mut self, id: NodeId) {
        self.forget_in_scopes(id);
        self.refusals.forget(id);
    }

    /// A node's roles in a scope would exceed a limit: what was known of them stays.
    pub(super) fn withhold_roles(&mut self, roles: &Roles, over: Over) {
        self.counters.plain.dropped.over_limit += 1;
        self.fetches.settle(Object::Roles(roles.id, roles.scope), roles.to.as_u64());
        if self.roles.withhold(roles, over)
            && let Some(member) = self.members.find(roles.id)
        {
            let node = member.node.clone();
            self.tell_limit(over.limit, node, Some(roles.scope));
        }
        // It need not wait for what does not come.
        self.try_announce(roles.id);
    }

    /// Whether a profile is refused because of its scopes, where the same run did not have as many
    /// before.
    pub(super) fn refuses_scopes(&mut self, profile: &Profile) -> bool {
        let known = self.members.find(profile.id);
        let had = known.map_or(0, |member| member.scopes.len());
        let scopes = profile.scopes.len();
        if scopes <= self.config.max_scopes_per_node.max(had) {
            self.refusals.settle(profile.id, profile.version);
            return false;
        }
        if known.is_some_and(|member| member.version >= profile.version) {
            return false;
        }
        self.counters.plain.dropped.over_limit += 1;
        self.fetches.settle(Object::Profile(profile.id), u64::from(profile.version));
        if self.refusals.refuse(self.now, profile.id, (profile.version, scopes)) {
            self.tell_limit(Limit::MaxScopesPerNode, node_of(profile), None);
        }
        true
    }

    /// Enters a run that is not in the table; the longest dead makes room for it.
    pub(super) fn enlist(&mut self, profile: &Profile) -> Profiled {
        if self.members.is_full()
            && let Some(id) = self.members.forget_one(self.now, Duration::ZERO)
        {
            self.forget_run(id);
        }
        let profiled = self.members.apply_profile(profile);
        match &profiled {
            Profiled::Full => {
                self.counters.plain.dropped.over_limit += 1;
                self.fetches.settle(Object::Profile(profile.id), u64::from(profile.version));
                if self.refusals.refuse_run(self.now) {
                    self.tell_limit(Limit::MaxNodes, node_of(profile), None);
                }
            }
            _ => self.refusals.had_room(),
        }
        profiled
    }

    fn tell_limit(&mut self, limit: Limit, node: Node, scope: Option<ScopeId>) {
        let table = scope.and_then(|scope| self.roles.table(scope));
        let scope = table.map(|table| table.name.clone());
        let (over, place) = (node.clone(), scope.clone());
        self.log(Level::WARN, move || {
            let scope = place.as_ref().map(tracing::field::display);
            tracing::warn!(%limit, node = %over, id = %over.id(), scope, "limit reached");
        });
        self.events.push_back(Event::LimitReached { limit, node, scope });
    }

    /// Whether an object at a version, or one before it, was refused and would be again.
    pub(super) fn is_refused(&self, object: Object, version: u64) -> bool {
        match object {
            Object::Roles(id, scope) => {
                self.roles.withholds(scope, id, Generation::from_u64(version))
            }
            Object::Profile(id) => {
                let max = self.config.max_scopes_per_node;
                self.refusals.has(id, version, max)
                    || (self.no_run_gets_in() && self.members.find(id).is_none())
            }
        }
    }

    fn no_run_gets_in(&self) -> bool {
        self.members.is_full() && self.members.dead_count() == 0
    }

    /// Whether others keep runs that this node refuses. Its comparisons then find as much each time
    /// that it will not have, and are not to follow each other at once.
    pub(super) fn refuses_runs(&self) -> bool {
        self.no_run_gets_in() || self.refusals.any()
    }

    /// Whether ranges of tables may be compared now: what is refused comes again with each range.
    pub(super) fn may_compare_ranges(&mut self) -> bool {
        let pause = self.config.pull_interval;
        !self.refuses_runs() || self.refusals.may_compare(self.now, pause)
    }

    /// Whether this node may hold these roles of its own besides those it has, each named once, as
    /// far as all that it keeps is concerned.
    pub(super) fn check_total(&self, new: &[&Role]) -> Result<(), RoleError> {
        match self.roles.over_total(new) {
            Some(len) => {
                let max = self.config.max_total_role_bytes;
                Err(RoleError::TotalTooLarge { len, max })
            }
            None => Ok(()),
        }
    }
}

fn node_of(profile: &Profile) -> Node {
    Node::new(profile.name.clone(), profile.id, profile.addr, profile.meta.clone())
}
