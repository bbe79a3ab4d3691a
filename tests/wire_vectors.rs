//! The wire held still: the bytes of every kind of frame, of the header, and of a datagram. A
//! change here is a change of the protocol. `UPDATE_VECTORS=1 cargo test --test wire_vectors`
//! writes the file anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rolecall::wire::cell::{Cell, Cells};
use rolecall::wire::frame::{
    Ack, Alive, Ask, Behind, Boot, Buckets, Compare, Contested, Delegate, Failed, Fetch, FetchPart,
    Fixed, Has, Incarnation, Introduce, Join, JoinReply, Large, Left, Membership, MoreSymbols,
    Nack, Object, Page, Part, Ping, PingReq, Probe, Profile, Pull, Push, Reached, Replaced, RoleOp,
    Roles, Same, Saw, Stamp, Summary, Suspect, Symbols, Table, Verdict, WrongRun,
};
use rolecall::wire::limits::{
    MAX_BUCKETS, MAX_FETCHES_PER_FRAME, MAX_FRAMES_PER_DATAGRAM, MAX_KNOWN_PER_PULL,
    MAX_ROLES_PER_NODE, MAX_SCOPES_PER_NODE, MAX_TABLES_PER_FRAME,
};
use rolecall::wire::{
    ClusterId, DecodeError, FLAG_SEALED, Frame, HEADER_BYTES, Header, ReceivedHeader, ScopeId,
    begin, decode_frames, decode_header, finish,
};
use rolecall::{Generation, MAX_META_BYTES, MAX_ROLE_BYTES, NodeId, NodeName, Role, Sight, role};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/wire.txt");

