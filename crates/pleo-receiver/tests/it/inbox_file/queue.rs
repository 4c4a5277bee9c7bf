//! Tests of the queue of the writer thread.

use core::time::Duration;
use std::sync::{Arc, mpsc};
use std::thread;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use pleo_receiver::{Appended, Inbox, InboxErrorKind, SqliteInbox, SqliteOptions};
use rusqlite::Connection;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use super::{assert_intact, directory, ids, lease, list, message};

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

#[test]
fn appends_outside_of_a_task_if_nothing_drives_the_runtime() {
    let (_directory, path) = directory();
    let inbox = Arc::new(SqliteInbox::open(&path).unwrap());
    let append = |id| {
        let inbox = Arc::clone(&inbox);
        async move { inbox.append(message(id)).await.unwrap() }
    };
    // Only `Runtime::block_on` drives a runtime of the current thread.
    let runtime = Builder::new_current_thread().build().unwrap();
    let (sender, appended) = mpsc::channel();
    let by_handle = append("by handle");
    let handle = runtime.handle().clone();
    thread::spawn(move || sender.send(handle.block_on(by_handle)));
    let appended = appended.recv_timeout(Duration::from_secs(30));
    assert_eq!(appended, Ok(Appended::Stored));
    assert_eq!(runtime.block_on(append("by runtime")), Appended::Stored);
}

#[tokio::test]
async fn close_stores_queued_appends() {
    let (_directory, path) = directory();
    let inbox = SqliteInbox::open(&path).unwrap();
    let ids: Vec<_> = (0..100).map(|number| format!("msg_{number}")).collect();
    let appends = join_all(ids.iter().map(|id| inbox.append(message(id))));
    let late = async {
        let refused = inbox.append(message("late")).await;
        assert_eq!(refused.unwrap_err().kind(), InboxErrorKind::Closed);
    };
    // Polled in this order.
    let (appended, closed, ()) = tokio::join!(biased; appends, inbox.close(), late);
    closed.unwrap();
    for appended in appended {
        assert_eq!(appended.unwrap(), Appended::Stored);
    }
    drop(inbox);
    assert_intact(&path, (0..100).map(|number| format!("msg_{number}"))).await;
}

#[tokio::test]
async fn leases_nothing_if_future_was_dropped_while_queued() {
    let (_directory, path) = directory();
    let inbox = SqliteInbox::open(&path).unwrap();
    inbox.append(message("a")).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let dropped = lease(&inbox, 1).now_or_never();
    assert!(dropped.is_none());
    other.execute_batch("COMMIT").unwrap();
    let leased = lease(&inbox, 1).await;
    assert_eq!(leased[0].attempt.get(), 1);
}

#[tokio::test]
async fn refuses_appends_beyond_queue_limit() {
    let (_directory, path) = directory();
    // Each message counts with its overhead.
    let options = SqliteOptions::default().with_queue_bytes(1000);
    let inbox = SqliteInbox::open_with(&path, options).unwrap();
    // The writer waits for the transaction of another connection.
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let commit = async { other.execute_batch("COMMIT").unwrap() };
    let appended = join_all(["a", "b", "c", "d"].map(|id| inbox.append(message(id))));
    // Polled in this order.
    let (appended, ()) = tokio::join!(biased; appended, commit);
    let stored: Vec<_> = appended.iter().map(Result::is_ok).collect();
    assert_eq!(stored, [true, true, false, false]);
    let error = appended.into_iter().find_map(Result::err).unwrap();
    assert_eq!(error.kind(), InboxErrorKind::Busy);
    assert_eq!(inbox.stats().await.unwrap()[0].ready, 2);
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
    let mut large = message("large");
    // One byte more than SQLite's limit. The memory is never touched.
    large.body = vec![0; 1_000_000_001].into();
    let full = async {
        let full = inbox.append(message("full")).await;
        assert_eq!(full.unwrap_err().kind(), InboxErrorKind::Busy);
        other.execute_batch("COMMIT").unwrap();
    };
    // Polled in this order.
    let (before, failed, ()) = tokio::join!(
        biased;
        inbox.append(message("before")),
        inbox.append(large),
        full
    );
    assert_eq!(before.unwrap(), Appended::Stored);
    assert_eq!(failed.unwrap_err().kind(), InboxErrorKind::Unavailable);
    let after = inbox.append(message("after")).await.unwrap();
    assert_eq!(after, Appended::Stored);
    assert_eq!(ids(&list(&inbox).await), ["before", "after"]);
}
