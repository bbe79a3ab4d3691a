//! chitchat, its own server task and all, in tokio's paused time.
//!
//! Its state exchange cannot be driven from outside, so each node is the task that
//! `spawn_chitchat` spawns, with a transport that hands datagrams to the virtual network. All tasks
//! of a cluster share one runtime of one thread, whose clock is set to virtual time before each
//! input. What a node does is done when the input returns; only its choice of peers is not ours
//! to seed.
//!
//! Its encoding is its own secret, too. Each message goes through its in-memory transport, which
//! encodes and decodes it and tells its size; the virtual network carries as many bytes, which
//! begin with a ticket for the message.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chitchat::transport::{ChannelTransport, RecvOutcome, SendOutcome, Socket, Transport};
use chitchat::{
    Chitchat, ChitchatConfig, ChitchatEnvelope, ChitchatHandle, ChitchatId, FailureDetectorConfig,
    ProtocolVersion, spawn_chitchat,
};
use rolecall::time::Instant;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::Instant as TokioInstant;

use crate::node::{Node, Note, Outbox, Pace, Place, System};

const GOSSIP_INTERVAL: Duration = Duration::from_secs(1);
/// tokio's timers fire up to a millisecond late.
const TIMER_SLACK: Duration = Duration::from_millis(1);
/// How often the root task gives way before all others are surely idle: one turn wakes the
/// timers, one runs the tasks, and the rest are to spare.
const TURNS: usize = 4;
/// Far longer than a datagram is under way.
const MAX_FLIGHT: Duration = Duration::from_millis(100);
/// chitchat's own limit: UDP's.
const MAX_DATAGRAM_BYTES: usize = 65_507;
const ROLE: &str = "role";
/// Nobody restarts here.
const GENERATION: u64 = 1;

/// The runtime that all nodes of a cluster run on, and its clock at the origin.
struct World {
    runtime: Runtime,
    origin: TokioInstant,
}

impl World {
    /// Sets the clock, gives the node its input, and lets it work until it is idle.
    fn turn(&self, now: Instant, input: impl FnOnce()) {
        self.runtime.block_on(async {
            let virtual_now = self.origin + (now - Instant::ORIGIN);
            let behind = virtual_now.saturating_duration_since(TokioInstant::now());
            if !behind.is_zero() {
                tokio::time::advance(behind).await;
            }
            input();
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
        });
    }
}

/// Messages that are under way. Lost ones are forgotten after a while.
#[derive(Default)]
struct InFlight {
    first: u32,
    messages: VecDeque<(TokioInstant, Option<ChitchatEnvelope>)>,
}

impl InFlight {
    fn put(&mut self, message: ChitchatEnvelope) -> u32 {
        let now = TokioInstant::now();
        while self.messages.front().is_some_and(|(sent, _)| now - *sent > MAX_FLIGHT) {
            self.messages.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        self.messages.push_back((now, Some(message)));
        let last = u32::try_from(self.messages.len() - 1).expect("few fly at once");
        self.first.wrapping_add(last)
    }

    fn take(&mut self, ticket: u32) -> ChitchatEnvelope {
        let place = ticket.wrapping_sub(self.first) as usize;
        self.messages[place].1.take().expect("a datagram arrives once and in time")
    }
}

/// What a node has sent and not yet given away.
type Sent = Arc<Mutex<Vec<(SocketAddr, Vec<u8>)>>>;

struct VirtualSocket {
    addr: SocketAddr,
    /// The two ends of chitchat's own in-memory transport.
    wire: (Box<dyn Socket>, Box<dyn Socket>),
    in_flight: Arc<Mutex<InFlight>>,
    sent: Sent,
    inbox: mpsc::UnboundedReceiver<RecvOutcome>,
    received: Arc<AtomicU64>,
}

/// Opens one socket, once.
struct VirtualTransport(Mutex<Option<VirtualSocket>>);

#[async_trait]
impl Transport for VirtualTransport {
    async fn open(&self, _listen_addr: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let socket = self.0.lock().expect("nobody panics").take();
        Ok(Box::new(socket.expect("a node opens one socket")))
    }
}

#[async_trait]
impl Socket for VirtualSocket {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.addr)
    }

    async fn send(
        &mut self,
        to: SocketAddr,
        envelope: ChitchatEnvelope,
    ) -> anyhow::Result<SendOutcome> {
        let far_end = self.wire.1.local_addr()?;
        let outcome = self.wire.0.send(far_end, envelope).await?;
        let envelope = self.wire.1.recv().await?.envelope;
        let ticket = self.in_flight.lock().expect("nobody panics").put(envelope);
        let mut datagram = ticket.to_le_bytes().to_vec();
        datagram.resize(outcome.num_bytes_sent, 0);
        self.sent.lock().expect("nobody panics").push((to, datagram));
        Ok(outcome)
    }

    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        let outcome = self.inbox.recv().await;
        self.received.fetch_add(1, Ordering::Relaxed);
        outcome.ok_or_else(|| anyhow::anyhow!("the node is gone"))
    }
}

