//! The contract of a store of messages.

use core::fmt;
use core::pin::Pin;
use core::time::Duration;
use std::sync::Arc;

use super::error::InboxError;
use super::lease::{Completed, LeaseId, LeaseRequest, Leased, Outcome, Version};
use super::measurements::Measurements;
use super::message::{Appended, Key, NewMessage, StoredMessage};
use super::query::{EndpointStats, Page, Query, Selection};

/// The future that an [`Inbox`] returns.
pub type InboxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, InboxError>> + Send + 'a>>;

/// A store of messages, keyed by endpoint and message id.
///
/// A message is *pending* until a handler succeeds (*done*) or its last attempt fails (*dead*). The
/// dispatcher [leases](Self::lease) pending messages, renews the leases while their handlers run, and
/// [completes](Self::complete) them. A lease that is not renewed ends, and the message is redelivered:
/// dispatch is at least once.
///
/// **Time.** The store keeps the time; only durations are passed to it. A store in one process
/// measures leases with a monotonic clock, so that setting the clock neither ends nor prolongs them. A
/// store that several processes share uses the clock of its server, never that of a client. A retry is
/// ready after its delay. If the clock is set forward, it may be ready earlier; if the clock is set
/// back or the store is opened again, the delay may start over; until the next call of
/// [`lease`](Self::lease), statistics may then show it as scheduled although it is ready.
///
/// **Lost leases.** A lease ends if it is not renewed. Until the next call of [`lease`](Self::lease),
/// the message may still be shown as leased, and the lease may still be renewed or completed. Then its
/// attempt is recorded as lost, and the message is ready after
/// [`delay_after_loss`](crate::inbox::delay_after_loss). Closing a store may end its leases.
///
/// **Order.** The messages of one endpoint are leased in this order: messages that expire in the
/// future, by expiry; messages without an expiry, by arrival; expired messages, by expiry. Among
/// endpoints, every second message is the first in that order over all endpoints, and the messages
/// between belong to the endpoint whose last lease is longest ago. So urgent messages go first, and
/// of N endpoints with ready messages each gets one of the next 2·N leases. An endpoint that is paused
/// or has as many leases as the request allows is left out.
///
/// **History.** A store keeps the last [`MAX_ATTEMPTS_KEPT`](crate::inbox::MAX_ATTEMPTS_KEPT) attempts
/// of a message, and the first [`MAX_ERROR_LEN`](crate::inbox::MAX_ERROR_LEN) bytes of an error text.
///
/// **Cancellation.** The futures do nothing before they are polled. One that is dropped later is
/// either completely done or completely undone; [`replay`](Self::replay) and [`prune`](Self::prune)
/// are so for each message.
///
/// The module [`conformance`](crate::inbox::conformance) (feature `conformance`) tests a store against
/// this contract.
///
/// Later versions may add methods with default implementations.
pub trait Inbox: fmt::Debug + Send + Sync + 'static {
    /// Stores a message unless its key is stored already. Resolves when the message is durable. The
    /// store batches concurrent appends itself.
    ///
    /// # Errors
    /// [`Busy`](crate::InboxErrorKind::Busy) immediately if too many appends are queued;
    /// [`Unavailable`](crate::InboxErrorKind::Unavailable) if the message could not be stored. After
    /// an error the message may be stored nevertheless; appending it again is safe.
    fn append(&self, message: NewMessage) -> InboxFuture<'_, Appended>;

    /// Leases ready messages of endpoints that are not paused, and counts an attempt for each: as many
    /// as the request allows. Leases all of the returned messages or, on an error, none.
    ///
    /// A message that cannot be read is set aside as dead, so that it does not block the others.
    ///
    /// A lease need not be durable: after a crash of the machine, leased messages are redelivered.
    fn lease(&self, request: LeaseRequest) -> InboxFuture<'_, Leased>;

    /// Makes leases end `ttl` from now. Returns those that were lost: their messages were leased
    /// again, replayed or completed, or may be. Their handlers must stop.
    fn renew(&self, leases: Vec<LeaseId>, ttl: Duration) -> InboxFuture<'_, Vec<LeaseId>>;

    /// Ends a lease and records the outcome of its attempt, both or neither. Repeating the call
    /// changes nothing.
    ///
    /// The outcome survives a crash of the process. It may be lost in a crash of the machine; the
    /// message is then redelivered.
    fn complete(&self, lease: LeaseId, outcome: Outcome) -> InboxFuture<'_, Completed>;

    /// Resolves once the store's version differs from `seen`: since then, messages were appended,
    /// replayed, leased or completed, or an endpoint was paused or resumed, or the inbox was closed.
    /// May resolve spuriously, and some seconds later if another process changed the store. Any number
    /// of callers may wait.
    fn changed(&self, seen: Version) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Lists messages without their bodies. A caller that lists from the position of the last message
    /// on sees each message that is appended later, even if several are appended at a time.
    fn list(&self, query: Query) -> InboxFuture<'_, Page>;

    /// Returns a message with its body, headers and attempts; `None` if it is not stored.
    fn get(&self, key: Key) -> InboxFuture<'_, Option<StoredMessage>>;

    /// Makes the selected messages pending and ready, and resets the number of their attempts. Skips
    /// leased messages. Returns the number of messages replayed, which the selection's limit bounds.
    fn replay(&self, selection: Selection) -> InboxFuture<'_, u64>;

    /// Deletes the selected messages, except pending ones. Returns the number of messages deleted,
    /// which the selection's limit bounds.
    ///
    /// A deleted message is stored again if the sender repeats it. Select only messages that are
    /// older than the sender's last retry.
    fn prune(&self, selection: Selection) -> InboxFuture<'_, u64>;

    /// Stops or continues leasing messages of an endpoint, in all processes that use the store. The
    /// store keeps the setting. Leased messages are not affected.
    fn set_paused(&self, endpoint: Arc<str>, paused: bool) -> InboxFuture<'_, ()>;

    /// Returns statistics of each endpoint that has messages or is paused, by name.
    fn stats(&self) -> InboxFuture<'_, Vec<EndpointStats>>;

    /// Measures the store, for metrics. Measures nothing by default.
    fn measurements(&self) -> InboxFuture<'_, Measurements> {
        Box::pin(async { Ok(Measurements::default()) })
    }

    /// Checks whether an append would succeed now, without writing.
    ///
    /// # Errors
    /// The error that the append would return.
    fn check(&self) -> InboxFuture<'_, ()>;

    /// Refuses new appends, finishes queued ones, and closes the store. Later calls fail with
    /// [`Closed`](crate::InboxErrorKind::Closed), and reads in progress may.
    fn close(&self) -> InboxFuture<'_, ()>;
}

