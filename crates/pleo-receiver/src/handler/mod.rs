//! Who gets the messages: the contract of a handler, and the two that come with the crate.

#[cfg(feature = "exec")]
mod exec;
#[cfg(feature = "forward")]
mod forward;

use core::pin::Pin;
use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use pleo_events::{Envelope, ParseError};

use crate::NewMessage;
use crate::inbox::Known;

#[cfg(feature = "exec")]
pub use exec::{Exec, ExecError};
#[cfg(feature = "forward")]
pub use forward::{Forward, ForwardError};

/// Why a handler failed; its text is logged and kept with the message.
pub type HandlerError = Box<dyn Error + Send + Sync>;

/// The future that a [`Handler`] answers with.
pub type HandlerFuture<'a> = Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send + 'a>>;

/// Takes messages, each at least once. Any async function or closure from a [`Delivery`] to a
/// `Result<(), E>` is one.
///
/// An error, a panic and a run over the time limit all count as a failed attempt: the message comes
/// again later. A handler may see a message twice, also after it succeeded, for instance when the
/// machine stopped between the success and its record: use [`Delivery::webhook_id`] as the key.
pub trait Handler: Send + Sync + 'static {
    /// Handles one message. The future is dropped when it takes longer than the time limit.
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

/// An authentic message on its way to a handler.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// The name of the endpoint that received it.
    pub endpoint: Arc<str>,
    /// The message's identifier: the same each time that it comes.
    pub webhook_id: String,
    /// The type in the envelope; `None` where the body is not an envelope.
    pub event_type: Option<String>,
    /// The event's id in the envelope.
    pub event_id: Option<String>,
    /// Which attempt this is, counted from 1.
    pub attempt: u32,
    /// When the message arrived.
    pub received_at: Timestamp,
    /// When the export job in it expires, to the millisecond.
    pub expires_at: Option<Timestamp>,
    /// Whether that was over when this attempt began; Pleo has then failed the job already.
    pub expired: bool,
    /// The body, byte for byte as it was signed.
    pub body: Bytes,
}

impl Delivery {
    /// A message for its `attempt`th attempt, counted from 1; also to test a handler with.
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
        let known = Known::of(message.summary());
        Self {
            endpoint: message.endpoint,
            webhook_id: message.webhook_id.to_string(),
            event_type: known.event_type,
            event_id: known.event_id,
            attempt,
            received_at: message.received_at,
            expires_at: known.expires_at,
            expired: (known.expires_at).is_some_and(|at| at <= Timestamp::now()),
            body: message.body,
        }
    }

    /// The envelope in the body.
    ///
    /// # Errors
    /// The body is not an envelope.
    pub fn envelope(&self) -> Result<Envelope<'_>, ParseError> {
        Envelope::parse(&self.body)
    }

    /// What a handler outside this process is told beside the body: the name of the variable for a
    /// command, the name of the header for a server, and the value where there is one.
    ///
    /// The sender chose type and id of the event, so that a value too long for an environment is
    /// left out rather than making the message fail each time; it stands in the body anyway.
    #[cfg(any(feature = "exec", feature = "forward"))]
    #[rustfmt::skip]
    fn facts(&self) -> impl Iterator<Item = (&'static str, &'static str, String)> {
        const LONGEST: usize = 1024;
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
        .filter(|(_, _, value)| value.len() <= LONGEST)
    }
}
