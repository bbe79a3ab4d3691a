//! How frames become bytes and bytes frames; every limit on a list is checked here.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};

use super::cell::Cell;
use super::frame::{
    Fixed, Frame, Membership, Object, Profile, RoleOp, Roles, Stamp, Summary, Table,
};
use super::limits::{
    MAX_BUCKETS, MAX_CELLS_PER_FRAME, MAX_FETCHES_PER_FRAME, MAX_KNOWN_PER_PULL,
    MAX_ROLES_PER_NODE, MAX_SCOPES_PER_NODE, MAX_TABLES_PER_FRAME, MAX_UNHEARD_PARTS,
    MAX_WITNESSES,
};
use crate::event::Sight;
use crate::node::{MAX_META_BYTES, NodeId};

impl Frame {
    /// Appends the frame.
    pub fn encode(&self, datagram: &mut Vec<u8>) {
        // The body is written first and the length moved in before it: one buffer, no second pass.
        datagram.push(self.kind());
        let start = datagram.len();
        let mut out = self.body_to(std::mem::take(datagram));
        let len = out.len() - start;
        let mut varint = [0; 5];
        let prefix = write_varint(len, &mut varint);
        out.extend_from_slice(prefix);
        out[start..].rotate_right(prefix.len());
        *datagram = out;
    }

    /// Appends the frame if the datagram then has at most `max` bytes; says whether it did.
    pub fn encode_within(&self, max: usize, datagram: &mut Vec<u8>) -> bool {
        let before = datagram.len();
        self.encode(datagram);
        let fits = datagram.len() <= max;
        if !fits {
            datagram.truncate(before);
        }
        fits
    }

    /// The body alone, as it is sent in [`Part`](super::frame::Part)s.
    pub fn to_body(&self) -> Vec<u8> {
        self.body_to(Vec::new())
    }

    /// The frame of this object with this body, if it is one.
    pub fn from_object(object: Object, body: &[u8]) -> Option<Frame> {
        match object {
            Object::Profile(id) => match exact::<Profile>(body).ok()? {
                profile if profile.id == id => Some(profile.into()),
                _ => None,
            },
            Object::Roles(id, scope) => match exact::<Roles>(body).ok()? {
                roles if roles.id == id && roles.scope == scope => Some(roles.into()),
                _ => None,
            },
        }
    }
}

/// Takes one frame off the front of `rest`: `Ok(None)` for one of unknown kind, the kind as the
/// error when it is malformed.
pub(super) fn take(rest: &mut &[u8]) -> Result<Option<Frame>, u8> {
    let (&kind, after_kind) = rest.split_first().expect("the caller checks that there is one");
    let (len, after_len) = read_varint(after_kind).ok_or(kind)?;
    let (body, after) = after_len.split_at_checked(len).ok_or(kind)?;
    *rest = after;
    Frame::from_body(kind, body).transpose().map_err(|_| kind)
}

/// Decodes a whole body; bytes left over are an error.
pub(super) fn exact<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, postcard::Error> {
    match postcard::take_from_bytes(body)? {
        (value, []) => Ok(value),
        _ => Err(postcard::Error::SerdeDeCustom),
    }
}

fn write_varint(mut value: usize, buffer: &mut [u8; 5]) -> &[u8] {
    let mut at = 0;
    loop {
        buffer[at] = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        if value == 0 {
            return &buffer[..=at];
        }
        buffer[at] |= 0x80;
        at += 1;
    }
}

/// A varint of at most three bytes: more than any datagram's length.
fn read_varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for at in 0..3 {
        let byte = *bytes.get(at)?;
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

/// Decodes a sequence of at most `MAX` elements; memory grows with the bytes that are really there.
fn limited<'de, T, D, const MAX: usize>(from: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Limited<T, const MAX: usize>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Limited<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "at most {MAX} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let hint = seq.size_hint().unwrap_or(0);
            if hint > MAX {
                return Err(A::Error::custom("too many elements"));
            }
            let mut values = Vec::with_capacity(hint.min(64));
            while let Some(value) = seq.next_element()? {
                values.push(value);
            }
            Ok(values)
        }
    }

    impl<'de, T: Deserialize<'de>, const MAX: usize> DeserializeSeed<'de> for Limited<T, MAX> {
        type Value = Vec<T>;

        fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Vec<T>, D::Error> {
            from.deserialize_seq(self)
        }
    }

    Limited::<T, MAX>(std::marker::PhantomData).deserialize(from)
}

pub(super) fn meta<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    let bytes = Bytes::deserialize(from)?;
    if bytes.len() > MAX_META_BYTES {
        return Err(D::Error::custom("metadata over the limit"));
    }
    Ok(bytes)
}

pub(super) fn memberships<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Arc<[Membership]>, D::Error> {
    let scopes = limited::<Membership, D, MAX_SCOPES_PER_NODE>(from)?;
    if scopes.is_sorted_by(|a, b| a.scope < b.scope) {
        Ok(scopes.into())
    } else {
        Err(D::Error::custom("scopes out of order"))
    }
}

pub(super) fn role_ops<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<RoleOp>, D::Error> {
    limited::<_, D, MAX_ROLES_PER_NODE>(from)
}

pub(super) fn wants<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(Object, u64)>, D::Error> {
    limited::<_, D, MAX_FETCHES_PER_FRAME>(from)
}

pub(super) fn tables<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<(Table, Summary)>, D::Error> {
    let tables = limited::<(Table, Summary), D, MAX_TABLES_PER_FRAME>(from)?;
    if tables.is_sorted_by(|a, b| a.0 < b.0) {
        Ok(tables)
    } else {
        Err(D::Error::custom("tables out of order"))
    }
}

pub(super) fn unheard<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<(NodeId, NodeId)>, D::Error> {
    limited::<_, D, MAX_UNHEARD_PARTS>(from)
}

pub(super) fn witnesses<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Arc<[(NodeId, Sight)]>, D::Error> {
    limited::<_, D, MAX_WITNESSES>(from).map(Arc::from)
}

pub(super) fn known<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(NodeId, Stamp)>, D::Error> {
    limited::<_, D, MAX_KNOWN_PER_PULL>(from)
}

pub(super) fn buckets<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Fixed>, D::Error> {
    let hashes = limited::<Fixed, D, MAX_BUCKETS>(from)?;
    if hashes.len().is_power_of_two() {
        Ok(hashes)
    } else {
        Err(D::Error::custom("buckets are a power of two"))
    }
}

pub(super) fn cells<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Cell>, D::Error> {
    limited::<_, D, MAX_CELLS_PER_FRAME>(from)
}

/// A role travels as its canonical bytes, checked on arrival.
pub(super) mod role_bytes {
    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    use crate::role::Role;

    pub(in crate::wire) fn serialize<S: Serializer>(role: &Role, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(role.as_bytes())
    }

    pub(in crate::wire) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Role, D::Error> {
        struct RoleBytes;

        impl Visitor<'_> for RoleBytes {
            type Value = Role;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the canonical bytes of a role")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Role, E> {
                Role::from_wire(bytes).map_err(E::custom)
            }
        }

        from.deserialize_bytes(RoleBytes)
    }
}