impl<I: Inbox + ?Sized> Inbox for Arc<I> {
    fn append(&self, message: NewMessage) -> InboxFuture<'_, Appended> {
        (**self).append(message)
    }

    fn lease(&self, request: LeaseRequest) -> InboxFuture<'_, Leased> {
        (**self).lease(request)
    }

    fn renew(&self, leases: Vec<LeaseId>, ttl: Duration) -> InboxFuture<'_, Vec<LeaseId>> {
        (**self).renew(leases, ttl)
    }

    fn complete(&self, lease: LeaseId, outcome: Outcome) -> InboxFuture<'_, Completed> {
        (**self).complete(lease, outcome)
    }

    fn changed(&self, seen: Version) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        (**self).changed(seen)
    }

    fn list(&self, query: Query) -> InboxFuture<'_, Page> {
        (**self).list(query)
    }

    fn get(&self, key: Key) -> InboxFuture<'_, Option<StoredMessage>> {
        (**self).get(key)
    }

    fn replay(&self, selection: Selection) -> InboxFuture<'_, u64> {
        (**self).replay(selection)
    }

    fn prune(&self, selection: Selection) -> InboxFuture<'_, u64> {
        (**self).prune(selection)
    }

    fn set_paused(&self, endpoint: Arc<str>, paused: bool) -> InboxFuture<'_, ()> {
        (**self).set_paused(endpoint, paused)
    }

    fn stats(&self) -> InboxFuture<'_, Vec<EndpointStats>> {
        (**self).stats()
    }

    fn measurements(&self) -> InboxFuture<'_, Measurements> {
        (**self).measurements()
    }

    fn check(&self) -> InboxFuture<'_, ()> {
        (**self).check()
    }

    fn close(&self) -> InboxFuture<'_, ()> {
        (**self).close()
    }
}
