//! What must always hold, beyond what the leaf modules check of themselves.

use super::super::Protocol;
use super::super::state::State;
use crate::node::NodeId;

impl Protocol {
    /// Checks every invariant that can be checked from outside of a turn: for tests and fuzzing.
    ///
    /// # Panics
    /// When one is broken.
    pub fn check(&self) {
        self.members.check();
        self.roles.check();
        self.suspicions.check();
        #[cfg(feature = "sim")]
        self.swim.accusations.check();
        for id in self.detector.targets().chain(self.suspicions.targets()) {
            assert!(self.members.live(id).is_some(), "only live peers are probed");
        }
        for (scope, table) in self.roles.scopes() {
            let members = self.members.peers().iter();
            let in_scope =
                |id: &&NodeId| self.members.live(**id).is_some_and(|member| member.is_in(scope));
            let listed: Vec<_> = members.filter(in_scope).copied().collect();
            assert_eq!(listed, table.peers(), "a scope lists the live members that say so");
        }
        for id in self.members.peers().iter().filter(|_| self.rules.classic.is_none()) {
            let state = self.members.live(*id).map(|member| member.state);
            let followed = state != Some(State::Suspect) || self.detector.follows(*id);
            assert!(followed, "whoever is disputed is looked at until that is settled");
        }
        for id in self.announcing.keys() {
            assert!(self.members.live(id).is_some_and(|member| !member.announced));
        }
    }
}
