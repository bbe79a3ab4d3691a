//! The frames by which tables are compared and pulled.

use serde::{Deserialize, Serialize};

use super::ScopeId;
use super::cell::Cells;
use super::codec;
use crate::node::NodeId;

/// A table that nodes keep in common.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Table {
    /// The members of the cluster.
    Members,
    /// The roles of one scope.
    Scope(ScopeId),
}

impl Table {
    /// The table in its entries' hashes: the scope's bits, or zero.
    pub(crate) const fn as_u64(self) -> u64 {
        match self {
            Table::Members => 0,
            Table::Scope(scope) => scope.as_u64(),
        }
    }
}

/// What two nodes compare of an entry of a table.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash, Serialize, Deserialize,
)]
pub struct Stamp {
    /// Which of two is the newer: of a member, its version and its incarnation, in the upper and
    /// the lower half; of a node's roles in a scope, their generation.
    pub number: u64,
    /// Of what the entry says. Where two of one number have different ones, somebody has it wrong,
    /// and only its owner knows who.
    #[serde(with = "postcard::fixint::le")]
    pub print: u32,
}

/// A table in short: equal summaries mean equal tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// How many entries.
    pub count: u32,
    /// The exclusive-or of the entries' hashes.
    #[serde(with = "postcard::fixint::le")]
    pub hash: u64,
}

/// Asks for a comparison of tables.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Compare {
    /// Repeated in the answer.
    pub token: u32,
    /// Whether the receiver should compare in turn when something differs.
    pub mutual: bool,
    /// The tables that both nodes should have, in their order, each once.
    #[serde(deserialize_with = "codec::tables")]
    pub tables: Vec<(Table, Summary)>,
}

/// Nothing differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Same {
    /// Of the comparison.
    pub token: u32,
}

/// A table that differs: the hash of each bucket of ids, by their highest bits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Buckets {
    /// Of the comparison.
    pub token: u32,
    /// How many tables differ; each comes in a frame of its own.
    pub of: u8,
    /// The table.
    pub table: Table,
    /// One hash a bucket; a power of two of them.
    #[serde(deserialize_with = "codec::buckets")]
    pub hashes: Vec<Fixed>,
}

/// 64 bits in eight bytes: shorter than a varint for a hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Fixed(#[serde(with = "postcard::fixint::le")] pub u64);

/// Asks for the entries of a range that the asker lacks or has older.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pull {
    /// Repeated in the answer.
    pub token: u32,
    /// The table.
    pub table: Table,
    /// The first id of the range.
    pub low: NodeId,
    /// The last id of the range.
    pub high: NodeId,
    /// The stamps of all entries that the asker has in the range.
    #[serde(deserialize_with = "codec::known")]
    pub known: Vec<(NodeId, Stamp)>,
}

/// The entries follow as frames of the same datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Page {
    /// Of the pull.
    pub token: u32,
    /// The table.
    pub table: Table,
    /// The first id of the range asked for.
    pub low: NodeId,
    /// The last id that was looked at.
    pub through: NodeId,
    /// Whether that is the end of the range.
    pub done: bool,
}

/// The coded symbols of all entries of the tables that two nodes share: of the members, and of the
/// scopes that both are in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Symbols {
    /// Of the sender's profile.
    pub own_version: u32,
    /// Of the receiver's profile, as far as the sender knows.
    pub your_version: u32,
    /// The number of the first of them.
    pub first: u16,
    /// Them.
    pub cells: Cells,
}

/// Asks for further [`Symbols`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MoreSymbols {
    /// The number of the first one.
    pub first: u16,
}

/// Tells a node that somebody has this entry of it. When it is not what the node has itself, it
/// makes one that is newer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Contested {
    /// In which table.
    pub table: Table,
    /// What is compared of it.
    pub stamp: Stamp,
}

/// The frames after it are what the receiver lacks, as a comparison has shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Push;
