//! A partition, and within five minutes another one, where datagrams are lost: what becomes of
//! nodes that were on the larger side, once it has healed, and how soon all know all.
#![cfg(feature = "sim")]

use std::ops::Range;
use std::time::Duration;

use rolecall::sim::{Faults, HostSpec, Loss, Partition, Simulation};
use rolecall::{Config, DownReason, Event};

const SECOND: Duration = Duration::from_secs(1);
const NODES: usize = 30;
/// Who is on the smaller side, the first time and the second.
const SMALLER: [Range<usize>; 2] = [0..13, 17..30];

/// What came of the second partition within a minute after it had healed.
#[derive(Debug)]
struct Aftermath {
    /// Node-downs told on the larger side of nodes on the larger side.
    false_downs: usize,
    /// How many of them rest on witnesses of the smaller side alone.
    seen_from_there: usize,
    /// When all knew all; a minute, if they never did.
    all_know_all: Duration,
}

/// So much is lost from the second partition on.
fn live_through(seed: u64, loss: f64) -> Aftermath {
    let mut sim = Simulation::new(seed, Config::lan());
    let spec = |n| HostSpec::new(&format!("n{n}")).seeds((0..2).map(Simulation::nth_addr));
    let hosts = sim.start_acquainted((0..NODES).map(spec));
    sim.run(3 * SECOND);
    let [first, second] = SMALLER;
    for (smaller, loss) in [(first, 0.0), (second.clone(), loss)] {
        sim.run(60 * SECOND);
        sim.set_faults(Faults { loss: Loss::Random(loss), ..Faults::default() });
        let (here, there): (Vec<usize>, _) = (0..NODES).partition(|it| smaller.contains(it));
        let addrs = |side: Vec<usize>| side.into_iter().map(Simulation::nth_addr);
        let partition = sim.partition(Partition::between(addrs(here), addrs(there)));
        sim.run(8 * SECOND);
        sim.heal(partition);
    }
    hosts.iter().for_each(|host| drop(sim.take_events(*host)));
    let smaller = |name: &str| second.clone().any(|it| name == format!("n{it}"));
    let healed = sim.now();
    let zero = Duration::ZERO;
    let mut came = Aftermath { false_downs: 0, seen_from_there: 0, all_know_all: zero };
    while sim.now() < healed + 60 * SECOND {
        sim.run(SECOND / 10);
        for host in &hosts[..second.start] {
            for (_, event) in sim.take_events(*host) {
                if let Event::NodeDown { node, reason: DownReason::Failed(evidence) } = event
                    && !smaller(node.name())
                {
                    came.false_downs += 1;
                    let mut witnesses = evidence.witnesses.iter();
                    let is_from_there = witnesses.all(|it| smaller(it.node.name()));
                    came.seen_from_there += usize::from(is_from_there);
                }
            }
        }
        if hosts.iter().any(|host| sim.view(*host).members().len() < NODES) {
            came.all_know_all = sim.now() - healed;
        }
    }
    came
}

#[test]
fn nodes_of_the_larger_side_are_not_down_on_the_larger_side() {
    let (mut false_downs, mut slowest) = (0, Duration::ZERO);
    for loss in [0.0, 0.05, 0.1, 0.2] {
        for seed in 0..10 {
            let came = live_through(seed, loss);
            println!("loss {loss}, seed {seed}: {came:?}");
            false_downs += came.false_downs;
            slowest = slowest.max(came.all_know_all);
        }
    }
    assert_eq!(false_downs, 0);
    // In virtual time; who was on probation took half a minute.
    assert!(slowest < 5 * SECOND, "{slowest:?}");
}
