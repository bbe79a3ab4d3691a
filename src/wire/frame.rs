//! The frames: one struct a kind, one list of all kinds.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::ScopeId;
use super::codec::{self, exact, role_bytes};
pub use super::compare::{
    Buckets, Compare, Contested, Fixed, MoreSymbols, Page, Pull, Push, Same, Stamp, Summary,
    Symbols, Table,
};
use crate::event::Sight;
use crate::node::{Generation, NodeId, NodeName};
use crate::role::Role;

/// SWIM's refutation counter within one run; only its owner raises it (SWIM, section 4.2).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash, Serialize, Deserialize,
)]
pub struct Incarnation(pub u32);

impl Incarnation {
    /// One step on.
    #[must_use]
    pub const fn next(self) -> Incarnation {
        Incarnation(self.0.saturating_add(1))
    }

    /// How often the run has refuted what is final within one life: that it left, or lost its name.
    pub const fn life(self) -> u32 {
        self.0 >> LIFE_BITS
    }

    /// The first incarnation of the next life; the last of all when there is no other.
    #[must_use]
    pub const fn next_life(self) -> Incarnation {
        let next = self.life() + 1;
        Incarnation(if next >> (u32::BITS - LIFE_BITS) == 0 { next << LIFE_BITS } else { u32::MAX })
    }
}

/// Refutations of failures in one life, as a power of two.
const LIFE_BITS: u32 = 16;

/// The start stamp of a run: microseconds of the wall clock, raised above that of any earlier run
/// of the same name that the cluster remembers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
pub struct Boot(pub u64);

