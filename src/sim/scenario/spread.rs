//! How long a change takes to be known.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{Curve, Measured, Meter, Scenario, Setup, mean, ms, per_node, quantile, rounded};
use crate::event::Event;
use crate::proto::{Command, Protocol, Rules};
use crate::role::Role;
use crate::sim::{Heard, HostId, Simulation};
use crate::time::Instant;

/// Whoever has not heard of the change by then has missed it.
const LIMIT: Duration = Duration::from_secs(60);

/// For so long traffic is compared, before and after the change.
const WINDOW: Duration = Duration::from_secs(10);

/// One node of a converged cluster takes a role; until the last live node of the scope has it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Spread {
    /// The share of the nodes that die silently right before, so that nobody has noticed yet.
    pub dead: f64,
    /// How the change reaches the others.
    pub via: Via,
}

/// How a change reaches the others.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Via {
    /// A few acknowledged hops; digests find what was missed
    #[default]
    FastPath,
    /// Gossip of which the first round is at once and includes the next node by id
    Gossip,
    /// Gossip and probes at their intervals that carry it to random nodes, as memberlist has them
    Piggyback,
}

impl Via {
    fn rules(self, rules: Rules) -> Rules {
        let gossip = Rules { fast_path: false, digests: false, ..rules };
        match self {
            Via::FastPath => rules,
            Via::Gossip => gossip,
            Via::Piggyback => Rules { eager_gossip: false, successor_gossip: false, ..gossip },
        }
    }
}

/// How a change spread.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(documented::DocumentedFields))]
pub struct SpreadFigures {
    /// Until half of the nodes have it: median of the trials.
    pub half_p50_ms: Option<f64>,
    /// Until the last has it: median of the trials, of those in which nobody missed it.
    pub p50_ms: Option<f64>,
    /// The 99th percentile.
    pub p99_ms: Option<f64>,
    /// The worst trial.
    pub max_ms: Option<f64>,
    /// Nodes that did not have it after 60 s, of all trials.
    pub missed: usize,
    /// Bytes (UDP payload) that all nodes sent beyond what they send anyway, divided by the nodes
    /// of the scope.
    pub bytes_per_node: f64,
    /// Datagrams, likewise.
    pub datagrams_per_node: f64,
}

/// One trial.
#[derive(Clone, Debug)]
pub struct SpreadTrial {
    /// When each node had it, in milliseconds, in order.
    moments: Vec<f64>,
    /// How many others were in the scope.
    audience: usize,
    bytes: f64,
    datagrams: f64,
}

impl Spread {
    /// Ends the share of the nodes that is to be dead, but never the origin.
    fn bury(self, sim: &mut Simulation, origin: HostId, rng: &mut ChaCha8Rng) {
        let others: Vec<HostId> = sim.hosts().filter(|host| *host != origin).collect();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a number of hosts"
        )]
        let dead = (self.dead * (others.len() + 1) as f64).round() as usize;
        let dead = if self.dead > 0.0 { dead.max(1) } else { 0 };
        let dead: Vec<HostId> = others.sample(rng, dead).copied().collect();
        dead.into_iter().for_each(|host| sim.crash(host));
    }
}

impl Scenario for Spread {
    type Trial = SpreadTrial;
    type Figures = SpreadFigures;
    const NAME: &'static str = "spread";

    fn trial(&self, setup: &Setup, seed: u64, _: &Meter) -> Measured<SpreadTrial> {
        let setup = Setup { rules: self.via.rules(setup.rules), ..setup.clone() };
        let (mut sim, hosts) = setup.converged(seed);
        let mut rng = ChaCha8Rng::seed_from_u64(!seed);
        let origin = hosts[rng.random_range(0..hosts.len())];
        let id = sim.node(origin).expect("it runs").local().id();
        let scope = sim.node(origin).expect("it runs").scopes()[0].clone();
        let in_scope = |node: &Protocol| node.scopes().contains(&scope);
        let carried = sim.network().carried();
        sim.run(WINDOW);
        let idle = sim.network().carried();
        self.bury(&mut sim, origin, &mut rng);
        let audience = sim.running().filter(|(_, node)| in_scope(node)).count() - 1;
        let news = Role::from("news");
        let roles = vec![news.clone()];
        let start = sim.now();
        sim.command(origin, Command::AddRoles { scope: scope.clone(), roles }).expect("it can");
        let mut knows: BTreeMap<HostId, Instant> = BTreeMap::new();
        let mut watcher = |heard: Heard<'_>| {
            if let Event::RoleAdded { node, role, .. } = heard.event
                && node.id() == id
                && *role == news
            {
                knows.entry(heard.host).or_insert(heard.at);
            }
            if knows.len() == audience { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        if audience > 0 {
            sim.watch(LIMIT, &mut watcher);
        }
        sim.run(WINDOW.saturating_sub(sim.now() - start));
        let after = sim.network().carried();
        let windows = (sim.now() - start).as_secs_f64() / WINDOW.as_secs_f64();
        let beyond = |after: u64, idle: u64, before: u64| {
            let usual = per_node(idle - before, audience + 1) * windows;
            per_node(after - idle, audience + 1) - usual
        };
        let mut moments: Vec<f64> = knows.values().map(|at| ms(*at - start)).collect();
        moments.sort_by(f64::total_cmp);
        let of = SpreadTrial {
            moments,
            audience,
            bytes: beyond(after.sent_bytes, idle.sent_bytes, carried.sent_bytes),
            datagrams: beyond(after.sent, idle.sent, carried.sent),
        };
        Measured { of, virtual_time: sim.now() - Instant::ORIGIN }
    }

    fn figures(&self, _: &Setup, trials: &[SpreadTrial]) -> SpreadFigures {
        let complete = || trials.iter().filter(|trial| trial.moments.len() == trial.audience);
        let last: Vec<f64> = complete().filter_map(|it| it.moments.last().copied()).collect();
        let half = trials.iter().filter_map(|it| it.moments.get(it.audience / 2).copied());
        let half: Vec<f64> = half.collect();
        SpreadFigures {
            half_p50_ms: quantile(&half, 0.5).map(rounded),
            p50_ms: quantile(&last, 0.5).map(rounded),
            p99_ms: quantile(&last, 0.99).map(rounded),
            max_ms: quantile(&last, 1.0).map(rounded),
            missed: trials.iter().map(|trial| trial.audience - trial.moments.len()).sum(),
            bytes_per_node: rounded(mean(trials.iter().map(|trial| trial.bytes))),
            datagrams_per_node: rounded(mean(trials.iter().map(|trial| trial.datagrams))),
        }
    }

    fn curves(&self, _: &Setup, trials: &[SpreadTrial]) -> Vec<Curve> {
        let moments = trials.iter().flat_map(|trial| trial.moments.iter().copied()).collect();
        let audience = trials.iter().map(|trial| trial.audience).sum();
        vec![Curve::of_moments("have the change", moments, audience)]
    }
}
