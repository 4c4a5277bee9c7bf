//! Inboxes of somebody else's, which do as they like.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails loudly, and some of it on purpose"
)]

mod common;

use core::pin::Pin;
use core::time::Duration;

use bytes::Bytes;
use common::{Request, Server, endpoint};
use jiff::Timestamp;
use pleo_receiver::{
    AppendFuture, Claim, ClaimId, Counts, Entry, Filter, Inbox, InboxFuture, MemoryInbox,
    NewMessage, Outcome, Receiver, Room, Selection, ServerOptions, State,
};

const BODY: &[u8] = b"{}";

/// What it does with what is appended together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Says nothing of what it doesn't store, which is `bad`.
    SaysNothing,
    Panics,
}

#[derive(Debug)]
struct Foreign {
    inner: MemoryInbox,
    way: Way,
}

impl Foreign {
    async fn serve(way: Way) -> Server {
        let inner = MemoryInbox::new();
        let receiver = Receiver::builder().endpoint(endpoint());
        let mut options = ServerOptions::default();
        options.threads = 1;
        options.grace = Duration::from_millis(10);
        Server::start_with(receiver.inbox(Self { inner, way }), options).await
    }
}

impl Inbox for Foreign {
    fn append_all(&self, messages: Vec<NewMessage>) -> AppendFuture<'_> {
        Box::pin(async move {
            assert!(self.way != Way::Panics, "this panic is part of the test");
            let mut results = Vec::new();
            for message in messages {
                if &*message.webhook_id != "bad" {
                    results.push(self.inner.append(message).await);
                }
            }
            results
        })
    }

    fn likes_batches(&self) -> bool {
        true
    }

    fn claim(&self, room: Room, now: Timestamp, lease: Duration) -> InboxFuture<'_, Claim> {
        self.inner.claim(room, now, lease)
    }

    fn settle(&self, claim: ClaimId, outcome: Outcome) -> InboxFuture<'_, ()> {
        self.inner.settle(claim, outcome)
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.inner.ready()
    }

    fn list(&self, filter: Filter) -> InboxFuture<'_, Vec<Entry>> {
        self.inner.list(filter)
    }

    fn show(&self, webhook_id: String) -> InboxFuture<'_, Vec<(Entry, Bytes)>> {
        self.inner.show(webhook_id)
    }

    fn replay(&self, selection: Selection) -> InboxFuture<'_, u64> {
        self.inner.replay(selection)
    }

    fn prune(&self, state: State, before: Timestamp) -> InboxFuture<'_, u64> {
        self.inner.prune(state, before)
    }

    fn counts(&self) -> InboxFuture<'_, Counts> {
        self.inner.counts()
    }

    fn close(&self) -> InboxFuture<'_, ()> {
        self.inner.close()
    }
}

#[tokio::test]
async fn a_result_that_may_be_anothers_acknowledges_nothing() {
    let server = Foreign::serve(Way::SaysNothing).await;
    for _ in 0..20 {
        // Two connections, so that both are read between two looks at the sockets.
        let (mut bad, mut good) = (server.connect().await, server.connect().await);
        let bad_bytes = Request::signed("bad", BODY).bytes();
        let good_bytes = Request::signed("good", BODY).bytes();
        tokio::join!(bad.write(&bad_bytes), good.write(&good_bytes));
        bad.answer().await.assert_inbox_failed();
        // It may have come alone.
        assert!(matches!(good.answer().await.status, 204 | 503));
    }
    server.stop().await;
}

#[tokio::test]
async fn an_append_that_panics_is_a_failed_one() {
    let server = Foreign::serve(Way::Panics).await;
    for _ in 0..2 {
        let answer = server.send(&Request::signed("msg_1", BODY)).await;
        answer.assert_inbox_failed();
    }
    server.stop().await;
}