fn id(n: u64) -> NodeId {
    NodeId::from_u64(n).unwrap()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn profile() -> Profile {
    let mut scopes: Vec<_> = [("default", 3), ("jobs", 0)]
        .map(|(name, generation)| Membership {
            scope: ScopeId::of(name),
            generation: Generation::from_u64(generation),
        })
        .into();
    scopes.sort_by_key(|membership| membership.scope);
    Profile {
        id: id(0x0102_0304_0506_0708),
        boot: Boot(1_700_000_000_000_000),
        version: 2,
        incarnation: Incarnation(1),
        name: NodeName::new("node-1").unwrap(),
        addr: addr("10.0.0.5:7946"),
        meta: Bytes::from_static(b"http=8080"),
        scopes: scopes.into(),
    }
}

fn roles() -> Roles {
    let mut ops = vec![
        RoleOp { code: 2, role: Role::from("web") },
        RoleOp { code: 5, role: role!("shard", 1) },
    ];
    ops.sort_by(|a, b| a.role.cmp(&b.role));
    Roles {
        id: id(7),
        scope: ScopeId::of("default"),
        from: Generation::from_u64(3),
        to: Generation::from_u64(300),
        whole: false,
        ops,
    }
}

fn whole() -> Roles {
    let ops = vec![RoleOp { code: 0, role: Role::from("web") }];
    Roles { from: Generation::ZERO, whole: true, ops, ..roles() }
}

fn failed(saw: &[(u64, Sight)]) -> Frame {
    let witnesses = saw.iter().map(|(n, saw)| (id(*n), *saw)).collect();
    Failed { id: id(7), incarnation: Incarnation(2), by: id(8), witnesses }.into()
}

/// One frame of every kind, and more where a kind has several forms.
fn frames() -> Vec<(&'static str, Frame)> {
    let scope = ScopeId::of("default");
    let (of_profile, of_roles) = (Object::Profile(id(7)), Object::Roles(id(7), scope));
    let reply = |verdict| Frame::from(JoinReply { seq: 6, verdict });
    let summary = Summary { count: 300, hash: 0x1122_3344_5566_7788 };
    let token = 9;
    vec![
        ("Ping", Ping { seq: 1 }.into()),
        ("Probe", Probe { seq: 1, digest: 0x1234 }.into()),
        ("Ack", Ack { seq: 300 }.into()),
        ("Nack", Nack { seq: u16::MAX }.into()),
        ("Saw silence", Saw { seq: 3, saw: Sight::Silence }.into()),
        ("Saw that nobody listens", Saw { seq: 3, saw: Sight::Unreachable }.into()),
        ("PingReq", PingReq { seq: 1, target: id(7), waited: 300 }.into()),
        ("WrongRun", WrongRun.into()),
        ("Introduce", Introduce.into()),
        ("Join", join().into()),
        ("JoinReply prove", reply(Verdict::Prove { cookie: 0xfeed })),
        ("JoinReply welcome", reply(Verdict::Welcome)),
        ("JoinReply raise", reply(Verdict::RaiseBoot { above: Boot(5) })),
        ("JoinReply wait", reply(Verdict::Wait)),
        ("JoinReply taken", reply(Verdict::NameTaken { holder: addr("10.0.0.1:1") })),
        ("Profile", profile().into()),
        ("Alive", Alive { id: id(7), incarnation: Incarnation(2) }.into()),
        ("Suspect", Suspect { id: id(7), incarnation: Incarnation(2), by: id(8) }.into()),
        ("Failed", failed(&[(8, Sight::Silence), (9, Sight::Unreachable)])),
        ("Failed, no witness", failed(&[])),
        ("Left", Left { id: id(7), incarnation: Incarnation(2) }.into()),
        ("Replaced", replaced().into()),
        ("Roles delta", roles().into()),
        ("Roles whole", whole().into()),
        ("Large", Large { object: of_roles, version: 300 }.into()),
        ("Delegate", delegate().into()),
        ("Reached", reached(1).into()),
        ("Fetch", Fetch { wants: vec![(of_profile, 0), (of_roles, 300)] }.into()),
        ("FetchPart", FetchPart { object: of_roles, version: 300, offset: 1300 }.into()),
        ("Part", part(of_profile).into()),
        ("Compare", compare(summary, scope).into()),
        ("Same", Same { token }.into()),
        ("Buckets", buckets(2).into()),
        ("Pull", pull(1).into()),
        ("Page", page(scope).into()),
        ("Symbols", symbols(2).into()),
        ("MoreSymbols", MoreSymbols { first: 12 }.into()),
        ("Push", Push.into()),
        ("Ask", Ask { scope }.into()),
        ("Has", Has { scope, generation: Generation::from_u64(300) }.into()),
        ("Contested", Contested { table: Table::Scope(scope), stamp: STAMP }.into()),
        ("Behind", Behind { number: 300 }.into()),
    ]
}

const STAMP: Stamp = Stamp { number: 1 << 32, print: 0xbeef };

fn replaced() -> Replaced {
    Replaced { id: id(7), incarnation: Incarnation(2), by: id(8) }
}

fn delegate() -> Delegate {
    let cargo = encoded(&Alive { id: id(7), incarnation: Incarnation(2) }.into());
    Delegate { seq: 6, low: id(1), high: id(u64::MAX), patience: 32, cargo: cargo.into() }
}

fn reached(unheard: usize) -> Reached {
    Reached { seq: 6, count: 300, ids: 0xfeed, unheard: vec![(id(1), id(7)); unheard] }
}

fn symbols(count: usize) -> Symbols {
    let cell = Cell { id: 7, scope: 0xa1, stamp: 1 << 32, print: 0xbeef, check: 0xfeed, count: -1 };
    let cells = Cells(vec![cell; count]);
    Symbols { own_version: 1, your_version: 2, first: 12, cells }
}

fn join() -> Join {
    Join {
        seq: 6,
        cookie: 0xfeed,
        name: NodeName::new("node-1").unwrap(),
        boot: Boot(5),
        addr: addr("[2001:db8::1]:7946"),
        padding: [0; 16],
    }
}

fn part(object: Object) -> Part {
    Part { object, version: 2, total: 5000, offset: 1300, bytes: Bytes::from_static(b"bytes") }
}

fn compare(summary: Summary, scope: ScopeId) -> Compare {
    let tables = vec![(Table::Members, summary), (Table::Scope(scope), summary)];
    Compare { token: 9, mutual: true, tables }
}

fn buckets(count: usize) -> Buckets {
    let hashes = vec![Fixed(0xabcd); count];
    Buckets { token: 9, of: 1, table: Table::Members, hashes }
}

fn pull(known: u64) -> Pull {
    let known = (0..known).map(|n| (id(n + 7), STAMP)).collect();
    Pull { token: 9, table: Table::Members, low: id(1), high: id(u64::MAX), known }
}

fn page(scope: ScopeId) -> Page {
    let (low, through) = (id(1), id(1 << 40));
    Page { token: 9, table: Table::Scope(scope), low, through, done: false }
}

fn header() -> Header {
    Header { cluster: ClusterId::of("default"), from: id(0xaa), to: Some(id(0xbb)) }
}

fn to_all() -> Header {
    Header { to: None, ..header() }
}

fn datagram(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    begin(header(), &mut bytes);
    frames.iter().for_each(|frame| frame.encode(&mut bytes));
    finish(&mut bytes, header().cluster);
    bytes
}

/// Reads a header as a node of the cluster does.
fn received(datagram: &[u8]) -> Result<ReceivedHeader, DecodeError> {
    decode_header(datagram, header().cluster)
}

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

/// Decodes frames behind a header.
fn decode(frames: &[u8]) -> Result<Vec<Frame>, DecodeError> {
    let mut bytes = datagram(&[]);
    bytes.extend_from_slice(frames);
    let mut decoded = Vec::new();
    decode_frames(&bytes, &mut decoded).map(|()| decoded)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits");
    (0..text.len()).step_by(2).map(digits).collect()
}

/// Everything that is held still, by name.
fn all() -> Vec<(&'static str, Vec<u8>)> {
    let mut bytes = Vec::new();
    begin(to_all(), &mut bytes);
    finish(&mut bytes, header().cluster);
    let mut all = vec![("header", datagram(&[])), ("header to whoever is there", bytes)];
    all.extend(frames().iter().map(|(name, frame)| (*name, encoded(frame))));
    let gossip = [Ping { seq: 1 }.into(), profile().into(), roles().into()];
    all.push(("datagram", datagram(&gossip)));
    all
}

#[test]
fn every_kind_has_its_frozen_bytes() {
    let kinds: BTreeSet<_> = frames().iter().map(|(_, frame)| frame.kind()).collect();
    assert_eq!(kinds.len(), Frame::NAMES.len(), "a vector for every kind");
    let made: String = all().iter().fold(String::new(), |mut text, (name, bytes)| {
        writeln!(text, "{name}: {}", hex(bytes)).expect("a String takes everything");
        text
    });
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        std::fs::write(PATH, &made).expect("the file can be written");
    }
    let frozen = std::fs::read_to_string(PATH).expect("tests/vectors/wire.txt is there");
    for (frozen, made) in frozen.lines().zip(made.lines()) {
        assert_eq!(frozen, made, "the wire has changed");
    }
    assert_eq!(frozen.lines().count(), made.lines().count());
}

