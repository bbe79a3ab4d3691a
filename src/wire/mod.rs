//! Bytes to plain data and back. Bytes are checked here, once; past this module only valid values
//! exist.
//!
//! ```text
//!  0        2                  3           7              15          19         23
//!  +--------+---------+--------+-----------+--------------+-----------+----------+--------
//!  | "rc"   | version | flags  | cluster   | from         | to        | checksum | frames
//!  | 2 B    | high    | low    | 4 B LE,   | 8 B NodeId   | 4 B LE,   | 4 B LE   | ...
//!  |        | 4 bits  | 4 bits | low half  |              | low half  |          |
//!  +--------+---------+--------+-----------+--------------+-----------+----------+--------
//!                                of its                     of NodeId;  of the cluster's
//!                                64-bit hash                0 = whoever whole hash and all
//!                                                           is there    other bytes
//!  a frame:  kind (1 B) | length of the body (varint) | body (postcard)
//! ```
//!
//! A frame of unknown kind is skipped by its length. Everything else that is not exactly as
//! described refuses the whole datagram. `docs/PROTOCOL.md` describes every byte; the vectors in
//! `tests/wire_vectors.rs` hold it still.

pub mod cell;
mod codec;
mod compare;
pub mod frame;
pub mod limits;
pub(crate) mod print;
pub mod sealed;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::ops::Range;
use thiserror::Error;

use crate::node::NodeId;
pub use frame::Frame;
use frame::{Stamp, Table};
use limits::{MAX_DATAGRAM_BYTES, MAX_FRAMES_PER_DATAGRAM};

/// The first two bytes of every datagram.
pub const MAGIC: [u8; 2] = *b"rc";
/// The protocol's major version, at most 15; a datagram of another one is refused.
pub const VERSION: u8 = 1;
/// Bytes before the first frame.
pub const HEADER_BYTES: usize = 23;
/// Where version and flags stand.
const VERSION_AND_FLAGS: usize = 2;
const CLUSTER: Range<usize> = 3..7;
const FROM: Range<usize> = 7..15;
const TO: Range<usize> = 15..19;
/// Where the checksum stands. UDP's own is weak, and switched off on some paths; a flipped bit in a
/// node's id or address must not become a member.
const CHECKSUM: Range<usize> = 19..23;
/// Set in the four bits of flags of a sealed datagram: see [`sealed`].
pub const FLAG_SEALED: u8 = 0b0000_0001;

/// The name of a cluster: a 64-bit hash. Its low half stands in every datagram, and the checksum is
/// of all of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClusterId(u64);

impl ClusterId {
    /// The bits of this id.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The id of the cluster with this name.
    pub fn of(name: &str) -> ClusterId {
        ClusterId(stable_hash(Domain::Cluster, &[name.as_bytes()]))
    }
}

