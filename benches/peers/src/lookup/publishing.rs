//! Whole clusters published into a view: iteration over all nodes, many changes at once, joins.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rolecall::view::{ClusterView, Publisher};
use rolecall::{Event, Node, Role, ScopeName};

use super::data::node;
use super::report::Figure;
use crate::report::rounded;

const NODES_PER_ROLE: usize = 3;
const ROLES_PER_NODE: usize = 3;
/// What changes at once in a set of all nodes.
const CHANGES_AT_ONCE: usize = 100;
/// Nodes of the cluster that others join, and that join it.
const JOINED: usize = 1_000;
/// Roles that change at once.
const ROLES_AT_ONCE: usize = 1_000;

/// A published cluster of nodes with a few roles each.
struct PublishedCluster {
    publisher: Publisher,
    cluster: Arc<ClusterView>,
    scope: ScopeName,
    nodes: Vec<Node>,
    roles: usize,
}

impl PublishedCluster {
    /// Role `n` goes to the nodes from `n` on, so that each node has `roles_each`.
    fn new(nodes: usize, roles: usize, roles_each: usize) -> PublishedCluster {
        let nodes: Vec<Node> = (0..nodes).map(node).collect();
        let (publisher, cluster) = Publisher::new(nodes[0].clone());
        let scope = ScopeName::new("lookup").expect("a valid name");
        let mut filled = PublishedCluster { publisher, cluster, scope, nodes, roles };
        let events: Vec<Event> = (0..filled.nodes.len())
            .flat_map(|number| filled.join(&filled.nodes[number], number, roles_each))
            .collect();
        filled.apply(&events);
        filled.publish();
        filled
    }

    /// A node comes up with its roles.
    fn join(&self, node: &Node, number: usize, roles: usize) -> Vec<Event> {
        let up = Event::NodeUp { node: node.clone() };
        let role = |n| self.role_changed(node, (roles * number + n) % self.roles, true);
        std::iter::once(up).chain((0..roles).map(role)).collect()
    }

    fn role_changed(&self, node: &Node, role: usize, added: bool) -> Event {
        let (scope, node) = (self.scope.clone(), node.clone());
        let role = Role::from(format!("service-{role}"));
        if added {
            Event::RoleAdded { scope, node, role }
        } else {
            Event::RoleRemoved { scope, node, role }
        }
    }

    fn apply(&mut self, events: &[Event]) -> Duration {
        let started = Instant::now();
        events.iter().for_each(|event| self.publisher.apply(event));
        started.elapsed()
    }

    fn publish(&mut self) -> Duration {
        let started = Instant::now();
        let published = self.publisher.publish();
        let elapsed = started.elapsed();
        assert!(!published.is_empty(), "the changes changed nothing");
        elapsed
    }
}

/// `all_nodes` at so many nodes, each with one role: reading, and publishing changes of it.
pub(super) fn all_nodes(nodes: usize, rounds: usize) -> Vec<Figure> {
    let mut published = PublishedCluster::new(nodes, nodes.div_ceil(NODES_PER_ROLE), 1);
    let mut figures = iteration(&published, rounds);
    // Every so many nodes, so that the changes are spread over the whole set.
    let step = nodes / CHANGES_AT_ONCE;
    let changed: Vec<usize> = (0..nodes).step_by(step).take(CHANGES_AT_ONCE).collect();
    let another = |number| published.roles + number;
    let only = |number| number % published.roles;
    let kinds: [(&str, Vec<[Event; 2]>); 2] = [
        ("all-nodes-same-100", both_ways(&published, &changed, true, another)),
        ("all-nodes-other-100", both_ways(&published, &changed, false, only)),
    ];
    for (setting, events) in kinds {
        let (mut applying, mut publishing) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let events: Vec<Event> = events.iter().map(|event| event[round % 2].clone()).collect();
            applying.push(published.apply(&events));
            publishing.push(published.publish());
        }
        let apply_ns = Figure::new("", 0, "", &sorted(&applying)).p50_ns;
        figures.push(
            Figure::new("rolecall", published.roles, setting, &sorted(&publishing))
                .with("nodes", nodes)
                .with("apply_p50_ns", apply_ns),
        );
    }
    figures
}

