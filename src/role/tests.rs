//! Tests of the encoding from the inside: frozen bytes, foreign bytes, and values that misbehave.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use proptest::prelude::*;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTupleStruct,
    SerializeTupleVariant, Serializer,
};

use super::term::{Family, Reader, Shape, Token};
use super::*;
use crate::role;

#[derive(Serialize)]
struct Leader;
#[derive(Serialize)]
struct Id(u32);
#[derive(Serialize)]
struct Pair(u8, bool);
#[derive(Serialize)]
struct Job {
    shard: u8,
    of: &'static str,
}
#[derive(Serialize)]
enum Kind {
    Idle,
    Shard(u8),
    Range(u8, u8),
    Web { port: u16 },
}

fn new<T: Serialize>(value: T) -> Role {
    Role::new(&value).unwrap()
}

/// These bytes are on the wire and in users' stores: a change of any is a change of the protocol.
#[test]
fn encoding_is_frozen() {
    let frozen: [(Role, &[u8], &str); 34] = [
        (Role::from(None::<u8>), b"\x01", "None"),
        (Role::from(Some(1)), b"\x02\x21\x01", "Some(1)"),
        (Role::from(()), b"\x03", "()"),
        (Role::from(false), b"\x04", "false"),
        (Role::from(true), b"\x05", "true"),
        (
            Role::from(i128::MIN),
            b"\x10\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            "-170141183460469231731687303715884105728",
        ),
        (Role::from(-256), b"\x1e\xfe\xff", "-256"),
        (Role::from(-1), b"\x1f\xfe", "-1"),
        (Role::from(0), b"\x20", "0"),
        (Role::from(1), b"\x21\x01", "1"),
        (Role::from(256), b"\x22\x01\x00", "256"),
        (
            Role::from(u128::MAX),
            b"\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            "340282366920938463463374607431768211455",
        ),
        (Role::from(-1.5), b"\x38\x40\x07\xff\xff\xff\xff\xff\xff", "-1.5"),
        (Role::from(-0.0), b"\x38\x80\x00\x00\x00\x00\x00\x00\x00", "0.0"),
        (Role::from(1.0), b"\x38\xbf\xf0\x00\x00\x00\x00\x00\x00", "1.0"),
        (Role::from(-f64::NAN), b"\x38\xff\xf8\x00\x00\x00\x00\x00\x00", "NaN"),
        (Role::from('\u{10ffff}'), b"\x39\x10\xff\xff", "'\\u{10ffff}'"),
        (Role::from("web"), b"\x40web\x00", "\"web\""),
        (Role::from("a\0\n"), b"\x40a\x00\xff\n\x00", "\"a\\0\\n\""),
        (Role::from(b"\0\xff\""), b"\x41\x00\xff\xff\"\x00", "b\"\\x00\\xff\\\"\""),
        (Role::from(("shard", 1)), b"\x50\x40shard\x00\x21\x01\x00", "(\"shard\", 1)"),
        (Role::from((1,)), b"\x50\x21\x01\x00", "(1,)"),
        (new(Vec::<u8>::new()), b"\x50\x00", "[]"),
        (
            new(BTreeMap::from([("b", 0), ("a", 0)])),
            b"\x51\x40a\x00\x20\x40b\x00\x20\x00",
            "{\"a\": 0, \"b\": 0}",
        ),
        (new(BTreeMap::<u8, u8>::new()), b"\x51\x00", "{}"),
        (new(Leader), b"\x60Leader\x00", "Leader"),
        (new(Id(0)), b"\x61Id\x00\x20", "Id(0)"),
        (new(Pair(0, true)), b"\x62Pair\x00\x20\x05\x00", "Pair(0, true)"),
        (
            new(Job { shard: 0, of: "" }),
            b"\x63Job\x00\x40of\x00\x40\x00\x40shard\x00\x20\x00",
            "Job { of: \"\", shard: 0 }",
        ),
        (new(Kind::Idle), b"\x70Idle\x00", "Idle"),
        (new(Kind::Shard(0)), b"\x71Shard\x00\x20", "Shard(0)"),
        (new(Kind::Range(0, 0)), b"\x72Range\x00\x20\x20\x00", "Range(0, 0)"),
        (new(Kind::Web { port: 0 }), b"\x73Web\x00\x40port\x00\x20\x00", "Web { port: 0 }"),
        (role!(role!("a"), ((),)), b"\x50\x40a\x00\x50\x03\x00\x00", "(\"a\", ((),))"),
    ];
    for (role, bytes, printed) in frozen {
        assert_eq!(role.as_bytes(), bytes, "{role}");
        assert_eq!(role.to_string(), printed);
        assert_eq!(Role::from_wire(bytes).unwrap(), role);
    }
}

