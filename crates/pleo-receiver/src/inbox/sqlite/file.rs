//! The database file: creation, locking, schema.

use core::time::Duration;
use std::error::Error;
#[cfg(target_os = "linux")]
use std::fs::{self, DirEntry};
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::error::open_error;
use crate::inbox::error::InboxError;
use crate::inbox::types::ceil_millisecond;

/// SQLite's `application_id`: "PleI".
const APPLICATION_ID: i32 = 0x506C_6549;

/// SQLite's `user_version`. Increase it with every change of the schema.
const SCHEMA_VERSION: i32 = 1;

/// How long to wait for a transaction of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Bodies have a table of their own, so that an update of the state does not rewrite the body.
///
/// A sequence is never reused: `last_deleted` keeps the last one that was deleted. (`AUTOINCREMENT`
/// would write each new sequence. A `CHECK` with `IN` and three or more values would build a table for
/// each row.)
///
/// The key begins with `webhook_id`: the sender's ids increase with time, so that inserts append to
/// the index, with any number of endpoints. Ready, waiting and dead messages each have a partial
/// index, so that the time to find them does not depend on the number of done messages.
const SCHEMA: &str = "
    CREATE TABLE message (
        sequence    INTEGER PRIMARY KEY,
        endpoint    TEXT NOT NULL,
        webhook_id  TEXT NOT NULL,
        event_type  TEXT,
        event_id    TEXT,
        resource_id TEXT,
        origin      TEXT NOT NULL CHECK (origin IN ('webhook', 'catch-up')),
        received_at INTEGER NOT NULL,
        expires_at  INTEGER,
        state       TEXT NOT NULL DEFAULT 'pending'
                    CHECK (state = 'pending' OR state = 'done' OR state = 'dead'),
        attempts    INTEGER NOT NULL DEFAULT 0,
        claims      INTEGER NOT NULL DEFAULT 0,
        due_at      INTEGER,
        leased      INTEGER NOT NULL DEFAULT 0,
        last_error  TEXT
    ) STRICT;
    CREATE TABLE body (
        sequence    INTEGER PRIMARY KEY,
        body        BLOB NOT NULL
    ) STRICT;
    CREATE TABLE last_deleted (
        sequence    INTEGER NOT NULL
    ) STRICT;
    INSERT INTO last_deleted VALUES (0);
    CREATE TRIGGER message_deleted AFTER DELETE ON message BEGIN
        DELETE FROM body WHERE sequence = OLD.sequence;
        UPDATE last_deleted SET sequence = OLD.sequence WHERE sequence < OLD.sequence;
    END;
    CREATE UNIQUE INDEX message_key ON message (webhook_id, endpoint);
    CREATE INDEX message_ready ON message (endpoint, coalesce(expires_at, 9223372036854775807))
        WHERE state = 'pending' AND due_at IS NULL;
    CREATE INDEX message_waiting ON message (due_at, leased)
        WHERE state = 'pending' AND due_at IS NOT NULL;
    CREATE INDEX message_dead ON message (received_at) WHERE state = 'dead';
";

/// Creates the file if it is missing, readable by its owner only, and returns its canonical path.
///
/// Does not open an existing file: closing it would release the POSIX locks that this process may
/// already have on it.
pub(super) fn create(path: &Path) -> Result<PathBuf, InboxError> {
    let created = match open_private(OpenOptions::new().create_new(true), path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => path.canonicalize(),
    };
    created.map_err(|error| open_error(path, error))
}

/// Flushes the write-ahead log to the disk. A server that crashed may have written messages without
/// the flush, and a duplicate of them is acknowledged without another write. (While another
/// process reads, a checkpoint may not flush the log.)
///
/// Call it while the inbox is open: only then the log exists. SQLite has no locks on the log that
/// closing it could release.
pub(super) fn sync_wal(path: &Path) -> io::Result<()> {
    let wal = OpenOptions::new().write(true).open(beside(path, "-wal"))?;
    wal.sync_all()?;
    // The file may be new: flush its directory entry.
    #[cfg(unix)]
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// Opens an existing file; creates the schema if the file is empty.
pub(super) fn open(path: &Path) -> Result<Connection, InboxError> {
    connect(path).map_err(|error| open_error(path, error))
}

/// Locks the inbox for this server and writes the process id into the lock file. The lock is released
/// when the file is dropped or the process ends.
pub(super) fn lock(path: &Path) -> Result<File, InboxError> {
    let mut file = open_private(OpenOptions::new().create(true), &lock_path(path))
        .map_err(|error| open_error(path, error))?;
    // `lock_owner` of another process holds the lock briefly.
    let mut tries = 0..5;
    let locked = loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if tries.next().is_some() => {
                thread::sleep(Duration::from_millis(20));
            }
            locked => break locked,
        }
    };
    match locked {
        Ok(()) => {
            let pid = std::process::id().to_string();
            let written = file
                .set_len(0)
                .and_then(|()| file.write_all(pid.as_bytes()));
            written.map_err(|error| open_error(path, error))?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => Err(InboxError::InUse {
            path: path.display().to_string(),
        }),
        Err(TryLockError::Error(error)) => Err(open_error(path, error)),
    }
}

