//! Reliable streams between nodes, for systems that use TCP beside UDP.
//!
//! Opening one takes a round trip; what is written arrives whole and in order. A lost segment costs
//! what it costs TCP with its usual timers: a second for the handshake, 200 ms for data, doubled
//! with each further loss. Only the payload is counted.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rolecall::time::Instant;

use crate::node::Place;

const HANDSHAKE_RETRY: Duration = Duration::from_secs(1);
const DATA_RETRY: Duration = Duration::from_millis(200);
/// Linux gives up after 6 retries of a handshake; nobody here waits that long.
const MAX_RETRIES: u32 = 6;
/// Payload of one segment on Ethernet.
const SEGMENT_BYTES: usize = 1448;

/// What a node does with its streams, which it names itself.
#[derive(Debug)]
pub(crate) enum StreamAction {
    Connect { conn: u64, to: Place },
    Write { conn: u64, bytes: Vec<u8> },
    Close { conn: u64 },
}

/// What happens on a stream.
#[derive(Debug)]
pub(crate) enum StreamEvent {
    /// A peer has opened this stream.
    Opened,
    Bytes(Vec<u8>),
    Closed,
    /// Nobody listens there.
    Refused,
}

/// Whether somebody answers a handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Listener {
    Answers,
    /// The host is there, the process is not: a reset comes back.
    Refuses,
    /// The host is gone: nothing comes back.
    Silent,
}

type End = (Place, u64);

struct Link {
    peer: End,
    /// What is written here leaves no sooner, and arrives no sooner than this.
    leaves: Instant,
    arrives: Instant,
}

struct Pending {
    to: End,
    event: StreamEvent,
}

pub(crate) struct Streams {
    rng: StdRng,
    pub(crate) loss: f64,
    links: HashMap<(u32, u64), Link>,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    pending: HashMap<u64, Pending>,
    queued: u64,
    accepted: u64,
    pub(crate) sent_bytes: u64,
}

/// Names of streams that a peer has opened; those that a node opens itself are below.
pub(crate) const ACCEPTED: u64 = 1 << 63;

impl Streams {
    pub(crate) fn new(seed: u64) -> Streams {
        Streams {
            rng: StdRng::seed_from_u64(seed),
            loss: 0.0,
            links: HashMap::new(),
            queue: BinaryHeap::new(),
            pending: HashMap::new(),
            queued: 0,
            accepted: 0,
            sent_bytes: 0,
        }
    }

    pub(crate) fn act(
        &mut self,
        now: Instant,
        from: Place,
        action: StreamAction,
        listener: impl Fn(Place) -> Listener,
    ) {
        match action {
            StreamAction::Connect { conn, to } => {
                self.connect(now, (from, conn), to, listener(to));
            }
            StreamAction::Write { conn, bytes } => {
                let segments = bytes.len().div_ceil(SEGMENT_BYTES).max(1);
                self.sent_bytes += bytes.len() as u64;
                self.push(now, (from, conn), StreamEvent::Bytes(bytes), segments);
            }
            StreamAction::Close { conn } => {
                self.push(now, (from, conn), StreamEvent::Closed, 1);
                self.links.remove(&(from.0, conn));
            }
        }
    }

    pub(crate) fn next_arrival(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((at, _))| *at)
    }

    pub(crate) fn receive(&mut self) -> Option<(Instant, Place, u64, StreamEvent)> {
        let Reverse((at, number)) = self.queue.pop()?;
        let Pending { to: (place, conn), event } = self.pending.remove(&number)?;
        if matches!(event, StreamEvent::Closed) {
            self.links.remove(&(place.0, conn));
        }
        Some((at, place, conn, event))
    }

    fn connect(&mut self, now: Instant, from: End, to: Place, listener: Listener) {
        let there = self.flight(1, HANDSHAKE_RETRY);
        let back = self.flight(1, HANDSHAKE_RETRY);
        match listener {
            Listener::Silent => {}
            Listener::Refuses => self.queue(now + there + back, from, StreamEvent::Refused),
            Listener::Answers => {
                let accepted = (to, ACCEPTED | self.accepted);
                self.accepted += 1;
                let (opened, ready) = (now + there, now + there + back);
                self.queue(opened, accepted, StreamEvent::Opened);
                let link = |peer, leaves| Link { peer, leaves, arrives: leaves };
                self.links.insert((from.0.0, from.1), link(accepted, ready));
                self.links.insert((to.0, accepted.1), link(from, opened));
            }
        }
    }

    /// Sends something along a stream, behind all that was sent before.
    fn push(&mut self, now: Instant, from: End, event: StreamEvent, segments: usize) {
        let flight = self.flight(segments, DATA_RETRY);
        let Some(link) = self.links.get_mut(&(from.0.0, from.1)) else { return };
        let arrives = (now.max(link.leaves) + flight).max(link.arrives);
        link.arrives = arrives;
        let peer = link.peer;
        self.queue(arrives, peer, event);
    }

    fn queue(&mut self, at: Instant, to: End, event: StreamEvent) {
        self.queued += 1;
        self.queue.push(Reverse((at, self.queued)));
        self.pending.insert(self.queued, Pending { to, event });
    }

    /// How long it takes until all segments of one write have arrived.
    fn flight(&mut self, segments: usize, retry: Duration) -> Duration {
        let mut waited = Duration::ZERO;
        let mut missing = segments;
        for attempt in 0..MAX_RETRIES {
            let lost = (0..missing).filter(|_| self.rng.random::<f64>() < self.loss).count();
            if lost == 0 {
                break;
            }
            // All that were lost are sent again together, after one timeout.
            missing = lost;
            waited += retry * (1 << attempt);
        }
        waited + Duration::from_micros(self.rng.random_range(500..=1500))
    }
}
