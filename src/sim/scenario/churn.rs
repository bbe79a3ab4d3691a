//! Crashes, restarts and role changes all the time: how far views lag behind the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::agreement::{agree, lost_updates};
use super::{Curve, Measured, Meter, SECOND, Scenario, Setup, ms, quantile, rounded};
use crate::event::{DownReason, Event};
use crate::node::NodeId;
use crate::proto::Command;
use crate::role::Role;
use crate::sim::{Faults, Heard, HostId, Simulation};
use crate::time::Instant;

/// How long the calm at the end may take.
const LIMIT: Duration = Duration::from_secs(300);

/// At most this share of the hosts is down at a time.
const MAX_DOWN: f64 = 0.1;

/// Every node crashes about once in so long.
const LIFETIME: Duration = Duration::from_secs(600);

/// Every node changes a role about once in so long.
const ROLE_INTERVAL: Duration = Duration::from_secs(30);

/// Nodes crash and start again, and change their roles, for `duration` (120 s); then calm.
#[derive(Clone, Copy, Debug)]
pub struct Churn;

/// How views kept up.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(documented::DocumentedFields))]
pub struct ChurnFigures {
    /// Role changes that somebody of the scope still lacked after the calm, of all trials.
    pub lost_updates: u64,
    /// Running nodes declared failed, at each node where that was seen.
    pub false_downs: u64,
    /// The longest that a change (a crash, a start, a role taken or given up) took until the last
    /// node that had to learn of it did.
    pub max_disagreement_ms: f64,
    /// The same of role changes alone: median.
    pub role_p50_ms: Option<f64>,
    /// The 99th percentile.
    pub role_p99_ms: Option<f64>,
    /// Crashes in all trials.
    pub crashes: usize,
    /// Role changes in all trials.
    pub role_changes: usize,
    /// Trials in which not all agreed within 300 s of calm.
    pub apart: usize,
}

/// One trial.
#[derive(Clone, Debug, Default)]
pub struct ChurnTrial {
    lost: u64,
    false_downs: u64,
    apart: bool,
    crashes: usize,
    role_changes: usize,
    /// How long changes took, in milliseconds.
    roles: Vec<f64>,
    others: Vec<f64>,
}

/// Something that others are to learn.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Fact {
    Up(NodeId),
    Down(NodeId),
    Added(NodeId, Role),
    Removed(NodeId, Role),
}

struct World {
    rng: ChaCha8Rng,
    hosts: Vec<HostId>,
    down: BTreeSet<HostId>,
    /// Who runs, by run.
    runs: BTreeMap<NodeId, HostId>,
    /// The roles that each run took meanwhile.
    taken: BTreeMap<NodeId, Vec<Role>>,
    /// Who has not learned of a fact yet, and since when it is one.
    open: BTreeMap<Fact, (Instant, BTreeSet<HostId>)>,
    next_role: u32,
    trial: ChurnTrial,
}

impl World {
    fn hear(&mut self, heard: Heard<'_>) {
        let fact = match heard.event {
            Event::NodeUp { node } => Fact::Up(node.id()),
            Event::NodeDown { node, reason } => {
                let failed = matches!(reason, DownReason::Failed(_));
                let lives = self.runs.contains_key(&node.id());
                self.trial.false_downs += u64::from(failed && lives);
                Fact::Down(node.id())
            }
            Event::RoleAdded { node, role, .. } => Fact::Added(node.id(), role.clone()),
            Event::RoleRemoved { node, role, .. } => Fact::Removed(node.id(), role.clone()),
            _ => return,
        };
        if let Some((_, waiting)) = self.open.get_mut(&fact) {
            waiting.remove(&heard.host);
            self.close(heard.at, &fact);
        }
    }

    /// Notes how long a fact took, if all know it.
    fn close(&mut self, now: Instant, fact: &Fact) {
        let known = self.open.get(fact).filter(|(_, waiting)| waiting.is_empty());
        let Some(took) = known.map(|(since, _)| ms(now - *since)) else { return };
        self.open.remove(fact);
        match fact {
            Fact::Added(..) | Fact::Removed(..) => self.trial.roles.push(took),
            Fact::Up(_) | Fact::Down(_) => self.trial.others.push(took),
        }
    }

