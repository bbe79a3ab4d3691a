//! Suspicions: a peer has not answered this node, and witnesses say whether it is there.
//!
//! ```text
//!                asked          nack          silent, unreachable
//!   witness: ---------> asked --------> trying -----------------> saw
//!                         |  no answer: again, then somebody else
//!
//!   cleared    a witness has heard the suspect, or this node has
//!   verdict    this node and all witnesses that answer, a majority of them, saw silence for as
//!              long as a pause is tolerated, or heard of their kernel that nobody listens there
//!   lone       no witness answers: this node's own network is to be doubted first; after a long
//!              while it believes what it sees, and keeps that to itself
//! ```
//! Witnesses are members drawn by a hash of the suspect and its incarnation, so that all who
//! suspect it ask the same ones, and nobody can choose those who agree with him. As few are asked
//! as decide; nobody else hears of a suspicion before it has come to a verdict, so that one which
//! is cleared costs a few datagrams and not a broadcast and its refutation.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event::Sight;
use crate::node::NodeId;
use crate::time::Instant;
use crate::wire::frame::Incarnation;

use super::timer::Deadlines;

/// Witnesses of a suspicion.
pub(super) const WITNESSES: usize = 5;

/// Members that are asked at most until so many have answered.
pub(super) const CANDIDATES: usize = 3 * WITNESSES;

/// Times that a witness is asked before somebody else is.
const ASKS: u32 = 3;

/// A lone verdict takes so many times the pause tolerance.
const LONE: u32 = 3;

/// How many that agree decide, of so many witnesses.
pub(super) const fn majority(of: usize) -> usize {
    of / 2 + 1
}

/// How many members of a cluster are witnesses, if so many are neither suspect nor accuser.
pub(super) fn wanted(others: usize) -> usize {
    others.min(WITNESSES)
}

/// How many witnesses a verdict must have to be believed by others who know of `others` members
/// besides suspect and accuser: fewer than it should have, because an accuser among many dead finds
/// few; but never one alone where there are more.
pub(super) fn credible(others: usize) -> usize {
    majority(wanted(others)).min(2).min(others)
}

/// What a witness has said so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Said {
    Nothing,
    /// It is there, and tries.
    Trying,
    Saw(Sight),
    /// It did not answer in time.
    Lost,
}

#[derive(Debug)]
struct Witness {
    id: NodeId,
    said: Said,
    asks: u32,
    due: Instant,
}

impl Witness {
    /// Whether it may still say something.
    fn is_waited_for(&self) -> bool {
        matches!(self.said, Said::Nothing | Said::Trying)
    }
}

/// A peer that is suspected.
#[derive(Debug)]
struct Suspicion {
    incarnation: Incarnation,
    seq: u16,
    begun: Instant,
    /// How many witnesses there are to be.
    wanted: usize,
    /// Who may be asked, in turn.
    candidates: std::vec::IntoIter<NodeId>,
    witnesses: Vec<Witness>,
    /// What this node has seen for long enough itself.
    own: Option<Sight>,
    /// Whether its kernel has hinted at a death.
    hinted: bool,
    /// Whether it was told that nobody answers.
    unheard: bool,
    lone_at: Instant,
}

/// What a suspicion came to.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) target: NodeId,
    pub(super) incarnation: Incarnation,
    /// What this node saw.
    pub(super) own: Sight,
    /// What each witness saw; nobody, in a lone verdict.
    pub(super) witnesses: Vec<(NodeId, Sight)>,
}

/// A member to be asked to be a witness.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) to: NodeId,
    pub(super) seq: u16,
    pub(super) target: NodeId,
}

/// What is due.
#[must_use]
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) questions: Vec<Question>,
    pub(super) verdicts: Vec<Verdict>,
    /// Suspects of whom it has turned out now that no witness says anything: this node seems to be
    /// the one that is cut off.
    pub(super) unheard: u32,
    /// Whether there is any such suspect.
    pub(super) is_cut_off: bool,
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits {
    /// For a witness to say that it tries.
    pub(super) answer: Duration,
    /// How long a pause is tolerated.
    pub(super) tolerance: Duration,
    /// The same, stretched by how much this node doubts itself.
    pub(super) doubtful: Duration,
    /// How long a verdict waits for others at most.
    pub(super) company: Duration,
}

