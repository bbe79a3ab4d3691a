//! A role as a part of another value: serde for [`Role`] itself.

use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, Visitor};
use serde::ser::{self, Serialize, Serializer};

use super::ser::Entries;
use super::term::{self, Family, IS_CANONICAL, Reader, Shape, Token};
use super::{EMBEDDED_ROLE, MAX_ROLE_DEPTH, Role, TermError};

/// Into a format for people (JSON, TOML) the role goes as its value, so that it can be read there:
/// the name of a struct is lost, and so is any difference that the format does not make. Into any
/// other format (as its canonical bytes), and into another role, it goes exactly.
impl Serialize for Role {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A role from `Role::from` may nest deeper than the stack of a recursive format is high.
        self.check_len().map_err(ser::Error::custom)?;
        // Only our own serializer takes notice of the name; a newtype is nothing to the others.
        serializer.serialize_newtype_struct(EMBEDDED_ROLE, &Term(self.as_bytes()))
    }
}

/// The canonical bytes of a term, to be serialized as the value that they stand for.
struct Term<'a>(&'a [u8]);

impl Serialize for Term<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_bytes(self.0);
        }
        let mut reader = Reader::new(self.0);
        match reader.token().expect(IS_CANONICAL) {
            Token::None => serializer.serialize_none(),
            Token::Some => serializer.serialize_some(&next_term(&mut reader)),
            Token::Unit | Token::Named(Family::Struct, Shape::Unit, _) => {
                serializer.serialize_unit()
            }
            Token::Bool(value) => serializer.serialize_bool(value),
            // The narrowest type: many formats know no integer of 128 bits.
            Token::Negative(value) => match i64::try_from(value) {
                Ok(value) => serializer.serialize_i64(value),
                Err(_) => serializer.serialize_i128(value),
            },
            Token::Unsigned(value) => match u64::try_from(value) {
                Ok(value) => serializer.serialize_u64(value),
                Err(_) => serializer.serialize_u128(value),
            },
            Token::Float(value) => serializer.serialize_f64(value),
            Token::Char(value) => serializer.serialize_char(value),
            Token::Str(text) => serializer.serialize_str(&text.str()),
            Token::Bytes(text) => serializer.serialize_bytes(&text.bytes()),
            Token::Tuple => serializer.collect_seq(terms(reader)),
            Token::Map => serializer.collect_map(entries(reader)),
            Token::Named(Family::Struct, shape, _) => {
                Payload { shape, reader }.serialize(serializer)
            }
            Token::Named(Family::Variant, Shape::Unit, name) => {
                serializer.serialize_str(&name.str())
            }
            // The common form of a variant in such formats; its name is not `'static` here, as
            // serde's own calls for variants want it.
            Token::Named(Family::Variant, shape, name) => {
                serializer.collect_map([(name.str(), Payload { shape, reader })])
            }
            Token::End => unreachable!("{IS_CANONICAL}"),
        }
    }
}

/// What follows the name of a struct or a variant.
struct Payload<'a> {
    shape: Shape,
    reader: Reader<'a>,
}

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut reader = self.reader;
        match self.shape {
            Shape::Unit => serializer.serialize_unit(),
            Shape::Newtype => next_term(&mut reader).serialize(serializer),
            Shape::Tuple => serializer.collect_seq(terms(reader)),
            Shape::Struct => serializer.collect_map(entries(reader)),
        }
    }
}

fn next_term<'a>(reader: &mut Reader<'a>) -> Term<'a> {
    Term(reader.term().expect(IS_CANONICAL))
}

fn terms(mut reader: Reader<'_>) -> impl Iterator<Item = Term<'_>> {
    std::iter::from_fn(move || (!reader.take_end()).then(|| next_term(&mut reader)))
}

fn entries(mut reader: Reader<'_>) -> impl Iterator<Item = (Term<'_>, Term<'_>)> {
    std::iter::from_fn(move || {
        (!reader.take_end()).then(|| (next_term(&mut reader), next_term(&mut reader)))
    })
}

/// From a format for people, whatever value is there becomes the role; from another role, and from
/// any other format, its canonical bytes do, and are checked. (Inside an untagged enum serde hides
/// the format and its bytes: there a role is read as from a format for people.)
impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Role, D::Error> {
        deserializer.deserialize_newtype_struct(EMBEDDED_ROLE, RoleVisitor)
    }
}

struct RoleVisitor;

impl<'de> Visitor<'de> for RoleVisitor {
    type Value = Role;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a role")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Role, D::Error> {
        if !inner.is_human_readable() {
            return inner.deserialize_bytes(self);
        }
        let mut out = Vec::new();
        inner.deserialize_any(TermBuilder { out: &mut out, depth_left: MAX_ROLE_DEPTH })?;
        Role::from_wire(&out).map_err(de::Error::custom)
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Role, E> {
        Role::from_wire(bytes).map_err(E::custom)
    }
}

/// Writes whatever value it is shown as a term at the end of `out`.
struct TermBuilder<'w> {
    out: &'w mut Vec<u8>,
    depth_left: usize,
}

impl TermBuilder<'_> {
    fn nested<E: de::Error>(&mut self) -> Result<TermBuilder<'_>, E> {
        let too_deep = || E::custom(TermError::too_deep());
        let depth_left = self.depth_left.checked_sub(1).ok_or_else(too_deep)?;
        Ok(TermBuilder { out: self.out, depth_left })
    }
}

impl<'de> DeserializeSeed<'de> for TermBuilder<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Methods that write a value without parts.
macro_rules! visit_plain {
    ($($method:ident($value:ident: $type:ty) => $put:expr;)+) => { $(
        fn $method<E>(self, $value: $type) -> Result<(), E> {
            $put(self.out, $value);
            Ok(())
        }
    )+ };
}

impl<'de> Visitor<'de> for TermBuilder<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that can be a role")
    }

    visit_plain! {
        visit_bool(value: bool) => term::put_bool;
        visit_i64(value: i64) => |out, value: i64| term::put_signed(out, value.into());
        visit_i128(value: i128) => term::put_signed;
        visit_u64(value: u64) => |out, value: u64| term::put_unsigned(out, value.into());
        visit_u128(value: u128) => term::put_unsigned;
        visit_f64(value: f64) => term::put_float;
        visit_char(value: char) => term::put_char;
        visit_str(value: &str) => term::put_str;
        visit_bytes(value: &[u8]) => term::put_bytes;
    }

    fn visit_none<E>(self) -> Result<(), E> {
        term::put_none(self.out);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        term::put_unit(self.out);
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(mut self, inner: D) -> Result<(), D::Error> {
        term::put_some(self.out);
        inner.deserialize_any(self.nested()?)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(mut self, inner: D) -> Result<(), D::Error> {
        inner.deserialize_any(self.nested()?)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(mut self, mut terms: A) -> Result<(), A::Error> {
        term::put_tuple(self.out);
        let depth_left = self.nested()?.depth_left;
        while terms.next_element_seed(TermBuilder { out: self.out, depth_left })?.is_some() {}
        term::put_end(self.out);
        Ok(())
    }

    fn visit_map<A: de::MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        term::put_map(self.out);
        let depth_left = self.nested()?.depth_left;
        let mut entries = Entries::new(self.out);
        while map.next_key_seed(TermBuilder { out: entries.out, depth_left })?.is_some() {
            entries.end_key();
            map.next_value_seed(TermBuilder { out: entries.out, depth_left })?;
            entries.end_value();
        }
        entries.finish().map_err(de::Error::custom)
    }
}
