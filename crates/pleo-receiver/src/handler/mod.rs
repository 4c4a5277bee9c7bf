//! Who gets the messages: the contract of a handler, and the two that come with the crate.

use core::pin::Pin;
use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use pleo_events::{Envelope, ParseError};

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
    /// When the export job in it expires.
    pub expires_at: Option<Timestamp>,
    /// The body, byte for byte as it was signed.
    pub body: Bytes,
}

impl Delivery {
    /// The envelope in the body.
    ///
    /// # Errors
    /// The body is not an envelope.
    pub fn envelope(&self) -> Result<Envelope<'_>, ParseError> {
        Envelope::parse(&self.body)
    }
}
