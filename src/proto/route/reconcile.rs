//! Repair at the cost of the difference: probes carry a digest of what both nodes should know, and
//! what differs is found by a sketch.
//!
//! ```text
//!   a                                         b
//!   | -- Probe, digest ---------------------> |   equal: an Ack, and that is all
//!   | <------------------------ Ack, Symbols  |   different: the first coded symbols of b's tables
//!   | -- MoreSymbols -----------------------> |   as long as they are not enough
//!   | <------------------------------ Symbols |
//!   | -- Push, what b lacks; Fetch ---------> |   both in few datagrams
//!   | <----------------- what a has asked for |
//! ```

use std::collections::BTreeMap;
use std::hash::Hasher;

use rand::RngExt;
use rand::seq::IndexedRandom;

use super::super::members::Member;
use super::super::pull::Purpose;
use super::super::pull::Range;
use super::super::sketch::{Decoded, Entry, Progress, restamp};
use super::super::state::{State, supersedes};
use super::super::timer::Timer;
use super::super::{Phase, Protocol};
use super::Origin;
use super::send::append_object;
use crate::node::{Generation, NodeId};
use crate::time::Instant;
use crate::wire::cell::{Cell, Cells};
use crate::wire::frame::{
    Alive, Contested, Incarnation, MoreSymbols, Object, Probe, Push, Stamp, Symbols, Table,
};
use crate::wire::limits::{MAX_CELLS_PER_FRAME, MAX_SKETCH_CELLS};
use crate::wire::{Domain, Frame, ScopeId, StableHasher};

/// Symbols that are sent before anybody asks: enough for one or two changes that one side missed,
/// which is what most differences are.
const FIRST_CELLS: usize = 12;

/// Bytes of a frame of symbols around its cells, and of a cell, at most.
const SYMBOLS_FRAME_BYTES: usize = 24;
const CELL_BYTES: usize = 33;

/// Entries by which counts may differ before a sketch is not worth trying.
const MAX_COUNT_DIFFERENCE: u32 = 100;

/// More entries than this differ when somebody was away, not because news are on their way.
const MANY_DIFFERENCES: usize = 8;

/// What is missing is asked for after so many round trips: most of it is on its way already.
const PATIENCE: u32 = 4;

/// What a comparison has shown to be missing.
#[derive(Debug, Default)]
struct Missing {
    /// Here, with the version that the peer has.
    here: Vec<(Object, u64)>,
    /// At the peer.
    there: Vec<(Object, Frame)>,
}

impl Protocol {
    /// What this node knows of the tables that it shares with a peer, in 16 bits.
    pub(super) fn digest_with(&self, peer: NodeId, seq: u16) -> Option<u16> {
        if !self.rules.digests || self.phase != Phase::Synced {
            return None;
        }
        let mut hasher = StableHasher::new(Domain::Digest);
        hasher.write(&seq.to_le_bytes());
        for table in self.common_tables(peer) {
            let Some(summary) = self.summary(table) else { continue };
            hasher.write(&table.as_u64().to_le_bytes());
            hasher.write(&summary.count.to_le_bytes());
            hasher.write(&summary.hash.to_le_bytes());
        }
        let [low, high, ..] = hasher.finish().to_le_bytes();
        Some(u16::from_le_bytes([low, high]))
    }

    /// What follows a time apart, or a large difference, is worth more than the next probe, which
    /// may be long away when this node doubts itself: somebody is compared with soon.
    pub(super) fn compare_soon(&mut self) {
        if self.rules.digests {
            let pause = self.config.gossip_interval.mul_f64(self.rng.random_range(0.5..1.5));
            self.unsettled = true;
            self.timers.set_earlier(Timer::Pull, self.now + pause);
        }
    }

    /// Sends somebody a digest, unless probes do so anyway.
    pub(super) fn compare_digests(&mut self) {
        let lately = |at: Instant| self.now - at < self.config.pull_interval;
        if !std::mem::take(&mut self.unsettled) && self.last_compared.is_some_and(lately) {
            return;
        }
        let peers = self.members.peers();
        let Some(peer) = peers.choose(&mut self.rng).copied() else { return };
        let seq = self.free_seq();
        if let Some(digest) = self.digest_with(peer, seq) {
            self.note_comparison();
            self.send_to(peer, Probe { seq, digest });
        }
    }

