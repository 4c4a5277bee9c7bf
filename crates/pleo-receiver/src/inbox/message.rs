//! Messages: what is appended, and what is stored.

use core::fmt;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use pleo_events::Envelope;

use super::attempt::Attempt;
use super::query::Cursor;

/// The longest error text that is stored with a message or an attempt, in bytes. A longer one is cut
/// between two characters.
pub const MAX_ERROR_LEN: usize = 4096;

/// A message to append. Its time of arrival is the time at which the store appends it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewMessage {
    /// The name of the endpoint that received the message.
    pub endpoint: Arc<str>,
    /// The message id, from the `webhook-id` header.
    pub webhook_id: Arc<str>,
    /// How the message was obtained.
    pub origin: Origin,
    /// The address that sent the message, if it is known.
    pub source: Option<IpAddr>,
    /// The headers to keep.
    pub headers: StoredHeaders,
    /// The raw body.
    pub body: Bytes,
}

impl NewMessage {
    /// Creates a message from the sender, without headers.
    pub fn new(
        endpoint: impl Into<Arc<str>>,
        webhook_id: impl Into<Arc<str>>,
        body: impl Into<Bytes>,
    ) -> Self {
        Self {
            endpoint: endpoint.into(),
            webhook_id: webhook_id.into(),
            origin: Origin::Webhook,
            source: None,
            headers: StoredHeaders::default(),
            body: body.into(),
        }
    }

    /// Sets how the message was obtained.
    #[must_use]
    pub const fn with_origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// Sets the address that sent the message.
    #[must_use]
    pub const fn with_source(mut self, source: Option<IpAddr>) -> Self {
        self.source = source;
        self
    }

    /// Sets the headers to keep.
    #[must_use]
    pub fn with_headers(mut self, headers: StoredHeaders) -> Self {
        self.headers = headers;
        self
    }

    /// Returns the message's key.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::new(Arc::clone(&self.endpoint), Arc::clone(&self.webhook_id))
    }
}

/// The key of a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Key {
    /// The name of the endpoint that received the message.
    pub endpoint: Arc<str>,
    /// The message id.
    pub webhook_id: Arc<str>,
}

impl Key {
    /// Creates a key.
    pub fn new(endpoint: impl Into<Arc<str>>, webhook_id: impl Into<Arc<str>>) -> Self {
        Self {
            endpoint: endpoint.into(),
            webhook_id: webhook_id.into(),
        }
    }
}

/// The headers that are kept with a message: those of the signature as they came, `traceparent`, and
/// `receive-traceparent` with the context of the receive span.
///
/// The text form has a line `name: value` per header.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StoredHeaders(String);

impl StoredHeaders {
    /// Reads the text form.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text form.
    #[must_use]
    pub fn as_text(&self) -> &str {
        &self.0
    }

    /// Returns the value of the header with this lower-case name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut headers = self.iter();
        headers.find_map(|(other, value)| (other == name).then_some(value))
    }

    /// Returns the names, in lower case, and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.lines().filter_map(|line| line.split_once(": "))
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for StoredHeaders {
    /// Collects names, in lower case, and values. Skips values with a line break.
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let mut text = String::with_capacity(256);
        for (name, value) in headers {
            let is_line_break = |byte| matches!(byte, b'\n' | b'\r');
            if !value.as_ref().bytes().any(is_line_break) {
                text.extend([name.as_ref(), ": ", value.as_ref(), "\n"]);
            }
        }
        Self(text)
    }
}

impl fmt::Debug for StoredHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// How a message was obtained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// The sender posted it.
    #[default]
    Webhook,
    /// It was fetched from the API, because its delivery never arrived.
    CatchUp,
}

impl Origin {
    /// Returns `webhook` or `catch-up`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::CatchUp => "catch-up",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The result of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Appended {
    /// The message is new and durable.
    Stored,
    /// The key was stored before, with the same body.
    Duplicate,
    /// The key was stored before, with another body. The first body is kept.
    Conflict,
}

/// The state of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// The message is ready, leased, or scheduled for a retry.
    Pending,
    /// A handler succeeded.
    Done,
    /// The last attempt failed, or the message cannot be read.
    Dead,
}

