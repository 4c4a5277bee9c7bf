//! The start of each test: an open, empty store.

use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::runtime::Builder;
use tokio::time;

use super::Harness;
use crate::inbox::{
    Appended, Completed, Entry, Inbox, Key, LeaseId, LeaseRequest, Leased, LeasedMessage,
    NewMessage, Outcome, Query, Selection, StoredMessage,
};

/// How long a lease lasts.
pub(super) const TTL: Duration = Duration::from_secs(100);

/// How long a test may take.
const TIME_LIMIT: Duration = Duration::from_secs(600);

/// How long a change may take to wake a waiter.
const PATIENCE: Duration = Duration::from_secs(10);

/// A store under test and its harness.
#[derive(Debug)]
pub struct Suite<H> {
    pub(super) harness: H,
    pub(super) inbox: Arc<dyn Inbox>,
}

/// Runs a test with an empty store.
pub fn run<H: Harness, F: Future<Output = ()>>(test: impl FnOnce(Suite<H>) -> F) {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let result = time::timeout(TIME_LIMIT, async { test(Suite::open().await).await });
        assert!(
            result.await.is_ok(),
            "the test took longer than {TIME_LIMIT:?}"
        );
    });
}

impl<H: Harness> Suite<H> {
    pub(super) async fn open() -> Self {
        let harness = H::new();
        let inbox = harness.open().await;
        Self { harness, inbox }
    }

    /// Closes the store and opens it again; `None` if it does not keep its messages.
    pub(super) async fn reopen(self) -> Option<Self> {
        self.inbox.close().await.unwrap();
        self.crash().await
    }

    /// Drops the store and opens it again; `None` if it does not keep its messages.
    pub(super) async fn crash(self) -> Option<Self> {
        let Self { harness, inbox } = self;
        drop(inbox);
        let inbox = harness.reopen().await?;
        Some(Self { harness, inbox })
    }

    /// Returns inboxes of the same store, as several processes have.
    pub(super) async fn replicas(&self) -> [Arc<dyn Inbox>; 2] {
        let first = Arc::clone(&self.inbox);
        let second = self.harness.open_replica().await;
        let second = second.unwrap_or_else(|| Arc::clone(&first));
        [first, second]
    }

    pub(super) async fn advance(&self, seconds: u64) {
        self.harness.advance(Duration::from_secs(seconds)).await;
    }

    /// Sets the time of day forward or back. Returns `false` if that is impossible.
    pub(super) fn step_clock_hours(&self, hours: i64) -> bool {
        self.harness.step_clock(SignedDuration::from_hours(hours))
    }

    /// Returns the body of an export job that expires in this many seconds.
    pub(super) async fn job(&self, seconds: i64) -> Bytes {
        job(self.harness.now().await + SignedDuration::from_secs(seconds))
    }

    /// Appends a new message.
    pub(super) async fn store(&self, message: NewMessage) {
        let appended = self.inbox.append(message).await.unwrap();
        assert_eq!(appended, Appended::Stored);
    }

    /// Appends new messages to the endpoint `books`.
    pub(super) async fn store_all<const N: usize>(&self, ids: [&str; N]) {
        for id in ids {
            self.store(message(id)).await;
        }
    }

    pub(super) async fn lease_with(&self, request: LeaseRequest) -> Leased {
        let max = request.max;
        let leased = self.inbox.lease(request).await.unwrap();
        assert!(leased.messages.len() <= max, "leased more than requested");
        leased
    }

    /// Leases up to this many messages.
    pub(super) async fn lease(&self, max: usize) -> Vec<LeasedMessage> {
        self.lease_with(request(max)).await.messages
    }

    /// Leases the only ready message.
    pub(super) async fn lease_one(&self) -> LeasedMessage {
        let mut leased = self.lease(2).await;
        assert_eq!(leased.len(), 1, "{leased:?}");
        leased.remove(0)
    }

    pub(super) async fn complete(&self, lease: LeaseId, outcome: Outcome) {
        let completed = self.inbox.complete(lease, outcome).await.unwrap();
        assert_eq!(completed, Completed::Recorded);
    }

    /// Appends a message to the endpoint `books`, leases and completes it. No other may be ready.
    pub(super) async fn store_with(&self, id: &str, outcome: Outcome) {
        self.store(message(id)).await;
        self.complete(self.lease_one().await.lease, outcome).await;
    }

    /// Returns the messages, at most 1000, in the order of arrival.
    pub(super) async fn entries(&self, selection: Selection) -> Vec<Entry> {
        let page = self.inbox.list(Query::new(selection, 1000)).await.unwrap();
        page.entries
    }

    /// Returns the message with this id of the endpoint `books`.
    pub(super) async fn get(&self, id: &str) -> StoredMessage {
        let stored = self.inbox.get(Key::new("books", id)).await.unwrap();
        stored.unwrap_or_else(|| panic!("`{id}` is not stored"))
    }

    pub(super) async fn entry(&self, id: &str) -> Entry {
        self.get(id).await.entry
    }

    /// Returns the numbers of pending, done and dead messages.
    pub(super) async fn counts(&self) -> [u64; 3] {
        let mut counts = [0; 3];
        for stats in self.inbox.stats().await.unwrap() {
            counts[0] += stats.pending();
            counts[1] += stats.done;
            counts[2] += stats.dead;
        }
        counts
    }
}

/// Returns a message for the endpoint `books` whose body is its id.
pub(super) fn message(id: &str) -> NewMessage {
    message_to("books", id)
}

/// Returns a message whose body is its id.
pub(super) fn message_to(endpoint: &str, id: &str) -> NewMessage {
    NewMessage::new(endpoint, id, id.to_owned())
}

/// Returns the body of an export job that expires at this time.
pub(super) fn job(expires_at: Timestamp) -> Bytes {
    let created_at = expires_at - SignedDuration::from_hours(1);
    let data = format!(r#"{{"id":"resource","createdAt":"{created_at}","expiresIn":3600}}"#);
    format!(r#"{{"eventType":"type","eventId":"event","data":{data}}}"#).into()
}

pub(super) fn request(max: usize) -> LeaseRequest {
    LeaseRequest::new(max, TTL, "worker")
}

pub(super) fn retry(seconds: u64) -> Outcome {
    Outcome::Retry {
        after: Duration::from_secs(seconds),
        error: "failed".into(),
    }
}

pub(super) fn dead() -> Outcome {
    Outcome::Dead {
        error: "failed".into(),
    }
}

pub(super) fn ids(leased: &[LeasedMessage]) -> Vec<&str> {
    let ids = leased.iter();
    ids.map(|leased| &*leased.message.entry.webhook_id)
        .collect()
}

/// Waits for a future that must resolve soon.
pub(super) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let result = time::timeout(PATIENCE, future).await;
    result.unwrap_or_else(|_| panic!("not resolved within {PATIENCE:?}: {what}"))
}
