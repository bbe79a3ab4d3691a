//! Roles on their way: deltas, gaps, objects in parts, receipts.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;

use super::super::fetch::{Request, Source};
use super::super::piggyback::Rumor;
use super::super::pull::{Purpose, Range};
use super::super::roles::{Difference, Merged, RoleSet, RoleTable};
use super::super::{Outcome, Phase, Protocol};
use super::Origin;
use crate::event::Event;
use crate::node::{Generation, NodeId, Nodes};
use crate::wire::frame::{
    Ask, Fetch, FetchPart, Has, Large, Membership, Object, Part, Roles, Table,
};
use crate::wire::limits::MAX_FETCHES_PER_FRAME;
use crate::wire::{Frame, ScopeId};

/// Encoded objects that are kept while they are fetched in parts.
pub(super) const MAX_CACHED_OBJECTS: usize = 4;

/// Bytes of a part's frame around its payload, at most.
const PART_OVERHEAD_BYTES: usize = 64;

/// Bytes of a fetch's frame around its wants, and of a want, at most.
const FETCH_FRAME_BYTES: usize = 8;
const WANT_BYTES: usize = 27;

/// Ranges into which the pull of a scope just joined is split.
const SCOPE_PULL_RANGES: u64 = 4;

/// Objects that are being fetched from this node in parts, so that all parts are of one version
/// even while the object changes.
#[derive(Debug, Default)]
pub(in crate::proto) struct PartCache {
    entries: VecDeque<(Object, u64, Bytes)>,
}

#[cfg(feature = "sim")]
impl PartCache {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Protocol {
    /// Somebody tells what changed in a node's roles.
    pub(super) fn hear_roles(&mut self, origin: Origin, roles: &Roles) {
        if roles.id == self.local {
            return self.hear_own_roles(roles);
        }
        let object = Object::Roles(roles.id, roles.scope);
        match self.roles.merge(roles) {
            Merged::Changed { from, difference } => {
                self.make_room_for_roles();
                self.counters.plain.deltas += 1;
                if origin.is_news() && !origin.spread {
                    let teller = Some((origin.id, self.now));
                    self.piggyback.spread(Rumor::Roles(roles.id, roles.scope), from, teller);
                }
                self.show(roles.id, roles.scope, difference);
                self.fetches.settle(object, roles.to.as_u64());
                self.try_announce(roles.id);
            }
            Merged::Known => {
                let known = self.roles.set(roles.scope, roles.id);
                let known = known.map_or(roles.to, RoleSet::generation);
                self.fetches.settle(object, known.as_u64());
            }
            Merged::Gap { known: _ } => {
                self.counters.plain.gaps += 1;
                let source = self.source_in_scope(origin, roles.id, roles.scope);
                self.fetch(object, roles.to.as_u64(), source);
            }
            Merged::Refused => self.counters.plain.dropped.refused += 1,
            Merged::Over(over) => self.withhold_roles(roles, over),
            Merged::Unlisted => self.hear_unlisted_roles(origin, roles),
        }
    }

    /// Roles of a node that is not known to be in the scope: its profile may be newer than ours.
    fn hear_unlisted_roles(&mut self, origin: Origin, roles: &Roles) {
        if self.roles.table(roles.scope).is_none() || !origin.member {
            return;
        }
        let version = self.members.live(roles.id).map(|member| member.version);
        if version.is_some() || self.members.find(roles.id).is_none() {
            let source = origin.as_source();
            self.fetch(Object::Profile(roles.id), u64::from(version.unwrap_or(1)), source);
        }
    }

    /// Tells the user what changed in a node's roles, unless the node itself is still unknown to
    /// the user.
    pub(super) fn show(&mut self, id: NodeId, scope: ScopeId, difference: Difference) {
        let Some(table) = self.roles.table(scope) else { return };
        let Some(member) = self.members.live(id).filter(|member| member.announced) else { return };
        let (name, node) = (table.name.clone(), member.node.clone());
        for (role, held) in difference.changes {
            let (scope, node) = (name.clone(), node.clone());
            self.events.push_back(if held {
                Event::RoleAdded { scope, node, role }
            } else {
                Event::RoleRemoved { scope, node, role }
            });
        }
    }

