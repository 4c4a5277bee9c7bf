//! Reads the configuration once nobody writes its files any more.

use core::time::Duration;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Instant, SystemTime};

use super::load::{Config, file_path};
use super::schema::ConfigFile;
use crate::args::Serve;
use crate::failure::Failure;
use crate::secret_ref::SecretRef;

/// How long a file must be unchanged. A younger one may be half-written.
const QUIET: Duration = Duration::from_secs(1);

/// The maximum time until all files are unchanged.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// Modification time and length of a file; `None` if it is missing.
type Stamp = Option<(SystemTime, u64)>;

/// Reads the configuration, and waits first until its files and `more` are unchanged for a second.
/// Blocks the thread.
pub(crate) fn read(args: &Serve, more: &[&Path]) -> Result<Config, Failure> {
    let start = Instant::now();
    let mut watched = Watched::default();
    loop {
        watched.update(files(args, more));
        let (file, wait) = watched.longest_wait();
        if start.elapsed() + wait > LIMIT {
            return Err(Failure::Run(format!(
                "`{}` keeps changing; let its writer finish, then reload again",
                file.display()
            )));
        }
        thread::sleep(wait);
        if wait.is_zero() {
            let config = Config::new(args);
            if !watched.update(files(args, more)) {
                return config;
            }
        }
    }
}

/// Returns the files of the configuration. A half-written configuration may not name all of them.
fn files(args: &Serve, more: &[&Path]) -> Vec<PathBuf> {
    let refs = (args.secret.iter())
        .chain(&args.forward)
        .chain(&args.forward_secret)
        .chain(&args.admin_token)
        .chain(&args.admin_read_token)
        .chain(&args.admin_user)
        .chain(&args.admin_password);
    let mut files: Vec<_> = refs.filter_map(SecretRef::file).collect();
    files.extend(more.iter().copied().map(Path::to_owned));
    if let Some(path) = file_path(args.config.as_deref()) {
        files.push(path.to_owned());
        if let Ok(file) = ConfigFile::from_path(path) {
            files.extend(file.secret_files());
        }
    }
    files
}

/// The files of the configuration, and since when each is known to be unchanged.
#[derive(Debug, Default)]
struct Watched(BTreeMap<PathBuf, (Stamp, Instant)>);

impl Watched {
    /// Compares these files with the last time. Returns `true` if one of them has changed.
    fn update(&mut self, files: Vec<PathBuf>) -> bool {
        let mut before = core::mem::take(&mut self.0);
        let mut changed = false;
        for path in files {
            let stamp = stamp(&path);
            let unchanged = before.remove(&path).filter(|(before, _)| *before == stamp);
            changed |= unchanged.is_none() && !self.0.contains_key(&path);
            let entry = self.0.entry(path);
            entry.or_insert_with(|| unchanged.unwrap_or_else(|| (stamp, Instant::now())));
        }
        changed
    }

    /// Returns the file that was changed last, and how long to wait until it counts as unchanged.
    fn longest_wait(&self) -> (&Path, Duration) {
        let waits = self.0.iter().map(|(path, (stamp, since))| {
            // The modification time may be in the future, as by another machine's clock.
            let age = stamp.and_then(|(modified, _)| modified.elapsed().ok());
            let quiet = age.unwrap_or_default().max(since.elapsed());
            (path.as_path(), QUIET.saturating_sub(quiet))
        });
        let none = (Path::new(""), Duration::ZERO);
        waits.max_by_key(|(_, wait)| *wait).unwrap_or(none)
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
