//! Tests of `inbox show`, `verify`, `stats`, `pause` and `resume`.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::Value;

use crate::support::program::{ENV, OTHER_SECRET, SECRET, WorkDir};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Waits until the message has this value of a key. Returns the message.
fn wait_for(dir: &WorkDir, id: &str, key: &str, value: &Value) -> Value {
    let started = Instant::now();
    loop {
        let shown = dir.json(&["inbox", "show", id, "--json"]).remove(0);
        if shown[key] == *value {
            return shown;
        }
        assert!(started.elapsed() < TIMEOUT, "{shown}");
    }
}

#[test]
fn shows_headers_source_and_history_of_attempts() {
    let dir = WorkDir::new();
    dir.write(
        "pleo.toml",
        "[retry]\nmax_attempts = 2\nmin_delay = \"10ms\"\n",
    );
    let exec = "sh -c 'echo no ledger >&2; exit 3'";
    let server = dir.serve(&["--exec", exec], ENV);
    let sent = dir.send(&server.url, &["--id", "msg_1"]);
    assert_eq!(sent.code, 0, "{sent:?}");
    let shown = wait_for(&dir, "msg_1", "state", &"dead".into());
    assert_eq!(shown["source"], "127.0.0.1");
    assert_eq!(shown["headers"]["webhook-id"], "msg_1");
    let signature = shown["headers"]["webhook-signature"].as_str().unwrap();
    assert!(signature.starts_with("v1,"), "{shown}");
    let history = shown["history"].as_array().unwrap();
    let results: Vec<_> = history.iter().map(|attempt| &attempt["result"]).collect();
    assert_eq!(results, ["retry", "dead"], "{shown}");
    for (attempt, number) in history.iter().zip(1..) {
        assert_eq!(attempt["number"], number);
        assert!(attempt["duration_ms"].is_u64() && attempt["started_at"].is_string());
        assert!(attempt["error"].as_str().unwrap().contains("no ledger"));
    }
    let text = dir.run(&["inbox", "show", "msg_1"]).stdout;
    for part in [
        "source        127.0.0.1\n",
        "\nHEADERS\nwebhook-id: msg_1\n",
        "\nATTEMPTS\n1 at ",
        "no ledger",
        "\nBODY\n{",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn verifies_stored_message_with_secrets_of_its_endpoint() {
    let dir = WorkDir::new();
    dir.write(
        "pleo.toml",
        &format!(
            "[[endpoint]]\npath = \"/a\"\nname = \"a\"\nsecrets = [\"{OTHER_SECRET}\", \"{SECRET}\"]\n\
             [[endpoint]]\npath = \"/b\"\nsecret = \"{OTHER_SECRET}\"\n"
        ),
    );
    let server = dir.serve(&[], &[]);
    let sent = dir.send(&server.url, &["--id", "msg_1"]);
    assert_eq!(sent.code, 0, "{sent:?}");
    assert_eq!(server.stop("-TERM").0, Some(0));

    let verify = |more: &[&str], env: &[(&str, &str)]| {
        dir.run_with(&[&["inbox", "verify", "msg_1"], more].concat(), env, b"")
    };
    let ok = verify(&[], &[]);
    assert_eq!(ok.code, 0, "{ok:?}");
    assert!(
        ok.stdout.starts_with("ok      msg_1 at a: signed at "),
        "{ok:?}"
    );
    assert!(ok.stdout.contains("with secret 2 of 2"), "{ok:?}");
    assert!(
        ok.stderr.contains("the time window is not checked"),
        "{ok:?}"
    );
    let json = dir.json(&["inbox", "verify", "msg_1", "--json", "--secret", SECRET]);
    assert_eq!(json[0]["authentic"], true);
    assert_eq!(json[0]["secret"], 1);
    assert!(json[0]["signed_at"].is_string() && json[0]["error"].is_null());

    let other = verify(&["--secret", OTHER_SECRET], &[]);
    assert_eq!(other.code, 1, "{other:?}");
    assert!(
        other
            .stdout
            .contains("FAILED  msg_1 at a: no secret matches"),
        "{other:?}"
    );
    let missing = dir.run(&["inbox", "verify", "msg_9"]);
    assert_eq!(missing.code, 1, "{missing:?}");
    dir.write("pleo.toml", "");
    assert_eq!(verify(&[], &[]).code, 2, "no secret");
    assert_eq!(verify(&[], ENV).code, 0, "the secret of the only endpoint");

    let file = Connection::open(dir.path().join("pleo-inbox.db")).unwrap();
    file.execute("UPDATE message SET webhook_id = 'msg_2'", [])
        .unwrap();
    let moved = dir.run_with(&["inbox", "verify", "msg_2"], ENV, b"");
    assert_eq!(moved.code, 1, "{moved:?}");
    assert!(
        moved.stdout.contains("it was signed with the id `msg_1`"),
        "{moved:?}"
    );
    file.execute("UPDATE message SET webhook_id = 'msg_1'", [])
        .unwrap();
    file.execute("UPDATE body SET body = CAST(body || ' ' AS BLOB)", [])
        .unwrap();
    let changed = verify(&[], ENV);
    assert_eq!(changed.code, 1, "{changed:?}");
    file.execute("UPDATE body SET headers = NULL", []).unwrap();
    let old = verify(&[], ENV);
    assert_eq!(old.code, 1, "{old:?}");
    assert!(old.stdout.contains("without signature headers"), "{old:?}");
}

#[test]
fn pauses_configured_endpoint_without_messages() {
    let dir = WorkDir::new();
    let table = |path| format!("[[endpoint]]\npath = \"{path}\"\nsecret = \"{SECRET}\"\n");
    dir.write("pleo.toml", &format!("{}{}", table("/a"), table("/b")));
    assert_eq!(dir.serve(&[], &[]).stop("-TERM").0, Some(0));
    let paused = dir.run(&["inbox", "pause", "/b"]);
    assert_eq!(
        (paused.code, &*paused.stdout),
        (0, "paused /b\n"),
        "{paused:?}"
    );
    let unknown = dir.run(&["inbox", "pause", "/c"]);
    assert_eq!((unknown.code, &*unknown.stdout), (1, ""), "{unknown:?}");
    assert!(unknown.stderr.contains("these: `/a`, `/b`"), "{unknown:?}");
    let stats = dir.json(&["inbox", "stats", "--json"]).remove(0);
    let endpoints = stats["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 1, "{stats}");
    assert_eq!(endpoints[0]["paused"], true);
}

#[test]
fn pauses_endpoint_until_it_is_resumed() {
    let dir = WorkDir::new();
    let server = dir.serve(&[], ENV);
    for id in ["msg_1", "msg_2"] {
        assert_eq!(dir.send(&server.url, &["--id", id]).code, 0);
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
    let paused = dir.run(&["inbox", "pause", "/webhooks/pleo"]);
    assert_eq!(
        (paused.code, &*paused.stdout, &*paused.stderr),
        (0, "paused /webhooks/pleo\n", "")
    );
    for command in ["pause", "resume"] {
        let unknown = dir.run(&["inbox", command, "/webhooks/peo"]);
        assert_eq!((unknown.code, &*unknown.stdout), (1, ""), "{unknown:?}");
        let known = "name one of these: `/webhooks/pleo`";
        assert!(unknown.stderr.contains(known), "{unknown:?}");
    }

    // The other endpoint's message proves that the dispatcher runs.
    dir.write(
        "pleo.toml",
        &format!(
            "[[endpoint]]\npath = \"/webhooks/pleo\"\nsecret = \"{SECRET}\"\n\
             [[endpoint]]\npath = \"/b\"\nsecret = \"{SECRET}\"\n"
        ),
    );
    let server = dir.serve(&["--exec", "true"], &[]);
    let other = server.url.replace("/webhooks/pleo", "/b");
    assert_eq!(dir.send(&other, &["--id", "msg_3"]).code, 0);
    wait_for(&dir, "msg_3", "state", &"done".into());
    let stats = dir.json(&["inbox", "stats", "--json"]).remove(0);
    let endpoints = stats["endpoints"].as_array().unwrap();
    let counts = |endpoint: &Value| {
        let count = |key: &str| endpoint[key].as_u64().unwrap();
        (
            count("ready"),
            count("pending"),
            count("done"),
            count("dead"),
        )
    };
    assert_eq!(endpoints[0]["endpoint"], "/b");
    assert_eq!(
        (counts(&endpoints[0]), &endpoints[0]["paused"]),
        ((0, 0, 1, 0), &false.into())
    );
    assert_eq!(
        (counts(&endpoints[1]), &endpoints[1]["paused"]),
        ((2, 2, 0, 0), &true.into())
    );
    assert!(endpoints[1]["oldest_pending_seconds"].is_u64(), "{stats}");
    assert!(endpoints[1]["nearest_expiry"].is_string(), "{stats}");
    assert!(stats["file_bytes"].as_u64().unwrap() > 4096, "{stats}");
    assert!(stats["log_bytes"].as_u64().unwrap() > 0, "{stats}");
    let table = dir.run(&["inbox", "stats"]).stdout;
    let row = table
        .lines()
        .find(|line| line.starts_with("/webhooks/pleo "));
    let cells: Vec<_> = row.unwrap().split_whitespace().collect();
    assert_eq!(
        cells[..6],
        ["/webhooks/pleo", "2", "0", "0", "0", "yes"],
        "{table}"
    );
    assert!(table.contains("\nfile "), "{table}");

    let resumed = dir.json(&["inbox", "resume", "/webhooks/pleo", "--json"]);
    assert_eq!(resumed[0]["paused"], false);
    for id in ["msg_1", "msg_2"] {
        wait_for(&dir, id, "state", &"done".into());
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}