    /// Where to ask for a node's roles in a scope: at who told of them, if it can know them.
    fn source_in_scope(&self, origin: Origin, id: NodeId, scope: ScopeId) -> Source {
        let teller = self.members.live(origin.id).filter(|member| member.is_in(scope));
        let owner = self.members.live(id);
        let source = teller.or(owner).map(|member| (member.node.id(), member.node.addr()));
        let (id, addr) = source.unwrap_or((origin.id, origin.addr));
        Source { id, addr }
    }

    /// A profile says that there are roles which are not here.
    pub(super) fn fetch_missing_roles(
        &mut self,
        origin: Option<Origin>,
        id: NodeId,
        membership: Membership,
    ) {
        let known = self.roles.set(membership.scope, id).map(RoleSet::generation);
        let missing = known.is_some_and(|known| known < membership.generation);
        let pulled = origin.is_some_and(|origin| origin.pulled.is_some());
        // What a pull brings in is followed by a pull of the scopes.
        let least = membership.generation.as_u64();
        if !missing || pulled || self.is_refused(Object::Roles(id, membership.scope), least) {
            return;
        }
        let Some(owner) = self.members.live(id) else { return };
        let source = match origin {
            Some(origin) => self.source_in_scope(origin, id, membership.scope),
            None => Source { id, addr: owner.node.addr() },
        };
        let object = Object::Roles(id, membership.scope);
        if origin.is_some_and(|origin| origin.spread) {
            // They are on their way.
            return self.fetches.want_later(
                self.now + self.config.gossip_interval,
                (object, least),
                source,
            );
        }
        self.fetch(object, least, source);
    }

    /// Wants an object at `least` that version, from `source` first.
    pub(super) fn fetch(&mut self, object: Object, least: u64, source: Source) {
        if source.id == self.local || self.is_refused(object, least) {
            return;
        }
        let retry = self.request_wait();
        if self.fetches.want(self.now, retry, (object, least), source) {
            self.counters.plain.fetches += 1;
            self.request(Request::Whole { source, object });
        }
    }

    /// The version of an object that is here; zero for none.
    fn known_version(&self, object: Object) -> u64 {
        match object {
            Object::Profile(id) => {
                self.members.find(id).map_or(0, |member| u64::from(member.version))
            }
            Object::Roles(id, scope) => {
                self.roles.set(scope, id).map_or(0, |set| set.generation().as_u64())
            }
        }
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Whole { source, object } => {
                let wants = vec![(object, self.known_version(object))];
                self.send(source.addr, Some(source.id), Fetch { wants });
            }
            Request::Part { source, object, version, offset } => {
                self.send(source.addr, Some(source.id), FetchPart { object, version, offset });
            }
            Request::Elsewhere { object, silent } => self.fetch_elsewhere(object, silent),
        }
    }

    /// Who was asked does not answer: the owner is asked, or another who may know.
    fn fetch_elsewhere(&mut self, object: Object, silent: NodeId) {
        let (Object::Profile(owner) | Object::Roles(owner, _)) = object;
        let others = match object {
            Object::Profile(_) => self.members.peers(),
            Object::Roles(_, scope) => self.roles.table(scope).map_or(&[][..], RoleTable::peers),
        };
        let unasked = |id| id != silent && id != owner;
        let other = Protocol::choose(&mut self.rng, others, 1, unasked).first().copied();
        let next = Some(owner).filter(|id| *id != silent).or(other);
        if let Some((id, addr)) = next.and_then(|id| Some((id, self.addr_of(id)?))) {
            let source = Source { id, addr };
            self.fetches.redirect(object, source);
            self.request(Request::Whole { source, object });
        }
    }

    /// Fetches that are overdue.
    pub(super) fn retry_fetches(&mut self) {
        let retry = self.request_wait();
        // What is wanted of one node goes into one datagram, or few.
        let mut together: BTreeMap<(NodeId, SocketAddr), Vec<(Object, u64)>> = BTreeMap::new();
        for request in self.fetches.handle_timeout(self.now, retry) {
            match request {
                Request::Whole { source, object } => {
                    let want = (object, self.known_version(object));
                    together.entry((source.id, source.addr)).or_default().push(want);
                }
                other => self.request(other),
            }
        }
        for ((id, addr), wants) in together {
            for wants in wants.chunks(self.wants_per_fetch()) {
                self.send(addr, Some(id), Fetch { wants: wants.to_vec() });
            }
        }
    }

