//! The types that a store and its callers exchange.

use core::fmt;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use pleo_events::Envelope;

/// The longest error text that is stored with a message, in bytes.
const MAX_ERROR_LEN: usize = 4096;

/// A message to append. [`envelope`](Self::envelope) parses its body.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// The name of the endpoint that received the message.
    pub endpoint: Arc<str>,
    /// The message id, from the `webhook-id` header.
    pub webhook_id: Arc<str>,
    /// The time of arrival.
    pub received_at: Timestamp,
    /// How the message was obtained.
    pub origin: Origin,
    /// The raw body.
    pub body: Bytes,
}

impl NewMessage {
    /// Creates a message from the sender that arrives now.
    pub fn new(
        endpoint: impl Into<Arc<str>>,
        webhook_id: impl Into<Arc<str>>,
        body: impl Into<Bytes>,
    ) -> Self {
        Self {
            endpoint: endpoint.into(),
            webhook_id: webhook_id.into(),
            received_at: Timestamp::now(),
            origin: Origin::Webhook,
            body: body.into(),
        }
    }

    /// Parses the body's envelope; `None` if the body is not an envelope. Parses at each call.
    #[must_use]
    pub fn envelope(&self) -> Option<Envelope<'_>> {
        Envelope::parse(&self.body).ok()
    }
}

/// The columns that a store derives from a body, with times in milliseconds. All are `None` if the
/// body is not an envelope.
#[derive(Clone, Debug, Default)]
pub(crate) struct SummaryColumns {
    pub(crate) event_type: Option<String>,
    pub(crate) event_id: Option<String>,
    pub(crate) resource_id: Option<String>,
    pub(crate) expires_at: Option<Timestamp>,
}

impl SummaryColumns {
    pub(crate) fn parse(message: &NewMessage) -> Self {
        message
            .envelope()
            .map_or_else(Self::default, |envelope| Self {
                event_type: Some(envelope.event_type().to_owned()),
                event_id: envelope.event_id().map(Cow::into_owned),
                resource_id: envelope.resource_id().map(Cow::into_owned),
                expires_at: (envelope.expires_at()).map(|at| from_millisecond(at.as_millisecond())),
            })
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

/// Limits how many messages [`Inbox::lease`](crate::Inbox::lease) leases.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LeaseRequest {
    /// The maximum number of messages to lease.
    pub max: usize,
    /// The maximum number of messages per endpoint, including those in progress.
    pub per_endpoint: usize,
    /// How many messages of each endpoint are in progress.
    pub in_progress: HashMap<Arc<str>, usize>,
}

impl LeaseRequest {
    /// Requests at most `max` messages, of any endpoint.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            max,
            per_endpoint: usize::MAX,
            in_progress: HashMap::new(),
        }
    }

    /// Sets the maximum number of messages per endpoint, including those in progress.
    #[must_use]
    pub const fn with_per_endpoint(mut self, messages: usize) -> Self {
        self.per_endpoint = messages;
        self
    }

    /// Sets how many messages of each endpoint are in progress.
    #[must_use]
    pub fn with_in_progress(mut self, in_progress: HashMap<Arc<str>, usize>) -> Self {
        self.in_progress = in_progress;
        self
    }

    /// Returns how many messages of this endpoint may be leased.
    pub(super) fn max_of(&self, endpoint: &str) -> usize {
        let in_progress = self.in_progress.get(endpoint).copied().unwrap_or(0);
        self.per_endpoint.saturating_sub(in_progress).min(self.max)
    }
}

/// The result of [`Inbox::lease`](crate::Inbox::lease).
#[derive(Debug, Default)]
pub struct Leased {
    /// The messages, in dispatch order.
    pub messages: Vec<LeasedMessage>,
    /// When the next lease ends or the next retry is ready, if there is one.
    pub next_due: Option<Timestamp>,
}

/// A message under a lease.
#[derive(Clone, Debug)]
pub struct LeasedMessage {
    /// The lease, for [`Inbox::complete`](crate::Inbox::complete).
    pub lease: LeaseId,
    /// The message.
    pub message: NewMessage,
    /// The number of this attempt, from 1.
    pub attempt: u32,
}