impl State {
    /// Returns `pending`, `done` or `dead`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A stored message without its body, headers and attempts. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The position in the order of arrival.
    pub sequence: i64,
    /// The name of the endpoint that received the message.
    pub endpoint: Arc<str>,
    /// The message id.
    pub webhook_id: Arc<str>,
    /// The envelope's event type; `None` if the body is not an envelope.
    pub event_type: Option<String>,
    /// The envelope's event id.
    pub event_id: Option<String>,
    /// The `id` in the event's data.
    pub resource_id: Option<String>,
    /// How the message was obtained.
    pub origin: Origin,
    /// The address that sent the message, if it is known.
    pub source: Option<IpAddr>,
    /// The state.
    pub state: State,
    /// Whether the message is leased.
    pub leased: bool,
    /// How many attempts were started since the message arrived or was replayed.
    pub attempts: u32,
    /// The time of arrival.
    pub received_at: Timestamp,
    /// When the export job in the message expires.
    pub expires_at: Option<Timestamp>,
    /// When the message is ready, if it is scheduled for a retry.
    pub due_at: Option<Timestamp>,
    /// Why the last failed attempt failed.
    pub last_error: Option<String>,
    /// The length of the body in bytes.
    pub body_len: u64,
}

impl Entry {
    /// Creates the entry of a message that a store appends with this sequence at this time: pending
    /// and ready, with what the body says about its event.
    #[must_use]
    pub fn new(sequence: i64, received_at: Timestamp, message: &NewMessage) -> Self {
        let summary = Summary::parse(&message.body);
        Self {
            sequence,
            endpoint: Arc::clone(&message.endpoint),
            webhook_id: Arc::clone(&message.webhook_id),
            event_type: summary.event_type,
            event_id: summary.event_id,
            resource_id: summary.resource_id,
            origin: message.origin,
            source: message.source,
            state: State::Pending,
            leased: false,
            attempts: 0,
            received_at: from_millisecond(received_at.as_millisecond()),
            expires_at: summary.expires_at,
            due_at: None,
            last_error: None,
            body_len: to_u64(message.body.len()),
        }
    }

    /// Returns the message's key.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::new(Arc::clone(&self.endpoint), Arc::clone(&self.webhook_id))
    }

    /// Returns the message's position in a list.
    #[must_use]
    pub const fn cursor(&self) -> Cursor {
        Cursor::new(self.sequence)
    }
}

/// A stored message.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoredMessage {
    /// The message without its body, headers and attempts.
    pub entry: Entry,
    /// The headers that were kept.
    pub headers: StoredHeaders,
    /// The raw body.
    pub body: Bytes,
    /// The last attempts that ended, the oldest first.
    pub attempts: Vec<Attempt>,
}

impl StoredMessage {
    /// Creates a message without attempts.
    #[must_use]
    pub const fn new(entry: Entry, headers: StoredHeaders, body: Bytes) -> Self {
        Self {
            entry,
            headers,
            body,
            attempts: Vec::new(),
        }
    }
}

/// The fields of an envelope that are stored with a message; all `None` if the body is not one.
#[derive(Debug, Default)]
struct Summary {
    event_type: Option<String>,
    event_id: Option<String>,
    resource_id: Option<String>,
    expires_at: Option<Timestamp>,
}

impl Summary {
    fn parse(body: &[u8]) -> Self {
        Envelope::parse(body).map_or_else(
            |_| Self::default(),
            |envelope| Self {
                event_type: Some(envelope.event_type().to_owned()),
                event_id: envelope.event_id().map(Cow::into_owned),
                resource_id: envelope.resource_id().map(Cow::into_owned),
                expires_at: (envelope.expires_at()).map(|at| from_millisecond(at.as_millisecond())),
            },
        )
    }
}

/// Shortens an error text to [`MAX_ERROR_LEN`].
pub(super) fn truncate_error(mut error: String) -> String {
    error.truncate(error.floor_char_boundary(MAX_ERROR_LEN));
    error
}

/// Converts a count of messages.
pub(super) fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Rounds up to milliseconds, so that no message is ready before its time.
pub(super) fn ceil_millisecond(at: Timestamp) -> i64 {
    let millisecond = at.as_millisecond();
    if at.subsec_nanosecond() % 1_000_000 > 0 {
        millisecond + 1
    } else {
        millisecond
    }
}

/// Converts milliseconds since 1970; the latest `Timestamp` if there is no such timestamp.
pub(super) fn from_millisecond(millisecond: i64) -> Timestamp {
    Timestamp::from_millisecond(millisecond).unwrap_or(Timestamp::MAX)
}
