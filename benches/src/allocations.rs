//! Counts allocations.
#![allow(
    unsafe_code,
    reason = "there is no safe way to implement a global allocator"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

static COUNT: AtomicU64 = AtomicU64::new(0);

/// Counts the calls of the system allocator. A benchmark declares it as its global allocator.
pub struct Counting;

impl Counting {
    fn count() {
        // Not `fetch_add`: its lock would slow down the verifiers that allocate. These benchmarks
        // have one thread.
        COUNT.store(COUNT.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

// SAFETY: every method forwards its arguments to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller upholds the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count();
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Counts the allocations of a call.
pub fn during(call: impl FnOnce()) -> u64 {
    let before = COUNT.load(Ordering::Relaxed);
    call();
    COUNT.load(Ordering::Relaxed) - before
}
