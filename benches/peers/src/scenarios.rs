//! What is measured, the same for every system.

use std::time::{Duration, Instant as WallClock};

use cpu_time::ThreadTime;

use crate::cluster::{Cluster, Counted};
use crate::heap::HeapCounts;
use crate::node::{Note, Pace, Place, System};
use crate::report::{Row, millis, percentile, rounded};

/// How long a change may take before whoever misses it counts as missed.
const MAX_SPREAD: Duration = Duration::from_secs(60);
/// How long all may take to find a crash.
const MAX_CRASH: Duration = Duration::from_secs(120);
/// How long a join or a storm may take.
const MAX_JOIN: Duration = Duration::from_secs(300);
/// A cluster is given up for a fresh one when it has lost or won this part of its nodes.
const WORN_PART: u32 = 32;

/// What the user asked for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: u32,
    pub(crate) trials: Option<u32>,
    pub(crate) seed: u64,
    pub(crate) losses: Vec<f64>,
}

/// One run of one scenario with one system.
struct Run<'a> {
    plan: &'a Plan,
    pace: Pace,
    trials: u32,
    row: Row,
    started: WallClock,
    virtual_time: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// Nothing happens.
    Steady,
    /// One node makes a change that all are to hear of.
    Spread,
    /// One node dies silently.
    Crash,
    /// One more node joins.
    Join,
    /// All nodes start within a second.
    Storm,
    /// Datagrams are lost.
    Loss,
}

impl Scenario {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scenario::Steady => "steady",
            Scenario::Spread => "spread",
            Scenario::Crash => "crash",
            Scenario::Join => "join",
            Scenario::Storm => "storm",
            Scenario::Loss => "loss",
        }
    }

    fn default_trials(self) -> u32 {
        match self {
            Scenario::Steady => 1,
            Scenario::Spread => 100,
            Scenario::Crash => 30,
            Scenario::Join | Scenario::Storm => 3,
            Scenario::Loss => 20,
        }
    }

    /// Runs it for one system: one row, or one for each loss;
    /// none of a system that has no such thing.
    pub(crate) fn run<S: System>(self, plan: &Plan) -> Vec<Row> {
        if !S::FINDS_MEMBERS && !matches!(self, Scenario::Spread | Scenario::Loss) {
            return Vec::new();
        }
        let rows = |measure: fn(&mut Run)| vec![Run::of::<S>(self, plan, 0.0, measure)];
        match self {
            Scenario::Steady => rows(steady::<S>),
            Scenario::Spread => rows(spread::<S>),
            Scenario::Crash => rows(crash::<S>),
            Scenario::Join => rows(join::<S>),
            Scenario::Storm => rows(storm::<S>),
            Scenario::Loss => {
                let row = |loss: &f64| Run::of::<S>(self, plan, *loss, lossy::<S>);
                plan.losses.iter().map(row).collect()
            }
        }
    }
}

impl Run<'_> {
    fn of<S: System>(
        scenario: Scenario,
        plan: &Plan,
        loss: f64,
        measure: impl FnOnce(&mut Run),
    ) -> Row {
        let pace = S::pace(plan.nodes);
        let trials = plan.trials.unwrap_or(scenario.default_trials()).min(pace.max_trials);
        let mut row = Row::default();
        row.put("system", S::NAME);
        row.put("scenario", scenario.name());
        row.put("nodes", plan.nodes);
        row.put("trials", trials);
        row.put("seed", plan.seed);
        row.put("loss", loss);
        let started = WallClock::now();
        let mut run = Run { plan, pace, trials, row, started, virtual_time: Duration::ZERO };
        measure(&mut run);
        run.row.put("wall_s", rounded(run.started.elapsed().as_secs_f64()));
        run.row.put("virtual_s", rounded(run.virtual_time.as_secs_f64()));
        run.row
    }

    fn loss(&self) -> f64 {
        self.row.number("loss")
    }

    /// A formed cluster for a trial.
    fn cluster<S: System>(&self, trial: u32) -> Cluster<S> {
        let settle = Duration::from_secs(self.pace.settle_s);
        Cluster::formed(self.plan.nodes, self.plan.seed + u64::from(trial), settle)
    }

    /// Per node, from a sum over all.
    fn per_node(&self, sum: f64) -> f64 {
        rounded(sum / f64::from(self.plan.nodes))
    }

    fn window(&self) -> Duration {
        Duration::from_secs(self.pace.window_s)
    }

    /// Writes the traffic of all nodes during a time as rates.
    fn put_rates(&mut self, traffic: Traffic, during: Duration) {
        let rate = |sum: f64| self.per_node(sum / during.as_secs_f64());
        let (bytes, datagrams) = (rate(traffic.bytes), rate(traffic.datagrams));
        let stream_bytes = rate(traffic.stream_bytes);
        self.row.put("bytes_per_node_s", bytes);
        self.row.put("datagrams_per_node_s", datagrams);
        self.row.put("stream_bytes_per_node_s", stream_bytes);
    }
}

