//! The way out: datagrams wait with their payload, and are completed with what rides on them only
//! when the driver takes them.

use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::super::members::Members;
use super::super::piggyback::{Audience, Carriage, Ride, Rumor, transmit_limit};
use super::super::roles::RoleTables;
use super::super::state::State;
use super::super::{Protocol, Transmit};
use crate::node::{Generation, NodeId};
use crate::wire::frame::{Alive, Failed, Large, Left, Object, Replaced, Suspect};
use crate::wire::sealed::{SEALED_HEADER_BYTES, TAG_BYTES, begin_sealed};
use crate::wire::{Frame, HEADER_BYTES, Header, begin, finish};

/// Datagrams that may wait for the driver; what is beyond it is dropped and counted.
pub(super) const MAX_OUTGOING: usize = 16_384;

/// A request waits for its answer so many times what an acknowledgement takes: an answer may have
/// to be put together first.
const REQUEST_PATIENCE: u32 = 4;

/// Bytes that hold a ping, and most other frames that travel alone.
pub(super) const SMALL: usize = 32;

/// A datagram that waits.
#[derive(Debug)]
pub(in crate::proto) struct Outgoing {
    addr: SocketAddr,
    to: Option<NodeId>,
    payload: Vec<u8>,
}

impl Protocol {
    /// Bytes of a datagram before its frames.
    fn header_bytes(&self) -> usize {
        if self.sealing.is_some() { SEALED_HEADER_BYTES } else { HEADER_BYTES }
    }

    /// Where the frames of a datagram end at the latest.
    fn frames_end(&self) -> usize {
        self.config.max_datagram_bytes - if self.sealing.is_some() { TAG_BYTES } else { 0 }
    }

    /// Bytes of payload that one datagram has room for.
    pub(super) fn payload_room(&self) -> usize {
        self.frames_end() - self.header_bytes()
    }

    /// Sends frames that were encoded before to an address.
    pub(super) fn send_payload(&mut self, addr: SocketAddr, to: Option<NodeId>, payload: Vec<u8>) {
        debug_assert!(payload.len() <= self.payload_room(), "a payload fits its datagram");
        if self.outgoing.len() >= MAX_OUTGOING {
            self.counters.plain.dropped.send_queue_full += 1;
            return;
        }
        self.outgoing.push_back(Outgoing { addr, to, payload });
    }

    /// Drops what waits and is larger than is allowed now. Nobody relies on a datagram: what
    /// matters is sent again, in smaller ones.
    pub(super) fn drop_oversized(&mut self) {
        let (room, before) = (self.payload_room(), self.outgoing.len());
        self.outgoing.retain(|outgoing| outgoing.payload.len() <= room);
        let dropped = before - self.outgoing.len();
        self.counters.plain.dropped.send_queue_full += dropped as u64;
    }

    /// Sends one frame to an address.
    pub(super) fn send(&mut self, addr: SocketAddr, to: Option<NodeId>, frame: impl Into<Frame>) {
        let mut payload = Vec::with_capacity(SMALL);
        frame.into().encode(&mut payload);
        self.send_payload(addr, to, payload);
    }

    /// Sends one frame to a run that is in the table, or has welcomed this node.
    pub(super) fn send_to(&mut self, id: NodeId, frame: impl Into<Frame>) {
        if let Some(addr) = self.addr_of(id) {
            self.send(addr, Some(id), frame);
        }
    }

    /// Sends frames that were encoded before to a run that is in the table, or has welcomed this
    /// node.
    pub(super) fn send_payload_to(&mut self, id: NodeId, payload: Vec<u8>) {
        if let Some(addr) = self.addr_of(id) {
            self.send_payload(addr, Some(id), payload);
        }
    }

    /// How long an answer to a request may take before it is asked again; each time twice as long.
    pub(super) fn request_wait(&self) -> Duration {
        let ceiling = self.config.probe_timeout();
        (self.round_trips.wait(ceiling) * REQUEST_PATIENCE).min(self.health.scale(ceiling))
    }

    /// Where a run is reached.
    pub(super) fn addr_of(&self, id: NodeId) -> Option<SocketAddr> {
        let member = self.members.find(id).map(|member| member.node.addr());
        member.or_else(|| self.welcomed.get(&id).copied())
    }

    /// Appends an object to a payload of at most `room` bytes: itself, or word that it is large if
    /// it would not fit into a datagram of its own. Says whether either fitted.
    pub(super) fn encode_object(&self, object: Object, room: usize, payload: &mut Vec<u8>) -> bool {
        let Some(frame) = self.object_frame(object, 0) else { return true };
        append_object(&frame, object, (room, self.payload_room()), payload)
    }

