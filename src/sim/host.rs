//! One host: what is installed on it, what runs there, its clock, and its socket's buffers.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::Config;
use crate::event::Event;
use crate::node::{NodeName, ScopeName};
use crate::proto::{Blocked, Outcome, Protocol};
use crate::role::Role;
use crate::time::Instant;
use crate::view::{ClusterView, Publisher};

/// The name of the cluster that all hosts are in.
pub(super) const CLUSTER: &str = "simulation";

/// Names a host of a [`Simulation`](super::Simulation).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostId(pub(super) u32);

impl HostId {
    /// The how-manieth host of its simulation it is, from 0.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is installed on a host: the node that it runs whenever it is started.
///
/// ```
/// use rolecall::sim::HostSpec;
///
/// let spec = HostSpec::new("node-1").scope("default", ["web", "api"]).scope("jobs", ["worker"]);
/// ```
#[derive(Clone, Debug)]
pub struct HostSpec {
    pub(super) name: NodeName,
    pub(super) addr: Option<SocketAddr>,
    pub(super) seeds: Vec<SocketAddr>,
    pub(super) scopes: Vec<(ScopeName, Vec<Role>)>,
    pub(super) meta: Bytes,
    pub(super) config: Option<Config>,
}

impl HostSpec {
    /// A node of this name, in no scope, without seeds.
    ///
    /// # Panics
    /// When the name is not allowed, see [`NodeName::new`].
    pub fn new(name: &str) -> HostSpec {
        HostSpec {
            name: NodeName::new(name).expect("a valid name"),
            addr: None,
            seeds: Vec::new(),
            scopes: Vec::new(),
            meta: Bytes::new(),
            config: None,
        }
    }

    /// Its address; by default the simulation picks one.
    #[must_use]
    pub fn addr(mut self, addr: SocketAddr) -> HostSpec {
        self.addr = Some(addr);
        self
    }

    /// The addresses that it asks to let it in.
    #[must_use]
    pub fn seeds(mut self, seeds: impl IntoIterator<Item = SocketAddr>) -> HostSpec {
        self.seeds.extend(seeds);
        self
    }

    /// A scope that it joins when it starts, and roles that it takes there.
    ///
    /// # Panics
    /// When the name is not allowed, see [`ScopeName::new`].
    #[must_use]
    pub fn scope<R: Into<Role>>(
        mut self,
        name: &str,
        roles: impl IntoIterator<Item = R>,
    ) -> HostSpec {
        let name = ScopeName::new(name).expect("a valid name");
        let roles = roles.into_iter().map(Into::into);
        match self.scopes.iter_mut().find(|(scope, _)| *scope == name) {
            Some((_, more)) => more.extend(roles),
            None => self.scopes.push((name, roles.collect())),
        }
        self
    }

    /// Its metadata.
    #[must_use]
    pub fn meta(mut self, meta: impl Into<Bytes>) -> HostSpec {
        self.meta = meta.into();
        self
    }

    /// Its tuning, if it is not the one that all have.
    #[must_use]
    pub fn config(mut self, config: Config) -> HostSpec {
        self.config = Some(config);
        self
    }
}

/// Whether what is installed runs, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Activity {
    /// Nothing runs there; datagrams to it vanish.
    Down,
    /// It runs.
    Running,
    /// Nothing runs: a long pause of the machine. Datagrams wait in the socket's buffer.
    Paused,
    /// Timers run, but what is sent and what arrives is stuck until it goes on.
    Stalled,
    /// What arrives is stuck, and so is each of the node's loops from the moment that it sends:
    /// after that, only suspicions become verdicts. The anomaly of Lifeguard's experiments (section
    /// V.D), where the threads that send and receive are blocked.
    Blocked,
}

/// Datagrams that wait, up to so many bytes.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    waiting: VecDeque<(SocketAddr, Vec<u8>)>,
    bytes: usize,
}

impl Buffer {
    /// Keeps a datagram; false when there is no room.
    pub(super) fn push(&mut self, peer: SocketAddr, datagram: &[u8], max_bytes: usize) -> bool {
        let fits = self.bytes + datagram.len() <= max_bytes;
        if fits {
            self.bytes += datagram.len();
            self.waiting.push_back((peer, datagram.to_vec()));
        }
        fits
    }

    pub(super) fn take(&mut self) -> VecDeque<(SocketAddr, Vec<u8>)> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }
}

