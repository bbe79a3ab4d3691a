//! The secrets that a cluster's nodes share, so that nobody else reads or writes their datagrams.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use zeroize::Zeroizing;

/// Keys that a [`Keyring`] holds at most.
pub const MAX_KEYS: usize = 8;

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// A secret of 32 bytes. All nodes of a cluster have it, and nobody else may.
///
/// Take them from a good source (`head -c 32 /dev/urandom | base64`, or [`Key::generate`]); a
/// password is none. The bytes are wiped when the key is dropped, and shown nowhere: [`Debug`]
/// prints the [`KeyId`].
///
/// ```
/// use rolecall::Key;
///
/// let key: Key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f".parse()?;
/// assert_eq!(key, Key::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?);
/// assert_eq!(key.id(), Key::from_bytes(std::array::from_fn(|n| n as u8)).id());
/// # Ok::<(), rolecall::KeyError>(())
/// ```
#[derive(Clone)]
pub struct Key {
    /// In a place of its own: what is moved leaves copies that nobody wipes.
    secret: Box<Zeroizing<[u8; KEY_BYTES]>>,
    id: KeyId,
}

impl Key {
    /// The key of these bytes.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Key {
        let secret = Box::new(Zeroizing::new(bytes));
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(b"rolecall key id");
        hash.update(&**secret);
        let hash = hash.finish();
        let first = hash.as_ref()[..8].try_into().expect("a hash has 32 bytes");
        Key { secret, id: KeyId(u64::from_be_bytes(first)) }
    }

    /// A new one, from the system's source of randomness.
    ///
    /// # Panics
    /// When the system has none.
    pub fn generate() -> Key {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        SystemRandom::new().fill(&mut *bytes).expect("the system has a source of randomness");
        Key::from_bytes(*bytes)
    }

    /// The key of 64 hexadecimal digits, with white space around.
    ///
    /// # Errors
    /// [`KeyError::Encoding`], [`KeyError::Length`].
    pub fn from_hex(text: &str) -> Result<Key, KeyError> {
        Key::decode(text, &[&HEXLOWER_PERMISSIVE])
    }

    /// The key of base64 text, of either alphabet, padded or not, with white space around.
    ///
    /// # Errors
    /// [`KeyError::Encoding`], [`KeyError::Length`].
    pub fn from_base64(text: &str) -> Result<Key, KeyError> {
        Key::decode(text, &[&BASE64, &BASE64_NOPAD, &BASE64URL, &BASE64URL_NOPAD])
    }

    /// The key in a file: 32 bytes as they are, and nothing after them, or the text of one in
    /// hexadecimal digits or base64. 32 printable characters are refused: they are a password, or
    /// half of a key in digits.
    ///
    /// # Errors
    /// [`KeyError::File`] when it cannot be read, [`KeyError::InFile`] when it holds no key.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Key, KeyError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path)
            .map_err(|source| KeyError::File { path: path.to_owned(), source })?;
        let key = Key::of_file(&Zeroizing::new(bytes));
        key.map_err(|why| KeyError::InFile { path: path.to_owned(), why: Box::new(why) })
    }

    fn of_file(bytes: &[u8]) -> Result<Key, KeyError> {
        let printable = |byte: &u8| matches!(byte, b' '..=b'~');
        if bytes.len() == KEY_BYTES && bytes.iter().all(printable) {
            let reason = "32 characters are a password, or half of a key in digits".into();
            return Err(KeyError::Encoding { reason });
        }
        if let Ok(bytes) = <[u8; KEY_BYTES]>::try_from(bytes) {
            return Ok(Key::from_bytes(bytes));
        }
        let not_text = || KeyError::Encoding {
            reason: format!("{} bytes that are no text, where a key has 32", bytes.len()),
        };
        std::str::from_utf8(bytes).map_err(|_| not_text())?.parse()
    }

    /// Which key it is; tells nothing of the secret.
    pub fn id(&self) -> KeyId {
        self.id
    }

    pub(crate) fn secret(&self) -> &[u8; KEY_BYTES] {
        &self.secret
    }

    /// Decodes by the first of the encodings that fits.
    fn decode(text: &str, encodings: &[&data_encoding::Encoding]) -> Result<Key, KeyError> {
        let text = text.trim().as_bytes();
        let mut error = None;
        for encoding in encodings {
            match encoding.decode(text).map(Zeroizing::new) {
                Ok(bytes) => {
                    let bytes = <[u8; KEY_BYTES]>::try_from(&**bytes)
                        .map_err(|_| KeyError::Length { len: bytes.len() })?;
                    return Ok(Key::from_bytes(bytes));
                }
                Err(reason) => error = error.or(Some(reason)),
            }
        }
        let reason = error.map(|reason| reason.to_string()).unwrap_or_default();
        Err(KeyError::Encoding { reason })
    }
}

