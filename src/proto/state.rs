//! What is claimed of a run, and which of two claims wins.

use crate::wire::frame::Incarnation;

/// One claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Alive,
    Suspect,
    Failed,
    Left,
    Replaced,
}

impl State {
    pub(super) const fn is_live(self) -> bool {
        matches!(self, State::Alive | State::Suspect)
    }

    /// Nothing is known to follow: the run said goodbye, or another has its name.
    pub(super) const fn is_final(self) -> bool {
        matches!(self, State::Left | State::Replaced)
    }

    const fn rank(self) -> u8 {
        self as u8
    }
}

/// The precedence rule (SWIM, section 4.2, with two final states added): a final state beats all
/// that are not, and `Replaced` beats `Left`; otherwise the higher incarnation wins, and at equal
/// incarnations the graver claim. All that within one life: a run which lives although it is said
/// to have left, or to have lost its name, starts another, and that beats everything before.
///
/// Deviation from SWIM, where "confirm" beats every incarnation: a run that was declared failed by
/// mistake refutes that with a higher incarnation and is back, without a new identity.
pub(super) const fn supersedes(new: (State, Incarnation), old: (State, Incarnation)) -> bool {
    let (new_life, old_life) = (new.1.life(), old.1.life());
    if new_life != old_life {
        return new_life > old_life;
    }
    if new.0.is_final() || old.0.is_final() {
        return new.0.is_final() && new.0.rank() > old.0.rank();
    }
    let (new_number, old_number) = (new.1.0, old.1.0);
    new_number > old_number || (new_number == old_number && new.0.rank() > old.0.rank())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 5] =
        [State::Alive, State::Suspect, State::Failed, State::Left, State::Replaced];

    fn all_claims() -> impl Iterator<Item = (State, Incarnation)> {
        STATES.into_iter().flat_map(|state| (0..3).map(move |n| (state, Incarnation(n))))
    }

    #[test]
    fn precedence_is_a_strict_order_over_its_whole_space() {
        for a in all_claims() {
            assert!(!supersedes(a, a), "{a:?}");
            for b in all_claims() {
                assert!(!(supersedes(a, b) && supersedes(b, a)), "{a:?} {b:?}");
                let same = a == b || (a.0 == b.0 && a.0.is_final());
                assert!(same || supersedes(a, b) || supersedes(b, a), "{a:?} {b:?}");
                for c in all_claims() {
                    if supersedes(a, b) && supersedes(b, c) {
                        assert!(supersedes(a, c), "{a:?} {b:?} {c:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn precedence_is_swims() {
        let claim = |state, n| (state, Incarnation(n));
        assert!(supersedes(claim(State::Suspect, 1), claim(State::Alive, 1)));
        assert!(!supersedes(claim(State::Alive, 1), claim(State::Suspect, 1)));
        assert!(supersedes(claim(State::Alive, 2), claim(State::Suspect, 1)));
        assert!(supersedes(claim(State::Failed, 1), claim(State::Suspect, 1)));
        assert!(!supersedes(claim(State::Failed, 0), claim(State::Alive, 1)));
        assert!(supersedes(claim(State::Alive, 2), claim(State::Failed, 1)));
        assert!(supersedes(claim(State::Left, 0), claim(State::Alive, 9)));
        assert!(!supersedes(claim(State::Alive, 9), claim(State::Left, 0)));
    }
}
