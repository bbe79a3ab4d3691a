//! Anti-entropy: comparing tables, and pulling what differs.

use std::collections::BTreeMap;

use super::super::members::Member;
use super::super::pull::{Ask, Purpose, Range, bucket_of, bucket_range};
use super::super::state::{State, supersedes};
use super::super::{Phase, Protocol};
use super::Origin;
use super::reconcile::parts_of;
use super::send::append_object;
use crate::node::{Generation, NodeId};
use crate::wire::frame::{
    Alive, Buckets, Compare, Fixed, Large, Object, Page, Pull, Same, Stamp, Summary, Table,
};
use crate::wire::limits::{MAX_BUCKETS, MAX_KNOWN_PER_PULL, MAX_TABLES_PER_FRAME};
use crate::wire::{Frame, ScopeId, entry_hash};

/// Entries that one bucket should have.
const ENTRIES_PER_BUCKET: u32 = 8;

/// Bytes of a page's own frame, at most.
const PAGE_FRAME_BYTES: usize = 48;

/// Bytes of a pull's frame without the entries it names, and of each of them, at most.
const PULL_FRAME_BYTES: usize = 48;
const PULL_ENTRY_BYTES: usize = 22;

impl Protocol {
    /// The periodic comparison with a random peer.
    pub(super) fn compare_with_someone(&mut self) {
        if self.phase == Phase::Alone {
            // The first pull has failed, and whoever is known need not be a seed: it is asked.
            let peers = self.members.peers();
            if let Some(peer) = Protocol::choose(&mut self.rng, peers, 1, |_| true).first() {
                self.begin_first_pull(*peer);
            }
            return;
        }
        if self.phase != Phase::Synced {
            return;
        }
        if self.rules.digests {
            return self.compare_digests();
        }
        let peers = self.members.peers();
        let pulls = &self.pulls;
        let peer = Protocol::choose(&mut self.rng, peers, 1, |id| !pulls.is_with(id));
        if let Some(peer) = peer.first() {
            self.begin_compare(*peer, Purpose::Repair { again: false });
        }
    }

    /// Compares all tables that this node has in common with a peer.
    pub(super) fn begin_compare(&mut self, peer: NodeId, purpose: Purpose) {
        self.compare(peer, purpose, true);
    }

    fn compare(&mut self, peer: NodeId, purpose: Purpose, mutual: bool) {
        let timeout = self.config.pull_timeout;
        let Some(token) = self.pulls.begin(self.now, timeout, (peer, purpose), []) else { return };
        self.counters.plain.pulls += 1;
        // In a datagram of the smallest size there is room for fewer tables; the next comparison
        // begins elsewhere, as scopes are taken in a random rotation.
        let room = (self.payload_room() - 16) / 22;
        let mut scopes: Vec<ScopeId> = self.common_scopes(peer).collect();
        if !scopes.is_empty() {
            let first = rand::RngExt::random_range(&mut self.rng, 0..scopes.len());
            scopes.rotate_left(first);
        }
        let shared = scopes.into_iter().map(Table::Scope);
        let tables = std::iter::once(Table::Members).chain(shared);
        let tables = tables.take(room.min(MAX_TABLES_PER_FRAME));
        let tables = tables.filter_map(|table| Some((table, self.summary(table)?)));
        let mut tables: Vec<(Table, Summary)> = tables.collect();
        tables.sort_unstable_by_key(|(table, _)| *table);
        self.send_to(peer, Compare { token, mutual, tables });
    }

    /// The scopes that both this node and a peer are in.
    pub(super) fn common_scopes(&self, peer: NodeId) -> impl Iterator<Item = ScopeId> {
        let scopes = self.members.find(peer).map_or(&[][..], |member| &member.scopes);
        scopes.iter().map(|it| it.scope).filter(|scope| self.roles.table(*scope).is_some())
    }

    pub(super) fn summary(&self, table: Table) -> Option<Summary> {
        match table {
            Table::Members => Some(self.members.summary()),
            Table::Scope(scope) => Some(self.roles.table(scope)?.summary()),
        }
    }

    /// A peer wants to know where its tables differ from ours.
    pub(super) fn receive_compare(&mut self, origin: Origin, compare: &Compare) {
        let differs = |(table, theirs): &&(Table, Summary)| {
            self.may_compare(origin.id, *table)
                && self.summary(*table).is_some_and(|ours| ours != *theirs)
        };
        let differing: Vec<Table> =
            compare.tables.iter().filter(differs).map(|(table, _)| *table).collect();
        if differing.is_empty() {
            let scopes = compare.tables.iter().filter_map(|(table, _)| match table {
                Table::Members => None,
                Table::Scope(scope) => Some(*scope),
            });
            self.note_agreement(origin.id, scopes.collect(), &[]);
            return self.send(origin.addr, Some(origin.id), Same { token: compare.token });
        }
        let of = u8::try_from(differing.len()).expect("a frame has at most 64 tables");
        for table in differing {
            let count = self.summary(table).map_or(0, |summary| summary.count);
            let fitting = ((self.payload_room() - 48) / 8).min(MAX_BUCKETS);
            let wanted = (count / ENTRIES_PER_BUCKET).max(1) as usize;
            let buckets = (wanted.min(fitting) + 1).next_power_of_two() / 2;
            let hashes = self.bucket_hashes(table, buckets as u64);
            self.send(
                origin.addr,
                Some(origin.id),
                Buckets { token: compare.token, of, table, hashes },
            );
        }
        let idle = self.phase == Phase::Synced && !self.pulls.is_with(origin.id);
        if compare.mutual && idle && self.may_compare_ranges() {
            self.compare(origin.id, Purpose::Repair { again: false }, false);
        }
    }

