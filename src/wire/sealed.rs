//! The layout of a sealed datagram. What is in it only those read who have the key; what is before
//! that everybody reads and nobody can change.
//!
//! ```text
//!  0                         19        20        21          27            end - 16
//!  +-------------------------+---------+---------+-----------+-------------+--------+
//!  | as in a plain datagram  | key     | primary | counter   | frames,     | tag    |
//!  | (flags: sealed)         | 1 B     | 1 B     | 6 B LE    | encrypted   | 16 B   |
//!  +-------------------------+---------+---------+-----------+-------------+--------+
//!    magic to `to`             last byte of the key's id: of the one that it is
//!                              sealed with, and of the one that its sender prefers
//! ```
//!
//! There is no checksum: the tag is more than that.

use super::{
    CHECKSUM, ClusterId, DecodeError, FLAG_SEALED, Header, ReceivedHeader, VERSION,
    VERSION_AND_FLAGS, begin, check_kind, read_header,
};

/// Bytes before the frames of a sealed datagram.
pub const SEALED_HEADER_BYTES: usize = COUNTER.end;
/// Bytes after them.
pub const TAG_BYTES: usize = 16;
/// The last number that a datagram can have.
pub const MAX_COUNTER: u64 = (1 << 48) - 1;

const KEY: usize = CHECKSUM.start;
const PRIMARY: usize = KEY + 1;
const COUNTER: std::ops::Range<usize> = PRIMARY + 1..PRIMARY + 7;

/// What stands in a sealed datagram besides what stands in each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seal {
    /// The last byte of the id of the key that it is sealed with.
    pub key: u8,
    /// The same of the key that its sender prefers.
    pub primary: u8,
    /// Its number among all that its sender has sealed; at most [`MAX_COUNTER`].
    pub counter: u64,
}

/// Whether a datagram says of itself that it is sealed.
pub fn is_sealed(datagram: &[u8]) -> bool {
    datagram.get(VERSION_AND_FLAGS) == Some(&(VERSION << 4 | FLAG_SEALED))
}

/// Starts a datagram that is to be sealed: clears the buffer and writes the header, in which
/// [`set_seal`] is still to write the seal.
pub fn begin_sealed(header: Header, datagram: &mut Vec<u8>) {
    begin(header, datagram);
    datagram[VERSION_AND_FLAGS] |= FLAG_SEALED;
    datagram.resize(SEALED_HEADER_BYTES, 0);
}

/// Writes the seal into a header.
///
/// # Panics
/// When the buffer holds no header, or the counter is over [`MAX_COUNTER`].
pub fn set_seal(datagram: &mut [u8], seal: Seal) {
    assert!(seal.counter <= MAX_COUNTER, "no datagram has this number");
    datagram[KEY] = seal.key;
    datagram[PRIMARY] = seal.primary;
    datagram[COUNTER].copy_from_slice(&seal.counter.to_le_bytes()[..6]);
}

/// Reads the header of a sealed datagram. Nothing is believed of it before the tag was checked.
///
/// # Errors
/// What is wrong with it.
pub fn decode_sealed_header(
    datagram: &[u8],
    cluster: ClusterId,
) -> Result<(ReceivedHeader, Seal), DecodeError> {
    check_kind(datagram, FLAG_SEALED, SEALED_HEADER_BYTES + TAG_BYTES)?;
    let header = read_header(datagram, cluster)?;
    let mut counter = [0; 8];
    counter[..6].copy_from_slice(&datagram[COUNTER]);
    let counter = u64::from_le_bytes(counter);
    Ok((header, Seal { key: datagram[KEY], primary: datagram[PRIMARY], counter }))
}
