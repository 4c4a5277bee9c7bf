//! Failures of the inbox: the server acknowledges nothing that it did not store, and recovers without
//! a restart.

use core::time::Duration;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};
use std::thread;
use std::time::Instant;

use crate::support::program::{ENV, RunningServer, WorkDir};
use crate::support::{Answer, Request};
use rusqlite::Connection;

const TIMEOUT: Duration = Duration::from_secs(20);

/// A body with this much padding.
fn body(length: usize) -> Vec<u8> {
    format!(
        r#"{{"eventType":"v9.new","padding":"{}"}}"#,
        "x".repeat(length)
    )
    .into()
}

async fn send(server: &RunningServer, id: &str, length: usize) -> Answer {
    send_to(server.address(), id, length).await
}

async fn send_to(address: &str, id: &str, length: usize) -> Answer {
    crate::support::send_to(address, &Request::signed(id, &body(length))).await
}

fn stored(dir: &WorkDir) -> Vec<String> {
    let entries = dir.json(&["inbox", "list", "--json"]);
    let ids = entries
        .iter()
        .map(|entry| entry["webhook_id"].as_str().unwrap().to_owned());
    ids.collect()
}

/// A server started by a shell. Killed on drop.
struct ShellServer(Child);

impl Drop for ShellServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server from a shell, after a shell command. Returns it and its address.
fn serve_after(dir: &WorkDir, setup: &str) -> (ShellServer, String) {
    let script = format!("{setup}; exec \"$0\" serve --listen 127.0.0.1:0 2>log");
    let mut command = Command::new("sh");
    command
        .args(["-c", &script, env!("CARGO_BIN_EXE_pleo-receiver")])
        .current_dir(dir.path())
        .env("PLEO_LOG_FORMAT", "text")
        .envs(ENV.iter().copied());
    let server = ShellServer(command.spawn().unwrap());
    let (log, start) = (dir.path().join("log"), Instant::now());
    loop {
        let text = fs::read_to_string(&log).unwrap_or_default();
        if let Some((_, rest)) = text.split_once("listening url=\"http://")
            && let Some((address, _)) = rest.split_once('/')
        {
            return (server, address.to_owned());
        }
        assert!(
            start.elapsed() < TIMEOUT,
            "the server does not listen: {text}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

/// Limits the size of the server's files. Writes beyond the limit fail, as on a full disk.
fn limit_file_size(server: &ShellServer, bytes: &str) {
    let pid = server.0.id().to_string();
    let limit = format!("--fsize={bytes}:");
    let limited = Command::new("prlimit")
        .args(["--pid", &pid, &limit])
        .status();
    assert!(limited.unwrap().success());
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_503_while_file_size_limit_is_reached() {
    let dir = WorkDir::new();
    // A write beyond the limit returns an error only if SIGXFSZ is ignored.
    let (server, address) = serve_after(&dir, "trap '' XFSZ");
    let mut acknowledged = Vec::new();
    assert_eq!(send_to(&address, "msg_before", 10).await.status, 204);
    acknowledged.push("msg_before".to_owned());
    limit_file_size(&server, "200000");
    let mut rejected = 0;
    for number in 0..100 {
        let id = format!("msg_{number}");
        let answer = send_to(&address, &id, 20_000).await;
        if answer.status == 204 {
            acknowledged.push(id);
        } else {
            answer.assert_inbox_failed();
            rejected += 1;
        }
    }
    assert!(rejected > 50, "the limit was never reached");
    limit_file_size(&server, "unlimited");
    assert_eq!(send_to(&address, "msg_after", 20_000).await.status, 204);
    acknowledged.push("msg_after".to_owned());
    assert_eq!(stored(&dir), acknowledged);
    drop(server);
    assert_eq!(stored(&dir), acknowledged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_503_while_another_process_locks_inbox() {
    let dir = WorkDir::new();
    let server = dir.serve(&[], ENV);
    assert_eq!(send(&server, "msg_1", 10).await.status, 204);
    let other = Connection::open(dir.path().join("pleo-inbox.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    send(&server, "msg_2", 10).await.assert_inbox_failed();
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(send(&server, "msg_3", 10).await.status, 204);
    assert_eq!(stored(&dir), ["msg_1", "msg_3"]);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_503_while_inbox_file_is_missing_or_replaced() {
    let dir = WorkDir::new();
    let mut server = dir.serve(&[], ENV);
    assert_eq!(send(&server, "msg_1", 10).await.status, 204);
    for (name, id) in [("pleo-inbox.db", "msg_2"), ("pleo-inbox.db-wal", "msg_3")] {
        let (file, away) = (dir.path().join(name), dir.path().join("away"));
        fs::rename(&file, &away).unwrap();
        send(&server, id, 10).await.assert_inbox_failed();
        server.wait_for_log(&format!("{name}` was removed or replaced"));
        // A copy of the file does not help.
        fs::copy(&away, &file).unwrap();
        send(&server, id, 10).await.assert_inbox_failed();
        fs::rename(&away, &file).unwrap();
        assert_eq!(send(&server, id, 10).await.status, 204);
    }
    let acknowledged = ["msg_1", "msg_2", "msg_3"];
    assert_eq!(stored(&dir), acknowledged);
    assert_eq!(server.stop("-TERM").0, Some(0));
    assert_eq!(stored(&dir), acknowledged);
}

#[test]
fn refuses_to_start_with_read_only_inbox() {
    let dir = WorkDir::new();
    assert_eq!(dir.serve(&[], ENV).stop("-TERM").0, Some(0));
    let file = dir.path().join("pleo-inbox.db");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
    // Root can write everywhere: the check is skipped then.
    if fs::OpenOptions::new().write(true).open(&file).is_ok() {
        return;
    }
    let output = dir.run_with(&["serve"], ENV, b"");
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("pleo-inbox.db"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creates_owner_only_inbox_with_any_umask() {
    let dir = WorkDir::new();
    let (server, address) = serve_after(&dir, "umask 000");
    assert_eq!(send_to(&address, "msg_1", 1).await.status, 204);
    for name in ["", "-wal", "-shm", ".lock"] {
        let file = dir.path().join(format!("pleo-inbox.db{name}"));
        let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file:?}");
    }
    drop(server);
}