#[test]
fn foreign_bytes_that_are_not_one_canonical_term_are_refused() {
    use RoleDecodeError::*;
    let too_deep = [b"\x02".repeat(MAX_ROLE_DEPTH + 1), b"\x03".to_vec()].concat();
    let too_long = [b"\x40".to_vec(), b"x".repeat(MAX_ROLE_BYTES - 1), b"\0".to_vec()].concat();
    let integer = NotCanonical("an integer with leading zeros");
    let keys = NotCanonical("keys out of order or repeated");
    let below = b"\x10\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe";
    let refused: [(&[u8], RoleDecodeError); 26] = [
        (b"", Truncated),
        (b"\x00", MisplacedEnd),
        (b"\x06", UnknownTag(0x06)),
        (b"\xff", UnknownTag(0xff)),
        (b"\x03\x03", TrailingBytes),
        (b"\x02", Truncated),
        (b"\x50\x02\x00", MisplacedEnd),
        (b"\x21", Truncated),
        (b"\x21\x00", integer),
        (b"\x22\x00\x01", integer),
        (b"\x1f\xff", integer),
        (b"\x1e\xff\xfe", integer),
        (below, NotCanonical("an integer below the least i128")),
        (b"\x38\x7f\xff\xff\xff\xff\xff\xff\xff", NotCanonical("a second NaN or zero")),
        (b"\x38\xff\xf8\x00\x00\x00\x00\x00\x01", NotCanonical("a second NaN or zero")),
        (b"\x39\x00\xd8\x00", NotCanonical("no Unicode scalar value")),
        (b"\x40web", Truncated),
        (b"\x40web\x00\xff", Truncated),
        (b"\x40\xc3\x00", NotUtf8),
        (b"\x60\xc3\x00\xff\x00", NotUtf8),
        (b"\x50\x03", Truncated),
        (b"\x51\x20\x00", MisplacedEnd),
        (b"\x51\x20\x03\x20\x03\x00", keys),
        (b"\x51\x21\x01\x03\x20\x03\x00", keys),
        (b"\x63\x00\x20\x03\x00", NotCanonical("a field whose name is no string")),
        (&too_deep, TooDeep),
    ];
    for (bytes, error) in refused {
        assert_eq!(Role::from_wire(bytes).unwrap_err(), error, "{bytes:02x?}");
    }
    assert_eq!(Role::from_wire(&too_long).unwrap_err(), TooLong { len: MAX_ROLE_BYTES + 1 });
    assert!(Role::from_wire(&too_deep[1..]).is_ok());
}

#[test]
fn every_prefix_of_a_role_is_truncated() {
    let role = role!("a\0b", -300, 1.5, 'c', b"x", ((), Some(true)));
    for end in 0..role.as_bytes().len() {
        let error = Role::from_wire(&role.as_bytes()[..end]).unwrap_err();
        assert_eq!(error, RoleDecodeError::Truncated);
    }
}

#[test]
fn a_role_at_the_limit_is_taken_and_one_above_it_is_not() {
    let longest = "x".repeat(MAX_ROLE_BYTES - 2);
    assert!(Role::new(&longest).is_ok());
    assert_eq!(Role::from(&longest).check_len(), Ok(()));
    let longer = longest + "x";
    let too_large = RoleError::TooLarge { len: MAX_ROLE_BYTES + 1, max: MAX_ROLE_BYTES };
    assert_eq!(Role::new(&longer), Err(too_large.clone()));
    assert_eq!(Role::from(&longer).check_len(), Err(too_large));
}

