//! Backups and checks of an inbox file, while a server may have it open.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{self, Path, PathBuf};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};

use super::error::SqliteOpenError;
use super::file::{BUSY_TIMEOUT, beside, leave_log, open_private};
use super::{SqliteInbox, schema};

/// The maximum number of lines of SQLite's integrity check.
const MAX_FILE_ERRORS: u32 = 100;

/// Either may be damaged: the index of the keys, or the table.
pub(super) const ORDERS: [&str; 2] = ["INDEXED BY message_key", "NOT INDEXED ORDER BY sequence"];

/// Why an inbox could not be backed up.
#[derive(Debug, thiserror::Error)]
#[error("cannot back up inbox to `{}`", path.display())]
#[non_exhaustive]
pub struct SqliteBackupError {
    /// The file of the backup.
    pub path: PathBuf,
    /// The cause.
    pub source: Box<dyn Error + Send + Sync>,
}

/// The result of [`SqliteInbox::check_file`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SqliteCheck {
    /// The number of messages, with the unreadable ones.
    pub messages: u64,
    /// The errors that SQLite's integrity check found, at most 100.
    pub file_errors: Vec<String>,
    /// The messages that cannot be read completely, in the order of arrival.
    pub unreadable: Vec<UnreadableMessage>,
    /// Bodies and attempts that belong to no message.
    pub orphans: u64,
}

/// A message that cannot be read completely.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnreadableMessage {
    /// The position in the order of arrival.
    pub sequence: i64,
    /// The name of the endpoint that received the message, if it can be read.
    pub endpoint: Option<String>,
    /// The message id, if it can be read.
    pub webhook_id: Option<String>,
    /// Why the message cannot be read.
    pub error: String,
}

impl SqliteCheck {
    /// Returns `true` if the file is intact.
    #[must_use]
    pub const fn is_intact(&self) -> bool {
        self.file_errors.is_empty() && self.unreadable.is_empty() && self.orphans == 0
    }
}

impl SqliteInbox {
    /// Copies the inbox at `path` to a new file, which only its owner can read. The copy has every
    /// message that was acknowledged before the call, and is on the disk when the call returns.
    ///
    /// A server may have the inbox open, also one of an older release. Blocks the thread.
    ///
    /// # Errors
    /// The inbox cannot be read, or the new file exists or cannot be written.
    pub fn backup(path: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), SqliteBackupError> {
        let to = to.as_ref();
        backup(path.as_ref(), to).map_err(|source| SqliteBackupError {
            path: to.to_owned(),
            source,
        })
    }

    /// Checks the inbox file at `path` and reads each of its messages. Changes nothing.
    ///
    /// A server may have the inbox open. Blocks the thread, for as long as it takes to read the file
    /// three times.
    ///
    /// # Errors
    /// [`SqliteOpenError::Open`] if the file is missing, is not an inbox, or a newer release wrote it.
    pub fn check_file(path: impl AsRef<Path>) -> Result<SqliteCheck, SqliteOpenError> {
        let path = path.as_ref();
        check(path).map_err(|error| SqliteOpenError::new(path, error))
    }
}

fn backup(path: &Path, to: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    let connection = connect(path)?;
    // SQLite creates files with the rights of the process. It writes to an empty file too.
    match open_private(OpenOptions::new().create_new(true), to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err("the file exists; name a new file".into());
        }
        created => drop(created?),
    }
    let copied = copy(&connection, to);
    if copied.is_err() {
        for suffix in ["", "-journal"] {
            // The error of the copy is the one to report.
            let _ = fs::remove_file(beside(to, suffix));
        }
    }
    copied
}

fn copy(connection: &Connection, to: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    // SQLite takes a relative path that begins with `file:` for a URI.
    let absolute = path::absolute(to)?;
    let name = absolute.to_str().ok_or("its path is not UTF-8")?;
    connection.execute("VACUUM INTO ?1", [name])?;
    File::open(to)?.sync_all()?;
    #[cfg(unix)]
    {
        let to = to.canonicalize()?;
        File::open(to.parent().unwrap_or(&to))?.sync_all()?;
    }
    Ok(())
}

