//! Errors of the PostgreSQL inbox.

use core::time::Duration;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_postgres::error::SqlState;

use crate::inbox::error::{InboxError, InboxErrorKind};

/// Why an inbox could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresOpenError {
    /// The URL cannot be parsed, or a file that it names cannot be read. The error does not quote the
    /// URL, which may have a password.
    #[error("cannot use the URL of the PostgreSQL inbox")]
    Url {
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The database cannot be reached, may lose committed messages, or has no usable schema.
    #[error("cannot open the inbox in PostgreSQL at `{server}`")]
    Open {
        /// The hosts and the database.
        server: String,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Why the options of a URL cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum UrlError {
    #[error("it is not `postgres://[USER@]HOST[:PORT][,…]/DATABASE[?OPTION=VALUE&…]`")]
    Malformed,
    #[error("a host has an `@`; write each `@` of a user or a password as `%40`")]
    At,
    #[error("`sslrootcert` verifies nothing without `sslmode=verify-full` or `verify-ca`; set one")]
    Unverified,
    #[error("`{option}` cannot be `{value}`; use {allowed}")]
    Value {
        option: &'static str,
        value: String,
        allowed: &'static str,
    },
    #[error(
        "`schema` must be a lower-case letter, followed by at most 62 lower-case letters, digits or `_`"
    )]
    Schema,
    #[error("cannot read `{}`", path.display())]
    File {
        path: PathBuf,
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("`{}` has no certificate in PEM", .0.display())]
    NoCertificate(PathBuf),
    #[error("this machine has no root certificates; set `sslrootcert` to a file of them")]
    NoRoots,
    #[error("TLS cannot be set up")]
    Tls(#[source] Box<dyn Error + Send + Sync>),
}

/// Why a statement or a connection failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Without its detail, which may quote a row.
    #[error("{message} (SQLSTATE {})", code.code())]
    Server { code: SqlState, message: String },
    #[error("connection failed")]
    Connection(#[source] Arc<tokio_postgres::Error>),
    #[error("connection lost")]
    Lost,
    #[error("no response within {0:?}")]
    Timeout(Duration),
    #[error(
        "no synchronous standby confirmed the commit; see `pg_stat_replication` and \
         `synchronous_standby_names` of the server"
    )]
    NotReplicated,
    #[error("{setting} is `{value}`: {reason}")]
    Unsafe {
        setting: &'static str,
        value: String,
        reason: &'static str,
    },
    #[error("the server is a read-only standby; name the primary, or all hosts of the cluster")]
    ReadOnly,
    #[error("the server is PostgreSQL {0}; use version 13 or newer")]
    OldServer(String),
    #[error(
        "cannot record the outcome of message `{webhook_id}` at `{endpoint}`, which is dead now; \
         replay it once the cause is corrected"
    )]
    Unrecorded {
        endpoint: String,
        webhook_id: String,
        source: Box<Self>,
    },
    #[error(
        "server_encoding is `{0}`: the database cannot store all characters; create one with \
         `createdb --encoding=UTF8 --template=template0`"
    )]
    Encoding(String),
    #[error("cannot migrate the schema `{schema}` to version {version}; its changes are undone")]
    Migration {
        schema: String,
        version: i32,
        source: Box<Self>,
    },
    #[error(
        "the schema `{schema}` has no inbox; create it with `pleo-receiver inbox migrate`, or allow \
         migrations"
    )]
    NoSchema { schema: String },
    #[error(
        "the schema `{schema}` has version {found}, this program needs {needed}; run `pleo-receiver \
         inbox migrate`, or allow migrations"
    )]
    OldSchema {
        schema: String,
        found: i32,
        needed: i32,
    },
    #[error(
        "the schema `{schema}` has version {found}, which this program (version {supported}) cannot \
         use; use pleo-receiver {program} or newer"
    )]
    NewSchema {
        schema: String,
        found: i32,
        supported: i32,
        program: String,
    },
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(error) => Self::Server {
                code: error.code().clone(),
                message: error.message().to_owned(),
            },
            None => Self::Connection(Arc::new(error)),
        }
    }
}

impl From<Failure> for InboxError {
    /// Every failure may end: a server that restarts, a disk that is full, a migration.
    fn from(failure: Failure) -> Self {
        Self::new(InboxErrorKind::Unavailable, failure)
    }
}

impl Failure {
    /// Returns the error of an import.
    pub(super) fn of_import(self) -> InboxError {
        if self.is_refusal() {
            InboxError::new(InboxErrorKind::Refused, self)
        } else {
            self.into()
        }
    }

    /// Returns `true` if the connection cannot be used any more: it is lost, or it is that of a server
    /// that shuts down or is not the primary any more.
    pub(super) fn ends_session(&self) -> bool {
        match self {
            Self::Server { code, .. } => {
                let code = code.code();
                code.starts_with("08")
                    || code.starts_with("57P")
                    || *code == *SqlState::READ_ONLY_SQL_TRANSACTION.code()
                    // A prepared statement that a migration made unusable, or that is missing.
                    || *code == *SqlState::FEATURE_NOT_SUPPORTED.code()
                    || *code == *SqlState::INVALID_SQL_STATEMENT_NAME.code()
            }
            Self::NotReplicated => false,
            _ => true,
        }
    }

    /// Returns `true` if other statements would hang as this one did.
    pub(super) const fn is_hang(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::NotReplicated)
    }

    /// Returns `true` if only this connection failed.
    pub(super) const fn is_loss(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::Lost)
    }

    /// Returns `true` if the server ended a statement that took too long.
    pub(super) fn is_statement_timeout(&self) -> bool {
        matches!(self, Self::Server { code, .. } if *code == SqlState::QUERY_CANCELED)
    }

    /// Returns `true` if the same statement may succeed at once.
    pub(super) fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Server { code, .. }
                if *code == SqlState::T_R_DEADLOCK_DETECTED
                    || *code == SqlState::T_R_SERIALIZATION_FAILURE
        )
    }

    /// Returns `true` if the statement may succeed with other rows: its data is at fault, in the
    /// statement or on the server's disk.
    pub(super) fn is_data_error(&self) -> bool {
        let Self::Server { code, .. } = self else {
            return false;
        };
        let is_too_large = *code == SqlState::PROGRAM_LIMIT_EXCEEDED;
        let class = code.code().get(..2);
        is_too_large || matches!(class, Some("22" | "23" | "XX"))
    }

    /// Returns `true` if the server may store other rows. A trigger of an administrator refuses rows with
    /// any code, so these are all but those of connections, transactions, rights, tables, resources,
    /// locks, cancelled statements and disks.
    fn is_refusal(&self) -> bool {
        let Self::Server { code, .. } = self else {
            return false;
        };
        let others = [
            "08", "0A", "25", "26", "28", "40", "42", "53", "55", "57", "58",
        ];
        !others.iter().any(|class| code.code().starts_with(class))
    }
}
