use core::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use pleo_receiver::inbox::{
    Completed, InboxFuture, LeaseId, LeaseRequest, Leased, Outcome, Version,
};
use pleo_receiver::{Appended, Key, MemoryInbox, NewMessage, Page, StoredMessage};

use super::*;

/// An inbox that counts its searches, whose time is set.
#[derive(Debug, Default)]
struct SlowInbox {
    inbox: MemoryInbox,
    searches: AtomicUsize,
    milliseconds: AtomicU64,
}

impl Inbox for SlowInbox {
    fn append(&self, message: NewMessage) -> InboxFuture<'_, Appended> {
        self.inbox.append(message)
    }

    fn lease(&self, request: LeaseRequest) -> InboxFuture<'_, Leased> {
        self.inbox.lease(request)
    }

    fn renew(&self, leases: Vec<LeaseId>, ttl: Duration) -> InboxFuture<'_, Vec<LeaseId>> {
        self.inbox.renew(leases, ttl)
    }

    fn complete(&self, lease: LeaseId, outcome: Outcome) -> InboxFuture<'_, Completed> {
        self.inbox.complete(lease, outcome)
    }

    fn changed(&self, seen: Version) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.inbox.changed(seen)
    }

    fn list(&self, query: Query) -> InboxFuture<'_, Page> {
        Box::pin(async move {
            if query.selection.webhook_id.is_none() {
                self.searches.fetch_add(1, Ordering::Relaxed);
                let milliseconds = self.milliseconds.load(Ordering::Relaxed);
                time::sleep(Duration::from_millis(milliseconds)).await;
            }
            self.inbox.list(query).await
        })
    }

    fn get(&self, key: Key) -> InboxFuture<'_, Option<StoredMessage>> {
        self.inbox.get(key)
    }

    fn replay(&self, selection: Selection) -> InboxFuture<'_, u64> {
        self.inbox.replay(selection)
    }

    fn prune(&self, selection: Selection) -> InboxFuture<'_, u64> {
        self.inbox.prune(selection)
    }

    fn set_paused(&self, endpoint: Arc<str>, paused: bool) -> InboxFuture<'_, ()> {
        self.inbox.set_paused(endpoint, paused)
    }

    fn stats(&self) -> InboxFuture<'_, Vec<EndpointStats>> {
        self.inbox.stats()
    }

    fn check(&self) -> InboxFuture<'_, ()> {
        self.inbox.check()
    }

    fn close(&self) -> InboxFuture<'_, ()> {
        self.inbox.close()
    }
}

/// Updates each second. Returns the number of searches.
async fn watch(inbox: &SlowInbox, rows: &mut Rows, seconds: u32, appends: bool) -> usize {
    let before = inbox.searches.load(Ordering::Relaxed);
    for second in 0..seconds {
        if appends {
            let id = format!("{before}-{second}");
            let message = NewMessage::new("/a", id, Bytes::from("{}"));
            inbox.append(message).await.unwrap();
        }
        rows.update().await.unwrap();
        time::sleep(INTERVAL).await;
    }
    inbox.searches.load(Ordering::Relaxed) - before
}

#[tokio::test(start_paused = true)]
async fn searches_rarely_if_searches_are_slow() {
    let inbox = Arc::new(SlowInbox::default());
    let nothing = Selection::dead();
    let mut rows = Rows::new(Arc::<SlowInbox>::clone(&inbox), nothing);
    assert_eq!(watch(&inbox, &mut rows, 10, true).await, 10);
    inbox.milliseconds.store(500, Ordering::Relaxed);
    assert_eq!(watch(&inbox, &mut rows, 10, true).await, 1, "then a pause");
    assert_eq!(
        watch(&inbox, &mut rows, 100, false).await,
        1,
        "the last append"
    );
    assert_eq!(
        watch(&inbox, &mut rows, 100, true).await,
        10,
        "each ten seconds"
    );
}
