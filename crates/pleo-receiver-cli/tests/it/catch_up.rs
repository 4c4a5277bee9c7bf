//! `catch-up` fetches export jobs whose webhooks never arrived.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use crate::support::harness::{EXPORT, Harness, TOKEN, VENDOR};
use crate::support::program::{CommandOutput, SECRET, WorkDir};
use pleo_sandbox::Fault;
use serde_json::{Value, json};

const CATCH_UP: &[&str] = &["catch-up", "--min-age", "0s"];

#[test]
fn fetches_missed_export_job_once_and_dispatches_it() {
    let harness = Harness::new();
    harness.set_up(EXPORT);
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
    harness.set_up(EXPORT);
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
fn stores_jobs_of_pages_before_failed_page() {
    let harness = Harness::new();
    harness.set_up(EXPORT);
    drop(harness.serve(&[]));
    for _ in 0..25 {
        harness.sandbox.add_export_job(harness.company);
    }
    let faults = [Fault::None, Fault::status(500)];
    harness.sandbox.fail_next(faults);
    let output = harness.run(CATCH_UP);
    crate::support::harness::assert_failed(&output, 1, &["error: /webhooks/pleo: ", "(500)"]);
    assert_eq!(output.stdout.lines().count(), 20, "the first page");
    assert_eq!(harness.wait_for_inbox("pending", 20).len(), 20);
    assert_eq!(harness.json(CATCH_UP).len(), 5, "the rest");
}

#[test]
fn skips_job_younger_than_min_age() {
    let harness = Harness::new();
    harness.set_up(EXPORT);
    drop(harness.serve(&[]));
    harness.sandbox.add_export_job(harness.company);
    assert_eq!(harness.json(&["catch-up"]), [Value::Null; 0]);
    assert_eq!(harness.json(CATCH_UP).len(), 1);
}

#[test]
fn reports_missing_configuration_inbox_subscription_or_scope() {
    let harness = Harness::new();
    harness.run_fails(CATCH_UP, 2, &["cannot read", "pleo.toml"]);
    harness.set_up(VENDOR);
    let parts = ["cannot open inbox", "`pleo-receiver serve` creates it"];
    harness.run_fails(CATCH_UP, 1, &parts);
    drop(harness.serve(&[]));
    harness.run_fails(
        CATCH_UP,
        2,
        &["no `[[endpoint]]` has a `subscription` for export jobs"],
    );
    harness.set_up(EXPORT);
    let output = harness.run_with_token(CATCH_UP, "a.b.c");
    crate::support::harness::assert_failed(&output, 1, &["(401)"]);

    let harness = Harness::with_scopes(&[]);
    harness.set_up(VENDOR);
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
    harness.set_up(EXPORT);
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

/// Answers each request with a page of these jobs, and runs `catch-up` against it.
fn catch_up_from(dir: &WorkDir, jobs: &str) -> CommandOutput {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let body = format!(
        r#"{{"data":[{jobs}],"pagination":{{"hasNextPage":false,"hasPreviousPage":false}}}}"#
    );
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    // The thread ends with the test process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            assert_ne!(stream.read(&mut [0; 4096]).unwrap(), 0);
            stream.write_all((head.clone() + &body).as_bytes()).unwrap();
        }
    });
    let env = [("PLEO_API_URL", &*url), ("PLEO_API_TOKEN", TOKEN)];
    dir.run_with(CATCH_UP, &env, b"")
}

/// Writes a configuration for export jobs, and creates its inbox.
fn dir_with_inbox() -> WorkDir {
    let dir = WorkDir::new();
    let config = format!(
        "[[endpoint]]\npath = \"/acme\"\nsecret = \"{SECRET}\"\nsubscription = {{ url = \
         \"https://x.example.com/acme\", events = [\"{EXPORT}\"] }}\n"
    );
    dir.write("pleo.toml", &config);
    drop(dir.serve(&["--config", "pleo.toml"], &[]));
    dir
}

#[test]
fn stores_export_job_as_pleo_sent_it() {
    let dir = dir_with_inbox();
    let id = "0f8b7f63-93b5-4a9e-9d7e-7c2a60f3a111";
    // Unknown fields, `null`, an exact number, spaces and upper case, in an order of their own.
    let job = format!(
        r#"{{ "status":"PENDING","id":"{id}", "createdAt":"2026-11-24T08:00:00.000Z",
        "companyId":"4d0f7c3c-95f4-4be8-8a3f-5a1c2b3d4e5f","failureReason":null,"numberOfItems":1,
        "expiresIn":86400,"rate":0.10000000000000000555,"big":123456789012345678901234567890 }}"#
    );
    let output = catch_up_from(&dir, &job);
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(output.stdout, format!("caught up {id} /acme\n"));
    let shown = dir.run(&["inbox", "show", &format!("catch-up_{id}"), "--json"]);
    let shown = crate::support::harness::parse_json(&shown.stdout);
    let body = format!(r#"{{"data":{job},"eventType":"{EXPORT}"}}"#);
    assert_eq!(shown[0]["body"], body);
}

#[test]
fn malformed_export_job_does_not_hold_up_the_others() {
    let dir = dir_with_inbox();
    let ids = [
        "0f8b7f63-93b5-4a9e-9d7e-7c2a60f3a111",
        "0f8b7f63-93b5-4a9e-9d7e-7c2a60f3a222",
    ];
    let jobs = format!(
        r#"{{"id":"hunter2"}},{{"id":"{}"}},7,{{"id":"{}","createdAt":7,"status":[]}}"#,
        ids[0], ids[1]
    );
    let output = catch_up_from(&dir, &jobs);
    let error = "error: /acme: skipped an export job";
    crate::support::harness::assert_failed(&output, 1, &[error, "no valid `id`"]);
    assert_eq!(output.stderr.matches(error).count(), 2, "{output:?}");
    assert!(!output.stderr.contains("hunter2"), "{output:?}");
    let caught_up = ids.map(|id| format!("caught up {id} /acme\n"));
    assert_eq!(output.stdout, caught_up.concat());
    let listed = dir.run(&["inbox", "list", "--json"]);
    let listed = crate::support::harness::parse_json(&listed.stdout);
    let stored: Vec<_> = listed.iter().map(|one| &one["resource_id"]).collect();
    assert_eq!(stored, [&json!(ids[0]), &json!(ids[1])]);
    // The others are not stored twice.
    let output = catch_up_from(&dir, &jobs);
    assert_eq!((output.code, &*output.stdout), (1, ""));
}