#[test]
fn frozen_bytes_are_decoded_to_their_values() {
    let frozen = std::fs::read_to_string(PATH).expect("tests/vectors/wire.txt is there");
    let frozen = |name: &str| {
        let line = frozen.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        unhex(line.unwrap_or_else(|| panic!("{name} has a vector")))
    };
    assert_eq!(received(&frozen("header")), Ok(header().into()));
    assert_eq!(received(&frozen("header to whoever is there")), Ok(to_all().into()));
    for (name, frame) in frames() {
        assert_eq!(decode(&frozen(name)), Ok(vec![frame]), "{name}");
    }
    let mut decoded = Vec::new();
    decode_frames(&frozen("datagram"), &mut decoded).unwrap();
    assert_eq!(decoded, [Ping { seq: 1 }.into(), profile().into(), roles().into()]);
}

#[test]
fn every_truncation_is_refused_or_leaves_whole_frames() {
    for (name, bytes) in all() {
        for len in 0..bytes.len() {
            if name.starts_with("header") {
                assert_eq!(received(&bytes[..len]), Err(DecodeError::Length { len }));
            } else if name != "datagram" {
                let short = decode(&bytes[..len]);
                assert!(len == 0 || short.is_err(), "{name} cut at {len}: {short:?}");
            } else if len >= HEADER_BYTES {
                assert_eq!(received(&bytes[..len]), Err(DecodeError::Checksum));
                let mut decoded = Vec::new();
                let whole = decode_frames(&bytes[..len], &mut decoded).is_ok();
                let same = datagram(&decoded)[HEADER_BYTES..] == bytes[HEADER_BYTES..len];
                assert_eq!(whole, same, "cut at {len}");
            }
        }
    }
}

