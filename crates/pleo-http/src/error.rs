//! The error type.

use std::error::Error as StdError;

/// Why a client could not be set up, or a body not be read. Contains no URL, since it may hold
/// secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL is invalid.
    #[error("invalid URL: {reason}; give an absolute URL such as `https://host/path`")]
    Url {
        /// What is invalid.
        reason: String,
    },
    /// The machine has no root certificates.
    #[error(
        "no certificate authorities on this machine; install `ca-certificates`, or set \
         `SSL_CERT_FILE`"
    )]
    NoRoots(#[source] Option<Box<dyn StdError + Send + Sync>>),
    /// The additional root certificates cannot be parsed.
    #[error("the additional root certificates are not valid PEM, or the PEM is empty")]
    Roots(#[source] Option<Box<dyn StdError + Send + Sync>>),
    /// The HTTP client cannot be set up.
    #[error("cannot set up the HTTP client")]
    Client(#[source] Box<dyn StdError + Send + Sync>),
    /// The body of a response is longer than the limit.
    #[error("the body of the response is longer than {limit} bytes")]
    BodyTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The connection failed before the end of a response's body.
    #[error("cannot read the body of the response")]
    Body(#[source] reqwest::Error),
}
