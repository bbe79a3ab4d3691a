//! What [`epoch_map`](super::epoch_map) shares between threads with, in one place: so that
//! `tests/verify` can compile that very file over model checkers' primitives instead.

pub(super) use std::{
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread_local,
};

pub(super) use crossbeam_epoch::{Collector, Guard, LocalHandle};
