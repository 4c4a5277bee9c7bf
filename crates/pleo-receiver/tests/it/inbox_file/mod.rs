//! What only the inbox in a file does: it outlasts its process, and has one owner.

#![cfg(feature = "sqlite")]

mod opening;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use pleo_receiver::{
    Appended, Counts, Filter, Inbox, InboxError, LeaseRequest, LeasedMessage, NewMessage, Outcome,
    Selection, SqliteInbox, SqliteOptions, State,
};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinSet;

const LEASE: Duration = Duration::from_secs(100);

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("inbox.db");
    (directory, path)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn message(id: &str) -> NewMessage {
    NewMessage {
        received_at: at(0),
        ..NewMessage::new("one", id, body(id))
    }
}

/// Other bytes for each id, from a few to many pages of the file.
fn body(id: &str) -> Bytes {
    let length = id.bytes().map(usize::from).sum::<usize>() % 32;
    id.repeat(1 + length * 100).into()
}

async fn lease(inbox: &SqliteInbox, now: Timestamp) -> Vec<LeasedMessage> {
    inbox
        .lease(LeaseRequest::of(10), now, LEASE)
        .await
        .unwrap()
        .messages
}

fn assert_open_fails(result: Result<SqliteInbox, InboxError>, path: &Path) -> String {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, InboxError::Open { .. }), "{error:?}");
    assert!(text.contains(&*path.to_string_lossy()), "{text}");
    text
}

#[tokio::test]
async fn everything_is_there_after_it_was_opened_again() {
    let (_directory, path) = directory();
    let inbox = SqliteInbox::open(&path).unwrap();
    for id in ["done", "dead", "retry", "held", "new"] {
        inbox.append(message(id)).await.unwrap();
    }
    let leased = inbox
        .lease(LeaseRequest::of(4), at(0), LEASE)
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
    // What was in hand is due again; what waits for its retry goes on waiting.
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
        .map(|one| (&*one.message.webhook_id, one.attempt));
    assert_eq!(again.collect::<Vec<_>>(), [("held", 2), ("new", 1)]);
    assert_eq!(*lease(&inbox, at(50)).await[0].message.webhook_id, *"retry");

    // A server that is gone can't settle what was handed out again.
    inbox
        .complete(leased[3].lease, Outcome::Done)
        .await
        .unwrap();
    assert_eq!(inbox.counts().await.unwrap().done, 1);
}

#[tokio::test]
async fn an_inbox_has_one_owner_at_a_time() {
    let (_directory, path) = directory();
    let inbox = SqliteInbox::open(&path).unwrap();
    let error = SqliteInbox::open(&path).unwrap_err();
    assert!(matches!(error, InboxError::InUse { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&*path.to_string_lossy()), "{text}");
    assert_eq!(
        inbox.append(message("a")).await.unwrap(),
        Appended::Stored,
        "the owner isn't disturbed"
    );
    drop(inbox);
    let inbox = SqliteInbox::open(&path).unwrap();
    assert_eq!(
        inbox.append(message("a")).await.unwrap(),
        Appended::Duplicate
    );
}

#[tokio::test]
async fn what_servers_keep_dying_with_waits_longer_each_time_and_apart() {
    let (_directory, path) = directory();
    let inbox = SqliteInbox::open(&path).unwrap();
    for id in ["a", "b", "c", "d"] {
        inbox.append(message(id)).await.unwrap();
    }
    drop(inbox);
    // From when and until when it waits, in seconds, where its last attempt was cut off.
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
                assert!(waits.len() > 1, "all are due at one time");
                let early = before + SignedDuration::from_secs(least - 1);
                let late = Timestamp::now() + SignedDuration::from_secs(most);
                for due_at in waits {
                    let due_at = due_at.unwrap();
                    assert!(early < due_at && due_at <= late, "{attempt}: {due_at}");
                }
            }
        }
        let leased = lease(&inbox, Timestamp::now() + Duration::from_secs(3600)).await;
        let attempts: Vec<_> = leased.iter().map(|one| one.attempt).collect();
        assert_eq!(attempts, [attempt; 4]);
        // The server ends with all of them in hand.
    }
}

