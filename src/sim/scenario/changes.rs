//! Role changes all the time, and nothing else: how far views lag behind, and what it costs.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::time::Duration;

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::agreement::{agree, lost_updates};
use super::{Curve, Measured, Meter, SECOND, Scenario, Setup, mean, ms, per_node};
use super::{quantile, rounded};
use crate::event::Event;
use crate::node::{Generation, NodeId, ScopeName};
use crate::proto::{Command, Protocol};
use crate::role::Role;
use crate::sim::{Faults, Heard, HostId, Simulation};
use crate::time::Instant;

/// How long the calm at the end may take.
const LIMIT: Duration = Duration::from_secs(300);

/// How often agreement is looked for in the calm.
const STEP: Duration = Duration::from_millis(50);

/// For so long idle traffic is measured before the changes.
const WINDOW: Duration = Duration::from_secs(10);

/// Random nodes of a converged cluster take roles and give them up, each in one of its scopes, for
/// `duration` (60 s); then calm.
#[derive(Clone, Copy, Debug)]
pub struct Changes {
    /// Role changes per second, of all nodes together.
    pub rate: u32,
}

impl Default for Changes {
    fn default() -> Changes {
        Changes { rate: 100 }
    }
}

/// How views kept up.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(documented::DocumentedFields))]
pub struct ChangesFigures {
    /// From a change until the last node of the scope has it, or a later one of the same node:
    /// median of the changes of all trials.
    pub known_p50_ms: Option<f64>,
    /// The 99th percentile.
    pub known_p99_ms: Option<f64>,
    /// The worst change.
    pub known_max_ms: Option<f64>,
    /// The mean of that over the changes of one node: median of the nodes.
    pub late_by_node_p50_ms: Option<f64>,
    /// The node whose changes took longest.
    pub late_by_node_max_ms: Option<f64>,
    /// From the end of the changes until all agree on them: median of the trials, of those in which
    /// that came about.
    pub caught_up_ms: Option<f64>,
    /// UDP payload that a node sent per second while roles changed.
    pub bytes_per_node_s: f64,
    /// What all nodes sent until all agreed beyond what they send anyway, for each change and each
    /// node of its scope.
    pub bytes_per_change_and_node: f64,
    /// Role changes in all trials.
    pub changes: usize,
    /// Role changes that somebody of the scope still lacked after the calm, of all trials.
    pub lost_updates: u64,
    /// Nodes declared down, at each node where that was seen.
    pub false_downs: u64,
    /// Trials in which not all agreed within 300 s of calm.
    pub apart: usize,
}

/// One trial.
#[derive(Clone, Debug, Default)]
pub struct ChangesTrial {
    /// How long the changes of each node took, in milliseconds.
    took: Vec<Vec<f64>>,
    caught_up: Option<f64>,
    bytes_per_node_s: f64,
    bytes_per_change_and_node: f64,
    changes: usize,
    lost: u64,
    false_downs: u64,
}

/// A change that somebody may still lack.
struct Change {
    generation: Generation,
    made: Instant,
    /// How many nodes of the scope lack it.
    waiting: usize,
}

/// A node whose roles change.
struct Subject {
    id: NodeId,
    scope: ScopeName,
    /// Others in the scope.
    audience: usize,
    /// The roles that it took meanwhile, the oldest first.
    taken: VecDeque<Role>,
    changes: Vec<Change>,
}

struct World {
    rng: ChaCha8Rng,
    hosts: Vec<HostId>,
    /// By host, as all that follows.
    subjects: Vec<Subject>,
    by_id: BTreeMap<NodeId, usize>,
    /// How many of a subject's changes a host has: a row for each host.
    reached: Vec<u32>,
    next_role: u32,
    /// Nodes that had to hear of a change, its own among them, of all changes.
    hearers: usize,
    trial: ChangesTrial,
}