#[test]
fn a_role_nested_too_deep_is_refused_and_harmless() {
    let mut role = Role::from("core");
    for _ in 0..MAX_ROLE_DEPTH {
        role = Role::from((role,));
    }
    assert_eq!(role.check_len(), Ok(()));
    assert_eq!(Role::new(&role).unwrap(), role);
    assert!(matches!(Role::new(&(&role,)), Err(RoleError::Unencodable { .. })));
    for _ in 0..1_000 {
        role = Role::from((role,));
    }
    assert!(matches!(role.check_len(), Err(RoleError::Unencodable { .. })));
    assert!(role.to_string().contains(".."));
    assert!(role.get::<serde_json::Value>().is_err());
    assert!(serde_json::to_string(&role).is_err());
}

/// A value without end must not overflow the stack.
struct Endless;

impl Serialize for Endless {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_some(self)
    }
}

/// A map by hand: its keys, and whether the last of them has a value.
struct Map(Vec<&'static str>, bool);

impl Serialize for Map {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (index, key) in self.0.iter().enumerate() {
            map.serialize_key(key)?;
            if self.1 || index + 1 < self.0.len() {
                map.serialize_value(&())?;
            }
        }
        map.end()
    }
}

/// Carries on after an element has failed half-way.
struct Careless;

impl Serialize for Careless {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(None)?;
        let _ = seq.serialize_element(&Endless);
        seq.end()
    }
}

/// Calls itself a role and is none.
struct Impostor;

impl Serialize for Impostor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(EMBEDDED_ROLE, serde_bytes::Bytes::new(b"\x40"))
    }
}

#[test]
fn a_value_that_misbehaves_makes_an_error_and_no_role() {
    assert!(Role::new(&Map(vec!["b", "a"], true)).is_ok());
    let refused = [
        Role::new(&Endless),
        Role::new(&Map(vec!["a", "b", "a"], true)),
        Role::new(&Map(vec!["a", "b"], false)),
        Role::new(&Careless),
        Role::new(&Impostor),
    ];
    for result in refused {
        assert!(matches!(result, Err(RoleError::Unencodable { .. })), "{result:?}");
    }
}

#[test]
fn an_empty_snapshot_shares_no_more_than_a_count() {
    let roles = Roles::default();
    assert!(roles.is_empty() && !roles.has("web"));
    assert_eq!(roles, Roles::from_iter([] as [Role; 0]));
}

