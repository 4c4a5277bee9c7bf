//! Tests of the lock, of shared access and of file permissions.

use core::time::Duration;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use pleo_receiver::{Appended, Counts, Filter, Inbox, InboxError, Outcome, Selection, SqliteInbox};

use super::{body, directory, message};
use crate::support::inbox::{at, lease};

#[tokio::test]
async fn allows_one_owner_at_a_time() {
    let (_directory, path) = directory();
    let inbox = SqliteInbox::open(&path).unwrap();
    let error = SqliteInbox::open(&path).unwrap_err();
    assert!(matches!(error, InboxError::InUse { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&*path.to_string_lossy()), "{text}");
    assert_eq!(
        inbox.append(message("a")).await.unwrap(),
        Appended::Stored,
        "the owner is not affected"
    );
    drop(inbox);
    let inbox = SqliteInbox::open(&path).unwrap();
    assert_eq!(
        inbox.append(message("a")).await.unwrap(),
        Appended::Duplicate
    );
}

#[tokio::test]
async fn opens_after_close() {
    let (_directory, path) = directory();
    let closed = SqliteInbox::open(&path).unwrap();
    closed.append(message("a")).await.unwrap();
    closed.close().await.unwrap();
    let inbox = SqliteInbox::open(&path).unwrap();
    assert_eq!(
        inbox.append(message("a")).await.unwrap(),
        Appended::Duplicate
    );
}

#[cfg(unix)]
#[tokio::test]
async fn finds_server_pid_while_server_runs() {
    let (directory, path) = directory();
    assert_eq!(SqliteInbox::server_pid(&path), None);
    // Longer than any process id: the server must truncate the file.
    let left_behind = "99999999999999";
    fs::write(directory.path().join("inbox.db.lock"), left_behind).unwrap();
    assert_eq!(SqliteInbox::server_pid(&path), None);
    assert!(!SqliteInbox::is_served(&path));

    let inbox = SqliteInbox::open(&path).unwrap();
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for path in [&path, &link] {
        assert_eq!(SqliteInbox::server_pid(path), Some(std::process::id()));
        assert!(SqliteInbox::is_served(path));
    }
    inbox.close().await.unwrap();
    assert_eq!(SqliteInbox::server_pid(&path), None);
    assert!(!SqliteInbox::is_served(&path));
    // The queries do not prevent a server from starting.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = SqliteInbox::server_pid(&path);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        for _ in 0..20 {
            SqliteInbox::open(&path).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[cfg(unix)]
#[tokio::test]
async fn detects_same_inbox_through_symlink() {
    let (directory, path) = directory();
    let link = directory.path().join("link.db");
    let inbox = SqliteInbox::open(&path).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let error = SqliteInbox::open(&link).unwrap_err();
    assert!(matches!(error, InboxError::InUse { .. }), "{error:?}");
    assert_eq!(inbox.append(message("a")).await.unwrap(), Appended::Stored);
}

#[tokio::test]
async fn shared_inbox_reads_and_replays() {
    let (_directory, path) = directory();
    let owner = SqliteInbox::open(&path).unwrap();
    for id in ["held", "dead"] {
        owner.append(message(id)).await.unwrap();
    }
    let leased = lease(&owner, at(0)).await;
    let error = "why".to_owned();
    let dead = Outcome::Dead { error };
    owner.complete(leased[1].lease, dead).await.unwrap();

    let shared = SqliteInbox::open_shared(&path).unwrap();
    let all = shared.list(Filter::default()).await.unwrap();
    assert_eq!(all, owner.list(Filter::default()).await.unwrap());
    assert_eq!(all[0].due_at, Some(at(100)), "the owner's lease goes on");
    assert_eq!(shared.show("dead".into()).await.unwrap()[0].1, body("dead"));
    assert_eq!(shared.replay(Selection::dead()).await.unwrap(), 1);
    drop(shared);

    owner.ready().await;
    assert_eq!(*lease(&owner, at(0)).await[0].message.webhook_id, *"dead");
    let error = SqliteInbox::open(&path).unwrap_err();
    assert!(matches!(error, InboxError::InUse { .. }), "{error:?}");
}

#[tokio::test]
async fn shared_inbox_needs_no_owner() {
    let (_directory, path) = directory();
    drop(SqliteInbox::open(&path).unwrap());
    let shared = SqliteInbox::open_shared(&path).unwrap();
    assert_eq!(shared.counts().await.unwrap(), Counts::default());
    let owner = SqliteInbox::open(&path).unwrap();
    assert_eq!(owner.append(message("a")).await.unwrap(), Appended::Stored);
    assert_eq!(shared.counts().await.unwrap().pending, 1);
}

#[cfg(unix)]
#[tokio::test]
async fn creates_files_readable_by_owner_only() {
    use std::os::unix::fs::PermissionsExt;

    let (directory, path) = directory();
    let inbox = SqliteInbox::open(&path).unwrap();
    inbox.append(message("a")).await.unwrap();
    let mut names = Vec::new();
    for file in fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file:?}");
        names.push(file.file_name().into_string().unwrap());
    }
    names.sort();
    let expected = ["inbox.db", "inbox.db-shm", "inbox.db-wal", "inbox.db.lock"];
    assert_eq!(names, expected);
}