/// All suspicions that this node holds.
#[derive(Debug, Default)]
pub(super) struct Suspicions {
    by_target: BTreeMap<NodeId, Suspicion>,
    by_seq: BTreeMap<u16, NodeId>,
    deadlines: Deadlines<NodeId>,
    /// Verdicts that wait for others to go with them, and until when.
    decided: Vec<Verdict>,
    declare_at: Option<Instant>,
}

impl Suspicions {
    /// Suspects a peer that is not suspected yet, with `others` members that are neither it nor
    /// this node, of whom these are to be asked.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        (target, incarnation): (NodeId, Incarnation),
        seq: u16,
        (others, candidates): (usize, Vec<NodeId>),
        waits: Waits,
    ) {
        debug_assert!(!self.contains(target), "the caller looks");
        let suspicion = Suspicion {
            incarnation,
            seq,
            begun: now,
            wanted: wanted(others),
            candidates: candidates.into_iter(),
            witnesses: Vec::new(),
            own: None,
            hinted: false,
            unheard: false,
            lone_at: now + waits.doubtful * LONE,
        };
        self.by_target.insert(target, suspicion);
        self.by_seq.insert(seq, target);
        self.deadlines.set(target, now);
    }

    /// A witness is there, and tries.
    pub(super) fn handle_nack(&mut self, now: Instant, from: NodeId, seq: u16, waits: Waits) {
        let Some(witness) = self.witness(from, seq) else { return };
        if witness.said == Said::Nothing || witness.said == Said::Lost {
            witness.said = Said::Trying;
            // Its own silence begins now; then its word has to come here.
            witness.due = now + waits.tolerance + waits.tolerance / 8 + waits.answer;
        }
    }

    /// A witness has seen for long enough.
    pub(super) fn handle_saw(&mut self, now: Instant, from: NodeId, seq: u16, saw: Sight) {
        let Some(witness) = self.witness(from, seq) else { return };
        witness.said = Said::Saw(saw);
        if let Some(target) = self.by_seq.get(&seq) {
            self.deadlines.set(*target, now);
        }
    }

    /// A witness has heard the suspect: who that is.
    pub(super) fn handle_ack(&mut self, from: NodeId, seq: u16) -> Option<NodeId> {
        self.witness(from, seq)?;
        self.by_seq.get(&seq).copied()
    }

    fn witness(&mut self, from: NodeId, seq: u16) -> Option<&mut Witness> {
        let suspicion = self.by_target.get_mut(self.by_seq.get(&seq)?)?;
        suspicion.witnesses.iter_mut().find(|witness| witness.id == from)
    }

    /// This node itself has seen for long enough.
    pub(super) fn saw_itself(&mut self, now: Instant, target: NodeId, saw: Sight) {
        if let Some(suspicion) = self.by_target.get_mut(&target) {
            suspicion.own = Some(saw);
            self.deadlines.set(target, now);
        }
    }

    /// This node's kernel has noticed something: with nobody to ask, that is half a witness.
    pub(super) fn hinted(&mut self, target: NodeId) {
        if let Some(suspicion) = self.by_target.get_mut(&target) {
            suspicion.hinted = true;
        }
    }

    /// Ends a suspicion, whatever it came to.
    pub(super) fn remove(&mut self, target: NodeId) -> bool {
        self.decided.retain(|verdict| verdict.target != target);
        let removed = self.close(target);
        if self.by_target.is_empty() && !self.decided.is_empty() {
            self.declare_at = Some(Instant::ORIGIN);
        }
        removed
    }

    fn close(&mut self, target: NodeId) -> bool {
        self.deadlines.clear(target);
        let removed = self.by_target.remove(&target);
        removed.as_ref().is_some_and(|it| self.by_seq.remove(&it.seq).is_some())
    }

    /// What is due. Suspicions that have come to a verdict are over.
    pub(super) fn due(&mut self, now: Instant, waits: Waits) -> Due {
        let mut due = Due::default();
        for target in self.deadlines.due(now) {
            let suspicion = self.by_target.get_mut(&target).expect("it has a deadline");
            suspicion.pursue(now, target, waits, &mut due.questions);
            if suspicion.is_unheard() {
                due.is_cut_off = true;
                due.unheard += u32::from(!std::mem::replace(&mut suspicion.unheard, true));
            }
            if let Some(verdict) = suspicion.verdict(now, target, waits) {
                self.close(target);
                self.decided.push(verdict);
                self.declare_at.get_or_insert(now + waits.company);
            } else {
                let next = suspicion.next_due(now, waits);
                self.deadlines.set(target, next);
            }
        }
        due.verdicts = self.take_decided(now);
        due
    }

    /// Those who die together, a rack or a switch, are found one after the other: a verdict waits a
    /// moment for suspicions that are still open.
    fn take_decided(&mut self, now: Instant) -> Vec<Verdict> {
        if self.by_target.is_empty() || self.declare_at.is_some_and(|at| at <= now) {
            self.declare_at = None;
            return std::mem::take(&mut self.decided);
        }
        Vec::new()
    }

    /// What was found so far says nothing.
    pub(super) fn clear(&mut self) {
        *self = Suspicions::default();
    }

    /// Whether a number is that of requests to witnesses.
    pub(super) fn is_number(&self, seq: u16) -> bool {
        self.by_seq.contains_key(&seq)
    }

    pub(super) fn contains(&self, target: NodeId) -> bool {
        self.by_target.contains_key(&target)
    }

    /// Who is suspected.
    #[cfg(any(test, debug_assertions, feature = "sim"))]
    pub(super) fn targets(&self) -> impl Iterator<Item = NodeId> {
        self.by_target.keys().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.by_target.len()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.next().into_iter().chain(self.declare_at).min()
    }

    /// What must always hold.
    #[cfg(any(test, debug_assertions, feature = "sim"))]
    pub(super) fn check(&self) {
        assert!(self.deadlines.keys().eq(self.by_target.keys().copied()));
        assert_eq!(self.by_seq.len(), self.by_target.len(), "each has a number of its own");
    }
}

