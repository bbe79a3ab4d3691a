//! What it costs two nodes to find and mend what they know differently.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{Curve, Measured, Meter, Scenario, Setup, ms, quantile, ratio, rounded};
use crate::config::Config;
use crate::node::ScopeName;
use crate::proto::{Command, Introduction, Protocol};
use crate::role::Role;
use crate::sim::Network;
use crate::time::Instant;

/// Who does not agree by then does not agree.
const LIMIT: Duration = Duration::from_secs(60);

/// Two nodes of a converged cluster know the roles of some others differently. One probes the
/// other, again after every `probe_interval`, until both know the same. Only these two run.
#[derive(Clone, Copy, Debug)]
pub struct Repair {
    /// In how many entries (a node's roles in a scope) they differ. The one is ahead in half of
    /// them, the other in the rest.
    pub differences: usize,
}

impl Default for Repair {
    fn default() -> Repair {
        Repair { differences: 10 }
    }
}

/// What it cost.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(documented::DocumentedFields))]
pub struct RepairFigures {
    /// From the probe until both know the same: median of the trials, of those in which that came
    /// about.
    pub agreed_ms: Option<f64>,
    /// The worst trial.
    pub agreed_max_ms: Option<f64>,
    /// What both sent until then (UDP payload), the probe and its acknowledgement included.
    pub bytes_total: Option<f64>,
    /// The worst trial.
    pub bytes_total_max: Option<f64>,
    /// Datagrams of the one that probes.
    pub datagrams_there: Option<f64>,
    /// The worst trial.
    pub datagrams_there_max: Option<f64>,
    /// Datagrams of the other.
    pub datagrams_back: Option<f64>,
    /// The worst trial.
    pub datagrams_back_max: Option<f64>,
    /// Entries that differed: fewer than asked for if the two have no more in common.
    pub differences: Option<f64>,
    /// Trials in which the two did not agree within 60 s.
    pub apart: usize,
}

/// One trial.
#[derive(Clone, Debug)]
pub struct RepairTrial {
    agreed: Option<f64>,
    bytes: usize,
    datagrams: [usize; 2],
    differences: usize,
}

/// Two nodes, and what is between them.
struct Pair {
    now: Instant,
    nodes: [Protocol; 2],
    addrs: [SocketAddr; 2],
    network: Network,
    buffer: Vec<u8>,
    bytes: usize,
    datagrams: [usize; 2],
}

impl Pair {
    fn new(nodes: [Protocol; 2], network: Network) -> Pair {
        let addrs = [0, 1].map(|n: usize| nodes[n].local().addr());
        let (buffer, bytes, datagrams) = (Vec::new(), 0, [0; 2]);
        Pair { now: Instant::ORIGIN, nodes, addrs, network, buffer, bytes, datagrams }
    }

    fn agree(&self) -> bool {
        let [one, other] = [0, 1].map(|n: usize| self.nodes[n].digest());
        let scopes: BTreeMap<_, _> = other.scopes.into_iter().collect();
        let same = |(scope, it)| scopes.get(&scope).is_none_or(|other| *other == it);
        one.members == other.members && one.scopes.into_iter().all(same)
    }

    /// Takes what a node has to say. What is for others gets nowhere.
    fn turn(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        while node.poll_event().is_some() {}
        while node.poll_outcome().is_some() {}
        while let Some(transmit) = node.poll_transmit(&mut self.buffer) {
            if transmit.to == self.addrs[1 - n] {
                self.datagrams[n] += 1;
                self.bytes += self.buffer.len();
                self.network.send(self.now, self.addrs[n], transmit.to, &self.buffer);
            }
        }
    }

    fn probe(&mut self) {
        let peer = self.nodes[1].local().id();
        self.nodes[0].probe(self.now, peer);
        self.turn(0);
    }

    /// Lets time pass until both know the same, at most until `end`; says whether they do.
    fn run(&mut self, end: Instant) -> bool {
        while !self.agree() {
            let arrival = self.network.next_arrival();
            let due = self.nodes.iter().filter_map(Protocol::poll_timeout).min();
            let Some(at) = arrival.into_iter().chain(due).min().filter(|at| *at <= end) else {
                self.now = end;
                return false;
            };
            self.now = self.now.max(at);
            if arrival.is_some_and(|arrival| arrival <= self.now) {
                let arrival = self.network.receive(&mut self.buffer).expect("one is there");
                let n = usize::from(arrival.to == self.addrs[1]);
                // Refused datagrams are counted by the node.
                let _ = self.nodes[n].handle_datagram(self.now, arrival.from, &self.buffer);
                self.turn(n);
                continue;
            }
            for n in [0, 1] {
                if self.nodes[n].poll_timeout().is_some_and(|due| due <= self.now) {
                    self.nodes[n].handle_timeout(self.now);
                    self.turn(n);
                }
            }
        }
        true
    }
}

/// The scopes that two nodes have in common.
fn common(one: &Protocol, other: &Protocol) -> Vec<ScopeName> {
    let mut scopes = one.scopes();
    let others = other.scopes();
    scopes.retain(|scope| others.binary_search(scope).is_ok());
    scopes
}

