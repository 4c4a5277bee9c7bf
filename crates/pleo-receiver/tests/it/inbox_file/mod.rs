//! Tests of the SQLite inbox alone: durability, crashes, files, sharing.

#![cfg(feature = "sqlite")]

mod opening;
mod queue;
mod sharing;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use pleo_receiver::{
    Appended, Filter, Inbox, InboxError, LeaseRequest, NewMessage, Outcome, SqliteInbox, State,
};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::inbox::{LEASE, at, lease};

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("inbox.db");
    (directory, path)
}

fn message(id: &str) -> NewMessage {
    NewMessage {
        received_at: at(0),
        ..NewMessage::new("books", id, body(id))
    }
}

/// A body that depends on the id, from a few bytes to many pages.
fn body(id: &str) -> Bytes {
    let length = id.bytes().map(usize::from).sum::<usize>() % 32;
    id.repeat(1 + length * 100).into()
}

fn assert_open_fails(result: Result<SqliteInbox, InboxError>, path: &Path) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, InboxError::Open { .. }), "{error:?}");
    let text = format!("{error}: {}", error.source().unwrap());
    assert!(text.contains(&*path.to_string_lossy()), "{text}");
    text
}

#[tokio::test]
async fn keeps_everything_after_reopen() {
    let (_directory, path) = directory();
    let inbox = SqliteInbox::open(&path).unwrap();
    for id in ["done", "dead", "retry", "held", "new"] {
        inbox.append(message(id)).await.unwrap();
    }
    let leased = inbox
        .lease(LeaseRequest::new(4), at(0), LEASE)
        .await
        .unwrap()
        .messages;
    for leased in &leased {
        let error = "why".to_owned();
        let outcome = match &*leased.message.webhook_id {
            "done" => Outcome::Done,
            "dead" => Outcome::Dead { error },
            "retry" => Outcome::Retry { at: at(50), error },
            _ => continue,
        };
        inbox.complete(leased.lease, outcome).await.unwrap();
    }
    let mut expected = inbox.list(Filter::default()).await.unwrap();
    inbox.close().await.unwrap();
    drop(inbox);

    let inbox = SqliteInbox::open(&path).unwrap();
    // The lease has ended; the retry stays scheduled.
    assert_eq!(expected[3].due_at.take(), Some(at(100)));
    assert_eq!(inbox.list(Filter::default()).await.unwrap(), expected);
    for id in ["done", "dead", "retry", "held", "new"] {
        assert_eq!(inbox.show(id.into()).await.unwrap()[0].1, body(id));
        assert_eq!(
            inbox.append(message(id)).await.unwrap(),
            Appended::Duplicate
        );
    }
    let again = lease(&inbox, at(0)).await;
    let again = again
        .iter()
        .map(|leased| (&*leased.message.webhook_id, leased.attempt));
    assert_eq!(again.collect::<Vec<_>>(), [("held", 2), ("new", 1)]);
    assert_eq!(*lease(&inbox, at(50)).await[0].message.webhook_id, *"retry");

    // The lease of the first server is lost.
    inbox
        .complete(leased[3].lease, Outcome::Done)
        .await
        .unwrap();
    assert_eq!(inbox.counts().await.unwrap().done, 1);
}

