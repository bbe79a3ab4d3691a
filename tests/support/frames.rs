//! Frames made from a fuzzer's bytes. The pools are small, so that what one frame says meets what
//! another one said; now and then a value is anything at all. Used by the fuzz targets `datagram`
//! and `protocol`, and seeded by `tests/fuzz_seeded.rs`.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_lossless,
    reason = "small numbers, in a test"
)]
#![allow(dead_code, unreachable_pub, reason = "each user takes its own part")]

use std::net::SocketAddr;

use arbitrary::Unstructured;
use bytes::Bytes;
use rolecall::proto::{LocalNode, Protocol};
use rolecall::time::Instant;
use rolecall::wire::cell::{Cell, Cells};
use rolecall::wire::frame::{
    Ack, Alive, Ask, Behind, Boot, Buckets, Compare, Contested, Delegate, Failed, Fetch, FetchPart,
    Fixed, Has, Incarnation, Introduce, Join, JoinReply, Large, Left, Membership, MoreSymbols,
    Nack, Object, Page, Part, Ping, PingReq, Probe, Profile, Pull, Push, Reached, Replaced, RoleOp,
    Roles, Same, Saw, Stamp, Summary, Suspect, Symbols, Table, Verdict, WrongRun,
};
use rolecall::wire::{ClusterId, Frame, Header, ScopeId, begin, decode_frames, finish};
use rolecall::{Config, Generation, NodeId, NodeName, Role, ScopeName, Sight};

/// Runs that exist only in what the fuzzer says of them.
pub const PHANTOMS: usize = 6;

/// The scopes that are spoken of.
pub const SCOPES: [&str; 3] = ["default", "jobs", "cache"];

/// A number below `end`; zero when the bytes are used up.
pub fn below(u: &mut Unstructured<'_>, end: usize) -> usize {
    u.int_in_range(0..=end - 1).unwrap_or(0)
}

/// True once in `n`.
pub fn one_in(u: &mut Unstructured<'_>, n: usize) -> bool {
    below(u, n) == n - 1
}

/// At most `max` of the bytes that are left.
pub fn some_bytes<'a>(u: &mut Unstructured<'a>, max: usize) -> &'a [u8] {
    let len = below(u, max + 1).min(u.len());
    u.bytes(len).unwrap_or_default()
}

/// Any value of an integer type.
pub fn any<'a, T: arbitrary::Arbitrary<'a> + Default>(u: &mut Unstructured<'a>) -> T {
    u.arbitrary().unwrap_or_default()
}

/// A node called "n0" at machine 0, alone as yet.
pub fn lone_node(cluster: ClusterId) -> Protocol {
    let (name, meta) = (NodeName::new("n0").expect("a short name"), Bytes::new());
    let local = LocalNode { cluster, name, addr: addr(0), boot: 1000, meta };
    Protocol::new(&Config::lan(), local, 1, Instant::ORIGIN).expect("a valid preset")
}

/// A run lets a node know it as a real one does: it proves its address, and tells of itself. What
/// the node has to say meanwhile is lost.
pub fn meet(node: &mut Protocol, now: Instant, cluster: ClusterId, profile: &Profile) {
    let mut cookie = 0;
    for _ in 0..2 {
        let (name, boot, addr) = (profile.name.clone(), profile.boot, profile.addr);
        let mut datagram = Vec::new();
        begin(Header { cluster, from: profile.id, to: None }, &mut datagram);
        Frame::from(Join { seq: 1, cookie, name, boot, addr, padding: [0; 16] })
            .encode(&mut datagram);
        if cookie != 0 {
            Frame::from(profile.clone()).encode(&mut datagram);
        }
        finish(&mut datagram, cluster);
        node.handle_datagram(now, addr, &datagram).expect("well formed");
        let mut frames = Vec::new();
        while node.poll_transmit(&mut datagram).is_some() {
            decode_frames(&datagram, &mut frames).expect("a node's own datagram is well formed");
            for frame in &frames {
                if let Frame::JoinReply(JoinReply {
                    verdict: Verdict::Prove { cookie: it }, ..
                }) = frame
                {
                    cookie = *it;
                }
            }
        }
    }
}

/// The run with this number, which is not zero.
pub fn id(number: u64) -> NodeId {
    NodeId::from_u64(number).expect("the number is not zero")
}

pub fn scope(u: &mut Unstructured<'_>) -> ScopeName {
    ScopeName::new(SCOPES[below(u, SCOPES.len())]).expect("the names are short")
}

