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
        Self::acquire_within(LIMIT, config, is_at).await
    }

    async fn acquire_within(
        limit: Duration,
        config: &Path,
        is_at: fn(&File, &Path) -> bool,
    ) -> Result<Option<Self>, Failure> {
        let Ok(target) = files::target(config, Access::Keep) else {
            return Ok(None);
        };
        let mut path = target.into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |error: io::Error| {
            let lock = path.display();
            let fix = "remove it, unless another command is running";
            Failure::file(&error, format!("cannot lock {lock}: {error}; {fix}"))
        };
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
            if start.elapsed() > limit {
                return Err(Failure::Run(format!(
                    "another command has been changing {config} for {limit:?}: end it, and run this one \
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn gives_up_on_lock_file_whose_inode_never_matches() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("pleo.toml");
        let (sender, acquired) = mpsc::channel();
        // Apart from the test, which fails if it never ends.
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build();
            let limit = Duration::from_millis(100);
            let acquire = ConfigLock::acquire_within(limit, &config, |_, _| false);
            let acquired = runtime.unwrap().block_on(acquire);
            sender.send(acquired.unwrap_err().to_string()).unwrap();
        });
        let failure = acquired.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(failure.contains("pleo.toml for 100ms"), "{failure}");
    }
}