    pub(super) fn note_comparison(&mut self) {
        self.last_compared = Some(self.now);
        self.counters.plain.pulls += 1;
    }

    /// The members, and the scopes that both this node and a peer are in, in the order of their
    /// ids.
    fn common_tables(&self, peer: NodeId) -> impl Iterator<Item = Table> {
        std::iter::once(Table::Members).chain(self.common_scopes(peer).map(Table::Scope))
    }

    /// A member's digest came; when ours is another, our symbols go along with the answer.
    pub(super) fn answer_digest(
        &mut self,
        origin: Origin,
        (seq, theirs): (u16, u16),
        payload: &mut Vec<u8>,
    ) {
        let Some(member) = self.members.live(origin.id) else { return };
        if self.digest_with(origin.id, seq).is_none_or(|ours| ours == theirs) {
            return;
        }
        if member.node.addr() != origin.addr {
            // It may be that others have told where it is.
            let (table, stamp) = (Table::Members, member.stamp());
            Frame::from(Contested { table, stamp }).encode(payload);
            return;
        }
        let room = self.payload_room() - payload.len();
        if let Some(symbols) = self.symbols(origin.id, 0, FIRST_CELLS, room) {
            Frame::from(symbols).encode(payload);
        }
    }

    /// Symbols from the `first` on, as many as fit.
    fn symbols(&self, peer: NodeId, first: usize, count: usize, room: usize) -> Option<Symbols> {
        let fitting = room.saturating_sub(SYMBOLS_FRAME_BYTES) / CELL_BYTES;
        let left = MAX_SKETCH_CELLS.saturating_sub(first);
        let count = count.min(fitting).min(left).min(MAX_CELLS_PER_FRAME);
        if count == 0 {
            return None;
        }
        Some(Symbols {
            own_version: self.members.local().version,
            your_version: self.members.find(peer)?.version,
            first: u16::try_from(first).expect("there are few"),
            cells: Cells(self.cells(peer, first, count)),
        })
    }

    /// This node's cells of the tables that it shares with a peer, together. Sets that it refused
    /// stand there as if it had them, or they would be found, and sent to it, each time. Of its own
    /// sets a peer hears the truth: receipts rest on that.
    fn cells(&self, peer: NodeId, first: usize, count: usize) -> Vec<Cell> {
        let mut cells = vec![Cell::default(); count];
        for table in self.common_tables(peer) {
            let entries = || self.entries(Range::all(table)).into_iter();
            match table {
                Table::Members => self.members.sketch().add_to(first, &mut cells, entries),
                Table::Scope(scope) => {
                    if let Some(roles) = self.roles.table(scope) {
                        roles.sketch().add_to(first, &mut cells, entries);
                    }
                    for (id, known, refused) in self.roles.withheld(scope) {
                        if id != peer {
                            restamp(table, (id, known, refused), first, &mut cells);
                        }
                    }
                }
            }
        }
        cells
    }

    /// A member wants more symbols.
    pub(super) fn receive_more_symbols(&mut self, origin: Origin, more: MoreSymbols) {
        let room = self.payload_room();
        let first = usize::from(more.first);
        if let Some(symbols) = self.symbols(origin.id, first, MAX_CELLS_PER_FRAME, room) {
            self.send(origin.addr, Some(origin.id), symbols);
        }
    }

