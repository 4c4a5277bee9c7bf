//! `catch-up` fetches export jobs whose webhooks never arrived.

use crate::support::harness::{EXPORT, Harness, VENDOR};
use crate::support::program::SECRET;
use serde_json::Value;

const CATCH_UP: &[&str] = &["catch-up", "--min-age", "0s"];

fn set_up(harness: &Harness, event: &str) {
    harness.run_ok(&[
        "setup",
        "--url",
        &harness.url("/webhooks/pleo"),
        "--event",
        event,
    ]);
}

#[test]
fn fetches_missed_export_job_once_and_dispatches_it() {
    let harness = Harness::new();
    set_up(&harness, EXPORT);
    let server = harness.serve(&[]);
    let arrived = harness.sandbox.add_export_job(harness.company);
    let message = &harness.sandbox.emit(harness.company, EXPORT, &arrived)[0];
    assert_eq!(harness.final_attempt(message).status, Some(204));
    drop(server);

    // The receiver is down until the sender gives up.
    harness.disconnect_receiver();
    let missed = harness.sandbox.add_export_job(harness.company);
    let message = &harness.sandbox.emit(harness.company, EXPORT, &missed)[0];
    assert_eq!(harness.final_attempt(message).status, None);
    assert_eq!(
        harness.wait_for_attempts(9).len(),
        1 + 8,
        "one attempt, then all of the schedule"
    );

    let shown = harness.json(&[CATCH_UP, &["--dry-run"]].concat());
    assert_eq!((shown.len(), &shown[0]["job"]), (1, &missed["id"]));
    assert_eq!(
        harness.wait_for_inbox("pending", 1).len(),
        1,
        "a dry run stores nothing"
    );
    let printed = harness.run_ok(CATCH_UP);
    let id = missed["id"].as_str().unwrap();
    assert_eq!(printed, format!("caught up {id} /webhooks/pleo\n"));
    let printed = harness.run_ok(CATCH_UP);
    assert_eq!(printed, "the inbox has every pending export job\n");

    let _server = harness.serve(&["--exec", "tee -a books.jsonl"]);
    let entries = harness.wait_for_inbox("done", 2);
    let caught_up = entries
        .iter()
        .find(|entry| entry["origin"] == "catch-up")
        .unwrap();
    assert_eq!(caught_up["resource_id"], missed["id"]);
    assert_eq!(caught_up["webhook_id"], format!("catch-up_{id}"));
    assert_eq!(caught_up["event_type"], EXPORT);
    assert_ne!(caught_up["expires_at"], Value::Null, "the expiry is stored");
    let booked = crate::support::harness::parse_json(&harness.read_file("books.jsonl"));
    let job = booked
        .iter()
        .find(|entry| entry["data"]["id"] == missed["id"])
        .unwrap();
    assert_eq!(job["data"], missed, "the complete job");
}

#[test]
fn fetches_several_pages_while_server_runs() {
    let harness = Harness::new();
    set_up(&harness, EXPORT);
    let _server = harness.serve(&["--exec", "cat"]);
    for _ in 0..30 {
        harness.sandbox.add_export_job(harness.company);
    }
    assert_eq!(harness.json(CATCH_UP).len(), 30, "from more than one page");
    let entries = harness.wait_for_inbox("done", 30);
    assert!(
        entries.iter().all(|entry| entry["origin"] == "catch-up"),
        "{entries:?}"
    );
}

#[test]
fn skips_job_younger_than_min_age() {
    let harness = Harness::new();
    set_up(&harness, EXPORT);
    drop(harness.serve(&[]));
    harness.sandbox.add_export_job(harness.company);
    assert_eq!(harness.json(&["catch-up"]), [Value::Null; 0]);
    assert_eq!(harness.json(CATCH_UP).len(), 1);
}

#[test]
fn reports_missing_configuration_inbox_subscription_or_scope() {
    let harness = Harness::new();
    harness.run_fails(CATCH_UP, 2, &["cannot read", "pleo.toml"]);
    set_up(&harness, VENDOR);
    let parts = ["cannot open inbox", "`pleo-receiver serve` creates it"];
    harness.run_fails(CATCH_UP, 1, &parts);
    drop(harness.serve(&[]));
    harness.run_fails(
        CATCH_UP,
        2,
        &["no `[[endpoint]]` has a `subscription` for export jobs"],
    );
    set_up(&harness, EXPORT);
    let output = harness.run_with_token(CATCH_UP, "a.b.c");
    crate::support::harness::assert_failed(&output, 1, &["(401)"]);

    let harness = Harness::with_scopes(&[]);
    set_up(&harness, VENDOR);
    drop(harness.serve(&[]));
    let before = harness.read_file("pleo.toml");
    harness
        .dir
        .write("pleo.toml", &before.replace(VENDOR, EXPORT));
    harness.run_fails(CATCH_UP, 1, &["(403)", "export-jobs:read"]);
}

#[test]
fn continues_after_expired_token_of_one_endpoint() {
    let harness = Harness::new();
    set_up(&harness, EXPORT);
    drop(harness.serve(&[]));
    harness.dir.write("old.token", "a.b.c\n");
    let first = harness.read_file("pleo.toml");
    let acme = format!(
        "[[endpoint]]\npath = \"/acme\"\nsecret = \"{SECRET}\"\nsubscription = {{ url = \
         \"https://x.example.com/acme\", events = [\"{EXPORT}\"], token = \"file:old.token\" }}\n\n"
    );
    harness.dir.write("pleo.toml", &format!("{acme}{first}"));
    harness.sandbox.add_export_job(harness.company);
    let output = harness.run(CATCH_UP);
    crate::support::harness::assert_failed(&output, 1, &["error: /acme: ", "(401)"]);
    assert!(output.stdout.starts_with("caught up "), "{output:?}");
    assert_eq!(harness.wait_for_inbox("pending", 1).len(), 1);
    // `sync` changes nothing if one endpoint fails.
    let sync = ["subscriptions", "sync", "--yes"];
    harness.run_fails(&sync, 1, &["error: /acme: ", "(401)"]);
}
