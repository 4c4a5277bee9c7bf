//! The stream of what happens in a sandbox.

use jiff::Timestamp;
use pleo_events::ExportJob;
use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use crate::state::message::{Attempt, Message};
use crate::state::request::ApiRequest;

/// What happened in a sandbox.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum SandboxEvent {
    /// The API received a request.
    Request(ApiRequest),
    /// A message was created for a subscription.
    Message(Message),
    /// A delivery was attempted.
    Attempt(Attempt),
    /// A delivery failed, and is retried at this time.
    Retry {
        /// The message id.
        message: String,
        /// The time of the next attempt.
        at: Timestamp,
    },
    /// A subscription was disabled, since its deliveries failed for too long or its endpoint asked
    /// for it.
    Disabled {
        /// The subscription id.
        subscription: Uuid,
    },
    /// An export job was created, or its status changed.
    ExportJob(Box<ExportJob>),
    /// The reader was too slow, and missed this number of events.
    Missed(u64),
}

/// The stream of a sandbox's events from now on; see [`Sandbox::events`](crate::Sandbox::events).
#[derive(Debug)]
pub struct Events(Receiver<SandboxEvent>);

impl Events {
    pub(crate) const fn new(receiver: Receiver<SandboxEvent>) -> Self {
        Self(receiver)
    }

    /// Waits for the next event. Returns `None` once the sandbox has stopped. Safe to cancel.
    pub async fn next(&mut self) -> Option<SandboxEvent> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(count)) => Some(SandboxEvent::Missed(count)),
            Err(RecvError::Closed) => None,
        }
    }
}
