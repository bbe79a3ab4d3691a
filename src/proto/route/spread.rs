//! The fast path: news of this node's own go out on it, and those of others are passed on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::seq::IndexedRandom;

use super::super::gather::Asker;
use super::super::piggyback::{Audience, Rumor};
use super::super::pull::Purpose;
use super::super::roles::RoleTable;
use super::super::spread::{Overdue, Part};
use super::super::state::State;
use super::super::timer::Timer;
use super::super::{Phase, Protocol};
use super::Origin;
use crate::node::{Generation, NodeId};
use crate::wire::frame::{Ack, Delegate, Left};
use crate::wire::{Frame, HEADER_BYTES, ScopeId, decode_cargo};

/// Bytes of a delegate's frame around its cargo, and of the acknowledgement, at most.
const DELEGATE_BYTES: usize = 32;
const ACK_BYTES: usize = HEADER_BYTES + 8;

/// Changes that are younger may still be on their way.
const LATELY: Duration = Duration::from_secs(1);

/// Who wants to know who was reached waits for so many times what an acknowledgement takes; those
/// whom it asks wait half as long, and so on, so that each hears from its own before it is due.
const PATIENCE: u8 = 32;

/// Updates on their way to an audience: as bytes, and what they are about.
#[derive(Clone, Debug)]
pub(in crate::proto) struct Cargo {
    audience: Audience,
    bytes: Bytes,
    rumors: Arc<[(Rumor, Generation)]>,
    /// See [`Delegate`].
    patience: u8,
}

impl Cargo {
    /// Bytes of the frame that gives it to somebody, at most.
    fn frame_bytes(&self) -> usize {
        DELEGATE_BYTES + self.bytes.len()
    }

    /// The only node that it tells of, if that need not hear it.
    fn subject(&self) -> Option<NodeId> {
        let mut subjects = self.rumors.iter().map(|(rumor, _)| match rumor {
            Rumor::Suspicion(..) => None,
            other => Some(other.subject()),
        });
        let first = subjects.next()??;
        subjects.all(|other| other == Some(first)).then_some(first)
    }
}

impl Protocol {
    /// Bytes of a datagram that gives a cargo to somebody, at most.
    fn cost(&self, cargo: &Cargo) -> usize {
        self.config.max_datagram_bytes - self.payload_room() + cargo.frame_bytes()
    }

    /// This node has something to tell that nobody else can.
    pub(super) fn news(&mut self, rumor: Rumor, from: Generation) {
        if self.rules.fast_path {
            self.piggyback.note(rumor, from);
        } else {
            self.piggyback.spread(rumor, from, None);
        }
    }

    /// Sends the news that have waited long enough for more of them.
    pub(super) fn launch_news(&mut self) {
        let audiences = self.piggyback.news_audiences();
        if audiences.is_empty() || self.phase == Phase::Alone {
            // Who has not been let in is known to nobody.
            return;
        }
        let due = self.news_due();
        if due > self.now {
            return self.timers.set_earlier(Timer::News, due);
        }
        let introducing = audiences.contains(&Audience::Cluster);
        let mut cargos = Vec::new();
        for audience in audiences {
            // A node that has just come in knows its seed only; who is alone has nobody to tell.
            if self.audience(audience).is_empty() {
                if self.phase == Phase::Synced {
                    drop(self.piggyback.take_news(audience));
                }
                continue;
            }
            let news = self.piggyback.take_news(audience);
            self.load(audience, news, introducing, &mut cargos);
        }
        if !cargos.is_empty() {
            self.last_launch = Some(self.now);
        }
        for cargo in cargos {
            let hops = self.pass_on(Part::ALL, &cargo, None);
            if let (true, Audience::Scope(scope)) = (cargo.patience > 0, cargo.audience) {
                self.gather_from(scope, hops.unwrap_or_default());
            }
        }
        self.asked_about.clear();
    }

    /// Who is to hear what is for an audience: its live members but this one, sorted.
    fn audience(&self, audience: Audience) -> &[NodeId] {
        match audience {
            Audience::Cluster => self.members.peers(),
            Audience::Scope(scope) => self.roles.table(scope).map_or(&[], RoleTable::peers),
        }
    }