/// With version 0 or 1 of its digests; 1 is the newer, and compressed.
pub(crate) struct ChitchatSystem<const VERSION: u8> {
    world: Rc<World>,
    in_flight: Arc<Mutex<InFlight>>,
}

pub(crate) struct ChitchatNode {
    world: Rc<World>,
    in_flight: Arc<Mutex<InFlight>>,
    handle: ChitchatHandle,
    state: Arc<tokio::sync::Mutex<Chitchat>>,
    inbox: mpsc::UnboundedSender<RecvOutcome>,
    delivered: u64,
    received: Arc<AtomicU64>,
    sent: Sent,
    /// When its next round is due.
    round: Instant,
    live: BTreeSet<u32>,
    expected: Option<(ChitchatId, u32)>,
    notes: Vec<Note>,
}

fn id_of(place: Place) -> ChitchatId {
    ChitchatId::new(place.name(), GENERATION, place.addr())
}

impl<const VERSION: u8> System for ChitchatSystem<VERSION> {
    type Node = ChitchatNode;

    const NAME: &'static str = if VERSION == 0 { "chitchat-v0" } else { "chitchat" };

    fn new(_nodes: u32) -> Self {
        let builder =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = builder.expect("a runtime without I/O needs nothing");
        let origin = runtime.block_on(async { TokioInstant::now() });
        let in_flight = Arc::default();
        ChitchatSystem { world: Rc::new(World { runtime, origin }), in_flight }
    }

    fn start(&mut self, now: Instant, place: Place, _seed: u64, seeds: &[Place]) -> ChitchatNode {
        let config = ChitchatConfig {
            chitchat_id: id_of(place),
            cluster_id: "peers".to_owned(),
            gossip_interval: GOSSIP_INTERVAL,
            listen_addr: place.addr(),
            seed_nodes: seeds.iter().map(|seed| seed.addr().to_string()).collect(),
            failure_detector_config: FailureDetectorConfig::default(),
            marked_for_deletion_grace_period: Duration::from_secs(3600),
            catchup_callback: None,
            extra_liveness_predicate: None,
            protocol_version: ProtocolVersion::from_code(VERSION).expect("0 or 1"),
        };
        let (inbox, outlet) = mpsc::unbounded_channel();
        let (sent, received) = (Sent::default(), Arc::new(AtomicU64::new(0)));
        let socket = VirtualSocket {
            addr: place.addr(),
            wire: self.wire(),
            in_flight: self.in_flight.clone(),
            sent: sent.clone(),
            inbox: outlet,
            received: received.clone(),
        };
        let transport = VirtualTransport(Mutex::new(Some(socket)));
        self.world.turn(now, || {});
        let roles = vec![(ROLE.to_owned(), "none".to_owned())];
        let spawned = self.world.runtime.block_on(spawn_chitchat(config, roles, &transport));
        let handle = spawned.expect("the transport opens");
        // Lets the task begin, so that its rounds count from now.
        self.world.turn(now, || {});
        ChitchatNode {
            world: self.world.clone(),
            in_flight: self.in_flight.clone(),
            state: handle.chitchat(),
            handle,
            inbox,
            delivered: 0,
            received,
            sent,
            round: now,
            live: BTreeSet::new(),
            expected: None,
            notes: Vec::new(),
        }
    }

