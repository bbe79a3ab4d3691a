//! What the simulator's checkers look at. Nothing here changes anything, and no peer sees it.

use super::super::Protocol;
use super::super::clash::MAX_CLASHES;
use super::super::detector::MAX_PROBES;
use super::super::fetch::{MAX_ASSEMBLIES, MAX_WANTS};
use super::super::gather::MAX_GATHERINGS;
use super::super::join::MAX_CONTACTS;
use super::super::members::Member;
use super::super::pull::{MAX_DECODINGS, MAX_SESSIONS};
use super::super::receipt::MAX_WAITERS;
use super::super::refusals::MAX_REFUSALS;
use super::super::roles::RoleSet;
use super::super::spread::MAX_HOPS;
use super::super::state::State;
use super::joining::MAX_WELCOMED;
use super::scopes::MAX_CACHED_OBJECTS;
use super::send::MAX_OUTGOING;
use crate::node::{Generation, NodeId};
use crate::wire::ScopeId;
use crate::wire::frame::{Incarnation, Membership, Summary};
use crate::wire::limits::{MAX_DEAD, MAX_NODES, MAX_SCOPES_PER_NODE};

/// What a node holds a run to be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RunState {
    /// Up.
    Alive,
    /// Up, but somebody doubts it.
    Suspect,
    /// Down, as far as can be told; it may come back.
    Failed,
    /// Down for good: it said so.
    Left,
    /// Down for good: another run has its name.
    Replaced,
}

impl RunState {
    /// Whether readers see it.
    pub const fn is_live(self) -> bool {
        matches!(self, RunState::Alive | RunState::Suspect)
    }

    /// Whether nothing may follow.
    pub const fn is_final(self) -> bool {
        matches!(self, RunState::Left | RunState::Replaced)
    }
}

/// What a node knows of a run, itself or another, living or dead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// The run.
    pub id: NodeId,
    /// What it is held to be.
    pub state: RunState,
    /// Its highest incarnation heard of.
    pub incarnation: Incarnation,
    /// Its start stamp.
    pub boot: u64,
    /// Of its profile.
    pub version: u32,
    /// Whether the user has been told of it.
    pub announced: bool,
    /// Whether this node alone holds it dead, and has told nobody.
    pub private: bool,
}

/// All that a node knows of the living, in short: two nodes in the same scopes that know the same
/// have the same digest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Digest {
    /// The live members.
    pub members: Summary,
    /// The roles of each scope that the node is in.
    pub scopes: Vec<(ScopeId, Summary)>,
    /// Members that the user has not been told of yet.
    pub announcing: usize,
    /// Members that are suspected.
    pub suspects: usize,
}

/// Something that a node keeps for others, and how much of it there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Queue {
    /// What it is.
    pub name: &'static str,
    /// How many there are.
    pub len: usize,
    /// How many there may be.
    pub limit: usize,
}

/// For the simulator (feature `sim`): what its checkers look at.
impl Protocol {
    /// What this node knows of every run, itself among them, by id.
    pub fn sightings(&self) -> impl Iterator<Item = Sighting> {
        self.members.range(NodeId::MIN, NodeId::MAX).map(|member| self.seen(member))
    }

    /// What this node knows of a run.
    pub fn sighting(&self, id: NodeId) -> Option<Sighting> {
        self.members.find(id).map(|member| self.seen(member))
    }

    fn seen(&self, member: &Member) -> Sighting {
        Sighting {
            id: member.node.id(),
            state: match member.state {
                State::Alive => RunState::Alive,
                State::Suspect => RunState::Suspect,
                State::Failed => RunState::Failed,
                State::Left => RunState::Left,
                State::Replaced => RunState::Replaced,
            },
            incarnation: member.incarnation,
            boot: member.boot.0,
            version: member.version,
            announced: member.announced,
            private: self.members.is_private_death(member.node.id()),
        }
    }

    /// The scopes that a run is in, as far as this node knows.
    pub fn memberships(&self, id: NodeId) -> Vec<Membership> {
        self.members.find(id).map(|member| member.scopes.to_vec()).unwrap_or_default()
    }

    /// The scopes that this node is in.
    pub fn joined(&self) -> impl Iterator<Item = ScopeId> {
        self.roles.scopes().map(|(scope, _)| scope)
    }

    /// What this node knows of the living.
    pub fn digest(&self) -> Digest {
        let scopes = self.roles.scopes().map(|(scope, table)| (scope, table.summary()));
        Digest {
            members: self.members.summary(),
            scopes: scopes.collect(),
            announcing: self.announcing.keys().count(),
            suspects: self.suspicions.len(),
        }
    }

    /// The generations of the roles of all live nodes of a scope, by node.
    pub fn generations(&self, scope: ScopeId) -> impl Iterator<Item = (NodeId, Generation)> {
        let table = self.roles.table(scope).into_iter();
        let entries = table.flat_map(|table| table.range(NodeId::MIN, NodeId::MAX));
        entries.map(|(id, stamp)| (id, Generation::from_u64(stamp.number)))
    }

    /// The generation of what is known of a node's roles in a scope, living or dead; `None` when
    /// that was forgotten.
    pub fn kept_generation(&self, scope: ScopeId, id: NodeId) -> Option<Generation> {
        self.roles.set(scope, id).map(RoleSet::generation)
    }

    /// Everything that is kept for others, with its limit.
    pub fn queues(&self) -> [Queue; 18] {
        let queue = |name, len, limit| Queue { name, len, limit };
        [
            queue("datagrams", self.outgoing.len(), MAX_OUTGOING),
            queue("wants", self.fetches.len(), MAX_WANTS),
            queue("assemblies", self.fetches.assemblies(), MAX_ASSEMBLIES),
            queue("pull sessions", self.pulls.len(), MAX_SESSIONS),
            queue("decodings", self.decoding.len(), MAX_DECODINGS),
            queue("hops", self.hops.len(), MAX_HOPS),
            queue("gatherings", self.gatherings.len(), MAX_GATHERINGS),
            queue("contacts", self.joins.len(), MAX_CONTACTS),
            queue("welcomed", self.welcomed.len(), MAX_WELCOMED),
            queue("clashes", self.clashes.len(), MAX_CLASHES),
            queue("receipts", self.receipts.len(), MAX_WAITERS),
            queue("probes", self.detector.len(), MAX_PROBES),
            queue("refused profiles", self.refusals.len(), MAX_REFUSALS),
            queue("cached objects", self.parts.len(), MAX_CACHED_OBJECTS),
            // One more until the timer that forgets has run.
            queue("dead", self.members.dead_count(), MAX_DEAD + 1),
            queue("live", self.members.live_count(), MAX_NODES),
            queue("suspects", self.suspicions.len(), self.members.peers().len()),
            queue("scopes", self.roles.count(), MAX_SCOPES_PER_NODE),
        ]
    }
}
