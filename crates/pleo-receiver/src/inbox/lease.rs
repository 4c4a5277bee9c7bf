//! Leases and their outcomes.

use core::fmt;
use core::num::NonZeroU32;
use core::time::Duration;
use std::sync::Arc;

use super::message::StoredMessage;

/// The parameters of [`Inbox::lease`](crate::Inbox::lease).
///
/// The store counts the leases of all processes that use it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LeaseRequest {
    /// The maximum number of messages to lease.
    pub max: usize,
    /// The maximum number of leases at a time.
    pub total: usize,
    /// The maximum number of leases per endpoint at a time.
    pub per_endpoint: usize,
    /// How long a lease lasts unless it is renewed.
    pub ttl: Duration,
    /// The name of the process, for the history of attempts.
    pub worker: Arc<str>,
}

impl LeaseRequest {
    /// Requests at most `max` messages of any endpoint.
    pub fn new(max: usize, ttl: Duration, worker: impl Into<Arc<str>>) -> Self {
        Self {
            max,
            total: usize::MAX,
            per_endpoint: usize::MAX,
            ttl,
            worker: worker.into(),
        }
    }

    /// Sets the maximum number of leases at a time.
    #[must_use]
    pub const fn with_total(mut self, leases: usize) -> Self {
        self.total = leases;
        self
    }

    /// Sets the maximum number of leases per endpoint at a time.
    #[must_use]
    pub const fn with_per_endpoint(mut self, leases: usize) -> Self {
        self.per_endpoint = leases;
        self
    }
}

/// The result of [`Inbox::lease`](crate::Inbox::lease).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Leased {
    /// The messages, in dispatch order.
    pub messages: Vec<LeasedMessage>,
    /// In how long the next lease ends or the next retry is ready, if there is one; zero if the store
    /// left out messages that are ready.
    pub next_due_in: Option<Duration>,
    /// The version of the store after this lease. A caller that passes it to
    /// [`Inbox::changed`](crate::Inbox::changed) is not woken by its own lease. It is woken by the
    /// lease of another process, which may end without notice.
    pub version: Version,
}

impl Leased {
    /// Creates the result of a lease.
    #[must_use]
    pub const fn new(
        messages: Vec<LeasedMessage>,
        next_due_in: Option<Duration>,
        version: Version,
    ) -> Self {
        Self {
            messages,
            next_due_in,
            version,
        }
    }
}

/// A message under a lease.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LeasedMessage {
    /// The lease.
    pub lease: LeaseId,
    /// The number of this attempt, from 1.
    pub attempt: NonZeroU32,
    /// The message. Its history of attempts is empty.
    pub message: StoredMessage,
}

impl LeasedMessage {
    /// Creates a message under a lease.
    #[must_use]
    pub const fn new(lease: LeaseId, attempt: NonZeroU32, message: StoredMessage) -> Self {
        Self {
            lease,
            attempt,
            message,
        }
    }
}

/// Identifies one lease of one message. The store chooses it and never reuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(u128);

impl LeaseId {
    /// Creates an identifier.
    #[must_use]
    pub const fn new(id: u128) -> Self {
        Self(id)
    }

    /// Returns the value that the store chose.
    #[must_use]
    pub const fn get(self) -> u128 {
        self.0
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A version of a store's contents, see [`Inbox::changed`](crate::Inbox::changed).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version(u64);

impl Version {
    /// Creates a version.
    #[must_use]
    pub const fn new(version: u64) -> Self {
        Self(version)
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The handler succeeded.
    Done,
    /// The handler failed. The message is ready again after the delay.
    Retry {
        /// The delay until the next attempt.
        after: Duration,
        /// Why the attempt failed.
        error: String,
    },
    /// The handler failed, and the message is not retried.
    Dead {
        /// Why the attempt failed.
        error: String,
    },
    /// The handler was stopped early. The attempt is not counted, and the message is ready
    /// immediately.
    Release,
}

/// The result of [`Inbox::complete`](crate::Inbox::complete).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Completed {
    /// The lease ended, and the outcome is recorded.
    Recorded,
    /// The lease was lost or completed before. Nothing changed.
    Lost,
}
