//! The state file.

use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::error::Error;
use crate::state::State;

/// The format of the file.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Document<S> {
    version: u32,
    state: S,
}

/// Reads the state. Returns `None` if there is no file.
pub(crate) fn read(path: &Path) -> Result<Option<State>, Error> {
    let is_file = |metadata: Metadata| match metadata.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("not a regular file")),
    };
    // A pipe would wait for a writer.
    let checked = fs::metadata(path).and_then(is_file);
    let bytes = match checked.and_then(|()| fs::read(path)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            let path = path.to_owned();
            return Err(Error::StateFile { path, source });
        }
    };
    let document: Result<Document<State>, _> = serde_json::from_slice(&bytes);
    let checked = document.and_then(|document| match document.version {
        VERSION => Ok(document.state),
        other => Err(serde::de::Error::custom(format!("version {other}"))),
    });
    let state = checked.map_err(|source| Error::StateFormat {
        path: path.to_owned(),
        source,
    })?;
    Ok(Some(state))
}

/// Returns the contents of the file.
pub(crate) fn encode(state: &State) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Document {
        version: VERSION,
        state,
    })
}

/// Replaces the file. Other users cannot read it.
pub(crate) fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let mut file = NamedTempFile::new_in(folder.unwrap_or_else(|| Path::new(".")))?;
    file.write_all(contents)?;
    file.as_file().sync_data()?;
    file.persist(path)?;
    Ok(())
}

/// A failed write, which several requests report.
#[derive(Clone, Debug)]
pub(crate) struct WriteError {
    pub(crate) path: PathBuf,
    pub(crate) source: Arc<io::Error>,
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        let source = io::Error::new(error.source.kind(), error.source);
        Self::StateFile {
            path: error.path,
            source,
        }
    }
}
