//! What links do that work one way only, or now and then, or between some nodes and not others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use rand::SeedableRng;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{Curve, Measured, Meter, SECOND, Scenario, Setup, mean, ms, per_node, quantile};
use super::{rounded, share_of, suspicions};
use crate::event::{DownReason, Event};
use crate::node::NodeId;
use crate::sim::{Flapping, Heard, HostId, Partition, Side, Simulation};
use crate::time::Instant;

/// For so long the links of flapping nodes fail, and for so long they work, in turn (Rapid, ATC
/// 2018, section 7).
const FLAPS: Duration = Duration::from_secs(20);

/// The share of what is sent to a lossy node that is lost (likewise).
const LOSS: f64 = 0.8;

/// For `duration` (300 s) the links of some nodes have a fault.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    /// Which.
    pub fault: LinkFault,
    /// The share of the nodes that have it; at least one has.
    pub faulty: f64,
}

impl Default for Links {
    fn default() -> Links {
        Links { fault: LinkFault::default(), faulty: 0.01 }
    }
}

/// What is wrong with a node's links.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum LinkFault {
    /// The node can send, and receives nothing
    #[default]
    Deaf,
    /// The node receives, and nobody hears it
    Mute,
    /// Pairs of nodes, as many as `--faulty` says, cannot reach each other; all others reach both
    Apart,
    /// 80 % of what is sent to the node is lost
    Lossy,
    /// All that is sent to the node is lost for 20 s, nothing for 20 s, and so on
    Flapping,
}

/// What became of the nodes.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(documented::DocumentedFields))]
pub struct LinksFigures {
    /// Healthy nodes declared down, at each healthy node where that was seen, of all trials. All
    /// are healthy where pairs are apart.
    pub healthy_downs: u64,
    /// Those seen at faulty nodes.
    pub healthy_downs_at_faulty: u64,
    /// Until a first healthy node declared a faulty one down: median of those of which that came,
    /// of all trials.
    pub faulty_down_p50_ms: Option<f64>,
    /// How often the same healthy node saw the same faulty one go down, at most: once, if it went
    /// and stayed away.
    pub faulty_downs_max: Option<f64>,
    /// The median over healthy and faulty nodes.
    pub faulty_downs_p50: Option<f64>,
    /// Pairs of which at the end each names the other among those that it reaches through others
    /// only, of all trials. Of `apart` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reached_indirectly: Option<usize>,
    /// Suspicions begun, at each node that began one.
    pub suspicions: u64,
    /// UDP payload that a node sends per second.
    pub bytes_per_node_s: f64,
}

/// One trial.
#[derive(Clone, Debug, Default)]
pub struct LinksTrial {
    /// Healthy nodes declared down at healthy and at faulty ones.
    healthy_downs: (u64, u64),
    /// When a first healthy node declared each faulty one down, in milliseconds.
    first: Vec<f64>,
    /// How often each healthy node saw each faulty one go down.
    downs: Vec<f64>,
    /// How many faulty nodes there were.
    faulty: usize,
    reached_indirectly: usize,
    suspicions: u64,
    bytes_per_node_s: f64,
}

/// Those with a fault; in pairs, if they are apart.
struct Faulty {
    hosts: Vec<HostId>,
    addrs: BTreeSet<SocketAddr>,
}

impl Links {
    fn choose(&self, sim: &Simulation, hosts: &[HostId], seed: u64) -> Faulty {
        let mut rng = ChaCha8Rng::seed_from_u64(!seed);
        let count = match self.fault {
            LinkFault::Apart => 2 * share_of(self.faulty, hosts.len(), hosts.len() / 2),
            _ => share_of(self.faulty, hosts.len(), hosts.len() - 1),
        };
        let chosen = sample(&mut rng, hosts.len(), count);
        let hosts: Vec<HostId> = chosen.iter().map(|n| hosts[n]).collect();
        let addrs = hosts.iter().map(|host| sim.addr(*host)).collect();
        Faulty { hosts, addrs }
    }

    /// The fault begins.
    fn afflict(&self, sim: &mut Simulation, faulty: &Faulty) {
        let to_them = Partition {
            from: Side::All,
            to: Side::Only(faulty.addrs.clone()),
            both_ways: false,
            loss: 1.0,
            flapping: None,
        };
        let from = sim.now();
        let partition = match self.fault {
            LinkFault::Deaf => to_them,
            LinkFault::Mute => Partition { from: to_them.to, to: to_them.from, ..to_them },
            LinkFault::Lossy => Partition { loss: LOSS, ..to_them },
            LinkFault::Flapping => {
                let flapping = Some(Flapping { bad: FLAPS, good: FLAPS, from });
                Partition { flapping, ..to_them }
            }
            LinkFault::Apart => {
                for pair in faulty.hosts.chunks_exact(2) {
                    let between = Partition::between([sim.addr(pair[0])], [sim.addr(pair[1])]);
                    sim.partition(between);
                }
                return;
            }
        };
        sim.partition(partition);
    }
}