impl World {
    fn new(sim: &Simulation, hosts: Vec<HostId>, seed: u64) -> World {
        let mut rng = ChaCha8Rng::seed_from_u64(!seed);
        let mut sizes: BTreeMap<ScopeName, usize> = BTreeMap::new();
        for scope in sim.running().flat_map(|(_, node)| node.scopes()) {
            *sizes.entry(scope).or_default() += 1;
        }
        let subject = |node: &Protocol| {
            let scope = node.scopes().choose(&mut rng).expect("a node is in a scope").clone();
            let audience = sizes[&scope] - 1;
            let (taken, changes) = (VecDeque::new(), Vec::new());
            Subject { id: node.local().id(), scope, audience, taken, changes }
        };
        let nodes = hosts.iter().map(|host| sim.node(*host).expect("it runs"));
        let subjects: Vec<Subject> = nodes.map(subject).collect();
        let ids = subjects.iter().enumerate().map(|(n, subject)| (subject.id, n));
        let trial = ChangesTrial { took: vec![Vec::new(); hosts.len()], ..ChangesTrial::default() };
        World {
            rng,
            by_id: ids.collect(),
            reached: vec![0; hosts.len() * hosts.len()],
            next_role: 0,
            hearers: 0,
            subjects,
            hosts,
            trial,
        }
    }

    fn change(&mut self, sim: &mut Simulation) {
        let n = self.rng.random_range(0..self.hosts.len());
        let subject = &mut self.subjects[n];
        let scope = subject.scope.clone();
        let command = if subject.taken.len() > 2 {
            Command::RemoveRoles { scope, roles: subject.taken.pop_front().into_iter().collect() }
        } else {
            self.next_role += 1;
            let role = Role::from(self.next_role);
            subject.taken.push_back(role.clone());
            Command::AddRoles { scope, roles: vec![role] }
        };
        sim.command(self.hosts[n], command).expect("a running node can");
        self.trial.changes += 1;
        self.hearers += subject.audience + 1;
        let node = sim.node(self.hosts[n]).expect("it runs");
        let generation = node.generation(&subject.scope, subject.id);
        let (made, waiting) = (sim.now(), subject.audience);
        if waiting > 0 {
            subject.changes.push(Change { generation, made, waiting });
        }
    }

    /// Whatever a host is told of a node, it may have more of its changes now.
    fn hear(&mut self, heard: Heard<'_>) {
        let node = match heard.event {
            Event::RoleAdded { node, .. }
            | Event::RoleRemoved { node, .. }
            | Event::NodeUp { node } => node,
            Event::NodeDown { .. } => {
                self.trial.false_downs += 1;
                return;
            }
            _ => return,
        };
        let Some(&n) = self.by_id.get(&node.id()) else { return };
        let (subject, host) = (&mut self.subjects[n], heard.host.index());
        if host == n {
            return;
        }
        let generation = heard.node.generation(&subject.scope, subject.id);
        let reached = &mut self.reached[host * self.hosts.len() + n];
        let new = subject.changes[*reached as usize..].iter_mut();
        for change in new.take_while(|change| change.generation <= generation) {
            *reached += 1;
            change.waiting -= 1;
            if change.waiting == 0 {
                self.trial.took[n].push(ms(heard.at - change.made));
            }
        }
    }

    fn watch(&mut self, sim: &mut Simulation, duration: Duration) {
        sim.watch(duration, |heard| {
            self.hear(heard);
            ControlFlow::Continue(())
        });
    }

    /// Makes changes at random moments, as often as they are to be.
    fn make_changes(&mut self, sim: &mut Simulation, rate: u32, duration: Duration) {
        let start = sim.now();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number of changes"
        )]
        let count = (f64::from(rate) * duration.as_secs_f64()).round() as usize;
        let moment = |_| duration.mul_f64(self.rng.random_range(0.0..1.0));
        let mut moments: Vec<Duration> = (0..count).map(moment).collect();
        moments.sort_unstable();
        for moment in moments {
            self.watch(sim, moment.saturating_sub(sim.now() - start));
            self.change(sim);
        }
        self.watch(sim, duration.saturating_sub(sim.now() - start));
    }
}

