//! Becoming a member, and letting others become one (DESIGN: joins prove their address first, names
//! that clash are decided by asking the older run).

use std::net::SocketAddr;

use super::super::clash::{Claimant, Standing};
use super::super::piggyback::Rumor;
use super::super::pull::{Purpose, Range};
use super::super::state::State;
use super::super::{Outcome, Phase, Protocol};
use super::Origin;
use super::receive::UNASKED;
use crate::node::{Generation, NodeId};
use crate::wire::Frame;
use crate::wire::frame::{Boot, Join, JoinReply, Object, Table, Verdict};

/// Ranges into which the first pull is split, so that several are pulled side by side.
const FIRST_PULL_RANGES: u64 = 8;

/// Runs that are let in and whose profile has not come.
pub(super) const MAX_WELCOMED: usize = 1024;

impl Protocol {
    /// Asks addresses to let this node in. With a token, tells how many answered.
    pub(super) fn contact(&mut self, mut addrs: Vec<SocketAddr>, token: Option<u64>) {
        let own = self.members.local().node.addr();
        let given = !addrs.is_empty();
        addrs.retain(|addr| *addr != own);
        if let Some(token) = token {
            self.joins.expect(token, addrs.clone(), self.now + self.config.join_timeout);
        }
        for addr in addrs {
            if self.phase == Phase::Synced && self.is_address_of_member(addr) {
                self.joins.finish(addr, true);
            } else {
                let seq = self.detector.take_seq();
                self.joins.dial(self.now, addr, seq);
            }
        }
        // Seeds whose names do not resolve yet are somebody to wait for.
        if given {
            self.alone_if_nobody_else();
        }
        self.send_joins();
    }

    /// When every seed is this node itself, there is nobody to wait for.
    pub(super) fn alone_if_nobody_else(&mut self) {
        let nobody = self.joins.is_idle() && self.members.peers().is_empty();
        if nobody && self.phase == Phase::Alone {
            self.synced();
        }
    }

    /// Notes a run that may talk to this node before it is in the table.
    pub(super) fn welcome(&mut self, id: NodeId, addr: SocketAddr) {
        if self.members.find(id).is_none() {
            if self.welcomed.len() >= MAX_WELCOMED {
                self.welcomed.pop_first();
            }
            self.welcomed.insert(id, addr);
        }
    }

    /// Sends the join requests that are due.
    pub(super) fn send_joins(&mut self) {
        let retry = self.request_wait();
        for dial in self.joins.handle_timeout(self.now, retry) {
            let payload = self.join_payload(dial.seq, dial.cookie);
            self.send_payload(dial.addr, None, payload);
        }
    }

    /// A join request; with a cookie this node's profile follows.
    fn join_payload(&self, seq: u16, cookie: u64) -> Vec<u8> {
        let member = self.members.local();
        let join = Join {
            seq,
            cookie,
            name: member.node.node_name().clone(),
            boot: member.boot,
            addr: member.node.addr(),
            padding: [0; 16],
        };
        let mut payload = Vec::new();
        Frame::from(join).encode(&mut payload);
        if cookie != 0 {
            self.encode_local(&mut payload);
        }
        payload
    }

    /// Whether what somebody says of runs that are not in the table is believed: members are, and
    /// who has proved its address to this node, or let it in.
    pub(super) fn is_proven(&self, origin: Origin) -> bool {
        origin.member || self.welcomed.get(&origin.id) == Some(&origin.addr)
    }

    /// Whoever tells of itself has to prove its address first, as one who joins.
    pub(super) fn ask_for_proof(&mut self, origin: Origin, about: NodeId) {
        if about != origin.id {
            self.counters.plain.dropped.stranger += 1;
            return;
        }
        let cookie = self.cookies.cookie(self.now, origin.addr, origin.id);
        let verdict = Verdict::Prove { cookie };
        self.send(origin.addr, Some(origin.id), JoinReply { seq: UNASKED, verdict });
    }

    /// Appends this node's profile. Its roles are for those of their scope only, and follow when
    /// they are asked for.
    pub(super) fn encode_local(&self, payload: &mut Vec<u8>) {
        let room = self.payload_room();
        self.encode_object(Object::Profile(self.local), room, payload);
    }

    /// Somebody wants to become a member; false when its address is not proven, so that nothing
    /// else it sent is to be believed.
    pub(super) fn receive_join(&mut self, origin: Origin, join: &Join) -> bool {
        let proven = self.cookies.is_good(self.now, origin.addr, origin.id, join.cookie);
        let verdict = if proven {
            self.judge(origin, join)
        } else {
            let cookie = self.cookies.cookie(self.now, origin.addr, origin.id);
            Verdict::Prove { cookie }
        };
        let mut payload = Vec::new();
        Frame::from(JoinReply { seq: join.seq, verdict }).encode(&mut payload);
        let welcome = verdict == Verdict::Welcome;
        if welcome {
            self.encode_local(&mut payload);
            self.welcome(origin.id, origin.addr);
        }
        self.send_payload(origin.addr, Some(origin.id), payload);
        welcome
    }