/// A role: mostly one of few, sometimes a long one, sometimes whatever the bytes decode to.
pub fn role(u: &mut Unstructured<'_>) -> Role {
    match below(u, 8) {
        0 => Role::from("x".repeat(100 + below(u, 12) * 100)),
        1 => Role::from_bytes(some_bytes(u, 24)).unwrap_or(Role::from(0)),
        2 => Role::from(any::<u8>(u)),
        _ => Role::from(["web", "api", "db", "job", "mail"][below(u, 5)]),
    }
}

/// The address of the machine with this number.
pub fn addr(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(n).expect("few machines")], 7946))
}

/// What the frames of one run speak of: the pools, and the numbers seen on the wire.
#[derive(Debug, Default)]
pub struct Pools {
    /// Runs, the real ones first.
    pub ids: Vec<NodeId>,
    /// Sequence numbers and tokens that were seen last.
    pub numbers: Vec<u32>,
}

/// Numbers that are remembered.
const MAX_NUMBERS: usize = 32;

impl Pools {
    /// Pools with these real runs.
    pub fn new(real: &[NodeId]) -> Pools {
        let phantoms = (1..=PHANTOMS as u64).map(|n| id(n << 60 | n));
        Pools { ids: real.iter().copied().chain(phantoms).collect(), numbers: Vec::new() }
    }

    /// Remembers a number that a real node has sent.
    pub fn note(&mut self, number: u32) {
        if self.numbers.len() == MAX_NUMBERS {
            self.numbers.remove(0);
        }
        self.numbers.push(number);
    }

    pub fn id(&self, u: &mut Unstructured<'_>) -> NodeId {
        match below(u, self.ids.len() + 1) {
            at if at < self.ids.len() => self.ids[at],
            _ => NodeId::from_u64(any(u)).unwrap_or(id(u64::MAX)),
        }
    }

    pub fn addr(&self, u: &mut Unstructured<'_>) -> SocketAddr {
        match below(u, self.ids.len() + 1) {
            at if at < self.ids.len() => addr(at),
            _ => SocketAddr::from((any::<[u16; 8]>(u), any(u))),
        }
    }

    fn name(&self, u: &mut Unstructured<'_>, id: NodeId) -> NodeName {
        let at = match below(u, 4) {
            0 => below(u, self.ids.len()),
            // Mostly its own, so that runs of a name meet only now and then.
            _ => self.ids.iter().position(|other| *other == id).unwrap_or(self.ids.len()),
        };
        NodeName::new(&format!("n{at}")).expect("the name is short")
    }

    fn number(&self, u: &mut Unstructured<'_>) -> u32 {
        match below(u, self.numbers.len() + 1) {
            at if at < self.numbers.len() => self.numbers[at],
            _ => any(u),
        }
    }

    fn seq(&self, u: &mut Unstructured<'_>) -> u16 {
        self.number(u) as u16
    }

    fn generation(u: &mut Unstructured<'_>) -> u64 {
        if one_in(u, 16) { any(u) } else { below(u, 12) as u64 }
    }

    fn incarnation(u: &mut Unstructured<'_>) -> Incarnation {
        Incarnation(if one_in(u, 16) { any(u) } else { any::<u8>(u).into() })
    }

    fn boot(u: &mut Unstructured<'_>) -> Boot {
        Boot(if one_in(u, 16) { any(u) } else { 995 + below(u, 12) as u64 })
    }

    fn scope_id(u: &mut Unstructured<'_>) -> ScopeId {
        ScopeId::of(&scope(u))
    }

    fn table(u: &mut Unstructured<'_>) -> Table {
        if u.ratio(1, 2).unwrap_or(false) {
            Table::Members
        } else {
            Table::Scope(Self::scope_id(u))
        }
    }

    pub fn object(&self, u: &mut Unstructured<'_>) -> Object {
        let id = self.id(u);
        if u.ratio(1, 3).unwrap_or(false) {
            Object::Profile(id)
        } else {
            Object::Roles(id, Self::scope_id(u))
        }
    }

