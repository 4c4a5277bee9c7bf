//! The history of attempts.

use core::fmt;
use core::num::NonZeroU32;
use core::time::Duration;
use std::sync::Arc;

use jiff::Timestamp;

/// How many attempts of a message are kept; the oldest are deleted.
pub const MAX_ATTEMPTS_KEPT: usize = 20;

/// An attempt that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The number of the attempt, from 1. A replay starts over.
    pub number: NonZeroU32,
    /// The name of the process that ran the handler.
    pub worker: Arc<str>,
    /// When the message was leased.
    pub started_at: Timestamp,
    /// How long the lease lasted; `None` if that is not known, as after a crash.
    pub duration: Option<Duration>,
    /// How the attempt ended.
    pub result: AttemptResult,
    /// Why the attempt failed: for a command its exit status and the end of its standard error, for
    /// a request the status.
    pub error: Option<String>,
}

impl Attempt {
    /// Creates an attempt.
    pub fn new(
        number: NonZeroU32,
        worker: impl Into<Arc<str>>,
        started_at: Timestamp,
        duration: Option<Duration>,
        result: AttemptResult,
        error: Option<String>,
    ) -> Self {
        Self {
            number,
            worker: worker.into(),
            started_at,
            duration,
            result,
            error,
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttemptResult {
    /// The handler succeeded.
    Done,
    /// The handler failed, and the message was scheduled for a retry.
    Retry,
    /// The handler failed, and the message is dead.
    Dead,
    /// The handler was stopped early. The attempt is not counted.
    Released,
    /// The lease ended without an outcome.
    Lost,
}

impl AttemptResult {
    /// Returns `done`, `retry`, `dead`, `released` or `lost`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Retry => "retry",
            Self::Dead => "dead",
            Self::Released => "released",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for AttemptResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