    /// A peer whose digest was not ours has sent its symbols.
    pub(super) fn receive_symbols(&mut self, origin: Origin, symbols: &Symbols) {
        let known = self.members.live(origin.id).map(|member| member.version);
        let Some(known) = known.filter(|_| self.phase == Phase::Synced) else { return };
        let own = self.members.local().version;
        if (known, own) != (symbols.own_version, symbols.your_version) {
            return self.exchange_profiles(origin, symbols, (known, own));
        }
        let peer = origin.id;
        let tables: Vec<Table> = self.common_tables(peer).collect();
        let first = usize::from(symbols.first);
        if first == 0 {
            let timeout = self.config.pull_timeout;
            self.decoding.begin(self.now, timeout, peer, tables.iter().copied());
        }
        let theirs = &symbols.cells.0;
        if theirs.is_empty() || self.decoding.next_cell(peer) != Some(first) {
            return;
        }
        let ours = self.cells(peer, first, theirs.len());
        let apart = ours[0].count.abs_diff(theirs[0].count);
        if first == 0 && apart > MAX_COUNT_DIFFERENCE {
            return self.compare_by_ranges(peer);
        }
        match self.decoding.feed(peer, theirs, &ours) {
            Progress::More => {
                let next = first + theirs.len();
                let next = u16::try_from(next).expect("a decoder stops before");
                self.send_to(peer, MoreSymbols { first: next });
            }
            Progress::Decoded(difference) => self.reconcile(origin, &difference),
            Progress::Hopeless => self.compare_by_ranges(peer),
        }
    }

    /// So much differs that ranges of the tables are compared instead.
    fn compare_by_ranges(&mut self, peer: NodeId) {
        if !self.pulls.is_with(peer) && self.may_compare_ranges() {
            self.begin_compare(peer, Purpose::Repair { again: false });
        }
    }

    /// Two nodes that know different profiles of each other may not agree on which scopes they
    /// share. That comes first; the next probe finds what else there is.
    fn exchange_profiles(&mut self, origin: Origin, symbols: &Symbols, (known, own): (u32, u32)) {
        if symbols.your_version > own {
            let number = u64::from(symbols.your_version) << 32;
            self.outdo(Table::Members, Stamp { number, print: 0 });
        }
        if known > symbols.own_version {
            let table = Table::Members;
            let stamp = self.members.live(origin.id).map(Member::stamp);
            if let Some(stamp) = stamp {
                self.send_to(origin.id, Contested { table, stamp });
            }
        }
        if known < symbols.own_version {
            let source = origin.as_source();
            let object = Object::Profile(origin.id);
            self.fetch(object, u64::from(symbols.own_version), source);
        }
        if symbols.your_version < own {
            let mut payload = Vec::new();
            Frame::from(Push).encode(&mut payload);
            self.encode_local(&mut payload);
            self.send_payload_to(origin.id, payload);
        }
    }

    /// It is known what only this node has, and what only the peer has: each gets the other's.
    fn reconcile(&mut self, origin: Origin, difference: &Decoded) {
        let scopes = self.common_scopes(origin.id).collect();
        self.note_agreement(origin.id, scopes, &difference.ours);
        let many = difference.ours.len() + difference.theirs.len() > MANY_DIFFERENCES;
        if many && !self.refuses_runs() {
            self.compare_soon();
        }
        let mut stamps: BTreeMap<(Table, NodeId), (Option<Stamp>, Option<Stamp>)> = BTreeMap::new();
        for (table, id, stamp) in &difference.ours {
            stamps.entry((*table, *id)).or_default().0 = Some(*stamp);
        }
        for (table, id, stamp) in &difference.theirs {
            stamps.entry((*table, *id)).or_default().1 = Some(*stamp);
        }
        let mut missing = Missing::default();
        // Members come first: their roles mean nothing to who does not know them.
        for ((table, id), (ours, theirs)) in stamps {
            if let (Some(ours), Some(theirs)) = (ours, theirs)
                && self.is_contested((table, id), [ours, theirs])
            {
                self.contest((table, id), [ours, theirs]);
                continue;
            }
            match table {
                Table::Members => {
                    self.reconcile_member(id, (ours, theirs), &mut missing);
                }
                Table::Scope(scope) => {
                    self.reconcile_roles((id, scope), (ours, theirs), &mut missing);
                }
            }
        }
        missing.here.retain(|(object, version)| !self.is_refused(*object, *version));
        let source = origin.as_source();
        let mut payload = Vec::new();
        if many {
            // Nobody has told this node of them, and nobody will.
            self.fetch_with(source, &missing.here, &mut payload);
        } else {
            let patience = self.round_trips.wait(self.config.probe_timeout()) * PATIENCE;
            for want in missing.here {
                self.fetches.want_later(self.now + patience, want, source);
            }
        }
        self.push(origin.id, &missing.there, payload);
    }

