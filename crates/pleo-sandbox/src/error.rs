//! The error type.

use std::io;
use std::path::PathBuf;

use uuid::Uuid;

/// Why a sandbox could not start, or could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}; choose another address, or port 0 for a free one")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The address is reachable from other machines, and no host names were given.
    #[error(
        "cannot listen on {address}: other machines could use the sandbox; name the hosts by which \
         they reach it"
    )]
    NotLoopback {
        /// The address.
        address: std::net::SocketAddr,
    },
    /// The state file cannot be read or written.
    #[error("cannot use the state file `{}`; make it readable and writable, or name another", path.display())]
    StateFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The state file is not one of this version.
    #[error("the state file `{}` is not one of this version; delete it, or name another", path.display())]
    StateFormat {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// The HTTP client of the sender cannot be set up.
    #[error("cannot set up the HTTP client of the sender")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The certificate of the API cannot be issued.
    #[error("cannot set up TLS")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is no such subscription.
    #[error("no subscription {0}")]
    NoSubscription(Uuid),
    /// There is no such message.
    #[error("no message {0}")]
    NoMessage(String),
    /// There is no such export job.
    #[error("no export job {0}")]
    NoExportJob(Uuid),
    /// An export job cannot change from its status to the requested one.
    #[error("the export job {id} is {status}, and cannot become {requested}")]
    StatusChange {
        /// The job.
        id: Uuid,
        /// Its status.
        status: String,
        /// The requested status.
        requested: String,
    },
    /// A wait took longer than 60 s.
    #[error("the event did not happen within 60 s")]
    Timeout,
}
