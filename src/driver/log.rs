//! Lines of the log are written by a thread of their own: who is to take them, a full disk or a
//! pipe that nobody reads, may take none for as long as it likes, and the protocol must go on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, Level, Span, dispatcher};

use crate::proto::LogLine;

/// Lines that wait to be written; more are dropped and counted.
const MAX_WAITING: usize = 4096;

/// How long the end of a node waits for its last lines.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Lines that found room, and those of them that are written, of all nodes of the process.
static HANDED_OVER: AtomicU64 = AtomicU64::new(0);
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Lines that found no room since one was written.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// A line, and where it belongs: tracing keeps both per thread.
struct Waiting {
    line: LogLine,
    span: Span,
    /// None if there is no subscriber. To set that one for a thread would keep lines from the
    /// `log` crate.
    dispatch: Option<Dispatch>,
}

impl Waiting {
    fn write(self) {
        let Waiting { line, span, dispatch } = self;
        let write = || {
            span.in_scope(|| line.write());
            let dropped = DROPPED.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                tracing::warn!(dropped, "lines of the log were dropped: it was not taken");
            }
        };
        match &dispatch {
            Some(dispatch) => dispatcher::with_default(dispatch, write),
            None => write(),
        }
    }
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
    let dispatch =
        dispatcher::get_default(|present| (!present.is::<NoSubscriber>()).then(|| present.clone()));
    let waiting = Waiting { line, span: Span::current(), dispatch };
    match writer.try_send(waiting) {
        Ok(()) => {
            HANDED_OVER.fetch_add(1, Ordering::Relaxed);
        }
        Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Waits until what was handed over is written, but not for long: a process may end when its node
/// has, and the thread with it.
pub(super) async fn written() {
    let handed_over = HANDED_OVER.load(Ordering::Relaxed);
    let all = async {
        while WRITTEN.load(Ordering::Relaxed) < handed_over {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // Who does not take lines does not take the last ones either.
    let _ = tokio::time::timeout(LAST_WORDS, all).await;
}

fn start() -> Option<SyncSender<Waiting>> {
    let (sender, lines) = sync_channel(MAX_WAITING);
    let thread = std::thread::Builder::new().name("rolecall-log".into());
    thread.spawn(move || write_all(&lines)).ok().map(|_| sender)
}

fn write_all(lines: &Receiver<Waiting>) {
    for waiting in lines {
        // Some subscribers panic when they cannot write.
        let _ = catch_unwind(AssertUnwindSafe(|| waiting.write()));
        WRITTEN.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn the_last_lines_are_waited_for_but_not_for_ever() {
        let (stuck, until) = mpsc::channel::<()>();
        let (done, is_done) = mpsc::channel();
        // Nobody listens to tracing here.
        log(Level::INFO, move || {
            let _ = until.recv();
            let _ = done.send(());
        });
        written().await;
        assert_eq!(is_done.try_recv(), Err(mpsc::TryRecvError::Empty), "the line is stuck");
        drop(stuck);
        written().await;
        assert_eq!(is_done.try_recv(), Ok(()));
    }
}
