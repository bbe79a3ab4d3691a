//! Foreign bytes as a role: they are refused, or they are the one encoding of their value. And a
//! value is the same role whichever integer type it comes in.

#![no_main]

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rolecall::{AsRole, Role, Roles, role};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Job {
    shard: u32,
    tags: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
enum Kind {
    Idle,
    Shard(i128),
    Range(f64, char),
    Web { port: u16, limits: BTreeMap<i8, bool> },
    Nested(Option<Box<Kind>>),
}

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    text: &'a str,
    number: i128,
    float: f64,
    /// Last, so that the fuzzer's own mutations of the tail reach the decoder as they are.
    foreign: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    check_foreign(input.foreign);
    check_integer(input.number);
    check_plain((input.text, input.number, input.float, input.foreign));
    check_plain(input.text);
});

fn check_foreign(bytes: &[u8]) {
    let Ok(role) = Role::from_bytes(bytes) else { return };
    assert_eq!(role.as_bytes(), bytes);
    assert_eq!(Role::new(&role).as_ref(), Ok(&role));
    assert_eq!(role.get::<Role>().as_ref(), Ok(&role));
    assert!(!role.to_string().chars().any(char::is_control));
    check_typed::<()>(&role);
    check_typed::<bool>(&role);
    check_typed::<u8>(&role);
    check_typed::<i128>(&role);
    check_typed::<u128>(&role);
    check_typed::<f32>(&role);
    check_typed::<f64>(&role);
    check_typed::<char>(&role);
    check_typed::<String>(&role);
    check_typed::<(String, i64)>(&role);
    check_typed::<Vec<String>>(&role);
    check_typed::<BTreeMap<String, Option<u64>>>(&role);
    check_typed::<Job>(&role);
    check_typed::<Kind>(&role);
}

/// Reading is strict, so that what can be read as a `T` is the role of that `T`.
fn check_typed<T: Serialize + DeserializeOwned>(role: &Role) {
    // 0x41 is the tag of bytes, which may be read as a sequence.
    if role.as_bytes().contains(&0x41) {
        return;
    }
    if let Ok(value) = role.get::<T>() {
        assert_eq!(Role::new(&value).as_ref(), Ok(role));
    }
}

fn check_integer(number: i128) {
    let role = Role::from(number);
    assert_eq!(role.get(), Ok(number));
    macro_rules! check_as {
        ($($integer:ty)+) => { $(
            let narrow = <$integer>::try_from(number).ok();
            assert_eq!(role.get::<$integer>().ok(), narrow);
            if let Some(narrow) = narrow {
                assert_eq!(Role::from(narrow).as_bytes(), role.as_bytes());
                assert_eq!(Role::new(&narrow).as_ref(), Ok(&role));
                assert_eq!(role!("shard", narrow), role!("shard", number));
            }
        )+ };
    }
    check_as!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 isize);
}

/// A plain value and its role are found by each other.
fn check_plain(value: impl AsRole) {
    let role = Role::from(&value);
    assert!(role == value);
    assert!(Roles::from_iter([&role]).has(&value));
    match Role::from_bytes(role.as_bytes()) {
        Ok(same) => assert_eq!(same, role),
        Err(error) => assert!(role.as_bytes().len() > rolecall::MAX_ROLE_BYTES, "{error}"),
    }
}
