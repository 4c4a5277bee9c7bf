//! What can go wrong.

use core::fmt;
use core::time::Duration;
use std::error::Error as StdError;

use http::StatusCode;
use serde::Deserialize;

/// Why a call did not do what it was asked. Never holds a token, a password or a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request can't be what is meant; nothing was sent.
    #[error("the subscription was not sent to Pleo")]
    Invalid(#[from] InvalidRequest),
    /// 400: something in the request is wrong.
    #[error("Pleo refused the request (400): {0}")]
    BadRequest(ApiMessage),
    /// 401: Pleo doesn't know who asks.
    #[error(
        "Pleo does not accept the token (401): {0}; it is wrong or has expired, belongs to the other \
         of production and staging, or is an API key given as a token or the other way round"
    )]
    Unauthorized(ApiMessage),
    /// 403: Pleo knows who asks, and that they may not.
    #[error(
        "the token may not do this (403): {0}; ask Pleo for one with the scopes that it takes, such \
         as `export-jobs:read` and `export-jobs:write` for export jobs"
    )]
    Forbidden(ApiMessage),
    /// 404: there is no such thing, at least not for this token.
    #[error("Pleo has no such thing, at least not for this token (404): {0}")]
    NotFound(ApiMessage),
    /// 429: too many requests.
    #[error("too many requests (429): {message}; try again later")]
    RateLimited {
        /// What Pleo says.
        message: ApiMessage,
        /// How long Pleo asks to wait.
        retry_after: Option<Duration>,
    },
    /// 5xx: Pleo could not.
    #[error("Pleo failed ({}): {message}; try again later", status.as_u16())]
    Server {
        /// The status.
        status: StatusCode,
        /// What Pleo says.
        message: ApiMessage,
        /// How long Pleo asks to wait.
        retry_after: Option<Duration>,
    },
    /// Any other status that isn't a success. A redirect is never followed: it would take the token
    /// elsewhere.
    #[error("answered {}, which no call of Pleo's should be: {message}", status.as_u16())]
    Status {
        /// The status.
        status: StatusCode,
        /// What came with it.
        message: ApiMessage,
    },
    /// The answer was a success, but can't be read. What is in it isn't shown, as it may be secret.
    #[error(
        "the answer cannot be read (line {line}, column {column}): it is not what Pleo's \
         documentation says, or not from Pleo"
    )]
    Answer {
        /// Where it stops being what it should be.
        line: usize,
        /// Where in that line.
        column: usize,
    },
    /// The answer is longer than any that Pleo should give.
    #[error("the answer has more than {limit} bytes")]
    AnswerTooLong {
        /// How many bytes of it are read.
        limit: usize,
    },
    /// A page says that another one follows, but not where.
    #[error("Pleo says that another page follows, but not where: the list is incomplete")]
    NoNextPage,
    /// Page follows page, and no end is in sight.
    #[error(
        "more follows even after {pages} pages, which no list of Pleo's should have: the list is \
         incomplete; narrow it by its filters, or ask for longer pages"
    )]
    TooManyPages {
        /// How many were fetched.
        pages: usize,
    },
    /// No answer came.
    #[error("no answer from {host}")]
    Connection {
        /// Who was asked.
        host: String,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// It took too long.
    #[error("no whole answer from {host} within {after:?}")]
    Timeout {
        /// Who was asked.
        host: String,
        /// How long it was waited for.
        after: Duration,
    },
}

impl Error {
    pub(crate) fn from_status(
        status: StatusCode,
        message: ApiMessage,
        retry_after: Option<Duration>,
    ) -> Self {
        match status {
            StatusCode::BAD_REQUEST => Self::BadRequest(message),
            StatusCode::UNAUTHORIZED => Self::Unauthorized(message),
            StatusCode::FORBIDDEN => Self::Forbidden(message),
            StatusCode::NOT_FOUND => Self::NotFound(message),
            StatusCode::TOO_MANY_REQUESTS => Self::RateLimited {
                message,
                retry_after,
            },
            status if status.is_server_error() => Self::Server {
                status,
                message,
                retry_after,
            },
            status => Self::Status { status, message },
        }
    }

