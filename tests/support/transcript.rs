//! What nodes say to each other and to their users, as text in which every run has a short name.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_lossless,
    reason = "small numbers, in a test"
)]
#![allow(unreachable_pub, reason = "a part of a test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use rolecall::time::Instant;
use rolecall::wire::frame::{Membership, Object, Roles, Table, Verdict};
use rolecall::wire::{ClusterId, Frame, ScopeId, decode_cargo, decode_frames, decode_header};
use rolecall::{Event, NodeId};

use super::net::{CLUSTER, Net, short};

#[derive(Default)]
pub struct Transcript {
    start: Instant,
    runs: BTreeMap<NodeId, String>,
}

impl Transcript {
    /// From now on the run at this address is called so.
    pub fn know(&mut self, net: &Net, at: SocketAddr, name: &str) {
        self.runs.insert(net.id(at), name.to_owned());
    }

    /// What was before is not told.
    pub fn begin(&mut self, net: &mut Net) {
        self.start = net.now;
        net.log = Some(Vec::new());
        net.forget_events();
    }

    /// Compares with the golden text, or writes it anew.
    pub fn check(&mut self, net: &mut Net, name: &str) {
        let made = self.write(net);
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
        let path = path.join(format!("{name}.txt"));
        if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
            std::fs::write(&path, &made).expect("the file can be written");
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        if let Some(difference) = difference(&golden, &made) {
            panic!("{name}.txt tells it otherwise (-), now it is (+):\n{difference}");
        }
    }

    fn write(&self, net: &mut Net) -> String {
        let mut lines: Vec<(Instant, String)> = Vec::new();
        for host in net.hosts.values() {
            let who = self.run(host.node.local().id());
            for (at, event) in &host.events {
                lines.push((*at, format!("{who} * {}", self.event(event))));
            }
        }
        for (at, _, to, bytes) in net.log.take().expect("the log was begun") {
            let header =
                decode_header(&bytes, ClusterId::of(CLUSTER)).expect("a node's own datagram");
            let mut frames = Vec::new();
            decode_frames(&bytes, &mut frames).expect("a node's own datagram");
            let receiver = if header.is_addressed() {
                let called = self.runs.iter().find(|(id, _)| header.is_for(**id));
                called.map_or_else(|| "?".to_owned(), |(_, name)| name.clone())
            } else {
                to.to_string()
            };
            let said: Vec<String> = frames.iter().map(|frame| self.frame(frame)).collect();
            let sender = self.run(header.from);
            lines.push((at, format!("{sender} -> {receiver}: {}", said.join(", "))));
        }
        // Of one moment, what users hear comes first: it is drained first.
        lines.sort_by_key(|(at, _)| *at);
        lines.into_iter().fold(String::new(), |mut text, (at, line)| {
            let micros = (at - self.start).as_micros();
            writeln!(text, "{:>6}.{:03} {line}", micros / 1000, micros % 1000)
                .expect("a String takes everything");
            text
        })
    }

    fn run(&self, id: NodeId) -> String {
        self.runs.get(&id).cloned().unwrap_or_else(|| "?".to_owned())
    }

    fn event(&self, event: &Event) -> String {
        match event {
            Event::NodeUp { node } => format!("up {}", self.run(node.id())),
            Event::NodeDown { node, reason } => {
                let text = short(&Event::NodeDown { node: node.clone(), reason: reason.clone() });
                let reason = text.rsplit(' ').next().unwrap_or_default().to_owned();
                format!("down {} {reason}", self.run(node.id()))
            }
            other => short(other),
        }
    }

    fn frame(&self, frame: &Frame) -> String {
        match frame {
            Frame::Ping(_) => "ping".to_owned(),
            Frame::Probe(_) => "probe".to_owned(),
            Frame::Ack(_) => "ack".to_owned(),
            Frame::Nack(_) => "nack".to_owned(),
            Frame::Saw(it) => format!("saw {:?}", it.saw).to_lowercase(),
            Frame::PingReq(it) => format!("ping {} for me", self.run(it.target)),
            Frame::WrongRun(_) => "wrong run".to_owned(),
            Frame::Introduce(_) => "introduce yourself".to_owned(),
            Frame::Join(it) if it.cookie == 0 => format!("join as {}", it.name),
            Frame::Join(it) => format!("join as {} with cookie", it.name),
            Frame::JoinReply(it) => match it.verdict {
                Verdict::Prove { .. } => "prove your address".to_owned(),
                Verdict::Welcome => "welcome".to_owned(),
                Verdict::RaiseBoot { .. } => "raise your boot".to_owned(),
                Verdict::Wait => "wait".to_owned(),
                Verdict::NameTaken { holder } => format!("name taken by {holder}"),
                _ => "?".to_owned(),
            },
            Frame::Profile(it) => {
                let scopes = it.scopes.iter().map(|Membership { scope, generation }| {
                    format!("{}@{}", scope_name(*scope), generation.as_u64())
                });
                let scopes = scopes.collect::<Vec<_>>().join(" ");
                format!("profile {} v{} [{scopes}]", self.run(it.id), it.version)
            }
            Frame::Alive(it) => format!("alive {} i{}", self.run(it.id), it.incarnation.0),
            Frame::Suspect(it) => {
                let (id, by) = (self.run(it.id), self.run(it.by));
                format!("suspect {id} i{} by {by}", it.incarnation.0)
            }
            Frame::Failed(it) => {
                let witnesses = it.witnesses.iter().map(|(id, _)| self.run(*id));
                let witnesses = witnesses.collect::<Vec<_>>().join(" ");
                format!("failed {}, seen by {witnesses}", self.run(it.id))
            }
            Frame::Left(it) => format!("left {}", self.run(it.id)),
            Frame::Replaced(it) => {
                format!("replaced {} by {}", self.run(it.id), self.run(it.by))
            }
            other => self.repair(other),
        }
    }

