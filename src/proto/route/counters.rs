//! What is counted while it happens.

use crate::stats::{Dropped, Stats, Traffic};
use crate::wire::frame::kind_index;
use crate::wire::{DecodeError, Frame};

const KINDS: usize = Frame::NAMES.len();

/// The counters behind [`Stats`].
#[derive(Debug)]
pub(in crate::proto) struct Counters {
    pub(super) plain: Stats,
    received: [(u64, u64); KINDS],
    sent: [(u64, u64); KINDS],
}

impl Default for Counters {
    fn default() -> Counters {
        Counters { plain: Stats::default(), received: [(0, 0); KINDS], sent: [(0, 0); KINDS] }
    }
}

impl Counters {
    /// A datagram came whose first frame is of this kind.
    pub(super) fn received(&mut self, kind: u8, bytes: usize) {
        count(&mut self.received, kind, bytes);
    }

    /// A datagram goes whose first frame is of this kind.
    pub(super) fn sent(&mut self, kind: u8, bytes: usize) {
        self.plain.datagrams_out += 1;
        self.plain.bytes_out += bytes as u64;
        count(&mut self.sent, kind, bytes);
    }

    /// A datagram was refused.
    pub(super) fn refused(&mut self, error: DecodeError) {
        let dropped: &mut Dropped = &mut self.plain.dropped;
        *match error {
            DecodeError::Version { .. } => &mut dropped.other_version,
            DecodeError::OtherCluster => &mut dropped.other_cluster,
            DecodeError::Checksum | DecodeError::BrokenSeal => &mut dropped.corrupt,
            DecodeError::Plain | DecodeError::Sealed => &mut dropped.no_key,
            DecodeError::WrongKey => &mut dropped.wrong_key,
            DecodeError::Replay => &mut dropped.replayed,
            DecodeError::Frame { .. } | DecodeError::TooManyFrames => &mut dropped.malformed,
            DecodeError::Length { .. }
            | DecodeError::Magic
            | DecodeError::Flags { .. }
            | DecodeError::NoSender => &mut dropped.foreign,
        } += 1;
    }

    pub(in crate::proto) fn stats(&self) -> Stats {
        Stats { received: list(&self.received), sent: list(&self.sent), ..self.plain.clone() }
    }
}

fn count(kinds: &mut [(u64, u64); KINDS], kind: u8, bytes: usize) {
    if let Some(at) = kind_index(kind) {
        kinds[at].0 += 1;
        kinds[at].1 += bytes as u64;
    }
}

fn list(kinds: &[(u64, u64); KINDS]) -> Vec<Traffic> {
    let named = kinds.iter().zip(Frame::NAMES).filter(|((datagrams, _), _)| *datagrams > 0);
    named.map(|(&(datagrams, bytes), &kind)| Traffic { kind, datagrams, bytes }).collect()
}
