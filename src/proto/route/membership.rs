//! Who is a member: profiles, claims, and what a change of state brings with it.

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::RngExt;

use tracing::Level;

use super::super::Protocol;
use super::super::members::{Claimed, Member, Profiled, Run};
use super::super::piggyback::Rumor;
use super::super::pull::Purpose;
use super::super::roles::RoleSet;
use super::super::standing::PROBATION;
use super::super::state::State;
use super::super::suspicion::credible;
use super::Origin;
use crate::event::{DownReason, Event, Evidence, Sight, Witness};
use crate::node::{Generation, Node, NodeId};
use crate::wire::Frame;
use crate::wire::frame::{Contested, Incarnation, Membership, Object, Ping, Profile, Push, Table};

/// About so many of those who hear that a run is alive after all compare themselves with it.
const RISE_COMPARISONS: usize = 3;

/// A death that others tell of waits for this share of the probe interval.
const DEATH_SHARE: u32 = 50;

/// What somebody claims of a run.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) state: State,
    pub(super) incarnation: Incarnation,
    /// Who accused it, or replaced it.
    pub(super) by: Option<NodeId>,
    /// What those saw who decided that it has failed.
    pub(super) witnesses: Arc<[(NodeId, Sight)]>,
}

/// A claim, and who told of it.
#[derive(Debug)]
pub(in crate::proto) struct Hearsay(Origin, Claim);

impl Claim {
    pub(super) fn new(state: State, incarnation: Incarnation, by: Option<NodeId>) -> Claim {
        Claim { state, incarnation, by, witnesses: Arc::default() }
    }

    /// What it says, without who says so.
    pub(super) fn about(&self) -> (State, Incarnation) {
        (self.state, self.incarnation)
    }
}

impl Protocol {
    /// Somebody tells of a run.
    pub(super) fn hear_profile(&mut self, origin: Origin, profile: &Profile) {
        if profile.id == self.local {
            return self.hear_own_profile(profile);
        }
        if !self.members.can_follow(profile.id, profile.version, profile.incarnation) {
            self.counters.plain.dropped.refused += 1;
            return;
        }
        if self.find_heir(profile) {
            return;
        }
        if self.members.is_misnamed(profile) {
            if !self.is_proven(origin) {
                return self.ask_for_proof(origin, profile.id);
            }
            self.expel(profile.id);
        }
        if self.members.find(profile.id).is_none() {
            if !self.is_proven(origin) {
                self.ask_for_proof(origin, profile.id);
            } else if !self.refuses_scopes(profile) && self.may_enter(profile) {
                self.admit(origin, profile);
            }
            return;
        }
        let refused = self.refuses_scopes(profile);
        let profiled = if refused { Profiled::Known } else { self.members.apply_profile(profile) };
        match profiled {
            Profiled::Updated { before, face_changed } => {
                self.tell(Rumor::Profile(profile.id), Some(origin));
                self.profile_changed(origin, profile.id, &before, face_changed);
            }
            Profiled::Known | Profiled::New | Profiled::Full => {}
        }
        self.fetches.settle(Object::Profile(profile.id), u64::from(profile.version));
        let alive = Claim::new(State::Alive, profile.incarnation, None);
        self.hear_claim(origin, profile.id, alive);
    }

    /// What a run's coming alive brings with it, for the first time or again.
    pub(super) fn enter(&mut self, origin: Option<Origin>, id: NodeId) {
        self.announcing.set(id, self.now + self.config.pull_timeout);
        for membership in self.shared_memberships(id) {
            self.roles.list(membership.scope, id);
            self.fetch_missing_roles(origin, id, membership);
        }
        self.try_announce(id);
    }

    /// The scopes that both this node and a run are in, as its profile says.
    pub(super) fn shared_memberships(&self, id: NodeId) -> Vec<Membership> {
        let Some(member) = self.members.find(id) else { return Vec::new() };
        let shared = |it: &&Membership| self.roles.table(it.scope).is_some();
        member.scopes.iter().filter(shared).copied().collect()
    }