impl Suspicion {
    /// Asks as many as are to be asked now.
    fn pursue(
        &mut self,
        now: Instant,
        target: NodeId,
        waits: Waits,
        questions: &mut Vec<Question>,
    ) {
        let seq = self.seq;
        for witness in &mut self.witnesses {
            if !witness.is_waited_for() || witness.due > now {
                continue;
            }
            if witness.asks >= ASKS {
                (witness.said, witness.due) = (Said::Lost, now + waits.tolerance);
                continue;
            }
            witness.due = now + waits.answer * (1 << witness.asks.min(ASKS));
            witness.asks += 1;
            questions.push(Question { to: witness.id, seq, target });
        }
        let lost = |witness: &&Witness| witness.said == Said::Lost;
        while self.witnesses.len() - self.witnesses.iter().filter(lost).count() < self.wanted
            && self.saw().count() < majority(self.wanted)
        {
            let Some(id) = self.candidates.next() else { break };
            let due = now + waits.answer;
            self.witnesses.push(Witness { id, said: Said::Nothing, asks: 1, due });
            questions.push(Question { to: id, seq, target });
        }
        if self.candidates.len() == 0 && self.saw().count() < majority(self.wanted) {
            // Nobody else is left: those who did not answer may have been unlucky.
            let again = |it: &&mut Witness| it.said == Said::Lost && it.due <= now;
            for witness in self.witnesses.iter_mut().filter(again).take(self.wanted) {
                (witness.said, witness.due) = (Said::Nothing, now + waits.answer * 4);
                questions.push(Question { to: witness.id, seq, target });
            }
        }
    }

    fn saw(&self) -> impl Iterator<Item = (NodeId, Sight)> {
        self.witnesses.iter().filter_map(|witness| match witness.said {
            Said::Saw(sight) => Some((witness.id, sight)),
            _ => None,
        })
    }

    /// Whether somebody who was asked may still say something.
    fn is_open(&self) -> bool {
        self.witnesses.iter().any(Witness::is_waited_for)
    }

