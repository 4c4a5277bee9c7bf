//! Failures of commands: exit codes, and errors with their causes.

use core::fmt;
use std::error::Error;
use std::io::{self, ErrorKind};

use pleo_receiver::{InboxError, PostgresOpenError, ServeError, SqliteOpenError};

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments or the configuration are wrong: exit code 2.
    Usage(String),
    /// The command failed: exit code 1.
    Run(String),
    /// The command failed, and has reported why: exit code 1.
    AlreadyReported,
    /// Writing to standard output failed: exit code 1, or 0 if its reader has closed it.
    Output(io::Error),
}

impl Failure {
    /// Reports a wrong value at `location`: a flag, a key or a file.
    pub(crate) fn usage(location: &str, why: &str) -> Self {
        Self::Usage(format!("{location}: {why}"))
    }

    /// Reports an error and its causes.
    pub(crate) fn run(error: &dyn Error) -> Self {
        Self::Run(chain(error))
    }

    /// Reports a file that cannot be read or written: wrong usage if another path or other rights
    /// correct it, else a failure.
    pub(crate) fn file(error: &io::Error, text: String) -> Self {
        // An error without a number is from this program's own checks.
        let is_usage = error.raw_os_error().is_none()
            || matches!(
                error.kind(),
                ErrorKind::NotFound
                    | ErrorKind::PermissionDenied
                    | ErrorKind::IsADirectory
                    | ErrorKind::NotADirectory
                    | ErrorKind::ReadOnlyFilesystem
                    | ErrorKind::InvalidFilename
            );
        if is_usage {
            Self::Usage(text)
        } else {
            Self::Run(text)
        }
    }

    /// Adds the location of the failure.
    pub(crate) fn at(self, location: &str) -> Self {
        match self {
            Self::Usage(text) => Self::Usage(format!("{location}: {text}")),
            Self::Run(text) => Self::Run(format!("{location}: {text}")),
            other => other,
        }
    }

    /// Adds what else is to be said.
    pub(crate) fn and(self, more: &str) -> Self {
        match self {
            Self::Usage(text) => Self::Usage(format!("{text}; {more}")),
            Self::Run(text) => Self::Run(format!("{text}; {more}")),
            Self::AlreadyReported => Self::Run(more.to_owned()),
            Self::Output(_) => Self::Run(format!("{self}; {more}")),
        }
    }

    /// Returns the exit code of the program.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Output(error) if error.kind() == ErrorKind::BrokenPipe => 0,
            Self::Run(_) | Self::AlreadyReported | Self::Output(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Run(text) => f.write_str(text),
            Self::AlreadyReported => Ok(()),
            Self::Output(error) => write!(f, "cannot write to standard output: {error}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<InboxError> for Failure {
    fn from(error: InboxError) -> Self {
        Self::run(&error)
    }
}

impl From<PostgresOpenError> for Failure {
    fn from(error: PostgresOpenError) -> Self {
        Self::run(&error)
    }
}

impl From<SqliteOpenError> for Failure {
    fn from(error: SqliteOpenError) -> Self {
        Self::run(&error)
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        Self::run(&error)
    }
}

/// Joins the texts of an error and its causes. Leaves out causes that the error itself shows.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in core::iter::successors(error.source(), |&error| error.source()) {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
