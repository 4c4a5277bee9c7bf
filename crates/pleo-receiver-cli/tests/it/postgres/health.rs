//! Readiness, metrics and `doctor` of a receiver whose inbox is in PostgreSQL.

use core::time::Duration;
use std::thread;
use std::time::Instant;

use crate::admin::wait_for_readiness;
use crate::support::harness::{EXPORT, Harness};
use crate::support::postgres::{Server, schema};
use crate::support::program::{ENV, SECRET, WorkDir, read_metrics};

#[test]
fn is_ready_only_while_database_is_available() {
    let Some(mut database) = Server::start(&[]) else {
        return;
    };
    let dir = WorkDir::new();
    let url = database.url("pleo_inbox");
    let mut server = dir.serve(&["--inbox", &url, "--admin", "127.0.0.1:0"], ENV);
    wait_for_readiness(&server, 200);
    let first = dir.send_with(SECRET, &server.url, &["--id", "msg_1"]);
    assert!(first.starts_with("204"), "{first}");

    database.stop("immediate");
    let checks = wait_for_readiness(&server, 503);
    assert_eq!(checks["inbox"]["ok"], false, "{checks}");
    let refused = dir.send_with(SECRET, &server.url, &["--id", "msg_2"]);
    assert!(refused.starts_with("503"), "{refused}");
    // The page is served meanwhile, with what needs no database.
    let page = read_metrics(server.admin_address());
    assert!(
        page.contains("pleo_receiver_ready{check=\"inbox\"} 0"),
        "{page}"
    );

    database.run();
    wait_for_readiness(&server, 200);
    let again = dir.send_with(SECRET, &server.url, &["--id", "msg_2"]);
    assert!(again.starts_with("204"), "{again}");
    // The connection that checks the server may be opened after those that append.
    server.wait_for_log("database available again");
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("database unavailable; retrying"), "{log}");
}

#[test]
fn serves_metrics_of_inbox_and_its_queue() {
    let Some(database) = Server::shared() else {
        return;
    };
    let dir = WorkDir::new();
    let url = database.url(&schema());
    let server = dir.serve(&["--inbox", &url, "--admin", "127.0.0.1:0"], ENV);
    for id in ["msg_1", "msg_2"] {
        dir.send_with(SECRET, &server.url, &["--id", id]);
    }
    let endpoint = "endpoint=\"/webhooks/pleo\"";
    let expected = [
        format!("pleo_receiver_inbox_messages{{{endpoint},state=\"ready\"}} 2\n"),
        format!("pleo_receiver_inbox_messages{{{endpoint},state=\"done\"}} 0\n"),
        format!("pleo_receiver_inbox_messages{{{endpoint},state=\"dead\"}} 0\n"),
        format!("pleo_receiver_inbox_paused{{{endpoint}}} 0\n"),
        format!("pleo_receiver_expired_pending{{{endpoint}}} 0\n"),
        format!("pleo_receiver_oldest_pending_age_seconds{{{endpoint}}} "),
        // The sample message is an export job.
        format!("pleo_receiver_nearest_expiry_seconds{{{endpoint}}} "),
        format!("pleo_receiver_last_delivery_age_seconds{{{endpoint}}} "),
        "pleo_receiver_append_queue 0\n".to_owned(),
        "pleo_receiver_append_queue_bytes 0\n".to_owned(),
        "pleo_receiver_commit_seconds_count 2\n".to_owned(),
        "pleo_receiver_commit_appends_sum 2.0\n".to_owned(),
        "pleo_receiver_inbox_file_bytes ".to_owned(),
    ];
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let page = read_metrics(server.admin_address());
        let missing = expected.iter().find(|line| !page.contains(*line));
        let Some(missing) = missing else { break };
        // Measurements are kept for a second.
        assert!(Instant::now() < deadline, "{missing} is not in:\n{page}");
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn doctor_checks_inbox_in_postgres() {
    let Some(database) = Server::shared() else {
        return;
    };
    let dir = WorkDir::new();
    let url = database.url(&schema());
    let config =
        format!("inbox = \"{url}\"\n[[endpoint]]\npath = \"/a\"\nsecret = [\"{SECRET}\"]\n");
    dir.write("pleo.toml", &config);
    let doctor = dir.run(&["doctor", "--config", "pleo.toml"]);
    assert!(doctor.stdout.contains("inbox migrate"), "{doctor:?}");
    dir.run(&["inbox", "migrate", "--inbox", &url]);
    let doctor = dir.run(&["doctor", "--config", "pleo.toml"]);
    for line in [
        "is writable",
        "watch the disk of its server",
        "receivers share an inbox",
        "0 messages pending; none dead or expired",
    ] {
        assert!(doctor.stdout.contains(line), "{line}: {doctor:?}");
    }
}

#[test]
fn setup_says_how_to_reload_each_receiver() {
    let Some(database) = Server::shared() else {
        return;
    };
    let harness = Harness::new();
    let config = format!("inbox = \"{}\"\n", database.url(&schema()));
    harness.dir.write("pleo.toml", &config);
    let url = harness.url("/webhooks/pleo");
    let printed = harness.run_ok(&["setup", "--url", &url, "--event", EXPORT]);
    assert!(
        printed.contains("on each machine, copy pleo.toml"),
        "{printed}"
    );
    assert!(printed.contains("kill -HUP PID"), "{printed}");
}