    fn reconcile_member(
        &mut self,
        id: NodeId,
        (ours, theirs): (Option<Stamp>, Option<Stamp>),
        missing: &mut Missing,
    ) {
        let object = Object::Profile(id);
        let member = self.members.find(id);
        let profile = || member.map(|member| Frame::from(member.profile()));
        match (ours.map(parts_of), theirs.map(parts_of)) {
            (Some(ours), Some(theirs)) => {
                if ours.0 < theirs.0 || ours.1 < theirs.1 {
                    missing.here.push((object, u64::from(theirs.0)));
                }
                if ours.0 > theirs.0 {
                    missing.there.extend(profile().map(|frame| (object, frame)));
                } else if ours.1 > theirs.1 {
                    missing.there.push((object, Alive { id, incarnation: ours.1 }.into()));
                }
            }
            (Some(_), None) => missing.there.extend(profile().map(|frame| (object, frame))),
            (None, Some((version, incarnation))) => {
                match member.map(|it| (it.state, it.incarnation)) {
                    None => missing.here.push((object, u64::from(version))),
                    Some(dead) if supersedes((State::Alive, incarnation), dead) => {
                        missing.here.push((object, u64::from(version)));
                    }
                    Some((state, _)) => {
                        // It is dead here. Who holds it alive hears that, and it has its say.
                        missing.there.extend(self.claim_frame(id).map(|frame| (object, frame)));
                        if state == State::Failed {
                            self.knock(id);
                        }
                    }
                }
            }
            (None, None) => unreachable!("a difference is on one side at least"),
        }
    }

    fn reconcile_roles(
        &mut self,
        (id, scope): (NodeId, ScopeId),
        (ours, theirs): (Option<Stamp>, Option<Stamp>),
        missing: &mut Missing,
    ) {
        let object = Object::Roles(id, scope);
        match (ours, theirs) {
            (Some(ours), Some(theirs)) if ours < theirs => {
                missing.here.push((object, theirs.number));
            }
            // Who is not known to be in the scope here comes with its profile, and with it these.
            (None, _) => {}
            (Some(_), theirs) => {
                let from = Generation::from_u64(theirs.map_or(0, |theirs| theirs.number));
                // Of what is refused here, there may be no more here than there.
                let delta = self.roles.delta(scope, id, from);
                let delta = delta.filter(|delta| theirs.is_none() || delta.to > from);
                missing.there.extend(delta.map(|delta| (object, delta.into())));
            }
        }
    }

    /// Sends a peer what it lacks, in as few datagrams as it fits into, the first behind a payload.
    fn push(&mut self, peer: NodeId, pushes: &[(Object, Frame)], mut payload: Vec<u8>) {
        let room = self.payload_room();
        let mut marker = Vec::new();
        Frame::from(Push).encode(&mut marker);
        if !pushes.is_empty() {
            payload.extend_from_slice(&marker);
        }
        for (object, frame) in pushes {
            let rooms = (room, room - marker.len());
            if !append_object(frame, *object, rooms, &mut payload) {
                let full = std::mem::replace(&mut payload, marker.clone());
                self.send_payload_to(peer, full);
                append_object(frame, *object, rooms, &mut payload);
            }
        }
        if !payload.is_empty() {
            self.send_payload_to(peer, payload);
        }
    }

    /// A comparison of scopes told what a peer has: all that this node has, but for `lacking`.
    pub(super) fn note_agreement(&mut self, peer: NodeId, scopes: Vec<ScopeId>, lacking: &[Entry]) {
        for scope in scopes {
            let own = (Table::Scope(scope), self.local);
            if !lacking.iter().any(|(table, id, _)| (*table, *id) == own) {
                let generation = self.roles.own_generation(scope);
                self.receipts.handle_has(peer, scope, generation);
            }
        }
    }
}

/// Version and incarnation of a member's stamp.
pub(super) fn parts_of(stamp: Stamp) -> (u32, Incarnation) {
    let half = |bits: u64| u32::try_from(bits & 0xffff_ffff).expect("32 bits are left");
    (half(stamp.number >> 32), Incarnation(half(stamp.number)))
}
