//! Roles: any term that a node can take in a scope.
//!
//! A [`Role`] is one value of serde's data model in a canonical encoding (drawn in `term`), shared
//! and immutable. What it was made of is forgotten: equal values are the same role, whichever node
//! and whichever integer type they came from.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter::FusedIterator;
use std::ops::{Deref, Range};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::RoleError;

mod de;
mod embedded;
mod hash;
mod key;
mod print;
mod ser;
mod small;
mod term;
#[cfg(test)]
mod tests;

pub(crate) use hash::of_text as hash_text;
pub use key::{AsRole, RoleKey};
use small::SmallBytes;
pub(crate) use term::RoleDecodeError;

/// The longest encoding of a role, in bytes. The encoding of a string is two bytes longer than the
/// string.
pub const MAX_ROLE_BYTES: usize = 4_096;

/// How many values of a role may lie one within another: a tuple in a tuple is 2 deep.
pub const MAX_ROLE_DEPTH: usize = 64;

/// The newtype as which a role is shown to serde, so that our own (de)serializer knows a role that
/// is part of another value and takes its bytes as they are.
const EMBEDDED_ROLE: &str = "$rolecall::Role";

/// A term that a node can take as its role in a scope: any value of serde's data model.
///
/// Cheap to clone. Two roles are equal if their values are, and a role can be compared with a plain
/// value as well. What is the same value, and what is not:
/// - Integers are equal by number, whatever their type: `1_u8`, `1_i64` and `1` are one role.
/// - `f32` and `f64` are equal by value, `0.0` and `-0.0` are one role, and so are all `NaN`. A
///   float is never equal to an integer, nor a `char` to a string.
/// - Tuples, arrays, slices and `Vec`s of equal elements are one role; maps are compared without
///   regard to order. (A `HashSet` shows serde an order of its own: use a `BTreeSet`.)
/// - Structs and variants of enums carry their name, and fields theirs, in no order. A unit struct,
///   a newtype and a tuple are all different from each other. The name of an enum does not matter.
/// - A `Vec<u8>` or `&[u8]` turned `into()` a role is bytes; to serde, and so to [`Role::new`], it
///   is a sequence of integers. (The crate `serde_bytes` makes serde see bytes.)
///
/// Roles are ordered by their canonical bytes: integers by number, strings by code point, tuples by
/// their first difference.
///
/// # Examples
/// ```
/// use rolecall::{Role, role};
///
/// assert_eq!(Role::from("web"), role!("web"));
/// assert_eq!(Role::from(("shard", 1_u8)), role!("shard", 1));
///
/// #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
/// enum Job {
///     Shard(u32),
///     Web { port: u16 },
/// }
/// let role = Role::new(&Job::Web { port: 80 })?;
/// assert_eq!(role.to_string(), "Web { port: 80 }");
/// assert_eq!(role.get::<Job>()?, Job::Web { port: 80 });
/// # assert_eq!(Role::new(&Job::Shard(1))?.to_string(), "Shard(1)");
/// # Ok::<(), rolecall::RoleError>(())
/// ```
#[derive(Clone)]
pub struct Role {
    /// Of `bytes`; keyed per process, so that nobody on the network can choose roles that collide.
    hash: u64,
    bytes: SmallBytes,
}

impl Role {
    /// The role that is this value.
    ///
    /// For strings, numbers, bytes and tuples of them `Role::from` does the same, and cannot fail.
    ///
    /// # Errors
    /// - [`RoleError::TooLarge`] if the encoding is longer than [`MAX_ROLE_BYTES`].
    /// - [`RoleError::Unencodable`] if the value's `Serialize` fails, the value nests deeper than
    ///   [`MAX_ROLE_DEPTH`], or a map in it holds one key twice.
    ///
    /// # Examples
    /// ```
    /// use rolecall::{Role, role};
    ///
    /// #[derive(serde::Serialize)]
    /// struct Shard {
    ///     of: &'static str,
    ///     number: u32,
    /// }
    /// let role = Role::new(&Shard { of: "users", number: 7 })?;
    /// assert_eq!(role.to_string(), r#"Shard { number: 7, of: "users" }"#);
    /// assert_eq!(Role::new(&vec![1, 2])?, role!(1, 2));
    /// # Ok::<(), rolecall::RoleError>(())
    /// ```
    pub fn new<T: Serialize + ?Sized>(value: &T) -> Result<Role, RoleError> {
        let bytes =
            ser::encode(value).map_err(|TermError(reason)| RoleError::Unencodable { reason })?;
        let len = bytes.len();
        if len > MAX_ROLE_BYTES {
            return Err(RoleError::TooLarge { len, max: MAX_ROLE_BYTES });
        }
        Ok(Role::from_canonical(&bytes))
    }

