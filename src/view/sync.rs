//! What [`epoch_map`](super::epoch_map) and [`guard`](super::guard) share between threads with, in
//! one place: so that `tests/verify` can compile those very files over model checkers' primitives.

pub(super) use std::{
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread_local,
};

pub(super) use crossbeam_epoch::{Collector, Guard, LocalHandle};