    pub fn profile(&self, u: &mut Unstructured<'_>) -> Profile {
        let id = self.id(u);
        let own = self.ids.iter().position(|other| *other == id).filter(|_| !one_in(u, 4));
        let mut scopes: Vec<_> = SCOPES.iter().map(|name| ScopeId::of(name)).collect();
        scopes.sort_unstable();
        scopes.retain(|_| u.ratio(2, 3).unwrap_or(false));
        let membership =
            |scope| Membership { scope, generation: Generation::from_u64(Self::generation(u)) };
        let scopes = scopes.into_iter().map(membership).collect();
        Profile {
            id,
            boot: Self::boot(u),
            version: if one_in(u, 16) { any(u) } else { any::<u8>(u).into() },
            incarnation: Self::incarnation(u),
            name: self.name(u, id),
            addr: own.map_or_else(|| self.addr(u), addr),
            meta: match below(u, 8) {
                0 => Bytes::from(vec![7; below(u, 4097)]),
                _ => Bytes::copy_from_slice(some_bytes(u, 4)),
            },
            scopes,
        }
    }

    pub fn roles(&self, u: &mut Unstructured<'_>) -> Roles {
        let whole = u.ratio(1, 3).unwrap_or(false);
        let from = if whole { 0 } else { Self::generation(u) };
        let to = from.saturating_add(Self::generation(u));
        let steps = (to - from).min(1 << 40);
        let ops = (0..below(u, 9)).map(|_| {
            let code = u.int_in_range(2..=steps.max(1) * 2 + 1).unwrap_or(2);
            RoleOp { code: if whole { 0 } else { code }, role: role(u) }
        });
        let mut ops: Vec<RoleOp> = ops.collect();
        ops.sort_by(|a, b| a.role.cmp(&b.role));
        ops.dedup_by(|a, b| a.role == b.role);
        ops.truncate(if whole || steps > 0 { ops.len() } else { 0 });
        let (from, to) = (Generation::from_u64(from), Generation::from_u64(to));
        Roles { id: self.id(u), scope: Self::scope_id(u), from, to, whole, ops }
    }

    fn part(&self, u: &mut Unstructured<'_>) -> Part {
        let object = self.object(u);
        let mut body = match object {
            Object::Profile(id) => Frame::from(Profile { id, ..self.profile(u) }).to_body(),
            Object::Roles(id, scope) => Frame::from(Roles { id, scope, ..self.roles(u) }).to_body(),
        };
        let total = if one_in(u, 8) { any(u) } else { body.len() as u32 };
        let offset = if one_in(u, 2) { below(u, body.len() + 1) } else { 0 };
        body.drain(..offset.min(body.len()));
        body.truncate(if one_in(u, 2) { below(u, body.len() + 1) } else { body.len() });
        let offset = if one_in(u, 16) { any(u) } else { offset as u32 };
        Part { object, version: Self::generation(u), total, offset, bytes: body.into() }
    }

    fn join(&self, u: &mut Unstructured<'_>) -> Join {
        let id = self.id(u);
        Join {
            seq: self.seq(u),
            cookie: any(u),
            name: self.name(u, id),
            boot: Self::boot(u),
            addr: self.addr(u),
            padding: [0; 16],
        }
    }

    fn verdict(&self, u: &mut Unstructured<'_>) -> Verdict {
        match below(u, 5) {
            0 => Verdict::Prove { cookie: any(u) },
            1 => Verdict::Welcome,
            2 => Verdict::RaiseBoot { above: Self::boot(u) },
            3 => Verdict::Wait,
            _ => Verdict::NameTaken { holder: self.addr(u) },
        }
    }

    pub fn compare(&self, u: &mut Unstructured<'_>) -> Compare {
        let tables = (0..below(u, 6)).map(|_| {
            let count = any(u);
            (Self::table(u), Summary { count, hash: any(u) })
        });
        let mut tables: Vec<(Table, Summary)> = tables.collect();
        tables.sort_unstable_by_key(|(table, _)| *table);
        tables.dedup_by_key(|(table, _)| *table);
        Compare { token: self.number(u), mutual: any(u), tables }
    }

    pub fn pull(&self, u: &mut Unstructured<'_>) -> Pull {
        let (low, high) = (self.edge(u, id(1)), self.edge(u, id(u64::MAX)));
        let known = (0..below(u, 6)).map(|_| (self.id(u), Self::stamp(u)));
        let known = known.collect();
        Pull { token: self.number(u), table: Self::table(u), low, high, known }
    }

    pub fn page(&self, u: &mut Unstructured<'_>) -> Page {
        Page {
            token: self.number(u),
            table: Self::table(u),
            low: self.edge(u, id(1)),
            through: self.edge(u, id(u64::MAX)),
            done: any(u),
        }
    }

