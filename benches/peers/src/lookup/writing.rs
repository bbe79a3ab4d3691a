//! Updates by the only thread there is: what one costs, alone and among many published at once.

use std::time::{Duration, Instant};

use super::contenders::{Table, Writer};
use super::data::{Change, Changes, Data};

/// Updates that are published at once, where that is cheaper than each by itself.
pub(super) const UPDATES_AT_ONCE: usize = 100;
/// How long a turn is to last, so that reading the clock does not matter.
const TURN: Duration = Duration::from_micros(500);
const MAX_UPDATES_PER_TURN: u128 = 500;
/// How long updates follow each other without a rest.
const SUSTAINED: Duration = Duration::from_millis(400);

/// What updates of one table cost.
#[derive(Default)]
pub(super) struct Writing {
    /// Nanoseconds per update: the means of turns, sorted.
    pub(super) single: Vec<f64>,
    /// The same when [`UPDATES_AT_ONCE`] are published at once.
    pub(super) at_once: Vec<f64>,
    /// Updates per second, each published by itself.
    pub(super) sustained: f64,
}

struct Turns<'t> {
    writer: Writer<'t>,
    changes: Changes<'t>,
    updates: usize,
    writing: Writing,
}

/// All tables, by turns. The caller knows that each has a writer.
pub(super) fn measure(data: &Data, tables: &[&dyn Table], rounds: usize) -> Vec<Writing> {
    let mut all: Vec<_> = tables.iter().map(|table| Turns::new(data, *table)).collect();
    for round in 0..rounds {
        for turn in 0..all.len() {
            let index = (round + turn) % tables.len();
            all[index].take();
        }
    }
    all.into_iter().map(Turns::finish).collect()
}

impl<'t> Turns<'t> {
    fn new(data: &'t Data, table: &'t dyn Table) -> Turns<'t> {
        let writer = table.writer(data).expect("it can be written");
        let writing = Writing::default();
        let mut turns = Turns { writer, changes: Changes::new(data), updates: 1, writing };
        // The first one wakes it up, the second one tells how many make a turn.
        turns.write(1, 1);
        let nanos = turns.write(1, 1);
        let updates = TURN.div_duration_f64(Duration::from_nanos(1)) / nanos;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
        let updates = (updates as u128).clamp(1, MAX_UPDATES_PER_TURN) as usize;
        turns.updates = updates;
        turns
    }

    fn take(&mut self) {
        let nanos = self.write(1, self.updates);
        self.writing.single.push(nanos);
        let nanos = self.write(UPDATES_AT_ONCE, self.updates.div_ceil(UPDATES_AT_ONCE));
        self.writing.at_once.push(nanos);
    }

    /// Makes so many changes at once, so many times; returns nanoseconds per change.
    fn write(&mut self, at_once: usize, times: usize) -> f64 {
        let changes: Vec<Change> = self.changes.by_ref().take(at_once * times).collect();
        let started = Instant::now();
        changes.chunks_exact(at_once).for_each(|changes| (self.writer)(changes));
        #[expect(clippy::cast_precision_loss, reason = "few")]
        let count = changes.len() as f64;
        started.elapsed().as_secs_f64() * 1e9 / count
    }

    fn finish(mut self) -> Writing {
        let started = Instant::now();
        let mut updates = 0_u32;
        while started.elapsed() < SUSTAINED {
            (self.writer)(&[self.changes.next().expect("changes do not end")]);
            updates += 1;
        }
        self.writing.sustained = f64::from(updates) / started.elapsed().as_secs_f64();
        self.writing.single.sort_by(f64::total_cmp);
        self.writing.at_once.sort_by(f64::total_cmp);
        self.writing
    }
}