/// Any term there is, with the names that serde wants to live forever.
#[derive(Debug, Clone)]
enum Dynamic {
    None,
    Some(Box<Dynamic>),
    Unit,
    Bool(bool),
    Signed(i128),
    Unsigned(u128),
    Float(f64),
    Char(char),
    Str(String),
    Bytes(Vec<u8>),
    Tuple(Vec<Dynamic>),
    Map(Vec<(Dynamic, Dynamic)>),
    Named(Family, &'static str, Body),
}

#[derive(Debug, Clone)]
enum Body {
    Unit,
    Newtype(Box<Dynamic>),
    Tuple(Vec<Dynamic>),
    Struct(Vec<(&'static str, Dynamic)>),
}

/// Leaks each name once.
fn interned(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap();
    if let Some(known) = names.get(name) {
        return known;
    }
    let leaked: &'static str = name.to_owned().leak();
    names.insert(leaked);
    leaked
}

impl Dynamic {
    fn read(reader: &mut Reader<'_>) -> Dynamic {
        match reader.token().unwrap() {
            Token::None => Dynamic::None,
            Token::Some => Dynamic::Some(Dynamic::read(reader).into()),
            Token::Unit => Dynamic::Unit,
            Token::Bool(value) => Dynamic::Bool(value),
            Token::Negative(value) => Dynamic::Signed(value),
            Token::Unsigned(value) => Dynamic::Unsigned(value),
            Token::Float(value) => Dynamic::Float(value),
            Token::Char(value) => Dynamic::Char(value),
            Token::Str(text) => Dynamic::Str(text.str().into_owned()),
            Token::Bytes(text) => Dynamic::Bytes(text.bytes().into_owned()),
            Token::Tuple => Dynamic::Tuple(Dynamic::read_all(reader, Dynamic::read)),
            Token::Map => Dynamic::Map(Dynamic::read_all(reader, |reader| {
                (Dynamic::read(reader), Dynamic::read(reader))
            })),
            Token::Named(family, shape, name) => {
                let body = match shape {
                    Shape::Unit => Body::Unit,
                    Shape::Newtype => Body::Newtype(Dynamic::read(reader).into()),
                    Shape::Tuple => Body::Tuple(Dynamic::read_all(reader, Dynamic::read)),
                    Shape::Struct => Body::Struct(Dynamic::read_all(reader, |reader| {
                        let Dynamic::Str(field) = Dynamic::read(reader) else { panic!() };
                        (interned(&field), Dynamic::read(reader))
                    })),
                };
                Dynamic::Named(family, interned(&name.str()), body)
            }
            Token::End => panic!("validated terms have their ends in place"),
        }
    }

    fn read_all<T>(reader: &mut Reader<'_>, mut read: impl FnMut(&mut Reader<'_>) -> T) -> Vec<T> {
        let mut all = Vec::new();
        while !reader.take_end() {
            all.push(read(reader));
        }
        all
    }
}

impl Serialize for Dynamic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Dynamic::None => serializer.serialize_none(),
            Dynamic::Some(value) => serializer.serialize_some(value),
            Dynamic::Unit => serializer.serialize_unit(),
            Dynamic::Bool(value) => serializer.serialize_bool(*value),
            Dynamic::Signed(value) => serializer.serialize_i128(*value),
            Dynamic::Unsigned(value) => serializer.serialize_u128(*value),
            Dynamic::Float(value) => serializer.serialize_f64(*value),
            Dynamic::Char(value) => serializer.serialize_char(*value),
            Dynamic::Str(value) => serializer.serialize_str(value),
            Dynamic::Bytes(value) => serializer.serialize_bytes(value),
            Dynamic::Tuple(terms) => serializer.collect_seq(terms),
            Dynamic::Map(entries) => {
                serializer.collect_map(entries.iter().map(|(key, value)| (key, value)))
            }
            Dynamic::Named(Family::Struct, name, body) => serialize_struct(serializer, name, body),
            Dynamic::Named(Family::Variant, name, body) => {
                serialize_variant(serializer, name, body)
            }
        }
    }
}

fn serialize_struct<S: Serializer>(
    serializer: S,
    name: &'static str,
    body: &Body,
) -> Result<S::Ok, S::Error> {
    match body {
        Body::Unit => serializer.serialize_unit_struct(name),
        Body::Newtype(value) => serializer.serialize_newtype_struct(name, value),
        Body::Tuple(terms) => {
            let mut tuple = serializer.serialize_tuple_struct(name, terms.len())?;
            terms.iter().try_for_each(|term| tuple.serialize_field(term))?;
            tuple.end()
        }
        Body::Struct(fields) => {
            let mut record = serializer.serialize_struct(name, fields.len())?;
            fields.iter().try_for_each(|(field, term)| record.serialize_field(field, term))?;
            record.end()
        }
    }
}

fn serialize_variant<S: Serializer>(
    serializer: S,
    name: &'static str,
    body: &Body,
) -> Result<S::Ok, S::Error> {
    match body {
        Body::Unit => serializer.serialize_unit_variant("", 0, name),
        Body::Newtype(value) => serializer.serialize_newtype_variant("", 0, name, value),
        Body::Tuple(terms) => {
            let mut tuple = serializer.serialize_tuple_variant("", 0, name, terms.len())?;
            terms.iter().try_for_each(|term| tuple.serialize_field(term))?;
            tuple.end()
        }
        Body::Struct(fields) => {
            let mut record = serializer.serialize_struct_variant("", 0, name, fields.len())?;
            fields.iter().try_for_each(|(field, term)| record.serialize_field(field, term))?;
            record.end()
        }
    }
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "Job", "shard", "a\0b", "\0", "no name", "é"])
}

