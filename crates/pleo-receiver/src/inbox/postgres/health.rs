//! Whether an append would succeed.

use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::error::Failure;
use crate::inbox::error::InboxError;

/// How long the failure of an append counts if no other append succeeds.
const FAILURE_TIME: Duration = Duration::from_secs(5);

/// The state of the server, as the connections see it.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// How many connections can append.
    connected: AtomicUsize,
    failure: Mutex<Option<Failed>>,
}

#[derive(Debug)]
struct Failed {
    error: InboxError,
    at: Instant,
    /// `true` if the server may lose what it commits: then an append that succeeds says nothing.
    is_unsafe: bool,
}

impl Health {
    /// Notes that a connection can append.
    pub(super) fn connected(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
        *self.lock() = None;
    }

    /// Notes that a connection that could append is lost.
    pub(super) fn lost(&self) {
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed) > 0
    }

    /// Notes that an append succeeded.
    pub(super) fn succeeded(&self) {
        self.lock().take_if(|failed| !failed.is_unsafe);
    }

    /// Notes that an append failed, or that the server cannot be reached.
    pub(super) fn failed(&self, failure: Failure) {
        *self.lock() = Some(Failed {
            is_unsafe: matches!(failure, Failure::Unsafe { .. }),
            error: failure.into(),
            at: Instant::now(),
        });
    }

    /// Notes that the server responds, accepts writes and keeps what it commits.
    pub(super) fn responds(&self) {
        if self.is_connected() {
            let is_over =
                |failed: &mut Failed| failed.is_unsafe || failed.at.elapsed() > FAILURE_TIME;
            self.lock().take_if(is_over);
        }
    }

    /// Returns the last failure, unless an append may succeed since.
    pub(super) fn check(&self) -> Result<(), InboxError> {
        self.lock()
            .as_ref()
            .map_or(Ok(()), |failed| Err(failed.error.clone()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Failed>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