/// The name of a scope as it stands on the wire: a 64-bit hash, so that nodes outside of a scope
/// see neither its roles nor its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
pub struct ScopeId(#[serde(with = "postcard::fixint::le")] u64);

impl ScopeId {
    /// The id of the scope with this name.
    pub fn of(name: &str) -> ScopeId {
        ScopeId(stable_hash(Domain::Scope, &[name.as_bytes()]))
    }

    /// The bits of this id.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// Hashes a value the same on every platform: std's hasher writes integers as the machine does.
pub(crate) struct StableHasher(SipHasher13);

impl StableHasher {
    pub(crate) fn new(domain: Domain) -> StableHasher {
        StableHasher(SipHasher13::new_with_keys(0x726f_6c65_6361_6c6c, domain as u64))
    }
}

macro_rules! write_little_endian {
    ($($write:ident: $int:ty,)*) => {
        $(fn $write(&mut self, int: $int) {
            self.0.write(&int.to_le_bytes());
        })*
    };
}

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    fn finish(&self) -> u64 {
        self.0.finish()
    }

    write_little_endian! {
        write_u8: u8, write_u16: u16, write_u32: u32, write_u64: u64, write_u128: u128,
        write_i8: i8, write_i16: i16, write_i32: i32, write_i64: i64, write_i128: i128,
    }

    fn write_usize(&mut self, int: usize) {
        self.write_u64(int as u64);
    }

    fn write_isize(&mut self, int: isize) {
        self.write_i64(int as i64);
    }
}

/// What a stable hash is for; no two uses share their values.
#[derive(Clone, Copy)]
pub(crate) enum Domain {
    Cluster = 1,
    Scope = 2,
    /// One entry of a table's summary.
    Summary = 3,
    /// Rendezvous hashing, of a node and of a key.
    Owner = 4,
    /// The cluster of a datagram and its bytes.
    Checksum = 5,
    /// The summaries of all tables that two nodes share.
    Digest = 6,
    /// Who is a witness of a suspicion.
    Witness = 7,
    /// What a profile or a role says.
    Print = 8,
}

/// SipHash-1-3 under a fixed key: the same on every platform and in every version of rolecall.
pub(crate) fn stable_hash(domain: Domain, parts: &[&[u8]]) -> u64 {
    let mut hasher = StableHasher::new(domain);
    for part in parts {
        hasher.write(part);
    }
    hasher.finish()
}

/// The hash of one entry of a table, of which its [`Summary`](frame::Summary) is the exclusive-or.
/// It also says in which [`Cell`](cell::Cell)s the entry is. The table is part of it, so that
/// entries of several tables can be in one sequence of cells.
pub(crate) fn entry_hash(table: Table, id: NodeId, stamp: Stamp) -> u64 {
    let mut bytes = [0; 28];
    bytes[..8].copy_from_slice(&table.as_u64().to_le_bytes());
    bytes[8..16].copy_from_slice(&id.as_u64().to_le_bytes());
    bytes[16..24].copy_from_slice(&stamp.number.to_le_bytes());
    bytes[24..].copy_from_slice(&stamp.print.to_le_bytes());
    stable_hash(Domain::Summary, &[&bytes])
}

/// What stands before the frames, as the sender knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The cluster that the datagram belongs to.
    pub cluster: ClusterId,
    /// The run that sent it.
    pub from: NodeId,
    /// The run that it is meant for; `None` when the sender knows only an address.
    pub to: Option<NodeId>,
}

/// What a header tells its receiver, of a datagram of the receiver's own cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReceivedHeader {
    /// The run that sent it.
    pub from: NodeId,
    to: Half,
}

impl ReceivedHeader {
    /// Whether it is meant for one run, rather than for whoever is there.
    pub fn is_addressed(&self) -> bool {
        self.to != WHOEVER_IS_THERE
    }

    /// Whether this run may take it: it is meant for it, or for whoever is there.
    pub fn is_for(&self, local: NodeId) -> bool {
        !self.is_addressed() || self.to == low_half(local.as_u64())
    }
}

impl From<Header> for ReceivedHeader {
    fn from(Header { from, to, .. }: Header) -> ReceivedHeader {
        // The few ids whose low half is zero are reached as whoever is there.
        ReceivedHeader { from, to: to.map_or(WHOEVER_IS_THERE, |to| low_half(to.as_u64())) }
    }
}

/// The low 32 bits of a longer value, little-endian: enough to tell apart what meets by accident.
type Half = [u8; 4];

const WHOEVER_IS_THERE: Half = [0; 4];

fn low_half(bits: u64) -> Half {
    let [a, b, c, d, ..] = bits.to_le_bytes();
    [a, b, c, d]
}

