//! A clock that tests advance.

use core::time::Duration;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::inbox::Clock;

/// A clock that stands still until a test advances or sets it. Clones share their time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<Times>>);

#[derive(Debug)]
struct Times {
    now: Timestamp,
    elapsed: Duration,
}

impl ManualClock {
    /// Creates a clock at this time of day.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let elapsed = Duration::ZERO;
        Self(Arc::new(Mutex::new(Times { now, elapsed })))
    }

    /// Lets time pass.
    pub fn advance(&self, duration: Duration) {
        let mut times = self.times();
        times.now = times.now.saturating_add(duration).unwrap_or(Timestamp::MAX);
        times.elapsed = times.elapsed.saturating_add(duration);
    }

    /// Sets the time of day. No time passes.
    pub fn set(&self, now: Timestamp) {
        self.times().now = now;
    }

    /// Sets the time of day forward or back. No time passes.
    pub fn step(&self, by: SignedDuration) {
        let mut times = self.times();
        times.now = times.now.saturating_add(by).unwrap_or(Timestamp::MAX);
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ManualClock {
    /// Creates a clock at a fixed time of day in 2027.
    fn default() -> Self {
        Self::new(Timestamp::constant(1_800_000_000, 0))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.times().now
    }

    fn elapsed(&self) -> Duration {
        self.times().elapsed
    }
}
