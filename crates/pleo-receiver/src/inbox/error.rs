//! Why an inbox operation fails.

use std::error::Error;
use std::sync::Arc;

/// Why an inbox operation failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// Too many appends are queued.
    #[error("the inbox queue is full; retry later")]
    Full,
    /// The inbox is closed.
    #[error("the inbox is closed")]
    Closed,
    /// The inbox panicked and stores nothing more until it is reopened.
    #[error(
        "the inbox panicked; the panic is in the log. Restart the receiver and report the panic"
    )]
    Panicked,
    /// Another server has this inbox open.
    #[error("inbox `{path}` is in use by another server; stop that server, or use another inbox")]
    InUse {
        /// The file.
        path: String,
    },
    /// The inbox could not be opened.
    #[error("cannot open inbox `{path}`")]
    Open {
        /// The file.
        path: String,
        /// The cause.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The store failed.
    #[error("the inbox failed")]
    Failed(#[source] Arc<dyn Error + Send + Sync>),
}
