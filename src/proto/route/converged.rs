//! A node that finds itself in a cluster which has been there for long: so that a simulation of
//! thousands need not begin with thousands of joins.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;

use super::super::fetch::Fetches;
use super::super::join::Joins;
use super::super::members::Acquaintance;
use super::super::piggyback::Piggyback;
use super::super::pull::Pulls;
use super::super::roles::RoleSet;
use super::super::timer::{Timer, TimerTable};
use super::super::{Phase, Protocol};
use crate::node::{Node, NodeId};
use crate::wire::ScopeId;

/// What everybody knows of a node, to be handed to [`Protocol::acquaint`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Introduction {
    run: Acquaintance,
    /// Its roles in each scope it is in.
    roles: Arc<[(ScopeId, Arc<RoleSet>)]>,
}

impl Introduction {
    /// The node that is introduced.
    pub fn node(&self) -> &Node {
        self.run.node()
    }

    /// The same node with the roles that it has later; its profile need not have changed.
    #[must_use]
    pub fn with_roles_of(mut self, later: Introduction) -> Introduction {
        self.roles = later.roles;
        self
    }
}

impl Protocol {
    /// What others would know of this node, had they known it for long.
    pub fn introduction(&self) -> Introduction {
        let own = |(scope, _)| Some((scope, self.roles.shared(scope, self.local)?));
        Introduction {
            run: self.members.local().acquaintance(),
            roles: self.roles.scopes().filter_map(own).collect(),
        }
    }

    /// Puts a node that has just been made, and has entered its scopes and taken its roles, into
    /// the state it would have if it had been in the cluster of `everybody` for long: all are live
    /// and announced, the roles of common scopes are known, nothing waits to be told or sent, and
    /// the timers stand at random phases. Its own introduction is skipped.
    ///
    /// `everybody` is sorted by [`NodeId`], and every name is there once. What is
    /// introduced is shared between all who are acquainted with it; that is what lets 10,000 nodes
    /// that know each other fit into one process, while a real process has a copy of its own.
    ///
    /// # Panics
    /// When the node knows others already, or `everybody` is not as said above.
    pub fn acquaint(&mut self, now: crate::time::Instant, everybody: &[Introduction]) {
        self.advance(now);
        assert!(self.members.peers().is_empty(), "only a node that knows nobody can be acquainted");
        let others = everybody.iter().filter(|it| it.node().id() != self.local);
        self.members.acquaint(others.clone().map(|it| &it.run));
        for other in others {
            for (scope, set) in other.roles.iter() {
                self.roles.acquaint(*scope, other.node().id(), set);
            }
        }
        self.phase = Phase::Synced;
        self.piggyback = Piggyback::default();
        self.fetches = Fetches::default();
        self.pulls = Pulls::default();
        self.joins = Joins::default();
        self.events.clear();
        self.outcomes.clear();
        self.outgoing.clear();
        self.scatter_timers();
        self.settle();
    }

    /// Probes this peer now, as in a round, whatever is under way.
    pub fn probe(&mut self, now: crate::time::Instant, peer: NodeId) {
        self.advance(now);
        let wait = self.config.probe_timeout();
        let number = self.detector.begin(self.now, peer, wait);
        let number = number.unwrap_or_else(|| self.free_seq());
        self.send_probe(peer, number);
        self.settle();
    }

    /// Sets the periodic timers to random phases, and no others.
    fn scatter_timers(&mut self) {
        self.timers = TimerTable::default();
        let phase = |interval: Duration| interval.mul_f64(self.rng.random_range(0.0..1.0));
        let config = &self.config;
        let intervals = [config.probe_interval, config.pull_interval, config.reconnect_interval];
        let [probe, pull, reconnect] = intervals.map(phase).map(|phase| self.now + phase);
        self.timers.set(Timer::Probe, Some(probe));
        self.timers.set(Timer::Pull, Some(pull));
        self.timers.set(Timer::Reconnect, Some(reconnect));
    }
}
