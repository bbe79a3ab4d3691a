//! Profiles that were refused because of a limit: which, so that they are not fetched again and
//! again, and what the user has been told of them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::node::NodeId;
use crate::time::Instant;

/// Refused profiles that are remembered.
pub(super) const MAX_REFUSALS: usize = 4096;

/// Of those remembered at one time, the user is told of so many: made-up runs cost nothing.
const MAX_TOLD: usize = 64;

/// A refused profile is remembered for so long.
const RETENTION: Duration = Duration::from_hours(1);

/// That there is no room for more runs is told at most so often, however often room comes and goes.
const FULL_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Refusal {
    version: u32,
    scopes: usize,
    at: Instant,
}

/// What was refused.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// Profiles with too many scopes.
    profiles: BTreeMap<NodeId, Refusal>,
    /// Whether a run was refused since there last was room for one.
    full: bool,
    /// When the user was last told of that.
    told_full: Option<Instant>,
    /// When ranges were last compared in spite of all that.
    compared: Option<Instant>,
}

impl Refused {
    /// A profile with so many scopes is refused; says whether the user is to be told.
    #[must_use]
    pub(super) fn refuse(
        &mut self,
        now: Instant,
        id: NodeId,
        (version, scopes): (u32, usize),
    ) -> bool {
        self.profiles.retain(|_, refusal| refusal.at + RETENTION > now);
        if let Some(known) = self.profiles.get_mut(&id) {
            if version >= known.version {
                *known = Refusal { version, scopes, at: known.at };
            }
            return false;
        }
        if self.profiles.len() >= MAX_REFUSALS {
            return false;
        }
        self.profiles.insert(id, Refusal { version, scopes, at: now });
        self.profiles.len() <= MAX_TOLD
    }

    /// Whether a profile of this version, or a later one, was refused and would be again.
    pub(super) fn has(&self, id: NodeId, version: u64, max_scopes: usize) -> bool {
        let refusal = self.profiles.get(&id);
        refusal.is_some_and(|it| u64::from(it.version) >= version && it.scopes > max_scopes)
    }

    /// A profile of this version has no more scopes than it may.
    pub(super) fn settle(&mut self, id: NodeId, version: u32) {
        if self.profiles.get(&id).is_some_and(|it| it.version <= version) {
            self.profiles.remove(&id);
        }
    }

    /// The run is forgotten.
    pub(super) fn forget(&mut self, id: NodeId) {
        self.profiles.remove(&id);
    }

    /// There is no room for another run; says whether the user is to be told.
    #[must_use]
    pub(super) fn refuse_run(&mut self, now: Instant) -> bool {
        let lately = self.told_full.is_some_and(|at| at + FULL_INTERVAL > now);
        if std::mem::replace(&mut self.full, true) || lately {
            return false;
        }
        self.told_full = Some(now);
        true
    }

    /// There was room for a run.
    pub(super) fn had_room(&mut self) {
        self.full = false;
    }

    #[cfg(feature = "sim")]
    pub(super) fn len(&self) -> usize {
        self.profiles.len()
    }

    /// Whether there is any profile that others keep and this node does not.
    pub(super) fn any(&self) -> bool {
        !self.profiles.is_empty()
    }

    /// Whether ranges may be compared again, after this pause.
    #[must_use]
    pub(super) fn may_compare(&mut self, now: Instant, pause: Duration) -> bool {
        let may = self.compared.is_none_or(|at| at + pause <= now);
        if may {
            self.compared = Some(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> NodeId {
        NodeId::from_u64(n).unwrap()
    }

    #[test]
    fn a_flood_of_profiles_is_told_of_a_bounded_number_of_times() {
        let (mut refusals, mut now) = (Refused::default(), Instant::ORIGIN);
        let told = (1..10_000).filter(|n| refusals.refuse(now, id(*n), (1, 300))).count();
        assert_eq!((told, refusals.profiles.len()), (MAX_TOLD, MAX_REFUSALS));
        assert!(refusals.has(id(1), 1, 256) && !refusals.has(id(1), 2, 256));
        assert!(!refusals.has(id(1), 1, 300), "it would fit");
        now += RETENTION;
        assert!(refusals.refuse(now, id(1), (1, 300)));
        assert_eq!(refusals.profiles.len(), 1);
        refusals.forget(id(1));
        assert!(!refusals.any());
    }

    #[test]
    fn a_later_version_of_a_refused_profile_is_not_told_again() {
        let (mut refusals, now) = (Refused::default(), Instant::ORIGIN);
        assert!(refusals.refuse(now, id(1), (4, 300)));
        assert!(!refusals.refuse(now, id(1), (5, 301)));
        assert!(!refusals.refuse(now, id(1), (3, 2)));
        assert!(refusals.has(id(1), 5, 300));
        refusals.settle(id(1), 3);
        assert!(refusals.any(), "an earlier version changes nothing");
        refusals.settle(id(1), 6);
        assert!(!refusals.any());
    }

    #[test]
    fn that_there_is_no_room_is_told_once_until_there_was_and_not_too_often() {
        let (mut refusals, mut now) = (Refused::default(), Instant::ORIGIN);
        assert!(refusals.refuse_run(now));
        now += FULL_INTERVAL;
        assert!(!refusals.refuse_run(now), "there was no room meanwhile");
        refusals.had_room();
        assert!(refusals.refuse_run(now));
        refusals.had_room();
        assert!(!refusals.refuse_run(now), "moments ago");
    }
}
