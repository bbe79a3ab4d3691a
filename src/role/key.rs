//! What a role can be looked up by: [`AsRole`], with neither a [`Role`] nor, as a rule, the heap.

use std::borrow::Cow;
use std::cmp::Ordering;

use bytes::Bytes;

use super::term::{self, Sink};
use super::{Role, hash};

/// What a map of roles is searched by: a role and its hash.
///
/// One is only to be had from [`AsRole::with_key`].
#[derive(Debug, Clone, Copy)]
pub struct RoleKey<'a> {
    form: Form<'a>,
    hash: u64,
}

/// How a key says which role it is.
#[derive(Debug, Clone, Copy)]
enum Form<'a> {
    /// The role that is this string, which is [plain](term::is_plain): it stands in the canonical
    /// bytes as it is, so that nothing has to be written to look it up.
    Text(&'a [u8]),
    /// The role of these canonical bytes.
    Term(&'a [u8]),
    Role(&'a Role),
}

impl<'a> RoleKey<'a> {
    /// The key of a string, if it is plain.
    #[inline]
    fn of_text(text: &'a str) -> Option<RoleKey<'a>> {
        let text = text.as_bytes();
        let key = || RoleKey { form: Form::Text(text), hash: hash::of_text(text) };
        term::is_plain(text).then(key)
    }

    #[inline]
    pub(crate) fn hash(self) -> u64 {
        self.hash
    }

    /// Whether it is the key of this role.
    #[inline]
    pub(crate) fn is(self, role: &Role) -> bool {
        self.hash == role.hash64()
            && match self.form {
                Form::Text(text) => term::is_plain_text(role.as_bytes(), text),
                Form::Term(bytes) => role.as_bytes() == bytes,
                Form::Role(key) => role.bytes == key.bytes,
            }
    }

    /// How a role compares with that of this key.
    pub(crate) fn order(self, role: &Role) -> Ordering {
        match self.form {
            Form::Text(text) => term::cmp_plain_text(role.as_bytes(), text),
            Form::Term(bytes) => role.as_bytes().cmp(bytes),
            Form::Role(key) => role.cmp(key),
        }
    }
}

/// A value that stands for a role in a lookup, and of which a role can be made without fail.
///
/// It is implemented for [`Role`] (the cheapest: its hash is at hand), strings, bytes, integers,
/// floats, `bool`, `char`, `()`, options of these, tuples of up to eight of them, and references to
/// all of them. A value that encodes to 64 bytes or fewer is looked up without touching the heap.
/// Every one of these types is also `Into<Role>`. For a type of your own, make the role once with
/// [`Role::new`] and look up by that.
///
/// This trait is sealed: only this crate implements it.
///
/// # Examples
/// ```
/// use rolecall::{AsRole, Role};
///
/// fn is_same(one: impl AsRole, other: impl AsRole) -> bool {
///     Role::from(&one) == other
/// }
///
/// assert!(is_same("web", String::from("web")));
/// assert!(is_same(("shard", 1), Role::from(("shard", 1_u64))));
/// ```
pub trait AsRole: sealed::Encode {
    /// Calls `look_up` with the key of the role that this value is.
    #[inline]
    fn with_key<R>(&self, look_up: impl FnOnce(RoleKey<'_>) -> R) -> R {
        with_encoded_key(self, look_up)
    }
}

#[inline]
fn with_encoded_key<R>(
    value: &(impl sealed::Encode + ?Sized),
    look_up: impl FnOnce(RoleKey<'_>) -> R,
) -> R {
    let mut term = KeyBuffer::new();
    value.encode(&mut term);
    let bytes = term.as_bytes();
    look_up(RoleKey { form: Form::Term(bytes), hash: hash::of_term(bytes) })
}

mod sealed {
    use super::{KeyBuffer, Role};

    pub trait Encode {
        /// Writes this value's term.
        fn encode(&self, out: &mut KeyBuffer);

        fn to_role(&self) -> Role {
            let mut out = KeyBuffer::new();
            self.encode(&mut out);
            Role::from_canonical(out.as_bytes())
        }
    }
}

/// The bytes of a term: on the stack while they are few.
pub struct KeyBuffer {
    inline: [u8; KeyBuffer::INLINE_BYTES],
    inline_len: usize,
    /// All the bytes, once they are too many for `inline`.
    heap: Vec<u8>,
}

impl KeyBuffer {
    const INLINE_BYTES: usize = 64;

    #[inline]
    fn new() -> KeyBuffer {
        KeyBuffer { inline: [0; KeyBuffer::INLINE_BYTES], inline_len: 0, heap: Vec::new() }
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        if self.heap.is_empty() { &self.inline[..self.inline_len] } else { &self.heap }
    }
}

impl Sink for KeyBuffer {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        let end = self.inline_len + bytes.len();
        if self.heap.is_empty() && end <= KeyBuffer::INLINE_BYTES {
            self.inline[self.inline_len..end].copy_from_slice(bytes);
            self.inline_len = end;
            return;
        }
        if self.heap.is_empty() {
            self.heap.extend_from_slice(&self.inline[..self.inline_len]);
        }
        self.heap.extend_from_slice(bytes);
    }
}

/// Plain types: how each is written, and that a role can be made of it.
macro_rules! plain_roles {
    ($($type:ty: |$value:ident, $out:ident| $put:expr;)+) => { $(
        impl sealed::Encode for $type {
            #[inline]
            fn encode(&self, $out: &mut KeyBuffer) {
                let $value = self;
                $put
            }
        }

        impl AsRole for $type {}

        impl From<$type> for Role {
            fn from(value: $type) -> Role {
                sealed::Encode::to_role(&value)
            }
        }
    )+ };
}

plain_roles! {
    Vec<u8>: |value, out| term::put_bytes(out, value);
    Bytes: |value, out| term::put_bytes(out, value);
    u8: |value, out| term::put_unsigned(out, (*value).into());
    u16: |value, out| term::put_unsigned(out, (*value).into());
    u32: |value, out| term::put_unsigned(out, (*value).into());
    u64: |value, out| term::put_unsigned(out, (*value).into());
    u128: |value, out| term::put_unsigned(out, *value);
    usize: |value, out| term::put_unsigned(out, *value as u128);
    i8: |value, out| term::put_signed(out, (*value).into());
    i16: |value, out| term::put_signed(out, (*value).into());
    i32: |value, out| term::put_signed(out, (*value).into());
    i64: |value, out| term::put_signed(out, (*value).into());
    i128: |value, out| term::put_signed(out, *value);
    isize: |value, out| term::put_signed(out, *value as i128);
    f32: |value, out| term::put_float(out, (*value).into());
    f64: |value, out| term::put_float(out, *value);
    bool: |value, out| term::put_bool(out, *value);
    char: |value, out| term::put_char(out, *value);
    (): |_value, out| term::put_unit(out);
}

impl sealed::Encode for str {
    #[inline]
    fn encode(&self, out: &mut KeyBuffer) {
        term::put_str(out, self);
    }
}

impl AsRole for str {
    #[inline]
    fn with_key<R>(&self, look_up: impl FnOnce(RoleKey<'_>) -> R) -> R {
        match RoleKey::of_text(self) {
            Some(key) => look_up(key),
            None => with_encoded_key(self, look_up),
        }
    }
}

/// Other types of strings.
macro_rules! text_roles {
    ($($type:ty)+) => { $(
        impl sealed::Encode for $type {
            fn encode(&self, out: &mut KeyBuffer) {
                term::put_str(out, self);
            }
        }

        impl AsRole for $type {
            #[inline]
            fn with_key<R>(&self, look_up: impl FnOnce(RoleKey<'_>) -> R) -> R {
                (**self).with_key(look_up)
            }
        }

        impl From<$type> for Role {
            fn from(value: $type) -> Role {
                sealed::Encode::to_role(&value)
            }
        }
    )+ };
}

text_roles! { String Cow<'_, str> }

impl sealed::Encode for [u8] {
    #[inline]
    fn encode(&self, out: &mut KeyBuffer) {
        term::put_bytes(out, self);
    }
}

impl AsRole for [u8] {}

impl<const N: usize> sealed::Encode for [u8; N] {
    #[inline]
    fn encode(&self, out: &mut KeyBuffer) {
        term::put_bytes(out, self);
    }
}

impl<const N: usize> AsRole for [u8; N] {}

impl<const N: usize> From<[u8; N]> for Role {
    fn from(value: [u8; N]) -> Role {
        sealed::Encode::to_role(&value)
    }
}

impl<T: AsRole> sealed::Encode for Option<T> {
    #[inline]
    fn encode(&self, out: &mut KeyBuffer) {
        match self {
            None => term::put_none(out),
            Some(value) => {
                term::put_some(out);
                value.encode(out);
            }
        }
    }
}

impl<T: AsRole> AsRole for Option<T> {}

impl<T: AsRole> From<Option<T>> for Role {
    fn from(value: Option<T>) -> Role {
        sealed::Encode::to_role(&value)
    }
}

impl sealed::Encode for Role {
    fn encode(&self, out: &mut KeyBuffer) {
        out.put(self.as_bytes());
    }

    fn to_role(&self) -> Role {
        self.clone()
    }
}

impl AsRole for Role {
    #[inline]
    fn with_key<R>(&self, look_up: impl FnOnce(RoleKey<'_>) -> R) -> R {
        look_up(RoleKey { form: Form::Role(self), hash: self.hash64() })
    }
}

impl<T: AsRole + ?Sized> sealed::Encode for &T {
    #[inline]
    fn encode(&self, out: &mut KeyBuffer) {
        (**self).encode(out);
    }

    fn to_role(&self) -> Role {
        (**self).to_role()
    }
}

impl<T: AsRole + ?Sized> AsRole for &T {
    #[inline]
    fn with_key<R>(&self, look_up: impl FnOnce(RoleKey<'_>) -> R) -> R {
        (**self).with_key(look_up)
    }
}

impl<T: AsRole + ?Sized> From<&T> for Role {
    fn from(value: &T) -> Role {
        value.to_role()
    }
}

macro_rules! tuple_roles {
    ($(($($T:ident $field:tt),+);)+) => { $(
        impl<$($T: AsRole),+> sealed::Encode for ($($T,)+) {
            #[inline]
            fn encode(&self, out: &mut KeyBuffer) {
                term::put_tuple(out);
                $(self.$field.encode(out);)+
                term::put_end(out);
            }
        }

        impl<$($T: AsRole),+> AsRole for ($($T,)+) {}

        impl<$($T: AsRole),+> From<($($T,)+)> for Role {
            fn from(value: ($($T,)+)) -> Role {
                sealed::Encode::to_role(&value)
            }
        }
    )+ };
}

tuple_roles! {
    (A 0);
    (A 0, B 1);
    (A 0, B 1, C 2);
    (A 0, B 1, C 2, D 3);
    (A 0, B 1, C 2, D 3, E 4);
    (A 0, B 1, C 2, D 3, E 4, F 5);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
}
