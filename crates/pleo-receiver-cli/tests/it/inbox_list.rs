//! Tests of `inbox list`, and of the inbox that commands choose.

use std::time::{Duration, Instant};

use crate::support::program::{ENV, SECRET, WorkDir};

#[test]
fn every_command_reads_same_configuration() {
    let dir = WorkDir::new();
    let file = format!("secret = \"{SECRET}\"\ninbox = \"sqlite:books.db\"\n");
    dir.write("pleo.toml", &file);
    dir.write("other.toml", &file.replace("books", "other"));
    for (config, env, database) in [
        (&[][..], &[][..], "books.db"),
        (&["--config", "other.toml"], &[], "other.db"),
        (&[], &[("PLEO_CONFIG", "other.toml")], "other.db"),
        (
            &["--config", "pleo.toml"],
            &[("PLEO_CONFIG", "other.toml")],
            "books.db",
        ),
        (
            &["--config", "pleo.toml"],
            &[("PLEO_INBOX", "env.db")],
            "env.db",
        ),
        (
            &["--inbox", "flag.db"],
            &[("PLEO_INBOX", "env.db")],
            "flag.db",
        ),
    ] {
        let server = dir.serve(config, env);
        let with_secret = [env, ENV].concat();
        let sent = [&["send", &server.url, "--id", "msg_1"], config].concat();
        let sent = dir.run_with(&sent, &with_secret, b"");
        assert!(sent.stdout.contains("message msg_1: pending"), "{sent:?}");
        let list = dir.run_with(&[&["inbox", "list"], config].concat(), env, b"");
        assert!(
            list.stdout.contains("msg_1"),
            "{config:?} {env:?}: {list:?}"
        );
        assert_eq!(server.stop("-TERM").0, Some(0));
        assert!(dir.path().join(database).exists(), "{config:?} {env:?}");
        std::fs::remove_file(dir.path().join(database)).unwrap();
    }
    let output = dir.run(&["inbox", "list", "--config", "none.toml"]);
    assert_eq!(output.code, 2, "{output:?}");
    assert!(output.stderr.contains("none.toml"), "{output:?}");
}

#[test]
fn shows_endpoint_and_last_error_in_columns() {
    let dir = WorkDir::new();
    let started = Instant::now();
    let long = "msg_0123456789_0123456789_0123456789_0123456789";
    let server = dir.serve(&["--exec", "sh -c 'echo no ledger >&2; exit 3'"], ENV);
    dir.send(&server.url, &["--id", "msg_1"]);
    dir.send(&server.url, &["--id", long, "--event", "v1.vendor.created"]);
    let has_failed = |entry: &serde_json::Value| entry["last_error"].is_string();
    while !(dir.json(&["inbox", "list", "--json"]).iter()).all(has_failed) {
        assert!(started.elapsed() < Duration::from_secs(60), "no attempt");
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
    let table = dir.run(&["inbox", "list"]).stdout;
    let lines: Vec<_> = table.lines().collect();
    for (head, values) in [
        ("ENDPOINT", ["/webhooks/pleo", "/webhooks/pleo"]),
        ("WEBHOOK ID", ["msg_1 ", long]),
        ("EVENT TYPE", ["v1.export-job.created", "v1.vendor.created"]),
        ("LAST ERROR", ["", ""]),
    ] {
        let column = lines[0].find(head).unwrap();
        for (line, value) in lines[1..].iter().zip(values) {
            assert_eq!(&line[column - 1..column], " ", "{table}");
            assert!(line[column..].starts_with(value), "{head} of {table}");
        }
    }
    for line in &lines[1..] {
        assert!(line.ends_with("no ledger"), "{table}");
    }
}

#[test]
fn shows_newest_fifty_by_default() {
    let dir = WorkDir::new();
    let server = dir.serve(&[], ENV);
    let empty = dir.run(&["inbox", "list"]);
    assert_eq!(
        (empty.code, &*empty.stdout, &*empty.stderr),
        (0, "", "no messages\n")
    );
    let empty = dir.run(&["inbox", "list", "--json"]);
    assert_eq!((empty.code, &*empty.stdout, &*empty.stderr), (0, "", ""));
    let count = |args: &[&str]| dir.run(&[&["inbox", "list"], args].concat());
    // Sent from a folder without an inbox, so that `send` does not wait for the outcome.
    let other = WorkDir::new();
    for number in 0..52 {
        let sent = other.send(&server.url, &["--id", &format!("msg_{number}")]);
        assert_eq!(sent.code, 0, "{sent:?}");
    }
    let newest = count(&[]);
    assert_eq!(newest.stdout.lines().count(), 51, "{newest:?}");
    assert!(!newest.stdout.contains("msg_1 "), "{newest:?}");
    assert!(
        newest.stdout.lines().last().unwrap().contains("msg_51 "),
        "{newest:?}"
    );
    assert!(newest.stderr.contains("only the newest 50"), "{newest:?}");
    for (args, lines) in [(&["--limit", "52"][..], 53), (&["--json"], 52)] {
        let all = count(args);
        assert_eq!(all.stdout.lines().count(), lines, "{all:?}");
        assert_eq!(all.stderr, "");
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn accepts_file_name_as_inbox() {
    let dir = WorkDir::new();
    let server = dir.serve(&["--inbox", "books.db"], ENV);
    dir.send(&server.url, &["--id", "msg_1"]);
    let listed = dir.json(&["inbox", "list", "--json", "--inbox", "books.db"]);
    assert_eq!(listed[0]["webhook_id"], "msg_1");
    assert_eq!(server.stop("-TERM").0, Some(0));
    let missing = dir.run(&["inbox", "list", "--inbox", "boks.db"]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("`boks.db`"), "{missing:?}");
    assert!(missing.stderr.contains("serve` creates it"), "{missing:?}");
}
