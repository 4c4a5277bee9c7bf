//! An inbox that becomes read-only while the server runs: the server answers 503, loses nothing, and
//! recovers without a restart.
//!
//! `chmod` and `chown` do not affect open files, and a file system with files open for writing cannot
//! be remounted read-only. The attribute "immutable" makes every write fail. Setting it needs root
//! and a file system such as ext4; without, the test prints that it was skipped.

#![cfg(target_os = "linux")]

use core::time::Duration;
use std::fs::File;
use std::io;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::support::large_messages::body;
use crate::support::program::{ENV, RunningServer, WorkDir};
use crate::support::{Answer, Request, counting_target, send_to};
use tokio::time;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Files that are immutable until this is dropped.
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

    /// Returns `true` if the attribute makes writes to an open file fail.
    fn is_supported() -> bool {
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
    if !Immutable::is_supported() {
        // libtest captures `eprintln!`.
        let _ = writeln!(
            io::stderr(),
            "SKIPPED read_only: no file can be made immutable"
        );
        return;
    }
    let dir = WorkDir::new();
    let (url, delivered) = counting_target().await;
    let server = dir.serve(&["--forward", &url], ENV);
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let before = format!("msg_{round}_before");
        assert_eq!(send(&server, &before).await.status, 204);
        // The third file (`-shm`) is shared memory.
        let files = &["pleo-inbox.db", "pleo-inbox.db-wal"];
        let immutable = Immutable::set(&dir, files);
        let rejected: Vec<_> = (0..10).map(|nth| format!("msg_{round}_{nth}")).collect();
        for id in &rejected {
            send(&server, id).await.assert_inbox_failed();
        }
        drop(immutable);
        for id in &rejected {
            assert_eq!(send(&server, id).await.status, 204);
        }
        acknowledged.push(before);
        acknowledged.extend(rejected);
    }
    let start = Instant::now();
    while delivered.lock().unwrap().len() < acknowledged.len() {
        assert!(
            start.elapsed() < TIMEOUT,
            "only {:?}",
            delivered.lock().unwrap()
        );
        time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.stop("-KILL").0, None);

    let server = dir.serve(&["--forward", &url], ENV);
    let stored = crate::support::large_messages::stored(&dir.path().join("pleo-inbox.db")).await;
    assert_eq!(stored, acknowledged);
    assert_eq!(server.stop("-TERM").0, Some(0));
}
