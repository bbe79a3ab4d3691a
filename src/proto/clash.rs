//! Two runs claim one name: the older run is asked. If it answers, the name is its; if it stays
//! silent, the newer run has it (a rescheduled pod), provided that this one answers. What is only
//! heard of a run, even from itself, may be an echo of a former one; so both are asked, and only
//! answers to these questions prove anything.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::node::{NodeId, NodeName};
use crate::time::Instant;
use crate::wire::frame::{Boot, Profile};

/// Names in dispute at one time; further challengers are told to wait.
pub(super) const MAX_CLASHES: usize = 256;

/// The same conflict is told that often at most.
const PAUSE_BETWEEN_NEWS: Duration = Duration::from_mins(1);

/// How many times as long as the question took its answer is remembered.
const MEMORY: u32 = 10;

/// The first question about a run that is said to be where the listed one is waits for this share
/// of the time for an answer.
const ECHO_SHARE: u32 = 40;

/// Questions to the older run within the time it has to answer.
const QUESTIONS: u32 = 4;

/// One of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Claimant {
    pub(super) id: NodeId,
    pub(super) addr: SocketAddr,
    pub(super) boot: Boot,
}

/// What is known of a dispute.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// The older run is being asked.
    Open,
    /// It answered, or lost, a short while ago: the member that was listed keeps the name.
    Kept,
}

/// A dispute that is decided.
#[must_use]
#[expect(clippy::struct_excessive_bools, reason = "each says something else")]
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) name: NodeName,
    pub(super) listed: Claimant,
    pub(super) challenger: Claimant,
    /// The challenger's profile, if it has been heard.
    pub(super) profile: Option<Profile>,
    pub(super) challenger_wins: bool,
    /// Whether the older run answered.
    pub(super) answered: bool,
    /// Whether the listed run has proved that it lives.
    pub(super) listed_lives: bool,
    /// Whether the challenger has, so that what it wins it wins for good.
    pub(super) challenger_lives: bool,
}

#[derive(Debug)]
struct Clash {
    listed: Claimant,
    challenger: Claimant,
    profile: Option<Profile>,
    asked: Claimant,
    listed_lives: bool,
    challenger_lives: bool,
    /// The numbers of the questions.
    questions: Vec<u16>,
    ask_at: Instant,
    pause: Duration,
    deadline: Instant,
    kept: bool,
}

/// All names in dispute.
#[derive(Debug, Default)]
pub(super) struct Clashes {
    by_name: BTreeMap<NodeName, Clash>,
    /// Names that two runs have, with the address of the one that is ignored: when it was told.
    told: BTreeMap<(NodeName, SocketAddr), Instant>,
}

impl Clashes {
    /// A run that is not listed claims the name of one that is, or is said to. It is `proven` if it
    /// is known to live.
    pub(super) fn challenge(
        &mut self,
        now: Instant,
        timeout: Duration,
        name: &NodeName,
        (listed, challenger): (Claimant, Claimant),
        profile: Option<&Profile>,
        proven: bool,
    ) -> Standing {
        if let Some(clash) = self.by_name.get_mut(name)
            && clash.challenger.id == challenger.id
            && clash.listed.id == listed.id
            && clash.challenger.boot == challenger.boot
        {
            clash.profile = profile.cloned().or(clash.profile.take());
            clash.challenger_lives |= proven;
            return if clash.kept { Standing::Kept } else { Standing::Open };
        }
        let full = self.by_name.len() >= MAX_CLASHES && !self.by_name.contains_key(name);
        let busy = self.by_name.get(name).is_some_and(|clash| !clash.kept);
        if full || busy {
            return Standing::Open;
        }
        let moved = challenger.addr != listed.addr;
        let asked = if challenger.boot < listed.boot { challenger } else { listed };
        self.by_name.insert(
            name.clone(),
            Clash {
                listed,
                challenger,
                profile: profile.cloned(),
                asked,
                listed_lives: false,
                challenger_lives: proven,
                questions: Vec::new(),
                // Hearsay of a run that took the other's place is followed by word of that, mostly
                // in the same datagram.
                ask_at: if moved { now } else { now + timeout / ECHO_SHARE },
                pause: timeout / QUESTIONS,
                deadline: now + timeout,
                kept: false,
            },
        );
        Standing::Open
    }

