//! Who may have a name: runs that claim the same one.

use std::net::SocketAddr;

use tracing::Level;

use super::super::clash::{Claimant, Decision, Standing};
use super::super::members::{Claimed, Member, Profiled};
use super::super::piggyback::Rumor;
use super::super::state::{State, supersedes};
use super::super::{Phase, Protocol};
use super::Origin;
use crate::event::Event;
use crate::node::{NodeId, NodeName};
use crate::wire::frame::{Fetch, Incarnation, JoinReply, Object, Ping, Profile, Verdict};

impl Protocol {
    /// Whether a run that is not in the table may enter it now: its name may be another's.
    pub(super) fn may_enter(&mut self, profile: &Profile) -> bool {
        let holder = self.members.holder(&profile.name).map(claimant);
        let Some(listed) = holder.or_else(|| self.later_failed(profile)) else {
            return true;
        };
        let challenger = Claimant { id: profile.id, addr: profile.addr, boot: profile.boot };
        if listed.addr == challenger.addr && challenger.boot <= listed.boot {
            if listed.id == self.local {
                // Where this run is, no other can be.
                self.bury(profile, listed.id);
            } else {
                // Which of the two is there the stamps cannot tell: a clock may have jumped back.
                // The run itself can, if it is there.
                let verdict = Verdict::RaiseBoot { above: listed.boot };
                self.send(profile.addr, Some(profile.id), JoinReply { seq: 0, verdict });
            }
            return false;
        }
        let proven = self.has_proved(profile.id, profile.addr);
        if listed.addr == challenger.addr && listed.id != self.local && proven {
            self.replace(listed.id, challenger.id);
            // A dispute about the name that ended with this may have let the run in already.
            return self.members.find(profile.id).is_none();
        }
        self.challenge((listed, challenger), &profile.name, Some(profile));
        false
    }

    /// Whether a run has proved, with a cookie, that it is where it says to be.
    fn has_proved(&self, id: NodeId, addr: SocketAddr) -> bool {
        self.welcomed.get(&id) == Some(&addr)
    }

    fn challenge(
        &mut self,
        both: (Claimant, Claimant),
        name: &NodeName,
        profile: Option<&Profile>,
    ) {
        let timeout = self.config.probe_interval;
        let proven = self.has_proved(both.1.id, both.1.addr);
        let _: Standing = self.clashes.challenge(self.now, timeout, name, both, profile, proven);
        self.ask_claimants();
    }

    /// Whether a claim would raise a run from the dead whose name another has by now; then the two
    /// have a dispute. It may be that the other is an echo, and this one was only cut off.
    pub(super) fn name_stands_against(&mut self, id: NodeId, claim: (State, Incarnation)) -> bool {
        let Some(member) = self.members.find(id) else { return false };
        let rises = !member.state.is_live()
            && claim.0.is_live()
            && supersedes(claim, (member.state, member.incarnation));
        let Some(holder) = self.members.holder(member.node.name()).filter(|_| rises) else {
            return false;
        };
        let both = (claimant(holder), claimant(member));
        let name = member.node.node_name().clone();
        self.challenge(both, &name, None);
        true
    }

    /// A later run of the name that is held failed: it may only be cut off, so that an earlier one
    /// has to prove that it lives.
    fn later_failed(&self, profile: &Profile) -> Option<Claimant> {
        let failed = self.members.failed().into_iter();
        let runs = failed.filter_map(|id| self.members.find(id));
        let later = runs.filter(|it| it.node.name() == &*profile.name && it.boot > profile.boot);
        later.max_by_key(|it| it.boot).map(claimant)
    }

    /// A former run enters the table as dead, so that whoever still tells of it hears that.
    fn bury(&mut self, profile: &Profile, by: NodeId) {
        if self.members.find(profile.id).is_some() {
            // It has its place in the table already, if under another name.
            return;
        }
        if matches!(self.members.apply_profile(profile), Profiled::New) {
            let claim = (State::Replaced, profile.incarnation);
            let claimed = self.members.apply_claim(self.now, profile.id, claim, Some(by));
            debug_assert!(matches!(claimed, Claimed::Changed { .. }), "it was alive just now");
            self.tell(Rumor::State(profile.id), None);
        }
    }

