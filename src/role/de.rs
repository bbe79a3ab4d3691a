//! From a term to a value: a serde `Deserializer` that reads canonical bytes.
//!
//! Reading is strict. A type that knows what it wants (an `f64`, a `char`, `struct Job`) gets that
//! or an error, so that a value that was read makes the same role again, but for the exceptions
//! that [`Role::get`](super::Role::get) states. A type that takes whatever comes (an untagged enum,
//! a JSON value) is shown what JSON would show it.

use std::borrow::Cow;
use std::fmt::Display;

use serde::Deserialize;
use serde::de::value::{BorrowedStrDeserializer, SeqDeserializer, StringDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::term::{Family, IS_CANONICAL, Reader, Shape, Text, Token};
use super::{EMBEDDED_ROLE, MAX_ROLE_DEPTH, TermError};

/// Reads a value from a canonical term.
pub(super) fn decode<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, TermError> {
    let mut reader = Reader::new(bytes);
    T::deserialize(TermDeserializer::new(&mut reader, MAX_ROLE_DEPTH))
}

impl de::Error for TermError {
    fn custom<T: Display>(message: T) -> TermError {
        TermError(message.to_string())
    }
}

/// Reads the next term.
struct TermDeserializer<'r, 'de> {
    reader: &'r mut Reader<'de>,
    depth_left: usize,
    /// A `Role` is wanted, whose bytes are the term.
    wants_role: bool,
}

impl<'r, 'de> TermDeserializer<'r, 'de> {
    fn new(reader: &'r mut Reader<'de>, depth_left: usize) -> TermDeserializer<'r, 'de> {
        TermDeserializer { reader, depth_left, wants_role: false }
    }

    fn token(&mut self) -> Token<'de> {
        self.reader.token().expect(IS_CANONICAL)
    }

    /// One level in: reads what the token just read holds.
    fn nested(self) -> Result<TermDeserializer<'r, 'de>, TermError> {
        let depth_left = self.depth_left.checked_sub(1).ok_or_else(TermError::too_deep)?;
        Ok(TermDeserializer { depth_left, ..self })
    }

    fn visit_terms<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TermError> {
        let mut terms = Terms::new(self.nested()?);
        let value = visitor.visit_seq(&mut terms)?;
        if !terms.at_end() {
            return Err(de::Error::custom("the role has more elements than the type"));
        }
        Ok(value)
    }

    fn visit_entries<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TermError> {
        let mut entries = Terms::new(self.nested()?);
        let value = visitor.visit_map(&mut entries)?;
        if !entries.at_end() {
            return Err(de::Error::custom("the role has more entries than the type"));
        }
        Ok(value)
    }

    /// The value behind the name of a struct.
    fn visit_struct<V: Visitor<'de>>(
        self,
        shape: Shape,
        visitor: V,
    ) -> Result<V::Value, TermError> {
        match shape {
            Shape::Unit => visitor.visit_unit(),
            Shape::Newtype => visitor.visit_newtype_struct(self.nested()?),
            Shape::Tuple => self.visit_terms(visitor),
            Shape::Struct => self.visit_entries(visitor),
        }
    }

    /// Reads a struct if the next term is one of that shape and name.
    fn expect_struct<V: Visitor<'de>>(
        mut self,
        shape: Shape,
        name: &str,
        visitor: V,
    ) -> Result<V::Value, TermError> {
        match self.token() {
            Token::Named(Family::Struct, found, text) if found == shape && text.str() == name => {
                self.visit_struct(shape, visitor)
            }
            token => Err(mismatch(token, &visitor)),
        }
    }
}

/// Shows an integer as the narrowest type: many visitors know none of 128 bits.
fn visit_negative<'de, V: Visitor<'de>>(value: i128, visitor: V) -> Result<V::Value, TermError> {
    match i64::try_from(value) {
        Ok(value) => visitor.visit_i64(value),
        Err(_) => visitor.visit_i128(value),
    }
}

fn visit_unsigned<'de, V: Visitor<'de>>(value: u128, visitor: V) -> Result<V::Value, TermError> {
    match u64::try_from(value) {
        Ok(value) => visitor.visit_u64(value),
        Err(_) => visitor.visit_u128(value),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "what the cast loses is the question")]
#[expect(clippy::float_cmp, reason = "the same for what is widened again")]
fn fits_f32(value: f64) -> bool {
    value.is_nan() || f64::from(value as f32) == value
}

fn visit_text<'de, V: Visitor<'de>>(text: Text<'de>, visitor: V) -> Result<V::Value, TermError> {
    match text.str() {
        Cow::Borrowed(string) => visitor.visit_borrowed_str(string),
        Cow::Owned(string) => visitor.visit_string(string),
    }
}

fn visit_bytes<'de, V: Visitor<'de>>(text: Text<'de>, visitor: V) -> Result<V::Value, TermError> {
    match text.bytes() {
        Cow::Borrowed(bytes) => visitor.visit_borrowed_bytes(bytes),
        Cow::Owned(bytes) => visitor.visit_byte_buf(bytes),
    }
}