/// Declares the list of kinds: the enum, and the two `match`es that must agree with it.
macro_rules! frames {
    ($($(#[$docs:meta])* $kind:literal $name:ident,)*) => {
        /// One frame of a datagram.
        #[derive(Clone, PartialEq, Debug)]
        #[non_exhaustive]
        pub enum Frame {
            $($(#[$docs])* $name($name),)*
        }

        $(impl From<$name> for Frame {
            fn from(body: $name) -> Frame {
                Frame::$name(body)
            }
        })*

        impl Frame {
            /// The names of all kinds, as [`Stats`](crate::Stats) lists them.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name),)*];

            /// The kind byte of a [`Page`], which the rest of its datagram belongs to.
            pub(crate) const PAGE_KIND: u8 = 44;
            /// The kind of a [`WrongRun`].
            pub(crate) const WRONG_RUN_KIND: u8 = 5;

            /// The kind byte.
            pub const fn kind(&self) -> u8 {
                match self { $(Frame::$name(_) => $kind,)* }
            }

            pub(super) fn body_to(&self, out: Vec<u8>) -> Vec<u8> {
                let written = match self {
                    $(Frame::$name(body) => postcard::to_extend(body, out),)*
                };
                written.expect("a Vec takes everything, and every length is known")
            }

            pub(super) fn from_body(
                kind: u8,
                body: &[u8],
            ) -> Option<Result<Frame, postcard::Error>> {
                match kind {
                    $($kind => Some(exact::<$name>(body).map(Frame::$name)),)*
                    _ => None,
                }
            }
        }

        /// The position of a kind in [`Frame::NAMES`].
        pub(crate) const fn kind_index(kind: u8) -> Option<usize> {
            const KINDS: &[u8] = &[$($kind,)*];
            let mut at = 0;
            while at < KINDS.len() {
                if KINDS[at] == kind {
                    return Some(at);
                }
                at += 1;
            }
            None
        }
    };
}

frames! {
    /// Are you there?
    1 Ping,
    /// Yes.
    2 Ack,
    /// The member you asked about has not answered me yet.
    3 Nack,
    /// Probe this member for me.
    4 PingReq,
    /// I am not the run that you meant.
    5 WrongRun,
    /// I do not know you: send me your profile.
    6 Introduce,
    /// Are you there, and do you know what I know?
    7 Probe,
    /// I want to become a member.
    8 Join,
    /// The answer to it.
    9 JoinReply,
    /// I have tried the member you asked about for long enough.
    10 Saw,
    /// A run and all that is public of it.
    16 Profile,
    /// The run is alive at this incarnation.
    17 Alive,
    /// Somebody suspects the run.
    18 Suspect,
    /// The run has failed.
    19 Failed,
    /// The run said goodbye.
    20 Left,
    /// Another run took its name.
    21 Replaced,
    /// The change of one node's roles in one scope.
    24 Roles,
    /// An object too large for a datagram is to be fetched in parts.
    25 Large,
    /// Tell everybody in this range of ids.
    28 Delegate,
    /// So many have it.
    29 Reached,
    /// Send me these objects.
    32 Fetch,
    /// Send me a part of this object.
    33 FetchPart,
    /// A part of an object.
    34 Part,
    /// These are my tables in short: where do yours differ?
    40 Compare,
    /// No table differs.
    41 Same,
    /// A table that differs, in finer grain.
    42 Buckets,
    /// Send me what I lack in this range of a table.
    43 Pull,
    /// It follows in this datagram, up to here.
    44 Page,
    /// What I know, in coded symbols.
    45 Symbols,
    /// Send me more of them.
    46 MoreSymbols,
    /// What you lack follows in this datagram.
    47 Push,
    /// Which generation of my roles have you?
    48 Ask,
    /// This one.
    49 Has,
    /// Somebody has this entry of you.
    50 Contested,
    /// I have seen a higher number of yours: seal on from there.
    51 Behind,
}

/// Asks the run named in the header for an [`Ack`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ping {
    /// Repeated in the answer.
    #[serde(with = "postcard::fixint::le")]
    pub seq: u16,
}

/// A [`Ping`] of a probe round, answered alike. Who finds that the digest is not its own sends
/// [`Symbols`] besides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Probe {
    /// Repeated in the answer.
    #[serde(with = "postcard::fixint::le")]
    pub seq: u16,
    /// Of the summaries of all tables that the two nodes share, and of `seq`, so that two that
    /// look alike by chance do not the next time.
    #[serde(with = "postcard::fixint::le")]
    pub digest: u16,
}

/// Answers a [`Ping`], or passes on such an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ack {
    /// Of the ping.
    #[serde(with = "postcard::fixint::le")]
    pub seq: u16,
}

/// Tells who asked for an indirect probe that the witness lives and tries, but has no answer yet.
/// In Lifeguard (section IV.A) it comes late; here at once, so that somebody else can be asked
/// where it does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Nack {
    /// Of the [`PingReq`].
    #[serde(with = "postcard::fixint::le")]
    pub seq: u16,
}

/// Asks a member to probe another one at the address known to it: to be a witness. It answers with
/// a [`Nack`] at once, with an [`Ack`] when the other answers it, and with [`Saw`] when that has
/// not happened for the whole pause tolerance.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PingReq {
    /// Repeated in the answer.
    #[serde(with = "postcard::fixint::le")]
    pub seq: u16,
    /// Whom to probe.
    pub target: NodeId,
    /// For how long it has not answered the asker, in milliseconds: the witness need not wait for
    /// so long again.
    pub waited: u16,
}

/// What a witness saw, for as long as a pause is tolerated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Saw {
    /// Of the [`PingReq`].
    #[serde(with = "postcard::fixint::le")]
    pub seq: u16,
    /// What it saw.
    pub saw: Sight,
}

/// The sender is another run than the one that the datagram it answers was meant for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WrongRun;

/// The sender does not know the receiver and would.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Introduce;

/// A request to become a member. At least as long as the answer to it, so that a forged source
/// address makes no amplifier.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Join {
    /// Repeated in the answer.
    #[serde(with = "postcard::fixint::le")]
    pub seq: u16,
    /// From an earlier [`Verdict::Prove`]; zero at first.
    #[serde(with = "postcard::fixint::le")]
    pub cookie: u64,
    /// The name it wants.
    pub name: NodeName,
    /// When it started.
    pub boot: Boot,
    /// Where it is reached.
    pub addr: SocketAddr,
    /// Room for the answer.
    pub padding: [u8; 16],
}