/// Why a datagram was refused. It changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Shorter than a header, or longer than a datagram can be.
    #[error("{len} bytes are no datagram of ours")]
    Length {
        /// The length in bytes.
        len: usize,
    },
    /// It does not begin with [`MAGIC`].
    #[error("not a rolecall datagram")]
    Magic,
    /// Another major version of the protocol.
    #[error("protocol version {version}, ours is {VERSION}")]
    Version {
        /// Its version.
        version: u8,
    },
    /// With flags that this version does not know.
    #[error("flags {flags:#06b} are not understood")]
    Flags {
        /// Its four bits of flags.
        flags: u8,
    },
    /// Sealed, and this node has no keyring.
    #[error("sealed, and there is no key here")]
    Sealed,
    /// Not sealed, and this node has a keyring.
    #[error("not sealed")]
    Plain,
    /// Sealed with a key that this node does not have.
    #[error("sealed with a key that is not here")]
    WrongKey,
    /// Sealed with a key of this node's, as it says, but the tag is wrong: bytes were changed on
    /// the way, or it is a forgery.
    #[error("the seal is broken")]
    BrokenSeal,
    /// It came before, or so many later ones came that this cannot be told any more.
    #[error("a replay")]
    Replay,
    /// Bytes were changed on the way, or it belongs to another cluster whose hash has the same low
    /// half.
    #[error("the checksum is wrong")]
    Checksum,
    /// It belongs to another cluster.
    #[error("of another cluster")]
    OtherCluster,
    /// The sender's id is zero.
    #[error("no sender")]
    NoSender,
    /// A frame ends after the datagram does, or its body is not what its kind says.
    #[error("malformed frame of kind {kind}")]
    Frame {
        /// The kind of the frame.
        kind: u8,
    },
    /// More frames than [`MAX_FRAMES_PER_DATAGRAM`].
    #[error("too many frames")]
    TooManyFrames,
}

/// Starts a datagram: clears the buffer and writes the header. [`finish`] completes it.
pub fn begin(header: Header, datagram: &mut Vec<u8>) {
    let ReceivedHeader { from, to } = header.into();
    datagram.clear();
    datagram.extend_from_slice(&MAGIC);
    datagram.push(VERSION << 4);
    datagram.extend_from_slice(&low_half(header.cluster.0));
    datagram.extend_from_slice(&from.as_u64().to_le_bytes());
    datagram.extend_from_slice(&to);
    datagram.extend_from_slice(&[0; CHECKSUM.end - CHECKSUM.start]);
}

/// Completes a datagram that was begun for this cluster: writes the checksum.
///
/// ```
/// use rolecall::NodeId;
/// use rolecall::wire::{ClusterId, Header, begin, decode_header, finish};
///
/// let cluster = ClusterId::of("example");
/// let [a, b, c] = [1, 2, 3].map(|n| NodeId::from_u64(n).unwrap());
/// let mut datagram = Vec::new();
/// begin(Header { cluster, from: a, to: Some(b) }, &mut datagram);
/// finish(&mut datagram, cluster);
///
/// let header = decode_header(&datagram, cluster).unwrap();
/// assert!(header.from == a && header.is_for(b) && !header.is_for(c));
/// datagram[13] ^= 1;
/// assert!(decode_header(&datagram, cluster).is_err());
/// ```
///
/// # Panics
/// When the buffer holds no header.
pub fn finish(datagram: &mut [u8], cluster: ClusterId) {
    let checksum = checksum(datagram, cluster);
    datagram[CHECKSUM].copy_from_slice(&checksum);
}

/// The cluster's whole hash is a part of it, as the addresses are of UDP's: 32 bits of it travel,
/// and all 64 keep clusters apart.
fn checksum(datagram: &[u8], cluster: ClusterId) -> Half {
    let (before, after) = (&datagram[..CHECKSUM.start], &datagram[CHECKSUM.end..]);
    low_half(stable_hash(Domain::Checksum, &[&cluster.0.to_le_bytes(), before, after]))
}

/// Reads a header, and checks that the datagram belongs to this cluster and that no byte of it was
/// changed on the way.
///
/// # Errors
/// What is wrong with it.
pub fn decode_header(datagram: &[u8], cluster: ClusterId) -> Result<ReceivedHeader, DecodeError> {
    check_kind(datagram, 0, HEADER_BYTES)?;
    let header = read_header(datagram, cluster);
    let changed = datagram[CHECKSUM] != checksum(datagram, cluster);
    match header {
        Ok(_) | Err(DecodeError::NoSender) if changed => Err(DecodeError::Checksum),
        header => header,
    }
}

