//! Queries and statistics.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;
use std::sync::Arc;

use jiff::Timestamp;

use super::message::{Entry, State};

/// Selects messages: those that match every condition.
///
/// There is no default, since it would select all messages:
///
/// ```compile_fail,E0599
/// pleo_receiver::Selection::default();
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Selection {
    /// Messages with this id, at most one per endpoint.
    pub webhook_id: Option<String>,
    /// Messages of this endpoint.
    pub endpoint: Option<String>,
    /// Messages with exactly this event type.
    pub event_type: Option<String>,
    /// Messages with this event id.
    pub event_id: Option<String>,
    /// Messages with this resource id.
    pub resource_id: Option<String>,
    /// Messages in this state.
    pub state: Option<State>,
    /// Messages received at or after this time.
    pub since: Option<Timestamp>,
    /// Messages received before this time.
    pub until: Option<Timestamp>,
    /// At most this many messages, the oldest first.
    pub limit: Option<u64>,
}

impl Selection {
    /// Selects all messages.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            webhook_id: None,
            endpoint: None,
            event_type: None,
            event_id: None,
            resource_id: None,
            state: None,
            since: None,
            until: None,
            limit: None,
        }
    }

    /// Selects all messages in a state.
    #[must_use]
    pub const fn state(state: State) -> Self {
        Self::all().with_state(state)
    }

    /// Selects all dead messages.
    #[must_use]
    pub const fn dead() -> Self {
        Self::state(State::Dead)
    }

    /// Selects the messages with this id in any state, at most one per endpoint.
    pub fn id(webhook_id: impl Into<String>) -> Self {
        let mut selection = Self::all();
        selection.webhook_id = Some(webhook_id.into());
        selection
    }

    /// Only messages in this state.
    #[must_use]
    pub const fn with_state(mut self, state: State) -> Self {
        self.state = Some(state);
        self
    }

    /// Only messages of this endpoint.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = Some(endpoint.into());
        self
    }

    /// Only messages with exactly this event type.
    #[must_use]
    pub fn with_event_type(mut self, event_type: impl Into<String>) -> Self {
        self.event_type = Some(event_type.into());
        self
    }

    /// Only messages with this event id.
    #[must_use]
    pub fn with_event_id(mut self, event_id: impl Into<String>) -> Self {
        self.event_id = Some(event_id.into());
        self
    }

    /// Only messages with this resource id.
    #[must_use]
    pub fn with_resource_id(mut self, resource_id: impl Into<String>) -> Self {
        self.resource_id = Some(resource_id.into());
        self
    }

    /// Only messages received at or after this time.
    #[must_use]
    pub const fn with_since(mut self, since: Timestamp) -> Self {
        self.since = Some(since);
        self
    }

    /// Only messages received before this time.
    #[must_use]
    pub const fn with_until(mut self, until: Timestamp) -> Self {
        self.until = Some(until);
        self
    }

    /// At most this many messages, the oldest first.
    #[must_use]
    pub const fn with_limit(mut self, messages: u64) -> Self {
        self.limit = Some(messages);
        self
    }

    /// Returns `true` if the message matches every condition.
    #[must_use]
    pub fn matches(&self, entry: &Entry) -> bool {
        let is_equal = |wanted: &Option<String>, value: Option<&str>| {
            wanted.is_none() || wanted.as_deref() == value
        };
        is_equal(&self.webhook_id, Some(&entry.webhook_id))
            && is_equal(&self.endpoint, Some(&entry.endpoint))
            && is_equal(&self.event_type, entry.event_type.as_deref())
            && is_equal(&self.event_id, entry.event_id.as_deref())
            && is_equal(&self.resource_id, entry.resource_id.as_deref())
            && self.state.is_none_or(|state| entry.state == state)
            && self.since.is_none_or(|since| entry.received_at >= since)
            && self.until.is_none_or(|until| entry.received_at < until)
    }
}