    /// A known run has a new profile.
    fn profile_changed(&mut self, origin: Origin, id: NodeId, before: &Run, face_changed: bool) {
        let Some(member) = self.members.find(id) else { return };
        let (announced, node, now) = (member.announced, member.node.clone(), member.scopes.clone());
        let live = member.state.is_live();
        if announced && face_changed {
            self.events.push_back(Event::NodeUpdated { node: node.clone() });
        }
        for gone in before.scopes.iter().filter(|old| now.iter().all(|it| it.scope != old.scope)) {
            let name = self.roles.table(gone.scope).map(|table| table.name.clone());
            let held = self.roles.forget(gone.scope, id);
            let Some(scope) = name.filter(|_| announced) else { continue };
            for role in held {
                let (scope, node) = (scope.clone(), node.clone());
                self.events.push_back(Event::RoleRemoved { scope, node, role });
            }
        }
        if !live {
            // The rest is done when it rises.
            return;
        }
        for membership in self.shared_memberships(id) {
            self.roles.list(membership.scope, id);
            self.fetch_missing_roles(Some(origin), id, membership);
        }
        self.try_announce(id);
    }

    /// Tells the user of a run, once its roles in shared scopes are here.
    pub(super) fn try_announce(&mut self, id: NodeId) {
        if !self.announcing.contains(id) {
            return;
        }
        let here = self.shared_memberships(id).iter().all(|membership| {
            let set = self.roles.set(membership.scope, id);
            set.is_some_and(|set| set.generation() >= membership.generation)
                || self.roles.withholds(membership.scope, id, membership.generation)
        });
        if here {
            self.announce(id);
        }
    }

    /// Tells the user of a run, and of the roles that are known of it.
    pub(super) fn announce(&mut self, id: NodeId) {
        self.announcing.clear(id);
        self.members.announce(id);
        let Some(node) = self.members.live(id).map(|member| member.node.clone()) else { return };
        let up = node.clone();
        self.log(Level::INFO, move || {
            tracing::info!(node = %up, id = %up.id(), addr = %up.addr(), "node up");
        });
        self.events.push_back(Event::NodeUp { node: node.clone() });
        for (scope, role) in self.shown_roles(id) {
            self.events.push_back(Event::RoleAdded { scope, node: node.clone(), role });
        }
    }

    /// The roles of a run in all scopes of this node.
    fn shown_roles(&self, id: NodeId) -> Vec<(crate::node::ScopeName, crate::role::Role)> {
        let mut roles = Vec::new();
        for (_, table) in self.roles.scopes() {
            let held = table.set(id).into_iter().flat_map(RoleSet::held);
            roles.extend(held.map(|role| (table.name.clone(), role.clone())));
        }
        roles
    }

    /// Somebody claims something of a run.
    pub(super) fn hear_claim(&mut self, origin: Origin, id: NodeId, claim: Claim) {
        let version = self.members.find(id).map_or(0, |member| member.version);
        let follows = self.members.can_follow(id, version, claim.incarnation);
        let contradicted = id != self.local && self.is_contradicted(id, &claim);
        if !follows || contradicted {
            self.counters.plain.dropped.refused += 1;
            return;
        }
        if id == self.local {
            return self.defend(origin, &claim);
        }
        self.risen.expire(self.now);
        let Some(claim) = self.weigh(origin, id, claim) else { return self.doubt(id) };
        let waits = claim.state == State::Failed
            && self.rules.classic.is_none()
            && self.members.live(id).is_some();
        if waits {
            let pause = self.config.probe_interval / DEATH_SHARE;
            return self.deaths.add(self.now, pause, id, Hearsay(origin, claim));
        }
        self.take_claim(origin, id, claim);
    }

