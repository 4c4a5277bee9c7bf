//! The message that a handler gets.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use pleo_events::{Envelope, Event};

use super::contract::HandlerError;
use crate::inbox::{Entry, NewMessage, StoredHeaders, StoredMessage};
#[cfg(any(feature = "exec", feature = "forward"))]
use crate::trace;

/// One attempt to deliver an authentic message to a handler.
///
/// Cheap to clone.
#[derive(Clone)]
pub struct Delivery {
    inner: Arc<Inner>,
}

struct Inner {
    message: StoredMessage,
    attempt: u32,
    is_last_attempt: bool,
    started_at: Timestamp,
    deadline: Timestamp,
}

impl Delivery {
    /// Creates the delivery of a message whose attempt starts now.
    pub(crate) fn new(
        message: StoredMessage,
        attempt: u32,
        is_last_attempt: bool,
        time_limit: Duration,
    ) -> Self {
        let started_at = Timestamp::now();
        let inner = Arc::new(Inner {
            message,
            attempt,
            is_last_attempt,
            started_at,
            deadline: started_at
                .saturating_add(time_limit)
                .unwrap_or(Timestamp::MAX),
        });
        Self { inner }
    }

    /// Builds a delivery, to test a handler.
    ///
    /// ```
    /// use pleo_receiver::{Delivery, Handler, handler_fn};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let handler = handler_fn(async |delivery: Delivery| {
    ///     delivery.event()?;
    ///     Ok(())
    /// });
    /// let error = handler.handle(Delivery::builder("no envelope").build()).await.unwrap_err();
    /// assert!(error.is_permanent());
    /// # });
    /// ```
    pub fn builder(body: impl Into<Bytes>) -> DeliveryBuilder {
        DeliveryBuilder {
            message: NewMessage::new("test", "msg_test", body),
            headers: Vec::new(),
            received_at: Timestamp::now(),
            attempt: 1,
            is_last_attempt: false,
            time_limit: crate::DispatchOptions::default().timeout,
        }
    }

    /// Returns the message id; the same for each attempt. Use it as idempotency key.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.entry().webhook_id
    }

    /// Returns the name of the endpoint that received the message.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.entry().endpoint
    }

    /// Returns the raw body, as it was signed.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.inner.message.body
    }

    /// Returns the headers that were kept: those of the signature, `traceparent`, and
    /// `receive-traceparent` with the context of the receive span, if it was recorded.
    #[must_use]
    pub fn headers(&self) -> &StoredHeaders {
        &self.inner.message.headers
    }

    /// Returns the sender's `traceparent` header (W3C Trace Context). It is not signed: link to it,
    /// but do not trust it.
    #[must_use]
    pub fn trace_parent(&self) -> Option<&str> {
        self.headers().get("traceparent")
    }

    /// Returns the envelope's event type; `None` if the body is not an envelope.
    #[must_use]
    pub fn event_type(&self) -> Option<&str> {
        self.entry().event_type.as_deref()
    }

    /// Returns the envelope's event id.
    #[must_use]
    pub fn event_id(&self) -> Option<&str> {
        self.entry().event_id.as_deref()
    }

    /// Parses the body's envelope.
    ///
    /// # Errors
    /// A permanent error if the body is not an envelope.
    pub fn envelope(&self) -> Result<Envelope<'_>, HandlerError> {
        Envelope::parse(self.body()).map_err(HandlerError::permanent)
    }

    /// Parses the body's event.
    ///
    /// # Errors
    /// A permanent error if the body is not an envelope, or its data is not what the event type
    /// promises.
    pub fn event(&self) -> Result<Event, HandlerError> {
        self.envelope()?.event().map_err(HandlerError::permanent)
    }

    /// Returns the number of this attempt, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.inner.attempt
    }

    /// Returns `true` if a failure of this attempt makes the message dead.
    #[must_use]
    pub fn is_last_attempt(&self) -> bool {
        self.inner.is_last_attempt
    }

    /// Returns the time of arrival, in milliseconds.
    #[must_use]
    pub fn received_at(&self) -> Timestamp {
        self.entry().received_at
    }

    /// Returns when the export job in the message expires, in milliseconds.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.entry().expires_at
    }

    /// Returns `true` if the export job expired before this attempt. Pleo has then failed the job.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.expires_at()
            .is_some_and(|at| at <= self.inner.started_at)
    }

    /// Returns when the handler is stopped.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.inner.deadline
    }

    fn entry(&self) -> &Entry {
        &self.inner.message.entry
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
            ("PLEO_WEBHOOK_ID", "webhook-id", Some(self.id().to_owned())),
            ("PLEO_ENDPOINT", "pleo-endpoint", Some(self.endpoint().to_owned())),
            ("PLEO_EVENT_TYPE", "pleo-event-type", self.event_type().map(str::to_owned)),
            ("PLEO_EVENT_ID", "pleo-event-id", self.event_id().map(str::to_owned)),
            ("PLEO_ATTEMPT", "pleo-attempt", Some(self.attempt().to_string())),
            ("PLEO_RECEIVED_AT", "pleo-received-at", Some(time(self.received_at()))),
            ("PLEO_EXPIRES_AT", "pleo-expires-at", self.expires_at().map(time)),
            ("TRACEPARENT", "traceparent", trace::current_traceparent()),
        ]
        .into_iter()
        .filter_map(|(variable, header, value)| Some((variable, header, value?)))
        .filter(|(_, _, value)| value.len() <= MAX_LEN)
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("endpoint", &self.endpoint())
            .field("id", &self.id())
            .field("event_type", &self.event_type())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}

/// Builds a [`Delivery`], to test a handler.
#[derive(Clone, Debug)]
#[must_use = "call `build`"]
pub struct DeliveryBuilder {
    message: NewMessage,
    headers: Vec<(String, String)>,
    received_at: Timestamp,
    attempt: u32,
    is_last_attempt: bool,
    time_limit: Duration,
}

impl DeliveryBuilder {
    /// Sets the message id; `msg_test` unless set.
    pub fn id(mut self, webhook_id: impl Into<Arc<str>>) -> Self {
        self.message.webhook_id = webhook_id.into();
        self
    }

    /// Sets the name of the endpoint; `test` unless set.
    pub fn endpoint(mut self, endpoint: impl Into<Arc<str>>) -> Self {
        self.message.endpoint = endpoint.into();
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// Sets the time of arrival; now unless set.
    pub const fn received_at(mut self, received_at: Timestamp) -> Self {
        self.received_at = received_at;
        self
    }

    /// Sets the number of the attempt; 1 unless set.
    pub const fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// Makes this the last attempt.
    pub const fn last_attempt(mut self) -> Self {
        self.is_last_attempt = true;
        self
    }

    /// Sets the time until the deadline; 5 minutes unless set.
    pub const fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Builds the delivery.
    #[must_use]
    pub fn build(self) -> Delivery {
        let entry = Entry::new(1, self.received_at, &self.message);
        let headers = self.headers.into_iter().collect();
        let message = StoredMessage::new(entry, headers, self.message.body);
        Delivery::new(message, self.attempt, self.is_last_attempt, self.time_limit)
    }
}
