//! An inbox that can't be written any more while the server has it open: what comes is answered 503,
//! nothing is lost, and it goes on by itself when it may write again.
//!
//! Few things do that to an open file. `chmod` and a new owner matter only to who opens it next, and
//! to the superuser not even then; no file system is remounted read-only under an open file (the
//! kernel says that it is busy). What does is the attribute "immutable", by which every write fails.
//! Only the superuser may set it, on ext4 and the like; where that can't be, the test says that it
//! was skipped.

#![cfg(target_os = "linux")]

use core::time::Duration;
use std::fs::File;
use std::io;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::support::large_messages::body;
use crate::support::program::{RunningServer, SECRET, WorkDir};
use crate::support::{Answer, Request, counting_target, send_to};
use tokio::time;

const ENV: &[(&str, &str)] = &[("PLEO_WEBHOOK_SECRET", SECRET)];

/// Whatever goes wrong, no test waits longer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Files that can't be changed, until this is dropped.
struct Immutable<'a> {
    dir: &'a WorkDir,
    files: &'a [&'a str],
}

impl<'a> Immutable<'a> {
    fn set(dir: &'a WorkDir, files: &'a [&'a str]) -> Self {
        let this = Self { dir, files };
        this.chattr("+i");
        this
    }

    /// Whether it keeps somebody from writing who has the file open.
    fn is_possible() -> bool {
        let dir = WorkDir::new();
        let mut file = File::create(dir.path().join("probe")).unwrap();
        let _immutable = Immutable::set(&dir, &["probe"]);
        file.write_all(b"x").is_err()
    }

    fn chattr(&self, change: &str) -> bool {
        let mut chattr = Command::new("chattr");
        chattr.arg(change).args(self.files).stderr(Stdio::null());
        let changed = chattr.current_dir(self.dir.path()).status();
        changed.is_ok_and(|status| status.success())
    }
}

impl Drop for Immutable<'_> {
    fn drop(&mut self) {
        self.chattr("-i");
    }
}

async fn send(server: &RunningServer, id: &str) -> Answer {
    send_to(server.address(), &Request::signed(id, &body(id))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_503_while_inbox_is_read_only() {
    if !Immutable::is_possible() {
        // Not by a macro, whose text is seen only where a test fails.
        let _ = writeln!(
            io::stderr(),
            "SKIPPED read_only: no file can be made immutable"
        );
        return;
    }
    let dir = WorkDir::new();
    let (url, handed) = counting_target().await;
    let server = dir.serve(&["--forward", &url], ENV);
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let before = format!("msg_{round}_before");
        assert_eq!(send(&server, &before).await.status, 204);
        // The third file (`-shm`) is memory that is shared.
        let files = &["pleo-inbox.db", "pleo-inbox.db-wal"];
        let immutable = Immutable::set(&dir, files);
        let refused: Vec<_> = (0..10).map(|nth| format!("msg_{round}_{nth}")).collect();
        for id in &refused {
            send(&server, id).await.assert_inbox_failed();
        }
        drop(immutable);
        for id in &refused {
            assert_eq!(send(&server, id).await.status, 204);
        }
        acknowledged.push(before);
        acknowledged.extend(refused);
    }
    let start = Instant::now();
    while handed.lock().unwrap().len() < acknowledged.len() {
        assert!(
            start.elapsed() < TIMEOUT,
            "only {:?}",
            handed.lock().unwrap()
        );
        time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.stop("-KILL").0, None);

    let server = dir.serve(&["--forward", &url], ENV);
    let stored = crate::support::large_messages::stored(&dir.path().join("pleo-inbox.db")).await;
    assert_eq!(stored, acknowledged);
    assert_eq!(server.stop("-TERM").0, Some(0));
}
