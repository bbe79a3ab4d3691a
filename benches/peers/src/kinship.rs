//! kinship's core, with its LAN preset and, as it recommends, encryption.

use std::collections::HashMap;
use std::net::SocketAddr;

use kinship_core::{
    Command, Config, Event, Identity, Instant as KinshipInstant, Key, Limits, Member, Node as Core,
    Security, StreamEvent as CoreEvent, StreamId, Transmit,
};
use kinship_proto::FrameReader;
use kinship_proto::tags::{Tags, encode_tags};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rolecall::time::Instant;

use crate::node::{Node, Note, Outbox, Place, System};
use crate::streams::{StreamAction, StreamEvent};

/// The wall clock of the start of the simulation, in milliseconds: epochs count from it.
const WALL_CLOCK_MS: u64 = 1_750_000_000_000;

const ROLE: &str = "role";

pub(crate) struct Kinship {
    config: Config,
}

pub(crate) struct KinshipNode {
    core: Core,
    /// When it started: its own clock is zero then.
    started: Instant,
    readers: HashMap<u64, FrameReader>,
}

impl System for Kinship {
    type Node = KinshipNode;

    const NAME: &'static str = "kinship";

    fn new(_nodes: u32) -> Kinship {
        Kinship { config: Config::lan(Security::Keys(vec![Key::from_bytes([7; 32])])) }
    }

    fn start(&mut self, now: Instant, place: Place, seed: u64, seeds: &[Place]) -> KinshipNode {
        let mut rng = StdRng::seed_from_u64(seed);
        let tags = encode_tags([(ROLE, "none")], Limits::DEFAULT_MAX_META_BYTES);
        let identity = Identity::new(place.name(), place.addr()).expect("it is a good name");
        let identity = identity
            .with_meta(tags.expect("it is small"))
            .with_epoch(WALL_CLOCK_MS + now.as_micros() / 1000);
        let zero = KinshipInstant::ZERO;
        let core = Core::new(self.config.clone(), identity, zero, rng.random(), &rng.random());
        let mut core = core.expect("presets are valid");
        let seeds = seeds.iter().map(|seed| seed.addr()).collect();
        core.command(zero, Command::Join { seeds });
        KinshipNode { core, started: now, readers: HashMap::new() }
    }
}

impl KinshipNode {
    fn clock(&self, now: Instant) -> KinshipInstant {
        let nanos = (now - self.started).as_nanos();
        KinshipInstant::from_nanos(u64::try_from(nanos).expect("simulations are short"))
    }

    fn read(&mut self, now: Instant, conn: u64, bytes: &[u8]) {
        let Some(reader) = self.readers.get_mut(&conn) else { return };
        reader.push(bytes);
        while let Some(frame) = self
            .readers
            .get_mut(&conn)
            .and_then(|reader| reader.next_frame().expect("nodes here send well"))
        {
            let now = self.clock(now);
            self.core.handle_stream(now, StreamId::from_raw(conn), CoreEvent::Frame(&frame));
        }
    }

    fn end(&mut self, now: Instant, conn: u64, event: CoreEvent) {
        if self.readers.remove(&conn).is_some() {
            self.core.handle_stream(self.clock(now), StreamId::from_raw(conn), event);
        }
    }
}

impl Node for KinshipNode {
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        self.core.handle_datagram(self.clock(now), from, datagram);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.core.handle_timeout(self.clock(now));
    }

    fn handle_stream(&mut self, now: Instant, conn: u64, event: StreamEvent) {
        match event {
            StreamEvent::Opened => {
                self.readers.insert(conn, FrameReader::new(Limits::DEFAULT_MAX_STREAM_FRAME));
            }
            StreamEvent::Bytes(bytes) => self.read(now, conn, &bytes),
            StreamEvent::Closed => self.end(now, conn, CoreEvent::Closed),
            StreamEvent::Refused => self.end(now, conn, CoreEvent::Failed),
        }
    }

    fn change(&mut self, now: Instant, serial: u32) {
        let role = format!("worker-{serial}");
        let tags = encode_tags([(ROLE, role.as_str())], Limits::DEFAULT_MAX_META_BYTES);
        self.core.command(self.clock(now), Command::SetMeta(tags.expect("it is small")));
    }

    fn drain(&mut self, _now: Instant, out: &mut Outbox) {
        while let Some(event) = self.core.poll_event() {
            match &event {
                Event::MemberJoined(member) => {
                    out.notes.push(Note::Up(Place::of(member.addr)));
                    out.notes.extend(change_of(member));
                }
                Event::MemberUpdated { member, .. } => out.notes.extend(change_of(member)),
                Event::MemberDead(member) | Event::MemberLeft(member) => {
                    out.notes.push(Note::Down(Place::of(member.addr)));
                }
                _ => {}
            }
        }
        while let Some(transmit) = self.core.poll_transmit() {
            match transmit {
                Transmit::Datagram { to, payload } => out.send(to, &payload),
                Transmit::Connect { conn, to } => {
                    let conn = conn.to_raw();
                    self.readers.insert(conn, FrameReader::new(Limits::DEFAULT_MAX_STREAM_FRAME));
                    out.streams.push(StreamAction::Connect { conn, to: Place::of(to) });
                }
                Transmit::Stream { conn, frame } => {
                    let conn = conn.to_raw();
                    out.streams.push(StreamAction::Write { conn, bytes: frame });
                }
                Transmit::Close { conn } => {
                    self.readers.remove(&conn.to_raw());
                    out.streams.push(StreamAction::Close { conn: conn.to_raw() });
                }
            }
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        // Rounded up: never before it is due.
        let micros = self.core.poll_timeout()?.as_nanos().div_ceil(1000);
        Some(self.started + std::time::Duration::from_micros(micros))
    }

    fn suspicions(&self) -> Option<u64> {
        Some(self.core.metrics().probes_failed)
    }
}

fn change_of(member: &Member) -> Option<Note> {
    let tags = Tags::parse(&member.meta).ok()?;
    let role = tags.get(ROLE)?;
    Some(Note::Changed(role.strip_prefix("worker-")?.parse().ok()?))
}
