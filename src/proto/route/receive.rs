//! The way in: a datagram is checked, taken apart, and its frames are carried to where they are
//! understood.

use std::net::SocketAddr;

use super::super::pull::Purpose;
use super::super::state::State;
use super::super::{Phase, Protocol};
use super::Origin;
use super::membership::Claim;
use super::send::SMALL;
use crate::node::NodeId;
use crate::wire::frame::{Ack, Behind, Introduce, Ping, WrongRun};
use crate::wire::{DecodeError, Frame, ReceivedHeader, decode_cargo, decode_frames, decode_header};

/// The number of what answers nothing, or is not waited for.
pub(super) const UNASKED: u16 = 0;

impl Protocol {
    pub(in crate::proto) fn receive(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), DecodeError> {
        self.counters.plain.datagrams_in += 1;
        self.counters.plain.bytes_in += datagram.len() as u64;
        let mut frames = std::mem::take(&mut self.buffers.frames);
        let checked = self.check_datagram(datagram, &mut frames);
        match checked {
            Ok(header) if self.phase != Phase::Stopped => {
                self.receive_frames(header, from, &frames, datagram.len());
            }
            Ok(_) => {}
            Err(error) => {
                self.counters.refused(error);
                match error {
                    DecodeError::WrongKey => self.nudge(from),
                    DecodeError::Replay => self.tell_behind(datagram),
                    _ => {}
                }
            }
        }
        self.buffers.frames = frames;
        checked.map(drop)
    }

    /// The header and the frames, if the datagram belongs to this cluster.
    fn check_datagram(
        &mut self,
        datagram: &[u8],
        frames: &mut Vec<Frame>,
    ) -> Result<ReceivedHeader, DecodeError> {
        let Some(sealing) = &mut self.sealing else {
            let header = decode_header(datagram, self.cluster)?;
            decode_frames(datagram, frames)?;
            return Ok(header);
        };
        let header = sealing.open(self.now, datagram, &mut self.buffers.opened)?;
        decode_cargo(&self.buffers.opened, frames)?;
        Ok(header)
    }

    /// A datagram came from a member's address with a key that is not here: what that member hears
    /// next tells it which key is.
    fn nudge(&mut self, from: SocketAddr) {
        let Some(member) = self.members.peer_at(from) else { return };
        if self.sealing.as_mut().is_some_and(|sealing| sealing.nudge(self.now, member)) {
            self.give_sign(member);
        }
    }

    /// A datagram is too old to be believed. Its run may have numbered on from where it is; or
    /// somebody with the key has sealed in its name, and all that it sends now seems old.
    fn tell_behind(&mut self, datagram: &[u8]) {
        let Some(sealing) = &mut self.sealing else { return };
        if let Some((run, number)) = sealing.behind(self.now, datagram)
            && self.members.find(run).is_some()
        {
            // It may be held dead here because of that.
            self.send_to(run, Behind { number });
        }
    }

    /// A member says that higher numbers than this run's have come in its name.
    fn number_on(&mut self, behind: Behind) {
        if let Some(sealing) = &mut self.sealing {
            sealing.number_on(self.now, behind.number);
        }
    }

    /// Sends each member something, so that it hears which key this node prefers now.
    pub(super) fn give_sign_to_all(&mut self) {
        for member in self.members.peers().to_vec() {
            self.give_sign(member);
        }
    }

    /// A ping that nobody waits for: it shows that this node is there, and with which key.
    fn give_sign(&mut self, member: NodeId) {
        self.send_to(member, Ping { seq: UNASKED });
    }

    fn receive_frames(
        &mut self,
        header: ReceivedHeader,
        from: SocketAddr,
        frames: &[Frame],
        len: usize,
    ) {
        let Some(first) = frames.first() else { return };
        self.counters.received(first.kind(), len);
        if header.from == self.local {
            // A seed address that turns out to be this node's own: the request came back.
            if let Frame::Join(join) = first
                && self.joins.expects(from, join.seq)
            {
                self.joins.finish(from, true);
                self.alone_if_nobody_else();
            }
            return;
        }
        if !header.is_for(self.local) {
            self.counters.plain.dropped.other_run += 1;
            if !matches!(first, Frame::WrongRun(_)) {
                // Not to where somebody sends it again from.
                let addr = self.addr_of(header.from).unwrap_or(from);
                self.send(addr, Some(header.from), WrongRun);
            }
            return;
        }
        if self.members.is_private_death(header.from) {
            let answers = frames.iter().any(|frame| matches!(frame, Frame::Ack(_)));
            self.hear_the_private_dead(header.from, answers);
        }
        let member = self.members.live(header.from).is_some();
        if member {
            self.members.heard(self.now, header.from);
            self.note_contact();
        }
        let mut origin =
            Origin { id: header.from, addr: from, member, pulled: None, spread: false };
        for frame in frames {
            let waiting = self.outgoing.len();
            if !self.receive_frame(&mut origin, frame) || self.phase == Phase::Stopped {
                break;
            }
            origin.member = self.members.live(origin.id).is_some();
            // A forged address gets one answer, which is no longer than what asked for it.
            if self.outgoing.len() > waiting && !self.is_proven(origin) {
                break;
            }
        }
    }

