//! A clock for inboxes in tests with paused time.

use core::time::Duration;

use jiff::Timestamp;
use pleo_receiver::inbox::Clock;
use tokio::time::Instant;

/// Follows the time of tokio, which a test can pause and advance.
#[derive(Debug)]
pub(crate) struct TokioClock {
    started_at: Timestamp,
    start: Instant,
}

impl TokioClock {
    pub(crate) fn new() -> Self {
        Self {
            started_at: Timestamp::now(),
            start: Instant::now(),
        }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.started_at + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}
