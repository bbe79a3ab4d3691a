//! The loop: what happens next, and what a node has to say after it.

use std::cmp::Reverse;
use std::hash::Hasher;
use std::net::SocketAddr;
use std::ops::ControlFlow;

use rand::RngExt;

use super::host::{Activity, CLUSTER, Clock, HostId, Process};
use super::network::Arrival;
use super::simulation::{Heard, Noticed, Simulation, Watcher};
use crate::event::Event;
use crate::proto::{Command, LocalNode, Outcome, Protocol};
use crate::time::Instant;
use crate::view::Publisher;
use crate::wire::ClusterId;

/// Bytes that a stalled host can have waiting to be sent: Linux's default send buffer.
const SEND_BUFFER_BYTES: usize = 212_992;

/// The wall clock at the start of a simulation, in microseconds.
const WALL_ORIGIN_MICROS: u64 = 1 << 50;

impl Simulation {
    /// When something happens next.
    pub(super) fn next(&mut self) -> Option<Instant> {
        while let Some(Reverse((at, host))) = self.wakes.peek() {
            if self.hosts[host.index()].wake == Some(*at) {
                break;
            }
            self.wakes.pop();
        }
        let wake = self.wakes.peek().map(|Reverse((at, _))| *at);
        let hint = self.hints.peek().map(|Reverse((at, ..))| *at);
        wake.into_iter().chain(self.network.next_arrival()).chain(hint).min()
    }

    /// A host's kernel is to tell its node something of the peer at an address.
    pub(super) fn notice(&mut self, host: HostId, peer: SocketAddr, what: Noticed) {
        let at = self.now + self.network.faults().latency.floor();
        self.hints.push(Reverse((at, host, peer, what)));
    }

    /// A node is told what its kernel has noticed.
    fn hint(&mut self, watcher: Watcher<'_>) -> ControlFlow<()> {
        let Some(Reverse((_, host, peer, what))) = self.hints.pop() else {
            return ControlFlow::Continue(());
        };
        let told = &mut self.hosts[host.index()];
        let now = told.clock.local(self.now);
        match &mut told.process {
            Some(process) if told.activity == Activity::Running => {
                process.node.handle_hint(now, peer, what.into());
                self.turn(host, watcher)
            }
            _ => ControlFlow::Continue(()),
        }
    }

    /// Does one of the things that are due now: what has arrived comes before timers.
    pub(super) fn step(&mut self, watcher: Watcher<'_>) -> ControlFlow<()> {
        if self.network.next_arrival().is_some_and(|at| at <= self.now) {
            let mut bytes = std::mem::take(&mut self.buffer);
            let arrival = self.network.receive(&mut bytes).expect("one was there just now");
            let flow = self.arrive(arrival, &bytes, watcher);
            self.buffer = bytes;
            return flow;
        }
        if self.hints.peek().is_some_and(|Reverse((at, ..))| *at <= self.now) {
            return self.hint(watcher);
        }
        let Some(Reverse((_, host))) = self.wakes.pop() else { return ControlFlow::Continue(()) };
        let called = &mut self.hosts[host.index()];
        called.wake = None;
        let now = called.clock.local(self.now);
        if called.activity == Activity::Blocked {
            if let Some(process) = &mut called.process {
                process.node.handle_timeout_blocked(now, &mut called.blocked);
            }
            return self.turn(host, watcher);
        }
        let drain_first = self.rules.drain_first;
        if drain_first {
            self.read_inbox(host);
        }
        if let Some(process) = &mut self.hosts[host.index()].process {
            process.node.handle_timeout(now);
        }
        if !drain_first {
            // What the timers had to say goes out before anything is read.
            let flow = self.turn(host, watcher);
            self.read_inbox(host);
            if flow.is_break() {
                let _: ControlFlow<()> = self.turn(host, watcher);
                return flow;
            }
        }
        self.turn(host, watcher)
    }