    /// It costs a thousand times what others do.
    fn pace(nodes: u32) -> Pace {
        match nodes {
            0..128 => Pace::FULL,
            128..512 => {
                Pace { settle_s: 60, steady_s: 20, window_s: 5, loss_s: 60, max_trials: 20 }
            }
            _ => Pace { settle_s: 10, steady_s: 5, window_s: 3, loss_s: 10, max_trials: 3 },
        }
    }
}

impl<const VERSION: u8> ChitchatSystem<VERSION> {
    fn wire(&self) -> (Box<dyn Socket>, Box<dyn Socket>) {
        let wire = ChannelTransport::with_mtu(MAX_DATAGRAM_BYTES);
        let open = |port| {
            let opened = wire.open(SocketAddr::from(([127, 0, 0, 1], port)));
            self.world.runtime.block_on(opened).expect("both ends are free")
        };
        (open(1), open(2))
    }
}

impl ChitchatNode {
    fn with_state<T>(&self, look: impl FnOnce(&mut Chitchat) -> T) -> T {
        look(&mut self.state.try_lock().expect("the server task holds it only while it runs"))
    }

    /// Who came up and went down since the last round: only rounds change that.
    fn note_liveness(&mut self) {
        let place = |id: &ChitchatId| Place::of(id.gossip_advertise_addr);
        let own = place(self.handle.chitchat_id()).0;
        let live: BTreeSet<u32> = self
            .with_state(|state| state.live_nodes().map(|id| place(id).0).collect::<BTreeSet<_>>());
        let live: BTreeSet<u32> = live.into_iter().filter(|node| *node != own).collect();
        let up = live.difference(&self.live).map(|node| Note::Up(Place(*node)));
        let down = self.live.difference(&live).map(|node| Note::Down(Place(*node)));
        self.notes.extend(up.chain(down));
        self.live = live;
    }

    fn note_change(&mut self) {
        let Some((id, serial)) = &self.expected else { return };
        let role = format!("worker-{serial}");
        let has = |state: &mut Chitchat| state.node_state(id)?.get(ROLE).map(|held| held == role);
        if self.with_state(has) == Some(true) {
            self.notes.push(Note::Changed(*serial));
            self.expected = None;
        }
    }
}

impl Drop for ChitchatNode {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Node for ChitchatNode {
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let ticket = u32::from_le_bytes(*datagram.first_chunk().expect("tickets are in all"));
        let envelope = self.in_flight.lock().expect("nobody panics").take(ticket);
        let num_bytes_received = datagram.len();
        let outcome = RecvOutcome { from_addr: from, envelope, num_bytes_received };
        self.delivered += 1;
        let inbox = self.inbox.clone();
        self.world.turn(now, || assert!(inbox.send(outcome).is_ok(), "the server task runs"));
        assert_eq!(self.received.load(Ordering::Relaxed), self.delivered, "all is taken in");
        self.note_change();
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.world.turn(now, || {});
        self.round += GOSSIP_INTERVAL;
        self.note_liveness();
    }

    fn change(&mut self, _now: Instant, serial: u32) {
        self.expected = None;
        self.with_state(|state| state.self_node_state().set(ROLE, format!("worker-{serial}")));
    }

    fn expect(&mut self, from: Place, serial: u32) {
        self.expected = Some((id_of(from), serial));
    }

    fn drain(&mut self, _now: Instant, out: &mut Outbox) {
        for (to, datagram) in self.sent.lock().expect("nobody panics").drain(..) {
            out.send(to, &datagram);
        }
        out.notes.append(&mut self.notes);
    }

    fn next_timeout(&self) -> Option<Instant> {
        Some(self.round + TIMER_SLACK)
    }

    fn suspicions(&self) -> Option<u64> {
        None
    }
}