/// The answer to a [`Join`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinReply {
    /// Of the join.
    #[serde(with = "postcard::fixint::le")]
    pub seq: u16,
    /// What comes of it.
    pub verdict: Verdict,
}

/// What comes of a [`Join`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Verdict {
    /// Ask again with this cookie, to prove that the address is yours.
    Prove {
        /// To be repeated.
        #[serde(with = "postcard::fixint::le")]
        cookie: u64,
    },
    /// Send your profile, and pull.
    Welcome,
    /// The name belonged to a run with a later start stamp: start over above it.
    RaiseBoot {
        /// The stamp to exceed.
        above: Boot,
    },
    /// A live node has the name, or may have: ask again in a moment.
    Wait,
    /// A live node has the name, and answered.
    NameTaken {
        /// Where it is.
        holder: SocketAddr,
    },
}

/// A scope that a node is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Membership {
    /// The scope.
    pub scope: ScopeId,
    /// The generation of its roles there when this version of the profile was made.
    pub generation: Generation,
}

/// All that is public of a run; its owner raises `version` with every change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// The run.
    pub id: NodeId,
    /// When it started.
    pub boot: Boot,
    /// Of this profile.
    pub version: u32,
    /// At which the sender knows it to be alive.
    pub incarnation: Incarnation,
    /// Its stable name.
    pub name: NodeName,
    /// Where it is reached.
    pub addr: SocketAddr,
    /// Its user's bytes.
    #[serde(deserialize_with = "codec::meta")]
    pub meta: Bytes,
    /// The scopes it is in, in the order of their ids.
    #[serde(deserialize_with = "codec::memberships")]
    pub scopes: Arc<[Membership]>,
}

/// The run is alive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Alive {
    /// The run.
    pub id: NodeId,
    /// The incarnation.
    pub incarnation: Incarnation,
}

/// The run is suspected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Suspect {
    /// The run.
    pub id: NodeId,
    /// The incarnation that is doubted.
    pub incarnation: Incarnation,
    /// Who says so from its own probes.
    pub by: NodeId,
}

/// The run has failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failed {
    /// The run.
    pub id: NodeId,
    /// The last incarnation that it is known to have had.
    pub incarnation: Incarnation,
    /// Who suspected it first.
    pub by: NodeId,
    /// What each of those saw who decided it, the accuser among them. It is not believed with too
    /// few of them.
    #[serde(deserialize_with = "codec::witnesses")]
    pub witnesses: Arc<[(NodeId, Sight)]>,
}

/// The run has left of its own will.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Left {
    /// The run.
    pub id: NodeId,
    /// In whose life it left.
    pub incarnation: Incarnation,
}

/// The run lost its name to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replaced {
    /// The run.
    pub id: NodeId,
    /// In whose life it lost its name.
    pub incarnation: Incarnation,
    /// The run that has the name now.
    pub by: NodeId,
}

/// A change of one node's roles in one scope.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "UncheckedRoles")]
pub struct Roles {
    /// The node.
    pub id: NodeId,
    /// The scope.
    pub scope: ScopeId,
    /// The generation to which it applies; 0 in a whole set.
    pub from: Generation,
    /// The generation that it leads to.
    pub to: Generation,
    /// Whether `ops` are all roles there are, rather than what changed.
    pub whole: bool,
    /// The changes, in the order of their roles; none is named twice.
    pub ops: Vec<RoleOp>,
}

/// [`Roles`] as they come in.
#[derive(Deserialize)]
struct UncheckedRoles {
    id: NodeId,
    scope: ScopeId,
    from: Generation,
    to: Generation,
    whole: bool,
    #[serde(deserialize_with = "codec::role_ops")]
    ops: Vec<RoleOp>,
}