    /// Puts news into as few cargos as they fit into. What is too large for one is left to gossip,
    /// which only passes on what is here whole.
    fn load(
        &mut self,
        audience: Audience,
        news: Vec<(Rumor, Generation)>,
        introducing: bool,
        cargos: &mut Vec<Cargo>,
    ) {
        let room = self.payload_room() - DELEGATE_BYTES;
        let mut cargo = (Vec::new(), Vec::new());
        for (rumor, from) in news {
            let Some(frame) = self.news_frame(rumor, from) else { continue };
            if let Rumor::Roles(id, scope) = rumor
                && id == self.local
            {
                let told = self.told_lately.entry(scope).or_insert((self.now, from));
                if self.now - told.0 >= LATELY {
                    *told = (self.now, from);
                }
            }
            let mut bytes = Vec::new();
            if let (Rumor::Roles(id, _), true) = (rumor, introducing)
                && id == self.local
            {
                // Who hears the roles before the node itself has to know whose they are.
                Frame::from(self.members.local().profile()).encode(&mut bytes);
            }
            frame.encode(&mut bytes);
            if bytes.len() > room {
                self.piggyback.spread(rumor, from, None);
                continue;
            }
            if cargo.0.len() + bytes.len() > room {
                cargos.push(self.cargo(audience, std::mem::take(&mut cargo)));
            }
            cargo.0.extend_from_slice(&bytes);
            cargo.1.push((rumor, from));
        }
        if !cargo.1.is_empty() {
            cargos.push(self.cargo(audience, cargo));
        }
    }

    fn cargo(
        &self,
        audience: Audience,
        (bytes, rumors): (Vec<u8>, Vec<(Rumor, Generation)>),
    ) -> Cargo {
        let asked_about = rumors.iter().any(|(rumor, _)| match rumor {
            Rumor::Roles(id, scope) => *id == self.local && self.asked_about.contains(scope),
            _ => false,
        });
        let patience = if asked_about { PATIENCE } else { 0 };
        Cargo { audience, bytes: bytes.into(), rumors: Arc::from(rumors), patience }
    }

    /// Gives a part of an audience to some of the members in it, and returns the hops; `None` when
    /// it was left to gossip. `teller` gave it to this node.
    fn pass_on(
        &mut self,
        part: Part,
        cargo: &Cargo,
        teller: Option<NodeId>,
    ) -> Option<Vec<(u16, Part)>> {
        let subject = cargo.subject();
        let hearers = part.of(self.audience(cargo.audience)).iter().copied();
        let mut hearers: Vec<NodeId> =
            hearers.filter(|id| Some(*id) != subject && Some(*id) != teller).collect();
        if let Some(seed) = self.pulls.peer_for(Purpose::Join)
            && hearers.contains(&seed)
        {
            // Until the members are here, the seed knows them better.
            hearers = vec![seed];
        }
        let fanout = self.config.gossip_fanout;
        let parts = part.split(self.local, &hearers, fanout, teller.is_none());
        let budget = self.config.gossip_bytes_per_second;
        let fits = cargo.frame_bytes() <= self.payload_room();
        let cost = self.cost(cargo);
        if !fits || !self.hops.spend(self.now, budget, cost * parts.len() + ACK_BYTES) {
            self.counters.plain.hops_over_budget += parts.len() as u64;
            self.leave_to_gossip(cargo);
            return None;
        }
        let mut hops = Vec::with_capacity(parts.len());
        for part in parts {
            let Some(owner) = self.choose_owner(part.of(&hearers), &[]) else { continue };
            let seq = self.free_seq();
            let wait = self.round_trips.wait(self.config.probe_timeout());
            if !self.hops.open((self.now, wait), seq, (part, owner), cargo.clone()) {
                self.leave_to_gossip(cargo);
                return None;
            }
            self.counters.plain.hops += 1;
            self.send_hop(owner, seq, part, cargo);
            hops.push((seq, part));
        }
        Some(hops)
    }

    /// A number that no probe and no hop waits for.
    pub(super) fn free_seq(&mut self) -> u16 {
        loop {
            let seq = self.detector.take_seq();
            if !self.hops.is_open(seq) && !self.suspicions.is_number(seq) {
                return seq;
            }
        }
    }

    /// Somebody of a part who is to tell the rest: rather not one who is suspected.
    fn choose_owner(&mut self, ids: &[NodeId], tried: &[NodeId]) -> Option<NodeId> {
        let untried = |id: &NodeId| !tried.contains(id);
        let healthy: Vec<NodeId> =
            ids.iter().copied().filter(|id| untried(id) && self.is_healthy(*id)).collect();
        let chosen = healthy.choose(&mut self.rng).copied();
        chosen
            .or_else(|| ids.iter().copied().find(untried))
            // Everybody was: who has waited longest.
            .or_else(|| tried.iter().copied().find(|id| ids.contains(id)))
    }

    fn is_healthy(&self, id: NodeId) -> bool {
        let alive = self.members.find(id).is_some_and(|it| it.state == State::Alive);
        alive && !self.detector.is_doubted(id)
    }

