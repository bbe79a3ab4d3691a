//! Authenticated encryption of datagrams, and the protection against replays.
//!
//! - Each run seals with keys of its own: HKDF-SHA256 (RFC 5869) of the cluster's key, with the
//!   cluster's id and the run's. So its datagrams can be numbered from 1 on, and no nonce is ever
//!   used twice under a key, however many nodes send for however long. Random nonces under a shared
//!   key may repeat: among 2^32 of 96 bits two are alike with a chance of 2^-33, which is where
//!   NIST SP 800-38D draws the line, and 10,000 quiet nodes have sent as many after two days.
//! - The cipher is ChaCha20-Poly1305 (RFC 8439): it needs no key schedule, so that no more has to
//!   be kept ready for each peer than 32 bytes.
//! - A number is taken once: [`Window`]. A window is kept for every run that was ever heard, until
//!   there are [`MAX_PEERS`].
//! - During a rotation each datagram says which key its sender prefers; to who is not yet as far,
//!   a node goes on sending with the key that it was last heard with.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use zeroize::Zeroizing;

use crate::id_map::IdMap;
use crate::keyring::{Key, KeyId, Keyring, KeyringError};
use crate::node::NodeId;
use crate::time::Instant;
use crate::wire::limits::MAX_NODES;
use crate::wire::sealed::{
    MAX_COUNTER, SEALED_HEADER_BYTES, Seal, TAG_BYTES, decode_sealed_header, set_seal,
};
use crate::wire::{ClusterId, DecodeError, ReceivedHeader};

/// Runs of which this node remembers what it has heard.
const MAX_PEERS: usize = MAX_NODES;

/// A member whose datagram could not be read is told what can be, this often at most.
const PAUSE_BETWEEN_NUDGES: std::time::Duration = std::time::Duration::from_secs(1);

/// A number that is further ahead of the last one is not believed: who has the key and seals in
/// another run's name must not use up its numbers.
const MAX_LEAP: u64 = 1 << 42;

/// A run numbers on by so much at most, once in [`PAUSE_BETWEEN_STEPS`]: who tells it to cannot
/// take it further than others believe before they have heard it.
const MAX_STEP: u64 = 1 << 36;
const PAUSE_BETWEEN_STEPS: std::time::Duration = std::time::Duration::from_secs(1);

/// Members that are told within that time, at most.
const MAX_NUDGED: usize = 1024;

/// What a [`Protocol`](super::Protocol) with a keyring seals and opens datagrams with. Public for
/// harnesses that play a peer.
///
/// ```
/// use rolecall::proto::Sealing;
/// use rolecall::time::Instant;
/// use rolecall::wire::sealed::begin_sealed;
/// use rolecall::wire::{ClusterId, DecodeError, Header};
/// use rolecall::{Keyring, NodeId};
///
/// let (cluster, keyring) = (ClusterId::of("example"), Keyring::new([7; 32]));
/// let [a, b] = [1, 2].map(|n| NodeId::from_u64(n).unwrap());
/// let mut datagram = Vec::new();
/// begin_sealed(Header { cluster, from: a, to: Some(b) }, &mut datagram);
/// datagram.extend_from_slice(b"frames");
/// assert!(Sealing::new(keyring.clone(), cluster, a).seal(Some(b), &mut datagram));
///
/// let (mut at_b, mut frames) = (Sealing::new(keyring, cluster, b), Vec::new());
/// let header = at_b.open(Instant::ORIGIN, &datagram, &mut frames)?;
/// assert!(header.from == a && frames == b"frames");
/// let again = at_b.open(Instant::ORIGIN, &datagram, &mut frames);
/// assert_eq!(again, Err(DecodeError::Replay));
/// # Ok::<(), DecodeError>(())
/// ```
pub struct Sealing {
    cluster: ClusterId,
    local: NodeId,
    keyring: Keyring,
    /// One per key of the keyring, in its order.
    secrets: Vec<Secret>,
    /// The number of the last datagram that was sealed.
    counter: u64,
    /// How many of those were meant for whoever is there.
    unaddressed: u64,
    /// How often this node has begun to use another key.
    switches: u64,
    peers: IdMap<Peer>,
    nudged: IdMap<Instant>,
    /// When this run last numbered on.
    stepped: Option<Instant>,
}