    fn stamp(u: &mut Unstructured<'_>) -> Stamp {
        let number = Self::generation(u) << below(u, 33);
        Stamp { number, print: if one_in(u, 2) { 0 } else { any(u) } }
    }

    /// Mostly the end of all ids.
    fn edge(&self, u: &mut Unstructured<'_>, end: NodeId) -> NodeId {
        match below(u, 4) {
            0 => self.id(u),
            1 => NodeId::from_u64(u64::from(any::<u8>(u)) << 56).unwrap_or(end),
            _ => end,
        }
    }

    /// An update, as the fast path carries it; now and then something else.
    fn carried(&self, u: &mut Unstructured<'_>) -> Frame {
        match below(u, 8) {
            0 => Ack { seq: self.seq(u) }.into(),
            1 => Alive { id: self.id(u), incarnation: Self::incarnation(u) }.into(),
            2 => {
                Suspect { id: self.id(u), incarnation: Self::incarnation(u), by: self.id(u) }.into()
            }
            3 => Left { id: self.id(u), incarnation: Self::incarnation(u) }.into(),
            4 | 5 => self.roles(u).into(),
            _ => self.profile(u).into(),
        }
    }

    /// Symbols: mostly such as real ones could be.
    pub fn symbols(&self, u: &mut Unstructured<'_>) -> Symbols {
        let cell = |u: &mut Unstructured<'_>| Cell {
            id: if one_in(u, 4) { any(u) } else { self.id(u).as_u64() },
            scope: if one_in(u, 2) { 0 } else { Self::scope_id(u).as_u64() as u32 },
            stamp: Self::generation(u),
            print: any(u),
            check: any(u),
            count: [0, 1, -1, 2, any(u)][below(u, 5)],
        };
        let first = [0, 0, 0, 12, any::<u8>(u).into()][below(u, 5)];
        let cells = Cells((0..below(u, 14)).map(|_| cell(u)).collect());
        let version = |u: &mut Unstructured<'_>| 1 + below(u, 3) as u32;
        Symbols { own_version: version(u), your_version: version(u), first, cells }
    }

    fn sight(u: &mut Unstructured<'_>) -> Sight {
        if one_in(u, 3) { Sight::Unreachable } else { Sight::Silence }
    }

    /// A frame of any kind.
    pub fn frame(&self, u: &mut Unstructured<'_>) -> Frame {
        match below(u, 41) {
            0 => Ping { seq: self.seq(u) }.into(),
            1 => Ack { seq: self.seq(u) }.into(),
            2 => Nack { seq: self.seq(u) }.into(),
            3 => PingReq { seq: self.seq(u), target: self.id(u), waited: any(u) }.into(),
            4 => WrongRun.into(),
            5 => Introduce.into(),
            6 => self.join(u).into(),
            7 => JoinReply { seq: self.seq(u), verdict: self.verdict(u) }.into(),
            8..=11 => self.profile(u).into(),
            12 => Alive { id: self.id(u), incarnation: Self::incarnation(u) }.into(),
            13 => {
                let (id, by) = (self.id(u), self.id(u));
                Suspect { id, incarnation: Self::incarnation(u), by }.into()
            }
            14 => {
                let (id, by) = (self.id(u), self.id(u));
                let saw = |u: &mut Unstructured<'_>| (self.id(u), Self::sight(u));
                let witnesses = (0..below(u, 5)).map(|_| saw(u)).collect();
                Failed { id, incarnation: Self::incarnation(u), by, witnesses }.into()
            }
            15 => Left { id: self.id(u), incarnation: Self::incarnation(u) }.into(),
            16 => {
                let (id, by) = (self.id(u), self.id(u));
                Replaced { id, incarnation: Self::incarnation(u), by }.into()
            }
            17..=20 => self.roles(u).into(),
            21 => Large { object: self.object(u), version: Self::generation(u) }.into(),
            22 => {
                let wants = (0..below(u, 6)).map(|_| (self.object(u), Self::generation(u)));
                Fetch { wants: wants.collect() }.into()
            }
            23 => {
                let (object, version) = (self.object(u), Self::generation(u));
                FetchPart { object, version, offset: any::<u16>(u).into() }.into()
            }
            24 => self.part(u).into(),
            25 => self.compare(u).into(),
            26 => Same { token: self.number(u) }.into(),
            27 => {
                let hashes = (0..1 << below(u, 8)).map(|_| Fixed(any(u))).collect();
                Buckets { token: self.number(u), of: any(u), table: Self::table(u), hashes }.into()
            }
            28 => self.pull(u).into(),
            29 => self.page(u).into(),
            30 => Probe { seq: self.seq(u), digest: any(u) }.into(),
            31 => {
                let mut cargo = Vec::new();
                (0..below(u, 4)).for_each(|_| self.carried(u).encode(&mut cargo));
                let (low, high) = (self.edge(u, id(1)), self.edge(u, id(u64::MAX)));
                let (seq, patience) = (self.seq(u), [0, 0, 1, 32, any(u)][below(u, 5)]);
                Delegate { seq, low, high, patience, cargo: cargo.into() }.into()
            }
            32 => {
                let unheard = (0..below(u, 3)).map(|_| (self.id(u), self.id(u))).collect();
                let (count, ids) = (below(u, 8) as u32, self.id(u).as_u64());
                Reached { seq: self.seq(u), count, ids, unheard }.into()
            }
            33 => self.symbols(u).into(),
            34 => MoreSymbols { first: any::<u8>(u).into() }.into(),
            35 => Push.into(),
            36 => Ask { scope: Self::scope_id(u) }.into(),
            37 => Saw { seq: self.seq(u), saw: Self::sight(u) }.into(),
            38 => Contested { table: Self::table(u), stamp: Self::stamp(u) }.into(),
            39 => Behind { number: Self::generation(u) << below(u, 48) }.into(),
            _ => {
                let generation = Generation::from_u64(Self::generation(u));
                Has { scope: Self::scope_id(u), generation }.into()
            }
        }
    }

    /// What a node asks for comes, more or less as it should.
    pub fn answers(&self, u: &mut Unstructured<'_>, asked: &Frame) -> Vec<Frame> {
        match asked {
            Frame::Ping(ping) => vec![Ack { seq: ping.seq }.into()],
            Frame::Probe(probe) if one_in(u, 2) => vec![Ack { seq: probe.seq }.into()],
            // Whoever finds that the digests differ sends symbols with its answer.
            Frame::Probe(probe) => vec![Ack { seq: probe.seq }.into(), self.symbols(u).into()],
            Frame::Delegate(delegate) => vec![Ack { seq: delegate.seq }.into()],
            Frame::Symbols(symbols) => {
                let mut answer = self.symbols(u);
                if one_in(u, 2) {
                    answer.your_version = symbols.own_version;
                    answer.first = symbols.first;
                }
                vec![answer.into()]
            }
            Frame::MoreSymbols(more) => {
                let mut answer = self.symbols(u);
                answer.first = more.first;
                vec![answer.into()]
            }
            Frame::Compare(compare) => match below(u, 4) {
                0 => vec![Same { token: compare.token }.into()],
                _ => vec![self.compare(u).into(), self.symbols(u).into()],
            },
            Frame::Pull(pull) => {
                let done = one_in(u, 2);
                let through = if done { pull.high } else { self.id(u) };
                let (token, table, low) = (pull.token, pull.table, pull.low);
                let mut page = vec![Page { token, table, low, through, done }.into()];
                for _ in 0..below(u, 6) {
                    let object = self.object(u);
                    page.push(self.answer(u, object));
                }
                page
            }
            Frame::Fetch(fetch) => {
                fetch.wants.iter().map(|(object, _)| self.answer(u, *object)).collect()
            }
            Frame::FetchPart(fetch) => {
                let mut body = self.answer(u, fetch.object).to_body();
                let total = if one_in(u, 4) { any(u) } else { u32::try_from(body.len()).unwrap() };
                body.drain(..(fetch.offset as usize).min(body.len()));
                body.truncate(1 + below(u, 1400));
                let offset = if one_in(u, 8) { any(u) } else { fetch.offset };
                let version = fetch.version.max(1);
                vec![
                    Part { object: fetch.object, version, total, offset, bytes: body.into() }
                        .into(),
                ]
            }
            _ => Vec::new(),
        }
    }

    fn answer(&self, u: &mut Unstructured<'_>, object: Object) -> Frame {
        match object {
            Object::Profile(id) => Profile { id, ..self.profile(u) }.into(),
            Object::Roles(id, scope) => Roles { id, scope, ..self.roles(u) }.into(),
        }
    }
}