    /// The status that Pleo answered, where it answered with one that isn't a success.
    #[must_use]
    pub const fn status(&self) -> Option<StatusCode> {
        match self {
            Self::BadRequest(_) => Some(StatusCode::BAD_REQUEST),
            Self::Unauthorized(_) => Some(StatusCode::UNAUTHORIZED),
            Self::Forbidden(_) => Some(StatusCode::FORBIDDEN),
            Self::NotFound(_) => Some(StatusCode::NOT_FOUND),
            Self::RateLimited { .. } => Some(StatusCode::TOO_MANY_REQUESTS),
            Self::Server { status, .. } | Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the same request may well succeed a little later.
    pub(crate) const fn is_transient(&self) -> bool {
        match self {
            Self::RateLimited { .. } | Self::Connection { .. } => true,
            Self::Server { status, .. } => matches!(status.as_u16(), 502..=504),
            _ => false,
        }
    }

    pub(crate) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Server { retry_after, .. } => {
                *retry_after
            }
            _ => None,
        }
    }
}

/// What the API says of an error: `{"type": …, "message": …}`. Printed as one line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct ApiMessage {
    /// The kind of error; empty where the answer names none.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The error in words; empty where the answer has none.
    #[serde(default)]
    pub message: String,
}

impl fmt::Display for ApiMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind.as_str(), self.message.as_str()) {
            ("", "") => f.write_str("no reason given"),
            ("", text) | (text, "") => write!(f, "{}", text.escape_debug()),
            (kind, message) => {
                write!(f, "{} ({})", message.escape_debug(), kind.escape_debug())
            }
        }
    }
}

/// Why a subscription would not be sent to Pleo.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRequest {
    /// The endpoint's URL can't be one.
    #[error("the endpoint's URL `{url}` cannot be used: {reason}")]
    EndpointUrl {
        /// The URL; empty where it may hold a password.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No event would ever be delivered.
    #[error(
        "the subscription has no event types: give at least one, such as `v1.export-job.created`"
    )]
    NoEventTypes,
    /// Pleo asks for unique ones.
    #[error("the event type `{event_type}` is there twice: give it once")]
    EventTypeTwice {
        /// Which one.
        event_type: String,
    },
    /// The sender would replace its own header by it, and no delivery could be verified.
    #[error(
        "the custom header `{name}` would replace a header of the signature: choose a name that \
         begins neither `webhook-` nor `svix-`"
    )]
    ReservedHeader {
        /// The header's name.
        name: String,
    },
    /// It isn't one. Its value may be secret, so it isn't shown.
    #[error("the custom header `{name}` or its value cannot stand in an HTTP request")]
    Header {
        /// The header's name.
        name: String,
    },
    /// There is nothing to send.
    #[error("the endpoint's authentication is `BASIC` without a user name and password: give both")]
    BasicWithoutCredentials,
}

/// Why there can't be such a client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The token or key isn't one; it isn't shown.
    #[error(
        "the token or API key is empty, or holds what cannot be in one, such as a space or a line break"
    )]
    Credentials,
    /// The URL of the API can't be used.
    #[error("the URL of Pleo's API `{url}` cannot be used: {reason}")]
    BaseUrl {
        /// What was given; empty where it may hold a password.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No certificate authority to check Pleo's certificate against.
    #[error("found no certificate authorities on this machine: install `ca-certificates`")]
    NoRoots(#[source] Option<Box<dyn StdError + Send + Sync>>),
    /// The certificates given can't be read.
    #[error("the certificate authorities are not in PEM, or none is among them")]
    Roots(#[source] Option<Box<dyn StdError + Send + Sync>>),
    /// TLS can't be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] Box<dyn StdError + Send + Sync>),
}