/// Whether the bytes say of themselves that they are a datagram of this protocol with these flags,
/// and are long enough.
fn check_kind(datagram: &[u8], wanted: u8, min_len: usize) -> Result<(), DecodeError> {
    let len = datagram.len();
    if !(HEADER_BYTES..=MAX_DATAGRAM_BYTES).contains(&len) {
        return Err(DecodeError::Length { len });
    }
    if !datagram.starts_with(&MAGIC) {
        return Err(DecodeError::Magic);
    }
    let (version, flags) = (datagram[VERSION_AND_FLAGS] >> 4, datagram[VERSION_AND_FLAGS] & 0x0f);
    if version != VERSION {
        return Err(DecodeError::Version { version });
    }
    match flags {
        _ if flags == wanted && len >= min_len => Ok(()),
        _ if flags == wanted => Err(DecodeError::Length { len }),
        0 => Err(DecodeError::Plain),
        FLAG_SEALED => Err(DecodeError::Sealed),
        _ => Err(DecodeError::Flags { flags }),
    }
}

/// What stands before the checksum, of a datagram of this cluster.
fn read_header(datagram: &[u8], cluster: ClusterId) -> Result<ReceivedHeader, DecodeError> {
    if datagram[CLUSTER] != low_half(cluster.0) {
        return Err(DecodeError::OtherCluster);
    }
    let from = datagram[FROM].try_into().expect("eight bytes: the length was checked");
    let from = NodeId::from_u64(u64::from_le_bytes(from)).ok_or(DecodeError::NoSender)?;
    let to = datagram[TO].try_into().expect("four bytes: the length was checked");
    Ok(ReceivedHeader { from, to })
}

/// Reads all frames of a datagram, whose header is valid, into `frames` (cleared first).
///
/// # Errors
/// Nothing of a datagram counts when any of its frames is malformed; `frames` is then empty.
pub fn decode_frames(datagram: &[u8], frames: &mut Vec<Frame>) -> Result<(), DecodeError> {
    decode_cargo(datagram.get(HEADER_BYTES..).unwrap_or_default(), frames)
}

/// Reads frames that stand by themselves, as in a [`Delegate`](frame::Delegate), into `frames`
/// (cleared first).
///
/// # Errors
/// As [`decode_frames`].
pub fn decode_cargo(mut rest: &[u8], frames: &mut Vec<Frame>) -> Result<(), DecodeError> {
    frames.clear();
    while !rest.is_empty() {
        match codec::take(&mut rest) {
            Ok(None) => {}
            Ok(Some(_)) if frames.len() == MAX_FRAMES_PER_DATAGRAM => {
                frames.clear();
                return Err(DecodeError::TooManyFrames);
            }
            Ok(Some(frame)) => frames.push(frame),
            Err(kind) => {
                frames.clear();
                return Err(DecodeError::Frame { kind });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> NodeId {
        NodeId::from_u64(n).unwrap()
    }

    fn datagram(cluster: ClusterId, to: Option<NodeId>) -> Vec<u8> {
        let mut datagram = Vec::new();
        begin(Header { cluster, from: id(1), to }, &mut datagram);
        finish(&mut datagram, cluster);
        datagram
    }

    #[test]
    fn the_high_half_of_the_hash_keeps_clusters_apart_too() {
        let ours = ClusterId::of("ours");
        assert!(decode_header(&datagram(ours, None), ours).is_ok());
        for bit in 0..64 {
            let other = ClusterId(ours.0 ^ (1 << bit));
            let expected = if bit < 32 { DecodeError::OtherCluster } else { DecodeError::Checksum };
            assert_eq!(decode_header(&datagram(other, None), ours), Err(expected), "bit {bit}");
        }
    }

    #[test]
    fn a_datagram_is_for_the_run_whose_low_half_it_names() {
        let cluster = ClusterId::of("ours");
        let received = |to| decode_header(&datagram(cluster, to), cluster).unwrap();
        let (run, other) = (id(0x0102_0304_0506_0708), id(0x0102_0304_0506_0709));
        let header = received(Some(run));
        assert!(header.is_addressed() && header.is_for(run) && !header.is_for(other));
        let header = received(None);
        assert!(!header.is_addressed() && header.is_for(run) && header.is_for(other));
        // An id whose low half is zero is never refused its datagrams.
        let zero = id(1 << 32);
        assert!(!received(Some(run)).is_for(zero));
        assert!(received(Some(zero)).is_for(zero) && received(Some(zero)).is_for(run));
    }
}
