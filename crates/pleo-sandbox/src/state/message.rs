//! Messages and their delivery attempts.

use core::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An event for one subscription.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Message {
    /// The message id, the `webhook-id` of every attempt.
    pub id: String,
    /// The subscription id.
    pub subscription: Uuid,
    /// The event type.
    pub event_type: String,
    /// The body of every attempt.
    pub body: String,
    /// When the event was generated.
    pub created_at: Timestamp,
    /// The progress of the delivery.
    pub state: MessageState,
    /// The time of the next attempt, while the message is pending.
    pub next_attempt_at: Option<Timestamp>,
    /// The attempts so far, oldest first.
    pub attempts: Vec<Attempt>,
    /// The number of failed attempts of the schedule; attempts on request don't count.
    pub(crate) failures: usize,
}

/// The progress of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum MessageState {
    /// An attempt is scheduled or in progress.
    Pending,
    /// An attempt was answered 2xx.
    Delivered,
    /// Every attempt failed, or the endpoint asked for an end.
    Failed,
    /// The subscription was deleted or disabled before a success.
    Canceled,
}

/// A delivery attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Attempt {
    /// The message id.
    pub message: String,
    /// The subscription id.
    pub subscription: Uuid,
    /// The attempt's number in the sandbox, over all messages.
    pub sequence: u64,
    /// When the attempt began.
    pub at: Timestamp,
    /// How long the attempt took; in milliseconds as JSON.
    #[serde(rename = "durationMs", with = "milliseconds")]
    pub duration: Duration,
    /// The response status, or `None` without a response.
    pub status: Option<u16>,
    /// Why there was no response.
    pub error: Option<String>,
    /// The number of signatures sent.
    pub signatures: usize,
}

impl Attempt {
    /// Returns `true` if the response was 2xx.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self.status, Some(200..=299))
    }
}

/// A duration as a number of milliseconds.
mod milliseconds {
    use core::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        value.as_millis().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}