    /// The next datagram, complete.
    pub(in crate::proto) fn next_datagram(&mut self, datagram: &mut Vec<u8>) -> Option<Transmit> {
        loop {
            let Outgoing { addr, to, payload } = self.outgoing.pop_front()?;
            let header = Header { cluster: self.cluster, from: self.local, to };
            match self.sealing {
                Some(_) => begin_sealed(header, datagram),
                None => begin(header, datagram),
            }
            let start = datagram.len();
            datagram.extend_from_slice(&payload);
            if let Some(to) = to {
                if self.rules.buddy {
                    self.tell_the_accused(to, datagram);
                }
                if !travels_alone(&payload) {
                    self.fill(to, datagram);
                }
            }
            let Some(&kind) = datagram.get(start) else { continue };
            debug_assert!(datagram.len() <= self.frames_end(), "the frames fit");
            match &mut self.sealing {
                Some(sealing) => {
                    if !sealing.seal(to, datagram) {
                        // 2^48 datagrams were sent: this run is to be restarted.
                        continue;
                    }
                }
                None => finish(datagram, self.cluster),
            }
            self.counters.sent(kind, datagram.len());
            return Some(Transmit { to: addr });
        }
    }

    /// A run that is suspected or held dead hears of that first (Lifeguard, section IV.C).
    fn tell_the_accused(&self, to: NodeId, datagram: &mut Vec<u8>) {
        if self.members.find(to).is_some_and(|member| member.state != State::Alive)
            && let Some(frame) = claim_frame(&self.members, self.local, to)
        {
            // Without room the probe goes first: the next datagram tells.
            let _ = frame.encode_within(self.frames_end(), datagram);
        }
    }

    /// Fills the rest of a datagram with rumors that its receiver may hear.
    fn fill(&mut self, to: NodeId, datagram: &mut Vec<u8>) {
        if self.piggyback.is_empty() {
            return;
        }
        let budget = self.config.gossip_bytes_per_second;
        let left = if self.rules.fast_path { self.hops.left(self.now, budget) } else { usize::MAX };
        let before = datagram.len();
        let (room, end) = (self.payload_room(), self.frames_end());
        let Protocol { now, config, local, members, roles, piggyback, rng, .. } = self;
        // With the buddy rule the accused hears of it in another way.
        let tells_subjects = !self.rules.buddy;
        let Some(receiver) = members.live(to) else { return };
        let max = (end.min(before.saturating_add(left)), room);
        let limit = transmit_limit(config, members.live_count());
        let pause = config.gossip_interval;
        let peers = members.peers().len();
        let carriage = Carriage { now: *now, receiver: to, pause, peers };
        piggyback.ride(Audience::Cluster, limit, carriage, |rumor, _| {
            if rumor.subject() == to && !tells_subjects {
                return Ride::NotForThem;
            }
            let frame = rumor_frame(*local, members, rumor);
            append_rumor(frame.as_ref(), rumor, max, datagram)
        });
        let mut scopes: Vec<_> = piggyback.audiences();
        scopes.retain(|audience| match audience {
            Audience::Cluster => false,
            Audience::Scope(scope) => receiver.is_in(*scope),
        });
        if !scopes.is_empty() {
            // No scope is always the last one.
            let first = rng.random_range(0..scopes.len());
            scopes.rotate_left(first);
        }
        for audience in scopes {
            let Audience::Scope(scope) = audience else { continue };
            let peers = roles.table(scope).map_or(0, |table| table.peers().len());
            let limit = transmit_limit(config, peers + 1);
            let carriage = Carriage { peers, ..carriage };
            piggyback.ride(audience, limit, carriage, |rumor, from| {
                if rumor.subject() == to {
                    return Ride::NotForThem;
                }
                let frame = roles_frame(roles, rumor.subject(), scope, from, max.0);
                append_rumor(frame.as_ref(), rumor, max, datagram)
            });
        }
        let spent = datagram.len() - before;
        let _: bool = self.hops.spend(self.now, budget, spent.min(left));
    }

    /// Some random members of a list that satisfy `fits`.
    pub(super) fn choose(
        rng: &mut ChaCha8Rng,
        list: &[NodeId],
        count: usize,
        fits: impl Fn(NodeId) -> bool,
    ) -> Vec<NodeId> {
        let mut chosen: Vec<NodeId> = Vec::with_capacity(count);
        // Few tries find enough in a large list; a small one is looked through, so that the only
        // one that fits is never missed.
        if list.len() > 8 * count {
            for _ in 0..3 * count {
                let id = *list.choose(rng).expect("the list is not empty");
                if chosen.len() < count && fits(id) && !chosen.contains(&id) {
                    chosen.push(id);
                }
            }
        }
        if chosen.len() < count {
            let all: Vec<NodeId> = list.iter().copied().filter(|id| fits(*id)).collect();
            chosen = all.sample(rng, count).copied().collect();
        }
        chosen
    }
}