    /// The role whose [`as_bytes`](Role::as_bytes) these are.
    ///
    /// # Errors
    /// - [`RoleError::TooLarge`] if there are more bytes than [`MAX_ROLE_BYTES`].
    /// - [`RoleError::Malformed`] if they are not exactly one canonical term.
    ///
    /// # Examples
    /// ```
    /// use rolecall::{Role, RoleError, role};
    ///
    /// let role = role!("shard", 1);
    /// assert_eq!(Role::from_bytes(role.as_bytes())?, role);
    /// assert!(matches!(Role::from_bytes(b"web"), Err(RoleError::Malformed { .. })));
    /// # Ok::<(), rolecall::RoleError>(())
    /// ```
    pub fn from_bytes(bytes: &[u8]) -> Result<Role, RoleError> {
        Role::from_wire(bytes).map_err(|error| match error {
            RoleDecodeError::TooLong { len } => RoleError::TooLarge { len, max: MAX_ROLE_BYTES },
            malformed => RoleError::Malformed { reason: malformed.to_string() },
        })
    }

    /// Checks a peer's bytes. Costs time and memory in proportion to their length, whatever they
    /// say.
    pub(crate) fn from_wire(bytes: &[u8]) -> Result<Role, RoleDecodeError> {
        if bytes.len() > MAX_ROLE_BYTES {
            return Err(RoleDecodeError::TooLong { len: bytes.len() });
        }
        term::validate(bytes)?;
        Ok(Role::from_canonical(bytes))
    }

    fn from_canonical(bytes: &[u8]) -> Role {
        Role { hash: hash::of_term(bytes), bytes: bytes.into() }
    }

    /// The value, as any type that it is a value of. A `&str` can be borrowed from the role.
    ///
    /// It is strict: a float is no integer, a struct has to have the right name. So what is
    /// returned makes the same role again, except that a `Vec<u8>` or another sequence may come
    /// from bytes, and that `T` may leave something out: fields that it does not know, elements
    /// that its set holds already.
    ///
    /// # Errors
    /// [`RoleError::WrongType`] if the value is not a `T`; the reason says where they differ.
    ///
    /// # Examples
    /// ```
    /// use rolecall::{RoleError, role};
    ///
    /// let role = role!("shard", 1);
    /// assert_eq!(role.get::<(String, u32)>()?, ("shard".to_owned(), 1));
    /// assert_eq!(role.get::<(&str, i8)>()?, ("shard", 1));
    /// assert!(matches!(role.get::<u32>(), Err(RoleError::WrongType { .. })));
    /// # Ok::<(), rolecall::RoleError>(())
    /// ```
    pub fn get<'a, T: Deserialize<'a>>(&'a self) -> Result<T, RoleError> {
        de::decode(&self.bytes).map_err(|TermError(reason)| RoleError::WrongType {
            reason: format!("{self} is no {}: {reason}", std::any::type_name::<T>()),
        })
    }

    /// The canonical encoding: the same bytes for the same role on every node, every platform and
    /// in every version, good for storing. [`Role::from_bytes`] is the way back.
    ///
    /// # Examples
    /// ```
    /// use rolecall::Role;
    ///
    /// assert_eq!(Role::from("web").as_bytes(), b"\x40web\x00");
    /// ```
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The hash of [`as_bytes`](Role::as_bytes), as [`hash::of_term`] computes it. It differs from
    /// process to process, so it must neither be sent nor decide any order.
    #[inline]
    pub(crate) fn hash64(&self) -> u64 {
        self.hash
    }

    /// Whether a node may take this role. One made by `Role::from`, which cannot fail, may be
    /// longer or nest deeper than its peers accept.
    pub(crate) fn check_len(&self) -> Result<(), RoleError> {
        let len = self.bytes.len();
        if len > MAX_ROLE_BYTES {
            return Err(RoleError::TooLarge { len, max: MAX_ROLE_BYTES });
        }
        // Each level takes a byte at least, so that most roles are too short to be too deep.
        if len > MAX_ROLE_DEPTH {
            let checked = term::validate(&self.bytes);
            checked.map_err(|error| RoleError::Unencodable { reason: error.to_string() })?;
        }
        Ok(())
    }
}

/// Compares with a role, or with a plain value as the role that it would be.
///
/// # Examples
/// ```
/// use rolecall::role;
///
/// assert!(role!("web") == "web");
/// assert!(role!("shard", 1) == ("shard", 1_u64));
/// assert!(role!(1) != "1");
/// ```
impl<T: AsRole + ?Sized> PartialEq<T> for Role {
    fn eq(&self, other: &T) -> bool {
        other.with_key(|key| key.is(self))
    }
}

impl Eq for Role {}