/// Returns `true` if a server holds the lock.
pub(super) fn is_locked(path: &Path) -> bool {
    let file = path
        .canonicalize()
        .and_then(|path| File::open(lock_path(&path)));
    file.is_ok_and(|file| is_taken(&file))
}

/// Returns the process that holds the lock; `None` if there is none, or it is not visible.
pub(super) fn lock_owner(path: &Path) -> Option<u32> {
    let mut file = File::open(lock_path(&path.canonicalize().ok()?)).ok()?;
    if !is_taken(&file) {
        return None;
    }
    let mut pid = String::new();
    file.read_to_string(&mut pid).ok()?;
    let pid = pid.parse().ok()?;
    let metadata = file.metadata().ok()?;
    // This process must not have the file open when `has_open` looks for it.
    drop(file);
    has_open(pid, &metadata).then_some(pid)
}

fn is_taken(file: &File) -> bool {
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// Returns `true` if the process has the file open. If the server runs in another container, its
/// process id may belong to another process here.
#[cfg(target_os = "linux")]
fn has_open(pid: u32, file: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    let is_same = |entry: DirEntry| {
        let open = fs::metadata(entry.path());
        open.is_ok_and(|open| (open.dev(), open.ino()) == (file.dev(), file.ino()))
    };
    let entries = fs::read_dir(format!("/proc/{pid}/fd"));
    entries.is_ok_and(|mut entries| entries.any(|entry| entry.is_ok_and(is_same)))
}

/// Other systems have no process id namespaces.
#[cfg(not(target_os = "linux"))]
const fn has_open(_: u32, _: &Metadata) -> bool {
    true
}

/// Ends the leases of a server that crashed. `delay_after_crash` takes a message's attempts.
pub(super) fn end_leases(
    connection: &mut Connection,
    now: Timestamp,
    delay_after_crash: impl Fn(u32) -> Option<Duration>,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let leased: Vec<(i64, u32)> = transaction
        .prepare(
            "SELECT sequence, attempts FROM message INDEXED BY message_waiting
             WHERE state = 'pending' AND due_at IS NOT NULL AND leased = 1",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (sequence, attempts) in leased {
        let ready_at = |delay| now.checked_add(delay).unwrap_or(Timestamp::MAX);
        let due_at = delay_after_crash(attempts).map(|delay| ceil_millisecond(ready_at(delay)));
        transaction.execute(
            "UPDATE message SET leased = 0, due_at = ?2 WHERE sequence = ?1",
            (sequence, due_at),
        )?;
    }
    transaction.commit()
}

/// The inodes of the open database and its write-ahead log.
///
/// Writes to a file that was removed or replaced are lost when it is closed, without an error. SQLite
/// checks that only without a write-ahead log (`SQLITE_READONLY_DBMOVED`).
pub(super) struct OpenFiles([(PathBuf, u64); 2]);

impl OpenFiles {
    /// Call it while the inbox is open: only then the write-ahead log exists.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let wal = beside(&path, "-wal");
        let (path_inode, wal_inode) = (inode(&path)?, inode(&wal)?);
        Ok(Self([(path, path_inode), (wal, wal_inode)]))
    }

    /// Checks that both files are still at their paths.
    pub(super) fn check(&self) -> Result<(), FileMoved> {
        for (path, opened) in &self.0 {
            if !inode(path).is_ok_and(|inode| inode == *opened) {
                return Err(FileMoved(path.display().to_string()));
            }
        }
        Ok(())
    }
}

/// An open file was removed or replaced.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` was removed or replaced while it was open; put it back, or restart the receiver to create a new one"
)]
pub(super) struct FileMoved(String);

#[cfg(unix)]
fn inode(path: &Path) -> io::Result<u64> {
    path.metadata()
        .map(|data| std::os::unix::fs::MetadataExt::ino(&data))
}

/// On other systems an open file cannot be removed.
#[cfg(not(unix))]
fn inode(path: &Path) -> io::Result<u64> {
    path.metadata().map(|_| 0)
}

fn lock_path(path: &Path) -> PathBuf {
    beside(path, ".lock")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn open_private(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options.open(path)
}

fn connect(path: &Path) -> Result<Connection, Box<dyn Error + Send + Sync>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Checked before the first write, so that another application's file stays unchanged.
    is_inbox(&connection)?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err("its file system does not support SQLite's WAL mode; use a local disk".into());
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.set_prepared_statement_cache_capacity(32);

    // In one transaction, because another process may create the schema at the same time.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if !is_inbox(&transaction)? {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    transaction.commit()?;
    Ok(connection)
}

/// Returns `true` if the file is an inbox, `false` if it is empty, an error if it is anything else.
fn is_inbox(connection: &Connection) -> Result<bool, Box<dyn Error + Send + Sync>> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    match (pragma("application_id")?, pragma("user_version")?) {
        (APPLICATION_ID, SCHEMA_VERSION) => Ok(true),
        (APPLICATION_ID, newer) => {
            Err(format!("a newer release created it (schema {newer}); upgrade the receiver").into())
        }
        (0, 0) if is_empty(connection)? => Ok(false),
        _ => Err("it is the SQLite file of another application; use another file".into()),
    }
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| {
        row.get(0)
    })
}
