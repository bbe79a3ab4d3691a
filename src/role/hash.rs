//! Hashes of roles, and of other short texts that come from the network.
//!
//! They are keyed, with a random key per process that never leaves it: nobody can make a list of
//! roles that collide everywhere. foldhash is several times faster than `SipHash` on the few bytes
//! of a role, and each lookup by a string computes one.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;

use super::term;

struct Key {
    of_texts: u64,
    of_terms: u64,
    shared: SharedSeed,
}

/// The hash of the role with these canonical bytes; that of a string is [`of_text`], if it is
/// plain, so that a lookup by it need not write them.
#[inline]
pub(crate) fn of_term(bytes: &[u8]) -> u64 {
    term::plain_text(bytes).map_or_else(|| hash(key().of_terms, bytes), of_text)
}

/// The hash of a text.
#[inline]
pub(crate) fn of_text(text: &[u8]) -> u64 {
    hash(key().of_texts, text)
}

#[inline]
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut hasher = FoldHasher::with_seed(seed, &key().shared);
    hasher.write(bytes);
    hasher.finish()
}

#[inline]
fn key() -> &'static Key {
    static KEY: OnceLock<Key> = OnceLock::new();
    KEY.get_or_init(|| {
        let random = RandomState::new();
        let [of_texts, of_terms, shared] = [0, 1, 2].map(|n| random.hash_one(n));
        Key { of_texts, of_terms, shared: SharedSeed::from_u64(shared) }
    })
}