/// What was sent by all nodes, or how much more than before.
#[derive(Clone, Copy, Default)]
struct Traffic {
    bytes: f64,
    datagrams: f64,
    stream_bytes: f64,
}

impl Traffic {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn between(before: Counted, after: Counted) -> Traffic {
        Traffic {
            bytes: (after.bytes - before.bytes) as f64,
            datagrams: (after.datagrams - before.datagrams) as f64,
            stream_bytes: (after.stream_bytes - before.stream_bytes) as f64,
        }
    }

    fn add(&mut self, more: Traffic, sign: f64) {
        self.bytes += sign * more.bytes;
        self.datagrams += sign * more.datagrams;
        self.stream_bytes += sign * more.stream_bytes;
    }
}

fn steady<S: System>(run: &mut Run) {
    let (mut traffic, mut cpu) = (Traffic::default(), Duration::ZERO);
    let (mut false_downs, mut suspicions, mut heap) = (0, Some(0), 0);
    let during = Duration::from_secs(run.pace.steady_s);
    for trial in 0..run.trials {
        let heap_before = HeapCounts::now().bytes;
        let mut cluster: Cluster<S> = run.cluster(trial);
        let before = cluster.counted();
        let started = ThreadTime::now();
        cluster.run(during);
        cpu += started.elapsed();
        heap += HeapCounts::now().bytes - heap_before;
        let after = cluster.counted();
        traffic.add(Traffic::between(before, after), 1.0);
        false_downs += after.false_downs - before.false_downs;
        suspicions = sum(suspicions, before.suspicions, after.suspicions);
        run.virtual_time += cluster.now - rolecall::time::Instant::ORIGIN;
    }
    run.put_rates(traffic, during * run.trials);
    run.row.put("false_suspicions", suspicions);
    run.row.put("false_downs", false_downs);
    let pairs = f64::from(run.plan.nodes) * f64::from(run.plan.nodes - 1);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    run.row.put("heap_bytes_per_pair", rounded(heap as f64 / pairs / f64::from(run.trials)));
    let virtual_s = (during * run.trials).as_secs_f64();
    run.row.put("cpu_us_per_node_s", run.per_node(cpu.as_secs_f64() * 1e6 / virtual_s));
    run.row.put("measured_s", virtual_s);
}

fn spread<S: System>(run: &mut Run) {
    let mut cluster: Cluster<S> = run.cluster(0);
    let extra = spread_in(run, &mut cluster);
    let trials = f64::from(run.trials);
    run.row.put("bytes_per_node", run.per_node(extra.bytes / trials));
    run.row.put("datagrams_per_node", run.per_node(extra.datagrams / trials));
    run.row.put("stream_bytes_per_node", run.per_node(extra.stream_bytes / trials));
    run.virtual_time += cluster.now - rolecall::time::Instant::ORIGIN;
}

/// Changes, one after the other; gives the traffic beyond that of the time before each.
fn spread_in<S: System>(run: &mut Run, cluster: &mut Cluster<S>) -> Traffic {
    let (mut half, mut all, mut missed, mut missing_trials) = (Vec::new(), Vec::new(), 0, 0);
    let mut extra = Traffic::default();
    let window = run.window();
    for _ in 0..run.trials {
        let start = cluster.counted();
        cluster.run(window);
        let middle = cluster.counted();
        let place = cluster.any();
        cluster.change(place);
        cluster.run(window);
        extra.add(Traffic::between(start, middle), -1.0);
        extra.add(Traffic::between(middle, cluster.counted()), 1.0);
        cluster.run_until(MAX_SPREAD.saturating_sub(window), Cluster::all_told);
        let watch = cluster.watch.take().expect("a change is watched");
        let times = watch.times();
        missed += watch.missing;
        missing_trials += usize::from(watch.missing > 0);
        half.extend(times.get(times.len().midpoint(watch.missing)));
        all.push(if watch.missing == 0 { times[times.len() - 1] } else { MAX_SPREAD });
    }
    run.row.put("half_p50_ms", millis(percentile(&mut half, 0.5)));
    run.row.put("p50_ms", millis(percentile(&mut all, 0.5)));
    run.row.put("p99_ms", millis(percentile(&mut all, 0.99)));
    run.row.put("max_ms", millis(percentile(&mut all, 1.0)));
    run.row.put("missed", missed);
    run.row.put("trials_missed", missing_trials);
    extra
}

