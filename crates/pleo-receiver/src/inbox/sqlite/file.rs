//! The file: opened, locked, and in the shape that the rest expects.

use core::time::Duration;
use std::error::Error;
#[cfg(target_os = "linux")]
use std::fs::{self, DirEntry};
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};

use crate::InboxError;

/// "PleI", so that tools can tell what kind of SQLite file it is.
const APPLICATION_ID: i32 = 0x506C_6549;

/// Rises with every change of the schema.
const SCHEMA_VERSION: i32 = 1;

/// How long to wait for the transaction of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The body stands apart, so that a message changes its state without the body being written again.
///
/// No place is given twice, so the last that was deleted is kept. (`AUTOINCREMENT` would note each
/// that is given; and a `CHECK` with `IN` and three values or more would build a table for each row.)
///
/// The key begins with the identifier: the sender's rise with time, so that new ones go to one place
/// of the index, however many endpoints there are. What is ready, what waits and what is dead have an
/// index each, which hold no other message, so that finding them takes the same time however many
/// are done.
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

/// Makes the file when it isn't there, for its owner only, since it holds money data; SQLite would
/// make it with the usual rights. Gives the one name that it has, whatever links lead to it.
///
/// A file that is there is not opened: closing it would take away the locks that this process may
/// have on it already, and with them SQLite's log from under an inbox that is in use.
pub(super) fn make(path: &Path) -> Result<PathBuf, InboxError> {
    let made = match private(OpenOptions::new().create_new(true), path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => path.canonicalize(),
    };
    made.map_err(|error| open_error(path, error))
}

/// Puts all that the log holds onto the disk. It may hold what a server that died had written and
/// not flushed, and a message that is known is acknowledged without being written again. (A
/// checkpoint wouldn't do: while somebody reads, it may leave the log as it is.)
///
/// To be called while the inbox is open, since its log is there only then. SQLite has no locks on it
/// that closing it could take away.
pub(super) fn flush_log(path: &Path) -> io::Result<()> {
    let log = OpenOptions::new().write(true).open(beside(path, "-wal"))?;
    log.sync_all()?;
    // Its name may be as new as what it holds.
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Opens a file that is there, and brings it into shape.
pub(super) fn open(path: &Path) -> Result<Connection, InboxError> {
    connect(path).map_err(|error| open_error(path, error))
}

/// Takes the place of the one server of this inbox, and says who has it. It is free again when the
/// file is dropped, also when the process dies.
pub(super) fn lock(path: &Path) -> Result<File, InboxError> {
    let mut file = private(OpenOptions::new().create(true), &lock_path(path))
        .map_err(|error| open_error(path, error))?;
    // Somebody who only asks who the server is has the lock for a moment.
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

/// Whether a server has the lock.
pub(super) fn is_locked(path: &Path) -> bool {
    let file = path
        .canonicalize()
        .and_then(|path| File::open(lock_path(&path)));
    file.is_ok_and(|file| is_taken(&file))
}

/// The process that has the lock; `None` where none has that can be seen from here.
pub(super) fn locked_by(path: &Path) -> Option<u32> {
    let mut file = File::open(lock_path(&path.canonicalize().ok()?)).ok()?;
    if !is_taken(&file) {
        return None;
    }
    let mut pid = String::new();
    file.read_to_string(&mut pid).ok()?;
    let pid = pid.parse().ok()?;
    let metadata = file.metadata().ok()?;
    // Or this process would have it open itself.
    drop(file);
    has_open(pid, &metadata).then_some(pid)
}

fn is_taken(file: &File) -> bool {
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// Whether the process with this id has a file open. The id may mean another process here than where
/// it was written: in a container, ids are counted anew.
#[cfg(target_os = "linux")]
fn has_open(pid: u32, file: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    let is_it = |open: DirEntry| {
        let open = fs::metadata(open.path());
        open.is_ok_and(|open| (open.dev(), open.ino()) == (file.dev(), file.ino()))
    };
    let open = fs::read_dir(format!("/proc/{pid}/fd"));
    open.is_ok_and(|mut open| open.any(|one| one.is_ok_and(is_it)))
}

/// Elsewhere an id means the same process to everybody.
#[cfg(not(target_os = "linux"))]
const fn has_open(_: u32, _: &Metadata) -> bool {
    true
}

/// Whatever is leased was in the hands of a server that is gone, and is due again at once.
///
/// What was cut off in its third attempt or a later one may be what ends the servers, and waits: 5
/// seconds, twice as long each time, an hour at most, and a random share of it on top. So a server
/// that is started again and again isn't ended so often that its supervisor gives it up, and what
/// only happened to be in hand too gets its turn apart.
pub(super) fn free_leases(connection: &Connection) -> rusqlite::Result<usize> {
    connection.execute(
        "UPDATE message INDEXED BY message_waiting SET leased = 0, due_at = CASE
             WHEN attempts < 3 THEN NULL
             ELSE ?1 + min(3600000, 5000 << min(attempts - 3, 20))
                 * (1000000 + abs(random() % 1000000)) / 1000000
             END
         WHERE state = 'pending' AND due_at IS NOT NULL AND leased = 1",
        [Timestamp::now().as_millisecond()],
    )
}

/// The files that were opened: the inbox and its log. What is written to a file that was removed, or
/// has another in its place, is lost when it is closed, and no write tells of it. SQLite looks by
/// itself only where it keeps no write-ahead log (`SQLITE_READONLY_DBMOVED`).
pub(super) struct Opened([(PathBuf, u64); 2]);

impl Opened {
    /// To be called while the inbox is open, since its log is there only then.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let log = beside(&path, "-wal");
        let (file, file_log) = (number(&path)?, number(&log)?);
        Ok(Self([(path, file), (log, file_log)]))
    }

    /// Whether they are still where they were; the one that isn't.
    pub(super) fn are_there(&self) -> Result<(), Gone> {
        let gone = |(path, file): &&(PathBuf, u64)| !number(path).is_ok_and(|now| now == *file);
        self.0
            .iter()
            .find(gone)
            .map_or(Ok(()), |(path, _)| Err(Gone(path.display().to_string())))
    }
}

/// Where an open file is no more.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} was removed or replaced while it was open: put it back, or restart to begin a new one"
)]
pub(super) struct Gone(String);