/// Identifies one lease of one message. A later lease of the same message has another id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseId {
    /// The message's sequence in the store.
    pub message: i64,
    /// The number of the message's lease, from 1. A replay does not reset it.
    pub number: i64,
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The handler succeeded.
    Done,
    /// The handler failed. The message is ready again at `at`.
    Retry {
        /// When the next attempt is ready.
        at: Timestamp,
        /// Why the attempt failed.
        error: String,
    },
    /// The handler failed, and no attempts are left.
    Dead {
        /// Why the attempt failed.
        error: String,
    },
    /// The handler was stopped early. The attempt is not counted, and the message is ready
    /// immediately.
    Release,
    /// The handler was not started, because no attempts were left. This attempt is not counted, and
    /// the message is dead.
    Exhausted {
        /// Why no attempts are left.
        error: String,
    },
}

/// The columns that a store changes when an attempt ended. Times are in milliseconds.
pub(super) struct OutcomeColumns {
    pub(super) state: State,
    pub(super) due_at: Option<i64>,
    /// `None` leaves the column unchanged.
    pub(super) last_error: Option<String>,
    /// Subtracted from the message's attempts.
    pub(super) uncounted_attempts: u32,
}

impl Outcome {
    pub(super) fn into_columns(self) -> OutcomeColumns {
        let (state, due_at, error, uncounted_attempts) = match self {
            Self::Done => (State::Done, None, None, 0),
            Self::Retry { at, error } => {
                let due_at = Some(ceil_millisecond(at));
                (State::Pending, due_at, Some(error), 0)
            }
            Self::Dead { error } => (State::Dead, None, Some(error), 0),
            Self::Release => (State::Pending, None, None, 1),
            Self::Exhausted { error } => (State::Dead, None, Some(error), 1),
        };
        OutcomeColumns {
            state,
            due_at,
            last_error: error.map(truncate_error),
            uncounted_attempts,
        }
    }
}

/// The state of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The message is ready, leased, or scheduled for a retry.
    Pending,
    /// A handler succeeded.
    Done,
    /// All attempts failed.
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

/// A stored message without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The position in the order of arrival.
    pub sequence: i64,
    /// The name of the endpoint that received the message.
    pub endpoint: String,
    /// The message id, from the `webhook-id` header.
    pub webhook_id: String,
    /// The envelope's event type; `None` if the body is not an envelope.
    pub event_type: Option<String>,
    /// The envelope's event id.
    pub event_id: Option<String>,
    /// The `id` in the event's data.
    pub resource_id: Option<String>,
    /// How the message was obtained.
    pub origin: Origin,
    /// The state.
    pub state: State,
    /// How many attempts were started.
    pub attempts: u32,
    /// The time of arrival, in milliseconds.
    pub received_at: Timestamp,
    /// When the export job in the message expires, in milliseconds.
    pub expires_at: Option<Timestamp>,
    /// If pending: when the retry is ready or the lease ends; `None` if the message is ready.
    pub due_at: Option<Timestamp>,
    /// Why the last failed attempt failed.
    pub last_error: Option<String>,
    /// The length of the body in bytes.
    pub body_len: u64,
}

/// Selects messages to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only messages in this state.
    pub state: Option<State>,
    /// Only messages of this endpoint.
    pub endpoint: Option<String>,
    /// Only messages with a greater sequence.
    pub after: Option<i64>,
    /// At most this many messages.
    pub limit: Option<u32>,
    /// Lists the newest message first.
    pub newest_first: bool,
}

/// Selects messages to replay: those that match every field that is set. Selects all messages if no
/// field is set.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Messages with this `webhook-id`.
    pub webhook_id: Option<String>,
    /// Messages of this endpoint.
    pub endpoint: Option<String>,
    /// Messages with exactly this event type.
    pub event_type: Option<String>,
    /// Messages in this state.
    pub state: Option<State>,
    /// Messages received at or after this time.
    pub since: Option<Timestamp>,
    /// Messages received before this time.
    pub until: Option<Timestamp>,
}

impl Selection {
    /// Selects the messages with this `webhook-id` (at most one per endpoint) in any state.
    #[must_use]
    pub fn id(webhook_id: impl Into<String>) -> Self {
        Self {
            webhook_id: Some(webhook_id.into()),
            ..Self::default()
        }
    }

    /// Selects all dead messages.
    #[must_use]
    pub fn dead() -> Self {
        Self {
            state: Some(State::Dead),
            ..Self::default()
        }
    }
}

/// How many messages are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that are ready, leased, or scheduled for a retry.
    pub pending: u64,
    /// Messages that a handler handled successfully.
    pub done: u64,
    /// Messages whose attempts all failed.
    pub dead: u64,
}

/// Shortens an error text to [`MAX_ERROR_LEN`].
fn truncate_error(mut error: String) -> String {
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
