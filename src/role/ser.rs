//! From a value to its term: a serde `Serializer` that writes canonical bytes.

use std::fmt::Display;
use std::ops::Range;

use serde::ser::{self, Serialize, Serializer};

use super::term::{self, Family, Shape};
use super::{EMBEDDED_ROLE, MAX_ROLE_DEPTH, TermError};

/// The canonical bytes of a value's term, however long.
pub(super) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, TermError> {
    let mut out = Vec::new();
    value.serialize(TermSerializer::new(&mut out))?;
    // A `Serialize` that goes on after an error, or that writes a key and no value, gets to here.
    term::validate(&out).map_err(ser::Error::custom)?;
    Ok(out)
}

impl ser::Error for TermError {
    fn custom<T: Display>(message: T) -> TermError {
        TermError(message.to_string())
    }
}

/// Writes one term at the end of `out`.
struct TermSerializer<'w> {
    out: &'w mut Vec<u8>,
    depth_left: usize,
    /// The value is a `Role`, whose bytes are the term.
    is_role: bool,
}

impl<'w> TermSerializer<'w> {
    fn new(out: &'w mut Vec<u8>) -> TermSerializer<'w> {
        TermSerializer { out, depth_left: MAX_ROLE_DEPTH, is_role: false }
    }

    /// One level in; the bound keeps a value that nests without end off the thread's stack.
    fn nested(self) -> Result<TermSerializer<'w>, TermError> {
        let depth_left = self.depth_left.checked_sub(1).ok_or_else(TermError::too_deep)?;
        Ok(TermSerializer { depth_left, ..self })
    }

    fn named(
        self,
        family: Family,
        shape: Shape,
        name: &str,
    ) -> Result<TermSerializer<'w>, TermError> {
        term::put_named(self.out, family, shape, name);
        self.nested()
    }

    fn terms(self) -> TermsSerializer<'w> {
        TermsSerializer { out: self.out, depth_left: self.depth_left }
    }

    fn entries(self) -> EntriesSerializer<'w> {
        EntriesSerializer { entries: Entries::new(self.out), depth_left: self.depth_left }
    }
}

impl<'w> Serializer for TermSerializer<'w> {
    type Ok = ();
    type Error = TermError;
    type SerializeSeq = TermsSerializer<'w>;
    type SerializeTuple = TermsSerializer<'w>;
    type SerializeTupleStruct = TermsSerializer<'w>;
    type SerializeTupleVariant = TermsSerializer<'w>;
    type SerializeMap = EntriesSerializer<'w>;
    type SerializeStruct = EntriesSerializer<'w>;
    type SerializeStructVariant = EntriesSerializer<'w>;

    /// An address or an id is a role in the form in which people write it, not as raw bytes.
    fn is_human_readable(&self) -> bool {
        !self.is_role
    }

    fn serialize_bool(self, value: bool) -> Result<(), TermError> {
        term::put_bool(self.out, value);
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Result<(), TermError> {
        self.serialize_i128(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), TermError> {
        self.serialize_i128(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), TermError> {
        self.serialize_i128(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), TermError> {
        self.serialize_i128(value.into())
    }

    fn serialize_i128(self, value: i128) -> Result<(), TermError> {
        term::put_signed(self.out, value);
        Ok(())
    }

    fn serialize_u8(self, value: u8) -> Result<(), TermError> {
        self.serialize_u128(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), TermError> {
        self.serialize_u128(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), TermError> {
        self.serialize_u128(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), TermError> {
        self.serialize_u128(value.into())
    }

    fn serialize_u128(self, value: u128) -> Result<(), TermError> {
        term::put_unsigned(self.out, value);
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), TermError> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), TermError> {
        term::put_float(self.out, value);
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), TermError> {
        term::put_char(self.out, value);
        Ok(())
    }

    fn serialize_str(self, value: &str) -> Result<(), TermError> {
        term::put_str(self.out, value);
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), TermError> {
        if !self.is_role {
            term::put_bytes(self.out, value);
            return Ok(());
        }
        // Anybody can name a newtype like ours, so even these bytes are foreign until checked.
        let depth = term::validate(value).map_err(ser::Error::custom)?;
        if depth > self.depth_left {
            return Err(TermError::too_deep());
        }
        self.out.extend_from_slice(value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), TermError> {
        term::put_none(self.out);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), TermError> {
        term::put_some(self.out);
        value.serialize(self.nested()?)
    }

    fn serialize_unit(self) -> Result<(), TermError> {
        term::put_unit(self.out);
        Ok(())
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<(), TermError> {
        term::put_named(self.out, Family::Struct, Shape::Unit, name);
        Ok(())
    }

    fn serialize_unit_variant(
        self,
        _enum_name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), TermError> {
        term::put_named(self.out, Family::Variant, Shape::Unit, variant);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), TermError> {
        if name == EMBEDDED_ROLE {
            return value.serialize(TermSerializer { is_role: true, ..self });
        }
        value.serialize(self.named(Family::Struct, Shape::Newtype, name)?)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _enum_name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), TermError> {
        value.serialize(self.named(Family::Variant, Shape::Newtype, variant)?)
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<TermsSerializer<'w>, TermError> {
        term::put_tuple(self.out);
        Ok(self.nested()?.terms())
    }

    fn serialize_tuple(self, len: usize) -> Result<TermsSerializer<'w>, TermError> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        _len: usize,
    ) -> Result<TermsSerializer<'w>, TermError> {
        Ok(self.named(Family::Struct, Shape::Tuple, name)?.terms())
    }

    fn serialize_tuple_variant(
        self,
        _enum_name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<TermsSerializer<'w>, TermError> {
        Ok(self.named(Family::Variant, Shape::Tuple, variant)?.terms())
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<EntriesSerializer<'w>, TermError> {
        term::put_map(self.out);
        Ok(self.nested()?.entries())
    }

    fn serialize_struct(
        self,
        name: &'static str,
        _len: usize,
    ) -> Result<EntriesSerializer<'w>, TermError> {
        Ok(self.named(Family::Struct, Shape::Struct, name)?.entries())
    }

    fn serialize_struct_variant(
        self,
        _enum_name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<EntriesSerializer<'w>, TermError> {
        Ok(self.named(Family::Variant, Shape::Struct, variant)?.entries())
    }
}

/// Writes the terms of a tuple, or of what is like one.
struct TermsSerializer<'w> {
    out: &'w mut Vec<u8>,
    depth_left: usize,
}

impl TermsSerializer<'_> {
    fn write<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), TermError> {
        let Self { out, depth_left } = self;
        value.serialize(TermSerializer { out, depth_left: *depth_left, is_role: false })
    }
}

/// Writes the entries of a map, or of what is like one.
struct EntriesSerializer<'w> {
    entries: Entries<'w>,
    depth_left: usize,
}

impl EntriesSerializer<'_> {
    fn write<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), TermError> {
        let out = &mut *self.entries.out;
        value.serialize(TermSerializer { out, depth_left: self.depth_left, is_role: false })
    }
}