#[tokio::test]
async fn a_closed_inbox_can_be_opened_by_the_next() {
    let (_directory, path) = directory();
    let closed = SqliteInbox::open(&path).unwrap();
    closed.append(message("a")).await.unwrap();
    closed.close().await.unwrap();
    let inbox = SqliteInbox::open(&path).unwrap();
    assert_eq!(
        inbox.append(message("a")).await.unwrap(),
        Appended::Duplicate
    );
}

#[cfg(unix)]
#[tokio::test]
async fn who_the_server_is_can_be_asked_as_long_as_it_runs() {
    let (directory, path) = directory();
    assert_eq!(SqliteInbox::server_pid(&path), None);
    // Longer than any process id, to show that nothing of it stays.
    let left_behind = "99999999999999";
    fs::write(directory.path().join("inbox.db.lock"), left_behind).unwrap();
    assert_eq!(SqliteInbox::server_pid(&path), None);
    assert!(!SqliteInbox::is_served(&path));

    let inbox = SqliteInbox::open(&path).unwrap();
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for path in [&path, &link] {
        assert_eq!(SqliteInbox::server_pid(path), Some(std::process::id()));
        assert!(SqliteInbox::is_served(path));
    }
    inbox.close().await.unwrap();
    assert_eq!(SqliteInbox::server_pid(&path), None);
    assert!(!SqliteInbox::is_served(&path));
    // Asking doesn't get in the way of a server that starts.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = SqliteInbox::server_pid(&path);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        for _ in 0..20 {
            SqliteInbox::open(&path).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[cfg(unix)]
#[tokio::test]
async fn another_name_for_the_file_is_the_same_inbox() {
    let (directory, path) = directory();
    let link = directory.path().join("link.db");
    let inbox = SqliteInbox::open(&path).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let error = SqliteInbox::open(&link).unwrap_err();
    assert!(matches!(error, InboxError::InUse { .. }), "{error:?}");
    assert_eq!(inbox.append(message("a")).await.unwrap(), Appended::Stored);
}

#[tokio::test]
async fn who_shares_the_inbox_looks_and_replays() {
    let (_directory, path) = directory();
    let owner = SqliteInbox::open(&path).unwrap();
    for id in ["held", "dead"] {
        owner.append(message(id)).await.unwrap();
    }
    let leased = lease(&owner, at(0)).await;
    let error = "why".to_owned();
    let dead = Outcome::Dead { error };
    owner.complete(leased[1].lease, dead).await.unwrap();

    let shared = SqliteInbox::open_shared(&path).unwrap();
    let all = shared.list(Filter::default()).await.unwrap();
    assert_eq!(all, owner.list(Filter::default()).await.unwrap());
    assert_eq!(all[0].due_at, Some(at(100)), "the owner's lease goes on");
    assert_eq!(shared.show("dead".into()).await.unwrap()[0].1, body("dead"));
    assert_eq!(shared.replay(Selection::dead()).await.unwrap(), 1);
    drop(shared);

    owner.ready().await;
    assert_eq!(*lease(&owner, at(0)).await[0].message.webhook_id, *"dead");
    let error = SqliteInbox::open(&path).unwrap_err();
    assert!(matches!(error, InboxError::InUse { .. }), "{error:?}");
}

#[tokio::test]
async fn who_shares_the_inbox_needs_no_owner() {
    let (_directory, path) = directory();
    drop(SqliteInbox::open(&path).unwrap());
    let shared = SqliteInbox::open_shared(&path).unwrap();
    assert_eq!(shared.counts().await.unwrap(), Counts::default());
    let owner = SqliteInbox::open(&path).unwrap();
    assert_eq!(owner.append(message("a")).await.unwrap(), Appended::Stored);
    assert_eq!(shared.counts().await.unwrap().pending, 1);
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_of_the_files_reads_them() {
    use std::os::unix::fs::PermissionsExt;

    let (directory, path) = directory();
    let inbox = SqliteInbox::open(&path).unwrap();
    inbox.append(message("a")).await.unwrap();
    let mut names = Vec::new();
    for file in fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file:?}");
        names.push(file.file_name().into_string().unwrap());
    }
    names.sort();
    let expected = ["inbox.db", "inbox.db-shm", "inbox.db-wal", "inbox.db.lock"];
    assert_eq!(names, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_are_all_stored_once() {
    let (_directory, path) = directory();
    let inbox = Arc::new(SqliteInbox::open(&path).unwrap());
    let mut tasks = JoinSet::new();
    // Each comes twice, as from an impatient sender.
    for number in 0..1000 {
        let inbox = Arc::clone(&inbox);
        let id = format!("msg_{}", number / 2);
        tasks.spawn(async move { inbox.append(message(&id)).await.unwrap() });
    }
    let appended = tasks.join_all().await;
    for outcome in [Appended::Stored, Appended::Duplicate] {
        let count = appended.iter().filter(|one| **one == outcome).count();
        assert_eq!(count, 500, "{outcome:?}");
    }
    drop(inbox);
    assert_intact(&path, (0..500).map(|number| format!("msg_{number}"))).await;
}

#[tokio::test]
async fn a_closing_inbox_stores_what_waits() {
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
async fn of_many_appended_together_those_that_fit_in_the_queue_are_stored() {
    let (_directory, path) = directory();
    let mut options = SqliteOptions::default();
    // Each is held against it with what it takes beside its body.
    options.queue_bytes = 1000;
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
async fn too_much_that_waits_is_refused_and_what_fails_spoils_nothing_else() {
    let (_directory, path) = directory();
    let inbox = SqliteInbox::open(&path).unwrap();
    // While somebody else writes, everything waits.
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let before = inbox.append(message("before"));
    let mut large = message("large");
    // One byte more than SQLite takes. Nobody ever touches this memory.
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

/// Every one of `ids` is there once, and whatever is there is whole.
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

/// Says which inbox the test writes to when it runs as the process that gets killed.
const VICTIM: &str = "PLEO_TEST_VICTIM";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_is_there_after_the_process_was_killed() {
    if let Some(path) = std::env::var_os(VICTIM) {
        return append_until_killed(path.as_ref()).await;
    }
    let (_directory, path) = directory();
    let mut promised = Vec::new();
    for lines in [1, 60, 600] {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("inbox_file::what_was_stored_is_there_after_the_process_was_killed")
            .env(VICTIM, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(victim.stdout.take().unwrap());
        let before = promised.len();
        let mut line = String::new();
        let mut killed = false;
        // Also what it said between the last line waited for and its end was promised.
        while output.read_line(&mut line).unwrap() > 0 {
            if let Some(id) = line.strip_prefix("stored ")
                && let Some(id) = id.strip_suffix('\n')
            {
                promised.push(id.to_owned());
            }
            line.clear();
            if !killed && promised.len() >= before + lines {
                victim.kill().unwrap();
                killed = true;
            }
        }
        let status = victim.wait().unwrap();
        assert!(killed && !status.success(), "it ended by itself: {status}");
        assert_intact(&path, promised.clone()).await;
    }
}

/// Appends without end, several at once, and says what was stored.
#[allow(clippy::print_stdout, reason = "the test that killed it reads this")]
async fn append_until_killed(path: &Path) {
    let inbox = Arc::new(SqliteInbox::open(path).unwrap());
    // The name of the test may stand on this line.
    println!();
    let mut tasks = JoinSet::new();
    for lane in 0..8 {
        let inbox = Arc::clone(&inbox);
        tasks.spawn(async move {
            for number in 0_u64.. {
                let id = format!("{}_{lane}_{number}", std::process::id());
                let appended = inbox.append(message(&id)).await.unwrap();
                assert_eq!(appended, Appended::Stored);
                println!("stored {id}");
            }
        });
    }
    tasks.join_all().await;
}