    fn tell(&mut self, now: Instant, fact: &Fact, waiting: BTreeSet<HostId>) {
        self.open.insert(fact.clone(), (now, waiting));
        self.close(now, fact);
    }

    /// Running nodes that hold a run alive.
    fn knowing(sim: &Simulation, id: NodeId) -> BTreeSet<HostId> {
        let holds = |node: &crate::proto::Protocol| {
            node.local().id() != id && node.sighting(id).is_some_and(|it| it.announced)
        };
        sim.running().filter(|(_, node)| holds(node)).map(|(host, _)| host).collect()
    }

    fn crash(&mut self, sim: &mut Simulation) {
        let Some(host) = self.running() else { return };
        let id = sim.node(host).expect("it runs").local().id();
        sim.crash(host);
        self.trial.crashes += 1;
        self.down.insert(host);
        self.runs.remove(&id);
        // It learns nothing any more, and what it was or had changed is of no interest.
        self.open.retain(|fact, _| match fact {
            Fact::Up(run) | Fact::Added(run, _) | Fact::Removed(run, _) => *run != id,
            Fact::Down(_) => true,
        });
        for (_, waiting) in self.open.values_mut() {
            waiting.remove(&host);
        }
        let learned: Vec<Fact> = self.open.keys().cloned().collect();
        learned.iter().for_each(|fact| self.close(sim.now(), fact));
        self.tell(sim.now(), &Fact::Down(id), World::knowing(sim, id));
    }

    fn restart(&mut self, sim: &mut Simulation) {
        let down: Vec<HostId> = self.down.iter().copied().collect();
        let Some(host) = down.choose(&mut self.rng).copied() else { return };
        let others = sim.running().map(|(other, _)| other).collect();
        sim.restart(host);
        self.down.remove(&host);
        let id = sim.node(host).expect("it was started").local().id();
        self.runs.insert(id, host);
        self.tell(sim.now(), &Fact::Up(id), others);
    }

    fn change_role(&mut self, sim: &mut Simulation) {
        let Some(host) = self.running() else { return };
        let node = sim.node(host).expect("it runs");
        let (id, scope) = (node.local().id(), node.scopes()[0].clone());
        let mut knowing = World::knowing(sim, id);
        knowing.retain(|it| sim.node(*it).is_some_and(|node| node.scopes().contains(&scope)));
        let taken = self.taken.entry(id).or_default();
        self.trial.role_changes += 1;
        if taken.len() > 2 {
            let role = taken.remove(0);
            let late = self.open.remove(&Fact::Added(id, role.clone()));
            let late = late.map(|(_, waiting)| waiting).unwrap_or_default();
            knowing.retain(|it| !late.contains(it));
            let roles = vec![role.clone()];
            sim.command(host, Command::RemoveRoles { scope, roles }).expect("it runs");
            self.tell(sim.now(), &Fact::Removed(id, role), knowing);
        } else {
            self.next_role += 1;
            let role = Role::from(self.next_role);
            taken.push(role.clone());
            let roles = vec![role.clone()];
            sim.command(host, Command::AddRoles { scope, roles }).expect("it runs");
            self.tell(sim.now(), &Fact::Added(id, role), knowing);
        }
    }

    fn running(&mut self) -> Option<HostId> {
        let host = self.hosts[self.rng.random_range(0..self.hosts.len())];
        (!self.down.contains(&host)).then_some(host)
    }

    /// One thing happens, or nothing, as often as the intervals say.
    fn step(&mut self, sim: &mut Simulation, pace: Duration) {
        let each = |interval: Duration| pace.as_secs_f64() / interval.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a number of hosts")]
        let hosts = self.hosts.len() as f64;
        if self.rng.random_bool((hosts * each(ROLE_INTERVAL)).min(1.0)) {
            self.change_role(sim);
        }
        #[expect(clippy::cast_precision_loss, reason = "a number of hosts")]
        let down = self.down.len() as f64 / hosts;
        if down < MAX_DOWN && self.rng.random_bool((hosts * each(LIFETIME)).min(1.0)) {
            self.crash(sim);
        }
        // Each is down for 10 seconds on average.
        #[expect(clippy::cast_precision_loss, reason = "a number of hosts")]
        let starts = self.down.len() as f64 * each(10 * SECOND);
        if self.rng.random_bool(starts.min(1.0)) {
            self.restart(sim);
        }
    }

