//! The real program while something around it is broken: nothing is answered 2xx that isn't stored,
//! and it recovers by itself when the cause goes away.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

use core::time::Duration;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crate::support::program::{Place, SECRET, Serving};
use crate::support::{Answer, Request};
use rusqlite::Connection;
use tokio::time;

/// Whatever goes wrong, no test waits longer.
const LONG: Duration = Duration::from_secs(20);

const ENV: &[(&str, &str)] = &[("PLEO_WEBHOOK_SECRET", SECRET)];

/// Longer than a page of the file.
fn body(length: usize) -> Vec<u8> {
    format!(
        r#"{{"eventType":"v9.new","padding":"{}"}}"#,
        "x".repeat(length)
    )
    .into()
}

async fn send(server: &Serving, id: &str, length: usize) -> Answer {
    send_to(server.address(), id, length).await
}

async fn send_to(address: &str, id: &str, length: usize) -> Answer {
    crate::support::send_to(address, &Request::signed(id, &body(length))).await
}

fn stored(place: &Place) -> Vec<String> {
    let entries = place.json(&["inbox", "list", "--json"]);
    let ids = entries
        .iter()
        .map(|entry| entry["webhook_id"].as_str().unwrap().to_owned());
    ids.collect()
}

/// A server that a shell started.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server after something that only a shell can say, and gives where it listens.
fn serve_after(place: &Place, words: &str) -> (Started, String) {
    let script = format!("{words}; exec \"$0\" serve --listen 127.0.0.1:0 2>log");
    let mut command = Command::new("sh");
    command
        .args(["-c", &script, env!("CARGO_BIN_EXE_pleo-receiver")])
        .current_dir(place.path())
        .envs(ENV.iter().copied());
    let server = Started(command.spawn().unwrap());
    let (log, start) = (place.path().join("log"), Instant::now());
    loop {
        let text = fs::read_to_string(&log).unwrap_or_default();
        if let Some((_, rest)) = text.split_once("listening on http://")
            && let Some((address, _)) = rest.split_once('/')
        {
            return (server, address.to_owned());
        }
        assert!(start.elapsed() < LONG, "it does not listen: {text}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Sets the size that a file of the process may have, which is a disk that is full then.
fn limit_file_size(server: &Started, bytes: &str) {
    let pid = server.0.id().to_string();
    let limit = format!("--fsize={bytes}:");
    let limited = Command::new("prlimit")
        .args(["--pid", &pid, &limit])
        .status();
    assert!(limited.unwrap().success());
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_answered_503_until_there_is_space_again() {
    let place = Place::new();
    // Beyond its limit, a process gets an error only where it ignores the signal that comes too.
    let (server, address) = serve_after(&place, "trap '' XFSZ");
    let mut acknowledged = Vec::new();
    assert_eq!(send_to(&address, "msg_before", 10).await.status, 204);
    acknowledged.push("msg_before".to_owned());
    limit_file_size(&server, "200000");
    let mut refused = 0;
    for number in 0..100 {
        let id = format!("msg_{number}");
        let answer = send_to(&address, &id, 20_000).await;
        if answer.status == 204 {
            acknowledged.push(id);
        } else {
            answer.assert_inbox_failed();
            refused += 1;
        }
    }
    assert!(refused > 50, "the disk was never full");
    limit_file_size(&server, "unlimited");
    assert_eq!(send_to(&address, "msg_after", 20_000).await.status, 204);
    acknowledged.push("msg_after".to_owned());
    assert_eq!(stored(&place), acknowledged);
    drop(server);
    assert_eq!(stored(&place), acknowledged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbox_that_another_process_locks_is_answered_503_until_it_is_free() {
    let place = Place::new();
    let server = place.serve(&[], ENV);
    assert_eq!(send(&server, "msg_1", 10).await.status, 204);
    let other = Connection::open(place.path().join("pleo-inbox.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    send(&server, "msg_2", 10).await.assert_inbox_failed();
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(send(&server, "msg_3", 10).await.status, 204);
    assert_eq!(stored(&place), ["msg_1", "msg_3"]);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbox_whose_file_is_taken_away_is_answered_503_until_it_is_back() {
    let place = Place::new();
    let mut server = place.serve(&[], ENV);
    assert_eq!(send(&server, "msg_1", 10).await.status, 204);
    for (name, id) in [("pleo-inbox.db", "msg_2"), ("pleo-inbox.db-wal", "msg_3")] {
        let (file, away) = (place.path().join(name), place.path().join("away"));
        fs::rename(&file, &away).unwrap();
        send(&server, id, 10).await.assert_inbox_failed();
        server.wait_for(&format!("{name}` was removed or replaced"));
        // Another one in its place is no better.
        fs::copy(&away, &file).unwrap();
        send(&server, id, 10).await.assert_inbox_failed();
        fs::rename(&away, &file).unwrap();
        assert_eq!(send(&server, id, 10).await.status, 204);
    }
    let acknowledged = ["msg_1", "msg_2", "msg_3"];
    assert_eq!(stored(&place), acknowledged);
    assert_eq!(server.stop("-TERM").0, Some(0));
    assert_eq!(stored(&place), acknowledged);
}

#[test]
fn an_inbox_that_cannot_be_written_is_named_at_the_start() {
    let place = Place::new();
    assert_eq!(place.serve(&[], ENV).stop("-TERM").0, Some(0));
    let file = place.path().join("pleo-inbox.db");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
    // The superuser may write everywhere.
    if fs::OpenOptions::new().write(true).open(&file).is_ok() {
        return;
    }
    let ended = place.run_with(&["serve"], ENV, b"");
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("pleo-inbox.db"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_owner_reads_the_inbox_whatever_the_umask() {
    let place = Place::new();
    let (server, address) = serve_after(&place, "umask 000");
    assert_eq!(send_to(&address, "msg_1", 1).await.status, 204);
    for name in ["", "-wal", "-shm", ".lock"] {
        let file = place.path().join(format!("pleo-inbox.db{name}"));
        let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file:?}");
    }
    drop(server);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_come_and_go_leave_nothing_behind() {
    let place = Place::new();
    let server = place.serve(&[], ENV);
    // The first answer opens what stays open.
    assert_eq!(send(&server, "msg_0", 10).await.status, 204);
    let mut sizes = Vec::new();
    let mut files = Vec::new();
    for _ in 0..8 {
        let left = Arc::new(AtomicUsize::new(1000));
        let lanes = (0..16).map(|lane| {
            let (left, address) = (Arc::clone(&left), server.address().to_owned());
            tokio::spawn(async move {
                let take = |left: usize| left.checked_sub(1);
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                    .is_ok()
                {
                    // Messages that are known, so that the inbox doesn't grow.
                    let answer = send_to(&address, &format!("msg_{lane}"), 10).await;
                    assert_eq!(answer.status, 204);
                }
            })
        });
        for lane in lanes.collect::<Vec<_>>() {
            lane.await.unwrap();
        }
        // The last ones close a moment later than their clients.
        let start = Instant::now();
        let mut open = server.files();
        while files.first().is_some_and(|first| open > *first) {
            assert!(start.elapsed() < LONG, "{open} files stay open: {files:?}");
            time::sleep(Duration::from_millis(20)).await;
            open = server.files();
        }
        if files.is_empty() {
            // Whatever the first round left, those after it must leave no more.
            time::sleep(Duration::from_millis(200)).await;
            open = server.files();
        }
        files.push(open);
        sizes.push(server.memory("VmRSS"));
    }
    let (first, last) = (sizes[1], sizes[sizes.len() - 1]);
    assert!(last < first + 2048, "kilobytes after each round: {sizes:?}");
    assert_eq!(server.stop("-TERM").0, Some(0));
}