/// A key, ready to derive from, and what this run seals with.
struct Secret {
    id: KeyId,
    root: Prk,
    own: LessSafeKey,
}

/// What is known of another run, from datagrams whose seal was good.
struct Peer {
    window: Window,
    /// What it seals with under one of the keys, unless that was removed.
    derived: Option<Derived>,
    /// Of its last datagram, and the key that opened it.
    seal: Seal,
    with: KeyId,
    /// How often this node had begun to use another key by then.
    switches: u64,
    heard: Instant,
}

struct Derived {
    of: KeyId,
    /// In a place of its own: what is moved leaves copies that nobody wipes.
    key: Box<Zeroizing<[u8; 32]>>,
}

/// 2^64 divided by the golden ratio: its multiples are spread evenly, and in no short cycle.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Words of a window.
const WORDS: usize = 16;

/// How many of the last numbers are told apart, whichever order they come in; the word that the
/// highest is in is not full as a rule. The numbers are of all datagrams of their sender, of which
/// few come here: where it sends 5,000 a second, it is a fifth of a second.
const WINDOW: u64 = (WORDS as u64 - 1) * 64;

/// Which numbers were taken, in the way of RFC 6479: moving on clears whole words.
struct Window {
    highest: u64,
    /// Number `n` is bit `n % 64` of word `n / 64 % WORDS`.
    taken: [u64; WORDS],
}

impl Window {
    fn new() -> Window {
        Window { highest: 0, taken: [0; WORDS] }
    }

    /// Whether this number may be taken still.
    fn is_free(&self, number: u64) -> bool {
        if number > self.highest {
            return true;
        }
        let (word, bit) = place(number);
        self.highest - number < WINDOW && self.taken[word] & bit == 0
    }

    fn take(&mut self, number: u64) {
        let passed = (number / 64).saturating_sub(self.highest / 64).min(WORDS as u64);
        for word in number / 64 + 1 - passed..=number / 64 {
            self.taken[place(word * 64).0] = 0;
        }
        self.highest = self.highest.max(number);
        let (word, bit) = place(number);
        self.taken[word] |= bit;
    }
}

/// The word and the bit of a number.
fn place(number: u64) -> (usize, u64) {
    ((number / 64 % WORDS as u64) as usize, 1 << (number % 64))
}

/// A derived key has 32 bytes.
struct DerivedLen;

impl KeyType for DerivedLen {
    fn len(&self) -> usize {
        32
    }
}

impl Secret {
    fn new(key: &Key, cluster: ClusterId, local: NodeId) -> Secret {
        let root = Salt::new(HKDF_SHA256, b"rolecall datagram 1").extract(key.secret());
        let own = cipher(&derive(&root, cluster, local));
        Secret { id: key.id(), root, own }
    }
}

/// What a run seals with.
#[expect(clippy::unnecessary_box_returns, reason = "see `Derived`")]
fn derive(root: &Prk, cluster: ClusterId, run: NodeId) -> Box<Zeroizing<[u8; 32]>> {
    let (cluster, run) = (cluster.as_u64().to_le_bytes(), run.as_u64().to_le_bytes());
    let mut key = Box::new(Zeroizing::new([0; 32]));
    root.expand(&[&cluster, &run], DerivedLen)
        .and_then(|derived| derived.fill(&mut **key))
        .expect("32 bytes can be derived");
    key
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("a key has 32 bytes"))
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

impl Sealing {
    /// That of the run `local`, which has sealed nothing yet.
    pub fn new(keyring: Keyring, cluster: ClusterId, local: NodeId) -> Sealing {
        let mut sealing = Sealing {
            cluster,
            local,
            keyring,
            secrets: Vec::new(),
            counter: 0,
            unaddressed: 0,
            switches: 0,
            peers: IdMap::default(),
            nudged: IdMap::default(),
            stepped: None,
        };
        sealing.keys_changed();
        sealing
    }