    /// Whether it is to be told now that somebody claims another's name.
    pub(super) fn is_news(&mut self, now: Instant, name: &NodeName, by: SocketAddr) -> bool {
        self.told.retain(|_, told| now < *told + PAUSE_BETWEEN_NEWS);
        let conflict = (name.clone(), by);
        let news = self.told.len() < MAX_CLASHES && !self.told.contains_key(&conflict);
        if news {
            self.told.insert(conflict, now);
        }
        news
    }

    /// Claimants to be asked now, each with the number of its question.
    pub(super) fn due_questions(
        &mut self,
        now: Instant,
        mut number: impl FnMut() -> u16,
    ) -> Vec<(Claimant, u16)> {
        let mut due = Vec::new();
        for clash in self.by_name.values_mut().filter(|clash| !clash.kept) {
            if clash.ask_at <= now && clash.deadline > now {
                clash.ask_at = now + clash.pause;
                for claimant in [clash.listed, clash.challenger] {
                    let number = number();
                    clash.questions.push(number);
                    due.push((claimant, number));
                }
            }
        }
        due
    }

    /// A run has answered: it lives. Where one of the two is, the other cannot be.
    pub(super) fn handle_answer(
        &mut self,
        now: Instant,
        from: NodeId,
        number: u16,
    ) -> Option<Decision> {
        let open = |clash: &Clash| !clash.kept && clash.questions.contains(&number);
        let (name, clash) = self.by_name.iter_mut().find(|(_, clash)| open(clash))?;
        if clash.listed.id == from {
            clash.listed_lives = true;
        } else if clash.challenger.id == from {
            clash.challenger_lives = true;
        } else {
            return None;
        }
        let decides = clash.asked.id == from || clash.challenger.addr == clash.listed.addr;
        let name = name.clone();
        decides.then(|| self.decide(now, name, from, true))
    }

    /// A dispute whose older run stayed silent.
    pub(super) fn take_silent(&mut self, now: Instant) -> Option<Decision> {
        self.by_name.retain(|_, clash| !clash.kept || clash.deadline > now);
        let (name, clash) = self.by_name.iter().find(|(_, clash)| clash.deadline <= now)?;
        let (name, asked) = (name.clone(), clash.asked.id);
        let won = asked == clash.listed.id && clash.challenger_lives;
        let winner = if won { clash.challenger.id } else { clash.listed.id };
        Some(self.decide(now, name, winner, false))
    }

    /// The run that was listed is not alive any more: a newer one that challenged it has the name,
    /// unless that went to a third run already. An older one proves nothing by that: who was
    /// listed may just be cut off.
    pub(super) fn listed_died(
        &mut self,
        now: Instant,
        listed: NodeId,
        replaced_by: Option<NodeId>,
    ) -> Option<Decision> {
        let heir = |clash: &Clash| {
            let newer = clash.challenger.boot >= clash.listed.boot;
            newer && replaced_by.is_none_or(|by| by == clash.challenger.id)
        };
        self.by_name.retain(|_, clash| clash.listed.id != listed || (!clash.kept && heir(clash)));
        let mut clashes = self.by_name.iter();
        let (name, clash) = clashes.find(|(_, clash)| clash.listed.id == listed)?;
        let (name, winner) = (name.clone(), clash.challenger.id);
        Some(self.decide(now, name, winner, false))
    }

    fn decide(&mut self, now: Instant, name: NodeName, winner: NodeId, answered: bool) -> Decision {
        let clash = self.by_name.get_mut(&name).expect("callers found it");
        let (listed, challenger) = (clash.listed, clash.challenger);
        let (listed_lives, challenger_lives) = (clash.listed_lives, clash.challenger_lives);
        let profile = clash.profile.take();
        let challenger_wins = winner == challenger.id;
        if challenger_wins {
            self.by_name.remove(&name);
        } else {
            clash.kept = true;
            clash.deadline = now + clash.pause * QUESTIONS * MEMORY;
        }
        Decision {
            name,
            listed,
            challenger,
            profile,
            challenger_wins,
            answered,
            listed_lives,
            challenger_lives,
        }
    }

    #[cfg(feature = "sim")]
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let next = |clash: &Clash| {
            if clash.kept { clash.deadline } else { clash.ask_at.min(clash.deadline) }
        };
        self.by_name.values().map(next).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    fn claimant(n: u64) -> Claimant {
        let addr = SocketAddr::from(([127, 0, 0, 1], u16::try_from(n).unwrap()));
        Claimant { id: NodeId::from_u64(n).unwrap(), addr, boot: Boot(n) }
    }

