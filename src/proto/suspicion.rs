//! Suspicions and their deadlines.
//!
//! ```text
//!            accusation by X                     accusation by Y, Z (independent)
//!   alive ---------------------> suspected ------------------------------------+
//!     ^                             |  ^------ deadline shrinks from max to min +
//!     | refutation                  | deadline
//!     +-----------------------------+-------------> verdict: failed
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::Config;
use crate::node::NodeId;
use crate::time::Instant;
use crate::wire::frame::Incarnation;

use super::timer::Deadlines;

/// Independent confirmations that bring the deadline down to its minimum (Lifeguard's K, section
/// V: 3).
const CONFIRMATIONS: usize = 3;

/// Accusers that are remembered as witnesses, the first among them.
const MAX_ACCUSERS: usize = 8;

/// A member that is suspected.
#[derive(Clone, Debug)]
pub(super) struct Suspicion {
    pub(super) incarnation: Incarnation,
    /// The first is the accuser, the others confirmed.
    pub(super) accusers: Vec<NodeId>,
    started: Instant,
    min: Duration,
    max: Duration,
    needed: usize,
}

impl Suspicion {
    /// Lifeguard, section IV.B: `max - (max - min) * log(C + 1) / log(K + 1)`, at least `min`.
    #[expect(clippy::cast_precision_loss, reason = "both counts are at most 8")]
    fn deadline(&self) -> Instant {
        let confirmed = self.accusers.len() - 1;
        if confirmed >= self.needed {
            return self.started + self.min;
        }
        let share = ((confirmed + 1) as f64).ln() / ((self.needed + 1) as f64).ln();
        let shrunk = self.max.saturating_sub(self.max.saturating_sub(self.min).mul_f64(share));
        self.started + shrunk.max(self.min)
    }
}

/// What an accusation did.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Accused {
    /// It began a suspicion.
    New,
    /// It confirmed one: worth passing on.
    Confirmed,
    /// Nothing new.
    Known,
}

/// All suspicions that this node holds.
#[derive(Debug, Default)]
pub(super) struct Suspicions {
    by_node: BTreeMap<NodeId, Suspicion>,
    deadlines: Deadlines<NodeId>,
}

impl Suspicions {
    /// Records an accusation in a cluster of `alive` live nodes (this one included).
    pub(super) fn accuse(
        &mut self,
        now: Instant,
        config: &Config,
        alive: usize,
        (id, incarnation): (NodeId, Incarnation),
        by: NodeId,
    ) -> Accused {
        if let Some(held) = self.by_node.get_mut(&id)
            && held.incarnation >= incarnation
        {
            let known = held.incarnation > incarnation || held.accusers.contains(&by);
            if known || held.accusers.len() == MAX_ACCUSERS {
                return Accused::Known;
            }
            held.accusers.push(by);
            self.deadlines.set(id, held.deadline());
            return Accused::Confirmed;
        }
        let min = min_timeout(config, alive);
        let suspicion = Suspicion {
            incarnation,
            accusers: vec![by],
            started: now,
            min,
            max: min * config.suspicion_max_mult,
            // Neither the suspect nor its accuser can confirm.
            needed: CONFIRMATIONS.min(alive.saturating_sub(2)),
        };
        self.deadlines.set(id, suspicion.deadline());
        self.by_node.insert(id, suspicion);
        Accused::New
    }

    /// Ends a suspicion, whatever it came to.
    pub(super) fn remove(&mut self, id: NodeId) -> Option<Suspicion> {
        self.deadlines.clear(id);
        self.by_node.remove(&id)
    }

    /// A suspicion whose deadline has passed; the caller declares the verdict and removes it.
    pub(super) fn expired(&self, now: Instant) -> Option<(NodeId, Incarnation)> {
        let id = *self.deadlines.due(now).first()?;
        Some((id, self.by_node[&id].incarnation))
    }

    pub(super) fn of(&self, id: NodeId) -> Option<&Suspicion> {
        self.by_node.get(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.by_node.len()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// What must always hold.
    #[cfg(any(test, debug_assertions, feature = "sim"))]
    pub(super) fn check(&self) {
        let first = self.by_node.values().map(Suspicion::deadline).min();
        assert_eq!(self.deadlines.next(), first, "the first deadline is a suspicion's");
        assert!(self.deadlines.keys().eq(self.by_node.keys().copied()));
    }
}

/// `alpha * max(1, log10 n) * probe_interval` (Lifeguard, section V, after SWIM's dissemination
/// bound).
#[expect(clippy::cast_precision_loss, reason = "a node count is far below 2^52")]
fn min_timeout(config: &Config, alive: usize) -> Duration {
    let scale = (alive.max(1) as f64).log10().max(1.0);
    (config.probe_interval * config.suspicion_mult).mul_f64(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> NodeId {
        NodeId::from_u64(n).unwrap()
    }

    #[test]
    fn confirmations_shrink_the_deadline_from_max_to_min() {
        let config = Config::lan();
        let mut all = Suspicions::default();
        let victim = (id(9), Incarnation(0));
        let start = Instant::ORIGIN;
        assert_eq!(all.accuse(start, &config, 10, victim, id(1)), Accused::New);
        assert_eq!(all.next_deadline().unwrap() - start, Duration::from_secs(24));
        assert_eq!(all.accuse(start, &config, 10, victim, id(1)), Accused::Known);
        assert_eq!(all.accuse(start, &config, 10, victim, id(2)), Accused::Confirmed);
        let one = all.next_deadline().unwrap() - start;
        assert!(one < Duration::from_secs(24) && one > Duration::from_secs(4), "{one:?}");
        assert_eq!(all.accuse(start, &config, 10, victim, id(3)), Accused::Confirmed);
        assert_eq!(all.accuse(start, &config, 10, victim, id(4)), Accused::Confirmed);
        assert_eq!(all.next_deadline().unwrap() - start, Duration::from_secs(4));
        assert_eq!(all.expired(start + Duration::from_secs(3)), None);
        assert_eq!(all.expired(start + Duration::from_secs(4)), Some(victim));
    }

    #[test]
    fn with_two_nodes_nobody_can_confirm_and_the_minimum_holds() {
        let config = Config::lan();
        let mut all = Suspicions::default();
        let accused = all.accuse(Instant::ORIGIN, &config, 2, (id(9), Incarnation(0)), id(1));
        assert_eq!(accused, Accused::New);
        assert_eq!(all.next_deadline(), Some(Instant::ORIGIN + Duration::from_secs(4)));
    }

    #[test]
    fn a_newer_incarnation_starts_over() {
        let config = Config::lan();
        let mut all = Suspicions::default();
        let start = Instant::ORIGIN;
        assert_eq!(all.accuse(start, &config, 10, (id(9), Incarnation(1)), id(1)), Accused::New);
        assert_eq!(all.accuse(start, &config, 10, (id(9), Incarnation(0)), id(2)), Accused::Known);
        assert_eq!(all.accuse(start, &config, 10, (id(9), Incarnation(2)), id(2)), Accused::New);
        assert_eq!(all.of(id(9)).unwrap().accusers, vec![id(2)]);
    }
}
