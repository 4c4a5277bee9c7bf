//! Opens a page in the user's browser.

use std::process::Stdio;

use tokio::process::Command;

use super::observe::{Event, Observer};

/// The program that opens a URL in the user's browser.
const OPEN: &str = if cfg!(target_os = "macos") {
    "open"
} else {
    "xdg-open"
};

/// Opens a URL in the background. If that fails, shows it.
pub(super) fn open(url: String, observer: Observer) {
    tokio::spawn(async move {
        let mut command = Command::new(OPEN);
        command.arg(&url).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let why = match command.status().await {
            Ok(status) if status.success() => return,
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        observer.emit(Event::Note(format!("{OPEN} failed ({why}); open {url}")));
    });
}