impl From<[u8; KEY_BYTES]> for Key {
    fn from(bytes: [u8; KEY_BYTES]) -> Key {
        Key::from_bytes(bytes)
    }
}

impl FromStr for Key {
    type Err = KeyError;

    /// Reads hexadecimal digits, if there are 64 of them, or base64.
    fn from_str(text: &str) -> Result<Key, KeyError> {
        let len = text.trim().len();
        if len == 2 * KEY_BYTES {
            return Key::from_hex(text);
        }
        Key::from_base64(text).map_err(|error| match error {
            KeyError::Encoding { reason } => KeyError::Encoding {
                reason: format!(
                    "{len} characters, neither 64 hexadecimal digits nor base64 of 32 bytes \
                     ({reason})"
                ),
            },
            other => other,
        })
    }
}

impl PartialEq for Key {
    /// By id, which takes the same time for all keys.
    fn eq(&self, other: &Key) -> bool {
        self.id == other.id
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// Which key: the first 64 bits of a hash of it.
///
/// ```
/// use rolecall::Key;
///
/// let id = Key::from_bytes([7; 32]).id();
/// assert_eq!(id.to_string(), format!("{:016x}", id.as_u64()));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(u64);

impl KeyId {
    /// The bits of this id.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The byte of it that stands in a datagram.
    pub(crate) fn hint(self) -> u8 {
        let [.., last] = self.0.to_be_bytes();
        last
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The keys of a node: the one that it sends with, and others whose datagrams it reads too.
///
/// ```
/// use rolecall::{Key, Keyring};
///
/// let (new, old) = (Key::generate(), Key::generate());
/// let keyring = Keyring::new(new.clone()).with(old.clone());
/// assert_eq!(keyring.ids(), [new.id(), old.id()]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyring {
    /// The first one is the one to send with.
    keys: Vec<Key>,
}

impl Keyring {
    /// A keyring of one key, which the node sends with.
    pub fn new(primary: impl Into<Key>) -> Keyring {
        Keyring { keys: vec![primary.into()] }
    }

    /// With one more key to read with.
    ///
    /// # Panics
    /// When it would hold more than [`MAX_KEYS`].
    #[must_use]
    pub fn with(mut self, key: impl Into<Key>) -> Keyring {
        self.install(key.into()).expect("a keyring holds at most MAX_KEYS keys");
        self
    }

    /// The ids of all keys, first that of the key to send with.
    pub fn ids(&self) -> Vec<KeyId> {
        self.keys.iter().map(Key::id).collect()
    }

    pub(crate) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Adds a key to read with; false if it is there already.
    pub(crate) fn install(&mut self, key: Key) -> Result<bool, KeyringError> {
        if self.keys.contains(&key) {
            return Ok(false);
        }
        if self.keys.len() >= MAX_KEYS {
            return Err(KeyringError::Full { max: MAX_KEYS });
        }
        self.keys.push(key);
        Ok(true)
    }

    /// Makes a key the one to send with; false if it is already.
    pub(crate) fn use_key(&mut self, id: KeyId) -> Result<bool, KeyringError> {
        let at = self.position(id)?;
        self.keys[..=at].rotate_right(1);
        Ok(at > 0)
    }

    /// Takes a key away: its datagrams are no longer read.
    pub(crate) fn remove(&mut self, id: KeyId) -> Result<(), KeyringError> {
        match self.position(id)? {
            0 => Err(KeyringError::InUse { id }),
            at => {
                self.keys.remove(at);
                Ok(())
            }
        }
    }

    fn position(&self, id: KeyId) -> Result<usize, KeyringError> {
        self.keys.iter().position(|key| key.id == id).ok_or(KeyringError::Unknown { id })
    }
}

/// Why something is no key.
///
/// ```
/// use rolecall::Key;
///
/// let error = Key::from_hex("c0ffee").unwrap_err();
/// assert_eq!(error.to_string(), "3 bytes are no key: it has 32");
/// ```
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A key has 32 bytes.
    #[error("{len} bytes are no key: it has 32")]
    Length {
        /// How many there were.
        len: usize,
    },
    /// The text is neither 64 hexadecimal digits nor base64 of 32 bytes.
    #[error("not a key: {reason}")]
    Encoding {
        /// What is wrong with it, without the text itself.
        reason: String,
    },
    /// The file cannot be read.
    #[error("cannot read the key in {path:?}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// What the file holds is no key.
    #[error("{path:?}: {why}")]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: Box<KeyError>,
    },
}

/// Why a keyring was not changed.
///
/// ```
/// use rolecall::{Cluster, KeyringError};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let plain = Cluster::builder("a").bind("127.0.0.1:0").start().await.unwrap();
/// let error = plain.install_key([7; 32]).unwrap_err();
/// assert_eq!(error, KeyringError::NotEncrypted);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// A keyring holds no more than [`MAX_KEYS`]: remove one first.
    #[error("a keyring holds at most {max} keys")]
    Full {
        /// How many it holds.
        max: usize,
    },
    /// No key of this id is installed.
    #[error("no key {id} is installed")]
    Unknown {
        /// The id.
        id: KeyId,
    },
    /// The key that this node sends with cannot be removed: use another one first.
    #[error("key {id} is in use")]
    InUse {
        /// The id.
        id: KeyId,
    },
    /// The node was started without a keyring: its cluster is not encrypted.
    #[error("this node was started without a keyring")]
    NotEncrypted,
    /// The node has stopped or left.
    #[error("this node has stopped")]
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> Key {
        Key::from_bytes([n; KEY_BYTES])
    }