fn mismatch(found: Token<'_>, expected: &dyn de::Expected) -> TermError {
    let found = match found {
        Token::None | Token::Some => Cow::Borrowed("an option"),
        Token::Unit => Cow::Borrowed("a unit"),
        Token::Bool(_) => Cow::Borrowed("a bool"),
        Token::Negative(_) | Token::Unsigned(_) => Cow::Borrowed("an integer"),
        Token::Float(_) => Cow::Borrowed("a float"),
        Token::Char(_) => Cow::Borrowed("a char"),
        Token::Str(_) => Cow::Borrowed("a string"),
        Token::Bytes(_) => Cow::Borrowed("bytes"),
        Token::Tuple => Cow::Borrowed("a tuple"),
        Token::Map => Cow::Borrowed("a map"),
        Token::Named(Family::Struct, _, name) => Cow::Owned(format!("struct {:?}", name.str())),
        Token::Named(Family::Variant, _, name) => Cow::Owned(format!("variant {:?}", name.str())),
        Token::End => unreachable!("{IS_CANONICAL}"),
    };
    de::Error::custom(format_args!("found {found}, expected {expected}"))
}

/// Methods that take integers of whatever size; the visitor refuses one that is out of its range.
macro_rules! deserialize_integers {
    ($($method:ident)+) => { $(
        fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, TermError> {
            match self.token() {
                Token::Negative(value) => visit_negative(value, visitor),
                Token::Unsigned(value) => visit_unsigned(value, visitor),
                token => Err(mismatch(token, &visitor)),
            }
        }
    )+ };
}

/// Methods that take one kind of token and refuse all others.
macro_rules! deserialize_only {
    ($($method:ident: $token:pat => $visit:expr;)+) => { $(
        fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, TermError> {
            match self.token() {
                $token => $visit(self, visitor),
                token => Err(mismatch(token, &visitor)),
            }
        }
    )+ };
}

impl<'de> Deserializer<'de> for TermDeserializer<'_, 'de> {
    type Error = TermError;

    fn is_human_readable(&self) -> bool {
        !self.wants_role
    }

    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, TermError> {
        match self.token() {
            Token::None => visitor.visit_none(),
            Token::Some => visitor.visit_some(self.nested()?),
            Token::Unit => visitor.visit_unit(),
            Token::Bool(value) => visitor.visit_bool(value),
            Token::Negative(value) => visit_negative(value, visitor),
            Token::Unsigned(value) => visit_unsigned(value, visitor),
            Token::Float(value) => visitor.visit_f64(value),
            Token::Char(value) => visitor.visit_char(value),
            Token::Str(text) => visit_text(text, visitor),
            Token::Bytes(text) => visit_bytes(text, visitor),
            Token::Tuple => self.visit_terms(visitor),
            Token::Map => self.visit_entries(visitor),
            // As in JSON: many visitors that take anything know no newtype.
            Token::Named(Family::Struct, Shape::Newtype, _) => {
                self.nested()?.deserialize_any(visitor)
            }
            Token::Named(Family::Struct, shape, _) => self.visit_struct(shape, visitor),
            Token::Named(Family::Variant, Shape::Unit, name) => visit_text(name, visitor),
            Token::Named(Family::Variant, shape, name) => {
                let payload = Payload { shape, deserializer: self };
                visitor.visit_map(VariantEntry { name, payload: Some(payload) })
            }
            Token::End => unreachable!("{IS_CANONICAL}"),
        }
    }

