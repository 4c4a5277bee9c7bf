//! The clock of a store.

use core::fmt;
use core::time::Duration;
use std::time::Instant;

use jiff::Timestamp;

/// Tells the time to a store that has no clock of its own.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Returns the time of day. It may be set back and forth.
    fn now(&self) -> Timestamp;

    /// Returns the time since a fixed point. It is never set.
    fn elapsed(&self) -> Duration;
}

/// The clock of the system.
#[derive(Clone, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}