    /// What comes of a join whose address is proven.
    fn judge(&mut self, origin: Origin, join: &Join) -> Verdict {
        if let Some(known) = self.members.find(origin.id) {
            return match self.members.killer(origin.id).and_then(|by| self.addr_of(by)) {
                Some(holder) if known.state == State::Replaced => Verdict::NameTaken { holder },
                _ => Verdict::Welcome,
            };
        }
        let Some(listed) = self.members.holder(&join.name) else {
            return match self.members.last_boot(&join.name) {
                Some(above) if above >= join.boot => Verdict::RaiseBoot { above },
                _ => Verdict::Welcome,
            };
        };
        let (id, addr, boot) = (listed.node.id(), listed.node.addr(), listed.boot);
        if id == self.local {
            return Verdict::NameTaken { holder: addr };
        }
        if join.boot <= boot {
            return Verdict::RaiseBoot { above: boot };
        }
        if addr == join.addr {
            return Verdict::Welcome;
        }
        let listed = Claimant { id, addr, boot };
        let challenger = Claimant { id: origin.id, addr: join.addr, boot: join.boot };
        let (timeout, both) = (self.config.probe_interval, (listed, challenger));
        let standing = self.clashes.challenge(self.now, timeout, &join.name, both, None, true);
        self.ask_claimants();
        match standing {
            Standing::Open => Verdict::Wait,
            Standing::Kept => Verdict::NameTaken { holder: addr },
        }
    }

    /// A seed has answered.
    pub(super) fn receive_join_reply(&mut self, origin: Origin, reply: &JoinReply) {
        if !self.joins.expects(origin.addr, reply.seq) {
            match reply.verdict {
                // Who told somebody of itself is to prove that it is where it says.
                Verdict::Prove { cookie } if self.is_expected(origin) => {
                    let payload = self.join_payload(UNASKED, cookie);
                    self.send_payload(origin.addr, Some(origin.id), payload);
                }
                // Somebody who proved an address may say unasked that this run's stamp is too low
                // to replace the last run.
                Verdict::RaiseBoot { above } if self.is_proven(origin) => {
                    self.raise_boot(above);
                    self.introduce(origin);
                }
                _ => {}
            }
            return;
        }
        match reply.verdict {
            Verdict::Prove { cookie } => self.joins.again(self.now, origin.addr, Some(cookie)),
            Verdict::Wait => {
                let pause = self.config.probe_timeout() / 2;
                self.joins.wait(self.now, origin.addr, pause);
            }
            Verdict::RaiseBoot { above } => {
                self.raise_boot(above);
                self.joins.again(self.now, origin.addr, None);
            }
            Verdict::NameTaken { holder } => {
                self.joins.finish(origin.addr, true);
                self.hear_heir(origin);
                if self.phase == Phase::Stopped {
                    return;
                }
                if self.phase != Phase::Synced || self.members.peers().is_empty() {
                    self.outcomes.push_back(Outcome::NameTaken { holder, stopped: false });
                    let name = self.members.local().node.node_name().clone();
                    self.tell_conflict(name, holder);
                }
            }
            Verdict::Welcome => {
                self.joins.finish(origin.addr, true);
                self.welcome(origin.id, origin.addr);
                if self.phase == Phase::Synced && !self.members.peers().is_empty() {
                    self.begin_compare(origin.id, Purpose::Repair { again: false });
                } else if self.phase != Phase::Joining {
                    self.introduce_to_all();
                    self.begin_first_pull(origin.id);
                }
            }
        }
        self.send_joins();
    }

    /// Tells everybody of this node and its roles, as yet through the seed alone.
    fn introduce_to_all(&mut self) {
        if !self.rules.fast_path {
            // The seed passes on whom it lets in.
            return;
        }
        self.news(Rumor::Profile(self.local), Generation::ZERO);
        let scopes: Vec<_> = self.roles.scopes().map(|(scope, _)| scope).collect();
        for scope in scopes {
            self.news(Rumor::Roles(self.local, scope), Generation::ZERO);
        }
    }

    /// Start stamps never fall back, whatever the clock says.
    fn raise_boot(&mut self, above: Boot) {
        let boot = Boot(above.0.saturating_add(1));
        self.members.update_local(|member| {
            member.change_run(|run| {
                run.boot = run.boot.max(boot);
                run.version = run.version.saturating_add(1);
            });
        });
    }

    /// Pulls all members from a peer; the scopes follow.
    pub(super) fn begin_first_pull(&mut self, peer: NodeId) {
        let ranges = Range::split(Table::Members, FIRST_PULL_RANGES);
        let timeout = self.config.pull_timeout;
        if self.pulls.begin(self.now, timeout, (peer, Purpose::Join), ranges).is_some() {
            self.counters.plain.pulls += 1;
            self.phase = Phase::Joining;
        }
    }

    /// The members are here, or the peer failed to send them.
    pub(super) fn first_pull_ended(&mut self, peer: NodeId, complete: bool) {
        if !complete {
            let others = self.members.peers();
            let next = Protocol::choose(&mut self.rng, others, 1, |id| id != peer);
            match next.first() {
                Some(next) => self.begin_first_pull(*next),
                None => self.phase = Phase::Alone,
            }
            return;
        }
        let scopes: Vec<_> = self.roles.scopes().map(|(scope, _)| scope).collect();
        for scope in scopes {
            self.pull_scope(scope, Some(peer));
        }
        self.first_pull_progress();
    }

    /// When the scopes are here too, the first pull is complete.
    pub(super) fn first_pull_progress(&mut self) {
        let first = |purpose| matches!(purpose, Purpose::Join | Purpose::Scope(_));
        if self.phase == Phase::Joining && !self.pulls.is_for(first) {
            // Whoever's roles could not be pulled is announced without them, now.
            let waiting: Vec<NodeId> = self.announcing.keys().collect();
            for id in waiting {
                self.try_announce(id);
            }
            self.synced();
        }
    }

    fn synced(&mut self) {
        if self.phase != Phase::Synced {
            self.phase = Phase::Synced;
            self.compare_soon();
            self.outcomes.push_back(Outcome::Synced);
        }
    }
}
