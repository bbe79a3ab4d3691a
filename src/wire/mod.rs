//! Bytes to plain data and back. Bytes are checked here, once; past this module only valid values
//! exist.
//!
//! ```text
//!  0        2         3        4              12             20             28         32
//!  +--------+---------+--------+--------------+--------------+--------------+----------+--------
//!  | "rc"   | version | flags  | cluster      | from         | to           | checksum | frames
//!  | 2 B    | 1 B     | 1 B    | 8 B hash LE  | 8 B NodeId   | 8 B NodeId   | 4 B LE   | ...
//!  +--------+---------+--------+--------------+--------------+--------------+----------+--------
//!                                                              0 = whoever    of all
//!                                                              is there       other bytes
//!  a frame:  kind (1 B) | length of the body (varint) | body (postcard)
//! ```
//!
//! A frame of unknown kind is skipped by its length. Everything else that is not exactly as
//! described refuses the whole datagram. `docs/PROTOCOL.md` describes every byte; the vectors in
//! `tests/wire_vectors.rs` hold it still.

mod codec;
pub mod frame;
pub mod limits;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use thiserror::Error;

use crate::node::NodeId;
pub use frame::Frame;
use limits::{MAX_DATAGRAM_BYTES, MAX_FRAMES_PER_DATAGRAM};

/// The first two bytes of every datagram.
pub const MAGIC: [u8; 2] = *b"rc";
/// The protocol's major version; a datagram of another one is refused.
pub const VERSION: u8 = 1;
/// Bytes before the first frame.
pub const HEADER_BYTES: usize = 32;
/// Where the checksum stands. UDP's own is weak, and switched off on some paths; a flipped bit in a
/// node's id or address must not become a member.
const CHECKSUM: std::ops::Range<usize> = 28..32;
/// Set in the flags of a sealed datagram (reserved for authenticated encryption).
pub const FLAG_SEALED: u8 = 0b0000_0001;

/// The name of a cluster as it stands on the wire: a 64-bit hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClusterId(u64);

impl ClusterId {
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
    /// The bytes of a datagram.
    Checksum = 5,
}

/// SipHash-1-3 under a fixed key: the same on every platform and in every version of rolecall.
pub(crate) fn stable_hash(domain: Domain, parts: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0x726f_6c65_6361_6c6c, domain as u64);
    for part in parts {
        hasher.write(part);
    }
    hasher.finish()
}

/// The hash of one entry of a table, of which its [`Summary`](frame::Summary) is the exclusive-or.
pub(crate) fn entry_hash(id: NodeId, stamp: u64) -> u64 {
    stable_hash(Domain::Summary, &[&id.as_u64().to_le_bytes(), &stamp.to_le_bytes()])
}

/// What stands before the frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The cluster that the datagram belongs to.
    pub cluster: ClusterId,
    /// The run that sent it.
    pub from: NodeId,
    /// The run that it is meant for; `None` when the sender knows only an address.
    pub to: Option<NodeId>,
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
    /// Sealed, or with flags that this version does not know.
    #[error("flags {flags:#010b} are not understood")]
    Flags {
        /// Its flags.
        flags: u8,
    },
    /// Bytes were changed on the way.
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
    datagram.clear();
    datagram.extend_from_slice(&MAGIC);
    datagram.push(VERSION);
    datagram.push(0);
    datagram.extend_from_slice(&header.cluster.0.to_le_bytes());
    datagram.extend_from_slice(&header.from.as_u64().to_le_bytes());
    datagram.extend_from_slice(&header.to.map_or(0, NodeId::as_u64).to_le_bytes());
    datagram.extend_from_slice(&[0; CHECKSUM.end - CHECKSUM.start]);
}

/// Completes a datagram that was begun: writes the checksum of its bytes.
///
/// ```
/// use rolecall::NodeId;
/// use rolecall::wire::{ClusterId, Header, begin, decode_header, finish};
///
/// let header = Header {
///     cluster: ClusterId::of("example"),
///     from: NodeId::from_u64(1).unwrap(),
///     to: None,
/// };
/// let mut datagram = Vec::new();
/// begin(header, &mut datagram);
/// finish(&mut datagram);
/// assert_eq!(decode_header(&datagram), Ok(header));
/// datagram[13] ^= 1;
/// assert!(decode_header(&datagram).is_err());
/// ```
///
/// # Panics
/// When the buffer holds no header.
pub fn finish(datagram: &mut [u8]) {
    let checksum = checksum(datagram);
    datagram[CHECKSUM].copy_from_slice(&checksum);
}

fn checksum(datagram: &[u8]) -> [u8; 4] {
    let (before, after) = (&datagram[..CHECKSUM.start], &datagram[CHECKSUM.end..]);
    let [a, b, c, d, ..] = stable_hash(Domain::Checksum, &[before, after]).to_le_bytes();
    [a, b, c, d]
}

/// Reads a header, and checks that no byte of the datagram was changed on the way.
///
/// # Errors
/// What is wrong with it; the cluster is the caller's to compare.
pub fn decode_header(datagram: &[u8]) -> Result<Header, DecodeError> {
    let len = datagram.len();
    if !(HEADER_BYTES..=MAX_DATAGRAM_BYTES).contains(&len) {
        return Err(DecodeError::Length { len });
    }
    if datagram[..2] != MAGIC {
        return Err(DecodeError::Magic);
    }
    if datagram[2] != VERSION {
        return Err(DecodeError::Version { version: datagram[2] });
    }
    if datagram[3] != 0 {
        return Err(DecodeError::Flags { flags: datagram[3] });
    }
    if datagram[CHECKSUM] != checksum(datagram) {
        return Err(DecodeError::Checksum);
    }
    let word = |at: usize| {
        let bytes = datagram[at..at + 8].try_into().expect("eight bytes: the length was checked");
        u64::from_le_bytes(bytes)
    };
    let from = NodeId::from_u64(word(12)).ok_or(DecodeError::NoSender)?;
    Ok(Header { cluster: ClusterId(word(4)), from, to: NodeId::from_u64(word(20)) })
}

/// Reads all frames of a datagram, whose header is valid, into `frames` (cleared first).
///
/// # Errors
/// Nothing of a datagram counts when any of its frames is malformed; `frames` is then empty.
pub fn decode_frames(datagram: &[u8], frames: &mut Vec<Frame>) -> Result<(), DecodeError> {
    frames.clear();
    let mut rest = datagram.get(HEADER_BYTES..).unwrap_or_default();
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
