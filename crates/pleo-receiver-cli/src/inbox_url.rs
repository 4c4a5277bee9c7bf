//! The inbox that a URL names: `sqlite:FILE` or `memory:`.

use std::sync::Arc;

use pleo_receiver::{Inbox, InboxError, MemoryInbox, SqliteInbox, SqliteOptions};

use crate::failure::{Failure, chain};

/// The inbox that is used if no other is named.
pub(crate) const DEFAULT_INBOX: &str = "sqlite:pleo-inbox.db";

/// Opens the inbox for a server.
pub(crate) fn open(url: &str, options: SqliteOptions) -> Result<Arc<dyn Inbox>, Failure> {
    if url == "memory:" {
        return Ok(Arc::new(MemoryInbox::new()));
    }
    let inbox = SqliteInbox::open_with(sqlite_path(url)?, options).map_err(|error| {
        let fix = match error {
            InboxError::Open { .. } => {
                "; choose a file in a folder that this user can write to, on a disk with space left"
            }
            _ => "",
        };
        Failure::usage("`--inbox`", &(chain(&error) + fix))
    })?;
    Ok(Arc::new(inbox))
}

/// Opens the inbox beside a server that may be running.
pub(crate) fn open_shared(url: &str) -> Result<SqliteInbox, Failure> {
    if url == "memory:" {
        let why = "an inbox in memory ends with its server and cannot be looked at";
        return Err(Failure::usage("`--inbox`", why));
    }
    Ok(SqliteInbox::open_shared(sqlite_path(url)?)?)
}

/// Returns the file that the URL names.
pub(crate) fn sqlite_path(url: &str) -> Result<&str, Failure> {
    let path = url.strip_prefix("sqlite:").filter(|path| !path.is_empty());
    path.ok_or_else(|| {
        let why = "is not an inbox: give `sqlite:FILE`, for instance `sqlite:pleo-inbox.db`";
        Failure::Usage(format!("`--inbox`: `{url}` {why}"))
    })
}
