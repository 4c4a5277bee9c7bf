//! Tests of files that older and newer releases wrote.

#![cfg(feature = "sqlite")]

use core::time::Duration;
use std::error::Error as _;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use pleo_receiver::inbox::{Clock, Completed, LeaseRequest, Outcome};
use pleo_receiver::{
    AttemptResult, Inbox, NewMessage, Origin, Query, Selection, SqliteInbox, SqliteOptions, State,
    StoredMessage,
};
use rusqlite::Connection;
use tempfile::TempDir;

/// A file of layout 1, which the program of that layout wrote. A server was killed with a lease.
const V1: &[u8] = include_bytes!("../fixtures/inbox-v1.db");

/// A file of layout 2. A server was killed with a lease; an endpoint without messages is paused.
const V2: &[u8] = include_bytes!("../fixtures/inbox-v2.db");

/// The messages of layout 1: id, state, attempts, and whether it has an error.
const V1_MESSAGES: [(&str, State, u32, bool); 8] = [
    ("msg_done_1", State::Done, 1, false),
    ("msg_done_2", State::Done, 1, false),
    ("msg_dead", State::Dead, 1, true),
    ("msg_scheduled", State::Pending, 1, true),
    ("msg_leased", State::Pending, 1, false),
    ("msg_pending", State::Pending, 0, false),
    ("msg_binary", State::Pending, 0, false),
    (
        "catch-up_3b3fd481-d7c1-4c52-a9f3-89e4a2bda319",
        State::Pending,
        0,
        false,
    ),
];

/// A clock that stands still.
#[derive(Debug)]
struct Stopped(Timestamp);

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

fn copy_v1() -> (TempDir, PathBuf) {
    copy(V1)
}

fn copy(file: &[u8]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("inbox.db");
    fs::write(&path, file).unwrap();
    (directory, path)
}

/// Opens the inbox at this time.
fn open_at(path: &PathBuf, time: &str) -> SqliteInbox {
    let clock = Arc::new(Stopped(time.parse().unwrap()));
    SqliteInbox::open_with(path, SqliteOptions::default().with_clock(clock)).unwrap()
}

fn layout(path: &PathBuf) -> i32 {
    let file = Connection::open(path).unwrap();
    file.pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap()
}

async fn all(inbox: &SqliteInbox) -> Vec<StoredMessage> {
    let page = inbox.list(Query::new(Selection::all(), 100)).await.unwrap();
    let mut messages = Vec::new();
    for entry in page.entries {
        messages.push(inbox.get(entry.key()).await.unwrap().unwrap());
    }
    messages
}

#[tokio::test]
async fn upgrades_file_of_layout_1_with_all_messages() {
    let (_directory, path) = copy_v1();
    assert_eq!(layout(&path), 1);
    let inbox = open_at(&path, "2026-11-26T04:15:00Z");
    let messages = all(&inbox).await;
    assert_eq!(messages.len(), V1_MESSAGES.len());
    for (message, (id, state, attempts, has_error)) in messages.iter().zip(V1_MESSAGES) {
        let entry = &message.entry;
        assert_eq!((&*entry.webhook_id, entry.state), (id, state));
        assert_eq!((entry.attempts, entry.leased), (attempts, false), "{id}");
        assert_eq!(entry.last_error.is_some(), has_error, "{id}");
        assert_eq!(&*entry.endpoint, "books");
        let is_catch_up = entry.origin == Origin::CatchUp;
        assert_eq!(is_catch_up, id.starts_with("catch-up_"), "{id}");
        assert!(entry.source.is_none() && message.headers.as_text().is_empty());
        assert_eq!(entry.due_at.is_some(), id == "msg_scheduled", "{id}");
        // The lease that the killed server held ended at the opening.
        let results: Vec<_> = message.attempts.iter().map(|one| one.result).collect();
        let expected: &[_] = if id == "msg_leased" {
            &[AttemptResult::Lost]
        } else {
            &[]
        };
        assert_eq!(results, expected, "{id}");
    }
    assert_eq!(&messages[6].body[..], b"\xff\x00");
    let job = &messages[5];
    assert!(job.body.starts_with(b"{") && job.entry.expires_at.is_some());
    drop(inbox);
    assert!(layout(&path) > 1);
    let check = SqliteInbox::check_file(&path).unwrap();
    assert!(check.is_intact(), "{check:?}");
}

#[tokio::test]
async fn dispatches_messages_of_layout_1() {
    let (_directory, path) = copy_v1();
    // The scheduled message is ready at 06:03.
    for (time, expected) in [
        (
            "2026-11-26T04:15:00Z",
            &["msg_leased", "msg_pending", V1_MESSAGES[7].0, "msg_binary"][..],
        ),
        ("2026-11-26T06:10:00Z", &["msg_scheduled"]),
    ] {
        let inbox = open_at(&path, time);
        let request = LeaseRequest::new(10, Duration::from_secs(30), "test");
        let leased = inbox.lease(request).await.unwrap().messages;
        let ids: Vec<_> = leased
            .iter()
            .map(|leased| &*leased.message.entry.webhook_id)
            .collect();
        assert_eq!(ids, expected);
        for leased in &leased {
            let done = inbox.complete(leased.lease, Outcome::Done).await;
            assert_eq!(done.unwrap(), Completed::Recorded);
        }
        inbox.close().await.unwrap();
    }
    let inbox = open_at(&path, "2026-11-26T06:10:00Z");
    let stats = inbox.stats().await.unwrap();
    assert_eq!((stats[0].done, stats[0].dead), (7, 1));
    assert_eq!(inbox.replay(Selection::dead()).await.unwrap(), 1);
    // A sequence is never used twice.
    let pruned = inbox.prune(Selection::state(State::Done)).await.unwrap();
    assert_eq!(pruned, 7);
    inbox
        .append(NewMessage::new("books", "msg_new", "{}"))
        .await
        .unwrap();
    assert_eq!(all(&inbox).await.last().unwrap().entry.sequence, 9);
}

