//! A broadcast like Plumtree's, written for this crate: only to compare how a change spreads.
//!
//! Leitao, Pereira and Rodrigues, "Epidemic Broadcast Trees" (SRDS 2007): a message is pushed along
//! the links of a tree (`eager`) and announced along the others. A duplicate prunes its link, and
//! an announcement whose message does not come grafts one. Nothing is acknowledged, and there is
//! no failure detector: the members are the same from beginning to end.
//!
//! The paper's optimization, which grafts links that save hops, is left out: with changes by ever
//! other nodes it made hardly anything faster here, and cost up to a fifth more datagrams.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rolecall::time::Instant;
use rolecall::wire::{HEADER_BYTES, ScopeId};
use serde::{Deserialize, Serialize};

use crate::node::{Node, Note, Outbox, Place, System};

/// Neighbours beyond the two on the ring; five together, as in the paper.
const MATCHINGS: u32 = 3;
/// How long an announced message may take before its link is grafted, and then the next one.
const FIRST_WAIT: Duration = Duration::from_millis(30);
const NEXT_WAIT: Duration = Duration::from_millis(15);
/// So many nodes broadcast once, one a second, so that the tree is there before it is measured.
const WARM_UPS: u32 = 10;
const BEFORE_WARM_UPS: Duration = Duration::from_secs(5);
const BETWEEN_WARM_UPS: Duration = Duration::from_secs(1);

/// Which change of which node it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
struct Id {
    #[serde(with = "postcard::fixint::le")]
    node: u64,
    generation: u16,
}

/// What follows rolecall's header. The fields of a change are those of rolecall's.
#[derive(Debug, Serialize, Deserialize)]
enum Frame<'a> {
    Gossip {
        id: Id,
        #[serde(with = "postcard::fixint::le")]
        scope: u64,
        role: &'a str,
    },
    IHave {
        id: Id,
    },
    Prune,
    Graft {
        id: Id,
    },
}

struct Neighbour {
    addr: SocketAddr,
    /// Whether messages are pushed to it, and not only announced.
    eager: bool,
}

/// A message that was announced, and is not here.
struct Missing {
    until: Instant,
    /// By whom.
    announced: VecDeque<SocketAddr>,
}

pub(crate) struct Plumtree {
    nodes: u32,
    /// The neighbours of each node.
    overlay: Vec<Vec<Place>>,
}

pub(crate) struct PlumtreeNode {
    place: Place,
    scope: u64,
    neighbours: Vec<Neighbour>,
    /// The roles of all messages that are here: a graft may ask for any.
    held: BTreeMap<Id, String>,
    missing: BTreeMap<Id, Missing>,
    generation: u16,
    warm_up: Option<Instant>,
    out: Outbox,
}

impl System for Plumtree {
    type Node = PlumtreeNode;

    const NAME: &'static str = "plumtree";

    const CAN_BE_TOLD: bool = true;

    const FINDS_MEMBERS: bool = false;

    fn new(nodes: u32) -> Plumtree {
        Plumtree { nodes, overlay: Vec::new() }
    }

    fn start(&mut self, now: Instant, place: Place, seed: u64, _seeds: &[Place]) -> PlumtreeNode {
        if self.overlay.is_empty() {
            self.overlay = overlay(self.nodes, seed);
        }
        let neighbour = |place: &Place| Neighbour { addr: place.addr(), eager: true };
        PlumtreeNode {
            place,
            scope: ScopeId::of("default").as_u64(),
            neighbours: self.overlay[place.index()].iter().map(neighbour).collect(),
            held: BTreeMap::new(),
            missing: BTreeMap::new(),
            generation: 0,
            warm_up: (place.0 < WARM_UPS)
                .then(|| now + BEFORE_WARM_UPS + BETWEEN_WARM_UPS * place.0),
            out: Outbox::default(),
        }
    }
}

