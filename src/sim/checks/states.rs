//! What a node holds runs to be: incarnations, states and which may follow which.

use std::collections::BTreeMap;

use super::Verdict;
use crate::node::NodeId;
use crate::proto::{Outcome, RunState, Sighting};
use crate::wire::frame::Incarnation;

/// A run's incarnation never falls, neither its own nor as others know it; and nobody knows a later
/// one than the run itself has taken.
#[derive(Debug, Default)]
pub struct Incarnations {
    own: BTreeMap<NodeId, Incarnation>,
    rises: u64,
}

impl Incarnations {
    pub(super) const NAME: &'static str = "incarnations";

    /// Rises that were seen, by the run itself or by others.
    pub fn exercised(&self) -> u64 {
        self.rises
    }

    /// What a run says of itself.
    ///
    /// # Errors
    /// When it fell.
    pub fn own(&mut self, now: &Sighting) -> Verdict {
        let known = self.own.entry(now.id).or_insert(now.incarnation);
        if now.incarnation < *known {
            return Err(format!("{} fell back from its {known:?} to {now:?}", now.id));
        }
        *known = now.incarnation;
        Ok(())
    }

    /// What somebody knows of a run, and knew of it before.
    ///
    /// # Errors
    /// When it fell, or is above what the run itself has taken.
    pub fn see(&mut self, before: Option<&Sighting>, now: &Sighting) -> Verdict {
        if self.own.get(&now.id).is_some_and(|own| now.incarnation > *own) {
            return Err(format!("nobody raised it so far: {now:?}, own {:?}", self.own[&now.id]));
        }
        let Some(before) = before else { return Ok(()) };
        if now.incarnation < before.incarnation {
            return Err(format!("{before:?}, then {now:?}"));
        }
        self.rises += u64::from(now.incarnation > before.incarnation);
        Ok(())
    }
}

/// Who is held failed is live again only at a higher incarnation, unless nobody else was told; who
/// has left or was replaced only in another life, while it is remembered.
#[derive(Debug, Default)]
pub struct Risen {
    rises: u64,
}

impl Risen {
    pub(super) const NAME: &'static str = "rising from the dead";

    /// Rises that were seen.
    pub fn exercised(&self) -> u64 {
        self.rises
    }

    /// What somebody knew of a run, and knows now.
    ///
    /// # Errors
    /// When it may not have risen.
    pub fn see(&mut self, before: &Sighting, now: &Sighting) -> Verdict {
        if before.state.is_live() || !now.state.is_live() {
            return Ok(());
        }
        let risen = now.incarnation > before.incarnation || before.private;
        let other_life = now.incarnation.life() > before.incarnation.life();
        if (before.state.is_final() && !other_life)
            || !risen
            || now.incarnation < before.incarnation
        {
            return Err(format!("{before:?}, then {now:?}"));
        }
        self.rises += 1;
        Ok(())
    }
}

/// What follows what: another life follows all; within one, a final state follows all that are
/// not, and replaced follows left; else a higher incarnation follows, and at the same one alive,
/// suspect, failed, in this order. Written down here once more, so that it does not follow the
/// protocol's own rule when that is wrong.
#[derive(Debug, Default)]
pub struct Transitions {
    seen: u64,
}

impl Transitions {
    pub(super) const NAME: &'static str = "state pairs";

    /// Changes of state that were seen.
    pub fn exercised(&self) -> u64 {
        self.seen
    }

    /// What somebody knew of a run, and knows now.
    ///
    /// # Errors
    /// When the second cannot follow the first, or a start stamp or a version fell.
    pub fn see(&mut self, before: &Sighting, now: &Sighting) -> Verdict {
        use RunState::{Alive, Failed, Left, Replaced, Suspect};
        if now.version < before.version || now.boot < before.boot {
            return Err(format!("{before:?}, then {now:?}"));
        }
        let later = now.incarnation > before.incarnation;
        let same = now.incarnation == before.incarnation;
        let legal = match (before.state, now.state) {
            // Another life: nothing of the one before holds.
            _ if now.incarnation.life() > before.incarnation.life() => true,
            (old, new) if old == new => later || same,
            (Left, Replaced) => same,
            (Left | Replaced, _) => false,
            // A refutation may have come just before, in the same turn.
            (_, Left | Replaced) | (Alive, Suspect | Failed) | (Suspect, Failed) => later || same,
            (Failed, _) if before.private => later || same,
            (Alive | Suspect | Failed, _) => later,
        };
        self.seen += u64::from(before.state != now.state);
        if legal { Ok(()) } else { Err(format!("{before:?}, then {now:?}")) }
    }
}

/// A live node never holds itself suspected or dead, whatever others say of it, and it does not
/// lose its name unless another run had it at the same time.
#[derive(Debug, Default)]
pub struct SelfBelief {
    objected: u64,
}