    /// The ids of all keys, first that of the one to send with.
    pub(super) fn ids(&self) -> Vec<KeyId> {
        self.keyring.ids()
    }

    pub(super) fn install(&mut self, key: Key) -> Result<(), KeyringError> {
        self.keyring.install(key)?;
        self.keys_changed();
        Ok(())
    }

    /// Whether another key is used from now on, of which others should hear.
    pub(super) fn use_key(&mut self, id: KeyId) -> Result<bool, KeyringError> {
        let changed = self.keyring.use_key(id)?;
        if changed {
            self.keys_changed();
            self.switches += 1;
        }
        Ok(changed)
    }

    pub(super) fn remove(&mut self, id: KeyId) -> Result<(), KeyringError> {
        self.keyring.remove(id)?;
        self.keys_changed();
        let derived_of = |peer: &Peer| peer.derived.as_ref().map(|derived| derived.of);
        let of_it = |(run, peer): (NodeId, &Peer)| (derived_of(peer) == Some(id)).then_some(run);
        let of_it: Vec<NodeId> = self.peers.iter().filter_map(of_it).collect();
        for run in of_it {
            self.peers.get_mut(run).expect("just found").derived = None;
        }
        Ok(())
    }

    /// How many of these runs are known to prefer another key than this one does.
    pub(super) fn count_on_other_keys(&self, runs: &[NodeId]) -> usize {
        let own = self.secrets[0].id;
        let differs = |peer: &&Peer| peer.seal.primary != own.hint();
        // A ring of one key reads no other.
        let runs = if self.secrets.len() > 1 { runs } else { &[] };
        runs.iter().filter_map(|run| self.peers.get(*run)).filter(differs).count()
    }

    /// Seals a datagram that was begun by [`begin_sealed`](crate::wire::sealed::begin_sealed), for
    /// a run or for whoever is there. False if this run has used up its numbers, which takes 2^48
    /// datagrams.
    ///
    /// # Panics
    /// When the buffer holds no header.
    pub fn seal(&mut self, to: Option<NodeId>, datagram: &mut Vec<u8>) -> bool {
        if self.counter >= MAX_COUNTER {
            return false;
        }
        self.counter += 1;
        let secret = if let Some(to) = to {
            self.secret_for(to)
        } else {
            // Nobody knows which keys are there: all are tried, in no order in which the same seed
            // could always meet the same key.
            self.unaddressed += 1;
            let mixed = self.unaddressed.wrapping_mul(GOLDEN) >> 32;
            &self.secrets[usize::try_from(mixed).unwrap_or(0) % self.secrets.len()]
        };
        let (key, primary) = (secret.id.hint(), self.secrets[0].id.hint());
        set_seal(datagram, Seal { key, primary, counter: self.counter });
        let (header, frames) = datagram.split_at_mut(SEALED_HEADER_BYTES);
        let tag = secret
            .own
            .seal_in_place_separate_tag(nonce(self.counter), Aad::from(&*header), frames)
            .expect("a datagram is short");
        datagram.extend_from_slice(tag.as_ref());
        true
    }

    /// Opens a datagram: writes its frames into `frames` (cleared first).
    ///
    /// # Errors
    /// Why it is not believed; nothing changed.
    pub fn open(
        &mut self,
        now: Instant,
        datagram: &[u8],
        frames: &mut Vec<u8>,
    ) -> Result<ReceivedHeader, DecodeError> {
        frames.clear();
        let (header, seal) = decode_sealed_header(datagram, self.cluster)?;
        // What is meant for another run takes no number: here nobody would miss it.
        let is_ours = header.is_for(self.local);
        let peer = self.peers.get(header.from);
        let is_taken = peer.is_some_and(|peer| !peer.window.is_free(seal.counter));
        let most = peer.map_or(MAX_COUNTER / 2, |peer| peer.window.highest + MAX_LEAP);
        if seal.counter == 0 || is_ours && (is_taken || seal.counter > most) {
            return Err(DecodeError::Replay);
        }
        let mut error = DecodeError::WrongKey;
        let mut opened = None;
        for secret in self.secrets.iter().filter(|secret| secret.id.hint() == seal.key) {
            let known = peer.and_then(|peer| peer.derived.as_ref());
            let known = known.filter(|derived| derived.of == secret.id);
            let fresh = known.is_none().then(|| derive(&secret.root, self.cluster, header.from));
            let key = fresh.as_ref().or(known.map(|known| &known.key)).expect("one of the two");
            if open_with(key, seal.counter, datagram, frames) {
                opened = Some((secret.id, fresh.map(|key| Derived { of: secret.id, key })));
                break;
            }
            error = DecodeError::BrokenSeal;
        }
        let Some((with, fresh)) = opened else {
            frames.clear();
            return Err(error);
        };
        if is_ours {
            self.note(now, header.from, (seal, with), fresh);
        }
        Ok(header)
    }

