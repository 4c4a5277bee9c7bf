//! Tests of the queue of the writer thread.

use std::sync::Arc;

use futures_util::future::join_all;
use pleo_receiver::{Appended, Filter, Inbox, InboxError, SqliteInbox, SqliteOptions};
use rusqlite::Connection;
use tokio::task::JoinSet;

use super::{assert_intact, directory, message};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stores_each_concurrent_duplicate_once() {
    let (_directory, path) = directory();
    let inbox = Arc::new(SqliteInbox::open(&path).unwrap());
    let mut tasks = JoinSet::new();
    // Each message is appended twice.
    for number in 0..1000 {
        let inbox = Arc::clone(&inbox);
        let id = format!("msg_{}", number / 2);
        tasks.spawn(async move { inbox.append(message(&id)).await.unwrap() });
    }
    let appended = tasks.join_all().await;
    for outcome in [Appended::Stored, Appended::Duplicate] {
        let count = appended
            .iter()
            .filter(|appended| **appended == outcome)
            .count();
        assert_eq!(count, 500, "{outcome:?}");
    }
    drop(inbox);
    assert_intact(&path, (0..500).map(|number| format!("msg_{number}"))).await;
}

#[tokio::test]
async fn close_stores_queued_appends() {
    let (_directory, path) = directory();
    let inbox = SqliteInbox::open(&path).unwrap();
    let waiting: Vec<_> = (0..100)
        .map(|number| inbox.append(message(&format!("msg_{number}"))))
        .collect();
    let closed = inbox.close();
    let refused = inbox.append(message("late"));
    closed.await.unwrap();
    for appended in waiting {
        assert_eq!(appended.await.unwrap(), Appended::Stored);
    }
    assert!(matches!(refused.await, Err(InboxError::Closed)));
    drop(inbox);
    assert_intact(&path, (0..100).map(|number| format!("msg_{number}"))).await;
}

#[tokio::test]
async fn refuses_appends_beyond_queue_limit() {
    let (_directory, path) = directory();
    // Each message counts with its overhead.
    let options = SqliteOptions::default().with_queue_bytes(1000);
    let inbox = SqliteInbox::open_with(&path, options).unwrap();
    let appended = ["a", "b", "c", "d"].map(|id| inbox.append(message(id)));
    let appended = join_all(appended).await;
    let stored: Vec<_> = appended.iter().map(Result::is_ok).collect();
    assert_eq!(stored, [true, true, false, false]);
    assert!(matches!(appended[3], Err(InboxError::Full)));
    assert_eq!(inbox.counts().await.unwrap().pending, 2);
    let later = join_all(["c", "d"].map(|id| inbox.append(message(id)))).await;
    assert!(later.iter().all(Result::is_ok), "the queue is empty again");
}

#[tokio::test]
async fn full_queue_refuses_append_and_failed_append_affects_no_other() {
    let (_directory, path) = directory();
    let inbox = SqliteInbox::open(&path).unwrap();
    // The writer waits for the transaction of another connection.
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let before = inbox.append(message("before"));
    let mut large = message("large");
    // One byte more than SQLite's limit. The memory is never touched.
    large.body = vec![0; 1_000_000_001].into();
    let large = inbox.append(large);
    let full = inbox.append(message("full")).await;
    assert!(matches!(full, Err(InboxError::Full)), "{full:?}");

    other.execute_batch("COMMIT").unwrap();
    assert_eq!(before.await.unwrap(), Appended::Stored);
    let failed = large.await;
    assert!(matches!(failed, Err(InboxError::Failed(_))), "{failed:?}");
    let after = inbox.append(message("after")).await.unwrap();
    assert_eq!(after, Appended::Stored);
    let stored = inbox.list(Filter::default()).await.unwrap();
    let stored: Vec<_> = stored.iter().map(|entry| &*entry.webhook_id).collect();
    assert_eq!(stored, ["before", "after"]);
}
