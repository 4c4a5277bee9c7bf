//! Measures the queue of appends and the commits of a store.

use core::sync::atomic::{AtomicUsize, Ordering};

use super::measurements::Measurements;
use crate::histogram::{Histogram, NUMBERS, SHORT_TIMES};

/// Measures the queue of appends and the commits of a store.
#[derive(Debug)]
pub(super) struct Meter {
    queued_appends: AtomicUsize,
    queued_bytes: AtomicUsize,
    pub(super) commit_time: Histogram,
    pub(super) commit_appends: Histogram,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            queued_appends: AtomicUsize::new(0),
            queued_bytes: AtomicUsize::new(0),
            commit_time: Histogram::new(&SHORT_TIMES),
            commit_appends: Histogram::new(&NUMBERS),
        }
    }
}

impl Meter {
    /// Adds an append to the queue. Returns the size of the queue before in bytes.
    pub(super) fn queue(&self, bytes: usize) -> usize {
        self.queued_appends.fetch_add(1, Ordering::Relaxed);
        self.queued_bytes.fetch_add(bytes, Ordering::Relaxed)
    }

    /// Removes appends from the queue.
    pub(super) fn unqueue(&self, appends: usize, bytes: usize) {
        self.queued_appends.fetch_sub(appends, Ordering::Relaxed);
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Returns the size of the queue in bytes.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    /// Returns the measurements. The sizes of the store are missing.
    pub(super) fn measurements(&self) -> Measurements {
        Measurements {
            queued_appends: u64::try_from(self.queued_appends.load(Ordering::Relaxed)).ok(),
            queued_bytes: u64::try_from(self.queued_bytes()).ok(),
            commit_seconds: Some(self.commit_time.distribution()),
            commit_appends: Some(self.commit_appends.distribution()),
            ..Measurements::default()
        }
    }
}
