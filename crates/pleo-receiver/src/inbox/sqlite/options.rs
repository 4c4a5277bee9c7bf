//! The options of the SQLite inbox.

use std::sync::Arc;

use crate::inbox::clock::{Clock, SystemClock};

/// Options of a [`SqliteInbox`](super::SqliteInbox).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// The maximum size of the writer's queue in bytes; 64 MiB by default. Further appends are refused
    /// with [`InboxErrorKind::Busy`](crate::InboxErrorKind::Busy).
    pub queue_bytes: usize,
    /// Whether the inbox may be in a directory that other users can write to; `false` by default.
    pub allow_shared_directory: bool,
    /// The clock; the system's by default.
    pub clock: Arc<dyn Clock>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            queue_bytes: 64 * 1024 * 1024,
            allow_shared_directory: false,
            clock: Arc::new(SystemClock::default()),
        }
    }
}

impl SqliteOptions {
    /// Sets the maximum size of the writer's queue in bytes.
    #[must_use]
    pub const fn with_queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// Sets whether the inbox may be in a directory that other users can write to. They can then
    /// delete or replace it.
    #[must_use]
    pub const fn with_allow_shared_directory(mut self, allow: bool) -> Self {
        self.allow_shared_directory = allow;
        self
    }

    /// Sets the clock, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}
