//! Handlers that fail: messages stay pending with the error, and are redelivered after recovery.

use core::time::Duration;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Instant;

use crate::support::program::{ENV, RunningServer, WorkDir};
use crate::support::{Request, send_to};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Retries without delay, and any number of times.
const RETRY: &str = "[retry]\nmin_delay = \"1ms\"\nmax_delay = \"10ms\"\nmax_attempts = 1000000\n\
                     concurrency = 16\ntimeout = \"1s\"\n";

/// Failures of a command on the first attempt: message id, script, logged error.
const FAILURES: [(&str, &str, &str); 4] = [
    (
        "exits",
        "echo no such account >&2; exit 1",
        "exit status: 1: no such account",
    ),
    ("crashes", "kill -SEGV $$", "signal: 11 (SIGSEGV)"),
    (
        "hangs",
        "trap '' TERM; sleep 1000 & sleep 1000",
        "handler timed out after 1s",
    ),
    ("prints", "yes & yes >&2", "handler timed out after 1s"),
];

fn body(id: &str) -> Vec<u8> {
    format!(
        r#"{{"eventType":"v9.new","padding":"{}"}}"#,
        id.repeat(20_000)
    )
    .into()
}

async fn send(server: &RunningServer, id: &str) {
    let answer = send_to(server.address(), &Request::signed(id, &body(id))).await;
    assert_eq!(answer.status, 204, "{id}");
}

/// Waits until the inbox entry of a message matches.
async fn entry(dir: &WorkDir, id: &str, matches: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let mut entries = dir.json(&["inbox", "list", "--json"]).into_iter();
        let entry = entries.find(|entry| entry["webhook_id"] == id).unwrap();
        if matches(&entry) {
            return entry;
        }
        assert!(start.elapsed() < TIMEOUT, "{entry}");
        time::sleep(Duration::from_millis(20)).await;
    }
}

async fn done(dir: &WorkDir, id: &str) -> Value {
    entry(dir, id, |entry| entry["state"] == "done").await
}

/// Waits until the log reports a failure of each of these attempts. Returns the log lines.
fn failures(server: &mut RunningServer, attempts: &[(&str, u32)]) -> Vec<String> {
    let mut lines: HashMap<_, _> = HashMap::new();
    while !attempts.iter().all(|attempt| lines.contains_key(attempt)) {
        let line = server.wait_for_log("handler failed");
        let is_about = |(id, attempt): &&(&str, u32)| {
            line.contains(&format!("webhook_id=\"{id}\" "))
                && line.contains(&format!(" attempt={attempt} "))
        };
        if let Some(attempt) = attempts.iter().find(is_about) {
            lines.insert(attempt, line);
        }
    }
    attempts
        .iter()
        .filter_map(|attempt| lines.remove(attempt))
        .collect()
}

