//! A full disk: the server answers 503, keeps every acknowledged message, and recovers without a
//! restart.
//!
//! The disk is a small tmpfs. Mounting it needs root; without, the test prints that it was skipped.
//! `inbox_failures.rs` simulates a full disk with a limit on the file size, which needs no root.

#![cfg(target_os = "linux")]

use core::time::Duration;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use crate::admin::wait_for_readiness;
use crate::support::large_messages::body;
use crate::support::program::{ENV, RunningServer, WorkDir};
use crate::support::{Request, counting_target, send_to};
use tokio::task::JoinSet;
use tokio::time;

const INBOX: &str = "sqlite:disk/inbox.db";

/// The free space that a filled disk keeps.
const FREE_SPACE: u64 = 2 * 1024 * 1024;

/// The number of concurrent deliveries.
const SENDERS: usize = 16;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A working directory with a small disk, unmounted on drop.
struct Disk(WorkDir);

impl Disk {
    /// Returns `None` if the disk cannot be mounted.
    fn mount(size: &str) -> Option<Self> {
        let dir = WorkDir::new();
        let folder = dir.path().join("disk");
        fs::create_dir(&folder).unwrap();
        let mut mount = Command::new("mount");
        let options = format!("size={size},mode=700");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]);
        let mounted = mount.arg(&folder).stderr(Stdio::null()).status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(dir))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join("disk").join(name)
    }

    /// Fills the disk with another file, up to `FREE_SPACE`.
    fn fill(&self, name: &str) {
        let mut file = File::create(self.file(name)).unwrap();
        while file.write_all(&[0; 64 * 1024]).is_ok() {}
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(FREE_SPACE)).unwrap();
    }

    /// Fills the disk to the last byte.
    fn fill_completely(&self, name: &str) {
        let mut file = File::create(self.file(name)).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn resize(&self, size: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,size={size}")]);
        assert!(mount.arg(self.file("")).status().unwrap().success());
    }

    fn serve(&self, forward: &str) -> RunningServer {
        let args = [
            "--inbox",
            INBOX,
            "--forward",
            forward,
            "--admin",
            "127.0.0.1:0",
        ];
        self.0.serve(&args, ENV)
    }

    /// Starts a server on the full disk. It reports the full disk, or serves if it has nothing to
    /// write at startup.
    fn try_to_serve(&self) {
        let args = ["serve", "--listen", "127.0.0.1:0", "--inbox", INBOX];
        let mut command = self.0.command(&args);
        let mut server = command.envs(ENV.iter().copied()).spawn().unwrap();
        let (mut stderr, mut log) = (BufReader::new(server.stderr.take().unwrap()), String::new());
        while !log.contains("listening url=") {
            if stderr.read_line(&mut log).unwrap() == 0 {
                assert_eq!(server.wait().unwrap().code(), Some(1), "{log}");
                assert!(log.contains("inbox.db`: database or disk is full"), "{log}");
                return;
            }
        }
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// Asserts that the inbox has exactly the acknowledged messages, once, with their bodies.
    async fn assert_stored(&self, acknowledged: &HashSet<String>) {
        let stored = crate::support::large_messages::stored(&self.file("inbox.db")).await;
        let ids: HashSet<_> = stored.iter().cloned().collect();
        assert_eq!((ids.len(), &ids), (stored.len(), acknowledged));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, since the server of a failed test may still run.
        let _ = Command::new("umount").arg("-l").arg(self.file("")).status();
    }
}

/// Sends messages concurrently. Returns the acknowledged ids; the others were answered 503.
async fn send_all(server: &RunningServer, ids: Vec<String>) -> Vec<String> {
    let sending: JoinSet<_> = ids
        .into_iter()
        .map(|id| {
            let address = server.address().to_owned();
            async move {
                let answer = send_to(&address, &Request::signed(&id, &body(&id))).await;
                if answer.status == 204 {
                    return Some(id);
                }
                answer.assert_inbox_failed();
                None
            }
        })
        .collect();
    sending.join_all().await.into_iter().flatten().collect()
}

/// Sends new messages until none is acknowledged. Returns the ids of the last, rejected batch.
async fn send_until_full(
    server: &RunningServer,
    acknowledged: &mut HashSet<String>,
) -> Vec<String> {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < TIMEOUT, "the disk never fills up");
        let first = acknowledged.len();
        let ids = (first..first + SENDERS).map(|number| format!("msg_{number}"));
        let ids: Vec<_> = ids.filter(|id| !acknowledged.contains(id)).collect();
        let stored = send_all(server, ids.clone()).await;
        if stored.is_empty() {
            return ids;
        }
        acknowledged.extend(stored);
    }
}

/// Sends rejected messages again. Asserts that all are acknowledged.
async fn resend(server: &RunningServer, rejected: Vec<String>, acknowledged: &mut HashSet<String>) {
    let count = rejected.len();
    let stored = send_all(server, rejected).await;
    assert_eq!(stored.len(), count, "only {stored:?}");
    acknowledged.extend(stored);
}

/// Waits until every acknowledged message is dispatched.
async fn wait_until_dispatched(
    delivered: &Mutex<HashMap<String, usize>>,
    acknowledged: &HashSet<String>,
) {
    let start = Instant::now();
    loop {
        let count = delivered.lock().unwrap().len();
        let all = acknowledged.len();
        if count >= all {
            return;
        }
        assert!(
            start.elapsed() < TIMEOUT,
            "only {count} of {all} were dispatched"
        );
        time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_acknowledged_messages_while_disk_is_full() {
    // Each time space is freed, it must exceed 16 MiB, the size at which the WAL is reset.
    let Some(disk) = Disk::mount("24m") else {
        // libtest captures `eprintln!`.
        let _ = writeln!(io::stderr(), "SKIPPED full_disk: no tmpfs can be mounted");
        return;
    };
    let (url, delivered) = counting_target().await;
    let server = disk.serve(&url);
    let mut acknowledged = HashSet::new();
    disk.fill("filler");
    let rejected = send_until_full(&server, &mut acknowledged).await;
    disk.fill_completely("rest");
    let inbox = &wait_for_readiness(&server, 503)["inbox"];
    let reason = inbox["reason"].as_str().unwrap();
    assert!(reason.contains("the disk is full"), "{inbox}");
    // Space is freed.
    fs::remove_file(disk.file("rest")).unwrap();
    fs::remove_file(disk.file("filler")).unwrap();
    wait_for_readiness(&server, 200);
    resend(&server, rejected, &mut acknowledged).await;
    disk.assert_stored(&acknowledged).await;
    wait_until_dispatched(&delivered, &acknowledged).await;

    // The disk fills up again and grows.
    disk.fill("more");
    let rejected = send_until_full(&server, &mut acknowledged).await;
    disk.resize("48m");
    resend(&server, rejected, &mut acknowledged).await;
    disk.assert_stored(&acknowledged).await;
    wait_until_dispatched(&delivered, &acknowledged).await;

    // The server is killed while the disk is full.
    disk.fill("most");
    let rejected = send_until_full(&server, &mut acknowledged).await;
    assert_eq!(server.stop("-KILL").0, None);
    disk.try_to_serve();
    // Space for the WAL, which is checkpointed at startup.
    disk.resize("96m");
    let server = disk.serve(&url);
    disk.assert_stored(&acknowledged).await;
    resend(&server, rejected, &mut acknowledged).await;
    wait_until_dispatched(&delivered, &acknowledged).await;
    assert_eq!(server.stop("-TERM").0, Some(0));
    disk.assert_stored(&acknowledged).await;
}
