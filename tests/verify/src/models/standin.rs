//! A scheme of reclamation that is small enough to be checked exhaustively with two readers, in
//! place of crossbeam-epoch: with its registration of threads, its list and its queue, one reader
//! is all that a model can have (`over_crossbeam` does that).
//!
//! Each thread has a counter that is odd while it is inside. What was deferred runs once every
//! thread that was inside has been seen to leave. The promises, and the fences that keep them, are
//! those of crossbeam-epoch.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering, fence};

/// Threads that may register in one execution.
const THREADS: usize = 4;

#[derive(Default)]
struct Shared {
    counters: [AtomicU64; THREADS],
    /// Not an atomic of the checker's: it orders nothing, and makes no steps.
    registered: std::sync::atomic::AtomicUsize,
}

pub(crate) struct Collector(Arc<Shared>);

impl Collector {
    pub(crate) fn new() -> Collector {
        Collector(Arc::default())
    }

    pub(crate) fn register(&self) -> LocalHandle {
        let me = self.0.registered.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&self.0);
        let (inside, count) = (Cell::new(0), Cell::new(0));
        LocalHandle(Rc::new(Local { shared, me, inside, count, deferred: RefCell::default() }))
    }
}

/// Something to be done when these threads have left: thread and counter.
struct Deferred {
    inside: Vec<(usize, u64)>,
    run: Box<dyn FnOnce()>,
}

struct Local {
    shared: Arc<Shared>,
    me: usize,
    inside: Cell<usize>,
    count: Cell<u64>,
    deferred: RefCell<Vec<Deferred>>,
}

impl Local {
    fn step(&self, by: u64) {
        self.count.set(self.count.get() + by);
        // Release: what this thread read comes before what is done because it has left.
        self.shared.counters[self.me].store(self.count.get(), Ordering::Release);
    }
}

pub(crate) struct LocalHandle(Rc<Local>);

impl LocalHandle {
    pub(crate) fn pin(&self) -> Guard {
        self.0.inside.set(self.0.inside.get() + 1);
        if self.0.inside.get() == 1 {
            self.0.step(1);
            // Either who defers sees this thread inside, or this thread sees what was done before.
            fence(Ordering::SeqCst);
        }
        Guard(Rc::clone(&self.0))
    }
}

pub(crate) struct Guard(Rc<Local>);

impl Guard {
    pub(crate) fn repin(&mut self) {
        if self.0.inside.get() == 1 {
            self.0.step(2);
            fence(Ordering::SeqCst);
        }
    }

    pub(crate) fn defer(&self, run: impl FnOnce() + 'static) {
        fence(Ordering::SeqCst);
        let counters = self.0.shared.counters.iter().enumerate();
        let others = counters.filter(|(thread, _)| *thread != self.0.me);
        let inside = others.map(|(thread, count)| (thread, count.load(Ordering::Acquire)));
        let inside = inside.filter(|(_, count)| count % 2 == 1).collect();
        self.0.deferred.borrow_mut().push(Deferred { inside, run: Box::new(run) });
    }

    pub(crate) fn flush(&self) {
        let counters = &self.0.shared.counters;
        for mut deferred in self.0.deferred.take() {
            let stays =
                |&(thread, count): &(usize, u64)| counters[thread].load(Ordering::Acquire) == count;
            deferred.inside.retain(stays);
            if deferred.inside.is_empty() {
                (deferred.run)();
            } else {
                self.0.deferred.borrow_mut().push(deferred);
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.inside.set(self.0.inside.get() - 1);
        if self.0.inside.get() == 0 {
            self.0.step(1);
        }
    }
}
