//! A disk that is really full: what doesn't fit is answered 503, what was answered 204 stays, and it
//! goes on by itself when there is room.
//!
//! The disk is a small tmpfs, which only the superuser may mount. Where that can't be, the test says
//! that it was skipped; `broken.rs` has a full disk for everybody, by a limit on the file's size.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

use core::time::Duration;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use crate::support::padded::body;
use crate::support::program::{Place, SECRET, Serving};
use crate::support::{Request, send_to, target};
use tokio::task::JoinSet;
use tokio::time;

const ENV: &[(&str, &str)] = &[("PLEO_WEBHOOK_SECRET", SECRET)];

const INBOX: &str = "sqlite:disk/inbox.db";

/// So much is soon full.
const LITTLE: u64 = 2 * 1024 * 1024;

/// How many deliveries are on their way at once.
const SENDERS: usize = 16;

/// Whatever goes wrong, no test waits longer.
const LONG: Duration = Duration::from_secs(60);

/// A place with a small disk in it, taken away at the end, also of a test that failed.
struct Disk(Place);

impl Disk {
    /// `None` where it can't be mounted here.
    fn mount(size: &str) -> Option<Self> {
        let place = Place::new();
        let folder = place.path().join("disk");
        fs::create_dir(&folder).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        let mounted = mount.arg(&folder).stderr(Stdio::null()).status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(place))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join("disk").join(name)
    }

    /// Fills it with something else but for a little.
    fn leave_little(&self, name: &str) {
        let mut file = File::create(self.file(name)).unwrap();
        while file.write_all(&[0; 64 * 1024]).is_ok() {}
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(LITTLE)).unwrap();
    }

    fn resize(&self, size: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,size={size}")]);
        assert!(mount.arg(self.file("")).status().unwrap().success());
    }

    fn serve(&self, forward: &str) -> Serving {
        let args = ["--inbox", INBOX, "--forward", forward];
        self.0.serve(&args, ENV)
    }

    /// Starts a server on the full disk: it says what is wrong, or serves, where the one before had
    /// nothing in hand that would have to be written now.
    fn try_to_serve(&self) {
        let args = ["serve", "--listen", "127.0.0.1:0", "--inbox", INBOX];
        let mut command = self.0.command(&args);
        let mut server = command.envs(ENV.iter().copied()).spawn().unwrap();
        let (mut stderr, mut log) = (BufReader::new(server.stderr.take().unwrap()), String::new());
        while !log.contains("listening url=") {
            if stderr.read_line(&mut log).unwrap() == 0 {
                assert_eq!(server.wait().unwrap().code(), Some(2), "{log}");
                assert!(log.contains("inbox.db: database or disk is full"), "{log}");
                return;
            }
        }
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// All of these are in the inbox, once, with the right bytes, and nothing else is.
    async fn assert_holds(&self, acknowledged: &HashSet<String>) {
        let stored = crate::support::padded::stored(&self.file("inbox.db")).await;
        let ids: HashSet<_> = stored.iter().cloned().collect();
        assert_eq!((ids.len(), &ids), (stored.len(), acknowledged));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a server that a failed test left may still be at its end.
        let _ = Command::new("umount").arg("-l").arg(self.file("")).status();
    }
}

/// Sends these at once, and gives those that were acknowledged; the others were told to come again.
async fn send_all(server: &Serving, ids: Vec<String>) -> Vec<String> {
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

/// Sends new ones until not one of them is acknowledged; gives what those last ones were.
async fn fill(server: &Serving, acknowledged: &mut HashSet<String>) -> Vec<String> {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < LONG, "the disk is never full");
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

/// Sends those that were refused, now that there is room.
async fn send_again(server: &Serving, refused: Vec<String>, acknowledged: &mut HashSet<String>) {
    let count = refused.len();
    let stored = send_all(server, refused).await;
    assert_eq!(stored.len(), count, "only {stored:?}");
    acknowledged.extend(stored);
}

async fn all_handed_on(handed: &Mutex<HashMap<String, usize>>, acknowledged: &HashSet<String>) {
    let start = Instant::now();
    loop {
        let count = handed.lock().unwrap().len();
        let all = acknowledged.len();
        if count >= all {
            return;
        }
        assert!(
            start.elapsed() < LONG,
            "only {count} of {all} were handed on"
        );
        time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_on_a_disk_that_fills_up_and_gets_room_again() {
    // Whenever there is room again, it is more than the inbox's log takes, which starts anew only when
    // it has 16 MiB.
    let Some(disk) = Disk::mount("24m") else {
        // Not by a macro, whose text is seen only where a test fails.
        let _ = writeln!(io::stderr(), "SKIPPED full_disk: no tmpfs can be mounted");
        return;
    };
    let (url, handed) = target().await;
    let server = disk.serve(&url);
    let mut acknowledged = HashSet::new();
    disk.leave_little("filler");
    let refused = fill(&server, &mut acknowledged).await;
    // Somebody makes room.
    fs::remove_file(disk.file("filler")).unwrap();
    send_again(&server, refused, &mut acknowledged).await;
    disk.assert_holds(&acknowledged).await;
    all_handed_on(&handed, &acknowledged).await;

    // It is full again; this time the disk grows.
    disk.leave_little("more");
    let refused = fill(&server, &mut acknowledged).await;
    disk.resize("48m");
    send_again(&server, refused, &mut acknowledged).await;
    disk.assert_holds(&acknowledged).await;
    all_handed_on(&handed, &acknowledged).await;

    // And it dies while the disk is full.
    disk.leave_little("most");
    let refused = fill(&server, &mut acknowledged).await;
    assert_eq!(server.stop("-KILL").0, None);
    disk.try_to_serve();
    // Room for all that is still in the log, which goes into the file at the start.
    disk.resize("96m");
    let server = disk.serve(&url);
    disk.assert_holds(&acknowledged).await;
    send_again(&server, refused, &mut acknowledged).await;
    all_handed_on(&handed, &acknowledged).await;
    assert_eq!(server.stop("-TERM").0, Some(0));
    disk.assert_holds(&acknowledged).await;
}