#[test]
fn unknown_kinds_are_skipped() {
    let mut bytes = encoded(&Ping { seq: 1 }.into());
    bytes.extend([200, 3, 1, 2, 3, 11, 0]);
    bytes.extend(encoded(&Ack { seq: 2 }.into()));
    assert_eq!(decode(&bytes), Ok(vec![Ping { seq: 1 }.into(), Ack { seq: 2 }.into()]));
    assert_eq!(decode(&[200, 3, 1]), Err(DecodeError::Frame { kind: 200 }));
}

#[test]
fn headers_that_are_not_ours_are_refused() {
    let broken = |at: usize, byte: u8| {
        let mut bytes = datagram(&[]);
        bytes[at] = byte;
        finish(&mut bytes, header().cluster);
        received(&bytes)
    };
    assert_eq!(broken(0, b'x'), Err(DecodeError::Magic));
    assert_eq!(broken(2, 0x90), Err(DecodeError::Version { version: 9 }));
    assert_eq!(broken(2, 0x10 | FLAG_SEALED), Err(DecodeError::Sealed));
    assert_eq!(broken(2, 0x12), Err(DecodeError::Flags { flags: 2 }));
    assert_eq!(broken(3, 0), Err(DecodeError::OtherCluster));
    assert_eq!(broken(7, 0), Err(DecodeError::NoSender));
    let len = 65_508;
    assert_eq!(received(&vec![0; len]), Err(DecodeError::Length { len }));
    let others = decode_header(&datagram(&[]), ClusterId::of("another"));
    assert_eq!(others, Err(DecodeError::OtherCluster));
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let mut changed = datagram(&[Ping { seq: 1 }.into()]);
    for bit in 0..changed.len() * 8 {
        let (at, mask) = (bit / 8, 1 << (bit % 8));
        changed[at] ^= mask;
        let expected = match (at, mask) {
            (0 | 1, _) => DecodeError::Magic,
            (2, FLAG_SEALED) => DecodeError::Sealed,
            (2, 0..=0x0f) => DecodeError::Flags { flags: mask },
            (2, _) => DecodeError::Version { version: 1 ^ (mask >> 4) },
            (3..=6, _) => DecodeError::OtherCluster,
            _ => DecodeError::Checksum,
        };
        assert_eq!(received(&changed), Err(expected), "byte {at}, bit {bit}");
        changed[at] ^= mask;
    }
    assert!(received(&changed).is_ok());
}

#[test]
fn a_join_is_longer_than_any_answer_without_a_good_cookie() {
    let name = NodeName::new("n").unwrap();
    let shortest = Join { name, boot: Boot(0), addr: addr("1.2.3.4:5"), ..join() };
    let verdict = Verdict::Prove { cookie: u64::MAX };
    let answer = JoinReply { seq: u16::MAX, verdict };
    assert!(encoded(&shortest.into()).len() > encoded(&answer.into()).len());
}

#[test]
fn a_datagram_has_a_limited_number_of_frames() {
    let ping = encoded(&WrongRun.into());
    assert_eq!(decode(&ping.repeat(MAX_FRAMES_PER_DATAGRAM)).unwrap().len(), 2048);
    let more = decode(&ping.repeat(MAX_FRAMES_PER_DATAGRAM + 1));
    assert_eq!(more, Err(DecodeError::TooManyFrames));
}

/// Asserts that a frame is refused as malformed, and its neighbour `allowed` is not.
fn limit(allowed: impl Into<Frame>, refused: impl Into<Frame>) {
    let (allowed, refused) = (allowed.into(), refused.into());
    let kind = refused.kind();
    assert_eq!(decode(&encoded(&refused)), Err(DecodeError::Frame { kind }));
    assert_eq!(decode(&encoded(&allowed)), Ok(vec![allowed]));
}

