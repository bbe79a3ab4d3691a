//! The table of all runs that this node knows, living and remembered dead, and the rule of which
//! claim about a run wins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::node::{Node, NodeId, NodeName};
use crate::time::Instant;
use crate::wire::frame::{Boot, Incarnation, Membership, Profile, Summary};
use crate::wire::limits::{MAX_DEAD, MAX_NODES};
use crate::wire::{ScopeId, entry_hash};

/// What is claimed of a run.
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
/// incarnations the graver claim.
///
/// Deviation from SWIM, where "confirm" beats every incarnation: a run that was declared failed by
/// mistake refutes that with a higher incarnation and is back, without a new identity.
pub(super) const fn supersedes(new: (State, Incarnation), old: (State, Incarnation)) -> bool {
    if new.0.is_final() || old.0.is_final() {
        return new.0.is_final() && new.0.rank() > old.0.rank();
    }
    let (new_number, old_number) = (new.1.0, old.1.0);
    new_number > old_number || (new_number == old_number && new.0.rank() > old.0.rank())
}

/// One run.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) node: Node,
    pub(super) boot: Boot,
    pub(super) version: u32,
    pub(super) incarnation: Incarnation,
    pub(super) state: State,
    /// Whether the user has been told that it is up.
    pub(super) announced: bool,
    pub(super) scopes: Arc<[Membership]>,
    /// When a datagram last came from it directly.
    pub(super) last_heard: Option<Instant>,
    /// Who replaced it, or who accused it, once it is dead.
    pub(super) by: Option<NodeId>,
    died: Option<Instant>,
}

/// What is known of a run by those who have known it for long.
#[cfg(feature = "sim")]
#[derive(Clone, Debug)]
pub(super) struct Acquaintance {
    pub(super) node: Node,
    boot: Boot,
    version: u32,
    incarnation: Incarnation,
    scopes: Arc<[Membership]>,
}

impl Member {
    #[cfg(feature = "sim")]
    pub(super) fn acquaintance(&self) -> Acquaintance {
        Acquaintance {
            node: self.node.clone(),
            boot: self.boot,
            version: self.version,
            incarnation: self.incarnation,
            scopes: self.scopes.clone(),
        }
    }

    /// Version and incarnation in one number, as pulls compare them.
    pub(super) fn stamp(&self) -> u64 {
        (u64::from(self.version) << 32) | u64::from(self.incarnation.0)
    }

    pub(super) fn is_in(&self, scope: ScopeId) -> bool {
        self.membership(scope).is_some()
    }

    pub(super) fn membership(&self, scope: ScopeId) -> Option<&Membership> {
        let at = self.scopes.binary_search_by_key(&scope, |membership| membership.scope).ok()?;
        Some(&self.scopes[at])
    }

    pub(super) fn profile(&self) -> Profile {
        let node = &self.node;
        Profile {
            id: node.id(),
            boot: self.boot,
            version: self.version,
            incarnation: self.incarnation,
            name: node.node_name().clone(),
            addr: node.addr(),
            meta: node.meta_bytes(),
            scopes: self.scopes.clone(),
        }
    }
}

/// What a profile did to the table.
#[must_use]
#[derive(Debug)]
pub(super) enum Profiled {
    /// A run that was not known.
    New,
    /// A newer version of a known one.
    Updated {
        /// The scopes it was in before.
        before: Arc<[Membership]>,
        /// Whether its address or metadata changed.
        face_changed: bool,
    },
    /// Nothing new.
    Known,
    /// The table is full.
    Full,
}

/// What a claim about a run's state did to the table.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Claimed {
    /// The run is not in the table.
    Unknown,
    /// The claim is older than what is known.
    Old,
    /// It changed the state, or raised the incarnation.
    Changed { from: State, to: State },
}

