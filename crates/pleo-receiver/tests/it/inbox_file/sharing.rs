//! Tests of the lock, of shared access and of file permissions.

use core::time::Duration;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use pleo_receiver::inbox::{LeaseRequest, Outcome, Version};
use pleo_receiver::{
    Appended, Inbox, InboxErrorKind, Selection, SqliteInbox, SqliteOpenError, SqliteOptions,
};

use super::{TTL, assert_open_fails, body, directory, key, lease, list, message};

#[tokio::test]
async fn allows_one_owner_at_a_time() {
    let (_directory, path) = directory();
    let inbox = SqliteInbox::open(&path).unwrap();
    let error = SqliteInbox::open(&path).unwrap_err();
    assert!(matches!(error, SqliteOpenError::InUse { .. }), "{error:?}");
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
async fn refuses_symbolic_links() {
    let (directory, path) = directory();
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let text = assert_open_fails(SqliteInbox::open(&link), &link);
    assert!(text.contains("symbolic link"), "{text}");
    assert!(!path.exists(), "the target of the link was created");
    drop(SqliteInbox::open(&path).unwrap());
    for suffix in ["-wal", ".lock"] {
        let target = directory.path().join("target");
        fs::write(&target, "not empty").unwrap();
        let beside = directory.path().join(format!("inbox.db{suffix}"));
        let _ = fs::remove_file(&beside);
        std::os::unix::fs::symlink(&target, &beside).unwrap();
        assert_open_fails(SqliteInbox::open(&path), &path);
        assert_eq!(fs::read_to_string(&target).unwrap(), "not empty");
        fs::remove_file(&beside).unwrap();
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn deleted_lock_file_lets_no_second_server_in() {
    let (directory, path) = directory();
    let inbox = SqliteInbox::open(&path).unwrap();
    fs::remove_file(directory.path().join("inbox.db.lock")).unwrap();
    let error = SqliteInbox::open(&path).unwrap_err();
    assert!(matches!(error, SqliteOpenError::InUse { .. }), "{error:?}");
    assert_eq!(inbox.append(message("a")).await.unwrap(), Appended::Stored);
}

#[cfg(unix)]
#[tokio::test]
async fn refuses_directory_that_others_can_write_to_unless_allowed() {
    use std::os::unix::fs::PermissionsExt;

    let (directory, path) = directory();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let text = assert_open_fails(SqliteInbox::open(&path), &path);
    assert!(text.contains("other users can write"), "{text}");
    let options = SqliteOptions::default().with_allow_shared_directory(true);
    SqliteInbox::open_with(&path, options).unwrap();
}

#[tokio::test]
async fn shared_inbox_reads_and_replays() {
    let (_directory, path) = directory();
    let owner = SqliteInbox::open(&path).unwrap();
    for id in ["held", "dead"] {
        owner.append(message(id)).await.unwrap();
    }
    let leased = lease(&owner, 10).await;
    let error = "why".to_owned();
    let dead = Outcome::Dead { error };
    owner.complete(leased[1].lease, dead).await.unwrap();

    let shared = SqliteInbox::open_shared(&path).unwrap();
    let all = list(&shared).await;
    assert_eq!(all, list(&owner).await);
    assert!(all[0].leased, "the owner's lease goes on");
    let dead = shared.get(key("dead")).await.unwrap().unwrap();
    assert_eq!((dead.body, dead.attempts.len()), (body("dead"), 1));
    let request = LeaseRequest::new(1, TTL, "test");
    let error = shared.lease(request).await.unwrap_err();
    assert_eq!(error.kind(), InboxErrorKind::Unsupported);
    assert_eq!(shared.replay(Selection::all()).await.unwrap(), 1);
    drop(shared);

    // It does not know of the change, but resolves after its interval.
    let request = LeaseRequest::new(1, TTL, "test");
    owner.changed(Version::default()).await;
    let leased = owner.lease(request).await.unwrap().messages;
    assert_eq!(&*leased[0].message.entry.webhook_id, "dead");
    let error = SqliteInbox::open(&path).unwrap_err();
    assert!(matches!(error, SqliteOpenError::InUse { .. }), "{error:?}");
}

#[tokio::test]
async fn shared_inbox_needs_no_owner() {
    let (_directory, path) = directory();
    drop(SqliteInbox::open(&path).unwrap());
    let shared = SqliteInbox::open_shared(&path).unwrap();
    assert_eq!(shared.stats().await.unwrap(), []);
    let owner = SqliteInbox::open(&path).unwrap();
    assert_eq!(owner.append(message("a")).await.unwrap(), Appended::Stored);
    assert_eq!(shared.stats().await.unwrap()[0].ready, 1);
}

#[cfg(unix)]
#[tokio::test]
async fn makes_files_readable_by_owner_only() {
    use std::os::unix::fs::PermissionsExt;

    let (directory, path) = directory();
    for name in ["inbox.db", "inbox.db.lock"] {
        let file = directory.path().join(name);
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    }
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