    /// Numbers on from what others have seen of this run, if that is higher: somebody else has
    /// sealed in its name, and what it sends itself is taken for old.
    pub fn number_on(&mut self, now: Instant, number: u64) {
        let lately = self.stepped.is_some_and(|at| now < at + PAUSE_BETWEEN_STEPS);
        if number > self.counter && !lately {
            self.stepped = Some(now);
            self.counter = number.min(self.counter + MAX_STEP).min(MAX_COUNTER);
        }
    }

    /// The run that sealed a datagram whose number is far below the highest that has come from it,
    /// and that one, if the run is to hear of it now.
    pub(super) fn behind(&mut self, now: Instant, datagram: &[u8]) -> Option<(NodeId, u64)> {
        let (header, seal) = decode_sealed_header(datagram, self.cluster).ok()?;
        let peer = self.peers.get(header.from)?;
        let highest = peer.window.highest;
        let key = peer.derived.as_ref().filter(|_| seal.counter + WINDOW <= highest)?;
        let mut frames = Vec::new();
        let genuine = open_with(&key.key, seal.counter, datagram, &mut frames);
        (genuine && self.nudge(now, header.from)).then_some((header.from, highest))
    }

    /// Whether a member whose datagram could not be read is to be told so now.
    pub(super) fn nudge(&mut self, now: Instant, member: NodeId) -> bool {
        let told = self.nudged.get(member);
        if told.is_some_and(|told| now < *told + PAUSE_BETWEEN_NUDGES) {
            return false;
        }
        if self.nudged.len() >= MAX_NUDGED {
            let is_over = |told: Instant| now >= told + PAUSE_BETWEEN_NUDGES;
            let over = self.nudged.iter().filter(|(_, told)| is_over(**told));
            for id in over.map(|(id, _)| id).collect::<Vec<_>>() {
                self.nudged.remove(id);
            }
        }
        if self.nudged.len() >= MAX_NUDGED {
            return false;
        }
        self.nudged.insert(member, now);
        true
    }

    /// Notes a datagram whose seal was good.
    fn note(
        &mut self,
        now: Instant,
        from: NodeId,
        (seal, with): (Seal, KeyId),
        fresh: Option<Derived>,
    ) {
        if self.peers.get(from).is_none() {
            let (window, switches) = (Window::new(), self.switches);
            self.make_room();
            let derived = None;
            self.peers.insert(from, Peer { window, derived, seal, with, switches, heard: now });
        }
        let peer = self.peers.get_mut(from).expect("just found or made");
        if fresh.is_some() {
            peer.derived = fresh;
        }
        if seal.counter > peer.window.highest {
            (peer.seal, peer.with) = (seal, with);
            peer.switches = self.switches;
        }
        peer.window.take(seal.counter);
        peer.heard = now;
    }

    /// Forgets those heard longest ago when there are too many: an eighth at once.
    fn make_room(&mut self) {
        if self.peers.len() < MAX_PEERS {
            return;
        }
        let mut heard: Vec<_> = self.peers.iter().map(|(id, peer)| (peer.heard, id)).collect();
        heard.sort_unstable();
        for &(_, id) in &heard[..MAX_PEERS / 8] {
            self.peers.remove(id);
        }
    }

