//! rolecall itself, with its LAN preset.

use std::net::SocketAddr;

use bytes::Bytes;
use rolecall::proto::{Command, LocalNode, Outcome, Protocol};
use rolecall::time::Instant;
use rolecall::wire::ClusterId;
use rolecall::{Config, Event, NodeName, Role, ScopeName};

use crate::node::{Node, Note, Outbox, Place, System};

pub(crate) struct Rolecall {
    config: Config,
    scope: ScopeName,
}

pub(crate) struct RolecallNode {
    protocol: Protocol,
    scope: ScopeName,
    seeds: Vec<SocketAddr>,
    datagram: Vec<u8>,
}

impl System for Rolecall {
    type Node = RolecallNode;

    const NAME: &'static str = "rolecall";

    fn new(_nodes: u32) -> Rolecall {
        let scope = ScopeName::new("default").expect("it is a good name");
        Rolecall { config: Config::lan(), scope }
    }

    fn start(&mut self, now: Instant, place: Place, seed: u64, seeds: &[Place]) -> RolecallNode {
        let local = LocalNode {
            cluster: ClusterId::of("peers"),
            name: NodeName::new(&place.name()).expect("it is a good name"),
            addr: place.addr(),
            boot: 1 + now.as_micros(),
            meta: Bytes::new(),
        };
        let protocol = Protocol::new(&self.config, local, seed, now).expect("presets are valid");
        let seeds = seeds.iter().map(|seed| seed.addr()).collect();
        let scope = self.scope.clone();
        let mut node = RolecallNode { protocol, scope, seeds, datagram: Vec::new() };
        node.command(now, Command::JoinScope(node.scope.clone()));
        node
    }
}

impl RolecallNode {
    fn command(&mut self, now: Instant, command: Command) {
        self.protocol.handle_command(now, command).expect("nobody leaves here");
    }
}

impl Node for RolecallNode {
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        self.protocol.handle_datagram(now, from, datagram).expect("bytes arrive as they were sent");
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.protocol.handle_timeout(now);
    }

    fn change(&mut self, now: Instant, serial: u32) {
        let roles = vec![Role::from(format!("worker-{serial}").as_str())];
        self.command(now, Command::AddRoles { scope: self.scope.clone(), roles });
    }

    fn drain(&mut self, now: Instant, out: &mut Outbox) {
        while let Some(event) = self.protocol.poll_event() {
            match event {
                Event::NodeUp { node } => out.notes.push(Note::Up(Place::of(node.addr()))),
                Event::NodeDown { node, .. } => out.notes.push(Note::Down(Place::of(node.addr()))),
                Event::RoleAdded { role, .. } => {
                    let role: &str = role.get().expect("all roles here are text");
                    let serial = role.strip_prefix("worker-").and_then(|text| text.parse().ok());
                    out.notes.extend(serial.map(Note::Changed));
                }
                _ => {}
            }
        }
        while let Some(outcome) = self.protocol.poll_outcome() {
            if outcome == Outcome::ResolveSeeds && !self.seeds.is_empty() {
                let addrs = self.seeds.clone();
                self.command(now, Command::Contact { addrs, token: None });
            }
        }
        while let Some(transmit) = self.protocol.poll_transmit(&mut self.datagram) {
            out.send(transmit.to, &self.datagram);
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.protocol.poll_timeout()
    }

    fn suspicions(&self) -> Option<u64> {
        Some(self.protocol.stats().suspicions)
    }
}