impl Repair {
    /// Changes roles of some nodes in scopes that the two have in common; what each of the two has
    /// been told of everybody, and how many entries differ. Of one node only one of the two has the
    /// news.
    fn differ(
        self,
        others: &mut [Protocol],
        scopes: &[ScopeName],
        rng: &mut ChaCha8Rng,
    ) -> ([Vec<Introduction>; 2], usize) {
        let mut told = [0, 1].map(|_| others.iter().map(Protocol::introduction).collect());
        let mut entries: Vec<(usize, ScopeName)> = Vec::new();
        for (n, other) in others.iter().enumerate() {
            let own = other.scopes();
            let shared = scopes.iter().filter(|scope| own.binary_search(scope).is_ok());
            entries.extend(shared.map(|scope| (n, scope.clone())));
        }
        let (chosen, _) = entries.partial_shuffle(rng, self.differences);
        let mut ahead: BTreeMap<usize, usize> = BTreeMap::new();
        let mut counts = [0; 2];
        for (n, scope) in &*chosen {
            let side = *ahead.entry(*n).or_insert(usize::from(counts[1] < counts[0]));
            counts[side] += 1;
            let take = Command::AddRoles { scope: scope.clone(), roles: vec![Role::from("news")] };
            others[*n].handle_command(Instant::ORIGIN, take).expect("a node can");
        }
        for (n, side) in ahead {
            let told: &mut Vec<Introduction> = &mut told[side];
            told[n] = told[n].clone().with_roles_of(others[n].introduction());
        }
        (told, counts[0] + counts[1])
    }

    fn pair(self, setup: &Setup, seed: u64) -> (Pair, usize) {
        let mut rng = ChaCha8Rng::seed_from_u64(!seed);
        // The two talk when the experiment says so; probes of those who do not run would fail.
        let config = Config {
            probe_interval: Duration::from_secs(600),
            pull_interval: Duration::from_secs(3600),
            pause_tolerance: Duration::from_secs(600),
            ..setup.config.clone()
        };
        let setup = Setup { config, ..setup.clone() };
        let mut all = setup.empty(seed).unstarted(setup.specs(seed));
        // Of those with whom it has most in common.
        let most = (1..all.len()).max_by_key(|n| common(&all[0], &all[*n]).len());
        let mut nodes = [all.swap_remove(most.expect("there are two")), all.swap_remove(0)];
        let scopes = common(&nodes[0], &nodes[1]);
        let introductions = [0, 1].map(|n: usize| nodes[n].introduction());
        let (told, differences) = self.differ(&mut all, &scopes, &mut rng);
        for (node, mut told) in nodes.iter_mut().zip(told) {
            told.extend(introductions.iter().cloned());
            told.sort_unstable_by_key(|introduction| introduction.node().id());
            node.acquaint(Instant::ORIGIN, &told);
        }
        let network = Network::new(seed, setup.faults.clone());
        (Pair::new(nodes, network), differences)
    }
}

impl Scenario for Repair {
    type Trial = RepairTrial;
    type Figures = RepairFigures;
    const NAME: &'static str = "repair";

    fn trial(&self, setup: &Setup, seed: u64, _: &Meter) -> Measured<RepairTrial> {
        let (mut pair, differences) = self.pair(setup, seed);
        let mut agreed = false;
        while !agreed && pair.now - Instant::ORIGIN < LIMIT {
            pair.probe();
            agreed = pair.run(pair.now + setup.config.probe_interval);
        }
        let virtual_time = pair.now - Instant::ORIGIN;
        let agreed = agreed.then_some(ms(virtual_time));
        let Pair { bytes, datagrams, .. } = pair;
        Measured { of: RepairTrial { agreed, bytes, datagrams, differences }, virtual_time }
    }

    fn figures(&self, _: &Setup, trials: &[RepairTrial]) -> RepairFigures {
        let agreed = || trials.iter().filter(|trial| trial.agreed.is_some());
        let of = |share: f64, figure: fn(&RepairTrial) -> f64| {
            quantile(&agreed().map(figure).collect::<Vec<f64>>(), share).map(rounded)
        };
        let took = |trial: &RepairTrial| trial.agreed.unwrap_or_default();
        let bytes = |trial: &RepairTrial| ratio(trial.bytes, 1);
        let there = |trial: &RepairTrial| ratio(trial.datagrams[0], 1);
        let back = |trial: &RepairTrial| ratio(trial.datagrams[1], 1);
        RepairFigures {
            agreed_ms: of(0.5, took),
            agreed_max_ms: of(1.0, took),
            bytes_total: of(0.5, bytes),
            bytes_total_max: of(1.0, bytes),
            datagrams_there: of(0.5, there),
            datagrams_there_max: of(1.0, there),
            datagrams_back: of(0.5, back),
            datagrams_back_max: of(1.0, back),
            differences: of(0.5, |trial| ratio(trial.differences, 1)),
            apart: trials.len() - agreed().count(),
        }
    }

    fn curves(&self, _: &Setup, trials: &[RepairTrial]) -> Vec<Curve> {
        let moments = trials.iter().filter_map(|trial| trial.agreed).collect();
        vec![Curve::of_moments("pairs that know the same", moments, trials.len())]
    }
}
