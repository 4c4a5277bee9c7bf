//! Handlers of the real program that fail in every way there is: what was acknowledged stays pending
//! with the reason, and is handed on when they are well again.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

use core::time::Duration;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Instant;

use crate::support::program::{Place, SECRET, Serving};
use crate::support::{Request, send_to};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time;

const ENV: &[(&str, &str)] = &[("PLEO_WEBHOOK_SECRET", SECRET)];

/// Whatever goes wrong, no test waits longer.
const LONG: Duration = Duration::from_secs(60);

/// How often a message comes is not what is tested here.
const RETRY: &str = "[retry]\nmin_delay = \"1ms\"\nmax_delay = \"10ms\"\nmax_attempts = 1000000\n\
                     concurrency = 16\ntimeout = \"2s\"\n";

/// What a command does on its first attempt, by the message's name, and what is said of it.
const WAYS: [(&str, &str, &str); 4] = [
    (
        "exits",
        "echo no such account >&2; exit 1",
        "exit status: 1: no such account",
    ),
    ("crashes", "kill -SEGV $$", "signal: 11 (SIGSEGV)"),
    (
        "hangs",
        "trap '' TERM; sleep 1000 & sleep 1000",
        "handler timed out after 2s",
    ),
    ("prints", "yes & yes >&2", "handler timed out after 2s"),
];

fn body(id: &str) -> Vec<u8> {
    format!(
        r#"{{"eventType":"v9.new","padding":"{}"}}"#,
        id.repeat(20_000)
    )
    .into()
}

async fn send(server: &Serving, id: &str) {
    let answer = send_to(server.address(), &Request::signed(id, &body(id))).await;
    assert_eq!(answer.status, 204, "{id}");
}

/// Waits until the inbox says something of a message.
async fn entry(place: &Place, id: &str, says: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let mut entries = place.json(&["inbox", "list", "--json"]).into_iter();
        let entry = entries.find(|entry| entry["webhook_id"] == id).unwrap();
        if says(&entry) {
            return entry;
        }
        assert!(start.elapsed() < LONG, "{entry}");
        time::sleep(Duration::from_millis(20)).await;
    }
}

async fn done(place: &Place, id: &str) -> Value {
    entry(place, id, |entry| entry["state"] == "done").await
}

/// Waits until it logs that each of these attempts failed, and gives what it says of them.
fn failures(server: &mut Serving, attempts: &[(&str, u32)]) -> Vec<String> {
    let mut lines: HashMap<_, _> = HashMap::new();
    while !attempts.iter().all(|attempt| lines.contains_key(attempt)) {
        let line = server.wait_for("handler failed");
        let said = |(id, attempt): &&(&str, u32)| {
            line.contains(&format!("webhook_id=\"{id}\" attempt={attempt} "))
        };
        if let Some(attempt) = attempts.iter().find(said) {
            lines.insert(attempt, line);
        }
    }
    attempts
        .iter()
        .filter_map(|attempt| lines.remove(attempt))
        .collect()
}

