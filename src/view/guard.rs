//! How readers stay inside while they read: the half of the reclamation that is theirs. The
//! writer's is in [`epoch_map`](super::epoch_map).

use super::sync::{Collector, Guard, LocalHandle, OnceLock, thread_local};

/// The collector of all views of this process; never crossbeam's default one, which others use.
fn collector() -> &'static Collector {
    static COLLECTOR: OnceLock<Collector> = OnceLock::new();
    COLLECTOR.get_or_init(Collector::new)
}

thread_local! {
    static HANDLE: LocalHandle = collector().register();
}

/// While it lives, nothing that this thread can reach in a map or a cell is freed.
pub(super) struct EpochGuard(pub(super) Guard);

impl EpochGuard {
    /// Starts to read. The first call on a thread registers it, which allocates; no other does.
    #[inline]
    pub(super) fn enter() -> EpochGuard {
        let late = |_| collector().register().pin(); // this thread is about to end
        EpochGuard(HANDLE.try_with(LocalHandle::pin).unwrap_or_else(late))
    }

    /// Lets go of all that was read so far and starts anew, for less than to leave and enter.
    #[inline]
    pub(super) fn refresh(&mut self) {
        self.0.repin();
    }
}
