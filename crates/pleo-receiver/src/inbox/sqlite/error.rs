//! Converts errors of SQLite and of the file system.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use crate::inbox::error::InboxError;

pub(super) fn failed(error: rusqlite::Error) -> InboxError {
    InboxError::Failed(Arc::new(error))
}

pub(super) fn open_error(
    path: &Path,
    error: impl Into<Box<dyn Error + Send + Sync>>,
) -> InboxError {
    InboxError::Open {
        path: path.display().to_string(),
        source: Arc::from(error.into()),
    }
}
