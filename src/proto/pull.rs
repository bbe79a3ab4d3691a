//! Anti-entropy: who is compared with, and which ranges of which tables are pulled.
//!
//! ```text
//!   periodic:  Compare --> Same: done
//!                      \-> Buckets --> the ranges that differ --+
//!   joining:   all ranges of the table -------------------------+--> Pull --> Page ... until done
//! ```
//! The one who lacks something pulls it, a bounded number of ranges at a time; each request is one
//! datagram and so is each answer.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::node::NodeId;
use crate::time::Instant;
use crate::wire::ScopeId;
use crate::wire::cell::Cell;
use crate::wire::frame::{Page, Table};

use super::sketch::{Decoder, Progress};

/// Ranges of one session that are asked for at the same time.
const WINDOW_RANGES: usize = 4;

/// Sessions at one time; a further one is not begun.
pub(super) const MAX_SESSIONS: usize = 64;

/// Requests for one range without an answer before the session is given up.
const MAX_TRIES: u32 = 8;

/// Ranges that a session may have waiting.
const MAX_RANGES: usize = 4096;

/// The comparison has not been answered yet.
const UNHEARD: usize = usize::MAX;

/// What a session is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// The first pull: members from a seed.
    Join,
    /// The roles of a scope just joined.
    Scope(ScopeId),
    /// The periodic comparison; `again` when it follows one that found new members.
    Repair { again: bool },
    /// What a comparison of sketches has shown: the peer sends it unasked.
    Push,
}

/// A part of a table, by ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Range {
    pub(super) table: Table,
    pub(super) low: NodeId,
    pub(super) high: NodeId,
}

impl Range {
    pub(super) fn all(table: Table) -> Range {
        Range { table, low: NodeId::MIN, high: NodeId::MAX }
    }

    /// The range as `parts` equal ones (a power of two), so that they can be pulled side by side.
    pub(super) fn split(table: Table, parts: u64) -> impl Iterator<Item = Range> {
        (0..parts).map(move |part| bucket_range(table, part, parts))
    }
}

/// The ids of one of `buckets` equal parts (a power of two) of all ids.
pub(super) fn bucket_range(table: Table, bucket: u64, buckets: u64) -> Range {
    let shift = 64 - buckets.trailing_zeros();
    let end = |n: u64| u64::try_from((u128::from(n) << shift) - 1).unwrap_or(u64::MAX);
    let low = if bucket == 0 { 1 } else { end(bucket) + 1 };
    let id = |bits| NodeId::from_u64(bits).expect("the lowest id is 1");
    Range { table, low: id(low), high: id(end(bucket + 1)) }
}

/// The bucket of an id among `buckets` (a power of two).
pub(super) fn bucket_of(id: NodeId, buckets: u64) -> usize {
    let shift = 64 - buckets.trailing_zeros();
    usize::try_from(id.as_u64().checked_shr(shift).unwrap_or(0)).expect("few buckets")
}

/// A request to be sent for a range.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ask {
    pub(super) token: u32,
    pub(super) peer: NodeId,
    pub(super) range: Range,
}

/// A session that has ended.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ended {
    pub(super) peer: NodeId,
    pub(super) purpose: Purpose,
    pub(super) complete: bool,
    /// Whether ranges of the member table were pulled.
    pub(super) members: bool,
}

#[derive(Debug)]
struct Lane {
    range: Range,
    tries: u32,
    retry_at: Instant,
}

#[derive(Debug)]
struct Session {
    peer: NodeId,
    purpose: Purpose,
    deadline: Instant,
    /// Tables of which the comparison has not said yet where they differ, or whether.
    comparing: usize,
    members: bool,
    waiting: VecDeque<Range>,
    lanes: Vec<Lane>,
}

/// Peers whose symbols are being decoded at one time; those of others are ignored.
pub(super) const MAX_DECODINGS: usize = 64;

/// The sketches of peers that are being decoded.
#[derive(Debug, Default)]
pub(super) struct Decodings {
    decoders: BTreeMap<NodeId, (Decoder, Instant)>,
}

impl Decodings {
    /// Begins to decode what a peer has, of these tables. Decodings that are older than `timeout`
    /// make room.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        timeout: Duration,
        peer: NodeId,
        tables: impl IntoIterator<Item = Table>,
    ) {
        self.decoders.retain(|_, (_, begun)| now - *begun < timeout);
        if self.decoders.len() < MAX_DECODINGS || self.decoders.contains_key(&peer) {
            self.decoders.insert(peer, (Decoder::new(tables), now));
        }
    }

    /// The number of the cell that a peer is to send next.
    pub(super) fn next_cell(&self, peer: NodeId) -> Option<usize> {
        Some(self.decoders.get(&peer)?.0.next_cell())
    }

    /// Takes in a peer's cells and this node's own with the same numbers.
    pub(super) fn feed(&mut self, peer: NodeId, theirs: &[Cell], ours: &[Cell]) -> Progress {
        let Some((decoder, _)) = self.decoders.get_mut(&peer) else { return Progress::Hopeless };
        let progress = decoder.feed(theirs, ours);
        if !matches!(progress, Progress::More) {
            self.decoders.remove(&peer);
        }
        progress
    }

    #[cfg(feature = "sim")]
    pub(super) fn len(&self) -> usize {
        self.decoders.len()
    }
}