#[tokio::test]
async fn upgrades_file_of_layout_2_with_all_messages() {
    let (_directory, path) = copy(V2);
    assert_eq!(layout(&path), 2);
    let inbox = open_at(&path, "2026-11-26T07:00:00Z");
    let messages = all(&inbox).await;
    let keys: Vec<_> = (messages.iter())
        .map(|message| (&*message.entry.endpoint, &*message.entry.webhook_id))
        .collect();
    let expected = [
        ("books", "msg_done_1"),
        ("other", "msg_done_2"),
        ("books", "msg_dead"),
        ("books", "msg_scheduled"),
        ("books", "msg_leased"),
        ("books", "msg_pending"),
        ("books", "msg_pending_2"),
        ("other", "msg_done_3"),
    ];
    assert_eq!(keys, expected);
    for message in &messages {
        let id = &message.entry.webhook_id;
        assert!(message.headers.get("webhook-signature").is_some(), "{id}");
        let attempts = usize::from(!id.contains("pending"));
        assert_eq!(message.attempts.len(), attempts, "{id}");
    }
    drop(inbox);
    assert!(layout(&path) > 2);
    let check = SqliteInbox::check_file(&path).unwrap();
    assert!(check.is_intact(), "{check:?}");
}

/// Older layouts have no statistics.
#[tokio::test]
async fn counts_messages_of_older_layouts() {
    let (_directory, path) = copy_v1();
    let inbox = open_at(&path, "2026-11-26T04:15:00Z");
    let stats = inbox.stats().await.unwrap();
    assert_eq!(stats.len(), 1);
    let books = &stats[0];
    assert_eq!((books.ready, books.leased, books.scheduled), (4, 0, 1));
    assert_eq!((books.done, books.dead), (2, 1));

    let (_directory, path) = copy(V2);
    let inbox = open_at(&path, "2026-11-26T07:00:00Z");
    let stats = inbox.stats().await.unwrap();
    let states: Vec<_> = (stats.iter())
        .map(|stats| {
            let counts = [
                stats.ready,
                stats.leased,
                stats.scheduled,
                stats.done,
                stats.dead,
            ];
            (&*stats.endpoint, stats.paused, counts)
        })
        .collect();
    let expected = [
        ("books", true, [3, 0, 1, 1, 1]),
        ("other", false, [0, 0, 0, 2, 0]),
        ("paused-only", true, [0, 0, 0, 0, 0]),
    ];
    assert_eq!(states, expected);
    let books = &stats[0];
    let scheduled = &all(&inbox).await[3].entry;
    assert_eq!(&*scheduled.webhook_id, "msg_scheduled");
    // It is the oldest, and the next to expire.
    assert_eq!(books.nearest_expiry, scheduled.expires_at);
    let age = books.oldest_pending.unwrap();
    let now: Timestamp = "2026-11-26T07:00:00Z".parse().unwrap();
    assert_eq!(
        age,
        now.duration_since(scheduled.received_at).unsigned_abs()
    );
    let last = |id: &str| id == "msg_pending_2";
    let messages = all(&inbox).await;
    let last = messages.iter().find(|one| last(&one.entry.webhook_id));
    assert_eq!(books.delivered_at, Some(last.unwrap().entry.received_at));
}

#[test]
fn backs_up_and_checks_file_of_older_layouts_unchanged() {
    for (version, file) in [(1, V1), (2, V2)] {
        let (directory, path) = copy(file);
        let backup = directory.path().join("backup.db");
        SqliteInbox::backup(&path, &backup).unwrap();
        for path in [&path, &backup] {
            let check = SqliteInbox::check_file(path).unwrap();
            assert!(check.is_intact() && check.messages == 8, "{check:?}");
            assert_eq!(layout(path), version);
        }
    }
}

#[test]
fn names_release_that_newer_file_needs() {
    let (_directory, path) = copy_v1();
    drop(SqliteInbox::open(&path).unwrap());
    let newer = Connection::open(&path).unwrap();
    newer
        .execute("UPDATE program SET version = '7.8.9'", [])
        .unwrap();
    newer.pragma_update(None, "user_version", 1000).unwrap();
    drop(newer);
    let bytes = fs::read(&path).unwrap();
    for result in [
        SqliteInbox::open(&path).map(drop),
        SqliteInbox::open_shared(&path).map(drop),
        SqliteInbox::check_file(&path).map(drop),
    ] {
        let error = result.unwrap_err();
        let cause = error.source().unwrap().to_string();
        assert!(
            cause.contains("use pleo-receiver 7.8.9 or newer"),
            "{cause}"
        );
    }
    assert!(fs::read(&path).unwrap() == bytes, "the file was changed");
}