    /// Whether a run is said to have lost its name to one that is known by another name.
    fn is_contradicted(&self, id: NodeId, claim: &Claim) -> bool {
        let heir = claim.by.filter(|_| claim.state == State::Replaced);
        let names = heir.and_then(|heir| Some((self.members.find(id)?, self.members.find(heir)?)));
        names.is_some_and(|(loser, heir)| loser.node.name() != heir.node.name())
    }

    /// Deaths that have waited for others to go with them.
    pub(super) fn bury_the_dead(&mut self) {
        for (id, Hearsay(origin, claim)) in self.deaths.take_due(self.now) {
            self.take_claim(origin, id, claim);
        }
    }

    fn take_claim(&mut self, origin: Origin, id: NodeId, claim: Claim) {
        if self.name_stands_against(id, claim.about()) {
            // The name may be none of its own.
            if origin.id == id
                && let Some(stamp) = self.members.find(id).map(Member::stamp)
            {
                self.send(origin.addr, Some(id), Contested { table: Table::Members, stamp });
            }
            return;
        }
        let by = claim.by;
        match self.members.apply_claim(self.now, id, claim.about(), by) {
            Claimed::Unknown => {
                if claim.state.is_live() && origin.member {
                    let source = origin.as_source();
                    self.fetch(Object::Profile(id), 1, source);
                }
            }
            Claimed::Old => self.hear_old_claim(origin, id, &claim),
            Claimed::Changed { from, to } => {
                self.members.testify(id, claim.witnesses);
                self.state_changed(Some(origin), (id, by.unwrap_or(id)), (from, to));
                if let Some(heir) = by.filter(|_| to == State::Replaced && origin.member)
                    && self.members.find(heir).is_none()
                {
                    let source = origin.as_source();
                    self.fetch(Object::Profile(heir), 1, source);
                }
            }
        }
    }

    /// How many witnesses of a death there are besides its accuser. Those who are held dead here,
    /// or lately were, are none: who was cut off has seen many deaths.
    fn witnesses_of_claim(&self, subject: NodeId, claim: &Claim) -> usize {
        let is_credible = |id: NodeId| self.members.live(id).is_some() && !self.risen.contains(id);
        if !claim.by.is_some_and(is_credible) {
            return 0;
        }
        let witnesses = claim.witnesses.iter().map(|(id, _)| *id);
        let others = witnesses.filter(|id| Some(*id) != claim.by && *id != subject);
        others.filter(|id| is_credible(*id)).collect::<BTreeSet<_>>().len()
    }

    /// What a claim amounts to; nothing, where this node had better look itself.
    fn weigh(&self, origin: Origin, id: NodeId, claim: Claim) -> Option<Claim> {
        match claim.state {
            // In a pull a verdict may come from the other side of a healed partition: the run gets
            // the chance to refute it.
            State::Failed if origin.pulled.is_some() => {
                Some(Claim::new(State::Suspect, claim.incarnation, claim.by))
            }
            _ if self.rules.classic.is_some() || self.members.live(id).is_none() => Some(claim),
            State::Suspect => None,
            State::Failed => {
                // An accuser alone is not enough, where others could have seen it too.
                let others = self.members.peers().len() - 1;
                (self.witnesses_of_claim(id, &claim) >= credible(others)).then_some(claim)
            }
            _ => Some(claim),
        }
    }

    /// A claim that changes nothing may still confirm a suspicion, or show that a run which is held
    /// dead here is alive to others.
    fn hear_old_claim(&mut self, origin: Origin, id: NodeId, claim: &Claim) {
        let Some(member) = self.members.find(id) else { return };
        match (member.state, claim.state) {
            #[cfg(feature = "sim")]
            (State::Suspect, State::Suspect)
                if self.rules.classic.is_some() && member.incarnation == claim.incarnation =>
            {
                if let Some(by) = claim.by {
                    self.swim_accuse(Some(origin), (id, claim.incarnation), by);
                }
            }
            (State::Failed, State::Failed) if self.members.is_private_death(id) => {
                // Others have found the same, and say so to everybody.
                let others = self.members.peers().len();
                if self.witnesses_of_claim(id, claim) >= credible(others) {
                    self.members.publish_death(id, claim.by, claim.witnesses.clone());
                }
            }
            (held, State::Alive) if !held.is_live() && origin.pulled.is_some() => {
                if held == State::Failed {
                    self.knock(id);
                }
                // Who holds it alive hears that it is dead here.
                if origin.pulled == Some(Purpose::Push)
                    && let Some(claim) = self.claim_frame(id)
                {
                    let mut payload = Vec::new();
                    Frame::from(Push).encode(&mut payload);
                    claim.encode(&mut payload);
                    self.send_payload(origin.addr, Some(origin.id), payload);
                }
            }
            _ => {}
        }
    }

