//! Export jobs: requests, changes of status, expiry.

use jiff::Timestamp;
use pleo_events::{ExportJob, ExportJobStatus, FailureReasonType};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;

/// The export jobs to create, and how to send their events.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ExportRequest {
    pub(crate) company: Option<Uuid>,
    pub(crate) jobs: u16,
    pub(crate) number_of_items: u64,
    pub(crate) expires_in: Option<u32>,
    pub(crate) event_type: String,
    pub(crate) copies: u16,
    pub(crate) reverse: bool,
}

impl ExportRequest {
    /// Requests one job of three entries, whose event is sent once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the company; by default that of the sandbox's own token.
    #[must_use]
    pub const fn with_company(mut self, company: Uuid) -> Self {
        self.company = Some(company);
        self
    }

    /// Sets the number of jobs.
    #[must_use]
    pub const fn with_jobs(mut self, jobs: u16) -> Self {
        self.jobs = jobs;
        self
    }

    /// Sets the number of accounting entries of each job.
    #[must_use]
    pub const fn with_number_of_items(mut self, items: u64) -> Self {
        self.number_of_items = items;
        self
    }

    /// Sets the lifetime of each job in seconds; by default that of the sandbox's options.
    #[must_use]
    pub const fn with_expires_in(mut self, seconds: u32) -> Self {
        self.expires_in = Some(seconds);
        self
    }

    /// Sets the event type; by default `v1.export-job.created`.
    #[must_use]
    pub fn with_event_type(mut self, event_type: impl Into<String>) -> Self {
        self.event_type = event_type.into();
        self
    }

    /// Sends each message this number of times, also after a success.
    #[must_use]
    pub const fn with_copies(mut self, copies: u16) -> Self {
        self.copies = copies;
        self
    }

    /// Sends the newest message first.
    #[must_use]
    pub const fn with_reverse(mut self, reverse: bool) -> Self {
        self.reverse = reverse;
        self
    }
}

impl Default for ExportRequest {
    fn default() -> Self {
        Self {
            company: None,
            jobs: 1,
            number_of_items: 3,
            expires_in: None,
            event_type: "v1.export-job.created".to_owned(),
            copies: 1,
            reverse: false,
        }
    }
}

/// The created export jobs, and the messages about them.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Export {
    /// The jobs, as the Export API returns them.
    pub jobs: Vec<ExportJob>,
    /// The message ids in the order of their jobs; none without an active subscription.
    pub messages: Vec<String>,
}

/// A change of an export job's status, as the body of `POST /v3/export-job-events` has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct JobEvent {
    pub(crate) event: JobEventKind,
    pub(crate) job_id: Uuid,
    #[serde(default)]
    pub(crate) failure_reason: Option<String>,
    #[serde(default)]
    pub(crate) failure_reason_type: Option<FailureReasonType>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobEventKind {
    Started,
    Failed,
    Completed,
    CompletedWithErrors,
}

impl JobEvent {
    /// Changes the job. Its lifetime begins anew.
    pub(crate) fn apply(self, job: &mut ExportJob, now: Timestamp) -> Result<(), Error> {
        use ExportJobStatus::{Completed, CompletedWithErrors, Failed, InProgress, Pending};
        let status = match self.event {
            JobEventKind::Started => InProgress,
            JobEventKind::Failed => Failed,
            JobEventKind::Completed => Completed,
            JobEventKind::CompletedWithErrors => CompletedWithErrors,
        };
        let is_allowed = match job.status {
            Pending => matches!(status, InProgress | Failed),
            InProgress => matches!(status, Failed | Completed | CompletedWithErrors),
            _ => false,
        };
        if !is_allowed {
            return Err(Error::StatusChange {
                id: job.id,
                status: job.status.to_string(),
                requested: status.to_string(),
            });
        }
        job.last_updated_at = Some(now);
        if status == InProgress {
            job.started_at = Some(now);
        } else {
            job.completed_at = Some(now);
        }
        if status == Failed {
            job.failure_reason = self.failure_reason;
            job.failure_reason_type = self.failure_reason_type;
        }
        job.status = status;
        Ok(())
    }
}

/// Returns when a job that is not finished expires.
pub(crate) fn expiry(job: &ExportJob) -> Option<Timestamp> {
    let is_open = matches!(
        job.status,
        ExportJobStatus::Pending | ExportJobStatus::InProgress
    );
    job.expires_at().filter(|_| is_open)
}

/// Fails a job that has expired. Returns `false` if it has not.
pub(crate) fn expire(job: &mut ExportJob, now: Timestamp) -> bool {
    if expiry(job).is_none_or(|expiry| now < expiry) {
        return false;
    }
    job.status = ExportJobStatus::Failed;
    job.expired_at = Some(now);
    job.last_updated_at = Some(now);
    job.failure_reason = Some("the job expired".to_owned());
    job.failure_reason_type = Some(FailureReasonType::JobExpired);
    true
}
