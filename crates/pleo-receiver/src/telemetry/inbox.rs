//! The events of the inbox in a file. None has a metric.

use core::error::Error;
use std::path::Path;
use std::sync::Arc;

use tracing::{error, info, warn};

use super::RateLimit;
use crate::error::error_chain;

/// Reports a file of the inbox that other users could read or write.
pub(crate) fn file_made_private(path: &Path, mode: u32) {
    let (path, mode) = (path.display(), format!("{:o}", mode & 0o777));
    warn!(%path, mode, "inbox file was accessible to other users; now owner only");
}

/// Reports that committed pages could not be copied into the file.
pub(crate) fn checkpoint_failed(error: &(dyn Error + 'static)) {
    let error = error_chain(error);
    warn!(error, "cannot checkpoint inbox");
}

/// Reports that everything that is stored is on the disk after a failure.
pub(crate) fn inbox_flushed() {
    info!("inbox flushed to the disk after a failure; storing messages again");
}

/// Reports that the stored messages could not be flushed after a failure.
pub(crate) fn flush_failed(error: &(dyn Error + 'static)) {
    let error = error_chain(error);
    error!(
        error,
        "cannot flush inbox to the disk after a failure; nothing more is stored"
    );
}

/// Reports a transaction that could not begin, so that its commands failed.
pub(crate) fn begin_failed(limit: &RateLimit, error: &(dyn Error + 'static), commands: usize) {
    limited!(
        limit,
        ERROR,
        &Arc::default(),
        "",
        "cannot begin inbox transaction",
        error = error_chain(error),
        commands
    );
}

/// Reports a transaction that could not be committed, so that its commands failed.
pub(crate) fn commit_failed(limit: &RateLimit, error: &(dyn Error + 'static)) {
    limited!(
        limit,
        ERROR,
        &Arc::default(),
        "",
        "cannot commit inbox transaction",
        error = error_chain(error)
    );
}