impl Scenario for Changes {
    type Trial = ChangesTrial;
    type Figures = ChangesFigures;
    const NAME: &'static str = "changes";

    fn trial(&self, setup: &Setup, seed: u64, _: &Meter) -> Measured<ChangesTrial> {
        let (mut sim, hosts) = setup.converged(seed);
        let sent = |sim: &Simulation| sim.network().carried().sent_bytes;
        let before = sent(&sim);
        sim.run(WINDOW);
        let (start, idle) = (sim.now(), sent(&sim));
        let duration = setup.duration.unwrap_or(60 * SECOND);
        let mut world = World::new(&sim, hosts, seed);
        world.make_changes(&mut sim, self.rate, duration);
        let (calm, changed) = (sim.now(), sent(&sim));
        sim.set_faults(Faults { latency: setup.faults.latency, ..Faults::default() });
        while sim.now() - calm < LIMIT && !agree(&sim) {
            world.watch(&mut sim, STEP);
        }
        // What somebody has not learned by now lasted until now.
        for (subject, took) in world.subjects.iter().zip(&mut world.trial.took) {
            let open = subject.changes.iter().filter(|change| change.waiting > 0);
            took.extend(open.map(|change| ms(sim.now() - change.made)));
        }
        let windows = (sim.now() - start).as_secs_f64() / WINDOW.as_secs_f64();
        let usual = per_node(idle - before, world.hearers) * windows;
        let agreed = agree(&sim);
        let of = ChangesTrial {
            caught_up: agreed.then(|| ms(sim.now() - calm)),
            bytes_per_node_s: per_node(changed - idle, world.hosts.len())
                / (calm - start).as_secs_f64().max(1e-9),
            bytes_per_change_and_node: per_node(sent(&sim) - idle, world.hearers) - usual,
            lost: lost_updates(&sim),
            ..world.trial
        };
        Measured { of, virtual_time: sim.now() - Instant::ORIGIN }
    }

    fn figures(&self, _: &Setup, trials: &[ChangesTrial]) -> ChangesFigures {
        let by_node = || trials.iter().flat_map(|trial| &trial.took);
        let took: Vec<f64> = by_node().flatten().copied().collect();
        let late = by_node().filter(|took| !took.is_empty());
        let late: Vec<f64> = late.map(|took| mean(took.iter().copied())).collect();
        let caught_up: Vec<f64> = trials.iter().filter_map(|trial| trial.caught_up).collect();
        let of = |values: &[f64], share| quantile(values, share).map(rounded);
        let per_change = trials.iter().map(|trial| trial.bytes_per_change_and_node);
        ChangesFigures {
            known_p50_ms: of(&took, 0.5),
            known_p99_ms: of(&took, 0.99),
            known_max_ms: of(&took, 1.0),
            late_by_node_p50_ms: of(&late, 0.5),
            late_by_node_max_ms: of(&late, 1.0),
            caught_up_ms: of(&caught_up, 0.5),
            bytes_per_node_s: rounded(mean(trials.iter().map(|trial| trial.bytes_per_node_s))),
            bytes_per_change_and_node: rounded(mean(per_change)),
            changes: trials.iter().map(|trial| trial.changes).sum(),
            lost_updates: trials.iter().map(|trial| trial.lost).sum(),
            false_downs: trials.iter().map(|trial| trial.false_downs).sum(),
            apart: trials.len() - caught_up.len(),
        }
    }

    fn curves(&self, _: &Setup, trials: &[ChangesTrial]) -> Vec<Curve> {
        let took = trials.iter().flat_map(|trial| trial.took.iter().flatten().copied());
        let took: Vec<f64> = took.collect();
        let count = took.len();
        vec![Curve::of_moments("role changes known to all", took, count)]
    }
}
