//! Errors of the SQLite inbox.

use std::error::Error;
use std::path::{Path, PathBuf};

use rusqlite::{ErrorCode, ffi};

use crate::inbox::error::{InboxError, InboxErrorKind};

/// Why an inbox could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqliteOpenError {
    /// Another server has this inbox open.
    #[error(
        "inbox `{}` is in use by another server; stop that server, or use another inbox",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be created, read or written, or is not an inbox.
    #[error("cannot open inbox `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl SqliteOpenError {
    pub(super) fn new(path: &Path, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Open {
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

/// Causes of [`SqliteOpenError::Open`] that are not errors of SQLite or the file system.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenCause {
    #[error("it is the SQLite file of another application; use another file")]
    NotAnInbox,
    #[error(
        "a newer release wrote it (schema {schema}, this one supports {supported}); use pleo-receiver \
         {program} or newer"
    )]
    Newer {
        schema: i32,
        supported: usize,
        program: String,
    },
    #[error("an older release is serving it; restart the server with this release first")]
    OlderServer,
    #[error("its file system does not support SQLite's WAL mode; use a local disk")]
    NoWal,
    #[error("it is on a network file system ({0}), where SQLite loses data; use a local disk")]
    NetworkFileSystem(&'static str),
    #[error("it is a symbolic link; use the path of the file itself")]
    SymbolicLink,
    #[error("it belongs to another user (uid {0}); run the receiver as its owner")]
    OtherOwner(u32),
    #[error(
        "other users can write to its directory `{}`; remove that permission (`chmod go-w`), use \
         another directory, or allow it with `allow_shared_directory`", .0.display()
    )]
    SharedDirectory(PathBuf),
    #[error(
        "another process writes to it, so that its log cannot be flushed; retry when it has finished"
    )]
    LogInUse,
}

/// Converts an error of SQLite: the operation failed, and a later one may succeed.
pub(super) fn unavailable(error: rusqlite::Error) -> InboxError {
    InboxError::new(InboxErrorKind::Unavailable, error)
}

/// Returns `true` if the operating system could not flush a file. Another failure loses nothing that
/// was written before.
pub(super) fn is_flush_failure(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(
        code,
        Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)
    )
}

/// Returns `true` for the error of a message that is damaged in the file, so that repeating the
/// statement fails again.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        Some(code) => matches!(
            code,
            ErrorCode::DatabaseCorrupt | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch
        ),
        // A value of another type, or text that is not UTF-8.
        None => true,
    }
}
