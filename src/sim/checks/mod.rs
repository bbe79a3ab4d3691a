//! What must always hold, looked at after every turn of every host.
//!
//! Each checker is a struct of its own that knows one rule and counts how often the rule was really
//! put to the test: a rise from the dead that was seen, not a turn that was looked at. So a green
//! run cannot be an empty one. [`Simulation::checked`](super::Simulation::checked) switches them
//! on; whatever breaks a rule then panics with a [`Violation`].
//!
//! ```
//! use rolecall::sim::{HostSpec, Simulation};
//! use rolecall::{Config, ScopeName};
//! use std::time::Duration;
//!
//! let mut sim = Simulation::new(1, Config::lan()).checked();
//! let a = sim.start(HostSpec::new("a").scope("jobs", ["worker"]));
//! let b = sim.start(HostSpec::new("b").scope("jobs", ["worker"]).seeds([sim.addr(a)]));
//! sim.run(Duration::from_secs(2));
//! sim.pause(b);
//! sim.run(Duration::from_secs(60));
//! sim.resume(b);
//! let took = sim.converge().expect("all agree again");
//!
//! let exercised = sim.checks().unwrap().exercised();
//! assert!(exercised["rising from the dead"] > 0 && took < Duration::from_secs(60));
//! ```

mod convergence;
mod queues;
mod scopes;
mod states;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::host::{CLUSTER, HostId};
use crate::event::Event;
use crate::node::{NodeId, NodeName, ScopeName};
use crate::proto::{Outcome, Protocol, Sighting};
use crate::time::Instant;
use crate::view::ClusterView;
use crate::wire::{
    ClusterId, Frame, ScopeId, decode_cargo, decode_frames, decode_header, frame::Summary,
};

pub use convergence::{Convergence, Disagreement};
pub use queues::Queues;
pub use scopes::{Generations, Isolation};
pub use states::{Incarnations, Risen, SelfBelief, Transitions};
pub use views::Views;

/// What a checker found; the error says what was seen.
pub type Verdict = Result<(), String>;

/// Turns of a host between two looks at what is dear to look at.
const DEAR_TURNS: u64 = 16;

