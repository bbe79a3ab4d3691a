//! The laws of roles, over generated values of many types.

#![expect(clippy::option_option, reason = "a role keeps them apart, and that is tested")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use rolecall::{AsRole, Role, RoleError, Roles, role};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Leader;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Id(u64);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Point(i16, f32);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Job {
    shard: u32,
    name: String,
    id: Id,
    tags: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
enum Kind {
    Idle,
    Marked(Leader),
    Shard(Option<Option<u8>>),
    Range(i64, u64),
    Web { port: u16, limits: BTreeMap<i8, bool> },
    Nested(Box<Kind>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(i64),
    Job(Job),
    Kind(Kind),
    Id(Id),
    Pair(bool, Option<char>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct WithRole {
    role: Role,
}

fn job() -> impl Strategy<Value = Job> {
    (any::<u32>(), any::<String>(), any::<u64>(), prop::collection::vec(any::<String>(), 0..3))
        .prop_map(|(shard, name, id, tags)| Job { shard, name, id: Id(id), tags })
}

fn kind() -> impl Strategy<Value = Kind> {
    let leaf = prop_oneof![
        Just(Kind::Idle),
        Just(Kind::Marked(Leader)),
        any::<Option<Option<u8>>>().prop_map(Kind::Shard),
        any::<(i64, u64)>().prop_map(|(from, to)| Kind::Range(from, to)),
        (any::<u16>(), prop::collection::btree_map(any::<i8>(), any::<bool>(), 0..4))
            .prop_map(|(port, limits)| Kind::Web { port, limits }),
    ];
    leaf.prop_recursive(4, 8, 1, |inner| inner.prop_map(|kind| Kind::Nested(kind.into())))
}

fn untagged() -> impl Strategy<Value = Untagged> {
    prop_oneof![
        any::<i64>().prop_map(Untagged::Number),
        job().prop_map(Untagged::Job),
        kind().prop_map(Untagged::Kind),
        any::<(bool, Option<char>)>().prop_map(|(yes, char)| Untagged::Pair(yes, char)),
    ]
}

/// The role gives the value back, survives its bytes and its own serde, and can be printed.
fn assert_round_trip<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let role = Role::new(value).unwrap();
    assert_eq!(&role.get::<T>().unwrap(), value);
    assert_eq!(Role::from_bytes(role.as_bytes()).unwrap(), role);
    assert_eq!(Role::new(&role).unwrap(), role);
    assert_eq!(role.get::<Role>().unwrap(), role);
    let with_role = WithRole { role: role.clone() };
    assert_eq!(Role::new(&with_role).unwrap().get::<WithRole>().unwrap(), with_role);
    assert!(!role.to_string().is_empty());
}

/// A plain value and its role are found by each other.
fn assert_plain<T: Serialize + AsRole + Into<Role> + Clone>(value: &T) {
    let role = Role::new(value).unwrap();
    assert_eq!(role, Role::from(value));
    assert_eq!(role, value.clone().into());
    assert!(role == *value);
    assert!(Roles::from_iter([role]).has(value));
}

/// What can be read as a `T` is the role of that `T`.
fn assert_strict<T: Serialize + DeserializeOwned>(role: &Role) {
    // 0x41 is the tag of bytes, which may be read as a sequence.
    if role.as_bytes().contains(&0x41) {
        return;
    }
    if let Ok(value) = role.get::<T>() {
        assert_eq!(&Role::new(&value).unwrap(), role);
    }
}

fn assert_all_strict(role: &Role) {
    assert_strict::<()>(role);
    assert_strict::<bool>(role);
    assert_strict::<u8>(role);
    assert_strict::<i64>(role);
    assert_strict::<u128>(role);
    assert_strict::<f32>(role);
    assert_strict::<f64>(role);
    assert_strict::<char>(role);
    assert_strict::<String>(role);
    assert_strict::<ByteBuf>(role);
    assert_strict::<Vec<String>>(role);
    assert_strict::<(String, i8)>(role);
    assert_strict::<Option<Option<u8>>>(role);
    assert_strict::<BTreeMap<String, i64>>(role);
    assert_strict::<Leader>(role);
    assert_strict::<Id>(role);
    assert_strict::<Point>(role);
    assert_strict::<Job>(role);
    assert_strict::<Kind>(role);
    assert_strict::<Role>(role);
}

/// A role of one of the types above.
fn any_role() -> impl Strategy<Value = Role> {
    fn new<T: Serialize>(value: T) -> Role {
        Role::new(&value).unwrap()
    }
    prop_oneof![
        any::<i128>().prop_map(Role::from),
        any::<f64>().prop_map(Role::from),
        any::<char>().prop_map(Role::from),
        any::<String>().prop_map(Role::from),
        any::<Vec<u8>>().prop_map(Role::from),
        any::<(String, i8)>().prop_map(Role::from),
        any::<Option<Option<u8>>>().prop_map(Role::from),
        prop::collection::btree_map(any::<String>(), any::<i64>(), 0..4).prop_map(new),
        any::<(i16, f32)>().prop_map(|(x, y)| new(Point(x, y))),
        job().prop_map(new),
        kind().prop_map(new),
    ]
}

macro_rules! round_trips {
    ($($name:ident: $strategy:expr;)+) => { proptest! { $(
        #[test]
        fn $name(value in $strategy) {
            assert_round_trip(&value);
        }
    )+ } };
}

round_trips! {
    round_trip_i128: any::<i128>();
    round_trip_u128: any::<u128>();
    round_trip_f32: any::<f32>();
    round_trip_f64: any::<f64>();
    round_trip_char: any::<char>();
    round_trip_string: any::<String>();
    round_trip_bytes: any::<Vec<u8>>().prop_map(ByteBuf::from);
    round_trip_seq: prop::collection::vec(any::<String>(), 0..5);
    round_trip_tuple: any::<(String, u64, (), (bool,))>();
    round_trip_array: any::<[i8; 5]>();
    round_trip_option: any::<Option<Option<u8>>>();
    round_trip_map:
        prop::collection::btree_map(any::<(i32, char)>(), any::<Option<String>>(), 0..5);
    round_trip_unit_struct: Just(Leader);
    round_trip_newtype: any::<u64>().prop_map(Id);
    round_trip_tuple_struct: any::<(i16, f32)>().prop_map(|(x, y)| Point(x, y));
    round_trip_struct: job();
    round_trip_enum: kind();
    round_trip_untagged: untagged();
}

proptest! {
    #[test]
    fn an_integer_is_one_role_whatever_its_type(value in any::<i8>()) {
        let role = Role::from(value);
        assert_plain(&value);
        for other in [
            Role::from(i16::from(value)), Role::from(i32::from(value)),
            Role::from(i64::from(value)), Role::from(i128::from(value)),
            Role::from(value as isize), Role::new(&i64::from(value)).unwrap(),
        ] {
            prop_assert_eq!(&other, &role);
            prop_assert_eq!(other.as_bytes(), role.as_bytes());
        }
        if let Ok(unsigned) = u8::try_from(value) {
            for other in [
                Role::from(unsigned), Role::from(u16::from(unsigned)),
                Role::from(u32::from(unsigned)), Role::from(u64::from(unsigned)),
                Role::from(u128::from(unsigned)), Role::from(unsigned as usize),
            ] {
                prop_assert_eq!(&other, &role);
            }
        }
        prop_assert_eq!(role!("shard", value), role!("shard", i64::from(value)));
        prop_assert_eq!(role.get::<i128>(), Ok(i128::from(value)));
        prop_assert_eq!(role.get::<u64>().ok(), u64::try_from(value).ok());
    }

    #[test]
    fn integers_are_ordered_by_number(both in any::<(i128, i128)>(), shift in 0_u32..127) {
        let (one, other) = (both.0 >> shift, both.1 >> shift);
        prop_assert_eq!(Role::from(one).cmp(&Role::from(other)), one.cmp(&other));
        prop_assert_eq!(role!(one, 0) == role!(other, 0), one == other);
    }

    #[test]
    fn floats_are_ordered_by_value(one in any::<f64>(), other in any::<f64>()) {
        prop_assert_eq!(Some(Role::from(one).cmp(&Role::from(other))), one.partial_cmp(&other));
    }

    #[test]
    fn strings_are_ordered_by_code_point(one in "[\0-c]{0,4}", other in "[\0-c]{0,4}") {
        prop_assert_eq!(Role::from(&one).cmp(&Role::from(&other)), one.cmp(&other));
        prop_assert_eq!(
            role!(&one, &other).cmp(&role!(&other, &one)),
            (&one, &other).cmp(&(&other, &one))
        );
    }

    #[test]
    fn order_and_equality_are_those_of_the_bytes(one in any_role(), other in any_role()) {
        prop_assert_eq!(one.cmp(&other), one.as_bytes().cmp(other.as_bytes()));
        prop_assert_eq!(one == other, one.as_bytes() == other.as_bytes());
    }

    #[test]
    fn plain_values_are_their_roles(
        value in any::<(String, u64, Option<f64>, char, (bool, i8))>(),
    ) {
        assert_plain(&value);
        assert_plain(&value.0);
        assert_plain(&value.0.as_str());
        assert_plain(&value.2);
        prop_assert_eq!(role!(&value.0, value.1), role!(role!(&value.0), value.1));
    }

    #[test]
    fn what_can_be_read_is_the_role_of_what_was_read(role in any_role()) {
        assert_all_strict(&role);
    }

    #[test]
    fn foreign_bytes_never_panic(
        role in any_role(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut bytes = role.as_bytes().to_vec();
        for (index, byte) in edits {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Ok(foreign) = Role::from_bytes(&bytes) {
            prop_assert_eq!(foreign.as_bytes(), &bytes[..]);
            prop_assert!(!foreign.to_string().is_empty());
            assert_all_strict(&foreign);
        }
    }

    #[test]
    fn a_snapshot_is_sorted_and_holds_each_role_once(
        names in prop::collection::vec("[a-d]{1,2}", 0..20),
    ) {
        let roles: Roles = names.iter().collect();
        let mut expected = names.clone();
        expected.sort();
        expected.dedup();
        prop_assert_eq!(&roles, &expected);
        prop_assert!(names.iter().all(|name| roles.has(name)) && !roles.has("e"));
        prop_assert!(roles.clone().into_iter().eq(roles.iter().cloned()));
        prop_assert!(roles.clone().into_iter().rev().eq(roles.iter().rev().cloned()));
    }
}

#[test]
fn values_that_differ_are_different_roles() {
    #[derive(Serialize)]
    enum Variants {
        Leader,
        Id(u64),
    }
    let roles = [
        Role::from(1),
        Role::from(1.0),
        Role::from("1"),
        Role::from('1'),
        Role::from(b"1"),
        Role::from((1,)),
        Role::from(Some(1)),
        Role::from(Some(Some(1))),
        Role::from(true),
        Role::from(None::<u8>),
        Role::from(()),
        Role::new::<[u8; 0]>(&[]).unwrap(),
        Role::new(&BTreeMap::<u8, u8>::new()).unwrap(),
        Role::new(&Leader).unwrap(),
        Role::new(&Variants::Leader).unwrap(),
        Role::from("Leader"),
        Role::new(&Id(1)).unwrap(),
        Role::new(&Variants::Id(1)).unwrap(),
    ];
    assert_eq!(Roles::from_iter(roles.clone()).len(), roles.len());
}

#[test]
fn fields_have_no_order() {
    #[derive(Serialize)]
    #[serde(rename = "Job")]
    struct Older {
        tags: Vec<String>,
        id: Id,
        name: &'static str,
        shard: u8,
    }
    let older = Older { tags: Vec::new(), id: Id(1), name: "a", shard: 2 };
    let newer = Job { tags: Vec::new(), id: Id(1), name: "a".to_owned(), shard: 2 };
    assert_eq!(Role::new(&older), Role::new(&newer));
}

#[test]
fn floats_that_compare_equal_are_one_role_and_so_are_all_nans() {
    assert_eq!(Role::from(0.0), Role::from(-0.0));
    assert_eq!(Role::from(1.5_f32), Role::from(1.5_f64));
    assert_eq!(Role::from(f64::NAN), Role::from(-f32::NAN));
    assert!(Role::from(f64::NAN).get::<f32>().unwrap().is_nan());
    assert!(Role::from(0.1).get::<f32>().is_err());
}

#[test]
fn bytes_can_be_read_as_bytes_and_as_a_vec() {
    let role = Role::from(b"a\0b".as_slice());
    assert_eq!(role, Role::from(bytes::Bytes::from_static(b"a\0b")));
    assert_eq!(role.get::<Vec<u8>>().unwrap(), b"a\0b");
    assert_eq!(role.get::<[u8; 3]>().unwrap(), *b"a\0b");
    assert_eq!(role.get::<ByteBuf>().unwrap(), b"a\0b");
    assert!(role.get::<(u8, u8)>().is_err());
    assert_eq!(Role::from(b"ab").get::<&[u8]>().unwrap(), b"ab");
}

#[test]
fn the_wrong_type_is_named() {
    let RoleError::WrongType { reason } = role!("web").get::<u64>().unwrap_err() else { panic!() };
    assert_eq!(reason, r#""web" is no u64: found a string, expected u64"#);
    assert!(role!(300).get::<u8>().is_err());
    assert!(role!(1, 2, 3).get::<(u8, u8)>().is_err());
    assert!(role!(1).get::<(u8, u8)>().is_err());
    assert!(Role::new(&Id(1)).unwrap().get::<u64>().is_err());
    assert!(Role::new(&Kind::Idle).unwrap().get::<Leader>().is_err());
    assert!(Role::new(&Kind::Range(1, 1)).unwrap().get::<Kind>().is_ok());
    assert!(role!("Idle").get::<Kind>().is_err());
}

#[test]
fn in_json_a_role_is_its_value() {
    let roles = [
        (role!("shard", 1, Some(true), 1.5), r#"["shard",1,true,1.5]"#),
        (Role::new(&Id(7)).unwrap(), "7"),
        (Role::new(&Point(1, 2.0)).unwrap(), "[1,2.0]"),
        (Role::new(&Kind::Idle).unwrap(), r#""Idle""#),
        (Role::new(&Kind::Range(-1, 2)).unwrap(), r#"{"Range":[-1,2]}"#),
        (
            Role::new(&Kind::Web { port: 80, limits: BTreeMap::from([(1, true)]) }).unwrap(),
            r#"{"Web":{"limits":{"1":true},"port":80}}"#,
        ),
    ];
    for (role, json) in roles {
        assert_eq!(serde_json::to_string(&role).unwrap(), json);
        let _: Role = serde_json::from_str(json).unwrap();
    }
    let read: Role = serde_json::from_str(r#"["shard", 1, {"b": null, "a": -1.5}]"#).unwrap();
    assert_eq!(read.to_string(), r#"("shard", 1, {"a": -1.5, "b": ()})"#);
    assert!(serde_json::from_str::<Role>(r#"{"a": 1, "a": 2}"#).is_err());
    assert!(serde_json::from_str::<Role>(&("[".repeat(100) + &"]".repeat(100))).is_err());
}

#[test]
fn a_type_that_takes_anything_sees_what_json_would_show() {
    let job = Job { shard: 1, name: "a".to_owned(), id: Id(2), tags: vec!["t".to_owned()] };
    let value: serde_json::Value = Role::new(&job).unwrap().get().unwrap();
    assert_eq!(value, serde_json::to_value(&job).unwrap());
    let kind = Kind::Nested(Kind::Range(1, 2).into());
    let value: serde_json::Value = Role::new(&kind).unwrap().get().unwrap();
    assert_eq!(value, serde_json::to_value(&kind).unwrap());
}

#[test]
fn readable_types_are_readable_roles() {
    let address: std::net::IpAddr = "10.0.0.5".parse().unwrap();
    assert_eq!(Role::new(&address).unwrap().to_string(), r#""10.0.0.5""#);
    assert_round_trip(&address);
    assert_round_trip(&std::time::Duration::from_millis(1_500));
    assert_round_trip(&Ok::<u8, String>(1));
}

#[test]
#[expect(clippy::needless_borrows_for_generic_args, reason = "references must compile as well")]
fn lookups_take_every_plain_form() {
    fn is_found(role: impl AsRole) -> bool {
        let roles = Roles::from_iter([role!("web"), role!("shard", 1), role!(7), role!('c')]);
        roles.has(role)
    }
    let role = role!("web");
    assert!(is_found("web") && is_found(&"web") && is_found(String::from("web")));
    assert!(is_found(&role) && is_found(role));
    assert!(is_found(("shard", 1)) && is_found(&("shard", 1_u64)) && is_found(("shard", &1_i8)));
    assert!(is_found(7_u64) && is_found(7) && is_found('c') && !is_found(true));
    assert!(!is_found("x".repeat(1_000)) && !is_found(b"web") && !is_found(7.0));
}

#[test]
fn snapshots_can_be_sent_and_shared() {
    fn check<T: Send + Sync + 'static>(_: &T) {}
    let roles = Roles::from_iter(["b", "a"]);
    check(&roles);
    check(&roles.clone().into_iter());
    assert_eq!(format!("{roles:?}"), r#"["a", "b"]"#);
    assert_eq!(roles, ["a", "b"]);
    assert_ne!(roles, ["b", "a"]);
}