/// What tells a file from another.
#[cfg(unix)]
fn number(path: &Path) -> io::Result<u64> {
    path.metadata()
        .map(|data| std::os::unix::fs::MetadataExt::ino(&data))
}

/// Elsewhere an open file can't be removed.
#[cfg(not(unix))]
fn number(path: &Path) -> io::Result<u64> {
    path.metadata().map(|_| 0)
}

pub(super) fn open_error(
    path: &Path,
    error: impl Into<Box<dyn Error + Send + Sync>>,
) -> InboxError {
    InboxError::Open {
        path: path.display().to_string(),
        source: Arc::from(error.into()),
    }
}

fn lock_path(path: &Path) -> PathBuf {
    beside(path, ".lock")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn private(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options.open(path)
}

fn connect(path: &Path) -> Result<Connection, Box<dyn Error + Send + Sync>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Before anything is changed in a file of something else.
    is_inbox(&connection)?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err("its file system does not support SQLite's write-ahead log".into());
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.set_prepared_statement_cache_capacity(32);

    // In one transaction, since another process may be about to do the same.
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    if !is_inbox(&transaction)? {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    transaction.commit()?;
    Ok(connection)
}

/// Whether it is an inbox already, or empty and yet to become one.
fn is_inbox(connection: &Connection) -> Result<bool, Box<dyn Error + Send + Sync>> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    match (pragma("application_id")?, pragma("user_version")?) {
        (APPLICATION_ID, SCHEMA_VERSION) => Ok(true),
        (APPLICATION_ID, newer) => {
            Err(format!("it was made by a newer release (schema {newer})").into())
        }
        (0, 0) if is_empty(connection)? => Ok(false),
        _ => Err("it is a SQLite file of something else".into()),
    }
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| {
        row.get(0)
    })
}
