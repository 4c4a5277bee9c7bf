//! The lock of the commands that change the configuration.

use core::time::Duration;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tokio::time;

use crate::failure::Failure;
use crate::files::{self, Access};
use crate::output;

/// How long a command waits for another one.
const LIMIT: Duration = Duration::from_secs(120);

/// How often a waiting command tries again.
const INTERVAL: Duration = Duration::from_millis(50);

/// Keeps other commands from changing the configuration until it is dropped, or the process ends.
///
/// The lock is on a file beside the configuration, since the configuration itself is replaced. If
/// somebody deletes that file, or edits the configuration, [`files::replace`] notices it.
#[derive(Debug)]
pub(crate) struct ConfigLock {
    path: PathBuf,
    file: File,
}

impl ConfigLock {
    /// Waits until no other command holds the lock of this configuration. Returns `None` if no file
    /// can be created beside the configuration: then it cannot be replaced either.
    pub(crate) async fn acquire(config: &Path) -> Result<Option<Self>, Failure> {
        let failed = |error| files::cannot_write(config, &error);
        let Ok(target) = files::target(config, Access::Keep) else {
            return Ok(None);
        };
        let mut path = target.into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        let start = Instant::now();
        let mut is_noted = false;
        loop {
            let file = match open(&path) {
                Err(_) if fs::symlink_metadata(&path).is_err() => return Ok(None),
                file => file.map_err(failed)?,
            };
            match file.try_lock() {
                Ok(()) if is_at(&file, &path) => return Ok(Some(Self { path, file })),
                // If it is another file now, its owner has just deleted it.
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            let config = config.display();
            if start.elapsed() > LIMIT {
                return Err(Failure::Run(format!(
                    "another command has been changing {config} for {LIMIT:?}: end it, and run this one \
                     again"
                )));
            }
            if !is_noted {
                output::note(format_args!(
                    "waiting for another command that changes {config}"
                ))?;
                is_noted = true;
            }
            time::sleep(INTERVAL).await;
        }
    }
}

impl Drop for ConfigLock {
    fn drop(&mut self) {
        // Still locked, so that no other command has locked this file.
        if is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens the lock file, not through a symbolic link. Creates it for its owner only.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let no_follow = rustix::fs::OFlags::NOFOLLOW.bits();
        options.mode(0o600).custom_flags(no_follow.cast_signed());
    }
    options.open(path)
}

/// Returns `true` if the file is still the one at this path.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(open), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else {
        return false;
    };
    (open.dev(), open.ino()) == (there.dev(), there.ino())
}

/// Other systems delete no open file.
#[cfg(not(unix))]
const fn is_at(_: &File, _: &Path) -> bool {
    true
}