#[tokio::test]
async fn delays_messages_leased_in_repeated_crashes() {
    let (_directory, path) = directory();
    let inbox = SqliteInbox::open(&path).unwrap();
    for id in ["a", "b", "c", "d"] {
        inbox.append(message(id)).await.unwrap();
    }
    drop(inbox);
    // The shortest and the longest delay in seconds.
    for (attempt, wait) in [
        (1, None),
        (2, None),
        (3, None),
        (4, Some((5, 10))),
        (5, Some((10, 20))),
    ] {
        let before = Timestamp::now();
        let inbox = SqliteInbox::open(&path).unwrap();
        let entries = inbox.list(Filter::default()).await.unwrap();
        let waits: BTreeSet<_> = entries.iter().map(|entry| entry.due_at).collect();
        match wait {
            None => assert_eq!(waits, BTreeSet::from([None]), "{attempt}"),
            Some((least, most)) => {
                assert!(waits.len() > 1, "all have the same delay");
                let early = before + SignedDuration::from_secs(least - 1);
                let late = Timestamp::now() + SignedDuration::from_secs(most);
                for due_at in waits {
                    let due_at = due_at.unwrap();
                    assert!(early < due_at && due_at <= late, "{attempt}: {due_at}");
                }
            }
        }
        let leased = lease(&inbox, Timestamp::now() + Duration::from_secs(3600)).await;
        let attempts: Vec<_> = leased.iter().map(|leased| leased.attempt).collect();
        assert_eq!(attempts, [attempt; 4]);
        // The server crashes: the inbox is dropped with all messages leased.
    }
}

/// Asserts that each of `ids` is stored once and that every stored body is complete.
async fn assert_intact(path: &Path, ids: impl IntoIterator<Item = String>) {
    let inbox = SqliteInbox::open(path).unwrap();
    let mut found = BTreeMap::new();
    for entry in inbox.list(Filter::default()).await.unwrap() {
        *found.entry(entry.webhook_id).or_insert(0) += 1;
    }
    for id in found.keys() {
        let shown = inbox.show(id.clone()).await.unwrap();
        assert_eq!((shown.len(), shown[0].0.state), (1, State::Pending), "{id}");
        assert!(shown[0].1 == body(id), "{id} has other bytes");
    }
    for id in ids {
        assert_eq!(found.get(&id), Some(&1), "{id}");
    }
    drop(inbox);
    let connection = Connection::open(path).unwrap();
    let check = connection.pragma_query_value(None, "integrity_check", |row| row.get(0));
    assert_eq!(check, Ok("ok".to_owned()));
}

/// The environment variable with the inbox of the process that the test kills.
const KILLED_INBOX: &str = "PLEO_TEST_KILLED_INBOX";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_acknowledged_messages_after_kill() {
    if let Some(path) = std::env::var_os(KILLED_INBOX) {
        return append_until_killed(path.as_ref()).await;
    }
    let (_directory, path) = directory();
    let mut acknowledged = Vec::new();
    for lines in [1, 60, 600] {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("inbox_file::keeps_acknowledged_messages_after_kill")
            .env(KILLED_INBOX, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let before = acknowledged.len();
        let mut line = String::new();
        let mut killed = false;
        // Reads to the end: messages reported after the kill signal were acknowledged too.
        while output.read_line(&mut line).unwrap() > 0 {
            if let Some(id) = line.strip_prefix("stored ")
                && let Some(id) = id.strip_suffix('\n')
            {
                acknowledged.push(id.to_owned());
            }
            line.clear();
            if !killed && acknowledged.len() >= before + lines {
                process.kill().unwrap();
                killed = true;
            }
        }
        let status = process.wait().unwrap();
        assert!(
            killed && !status.success(),
            "the process exited by itself: {status}"
        );
        assert_intact(&path, acknowledged.clone()).await;
    }
}

/// Appends from several tasks until the process is killed, and prints each stored id.
#[allow(clippy::print_stdout, reason = "the test reads the output")]
async fn append_until_killed(path: &Path) {
    let inbox = Arc::new(SqliteInbox::open(path).unwrap());
    // The test harness may have printed the test's name on this line.
    println!();
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let inbox = Arc::clone(&inbox);
        tasks.spawn(async move {
            for number in 0_u64.. {
                let id = format!("{}_{task}_{number}", std::process::id());
                let appended = inbox.append(message(&id)).await.unwrap();
                assert_eq!(appended, Appended::Stored);
                println!("stored {id}");
            }
        });
    }
    tasks.join_all().await;
}