    /// What to seal with for a run: the key that this node prefers, unless the run is known not to
    /// have it.
    fn secret_for(&self, to: NodeId) -> &Secret {
        let preferred = &self.secrets[0];
        let Some(peer) = self.peers.get(to).filter(|peer| peer.switches == self.switches) else {
            return preferred;
        };
        let by_id = |id| self.secrets.iter().find(move |secret| secret.id == id);
        if peer.seal.primary == peer.seal.key {
            // The byte may be that of several keys; the one that opened its datagram it has.
            return by_id(peer.with).unwrap_or(preferred);
        }
        if preferred.id == peer.with || preferred.id.hint() == peer.seal.primary {
            return preferred;
        }
        let has = |hint| self.secrets.iter().find(move |secret| secret.id.hint() == hint);
        has(peer.seal.primary).or_else(|| by_id(peer.with)).unwrap_or(preferred)
    }

    fn keys_changed(&mut self) {
        let (cluster, local) = (self.cluster, self.local);
        let keys = self.keyring.keys().iter();
        self.secrets = keys.map(|key| Secret::new(key, cluster, local)).collect();
    }
}

/// Decrypts into `frames`; false if the tag is wrong.
fn open_with(key: &[u8; 32], counter: u64, datagram: &[u8], frames: &mut Vec<u8>) -> bool {
    let (header, sealed) = datagram.split_at(SEALED_HEADER_BYTES);
    frames.clear();
    frames.extend_from_slice(sealed);
    let opened = cipher(key).open_in_place(nonce(counter), Aad::from(header), frames).is_ok();
    frames.truncate(sealed.len() - TAG_BYTES);
    opened
}

