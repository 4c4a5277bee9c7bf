//! The inbox in a file.

use core::time::Duration;
use std::sync::Arc;

use pleo_receiver::inbox::Clock;
use pleo_receiver::inbox::conformance::{self, Harness, ManualClock};
use pleo_receiver::jiff::{SignedDuration, Timestamp};
use pleo_receiver::{Inbox, Key, SqliteInbox, SqliteOptions};
use rusqlite::Connection;
use tempfile::TempDir;

struct Sqlite {
    directory: TempDir,
    clock: ManualClock,
}

impl Harness for Sqlite {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            clock: ManualClock::default(),
        }
    }

    async fn open(&self) -> Arc<dyn Inbox> {
        let clock = Arc::new(self.clock.clone());
        let options = SqliteOptions::default().with_clock(clock);
        let path = self.directory.path().join("inbox.db");
        Arc::new(SqliteInbox::open_with(path, options).unwrap())
    }

    async fn reopen(&self) -> Option<Arc<dyn Inbox>> {
        Some(self.open().await)
    }

    async fn advance(&self, duration: Duration) {
        self.clock.advance(duration);
    }

    async fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn step_clock(&self, by: SignedDuration) -> bool {
        self.clock.step(by);
        true
    }

    async fn damage(&self, key: &Key) -> bool {
        let file = Connection::open(self.directory.path().join("inbox.db")).unwrap();
        let deleted = file.execute(
            "DELETE FROM body WHERE sequence =
             (SELECT sequence FROM message WHERE endpoint = ?1 AND webhook_id = ?2)",
            (&*key.endpoint, &*key.webhook_id),
        );
        deleted.unwrap() == 1
    }
}

conformance::tests!(Sqlite);
