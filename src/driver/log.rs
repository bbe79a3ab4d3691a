//! Lines of the log are written by a thread of their own: who is to take them, a full disk or a
//! pipe that nobody reads, may take none for as long as it likes, and the protocol must go on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use tracing::{Dispatch, Level, Span};

use crate::proto::LogLine;

/// Lines that wait to be written; more are dropped and counted.
const MAX_WAITING: usize = 4096;

/// Lines that found no room since one was written.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// A line, and where it belongs: tracing keeps both per thread.
struct Waiting {
    line: LogLine,
    span: Span,
    dispatch: Dispatch,
}

/// Logs, unless nobody wants lines of this level.
pub(super) fn log(level: Level, write: impl FnOnce() + Send + 'static) {
    if let Some(line) = LogLine::new(level, write) {
        hand_over(line);
    }
}

/// Hands a line to the thread that writes them; it belongs to the present span.
pub(super) fn hand_over(line: LogLine) {
    static WRITER: OnceLock<Option<SyncSender<Waiting>>> = OnceLock::new();
    let Some(writer) = WRITER.get_or_init(start) else {
        // There is no thread to be had: better late than never.
        return line.write();
    };
    let dispatch = tracing::dispatcher::get_default(Dispatch::clone);
    let waiting = Waiting { line, span: Span::current(), dispatch };
    match writer.try_send(waiting) {
        Ok(()) => {}
        Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn start() -> Option<SyncSender<Waiting>> {
    let (sender, lines) = sync_channel(MAX_WAITING);
    let thread = std::thread::Builder::new().name("rolecall-log".into());
    thread.spawn(move || write_all(&lines)).ok().map(|_| sender)
}

fn write_all(lines: &Receiver<Waiting>) {
    for Waiting { line, span, dispatch } in lines {
        tracing::dispatcher::with_default(&dispatch, || {
            // Some subscribers panic when they cannot write.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                span.in_scope(|| line.write());
                let dropped = DROPPED.swap(0, Ordering::Relaxed);
                if dropped > 0 {
                    tracing::warn!(dropped, "lines of the log were dropped: it was not taken");
                }
            }));
        });
    }
}