/// A change of one role of each of these nodes, and its reverse.
fn both_ways(
    published: &PublishedCluster,
    nodes: &[usize],
    added: bool,
    role: impl Fn(usize) -> usize,
) -> Vec<[Event; 2]> {
    let change = |&number: &usize| {
        let node = &published.nodes[number];
        [added, !added].map(|added| published.role_changed(node, role(number), added))
    };
    nodes.iter().map(change).collect()
}

/// Iteration over all nodes, per node, beside a flat slice of the same nodes.
fn iteration(published: &PublishedCluster, rounds: usize) -> Vec<Figure> {
    let scope = published.cluster.scope(&published.scope);
    let flat: Vec<Node> = scope.all_nodes().to_vec();
    let mut nanos = [Vec::new(), Vec::new(), Vec::new()];
    let view = published.cluster.view();
    for round in 0..rounds {
        for turn in 0..nanos.len() {
            let way = (round + turn) % nanos.len();
            let started = Instant::now();
            match way {
                0 => visit(&flat),
                1 => visit(view.all_nodes(&scope)),
                _ => visit(&scope.all_nodes()),
            }
            #[expect(clippy::cast_precision_loss, reason = "few")]
            nanos[way].push(started.elapsed().as_secs_f64() * 1e9 / flat.len() as f64);
        }
    }
    for nanos in &mut nanos {
        nanos.sort_by(f64::total_cmp);
    }
    let figure = |(name, times): (_, &Vec<f64>)| {
        Figure::new(name, published.roles, "all-nodes", times)
            .beside(&nanos[0], times)
            .with("nodes", flat.len())
    };
    let names = ["flat-slice", "view-all-nodes", "all-nodes"];
    names.into_iter().zip(&nanos).map(figure).collect()
}

fn visit(nodes: &[Node]) {
    let sum = black_box(nodes).iter().fold(0_u64, |sum, node| sum ^ node.id().as_u64());
    black_box(sum);
}

/// Nodes that join a published cluster, some per turn of its driver, and roles that all change in
/// one.
pub(super) fn join(rounds: usize) -> Vec<Figure> {
    let mut figures = Vec::new();
    for per_turn in [50, 1] {
        let times: Vec<Duration> = (0..rounds).map(|_| time_of_joins(per_turn)).collect();
        let setting = format!("join-1000-by-{per_turn}");
        figures.push(Figure::new("rolecall", ROLES_AT_ONCE, &setting, &sorted(&times)));
    }
    let mut published = PublishedCluster::new(JOINED, ROLES_AT_ONCE, ROLES_PER_NODE);
    let mut times = Vec::new();
    let mut applying = Vec::new();
    for round in 0..2 * rounds {
        let change = |role| {
            let node = &published.nodes[(role + JOINED / 2) % JOINED];
            published.role_changed(node, role, round % 2 == 0)
        };
        let events: Vec<Event> = (0..ROLES_AT_ONCE).map(change).collect();
        applying.push(published.apply(&events));
        times.push(published.publish());
    }
    let apply_ns = Figure::new("", 0, "", &sorted(&applying)).p50_ns;
    let figure = Figure::new("rolecall", ROLES_AT_ONCE, "roles-1000-at-once", &sorted(&times));
    figures.push(figure.with("apply_p50_ns", apply_ns));
    for figure in &mut figures {
        figure.more.insert("p50_ms".to_owned(), rounded(figure.p50_ns / 1e6).into());
    }
    figures
}

/// All the writer's time while as many nodes as there are join.
fn time_of_joins(per_turn: usize) -> Duration {
    let mut published = PublishedCluster::new(JOINED, ROLES_AT_ONCE, ROLES_PER_NODE);
    let turns: Vec<Vec<Event>> = (0..JOINED)
        .map(|number| published.join(&node(JOINED + number), number, ROLES_PER_NODE))
        .collect::<Vec<_>>()
        .chunks(per_turn)
        .map(<[Vec<Event>]>::concat)
        .collect();
    turns.iter().map(|events| published.apply(events) + published.publish()).sum()
}

fn sorted(times: &[Duration]) -> Vec<f64> {
    let mut nanos: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e9).collect();
    nanos.sort_by(f64::total_cmp);
    nanos
}
