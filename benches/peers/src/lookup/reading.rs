//! Lookups, while the machine's other core does nothing, the same lookups, or updates.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;

use super::contenders::{Reader, Table, Writer};
use super::data::{Changes, Data};
use crate::heap::HeapCounts;

/// Lookups in a batch: some tens of microseconds, so that reading the clock does not matter.
pub(super) const BATCH_LOOKUPS: usize = 1_000;
/// Batches of a turn that are not counted: they bring the table back into the caches.
const WARM_UP_BATCHES: usize = 2;
/// Batches of a turn that are.
const COUNTED_BATCHES: usize = 4;
/// Turns of each contender that are not counted.
const WARM_UP_ROUNDS: usize = 10;
/// Lookups that the second reader does before it looks whether the turn is over.
const COMPANION_LOOKUPS: usize = 100;
/// How far behind its rate a writer may be and still catch up.
const MAX_ARREARS: Duration = Duration::from_millis(1);

/// What the second thread does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Companion {
    Sleeps,
    Reads,
    /// Updates at regular intervals.
    Writes(Duration),
}

/// What one contender did beside one companion.
#[derive(Default)]
pub(super) struct Reading {
    /// Nanoseconds per lookup of each batch, sorted.
    pub(super) nanos: Vec<f64>,
    /// On the measured thread, during the batches that count.
    pub(super) allocations: u64,
    pub(super) frees: u64,
    /// By the companion, and how long it had.
    pub(super) updates: u64,
    pub(super) writing: Duration,
}

/// What the companion is to do, and whether it has begun.
struct Stage {
    /// The number of the turn, from 1; the last one is `STOP`.
    turn: AtomicUsize,
    begun: AtomicUsize,
    /// Steps of the second reader: a batch beside which it stood still does not count.
    steps: AtomicU64,
}

const STOP: usize = usize::MAX;

/// Which contender's turn it is, beside which companion.
#[derive(Clone, Copy)]
struct Turn {
    table: usize,
    companion: usize,
}

/// Every table beside every companion, by turns: within a round all companions, and beside each
/// all tables, in each round another one first. Indexed by companion, then table.
pub(super) fn measure(
    data: &Data,
    tables: &[&dyn Table],
    companions: &[Companion],
    rounds: usize,
) -> Vec<Vec<Reading>> {
    let turns = turns(tables.len(), companions.len(), WARM_UP_ROUNDS + rounds);
    let stage =
        Stage { turn: AtomicUsize::new(0), begun: AtomicUsize::new(0), steps: AtomicU64::new(0) };
    let mut readings: Vec<Vec<Reading>> =
        companions.iter().map(|_| tables.iter().map(|_| Reading::default()).collect()).collect();
    let written = thread::scope(|scope| {
        let companion = scope.spawn(|| accompany(&stage, data, tables, companions, &turns));
        let finish = Finish { stage: &stage, companion: companion.thread().clone() };
        let mut readers: Vec<_> = tables.iter().map(|table| table.reader(data)).collect();
        let mut batches = data.order().chunks_exact(BATCH_LOOKUPS).cycle();
        let warm_up_turns = WARM_UP_ROUNDS * tables.len() * companions.len();
        for (number, turn) in turns.iter().enumerate() {
            stage.begin(number + 1, companion.thread());
            let reading = &mut readings[turn.companion][turn.table];
            for batch in 0..WARM_UP_BATCHES + COUNTED_BATCHES {
                let order = batches.next().expect("a cycle does not end");
                let counts = number >= warm_up_turns && batch >= WARM_UP_BATCHES;
                let steps = stage.steps.load(Ordering::Relaxed);
                let measured = run_batch(data, &mut readers[turn.table], order);
                // Both of them ran, and at the same time rather than in place of each other.
                let both_ran =
                    stage.steps.load(Ordering::Relaxed) != steps && !measured.was_interrupted();
                if counts && (companions[turn.companion] != Companion::Reads || both_ran) {
                    reading.add(&measured);
                }
            }
        }
        drop(finish);
        companion.join().expect("the companion does not panic")
    });
    for (turn, written) in turns.iter().zip(written) {
        let reading = &mut readings[turn.companion][turn.table];
        reading.updates += written.0;
        reading.writing += written.1;
    }
    for reading in readings.iter_mut().flatten() {
        reading.nanos.sort_by(f64::total_cmp);
    }
    readings
}

fn turns(tables: usize, companions: usize, rounds: usize) -> Vec<Turn> {
    let round = |round| {
        (0..companions).flat_map(move |companion| {
            (0..tables).map(move |turn| Turn { table: (round + turn) % tables, companion })
        })
    };
    (0..rounds).flat_map(round).collect()
}

struct Batch {
    elapsed: Duration,
    /// Of it, and a little more, what the thread was on a processor.
    processor: Duration,
    allocations: u64,
    frees: u64,
}

