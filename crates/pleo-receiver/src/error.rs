//! Error texts for logs and stored messages.

use core::fmt::Write as _;
use std::error::Error;

/// Formats an error and its causes, separated by colons.
pub(crate) fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
