//! Tests of the SQLite inbox alone: durability, crashes, files, sharing.

#![cfg(feature = "sqlite")]

mod damaged;
mod opening;
mod queue;
mod sharing;
mod stats;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use pleo_receiver::inbox::{Clock, Completed, LeaseRequest, LeasedMessage, Outcome};
use pleo_receiver::jiff::Timestamp;
use pleo_receiver::{
    Appended, AttemptResult, Entry, Inbox, Key, NewMessage, Query, Selection, SqliteInbox,
    SqliteOpenError, SqliteOptions, State,
};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinSet;

const TTL: Duration = Duration::from_secs(30);

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("inbox.db");
    (directory, path)
}

fn message(id: &str) -> NewMessage {
    NewMessage::new("books", id, body(id))
}

/// A body that depends on the id, from a few bytes to many pages.
fn body(id: &str) -> Bytes {
    let length = id.bytes().map(usize::from).sum::<usize>() % 32;
    id.repeat(1 + length * 100).into()
}

fn key(id: &str) -> Key {
    Key::new("books", id)
}

async fn lease(inbox: &SqliteInbox, max: usize) -> Vec<LeasedMessage> {
    let request = LeaseRequest::new(max, TTL, "test");
    inbox.lease(request).await.unwrap().messages
}

async fn list(inbox: &SqliteInbox) -> Vec<Entry> {
    let page = inbox.list(Query::new(Selection::all(), 10_000)).await;
    page.unwrap().entries
}

fn ids(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| &*entry.webhook_id).collect()
}

fn assert_open_fails(result: Result<SqliteInbox, SqliteOpenError>, path: &Path) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, SqliteOpenError::Open { .. }), "{error:?}");
    let text = format!("{error}: {}", error.source().unwrap());
    assert!(text.contains(&*path.to_string_lossy()), "{text}");
    text
}

/// A clock that a test sets.
#[derive(Debug, Default)]
struct TestClock {
    elapsed: Mutex<Duration>,
    /// How far the time of day is ahead of the elapsed time.
    ahead: Mutex<Duration>,
}

impl TestClock {
    fn advance(&self, by: Duration) {
        *self.elapsed.lock().unwrap() += by;
    }

    fn set_ahead(&self, by: Duration) {
        *self.ahead.lock().unwrap() = by;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        start + *self.elapsed.lock().unwrap() + *self.ahead.lock().unwrap()
    }

    fn elapsed(&self) -> Duration {
        *self.elapsed.lock().unwrap()
    }
}

fn open(path: &Path, clock: &Arc<TestClock>) -> SqliteInbox {
    let clock: Arc<dyn Clock> = Arc::<TestClock>::clone(clock);
    SqliteInbox::open_with(path, SqliteOptions::default().with_clock(clock)).unwrap()
}

#[tokio::test]
async fn keeps_everything_after_reopen() {
    let (_directory, path) = directory();
    let clock = Arc::default();
    let inbox = open(&path, &clock);
    let all = ["done", "dead", "retry", "held", "new"];
    for id in all {
        inbox.append(message(id)).await.unwrap();
    }
    inbox.set_paused("other".into(), true).await.unwrap();
    let leased = lease(&inbox, 4).await;
    for leased in &leased {
        let error = "why".to_owned();
        let outcome = match &*leased.message.entry.webhook_id {
            "done" => Outcome::Done,
            "dead" => Outcome::Dead { error },
            "retry" => {
                let after = Duration::from_secs(50);
                Outcome::Retry { after, error }
            }
            _ => continue,
        };
        inbox.complete(leased.lease, outcome).await.unwrap();
    }
    let mut expected = list(&inbox).await;
    let stats = inbox.stats().await.unwrap();
    inbox.close().await.unwrap();
    drop(inbox);

    let inbox = open(&path, &clock);
    // The lease has ended; the retry stays scheduled.
    assert!(core::mem::take(&mut expected[3].leased));
    assert_eq!(list(&inbox).await, expected);
    let mut reopened = inbox.stats().await.unwrap();
    assert_eq!((reopened[0].ready, reopened[0].leased), (2, 0));
    (reopened[0].ready, reopened[0].leased) = (1, 1);
    assert_eq!(reopened, stats);
    for id in all {
        let stored = inbox.get(key(id)).await.unwrap().unwrap();
        assert_eq!(stored.body, body(id));
        let results: Vec<_> = stored
            .attempts
            .iter()
            .map(|attempt| attempt.result)
            .collect();
        let expected: &[AttemptResult] = match id {
            "done" => &[AttemptResult::Done],
            "dead" => &[AttemptResult::Dead],
            "retry" => &[AttemptResult::Retry],
            "held" => &[AttemptResult::Lost],
            _ => &[],
        };
        assert_eq!(results, expected, "{id}");
        let appended = inbox.append(message(id)).await.unwrap();
        assert_eq!(appended, Appended::Duplicate);
    }
    let again = lease(&inbox, 10).await;
    let again = again
        .iter()
        .map(|leased| (&*leased.message.entry.webhook_id, leased.attempt.get()));
    assert_eq!(again.collect::<Vec<_>>(), [("held", 2), ("new", 1)]);
    clock.advance(Duration::from_secs(50));
    let retried = lease(&inbox, 10).await;
    assert_eq!(&*retried[0].message.entry.webhook_id, "retry");
}

