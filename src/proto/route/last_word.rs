//! A node has the last word on itself: whatever others hold of it that is not so, it outdoes.
//!
//! Who tells of others does so in good faith, or it has the cluster's key and lies. Either way all
//! that is said of a node has a number, and the node itself can always take a higher one.
//!
//! | others hold that it | it |
//! |---|---|
//! | has failed | takes a higher incarnation (SWIM, section 4.2) |
//! | has left | begins another life |
//! | has lost its name | asks the heir, and gives way if that has it; else begins another life |
//! | has another profile or other roles than it has | makes a version above that |

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tracing::Level;

use super::super::health::Sign;
use super::super::piggyback::Rumor;
use super::super::pull::Purpose;
use super::super::roles::RoleTable;
use super::super::state::State;
use super::super::timer::Deadlines;
use super::super::{Outcome, Phase, Protocol};
use super::Origin;
use super::membership::Claim;
use super::reconcile::parts_of;
use crate::event::Event;
use crate::node::{Generation, NodeId};
use crate::time::Instant;
use crate::wire::frame::{Alive, Contested, Incarnation, Object, Profile, Roles, Stamp, Table};
use crate::wire::{Frame, print};

/// A set of roles of no more bytes is told whole to those who may have missed some of it: that
/// costs less than to have them ask.
const SMALL_SET_BYTES: usize = 256;

/// Nodes that are told within a probe interval that others differ about them.
const MAX_CONTESTED: usize = 64;

/// The heir to this node's name has so many probe intervals to be found and to answer.
const PATIENCE_WITH_HEIR: u32 = 2;

/// What was put right lately, so that a liar cannot have everybody told again and again.
#[derive(Debug, Default)]
pub(in crate::proto) struct Corrections {
    /// When this node last made something newer than what others had of it.
    outdone: BTreeMap<Table, Instant>,
    /// Who was told that others differ about it, and until when it is not told again.
    told: Deadlines<NodeId>,
}

impl Protocol {
    /// Somebody claims something of this node: that it has failed is refuted, directly to who said
    /// so, and to all.
    pub(super) fn defend(&mut self, origin: Origin, claim: &Claim) {
        let (claimed, own) = (claim.incarnation, self.members.local().incarnation);
        match claim.state {
            State::Alive if claimed > own => {
                self.members.update_local(|member| member.incarnation = claimed);
            }
            State::Suspect | State::Failed => self.deny_failure(origin, claim),
            State::Left | State::Replaced if claimed.life() < own.life() => {
                self.send(origin.addr, Some(origin.id), Alive { id: self.local, incarnation: own });
            }
            State::Alive => {}
            // Whoever says goodbye has nothing more to say.
            State::Left | State::Replaced if self.goodbye.is_some() => {}
            State::Left => self.begin_life_after(origin, claimed),
            State::Replaced => {
                let deadline = self.now + self.config.probe_interval * PATIENCE_WITH_HEIR;
                if let Some(heir) = claim.by
                    && self.succession.claim(heir, deadline)
                {
                    self.fetch(Object::Profile(heir), 1, origin.as_source());
                }
            }
        }
    }

    fn deny_failure(&mut self, origin: Origin, claim: &Claim) {
        let (doubted, own) = (claim.incarnation, self.members.local().incarnation);
        if doubted >= own && !self.was_only_apart(claim) && !self.may_return() {
            return;
        }
        if doubted >= own {
            self.live_at(doubted.next());
            self.health.saw(Sign::Refuted);
            let by = claim.by;
            self.log(Level::DEBUG, move || {
                tracing::debug!(?by, "refuted a suspicion of this node");
            });
            if claim.state == State::Failed && self.rules.repair_on_rise {
                self.return_to_life(origin);
            }
        }
        if self.rules.direct_refutation {
            let incarnation = self.members.local().incarnation;
            self.send(origin.addr, Some(origin.id), Alive { id: self.local, incarnation });
        }
    }

    /// Whether its accuser was dead to this node too, while others were there all the time: then
    /// the two were on different sides of a partition, and none of them has to prove anything.
    fn was_only_apart(&self, claim: &Claim) -> bool {
        let dead = |id: NodeId| {
            let state = self.members.find(id).map(|member| member.state);
            let failed = state == Some(State::Failed) && !self.members.is_private_death(id);
            failed || self.risen.contains(id)
        };
        claim.by.is_some_and(dead) && self.is_in_unbroken_contact()
    }

