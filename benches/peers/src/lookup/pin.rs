//! The longest that one `with_nodes` takes while a writer updates.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::contenders::{Reader, Table};
use super::data::{Changes, Data};
use super::reading;
use super::report::{Figure, at_share};
use crate::report::rounded;

/// One update each 10 us.
const UPDATE_INTERVAL: Duration = Duration::from_micros(10);
/// Calls in a row before the other one's turn.
const CALLS_PER_TURN: usize = 10_000;

/// Times each call of a reader of `table` by itself, and by turns as many calls of nothing: what
/// the clock and the scheduler take by themselves.
pub(super) fn measure(data: &Data, table: &dyn Table, turns: usize) -> Vec<Figure> {
    let is_over = AtomicBool::new(false);
    let (mut calls, mut nothing) = (Vec::new(), Vec::new());
    let rate = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut writer = table.writer(data).expect("it can be written");
            let (mut changes, mut due) = (Changes::new(data), Instant::now());
            let is_over = || is_over.load(Ordering::Relaxed);
            reading::write(&mut writer, &mut changes, UPDATE_INTERVAL, &mut due, is_over)
        });
        let mut reader = table.reader(data);
        let mut idle: Reader<'_> = Box::new(<[usize]>::len);
        let mut orders = data.order().chunks_exact(CALLS_PER_TURN).cycle();
        for _ in 0..turns {
            time_calls(&mut reader, orders.next().expect("a cycle does not end"), &mut calls);
            time_calls(&mut idle, orders.next().expect("a cycle does not end"), &mut nothing);
        }
        is_over.store(true, Ordering::Relaxed);
        let (updates, time) = writer.join().expect("the writer does not panic");
        #[expect(clippy::cast_precision_loss, reason = "few")]
        let updates = updates as f64;
        (updates / time.as_secs_f64()).round()
    });
    calls.sort_by(f64::total_cmp);
    nothing.sort_by(f64::total_cmp);
    let figure = |name, times: &[f64]| {
        Figure::new(name, data.len(), "pin", times)
            .beside(&nothing, times)
            .with("calls", times.len())
            .with("p9999_ns", rounded(at_share(times, 0.9999)))
            .with("p99999_ns", rounded(at_share(times, 0.99999)))
            .with("max_ns", rounded(at_share(times, 1.0)))
            .with("updates_per_s", rate)
    };
    vec![figure("nothing", &nothing), figure("with-nodes-str", &calls)]
}

fn time_calls(reader: &mut Reader<'_>, order: &[usize], times: &mut Vec<f64>) {
    for role in order.chunks_exact(1) {
        let started = Instant::now();
        reader(role);
        times.push(started.elapsed().as_secs_f64() * 1e9);
    }
}