    fn send_hop(&mut self, to: NodeId, seq: u16, part: Part, cargo: &Cargo) {
        let (Part { low, high }, Cargo { patience, bytes, .. }) = (part, cargo);
        let cargo = bytes.clone();
        self.send_to(to, Delegate { seq, low, high, patience: *patience, cargo });
    }

    /// Gossip and pulls do what the fast path cannot.
    fn leave_to_gossip(&mut self, cargo: &Cargo) {
        for (rumor, from) in &*cargo.rumors {
            self.piggyback.spread(*rumor, *from, None);
        }
    }

    /// Hops whose acknowledgement is overdue go to others of their part.
    pub(super) fn retry_hops(&mut self) {
        for overdue in self.hops.overdue(self.now) {
            match overdue {
                Overdue::Again { seq, part, cargo, tried } => {
                    // A hop is a probe that costs nothing.
                    tried.last().into_iter().for_each(|id| self.doubt(*id));
                    let ids = part.of(self.audience(cargo.audience)).to_vec();
                    let budget = self.config.gossip_bytes_per_second;
                    let fits = cargo.frame_bytes() <= self.payload_room();
                    let cost = self.cost(&cargo);
                    match self.choose_owner(&ids, &tried) {
                        Some(owner) if fits && self.hops.spend(self.now, budget, cost) => {
                            self.counters.plain.hops_repeated += 1;
                            let ceiling = self.config.probe_timeout();
                            let wait = self.round_trips.wait(ceiling);
                            self.hops.reopen(self.now, (wait, ceiling), seq, owner);
                            self.send_hop(owner, seq, part, &cargo);
                        }
                        Some(_) => {
                            self.hops.give_up(seq);
                            self.leave_to_gossip(&cargo);
                        }
                        None => self.hops.give_up(seq),
                    }
                }
                Overdue::GivenUp { part, cargo } => {
                    self.counters.plain.hops_given_up += 1;
                    // Gossip is no way to the dead either.
                    let mut ids = part.of(self.audience(cargo.audience)).iter();
                    if ids.any(|id| self.is_healthy(*id)) {
                        self.leave_to_gossip(&cargo);
                    }
                    if let Some(goodbye) = &mut self.goodbye
                        && cargo.rumors.is_empty()
                    {
                        goodbye.unheard += part.of(self.members.peers()).len();
                    }
                }
            }
        }
    }

    /// Somebody gives this node a part to tell.
    pub(super) fn receive_delegate(&mut self, origin: Origin, delegate: &Delegate) {
        let mut frames = Vec::new();
        if decode_cargo(&delegate.cargo, &mut frames).is_err() || delegate.low > delegate.high {
            self.counters.plain.dropped.refused += 1;
            return;
        }
        let mut heard = Origin { spread: true, ..origin };
        let mut rumors = Vec::with_capacity(frames.len());
        let waiting = self.outgoing.len();
        for frame in &frames {
            let Some(rumor) = rumor_of(frame) else { continue };
            rumors.push(rumor);
            match frame {
                Frame::Profile(profile) => self.hear_profile(heard, profile),
                _ => self.receive_rumor(heard, frame),
            }
            heard.member = self.members.live(origin.id).is_some();
            // As of any datagram of a stranger, one frame is answered.
            let answered = self.outgoing.len() > waiting && !self.is_proven(heard);
            if answered || !self.is_active() {
                return;
            }
        }
        // It may have become a member with this, or have said goodbye with it or before.
        let known = self.members.find(origin.id).is_some_and(|it| it.state != State::Replaced);
        let scopes = rumors.iter().map(|(rumor, _)| rumor.audience());
        let audience = scopes.max().unwrap_or(Audience::Cluster);
        let joined = match audience {
            Audience::Cluster => true,
            Audience::Scope(scope) => self.roles.table(scope).is_some(),
        };
        if !known || !joined || self.phase != Phase::Synced || rumors.is_empty() {
            // Who has only just come may not know who is there. Without an acknowledgement it is
            // given to somebody else.
            return;
        }
        let part = Part { low: delegate.low, high: delegate.high };
        let cargo = Cargo {
            audience,
            bytes: delegate.cargo.clone(),
            rumors: Arc::from(rumors),
            patience: (delegate.patience / 2).max(delegate.patience.min(1)),
        };
        let hops = self.pass_on(part, &cargo, Some(origin.id));
        let mut answer = Vec::new();
        Frame::from(Ack { seq: delegate.seq }).encode(&mut answer);
        if delegate.patience > 0
            && let Some(hops) = hops
        {
            let wait = self.round_trips.wait(self.config.probe_timeout());
            let deadline = self.now + wait * u32::from(delegate.patience);
            let asker = Asker::Teller(origin.id, delegate.seq);
            let itself = self.has_all(&frames).then_some(self.local);
            let hops = hops.into_iter().map(|(seq, part)| (seq, (part.low, part.high)));
            self.gatherings.begin(deadline, (asker, (part.low, part.high)), itself, hops);
            // Who has nobody to tell reports at once.
            while let Some(gathered) = self.gatherings.take_done_for(asker) {
                Frame::from(gathered.reached).encode(&mut answer);
            }
        }
        self.send_payload(origin.addr, Some(origin.id), answer);
    }

