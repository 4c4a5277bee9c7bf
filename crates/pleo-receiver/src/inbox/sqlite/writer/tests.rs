//! Tests of the writer: batches that fail.

#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::fs;
use std::thread;

use jiff::Timestamp;

use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

use super::super::{SqliteInbox, SqliteOptions};
use super::*;
use crate::inbox::clock::{Clock, SystemClock};
use crate::inbox::contract::Inbox;
use crate::inbox::lease::LeaseRequest;
use crate::inbox::message::NewMessage;

/// A writer that has not started, with its queue.
struct Queue {
    directory: TempDir,
    commands: mpsc::UnboundedSender<Command>,
    writer: Box<dyn FnOnce() + Send>,
}

impl Queue {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = file::create(&directory.path().join("inbox.db"), true).unwrap();
        let lock = ServerLock::acquire(&path).unwrap();
        let writer = Writer {
            connection: file::open(&path, lock.database()).unwrap(),
            files: OpenFiles::new(&path).unwrap(),
            checkpointer: None,
            lock: Some(lock),
            meter: Arc::default(),
            version: watch::Sender::new(0),
            health: Arc::new(Mutex::new(Ok(()))),
            log_limit: RateLimit::new(),
        };
        let (commands, receiver) = mpsc::unbounded_channel();
        let dispatch = DispatchState::new(Arc::new(SystemClock::default()));
        Self {
            directory,
            commands,
            writer: Box::new(move || writer.run(receiver, dispatch)),
        }
    }

    fn append(&self, id: &str) -> oneshot::Receiver<Result<Appended, InboxError>> {
        let [result] = self.append_together([id]);
        result
    }

    /// Appends messages with one command.
    fn append_together<const N: usize>(
        &self,
        ids: [&str; N],
    ) -> [oneshot::Receiver<Result<Appended, InboxError>>; N] {
        let (mut appends, runtime) = (Vec::new(), None);
        let results = ids.map(|id| {
            let (reply, result) = oneshot::channel();
            let message = NewMessage::new("books", id, "{}");
            appends.push(QueuedAppend {
                message: Box::new(ParsedMessage::parse(message, Timestamp::now())),
                size: 0,
                reply,
            });
            result
        });
        (self.commands.send(Command::Append { appends, runtime })).unwrap();
        results
    }

    /// Executes the queued commands in one transaction. Returns the number of messages that are
    /// stored, and whether the writer panicked.
    fn run(self) -> (i64, bool) {
        drop(self.commands);
        let ended = thread::spawn(self.writer).join();
        let inbox = file::connect(&self.directory.path().join("inbox.db")).unwrap();
        let count = "SELECT count(*) FROM message";
        let count = inbox.query_row(count, [], |row| row.get(0)).unwrap();
        let stats = "SELECT coalesce(sum(pending), 0) FROM endpoint_stats";
        let pending: i64 = inbox.query_row(stats, [], |row| row.get(0)).unwrap();
        assert_eq!(pending, count);
        (count, ended.is_err())
    }
}

#[test]
fn panic_stores_nothing_of_batch_and_sends_no_reply() {
    let queue = Queue::new();
    let before = queue.append("before");
    queue.commands.send(Command::Panic).unwrap();
    let after = queue.append("after");
    assert_eq!(queue.run(), (0, true));
    assert!(before.blocking_recv().is_err());
    assert!(after.blocking_recv().is_err());
}

#[test]
fn rollback_stores_nothing_of_batch_and_refuses_all() {
    let queue = Queue::new();
    let before = queue.append("before");
    queue.commands.send(Command::RollBack).unwrap();
    let after = queue.append("after");
    assert_eq!(queue.run(), (0, false));
    for reply in [before, after] {
        let error = reply.blocking_recv().unwrap().unwrap_err();
        assert_eq!(error.kind(), InboxErrorKind::Unavailable);
    }
}

#[test]
fn rollback_by_append_stores_nothing_of_its_command() {
    let queue = Queue::new();
    let inbox = file::connect(&queue.directory.path().join("inbox.db")).unwrap();
    let trigger = "CREATE TRIGGER roll_back BEFORE INSERT ON message WHEN NEW.webhook_id = 'bad'
                   BEGIN SELECT RAISE(ROLLBACK, 'this is part of the test'); END";
    inbox.execute_batch(trigger).unwrap();
    drop(inbox);
    let replies = queue.append_together(["before", "bad", "after"]);
    assert_eq!(queue.run(), (0, false));
    for reply in replies {
        let error = reply.blocking_recv().unwrap().unwrap_err();
        assert_eq!(error.kind(), InboxErrorKind::Unavailable);
    }
}

/// A clock that a test moves.
#[derive(Debug, Default)]
struct ManualClock(AtomicU64);

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

#[tokio::test]
async fn is_not_ready_while_file_is_moved_and_redelivers_its_leases() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("inbox.db");
    let clock = Arc::new(ManualClock::default());
    let options = SqliteOptions::default().with_clock(clock.clone());
    let inbox = SqliteInbox::open_with(&path, options).unwrap();
    inbox
        .append(NewMessage::new("books", "msg_1", "{}"))
        .await
        .unwrap();
    let request = LeaseRequest::new(10, Duration::from_secs(30), "worker");
    let away = directory.path().join("away");
    fs::rename(&path, &away).unwrap();
    inbox.lease(request.clone()).await.unwrap_err();
    inbox.check().await.unwrap_err();
    fs::rename(&away, &path).unwrap();
    // The transaction was committed. The lease ends because nobody renews it.
    clock.0.store(60, Ordering::Relaxed);
    let leased = inbox.lease(request).await.unwrap().messages;
    assert_eq!(leased.len(), 1);
    assert_eq!(leased[0].attempt.get(), 2);
    inbox.check().await.unwrap();
}
