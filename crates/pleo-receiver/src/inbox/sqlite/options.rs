//! The options of the SQLite inbox.

/// Options of a [`SqliteInbox`](super::SqliteInbox).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// The maximum size of the writer's queue in bytes; 64 MiB by default. Further appends are refused
    /// with [`InboxError::Full`](crate::InboxError::Full).
    pub queue_bytes: usize,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            queue_bytes: 64 * 1024 * 1024,
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
}