    fn numbers() -> impl FnMut() -> u16 {
        let mut last = 0;
        move || {
            last += 1;
            last
        }
    }

    fn challenge(clashes: &mut Clashes, now: Instant, listed: u64, challenger: u64) -> Standing {
        let name = NodeName::new("a").unwrap();
        clashes.challenge(now, TIMEOUT, &name, (claimant(listed), claimant(challenger)), None, true)
    }

    #[test]
    fn an_answer_keeps_the_name_and_is_remembered() {
        let mut clashes = Clashes::default();
        let now = Instant::ORIGIN;
        assert_eq!(challenge(&mut clashes, now, 1, 2), Standing::Open);
        let asked = clashes.due_questions(now, numbers());
        assert_eq!(asked, vec![(claimant(1), 1), (claimant(2), 2)]);
        assert!(clashes.handle_answer(now, claimant(2).id, 2).is_none());
        assert!(clashes.handle_answer(now, claimant(1).id, 77).is_none(), "an old answer");
        let decision = clashes.handle_answer(now, claimant(1).id, 1).unwrap();
        assert!(!decision.challenger_wins && decision.challenger_lives);
        assert_eq!(challenge(&mut clashes, now, 1, 2), Standing::Kept);
        assert!(clashes.take_silent(now + TIMEOUT * (MEMORY + 1)).is_none());
        assert_eq!(clashes.next_deadline(), None);
    }

    #[test]
    fn who_is_only_heard_of_wins_nothing_by_silence() {
        let mut clashes = Clashes::default();
        let now = Instant::ORIGIN;
        let (name, both) = (NodeName::new("a").unwrap(), (claimant(1), claimant(2)));
        let mut hearsay = || clashes.challenge(now, TIMEOUT, &name, both, None, false);
        assert_eq!(hearsay(), Standing::Open);
        assert_eq!(clashes.due_questions(now, numbers()).len(), 2);
        let decision = clashes.take_silent(now + TIMEOUT).unwrap();
        assert!(!decision.challenger_wins && !decision.listed_lives);
        clashes = Clashes::default();
        let mut hearsay = || clashes.challenge(now, TIMEOUT, &name, both, None, false);
        assert_eq!(hearsay(), Standing::Open);
        assert_eq!(clashes.due_questions(now, numbers()).len(), 2);
        assert!(clashes.handle_answer(now, claimant(2).id, 2).is_none());
        assert!(clashes.take_silent(now + TIMEOUT).unwrap().challenger_wins);
    }

    #[test]
    fn silence_gives_the_name_to_the_newer_run() {
        let mut clashes = Clashes::default();
        let now = Instant::ORIGIN;
        assert_eq!(challenge(&mut clashes, now, 1, 2), Standing::Open);
        assert!(clashes.take_silent(now + TIMEOUT / 2).is_none());
        assert!(clashes.take_silent(now + TIMEOUT).unwrap().challenger_wins);
    }

    #[test]
    fn the_death_of_the_listed_run_helps_only_a_newer_challenger() {
        let mut clashes = Clashes::default();
        let now = Instant::ORIGIN;
        assert_eq!(challenge(&mut clashes, now, 5, 2), Standing::Open);
        assert!(clashes.listed_died(now, claimant(5).id, None).is_none());
        assert_eq!(challenge(&mut clashes, now, 5, 7), Standing::Open);
        assert!(clashes.listed_died(now, claimant(5).id, None).unwrap().challenger_wins);
    }

    #[test]
    fn an_older_challenger_is_the_one_that_is_asked() {
        let mut clashes = Clashes::default();
        let now = Instant::ORIGIN;
        assert_eq!(challenge(&mut clashes, now, 5, 2), Standing::Open);
        assert_eq!(clashes.due_questions(now, numbers()).len(), 2);
        assert!(clashes.handle_answer(now, claimant(5).id, 1).is_none());
        assert!(clashes.handle_answer(now, claimant(2).id, 2).unwrap().challenger_wins);
        assert_eq!(challenge(&mut clashes, now, 5, 2), Standing::Open);
        assert!(!clashes.take_silent(now + TIMEOUT).unwrap().challenger_wins);
    }
}