/// All runs, by id.
#[derive(Debug)]
pub(super) struct Members {
    local: NodeId,
    table: BTreeMap<NodeId, Member>,
    /// The live run of each name.
    names: BTreeMap<NodeName, NodeId>,
    /// All live runs but this one, sorted.
    peers: Vec<NodeId>,
    /// The dead, the longest dead first.
    dead: BTreeSet<(Instant, NodeId)>,
    /// Exclusive-or over the live.
    hash: u64,
}

impl Members {
    pub(super) fn new(local: &Profile) -> Members {
        let mut members = Members {
            local: local.id,
            table: BTreeMap::new(),
            names: BTreeMap::new(),
            peers: Vec::new(),
            dead: BTreeSet::new(),
            hash: 0,
        };
        let profiled = members.apply_profile(local);
        assert!(matches!(profiled, Profiled::New), "an empty table takes its first run");
        members.announce(local.id);
        members
    }

    /// Takes in a profile; the incarnation in it counts only for a run that was not known.
    pub(super) fn apply_profile(&mut self, profile: &Profile) -> Profiled {
        let Some(member) = self.table.get(&profile.id) else {
            if self.table.len() >= MAX_NODES {
                return Profiled::Full;
            }
            self.table.insert(
                profile.id,
                Member {
                    node: node_of(profile),
                    boot: profile.boot,
                    version: profile.version,
                    incarnation: profile.incarnation,
                    state: State::Alive,
                    announced: false,
                    scopes: profile.scopes.clone(),
                    last_heard: None,
                    by: None,
                    died: None,
                },
            );
            self.enlist(profile.id);
            return Profiled::New;
        };
        if member.version >= profile.version || member.state.is_final() {
            return Profiled::Known;
        }
        let live = member.state.is_live();
        if live {
            self.strike(profile.id);
        }
        let member = self.table.get_mut(&profile.id).expect("it was found above");
        let before = std::mem::replace(&mut member.scopes, profile.scopes.clone());
        let face_changed = member.node.addr() != profile.addr || member.node.meta() != profile.meta;
        // The name of a run cannot change: a profile that says otherwise keeps the first one.
        let name = member.node.node_name().clone();
        if face_changed {
            member.node = Node::new(name, profile.id, profile.addr, profile.meta.clone());
        }
        member.boot = profile.boot;
        member.version = profile.version;
        if live {
            self.enlist(profile.id);
        }
        Profiled::Updated { before, face_changed }
    }

