//! The inbox in memory.

use core::time::Duration;
use std::sync::Arc;

use pleo_receiver::inbox::Clock;
use pleo_receiver::inbox::conformance::{self, Harness, ManualClock};
use pleo_receiver::jiff::{SignedDuration, Timestamp};
use pleo_receiver::{Inbox, MemoryInbox};

struct Memory(ManualClock);

impl Harness for Memory {
    fn new() -> Self {
        Self(ManualClock::default())
    }

    async fn open(&self) -> Arc<dyn Inbox> {
        Arc::new(MemoryInbox::with_clock(Arc::new(self.0.clone())))
    }

    async fn advance(&self, duration: Duration) {
        self.0.advance(duration);
    }

    async fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn step_clock(&self, by: SignedDuration) -> bool {
        self.0.step(by);
        true
    }
}

conformance::tests!(Memory);