    /// Whether this run may say that it lives, or has been declared down too often lately.
    fn may_return(&mut self) -> bool {
        let before = self.standing.is_out(self.now);
        let may = self.standing.may_return(self.now, self.config.probe_interval);
        if !may && !before {
            self.log(Level::WARN, || {
                tracing::warn!(
                    "declared down again: this node stays out until its links are steady"
                );
            });
        }
        may || self.rules.classic.is_some()
    }

    /// Others hold that this run has come to its end.
    fn begin_life_after(&mut self, origin: Origin, incarnation: Incarnation) {
        let own = self.members.local().incarnation;
        let by = origin.id;
        self.log(Level::WARN, move || {
            tracing::warn!(%by, "said to have left, or lost its name: it has not");
        });
        self.live_at(incarnation.max(own).next_life());
        let incarnation = self.members.local().incarnation;
        if origin.id != self.local {
            self.send(origin.addr, Some(origin.id), Alive { id: self.local, incarnation });
        }
        self.return_to_life(origin);
    }

    fn live_at(&mut self, incarnation: Incarnation) {
        self.members.update_local(|member| member.incarnation = incarnation);
        self.counters.plain.refutations += 1;
        self.news(Rumor::State(self.local), Generation::ZERO);
    }

    /// This node was held dead. Others may have missed what it changed meanwhile: they hear its
    /// roles, or, where these are many, which generation they have reached, and fetch what they
    /// lack. It may have missed what they changed: it compares itself with somebody.
    fn return_to_life(&mut self, origin: Origin) {
        let own = |(scope, table): (_, &RoleTable)| {
            let set = table.set(self.local);
            let small = set.is_some_and(|set| set.bytes() <= SMALL_SET_BYTES);
            (scope, if small { Generation::ZERO } else { self.roles.own_generation(scope) })
        };
        let reached: Vec<_> = self.roles.scopes().map(own).collect();
        for (scope, from) in reached {
            self.news(Rumor::Roles(self.local, scope), from);
        }
        if self.rules.digests {
            self.compare_soon();
        } else if self.members.live(origin.id).is_some() && !self.pulls.is_with(origin.id) {
            self.begin_compare(origin.id, Purpose::Repair { again: false });
        }
    }

    /// The profile of the run that is said to have this node's name: now it can be asked. True if
    /// this is that profile.
    pub(super) fn find_heir(&mut self, profile: &Profile) -> bool {
        let namesake = profile.name == *self.members.local().node.node_name();
        if !namesake || !self.succession.seeks(profile.id) {
            return false;
        }
        self.ask_heir(profile.addr);
        true
    }

    /// A run of this node's name has answered, and would have the name. As all that is known of it
    /// came from others, it has to say so itself.
    pub(super) fn yield_to(&mut self, id: NodeId, addr: SocketAddr) {
        let deadline = self.now + self.config.probe_interval * PATIENCE_WITH_HEIR;
        if self.succession.claim(id, deadline) {
            self.ask_heir(addr);
        }
    }

    /// Asks the heir to let this node in: who has the name itself refuses.
    fn ask_heir(&mut self, addr: SocketAddr) {
        self.succession.found(addr);
        let seq = self.detector.take_seq();
        self.joins.dial(self.now, addr, seq);
        self.send_joins();
    }

    /// Somebody says that it has this node's name. If it is the heir, this node gives way: a
    /// service that goes on under a name that is another's would be seen by nobody. It stops, and
    /// says so.
    pub(super) fn hear_heir(&mut self, origin: Origin) {
        let Origin { id, addr: holder, .. } = origin;
        if !self.succession.is_heir(id, holder) {
            return;
        }
        let name = self.members.local().node.node_name().clone();
        let lost = name.clone();
        self.log(Level::ERROR, move || {
            tracing::error!(name = %lost, %holder, "another live node has this node's name");
        });
        self.events.push_back(Event::NameConflict { name, other: holder });
        self.outcomes.push_back(Outcome::NameTaken { holder, stopped: true });
        self.phase = Phase::Stopped;
    }