    #[test]
    fn a_key_is_read_from_all_forms() {
        let bytes: [u8; KEY_BYTES] = std::array::from_fn(|n| 0xf8 ^ u8::try_from(n).expect("32"));
        let wanted = Key::from_bytes(bytes);
        let hex = data_encoding::HEXUPPER.encode(&bytes);
        let mut texts = vec![hex.clone(), hex.to_lowercase(), format!(" {hex}\n")];
        for encoding in [BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD] {
            texts.push(format!("{}\n", encoding.encode(&bytes)));
        }
        let path = std::env::temp_dir().join(format!("rolecall-key-{}", std::process::id()));
        for text in &texts {
            assert_eq!(text.parse::<Key>().unwrap(), wanted, "{text}");
            std::fs::write(&path, text).unwrap();
            assert_eq!(Key::from_file(&path).unwrap(), wanted, "{text}");
        }
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(Key::from_file(&path).unwrap(), wanted);
        for (refused, why) in [
            (&b"\xff\xfe"[..], "2 bytes that are no text, where a key has 32"),
            (b"0123456789abcdef0123456789abcdef", "a password"),
            (b"correct horse battery staple!!!!", "a password"),
            (&hex.as_bytes()[1..], "63 characters, neither 64 hexadecimal digits nor base64"),
            (b"c2VjcmV0\n", "6 bytes are no key: it has 32"),
        ] {
            std::fs::write(&path, refused).unwrap();
            let error = Key::from_file(&path).unwrap_err();
            assert!(matches!(error, KeyError::InFile { .. }));
            let text = error.to_string();
            assert!(text.contains(path.to_str().unwrap()) && text.contains(why), "{text}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Key::from_file(&path), Err(KeyError::File { .. })));
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        let secret = "c2VjcmV0";
        let error = secret.parse::<Key>().unwrap_err();
        assert!(matches!(error, KeyError::Length { len: 6 }));
        for text in ["", "not base64 at all!", &"zz".repeat(32), &"ab".repeat(31)] {
            let error = text.parse::<Key>().unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(text.is_empty() || !said.contains(text), "{said}");
        }
    }

    #[test]
    fn nothing_shows_a_secret() {
        let key = Key::from_bytes(*b"the secret of the cluster, of 32");
        let shown = format!("{key:?} {:?} {:?}", key.id(), Keyring::new(key.clone()));
        for hidden in ["secret of", "746865", "116, 104", "dGhl"] {
            assert!(!shown.contains(hidden), "{shown}");
        }
        assert!(shown.contains(&key.id().to_string()));
    }

    #[test]
    fn a_keyring_rotates() {
        let mut keyring = Keyring::new([1; 32]);
        assert!(keyring.install(key(2)).unwrap());
        assert!(!keyring.install(key(2)).unwrap());
        assert_eq!(keyring.ids(), [key(1).id(), key(2).id()]);
        assert!(keyring.use_key(key(2).id()).unwrap());
        assert!(!keyring.use_key(key(2).id()).unwrap());
        assert_eq!(keyring.ids(), [key(2).id(), key(1).id()]);
        let in_use = keyring.remove(key(2).id()).unwrap_err();
        assert!(matches!(in_use, KeyringError::InUse { .. }));
        keyring.remove(key(1).id()).unwrap();
        assert!(matches!(keyring.remove(key(1).id()), Err(KeyringError::Unknown { .. })));
        assert!(matches!(keyring.use_key(key(9).id()), Err(KeyringError::Unknown { .. })));
        for n in 10..17 {
            keyring.install(key(n)).unwrap();
        }
        assert!(matches!(keyring.install(key(20)), Err(KeyringError::Full { max: MAX_KEYS })));
    }
}
