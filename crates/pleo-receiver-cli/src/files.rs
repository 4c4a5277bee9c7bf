//! Reads regular files, and replaces files atomically.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::failure::Failure;

/// The users that may read a file after it is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Its owner.
    Owner,
    /// The same users as before. Only its owner if the file is new.
    Keep,
}

/// Reads a regular file as text. Refuses other files, such as pipes: reading them may block for ever,
/// and a reload could not read them again.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    if metadata.is_file() || metadata.is_dir() {
        fs::read_to_string(path)
    } else {
        Err(io::Error::other(
            "it is a pipe or a device, not a regular file",
        ))
    }
}

/// Replaces a file. After a crash, the file holds either the old text or the new text.
///
/// The owner of the file stays the same. A symbolic link stays, and its target is replaced.
pub(crate) fn replace(path: &Path, text: &str, access: Access) -> Result<(), Failure> {
    let replace = || {
        let target = target(path, access)?;
        // `tempfile` creates it with mode 0600.
        let mut file = temporary(&target)?;
        keep_owner(&file, &target, access)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&target)?;
        sync_directory(&target)
    };
    replace().map_err(|error| cannot_write(path, &error))
}

/// Checks that a file can be replaced.
pub(crate) fn check_writable(path: &Path, access: Access) -> Result<(), Failure> {
    let created = target(path, access).and_then(|target| temporary(&target));
    let removed = created.and_then(NamedTempFile::close);
    removed.map_err(|error| cannot_write(path, &error))
}

/// Resolves symbolic links. Refuses a directory in which other users may create files: they may have
/// placed the link or the file, and can replace it.
fn target(path: &Path, access: Access) -> io::Result<PathBuf> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    for directory in [directory(path), directory(&target)] {
        if is_shared(directory, access) {
            let directory = directory.display();
            let why = format!("other users can write to its directory `{directory}`");
            return Err(io::Error::other(why));
        }
    }
    Ok(target)
}

fn temporary(target: &Path) -> io::Result<NamedTempFile> {
    let mut prefix = target.file_name().unwrap_or_default().to_owned();
    prefix.push(".");
    tempfile::Builder::new()
        .prefix(&prefix)
        .tempfile_in(directory(target))
}

fn directory(file: &Path) -> &Path {
    let directory = file.parent().unwrap_or(file);
    if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let fix = "choose a file in a directory that only this user can write to (`chmod go-w`)";
    Failure::Usage(format!("cannot write {}: {error}; {fix}", path.display()))
}

#[cfg(unix)]
fn keep_owner(file: &NamedTempFile, old: &Path, access: Access) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let Ok(old) = fs::metadata(old) else {
        return Ok(());
    };
    let file = file.as_file();
    let new = file.metadata()?;
    if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
        fchown(file, Some(old.uid()), Some(old.gid()))?;
    }
    match access {
        Access::Owner => Ok(()),
        Access::Keep => file.set_permissions(old.permissions()),
    }
}

#[cfg(not(unix))]
fn keep_owner(_: &NamedTempFile, _: &Path, _: Access) -> io::Result<()> {
    Ok(())
}

/// Makes a rename durable.
#[cfg(unix)]
fn sync_directory(file: &Path) -> io::Result<()> {
    fs::File::open(directory(file))?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Returns `true` if every user may create files in the directory; for a file of its owner only, also
/// if a group may, unless it has the number of the user and so is that user's own.
#[cfg(unix)]
fn is_shared(directory: &Path, access: Access) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(directory).is_ok_and(|directory| {
        let by_group = access == Access::Owner && directory.gid() != directory.uid();
        let others = if by_group { 0o022 } else { 0o002 };
        directory.mode() & others != 0
    })
}

#[cfg(not(unix))]
fn is_shared(_: &Path, _: Access) -> bool {
    false
}