    /// No heir has answered: this node keeps its name, and says so.
    pub(super) fn settle_succession(&mut self) {
        if self.succession.take_silent(self.now) && self.goodbye.is_none() {
            let incarnation = self.members.local().incarnation;
            let itself = Origin::of(self.local, self.members.local().node.addr());
            self.begin_life_after(itself, incarnation);
        }
    }

    /// Somebody tells this node of its own profile.
    pub(super) fn hear_own_profile(&mut self, profile: &Profile) {
        let (name, meta) = (&profile.name, &profile.meta);
        let print = print::of_profile(profile.boot, name, profile.addr, meta, &profile.scopes);
        let number = u64::from(profile.version) << 32;
        self.outdo(Table::Members, Stamp { number, print });
    }

    /// Somebody tells this node of its own roles.
    pub(super) fn hear_own_roles(&mut self, roles: &Roles) {
        let own = self.roles.own_generation(roles.scope);
        if roles.to > own || (roles.to == own && roles.whole) {
            let print = print::fold(print::of_roles(roles.ops.iter().map(|op| &op.role)));
            self.outdo(Table::Scope(roles.scope), Stamp { number: roles.to.as_u64(), print });
        }
    }

    /// Somebody has this entry of this node: unless it is what the node has or had, it makes a
    /// newer one.
    pub(super) fn outdo(&mut self, table: Table, theirs: Stamp) {
        // To tell everybody costs more than to say so here; who still has it says so again.
        let lately = |at: &Instant| self.now < *at + self.config.probe_interval;
        if self.corrections.outdone.get(&table).is_some_and(lately) {
            return;
        }
        match table {
            Table::Members => self.outdo_profile(theirs),
            Table::Scope(scope) => {
                if self.roles.outdo(scope, theirs) {
                    self.corrections.outdone.insert(table, self.now);
                    self.counters.plain.refutations += 1;
                    self.log(Level::DEBUG, move || {
                        tracing::debug!(?scope, "others had other roles of this node");
                    });
                    self.news(Rumor::Roles(self.local, scope), Generation::ZERO);
                }
            }
        }
    }

    fn outdo_profile(&mut self, theirs: Stamp) {
        let (version, incarnation) = parts_of(theirs);
        if !self.members.can_follow(self.local, version, incarnation) {
            return;
        }
        let own = self.members.local();
        let own_print = own.stamp().print;
        let wrong = version > own.version || (version == own.version && theirs.print != own_print);
        let incarnation = incarnation.max(own.incarnation);
        self.members.update_local(|member| member.incarnation = incarnation);
        if wrong && version < u32::MAX {
            self.corrections.outdone.insert(Table::Members, self.now);
            self.counters.plain.refutations += 1;
            self.log(Level::DEBUG, || tracing::debug!("others had another profile of this node"));
            self.members.update_local(|member| member.change_run(|run| run.version = version));
            self.publish_profile();
        }
    }

    /// Whether of two stamps of one entry neither is merely older: only its owner knows what is so.
    pub(super) fn is_contested(&self, (table, id): (Table, NodeId), both: [Stamp; 2]) -> bool {
        let [ours, theirs] = both;
        let version = |stamp: Stamp| match table {
            Table::Members => stamp.number >> 32,
            Table::Scope(_) => stamp.number,
        };
        let alike = version(ours) == version(theirs);
        (alike && ours.print != theirs.print) || (id == self.local && theirs.number > ours.number)
    }

    /// Two nodes, of which this is one, have something else of a third: that hears of both.
    pub(super) fn contest(&mut self, (table, id): (Table, NodeId), both: [Stamp; 2]) {
        if id == self.local {
            return self.outdo(table, both[1]);
        }
        self.corrections.told.expire(self.now);
        if self.corrections.told.contains(id)
            || self.corrections.told.keys().count() >= MAX_CONTESTED
        {
            return;
        }
        self.corrections.told.set(id, self.now + self.config.probe_interval);
        let mut payload = Vec::new();
        for stamp in both {
            Frame::from(Contested { table, stamp }).encode(&mut payload);
        }
        self.send_payload_to(id, payload);
    }
}