/// What follows a page answers the pull: nothing else may. And who is told that it meant another
/// run may be somebody who only sends again what others have sent: it gets nothing besides.
fn travels_alone(payload: &[u8]) -> bool {
    payload.first().is_some_and(|kind| [Frame::PAGE_KIND, Frame::WRONG_RUN_KIND].contains(kind))
}

/// What is claimed of a run, as a frame about it.
fn claim_frame(members: &Members, local: NodeId, id: NodeId) -> Option<Frame> {
    let member = members.find(id).filter(|_| !members.is_private_death(id))?;
    let incarnation = member.incarnation;
    let by = members.killer(id).unwrap_or(id);
    Some(match member.state {
        State::Alive => Alive { id, incarnation }.into(),
        State::Suspect => Suspect { id, incarnation, by: local }.into(),
        State::Failed => Failed { id, incarnation, by, witnesses: members.testimony(id) }.into(),
        State::Left => Left { id, incarnation }.into(),
        State::Replaced => Replaced { id, incarnation, by }.into(),
    })
}

impl Protocol {
    /// What a rumor says now; `None` when there is nothing left to say.
    pub(super) fn news_frame(&self, rumor: Rumor, from: Generation) -> Option<Frame> {
        match rumor {
            Rumor::Roles(id, scope) => Some(self.roles.delta(scope, id, from)?.into()),
            _ => rumor_frame(self.local, &self.members, rumor),
        }
    }

    /// What is claimed of a run, as a frame about it.
    pub(super) fn claim_frame(&self, id: NodeId) -> Option<Frame> {
        claim_frame(&self.members, self.local, id)
    }
}

/// What a rumor of the cluster says now; `None` when there is nothing left to say.
fn rumor_frame(local: NodeId, members: &Members, rumor: Rumor) -> Option<Frame> {
    match rumor {
        Rumor::Profile(id) => Some(members.live(id)?.profile().into()),
        Rumor::Suspicion(id, by) => {
            let member = members.find(id).filter(|member| member.state == State::Suspect)?;
            Some(Suspect { id, incarnation: member.incarnation, by }.into())
        }
        Rumor::State(id) => {
            let suspected = members.find(id)?.state == State::Suspect && id != local;
            if suspected { None } else { claim_frame(members, local, id) }
        }
        Rumor::Roles(..) => None,
    }
}

/// What a rumor of roles says now. A set that cannot fit is not even put together.
fn roles_frame(
    roles: &RoleTables,
    id: NodeId,
    scope: crate::wire::ScopeId,
    from: Generation,
    max: usize,
) -> Option<Frame> {
    let set = roles.set(scope, id)?;
    if from == Generation::ZERO && set.bytes() > max {
        let object = Object::Roles(id, scope);
        return Some(Large { object, version: set.generation().as_u64() }.into());
    }
    Some(roles.delta(scope, id, from)?.into())
}

/// Appends an object's frame, or word that it is large; `room` is that of this payload and of an
/// empty one.
pub(super) fn append_object(
    frame: &Frame,
    object: Object,
    room: (usize, usize),
    payload: &mut Vec<u8>,
) -> bool {
    if frame.encode_within(room.0, payload) {
        return true;
    }
    let mut alone = Vec::new();
    if frame.encode_within(room.1, &mut alone) {
        return false;
    }
    let version = match frame {
        Frame::Profile(profile) => u64::from(profile.version),
        Frame::Roles(roles) => roles.to.as_u64(),
        _ => return true,
    };
    Frame::from(Large { object, version }).encode_within(room.0, payload)
}

/// As [`append_object`], of whatever the rumor is about.
fn append_rumor(
    frame: Option<&Frame>,
    rumor: Rumor,
    room: (usize, usize),
    datagram: &mut Vec<u8>,
) -> Ride {
    let Some(frame) = frame else { return Ride::Obsolete };
    let fitted = match rumor {
        Rumor::Profile(id) => append_object(frame, Object::Profile(id), room, datagram),
        Rumor::Roles(id, scope) => append_object(frame, Object::Roles(id, scope), room, datagram),
        Rumor::State(_) | Rumor::Suspicion(..) => frame.encode_within(room.0, datagram),
    };
    if fitted { Ride::Sent } else { Ride::NoRoom }
}