/// Writes an executable script.
fn write_script(dir: &WorkDir, name: &str, script: &str) {
    dir.write(name, &format!("#!/usr/bin/env bash\n{script}\n"));
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(dir.path().join(name), mode).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_command_that_exits_crashes_hangs_or_prints_endlessly() {
    // Each process that a command starts holds the connection, which closes when the last one exits.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let cases = FAILURES.map(|(id, script, _)| format!("{id}) {script} ;;"));
    let first = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; case $PLEO_WEBHOOK_ID in");
    let dir = WorkDir::new();
    write_script(
        &dir,
        "handler",
        &format!(
            "if [ $PLEO_ATTEMPT = 1 ]; then\n{first}\n{}\nesac\nfi\ncat > $PLEO_WEBHOOK_ID",
            cases.join("\n")
        ),
    );
    dir.write("pleo.toml", &format!("exec = [\"./handler\"]\n{RETRY}"));
    let mut server = dir.serve(&["--config", "pleo.toml"], ENV);
    #[cfg(target_os = "linux")]
    let before = server.memory_kib("VmHWM");
    let mut connections = Vec::new();
    for (id, ..) in FAILURES {
        send(&server, id).await;
        let accepted = time::timeout(TIMEOUT, listener.accept()).await.unwrap();
        connections.push(accepted.unwrap().0);
    }
    let attempts = FAILURES.map(|(id, ..)| (id, 1));
    let lines = failures(&mut server, &attempts);
    for ((.., error), line) in FAILURES.iter().zip(lines) {
        assert!(line.contains(error), "{error:?} is not in {line}");
    }
    for connection in &mut connections {
        let read = time::timeout(TIMEOUT, connection.read(&mut [0])).await;
        assert_eq!(read.expect("a process still runs").unwrap_or(0), 0);
    }
    // Only the end of endless output is kept in memory.
    #[cfg(target_os = "linux")]
    {
        let after = server.memory_kib("VmHWM");
        assert!(
            after < before + 16 * 1024,
            "from {before} to {after} kilobytes"
        );
    }
    for (id, ..) in FAILURES {
        let entry = done(&dir, id).await;
        assert!(entry["attempts"].as_u64() >= Some(2), "{entry}");
        assert!(fs::read(dir.path().join(id)).unwrap() == body(id), "{id}");
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_missing_command_until_it_exists() {
    let dir = WorkDir::new();
    // A link changes atomically. Executing a file just written may fail with ETXTBSY.
    write_script(&dir, "release", "cat > $PLEO_WEBHOOK_ID");
    let link = dir.path().join("handler");
    symlink("release", &link).unwrap();
    dir.write("pleo.toml", &format!("exec = [\"./handler\"]\n{RETRY}"));
    let mut server = dir.serve(&["--config", "pleo.toml"], ENV);
    send(&server, "before").await;
    assert_eq!(done(&dir, "before").await["attempts"], 1);

    fs::remove_file(&link).unwrap();
    send(&server, "missing").await;
    for line in failures(&mut server, &[("missing", 1), ("missing", 3)]) {
        let reason = "cannot run \"./handler\": No such file or directory";
        assert!(line.replace('\\', "").contains(reason), "{line}");
    }
    let entry = entry(&dir, "missing", |entry| {
        entry["attempts"].as_u64() >= Some(3)
    })
    .await;
    assert_eq!(entry["state"], "pending", "{entry}");
    symlink("release", &link).unwrap();
    let entry = done(&dir, "missing").await;
    assert!(entry["attempts"].as_u64() >= Some(4), "{entry}");
    for id in ["before", "missing"] {
        assert!(fs::read(dir.path().join(id)).unwrap() == body(id), "{id}");
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

/// Reads a request and writes a response. Returns the request.
async fn respond(stream: &mut TcpStream, response: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"}") {
        // The client may have closed the connection.
        if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            return bytes;
        }
    }
    let _ = stream.write_all(response.as_bytes()).await;
    bytes
}

/// The behavior of a target after its response.
enum AfterResponse {
    Closes,
    Hangs,
    WritesOn,
}

/// The time limit of an attempt. Both the HTTP client and the dispatcher report it.
const TIME_LIMIT: &str = "1s";

/// Failures of a target by attempt: response, behavior, logged error.
const RESPONSES: [(&str, AfterResponse, &str); 6] = [
    (
        "",
        AfterResponse::Closes,
        "connection closed before message completed",
    ),
    ("", AfterResponse::Hangs, TIME_LIMIT),
    (
        "HTTP/1.1 200 OK\r\ncontent",
        AfterResponse::Hangs,
        TIME_LIMIT,
    ),
    (
        "SSH-2.0-OpenSSH_9.6\r\n",
        AfterResponse::Closes,
        "invalid HTTP version parsed",
    ),
    (
        "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n",
        AfterResponse::Closes,
        "answered 500",
    ),
    (
        "HTTP/1.1 500 Oops\r\n\r\n",
        AfterResponse::WritesOn,
        "answered 500",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_failing_forward_target_until_it_recovers() {
    let dir = WorkDir::new();
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = target.local_addr().unwrap();
    dir.write(
        "pleo.toml",
        &format!("forward = \"http://{address}/\"\n{RETRY}"),
    );
    let mut server = dir.serve(&["--config", "pleo.toml"], ENV);
    send(&server, "msg_1").await;
    let mut hanging = Vec::new();
    for (attempt, (text, behavior, error)) in (1..).zip(RESPONSES) {
        let (mut stream, _) = time::timeout(TIMEOUT, target.accept())
            .await
            .unwrap()
            .unwrap();
        respond(&mut stream, text).await;
        match behavior {
            AfterResponse::Closes => drop(stream),
            AfterResponse::Hangs => hanging.push(stream),
            // Writes until the client closes the connection.
            AfterResponse::WritesOn => while stream.write_all(&[b'x'; 4096]).await.is_ok() {},
        }
        let lines = failures(&mut server, &[("msg_1", attempt)]);
        assert!(lines[0].contains(error), "{error:?} is not in {lines:?}");
    }
    // The target stops.
    drop(target);
    send(&server, "msg_2").await;
    for line in failures(&mut server, &[("msg_2", 1), ("msg_2", 3)]) {
        assert!(
            line.contains("connection refused; is the server running?"),
            "{line}"
        );
    }
    for (id, least) in [("msg_1", 7), ("msg_2", 3)] {
        let entry = entry(&dir, id, |entry| entry["attempts"].as_u64() >= Some(least)).await;
        assert_eq!(entry["state"], "pending", "{entry}");
    }
    // The target runs again.
    let target = TcpListener::bind(address).await.unwrap();
    let recovered = tokio::spawn(async move {
        let mut requests = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = target.accept().await.unwrap();
            let text = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            requests.push(respond(&mut stream, text).await);
        }
        requests
    });
    let requests = time::timeout(TIMEOUT, recovered).await.unwrap().unwrap();
    for (id, least) in [("msg_1", 8), ("msg_2", 4)] {
        let entry = done(&dir, id).await;
        assert!(entry["attempts"].as_u64() >= Some(least), "{entry}");
        let received = requests
            .iter()
            .filter(|request| request.ends_with(&body(id)));
        assert_eq!(received.count(), 1, "{id}");
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}
