//! The contract of a handler, and the messages that it gets.

use core::pin::Pin;
use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use pleo_events::{Envelope, ParseError};

use crate::inbox::{NewMessage, SummaryColumns};

/// Why a handler failed. The error and its causes are logged and stored with the message.
pub type HandlerError = Box<dyn Error + Send + Sync>;

/// The future that a [`Handler`] returns.
pub type HandlerFuture<'a> = Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send + 'a>>;

/// Handles messages, each at least once. Implemented by async functions and closures from
/// [`Delivery`] to `Result<(), E>`.
///
/// An error, a panic and a timeout count as a failed attempt, and the message is retried. A message
/// may be redelivered even after a success, for instance if the machine crashes before the outcome is
/// recorded: use [`Delivery::webhook_id`] as idempotency key.
pub trait Handler: Send + Sync + 'static {
    /// Handles one message. The future is dropped at the time limit, and at the end of the grace
    /// period of a shutdown.
    fn handle(&self, delivery: Delivery) -> HandlerFuture<'_>;
}

impl<F, Fut, E> Handler for F
where
    F: Fn(Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<HandlerError>,
{
    fn handle(&self, delivery: Delivery) -> HandlerFuture<'_> {
        let future = self(delivery);
        Box::pin(async move { future.await.map_err(Into::into) })
    }
}

/// An authentic message for a handler.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// The name of the endpoint that received the message.
    pub endpoint: Arc<str>,
    /// The message id; the same for each attempt. Use it as idempotency key.
    pub webhook_id: String,
    /// The envelope's event type; `None` if the body is not an envelope.
    pub event_type: Option<String>,
    /// The envelope's event id.
    pub event_id: Option<String>,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// The time of arrival.
    pub received_at: Timestamp,
    /// When the export job in the message expires, in milliseconds.
    pub expires_at: Option<Timestamp>,
    /// `true` if the export job expired before this attempt. Pleo has then failed the job.
    pub expired: bool,
    /// The raw body, as it was signed.
    pub body: Bytes,
}

impl Delivery {
    /// Creates the delivery of a message's `attempt`th attempt, from 1; also to test a handler.
    ///
    /// ```
    /// use pleo_receiver::{Delivery, NewMessage};
    ///
    /// let body = r#"{"eventType":"v1.vendor.created","eventId":"e1","data":{}}"#;
    /// let delivery = Delivery::new(NewMessage::new("books", "msg_1", body), 1);
    /// assert_eq!(delivery.event_type.as_deref(), Some("v1.vendor.created"));
    /// ```
    #[must_use]
    pub fn new(message: NewMessage, attempt: u32) -> Self {
        let columns = SummaryColumns::parse(&message);
        Self {
            endpoint: message.endpoint,
            webhook_id: message.webhook_id.to_string(),
            event_type: columns.event_type,
            event_id: columns.event_id,
            attempt,
            received_at: message.received_at,
            expires_at: columns.expires_at,
            expired: (columns.expires_at).is_some_and(|at| at <= Timestamp::now()),
            body: message.body,
        }
    }

    /// Parses the body's envelope.
    ///
    /// # Errors
    /// [`ParseError`] if the body is not an envelope.
    pub fn envelope(&self) -> Result<Envelope<'_>, ParseError> {
        Envelope::parse(&self.body)
    }

    /// Returns the metadata for handlers outside this process: the environment variable for a
    /// command, the header for a server, and the value.
    ///
    /// Leaves out values that are too long for an environment or a header. The sender chooses the
    /// event's type and id, and a long value would fail the message each time.
    #[cfg(any(feature = "exec", feature = "forward"))]
    #[rustfmt::skip]
    pub(super) fn metadata(&self) -> impl Iterator<Item = (&'static str, &'static str, String)> {
        const MAX_LEN: usize = 1024;
        let time = |at: Timestamp| at.to_string();
        [
            ("PLEO_WEBHOOK_ID", "webhook-id", Some(self.webhook_id.clone())),
            ("PLEO_ENDPOINT", "pleo-endpoint", Some(self.endpoint.to_string())),
            ("PLEO_EVENT_TYPE", "pleo-event-type", self.event_type.clone()),
            ("PLEO_EVENT_ID", "pleo-event-id", self.event_id.clone()),
            ("PLEO_ATTEMPT", "pleo-attempt", Some(self.attempt.to_string())),
            ("PLEO_RECEIVED_AT", "pleo-received-at", Some(time(self.received_at))),
            ("PLEO_EXPIRES_AT", "pleo-expires-at", self.expires_at.map(time)),
        ]
        .into_iter()
        .filter_map(|(variable, header, value)| Some((variable, header, value?)))
        .filter(|(_, _, value)| value.len() <= MAX_LEN)
    }
}
