//! foca, driven as its own example of an agent does it, with its LAN preset.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::convert::Infallible;
use std::net::{SocketAddr, SocketAddrV4};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use foca::{
    AccumulatingRuntime, BroadcastHandler, Config, Foca, Identity, Invalidates, Member,
    OwnedNotification, PostcardCodec, Timer,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rolecall::time::Instant;
use serde::{Deserialize, Serialize};

use crate::node::{Node, Note, Outbox, Place, System};

/// A node that is alone asks its seeds this often: foca leaves that to the application.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(1);

/// The identity of foca's example, with as few bytes as its documents advise.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Id {
    addr: SocketAddrV4,
    /// Rises when the node was taken for dead and rejoins by itself.
    bump: u16,
}

impl Id {
    fn of(place: Place) -> Id {
        let SocketAddr::V4(addr) = place.addr() else { unreachable!("all places are IPv4") };
        Id { addr, bump: 0 }
    }

    fn place(&self) -> Place {
        Place::of(SocketAddr::V4(self.addr))
    }
}

impl Identity for Id {
    type Addr = SocketAddrV4;

    fn renew(&self) -> Option<Id> {
        Some(Id { addr: self.addr, bump: self.bump.wrapping_add(1) })
    }

    fn addr(&self) -> SocketAddrV4 {
        self.addr
    }

    fn win_addr_conflict(&self, adversary: &Id) -> bool {
        self.bump > adversary.bump
    }
}

/// What a custom broadcast is about: a later one of the same node replaces an earlier one.
#[derive(Serialize, Deserialize)]
pub(crate) struct Key {
    addr: SocketAddrV4,
    version: u32,
}

impl Invalidates for Key {
    fn invalidates(&self, other: &Key) -> bool {
        self.addr == other.addr && self.version > other.version
    }
}

#[derive(Serialize, Deserialize)]
struct Broadcast<'a> {
    key: Key,
    role: &'a str,
}

/// Remembers the latest broadcast of each node, and passes on what is new.
#[derive(Default)]
pub(crate) struct Handler {
    latest: HashMap<SocketAddrV4, u32>,
    arrived: Rc<RefCell<Vec<u32>>>,
}

impl BroadcastHandler<Id> for Handler {
    type Key = Key;
    type Error = Infallible;

    fn receive_item(
        &mut self,
        data: &[u8],
        sender: Option<&Id>,
    ) -> Result<Option<Key>, Infallible> {
        let Broadcast { key, .. } = postcard::from_bytes(data).expect("nodes here send well");
        if self.latest.get(&key.addr).is_some_and(|latest| *latest >= key.version) {
            return Ok(None);
        }
        self.latest.insert(key.addr, key.version);
        if sender.is_some() {
            self.arrived.borrow_mut().push(key.version);
        }
        Ok(Some(key))
    }
}

pub(crate) struct FocaSystem {
    config: Config,
}

pub(crate) struct FocaNode {
    foca: Foca<Id, PostcardCodec, StdRng, Handler>,
    runtime: AccumulatingRuntime<Id>,
    timers: BinaryHeap<Reverse<(Instant, Timer<Id>)>>,
    arrived: Rc<RefCell<Vec<u32>>>,
    seeds: Vec<Id>,
    announce: Option<Instant>,
    /// Whether it has just been told of all others.
    told: bool,
    probes_failed: u64,
}

impl System for FocaSystem {
    type Node = FocaNode;

    const NAME: &'static str = "foca";

    /// A large cluster that forms by itself takes minutes until all know all.
    const CAN_BE_TOLD: bool = true;

    fn new(nodes: u32) -> FocaSystem {
        let nodes = NonZeroU32::new(nodes).expect("a cluster has nodes");
        FocaSystem { config: Config::new_lan(nodes) }
    }

    fn start(&mut self, now: Instant, place: Place, seed: u64, seeds: &[Place]) -> FocaNode {
        let handler = Handler::default();
        let arrived = handler.arrived.clone();
        let rng = StdRng::seed_from_u64(seed);
        let config = self.config.clone();
        let foca = Foca::with_custom_broadcast(Id::of(place), config, rng, PostcardCodec, handler);
        let mut node = FocaNode {
            foca,
            runtime: AccumulatingRuntime::new(),
            timers: BinaryHeap::new(),
            arrived,
            seeds: seeds.iter().copied().map(Id::of).collect(),
            announce: Some(now),
            told: false,
            probes_failed: 0,
        };
        node.announce(now);
        node
    }
}

impl FocaNode {
    /// Asks the seeds to be let in, as long as there is nobody.
    fn announce(&mut self, now: Instant) {
        self.announce = None;
        if self.foca.num_members() == 0 {
            for seed in self.seeds.clone() {
                let _ = self.foca.announce(seed, &mut self.runtime);
            }
            self.announce = Some(now + ANNOUNCE_AGAIN);
        }
    }
}

impl Node for FocaNode {
    // foca is tolerant to errors, and its example ignores them all.

    fn handle_datagram(&mut self, _now: Instant, _from: SocketAddr, datagram: &[u8]) {
        let _ = self.foca.handle_data(datagram, &mut self.runtime);
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(Reverse((at, _))) = self.timers.peek()
            && *at <= now
        {
            let Some(Reverse((_, timer))) = self.timers.pop() else { break };
            let _ = self.foca.handle_timer(timer, &mut self.runtime);
        }
        if self.announce.is_some_and(|at| at <= now) {
            self.announce(now);
        }
    }

    fn change(&mut self, _now: Instant, serial: u32) {
        let key = Key { addr: self.foca.identity().addr, version: serial };
        let role = format!("worker-{serial}");
        let data = postcard::to_stdvec(&Broadcast { key, role: &role }).expect("it fits");
        self.foca.add_broadcast(&data).expect("it is small");
    }

    fn acquaint(&mut self, nodes: u32) {
        self.told = true;
        let own = self.foca.identity().place();
        let others = (0..nodes).map(Place).filter(|place| *place != own);
        let members = others.map(|place| Member::alive(Id::of(place)));
        self.foca
            .apply_many(members, false, &mut self.runtime)
            .expect("members without a past apply");
    }

    fn drain(&mut self, now: Instant, out: &mut Outbox) {
        while let Some((to, datagram)) = self.runtime.to_send() {
            out.send(SocketAddr::V4(to.addr), &datagram);
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.timers.push(Reverse((now + after, timer)));
        }
        while let Some(notification) = self.runtime.to_notify() {
            match notification {
                OwnedNotification::MemberUp(id) => out.notes.push(Note::Up(id.place())),
                OwnedNotification::MemberDown(id) => out.notes.push(Note::Down(id.place())),
                OwnedNotification::Rejoin(_) => out.notes.push(Note::Renewed),
                OwnedNotification::ProbeFailed(..) => self.probes_failed += 1,
                _ => {}
            }
        }
        if std::mem::take(&mut self.told) {
            // It held a notification for each node, which is no part of what foca costs.
            self.runtime = AccumulatingRuntime::new();
        }
        out.notes.extend(self.arrived.borrow_mut().drain(..).map(Note::Changed));
    }

    fn next_timeout(&self) -> Option<Instant> {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        timer.into_iter().chain(self.announce).min()
    }

    fn suspicions(&self) -> Option<u64> {
        Some(self.probes_failed)
    }
}