/// Collects a map's entries at the end of `out` in any order, and sorts them there.
pub(super) struct Entries<'w> {
    pub(super) out: &'w mut Vec<u8>,
    start: usize,
    /// Where in `out[start..]` each entry's key ends, and each entry.
    ends: Vec<(usize, usize)>,
}

impl<'w> Entries<'w> {
    pub(super) fn new(out: &'w mut Vec<u8>) -> Entries<'w> {
        Entries { start: out.len(), out, ends: Vec::new() }
    }

    /// A key has just been written to `out`.
    pub(super) fn end_key(&mut self) {
        let end = self.out.len() - self.start;
        self.ends.push((end, end));
    }

    /// A value has just been written to `out`.
    pub(super) fn end_value(&mut self) {
        if let Some((_key_end, entry_end)) = self.ends.last_mut() {
            *entry_end = self.out.len() - self.start;
        }
    }

    /// Sorts the entries and writes the end mark. Fails if two have the same key.
    pub(super) fn finish(self) -> Result<(), TermError> {
        let unsorted = self.out.split_off(self.start);
        let mut entry_start = 0;
        let mut entries = Vec::with_capacity(self.ends.len());
        for (key_end, entry_end) in self.ends {
            entries.push(Entry { key: entry_start..key_end, whole: entry_start..entry_end });
            entry_start = entry_end;
        }
        entries.sort_unstable_by_key(|entry| &unsorted[entry.key.clone()]);
        if entries
            .windows(2)
            .any(|pair| unsorted[pair[0].key.clone()] == unsorted[pair[1].key.clone()])
        {
            return Err(ser::Error::custom("a map holds one key twice"));
        }
        for Entry { whole, .. } in entries {
            self.out.extend_from_slice(&unsorted[whole]);
        }
        term::put_end(self.out);
        Ok(())
    }
}

struct Entry {
    key: Range<usize>,
    whole: Range<usize>,
}

impl ser::SerializeSeq for TermsSerializer<'_> {
    type Ok = ();
    type Error = TermError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), TermError> {
        self.write(value)
    }

    fn end(self) -> Result<(), TermError> {
        term::put_end(self.out);
        Ok(())
    }
}

impl ser::SerializeTuple for TermsSerializer<'_> {
    type Ok = ();
    type Error = TermError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), TermError> {
        self.write(value)
    }

    fn end(self) -> Result<(), TermError> {
        term::put_end(self.out);
        Ok(())
    }
}

impl ser::SerializeTupleStruct for TermsSerializer<'_> {
    type Ok = ();
    type Error = TermError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), TermError> {
        self.write(value)
    }

    fn end(self) -> Result<(), TermError> {
        term::put_end(self.out);
        Ok(())
    }
}

impl ser::SerializeTupleVariant for TermsSerializer<'_> {
    type Ok = ();
    type Error = TermError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), TermError> {
        self.write(value)
    }

    fn end(self) -> Result<(), TermError> {
        term::put_end(self.out);
        Ok(())
    }
}

impl ser::SerializeMap for EntriesSerializer<'_> {
    type Ok = ();
    type Error = TermError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), TermError> {
        self.write(key)?;
        self.entries.end_key();
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), TermError> {
        self.write(value)?;
        self.entries.end_value();
        Ok(())
    }

    fn end(self) -> Result<(), TermError> {
        self.entries.finish()
    }
}

/// Fields are sorted like a map's keys: the same struct is the same role on a node whose version
/// of the program declares them in another order.
impl ser::SerializeStruct for EntriesSerializer<'_> {
    type Ok = ();
    type Error = TermError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        field: &'static str,
        value: &T,
    ) -> Result<(), TermError> {
        ser::SerializeMap::serialize_entry(self, field, value)
    }

    fn end(self) -> Result<(), TermError> {
        self.entries.finish()
    }
}

impl ser::SerializeStructVariant for EntriesSerializer<'_> {
    type Ok = ();
    type Error = TermError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        field: &'static str,
        value: &T,
    ) -> Result<(), TermError> {
        ser::SerializeMap::serialize_entry(self, field, value)
    }

    fn end(self) -> Result<(), TermError> {
        self.entries.finish()
    }
}