    /// Carries one frame to where it is understood; false when the rest of the datagram is not to
    /// be believed.
    fn receive_frame(&mut self, origin: &mut Origin, frame: &Frame) -> bool {
        match frame {
            Frame::Ping(ping) => self.receive_ping(*origin, ping.seq, None),
            Frame::Probe(probe) => self.receive_ping(*origin, probe.seq, Some(probe.digest)),
            Frame::Ack(ack) => self.receive_ack(*origin, *ack),
            Frame::Nack(nack) => self.receive_nack(origin.id, nack.seq),
            Frame::Saw(saw) => self.receive_saw(origin.id, *saw),
            Frame::PingReq(request) => self.receive_ping_req(*origin, *request),
            Frame::WrongRun(_) => self.receive_wrong_run(*origin),
            Frame::Introduce(_) => self.introduce(*origin),
            Frame::Join(join) => return self.receive_join(*origin, join),
            Frame::JoinReply(reply) => self.receive_join_reply(*origin, reply),
            Frame::Profile(profile) => self.hear_profile(*origin, profile),
            Frame::Alive(_)
            | Frame::Suspect(_)
            | Frame::Failed(_)
            | Frame::Left(_)
            | Frame::Replaced(_)
            | Frame::Roles(_) => self.receive_rumor(*origin, frame),
            Frame::Reached(reached) if origin.member => self.gatherings.handle_report(reached),
            Frame::Contested(it) if origin.member => self.outdo(it.table, it.stamp),
            // From whom this node holds dead too: it may have heard nothing because of that.
            Frame::Behind(behind) if self.members.find(origin.id).is_some() => {
                self.number_on(*behind);
            }
            Frame::Contested(_) | Frame::Behind(_) | Frame::Reached(_) => {
                self.counters.plain.dropped.stranger += 1;
            }
            Frame::Delegate(delegate) => self.receive_delegate(*origin, delegate),
            Frame::Large(large) => self.receive_large(*origin, *large),
            Frame::Part(part) => self.receive_part(*origin, part),
            Frame::FetchPart(fetch) => self.receive_fetch_part(*origin, *fetch),
            Frame::Page(page) => {
                origin.pulled = Some(self.receive_page(*origin, page));
            }
            Frame::Same(same) => self.pulls.handle_same(origin.id, same.token),
            Frame::Buckets(buckets) => self.receive_buckets(*origin, buckets),
            Frame::Has(has) => self.receipts.handle_has(origin.id, has.scope, has.generation),
            Frame::Push(_) => {
                // Only what a member tells is believed of others.
                origin.pulled = origin.member.then_some(Purpose::Push);
            }
            Frame::Symbols(symbols) => self.receive_symbols(*origin, symbols),
            Frame::Fetch(_)
            | Frame::Compare(_)
            | Frame::MoreSymbols(_)
            | Frame::Pull(_)
            | Frame::Ask(_) => {
                self.receive_request(*origin, frame);
            }
        }
        true
    }

    /// What somebody tells of a run. A run that is not even in the table may speak for itself only:
    /// who cannot name a run of this cluster cannot tell of others.
    pub(super) fn receive_rumor(&mut self, origin: Origin, frame: &Frame) {
        let known = self.members.find(origin.id).is_some();
        let hear = |protocol: &mut Protocol, id, claim: Claim| {
            let itself =
                id == origin.id || (id == protocol.local && claim.state != State::Replaced);
            if known || itself {
                protocol.hear_claim(origin, id, claim);
            } else {
                protocol.counters.plain.dropped.stranger += 1;
            }
        };
        match frame {
            Frame::Alive(it) => {
                hear(self, it.id, Claim::new(State::Alive, it.incarnation, None));
            }
            Frame::Suspect(it) => {
                hear(self, it.id, Claim::new(State::Suspect, it.incarnation, Some(it.by)));
            }
            Frame::Failed(it) => {
                let claim = Claim::new(State::Failed, it.incarnation, Some(it.by));
                hear(self, it.id, Claim { witnesses: it.witnesses.clone(), ..claim });
            }
            Frame::Left(it) => {
                hear(self, it.id, Claim::new(State::Left, it.incarnation, None));
            }
            Frame::Replaced(it) => {
                hear(self, it.id, Claim::new(State::Replaced, it.incarnation, Some(it.by)));
            }
            Frame::Roles(roles) if known => self.hear_roles(origin, roles),
            _ => self.counters.plain.dropped.stranger += 1,
        }
    }