/// A rule that was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// When, in virtual time.
    pub at: Instant,
    /// On which host, if on one in particular.
    pub host: Option<HostId>,
    /// Which rule.
    pub checker: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: at {:?}", self.checker, self.at)?;
        if let Some(host) = self.host {
            write!(f, " on host {}", host.index())?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for Violation {}

/// What is remembered of the run on a host.
struct Watched {
    run: NodeId,
    turns: u64,
    before: Vec<Sighting>,
    /// The scopes that it was in, and what it knew of them, in short.
    joined: BTreeMap<ScopeId, Summary>,
    names: Vec<ScopeName>,
}

/// All checkers, and what they have seen so far.
#[derive(Default)]
pub struct Checks {
    incarnations: Incarnations,
    generations: Generations,
    risen: Risen,
    transitions: Transitions,
    self_belief: SelfBelief,
    views: Views,
    isolation: Isolation,
    queues: Queues,
    pub(super) convergence: Convergence,
    /// How often the node's own invariants were looked at.
    own: u64,
    hosts: BTreeMap<HostId, Watched>,
    /// The runs of each name that are alive, and the names that two had at once.
    alive: BTreeMap<NodeName, BTreeSet<HostId>>,
    contested: BTreeSet<NodeName>,
}

impl Checks {
    /// The names of all checkers.
    pub const NAMES: [&'static str; 10] = [
        Incarnations::NAME,
        Generations::NAME,
        Risen::NAME,
        Transitions::NAME,
        SelfBelief::NAME,
        Views::NAME,
        Isolation::NAME,
        Queues::NAME,
        Convergence::NAME,
        "own invariants",
    ];

    /// How often each was really put to the test.
    pub fn exercised(&self) -> BTreeMap<&'static str, u64> {
        let counts = [
            self.incarnations.exercised(),
            self.generations.exercised(),
            self.risen.exercised(),
            self.transitions.exercised(),
            self.self_belief.exercised(),
            self.views.exercised(),
            self.isolation.exercised(),
            self.queues.exercised(),
            self.convergence.exercised(),
            self.own,
        ];
        Checks::NAMES.into_iter().zip(counts).collect()
    }

    /// A new process: nothing is known of it yet.
    pub(super) fn started(&mut self, host: HostId, node: &Protocol) {
        let name = node.local().node_name().clone();
        let alive = self.alive.entry(name.clone()).or_default();
        alive.insert(host);
        if alive.len() > 1 {
            self.contested.insert(name);
        }
        let run = node.local().id();
        let (before, names) = (Vec::new(), Vec::new());
        let watched = Watched { run, turns: 0, before, joined: BTreeMap::new(), names };
        self.hosts.insert(host, watched);
        self.views.started(host);
    }

    /// A process has ended.
    pub(super) fn ended(&mut self, host: HostId, node: &Protocol) {
        if let Some(alive) = self.alive.get_mut(node.local().node_name()) {
            alive.remove(&host);
        }
    }

    /// The user of a node is told something.
    pub(super) fn heard(&mut self, at: Instant, host: HostId, node: &Protocol, event: &Event) {
        let watched = self.hosts.get(&host).expect("it was started");
        if matches!(event, Event::RoleAdded { .. } | Event::RoleRemoved { .. }) {
            let verdict = self.isolation.told(&watched.names, &node.scopes(), event);
            insist(at, host, Isolation::NAME, verdict);
        }
        let verdict = self.views.heard(host, watched.run, event);
        insist(at, host, Views::NAME, verdict);
    }

    /// A node tells what came of something.
    pub(super) fn outcome(&mut self, at: Instant, host: HostId, node: &Protocol, out: &Outcome) {
        let contested = self.contested.contains(node.local().node_name());
        insist(at, host, SelfBelief::NAME, self.self_belief.outcome(out, contested));
    }

    /// A node has taken a turn; its datagrams have not been fetched yet.
    pub(super) fn observe(
        &mut self,
        at: Instant,
        host: HostId,
        node: &Protocol,
        view: Option<&ClusterView>,
    ) {
        let mut watched = self.hosts.remove(&host).expect("it was started");
        watched.turns += 1;
        self.observe_states(at, host, &mut watched, node);
        self.observe_scopes(at, host, &mut watched, node);
        insist(at, host, Queues::NAME, self.queues.see(&node.queues()));
        if watched.turns.is_multiple_of(DEAR_TURNS) {
            node.check();
            self.own += 1;
        }
        let dear = watched.turns.is_multiple_of(DEAR_TURNS / 2);
        let verdict = self.views.turned(host, node, view, dear);
        insist(at, host, Views::NAME, verdict);
        self.hosts.insert(host, watched);
    }

    fn observe_states(&mut self, at: Instant, host: HostId, it: &mut Watched, node: &Protocol) {
        let now: Vec<Sighting> = node.sightings().collect();
        let mut before = it.before.iter().peekable();
        for new in &now {
            while let Some(gone) = before.next_if(|old| old.id < new.id) {
                self.generations.forgot(it.run, gone.id);
            }
            let old = before.next_if(|old| old.id == new.id);
            if old == Some(new) {
                continue;
            }
            if new.id == it.run {
                insist(at, host, Incarnations::NAME, self.incarnations.own(new));
                insist(at, host, SelfBelief::NAME, self.self_belief.see(old, new));
            }
            insist(at, host, Incarnations::NAME, self.incarnations.see(old, new));
            if new.state.is_final() {
                self.generations.forgot(it.run, new.id);
            }
            if let Some(old) = old {
                insist(at, host, Risen::NAME, self.risen.see(old, new));
                insist(at, host, Transitions::NAME, self.transitions.see(old, new));
            }
        }
        for gone in before {
            self.generations.forgot(it.run, gone.id);
        }
        it.before = now;
    }

    fn observe_scopes(&mut self, at: Instant, host: HostId, it: &mut Watched, node: &Protocol) {
        let digest = node.digest();
        let joined: BTreeMap<ScopeId, Summary> = digest.scopes.into_iter().collect();
        if joined == it.joined && it.turns > 1 {
            return;
        }
        for (scope, summary) in &joined {
            if it.joined.get(scope) == Some(summary) {
                continue;
            }
            self.isolation.joined(*scope, it.run);
            // The own generation first: nobody may know a later one.
            let own = node.kept_generation(*scope, it.run).unwrap_or_default();
            insist(at, host, Generations::NAME, self.generations.own(*scope, it.run, own));
            for (id, generation) in node.generations(*scope) {
                let version = node.sighting(id).map_or(0, |sighting| sighting.version);
                let verdict = self.generations.see(it.run, (*scope, id), generation, version);
                insist(at, host, Generations::NAME, verdict);
            }
        }
        for scope in it.joined.keys().filter(|scope| !joined.contains_key(scope)) {
            self.generations.left(it.run, *scope);
        }
        it.joined = joined;
        it.names = node.scopes();
    }

    /// A node sends a datagram.
    pub(super) fn sent(&mut self, at: Instant, host: HostId, datagram: &[u8]) {
        let mut frames = Vec::new();
        let header = decode_header(datagram, ClusterId::of(CLUSTER));
        let (Ok(header), Ok(())) = (header, decode_frames(datagram, &mut frames)) else {
            let what = "a datagram that the node itself could not read".to_string();
            return insist(at, host, Isolation::NAME, Err(what));
        };
        let mut carried = Vec::new();
        for frame in &frames {
            insist(at, host, Isolation::NAME, self.isolation.sent(header, frame));
            let Frame::Delegate(delegate) = frame else { continue };
            if decode_cargo(&delegate.cargo, &mut carried).is_err() {
                let what = "a cargo that the node itself could not read".to_string();
                insist(at, host, Isolation::NAME, Err(what));
            }
            for frame in &carried {
                insist(at, host, Isolation::NAME, self.isolation.sent(header, frame));
            }
        }
    }
}

/// Panics when a rule is broken.
fn insist(at: Instant, host: HostId, checker: &'static str, verdict: Verdict) {
    if let Err(what) = verdict {
        panic!("{}", Violation { at, host: Some(host), checker, what });
    }
}
