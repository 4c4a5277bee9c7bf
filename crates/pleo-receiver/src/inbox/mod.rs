//! Where authentic messages wait: the contract that every store keeps.
//!
//! Nothing outside this module knows how a store keeps its messages.

mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;

use core::fmt;
use core::future::pending;
use core::pin::Pin;
use core::time::Duration;
use std::borrow::Cow;
use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use pleo_events::EventSummary;

pub use memory::MemoryInbox;
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteInbox, SqliteOptions};

/// The future that an [`Inbox`] answers with.
pub type InboxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, InboxError>> + Send + 'a>>;

/// A store of messages, keyed by endpoint and `webhook-id`.
///
/// A message is *pending* until a handler took it (*done*) or all attempts failed (*dead*).
/// A pending message is handed out by [`claim`](Self::claim) under a lease: when the lease ends
/// before [`settle`](Self::settle) was called, it is handed out again. That makes delivery
/// at-least-once.
pub trait Inbox: fmt::Debug + Send + Sync + 'static {
    /// Stores a message unless its key is there already, and says what became of it. Resolves only
    /// when that is durable.
    ///
    /// Dropping the future doesn't undo it.
    ///
    /// # Errors
    /// [`InboxError::Full`] at once where too many appends are waiting, [`InboxError::Failed`] where
    /// the store couldn't keep it, [`InboxError::Closed`] while the inbox shuts down,
    /// [`InboxError::Panicked`] once it is [`broken`](Self::broken).
    fn append(&self, message: NewMessage) -> InboxFuture<'_, Appended>;

    /// Takes messages that are due at `now`, as many as there is room for, for as long as `lease`:
    /// first the one that expires first ([`NewMessage::outline`] tells when), those without an expiry
    /// last, else in the order of arrival.
    /// Counts an attempt for each. A claim need not outlast the machine: what is in hand when it
    /// stops is handed out again.
    fn lease(&self, room: LeaseRequest, now: Timestamp, lease: Duration)
    -> InboxFuture<'_, Leased>;

    /// Ends the claim on a message. Does nothing where the claim was lost: the lease ended and
    /// somebody else has the message, or it was replayed or settled meanwhile. The outcome outlasts
    /// the process at once; where the machine stops, the message may come again.
    fn complete(&self, lease: LeaseId, outcome: Outcome) -> InboxFuture<'_, ()>;

    /// Resolves when messages may have become claimable since the last call, or due at another time:
    /// after an append, a replay or the end of a claim. May resolve for nothing.
    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Messages in the order of arrival, the oldest first unless the filter says otherwise, without
    /// their bodies.
    fn list(&self, filter: Filter) -> InboxFuture<'_, Vec<Entry>>;

    /// The messages with this `webhook-id` (one for each endpoint that received it), with bodies.
    fn show(&self, webhook_id: String) -> InboxFuture<'_, Vec<(Entry, Bytes)>>;

    /// Makes the selected messages pending again, due at once and with no attempts counted; not
    /// those that a handler has in hand. Says how many.
    fn replay(&self, selection: Selection) -> InboxFuture<'_, u64>;

    /// Deletes messages in `state` that were received before `before`, but never one that is pending.
    /// Says how many. A message that is deleted and then sent again is stored again, so `before` belongs well behind the
    /// sender's last retry.
    fn prune(&self, state: State, before: Timestamp) -> InboxFuture<'_, u64>;

    /// How many messages are in each state.
    fn counts(&self) -> InboxFuture<'_, Counts>;

    /// Resolves when this can store nothing more until it is opened anew, as after a panic of its own:
    /// a server ends then, rather than refuse everything for ever. Never unless said otherwise.
    fn broken(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(pending())
    }

    /// Stops taking appends, finishes those that wait, and lets go of the store. Later calls get
    /// [`InboxError::Closed`].
    fn close(&self) -> InboxFuture<'_, ()>;
}