    /// Requests that only a member may make, because their answers may be longer than they are or
    /// tell what is not for everybody.
    fn receive_request(&mut self, origin: Origin, frame: &Frame) {
        if !origin.member {
            if let Frame::Fetch(fetch) = frame
                && self.tell_heir(origin.id, fetch)
            {
                return;
            }
            self.counters.plain.dropped.stranger += 1;
            if self.members.find(origin.id).is_none() {
                self.send(origin.addr, Some(origin.id), Introduce);
            }
            return;
        }
        // A forged source address gets no answer: that goes to where the member is known to be.
        let addr = self.addr_of(origin.id).unwrap_or(origin.addr);
        let origin = Origin { addr, ..origin };
        match frame {
            Frame::Fetch(fetch) => self.receive_fetch(origin, fetch),
            Frame::Compare(compare) => self.receive_compare(origin, compare),
            Frame::MoreSymbols(more) => self.receive_more_symbols(origin, *more),
            Frame::Pull(pull) => self.receive_pull(origin, pull),
            Frame::Ask(ask) => self.receive_ask(origin, *ask),
            _ => unreachable!("the caller passes requests only"),
        }
    }

    /// Anybody may ask whether this node is there. Whoever it does not know is asked in turn who
    /// it is; whoever has left, or lost its name, hears of that instead.
    fn receive_ping(&mut self, origin: Origin, seq: u16, digest: Option<u16>) {
        let known = self.members.find(origin.id);
        if known.is_some_and(|member| member.state.is_final()) {
            if let Some(frame) = self.claim_frame(origin.id) {
                self.send(origin.addr, Some(origin.id), frame);
            }
            return;
        }
        let mut payload = Vec::with_capacity(SMALL);
        Frame::from(Ack { seq }).encode(&mut payload);
        // With that the answer is as long as a probe; a ping is shorter.
        if known.is_none() && digest.is_some() {
            Frame::from(Introduce).encode(&mut payload);
        }
        if let Some(digest) = digest {
            self.answer_digest(origin, (seq, digest), &mut payload);
        }
        self.send_payload(origin.addr, Some(origin.id), payload);
    }

    fn receive_ack(&mut self, origin: Origin, ack: Ack) {
        self.answer_came(origin.id, ack.seq);
        // An acknowledged hop is somebody else's to see through.
        if let Some(took) = self.hops.handle_ack(self.now, origin.id, ack.seq) {
            self.round_trips.measured(origin.id, took);
        }
        self.clash_answered(origin.id, ack.seq);
    }

    /// Another run answers at an address where this node expected somebody: it is told who asks,
    /// and asked who it is. Its profile tells whether it is the same node, restarted.
    fn receive_wrong_run(&mut self, origin: Origin) {
        if self.is_address_of_member(origin.addr) && self.members.find(origin.id).is_none() {
            let mut payload = Vec::new();
            Frame::from(Introduce).encode(&mut payload);
            self.encode_local(&mut payload);
            self.send_payload(origin.addr, Some(origin.id), payload);
        }
    }

    pub(super) fn is_address_of_member(&self, addr: SocketAddr) -> bool {
        self.members.peer_at(addr).is_some()
    }

    /// Whether this node has reason to talk to somebody.
    pub(super) fn is_expected(&self, origin: Origin) -> bool {
        self.members.find(origin.id).is_some()
            || self.joins.is_dialling(origin.addr)
            || self.welcomed.contains_key(&origin.id)
            || self.is_address_of_member(origin.addr)
    }

    /// Somebody wants to know who this node is.
    pub(super) fn introduce(&mut self, origin: Origin) {
        // An answer is longer than the question.
        if !self.is_expected(origin) {
            self.counters.plain.dropped.stranger += 1;
            return;
        }
        let mut payload = Vec::new();
        self.encode_local(&mut payload);
        self.send_payload(origin.addr, Some(origin.id), payload);
    }
}
