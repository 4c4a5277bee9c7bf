//! Tests of `inbox list`, and of the inbox that commands choose.

use std::io::{self, Write};
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
fn cuts_long_event_type_in_table() {
    let dir = WorkDir::new();
    let server = dir.serve(&[], ENV);
    let event_type = "x".repeat(100_000);
    dir.write("body", &format!("{{\"eventType\":\"{event_type}\"}}"));
    let sent = dir.send(&server.url, &["--id", "msg_1", "--body", "body"]);
    assert_eq!(sent.code, 0, "{sent:?}");
    for args in [["inbox", "list"], ["inbox", "tail"]] {
        let output = dir.run(&args);
        assert_eq!(output.code, 0, "{output:?}");
        let longest = output.stdout.lines().map(str::len).max().unwrap();
        assert!(longest < 2000, "{longest}");
    }
    let json = dir.json(&["inbox", "list", "--json"]);
    assert_eq!(json[0]["event_type"], *event_type);
    assert_eq!(server.stop("-TERM").0, Some(0));
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
        ("EXPIRES", ["in 59 min", "-"]),
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

#[test]
fn lists_newest_messages_of_many_pages() {
    let dir = WorkDir::new();
    assert_eq!(dir.serve(&[], ENV).stop("-TERM").0, Some(0));
    let file = rusqlite::Connection::open(dir.path().join("pleo-inbox.db")).unwrap();
    file.execute_batch(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1203)
         INSERT INTO message (sequence, endpoint, webhook_id, origin, received_at, state)
         SELECT i, '/a', 'msg_' || i, 'webhook', 0, iif(i % 2, 'done', 'dead') FROM n",
    )
    .unwrap();
    for (limit, state, first, count) in [
        ("1", None, 1203, 1),
        ("499", None, 705, 499),
        ("500", None, 704, 500),
        ("501", None, 703, 501),
        ("1202", None, 2, 1202),
        ("1203", None, 1, 1203),
        ("5000", None, 1, 1203),
        ("3", Some("dead"), 1198, 3),
    ] {
        let mut args = vec!["inbox", "list", "--json", "--limit", limit];
        args.extend(state.into_iter().flat_map(|state| ["--state", state]));
        let listed = dir.json(&args);
        assert_eq!(listed.len(), count, "{args:?}");
        assert_eq!(listed[0]["webhook_id"], format!("msg_{first}"), "{args:?}");
    }
}

#[test]
fn finds_message_by_unique_end_of_id() {
    let dir = WorkDir::new();
    let server = dir.serve(&[], ENV);
    for id in ["msg_a_12345678", "msg_b_12345678", "2345678", "msg_c"] {
        assert_eq!(dir.send(&server.url, &["--id", id]).code, 0);
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
    let run = |command: &str, id: &str| dir.run_with(&["inbox", command, id], ENV, b"");
    for command in ["show", "verify", "replay"] {
        for id in ["_a_12345678", "…a_12345678"] {
            let found = run(command, id);
            assert_eq!(found.code, 0, "{command}: {found:?}");
            let shows_id = command == "replay" || found.stdout.contains("msg_a_12345678");
            assert!(shows_id, "{command}: {found:?}");
        }
        let several = run(command, "12345678");
        assert_eq!(several.code, 2, "{command}: {several:?}");
        let ids = "msg_a_12345678, msg_b_12345678";
        assert!(several.stderr.contains(ids), "{command}: {several:?}");
        // An id that is exactly this is meant; an end of 7 characters or less is none.
        assert_eq!(run(command, "2345678").code, 0, "{command}");
        assert_eq!(run(command, "msg_").code, 1, "{command}");
        assert_eq!(run(command, "345678").code, 1, "{command}");
    }
}

/// Runs a command in a terminal with this many columns. Returns what it prints.
#[cfg(target_os = "linux")]
fn run_in_terminal(dir: &WorkDir, columns: usize, args: &str) -> String {
    let program = env!("CARGO_BIN_EXE_pleo-receiver");
    let command = format!("stty rows 24 cols {columns}; exec {program} {args}");
    let mut script = std::process::Command::new("script");
    let script = script.args(["-qec", &command, "/dev/null"]);
    let output = script.current_dir(dir.path()).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}");
    printed.replace('\r', "")
}

#[test]
#[cfg(target_os = "linux")]
fn tables_fit_terminal_of_80_columns() {
    let has_script = std::process::Command::new("script")
        .arg("--version")
        .output();
    if has_script.is_err() {
        let allowed = std::env::var_os("PLEO_TEST_FORBID_SKIP").is_none();
        assert!(allowed, "no `script` makes a terminal");
        let text = "SKIPPED inbox_list: no `script` makes a terminal";
        let _ = writeln!(io::stderr(), "{text}");
        return;
    }
    let dir = WorkDir::new();
    let server = dir.serve(&["--path", "/webhooks/acme-production"], ENV);
    let id = "msg_2b7Tj9x0QwErTyUiOpAsDfGhJkL";
    for args in [&["--id", id][..], &[]] {
        assert_eq!(dir.send(&server.url, args).code, 0);
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
    let (list, stats) = ("inbox list", "inbox stats");
    for (columns, args, heads) in [
        (
            80,
            list,
            &["RECEIVED (UTC)", "STATE", "TRIES", "WEBHOOK ID", "EXPIRES"][..],
        ),
        (
            80,
            stats,
            &["ENDPOINT", "SCHEDULED", "DEAD", "PAUSED", "NEXT EXPIRY"],
        ),
        (
            160,
            list,
            &["EXPIRES", "EVENT TYPE", "ENDPOINT", "LAST ERROR"],
        ),
        (160, stats, &["OLDEST", "EXPIRED", "DONE"]),
    ] {
        let table = run_in_terminal(&dir, columns, args);
        let widest = table
            .lines()
            .map(|line| line.chars().count())
            .max()
            .unwrap();
        assert!(widest <= columns, "{widest} columns:\n{table}");
        for head in heads {
            assert!(
                table.lines().next().unwrap().contains(head),
                "{head}:\n{table}"
            );
        }
        assert!(table.contains("in 59 min"), "{table}");
        let complete = if args == list {
            id
        } else {
            "/webhooks/acme-production"
        };
        assert!(table.contains(complete), "{table}");
    }
    // As long as the sandbox's.
    let long = format!("msg_{}", "0123456789".repeat(4));
    let server = dir.serve(&["--path", "/webhooks/acme-production"], ENV);
    assert_eq!(dir.send(&server.url, &["--id", &long]).code, 0);
    assert_eq!(server.stop("-TERM").0, Some(0));
    for (columns, has_expiry) in [(80, false), (100, true)] {
        let table = run_in_terminal(&dir, columns, list);
        let fits = table.lines().all(|line| line.chars().count() <= columns);
        assert!(fits && table.contains(&long), "{table}");
        assert_eq!(table.contains("EXPIRES"), has_expiry, "{table}");
        assert_eq!(table.contains("in 59 min"), has_expiry, "{table}");
    }
}