    fn watch(&mut self, sim: &mut Simulation, duration: Duration) {
        sim.watch(duration, |heard| {
            self.hear(heard);
            ControlFlow::Continue(())
        });
    }
}

impl Scenario for Churn {
    type Trial = ChurnTrial;
    type Figures = ChurnFigures;
    const NAME: &'static str = "churn";

    fn trial(&self, setup: &Setup, seed: u64, _: &Meter) -> Measured<ChurnTrial> {
        let (mut sim, hosts) = setup.converged(seed);
        let run = |host: &HostId| (sim.node(*host).expect("it runs").local().id(), *host);
        let mut world = World {
            rng: ChaCha8Rng::seed_from_u64(!seed),
            runs: hosts.iter().map(run).collect(),
            hosts,
            down: BTreeSet::new(),
            taken: BTreeMap::new(),
            open: BTreeMap::new(),
            next_role: 0,
            trial: ChurnTrial::default(),
        };
        let start = sim.now();
        let duration = setup.duration.unwrap_or(120 * SECOND);
        // So often that at most one thing of each kind happens at a time, if not more is asked for.
        let nodes = u32::try_from(world.hosts.len()).unwrap_or(u32::MAX);
        let pace = (SECOND / 10).min(ROLE_INTERVAL / nodes);
        while sim.now() - start < duration {
            world.step(&mut sim, pace);
            world.watch(&mut sim, pace);
        }
        sim.set_faults(Faults { latency: setup.faults.latency, ..Faults::default() });
        while !world.down.is_empty() {
            world.restart(&mut sim);
        }
        let calm = sim.now();
        while sim.now() - calm < LIMIT && !agree(&sim) {
            world.watch(&mut sim, SECOND);
        }
        // What nobody has learned by now lasted until now.
        let unknown: Vec<f64> = world.open.values().map(|(at, _)| ms(sim.now() - *at)).collect();
        world.trial.others.extend(unknown);
        let lost = lost_updates(&sim);
        let of = ChurnTrial { lost, apart: !agree(&sim), ..world.trial };
        Measured { of, virtual_time: sim.now() - Instant::ORIGIN }
    }

    fn figures(&self, _: &Setup, trials: &[ChurnTrial]) -> ChurnFigures {
        let roles: Vec<f64> = trials.iter().flat_map(|it| it.roles.iter().copied()).collect();
        let others = trials.iter().flat_map(|it| it.others.iter().copied());
        let worst = others.chain(roles.iter().copied()).fold(0.0, f64::max);
        ChurnFigures {
            lost_updates: trials.iter().map(|trial| trial.lost).sum(),
            false_downs: trials.iter().map(|trial| trial.false_downs).sum(),
            max_disagreement_ms: rounded(worst),
            role_p50_ms: quantile(&roles, 0.5).map(rounded),
            role_p99_ms: quantile(&roles, 0.99).map(rounded),
            crashes: trials.iter().map(|trial| trial.crashes).sum(),
            role_changes: trials.iter().map(|trial| trial.role_changes).sum(),
            apart: trials.iter().filter(|trial| trial.apart).count(),
        }
    }

    fn curves(&self, _: &Setup, trials: &[ChurnTrial]) -> Vec<Curve> {
        let all = |of: fn(&ChurnTrial) -> &Vec<f64>| {
            trials.iter().flat_map(|trial| of(trial).iter().copied()).collect::<Vec<f64>>()
        };
        let (roles, others) = (all(|trial| &trial.roles), all(|trial| &trial.others));
        let (role_count, other_count) = (roles.len(), others.len());
        vec![
            Curve::of_moments("role changes known to all", roles, role_count),
            Curve::of_moments("crashes and starts known to all", others, other_count),
        ]
    }
}