    fn wants_per_fetch(&self) -> usize {
        let fitting = (self.payload_room() - FETCH_FRAME_BYTES) / WANT_BYTES;
        // Half of a datagram, so that something else finds room too.
        (fitting / 2).clamp(1, MAX_FETCHES_PER_FRAME)
    }

    /// Asks one node for several objects: with as many of them as a frame holds in `payload`, the
    /// others in datagrams of their own.
    pub(super) fn fetch_with(
        &mut self,
        source: Source,
        objects: &[(Object, u64)],
        payload: &mut Vec<u8>,
    ) {
        let retry = self.request_wait();
        let mut wants = Vec::new();
        for &(object, least) in objects {
            if self.fetches.want(self.now, retry, (object, least), source) {
                self.counters.plain.fetches += 1;
                wants.push((object, self.known_version(object)));
            }
        }
        for wants in wants.chunks(self.wants_per_fetch()) {
            let fetch = Frame::from(Fetch { wants: wants.to_vec() });
            if payload.is_empty() {
                fetch.encode(payload);
            } else {
                self.send(source.addr, Some(source.id), fetch);
            }
        }
    }

    /// An object as a frame, from the version that the asker knows; `None` when it is not here.
    pub(super) fn object_frame(&self, object: Object, known: u64) -> Option<Frame> {
        match object {
            Object::Profile(id) => Some(self.members.live(id)?.profile().into()),
            Object::Roles(id, scope) => {
                self.members.live(id)?;
                Some(self.roles.delta(scope, id, Generation::from_u64(known))?.into())
            }
        }
    }

    /// Whether a peer may see an object: roles are for members of their scope.
    fn may_see(&self, peer: NodeId, object: Object) -> bool {
        match object {
            Object::Profile(_) => true,
            Object::Roles(_, scope) => {
                self.members.live(peer).is_some_and(|member| member.is_in(scope))
            }
        }
    }

    /// A member asks for objects: they go out in as few datagrams as they fit into.
    pub(super) fn receive_fetch(&mut self, origin: Origin, fetch: &Fetch) {
        let room = self.payload_room();
        let mut payload = Vec::new();
        for &(object, known) in &fetch.wants {
            if !self.may_see(origin.id, object) {
                continue;
            }
            let Some(frame) = self.object_frame(object, known) else { continue };
            if !super::send::append_object(&frame, object, (room, room), &mut payload) {
                let full = std::mem::take(&mut payload);
                self.send_payload(origin.addr, Some(origin.id), full);
                super::send::append_object(&frame, object, (room, room), &mut payload);
            }
        }
        if !payload.is_empty() {
            self.send_payload(origin.addr, Some(origin.id), payload);
        }
    }

    /// An object is too large for a datagram: if it is news, it is fetched in parts.
    pub(super) fn receive_large(&mut self, origin: Origin, large: Large) {
        let welcomed = self.welcomed.contains_key(&origin.id);
        if !(origin.member || welcomed) || self.known_version(large.object) >= large.version {
            return;
        }
        if let Object::Roles(id, scope) = large.object
            && self.roles.set(scope, id).is_none()
        {
            return;
        }
        if self.is_refused(large.object, large.version) {
            return;
        }
        let source = origin.as_source();
        let retry = self.request_wait();
        let wanted = (large.object, large.version);
        if self.fetches.want(self.now, retry, wanted, source) {
            self.counters.plain.fetches += 1;
        }
        if let Some(request) = self.fetches.handle_large(self.now, retry, source, wanted) {
            self.request(request);
        }
    }