    deserialize_integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }

    deserialize_only! {
        deserialize_bool: Token::Bool(value) => |_: Self, visitor: V| visitor.visit_bool(value);
        deserialize_f64: Token::Float(value) => |_: Self, visitor: V| visitor.visit_f64(value);
        deserialize_char: Token::Char(value) => |_: Self, visitor: V| visitor.visit_char(value);
        deserialize_str: Token::Str(text) => |_: Self, visitor: V| visit_text(text, visitor);
        deserialize_string: Token::Str(text) => |_: Self, visitor: V| visit_text(text, visitor);
        deserialize_unit: Token::Unit => |_: Self, visitor: V| visitor.visit_unit();
        deserialize_map: Token::Map => Self::visit_entries;
    }

    /// As with an integer, a value that the type cannot hold is refused and not rounded.
    fn deserialize_f32<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, TermError> {
        match self.token() {
            Token::Float(value) if fits_f32(value) => visitor.visit_f64(value),
            token => Err(mismatch(token, &visitor)),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, TermError> {
        if self.wants_role {
            return visitor.visit_borrowed_bytes(self.reader.term().expect(IS_CANONICAL));
        }
        match self.token() {
            Token::Bytes(text) => visit_bytes(text, visitor),
            token => Err(mismatch(token, &visitor)),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TermError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, TermError> {
        match self.token() {
            Token::None => visitor.visit_none(),
            Token::Some => visitor.visit_some(self.nested()?),
            token => Err(mismatch(token, &visitor)),
        }
    }

    /// Bytes are a sequence too for who asks for one: a `Vec<u8>` does not know the difference.
    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, TermError> {
        match self.token() {
            Token::Tuple => self.visit_terms(visitor),
            Token::Bytes(text) => {
                let mut bytes = SeqDeserializer::new(text.bytes().into_owned().into_iter());
                let value = visitor.visit_seq(&mut bytes)?;
                bytes.end()?;
                Ok(value)
            }
            token => Err(mismatch(token, &visitor)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, TermError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, TermError> {
        self.expect_struct(Shape::Unit, name, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, TermError> {
        if name == EMBEDDED_ROLE {
            return visitor.visit_newtype_struct(TermDeserializer { wants_role: true, ..self });
        }
        self.expect_struct(Shape::Newtype, name, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, TermError> {
        self.expect_struct(Shape::Tuple, name, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TermError> {
        self.expect_struct(Shape::Struct, name, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TermError> {
        match self.token() {
            Token::Named(Family::Variant, shape, name) => {
                visitor.visit_enum(Variant { name, payload: Payload { shape, deserializer: self } })
            }
            token => Err(mismatch(token, &visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TermError> {
        self.reader.term().expect(IS_CANONICAL);
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { identifier }
}

/// The terms up to an end mark: one by one, or in turn as keys and values.
struct Terms<'r, 'de> {
    reader: &'r mut Reader<'de>,
    depth_left: usize,
    has_ended: bool,
}

impl<'r, 'de> Terms<'r, 'de> {
    fn new(first: TermDeserializer<'r, 'de>) -> Terms<'r, 'de> {
        let TermDeserializer { reader, depth_left, .. } = first;
        Terms { reader, depth_left, has_ended: false }
    }

    fn at_end(&mut self) -> bool {
        self.has_ended = self.has_ended || self.reader.take_end();
        self.has_ended
    }

    fn read<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, TermError> {
        seed.deserialize(TermDeserializer::new(self.reader, self.depth_left))
    }
}

impl<'de> de::SeqAccess<'de> for Terms<'_, 'de> {
    type Error = TermError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, TermError> {
        if self.at_end() { Ok(None) } else { self.read(seed).map(Some) }
    }
}

impl<'de> de::MapAccess<'de> for Terms<'_, 'de> {
    type Error = TermError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, TermError> {
        if self.at_end() { Ok(None) } else { self.read(seed).map(Some) }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, TermError> {
        self.read(seed)
    }
}

/// What follows the name of a variant, for who asks without knowing the shape.
struct Payload<'r, 'de> {
    shape: Shape,
    deserializer: TermDeserializer<'r, 'de>,
}

impl<'de> Payload<'_, 'de> {
    fn expect<V: Visitor<'de>>(self, shape: Shape, visitor: V) -> Result<V::Value, TermError> {
        if self.shape == shape {
            self.deserializer.visit_struct(shape, visitor)
        } else {
            let expected: &dyn de::Expected = &visitor;
            Err(de::Error::custom(format_args!("found another shape, expected {expected}")))
        }
    }
}

impl<'de> Deserializer<'de> for Payload<'_, 'de> {
    type Error = TermError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TermError> {
        match self.shape {
            Shape::Newtype => self.deserializer.nested()?.deserialize_any(visitor),
            shape => self.deserializer.visit_struct(shape, visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

/// A variant, for who asks for an enum.
struct Variant<'r, 'de> {
    name: Text<'de>,
    payload: Payload<'r, 'de>,
}

impl<'r, 'de> de::EnumAccess<'de> for Variant<'r, 'de> {
    type Error = TermError;
    type Variant = Payload<'r, 'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Payload<'r, 'de>), TermError> {
        Ok((read_name(self.name, seed)?, self.payload))
    }
}

impl<'de> de::VariantAccess<'de> for Payload<'_, 'de> {
    type Error = TermError;

    fn unit_variant(self) -> Result<(), TermError> {
        self.expect(Shape::Unit, de::IgnoredAny).map(drop)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, TermError> {
        if self.shape != Shape::Newtype {
            return Err(de::Error::custom("the variant does not hold exactly one value"));
        }
        seed.deserialize(self.deserializer.nested()?)
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, TermError> {
        self.expect(Shape::Tuple, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TermError> {
        self.expect(Shape::Struct, visitor)
    }
}

/// A variant, for who takes anything: a map with one entry, as in JSON.
struct VariantEntry<'r, 'de> {
    name: Text<'de>,
    payload: Option<Payload<'r, 'de>>,
}

impl<'de> de::MapAccess<'de> for VariantEntry<'_, 'de> {
    type Error = TermError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, TermError> {
        match self.payload {
            Some(_) => read_name(self.name, seed).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, TermError> {
        let payload = self.payload.take();
        seed.deserialize(payload.expect("serde's contract: one value for each key"))
    }
}

fn read_name<'de, T: DeserializeSeed<'de>>(
    name: Text<'de>,
    seed: T,
) -> Result<T::Value, TermError> {
    match name.str() {
        Cow::Borrowed(name) => seed.deserialize(BorrowedStrDeserializer::new(name)),
        Cow::Owned(name) => {
            let name: StringDeserializer<TermError> = name.into_deserializer();
            seed.deserialize(name)
        }
    }
}