fn run_batch(data: &Data, reader: &mut Reader<'_>, order: &[usize]) -> Batch {
    data.touch(order);
    let heap = HeapCounts::now();
    let processor = ThreadTime::now();
    let started = Instant::now();
    let found = reader(order);
    let elapsed = started.elapsed();
    let processor = processor.elapsed();
    let after = HeapCounts::now();
    assert!(found > 0, "the lookups found nothing");
    Batch {
        elapsed,
        processor,
        allocations: after.allocations - heap.allocations,
        frees: after.frees - heap.frees,
    }
}

impl Batch {
    /// Whether the scheduler took the processor away for a tenth of the time or more.
    fn was_interrupted(&self) -> bool {
        self.processor < self.elapsed.mul_f64(0.9)
    }
}

impl Reading {
    #[expect(clippy::cast_precision_loss, reason = "few")]
    fn add(&mut self, batch: &Batch) {
        self.nanos.push(batch.elapsed.as_secs_f64() * 1e9 / BATCH_LOOKUPS as f64);
        self.allocations += batch.allocations;
        self.frees += batch.frees;
    }
}

impl Stage {
    /// Begins a turn, when the companion is at it.
    fn begin(&self, turn: usize, companion: &Thread) {
        self.turn.store(turn, Ordering::Release);
        companion.unpark();
        while self.begun.load(Ordering::Acquire) != turn {
            thread::yield_now();
        }
    }

    fn is_over(&self, turn: usize) -> bool {
        self.turn.load(Ordering::Acquire) != turn
    }
}

/// Lets the companion go, also when a measurement panics.
struct Finish<'s> {
    stage: &'s Stage,
    companion: Thread,
}

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.stage.turn.store(STOP, Ordering::Release);
        self.companion.unpark();
    }
}

/// The second thread. Returns, for each turn, how many updates it made in which time.
fn accompany(
    stage: &Stage,
    data: &Data,
    tables: &[&dyn Table],
    companions: &[Companion],
    turns: &[Turn],
) -> Vec<(u64, Duration)> {
    let mut readers: Vec<_> = tables.iter().map(|table| table.reader(data)).collect();
    let mut writers: Vec<_> = tables.iter().map(|table| table.writer(data)).collect();
    let mut changes: Vec<_> = tables.iter().map(|_| Changes::new(data)).collect();
    let mut orders = data.order().chunks_exact(COMPANION_LOOKUPS).cycle();
    let mut due: Vec<_> = companions.iter().map(|_| Instant::now()).collect();
    let mut written = vec![(0, Duration::ZERO); turns.len()];
    loop {
        let number = stage.turn.load(Ordering::Acquire);
        if number == STOP {
            return written;
        }
        if number == 0 || stage.begun.load(Ordering::Relaxed) == number {
            thread::park();
            continue;
        }
        let Turn { table, companion } = turns[number - 1];
        match (companions[companion], &mut writers[table]) {
            (Companion::Reads, _) => {
                let mut step = || {
                    readers[table](orders.next().expect("a cycle does not end"));
                    stage.steps.fetch_add(1, Ordering::Relaxed);
                };
                step();
                stage.begun.store(number, Ordering::Release);
                while !stage.is_over(number) {
                    step();
                }
            }
            (Companion::Writes(interval), Some(writer)) => {
                stage.begun.store(number, Ordering::Release);
                let is_over = || stage.is_over(number);
                let due = &mut due[companion];
                written[number - 1] = write(writer, &mut changes[table], interval, due, is_over);
            }
            (Companion::Sleeps, _) | (_, None) => stage.begun.store(number, Ordering::Release),
        }
    }
}

/// Updates at regular intervals until the turn is over: how many, in which time.
pub(super) fn write(
    writer: &mut Writer<'_>,
    changes: &mut Changes<'_>,
    interval: Duration,
    due: &mut Instant,
    is_over: impl Fn() -> bool,
) -> (u64, Duration) {
    let started = Instant::now();
    let mut updates = 0;
    // The rhythm goes on from turn to turn: a turn is shorter than a long interval.
    while *due < started {
        *due += interval * (1 + periods(started - *due, interval));
    }
    while !is_over() {
        let now = Instant::now();
        if now < *due {
            std::hint::spin_loop();
            continue;
        }
        writer(&[changes.next().expect("changes do not end")]);
        updates += 1;
        *due = (*due + interval).max(now.checked_sub(MAX_ARREARS).unwrap_or(now));
    }
    (updates, started.elapsed())
}

/// How often an interval fits into a time.
#[expect(clippy::cast_possible_truncation, reason = "bounded before")]
fn periods(time: Duration, interval: Duration) -> u32 {
    (time.as_nanos() / interval.as_nanos()).min(u32::MAX.into()) as u32
}
