//! The events of the dispatcher and its handlers.

use core::fmt::Display;
use core::time::Duration;
use std::sync::Arc;

use jiff::Timestamp;
use tracing::{error, info, warn};

use super::{Telemetry, milliseconds};
use crate::error::error_chain;
use crate::inbox::{InboxError, Key, Outcome};

/// An attempt to handle a message.
#[derive(Clone, Copy)]
pub(crate) struct HandlerAttempt<'a> {
    pub(crate) endpoint: &'a Arc<str>,
    pub(crate) webhook_id: &'a str,
    /// `None` if the body has no event type.
    pub(crate) event_type: Option<&'a str>,
    /// The number of the attempt, from 1.
    pub(crate) attempt: u32,
    /// The time since the attempt started.
    pub(crate) elapsed: Duration,
}

impl Telemetry {
    /// Reports a handler that ended, or was stopped, with this outcome.
    pub(crate) fn attempt_ended(&self, ended: HandlerAttempt<'_>, outcome: &Outcome) {
        let HandlerAttempt {
            endpoint,
            webhook_id,
            event_type,
            attempt,
            elapsed,
        } = ended;
        let milliseconds = milliseconds(elapsed);
        match outcome {
            Outcome::Done => {
                self.metrics.handled(endpoint, "done");
                info!(%endpoint, webhook_id, event_type, attempt, milliseconds, "message handled");
            }
            Outcome::Retry { after, error } => {
                self.metrics.handled(endpoint, "retry");
                let retry_in = Duration::from_millis(super::milliseconds(*after));
                warn!(%endpoint, webhook_id, event_type, attempt, milliseconds, ?retry_in, error, "handler failed");
            }
            Outcome::Dead { error } => {
                self.metrics.handled(endpoint, "dead");
                error!(%endpoint, webhook_id, event_type, attempt, milliseconds, error, "handler failed; message is dead");
            }
            Outcome::Release => {
                info!(%endpoint, webhook_id, event_type, attempt, milliseconds, "handler stopped; message will be redelivered");
            }
        }
    }

    /// Reports a handler that is stopped, because another process may get its message.
    pub(crate) fn lease_lost(&self, stopped: HandlerAttempt<'_>) {
        let HandlerAttempt {
            endpoint,
            webhook_id,
            event_type,
            attempt,
            elapsed,
        } = stopped;
        self.metrics.handled(endpoint, "lost");
        let milliseconds = milliseconds(elapsed);
        warn!(%endpoint, webhook_id, event_type, attempt, milliseconds, "lease lost; handler stopped");
    }

    /// Reports a message that is dead without another attempt.
    pub(crate) fn attempts_exhausted(&self, key: &Key, event_type: Option<&str>, error: &str) {
        let (endpoint, webhook_id) = (&key.endpoint, &*key.webhook_id);
        self.metrics.handled(endpoint, "dead");
        error!(%endpoint, webhook_id, event_type, error, "no attempts left; message is dead");
    }

    /// Reports an attempt that starts after the export job expired.
    pub(crate) fn expired(
        &self,
        key: &Key,
        event_type: Option<&str>,
        expires_at: Option<Timestamp>,
    ) {
        let (endpoint, webhook_id) = (&key.endpoint, &*key.webhook_id);
        self.metrics.expired(endpoint);
        let expires_at = expires_at.map(tracing::field::display);
        warn!(%endpoint, webhook_id, event_type, expires_at, "export job expired before dispatch");
    }

    /// Reports that the dispatcher panicked, and restarts.
    pub(crate) fn dispatcher_panicked(&self, error: impl Display) {
        self.metrics.dispatcher_restarted();
        error!(%error, "dispatcher panicked");
    }
}

/// Reports how many handlers ran at the end of the grace period.
pub(crate) fn grace_period_over(handlers: usize) {
    warn!(handlers, "grace period over; handlers stopped");
}

/// Reports that the inbox returned an error instead of messages.
pub(crate) fn lease_request_failed(error: &InboxError) {
    let error = error_chain(error);
    error!(error, "cannot lease messages; retrying");
}

/// Reports that the inbox has not answered a lease request when the dispatcher ends.
pub(crate) fn lease_request_abandoned() {
    error!("lease request in progress at shutdown; its messages will be redelivered");
}

/// Reports that the inbox returned an error instead of renewing leases.
pub(crate) fn renewal_failed(error: &InboxError) {
    let error = error_chain(error);
    warn!(error, "cannot renew leases; retrying");
}

/// Reports a lease that ended before the outcome of its attempt was recorded.
pub(crate) fn outcome_lost(key: &Key) {
    let (endpoint, webhook_id) = (&key.endpoint, &*key.webhook_id);
    warn!(%endpoint, webhook_id, "lease lost before its outcome was recorded; message will be redelivered");
}

/// Reports a lease that had ended when its outcome was recorded again. An earlier try failed, and may
/// have recorded the outcome nevertheless.
pub(crate) fn outcome_unknown(key: &Key) {
    let (endpoint, webhook_id) = (&key.endpoint, &*key.webhook_id);
    warn!(%endpoint, webhook_id, "outcome was recorded by an earlier try, or its lease was lost; message may be redelivered");
}

/// Reports that the inbox could not record an outcome. Another try follows.
pub(crate) fn outcome_delayed(key: &Key, error: &InboxError) {
    let (endpoint, webhook_id) = (&key.endpoint, &*key.webhook_id);
    let error = error_chain(error);
    error!(%endpoint, webhook_id, error, "cannot record outcome; retrying");
}

/// Reports that the inbox cannot record an outcome.
pub(crate) fn outcome_unrecorded(key: &Key, error: &InboxError) {
    let (endpoint, webhook_id) = (&key.endpoint, &*key.webhook_id);
    let error = error_chain(error);
    error!(%endpoint, webhook_id, error, "cannot record outcome; message will be redelivered");
}

/// Reports how many outcomes are not recorded when the dispatcher ends.
pub(crate) fn outcomes_abandoned(outcomes: usize) {
    error!(
        outcomes,
        "cannot record outcomes; messages will be redelivered"
    );
}

/// Reports that the command of a handler exited.
#[cfg(feature = "exec")]
pub(crate) fn command_exited(
    endpoint: &str,
    webhook_id: &str,
    status: impl Display,
    stdout: &str,
    stderr: &str,
) {
    tracing::debug!(%endpoint, webhook_id, %status, stdout, stderr, "command exited");
}
