//! The table of all runs that this node knows, living and remembered dead.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::faces::Faces;
use super::sketch::Sketch;
use super::state::{State, supersedes};
use crate::event::Sight;
use crate::id_map::IdMap;
use crate::node::{Node, NodeId};
use crate::time::Instant;
use crate::wire::frame::{Boot, Incarnation, Membership, Profile, Stamp, Summary, Table};
use crate::wire::limits::{MAX_DEAD, MAX_NODES};
use crate::wire::{ScopeId, print};

/// A version or an incarnation that is further ahead of what is known of its run is not believed:
/// who counts wrong in another's name must not use up its numbers.
const MAX_LEAP: u32 = 1 << 20;

/// The same of a run that was not known.
const MAX_FIRST: u32 = 1 << 31;

/// What a run's latest profile says: of one size for all that are known, and shared.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) node: Node,
    pub(super) boot: Boot,
    pub(super) version: u32,
    pub(super) scopes: Box<[Membership]>,
    /// Of all that but the version.
    print: u32,
}

impl Run {
    fn new(profile: &Profile, node: Node) -> Run {
        let scopes = Box::from(&*profile.scopes);
        let Profile { boot, version, .. } = *profile;
        let mut run = Run { node, boot, version, scopes, print: 0 };
        run.reprint();
        run
    }

    fn reprint(&mut self) {
        let Run { node, boot, scopes, .. } = &*self;
        self.print = print::of_profile(*boot, node.name(), node.addr(), node.meta(), scopes);
    }
}

/// One run, as it stands in the table: kept small, as every node has one of these for every other.
/// It reads as the [`Run`] that it is of.
#[derive(Debug)]
pub(super) struct Member {
    run: Arc<Run>,
    /// When a datagram last came from it directly, if one did.
    heard_at: Instant,
    heard: bool,
    pub(super) incarnation: Incarnation,
    pub(super) state: State,
    /// Whether the user has been told that it is up.
    pub(super) announced: bool,
}

impl Deref for Member {
    type Target = Run;

    fn deref(&self) -> &Run {
        &self.run
    }
}

/// What is kept of the dead only.
#[derive(Debug)]
struct Grave {
    died: Instant,
    /// Who replaced it, or who accused it.
    by: Option<NodeId>,
    /// What those saw who decided that it had failed.
    witnesses: Arc<[(NodeId, Sight)]>,
    /// Whether only this node holds it dead, and nobody else is to hear of it.
    private: bool,
    /// Whether this node had contact with others when it came to that.
    sure: bool,
}

/// What is known of a run by those who have known it for long.
#[cfg(feature = "sim")]
#[derive(Clone, Debug)]
pub(super) struct Acquaintance {
    run: Arc<Run>,
    incarnation: Incarnation,
}

#[cfg(feature = "sim")]
impl Acquaintance {
    pub(super) fn node(&self) -> &Node {
        &self.run.node
    }
}

impl Member {
    fn new(run: Arc<Run>, incarnation: Incarnation) -> Member {
        Member {
            run,
            heard_at: Instant::ORIGIN,
            heard: false,
            incarnation,
            state: State::Alive,
            announced: false,
        }
    }

    #[cfg(feature = "sim")]
    pub(super) fn acquaintance(&self) -> Acquaintance {
        Acquaintance { run: self.run.clone(), incarnation: self.incarnation }
    }

    /// What is compared of it.
    pub(super) fn stamp(&self) -> Stamp {
        let number = (u64::from(self.version) << 32) | u64::from(self.incarnation.0);
        Stamp { number, print: self.run.print }
    }

    /// When a datagram last came from it directly.
    pub(super) fn last_heard(&self) -> Option<Instant> {
        self.heard.then_some(self.heard_at)
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
            scopes: Arc::from(&*self.scopes),
        }
    }

    /// Changes what its profile says.
    pub(super) fn change_run(&mut self, change: impl FnOnce(&mut Run)) {
        let run = Arc::make_mut(&mut self.run);
        change(run);
        run.reprint();
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
        /// What was known before.
        before: Arc<Run>,
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
    table: IdMap<Member>,
    /// The live, by name and by address.
    faces: Faces,
    /// All live runs but this one, sorted.
    peers: Vec<NodeId>,
    graves: BTreeMap<NodeId, Grave>,
    /// The dead, the longest dead first.
    dead: BTreeSet<(Instant, NodeId)>,
    /// Of the live.
    sketch: Sketch,
    /// How many runs there may be.
    max: usize,
}