impl SelfBelief {
    pub(super) const NAME: &'static str = "a live node is alive";

    /// How often a run objected to being held suspect or dead.
    pub fn exercised(&self) -> u64 {
        self.objected
    }

    /// What a run knew of itself, and knows now.
    ///
    /// # Errors
    /// When it does not hold itself alive.
    pub fn see(&mut self, before: Option<&Sighting>, now: &Sighting) -> Verdict {
        if now.state != RunState::Alive || !now.announced {
            return Err(format!("it holds itself {now:?}"));
        }
        self.objected += u64::from(before.is_some_and(|old| old.incarnation < now.incarnation));
        Ok(())
    }

    /// What came of something; `contested` when its name was another live run's too.
    ///
    /// # Errors
    /// When it lost its name to nobody.
    pub fn outcome(&mut self, outcome: &Outcome, contested: bool) -> Verdict {
        match outcome {
            Outcome::NameTaken { holder, stopped: true } if !contested => {
                Err(format!("it lost its name to {holder}, though nobody else has it"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seen(state: RunState, incarnation: u32) -> Sighting {
        Sighting {
            id: NodeId::MIN,
            state,
            incarnation: Incarnation(incarnation),
            boot: 5,
            version: 2,
            announced: true,
            private: false,
        }
    }

    use RunState::{Alive, Failed, Left, Replaced, Suspect};

    #[test]
    fn incarnations_bite() {
        let mut checker = Incarnations::default();
        let (zero, one, two) = (seen(Alive, 0), seen(Alive, 1), seen(Alive, 2));
        checker.own(&zero).unwrap();
        checker.own(&one).unwrap();
        checker.see(Some(&zero), &one).unwrap();
        assert_eq!(checker.exercised(), 1);
        checker.see(Some(&one), &two).unwrap_err();
        checker.see(Some(&one), &zero).unwrap_err();
        checker.own(&zero).unwrap_err();
    }

    #[test]
    fn rising_bites() {
        let mut checker = Risen::default();
        checker.see(&seen(Failed, 1), &seen(Alive, 2)).unwrap();
        checker.see(&seen(Failed, 1), &seen(Suspect, 2)).unwrap();
        checker.see(&seen(Suspect, 1), &seen(Failed, 1)).unwrap();
        assert_eq!(checker.exercised(), 2);
        let private = Sighting { private: true, ..seen(Failed, 1) };
        checker.see(&private, &seen(Alive, 1)).unwrap();
        checker.see(&private, &seen(Alive, 0)).unwrap_err();
        checker.see(&seen(Failed, 1), &seen(Alive, 1)).unwrap_err();
        checker.see(&seen(Failed, 1), &seen(Suspect, 1)).unwrap_err();
        checker.see(&seen(Left, 1), &seen(Alive, 9)).unwrap_err();
        checker.see(&seen(Replaced, 1), &seen(Suspect, 9)).unwrap_err();
        checker.see(&seen(Left, 1), &seen(Alive, 1 << 16)).unwrap();
    }

    #[test]
    fn state_pairs_bite() {
        let mut checker = Transitions::default();
        for (before, now) in [
            (seen(Alive, 1), seen(Suspect, 1)),
            (seen(Suspect, 1), seen(Alive, 2)),
            (seen(Suspect, 1), seen(Failed, 1)),
            (seen(Failed, 1), seen(Suspect, 2)),
            (seen(Failed, 1), seen(Left, 1)),
            (seen(Left, 1), seen(Replaced, 1)),
        ] {
            checker.see(&before, &now).unwrap();
        }
        assert_eq!(checker.exercised(), 6);
        for (before, now) in [
            (seen(Suspect, 1), seen(Alive, 1)),
            (seen(Failed, 1), seen(Suspect, 1)),
            (seen(Left, 1), seen(Failed, 2)),
            (seen(Replaced, 1), seen(Left, 1)),
            (seen(Alive, 2), seen(Failed, 1)),
            (seen(Alive, 1), Sighting { version: 1, ..seen(Alive, 2) }),
            (seen(Alive, 1), Sighting { boot: 4, ..seen(Alive, 2) }),
        ] {
            checker.see(&before, &now).unwrap_err();
        }
    }

    #[test]
    fn self_belief_bites() {
        let mut checker = SelfBelief::default();
        checker.see(Some(&seen(Alive, 1)), &seen(Alive, 2)).unwrap();
        assert_eq!(checker.exercised(), 1);
        checker.see(None, &seen(Suspect, 1)).unwrap_err();
        checker.see(None, &seen(Left, 1)).unwrap_err();
        let holder = "10.0.0.1:1".parse().unwrap();
        let lost = Outcome::NameTaken { holder, stopped: true };
        checker.outcome(&lost, true).unwrap();
        checker.outcome(&lost, false).unwrap_err();
    }
}