    fn arrive(&mut self, arrival: Arrival, bytes: &[u8], watcher: Watcher<'_>) -> ControlFlow<()> {
        self.trace.write_u64(arrival.at.as_micros());
        self.trace.write(bytes);
        let Some(&host) = self.at.get(&arrival.to) else {
            if let Some(&sender) = self.at.get(&arrival.from)
                && self.bereft.contains(&arrival.to)
            {
                self.notice(sender, arrival.to, Noticed::Unreachable);
            }
            return ControlFlow::Continue(());
        };
        let called = &mut self.hosts[host.index()];
        if called.activity == Activity::Running {
            self.hand_over(host, arrival.from, bytes);
            return self.turn(host, watcher);
        }
        let max_bytes = called.spec.config.as_ref().unwrap_or(&self.config).receive_buffer_bytes;
        self.overflowed += u64::from(!called.inbox.push(arrival.from, bytes, max_bytes));
        ControlFlow::Continue(())
    }

    /// A running host reads what waited while it did not.
    fn read_inbox(&mut self, host: HostId) {
        let called = &mut self.hosts[host.index()];
        if called.activity == Activity::Running {
            for (from, datagram) in called.inbox.take() {
                self.hand_over(host, from, &datagram);
            }
        }
    }

    fn hand_over(&mut self, host: HostId, from: SocketAddr, bytes: &[u8]) {
        let called = &mut self.hosts[host.index()];
        let now = called.clock.local(self.now);
        let Some(process) = &mut called.process else { return };
        // Refused datagrams are counted by the node.
        let _ = process.node.handle_datagram(now, from, bytes);
    }

    /// Takes everything that a node has to say.
    pub(super) fn turn(&mut self, host: HostId, watcher: Watcher<'_>) -> ControlFlow<()> {
        let mut flow = ControlFlow::Continue(());
        loop {
            if self.drain_events(host, watcher).is_break() {
                flow = ControlFlow::Break(());
            }
            let (resolve, over) = self.drain_outcomes(host);
            self.observe(host);
            self.drain_datagrams(host);
            if over {
                self.crash(host);
            } else if resolve {
                self.contact_seeds(host);
                continue;
            }
            break;
        }
        self.schedule(host);
        flow
    }

    /// Has the checks look at what a turn came to.
    fn observe(&mut self, host: HostId) {
        let process = self.hosts[host.index()].process.as_ref();
        if let (Some(checks), Some(process)) = (&mut self.checks, process) {
            let view = process.view.as_ref().map(|(_, view)| &**view);
            checks.observe(self.now, host, &process.node, view);
        }
    }

    fn drain_events(&mut self, host: HostId, watcher: Watcher<'_>) -> ControlFlow<()> {
        let mut flow = ControlFlow::Continue(());
        let Some(process) = &mut self.hosts[host.index()].process else { return flow };
        let mut any = false;
        while let Some(line) = process.node.poll_log() {
            line.write();
        }
        while let Some(event) = process.node.poll_event() {
            if let Some(checks) = &mut self.checks {
                checks.heard(self.now, host, &process.node, &event);
            }
            let heard = Heard { at: self.now, host, event: &event, node: &process.node };
            if watcher(heard).is_break() {
                flow = ControlFlow::Break(());
            }
            if let Some((publisher, _)) = &mut process.view {
                publisher.apply(&event);
                any = true;
            }
            if self.keeps_events {
                process.events.push((self.now, event));
            }
        }
        if let Some((publisher, _)) = &mut process.view
            && any
        {
            // Nobody waits for one role in particular.
            let _ = publisher.publish();
            publisher.poll();
        }
        flow
    }

    /// Whether seeds are to be resolved, and whether the node has ended.
    fn drain_outcomes(&mut self, host: HostId) -> (bool, bool) {
        let (mut resolve, mut over) = (false, false);
        let Some(process) = &mut self.hosts[host.index()].process else { return (false, false) };
        while let Some(outcome) = process.node.poll_outcome() {
            if let Some(checks) = &mut self.checks {
                checks.outcome(self.now, host, &process.node, &outcome);
            }
            match outcome {
                Outcome::ResolveSeeds => resolve = true,
                Outcome::Left { .. } | Outcome::NameTaken { stopped: true, .. } => over = true,
                _ => {}
            }
            if self.keeps_events {
                process.outcomes.push(outcome);
            }
        }
        (resolve, over)
    }

