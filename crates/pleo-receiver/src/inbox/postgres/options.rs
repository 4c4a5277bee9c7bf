//! Options of the PostgreSQL inbox, and its URL.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::error::{PostgresOpenError, UrlError};
use super::{hosts, passfile};

/// How the certificate of the server is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verification {
    /// TLS is not used, or any certificate is accepted.
    None,
    /// The certificate must be issued by a trusted authority.
    Authority,
    /// The certificate must be that of the host.
    Host,
}

/// Options of a [`PostgresInbox`](crate::PostgresInbox), parsed from its URL:
/// `postgres://[USER@]HOST[:PORT][,HOST…]/DATABASE[?OPTION=VALUE&…]`.
///
/// The options are those of libpq, of which these are supported: `host` (several are tried in order;
/// `host=/run/postgresql` is the directory of a socket), `port`, `user`, `password`, `passfile`,
/// `dbname`, `sslmode` (`disable`, `prefer`, `require`, `verify-ca`, `verify-full`), `sslrootcert`
/// (a PEM file; `system` for those of the machine, which is the default), `sslnegotiation`,
/// `application_name`, `connect_timeout` (of each host, 3 seconds by default), `keepalives`,
/// `tcp_user_timeout`, `options`. And:
///
/// - `schema`: the schema of the inbox, see [`with_schema`](Self::with_schema).
/// - `pooler=transaction`: see [`with_transaction_pooler`](Self::with_transaction_pooler).
///
/// The password is that of the URL, or of [`with_password`](Self::with_password), or of the variable
/// `PGPASSWORD`, or of the file `passfile` or `PGPASSFILE`. It is never shown.
#[derive(Clone)]
pub struct PostgresOptions {
    /// The configuration of each host.
    pub(super) hosts: Vec<Config>,
    pub(super) verification: Verification,
    pub(super) roots: Option<PathBuf>,
    pub(super) schema: String,
    pub(super) migrate: bool,
    pub(super) is_pooled: bool,
    pub(super) queue_bytes: usize,
    pub(super) statement_timeout: Duration,
}

impl PostgresOptions {
    /// Sets the password.
    #[must_use]
    pub fn with_password(mut self, password: impl AsRef<[u8]>) -> Self {
        for host in &mut self.hosts {
            host.password(password.as_ref());
        }
        self
    }

    /// Sets the schema of the inbox; `pleo_inbox` by default. Each inbox has a schema of its own.
    #[must_use]
    pub fn with_schema(mut self, name: impl Into<String>) -> Self {
        self.schema = name.into();
        self
    }

    /// Sets whether opening the inbox creates its schema and upgrades it; `true` by default. Without,
    /// the user of the inbox needs no right to create anything.
    #[must_use]
    pub const fn with_migrations(mut self, enabled: bool) -> Self {
        self.migrate = enabled;
        self
    }

    /// Sets whether the connections go through a pooler in transaction mode, as PgBouncer's; `false` by
    /// default. Then the inbox uses neither prepared statements nor notifications: a dispatcher notices
    /// changes by other processes within a second.
    #[must_use]
    pub const fn with_transaction_pooler(mut self, enabled: bool) -> Self {
        self.is_pooled = enabled;
        self
    }

    /// Sets the maximum memory of queued messages in bytes; 64 MiB by default. Above it, appends fail
    /// with [`Busy`](crate::InboxErrorKind::Busy).
    #[must_use]
    pub const fn with_queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// Sets the time limit of a statement; 5 seconds by default.
    #[must_use]
    pub const fn with_statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// Sets the name that the server shows for the connections; `pleo-receiver` by default.
    #[must_use]
    pub fn with_application_name(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        for host in &mut self.hosts {
            host.application_name(&name);
        }
        self
    }

    /// Returns the hosts and the database, without user and password.
    #[must_use]
    pub fn server(&self) -> String {
        hosts::describe(&self.hosts)
    }

    fn parse(url: &str) -> Result<Self, UrlError> {
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let mut options = Url::default();
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(UrlError::Malformed)?;
            let decoded = percent_decode_str(value).decode_utf8();
            let decoded = decoded.map_err(|_| UrlError::Malformed)?.into_owned();
            if !options.set(name, decoded)? {
                rest.push(pair);
            }
        }
        let url = format!("{address}?{}", rest.join("&"));
        // The parser's errors may quote the URL.
        let config = url.parse::<Config>();
        let mut config = config.map_err(|_| UrlError::Malformed)?;
        // The rest of a password with an `@`, which must not be shown as a host.
        let has_at = |host: &Host| matches!(host, Host::Tcp(name) if name.contains('@'));
        if config.get_hosts().iter().any(has_at) {
            return Err(UrlError::At);
        }
        if options.has_roots && options.verification == Verification::None {
            return Err(UrlError::Unverified);
        }
        config.ssl_mode(options.ssl_mode);
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_application_name().is_none() {
            config.application_name("pleo-receiver");
        }
        let mut hosts = hosts::split(&config)?;
        passfile::set_passwords(&mut hosts, options.passfile)?;
        Ok(Self {
            hosts,
            verification: options.verification,
            roots: options.roots,
            schema: options.schema.unwrap_or_else(|| "pleo_inbox".into()),
            migrate: true,
            is_pooled: options.is_pooled,
            queue_bytes: 64 << 20,
            statement_timeout: Duration::from_secs(5),
        })
    }
}

impl FromStr for PostgresOptions {
    type Err = PostgresOpenError;

    fn from_str(url: &str) -> Result<Self, PostgresOpenError> {
        Self::parse(url).map_err(|error| PostgresOpenError::Url {
            source: error.into(),
        })
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("server", &self.server())
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

/// The options of a URL that are not those of [`Config`].
struct Url {
    ssl_mode: SslMode,
    verification: Verification,
    /// `true` if `sslrootcert` is set.
    has_roots: bool,
    roots: Option<PathBuf>,
    passfile: Option<PathBuf>,
    schema: Option<String>,
    is_pooled: bool,
}

impl Default for Url {
    fn default() -> Self {
        Self {
            ssl_mode: SslMode::Prefer,
            verification: Verification::None,
            has_roots: false,
            roots: None,
            passfile: None,
            schema: None,
            is_pooled: false,
        }
    }
}

impl Url {
    /// Sets an option. Returns `false` if it is another one.
    fn set(&mut self, name: &str, value: String) -> Result<bool, UrlError> {
        let refused = |option, value, allowed| UrlError::Value {
            option,
            value,
            allowed,
        };
        match name {
            "sslmode" => {
                (self.ssl_mode, self.verification) = match &*value {
                    "disable" => (SslMode::Disable, Verification::None),
                    "prefer" => (SslMode::Prefer, Verification::None),
                    "require" => (SslMode::Require, Verification::None),
                    "verify-ca" => (SslMode::Require, Verification::Authority),
                    "verify-full" => (SslMode::Require, Verification::Host),
                    _ => {
                        let allowed = "disable, prefer, require, verify-ca or verify-full";
                        return Err(refused("sslmode", value, allowed));
                    }
                }
            }
            "sslrootcert" => {
                self.has_roots = true;
                self.roots = (value != "system").then(|| value.into());
            }
            "passfile" => self.passfile = Some(value.into()),
            "schema" => self.schema = Some(value),
            "pooler" => match &*value {
                "transaction" => self.is_pooled = true,
                "none" => self.is_pooled = false,
                _ => return Err(refused("pooler", value, "transaction or none")),
            },
            "target_session_attrs" if value != "read-write" => {
                return Err(refused("target_session_attrs", value, "read-write"));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}
