//! Options of the dispatcher.

use core::time::Duration;
use std::sync::Arc;

const MIN_LEASE_TTL: Duration = Duration::from_secs(1);
const MAX_LEASE_TTL: Duration = Duration::from_secs(24 * 3600);

/// Options of the dispatcher: retries, time limit, concurrency and shutdown.
///
/// The delay after failed attempt *n* is `min_delay` · 2ⁿ⁻¹, at most `max_delay`. Jitter adds up to
/// the same delay again, which separates messages that failed together.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DispatchOptions {
    /// The number of attempts after which a message is dead; 12 by default, at least 1. An attempt
    /// counts even if the process is killed during it.
    pub max_attempts: u32,
    /// The delay after the first failed attempt; 5 seconds by default.
    pub min_delay: Duration,
    /// The longest delay before jitter; 1 hour by default.
    pub max_delay: Duration,
    /// The time limit of a handler for one message; 5 minutes by default.
    pub timeout: Duration,
    /// The maximum number of messages in progress per endpoint, in all processes that share the
    /// inbox; 4 by default, at least 1. A slow endpoint does not delay the others. With 1, messages
    /// are dispatched in order.
    pub concurrency: usize,
    /// The maximum number of messages in progress, in all processes that share the inbox; 64 by
    /// default, at least 1.
    pub total_concurrency: usize,
    /// The grace period: how long handlers may continue after shutdown starts; 20 seconds by default.
    /// Then they are dropped, and their messages are ready immediately.
    pub grace: Duration,
    /// How long a lease of a message lasts; 30 seconds by default, at least 1 second, at most a day.
    ///
    /// The lease is renewed after a third of it until the outcome is recorded. A handler whose lease
    /// cannot be renewed in time is stopped. If the process is killed, the message is redelivered
    /// when the lease ends; if the inbox is a file, when it is opened again.
    pub lease_ttl: Duration,
    /// The name of this process in the history of attempts; its process id by default.
    pub worker: Arc<str>,
}

impl Default for DispatchOptions {
    fn default() -> Self {
        Self {
            max_attempts: 12,
            min_delay: Duration::from_secs(5),
            max_delay: Duration::from_secs(3600),
            timeout: Duration::from_secs(300),
            concurrency: 4,
            total_concurrency: 64,
            grace: Duration::from_secs(20),
            lease_ttl: Duration::from_secs(30),
            worker: std::process::id().to_string().into(),
        }
    }
}

impl DispatchOptions {
    /// Sets the number of attempts after which a message is dead.
    #[must_use]
    pub const fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Sets the delay after the first failed attempt.
    #[must_use]
    pub const fn with_min_delay(mut self, delay: Duration) -> Self {
        self.min_delay = delay;
        self
    }

    /// Sets the longest delay before jitter.
    #[must_use]
    pub const fn with_max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// Sets the time limit of a handler for one message.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the maximum number of messages in progress per endpoint.
    #[must_use]
    pub const fn with_concurrency(mut self, messages: usize) -> Self {
        self.concurrency = messages;
        self
    }

    /// Sets the maximum number of messages in progress.
    #[must_use]
    pub const fn with_total_concurrency(mut self, messages: usize) -> Self {
        self.total_concurrency = messages;
        self
    }

    /// Sets the grace period of a shutdown.
    #[must_use]
    pub const fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets how long a lease of a message lasts.
    #[must_use]
    pub const fn with_lease_ttl(mut self, ttl: Duration) -> Self {
        self.lease_ttl = ttl;
        self
    }

    /// Sets the name of this process in the history of attempts.
    #[must_use]
    pub fn with_worker(mut self, name: impl Into<Arc<str>>) -> Self {
        self.worker = name.into();
        self
    }

    /// Returns how long a lease lasts, within its bounds.
    pub(super) fn lease_ttl(&self) -> Duration {
        self.lease_ttl.clamp(MIN_LEASE_TTL, MAX_LEASE_TTL)
    }
}