/// A message to store: what its arrival tells. What is in it, [`outline`](Self::outline) reads.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// The name of the endpoint that received it.
    pub endpoint: Arc<str>,
    /// The message's identifier, from the header.
    pub webhook_id: Arc<str>,
    /// When it arrived.
    pub received_at: Timestamp,
    /// How it came here.
    pub origin: Origin,
    /// The raw body.
    pub body: Bytes,
}

impl NewMessage {
    /// A message that the sender posts now.
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

    /// What a queue wants to know of the body; `None` where that isn't an envelope. Reads the body
    /// each time.
    #[must_use]
    pub fn summary(&self) -> Option<EventSummary<'_>> {
        EventSummary::parse(&self.body).ok()
    }
}

/// An outline to keep, with times to the millisecond; nothing where the body isn't an envelope.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) event_type: Option<String>,
    pub(crate) event_id: Option<String>,
    pub(crate) resource_id: Option<String>,
    pub(crate) expires_at: Option<Timestamp>,
}

impl Known {
    pub(crate) fn of(outline: Option<EventSummary<'_>>) -> Self {
        outline.map_or_else(Self::default, |outline| Self {
            event_type: Some(outline.event_type.into_owned()),
            event_id: outline.event_id.map(Cow::into_owned),
            resource_id: outline.resource_id.map(Cow::into_owned),
            expires_at: (outline.expires_at).map(|at| timestamp(at.as_millisecond())),
        })
    }
}

/// How a message came into the inbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// The sender posted it.
    #[default]
    Webhook,
    /// It was fetched, since the sender's own delivery of it never arrived.
    CatchUp,
}

impl Origin {
    /// `webhook` or `catch-up`.
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

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Appended {
    /// It is new, and durable now.
    Stored,
    /// It was there before, with the same bytes.
    Duplicate,
    /// Its key was there before with other bytes, which stay.
    Conflict,
}

/// How many messages [`Inbox::claim`] may hand out.
#[derive(Clone, Debug)]
pub struct LeaseRequest {
    /// In all.
    pub total: usize,
    /// Of one endpoint, counting those that it has in hand.
    pub per_endpoint: usize,
    /// How many messages of each endpoint are in hand already.
    pub in_progress: HashMap<Arc<str>, usize>,
}

impl LeaseRequest {
    /// So many, of whatever endpoint.
    #[must_use]
    pub fn of(total: usize) -> Self {
        Self {
            total,
            per_endpoint: usize::MAX,
            in_progress: HashMap::new(),
        }
    }

    /// How many of this endpoint fit in.
    fn for_endpoint(&self, endpoint: &str) -> usize {
        let in_progress = self.in_progress.get(endpoint).copied().unwrap_or(0);
        self.per_endpoint
            .saturating_sub(in_progress)
            .min(self.total)
    }
}

/// What [`Inbox::claim`] hands out.
#[derive(Debug, Default)]
pub struct Leased {
    /// The messages, in the order in which to handle them.
    pub messages: Vec<LeasedMessage>,
    /// When the next message is due that isn't yet, as far as is known.
    pub next_due: Option<Timestamp>,
}

/// A message under a lease.
#[derive(Clone, Debug)]
pub struct LeasedMessage {
    /// What to settle it with.
    pub lease: LeaseId,
    /// The message.
    pub message: NewMessage,
    /// Which attempt this is, counted from 1.
    pub attempt: u32,
}

/// Names one claim of one message; a later claim of the same message has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseId {
    /// The message's place in the store.
    pub message: i64,
    /// Which claim of the message it is, counted from 1; a replay doesn't start again.
    pub number: i64,
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The handler took it.
    Done,
    /// It failed and is due again at `at`.
    Retry {
        /// When.
        at: Timestamp,
        /// Why it failed.
        error: String,
    },
    /// It failed for the last time.
    Dead {
        /// Why it failed.
        error: String,
    },
    /// It was not tried after all; the attempt isn't counted, and it is due at once.
    Release,
    /// It was not tried, since it had no attempt left; this one isn't counted, and it is dead.
    Exhausted {
        /// Why there is none left.
        error: String,
    },
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Not handed on yet, waiting for a retry, or being handed on.
    Pending,
    /// A handler took it.
    Done,
    /// Every attempt failed.
    Dead,
}

