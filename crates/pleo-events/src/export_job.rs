//! Export jobs.

use alloc::string::String;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// An export job as defined by Pleo's Export API: a user's request to export accounting entries.
///
/// A nullable field may also be absent; both are `None`, and absent when serialized. Construct one
/// from JSON or from [`samples::export_job`](crate::samples::export_job): any version may add fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ExportJob {
    /// The job's id.
    pub id: Uuid,
    /// The company whose entries are exported.
    pub company_id: Uuid,
    /// The user who started the export.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Uuid>,
    /// When the job was created.
    pub created_at: Timestamp,
    /// The number of accounting entries selected.
    pub number_of_items: u64,
    /// The job's lifetime in seconds, counted from the last action on it; see [`Self::expires_at`].
    pub expires_in: i64,
    /// The job's progress.
    pub status: ExportJobStatus,
    /// Whether a user waits for the result. Absent from the webhook samples in Pleo's documentation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_interactive: Option<bool>,
    /// Whether the company uses vendor-based bookkeeping. Absent from the webhook samples in Pleo's
    /// documentation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor_based_bookkeeping: Option<bool>,
    /// When processing started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When processing ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
    /// When the job expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired_at: Option<Timestamp>,
    /// When the job last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated_at: Option<Timestamp>,
    /// Why the job failed, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<String>,
    /// Why the job failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason_type: Option<FailureReasonType>,
    /// Fields that this version doesn't know. A later minor version may turn one into a typed field.
    /// Numbers are exact as 64-bit integers, else 64-bit floats.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ExportJob {
    /// Returns when the job fails with `job_expired`: `expires_in` seconds after
    /// `last_updated_at`, or after `created_at` if the job never changed. Returns `None` if the
    /// time is out of range.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        Expiry {
            created_at: self.created_at,
            last_updated_at: self.last_updated_at,
            expires_in: self.expires_in,
        }
        .at()
    }
}

/// The fields that define when a job expires.
pub(crate) struct Expiry {
    pub(crate) created_at: Timestamp,
    pub(crate) last_updated_at: Option<Timestamp>,
    pub(crate) expires_in: i64,
}

impl Expiry {
    pub(crate) fn at(&self) -> Option<Timestamp> {
        let last_action = self.last_updated_at.unwrap_or(self.created_at);
        let lifetime = SignedDuration::from_secs(self.expires_in);
        last_action.checked_add(lifetime).ok()
    }
}

open_enum! {
    /// The progress of an export job. Pleo's documentation uses both letter cases.
    ExportJobStatus {
        /// Processing has not started.
        Pending = "pending",
        /// Processing has started.
        InProgress = "in_progress",
        /// The export failed.
        Failed = "failed",
        /// Every entry was exported.
        Completed = "completed",
        /// Some entries were exported, others failed.
        CompletedWithErrors = "completed_with_errors",
    }
}

open_enum! {
    /// The reason why an export job failed.
    FailureReasonType {
        /// The configuration is invalid.
        InvalidConfiguration = "invalid_configuration",
        /// The configuration is incomplete.
        MissingConfiguration = "missing_configuration",
        /// Pleo rejected the credentials.
        AuthenticationFailure = "authentication_failure",
        /// The accounting system rejected the credentials.
        AccountingSystemAuthenticationFailure = "accounting_system_authentication_failure",
        /// Pleo's rate limit was exceeded.
        PleoRateLimit = "pleo_rate_limit",
        /// The accounting system's rate limit was exceeded.
        AccountingSystemRateLimit = "accounting_system_rate_limit",
        /// Pleo was unreachable.
        ServiceUnreachable = "service_unreachable",
        /// The accounting system was unreachable.
        AccountingSystemUnreachable = "accounting_system_unreachable",
        /// The entries failed validation.
        ValidationFailure = "validation_failure",
        /// A permission is missing.
        AuthorizationFailure = "authorization_failure",
        /// The integration is unusable.
        IntegrationUnusable = "integration_unusable",
        /// The job expired before it was processed.
        JobExpired = "job_expired",
        /// Pleo timed out.
        ServiceTimeout = "service_timeout",
        /// The accounting system timed out.
        AccountingSystemTimeout = "accounting_system_timeout",
        /// The user canceled the job.
        CanceledByUser = "canceled_by_user",
    }
}