/// Symmetric links: a ring in random order, so that nobody is apart, and random pairs.
fn overlay(nodes: u32, seed: u64) -> Vec<Vec<Place>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut places: Vec<Place> = (0..nodes).map(Place).collect();
    places.shuffle(&mut rng);
    let mut links: Vec<(Place, Place)> = places.windows(2).map(|two| (two[0], two[1])).collect();
    links.push((places[places.len() - 1], places[0]));
    for _ in 0..MATCHINGS {
        places.shuffle(&mut rng);
        links.extend(places.chunks_exact(2).map(|two| (two[0], two[1])));
    }
    let mut overlay = vec![Vec::new(); places.len()];
    for (one, other) in links {
        if !overlay[one.index()].contains(&other) {
            overlay[one.index()].push(other);
            overlay[other.index()].push(one);
        }
    }
    overlay
}

impl PlumtreeNode {
    fn send(&mut self, to: SocketAddr, frame: &Frame) {
        let datagram = postcard::to_extend(frame, vec![0; HEADER_BYTES]).expect("it is plain");
        self.out.send(to, &datagram);
    }

    fn set_eager(&mut self, addr: SocketAddr, eager: bool) {
        let neighbour = self.neighbours.iter_mut().find(|neighbour| neighbour.addr == addr);
        neighbour.expect("only neighbours send").eager = eager;
    }

    fn push(&mut self, to: SocketAddr, id: Id) {
        if let Some(role) = self.held.get(&id).cloned() {
            self.send(to, &Frame::Gossip { id, scope: self.scope, role: &role });
        }
    }

    /// Keeps a message, and tells all neighbours but the one that it came from. There is seldom
    /// a second one to announce together with it, so that nothing is gained by a delay.
    fn pass_on(&mut self, id: Id, role: String, from: Option<SocketAddr>) {
        self.held.insert(id, role);
        let links = self.neighbours.iter().map(|neighbour| (neighbour.addr, neighbour.eager));
        for (addr, eager) in links.collect::<Vec<_>>() {
            if Some(addr) == from {
                continue;
            }
            if eager {
                self.push(addr, id);
            } else {
                self.send(addr, &Frame::IHave { id });
            }
        }
    }

    fn receive(&mut self, from: SocketAddr, id: Id, role: &str) {
        if self.held.contains_key(&id) {
            self.set_eager(from, false);
            self.send(from, &Frame::Prune);
            return;
        }
        let serial = role.strip_prefix("worker-").and_then(|text| text.parse().ok());
        self.out.notes.extend(serial.map(Note::Changed));
        self.set_eager(from, true);
        self.missing.remove(&id);
        self.pass_on(id, role.to_owned(), Some(from));
    }
}

impl Node for PlumtreeNode {
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let frame = postcard::from_bytes(&datagram[HEADER_BYTES..]).expect("nodes here send well");
        match frame {
            Frame::Gossip { id, role, .. } => self.receive(from, id, role),
            Frame::IHave { id } if self.held.contains_key(&id) => {}
            Frame::IHave { id } => {
                let unheard = || Missing { until: now + FIRST_WAIT, announced: VecDeque::new() };
                let missing = self.missing.entry(id).or_insert_with(unheard);
                missing.announced.push_back(from);
            }
            Frame::Prune => self.set_eager(from, false),
            Frame::Graft { id } => {
                self.set_eager(from, true);
                self.push(from, id);
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.warm_up.take_if(|at| *at <= now).is_some() {
            self.change(now, u32::MAX - self.place.0);
        }
        let mut grafts = Vec::new();
        self.missing.retain(|id, missing| {
            if missing.until > now {
                return true;
            }
            missing.until = now + NEXT_WAIT;
            let next = missing.announced.pop_front();
            grafts.extend(next.map(|from| (from, *id)));
            next.is_some()
        });
        for (from, id) in grafts {
            self.set_eager(from, true);
            self.send(from, &Frame::Graft { id });
        }
    }

    fn change(&mut self, _now: Instant, serial: u32) {
        self.generation += 1;
        let id = Id { node: u64::from(self.place.0), generation: self.generation };
        self.pass_on(id, format!("worker-{serial}"), None);
    }

    fn drain(&mut self, _now: Instant, out: &mut Outbox) {
        std::mem::swap(out, &mut self.out);
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.missing.values().map(|missing| missing.until).chain(self.warm_up).min()
    }

    fn suspicions(&self) -> Option<u64> {
        None
    }
}
