//! A store of several processes, over connections that fail. It shows that a correct store passes the
//! optional tests: of replicas, of a store that is opened again, and of failing writes.

use core::pin::Pin;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::io;
use std::sync::Arc;

use pleo_receiver::inbox::conformance::{self, Harness, ManualClock};
use pleo_receiver::inbox::{
    Clock, Completed, InboxFuture, LeaseId, LeaseRequest, Leased, Outcome, Version,
};
use pleo_receiver::jiff::{SignedDuration, Timestamp};
use pleo_receiver::{
    Appended, EndpointStats, Inbox, InboxError, InboxErrorKind, Key, MemoryInbox, NewMessage, Page,
    Query, Selection, StoredMessage,
};
use tokio::sync::watch;

struct Shared {
    clock: ManualClock,
    store: Arc<MemoryInbox>,
    network: Arc<Network>,
}

impl Harness for Shared {
    fn new() -> Self {
        let clock = ManualClock::default();
        Self {
            store: Arc::new(MemoryInbox::with_clock(Arc::new(clock.clone()))),
            clock,
            network: Arc::default(),
        }
    }

    async fn open(&self) -> Arc<dyn Inbox> {
        Arc::new(Connection {
            store: Arc::clone(&self.store),
            network: Arc::clone(&self.network),
            is_closed: watch::Sender::new(false),
        })
    }

    async fn reopen(&self) -> Option<Arc<dyn Inbox>> {
        Some(self.open().await)
    }

    async fn open_replica(&self) -> Option<Arc<dyn Inbox>> {
        Some(self.open().await)
    }

    async fn advance(&self, duration: Duration) {
        self.clock.advance(duration);
    }

    async fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn step_clock(&self, by: SignedDuration) -> bool {
        self.clock.step(by);
        true
    }

    fn fail_writes(&self, after: u32) -> bool {
        self.network.writes.store(after, Ordering::Relaxed);
        true
    }

    fn repair(&self) {
        self.network.writes.store(u32::MAX, Ordering::Relaxed);
    }
}

conformance::tests!(Shared);

/// Sends requests and answers.
#[derive(Debug)]
struct Network {
    /// How many writes succeed; `u32::MAX` if all do.
    writes: AtomicU32,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            writes: AtomicU32::new(u32::MAX),
        }
    }
}

impl Network {
    fn write(&self) -> Result<(), InboxError> {
        let write = |left| match left {
            u32::MAX => Some(left),
            _ => left.checked_sub(1),
        };
        let written = (self.writes).fetch_update(Ordering::Relaxed, Ordering::Relaxed, write);
        let failed = |_| InboxError::new(InboxErrorKind::Unavailable, io::Error::other("cut off"));
        written.map(drop).map_err(failed)
    }
}

#[derive(Debug)]
struct Connection {
    store: Arc<MemoryInbox>,
    network: Arc<Network>,
    is_closed: watch::Sender<bool>,
}

impl Connection {
    /// Sends a request, and receives its answer.
    fn call<'a, T: Send + 'a>(&'a self, operation: InboxFuture<'a, T>) -> InboxFuture<'a, T> {
        Box::pin(async move {
            if *self.is_closed.borrow() {
                return Err(InboxErrorKind::Closed.into());
            }
            self.network.write()?;
            let answer = operation.await?;
            self.network.write()?;
            Ok(answer)
        })
    }
}

impl Inbox for Connection {
    fn append(&self, message: NewMessage) -> InboxFuture<'_, Appended> {
        self.call(self.store.append(message))
    }

    fn lease(&self, request: LeaseRequest) -> InboxFuture<'_, Leased> {
        self.call(self.store.lease(request))
    }

    fn renew(&self, leases: Vec<LeaseId>, ttl: Duration) -> InboxFuture<'_, Vec<LeaseId>> {
        self.call(self.store.renew(leases, ttl))
    }

    fn complete(&self, lease: LeaseId, outcome: Outcome) -> InboxFuture<'_, Completed> {
        self.call(self.store.complete(lease, outcome))
    }

    fn changed(&self, seen: Version) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let mut is_closed = self.is_closed.subscribe();
            tokio::select! {
                () = self.store.changed(seen) => {}
                _ = is_closed.wait_for(|is_closed| *is_closed) => {}
            }
        })
    }

    fn list(&self, query: Query) -> InboxFuture<'_, Page> {
        self.call(self.store.list(query))
    }

    fn get(&self, key: Key) -> InboxFuture<'_, Option<StoredMessage>> {
        self.call(self.store.get(key))
    }

    fn replay(&self, selection: Selection) -> InboxFuture<'_, u64> {
        self.call(self.store.replay(selection))
    }

    fn prune(&self, selection: Selection) -> InboxFuture<'_, u64> {
        self.call(self.store.prune(selection))
    }

    fn set_paused(&self, endpoint: Arc<str>, paused: bool) -> InboxFuture<'_, ()> {
        self.call(self.store.set_paused(endpoint, paused))
    }

    fn stats(&self) -> InboxFuture<'_, Vec<EndpointStats>> {
        self.call(self.store.stats())
    }

    fn check(&self) -> InboxFuture<'_, ()> {
        self.call(self.store.check())
    }

    fn close(&self) -> InboxFuture<'_, ()> {
        self.call(Box::pin(async {
            self.is_closed.send_replace(true);
            Ok(())
        }))
    }
}
