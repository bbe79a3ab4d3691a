//! Bytes that are kept in place while they are few.

use std::ops::Deref;
use std::sync::Arc;

/// Immutable bytes, cheap to clone. Most roles are a short word: in place it costs no allocation,
/// and whoever compares it no further cache line.
#[derive(Clone)]
pub(super) enum SmallBytes {
    Inline { len: u8, bytes: [u8; SmallBytes::INLINE_BYTES] },
    Shared(Arc<[u8]>),
}

impl SmallBytes {
    /// As many as make the whole three words.
    const INLINE_BYTES: usize = 22;
}

impl From<&[u8]> for SmallBytes {
    fn from(from: &[u8]) -> SmallBytes {
        match u8::try_from(from.len()) {
            Ok(len) if from.len() <= SmallBytes::INLINE_BYTES => {
                let mut bytes = [0; SmallBytes::INLINE_BYTES];
                bytes[..from.len()].copy_from_slice(from);
                SmallBytes::Inline { len, bytes }
            }
            _ => SmallBytes::Shared(from.into()),
        }
    }
}

impl PartialEq for SmallBytes {
    /// Of few bytes all are compared, and the zeros after them: that needs neither loop nor call.
    #[inline]
    fn eq(&self, other: &SmallBytes) -> bool {
        match (self, other) {
            (
                SmallBytes::Inline { len: a, bytes: of_a },
                SmallBytes::Inline { len: b, bytes: of_b },
            ) => a == b && of_a == of_b,
            _ => **self == **other,
        }
    }
}

impl Deref for SmallBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            SmallBytes::Inline { len, bytes } => &bytes[..usize::from(*len)],
            SmallBytes::Shared(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_what_they_were_made_of_however_many_they_are() {
        assert_eq!(size_of::<SmallBytes>(), 3 * size_of::<usize>());
        let all: Vec<u8> = (1..=100).collect();
        for len in 0..=all.len() {
            let small = SmallBytes::from(&all[..len]);
            assert_eq!(*small.clone(), all[..len]);
            let in_place = matches!(small, SmallBytes::Inline { .. });
            assert_eq!(in_place, len <= SmallBytes::INLINE_BYTES, "{len}");
            for other in 0..=all.len() {
                assert_eq!(small == SmallBytes::from(&all[..other]), len == other);
            }
            assert!(len == 0 || small != SmallBytes::from(&vec![0; len][..]));
        }
    }
}