    fn drain_datagrams(&mut self, host: HostId) {
        let sender = &mut self.hosts[host.index()];
        let Some(process) = &mut sender.process else { return };
        let mut datagram = std::mem::take(&mut self.buffer_out);
        while let Some(transmit) = process.node.poll_transmit(&mut datagram) {
            if let Some(checks) = &mut self.checks {
                checks.sent(self.now, host, &datagram);
            }
            if matches!(sender.activity, Activity::Stalled | Activity::Blocked) {
                let kept = sender.outbox.push(transmit.to, &datagram, SEND_BUFFER_BYTES);
                self.overflowed += u64::from(!kept);
            } else {
                self.network.send(self.now, sender.addr, transmit.to, &datagram);
            }
        }
        self.buffer_out = datagram;
    }

    fn contact_seeds(&mut self, host: HostId) {
        let called = &mut self.hosts[host.index()];
        let now = called.clock.local(self.now);
        let Some(process) = &mut called.process else { return };
        if !called.spec.seeds.is_empty() {
            let contact = Command::Contact { addrs: called.spec.seeds.clone(), token: None };
            // A node that is saying goodbye refuses.
            let _ = process.node.handle_command(now, contact);
        }
    }

    pub(super) fn schedule(&mut self, host: HostId) {
        let called = &mut self.hosts[host.index()];
        let Some(process) = &called.process else { return };
        if called.activity == Activity::Paused {
            return;
        }
        let due = match called.activity {
            Activity::Blocked => process.node.poll_timeout_blocked(&called.blocked),
            _ => process.node.poll_timeout(),
        };
        let due = due.map(|at| called.clock.global(at).max(self.now));
        if due != called.wake {
            called.wake = due;
            self.wakes.extend(due.map(|at| Reverse((at, host))));
        }
    }

    /// Starts what is installed on a host.
    pub(super) fn boot(&mut self, id: HostId) {
        self.load(id);
        self.show(id);
        let _: ControlFlow<()> = self.turn(id, &mut ignore);
    }

    /// Makes a process of what is installed on a host; it has not said anything yet.
    pub(super) fn load(&mut self, id: HostId) {
        let (now, seed) = (self.now, self.rng.random());
        let host = &mut self.hosts[id.index()];
        assert!(host.process.is_none(), "it runs");
        let taken = self.at.insert(host.addr, id);
        assert!(taken.is_none(), "something runs at {}", host.addr);
        let wall = WALL_ORIGIN_MICROS + now.as_micros();
        let local = LocalNode {
            cluster: ClusterId::of(CLUSTER),
            name: host.spec.name.clone(),
            addr: host.addr,
            boot: wall.saturating_add_signed(host.wall_offset_micros),
            meta: host.spec.meta.clone(),
        };
        let config = host.spec.config.as_ref().unwrap_or(&self.config);
        let mut node = Protocol::new(config, local, seed, Instant::ORIGIN).expect("it is valid");
        node.set_rules(self.rules);
        for (scope, roles) in &host.spec.scopes {
            let roles = roles.clone();
            let join = Command::JoinScope(scope.clone());
            let take = Command::AddRoles { scope: scope.clone(), roles };
            for command in [join, take] {
                node.handle_command(Instant::ORIGIN, command).expect("a host that is set up well");
            }
        }
        host.clock = Clock::new(now, host.drift_ppm);
        host.activity = Activity::Running;
        if let Some(checks) = &mut self.checks {
            checks.started(id, &node);
        }
        host.process = Some(Process { node, view: None, events: Vec::new(), outcomes: Vec::new() });
    }

    /// Shows the user of a new process what its node knows already and tells no more.
    pub(super) fn show(&mut self, id: HostId) {
        let process = self.hosts[id.index()].process.as_mut().expect("it has just been made");
        if !self.has_views {
            return;
        }
        let node = &process.node;
        let (mut publisher, view) = Publisher::new(node.local().clone());
        for member in node.members() {
            publisher.apply(&Event::NodeUp { node: member.clone() });
            for scope in node.scopes() {
                for role in &node.roles(&scope, member.id()) {
                    let (scope, node, role) = (scope.clone(), member.clone(), role.clone());
                    publisher.apply(&Event::RoleAdded { scope, node, role });
                }
            }
        }
        let _ = publisher.publish();
        process.view = Some((publisher, view));
    }
}

/// A watcher that sees nothing.
pub(super) fn ignore(_: Heard<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}
