//! The database file: creation, access rights, connections.

use core::time::Duration;
use std::error::Error;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::{OpenCause, SqliteOpenError};
use super::{checkpoint, rewrite, schema};
use crate::telemetry;

/// How long to wait for a transaction of another process.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Creates the file if it is missing and returns its canonical path. It and SQLite's files beside it
/// are then readable and writable by their owner only.
///
/// Does not open an existing file: closing it would release the POSIX locks that this process may
/// already have on it.
pub(super) fn create(
    path: &Path,
    allow_shared_directory: bool,
) -> Result<PathBuf, SqliteOpenError> {
    let create = || -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
        match open_private(OpenOptions::new().create_new(true), path) {
            Ok(file) => file.sync_all()?,
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
            Err(_) if path.symlink_metadata()?.is_symlink() => {
                return Err(OpenCause::SymbolicLink.into());
            }
            Err(_) => {}
        }
        let path = path.canonicalize()?;
        check_file_system(&path)?;
        if !allow_shared_directory {
            check_directory(&path)?;
        }
        for suffix in ["", "-wal", "-shm", ".lock"] {
            make_private(&beside(&path, suffix))?;
        }
        Ok(path)
    };
    create().map_err(|error| SqliteOpenError::new(path, error))
}

/// Opens an existing file as its server: applies missing migrations and flushes what a server that
/// crashed may have written without a flush.
pub(super) fn open(path: &Path, database: &File) -> Result<Connection, SqliteOpenError> {
    let open = || -> Result<Connection, Box<dyn Error + Send + Sync>> {
        let mut connection = connect(path)?;
        schema::migrate(&mut connection)?;
        // A duplicate of an unflushed message would be acknowledged without another write.
        if !rewrite::flush(&connection, &log_path(path), database)? {
            return Err(OpenCause::LogInUse.into());
        }
        // The file may be new: flush its directory entry.
        #[cfg(unix)]
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(connection)
    };
    open().map_err(|error| SqliteOpenError::new(path, error))
}

/// Opens a file that a server may have open. Applies missing migrations if none has.
pub(super) fn open_shared(path: &Path, is_served: bool) -> Result<Connection, SqliteOpenError> {
    let open = || -> Result<Connection, Box<dyn Error + Send + Sync>> {
        let mut connection = connect(path)?;
        if is_served && schema::is_outdated(&connection)? {
            return Err(OpenCause::OlderServer.into());
        }
        schema::migrate(&mut connection)?;
        Ok(connection)
    };
    open().map_err(|error| SqliteOpenError::new(path, error))
}

/// Opens another connection to a file that is open.
pub(super) fn connect(path: &Path) -> Result<Connection, Box<dyn Error + Send + Sync>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Checked before the first write, so that another application's file stays unchanged.
    schema::is_outdated(&connection)?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(OpenCause::NoWal.into());
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", checkpoint::MAX_KEPT_LOG)?;
    connection.set_prepared_statement_cache_capacity(64);
    leave_log(&connection)?;
    Ok(connection)
}

/// Prevents automatic checkpoints: only the server copies the log into the database, because the log
/// may have to be flushed first.
pub(super) fn leave_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(())
}

/// Closes the last connection. Copies the log into the database and deletes it.
pub(super) fn close(connection: Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    connection.close().map_err(|(_, error)| error)
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
        let wal = log_path(&path);
        let (path_inode, wal_inode) = (inode(&path)?, inode(&wal)?);
        Ok(Self([(path, path_inode), (wal, wal_inode)]))
    }

    /// Returns the path of the write-ahead log.
    pub(super) fn log(&self) -> &Path {
        &self.0[1].0
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
    "`{0}` was removed or replaced while it was open; put it and its `-wal` back; a restart without them begins an empty inbox"
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

/// Returns the path of the write-ahead log.
fn log_path(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

/// Returns the path of a file beside the database.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Opens a file for reading and writing, not through a symbolic link. Creates it for its owner only.
pub(super) fn open_private(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.read(true).write(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let no_follow = rustix::fs::OFlags::NOFOLLOW.bits();
        options.mode(0o600).custom_flags(no_follow.cast_signed());
    }
    options.open(path)
}

/// Refuses network file systems: their locks and shared memory do not work as SQLite needs them.
#[cfg(target_os = "linux")]
#[allow(
    clippy::useless_conversion,
    reason = "the type of `f_type` depends on the processor"
)]
fn check_file_system(path: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    let kind = rustix::fs::statfs(path).map_err(io::Error::from)?.f_type;
    match network_file_system(i64::from(kind)) {
        Some(name) => Err(OpenCause::NetworkFileSystem(name).into()),
        None => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn check_file_system(_: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    Ok(())
}

/// Returns the name of a network file system of this type (`linux/magic.h`).
#[cfg(target_os = "linux")]
fn network_file_system(kind: i64) -> Option<&'static str> {
    // The type is an unsigned 32-bit number, which some systems extend with its sign.
    match kind & 0xFFFF_FFFF {
        0x6969 => Some("NFS"),
        0x517B => Some("SMB"),
        0xFF53_4D42 => Some("CIFS"),
        0xFE53_4D42 => Some("SMB2"),
        0x5346_414F | 0x6B41_4653 => Some("AFS"),
        0x00C3_6400 => Some("Ceph"),
        0x0102_1997 => Some("9P"),
        0x0BD0_0BD0 => Some("Lustre"),
        0x7461_636F => Some("OCFS2"),
        0x0116_1970 => Some("GFS2"),
        _ => None,
    }
}

/// Refuses a directory in which other users can delete or replace the files.
///
/// A group with the number of the user is that user's own.
#[cfg(unix)]
fn check_directory(path: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    use std::os::unix::fs::MetadataExt;
    let directory = path.parent().unwrap_or(path);
    let metadata = directory.metadata()?;
    let is_own_group = metadata.gid() == metadata.uid();
    let others = if is_own_group { 0o002 } else { 0o022 };
    if metadata.mode() & others != 0 {
        return Err(OpenCause::SharedDirectory(directory.to_owned()).into());
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_directory(_: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    Ok(())
}

/// Removes the rights of other users to a file, if it exists.
#[cfg(unix)]
fn make_private(path: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let metadata = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.is_file() {
        let name = path.display();
        return Err(
            format!("`{name}` is not a regular file; remove it, or use another path").into(),
        );
    }
    check_owner(&metadata)?;
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        telemetry::file_made_private(path, metadata.mode());
    }
    Ok(())
}

#[cfg(not(unix))]
fn make_private(_: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    Ok(())
}

#[cfg(unix)]
fn check_owner(metadata: &Metadata) -> Result<(), OpenCause> {
    let owner = std::os::unix::fs::MetadataExt::uid(metadata);
    if rustix::process::geteuid().as_raw() == owner {
        Ok(())
    } else {
        Err(OpenCause::OtherOwner(owner))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn recognizes_network_file_systems() {
        for (kind, name) in [
            (0x6969, Some("NFS")),
            (0xFE53_4D42, Some("SMB2")),
            // As a signed 32-bit number.
            (-0x00AC_B2BE, Some("CIFS")),
            // ext4, tmpfs, btrfs, xfs, overlayfs
            (0xEF53, None),
            (0x0102_1994, None),
            (0x9123_683E, None),
            (0x5846_5342, None),
            (0x794C_7630, None),
        ] {
            assert_eq!(network_file_system(kind), name, "{kind:x}");
        }
    }
}