    /// A run takes its place in the table.
    pub(super) fn admit(&mut self, origin: Origin, profile: &Profile) {
        let id = profile.id;
        // Of a name that has a live run again, the failed ones cannot come back. But it has to have
        // proved that it lives: it may be an echo, and a failed one only be cut off.
        let proven = self.has_proved(id, profile.addr);
        if proven {
            let failed = self.members.failed().into_iter();
            let namesakes = failed.filter(|other| {
                self.members.find(*other).is_some_and(|it| it.node.name() == &*profile.name)
            });
            for namesake in namesakes.collect::<Vec<_>>() {
                self.replace(namesake, id);
            }
        }
        match self.enlist(profile) {
            Profiled::New => {}
            Profiled::Full => return,
            Profiled::Known | Profiled::Updated { .. } => unreachable!("the run was not known"),
        }
        self.welcomed.remove(&id);
        self.fetches.settle(Object::Profile(id), u64::from(profile.version));
        // Who has just been let in tells the others itself.
        let tells_itself = proven && origin.id == id && self.rules.fast_path;
        if origin.is_news() && !tells_itself {
            self.tell(Rumor::Profile(id), Some(origin));
        }
        self.enter(Some(origin), id);
        // Whom it only hears of need not know this node, and would not answer.
        if self.phase == Phase::Alone && !origin.spread {
            self.begin_first_pull(id);
        }
    }

    /// A run has lost its name to another.
    pub(super) fn replace(&mut self, id: NodeId, by: NodeId) {
        let incarnation = self.members.find(id).map_or(Incarnation(0), |it| it.incarnation);
        let claim = (State::Replaced, incarnation);
        if let Claimed::Changed { from, to } =
            self.members.apply_claim(self.now, id, claim, Some(by))
        {
            self.state_changed(None, (id, by), (from, to));
        }
    }

    /// A run that has lost its name asks who has it, to hear it from that one. The answer goes to
    /// where the run is known to have been.
    pub(super) fn tell_heir(&mut self, loser: NodeId, fetch: &Fetch) -> bool {
        let lost = self.members.find(loser).is_some_and(|it| it.state == State::Replaced);
        let heir = self.members.killer(loser).filter(|_| lost);
        let asked = |heir: &NodeId| fetch.wants.iter().any(|(it, _)| *it == Object::Profile(*heir));
        let Some(heir) = heir.filter(asked) else { return false };
        let mut payload = Vec::new();
        // One that is too large for a datagram is announced instead, and not to be had: this run
        // is no member any more. It goes on in another life, and the names are disputed.
        self.encode_object(Object::Profile(heir), self.payload_room(), &mut payload);
        if payload.is_empty() {
            return false;
        }
        self.send_payload_to(loser, payload);
        true
    }

    /// Asks those who claim one name whether they live.
    pub(super) fn ask_claimants(&mut self) {
        let number = || self.detector.take_seq();
        for (claimant, seq) in self.clashes.due_questions(self.now, number) {
            if claimant.id == self.local {
                self.clash_answered(self.local, seq);
            } else {
                self.send(claimant.addr, Some(claimant.id), Ping { seq });
            }
        }
    }

    pub(super) fn clash_answered(&mut self, from: NodeId, seq: u16) {
        if let Some(decision) = self.clashes.handle_answer(self.now, from, seq) {
            self.settle_clash(decision);
        }
    }

    /// Two live runs have one name. One of them is elsewhere, and not in the table here.
    pub(super) fn tell_conflict(&mut self, name: NodeName, other: SocketAddr) {
        if self.clashes.is_news(self.now, &name, other) {
            let claimed = name.clone();
            self.log(Level::WARN, move || {
                tracing::warn!(name = %claimed, %other, "name conflict");
            });
            self.events.push_back(Event::NameConflict { name, other });
        }
    }

    pub(super) fn settle_silent_clashes(&mut self) {
        while let Some(decision) = self.clashes.take_silent(self.now) {
            self.settle_clash(decision);
        }
    }

    /// A name that two runs claimed is one's.
    pub(super) fn settle_clash(&mut self, decision: Decision) {
        let Decision { name, listed, challenger, profile, challenger_wins, .. } = decision;
        if !challenger_wins {
            let both_live = decision.answered && challenger.addr != listed.addr;
            if both_live && decision.challenger_lives {
                self.tell_conflict(name, challenger.addr);
            } else if !both_live
                && decision.listed_lives
                && let Some(profile) = &profile
            {
                self.bury(profile, listed.id);
            }
            return;
        }
        if listed.id == self.local {
            return self.yield_to(challenger.id, challenger.addr);
        }
        if decision.challenger_lives {
            self.welcome(challenger.id, challenger.addr);
            self.replace(listed.id, challenger.id);
        }
        let state = self.members.find(challenger.id).map(|member| member.state);
        match (state, profile) {
            (None, Some(profile)) => {
                let (id, addr) = (challenger.id, challenger.addr);
                self.admit(Origin::of(id, addr), &profile);
            }
            // It learns that it is held dead, and refutes that.
            (Some(State::Failed), _) => self.knock(challenger.id),
            _ => {}
        }
    }
}

fn claimant(member: &Member) -> Claimant {
    Claimant { id: member.node.id(), addr: member.node.addr(), boot: member.boot }
}