fn crash<S: System>(run: &mut Run) {
    let (mut first, mut all, mut missed, mut false_downs) = (Vec::new(), Vec::new(), 0, 0);
    let per_cluster = (run.plan.nodes / WORN_PART).max(1);
    let mut done = 0;
    while done < run.trials {
        let mut cluster: Cluster<S> = run.cluster(done);
        let before = cluster.counted().false_downs;
        for _ in 0..per_cluster.min(run.trials - done) {
            done += 1;
            let place = cluster.any();
            cluster.crash(place);
            cluster.watch(Note::Down(place), place);
            cluster.run_until(MAX_CRASH, Cluster::all_told);
            let watch = cluster.watch.take().expect("a crash is watched");
            missed += watch.missing;
            first.extend(watch.times().first());
            let last = watch.times().last().copied();
            all.extend(last.filter(|_| watch.missing == 0).or(Some(MAX_CRASH)));
            // The next one does not come at a fixed moment of anybody's round.
            let pause = rand::RngExt::random_range(&mut cluster.rng, 5.0..10.0);
            cluster.run(Duration::from_secs_f64(pause));
        }
        false_downs += cluster.counted().false_downs - before;
        run.virtual_time += cluster.now - rolecall::time::Instant::ORIGIN;
    }
    run.row.put("first_p50_ms", millis(percentile(&mut first, 0.5)));
    run.row.put("first_p99_ms", millis(percentile(&mut first, 0.99)));
    run.row.put("all_p50_ms", millis(percentile(&mut all, 0.5)));
    run.row.put("all_p99_ms", millis(percentile(&mut all, 0.99)));
    run.row.put("all_max_ms", millis(percentile(&mut all, 1.0)));
    run.row.put("missed", missed);
    run.row.put("false_downs", false_downs);
}

fn join<S: System>(run: &mut Run) {
    let (mut by_all, mut all, mut missed) = (Vec::new(), Vec::new(), 0);
    let mut extra = Traffic::default();
    for trial in 0..run.trials {
        let mut cluster: Cluster<S> = run.cluster(trial);
        let start = cluster.counted();
        cluster.run(run.window());
        let middle = cluster.counted();
        let place = Place(run.plan.nodes);
        cluster.watch(Note::Up(place), Place(0));
        // All of the old nodes, and not the new one.
        cluster.watch.as_mut().expect("it was set").missing += 1;
        assert_eq!(cluster.add(Duration::ZERO), place);
        let since = cluster.now;
        cluster.run(run.window());
        extra.add(Traffic::between(start, middle), -1.0);
        extra.add(Traffic::between(middle, cluster.counted()), 1.0);
        let over = |cluster: &Cluster<S>| {
            cluster.all_told() && cluster.completed_since(place, since).is_some()
        };
        cluster.run_until(MAX_JOIN.saturating_sub(run.window()), over);
        let watch = cluster.watch.take().expect("a join is watched");
        missed += watch.missing;
        by_all.push(if watch.missing == 0 { watch.times().last().copied() } else { None });
        all.push(cluster.completed_since(place, since));
        run.virtual_time += cluster.now - rolecall::time::Instant::ORIGIN;
    }
    let cap = |times: &[Option<Duration>]| -> Vec<Duration> {
        times.iter().map(|time| time.unwrap_or(MAX_JOIN)).collect()
    };
    run.row.put("known_by_all_p50_ms", millis(percentile(&mut cap(&by_all), 0.5)));
    run.row.put("known_by_all_p99_ms", millis(percentile(&mut cap(&by_all), 0.99)));
    run.row.put("knows_all_p50_ms", millis(percentile(&mut cap(&all), 0.5)));
    run.row.put("knows_all_p99_ms", millis(percentile(&mut cap(&all), 0.99)));
    run.row.put("missed", missed);
    run.row.put("bytes_total", rounded(extra.bytes / f64::from(run.trials)));
    run.row.put("stream_bytes_total", rounded(extra.stream_bytes / f64::from(run.trials)));
}