    /// What is compared with a peer: members always, a scope if both are in it.
    fn may_compare(&self, peer: NodeId, table: Table) -> bool {
        match table {
            Table::Members => true,
            Table::Scope(scope) => {
                self.roles.table(scope).is_some()
                    && self.members.live(peer).is_some_and(|member| member.is_in(scope))
            }
        }
    }

    /// The live entries of a range of a table, with their stamps.
    pub(super) fn entries(&self, range: Range) -> Vec<(NodeId, Stamp)> {
        match range.table {
            Table::Members => {
                let live = self.members.range(range.low, range.high);
                let live = live.filter(|member| member.state.is_live());
                live.map(|member| (member.node.id(), member.stamp())).collect()
            }
            Table::Scope(scope) => {
                let table = self.roles.table(scope);
                let sets = table.into_iter().flat_map(|table| table.range(range.low, range.high));
                sets.collect()
            }
        }
    }

    /// The stamp of a live entry.
    fn stamp(&self, (table, id): (Table, NodeId)) -> Option<Stamp> {
        let live = self.members.live(id)?;
        match table {
            Table::Members => Some(live.stamp()),
            Table::Scope(scope) => Some(self.roles.set(scope, id)?.stamp()),
        }
    }

    fn bucket_hashes(&self, table: Table, buckets: u64) -> Vec<Fixed> {
        let mut hashes = vec![Fixed(0); usize::try_from(buckets).expect("few buckets")];
        for (id, stamp) in self.entries(Range::all(table)) {
            hashes[bucket_of(id, buckets)].0 ^= entry_hash(table, id, stamp);
        }
        hashes
    }

    /// A peer says how a table of its hashes: the buckets that differ are pulled.
    pub(super) fn receive_buckets(&mut self, origin: Origin, theirs: &Buckets) {
        if !self.may_compare(origin.id, theirs.table) {
            return;
        }
        let buckets = theirs.hashes.len() as u64;
        let ours = self.bucket_hashes(theirs.table, buckets);
        let differing = (0..buckets).zip(ours.iter().zip(&theirs.hashes));
        let differing = differing.filter(|(_, (ours, theirs))| ours != theirs);
        let ranges = differing.map(|(bucket, _)| bucket_range(theirs.table, bucket, buckets));
        let comparison = (theirs.token, usize::from(theirs.of));
        self.pulls.handle_differing(origin.id, comparison, ranges);
    }

    /// Sends the pulls that have their turn, and ends sessions that are over.
    pub(super) fn progress_pulls(&mut self) {
        let retry = self.request_wait();
        loop {
            for ask in self.pulls.take_asks(self.now, retry) {
                self.send_pull(&ask);
            }
            let Some(ended) = self.pulls.take_ended(self.now) else { return };
            if !ended.complete {
                self.counters.plain.pulls_failed += 1;
            }
            match ended.purpose {
                Purpose::Join => self.first_pull_ended(ended.peer, ended.complete),
                Purpose::Scope(_) => self.first_pull_progress(),
                Purpose::Repair { again: false } if ended.complete && ended.members => {
                    // New members bring new entries of scopes.
                    self.compare(ended.peer, Purpose::Repair { again: true }, false);
                }
                Purpose::Repair { .. } | Purpose::Push => {}
            }
        }
    }

    fn send_pull(&mut self, ask: &Ask) {
        let fitting = (self.payload_room() - PULL_FRAME_BYTES) / PULL_ENTRY_BYTES;
        let most = fitting.min(MAX_KNOWN_PER_PULL);
        let mut known = self.entries(ask.range);
        let Range { table, low, mut high } = ask.range;
        if let Table::Scope(scope) = table {
            // What was refused is not to come again.
            for (id, _, refused) in self.roles.withheld(scope) {
                if let Ok(at) = known.binary_search_by_key(&id, |(id, _)| *id) {
                    known[at].1 = refused;
                }
            }
        }
        if known.len() > most {
            known.truncate(most);
            high = known[most - 1].0;
            self.pulls.shorten(ask, high);
        }
        let mut payload = Vec::new();
        let purpose = self.pulls.purpose(ask.peer, ask.token);
        if matches!(purpose, Some(Purpose::Scope(_))) {
            // It answers only to those whom it knows to be in the scope.
            self.encode_local(&mut payload);
        }
        let pull = Frame::from(Pull { token: ask.token, table, low, high, known });
        if !pull.encode_within(self.payload_room(), &mut payload) {
            self.send_payload_to(ask.peer, std::mem::take(&mut payload));
            pull.encode(&mut payload);
        }
        self.send_payload_to(ask.peer, payload);
    }

