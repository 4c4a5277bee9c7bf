//! Why an inbox operation fails.

use std::error::Error;
use std::sync::Arc;

/// Why an inbox operation failed. The cause, if there is one, is its source.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", kind.text())]
pub struct InboxError {
    kind: InboxErrorKind,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The kind of an [`InboxError`], which decides what its caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InboxErrorKind {
    /// Too many operations are queued. A later call may succeed.
    Busy,
    /// The store cannot be reached, or cannot store anything at present. A later call may succeed.
    Unavailable,
    /// The store refuses a message for its content. Others can be stored.
    Refused,
    /// The inbox is closed.
    Closed,
    /// The store does not have this operation.
    Unsupported,
    /// The store failed, and no later call will succeed. The server shuts down.
    Fatal,
}

impl InboxError {
    /// Creates an error with its cause.
    pub fn new(kind: InboxErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            kind,
            source: Some(source.into().into()),
        }
    }

    /// Returns the kind.
    #[must_use]
    pub const fn kind(&self) -> InboxErrorKind {
        self.kind
    }

    /// Returns `true` if a later call may succeed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self.kind,
            InboxErrorKind::Busy | InboxErrorKind::Unavailable
        )
    }
}

impl From<InboxErrorKind> for InboxError {
    /// Creates an error without a cause.
    fn from(kind: InboxErrorKind) -> Self {
        Self { kind, source: None }
    }
}

impl InboxErrorKind {
    const fn text(self) -> &'static str {
        match self {
            Self::Busy => "the inbox queue is full; retry later",
            Self::Unavailable => "the inbox is unavailable",
            Self::Refused => "the inbox refuses the message",
            Self::Closed => "the inbox is closed",
            Self::Unsupported => "the inbox does not support this operation",
            Self::Fatal => "the inbox failed; restart the receiver",
        }
    }
}