#[tokio::test]
async fn delays_messages_leased_in_repeated_crashes() {
    let (_directory, path) = directory();
    let clock = Arc::<TestClock>::default();
    let inbox = open(&path, &clock);
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
        let inbox = open(&path, &clock);
        let entries = list(&inbox).await;
        let waits: BTreeSet<_> = entries.iter().map(|entry| entry.due_at).collect();
        match wait {
            None => assert_eq!(waits, BTreeSet::from([None]), "{attempt}"),
            Some((least, most)) => {
                assert!(waits.len() > 1, "all have the same delay");
                for due_at in waits {
                    let delay = due_at.unwrap().duration_since(clock.now()).as_secs_f64();
                    let range = f64::from(least)..=f64::from(most) + 0.001;
                    assert!(range.contains(&delay), "{attempt}: {delay}");
                }
            }
        }
        clock.advance(Duration::from_secs(3600));
        let leased = lease(&inbox, 10).await;
        let attempts: Vec<_> = leased.iter().map(|leased| leased.attempt.get()).collect();
        assert_eq!(attempts, [attempt; 4]);
        // The server crashes: the inbox is dropped with all messages leased.
    }
}

#[tokio::test]
async fn retry_is_ready_within_delay_after_clock_was_ahead() {
    let (_directory, path) = directory();
    let clock = Arc::<TestClock>::default();
    let retry = async |inbox: &SqliteInbox, id: &str| {
        inbox.append(message(id)).await.unwrap();
        let leased = lease(inbox, 1).await;
        let after = Duration::from_secs(60);
        let error = "why".to_owned();
        let retry = Outcome::Retry { after, error };
        inbox.complete(leased[0].lease, retry).await.unwrap();
    };
    clock.set_ahead(Duration::from_secs(365 * 24 * 3600));
    let inbox = open(&path, &clock);
    retry(&inbox, "running").await;
    assert!(lease(&inbox, 1).await.is_empty());
    clock.set_ahead(Duration::ZERO);
    let request = LeaseRequest::new(1, TTL, "test");
    let leased = inbox.lease(request).await.unwrap();
    assert_eq!(leased.next_due_in, Some(Duration::from_secs(60)));
    clock.advance(Duration::from_secs(60));
    let leased = lease(&inbox, 1).await;
    inbox
        .complete(leased[0].lease, Outcome::Done)
        .await
        .unwrap();

    // The clock is set while the server does not run.
    clock.set_ahead(Duration::from_secs(365 * 24 * 3600));
    retry(&inbox, "stopped").await;
    drop(inbox);
    clock.set_ahead(Duration::ZERO);
    let inbox = open(&path, &clock);
    assert!(lease(&inbox, 1).await.is_empty());
    clock.advance(Duration::from_secs(60));
    assert_eq!(lease(&inbox, 1).await.len(), 1);
}

#[tokio::test]
async fn leases_outlive_clock_steps_in_both_directions() {
    let (_directory, path) = directory();
    let clock = Arc::<TestClock>::default();
    clock.set_ahead(Duration::from_secs(1_000_000));
    let inbox = open(&path, &clock);
    inbox.append(message("a")).await.unwrap();
    let leased = lease(&inbox, 1).await;
    for ahead in [100_000_000, 0, 1_000_000] {
        clock.set_ahead(Duration::from_secs(ahead));
        assert!(lease(&inbox, 1).await.is_empty(), "{ahead}");
        assert_eq!(inbox.renew(vec![leased[0].lease], TTL).await.unwrap(), []);
    }
    clock.advance(TTL);
    assert_eq!(lease(&inbox, 1).await.len(), 1);
    assert_eq!(
        inbox.renew(vec![leased[0].lease], TTL).await.unwrap(),
        [leased[0].lease]
    );
}

/// Asserts that each of `ids` is stored once and that every stored body is complete.
async fn assert_intact(path: &Path, ids: impl IntoIterator<Item = String>) {
    let inbox = SqliteInbox::open(path).unwrap();
    let mut found = BTreeMap::new();
    let all = inbox.list(Query::new(Selection::all(), u32::MAX)).await;
    for entry in all.unwrap().entries {
        *found.entry(entry.webhook_id).or_insert(0) += 1;
    }
    for id in found.keys() {
        let stored = inbox.get(key(id)).await.unwrap().unwrap();
        assert_eq!(stored.entry.state, State::Pending, "{id}");
        assert!(stored.body == body(id), "{id} has other bytes");
    }
    for id in ids {
        assert_eq!(found.get(&*id), Some(&1), "{id}");
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
