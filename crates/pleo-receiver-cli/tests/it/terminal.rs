//! Tests that nothing from a message steers a terminal.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::support::program::{ENV, WorkDir};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Clears the screen, sets its title, turns text around, hides text and begins lines.
const HOSTILE: &str = "\x1b[2J\x1b]0;title\x07\u{9b}2J\u{9d}0;t\u{9c}\x7f\r\u{202e}\u{2066}\u{200f}\
    \u{61c}\u{200b}\u{2028}\u{2029}\u{ad}\u{feff}\u{e0041}\u{3164}\u{115f}";

/// Asserts that an output has the word, and no character that steers a terminal.
fn assert_harmless(output: &str, word: &str) {
    assert!(output.contains(word), "{output:?}");
    let steers = |letter: char| {
        (letter.is_control() && letter != '\n')
            || HOSTILE.contains(letter) && !letter.is_ascii_graphic()
    };
    let found = output.chars().find(|letter| steers(*letter));
    assert_eq!(found, None, "{output:?}");
}

#[test]
fn escapes_every_field_of_hostile_message() {
    let dir = WorkDir::new();
    assert_eq!(dir.serve(&[], ENV).stop("-TERM").0, Some(0));
    let file = Connection::open(dir.path().join("pleo-inbox.db")).unwrap();
    // An authentic id has no such characters; another program may write them.
    file.execute(
        "INSERT INTO message (sequence, endpoint, webhook_id, event_type, event_id, resource_id,
                              origin, received_at, source, state, attempts, last_error)
         VALUES (1, 'field' || ?1, 'field' || ?1, 'field' || ?1, 'field' || ?1, 'field' || ?1,
                 'webhook', 0, 'field' || ?1, 'dead', 1, 'field' || ?1)",
        [HOSTILE],
    )
    .unwrap();
    // The server counts the messages that it stores.
    file.execute(
        "INSERT INTO endpoint_stats VALUES ('field' || ?1, 0, 0, 0, 1, NULL)",
        [HOSTILE],
    )
    .unwrap();
    let headers = format!("webhook-id: field{HOSTILE}\n").replace(['\r', '\u{2028}'], "");
    file.execute(
        "INSERT INTO body VALUES (1, CAST('field' || ?1 AS BLOB), ?2)",
        [HOSTILE, &headers],
    )
    .unwrap();
    file.execute(
        "INSERT INTO attempt VALUES (1, 1, 1, 'field' || ?1, 0, 1, 'dead', 'field' || ?1)",
        [HOSTILE],
    )
    .unwrap();
    let id = format!("field{HOSTILE}");
    for command in [
        &["list"][..],
        &["tail"],
        &["show", &id],
        &["verify", &id],
        &["stats"],
        &["pause", &id],
        &["replay", &id],
    ] {
        for json in [false, true] {
            let mut args = [&["inbox"], command].concat();
            args.extend(json.then_some("--json"));
            let output = dir.run_with(&args, ENV, b"");
            let word = if command[0] == "replay" {
                "replayed"
            } else {
                "field"
            };
            assert_harmless(&output.stdout, word);
            assert_harmless(&output.stderr, "");
            if json {
                let line = output.stdout.lines().next().unwrap();
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                let id = match command[0] {
                    "stats" => &value["endpoints"][0]["endpoint"],
                    "pause" => &value["endpoint"],
                    "replay" => continue,
                    _ => &value["webhook_id"],
                };
                assert_eq!(*id, format!("field{HOSTILE}"), "{output:?}");
            }
        }
    }
    file.execute("DELETE FROM body", []).unwrap();
    let check = dir.run(&["inbox", "check"]);
    assert_eq!(check.code, 1);
    assert_harmless(&check.stdout, "field");
    let missing = dir.run(&["inbox", "show", "field\u{9b}2J"]);
    assert_harmless(&missing.stderr, "field");
    let missing = dir.run(&["inbox", "show", "field\u{9b}2J", "--log-format", "json"]);
    assert_harmless(&missing.stderr, "field");
    let error: serde_json::Value = serde_json::from_str(&missing.stderr).unwrap();
    assert_eq!(error["level"], "ERROR");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("field\u{9b}2J"), "{message}");
}

#[test]
fn escapes_hostile_body_and_error_in_log() {
    for format in ["text", "json"] {
        let log = log_of_hostile_message(format);
        assert_harmless(&log, "field");
        if format == "json" {
            for line in log.lines() {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                assert!(value["message"].is_string(), "{line}");
            }
            assert!(log.contains("\\u202e"), "{log}");
        }
    }
}

/// Returns the log of a server whose handler prints a hostile body and fails.
fn log_of_hostile_message(format: &str) -> String {
    let dir = WorkDir::new();
    dir.write("pleo.toml", "[retry]\nmax_attempts = 1\n");
    let body = format!(
        "{{\"eventType\":\"field{HOSTILE}\",\"data\":{{\"id\":\"field{HOSTILE}\",\"name\":\"{HOSTILE}\"}}}}"
    );
    dir.write("body", &body.replace(['\x1b', '\x07', '\r'], ""));
    let exec = "sh -c 'cat >&2; exit 1'";
    let log = ["--log", "trace", "--log-format", format];
    let server = dir.serve(&[&log[..], &["--exec", exec]].concat(), ENV);
    let sent = dir.send(&server.url, &["--id", "msg_1", "--body", "body"]);
    assert_harmless(&sent.stdout, "msg_1");
    let started = Instant::now();
    while dir.json(&["inbox", "list", "--json"])[0]["state"] != "dead" {
        assert!(started.elapsed() < TIMEOUT);
    }
    for command in [&["list"][..], &["show", "msg_1"], &["tail", "--json"]] {
        let output = dir.run(&[&["inbox"], command].concat());
        assert_harmless(&output.stdout, "field");
    }
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    log
}
