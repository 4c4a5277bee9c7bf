//! Tests of the log lines of actions.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::client::{Client, TOKEN, serve};
use crate::support::program::WorkDir;

/// Locks the inbox: the receiver waits before it changes something.
fn lock(dir: &WorkDir) -> Connection {
    let file = Connection::open(dir.path().join("pleo-inbox.db")).unwrap();
    file.execute_batch("PRAGMA busy_timeout = 60000; BEGIN IMMEDIATE")
        .unwrap();
    file
}

/// Returns `true` once an endpoint is paused; `false` if none is for a second.
fn is_paused(dir: &WorkDir) -> bool {
    let file = Connection::open(dir.path().join("pleo-inbox.db")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(1);
    while Instant::now() < deadline {
        let count = file.query_row("SELECT count(*) FROM paused", [], |row| row.get(0));
        if count.unwrap_or(0) > 0 {
            return true;
        }
    }
    false
}

#[test]
fn logs_action_whose_browser_left() {
    let dir = WorkDir::new();
    let mut server = serve(&dir, "");
    let client = Client::signed_in(&server, TOKEN);
    let fields = [("token", &*client.token), ("endpoint", "/webhooks/pleo")];
    // The receiver may notice that the client left before it reads the last byte.
    loop {
        let locked = lock(&dir);
        let pause = client.begin("/pause", &fields);
        pause.finish_and_leave(Duration::from_millis(200));
        drop(locked);
        if is_paused(&dir) {
            break;
        }
    }
    let line = server.wait_for_log("endpoint paused by admin");
    assert!(line.contains("account=\"admin_token\""), "{line}");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn logs_outcome_after_browser_was_told_to_wait() {
    let dir = WorkDir::new();
    let mut server = serve(&dir, "");
    let client = Client::signed_in(&server, TOKEN);
    let locked = lock(&dir);
    let answer = client.post("/pause", &[("endpoint", "/webhooks/pleo")]);
    assert_eq!(answer.status, 503, "{answer:?}");
    drop(locked);
    let line = server.wait_for_log("by admin");
    assert!(
        line.contains("endpoint paused by admin") || line.contains("action by admin failed"),
        "{line}"
    );
    assert_eq!(line.contains("paused"), is_paused(&dir), "{line}");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn says_why_message_is_not_replayed() {
    let dir = WorkDir::new();
    let mut server = serve(
        &dir,
        "exec = [\"sh\", \"-c\", \"until test -e go; do sleep 0.05; done\"]\n",
    );
    let sent = dir.send(&server.url, &["--id", "msg_1"]);
    assert!(sent.stdout.starts_with("204"));
    let client = Client::signed_in(&server, TOKEN);
    let endpoint = ("endpoint", "/webhooks/pleo");
    client.wait_for("/message?endpoint=/webhooks/pleo&id=msg_1", "in progress");
    let leased = client.post("/replay", &[endpoint, ("id", "msg_1")]);
    assert!(leased.redirect().ends_with("done=leased"), "{leased:?}");
    let line = server.wait_for_log("message not replayed by admin");
    assert!(line.contains("reason=\"leased\""), "{line}");
    let missing = client.post("/replay", &[endpoint, ("id", "msg_2")]);
    assert_eq!(missing.status, 404, "{missing:?}");
    let line = server.wait_for_log("message not replayed by admin");
    assert!(line.contains("reason=\"missing\""), "{line}");
    dir.write("go", "");
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    assert!(!log.contains("message replayed"), "{log}");
}