fn dynamic() -> impl Strategy<Value = Dynamic> {
    let leaf = prop_oneof![
        Just(Dynamic::None),
        Just(Dynamic::Unit),
        any::<bool>().prop_map(Dynamic::Bool),
        any::<i128>().prop_map(Dynamic::Signed),
        any::<i8>().prop_map(|value| Dynamic::Signed(value.into())),
        any::<u128>().prop_map(Dynamic::Unsigned),
        any::<u64>().prop_map(|bits| Dynamic::Float(f64::from_bits(bits))),
        any::<char>().prop_map(Dynamic::Char),
        any::<String>().prop_map(Dynamic::Str),
        "[\0ab]{0,4}".prop_map(Dynamic::Str),
        prop::collection::vec(any::<u8>(), 0..6).prop_map(Dynamic::Bytes),
    ];
    leaf.prop_recursive(5, 24, 4, |inner| {
        let terms = || prop::collection::vec(inner.clone(), 0..4);
        let body = prop_oneof![
            Just(Body::Unit),
            inner.clone().prop_map(|value| Body::Newtype(value.into())),
            terms().prop_map(Body::Tuple),
            prop::collection::vec((name(), inner.clone()), 0..4).prop_map(Body::Struct),
        ];
        let family = prop::sample::select(vec![Family::Struct, Family::Variant]);
        prop_oneof![
            inner.clone().prop_map(|value| Dynamic::Some(value.into())),
            terms().prop_map(Dynamic::Tuple),
            prop::collection::vec((inner.clone(), inner.clone()), 0..4).prop_map(Dynamic::Map),
            (family, name(), body)
                .prop_map(|(family, name, body)| { Dynamic::Named(family, name, body) }),
        ]
    })
}

/// A few edits of an encoding: bytes replaced, put in and taken out.
fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    let byte = prop_oneof![
        any::<u8>(),
        prop::sample::select(
            b"\x00\x01\x02\x03\x1f\x20\x21\x38\x40\x50\x51\x61\x63\x73\xff".to_vec()
        ),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), 0_u8..3, byte), 1..4)
}

/// What is accepted is canonical: the value behind it has no other encoding.
fn assert_canonical(bytes: &[u8]) {
    let Ok(role) = Role::from_wire(bytes) else { return };
    let value = Dynamic::read(&mut Reader::new(bytes));
    let again = Role::new(&value).unwrap();
    assert_eq!(again.as_bytes(), bytes, "{role}");
    assert_eq!(again.hash64(), role.hash64());
    assert_eq!(Reader::new(bytes).term().unwrap(), bytes);
    let _ = role.get::<serde_json::Value>();
    let _ = serde_json::to_string(&role);
}

proptest! {
    #[test]
    fn what_is_encoded_is_accepted(value in dynamic()) {
        // Only a repeated key stands in the way.
        match Role::new(&value) {
            Ok(role) => {
                prop_assert_eq!(Role::from_wire(role.as_bytes()), Ok(role.clone()));
                assert_canonical(role.as_bytes());
                prop_assert!(!role.to_string().contains(|each: char| each.is_control()));
            }
            Err(error) => prop_assert!(error.to_string().contains("twice"), "{error}"),
        }
    }

    #[test]
    fn what_is_accepted_is_canonical(value in dynamic(), edits in edits()) {
        let Ok(role) = Role::new(&value) else { return Ok(()) };
        let mut bytes = role.as_bytes().to_vec();
        for (index, kind, byte) in edits {
            if bytes.is_empty() { break }
            let index = index.index(bytes.len());
            match kind {
                0 => bytes[index] = byte,
                1 => bytes.insert(index, byte),
                _ => drop(bytes.remove(index)),
            }
        }
        assert_canonical(&bytes);
    }

    #[test]
    fn any_bytes_are_canonical_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        assert_canonical(&bytes);
    }
}
