//! The commands on an inbox in PostgreSQL.

use std::fs;
use std::path::Path;
use std::process::Command;

use pleo_receiver::inbox::{LeaseRequest, Outcome};
use pleo_receiver::{Inbox, NewMessage, SqliteInbox};
use rusqlite::Connection;

use crate::support::postgres::{Server, schema, skip};
use crate::support::program::{ENV, WorkDir};

#[test]
fn commands_work_on_served_inbox() {
    let Some(database) = Server::shared() else {
        return;
    };
    let dir = WorkDir::new();
    let url = database.url(&schema());
    let refused = dir.run(&["inbox", "list", "--inbox", &url]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("inbox migrate"), "{refused:?}");
    let refused = dir.run_with(&["serve", "--inbox", &url, "--migrate=off"], ENV, b"");
    assert!(refused.stderr.contains("inbox migrate"), "{refused:?}");

    let migrated = dir.run(&["inbox", "migrate", "--inbox", &url]);
    assert_eq!(
        migrated.stdout, "migrated to version 1\nmigrated to version 2\nmigrated to version 3\n",
        "{migrated:?}"
    );
    let migrated = dir.run(&["inbox", "migrate", "--inbox", &url]);
    assert_eq!(migrated.stdout, "the schema is up to date\n");
    let server = dir.serve(&["--inbox", &url, "--migrate=off"], ENV);
    let sent = dir.run_with(
        &["send", &server.url, "--id", "msg_1", "--inbox", &url],
        ENV,
        b"",
    );
    assert!(sent.stdout.contains("message msg_1: pending"), "{sent:?}");

    let inbox = ["--inbox", &url];
    let run = |args: &[&str]| {
        let output = dir.run(&[&["inbox"], args, &inbox].concat());
        assert_eq!(output.code, 0, "{args:?}: {output:?}");
        output.stdout
    };
    assert!(run(&["list"]).contains("msg_1"));
    assert!(run(&["tail"]).contains("msg_1"));
    assert!(run(&["show", "msg_1"]).contains("webhook-signature"));
    assert_eq!(run(&["replay", "msg_1"]), "replayed 1\n");
    assert_eq!(run(&["check"]), "ok      1 messages\n");
    assert_eq!(run(&["prune", "--older-than", "0s"]), "pruned 0\n");
    let stats = &dir.json(&[&["inbox", "stats", "--json"], &inbox[..]].concat())[0];
    assert_eq!(stats["endpoints"][0]["ready"], 1);
    run(&["pause", "/webhooks/pleo"]);
    assert!(run(&["stats"]).contains("yes"));
    run(&["resume", "/webhooks/pleo"]);
    let verified = dir.run_with(
        &[&["inbox", "verify", "msg_1"], &inbox[..]].concat(),
        ENV,
        b"",
    );
    assert_eq!(verified.code, 0, "{verified:?}");
    let backup = dir.run(&[&["inbox", "backup", "copy.db"], &inbox[..]].concat());
    assert!(backup.stderr.contains("pg_dump"), "{backup:?}");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn password_comes_from_reference_and_is_never_shown() {
    let Some(database) = Server::shared() else {
        return;
    };
    let dir = WorkDir::new();
    let schema = schema();
    let url = format!("{}&password=env:DB_PASSWORD", database.url(&schema));
    let env = [ENV, &[("DB_PASSWORD", "hunter2")]].concat();
    let server = dir.serve(&["--inbox", &url], &env);
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    assert!(
        !log.contains("hunter2") && !log.contains("DB_PASSWORD"),
        "{log}"
    );
    assert!(log.contains("inbox=\"postgres://127.0.0.1:"), "{log}");

    dir.write(
        "url",
        &url.replace("password=env:DB_PASSWORD", "password=hunter2"),
    );
    let list = dir.run(&["inbox", "list", "--inbox", "file:url"]);
    assert_eq!(list.code, 0, "{list:?}");
    // The file holds the password alone.
    dir.write("url", "hunter2");
    let failed = dir.run(&["inbox", "list", "--inbox", "file:url"]);
    assert_eq!(failed.code, 2, "{failed:?}");
    assert!(
        failed.stderr.contains("holds no URL") && !failed.stderr.contains("hunter2"),
        "{failed:?}"
    );
    // A closed port.
    dir.write("url", "postgres://pleo:hunter2@127.0.0.1:1/pleo");
    let failed = dir.run(&["inbox", "list", "--inbox", "file:url"]);
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.stderr.contains("127.0.0.1:1/pleo"), "{failed:?}");
    assert!(!failed.stderr.contains("hunter2"), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_file_with_history_and_can_be_repeated() {
    let Some(database) = tokio::task::block_in_place(Server::shared) else {
        return;
    };
    let dir = WorkDir::new();
    let schema = schema();
    let url = database.url(&schema);
    let file = dir.path().join("pleo-inbox.db");
    let source = SqliteInbox::open(&file).unwrap();
    for n in 0..450 {
        let message = NewMessage::new("books", format!("msg_{n}"), format!("body {n}"));
        source.append(message).await.unwrap();
    }
    let lease = async |max| {
        let request = LeaseRequest::new(max, core::time::Duration::from_secs(30), "worker");
        source.lease(request).await.unwrap().messages
    };
    for (n, leased) in lease(300).await.into_iter().enumerate() {
        let error = "failed\0".to_owned();
        let after = core::time::Duration::from_secs(5000);
        let outcome = match n % 3 {
            0 => Outcome::Done,
            1 => Outcome::Dead { error },
            _ => Outcome::Retry { after, error },
        };
        source.complete(leased.lease, outcome).await.unwrap();
    }
    source.set_paused("sales".into(), true).await.unwrap();
    source.close().await.unwrap();
    drop(source);
    let args = |file: &str| ["inbox", "list", "--json", "--inbox", file].map(ToOwned::to_owned);
    let list = |url: &str| {
        let args = args(url);
        dir.json(&args.each_ref().map(String::as_str))
    };
    let before = list("pleo-inbox.db");
    let show = |url: &str| {
        let mut shown = Vec::new();
        for id in ["msg_0", "msg_1", "msg_2", "msg_400"] {
            shown.extend(dir.json(&["inbox", "show", id, "--json", "--inbox", url]));
        }
        shown
    };
    let shown = show("pleo-inbox.db");
    fs::copy(&file, dir.path().join("copy.db")).unwrap();

    let moving = ["inbox", "move", "--from", "pleo-inbox.db", "--to", &url];
    let execute = |sql: &str| tokio::task::block_in_place(|| database.execute(sql));
    // Killed while its second statement waits, which has half of the messages.
    dir.run(&["inbox", "migrate", "--inbox", &url]);
    execute(&format!(
        "CREATE FUNCTION {schema}.wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM pg_advisory_xact_lock(hashtextextended('{schema} half', 0));
             RETURN NEW;
         END $$;
         CREATE TRIGGER wait BEFORE INSERT ON {schema}.message
         FOR EACH ROW WHEN (NEW.webhook_id = 'msg_300') EXECUTE FUNCTION {schema}.wait()"
    ));
    let lock = tokio::task::block_in_place(|| database.lock(&format!("{schema} half")));
    let mut interrupted = dir.command(&moving).spawn().unwrap();
    tokio::task::block_in_place(|| lock.wait_for_waiters(1));
    interrupted.kill().unwrap();
    interrupted.wait().unwrap();
    let count = format!("SELECT count(*) FROM {schema}.message");
    assert_eq!(execute(&count).trim(), "200");
    // The server may complete the second statement, since it has not noticed.
    drop(lock);
    execute(&format!("DROP TRIGGER wait ON {schema}.message"));
    assert!(file.exists());
    let moved = dir.run(&moving);
    assert_eq!(moved.code, 0, "{moved:?}");
    assert!(!file.exists());
    assert_eq!(list(&url), before);
    assert_eq!(show(&url), shown);
    // What is there already is not changed.
    let again = dir.json(&["inbox", "move", "--from", "copy.db", "--to", &url, "--json"]);
    assert_eq!(
        (&again[0]["moved"], &again[0]["duplicates"]),
        (&0.into(), &450.into())
    );
    assert_eq!(list(&url), before);
    let stats = &dir.json(&["inbox", "stats", "--json", "--inbox", &url])[0]["endpoints"];
    assert_eq!(
        (&stats[0]["done"], &stats[0]["scheduled"]),
        (&100.into(), &100.into())
    );
    assert_eq!(stats[1]["paused"], true);
}

/// Creates an inbox with a message of each id.
async fn create(file: &Path, ids: impl Iterator<Item = String>) {
    let inbox = SqliteInbox::open(file).unwrap();
    for id in ids {
        let body = format!("body of {id}");
        inbox
            .append(NewMessage::new("books", id, body))
            .await
            .unwrap();
    }
    inbox.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn move_goes_on_after_unreadable_messages() {
    let Some(database) = tokio::task::block_in_place(Server::shared) else {
        return;
    };
    let dir = WorkDir::new();
    let url = database.url(&schema());
    let file = dir.path().join("pleo-inbox.db");
    create(&file, (1..=300).map(|n| format!("msg_{n}"))).await;
    let damaged = Connection::open(&file).unwrap();
    damaged
        .execute_batch(
            "DELETE FROM body WHERE sequence = 7;
             UPDATE message SET event_type = CAST(x'FF' AS TEXT) WHERE sequence = 250;",
        )
        .unwrap();
    let moving = ["inbox", "move", "--from", "pleo-inbox.db", "--to", &url];
    let moved = dir.run(&moving);
    assert_eq!(moved.code, 1, "{moved:?}");
    for part in [
        "FAILED  message   msg_7 at books: its body is missing\n",
        "FAILED  message   msg_250 at books: invalid utf-8",
        "moved 298 messages, 0 were there already; the file is kept as pleo-inbox.db\n",
    ] {
        assert!(moved.stdout.contains(part), "{part} is not in {moved:?}");
    }
    assert!(moved.stderr.contains("not moved"), "{moved:?}");
    let stats = &dir.json(&["inbox", "stats", "--json", "--inbox", &url])[0]["endpoints"];
    assert_eq!(stats[0]["ready"], 298);
    // Once the file is repaired, the rest moves.
    damaged
        .execute_batch(
            "INSERT INTO body (sequence, body) VALUES (7, x'62');
             UPDATE message SET event_type = NULL WHERE sequence = 250;",
        )
        .unwrap();
    drop(damaged);
    let trace = ["-f", "-e", "trace=rename,fsync", "-o", "trace"];
    let program = env!("CARGO_BIN_EXE_pleo-receiver");
    let moved = match Command::new("strace")
        .args(trace)
        .arg(program)
        .args(moving)
        .arg("--json")
        .current_dir(dir.path())
        .output()
    {
        Ok(moved) => {
            let trace = fs::read_to_string(dir.path().join("trace")).unwrap();
            let (_, after) = trace.rsplit_once("rename(\"pleo-inbox.db\"").unwrap();
            assert!(after.contains("fsync("), "{after}");
            moved.stdout
        }
        Err(_) => {
            skip("strace is not installed");
            return;
        }
    };
    let moved: serde_json::Value = serde_json::from_slice(&moved).unwrap();
    assert_eq!(
        (&moved["moved"], &moved["duplicates"]),
        (&2.into(), &298.into())
    );
    assert_eq!(moved["kept_as"], "pleo-inbox.db.moved");
    assert!(!file.exists());
}

/// A constraint and a trigger of an administrator, and a key that is too long for an index.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn move_goes_on_after_messages_that_server_refuses() {
    let Some(database) = tokio::task::block_in_place(Server::shared) else {
        return;
    };
    let dir = WorkDir::new();
    let schema = schema();
    let url = database.url(&schema);
    let file = dir.path().join("pleo-inbox.db");
    // Digits that cannot be compressed.
    let digits = (0_u64..2000).map(|n| {
        let mixed = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!("{:x}", mixed ^ (mixed >> 29))
    });
    let long: String = digits.collect();
    let ids = (1..=300).map(|n| match n {
        290 => long.clone(),
        _ => format!("msg_{n}"),
    });
    create(&file, ids).await;
    dir.run(&["inbox", "migrate", "--inbox", &url]);
    let execute = |sql: &str| tokio::task::block_in_place(|| database.execute(sql));
    execute(&format!(
        "ALTER TABLE {schema}.message ADD CONSTRAINT not_7 CHECK (webhook_id <> 'msg_7');
         CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             RAISE EXCEPTION 'not this one' USING ERRCODE = TG_ARGV[0];
         END $$;
         CREATE TRIGGER refuse_8 BEFORE INSERT ON {schema}.message
         FOR EACH ROW WHEN (NEW.webhook_id = 'msg_8') EXECUTE FUNCTION {schema}.refuse('P0001');
         CREATE TRIGGER refuse_9 BEFORE INSERT ON {schema}.message
         FOR EACH ROW WHEN (NEW.webhook_id = 'msg_9') EXECUTE FUNCTION {schema}.refuse('ZZ042')"
    ));
    let moving = ["inbox", "move", "--from", "pleo-inbox.db", "--to", &url];
    let moved = dir.run(&moving);
    assert_eq!(moved.code, 1, "{moved:?}");
    for part in [
        "FAILED  message   msg_7 at books: the inbox refuses the message: ",
        "not_7",
        "FAILED  message   msg_8 at books: the inbox refuses the message: not this one (SQLSTATE P0001)",
        "FAILED  message   msg_9 at books: the inbox refuses the message: not this one (SQLSTATE ZZ042)",
        "(SQLSTATE 54000)",
        "moved 296 messages, 0 were there already; the file is kept as pleo-inbox.db\n",
    ] {
        assert!(moved.stdout.contains(part), "{part} is not in {moved:?}");
    }
    assert!(
        moved.stderr.contains("correct why PostgreSQL refuses them"),
        "{moved:?}"
    );
    let stored = dir.json(&["inbox", "list", "--json", "--inbox", &url]);
    assert_eq!(stored.len(), 296);
    let left = dir.json(&["inbox", "list", "--json", "--inbox", "pleo-inbox.db"]);
    assert_eq!(left.len(), 300);

    // Another run moves what is not refused any more.
    execute(&format!(
        "ALTER TABLE {schema}.message DROP CONSTRAINT not_7;
         DROP TRIGGER refuse_8 ON {schema}.message"
    ));
    let moved = dir.run(&[&moving[..], &["--json"]].concat());
    assert_eq!(moved.code, 1, "{moved:?}");
    let moved: serde_json::Value = serde_json::from_str(&moved.stdout).unwrap();
    assert_eq!(
        (&moved["moved"], &moved["duplicates"]),
        (&2.into(), &296.into())
    );
    assert_eq!(moved["unreadable"], serde_json::json!([]));
    assert_eq!(moved["refused"][0]["endpoint"], "books");
    assert_eq!(moved["refused"][0]["webhook_id"], "msg_9");
    assert_eq!(moved["refused"][1]["webhook_id"], *long);
    assert_eq!(moved["refused"].as_array().unwrap().len(), 2);
    assert_eq!(moved["kept_as"], "pleo-inbox.db");

    execute(&format!("DROP TRIGGER refuse_9 ON {schema}.message"));
    let shorten = "UPDATE message SET webhook_id = 'msg_290' WHERE sequence = 290";
    let repaired = Connection::open(&file).unwrap();
    repaired.execute_batch(shorten).unwrap();
    drop(repaired);
    let moved = &dir.json(&[&moving[..], &["--json"]].concat())[0];
    assert_eq!(
        (&moved["moved"], &moved["duplicates"]),
        (&2.into(), &298.into())
    );
    assert_eq!(moved["kept_as"], "pleo-inbox.db.moved");
    assert!(!file.exists());
}

/// What the user of the inbox cannot do is no fault of a message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn move_ends_if_server_refuses_all_messages() {
    let Some(database) = tokio::task::block_in_place(Server::shared) else {
        return;
    };
    let dir = WorkDir::new();
    let schema = schema();
    let url = database.url(&schema);
    let file = dir.path().join("pleo-inbox.db");
    create(&file, (1..=3).map(|n| format!("msg_{n}"))).await;
    dir.run(&["inbox", "migrate", "--inbox", &url]);
    tokio::task::block_in_place(|| {
        database.execute(&format!(
            "CREATE ROLE {schema}_reader LOGIN;
             GRANT USAGE ON SCHEMA {schema} TO {schema}_reader;
             GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {schema}_reader"
        ))
    });
    let url = url.replacen("postgres@", &format!("{schema}_reader@"), 1);
    let moving = ["inbox", "move", "--from", "pleo-inbox.db", "--to", &url];
    let moved = dir.run(&moving);
    assert_eq!((moved.code, &*moved.stdout), (1, ""), "{moved:?}");
    let count = moved.stderr.matches("permission denied").count();
    assert_eq!(count, 1, "{moved:?}");
}
