//! The location of a setting, for error messages.

use std::path::Path;

use super::schema::DEFAULT_FILE;

/// Names the flag and the key of a setting. Holds the path of the configuration file, if there is one.
#[derive(Clone, Copy)]
pub(super) struct Location<'a>(pub(super) Option<&'a Path>);

impl Location<'_> {
    /// Names the flag, and the key in the file if there is one.
    pub(super) fn flag(self, flag: &str) -> String {
        match self.0 {
            None => format!("`--{flag}`"),
            Some(_) => format!("`--{flag}`, or {}", self.key(&flag.replace('-', "_"))),
        }
    }

    /// Names the key in the file.
    pub(super) fn key(self, key: &str) -> String {
        format!("`{key}` in {}", self.file())
    }

    pub(super) fn file(self) -> String {
        let path = self.0.unwrap_or_else(|| Path::new(DEFAULT_FILE));
        path.display().to_string()
    }
}
