//! Tests of an inbox whose writer thread panics.

#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

use core::future::pending;
use core::time::Duration;
use std::sync::Arc;

use crate::support::{Request, endpoint};
use bytes::Bytes;
use pleo_receiver::{Filter, Inbox, InboxError, NewMessage, Receiver, ServeError, SqliteInbox};
use tokio::net::TcpListener;
use tokio::time;

/// A body that panics when it is dropped.
struct PanicOnDrop;

impl AsRef<[u8]> for PanicOnDrop {
    fn as_ref(&self) -> &[u8] {
        b"{}"
    }
}

impl Drop for PanicOnDrop {
    fn drop(&mut self) {
        panic!("this is part of the test");
    }
}

#[tokio::test]
async fn server_shuts_down_after_inbox_panic_and_next_server_has_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("inbox.db");
    let inbox = Arc::new(SqliteInbox::open(&path).unwrap());
    let builder = Receiver::builder().endpoint(endpoint());
    let receiver = builder
        .shared_inbox(Arc::<SqliteInbox>::clone(&inbox))
        .build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let running = pleo_receiver::serve(listener, receiver.unwrap(), pending());
    let append_and_panic = async {
        let answer =
            crate::support::http::send_to(&address, &Request::signed("msg_1", b"{}")).await;
        assert_eq!(answer.status, 204);
        // The writer drops the body before it commits.
        drop(inbox.append(NewMessage::new(
            "books",
            "panics",
            Bytes::from_owner(PanicOnDrop),
        )));
        inbox.broken().await;
    };
    let both = async { tokio::join!(running, append_and_panic).0 };
    let ended = time::timeout(Duration::from_secs(20), both).await;
    let ended = ended.expect("the server keeps running").unwrap_err();
    assert!(
        matches!(ended, ServeError::Inbox(InboxError::Panicked)),
        "{ended:?}"
    );
    let late = inbox.append(NewMessage::new("books", "late", "{}")).await;
    assert!(matches!(late, Err(InboxError::Panicked)), "{late:?}");
    drop(inbox);

    let next = SqliteInbox::open(&path).unwrap();
    let stored = next.list(Filter::default()).await.unwrap();
    let stored: Vec<_> = stored.iter().map(|entry| &*entry.webhook_id).collect();
    assert_eq!(
        stored,
        ["msg_1"],
        "the panicking append was not acknowledged"
    );
}

#[tokio::test]
async fn closed_inbox_is_not_broken() {
    let directory = tempfile::tempdir().unwrap();
    let inbox = SqliteInbox::open(directory.path().join("inbox.db")).unwrap();
    inbox.close().await.unwrap();
    let late = inbox.append(NewMessage::new("books", "late", "{}")).await;
    assert!(matches!(late, Err(InboxError::Closed)), "{late:?}");
    let broken = time::timeout(Duration::ZERO, inbox.broken());
    assert!(broken.await.is_err());
}