fn check(path: &Path) -> Result<SqliteCheck, Box<dyn Error + Send + Sync>> {
    let connection = connect(path)?;
    // One state of the file for all queries.
    let transaction = connection.unchecked_transaction()?;
    let mut check = SqliteCheck {
        messages: 0,
        file_errors: integrity_errors(&transaction),
        unreadable: Vec::new(),
        orphans: 0,
    };
    let mut unreadable = BTreeMap::new();
    for order in ORDERS {
        let found = for_each_message(&transaction, order, |sequence| {
            if let Err(error) = read_message(&transaction, sequence) {
                let message = || describe(&transaction, sequence, error.to_string());
                unreadable.entry(sequence).or_insert_with(message);
            }
        });
        match found {
            Ok(found) => check.messages = check.messages.max(found),
            Err(error) => check.file_errors.push(format!("table message: {error}")),
        }
    }
    check.unreadable = unreadable.into_values().collect();
    let mut tables = vec!["body"];
    // Layout 1 has no attempts.
    if schema::version(&transaction)? > 1 {
        tables.push("attempt");
    }
    for table in tables {
        let orphans = format!(
            "SELECT count(*) FROM {table} WHERE sequence NOT IN (SELECT sequence FROM message)"
        );
        match transaction.query_row(&orphans, [], |row| row.get::<_, u64>(0)) {
            Ok(orphans) => check.orphans += orphans,
            Err(error) => check.file_errors.push(format!("table {table}: {error}")),
        }
    }
    Ok(check)
}

/// Opens the file without a change to it or to its schema.
pub(super) fn connect(path: &Path) -> Result<Connection, Box<dyn Error + Send + Sync>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path.canonicalize()?, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    if schema::is_empty(&connection)? {
        return Err("it is empty".into());
    }
    schema::is_outdated(&connection)?;
    leave_log(&connection)?;
    Ok(connection)
}

fn integrity_errors(connection: &Connection) -> Vec<String> {
    let errors = || -> rusqlite::Result<Vec<String>> {
        let check = format!("PRAGMA integrity_check({MAX_FILE_ERRORS})");
        let mut check = connection.prepare(&check)?;
        let errors = check.query_map([], |row| row.get(0))?;
        errors.collect()
    };
    let mut errors = errors().unwrap_or_else(|error| vec![error.to_string()]);
    errors.retain(|error| error != "ok");
    errors
}

/// Calls `visit` with the sequence of each message. Returns the number of messages.
pub(super) fn for_each_message(
    connection: &Connection,
    order: &str,
    mut visit: impl FnMut(i64),
) -> rusqlite::Result<u64> {
    let mut sequences = connection.prepare(&format!("SELECT sequence FROM message {order}"))?;
    let mut sequences = sequences.query([])?;
    let mut count = 0;
    while let Some(row) = sequences.next()? {
        visit(row.get(0)?);
        count += 1;
    }
    Ok(count)
}

/// Reads all columns of a message and of its body.
pub(super) fn read_message(
    connection: &Connection,
    sequence: i64,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    for (table, missing) in [
        ("message", "its row is missing"),
        ("body", "its body is missing"),
    ] {
        let row = format!("SELECT * FROM {table} WHERE sequence = ?1");
        let mut row = connection.prepare_cached(&row)?;
        let mut rows = row.query([sequence])?;
        read_columns(rows.next()?.ok_or(missing)?)?;
    }
    Ok(())
}

fn read_columns(row: &Row<'_>) -> Result<(), Box<dyn Error + Send + Sync>> {
    for column in 0..row.as_ref().column_count() {
        if let ValueRef::Text(text) = row.get_ref(column)? {
            str::from_utf8(text)?;
        }
    }
    Ok(())
}

/// Describes an unreadable message. Its key stands in the table and in an index.
pub(super) fn describe(connection: &Connection, sequence: i64, error: String) -> UnreadableMessage {
    let key = |order| {
        let key = format!("SELECT endpoint, webhook_id FROM message {order} WHERE sequence = ?1");
        let key = connection.query_row(&key, [sequence], |row| Ok((row.get(0)?, row.get(1)?)));
        key.ok()
    };
    let key = key("NOT INDEXED").or_else(|| key("INDEXED BY message_key"));
    let (endpoint, webhook_id) = key.unzip();
    UnreadableMessage {
        sequence,
        endpoint,
        webhook_id,
        error,
    }
}