/// Writes a command.
fn command(place: &Place, name: &str, script: &str) {
    place.write(name, &format!("#!/usr/bin/env bash\n{script}\n"));
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(place.path().join(name), mode).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_fails_in_every_way_gets_it_again() {
    // All that a command starts holds its connection, which closes when the last of them is gone.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let cases = WAYS.map(|(id, script, _)| format!("{id}) {script} ;;"));
    let first = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; case $PLEO_WEBHOOK_ID in");
    let place = Place::new();
    command(
        &place,
        "handler",
        &format!(
            "if [ $PLEO_ATTEMPT = 1 ]; then\n{first}\n{}\nesac\nfi\ncat > $PLEO_WEBHOOK_ID",
            cases.join("\n")
        ),
    );
    place.write("pleo.toml", &format!("exec = [\"./handler\"]\n{RETRY}"));
    let mut server = place.serve(&["--config", "pleo.toml"], ENV);
    #[cfg(target_os = "linux")]
    let before = server.memory("VmHWM");
    let mut held = Vec::new();
    for (id, ..) in WAYS {
        send(&server, id).await;
        let accepted = time::timeout(LONG, listener.accept()).await.unwrap();
        held.push(accepted.unwrap().0);
    }
    let attempts = WAYS.map(|(id, ..)| (id, 1));
    let lines = failures(&mut server, &attempts);
    for ((.., said), line) in WAYS.iter().zip(lines) {
        assert!(line.contains(said), "{said:?} is not in {line}");
    }
    for held in &mut held {
        let read = time::timeout(LONG, held.read(&mut [0])).await;
        assert_eq!(read.expect("a process is still there").unwrap_or(0), 0);
    }
    // Of what was printed without end, only the end was kept.
    #[cfg(target_os = "linux")]
    {
        let after = server.memory("VmHWM");
        assert!(
            after < before + 16 * 1024,
            "from {before} to {after} kilobytes"
        );
    }
    for (id, ..) in WAYS {
        let entry = done(&place, id).await;
        assert!(entry["attempts"].as_u64() >= Some(2), "{entry}");
        assert!(fs::read(place.path().join(id)).unwrap() == body(id), "{id}");
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_missing_for_a_while_gets_it_when_it_is_back() {
    let place = Place::new();
    // A link comes and goes at once, and a file that was just written may be too busy to be run.
    command(&place, "release", "cat > $PLEO_WEBHOOK_ID");
    let link = place.path().join("handler");
    symlink("release", &link).unwrap();
    place.write("pleo.toml", &format!("exec = [\"./handler\"]\n{RETRY}"));
    let mut server = place.serve(&["--config", "pleo.toml"], ENV);
    send(&server, "before").await;
    assert_eq!(done(&place, "before").await["attempts"], 1);

    fs::remove_file(&link).unwrap();
    send(&server, "meanwhile").await;
    for line in failures(&mut server, &[("meanwhile", 1), ("meanwhile", 3)]) {
        let reason = "cannot run \"./handler\": No such file or directory";
        assert!(line.replace('\\', "").contains(reason), "{line}");
    }
    let entry = entry(&place, "meanwhile", |entry| {
        entry["attempts"].as_u64() >= Some(3)
    })
    .await;
    assert_eq!(entry["state"], "pending", "{entry}");
    symlink("release", &link).unwrap();
    let entry = done(&place, "meanwhile").await;
    assert!(entry["attempts"].as_u64() >= Some(4), "{entry}");
    for id in ["before", "meanwhile"] {
        assert!(fs::read(place.path().join(id)).unwrap() == body(id), "{id}");
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

/// Reads a request to the end of its body, and answers it.
async fn answer(stream: &mut TcpStream, answer: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"}") {
        // The client may be gone.
        if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            return bytes;
        }
    }
    let _ = stream.write_all(answer.as_bytes()).await;
    bytes
}

/// What a target does after it answered.
enum Then {
    Closes,
    Hangs,
    WritesOn,
}

/// The client and whoever waits for it have one limit: either may be the first to say so.
const TOO_LONG: &str = "2s";

/// What a target does on one attempt after the other, and what is said of it.
const ANSWERS: [(&str, Then, &str); 6] = [
    (
        "",
        Then::Closes,
        "connection closed before message completed",
    ),
    ("", Then::Hangs, TOO_LONG),
    ("HTTP/1.1 200 OK\r\ncontent", Then::Hangs, TOO_LONG),
    (
        "SSH-2.0-OpenSSH_9.6\r\n",
        Then::Closes,
        "invalid HTTP version parsed",
    ),
    (
        "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n",
        Then::Closes,
        "answered 500",
    ),
    ("HTTP/1.1 500 Oops\r\n\r\n", Then::WritesOn, "answered 500"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_fails_in_every_way_gets_it_when_it_is_well_again() {
    let place = Place::new();
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = target.local_addr().unwrap();
    place.write(
        "pleo.toml",
        &format!("forward = \"http://{address}/\"\n{RETRY}"),
    );
    let mut server = place.serve(&["--config", "pleo.toml"], ENV);
    send(&server, "msg_1").await;
    let mut hanging = Vec::new();
    for (number, (text, then, said)) in (1..).zip(ANSWERS) {
        let (mut stream, _) = time::timeout(LONG, target.accept()).await.unwrap().unwrap();
        answer(&mut stream, text).await;
        match then {
            Then::Closes => drop(stream),
            Then::Hangs => hanging.push(stream),
            // Until nobody reads it any more.
            Then::WritesOn => while stream.write_all(&[b'x'; 4096]).await.is_ok() {},
        }
        let lines = failures(&mut server, &[("msg_1", number)]);
        assert!(lines[0].contains(said), "{said:?} is not in {lines:?}");
    }
    // It goes away.
    drop(target);
    send(&server, "msg_2").await;
    for line in failures(&mut server, &[("msg_2", 1), ("msg_2", 3)]) {
        assert!(line.contains("Connection refused"), "{line}");
    }
    for (id, least) in [("msg_1", 7), ("msg_2", 3)] {
        let entry = entry(&place, id, |entry| {
            entry["attempts"].as_u64() >= Some(least)
        })
        .await;
        assert_eq!(entry["state"], "pending", "{entry}");
    }
    // It is back, and well.
    let target = TcpListener::bind(address).await.unwrap();
    let well = tokio::spawn(async move {
        let mut requests = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = target.accept().await.unwrap();
            let text = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            requests.push(answer(&mut stream, text).await);
        }
        requests
    });
    let requests = time::timeout(LONG, well).await.unwrap().unwrap();
    for (id, least) in [("msg_1", 8), ("msg_2", 4)] {
        let entry = done(&place, id).await;
        assert!(entry["attempts"].as_u64() >= Some(least), "{entry}");
        let came = requests
            .iter()
            .filter(|request| request.ends_with(&body(id)));
        assert_eq!(came.count(), 1, "{id}");
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}
