//! The export job: somebody clicked *Export*, and the integration has until it expires.

use alloc::string::String;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// An export job, as Pleo's Export API describes it.
///
/// A field that may be null may also be absent; both are `None`, and absent when serialised. Make
/// one from JSON: fields may be added in any version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ExportJob {
    /// The job.
    pub id: Uuid,
    /// The company whose entries it exports.
    pub company_id: Uuid,
    /// The user who clicked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Uuid>,
    /// When.
    pub created_at: Timestamp,
    /// How many accounting entries were selected.
    pub number_of_items: u64,
    /// How many seconds the job lives after the last action on it; see [`Self::expires_at`].
    pub expires_in: i64,
    /// Where it stands.
    pub status: ExportJobStatus,
    /// Whether a user waits for it. Not in the samples of webhooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_interactive: Option<bool>,
    /// Whether the company keeps its books by vendor. Not in the samples of webhooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor_based_bookkeeping: Option<bool>,
    /// When work on it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When work on it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
    /// When it expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired_at: Option<Timestamp>,
    /// When it last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated_at: Option<Timestamp>,
    /// Why it failed, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason_type: Option<FailureReasonType>,
    /// Fields that this version doesn't know. Numbers are held as `serde_json` does: exact as
    /// 64-bit integers, else as 64-bit floats.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ExportJob {
    /// When the job fails with `job_expired`: `expires_in` after `last_updated_at`, or
    /// `created_at` where it never changed. `None` where that is no time that can be told.
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

/// What says when a job expires, and nothing else of it.
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
    /// Where an export job stands. Read in any case: Pleo's pages print them in capitals too.
    ExportJobStatus {
        /// Not begun:
        Pending = "pending",
        /// Being worked on:
        InProgress = "in_progress",
        /// Failed:
        Failed = "failed",
        /// Exported:
        Completed = "completed",
        /// Exported in part:
        CompletedWithErrors = "completed_with_errors",
    }
}

open_enum! {
    /// Why an export job failed.
    FailureReasonType {
        /// The configuration is wrong:
        InvalidConfiguration = "invalid_configuration",
        /// The configuration is incomplete:
        MissingConfiguration = "missing_configuration",
        /// Pleo refused the credentials:
        AuthenticationFailure = "authentication_failure",
        /// The accounting system refused the credentials:
        AccountingSystemAuthenticationFailure = "accounting_system_authentication_failure",
        /// Too many requests to Pleo:
        PleoRateLimit = "pleo_rate_limit",
        /// Too many requests to the accounting system:
        AccountingSystemRateLimit = "accounting_system_rate_limit",
        /// Pleo was out of reach:
        ServiceUnreachable = "service_unreachable",
        /// The accounting system was out of reach:
        AccountingSystemUnreachable = "accounting_system_unreachable",
        /// The entries were refused:
        ValidationFailure = "validation_failure",
        /// A permission is missing:
        AuthorizationFailure = "authorization_failure",
        /// The integration can't be used:
        IntegrationUnusable = "integration_unusable",
        /// Nobody worked on it in time:
        JobExpired = "job_expired",
        /// Pleo took too long:
        ServiceTimeout = "service_timeout",
        /// The accounting system took too long:
        AccountingSystemTimeout = "accounting_system_timeout",
        /// The user canceled it:
        CanceledByUser = "canceled_by_user",
    }
}
