//! How a command fails: exit codes, and errors with their causes.

use core::fmt;
use std::error::Error;
use std::io;

use pleo_receiver::{InboxError, ServeError};

/// Why the program ends otherwise than well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was told something that can't be: exit code 2.
    Usage(String),
    /// It tried and failed: exit code 1.
    Run(String),
    /// Exit code 1, and what there was to say is said already.
    AlreadyReported,
    /// Its output could not be written.
    Output(io::Error),
}

impl Failure {
    /// Says what it is about.
    pub(crate) fn at(self, place: &str) -> Self {
        match self {
            Self::Usage(text) => Self::Usage(format!("{place}: {text}")),
            Self::Run(text) => Self::Run(format!("{place}: {text}")),
            other => other,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Run(text) => f.write_str(text),
            Self::AlreadyReported => Ok(()),
            Self::Output(error) => write!(f, "cannot write: {error}"),
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
        Self::Run(chain(&error))
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        Self::Run(error.to_string())
    }
}

/// An error with everything that caused it.
pub(crate) fn chain(error: &dyn Error) -> String {
    core::iter::successors(error.source(), |&error| error.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