fn storm<S: System>(run: &mut Run) {
    let (mut all, mut most, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
    let mut unknowing = 0;
    let mut traffic = Traffic::default();
    for trial in 0..run.trials {
        let mut cluster: Cluster<S> =
            Cluster::storm(run.plan.nodes, run.plan.seed + u64::from(trial));
        let converged = cluster.run_until(MAX_JOIN, Cluster::is_complete);
        all.extend(converged.then_some(cluster.now - rolecall::time::Instant::ORIGIN));
        let mut completed = cluster.completed();
        unknowing += run.plan.nodes as usize - completed.len();
        completed.resize(run.plan.nodes as usize, MAX_JOIN);
        most.extend(percentile(&mut completed, 0.99));
        pairs.push(cluster.mostly_known().unwrap_or(MAX_JOIN));
        traffic.add(Traffic::between(Counted::default(), cluster.counted()), 1.0);
        run.virtual_time += cluster.now - rolecall::time::Instant::ORIGIN;
    }
    let trials = f64::from(run.trials);
    let never = run.trials as usize - all.len();
    // Of all the trials; a storm that never ended makes them null.
    let median = if never == 0 { percentile(&mut all, 0.5) } else { None };
    run.row.put("all_converged_ms", millis(median));
    run.row.put("p99_converged_ms", millis(percentile(&mut most, 0.5)));
    run.row.put("pairs_99_ms", millis(percentile(&mut pairs, 0.5)));
    run.row.put("never_converged", never);
    run.row.put("unknowing", unknowing);
    run.row.put("bytes_per_node", run.per_node(traffic.bytes / trials));
    run.row.put("stream_bytes_per_node", run.per_node(traffic.stream_bytes / trials));
}

fn lossy<S: System>(run: &mut Run) {
    let mut cluster: Cluster<S> = run.cluster(0);
    let during = Duration::from_secs(run.pace.loss_s);
    cluster.set_loss(run.loss());
    let before = cluster.counted();
    cluster.run(during);
    let after = cluster.counted();
    run.put_rates(Traffic::between(before, after), during);
    run.row.put("false_suspicions", sum(Some(0), before.suspicions, after.suspicions));
    run.row.put("false_downs", after.false_downs - before.false_downs);
    run.row.put("forced_renewals", after.renewals - before.renewals);
    spread_in(run, &mut cluster);
    run.row.put("measured_s", during.as_secs());
    run.virtual_time += cluster.now - rolecall::time::Instant::ORIGIN;
}

fn sum(so_far: Option<u64>, before: Option<u64>, after: Option<u64>) -> Option<u64> {
    Some(so_far? + (after? - before?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foca::FocaSystem;
    use crate::kinship::Kinship;
    use crate::plumtree::Plumtree;
    use crate::rolecall::Rolecall;

    fn plan() -> Plan {
        Plan { nodes: 12, trials: Some(3), seed: 5, losses: vec![0.1] }
    }

    /// All that does not depend on the machine.
    fn figures<S: System>(scenario: Scenario) -> Vec<String> {
        let rows = scenario.run::<S>(&plan());
        let mut figures = rows.iter().map(|row| serde_json::to_value(row).expect("it is plain"));
        let of_machine = ["wall_s", "cpu_us_per_node_s", "heap_bytes_per_pair"];
        let strip = |value: &mut serde_json::Value| {
            let row = value.as_object_mut().expect("rows are objects");
            row.retain(|key, _| !of_machine.contains(&key.as_str()));
            value.to_string()
        };
        figures.by_ref().map(|mut value| strip(&mut value)).collect()
    }

    fn twice_the_same<S: System>() {
        for scenario in [Scenario::Spread, Scenario::Crash, Scenario::Storm, Scenario::Loss] {
            assert_eq!(figures::<S>(scenario), figures::<S>(scenario), "{}", S::NAME);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_figures() {
        twice_the_same::<Rolecall>();
        twice_the_same::<FocaSystem>();
        twice_the_same::<Kinship>();
        twice_the_same::<Plumtree>();
    }

    #[test]
    fn all_systems_tell_all_nodes_without_loss() {
        let missed = |rows: Vec<Row>| rows[0].number("missed");
        assert!(missed(Scenario::Spread.run::<Rolecall>(&plan())) < 0.5);
        assert!(missed(Scenario::Spread.run::<Plumtree>(&plan())) < 0.5);
        assert!(missed(Scenario::Crash.run::<FocaSystem>(&plan())) < 0.5);
        assert!(missed(Scenario::Join.run::<Kinship>(&plan())) < 0.5);
        let chitchat = Scenario::Spread.run::<crate::chitchat::ChitchatSystem<1>>(&plan());
        assert!(missed(chitchat) < 0.5);
    }
}
