//! The receipt: who has this node's changes in a scope up to a generation. Members say so when they
//! are asked; nobody is assumed to.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::node::{Generation, NodeId};
use crate::time::Instant;
use crate::wire::ScopeId;

/// Receipts waited for at one time.
pub(super) const MAX_WAITERS: usize = 1024;

/// Somebody waits for a receipt.
#[derive(Debug)]
struct Waiter {
    token: u64,
    scope: ScopeId,
    generation: Generation,
    deadline: Instant,
}

/// A receipt: who has the generation, and who has not said so.
#[must_use]
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Receipt {
    pub(super) token: u64,
    pub(super) reached: Vec<NodeId>,
    pub(super) missing: Vec<NodeId>,
}

/// What peers have said that they have, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    said: BTreeMap<ScopeId, BTreeMap<NodeId, Generation>>,
    waiters: Vec<Waiter>,
    ask_at: Option<Instant>,
}

impl Receipts {
    /// Waits for `timeout` at most, and asks whoever has not said so by `ask_at`; false when too
    /// many wait already.
    #[must_use]
    pub(super) fn wait(
        &mut self,
        (now, ask_at): (Instant, Instant),
        timeout: Duration,
        token: u64,
        (scope, generation): (ScopeId, Generation),
    ) -> bool {
        if self.waiters.len() >= MAX_WAITERS {
            return false;
        }
        self.waiters.push(Waiter { token, scope, generation, deadline: now + timeout });
        self.ask_at = Some(self.ask_at.map_or(ask_at, |at| at.min(ask_at)));
        true
    }

    /// A peer says which generation it has.
    pub(super) fn handle_has(&mut self, from: NodeId, scope: ScopeId, generation: Generation) {
        if !self.waiters.iter().any(|waiter| waiter.scope == scope) {
            return;
        }
        let said = self.said.entry(scope).or_default().entry(from).or_default();
        *said = generation.max(*said);
    }

    /// Members of scopes to be asked now, if it is time.
    pub(super) fn due_asks(
        &mut self,
        now: Instant,
        retry: Duration,
        peers: impl Fn(ScopeId) -> Vec<NodeId>,
    ) -> Vec<(ScopeId, NodeId)> {
        if self.ask_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.ask_at = Some(now + retry);
        let mut asks: Vec<(ScopeId, NodeId)> = Vec::new();
        for waiter in &self.waiters {
            let open = peers(waiter.scope).into_iter().filter(|id| !self.has(waiter, *id));
            asks.extend(open.map(|id| (waiter.scope, id)));
        }
        asks.sort_unstable();
        asks.dedup();
        asks
    }

    /// A receipt that is complete, or whose time is up.
    pub(super) fn take_done(
        &mut self,
        now: Instant,
        peers: impl Fn(ScopeId) -> Vec<NodeId>,
    ) -> Option<Receipt> {
        let over = |waiter: &Waiter| {
            waiter.deadline <= now || peers(waiter.scope).iter().all(|id| self.has(waiter, *id))
        };
        let at = self.waiters.iter().position(over)?;
        let waiter = self.waiters.swap_remove(at);
        let (reached, missing) =
            peers(waiter.scope).into_iter().partition(|id| self.has(&waiter, *id));
        if self.waiters.is_empty() {
            self.said.clear();
            self.ask_at = None;
        }
        Some(Receipt { token: waiter.token, reached, missing })
    }

    fn has(&self, waiter: &Waiter, id: NodeId) -> bool {
        let said = self.said.get(&waiter.scope).and_then(|said| said.get(&id));
        said.is_some_and(|generation| *generation >= waiter.generation)
    }

    #[cfg(feature = "sim")]
    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let deadlines = self.waiters.iter().map(|waiter| waiter.deadline);
        deadlines.chain(self.ask_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_counts_only_those_who_said_so() {
        let mut receipts = Receipts::default();
        let scope = ScopeId::of("s");
        let ids: Vec<NodeId> = (1..=3).filter_map(NodeId::from_u64).collect();
        let peers = |_| ids.clone();
        let (now, timeout) = (Instant::ORIGIN, Duration::from_secs(1));
        let two = Generation::from_u64(2);
        receipts.handle_has(ids[0], scope, two);
        assert!(receipts.wait((now, now), timeout, 9, (scope, two)));
        assert_eq!(receipts.due_asks(now, timeout / 10, peers).len(), 3);
        assert!(receipts.due_asks(now, timeout / 10, peers).is_empty());
        receipts.handle_has(ids[0], scope, two);
        receipts.handle_has(ids[1], scope, Generation::from_u64(1));
        assert_eq!(receipts.take_done(now, peers), None);
        assert_eq!(receipts.due_asks(now + timeout / 10, timeout / 10, peers).len(), 2);
        let receipt = receipts.take_done(now + timeout, peers).unwrap();
        assert_eq!(receipt.reached, vec![ids[0]]);
        assert_eq!(receipt.missing, ids[1..]);
        assert_eq!(receipts.next_deadline(), None);
    }
}