    /// Starts to spread what is not about roles.
    pub(super) fn tell(&mut self, rumor: Rumor, origin: Option<Origin>) {
        if origin.is_some_and(|origin| origin.spread) {
            return;
        }
        let teller = origin.map(|origin| (origin.id, self.now));
        self.piggyback.spread(rumor, Generation::ZERO, teller);
    }

    /// A run's state has changed.
    pub(super) fn state_changed(
        &mut self,
        origin: Option<Origin>,
        (id, by): (NodeId, NodeId),
        (from, to): (State, State),
    ) {
        if to != State::Suspect {
            if self.is_first_hand(origin, (id, by), (from, to)) {
                self.news(Rumor::State(id), Generation::ZERO);
            } else {
                self.tell(Rumor::State(id), origin);
            }
        }
        match (from.is_live(), to.is_live()) {
            (true, true) if to == State::Alive => {
                self.log(Level::DEBUG, move || tracing::debug!(node = %id, "refuted"));
                self.detector.refuted(self.now, id);
                self.suspicions.remove(id);
                #[cfg(feature = "sim")]
                drop(self.swim.accusations.remove(id));
            }
            (false, true) => self.rise(id),
            (true, false) => self.fall(id, to),
            (true, true) | (false, false) => {
                if to.is_final() {
                    self.forget_roles(id);
                }
            }
        }
        if to == State::Suspect {
            self.dispute(origin, id, by);
        }
        let replaced_by = (to == State::Replaced).then_some(by);
        if !to.is_live()
            && let Some(decision) = self.clashes.listed_died(self.now, id, replaced_by)
        {
            self.settle_clash(decision);
        }
    }

    /// Somebody holds a live run dead: it hears of that with whatever it is sent, and refutes it,
    /// or is found dead here too.
    fn dispute(&mut self, origin: Option<Origin>, id: NodeId, by: NodeId) {
        self.log(Level::DEBUG, move || tracing::debug!(node = %id, by = %by, "disputed"));
        #[cfg(feature = "sim")]
        if self.rules.classic.is_some() {
            let incarnation = self.members.find(id).map(|member| member.incarnation);
            self.counters.plain.suspicions += 1;
            return self.swim_accuse(origin, (id, incarnation.unwrap_or_default()), by);
        }
        let _ = origin;
        self.detector.follow(id);
        self.doubt(id);
    }

    /// Whether a change of state is this node's to tell. Others reach the same verdict from the
    /// suspicion that they know of too; a run that comes back tells all whom it knows, which may
    /// not be those who know this node.
    fn is_first_hand(
        &self,
        origin: Option<Origin>,
        (id, by): (NodeId, NodeId),
        (from, to): (State, State),
    ) -> bool {
        match origin {
            None => match to {
                State::Replaced => self.welcomed.contains_key(&by),
                _ => by == self.local,
            },
            Some(origin) => origin.id == id && !origin.spread && !from.is_live() && to.is_live(),
        }
    }

