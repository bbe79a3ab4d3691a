//! How long a lookup takes: every way to read, beside a plain `HashMap` that nothing protects
//! (the floor) and one behind a `RwLock`.
//!
//! `cargo bench --bench lookup`, or with `-- 1000` for one number of roles. The contenders take
//! turns within one run, a batch of lookups each, so that whatever else the machine does befalls
//! all alike. A row is the median and the 99th percentile of the batches' means.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Arc, RwLock};
use std::time::Instant;

use bytes::Bytes;
use rolecall::view::{ClusterView, Publisher, ScopeView};
use rolecall::{Event, Node, NodeId, NodeName, Role, ScopeName};

/// Lookups in a batch: some tens of microseconds, so that reading the clock does not matter.
const BATCH_LOOKUPS: u16 = 1_000;
const WARM_UP_ROUNDS: usize = 200;
const MEASURED_ROUNDS: usize = 4_000;
const NODES: usize = 100;
const NODES_PER_ROLE: usize = 3;

/// What all contenders look up, and the keys to do it by.
struct Data {
    names: Vec<String>,
    roles: Vec<Role>,
    /// In which order; the same for all, and without a pattern that a processor could learn.
    order: Vec<usize>,
    plain: HashMap<Arc<str>, Arc<[Node]>>,
    locked: RwLock<HashMap<Arc<str>, Arc<[Node]>>>,
    cluster: Arc<ClusterView>,
    scope: Arc<ScopeView>,
    _publisher: Publisher,
}

impl Data {
    fn new(roles: usize) -> Data {
        let nodes: Vec<Node> = (0..NODES).map(node).collect();
        let (mut publisher, cluster) = Publisher::new(nodes[0].clone());
        for node in &nodes {
            publisher.apply(&Event::NodeUp { node: node.clone() });
        }
        let scope = ScopeName::new("bench").expect("a valid name");
        let names: Vec<String> = (0..roles).map(|number| format!("service-{number}")).collect();
        let mut plain = HashMap::<Arc<str>, Arc<[Node]>>::new();
        for (number, name) in names.iter().enumerate() {
            let holders = (0..NODES_PER_ROLE).map(|n| nodes[(number + n) % NODES].clone());
            let holders: Vec<Node> = holders.collect();
            for node in &holders {
                publisher.apply(&Event::RoleAdded {
                    scope: scope.clone(),
                    node: node.clone(),
                    role: Role::from(name.as_str()),
                });
            }
            plain.insert(name.as_str().into(), holders.into());
        }
        let _ = publisher.publish();
        let mut random = 1_u64;
        let order = std::iter::repeat_with(|| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(random >> 33).expect("31 bits") % roles
        });
        Data {
            order: order.take((16 * roles).clamp(1 << 14, 1 << 18)).collect(),
            roles: names.iter().map(|name| Role::from(name.as_str())).collect(),
            names,
            locked: RwLock::new(plain.clone()),
            plain,
            scope: cluster.scope(&scope),
            cluster,
            _publisher: publisher,
        }
    }
}

fn node(number: usize) -> Node {
    let name = NodeName::new(&format!("node-{number:03}")).expect("a valid name");
    let id = NodeId::from_u64(number as u64 + 1).expect("not zero");
    Node::new(name, id, ([127, 0, 0, 1], 7946).into(), Bytes::new())
}

/// One batch: looks up the roles of these numbers and returns how many nodes they have in all.
type Batch = fn(&Data, &[usize]) -> usize;

const FLOOR: &str = "HashMap, unsynchronised";

const CONTENDERS: &[(&str, Batch)] = &[
    (FLOOR, |data, order| sum(order, |role| data.plain[data.names[role].as_str()].len())),
    ("HashMap + Arc clone", |data, order| {
        sum(order, |role| black_box(data.plain[data.names[role].as_str()].clone()).len())
    }),
    ("RwLock<HashMap>", |data, order| {
        let read = || data.locked.read().expect("no writer panics");
        sum(order, |role| read()[data.names[role].as_str()].len())
    }),
    ("nodes(&str)", |data, order| {
        sum(order, |role| data.scope.nodes(data.names[role].as_str()).len())
    }),
    ("nodes(&Role)", |data, order| sum(order, |role| data.scope.nodes(&data.roles[role]).len())),
    ("with_nodes(&str)", |data, order| {
        sum(order, |role| data.scope.with_nodes(data.names[role].as_str(), <[Node]>::len))
    }),
    ("with_nodes(&Role)", |data, order| {
        sum(order, |role| data.scope.with_nodes(&data.roles[role], <[Node]>::len))
    }),
    ("View::nodes(&str)", |data, order| {
        let view = data.cluster.view();
        sum(order, |role| view.nodes(&data.scope, data.names[role].as_str()).len())
    }),
    ("View::nodes(&Role)", |data, order| {
        let view = data.cluster.view();
        sum(order, |role| view.nodes(&data.scope, &data.roles[role]).len())
    }),
];

fn sum(order: &[usize], look_up: impl Fn(usize) -> usize) -> usize {
    order.iter().map(|&role| look_up(black_box(role))).sum()
}

/// Nanoseconds per lookup of every batch, by contender, sorted.
fn measure(data: &Data) -> Vec<Vec<f64>> {
    let mut nanos = vec![Vec::with_capacity(MEASURED_ROUNDS); CONTENDERS.len()];
    let mut batches = data.order.chunks_exact(BATCH_LOOKUPS.into()).cycle();
    for round in 0..WARM_UP_ROUNDS + MEASURED_ROUNDS {
        for turn in 0..CONTENDERS.len() {
            // Another one goes first each round, and each looks up other roles than the one
            // before, which would have fetched them into the caches for it.
            let contender = (round + turn) % CONTENDERS.len();
            let order = batches.next().expect("a cycle does not end");
            let started = Instant::now();
            let found = (CONTENDERS[contender].1)(black_box(data), order);
            let elapsed = started.elapsed();
            assert_eq!(found, NODES_PER_ROLE * usize::from(BATCH_LOOKUPS));
            if round >= WARM_UP_ROUNDS {
                nanos[contender].push(elapsed.as_secs_f64() * 1e9 / f64::from(BATCH_LOOKUPS));
            }
        }
    }
    for nanos in &mut nanos {
        nanos.sort_by(f64::total_cmp);
    }
    nanos
}

fn main() {
    // Cargo passes `--bench`; anything that is a number asks for that many roles.
    let asked: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let sizes = if asked.is_empty() { vec![10, 1_000, 100_000] } else { asked };
    println!(
        "{MEASURED_ROUNDS} batches of {BATCH_LOOKUPS} lookups each, interleaved; ns per lookup"
    );
    for roles in sizes {
        let nanos = measure(&Data::new(roles));
        let floor = nanos[0][MEASURED_ROUNDS / 2];
        println!("\n{:<24} {:>9} {:>9} {:>9}", format!("{roles} roles"), "median", "p99", "ratio");
        for ((name, _), nanos) in CONTENDERS.iter().zip(&nanos) {
            let (median, p99) = (nanos[MEASURED_ROUNDS / 2], nanos[MEASURED_ROUNDS * 99 / 100]);
            println!("{name:<24} {median:>9.1} {p99:>9.1} {:>9.2}", median / floor);
        }
    }
}