impl std::fmt::Debug for Sealing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealing")
            .field("keyring", &self.keyring)
            .field("counter", &self.counter)
            .field("peers", &self.peers.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wire::Header;
    use crate::wire::sealed::begin_sealed;

    const CLUSTER: &str = "sealed";

    fn id(n: u64) -> NodeId {
        NodeId::from_u64(n).expect("not zero")
    }

    fn key(n: u8) -> Key {
        Key::from_bytes([n; 32])
    }

    fn sealing(n: u64, keyring: Keyring) -> Sealing {
        Sealing::new(keyring, ClusterId::of(CLUSTER), id(n))
    }

    fn datagram(sealing: &mut Sealing, to: Option<NodeId>, frames: &[u8]) -> Vec<u8> {
        let mut datagram = Vec::new();
        let header = Header { cluster: sealing.cluster, from: sealing.local, to };
        begin_sealed(header, &mut datagram);
        datagram.extend_from_slice(frames);
        assert!(sealing.seal(to, &mut datagram));
        datagram
    }

    fn open(sealing: &mut Sealing, datagram: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut frames = Vec::new();
        sealing.open(Instant::ORIGIN, datagram, &mut frames).map(|_| frames)
    }

    #[test]
    fn what_is_sealed_is_opened_once_and_by_who_has_the_key() {
        let mut a = sealing(1, Keyring::new(key(1)));
        let mut b = sealing(2, Keyring::new(key(9)).with(key(1)));
        let sealed = datagram(&mut a, Some(id(2)), b"frames");
        assert_eq!(sealed.len(), SEALED_HEADER_BYTES + 6 + TAG_BYTES);
        assert!(!sealed.windows(6).any(|bytes| bytes == b"frames"));
        assert_eq!(open(&mut b, &sealed).unwrap(), b"frames");
        assert_eq!(open(&mut b, &sealed), Err(DecodeError::Replay));
        let mut stranger = sealing(2, Keyring::new(key(3)));
        assert_eq!(open(&mut stranger, &sealed), Err(DecodeError::WrongKey));
        let other = Sealing::new(Keyring::new(key(1)), ClusterId::of("another"), id(2));
        let mut other = other;
        assert_eq!(open(&mut other, &sealed), Err(DecodeError::OtherCluster));
    }

    /// Computed by another implementation of HKDF and of the cipher; it never changes within a
    /// version of the protocol.
    #[test]
    fn a_sealed_datagram_has_these_bytes() {
        let key = Key::from_bytes(std::array::from_fn(|n| u8::try_from(n).expect("32 bytes")));
        let (from, to) = (id(0x0102_0304_0506_0708), id(0x1112_1314_1516_1718));
        let mut a = Sealing::new(Keyring::new(key), ClusterId::of("example"), from);
        let sealed = datagram(&mut a, Some(to), &[1, 2, 7, 0]);
        let hex = data_encoding::HEXLOWER.encode(&sealed);
        let wanted = "726311193280610807060504030201181716154242010000000000\
                      39db830480d67151ee53e4490a96a3ac1667ad36";
        assert_eq!(hex, wanted);
    }

    #[test]
    fn no_byte_can_be_changed() {
        let mut a = sealing(1, Keyring::new(key(1)));
        let mut b = sealing(2, Keyring::new(key(1)));
        let sealed = datagram(&mut a, Some(id(2)), b"frames");
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[at] ^= 1 << bit;
                assert!(open(&mut b, &changed).is_err(), "byte {at}, bit {bit}");
            }
        }
        for len in 0..sealed.len() {
            assert!(open(&mut b, &sealed[..len]).is_err(), "{len} bytes");
        }
        assert_eq!(open(&mut b, &sealed).unwrap(), b"frames");
    }

    #[test]
    fn no_two_datagrams_have_the_same_nonce_and_key() {
        let keyring = || Keyring::new(key(1)).with(key(2));
        let mut seen = std::collections::BTreeSet::new();
        for run in 1..20 {
            let mut sealing = sealing(run, keyring());
            for n in 0..50 {
                let to = (n % 3 > 0).then(|| id(100 + n));
                if n == 25 {
                    sealing.use_key(key(2).id()).unwrap();
                }
                let sealed = datagram(&mut sealing, to, b"");
                let (header, seal) = decode_sealed_header(&sealed, sealing.cluster).unwrap();
                assert!(seen.insert((header.from, seal.counter)));
            }
        }
        let (root, cluster) = (&sealing(1, keyring()).secrets[0].root, ClusterId::of(CLUSTER));
        assert_ne!(*derive(root, cluster, id(1)), *derive(root, cluster, id(2)));
        let other = ClusterId::of("another");
        assert_ne!(*derive(root, cluster, id(1)), *derive(root, other, id(1)));
    }

    #[test]
    fn numbers_are_used_up_and_not_used_again() {
        let mut a = sealing(1, Keyring::new(key(1)));
        a.counter = MAX_COUNTER - 1;
        let mut b = sealing(2, Keyring::new(key(1)));
        let highest = MAX_COUNTER - MAX_LEAP;
        let first = Seal { counter: highest, key: 0, primary: 0 };
        b.note(Instant::ORIGIN, id(1), (first, key(1).id()), None);
        let last = datagram(&mut a, Some(id(2)), b"last");
        assert_eq!(open(&mut b, &last).unwrap(), b"last");
        let mut more = Vec::new();
        begin_sealed(Header { cluster: a.cluster, from: id(1), to: None }, &mut more);
        assert!(!a.seal(None, &mut more));
    }

    #[test]
    fn a_window_takes_each_number_once_in_any_order() {
        let mut window = Window::new();
        let mut taken = std::collections::BTreeSet::new();
        let mut random = 1_u64;
        for _ in 0..50_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let step = random >> 33;
            let highest = window.highest;
            let number = match step % 8 {
                0 => highest + 1 + step / 8 % 1_500,
                1..4 => highest.saturating_sub(step / 8 % 1_200).max(1),
                _ => highest + 1,
            };
            let wanted =
                !taken.contains(&number) && (number > highest || highest - number < WINDOW);
            assert_eq!(window.is_free(number), wanted, "{number} after {highest}");
            if wanted {
                window.take(number);
                taken.insert(number);
            }
        }
        assert!(taken.len() > 10_000);
    }

    #[test]
    fn nothing_that_was_replayed_moves_a_window() {
        let mut a = sealing(1, Keyring::new(key(1)));
        let mut b = sealing(2, Keyring::new(key(1)));
        let old = datagram(&mut a, Some(id(2)), b"old");
        // Meant for another run: whoever sends it here again moves nothing.
        for _ in 0..2 * WINDOW {
            let elsewhere = datagram(&mut a, Some(id(3)), b"elsewhere");
            assert!(open(&mut b, &elsewhere).is_ok());
        }
        assert_eq!(open(&mut b, &old).unwrap(), b"old");
        for _ in 0..WINDOW {
            let new = datagram(&mut a, Some(id(2)), b"new");
            assert!(open(&mut b, &new).is_ok());
        }
        assert_eq!(open(&mut b, &old), Err(DecodeError::Replay));
    }

    #[test]
    fn who_is_not_as_far_is_written_to_with_the_key_that_it_has() {
        let mut ahead = sealing(1, Keyring::new(key(1)).with(key(2)));
        let mut away = sealing(2, Keyring::new(key(1)));
        ahead.use_key(key(2).id()).unwrap();
        // Nothing was heard of it since: that it is as far as others is the best guess.
        let lost = datagram(&mut ahead, Some(id(2)), b"lost");
        assert_eq!(open(&mut away, &lost), Err(DecodeError::WrongKey));
        let back = datagram(&mut away, Some(id(1)), b"back");
        assert!(open(&mut ahead, &back).is_ok());
        let answer = datagram(&mut ahead, Some(id(2)), b"answer");
        assert_eq!(open(&mut away, &answer).unwrap(), b"answer");
        // Now it gets the key, and later prefers it.
        away.install(key(2)).unwrap();
        away.use_key(key(2).id()).unwrap();
        let (there, back) =
            (datagram(&mut away, Some(id(1)), b""), datagram(&mut ahead, Some(id(2)), b""));
        assert!(open(&mut ahead, &there).is_ok() && open(&mut away, &back).is_ok());
        for sealing in [&mut ahead, &mut away] {
            sealing.remove(key(1).id()).unwrap();
        }
        let there = datagram(&mut away, Some(id(1)), b"there");
        assert_eq!(open(&mut ahead, &there).unwrap(), b"there");
        let back = datagram(&mut ahead, Some(id(2)), b"back");
        assert_eq!(open(&mut away, &back).unwrap(), b"back");
    }

    #[test]
    fn a_key_that_was_removed_can_come_back() {
        let mut a = sealing(1, Keyring::new(key(1)));
        let mut b = sealing(2, Keyring::new(key(2)).with(key(1)));
        let first = datagram(&mut a, Some(id(2)), b"first");
        assert!(open(&mut b, &first).is_ok());
        b.remove(key(1).id()).unwrap();
        let second = datagram(&mut a, Some(id(2)), b"second");
        assert_eq!(open(&mut b, &second), Err(DecodeError::WrongKey));
        b.install(key(1)).unwrap();
        assert_eq!(open(&mut b, &second).unwrap(), b"second");
        assert_eq!(open(&mut b, &first), Err(DecodeError::Replay));
    }

    #[test]
    fn a_node_that_nobody_knows_is_tried_with_each_key() {
        let mut a = sealing(1, Keyring::new(key(1)).with(key(2)));
        let mut b = sealing(2, Keyring::new(key(2)));
        let opened = (0..4).filter(|_| {
            let hello = datagram(&mut a, None, b"hello");
            open(&mut b, &hello).is_ok()
        });
        assert_eq!(opened.count(), 2);
    }

    #[test]
    fn a_member_is_nudged_once_in_a_while() {
        let mut a = sealing(1, Keyring::new(key(1)));
        let now = Instant::ORIGIN;
        assert!(a.nudge(now, id(2)) && a.nudge(now, id(3)) && !a.nudge(now, id(2)));
        assert!(a.nudge(now + Duration::from_secs(2), id(2)));
    }

    #[test]
    fn nothing_shows_a_key() {
        let mut a = sealing(1, Keyring::new(Key::from_bytes([0xab; 32])));
        let hello = datagram(&mut a, None, b"");
        assert!(open(&mut sealing(2, Keyring::new([0xab; 32])), &hello).is_ok());
        let shown = format!("{a:?}").to_lowercase();
        assert!(!shown.contains("abab") && !shown.contains("171"), "{shown}");
    }
}