    /// A member, or one who is about to become one, fetches an object in parts.
    pub(super) fn receive_fetch_part(&mut self, origin: Origin, fetch: FetchPart) {
        let own_profile = fetch.object == Object::Profile(self.local);
        let expected = self.welcomed.contains_key(&origin.id)
            || self.joins.is_dialling(origin.addr)
            || self.is_address_of_member(origin.addr);
        if !(origin.member || (own_profile && expected)) || !self.may_see(origin.id, fetch.object) {
            self.counters.plain.dropped.stranger += 1;
            return;
        }
        let Some((version, body)) = self.cached_body(fetch.object, fetch.version) else { return };
        let stride = self.payload_room() - PART_OVERHEAD_BYTES;
        let start = (fetch.offset as usize).min(body.len());
        let end = (start + stride).min(body.len());
        let part = Part {
            object: fetch.object,
            version,
            total: u32::try_from(body.len()).expect("objects have a limit far below 4 GiB"),
            offset: fetch.offset,
            bytes: body.slice(start..end),
        };
        // As with every request: a forged source address gets no answer.
        let addr = self.addr_of(origin.id).unwrap_or(origin.addr);
        self.send(addr, Some(origin.id), part);
    }

    /// The encoded object at the version asked for, if it is kept; else at the present one.
    fn cached_body(&mut self, object: Object, version: u64) -> Option<(u64, Bytes)> {
        let kept = self.parts.entries.iter().find(|(it, at, _)| *it == object && *at == version);
        if let Some((_, version, body)) = kept {
            return Some((*version, body.clone()));
        }
        let frame = self.object_frame(object, 0)?;
        let version = self.known_version(object);
        let body = Bytes::from(frame.to_body());
        if self.parts.entries.len() == MAX_CACHED_OBJECTS {
            self.parts.entries.pop_front();
        }
        self.parts.entries.push_back((object, version, body.clone()));
        Some((version, body))
    }

    /// A part of an object has come.
    pub(super) fn receive_part(&mut self, origin: Origin, part: &Part) {
        let retry = self.request_wait();
        let (requests, whole) = self.fetches.handle_part(self.now, retry, origin.id, part);
        for request in requests {
            self.request(request);
        }
        let Some(body) = whole else { return };
        match Frame::from_object(part.object, &body) {
            Some(Frame::Profile(profile)) => self.hear_profile(origin, &profile),
            Some(Frame::Roles(roles)) => self.hear_roles(origin, &roles),
            _ => self.counters.plain.dropped.refused += 1,
        }
    }

    /// Pulls a scope from a peer that is in it: this one if it is, else any.
    pub(super) fn pull_scope(&mut self, scope: ScopeId, preferred: Option<NodeId>) {
        let Some(table) = self.roles.table(scope) else { return };
        let in_scope = |id: &NodeId| table.peers().contains(id);
        let peer = preferred.filter(in_scope).or_else(|| {
            Protocol::choose(&mut self.rng, table.peers(), 1, |_| true).first().copied()
        });
        let Some(peer) = peer else { return };
        let timeout = self.config.pull_timeout;
        let ranges = Range::split(Table::Scope(scope), SCOPE_PULL_RANGES);
        if self.pulls.begin(self.now, timeout, (peer, Purpose::Scope(scope)), ranges).is_some() {
            self.counters.plain.pulls += 1;
        }
    }

    /// A member asks how much of its roles is here.
    pub(super) fn receive_ask(&mut self, origin: Origin, ask: Ask) {
        if let Some(set) = self.roles.set(ask.scope, origin.id) {
            let generation = set.generation();
            self.send(origin.addr, Some(origin.id), Has { scope: ask.scope, generation });
        }
    }

    /// Asks members for receipts, and hands over those that are complete.
    pub(super) fn progress_receipts(&mut self) {
        let (roles, retry) = (&self.roles, self.config.probe_timeout());
        let peers = |scope| roles.table(scope).map_or(Vec::new(), |it| it.peers().to_vec());
        let asks = self.receipts.due_asks(self.now, retry, peers);
        let mut done = Vec::new();
        while let Some(receipt) = self.receipts.take_done(self.now, peers) {
            done.push(receipt);
        }
        for (scope, id) in asks {
            self.send_to(id, Ask { scope });
        }
        for receipt in done {
            let nodes = |ids: Vec<NodeId>| -> Nodes {
                let nodes = ids.into_iter().filter_map(|id| self.members.live(id));
                nodes.map(|member| member.node.clone()).collect()
            };
            let (reached, missing) = (nodes(receipt.reached), nodes(receipt.missing));
            self.outcomes.push_back(Outcome::Delivered { token: receipt.token, reached, missing });
        }
    }

    /// Whether this node still takes part.
    pub(super) fn is_active(&self) -> bool {
        self.phase != Phase::Stopped
    }
}