    /// Tells everybody that this node leaves, if there is budget for it.
    pub(super) fn tell_goodbye(&mut self) -> bool {
        let mut bytes = Vec::new();
        let incarnation = self.members.local().incarnation;
        Frame::from(Left { id: self.local, incarnation }).encode(&mut bytes);
        // There is no rumor of it: gossip ends when this node does.
        let (audience, rumors) = (Audience::Cluster, Arc::from([]));
        let farewell = Cargo { audience, bytes: bytes.into(), rumors, patience: 0 };
        self.pass_on(Part::ALL, &farewell, None).is_some()
    }

    /// Peers to whom nobody has promised to pass the goodbye on.
    pub(super) fn peers_unheard(&self) -> usize {
        let farewells = self.hops.open_parts().filter(|(_, cargo)| cargo.rumors.is_empty());
        farewells.map(|(part, _)| part.of(self.members.peers()).len()).sum()
    }

    /// Whether this node has all roles that some frames tell of.
    fn has_all(&self, frames: &[Frame]) -> bool {
        frames.iter().all(|frame| match frame {
            Frame::Roles(roles) => {
                let set = self.roles.set(roles.scope, roles.id);
                set.is_some_and(|set| set.generation() >= roles.to)
            }
            _ => true,
        })
    }

    /// Begins to find out who has this node's roles in a scope, and says how long that may take.
    pub(super) fn gather(&mut self, scope: ScopeId) -> Duration {
        if !self.rules.fast_path || self.roles.table(scope).is_none() {
            return Duration::ZERO;
        }
        // What is on its way only just goes along, so that whoever hears this first has it all.
        let lately = self.told_lately.get(&scope).filter(|told| self.now - told.0 < LATELY);
        let from = lately.map_or_else(|| self.roles.own_generation(scope), |told| told.1);
        self.asked_about.insert(scope);
        self.news(Rumor::Roles(self.local, scope), from);
        let ceiling = self.config.probe_timeout();
        (self.round_trips.wait(ceiling) * u32::from(PATIENCE)).min(ceiling)
    }

    /// Each hop is a gathering of its own, so that one that fails spoils nothing for the others.
    fn gather_from(&mut self, scope: ScopeId, hops: Vec<(u16, Part)>) {
        let wait = self.round_trips.wait(self.config.probe_timeout());
        let deadline = self.now + wait * u32::from(PATIENCE);
        let asker = Asker::Local(scope, self.roles.own_generation(scope));
        for (seq, part) in hops {
            let range = (part.low, part.high);
            self.gatherings.begin(deadline, (asker, range), None, [(seq, range)]);
        }
    }

    /// Reports that are complete, or due, go to who asked for them.
    pub(super) fn progress_reports(&mut self) {
        while let Some(gathered) = self.gatherings.take_done(self.now) {
            match gathered.asker {
                Asker::Teller(id, _) => self.send_to(id, gathered.reached),
                Asker::Local(scope, generation) => {
                    let certain = gathered.certain(self.audience(Audience::Scope(scope)));
                    for id in certain {
                        self.receipts.handle_has(id, scope, generation);
                    }
                }
            }
        }
    }
}

/// What a frame of a cargo tells of; `None` when it does not belong there.
fn rumor_of(frame: &Frame) -> Option<(Rumor, Generation)> {
    let rumor = match frame {
        Frame::Profile(it) => Rumor::Profile(it.id),
        Frame::Alive(it) => Rumor::State(it.id),
        Frame::Suspect(it) => Rumor::Suspicion(it.id, it.by),
        Frame::Failed(it) => Rumor::State(it.id),
        Frame::Left(it) => Rumor::State(it.id),
        Frame::Replaced(it) => Rumor::State(it.id),
        Frame::Roles(it) => return Some((Rumor::Roles(it.id, it.scope), it.from)),
        _ => return None,
    };
    Some((rumor, Generation::ZERO))
}
