//! Files that are replaced as a whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::failure::Failure;

/// Whether a file could be replaced, before anything is done that needs it to be.
pub(crate) fn check(path: &Path) -> Result<(), Failure> {
    let tried = names(path).and_then(|(_, temporary)| {
        new(&temporary)?;
        fs::remove_file(&temporary)
    });
    tried.map_err(|error| cannot(path, &error))
}

/// Replaces a file: after a crash it holds the old text or the new one. Its owner stays, and what
/// others may do with it, unless it is to be private. A new one is private.
pub(crate) fn replace(path: &Path, text: &str, private: bool) -> Result<(), Failure> {
    let (target, temporary) = names(path).map_err(|error| cannot(path, &error))?;
    let written = write(&temporary, &target, text, private)
        .and_then(|()| fs::rename(&temporary, &target))
        .and_then(|()| sync_folder(&target));
    written.map_err(|error| {
        // What is left of it is in the way of nobody.
        let _ = fs::remove_file(&temporary);
        cannot(path, &error)
    })
}

/// The file itself, whatever links lead to it, and one beside it. Where everybody may make files, a
/// link or a file may be somebody else's, who would get to read or choose what is written.
fn names(path: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if is_shared(folder(path)) || is_shared(folder(&target)) {
        return Err(io::Error::other("everybody may make files in its folder"));
    }
    let mut temporary = target.clone().into_os_string();
    temporary.push(format!(".{}", Uuid::new_v4().simple()));
    Ok((target, temporary.into()))
}

fn folder(file: &Path) -> &Path {
    let folder = file.parent().unwrap_or(file);
    if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    }
}

fn cannot(path: &Path, error: &io::Error) -> Failure {
    let why = "choose a file in a folder that this user, and not everybody, can write to";
    Failure::Usage(format!("cannot write {}: {error}; {why}", path.display()))
}

/// A new name is on disk only when its folder is.
fn sync_folder(file: &Path) -> io::Result<()> {
    #[cfg(unix)]
    fs::File::open(folder(file))?.sync_all()?;
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

/// Nobody else reads it before it is known who may.
fn new(path: &Path) -> io::Result<fs::File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg_attr(not(unix), allow(unused_variables))]
fn write(path: &Path, old: &Path, text: &str, private: bool) -> io::Result<()> {
    let mut file = new(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        if let Ok(old) = fs::metadata(old) {
            let new = file.metadata()?;
            if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
            if !private {
                file.set_permissions(old.permissions())?;
            }
        }
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A folder for everybody's temporary files.
#[cfg(unix)]
fn is_shared(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(folder).is_ok_and(|folder| folder.mode() & 0o1002 == 0o1002)
}

#[cfg(not(unix))]
fn is_shared(_: &Path) -> bool {
    false
}