    /// Whether all that can be asked were, and none of them answers.
    fn is_unheard(&self) -> bool {
        let asked = self.candidates.len() == 0 && self.wanted > 0;
        asked && !self.is_open() && self.saw().next().is_none()
    }

    fn verdict(&self, now: Instant, target: NodeId, waits: Waits) -> Option<Verdict> {
        let own = self.own.filter(|_| !self.is_open())?;
        let witnesses: Vec<_> = self.saw().collect();
        let all_asked = self.candidates.len() == 0;
        // Where fewer than wanted can be found, those have to do, but not one alone.
        let of = if all_asked { witnesses.len() } else { self.wanted };
        let decided = self.wanted > 0 && witnesses.len() >= majority(of).max(credible(self.wanted));
        let hinted = self.hinted && self.wanted == 0 && now >= self.begun + waits.tolerance;
        let lone = all_asked && (now >= self.lone_at || hinted);
        let incarnation = self.incarnation;
        (decided || lone).then_some(Verdict { target, incarnation, own, witnesses })
    }

    fn next_due(&self, now: Instant, waits: Waits) -> Instant {
        let waiting = self.witnesses.iter().filter(|it| it.is_waited_for());
        let next = waiting.map(|it| it.due).min();
        next.unwrap_or(now + waits.tolerance / 8).max(now + Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITS: Waits = Waits {
        answer: Duration::from_millis(10),
        tolerance: Duration::from_secs(1),
        doubtful: Duration::from_secs(1),
        company: Duration::from_millis(250),
    };
    const SUSPECT: u64 = 1;
    const SEQ: u16 = 77;

    fn id(n: u64) -> NodeId {
        NodeId::from_u64(n).unwrap()
    }

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    /// A suspicion in a cluster with so many others, numbered from 11 on.
    fn suspicions(others: u64) -> Suspicions {
        let mut all = Suspicions::default();
        let candidates = (11..11 + others).map(id).take(CANDIDATES).collect();
        let others = usize::try_from(others).unwrap();
        let about = (id(SUSPECT), Incarnation(3));
        all.begin(at(0), about, SEQ, (others, candidates), WAITS);
        all
    }

    fn asked(due: &Due) -> Vec<u64> {
        due.questions.iter().map(|question| question.to.as_u64()).collect()
    }

    /// Lets time pass until a verdict, at most until `end`.
    fn run(all: &mut Suspicions, end: Instant) -> (Option<(Instant, Verdict)>, Vec<u64>, u32) {
        let (mut questions, mut unheard) = (Vec::new(), 0);
        while let Some(now) = all.next_deadline().filter(|now| *now <= end) {
            let mut due = all.due(now, WAITS);
            questions.extend(asked(&due));
            unheard += due.unheard;
            if let Some(verdict) = due.verdicts.pop() {
                return (Some((now, verdict)), questions, unheard);
            }
        }
        (None, questions, unheard)
    }

    #[test]
    fn witnesses_that_saw_silence_and_this_node_itself_decide() {
        let mut all = suspicions(100);
        assert_eq!(asked(&all.due(at(0), WAITS)), [11, 12, 13, 14, 15]);
        for n in 11..=15 {
            all.handle_nack(at(5), id(n), SEQ, WAITS);
        }
        all.saw_itself(at(999), id(SUSPECT), Sight::Unreachable);
        for n in 11..=15 {
            assert!(all.due(at(1000), WAITS).verdicts.is_empty(), "{n}");
            all.handle_saw(at(1000), id(n), SEQ, Sight::Silence);
        }
        let verdict = all.due(at(1001), WAITS).verdicts.pop().unwrap();
        assert_eq!((verdict.target, verdict.own), (id(SUSPECT), Sight::Unreachable));
        assert_eq!(verdict.incarnation, Incarnation(3));
        assert_eq!(verdict.witnesses, [11, 12, 13, 14, 15].map(|n| (id(n), Sight::Silence)));
        assert_eq!((all.len(), all.next_deadline()), (0, None));
        all.check();
    }

    #[test]
    fn those_who_never_answer_are_not_waited_for_when_a_majority_has() {
        let mut all = suspicions(100);
        let _ = all.due(at(0), WAITS);
        all.saw_itself(at(1), id(SUSPECT), Sight::Unreachable);
        for n in [11, 12, 13] {
            all.handle_saw(at(2), id(n), SEQ, Sight::Unreachable);
        }
        let (verdict, questions, _) = run(&mut all, at(500));
        let (moment, verdict) = verdict.unwrap();
        assert!(moment > at(20) && moment < at(200), "{moment:?}");
        assert_eq!(verdict.witnesses.len(), 3);
        assert!(questions.iter().all(|n| [14, 15].contains(n)), "{questions:?}");
    }

    #[test]
    fn a_verdict_waits_a_moment_for_suspicions_that_are_still_open() {
        let mut all = suspicions(1);
        let other = (id(2), Incarnation(0));
        all.begin(at(100), other, SEQ + 1, (1, vec![id(11)]), WAITS);
        let _ = all.due(at(100), WAITS);
        all.saw_itself(at(1000), id(SUSPECT), Sight::Silence);
        all.handle_saw(at(1000), id(11), SEQ, Sight::Silence);
        assert!(all.due(at(1000), WAITS).verdicts.is_empty());
        assert!(!all.contains(id(SUSPECT)));
        all.saw_itself(at(1100), id(2), Sight::Silence);
        all.handle_saw(at(1100), id(11), SEQ + 1, Sight::Silence);
        assert_eq!(all.due(at(1100), WAITS).verdicts.len(), 2);
        assert_eq!(all.next_deadline(), None);
        // Nor is it passed when the suspect is heard meanwhile.
        let mut all = suspicions(1);
        all.begin(at(100), other, SEQ + 1, (1, vec![id(11)]), WAITS);
        let _ = all.due(at(100), WAITS);
        all.saw_itself(at(1000), id(SUSPECT), Sight::Silence);
        all.handle_saw(at(1000), id(11), SEQ, Sight::Silence);
        assert!(all.due(at(1000), WAITS).verdicts.is_empty());
        all.remove(id(SUSPECT));
        all.remove(id(2));
        assert_eq!(run(&mut all, at(9000)).0, None);
        // Not for ever.
        let mut all = suspicions(1);
        all.begin(at(100), other, SEQ + 1, (1, vec![id(11)]), WAITS);
        let _ = all.due(at(100), WAITS);
        all.saw_itself(at(1000), id(SUSPECT), Sight::Silence);
        all.handle_saw(at(1000), id(11), SEQ, Sight::Silence);
        let (moment, verdict) = run(&mut all, at(2000)).0.unwrap();
        assert_eq!((moment, verdict.target), (at(1250), id(SUSPECT)));
    }

    #[test]
    fn a_witness_that_heard_the_suspect_clears_it_and_nobody_else_does() {
        let mut all = suspicions(100);
        let _ = all.due(at(0), WAITS);
        assert_eq!(all.handle_ack(id(99), SEQ), None, "nobody asked it");
        assert_eq!(all.handle_ack(id(11), SEQ + 1), None, "of something else");
        assert_eq!(all.handle_ack(id(11), SEQ), Some(id(SUSPECT)));
        assert!(all.remove(id(SUSPECT)));
        assert_eq!(all.handle_ack(id(11), SEQ), None);
    }

    #[test]
    fn witnesses_that_do_not_answer_are_replaced() {
        let mut all = suspicions(100);
        let _ = all.due(at(0), WAITS);
        for n in 11..=13 {
            all.handle_nack(at(5), id(n), SEQ, WAITS);
        }
        let (verdict, questions, _) = run(&mut all, at(900));
        assert_eq!(verdict, None);
        assert_eq!(questions.iter().filter(|n| **n == 14).count(), 2, "asked three times in all");
        assert!(questions.contains(&16) && questions.contains(&17));
    }

    #[test]
    fn with_nobody_to_ask_it_takes_three_times_as_long() {
        let mut all = suspicions(0);
        all.saw_itself(at(1000), id(SUSPECT), Sight::Silence);
        assert_eq!(run(&mut all, at(2900)).0, None);
        let (moment, verdict) = run(&mut all, at(3500)).0.unwrap();
        assert!(moment >= at(3000) && verdict.witnesses.is_empty());
    }

    #[test]
    fn a_hint_of_the_kernel_stands_for_the_witnesses_that_are_not_there() {
        let mut all = suspicions(0);
        all.saw_itself(at(1), id(SUSPECT), Sight::Unreachable);
        all.hinted(id(SUSPECT));
        assert_eq!(run(&mut all, at(900)).0, None, "it does not decide alone");
        assert!(run(&mut all, at(1300)).0.is_some());
    }

    #[test]
    fn whom_nobody_answers_doubts_itself_first() {
        let mut all = suspicions(100);
        all.saw_itself(at(1000), id(SUSPECT), Sight::Silence);
        let (verdict, questions, unheard) = run(&mut all, at(2900));
        assert_eq!((verdict, unheard), (None, 1), "told once");
        assert!(questions.len() > CANDIDATES, "{questions:?}");
        let (moment, verdict) = run(&mut all, at(4000)).0.unwrap();
        assert!(moment >= at(3000) && verdict.witnesses.is_empty());
    }

    #[test]
    fn who_did_not_answer_is_asked_again_when_nobody_else_is_left() {
        let mut all = suspicions(1);
        let _ = all.due(at(0), WAITS);
        all.saw_itself(at(1000), id(SUSPECT), Sight::Silence);
        let (verdict, questions, _) = run(&mut all, at(2500));
        assert_eq!((verdict, questions), (None, vec![11, 11, 11]), "twice soon, then each second");
        all.handle_saw(at(2600), id(11), SEQ, Sight::Silence);
        assert_eq!(run(&mut all, at(2700)).0.unwrap().1.witnesses.len(), 1);
    }

    #[test]
    fn one_witness_alone_does_not_decide_where_there_should_be_more() {
        let mut all = suspicions(100);
        let _ = all.due(at(0), WAITS);
        all.saw_itself(at(1000), id(SUSPECT), Sight::Silence);
        all.handle_saw(at(1000), id(11), SEQ, Sight::Silence);
        assert_eq!(run(&mut all, at(2900)).0, None);
        let mut all = suspicions(1);
        let _ = all.due(at(0), WAITS);
        all.saw_itself(at(1000), id(SUSPECT), Sight::Silence);
        all.handle_saw(at(1000), id(11), SEQ, Sight::Silence);
        assert!(run(&mut all, at(1001)).0.is_some(), "of three nodes, two agree");
    }

    #[test]
    fn a_lost_word_of_a_witness_is_asked_for_again() {
        let mut all = suspicions(100);
        let _ = all.due(at(0), WAITS);
        (11..=15).for_each(|n| all.handle_nack(at(5), id(n), SEQ, WAITS));
        let (_, questions, _) = run(&mut all, at(1135));
        assert_eq!(questions, Vec::<u64>::new(), "they have time to watch");
        let (_, questions, _) = run(&mut all, at(1145));
        assert_eq!(questions, [11, 12, 13, 14, 15]);
    }

    #[test]
    fn what_was_found_while_cut_off_is_void() {
        let mut all = suspicions(1);
        all.saw_itself(at(1000), id(SUSPECT), Sight::Silence);
        all.begin(at(1000), (id(2), Incarnation(0)), SEQ + 1, (1, vec![id(11)]), WAITS);
        all.handle_saw(at(1000), id(11), SEQ, Sight::Silence);
        assert!(all.due(at(1000), WAITS).verdicts.is_empty(), "it waits for the other suspicion");
        all.clear();
        all.handle_saw(at(1001), id(11), SEQ + 1, Sight::Silence);
        assert_eq!((run(&mut all, at(9000)).0, all.len()), (None, 0));
        all.check();
    }

    #[test]
    fn how_many_must_have_seen_it() {
        let needed = |others| (wanted(others), majority(wanted(others)), credible(others));
        assert_eq!(needed(0), (0, 1, 0));
        assert_eq!(needed(1), (1, 1, 1));
        assert_eq!(needed(2), (2, 2, 2));
        assert_eq!(needed(3), (3, 2, 2));
        assert_eq!(needed(1000), (5, 3, 2));
    }
}