/// A host's own time: it may run fast or slow, and starts at zero with each process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// A moment of the simulation and what the clock showed then.
    anchor: (Instant, Instant),
    /// Nanoseconds that it gains per millisecond: parts per million.
    drift_ppm: i32,
}

impl Clock {
    pub(super) fn new(now: Instant, drift_ppm: i32) -> Clock {
        Clock { anchor: (now, Instant::ORIGIN), drift_ppm }
    }

    pub(super) fn set_drift(&mut self, now: Instant, drift_ppm: i32) {
        self.anchor = (now, self.local(now));
        self.drift_ppm = drift_ppm;
    }

    pub(super) fn local(&self, now: Instant) -> Instant {
        let passed = now.as_micros() - self.anchor.0.as_micros();
        let rate = i128::from(1_000_000 + self.drift_ppm);
        let shown = i128::from(passed) * rate / 1_000_000;
        let shown = u64::try_from(shown).expect("clocks do not run backwards");
        Instant::from_micros(self.anchor.1.as_micros() + shown)
    }

    /// The first moment at which the clock shows `local` or later.
    pub(super) fn global(&self, local: Instant) -> Instant {
        let to_pass = local.as_micros().saturating_sub(self.anchor.1.as_micros());
        let rate = i128::from(1_000_000 + self.drift_ppm);
        let passed = (i128::from(to_pass) * 1_000_000 + rate - 1) / rate;
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        Instant::from_micros(self.anchor.0.as_micros().saturating_add(passed))
    }
}

/// What runs on a host.
pub(super) struct Process {
    pub(super) node: Protocol,
    /// What its user reads, if the simulation shows it.
    pub(super) view: Option<(Publisher, Arc<ClusterView>)>,
    pub(super) events: Vec<(Instant, Event)>,
    pub(super) outcomes: Vec<Outcome>,
}

pub(super) struct Host {
    pub(super) spec: HostSpec,
    pub(super) addr: SocketAddr,
    pub(super) activity: Activity,
    pub(super) process: Option<Process>,
    pub(super) clock: Clock,
    pub(super) drift_ppm: i32,
    /// How far the host's wall clock is off, in microseconds: start stamps come from it.
    pub(super) wall_offset_micros: i64,
    pub(super) inbox: Buffer,
    pub(super) outbox: Buffer,
    /// What is stuck while it is blocked.
    pub(super) blocked: Blocked,
    /// When it is to be called next; older entries of the queue are void.
    pub(super) wake: Option<Instant>,
}

impl Host {
    pub(super) fn new(spec: HostSpec, addr: SocketAddr) -> Host {
        Host {
            spec,
            addr,
            activity: Activity::Down,
            process: None,
            clock: Clock::new(Instant::ORIGIN, 0),
            drift_ppm: 0,
            wall_offset_micros: 0,
            inbox: Buffer::default(),
            outbox: Buffer::default(),
            blocked: Blocked::default(),
            wake: None,
        }
    }

    pub(super) fn stop(&mut self) -> Option<Process> {
        self.activity = Activity::Down;
        self.wake = None;
        drop((self.inbox.take(), self.outbox.take()));
        self.process.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_drifts_is_called_when_it_shows_the_time() {
        let at = Instant::from_micros;
        for ppm in [-20_000, -1, 0, 1, 333, 20_000] {
            let mut clock = Clock::new(at(1000), ppm);
            assert_eq!(clock.local(at(1000)), Instant::ORIGIN);
            for deadline in [1, 77, 999_999, 123_456_789] {
                let call = clock.global(at(deadline));
                assert!(clock.local(call) >= at(deadline), "{ppm} {deadline}");
                let before = Instant::from_micros(call.as_micros() - 1);
                assert!(clock.local(before) < at(deadline), "{ppm} {deadline}");
            }
            let later = at(5_000_000);
            let shown = clock.local(later);
            clock.set_drift(later, 0);
            assert_eq!(clock.local(later), shown, "time does not jump");
        }
    }

    #[test]
    fn a_buffer_keeps_what_fits() {
        let mut buffer = Buffer::default();
        let peer = "10.0.0.1:1".parse().unwrap();
        assert!(buffer.push(peer, b"four", 7));
        assert!(!buffer.push(peer, b"four", 7));
        assert!(buffer.push(peer, b"two", 7));
        assert_eq!(buffer.take().len(), 2);
        assert!(buffer.push(peer, b"again", 7));
    }
}
