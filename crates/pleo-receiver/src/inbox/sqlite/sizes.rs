//! Sizes of the files of an inbox, and of their disk.

use std::path::Path;

use super::file::beside;
use crate::inbox::measurements::Measurements;

/// Adds the sizes of the inbox at `path`. Blocks the thread.
pub(super) fn add_sizes(measurements: &mut Measurements, path: &Path) {
    let size = |path: &Path| path.metadata().ok().map(|file| file.len());
    measurements.file_bytes = size(path);
    measurements.log_bytes = size(&beside(path, "-wal"));
    measurements.free_bytes = free_bytes(path);
}

/// Returns how many bytes a process without privileges can still write to the file system.
#[cfg(unix)]
pub(super) fn free_bytes(path: &Path) -> Option<u64> {
    let system = rustix::fs::statvfs(path).ok()?;
    system.f_bavail.checked_mul(system.f_frsize)
}

#[cfg(not(unix))]
pub(super) fn free_bytes(_path: &Path) -> Option<u64> {
    None
}