    /// A peer pulls a range of a table: one datagram of what it lacks.
    pub(super) fn receive_pull(&mut self, origin: Origin, pull: &Pull) {
        if !self.may_compare(origin.id, pull.table) || pull.low > pull.high {
            self.counters.plain.dropped.refused += 1;
            return;
        }
        let known: BTreeMap<NodeId, Stamp> = pull.known.iter().copied().collect();
        for (id, theirs) in &known {
            if let Some(ours) = self.stamp((pull.table, *id))
                && self.is_contested((pull.table, *id), [ours, *theirs])
            {
                self.contest((pull.table, *id), [ours, *theirs]);
            }
        }
        let room = self.payload_room() - PAGE_FRAME_BYTES;
        let mut entries = Vec::new();
        let stopped_at = match pull.table {
            Table::Members => self.fill_members_page(pull, &known, room, &mut entries),
            Table::Scope(scope) => self.fill_scope_page(scope, pull, &known, room, &mut entries),
        };
        let page = Page {
            token: pull.token,
            table: pull.table,
            low: pull.low,
            through: stopped_at.map_or(pull.high, NodeId::previous),
            done: stopped_at.is_none(),
        };
        let mut payload = Vec::new();
        Frame::from(page).encode(&mut payload);
        debug_assert!(payload.len() <= PAGE_FRAME_BYTES, "room was left for the page's frame");
        payload.extend_from_slice(&entries);
        self.send_payload(origin.addr, Some(origin.id), payload);
    }

    /// Writes what the asker lacks of the members; returns the first that found no room.
    fn fill_members_page(
        &self,
        pull: &Pull,
        known: &BTreeMap<NodeId, Stamp>,
        room: usize,
        page: &mut Vec<u8>,
    ) -> Option<NodeId> {
        for member in self.members.range(pull.low, pull.high) {
            let id = member.node.id();
            let fitted = match member_news(member, known.get(&id).copied()) {
                None => true,
                Some(News::Profile) => {
                    let frame = member.profile().into();
                    append_object(&frame, Object::Profile(id), (room, room), page)
                }
                Some(News::Alive) => {
                    let incarnation = member.incarnation;
                    Frame::from(Alive { id, incarnation }).encode_within(room, page)
                }
                Some(News::Dead) => {
                    self.claim_frame(id).is_none_or(|frame| frame.encode_within(room, page))
                }
            };
            if !fitted {
                return Some(id);
            }
        }
        None
    }

    /// Writes what the asker lacks of a scope's roles; returns the first that found no room.
    fn fill_scope_page(
        &self,
        scope: ScopeId,
        pull: &Pull,
        known: &BTreeMap<NodeId, Stamp>,
        room: usize,
        page: &mut Vec<u8>,
    ) -> Option<NodeId> {
        let table = self.roles.table(scope)?;
        for (id, Stamp { number: generation, .. }) in table.range(pull.low, pull.high) {
            let from = known.get(&id).map_or(0, |known| known.number);
            if generation <= from {
                continue;
            }
            let object = Object::Roles(id, scope);
            let large = from == 0 && table.set(id).is_some_and(|set| set.bytes() > room);
            let fitted = if large {
                Frame::from(Large { object, version: generation }).encode_within(room, page)
            } else {
                let delta = self.roles.delta(scope, id, Generation::from_u64(from))?;
                append_object(&delta.into(), object, (room, room), page)
            };
            if !fitted {
                return Some(id);
            }
        }
        None
    }

    /// A page has come; what follows in its datagram answers a pull for this purpose.
    pub(super) fn receive_page(&mut self, origin: Origin, page: &Page) -> Purpose {
        let purpose = self.pulls.purpose(origin.id, page.token);
        self.pulls.handle_page(origin.id, page);
        purpose.unwrap_or(Purpose::Repair { again: false })
    }
}

/// What a member is news in, to somebody who knows it with this stamp.
enum News {
    Profile,
    Alive,
    Dead,
}

fn member_news(member: &Member, known: Option<Stamp>) -> Option<News> {
    let live = member.state.is_live();
    let Some(stamp) = known else { return live.then_some(News::Profile) };
    let (version, incarnation) = parts_of(stamp);
    if !live {
        let ours = (member.state, member.incarnation);
        return supersedes(ours, (State::Alive, incarnation)).then_some(News::Dead);
    }
    if member.version > version {
        Some(News::Profile)
    } else {
        (member.incarnation > incarnation).then_some(News::Alive)
    }
}
