//! Tests of the tasks that `serve` runs on a schedule: retention and catch-up.

use rusqlite::Connection;
use serde_json::Value;

use crate::support::harness::{EXPORT, Harness};
use crate::support::program::{ENV, WorkDir, free_address, read_metrics};

/// Returns the numbers of pending, done and dead messages.
fn counts(dir: &WorkDir) -> [u64; 3] {
    let stats = dir.json(&["inbox", "stats", "--json"]).remove(0);
    let endpoint: &Value = &stats["endpoints"][0];
    ["pending", "done", "dead"].map(|state| endpoint[state].as_u64().unwrap())
}

#[test]
fn deletes_messages_at_age_of_their_state() {
    let dir = WorkDir::new();
    assert_eq!(dir.serve(&[], ENV).stop("-TERM").0, Some(0));
    let file = Connection::open(dir.path().join("pleo-inbox.db")).unwrap();
    for (state, days, count) in [
        ("done", 31, 450),
        ("done", 29, 3),
        ("dead", 91, 2),
        ("dead", 31, 1),
        ("pending", 1000, 1),
    ] {
        file.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?3)
             INSERT INTO message (endpoint, webhook_id, origin, received_at, state)
             SELECT '/a', ?1 || ?2 || i, 'webhook', (unixepoch() - ?2 * 86400) * 1000, ?1 FROM n",
            (state, days, count),
        )
        .unwrap();
    }
    // The server counts the messages that it stores.
    let counts_by_hand = "INSERT INTO endpoint_stats VALUES ('/a', 1, 0, 453, 3, NULL)";
    file.execute(counts_by_hand, []).unwrap();
    let listen = free_address();
    let config = "[retention]\ndone = \"30d\"\ndead = \"90d\"\n";
    dir.write("pleo.toml", config);
    let mut server = dir.serve(&["--metrics", &listen], ENV);
    let line = server.wait_for_log("old messages deleted");
    assert!(line.contains("state=done messages=450"), "{line}");
    let line = server.wait_for_log("old messages deleted");
    assert!(line.contains("state=dead messages=2"), "{line}");
    assert_eq!(counts(&dir), [1, 3, 1]);
    let page = read_metrics(&listen);
    for line in [
        "pleo_receiver_pruned_total{state=\"done\"} 450",
        "pleo_receiver_pruned_total{state=\"dead\"} 2",
    ] {
        assert!(page.contains(line), "{line} is not in:\n{page}");
    }
    assert_eq!(page.matches("# EOF").count(), 1, "{page}");

    dir.write("pleo.toml", "[retention]\ndead = \"1h\"\n");
    let line = server.signal_and_wait("-HUP", "old messages deleted");
    assert!(line.contains("state=dead messages=1"), "{line}");
    assert_eq!(counts(&dir), [1, 3, 0]);
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    assert!(log.contains("retention is shorter than"), "{log}");
    assert!(log.contains("key=\"retention.dead\""), "{log}");
}

#[test]
fn catches_up_on_schedule_and_continues_after_failure() {
    let harness = Harness::new();
    let url = harness.url("/webhooks/pleo");
    harness.run_ok(&["setup", "--url", &url, "--event", EXPORT]);
    let config = harness.read_file("pleo.toml");
    harness.dir.write(
        "pleo.toml",
        &format!("{config}\n[catch_up]\nevery = \"200ms\"\nmin_age = \"0s\"\n"),
    );
    let missed = harness.sandbox.add_export_job(harness.company);
    let listen = free_address();
    let mut server = harness.serve_with_api(&["--metrics", &listen]);
    let line = server.wait_for_log("export job caught up");
    assert!(line.contains("endpoint=\"/webhooks/pleo\""), "{line}");
    assert!(line.contains(missed["id"].as_str().unwrap()), "{line}");
    let line = server.wait_for_log("catch-up finished");
    assert!(line.contains("jobs=1 failures=0"), "{line}");
    let line = server.wait_for_log("catch-up finished");
    assert!(line.contains("jobs=0 failures=0"), "{line}");

    // One run fails.
    harness.dir.write("pleo.toml", "[catch_up");
    server.wait_for_log("catch-up failed");
    harness.dir.write(
        "pleo.toml",
        &format!("{config}\n[catch_up]\nevery = \"200ms\"\nmin_age = \"0s\"\n"),
    );
    let message = &harness.sandbox.emit(harness.company, EXPORT, &missed)[0];
    assert_eq!(harness.final_attempt(message).status, Some(204));
    let next = harness.sandbox.add_export_job(harness.company);
    let line = server.wait_for_log("export job caught up");
    assert!(line.contains(next["id"].as_str().unwrap()), "{line}");
    let stored = harness.wait_for_inbox("pending", 3);
    let origins: Vec<_> = stored.iter().map(|entry| &entry["origin"]).collect();
    assert_eq!(origins, ["catch-up", "webhook", "catch-up"]);
    server.wait_for_log("catch-up finished");
    let page = read_metrics(&listen);
    for line in [
        "pleo_receiver_caught_up_total{endpoint=\"/webhooks/pleo\"} 2",
        "pleo_receiver_catch_ups_total{outcome=\"done\"} ",
        "pleo_receiver_catch_ups_total{outcome=\"failed\"} ",
    ] {
        assert!(page.contains(line), "{line} is not in:\n{page}");
    }

    harness.dir.write("pleo.toml", &config);
    server.signal_and_wait("-HUP", "configuration reloaded");
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    let (_, after) = log.rsplit_once("configuration reloaded").unwrap();
    assert!(!after.contains("catch-up"), "{log}");
}

#[test]
fn shutdown_ends_schedule_before_handlers() {
    let harness = Harness::new();
    let url = harness.url("/webhooks/pleo");
    harness.run_ok(&["setup", "--url", &url, "--event", EXPORT]);
    let config = harness.read_file("pleo.toml");
    let every = "[catch_up]\nevery = \"20ms\"\n";
    harness
        .dir
        .write("pleo.toml", &format!("{config}\n{every}"));
    let mut server = harness.serve_with_api(&["--exec", "sleep 1"]);
    harness.sandbox.emit(harness.company, EXPORT, &Value::Null);
    server.wait_for_log("catch-up finished");
    while !(harness.json(&["inbox", "list"]).iter()).any(|entry| entry["leased"] == true) {
        std::thread::yield_now();
    }
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    let (_, after) = log.split_once("shutting down").unwrap();
    assert!(after.contains("message handled"), "{log}");
    assert!(!after.contains("catch-up"), "{log}");
}

#[test]
fn rejects_schedule_without_interval() {
    let dir = WorkDir::new();
    dir.write("pleo.toml", "[catch_up]\nevery = \"0s\"\n");
    let output = dir.run_with(&["serve"], ENV, b"");
    assert_eq!(output.code, 2, "{output:?}");
    assert!(
        output.stderr.contains("`catch_up.every` in pleo.toml"),
        "{output:?}"
    );
}
