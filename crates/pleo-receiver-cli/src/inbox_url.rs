//! Opens the inbox at a URL: `sqlite:FILE`, FILE, `postgres://…` or `memory:`.

use core::fmt;
use std::path::Path;
use std::sync::Arc;

use pleo_receiver::{
    Inbox, InboxError, Key, MemoryInbox, PostgresInbox, PostgresOpenError, PostgresOptions, Query,
    Selection, SqliteInbox, SqliteOpenError, SqliteOptions, StoredMessage,
};

use crate::failure::{Failure, chain};
use crate::secret_ref::SecretRef;

/// The default inbox.
pub(crate) const DEFAULT_INBOX: &str = "sqlite:pleo-inbox.db";

/// What the URL of an inbox names. Its text has no password.
#[derive(Debug)]
pub(crate) enum InboxUrl {
    Memory,
    /// A file.
    Sqlite(String),
    Postgres(Box<PostgresOptions>),
}

impl InboxUrl {
    /// Parses a URL, or a reference to one.
    pub(crate) fn parse(url: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| Failure::usage("`--inbox`", why);
        let reference: SecretRef = url.parse().unwrap_or_else(|never| match never {});
        let is_plain = reference.is_plain();
        let url = reference.resolve().map_err(|why| wrong(&why))?;
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let options = postgres_options(&url)?;
            return Ok(Self::Postgres(Box::new(options)));
        }
        if !is_plain {
            // It may be a password.
            let why = "holds no URL of an inbox in PostgreSQL: `postgres://USER@HOST/DATABASE`";
            return Err(wrong(why));
        }
        if url == "memory:" {
            return Ok(Self::Memory);
        }
        sqlite_path(&url).map(|path| Self::Sqlite(path.to_owned()))
    }

    /// Opens the inbox for a server. `migrate` says whether it may create and upgrade a schema.
    pub(crate) async fn open(
        self,
        sqlite: SqliteOptions,
        migrate: bool,
    ) -> Result<Arc<dyn Inbox>, Failure> {
        match self {
            Self::Memory => Ok(Arc::new(MemoryInbox::new())),
            Self::Sqlite(path) => Ok(Arc::new(open_sqlite(&path, sqlite)?)),
            Self::Postgres(options) => {
                let options = options.with_queue_bytes(sqlite.queue_bytes);
                let opened = PostgresInbox::open_with(options.with_migrations(migrate)).await;
                let inbox = opened.map_err(|error| match error {
                    PostgresOpenError::Url { .. } => Failure::usage("`--inbox`", &chain(&error)),
                    _ => Failure::run(&error),
                })?;
                Ok(Arc::new(inbox))
            }
        }
    }

    /// Opens the inbox for a command. A server may have it open.
    pub(crate) async fn open_shared(&self) -> Result<Arc<dyn Inbox>, Failure> {
        match self {
            Self::Postgres(options) => {
                let options = options.as_ref().clone().with_migrations(false);
                Ok(Arc::new(PostgresInbox::open_with(options).await?))
            }
            other => Ok(Arc::new(SqliteInbox::open_shared(other.existing_file()?)?)),
        }
    }

    /// Returns the file of an inbox that exists.
    pub(crate) fn existing_file(&self) -> Result<&str, Failure> {
        let Self::Sqlite(path) = self else {
            let why = match self {
                Self::Memory => "an inbox in memory ends with its server and cannot be read",
                _ => "this needs an inbox in a file",
            };
            return Err(Failure::usage("`--inbox`", why));
        };
        if !Path::new(path).exists() {
            return Err(Failure::Run(format!(
                "cannot open inbox `{path}`: there is no such file; `pleo-receiver serve` creates it, \
                 `--inbox FILE` or `--config FILE` names another"
            )));
        }
        Ok(path)
    }
}

impl fmt::Display for InboxUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::Sqlite(path) => write!(f, "sqlite:{path}"),
            Self::Postgres(options) => write!(f, "postgres://{}", options.server()),
        }
    }
}

/// Opens the inbox in a file as its server.
pub(crate) fn open_sqlite(path: &str, options: SqliteOptions) -> Result<SqliteInbox, Failure> {
    SqliteInbox::open_with(path, options).map_err(|error| {
        let fix = match error {
            SqliteOpenError::Open { .. } => {
                "; choose a file in a folder that this user can write to, on a disk with space left"
            }
            _ => "",
        };
        Failure::Run(format!("`--inbox`: {}{fix}", chain(&error)))
    })
}

/// Opens the inbox at a URL for a command. A server may have it open.
pub(crate) async fn open_shared(url: &str) -> Result<Arc<dyn Inbox>, Failure> {
    InboxUrl::parse(url)?.open_shared().await
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

/// Parses the URL of an inbox in PostgreSQL. Its option `password` may be a
/// reference to a secret.
fn postgres_options(url: &str) -> Result<PostgresOptions, Failure> {
    let mut password = None;
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let mut rest = Vec::new();
    for option in query.split('&') {
        let value = option.strip_prefix("password=").unwrap_or_default();
        let reference: SecretRef = value.parse().unwrap_or_else(|never| match never {});
        if reference.is_plain() {
            rest.push(option);
        } else {
            let resolved = reference.resolve();
            password = Some(resolved.map_err(|why| Failure::usage("`--inbox`", &why))?);
        }
    }
    let url = format!("{address}?{}", rest.join("&"));
    let options: PostgresOptions = (url.parse())
        .map_err(|error: PostgresOpenError| Failure::usage("`--inbox`", &chain(&error)))?;
    Ok(match password {
        Some(password) => options.with_password(password),
        None => options,
    })
}

/// Returns the file that the URL names: `sqlite:FILE`, or FILE alone.
fn sqlite_path(url: &str) -> Result<&str, Failure> {
    let path = match url.strip_prefix("sqlite:") {
        Some(path) => path,
        None if has_scheme(url) || matches!(url, "memory" | "sqlite") => "",
        None => url,
    };
    if path.is_empty() {
        let why = "is not an inbox: give `sqlite:FILE`, for instance `sqlite:pleo-inbox.db`, or \
                   `postgres://USER@HOST/DATABASE`";
        // What follows may have a password.
        let shown = match url.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://…"),
            None => url.to_owned(),
        };
        return Err(Failure::usage("`--inbox`", &format!("`{shown}` {why}")));
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
    use super::{InboxUrl, sqlite_path};

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
            ("mysql:a", None),
            ("", None),
        ] {
            assert_eq!(sqlite_path(url).ok(), path, "{url}");
        }
    }

    #[test]
    fn shows_no_password() {
        for url in [
            "postgres://pleo:hidden@db.example:5433/inbox",
            "postgresql://pleo@db.example:5433/inbox?password=hidden&sslmode=disable",
        ] {
            let url = InboxUrl::parse(url).unwrap();
            assert_eq!(url.to_string(), "postgres://db.example:5433/inbox");
            assert!(!format!("{url:?}").contains("hidden"), "{url:?}");
        }
        for url in [
            "postgres://pleo:hidden@db:port/inbox",
            "postgress://pleo:hidden@db/inbox",
            "mysql://pleo:hidden@db/inbox",
        ] {
            let error = InboxUrl::parse(url).unwrap_err();
            assert!(!error.to_string().contains("hidden"), "{error}");
        }
    }
}
