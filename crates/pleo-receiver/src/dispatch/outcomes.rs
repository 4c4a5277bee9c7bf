//! The outcomes of attempts: records them in the inbox.

use core::time::Duration;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time;

use super::{INBOX_RETRY_DELAY, limit, unwind};
use crate::inbox::{Completed, Inbox, InboxError, InboxErrorKind, Key, LeaseId, Outcome};
use crate::telemetry;

/// How long one call of [`Inbox::complete`] may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Records outcomes concurrently, so that the inbox can record many in one transaction.
pub(super) struct Outcomes {
    inbox: Arc<dyn Inbox>,
    recording: JoinSet<(LeaseId, Result<(), InboxError>)>,
}

impl Outcomes {
    pub(super) fn new(inbox: Arc<dyn Inbox>) -> Self {
        Self {
            inbox,
            recording: JoinSet::new(),
        }
    }

    /// Records an outcome in the background. Repeats that while the inbox is unavailable: otherwise
    /// the handler would run again.
    pub(super) fn record(&mut self, lease: LeaseId, key: Key, outcome: Outcome) {
        let inbox = Arc::clone(&self.inbox);
        self.recording.spawn(async move {
            let mut has_failed = false;
            let result = loop {
                match limit(CALL_TIMEOUT, inbox.complete(lease, outcome.clone())).await {
                    Ok(Completed::Recorded) => break Ok(()),
                    Ok(Completed::Lost) => {
                        // A try that failed may have recorded the outcome and so ended the lease.
                        if has_failed {
                            telemetry::outcome_unknown(&key);
                        } else {
                            telemetry::outcome_lost(&key);
                        }
                        break Ok(());
                    }
                    Err(error) if error.is_retryable() => {
                        telemetry::outcome_delayed(&key, &error);
                        has_failed = true;
                        time::sleep(INBOX_RETRY_DELAY).await;
                    }
                    Err(error) => {
                        telemetry::outcome_unrecorded(&key, &error);
                        let is_fatal = error.kind() == InboxErrorKind::Fatal;
                        break if is_fatal { Err(error) } else { Ok(()) };
                    }
                }
            };
            (lease, result)
        });
    }

    /// Waits until the recording of an outcome ended. Returns its lease. Never resolves if no outcome
    /// is being recorded.
    ///
    /// # Errors
    /// The inbox failed permanently.
    pub(super) async fn recorded(&mut self) -> Result<LeaseId, InboxError> {
        loop {
            match self.recording.join_next().await {
                None => core::future::pending().await,
                Some(joined) => {
                    if let Some((lease, result)) = unwind(joined) {
                        return result.map(|()| lease);
                    }
                }
            }
        }
    }

    /// Returns the lease of an outcome that is recorded, if there is one.
    ///
    /// # Errors
    /// The inbox failed permanently.
    pub(super) fn try_recorded(&mut self) -> Result<Option<LeaseId>, InboxError> {
        let ended = self.recording.try_join_next().and_then(unwind);
        ended
            .map(|(lease, result)| result.map(|()| lease))
            .transpose()
    }

    /// Returns the number of outcomes that are not recorded yet.
    pub(super) fn len(&self) -> usize {
        self.recording.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.recording.is_empty()
    }
}
