//! What every system has to offer, so that one loop drives them all.

use std::net::{IpAddr, SocketAddr};

use rolecall::time::Instant;

use crate::streams::{StreamAction, StreamEvent};

const PORT: u16 = 7946;

/// Where a node of the cluster sits: its number, and the address that comes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place(pub(crate) u32);

impl Place {
    pub(crate) fn addr(self) -> SocketAddr {
        let [_, a, b, c] = self.0.to_be_bytes();
        SocketAddr::from(([10, a, b, c], PORT))
    }

    pub(crate) fn of(addr: SocketAddr) -> Place {
        let IpAddr::V4(ip) = addr.ip() else { unreachable!("all places are in 10.0.0.0/8") };
        let [_, a, b, c] = ip.octets();
        Place(u32::from_be_bytes([0, a, b, c]))
    }

    /// The same in all systems that name their nodes.
    pub(crate) fn name(self) -> String {
        format!("node-{}", self.0)
    }

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a node tells its user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Note {
    /// Another node is a live member.
    Up(Place),
    /// Another node is none any more.
    Down(Place),
    /// The change with this number has arrived.
    Changed(u32),
    /// The node itself was taken for dead, and goes on under another identity.
    Renewed,
}

/// What comes out of a node after an input.
#[derive(Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    datagrams: Vec<(SocketAddr, usize)>,
    pub(crate) streams: Vec<StreamAction>,
    pub(crate) notes: Vec<Note>,
}

impl Outbox {
    pub(crate) fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.bytes.extend_from_slice(datagram);
        self.datagrams.push((to, self.bytes.len()));
    }

    /// The datagrams, in the order in which they were sent.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        let starts = std::iter::once(0).chain(self.datagrams.iter().map(|(_, end)| *end));
        starts.zip(&self.datagrams).map(|(start, (to, end))| (*to, &self.bytes[start..*end]))
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.datagrams.clear();
        self.streams.clear();
        self.notes.clear();
    }
}

/// One node of some system. After any input comes one `drain`, then `next_timeout`.
pub(crate) trait Node {
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]);

    fn handle_timeout(&mut self, now: Instant);

    /// Only of systems that use streams.
    fn handle_stream(&mut self, _now: Instant, _conn: u64, _event: StreamEvent) {}

    /// The user makes a change that all others are to hear of.
    fn change(&mut self, now: Instant, serial: u32);

    /// A change by somebody else is under way: for systems that have no event for it.
    fn expect(&mut self, _from: Place, _serial: u32) {}

    /// Makes all nodes below this number members at once: only of systems that can be told.
    fn acquaint(&mut self, _nodes: u32) {}

    fn drain(&mut self, now: Instant, out: &mut Outbox);

    fn next_timeout(&self) -> Option<Instant>;

    /// Probes of others that this node has found unanswered; `None` in systems without probes.
    fn suspicions(&self) -> Option<u64>;
}

/// How much of a system's time there is to spend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// How long a new cluster comes to rest.
    pub(crate) settle_s: u64,
    /// How long steady traffic is measured.
    pub(crate) steady_s: u64,
    /// How long traffic is measured before and after a change.
    pub(crate) window_s: u64,
    /// How long a lossy network is watched.
    pub(crate) loss_s: u64,
    pub(crate) max_trials: u32,
}

impl Pace {
    pub(crate) const FULL: Pace =
        Pace { settle_s: 60, steady_s: 60, window_s: 10, loss_s: 300, max_trials: u32::MAX };
}

/// A system under test: makes its nodes.
pub(crate) trait System: Sized {
    type Node: Node;

    const NAME: &'static str;

    /// Whether a node can be told who is there, instead of finding out.
    const CAN_BE_TOLD: bool = false;

    /// Whether a node finds out who is there and who is not. One that does not takes part only in
    /// what is about changes.
    const FINDS_MEMBERS: bool = true;

    /// A cluster of about so many nodes is to be built.
    fn new(nodes: u32) -> Self;

    /// Starts a node, which is to join through the seeds; all its chances come from `seed`.
    fn start(&mut self, now: Instant, place: Place, seed: u64, seeds: &[Place]) -> Self::Node;

    fn pace(_nodes: u32) -> Pace {
        Pace::FULL
    }
}
