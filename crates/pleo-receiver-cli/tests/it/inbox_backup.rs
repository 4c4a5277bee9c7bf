//! Tests of `inbox backup` and `inbox check`, in the steps that `docs/production.md` describes.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rusqlite::Connection;
use tokio::task::JoinSet;

use crate::support::large_messages::{body, stored};
use crate::support::program::{ENV, WorkDir};
use crate::support::{Request, send_to};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restores_backup_taken_under_load() {
    let dir = WorkDir::new();
    let server = dir.serve(&[], ENV);
    let address = server.address().to_owned();
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut senders = JoinSet::new();
    for sender in 0..4 {
        let (address, acknowledged) = (address.clone(), Arc::clone(&acknowledged));
        let stop = Arc::clone(&stop);
        senders.spawn(async move {
            let mut ids = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let id = format!("msg_{sender}_{}", ids.len());
                let answer = send_to(&address, &Request::signed(&id, &body(&id))).await;
                assert_eq!(answer.status, 204);
                ids.push(id);
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            ids
        });
    }
    let wait_for = async |count: usize| {
        while acknowledged.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
        }
    };
    wait_for(200).await;
    let before = acknowledged.load(Ordering::SeqCst);
    let backup = tokio::task::block_in_place(|| dir.run(&["inbox", "backup", "backup.db"]));
    assert_eq!(backup.code, 0, "{backup:?}");
    // The server went on meanwhile.
    wait_for(before + 1).await;
    stop.store(true, Ordering::SeqCst);
    let sent = senders.join_all().await.concat();
    assert_eq!(server.stop("-TERM").0, Some(0));

    let file = dir.path().join("backup.db");
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = dir.run(&["inbox", "backup", "backup.db"]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.stderr.contains("the file exists"), "{again:?}");
    let check = dir.run(&["inbox", "check", "--inbox", "backup.db"]);
    assert_eq!(check.code, 0, "{check:?}");

    let old = dir.path().join("old");
    fs::create_dir(&old).unwrap();
    for file in ["pleo-inbox.db", "pleo-inbox.db-wal", "pleo-inbox.db-shm"] {
        let moved = fs::rename(dir.path().join(file), old.join(file));
        assert!(moved.is_ok() || file != "pleo-inbox.db", "{moved:?}");
    }
    fs::rename(&file, dir.path().join("pleo-inbox.db")).unwrap();
    let server = dir.serve(&[], ENV);
    let restored = stored(&dir.path().join("pleo-inbox.db")).await;
    assert!(restored.len() >= before, "{} of {before}", restored.len());
    assert!(restored.iter().all(|id| sent.contains(id)));
    // A message that arrived after the backup is stored when it is sent again.
    for id in sent.iter().filter(|id| !restored.contains(id)).take(3) {
        let answer = send_to(server.address(), &Request::signed(id, &body(id))).await;
        assert_eq!(answer.status, 204);
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn backup_fails_without_trace() {
    let dir = WorkDir::new();
    let missing = dir.run(&["inbox", "backup", "backup.db"]);
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(missing.stderr.contains("no such file"), "{missing:?}");
    assert_eq!(dir.serve(&[], ENV).stop("-TERM").0, Some(0));
    let no_folder = dir.run(&["inbox", "backup", "none/backup.db"]);
    assert_eq!(no_folder.code, 1, "{no_folder:?}");
    assert!(no_folder.stderr.contains("none/backup.db"), "{no_folder:?}");
    // The link's target must not be written to.
    std::os::unix::fs::symlink("target.db", dir.path().join("link.db")).unwrap();
    assert_eq!(dir.run(&["inbox", "backup", "link.db"]).code, 1);
    assert!(!dir.path().join("target.db").exists());
    let text = dir.path().join("text");
    fs::write(&text, "not a database, but a text of some length").unwrap();
    let other = dir.run(&["inbox", "backup", "backup.db", "--inbox", "text"]);
    assert_eq!(other.code, 1, "{other:?}");
    assert!(!dir.path().join("backup.db").exists());
}

#[test]
fn backs_up_to_file_whose_name_looks_like_a_uri() {
    let dir = WorkDir::new();
    stopped_with(&dir, &["msg_1"]);
    let name = "file:backup.db?mode=memory";
    let backup = dir.run(&["inbox", "backup", name]);
    assert_eq!(backup.code, 0, "{backup:?}");
    let copy = Connection::open(dir.path().join(name)).unwrap();
    let count = copy.query_row("SELECT count(*) FROM message", [], |row| row.get(0));
    assert_eq!(count, Ok(1));
}

/// Stops a server that has stored these messages.
fn stopped_with(dir: &WorkDir, ids: &[&str]) {
    let server = dir.serve(&[], ENV);
    for id in ids {
        dir.write("body", &id.repeat(10_000));
        let sent = dir.send(&server.url, &["--id", id, "--body", "body"]);
        assert_eq!(sent.code, 0, "{sent:?}");
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn check_names_messages_with_missing_rows_and_counts_orphans() {
    let dir = WorkDir::new();
    stopped_with(&dir, &["msg_1", "msg_2", "msg_3"]);
    let ok = dir.run(&["inbox", "check"]);
    assert_eq!(
        (ok.code, &*ok.stdout),
        (0, "ok      3 messages\n"),
        "{ok:?}"
    );
    let file = Connection::open(dir.path().join("pleo-inbox.db")).unwrap();
    file.execute_batch(
        "UPDATE body SET sequence = 9 WHERE sequence = 2;
         INSERT INTO attempt VALUES (7, 1, 1, 'w', 0, NULL, 'lost', NULL);",
    )
    .unwrap();
    let found = dir.run(&["inbox", "check"]);
    assert_eq!(found.code, 1, "{found:?}");
    for part in [
        "FAILED  message   msg_2 at /webhooks/pleo: its body is missing\n",
        "FAILED  file      2 rows belong to no message\n",
        "1 of 3 messages are unreadable\n",
    ] {
        assert!(found.stdout.contains(part), "{part} is not in {found:?}");
    }
    for part in ["restore a backup", "catch-up", ".recover"] {
        assert!(found.stderr.contains(part), "{part} is not in {found:?}");
    }
    let json = dir.run(&["inbox", "check", "--json"]);
    assert_eq!(json.code, 1);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["unreadable"][0]["webhook_id"], "msg_2");
    assert_eq!(
        (&json["orphans"], &json["messages"]),
        (&2.into(), &3.into())
    );
}

#[test]
fn check_finds_damaged_page_while_server_runs() {
    let dir = WorkDir::new();
    stopped_with(&dir, &["msg_1", "msg_2", "msg_3"]);
    // Zeroes a page in the middle of the second body.
    let path = dir.path().join("pleo-inbox.db");
    let mut bytes = Vec::new();
    fs::File::open(&path)
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    let pages = bytes.chunks(4096).enumerate();
    let needle = b"msg_2msg_2msg_2";
    let damaged = pages
        .filter(|(_, page)| page.windows(needle.len()).any(|part| part == needle))
        .map(|(number, _)| number)
        .nth(5)
        .unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let offset = u64::try_from(damaged * 4096).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&[0; 4096]).unwrap();
    drop(file);

    let server = dir.serve(&[], ENV);
    let found = dir.run(&["inbox", "check"]);
    assert_eq!(found.code, 1, "{found:?}");
    assert!(
        found.stdout.contains("msg_2 at /webhooks/pleo"),
        "{found:?}"
    );
    for id in ["msg_1", "msg_3"] {
        assert!(!found.stdout.contains(id), "{found:?}");
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn check_refuses_file_of_another_kind() {
    let dir = WorkDir::new();
    dir.write("text", "not a database, but a text of some length");
    dir.write("empty", "");
    Connection::open(dir.path().join("other.db"))
        .unwrap()
        .execute_batch("CREATE TABLE t (x)")
        .unwrap();
    for name in ["text", "empty", "other.db", "none.db"] {
        let output = dir.run(&["inbox", "check", "--inbox", name]);
        assert_eq!((output.code, &*output.stdout), (1, ""), "{output:?}");
        assert!(output.stderr.contains(name), "{output:?}");
    }
    assert_eq!(fs::read(dir.path().join("empty")).unwrap(), b"");
}

/// An inbox that an older release wrote, without headers.
const V1: &[u8] = include_bytes!("../../../pleo-receiver/tests/fixtures/inbox-v1.db");

#[test]
fn upgrades_backup_of_older_release() {
    let dir = WorkDir::new();
    fs::write(dir.path().join("pleo-inbox.db"), V1).unwrap();
    let backup = dir.run(&["inbox", "backup", "backup.db"]);
    assert_eq!(backup.code, 0, "{backup:?}");
    let check = dir.run(&["inbox", "check"]);
    assert_eq!((check.code, &*check.stdout), (0, "ok      8 messages\n"));
    let layout = || {
        let file = Connection::open(dir.path().join("pleo-inbox.db")).unwrap();
        file.pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0))
    };
    assert_eq!(layout(), Ok(1), "the old release can still use the file");

    let server = dir.serve(&["--exec", "true"], ENV);
    let pending = ["msg_leased", "msg_pending", "msg_binary"];
    let is_done = |id: &str| dir.json(&["inbox", "show", id, "--json"])[0]["state"] == "done";
    while !pending.iter().all(|id| is_done(id)) {
        std::thread::yield_now();
    }
    let verify = dir.run_with(&["inbox", "verify", "msg_pending"], ENV, b"");
    assert_eq!(verify.code, 1, "{verify:?}");
    assert!(
        verify.stdout.contains("without signature headers"),
        "{verify:?}"
    );
    assert_eq!(server.stop("-TERM").0, Some(0));
    assert_ne!(layout(), Ok(1));
}