/// All sessions that this node has begun.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    sessions: BTreeMap<u32, Session>,
    next_token: u32,
}

impl Pulls {
    /// Begins a session: a comparison when there are no `ranges`, else a pull of them.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        timeout: Duration,
        (peer, purpose): (NodeId, Purpose),
        ranges: impl IntoIterator<Item = Range>,
    ) -> Option<u32> {
        if self.sessions.len() >= MAX_SESSIONS {
            return None;
        }
        let waiting: VecDeque<Range> = ranges.into_iter().collect();
        self.next_token = self.next_token.wrapping_add(1);
        self.sessions.insert(
            self.next_token,
            Session {
                peer,
                purpose,
                deadline: now + timeout,
                comparing: if waiting.is_empty() { UNHEARD } else { 0 },
                members: waiting.iter().any(|range| range.table == Table::Members),
                waiting,
                lanes: Vec::new(),
            },
        );
        Some(self.next_token)
    }

    /// What the session is for, if it is with this peer.
    pub(super) fn purpose(&self, from: NodeId, token: u32) -> Option<Purpose> {
        self.sessions.get(&token).filter(|it| it.peer == from).map(|session| session.purpose)
    }

    /// Whether a session for this purpose is under way.
    pub(super) fn is_for(&self, purpose: impl Fn(Purpose) -> bool) -> bool {
        self.sessions.values().any(|session| purpose(session.purpose))
    }

    /// With whom a session for this purpose is under way.
    pub(super) fn peer_for(&self, purpose: Purpose) -> Option<NodeId> {
        self.sessions.values().find(|it| it.purpose == purpose).map(|session| session.peer)
    }

    /// Whether a session with the peer is under way.
    pub(super) fn is_with(&self, peer: NodeId) -> bool {
        self.sessions.values().any(|session| session.peer == peer)
    }

    /// The comparison found no difference.
    pub(super) fn handle_same(&mut self, from: NodeId, token: u32) {
        if let Some(session) = self.sessions.get_mut(&token).filter(|it| it.peer == from) {
            session.comparing = 0;
        }
    }

    /// The comparison found these ranges to differ, in one of `tables` tables that do.
    pub(super) fn handle_differing(
        &mut self,
        from: NodeId,
        (token, tables): (u32, usize),
        ranges: impl IntoIterator<Item = Range>,
    ) {
        let Some(session) = self.sessions.get_mut(&token).filter(|it| it.peer == from) else {
            return;
        };
        if session.comparing == UNHEARD {
            session.comparing = tables;
        }
        session.comparing = session.comparing.saturating_sub(1);
        for range in ranges {
            let known = session.lanes.iter().any(|lane| lane.range == range)
                || session.waiting.contains(&range);
            if !known && session.waiting.len() < MAX_RANGES {
                session.members |= range.table == Table::Members;
                session.waiting.push_back(range);
            }
        }
    }

    /// A page came: the rest of its range, if any, is to be asked for next. A page that goes
    /// nowhere is ignored.
    pub(super) fn handle_page(&mut self, from: NodeId, page: &Page) {
        let Some(session) = self.sessions.get_mut(&page.token).filter(|it| it.peer == from) else {
            return;
        };
        let of_page = |lane: &Lane| lane.range.table == page.table && lane.range.low == page.low;
        let Some(at) = session.lanes.iter().position(of_page) else {
            return;
        };
        let range = session.lanes[at].range;
        if page.through < range.low || page.through > range.high {
            return;
        }
        session.lanes.swap_remove(at);
        if !page.done
            && let Some(low) = page.through.next()
            && low <= range.high
        {
            session.waiting.push_front(Range { low, ..range });
        }
    }

    /// A request was cut short at `high`: what is beyond it waits.
    pub(super) fn shorten(&mut self, ask: &Ask, high: NodeId) {
        let Some(session) = self.sessions.get_mut(&ask.token) else { return };
        let Some(lane) = session.lanes.iter_mut().find(|lane| lane.range == ask.range) else {
            return;
        };
        lane.range.high = high;
        if let Some(low) = high.next() {
            session.waiting.push_front(Range { low, ..ask.range });
        }
    }

    /// Requests to be sent: for ranges that have their turn, and those that went unanswered.
    pub(super) fn take_asks(&mut self, now: Instant, retry: Duration) -> Vec<Ask> {
        let mut asks = Vec::new();
        for (&token, session) in &mut self.sessions {
            let peer = session.peer;
            for lane in &mut session.lanes {
                if lane.retry_at > now || lane.tries >= MAX_TRIES {
                    continue;
                }
                lane.tries += 1;
                lane.retry_at = now + retry * (1 << (lane.tries - 1));
                asks.push(Ask { token, peer, range: lane.range });
            }
            while session.lanes.len() < WINDOW_RANGES
                && let Some(range) = session.waiting.pop_front()
            {
                session.lanes.push(Lane { range, tries: 1, retry_at: now + retry });
                asks.push(Ask { token, peer, range });
            }
        }
        asks
    }

    /// Removes and returns one session that is over: complete, out of time, or without answers.
    pub(super) fn take_ended(&mut self, now: Instant) -> Option<Ended> {
        let (token, complete) = self.sessions.iter().find_map(|(token, session)| {
            let idle = session.lanes.is_empty() && session.waiting.is_empty();
            let complete = idle && session.comparing == 0;
            let given_up =
                session.lanes.iter().any(|lane| lane.tries >= MAX_TRIES && lane.retry_at <= now);
            (complete || given_up || session.deadline <= now).then_some((*token, complete))
        })?;
        let session = self.sessions.remove(&token).expect("it was found just now");
        let Session { peer, purpose, members, .. } = session;
        Some(Ended { peer, purpose, complete, members })
    }

    /// When a request is to be repeated, or a session is out of time.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let of_session = |session: &Session| {
            let lanes = session.lanes.iter().map(|lane| lane.retry_at);
            lanes.chain([session.deadline]).min()
        };
        self.sessions.values().filter_map(of_session).min()
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Duration = Duration::from_millis(100);
    const TIMEOUT: Duration = Duration::from_secs(5);

    fn id(n: u64) -> NodeId {
        NodeId::from_u64(n).unwrap()
    }

    #[test]
    fn buckets_cover_all_ids_without_overlap() {
        for buckets in [1, 2, 16, 128] {
            let ranges: Vec<_> = Range::split(Table::Members, buckets).collect();
            assert_eq!(ranges[0].low, NodeId::MIN);
            assert_eq!(ranges.last().unwrap().high, NodeId::MAX);
            for pair in ranges.windows(2) {
                assert_eq!(pair[0].high.next(), Some(pair[1].low));
            }
            for (bucket, range) in ranges.iter().enumerate() {
                assert_eq!(bucket_of(range.low, buckets), bucket);
                assert_eq!(bucket_of(range.high, buckets), bucket);
            }
        }
    }

    #[test]
    fn a_range_is_followed_page_by_page_to_its_end() {
        let mut pulls = Pulls::default();
        let now = Instant::ORIGIN;
        let all = Range::all(Table::Members);
        let token = pulls.begin(now, TIMEOUT, (id(1), Purpose::Join), [all]).unwrap();
        let asks = pulls.take_asks(now, RETRY);
        assert_eq!(asks, vec![Ask { token, peer: id(1), range: all }]);
        let page = |low, through, done| Page { token, table: Table::Members, low, through, done };
        pulls.handle_page(id(2), &page(NodeId::MIN, id(500), false));
        assert!(pulls.take_asks(now, RETRY).is_empty(), "a stranger's page counts for nothing");
        pulls.handle_page(id(1), &page(NodeId::MIN, id(500), false));
        let asks = pulls.take_asks(now, RETRY);
        assert_eq!(asks[0].range, Range { low: id(501), ..all });
        assert_eq!(pulls.take_ended(now), None);
        pulls.handle_page(id(1), &page(id(501), NodeId::MAX, true));
        let ended = pulls.take_ended(now).unwrap();
        assert!(ended.complete && ended.members && ended.purpose == Purpose::Join);
    }

    #[test]
    fn a_silent_peer_is_given_up() {
        let mut pulls = Pulls::default();
        let mut now = Instant::ORIGIN;
        let ranges = Range::split(Table::Members, 8);
        assert!(pulls.begin(now, TIMEOUT, (id(1), Purpose::Join), ranges).is_some());
        assert_eq!(pulls.take_asks(now, RETRY).len(), WINDOW_RANGES);
        for _ in 0..40 {
            now = pulls.next_deadline().unwrap();
            assert!(pulls.take_asks(now, RETRY).len() <= WINDOW_RANGES);
            if let Some(ended) = pulls.take_ended(now) {
                assert!(!ended.complete);
                return;
            }
        }
        panic!("never given up");
    }

    #[test]
    fn a_comparison_that_differs_nowhere_is_complete() {
        let mut pulls = Pulls::default();
        let now = Instant::ORIGIN;
        let purpose = Purpose::Repair { again: false };
        let token = pulls.begin(now, TIMEOUT, (id(1), purpose), []).unwrap();
        assert!(pulls.is_with(id(1)));
        assert_eq!(pulls.take_ended(now), None);
        pulls.handle_same(id(1), token);
        assert!(pulls.take_ended(now).unwrap().complete);
    }

    #[test]
    fn a_comparison_waits_for_every_table_that_differs() {
        let mut pulls = Pulls::default();
        let now = Instant::ORIGIN;
        let purpose = Purpose::Repair { again: false };
        let token = pulls.begin(now, TIMEOUT, (id(1), purpose), []).unwrap();
        pulls.handle_differing(id(1), (token, 2), []);
        assert_eq!(pulls.take_ended(now), None);
        pulls.handle_differing(id(1), (token, 2), []);
        assert!(pulls.take_ended(now).unwrap().complete);
    }
}
