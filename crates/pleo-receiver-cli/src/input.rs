//! What commands read: a file or standard input.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use bytes::Bytes;

use crate::failure::Failure;

/// Reads a file, or standard input if there is none.
pub(crate) fn read(path: Option<&Path>) -> Result<Bytes, Failure> {
    let (bytes, name) = match path {
        Some(path) => (fs::read(path), format!("`{}`", path.display())),
        None => {
            let mut bytes = Vec::new();
            let read = io::stdin().lock().read_to_end(&mut bytes);
            (read.map(|_| bytes), "standard input".to_owned())
        }
    };
    bytes.map(Bytes::from).map_err(|error| {
        let fix = match error.kind() {
            ErrorKind::NotFound => "; correct the path",
            ErrorKind::PermissionDenied => "; run as a user who may read it",
            _ => "",
        };
        Failure::Run(format!("cannot read {name}: {error}{fix}"))
    })
}