impl Members {
    pub(super) fn new(local: &Profile) -> Members {
        let mut members = Members {
            local: local.id,
            table: IdMap::default(),
            faces: Faces::default(),
            peers: Vec::new(),
            graves: BTreeMap::new(),
            dead: BTreeSet::new(),
            sketch: Sketch::new(Table::Members),
            max: MAX_NODES,
        };
        let profiled = members.apply_profile(local);
        assert!(matches!(profiled, Profiled::New), "an empty table takes its first run");
        members.announce(local.id);
        members
    }

    /// How many runs there may be from now on; no run is dropped for that.
    pub(super) fn limit(&mut self, max: usize) {
        self.max = max;
    }

    /// Whether there is no room for another run.
    pub(super) fn is_full(&self) -> bool {
        self.table.len() >= self.max
    }

    /// Takes in a profile; the incarnation in it counts only for a run that was not known.
    pub(super) fn apply_profile(&mut self, profile: &Profile) -> Profiled {
        let id = profile.id;
        let Some(member) = self.table.get(id) else {
            if self.is_full() {
                return Profiled::Full;
            }
            let run = Arc::new(Run::new(profile, node_of(profile)));
            self.table.insert(id, Member::new(run, profile.incarnation));
            self.enlist(id);
            return Profiled::New;
        };
        if member.version >= profile.version || member.state.is_final() {
            return Profiled::Known;
        }
        let before = member.run.clone();
        let node = &before.node;
        let face_changed = node.addr() != profile.addr || node.meta() != profile.meta;
        // The name of a run cannot change: a profile that says otherwise keeps the first one.
        let node = if face_changed {
            Node::new(node.node_name().clone(), id, profile.addr, profile.meta.clone())
        } else {
            node.clone()
        };
        let run = Arc::new(Run::new(profile, node));
        self.change(id, |member| member.run = run);
        Profiled::Updated { before, face_changed }
    }