    fn repair(&self, frame: &Frame) -> String {
        match frame {
            Frame::Roles(it) => self.roles(it),
            Frame::Delegate(it) => {
                let mut cargo = Vec::new();
                decode_cargo(&it.cargo, &mut cargo).expect("a node's own cargo is well formed");
                let cargo: Vec<String> = cargo.iter().map(|frame| self.frame(frame)).collect();
                let (low, high) = (it.low.as_u64() >> 56, it.high.as_u64() >> 56);
                format!("tell {low:02x} to {high:02x}: {}", cargo.join("; "))
            }
            Frame::Reached(it) => format!("{} have it", it.count),
            Frame::Symbols(it) => format!("{} symbols from {}", it.cells.0.len(), it.first),
            Frame::MoreSymbols(it) => format!("more symbols from {}", it.first),
            Frame::Push(_) => "you lack".to_owned(),
            Frame::Large(it) => format!("large {}", self.object(it.object)),
            Frame::Fetch(it) => {
                let wants = it.wants.iter();
                let wants = wants.map(|(it, known)| format!("{}@{known}", self.object(*it)));
                format!("fetch {}", wants.collect::<Vec<_>>().join(" "))
            }
            Frame::FetchPart(it) => format!("fetch part {} {}", self.object(it.object), it.offset),
            Frame::Part(it) => format!("part {} {}", self.object(it.object), it.offset),
            Frame::Compare(it) => {
                let tables = it.tables.iter();
                let tables =
                    tables.map(|(it, summary)| format!("{}({})", table(*it), summary.count));
                format!("compare {}", tables.collect::<Vec<_>>().join(" "))
            }
            Frame::Same(_) => "same".to_owned(),
            Frame::Buckets(it) => format!("differs: {} of {}", table(it.table), it.of),
            Frame::Pull(it) => {
                let part = it.low.as_u64() >> 56;
                format!("pull {} from {part:02x}, {} known", table(it.table), it.known.len())
            }
            Frame::Page(it) => {
                let done = if it.done { "" } else { ", more follows" };
                format!("page {} from {:02x}{done}", table(it.table), it.low.as_u64() >> 56)
            }
            Frame::Ask(it) => format!("which of mine in {}?", scope_name(it.scope)),
            Frame::Has(it) => format!("{}@{}", scope_name(it.scope), it.generation.as_u64()),
            other => format!("kind {}", other.kind()),
        }
    }

    fn roles(&self, roles: &Roles) -> String {
        let sign = |code: u64| if code & 1 == 0 { '+' } else { '-' };
        let ops = roles.ops.iter().map(|op| format!(" {}{}", sign(op.code), op.role));
        let whole = if roles.whole { "whole " } else { "" };
        let (from, to) = (roles.from.as_u64(), roles.to.as_u64());
        let (id, scope) = (self.run(roles.id), scope_name(roles.scope));
        format!("roles {id} {scope} {whole}{from}..{to}{}", ops.collect::<String>())
    }

    fn object(&self, object: Object) -> String {
        match object {
            Object::Profile(id) => format!("profile {}", self.run(id)),
            Object::Roles(id, scope) => format!("roles {} {}", self.run(id), scope_name(scope)),
        }
    }
}

fn scope_name(scope: ScopeId) -> &'static str {
    if scope == ScopeId::of("default") { "default" } else { "?" }
}

fn table(table: Table) -> &'static str {
    match table {
        Table::Members => "members",
        Table::Scope(scope) => scope_name(scope),
    }
}

/// The first lines that differ, with some of what is before.
fn difference(golden: &str, made: &str) -> Option<String> {
    const CONTEXT: usize = 3;
    const SHOWN: usize = 8;
    if golden == made {
        return None;
    }
    let same = golden.lines().zip(made.lines()).take_while(|(a, b)| a == b).count();
    let lines = |text: &str, sign: char, from: usize, count: usize| -> String {
        text.lines().skip(from).take(count).map(|line| format!("{sign} {line}\n")).collect()
    };
    let before = same.saturating_sub(CONTEXT);
    Some(
        [
            format!("from line {}:\n", same + 1),
            lines(golden, ' ', before, same - before),
            lines(golden, '-', same, SHOWN),
            lines(made, '+', same, SHOWN),
        ]
        .concat(),
    )
}