    /// Takes in runs, sorted by id, that are all alive and announced. Nodes and memberships are
    /// shared, not copied.
    #[cfg(feature = "sim")]
    pub(super) fn acquaint<'a>(&mut self, others: impl Iterator<Item = &'a Acquaintance>) {
        for Acquaintance { node, boot, version, incarnation, scopes } in others {
            let (id, name) = (node.id(), node.node_name().clone());
            assert!(self.peers.last().is_none_or(|last| *last < id), "runs come sorted by id");
            let member = Member {
                node: node.clone(),
                boot: *boot,
                version: *version,
                incarnation: *incarnation,
                state: State::Alive,
                announced: true,
                scopes: scopes.clone(),
                last_heard: None,
                by: None,
                died: None,
            };
            self.hash ^= entry_hash(id, member.stamp());
            self.table.insert(id, member);
            self.peers.push(id);
            assert!(self.names.insert(name, id).is_none(), "every name is there once");
        }
    }

    /// Takes in a claim about a run's state.
    pub(super) fn apply_claim(
        &mut self,
        now: Instant,
        id: NodeId,
        claim: (State, Incarnation),
        by: Option<NodeId>,
    ) -> Claimed {
        let Some(member) = self.table.get(&id) else {
            return Claimed::Unknown;
        };
        let from = member.state;
        if !supersedes(claim, (from, member.incarnation)) {
            return Claimed::Old;
        }
        if from.is_live() {
            self.strike(id);
        }
        let member = self.table.get_mut(&id).expect("it was found above");
        if let Some(died) = member.died.take() {
            self.dead.remove(&(died, id));
        }
        let to = claim.0;
        member.state = to;
        if !to.is_final() {
            member.incarnation = claim.1;
        }
        member.by = by;
        if to.is_live() {
            self.enlist(id);
        } else {
            member.died = Some(now);
            self.dead.insert((now, id));
        }
        Claimed::Changed { from, to }
    }

    /// Changes this node's own entry.
    pub(super) fn update_local(&mut self, change: impl FnOnce(&mut Member)) {
        let local = self.local;
        self.strike(local);
        change(self.table.get_mut(&local).expect("the local run is never removed"));
        self.enlist(local);
    }

    /// Notes that the user knows of it.
    pub(super) fn announce(&mut self, id: NodeId) {
        if let Some(member) = self.table.get_mut(&id) {
            member.announced = true;
        }
    }

    /// Notes that the user was told that it is down.
    pub(super) fn withdraw(&mut self, id: NodeId) -> bool {
        let member = self.table.get_mut(&id);
        member.is_some_and(|member| std::mem::take(&mut member.announced))
    }

    pub(super) fn heard(&mut self, now: Instant, id: NodeId) {
        if let Some(member) = self.table.get_mut(&id) {
            member.last_heard = Some(now);
        }
    }

    /// Forgets one dead run: the longest dead, when it has been remembered for `retention` or there
    /// are too many.
    pub(super) fn forget_one(&mut self, now: Instant, retention: Duration) -> Option<NodeId> {
        let &(died, id) = self.dead.first()?;
        if died + retention > now && self.dead.len() <= MAX_DEAD {
            return None;
        }
        self.dead.pop_first();
        self.table.remove(&id);
        Some(id)
    }

    pub(super) fn next_forget(&self, now: Instant, retention: Duration) -> Option<Instant> {
        let first = self.dead.first().map(|(died, _)| *died + retention)?;
        Some(if self.dead.len() > MAX_DEAD { now } else { first })
    }

    pub(super) fn local(&self) -> &Member {
        &self.table[&self.local]
    }

    pub(super) fn find(&self, id: NodeId) -> Option<&Member> {
        self.table.get(&id)
    }

    pub(super) fn live(&self, id: NodeId) -> Option<&Member> {
        self.table.get(&id).filter(|member| member.state.is_live())
    }

    /// The live run that has the name.
    pub(super) fn holder(&self, name: &str) -> Option<&Member> {
        self.names.get(name).map(|id| &self.table[id])
    }

    /// The highest start stamp among the runs of the name, living and dead.
    pub(super) fn last_boot(&self, name: &str) -> Option<Boot> {
        let dead = self.dead.iter().map(|(_, id)| &self.table[id]);
        let named = dead.chain(self.holder(name)).filter(|member| member.node.name() == name);
        named.map(|member| member.boot).max()
    }

    /// All live runs but this one, sorted.
    pub(super) fn peers(&self) -> &[NodeId] {
        &self.peers
    }

    /// How many live runs there are, this one included.
    pub(super) fn live_count(&self) -> usize {
        self.peers.len() + 1
    }

    /// The failed runs, which may come back.
    pub(super) fn failed(&self) -> Vec<NodeId> {
        let dead = self.dead.iter().map(|(_, id)| *id);
        dead.filter(|id| self.table[id].state == State::Failed).collect()
    }

    pub(super) fn dead_count(&self) -> usize {
        self.dead.len()
    }

    pub(super) fn range(&self, low: NodeId, high: NodeId) -> impl Iterator<Item = &Member> {
        let entries = (low <= high).then(|| self.table.range(low..=high).map(|(_, member)| member));
        entries.into_iter().flatten()
    }

    /// The live in short.
    pub(super) fn summary(&self) -> Summary {
        let count = u32::try_from(self.live_count()).unwrap_or(u32::MAX);
        Summary { count, hash: self.hash }
    }

    /// Enters a live run into names, peers and hash. Who holds a name keeps it until it is struck.
    fn enlist(&mut self, id: NodeId) {
        let member = &self.table[&id];
        self.hash ^= entry_hash(id, member.stamp());
        self.names.entry(member.node.node_name().clone()).or_insert(id);
        if id != self.local
            && let Err(at) = self.peers.binary_search(&id)
        {
            self.peers.insert(at, id);
        }
    }

    /// Takes a live run out of names, peers and hash.
    fn strike(&mut self, id: NodeId) {
        let member = &self.table[&id];
        self.hash ^= entry_hash(id, member.stamp());
        let name = member.node.node_name();
        if self.names.get(name) == Some(&id) {
            self.names.remove(name.as_str());
        }
        if let Ok(at) = self.peers.binary_search(&id) {
            self.peers.remove(at);
        }
    }

    /// What must always hold; a broken invariant of our own is a bug, whatever peers sent.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn check(&self) {
        let live: Vec<_> =
            self.table.iter().filter(|(_, m)| m.state.is_live()).map(|(id, _)| *id).collect();
        let hash = live.iter().fold(0, |hash, id| hash ^ entry_hash(*id, self.table[id].stamp()));
        assert_eq!(hash, self.hash, "the summary follows the table");
        let peers: Vec<_> = live.iter().copied().filter(|id| *id != self.local).collect();
        assert_eq!(peers, self.peers, "the peers are the live others");
        assert_eq!(self.dead.len(), self.table.len() - live.len(), "whoever is not live is dead");
        assert!(self.names.len() == live.len(), "one live run a name");
        assert!(self.local().state == State::Alive || self.local().state.is_final());
    }
}

