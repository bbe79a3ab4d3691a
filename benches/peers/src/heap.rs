//! What each thread asks of the heap.
#![allow(unsafe_code)] // a global allocator takes it

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counting for each thread apart: no counter is shared, so that counting
/// disturbs neither a measurement nor another thread.
pub(crate) struct CountingAllocator;

/// What one thread has asked for so far.
#[derive(Clone, Copy)]
pub(crate) struct HeapCounts {
    pub(crate) allocations: u64,
    pub(crate) frees: u64,
    /// Bytes requested less bytes freed; negative where a thread frees what others made.
    pub(crate) bytes: i64,
}

thread_local! {
    static COUNTS: Cell<HeapCounts> =
        const { Cell::new(HeapCounts { allocations: 0, frees: 0, bytes: 0 }) };
}

impl HeapCounts {
    /// Those of the calling thread.
    pub(crate) fn now() -> HeapCounts {
        COUNTS.get()
    }
}

fn count(allocated: Option<usize>, freed: Option<usize>) {
    let mut counts = COUNTS.get();
    counts.allocations += u64::from(allocated.is_some());
    counts.frees += u64::from(freed.is_some());
    let signed = |bytes: Option<usize>| bytes.unwrap_or_default().cast_signed() as i64;
    counts.bytes += signed(allocated) - signed(freed);
    COUNTS.set(counts);
}

// SAFETY: every call is passed on to the system's allocator as it came; counting touches only a
// thread-local that neither allocates nor has a destructor.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(Some(layout.size()), None);
        // SAFETY: by the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(None, Some(layout.size()));
        // SAFETY: by the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(Some(layout.size()), None);
        // SAFETY: by the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(Some(size), Some(layout.size()));
        // SAFETY: by the caller's promise.
        unsafe { System.realloc(block, layout, size) }
    }
}
