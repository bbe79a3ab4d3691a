//! Nothing goes wrong, but roles change all the time: nothing may grow.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::fleet::Fleet;
use crate::run::Question;
use crate::{ALONE, minutes, variable};

const NODES: usize = 8;
/// Of each node: 100 changes a second in all.
const CHANGE_EVERY: Duration = Duration::from_millis(80);
const SAMPLE_EVERY: Duration = Duration::from_secs(10);

/// What is sampled, summed over all processes, and what the median of the last quarter may have
/// above that of the second: a share of it in per mille, and so many.
const GAUGES: [(&str, u64, u64); 7] = [
    ("resident_kib", 30, 2048),
    ("open_files", 0, 8),
    ("piggyback_queue", 500, 40),
    ("fetch_queue", 0, 20),
    ("pull_sessions", 0, 20),
    ("send_queue", 0, 40),
    ("reclaim_pending_bytes", 500, 1 << 20),
];

type Sample = [u64; GAUGES.len()];

#[test]
fn soak() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(time) = variable("SOAK_MINUTES").map(minutes) else {
        return println!("no soak: SOAK_MINUTES says how long it is to take");
    };
    let seed = variable("CHAOS_SEED").unwrap_or(1);
    let Some(mut fleet) = Fleet::start("soak", NODES, seed, CHANGE_EVERY) else { return };
    fleet.calm();
    fleet.weigh_elders();
    let (end, mut samples) = (Instant::now() + time, Vec::new());
    println!("seconds {}", GAUGES.map(|gauge| gauge.0).join(" "));
    while Instant::now() < end {
        fleet.pump(Instant::now() + SAMPLE_EVERY);
        let sample = fleet.sample();
        let words = sample.map(|it| it.to_string()).join(" ");
        println!("{:7.0} {words}", fleet.report.start.elapsed().as_secs_f64());
        samples.push(sample);
    }
    fleet.calm();
    fleet.judge_downs();
    fleet.weigh_elders();
    fleet.compare_quarters(&samples);
    fleet.finish("soak");
}

impl Fleet {
    fn sample(&mut self) -> Sample {
        self.slots.iter_mut().for_each(|slot| slot.stats = None);
        self.awake().for_each(|(_, run)| run.ask(Question::Stats));
        let all_said = |fleet: &Fleet| fleet.slots.iter().all(|slot| slot.stats.is_some());
        if !self.pump_until(Duration::from_secs(10), all_said) {
            self.report.problem("not all tell their stats");
        }
        let mut sums = Sample::default();
        for slot in &self.slots {
            let (Some(run), Some(stats)) = (&slot.run, &slot.stats) else { continue };
            let (resident, files) = run.holds();
            sums[0] += resident;
            sums[1] += files;
            for (sum, (key, ..)) in sums.iter_mut().zip(GAUGES).skip(2) {
                *sum += stats["stats"][key].as_u64().expect("a gauge");
            }
        }
        sums
    }

    fn compare_quarters(&mut self, samples: &[Sample]) {
        let quarter = samples.len() / 4;
        if quarter == 0 {
            return self.report.problem("the soak was too short to compare anything");
        }
        let second = &samples[quarter..2 * quarter];
        let last = &samples[samples.len() - quarter..];
        for (at, (key, share, more)) in GAUGES.into_iter().enumerate() {
            let (before, after) = (median(second, at), median(last, at));
            println!("{key}: median {before} in the second quarter, {after} in the last");
            if after > before + before * share / 1000 + more {
                self.report.problem(&format!("{key} grew from {before} to {after}"));
            }
        }
    }
}

fn median(samples: &[Sample], at: usize) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(|sample| sample[at]).collect();
    values.sort_unstable();
    values[values.len() / 2]
}
