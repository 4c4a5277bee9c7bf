//! Opens the inbox at a URL: `sqlite:FILE`, FILE or `memory:`.

use std::path::Path;
use std::sync::Arc;

use pleo_receiver::{
    Inbox, InboxError, Key, MemoryInbox, Query, Selection, SqliteInbox, SqliteOpenError,
    SqliteOptions, StoredMessage,
};

use crate::failure::{Failure, chain};

/// The default inbox.
pub(crate) const DEFAULT_INBOX: &str = "sqlite:pleo-inbox.db";

/// Opens the inbox for a server.
pub(crate) fn open(url: &str, options: SqliteOptions) -> Result<Arc<dyn Inbox>, Failure> {
    if url == "memory:" {
        return Ok(Arc::new(MemoryInbox::new()));
    }
    let inbox = SqliteInbox::open_with(sqlite_path(url)?, options).map_err(|error| {
        let fix = match error {
            SqliteOpenError::Open { .. } => {
                "; choose a file in a folder that this user can write to, on a disk with space left"
            }
            _ => "",
        };
        Failure::Run(format!("`--inbox`: {}{fix}", chain(&error)))
    })?;
    Ok(Arc::new(inbox))
}

/// Checks the URL of an inbox, without opening it.
pub(crate) fn check(url: &str) -> Result<(), Failure> {
    if url == "memory:" {
        return Ok(());
    }
    sqlite_path(url).map(|_| ())
}

/// Opens the inbox for a command. A server may have it open.
pub(crate) fn open_shared(url: &str) -> Result<SqliteInbox, Failure> {
    Ok(SqliteInbox::open_shared(existing_path(url)?)?)
}

/// Returns the file of an inbox that exists.
pub(crate) fn existing_path(url: &str) -> Result<&str, Failure> {
    if url == "memory:" {
        let why = "an inbox in memory ends with its server and cannot be read";
        return Err(Failure::usage("`--inbox`", why));
    }
    let path = sqlite_path(url)?;
    if !Path::new(path).exists() {
        return Err(Failure::Run(format!(
            "cannot open inbox `{path}`: there is no such file; `pleo-receiver serve` creates it, \
             `--inbox FILE` or `--config FILE` names another"
        )));
    }
    Ok(path)
}

/// Returns the messages with this id, at most one per endpoint.
pub(crate) async fn messages(
    inbox: &dyn Inbox,
    id: &str,
) -> Result<Vec<StoredMessage>, InboxError> {
    let page = inbox.list(Query::new(Selection::id(id), u32::MAX)).await?;
    let mut messages = Vec::new();
    for entry in page.entries {
        let key = Key::new(entry.endpoint, entry.webhook_id);
        // A message that was pruned since is left out.
        messages.extend(inbox.get(key).await?);
    }
    Ok(messages)
}

/// Returns the file that the URL names: `sqlite:FILE`, or FILE alone.
pub(crate) fn sqlite_path(url: &str) -> Result<&str, Failure> {
    let path = match url.strip_prefix("sqlite:") {
        Some(path) => path,
        None if has_scheme(url) || matches!(url, "memory" | "sqlite") => "",
        None => url,
    };
    if path.is_empty() {
        let why = "is not an inbox: give `sqlite:FILE`, for instance `sqlite:pleo-inbox.db`";
        return Err(Failure::usage("`--inbox`", &format!("`{url}` {why}")));
    }
    Ok(path)
}

/// Returns `true` for `scheme:…` (RFC 3986 section 3.1), so that a mistyped URL does not become a file.
/// One letter is a Windows drive.
fn has_scheme(url: &str) -> bool {
    url.split_once(':').is_some_and(|(scheme, _)| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        scheme.len() > 1
            && scheme.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && scheme.bytes().all(is_allowed)
    })
}

#[cfg(test)]
mod tests {
    use super::sqlite_path;

    #[test]
    fn takes_file_but_no_other_scheme() {
        for (url, path) in [
            ("sqlite:a.db", Some("a.db")),
            ("sqlite:mysql:a", Some("mysql:a")),
            ("a.db", Some("a.db")),
            ("./a:b.db", Some("./a:b.db")),
            ("C:\\a.db", Some("C:\\a.db")),
            ("sqlite:", None),
            ("sqlite", None),
            ("memory", None),
            ("memory:", None),
            ("memory:x", None),
            ("Sqlite:a.db", None),
            ("file:a.db", None),
            ("postgres://host/a", None),
            ("mysql:a", None),
            ("", None),
        ] {
            assert_eq!(sqlite_path(url).ok(), path, "{url}");
        }
    }
}