/// In how many of the pairs each names the other as reached through others only.
fn pairs_that_know(sim: &Simulation, faulty: &Faulty) -> usize {
    let names = |at: HostId, other: HostId| {
        let node = |host| sim.node(host).expect("it runs");
        let name = node(other).local().name();
        node(at).stats().reached_indirectly.iter().any(|it| it.as_str() == name)
    };
    let know = |pair: &&[HostId]| names(pair[0], pair[1]) && names(pair[1], pair[0]);
    faulty.hosts.chunks_exact(2).filter(know).count()
}

impl Scenario for Links {
    type Trial = LinksTrial;
    type Figures = LinksFigures;
    const NAME: &'static str = "links";

    fn trial(&self, setup: &Setup, seed: u64, _: &Meter) -> Measured<LinksTrial> {
        let (mut sim, hosts) = setup.converged(seed);
        let chosen = self.choose(&sim, &hosts, seed);
        let apart = self.fault == LinkFault::Apart;
        let sick = if apart { &[] } else { &chosen.hosts[..] };
        let sick_hosts: BTreeSet<HostId> = sick.iter().copied().collect();
        let ids: BTreeSet<NodeId> = sick.iter().map(|host| sim.id_of(*host)).collect();
        let duration = setup.duration.unwrap_or(300 * SECOND);
        let (start, sent) = (sim.now(), sim.network().carried().sent_bytes);
        let doubted = suspicions(&sim);
        self.afflict(&mut sim, &chosen);
        let mut trial = LinksTrial { faulty: sick.len(), ..LinksTrial::default() };
        let mut first: BTreeMap<NodeId, f64> = BTreeMap::new();
        let mut downs: BTreeMap<(HostId, NodeId), u32> = BTreeMap::new();
        sim.watch(duration, |heard: Heard<'_>| {
            if let Event::NodeDown { node, reason: DownReason::Failed(_) } = heard.event {
                let of_healthy = !ids.contains(&node.id());
                let at_healthy = !sick_hosts.contains(&heard.host);
                if of_healthy {
                    let (at_healthy, at_faulty) = (u64::from(at_healthy), u64::from(!at_healthy));
                    trial.healthy_downs.0 += at_healthy;
                    trial.healthy_downs.1 += at_faulty;
                } else if at_healthy {
                    first.entry(node.id()).or_insert(ms(heard.at - start));
                    *downs.entry((heard.host, node.id())).or_default() += 1;
                }
            }
            ControlFlow::Continue(())
        });
        let healthy = hosts.iter().filter(|host| !sick_hosts.contains(host));
        let pairs = healthy.flat_map(|host| ids.iter().map(|id| (*host, *id)));
        trial.downs = pairs.map(|pair| downs.get(&pair).copied().unwrap_or(0).into()).collect();
        trial.first = first.into_values().collect();
        trial.reached_indirectly = if apart { pairs_that_know(&sim, &chosen) } else { 0 };
        trial.suspicions = suspicions(&sim) - doubted;
        let sent = sim.network().carried().sent_bytes - sent;
        trial.bytes_per_node_s = per_node(sent, hosts.len()) / duration.as_secs_f64().max(1e-9);
        Measured { of: trial, virtual_time: sim.now() - Instant::ORIGIN }
    }

    fn figures(&self, _: &Setup, trials: &[LinksTrial]) -> LinksFigures {
        let first: Vec<f64> = trials.iter().flat_map(|it| it.first.iter().copied()).collect();
        let downs: Vec<f64> = trials.iter().flat_map(|it| it.downs.iter().copied()).collect();
        let reached = trials.iter().map(|trial| trial.reached_indirectly).sum();
        LinksFigures {
            healthy_downs: trials.iter().map(|trial| trial.healthy_downs.0).sum(),
            healthy_downs_at_faulty: trials.iter().map(|trial| trial.healthy_downs.1).sum(),
            faulty_down_p50_ms: quantile(&first, 0.5).map(rounded),
            faulty_downs_max: quantile(&downs, 1.0),
            faulty_downs_p50: quantile(&downs, 0.5),
            reached_indirectly: (self.fault == LinkFault::Apart).then_some(reached),
            suspicions: trials.iter().map(|trial| trial.suspicions).sum(),
            bytes_per_node_s: rounded(mean(trials.iter().map(|trial| trial.bytes_per_node_s))),
        }
    }

    fn curves(&self, _: &Setup, trials: &[LinksTrial]) -> Vec<Curve> {
        let first = trials.iter().flat_map(|trial| trial.first.iter().copied()).collect();
        let faulty = trials.iter().map(|trial| trial.faulty).sum();
        vec![Curve::of_moments("faulty nodes declared down", first, faulty)]
    }
}
