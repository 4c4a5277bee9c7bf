//! Files that hold signing secrets.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::failure::Failure;
use crate::files::replace;

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

#[cfg(unix)]
fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).is_ok_and(|file| file.mode() & 0o077 == 0)
}

#[cfg(not(unix))]
fn is_private(_: &Path) -> bool {
    true
}