impl State {
    /// `pending`, `done` or `dead`.
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

/// What is known of a stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place: rises with the order of arrival.
    pub sequence: i64,
    /// The endpoint that received it.
    pub endpoint: String,
    /// Its identifier.
    pub webhook_id: String,
    /// The type in its envelope; `None` where the body is not an envelope.
    pub event_type: Option<String>,
    /// The event's id in its envelope.
    pub event_id: Option<String>,
    /// The `id` of the resource in its data.
    pub resource_id: Option<String>,
    /// How it came here.
    pub origin: Origin,
    /// Where it stands.
    pub state: State,
    /// How often it was handed to a handler.
    pub attempts: u32,
    /// When it arrived, to the millisecond.
    pub received_at: Timestamp,
    /// When the export job in it expires, to the millisecond.
    pub expires_at: Option<Timestamp>,
    /// While pending: when it is due, or its lease ends; `None` where it is due now.
    pub due_at: Option<Timestamp>,
    /// Why its last attempt failed.
    pub last_error: Option<String>,
    /// How many bytes its body has.
    pub body_len: u64,
}

/// Which messages to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only those in this state.
    pub state: Option<State>,
    /// Only those of this endpoint.
    pub endpoint: Option<String>,
    /// Only those behind this place.
    pub after: Option<i64>,
    /// At most this many.
    pub limit: Option<u32>,
    /// The newest first.
    pub newest_first: bool,
}

/// Which messages to replay: those for which all of this holds, so all of them where nothing is set.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// They have this `webhook-id`.
    pub webhook_id: Option<String>,
    /// They are of this endpoint.
    pub endpoint: Option<String>,
    /// Their envelope has this type, spelled like this.
    pub event_type: Option<String>,
    /// They are in this state.
    pub state: Option<State>,
    /// They were received then or later.
    pub since: Option<Timestamp>,
    /// They were received before then.
    pub until: Option<Timestamp>,
}

impl Selection {
    /// The one with this `webhook-id` (on each endpoint that has it), in whatever state.
    #[must_use]
    pub fn id(webhook_id: impl Into<String>) -> Self {
        Self {
            webhook_id: Some(webhook_id.into()),
            ..Self::default()
        }
    }

    /// All that are dead.
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
    /// Not handed on yet.
    pub pending: u64,
    /// Taken by a handler.
    pub done: u64,
    /// Failed for good.
    pub dead: u64,
}

/// Why an inbox couldn't do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// Too many appends wait already.
    #[error("the inbox has too many messages waiting to be stored")]
    Full,
    /// The inbox is closed.
    #[error("the inbox is closed")]
    Closed,
    /// What works it has panicked: it does nothing more until it's opened anew.
    #[error(
        "what writes the inbox has panicked: restart the receiver, and see what was written of the \
         panic"
    )]
    Panicked,
    /// Another server holds this inbox.
    #[error("the inbox {path} is in use by another server: stop that one, or choose another inbox")]
    InUse {
        /// The file.
        path: String,
    },
    /// The inbox could not be opened.
    #[error("cannot open the inbox {path}: {source}")]
    Open {
        /// The file.
        path: String,
        /// Why.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The store failed.
    #[error("the inbox failed: {0}")]
    Failed(#[source] Arc<dyn Error + Send + Sync>),
}

/// Cuts an error's text to what is kept of it.
fn cut(mut error: String) -> String {
    error.truncate(error.floor_char_boundary(4096));
    error
}

/// In milliseconds, rounded up: nothing is due before its time.
fn ceil(at: Timestamp) -> i64 {
    let millisecond = at.as_millisecond();
    if at.subsec_nanosecond() % 1_000_000 > 0 {
        millisecond + 1
    } else {
        millisecond
    }
}

/// Milliseconds beyond what a timestamp holds become the last moment that it does.
fn timestamp(millisecond: i64) -> Timestamp {
    Timestamp::from_millisecond(millisecond).unwrap_or(Timestamp::MAX)
}