fn node_of(profile: &Profile) -> Node {
    Node::new(profile.name.clone(), profile.id, profile.addr, profile.meta.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeName;
    use bytes::Bytes;

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

    fn profile(id: u64, name: &str) -> Profile {
        Profile {
            id: NodeId::from_u64(id).unwrap(),
            boot: Boot(id),
            version: 1,
            incarnation: Incarnation(0),
            name: NodeName::new(name).unwrap(),
            addr: "127.0.0.1:1".parse().unwrap(),
            meta: Bytes::new(),
            scopes: Arc::from([]),
        }
    }

    #[test]
    fn a_failed_run_comes_back_only_at_a_higher_incarnation() {
        let mut members = Members::new(&profile(1, "a"));
        let id = NodeId::from_u64(2).unwrap();
        let empty = members.summary();
        assert!(matches!(members.apply_profile(&profile(2, "b")), Profiled::New));
        let now = Instant::ORIGIN;
        let failed = members.apply_claim(now, id, (State::Failed, Incarnation(0)), None);
        assert_eq!(failed, Claimed::Changed { from: State::Alive, to: State::Failed });
        assert_eq!(members.summary(), empty);
        assert!(members.holder("b").is_none());
        let old = members.apply_claim(now, id, (State::Alive, Incarnation(0)), None);
        assert_eq!(old, Claimed::Old);
        let back = members.apply_claim(now, id, (State::Alive, Incarnation(1)), None);
        assert_eq!(back, Claimed::Changed { from: State::Failed, to: State::Alive });
        assert_eq!(members.live_count(), 2);
        members.check();
    }

    #[test]
    fn the_dead_are_forgotten_after_their_retention() {
        let mut members = Members::new(&profile(1, "a"));
        let id = NodeId::from_u64(2).unwrap();
        assert!(matches!(members.apply_profile(&profile(2, "b")), Profiled::New));
        let died = Instant::from_micros(5);
        let left = members.apply_claim(died, id, (State::Left, Incarnation(0)), None);
        assert!(matches!(left, Claimed::Changed { .. }));
        let retention = Duration::from_secs(1);
        assert_eq!(members.next_forget(died, retention), Some(died + retention));
        assert_eq!(members.forget_one(died, retention), None);
        assert_eq!(members.forget_one(died + retention, retention), Some(id));
        assert!(members.find(id).is_none());
        members.check();
    }
}
