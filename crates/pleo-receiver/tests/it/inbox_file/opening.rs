//! Tests of opening: which files are created, opened or refused.

use std::fs;

use pleo_receiver::SqliteInbox;
use rusqlite::Connection;

use super::{assert_open_fails, directory};

#[test]
fn open_shared_creates_no_file() {
    let (directory, path) = directory();
    assert_open_fails(SqliteInbox::open_shared(&path), &path);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn refuses_text_file_unchanged() {
    let (_directory, path) = directory();
    let text = "not a database\n".repeat(100);
    fs::write(&path, &text).unwrap();
    assert_open_fails(SqliteInbox::open(&path), &path);
    assert_open_fails(SqliteInbox::open_shared(&path), &path);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn refuses_database_of_other_application_unchanged() {
    let (_directory, path) = directory();
    let other = Connection::open(&path).unwrap();
    other
        .execute_batch("CREATE TABLE message (a); INSERT INTO message VALUES (1)")
        .unwrap();
    drop(other);
    let bytes = fs::read(&path).unwrap();
    for result in [SqliteInbox::open(&path), SqliteInbox::open_shared(&path)] {
        let text = assert_open_fails(result, &path);
        assert!(text.contains("another application"), "{text}");
    }
    assert!(fs::read(&path).unwrap() == bytes, "the file was changed");
}

#[test]
fn refuses_inbox_of_newer_release_unchanged() {
    let (_directory, path) = directory();
    drop(SqliteInbox::open(&path).unwrap());
    let newer = Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 1000).unwrap();
    drop(newer);
    let text = assert_open_fails(SqliteInbox::open(&path), &path);
    assert!(text.contains("newer release"), "{text}");
    let newer = Connection::open(&path).unwrap();
    let version = newer.pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0));
    assert_eq!(version.unwrap(), 1000);
}

#[test]
fn turns_empty_file_into_inbox() {
    let (_directory, path) = directory();
    fs::write(&path, "").unwrap();
    drop(SqliteInbox::open(&path).unwrap());
    assert!(fs::read(&path).unwrap().starts_with(b"SQLite format 3\0"));
}

#[test]
fn names_path_that_cannot_be_created() {
    let (directory, _) = directory();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let missing = directory.path().join("missing");
    for path in [missing.join("inbox.db"), file.join("inbox.db")] {
        assert_open_fails(SqliteInbox::open(&path), &path);
        assert_open_fails(SqliteInbox::open_shared(&path), &path);
    }
    assert!(!missing.exists());
    let inner = directory.path().join("inner");
    fs::create_dir(&inner).unwrap();
    assert_open_fails(SqliteInbox::open(&inner), &inner);
}

#[cfg(unix)]
#[test]
fn names_path_in_read_only_directory() {
    use std::os::unix::fs::PermissionsExt;

    let (directory, path) = directory();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let probe = fs::write(directory.path().join("probe"), "");
    let result = SqliteInbox::open(&path);
    // The superuser may write to every directory.
    if probe.is_ok() {
        assert!(result.is_ok(), "{result:?}");
    } else {
        assert_open_fails(result, &path);
    }
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
}