impl PartialOrd for Role {
    fn partial_cmp(&self, other: &Role) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Role {
    fn cmp(&self, other: &Role) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Role {
    /// Hashes the bytes, not their hash: a user's hasher may be one that has to be reproducible.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

/// Prints the value as a person would write it in Rust: `"web"`, `("shard", 1)`, `Shard(1)`. What
/// is no plain text is escaped, so that a peer's role cannot forge a line of a log.
///
/// # Examples
/// ```
/// use rolecall::role;
///
/// let role = role!("shard", 1, Some(2.0), b"\0");
/// assert_eq!(role.to_string(), r#"("shard", 1, Some(2.0), b"\x00")"#);
/// ```
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print::Printed(&self.bytes).fmt(f)
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a value cannot be written as a term, or a term not be read as a value.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct TermError(String);

impl TermError {
    fn too_deep() -> TermError {
        TermError(RoleDecodeError::TooDeep.to_string())
    }
}

/// Makes a [`Role`]: of one value that value's role, of several (up to eight) that of their tuple.
///
/// # Examples
/// ```
/// use rolecall::{Role, role};
///
/// assert_eq!(role!("web"), Role::from("web"));
/// assert_eq!(role!("shard", 1), Role::from(("shard", 1)));
/// assert_eq!(role!(role!("shard", 1), true).to_string(), r#"(("shard", 1), true)"#);
/// ```
#[macro_export]
macro_rules! role {
    ($value:expr $(,)?) => {
        $crate::Role::from($value)
    };
    ($($value:expr),+ $(,)?) => {
        $crate::Role::from(($($value,)+))
    };
}

/// A set of roles as it was at one moment: sorted, each role once, immutable.
///
/// Cheap to clone, `Send + Sync`, fine to hold for as long as you like. It is a slice of roles.
///
/// # Examples
/// ```
/// use rolecall::{Role, Roles};
///
/// let roles: Roles = ["web", "api", "web"].into_iter().collect();
/// assert_eq!(roles, ["api", "web"]);
/// assert_eq!(roles.len(), 2);
/// assert!(roles.has("web"));
/// for role in &roles {
///     println!("{role}");
/// }
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Roles {
    roles: Arc<[Role]>,
}

impl Roles {
    /// Of roles that are sorted, each once.
    pub(crate) fn from_sorted(roles: Arc<[Role]>) -> Roles {
        debug_assert!(roles.is_sorted_by(|a, b| a < b), "the caller has sorted them");
        Roles { roles }
    }

    /// Whether this role is among them. Takes time in proportion to the logarithm of their number.
    pub fn has(&self, role: impl AsRole) -> bool {
        role.with_key(|key| self.roles.binary_search_by(|each| key.order(each)).is_ok())
    }
}

impl Deref for Roles {
    type Target = [Role];

    fn deref(&self) -> &[Role] {
        &self.roles
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Sorts the roles, and keeps each once.
impl<T: Into<Role>> FromIterator<T> for Roles {
    fn from_iter<I: IntoIterator<Item = T>>(roles: I) -> Roles {
        let mut roles: Vec<Role> = roles.into_iter().map(Into::into).collect();
        if roles.is_empty() {
            return Roles::default();
        }
        roles.sort_unstable();
        roles.dedup();
        Roles::from_sorted(roles.into())
    }
}

impl<T, const N: usize> PartialEq<[T; N]> for Roles
where
    Role: PartialEq<T>,
{
    fn eq(&self, other: &[T; N]) -> bool {
        *self.roles == *other
    }
}

impl<T> PartialEq<[T]> for Roles
where
    Role: PartialEq<T>,
{
    fn eq(&self, other: &[T]) -> bool {
        *self.roles == *other
    }
}

impl<T> PartialEq<&[T]> for Roles
where
    Role: PartialEq<T>,
{
    fn eq(&self, other: &&[T]) -> bool {
        *self.roles == **other
    }
}

impl<T> PartialEq<Vec<T>> for Roles
where
    Role: PartialEq<T>,
{
    fn eq(&self, other: &Vec<T>) -> bool {
        *self.roles == **other
    }
}

impl<'a> IntoIterator for &'a Roles {
    type Item = &'a Role;
    type IntoIter = std::slice::Iter<'a, Role>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Roles {
    type Item = Role;
    type IntoIter = RolesIter;

    fn into_iter(self) -> RolesIter {
        RolesIter { left: 0..self.roles.len(), roles: self.roles }
    }
}

/// The roles of a [`Roles`] by value, in order.
#[derive(Debug, Clone)]
pub struct RolesIter {
    roles: Arc<[Role]>,
    left: Range<usize>,
}

impl Iterator for RolesIter {
    type Item = Role;

    fn next(&mut self) -> Option<Role> {
        self.left.next().map(|index| self.roles[index].clone())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.left.size_hint()
    }
}

impl DoubleEndedIterator for RolesIter {
    fn next_back(&mut self) -> Option<Role> {
        self.left.next_back().map(|index| self.roles[index].clone())
    }
}

impl ExactSizeIterator for RolesIter {}

impl FusedIterator for RolesIter {}
