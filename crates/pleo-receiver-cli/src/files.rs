//! Reads regular files, and replaces files atomically.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempDir};

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

/// Reads a regular file as text. A missing one is empty.
pub(crate) fn read_if_exists(path: &Path) -> io::Result<String> {
    match read_text(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}

/// Creates a temporary folder that only this user can read. It is removed when it is dropped.
pub(crate) fn temporary_folder(prefix: &str) -> Result<TempDir, Failure> {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir();
    folder.map_err(|error| {
        Failure::Run(format!(
            "cannot create a temporary folder: {error}; set TMPDIR to a folder that this user can \
             write to"
        ))
    })
}

/// Replaces a file that holds the text `before`; empty if it is missing. Fails, and leaves the file as
/// it is, if another program has changed it. After a crash, the file holds either the old text or the
/// new text.
///
/// The owner of the file stays the same. A symbolic link stays, and its target is replaced.
pub(crate) fn replace(
    path: &Path,
    before: &str,
    text: &str,
    access: Access,
) -> Result<(), Failure> {
    let failed = |error| cannot_write(path, &error);
    let target = target(path, access).map_err(failed)?;
    let write = || {
        // `tempfile` creates it with mode 0600.
        let mut file = temporary(&target)?;
        keep_owner(&file, &target, access)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        Ok(file)
    };
    let file = write().map_err(failed)?;
    // As late as possible: an editor takes no lock.
    if read_if_exists(&target).map_err(failed)? != before {
        return Err(changed(path));
    }
    let is_missing = fs::symlink_metadata(&target).is_err();
    let replaced = if is_missing {
        file.persist_noclobber(&target)
    } else {
        file.persist(&target)
    };
    match replaced {
        Ok(_) => sync_directory(&target).map_err(failed),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Err(changed(path)),
        Err(error) => Err(failed(error.error)),
    }
}

/// Checks that a file can be replaced.
pub(crate) fn check_writable(path: &Path, access: Access) -> Result<(), Failure> {
    let created = target(path, access).and_then(|target| temporary(&target));
    let removed = created.and_then(NamedTempFile::close);
    removed.map_err(|error| cannot_write(path, &error))
}

/// Resolves symbolic links. Refuses a link without a target, and a directory in which other users may
/// create files: they may have placed the link or the file, and can replace it.
pub(crate) fn target(path: &Path, access: Access) -> io::Result<PathBuf> {
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        // Replacing the link itself would separate the file from its target for ever.
        Err(error) if path.is_symlink() => {
            let why = format!(
                "it is a symbolic link, and its target cannot be used ({error}): create the target, \
                 or remove the link"
            );
            return Err(io::Error::other(why));
        }
        Err(_) => path.to_owned(),
    };
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

fn changed(path: &Path) -> Failure {
    Failure::Run(format!(
        "cannot write {}: another program has changed it meanwhile, so it is left as it is; run the \
         command again",
        path.display()
    ))
}

/// Reports a file that cannot be written.
pub(crate) fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let fix = "choose a file in a directory that only this user can write to (`chmod go-w`)";
    let text = format!("cannot write {}: {error}; {fix}", path.display());
    Failure::file(error, text)
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
pub(crate) fn sync_directory(file: &Path) -> io::Result<()> {
    fs::File::open(directory(file))?.sync_all()
}

#[cfg(not(unix))]
pub(crate) fn sync_directory(_: &Path) -> io::Result<()> {
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
