//! Catch-up and retention on an inbox in PostgreSQL.

use core::time::Duration;
use std::time::Instant;

use crate::support::harness::{EXPORT, Harness};
use crate::support::postgres::{Server, schema};
use crate::support::program::{ENV, WorkDir};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn catch_up_by_two_processes_stores_job_once() {
    let Some(database) = Server::shared() else {
        return;
    };
    let harness = Harness::new();
    let url = harness.url("/webhooks/pleo");
    harness.run_ok(&["setup", "--url", &url, "--event", EXPORT]);
    let inbox = database.url(&schema());
    let config = harness.read_file("pleo.toml");
    harness
        .dir
        .write("pleo.toml", &format!("inbox = \"{inbox}\"\n{config}"));
    harness.run_ok(&["inbox", "migrate"]);
    let job = harness.sandbox.add_export_job(harness.company);
    let catch_up = ["catch-up", "--min-age", "0s"];
    let mut processes = [harness.spawn(&catch_up), harness.spawn(&catch_up)];
    for process in &mut processes {
        assert!(process.wait().unwrap().success());
    }
    let printed = harness.run_ok(&catch_up);
    assert_eq!(printed, "the inbox has every pending export job\n");
    let entries = harness.json(&["inbox", "list"]);
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0]["resource_id"], job["id"]);
    assert_eq!(entries[0]["origin"], "catch-up");
}

#[test]
fn one_receiver_at_a_time_deletes_old_messages() {
    let Some(database) = Server::shared() else {
        return;
    };
    let dir = WorkDir::new();
    let schema = schema();
    let url = database.url(&schema);
    assert_eq!(dir.run(&["inbox", "migrate", "--inbox", &url]).code, 0);
    database.execute(&format!(
        "INSERT INTO {schema}.message
             (sequence, endpoint, webhook_id, origin, received_at, headers, body)
         SELECT nextval('{schema}.message_sequence'), '/a', n, 'webhook', now() - interval '31 days', '', ''
         FROM generate_series(1, 3000) AS n;
         INSERT INTO {schema}.dispatch (sequence, endpoint, state)
         SELECT sequence, endpoint, 'done' FROM {schema}.message"
    ));
    dir.write("pleo.toml", "[retention]\ndone = \"30d\"\n");
    let lock = database.lock(&format!("{schema} prune"));
    let servers = [(); 2].map(|()| dir.serve(&["--inbox", &url], ENV));
    // Both wait for the one that deletes.
    lock.wait_for_waiters(2);
    let count = format!("SELECT count(*) FROM {schema}.message");
    assert_eq!(database.execute(&count).trim(), "3000");
    drop(lock);
    let started = Instant::now();
    while database.execute(&count).trim() != "0" {
        assert!(started.elapsed() < PATIENCE);
    }
    for server in servers {
        let (code, log) = server.stop("-TERM");
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("cannot delete old messages"), "{log}");
    }
}
