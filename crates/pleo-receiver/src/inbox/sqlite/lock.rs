//! The lock of the server that has an inbox open.

use core::time::Duration;
#[cfg(target_os = "linux")]
use std::fs::{self, DirEntry};
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::thread;

use super::error::SqliteOpenError;
use super::file::{beside, open_private};

/// The locks of a server. They are released when they are dropped, or when the process ends. Drop
/// them after all connections: closing the database file releases SQLite's own locks on it.
pub(super) struct ServerLock {
    _process_id: File,
    database: File,
}

impl ServerLock {
    /// Locks the inbox for this server and writes the process id into the lock file.
    pub(super) fn acquire(path: &Path) -> Result<Self, SqliteOpenError> {
        let failed = |error| SqliteOpenError::new(path, error);
        let mut process_id =
            open_private(OpenOptions::new().create(true), &lock_path(path)).map_err(failed)?;
        // `lock_owner` of another process holds the lock briefly.
        let mut tries = 0..5;
        let locked = loop {
            match process_id.try_lock() {
                Err(TryLockError::WouldBlock) if tries.next().is_some() => {
                    thread::sleep(Duration::from_millis(20));
                }
                locked => break locked,
            }
        };
        in_use(path, locked)?;
        // The lock file can be deleted, the database cannot. On Linux this lock and those of SQLite
        // are independent.
        let database = open_private(&mut OpenOptions::new(), path).map_err(failed)?;
        #[cfg(target_os = "linux")]
        if let Err(error) = in_use(path, database.try_lock()) {
            // Another inbox of this process may have the file open: closing it here would release
            // that inbox's locks.
            core::mem::forget(database);
            return Err(error);
        }
        let pid = std::process::id().to_string();
        let written = process_id
            .set_len(0)
            .and_then(|()| process_id.write_all(pid.as_bytes()));
        written.map_err(failed)?;
        Ok(Self {
            _process_id: process_id,
            database,
        })
    }

    /// Returns the database file.
    pub(super) const fn database(&self) -> &File {
        &self.database
    }
}

fn in_use(path: &Path, locked: Result<(), TryLockError>) -> Result<(), SqliteOpenError> {
    match locked {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(SqliteOpenError::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(SqliteOpenError::new(path, error)),
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
pub(super) fn owner(path: &Path) -> Option<u32> {
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

fn lock_path(path: &Path) -> PathBuf {
    beside(path, ".lock")
}