impl TryFrom<UncheckedRoles> for Roles {
    type Error = &'static str;

    fn try_from(roles: UncheckedRoles) -> Result<Roles, &'static str> {
        let UncheckedRoles { id, scope, from, to, whole, ops } = roles;
        let steps = to.as_u64().checked_sub(from.as_u64()).ok_or("generations fall back")?;
        if !ops.is_sorted_by(|a, b| a.role < b.role) {
            return Err("roles out of order");
        }
        let fits = |op: &RoleOp| {
            if whole { op.code == 0 } else { (1..=steps).contains(&(op.code >> 1)) }
        };
        if (whole && from != Generation::ZERO) || !ops.iter().all(fits) {
            return Err("changes outside of their generations");
        }
        Ok(Roles { id, scope, from, to, whole, ops })
    }
}

/// One role added or removed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RoleOp {
    /// Twice the steps from `from` to the generation of this change, plus 1 for a removal; 0 in a
    /// whole set.
    pub code: u64,
    /// The role.
    #[serde(with = "role_bytes")]
    pub role: Role,
}

/// Something that can be fetched.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Object {
    /// A node's [`Profile`].
    Profile(NodeId),
    /// A node's [`Roles`] in a scope.
    Roles(NodeId, ScopeId),
}

/// An object that does not fit into a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Large {
    /// The object.
    pub object: Object,
    /// Its version or generation.
    pub version: u64,
}

/// Has the receiver tell all members in a range of ids what is in it: those of the scope whose
/// roles it is about, or all. The receiver answers with an [`Ack`] and is then responsible for the
/// range.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Delegate {
    /// Repeated in the answer.
    #[serde(with = "postcard::fixint::le")]
    pub seq: u16,
    /// The first id of the range.
    pub low: NodeId,
    /// The last id of the range.
    pub high: NodeId,
    /// Whether a [`Reached`] is wanted too, and how patiently: a receiver waits for those of others
    /// for so many times what an acknowledgement takes, and gives them half of that. 0: it is not.
    pub patience: u8,
    /// Frames of updates, passed on as they came.
    pub cargo: Bytes,
}

/// Tells who asked for it in a [`Delegate`] how many have what was in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reached {
    /// Of the [`Delegate`].
    #[serde(with = "postcard::fixint::le")]
    pub seq: u16,
    /// How many have it.
    pub count: u32,
    /// The sum of their ids, modulo 2^64.
    #[serde(with = "postcard::fixint::le")]
    pub ids: u64,
    /// Ranges of ids from which nothing was heard in time: they are not counted.
    #[serde(deserialize_with = "codec::unheard")]
    pub unheard: Vec<(NodeId, NodeId)>,
}

/// Asks for objects.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fetch {
    /// Each with the version or generation that is known already.
    #[serde(deserialize_with = "codec::wants")]
    pub wants: Vec<(Object, u64)>,
}

/// Asks for a part of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FetchPart {
    /// The object.
    pub object: Object,
    /// Its version or generation; zero for the newest.
    pub version: u64,
    /// Where the part begins, in bytes.
    pub offset: u32,
}

/// A part of an object's encoded frame body.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Part {
    /// The object.
    pub object: Object,
    /// Its version or generation.
    pub version: u64,
    /// The length of the whole, in bytes.
    pub total: u32,
    /// Where this part begins.
    pub offset: u32,
    /// The bytes.
    pub bytes: Bytes,
}

/// Asks how much of the sender's roles in a scope the receiver has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ask {
    /// The scope.
    pub scope: ScopeId,
}

/// The generation of the receiver's roles that the sender has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Has {
    /// The scope.
    pub scope: ScopeId,
    /// The generation.
    pub generation: Generation,
}

/// Tells a run that a datagram sealed with a higher number than its last one has come in its name,
/// so that nothing of it is taken any more: it numbers on from there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Behind {
    /// The highest number that has come.
    pub number: u64,
}
