//! The contract of a store of messages.

use core::fmt;
use core::future::pending;
use core::pin::Pin;
use core::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use super::error::InboxError;
use super::types::{
    Appended, Counts, Entry, Filter, LeaseId, LeaseRequest, Leased, NewMessage, Outcome, Selection,
    State,
};

/// The future that an [`Inbox`] returns.
pub type InboxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, InboxError>> + Send + 'a>>;

/// A store of messages, keyed by endpoint and `webhook-id`.
///
/// A message is *pending* until a handler succeeds (*done*) or all attempts fail (*dead*).
/// [`lease`](Self::lease) leases a pending message to the dispatcher. If the lease ends before
/// [`complete`](Self::complete) is called, the message is redelivered: dispatch is at least once.
pub trait Inbox: fmt::Debug + Send + Sync + 'static {
    /// Stores a message unless its key is stored already. Resolves when the message is durable.
    ///
    /// Dropping the future does not undo the append.
    ///
    /// # Errors
    /// [`InboxError::Full`] if too many appends are queued; [`InboxError::Failed`] if the
    /// store cannot store the message; [`InboxError::Closed`] after [`close`](Self::close);
    /// [`InboxError::Panicked`] if the store is [`broken`](Self::broken).
    fn append(&self, message: NewMessage) -> InboxFuture<'_, Appended>;

    /// Leases messages that are ready at `now`, for the duration `lease`, and counts an attempt for
    /// each.
    ///
    /// The order is by expiry ([`NewMessage::envelope`]), then by arrival; messages without an expiry
    /// come last. A lease need not be durable: after a crash of the machine, leased messages are
    /// redelivered.
    fn lease(
        &self,
        request: LeaseRequest,
        now: Timestamp,
        lease: Duration,
    ) -> InboxFuture<'_, Leased>;

    /// Ends a lease and records the outcome of its attempt. Does nothing if the lease was lost: if it
    /// ended and the message was leased again, or if the message was replayed or completed.
    ///
    /// The outcome survives a crash of the process. It may be lost in a crash of the machine; the
    /// message is then redelivered.
    fn complete(&self, lease: LeaseId, outcome: Outcome) -> InboxFuture<'_, ()>;

    /// Resolves after an append, a replay or a completed lease since the last call: messages may have
    /// become ready, or be scheduled at another time. May resolve spuriously.
    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Lists messages without their bodies, in the order of arrival; newest first if the filter
    /// requests it.
    fn list(&self, filter: Filter) -> InboxFuture<'_, Vec<Entry>>;

    /// Returns the messages with this `webhook-id` and their bodies: at most one per endpoint.
    fn show(&self, webhook_id: String) -> InboxFuture<'_, Vec<(Entry, Bytes)>>;

    /// Makes the selected messages pending and ready, and resets their attempts. Skips leased
    /// messages. Returns the number of messages replayed.
    fn replay(&self, selection: Selection) -> InboxFuture<'_, u64>;

    /// Deletes the messages in `state` that were received before `before`; never a pending one.
    /// Returns the number of messages deleted.
    ///
    /// A deleted message is stored again if the sender repeats it. Choose `before` earlier than the
    /// sender's last retry.
    fn prune(&self, state: State, before: Timestamp) -> InboxFuture<'_, u64>;

    /// Counts the messages in each state.
    fn counts(&self) -> InboxFuture<'_, Counts>;

    /// Resolves if the store fails permanently. The server then shuts down. Never resolves by
    /// default.
    fn broken(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(pending())
    }

    /// Refuses new appends, finishes queued ones, and closes the store. Later calls return
    /// [`InboxError::Closed`].
    fn close(&self) -> InboxFuture<'_, ()>;
}
