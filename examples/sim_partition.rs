//! How a service sees a partition, before the network does it: a router that sends jobs to the
//! workers that it knows of, in the simulator.
//!
//! `cargo run --features sim --example sim_partition`

use std::time::Duration;

use rolecall::sim::{Faults, HostId, HostSpec, Loss, Partition, Simulation};
use rolecall::view::ClusterView;
use rolecall::{Config, Event, Node, ScopeName};

const SECOND: Duration = Duration::from_secs(1);

/// The service's own code, as it is in production: it is given what `Cluster::view` reads from.
fn route(view: &ClusterView, job: u64) -> Option<Node> {
    let scope = ScopeName::new("jobs").expect("a valid name");
    let workers = view.scope(&scope).nodes("worker");
    let count = u64::try_from(workers.len()).ok()?;
    let at = usize::try_from(job.checked_rem(count)?).ok()?;
    workers.get(at).cloned()
}

/// How many of 1,200 jobs would go to a worker that the router cannot reach.
fn misrouted(sim: &Simulation, router: HostId, unreachable: &[HostId]) -> usize {
    let lost: Vec<_> = unreachable.iter().map(|host| sim.addr(*host)).collect();
    let chosen = (0..1200).filter_map(|job| route(sim.view(router), job));
    chosen.filter(|worker| lost.contains(&worker.addr())).count()
}

fn main() {
    let mut sim = Simulation::new(7, Config::lan());
    sim.set_faults(Faults { loss: Loss::Random(0.01), ..Faults::default() });
    let router = HostSpec::new("router").scope("jobs", [""; 0]);
    let workers = (0..6).map(|n| HostSpec::new(&format!("worker-{n}")).scope("jobs", ["worker"]));
    let hosts = sim.start_acquainted(std::iter::once(router).chain(workers));
    let (router, cut_off) = (hosts[0], &hosts[4..]);
    sim.run(5 * SECOND);
    assert_eq!(misrouted(&sim, router, cut_off), 600, "half of the workers are cut off next");

    let here: Vec<_> = hosts[..4].iter().map(|host| sim.addr(*host)).collect();
    let there: Vec<_> = cut_off.iter().map(|host| sim.addr(*host)).collect();
    let cut = sim.partition(Partition::between(here, there));
    println!("after the cut, of 1,200 jobs to workers that cannot be reached:");
    for _ in 0..8 {
        sim.run(3 * SECOND);
        println!("{:6.1?} {:4}", sim.now(), misrouted(&sim, router, cut_off));
    }
    assert_eq!(misrouted(&sim, router, cut_off), 0, "the router has noticed");

    sim.heal(cut);
    let healed = sim.now();
    let whole = |sim: &Simulation| misrouted(sim, router, cut_off) == 600;
    let took = sim.run_until(60 * SECOND, SECOND / 100, whole).expect("they come back");
    println!("all six workers are back {took:.1?} after the network is");
    for (at, event) in sim.take_events(router) {
        if let Event::NodeUp { node } | Event::NodeDown { node, .. } = &event {
            let what = if matches!(event, Event::NodeUp { .. }) { "up" } else { "down" };
            println!("{at:8.2?} {node} is {what}{}", if at > healed { " again" } else { "" });
        }
    }
}
