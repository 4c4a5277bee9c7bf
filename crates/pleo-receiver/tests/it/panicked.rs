//! Tests of an inbox whose writer thread panics.

#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

use core::future::pending;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::Arc;

use crate::support::{Request, endpoint};
use jiff::Timestamp;
use pleo_receiver::inbox::{Clock, LeaseRequest, SystemClock};
use pleo_receiver::{
    Inbox, InboxErrorKind, NewMessage, Query, Receiver, Selection, ServeError, SqliteInbox,
    SqliteOptions,
};
use tokio::net::TcpListener;
use tokio::time;

/// A clock that panics in the writer thread once it is told to.
#[derive(Debug, Default)]
struct PanickingClock {
    clock: SystemClock,
    panics: AtomicBool,
}

impl Clock for PanickingClock {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn elapsed(&self) -> Duration {
        assert!(!self.panics.load(Ordering::Relaxed), "part of the test");
        self.clock.elapsed()
    }
}

#[tokio::test]
async fn server_shuts_down_after_inbox_panic_and_next_server_has_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("inbox.db");
    let clock = Arc::new(PanickingClock::default());
    let options = SqliteOptions::default().with_clock(clock.clone());
    let inbox = Arc::new(SqliteInbox::open_with(&path, options).unwrap());
    let builder = Receiver::builder(Arc::clone(&inbox)).endpoint(endpoint());
    let (receiver, dispatcher) = builder.build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let running = pleo_receiver::serve(listener, receiver, dispatcher, pending());
    let append_and_panic = async {
        let answer =
            crate::support::http::send_to(&address, &Request::signed("msg_1", b"{}")).await;
        assert_eq!(answer.status, 204);
        clock.panics.store(true, Ordering::Relaxed);
        let leased = inbox.lease(LeaseRequest::new(1, Duration::from_secs(1), "worker"));
        let appended = inbox.append(NewMessage::new("books", "behind", "{}"));
        let (leased, appended) = tokio::join!(leased, appended);
        assert_eq!(leased.unwrap_err().kind(), InboxErrorKind::Fatal);
        assert_eq!(appended.unwrap_err().kind(), InboxErrorKind::Fatal);
        let answer =
            crate::support::http::send_to(&address, &Request::signed("msg_2", b"{}")).await;
        answer.assert_inbox_failed();
    };
    let both = async { tokio::join!(running, append_and_panic).0 };
    let ended = time::timeout(Duration::from_secs(20), both).await;
    let ended = ended.expect("the server keeps running").unwrap_err();
    assert!(
        matches!(&ended, ServeError::Inbox(error) if error.kind() == InboxErrorKind::Fatal),
        "{ended:?}"
    );
    let late = inbox.append(NewMessage::new("books", "late", "{}")).await;
    assert_eq!(late.unwrap_err().kind(), InboxErrorKind::Fatal);
    drop(inbox);

    let next = SqliteInbox::open(&path).unwrap();
    let stored = next.list(Query::new(Selection::all(), 10)).await.unwrap();
    let stored: Vec<_> = stored
        .entries
        .iter()
        .map(|entry| &*entry.webhook_id)
        .collect();
    assert_eq!(stored, ["msg_1"]);
}

#[tokio::test]
async fn closed_inbox_has_not_failed() {
    let directory = tempfile::tempdir().unwrap();
    let inbox = SqliteInbox::open(directory.path().join("inbox.db")).unwrap();
    inbox.close().await.unwrap();
    let late = inbox.append(NewMessage::new("books", "late", "{}")).await;
    assert_eq!(late.unwrap_err().kind(), InboxErrorKind::Closed);
}