    /// Takes in runs, sorted by id, that are all alive and announced. What their profiles say is
    /// shared, not copied.
    #[cfg(feature = "sim")]
    pub(super) fn acquaint<'a>(&mut self, others: impl Iterator<Item = &'a Acquaintance>) {
        for Acquaintance { run, incarnation } in others {
            let id = run.node.id();
            assert!(self.peers.last().is_none_or(|last| *last < id), "runs come sorted by id");
            let member = Member { announced: true, ..Member::new(run.clone(), *incarnation) };
            self.sketch.insert(id, member.stamp());
            self.peers.push(id);
            self.table.insert(id, member);
        }
        self.faces.extend(self.peers.iter().map(|id| self.table[*id].node.clone()));
        self.peers.shrink_to_fit();
    }

    /// Takes in a claim about a run's state.
    pub(super) fn apply_claim(
        &mut self,
        now: Instant,
        id: NodeId,
        claim: (State, Incarnation),
        by: Option<NodeId>,
    ) -> Claimed {
        let Some(member) = self.table.get(id) else {
            return Claimed::Unknown;
        };
        let (from, to, known) = (member.state, claim.0, member.incarnation);
        if !supersedes(claim, (from, known)) {
            return Claimed::Old;
        }
        self.exhume(id);
        let incarnation = if to.is_final() { known.max(claim.1) } else { claim.1 };
        let change = |member: &mut Member| {
            member.state = to;
            member.incarnation = incarnation;
        };
        match (from.is_live(), to.is_live()) {
            (true, true) => self.change(id, change),
            (was_live, is_live) => {
                if was_live {
                    self.strike(id);
                }
                change(self.table.get_mut(id).expect("it was found above"));
                if is_live {
                    self.enlist(id);
                }
            }
        }
        if !to.is_live() {
            self.graves.insert(
                id,
                Grave { died: now, by, witnesses: Arc::default(), private: false, sure: true },
            );
            self.dead.insert((now, id));
        }
        Claimed::Changed { from, to }
    }

    /// Keeps what was seen of a dead run.
    pub(super) fn testify(&mut self, id: NodeId, witnesses: Arc<[(NodeId, Sight)]>) {
        if let Some(grave) = self.graves.get_mut(&id) {
            grave.witnesses = witnesses;
        }
    }

    /// A death is this node's own view.
    pub(super) fn keep_to_itself(&mut self, id: NodeId, sure: bool) {
        if let Some(grave) = self.graves.get_mut(&id) {
            (grave.private, grave.sure) = (true, sure);
        }
    }

    /// Whether this node can say of a dead run what it saw itself.
    pub(super) fn is_sure_death(&self, id: NodeId) -> bool {
        self.graves.get(&id).is_some_and(|grave| grave.sure)
    }

    /// A death that was this node's own view is that of others too.
    pub(super) fn publish_death(
        &mut self,
        id: NodeId,
        by: Option<NodeId>,
        witnesses: Arc<[(NodeId, Sight)]>,
    ) {
        if let Some(grave) = self.graves.get_mut(&id) {
            (grave.by, grave.witnesses, grave.private) = (by, witnesses, false);
        }
    }

    /// Whether only this node holds a run dead.
    pub(super) fn is_private_death(&self, id: NodeId) -> bool {
        self.graves.get(&id).is_some_and(|grave| grave.private)
    }

    /// How many only this node holds dead.
    pub(super) fn private_deaths(&self) -> usize {
        self.graves.values().filter(|grave| grave.private).count()
    }

    /// A run that only this node held dead lives, at the incarnation that it had.
    pub(super) fn revive(&mut self, id: NodeId) -> bool {
        if !self.is_private_death(id) {
            return false;
        }
        self.exhume(id);
        self.table.get_mut(id).expect("the dead are in the table").state = State::Alive;
        self.enlist(id);
        true
    }

    /// What was seen of a dead run.
    pub(super) fn testimony(&self, id: NodeId) -> Arc<[(NodeId, Sight)]> {
        self.graves.get(&id).map(|grave| grave.witnesses.clone()).unwrap_or_default()
    }

    /// Changes this node's own entry.
    pub(super) fn update_local(&mut self, change: impl FnOnce(&mut Member)) {
        self.change(self.local, change);
    }

    /// Changes a run that stays live, or dead, while sketch and faces follow.
    fn change(&mut self, id: NodeId, change: impl FnOnce(&mut Member)) {
        let member = self.table.get_mut(id).expect("callers looked it up");
        let (stamp, face) = (member.stamp(), member.node.clone());
        change(member);
        if member.state.is_live() {
            if member.stamp() != stamp {
                self.sketch.remove(id, stamp);
                self.sketch.insert(id, member.stamp());
            }
            self.faces.remove(&face);
            self.faces.insert(&member.node);
        }
    }

    /// Notes that the user knows of it.
    pub(super) fn announce(&mut self, id: NodeId) {
        if let Some(member) = self.table.get_mut(id) {
            member.announced = true;
        }
    }

    /// Notes that the user was told that it is down.
    pub(super) fn withdraw(&mut self, id: NodeId) -> bool {
        let member = self.table.get_mut(id);
        member.is_some_and(|member| std::mem::take(&mut member.announced))
    }

    pub(super) fn heard(&mut self, now: Instant, id: NodeId) {
        if let Some(member) = self.table.get_mut(id) {
            (member.heard, member.heard_at) = (true, now);
        }
    }

    /// Forgets one dead run: the longest dead, when it has been remembered for `retention` or there
    /// are too many.
    pub(super) fn forget_one(&mut self, now: Instant, retention: Duration) -> Option<NodeId> {
        let &(died, id) = self.dead.first()?;
        if died + retention > now && self.dead.len() <= MAX_DEAD {
            return None;
        }
        self.forget(id);
        Some(id)
    }

    /// Whether a newer profile of a run gives it another name than it is known by. A run cannot
    /// change its name, so that one of the two is wrong, and its last word counts.
    pub(super) fn is_misnamed(&self, profile: &Profile) -> bool {
        self.table.get(profile.id).is_some_and(|member| {
            profile.version > member.version && profile.name != *member.node.node_name()
        })
    }

    /// A run is no longer among the dead, if it was.
    fn exhume(&mut self, id: NodeId) {
        if let Some(grave) = self.graves.remove(&id) {
            self.dead.remove(&(grave.died, id));
        }
    }

    /// Forgets a run.
    pub(super) fn forget(&mut self, id: NodeId) {
        if self.live(id).is_some() {
            self.strike(id);
        }
        self.exhume(id);
        self.table.remove(id);
    }

    pub(super) fn next_forget(&self, now: Instant, retention: Duration) -> Option<Instant> {
        let first = self.dead.first().map(|(died, _)| *died + retention)?;
        Some(if self.dead.len() > MAX_DEAD { now } else { first })
    }

    pub(super) fn local(&self) -> &Member {
        &self.table[self.local]
    }

    pub(super) fn find(&self, id: NodeId) -> Option<&Member> {
        self.table.get(id)
    }

    pub(super) fn live(&self, id: NodeId) -> Option<&Member> {
        self.table.get(id).filter(|member| member.state.is_live())
    }

    /// Who replaced a dead run, or who accused it.
    pub(super) fn killer(&self, id: NodeId) -> Option<NodeId> {
        self.graves.get(&id)?.by
    }

    /// The live run that has the name.
    pub(super) fn holder(&self, name: &str) -> Option<&Member> {
        Some(&self.table[self.faces.named(name)?.id()])
    }

    /// The highest start stamp among the runs of the name, living and dead.
    pub(super) fn last_boot(&self, name: &str) -> Option<Boot> {
        let dead = self.dead.iter().map(|(_, id)| &self.table[*id]);
        let named = dead.chain(self.holder(name)).filter(|member| member.node.name() == name);
        named.map(|member| member.boot).max()
    }

    /// All live runs but this one, sorted.
    pub(super) fn peers(&self) -> &[NodeId] {
        &self.peers
    }

    /// The live run but this one that is reached there.
    pub(super) fn peer_at(&self, addr: SocketAddr) -> Option<NodeId> {
        self.faces.reached_at(addr).map(Node::id).find(|id| *id != self.local)
    }

    /// Whether this node has never known of another, as far as it remembers.
    pub(super) fn is_lone(&self) -> bool {
        self.table.len() == 1
    }

    /// Whether what is said of a run can have come of what is known of it.
    pub(super) fn can_follow(&self, id: NodeId, version: u32, incarnation: Incarnation) -> bool {
        let member = self.table.get(id);
        let (most_version, most_incarnation) = member.map_or((MAX_FIRST, MAX_FIRST), |member| {
            let most = |known: u32| known.saturating_add(MAX_LEAP);
            (most(member.version), most(member.incarnation.0))
        });
        version <= most_version && incarnation.0 <= most_incarnation
    }

    /// How many live runs there are, this one included.
    pub(super) fn live_count(&self) -> usize {
        self.peers.len() + 1
    }

    /// The failed runs, which may come back.
    pub(super) fn failed(&self) -> Vec<NodeId> {
        let dead = self.dead.iter().map(|(_, id)| *id);
        dead.filter(|id| self.table[*id].state == State::Failed).collect()
    }

    /// All dead runs, the longest dead first.
    pub(super) fn dead(&self) -> impl Iterator<Item = NodeId> {
        self.dead.iter().map(|(_, id)| *id)
    }

    pub(super) fn dead_count(&self) -> usize {
        self.dead.len()
    }

    pub(super) fn range(&self, low: NodeId, high: NodeId) -> impl Iterator<Item = &Member> {
        self.table.range(low, high).map(|(_, member)| member)
    }

    /// The live in short.
    pub(super) fn summary(&self) -> Summary {
        self.sketch.summary()
    }

    /// The live, to be compared.
    pub(super) fn sketch(&self) -> &Sketch {
        &self.sketch
    }

    /// Enters a live run into faces, peers and sketch.
    fn enlist(&mut self, id: NodeId) {
        let member = &self.table[id];
        self.sketch.insert(id, member.stamp());
        self.faces.insert(&member.node);
        if id != self.local
            && let Err(at) = self.peers.binary_search(&id)
        {
            self.peers.insert(at, id);
        }
    }

    /// Takes a live run out of faces, peers and sketch.
    fn strike(&mut self, id: NodeId) {
        let member = &self.table[id];
        self.sketch.remove(id, member.stamp());
        self.faces.remove(&member.node);
        if let Ok(at) = self.peers.binary_search(&id) {
            self.peers.remove(at);
        }
    }

    /// What must always hold; a broken invariant of our own is a bug, whatever peers sent.
    #[cfg(any(test, debug_assertions, feature = "sim"))]
    pub(super) fn check(&self) {
        let live: Vec<_> =
            self.table.iter().filter(|(_, m)| m.state.is_live()).map(|(id, _)| id).collect();
        self.sketch.check(live.iter().map(|id| (*id, self.table[*id].stamp())));
        let peers: Vec<_> = live.iter().copied().filter(|id| *id != self.local).collect();
        assert_eq!(peers, self.peers, "the peers are the live others");
        assert_eq!(self.dead.len(), self.table.len() - live.len(), "whoever is not live is dead");
        let graves = self.graves.iter().map(|(id, grave)| (grave.died, *id));
        assert!(graves.collect::<BTreeSet<_>>() == self.dead, "all the dead have graves");
        self.faces.check(live.iter().map(|id| &self.table[*id].node));
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