#[test]
fn lists_over_their_limits_are_refused() {
    let object = Object::Profile(id(7));
    let fetch = |count| Fetch { wants: vec![(object, 0); count] };
    limit(fetch(MAX_FETCHES_PER_FRAME), fetch(MAX_FETCHES_PER_FRAME + 1));
    let summary = (Table::Members, Summary { count: 1, hash: 2 });
    let compare = |count: usize| {
        let scopes = (0..count).map(|n| Table::Scope(ScopeId::of(&n.to_string())));
        let mut tables: Vec<_> = scopes.map(|table| (table, summary.1)).collect();
        tables.sort_unstable_by_key(|(table, _)| *table);
        Compare { token: 1, mutual: true, tables }
    };
    let twice = Compare { tables: vec![summary; 2], ..compare(1) };
    limit(compare(1), twice);
    limit(compare(MAX_TABLES_PER_FRAME), compare(MAX_TABLES_PER_FRAME + 1));
    limit(buckets(MAX_BUCKETS), buckets(2 * MAX_BUCKETS));
    limit(buckets(1), buckets(0));
    limit(buckets(4), buckets(3));
    limit(pull(MAX_KNOWN_PER_PULL as u64), pull(MAX_KNOWN_PER_PULL as u64 + 1));
    let meta = |len| Profile { meta: vec![1; len].into(), ..profile() };
    limit(meta(MAX_META_BYTES), meta(MAX_META_BYTES + 1));
    let scopes = |count: usize| {
        let mut scopes: Vec<_> = (0..count).map(|n| ScopeId::of(&n.to_string())).collect();
        scopes.sort_unstable();
        let generation = Generation::ZERO;
        let scopes = scopes.into_iter().map(|scope| Membership { scope, generation });
        Profile { scopes: scopes.collect(), ..profile() }
    };
    limit(scopes(MAX_SCOPES_PER_NODE), scopes(MAX_SCOPES_PER_NODE + 1));
}

#[test]
fn lists_out_of_order_are_refused() {
    let backwards: Arc<[_]> = profile().scopes.iter().rev().copied().collect();
    limit(profile(), Profile { scopes: backwards, ..profile() });
    let twice: Arc<[_]> = [profile().scopes[0]; 2].into();
    limit(profile(), Profile { scopes: twice, ..profile() });
    let backwards = roles().ops.into_iter().rev().collect();
    limit(roles(), Roles { ops: backwards, ..roles() });
    let twice = vec![roles().ops[0].clone(); 2];
    limit(roles(), Roles { ops: twice, ..roles() });
}

#[test]
fn deltas_that_contradict_themselves_are_refused() {
    let of = |code| Roles { ops: vec![RoleOp { code, role: Role::from("web") }], ..roles() };
    limit(of(2), of(1));
    limit(of(2 * 297 + 1), of(2 * 298));
    limit(roles(), Roles { to: Generation::from_u64(2), ..roles() });
    limit(whole(), Roles { from: Generation::from_u64(1), ..whole() });
    let removal = vec![RoleOp { code: 1, role: Role::from("web") }];
    limit(whole(), Roles { ops: removal, ..whole() });
}

#[test]
fn roles_over_their_limits_are_refused() {
    // Of an object in parts, as a datagram has no room for so many.
    let object = Object::Roles(id(7), ScopeId::of("default"));
    let many = |count: u32| {
        let ops = (0..count).map(|n| RoleOp { code: 0, role: Role::from(n) });
        let mut ops: Vec<_> = ops.collect();
        ops.sort_by(|a, b| a.role.cmp(&b.role));
        Frame::from(Roles { ops, ..whole() }).to_body()
    };
    let max = u32::try_from(MAX_ROLES_PER_NODE).unwrap();
    assert!(Frame::from_object(object, &many(max)).is_some());
    assert!(Frame::from_object(object, &many(max + 1)).is_none());
    let long =
        |len| Roles { ops: vec![RoleOp { code: 0, role: Role::from("x".repeat(len)) }], ..whole() };
    limit(long(MAX_ROLE_BYTES - 8), long(MAX_ROLE_BYTES + 1));
}