    /// A run that was held dead is alive: it is shown with the roles that were known of it. What
    /// changed since, it says itself ([`Protocol::return_to_life`]).
    fn rise(&mut self, id: NodeId) {
        self.risen.set(id, self.now + self.config.probe_interval * PROBATION * 2);
        self.forget_probes(id);
        self.enter(None, id);
        if self.rules.digests {
            return self.compare_soon();
        }
        // Everybody hears of it within moments, and would drown it with comparisons: a few are
        // enough, and the others hear from them.
        let others = self.members.live_count();
        let chosen = self.rng.random_range(0..others) < RISE_COMPARISONS;
        if self.rules.repair_on_rise && chosen && !self.pulls.is_with(id) {
            self.begin_compare(id, Purpose::Repair { again: false });
        }
    }

    /// A run is dead.
    fn fall(&mut self, id: NodeId, to: State) {
        self.forget_probes(id);
        #[cfg(feature = "sim")]
        self.swim_remember_accusers(id);
        self.announcing.clear(id);
        let announced = self.members.withdraw(id);
        let shown = if announced { self.shown_roles(id) } else { Vec::new() };
        for membership in self.shared_memberships(id) {
            self.roles.hide(membership.scope, id);
        }
        if to.is_final() {
            self.forget_roles(id);
        }
        let Some(member) = self.members.find(id) else { return };
        let node = member.node.clone();
        if !announced {
            return;
        }
        let reason = self.down_reason(member, to);
        let (down, why) = (node.clone(), reason.clone());
        self.log(Level::INFO, move || {
            tracing::info!(node = %down, id = %down.id(), reason = %why, "node down");
        });
        for (scope, role) in shown {
            self.events.push_back(Event::RoleRemoved { scope, node: node.clone(), role });
        }
        self.events.push_back(Event::NodeDown { node, reason });
    }

    fn down_reason(&self, member: &Member, to: State) -> DownReason {
        let node_of = |id: NodeId| self.members.find(id).map(|member| member.node.clone());
        let id = member.node.id();
        match to {
            State::Left => DownReason::Left,
            State::Replaced => match self.members.killer(id).and_then(node_of) {
                Some(by) => DownReason::Replaced { by },
                // Its profile is on its way: all that is known of it is its id.
                None => DownReason::Replaced { by: self.successor_of(member) },
            },
            State::Alive | State::Suspect | State::Failed => {
                let testimony = self.members.testimony(id);
                let seen = testimony.iter().filter_map(|(it, saw)| Some((node_of(*it)?, *saw)));
                let mut witnesses: Vec<_> = seen.map(|(node, saw)| Witness { node, saw }).collect();
                witnesses.sort_unstable_by(|a, b| a.node.cmp(&b.node));
                DownReason::Failed(Evidence {
                    accuser: self.members.killer(id).and_then(node_of),
                    witnesses,
                    last_heard: member.last_heard().map(|at| self.now - at),
                    local_health: self.health.score(),
                })
            }
        }
    }

    /// A run of which only the id is known, at the address of the one that it replaced.
    fn successor_of(&self, member: &Member) -> Node {
        let id = self.members.killer(member.node.id()).unwrap_or(member.node.id());
        let name = member.node.node_name().clone();
        Node::new(name, id, member.node.addr(), bytes::Bytes::new())
    }

    fn forget_roles(&mut self, id: NodeId) {
        for membership in self.shared_memberships(id) {
            drop(self.roles.forget(membership.scope, id));
        }
    }

    /// A run was known under a name that is not its own: it is as if it had never been known.
    fn expel(&mut self, id: NodeId) {
        if self.members.live(id).is_some() {
            self.fall(id, State::Failed);
        }
        self.members.forget(id);
        self.forget_run(id);
    }

    /// Forgets a run's roles in all scopes.
    pub(super) fn forget_in_scopes(&mut self, id: NodeId) {
        let scopes: Vec<_> = self.roles.scopes().map(|(scope, _)| scope).collect();
        for scope in scopes {
            drop(self.roles.forget(scope, id));
        }
    }

    /// Tries whether a failed run is there after all. It hears that it is held dead, and refutes
    /// that.
    pub(super) fn knock(&mut self, id: NodeId) {
        let seq = self.detector.take_seq();
        self.send_to(id, Ping { seq });
    }
}
