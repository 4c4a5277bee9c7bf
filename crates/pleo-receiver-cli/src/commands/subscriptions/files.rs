//! Files that are replaced as a whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::failure::Failure;

/// Puts a secret into a file, for the owner of the file only. Says whether anything changed.
///
/// Another secret that is there already is written over only where the file `is_own`: where it can
/// only be an older one of the same subscription.
pub(crate) fn keep_secret(path: &Path, secret: &str, is_own: bool) -> Result<bool, Failure> {
    let held = held(path)?;
    let is_there = held.lines().any(|line| line == secret);
    if is_there && is_private(path) {
        return Ok(false);
    }
    if !is_there && !held.is_empty() && !is_own {
        return Err(taken(path));
    }
    if !held.lines().all(|line| line.starts_with("whsec_")) {
        return Err(Failure::Usage(format!(
            "{} holds something else than a signing secret, which stays: name another file",
            path.display()
        )));
    }
    let text = if is_there {
        held
    } else {
        format!("{secret}\n")
    };
    replace(path, &text, true).map(|()| true)
}

/// Whether a secret that is yet to come would be written over another.
pub(crate) fn check_free(path: &Path) -> Result<(), Failure> {
    if held(path)?.is_empty() {
        Ok(())
    } else {
        Err(taken(path))
    }
}

/// What a file holds; nothing where there is none.
pub(crate) fn held(path: &Path) -> Result<String, Failure> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|error| {
            let place = path.display();
            Failure::Usage(format!(
                "cannot read {place}, to see whether it holds a secret: {error}"
            ))
        }),
    }
}

/// A file that holds another secret, or is to.
pub(crate) fn taken(path: &Path) -> Failure {
    Failure::Usage(format!(
        "{} holds another secret, which may be another endpoint's: name another file, by \
         `--secret-file` or first in the endpoint's `secret`; or delete it, where nothing uses it",
        path.display()
    ))
}

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

#[cfg(unix)]
fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).is_ok_and(|file| file.mode() & 0o077 == 0)
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

#[cfg(not(unix))]
fn is_private(_: &Path) -> bool {
    true
}