/// The parameters of [`Inbox::list`](crate::Inbox::list).
///
/// A query has a limit, so that no page holds all messages:
///
/// ```compile_fail,E0061
/// use pleo_receiver::{Query, Selection};
///
/// Query::new(Selection::all());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Query {
    /// The messages to list. Its `limit` is ignored.
    pub selection: Selection,
    /// The maximum number of messages in the page.
    pub limit: u32,
    /// Lists the messages that follow this position.
    pub after: Option<Cursor>,
    /// Lists the newest message first.
    pub newest_first: bool,
}

impl Query {
    /// Lists at most `limit` of these messages, in the order of arrival.
    #[must_use]
    pub const fn new(selection: Selection, limit: u32) -> Self {
        Self {
            selection,
            limit,
            after: None,
            newest_first: false,
        }
    }

    /// Lists the messages that follow this position in the query's order.
    #[must_use]
    pub const fn with_after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// Lists the newest message first.
    #[must_use]
    pub const fn newest_first(mut self) -> Self {
        self.newest_first = true;
        self
    }
}

/// A page of messages.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Page {
    /// The messages.
    pub entries: Vec<Entry>,
    /// The position after the last message; `None` if no more messages matched.
    pub next: Option<Cursor>,
}

impl Page {
    /// Creates a page.
    #[must_use]
    pub const fn new(entries: Vec<Entry>, next: Option<Cursor>) -> Self {
        Self { entries, next }
    }
}

/// A position in a list of messages. It stays valid while messages are appended and deleted.
///
/// Its text form is opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cursor(i64);

impl Cursor {
    /// Creates the position of the message with this sequence.
    #[must_use]
    pub const fn new(sequence: i64) -> Self {
        Self(sequence)
    }

    /// Returns the sequence of the message at this position.
    #[must_use]
    pub const fn sequence(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        text.parse().map(Self).map_err(|_| InvalidCursor)
    }
}

/// The text is not a [`Cursor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid cursor: use the text of one that a list returned")]
#[non_exhaustive]
pub struct InvalidCursor;

/// How many messages of an endpoint are scanned for the one that arrived first: those that expire first,
/// and as many of those that expire last. An index of all pending messages would find it at once, but each
/// append would pay for it.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) const OLDEST_SCANNED: u32 = 1000;

/// Statistics of one endpoint's messages.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointStats {
    /// The name of the endpoint.
    pub endpoint: Arc<str>,
    /// Whether the endpoint is paused, see [`Inbox::set_paused`](crate::Inbox::set_paused).
    pub paused: bool,
    /// Pending messages that are ready.
    pub ready: u64,
    /// Pending messages under a lease.
    pub leased: u64,
    /// Pending messages that are scheduled for a retry.
    pub scheduled: u64,
    /// Messages that a handler handled.
    pub done: u64,
    /// Messages whose last attempt failed.
    pub dead: u64,
    /// The age of the pending message that arrived first. If more than 2,000 messages with an expiry are
    /// ready, the inboxes in SQLite and PostgreSQL look only at the 1,000 of them that expire first and at
    /// the 1,000 that expire last; the SQLite inbox does so with scheduled messages, too.
    pub oldest_pending: Option<Duration>,
    /// The nearest expiry of a pending message that has not expired.
    pub nearest_expiry: Option<Timestamp>,
    /// Pending messages that have expired.
    pub expired: u64,
    /// When the last message arrived that the sender posted; `None` if there is none. A store may keep
    /// the time of a message that was pruned.
    pub delivered_at: Option<Timestamp>,
}

impl EndpointStats {
    /// Creates the statistics of an endpoint without messages.
    pub fn new(endpoint: impl Into<Arc<str>>) -> Self {
        Self {
            endpoint: endpoint.into(),
            paused: false,
            ready: 0,
            leased: 0,
            scheduled: 0,
            done: 0,
            dead: 0,
            oldest_pending: None,
            nearest_expiry: None,
            expired: 0,
            delivered_at: None,
        }
    }

    /// Returns the number of messages that are ready, leased or scheduled.
    #[must_use]
    pub const fn pending(&self) -> u64 {
        self.ready + self.leased + self.scheduled
    }
}
