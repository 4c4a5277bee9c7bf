//! Errors of API calls, and of invalid requests and configurations.

use core::fmt;
use core::time::Duration;
use std::error::Error as StdError;

use http::StatusCode;
use serde::Deserialize;

/// Why a call failed. Never holds a token, a password or a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request is invalid; nothing was sent.
    #[error("the subscription request is invalid; nothing was sent to Pleo")]
    InvalidRequest(#[from] InvalidRequest),
    /// 400: Pleo rejected the request.
    #[error("Pleo rejected the request (400): {0}")]
    BadRequest(ApiMessage),
    /// 401: Pleo does not accept the credentials.
    #[error(
        "Pleo does not accept the token (401): {0}; check that it has not expired, that it belongs to \
         this environment (production or staging), and that an API key is not given as a token or a \
         token as an API key"
    )]
    Unauthorized(ApiMessage),
    /// 403: the credentials lack a permission.
    #[error(
        "the token lacks a permission (403): {0}; ask Pleo for a token with the required scopes, such \
         as `export-jobs:read` and `export-jobs:write` for export jobs"
    )]
    Forbidden(ApiMessage),
    /// 404: the resource does not exist, or the credentials give no access to it.
    #[error("Pleo has no such resource, or the token cannot see it (404): {0}")]
    NotFound(ApiMessage),
    /// 429: too many requests.
    #[error("too many requests to Pleo (429): {message}; try again later")]
    #[non_exhaustive]
    RateLimited {
        /// Pleo's message.
        message: ApiMessage,
        /// How long Pleo asks to wait.
        retry_after: Option<Duration>,
    },
    /// 5xx: Pleo failed.
    #[error("Pleo failed ({}): {message}; try again later", status.as_u16())]
    #[non_exhaustive]
    Server {
        /// The response's status.
        status: StatusCode,
        /// Pleo's message.
        message: ApiMessage,
        /// How long Pleo asks to wait.
        retry_after: Option<Duration>,
    },
    /// Any other status that isn't a success. Redirects are not followed, since they would send the
    /// token to another server.
    #[error("Pleo answered {}, an unexpected status: {message}", status.as_u16())]
    #[non_exhaustive]
    UnexpectedStatus {
        /// The response's status.
        status: StatusCode,
        /// Pleo's message.
        message: ApiMessage,
    },
    /// The body of a successful response cannot be parsed. It isn't shown, since it may be secret.
    #[error(
        "cannot parse Pleo's response (line {line}, column {column}): it does not match Pleo's \
         documentation, or is not from Pleo"
    )]
    #[non_exhaustive]
    InvalidResponse {
        /// The line of the first error.
        line: usize,
        /// The column of the first error.
        column: usize,
    },
    /// The body of the response is too large.
    #[error("Pleo's response is larger than {limit} bytes")]
    #[non_exhaustive]
    ResponseTooLarge {
        /// The maximum size in bytes.
        limit: usize,
    },
    /// A page has a next page, but no new cursor.
    #[error("Pleo announced another page without a new cursor: the list is incomplete")]
    NoNextPage,
    /// The list has too many pages. [`Pages::cursor`](crate::Pages::cursor) is where to continue.
    #[error(
        "the list has more than {pages} pages and is incomplete; narrow its filters, or request \
         longer pages"
    )]
    #[non_exhaustive]
    TooManyPages {
        /// The number of pages fetched.
        pages: usize,
    },
    /// The connection failed.
    #[error("no answer from {host}")]
    #[non_exhaustive]
    Connection {
        /// The API's host.
        host: String,
        /// The cause.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The call timed out.
    #[error("no complete answer from {host} within {after:?}")]
    #[non_exhaustive]
    Timeout {
        /// The API's host.
        host: String,
        /// The timeout.
        after: Duration,
    },
}

impl Error {
    /// Leaves out serde's message, which quotes values that may be secret.
    pub(crate) fn invalid_response(error: &serde_json::Error) -> Self {
        Self::InvalidResponse {
            line: error.line(),
            column: error.column(),
        }
    }

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
            status => Self::UnexpectedStatus { status, message },
        }
    }

    /// Returns the response's status if it isn't a success; `None` for every other error.
    #[must_use]
    pub const fn status(&self) -> Option<StatusCode> {
        match self {
            Self::BadRequest(_) => Some(StatusCode::BAD_REQUEST),
            Self::Unauthorized(_) => Some(StatusCode::UNAUTHORIZED),
            Self::Forbidden(_) => Some(StatusCode::FORBIDDEN),
            Self::NotFound(_) => Some(StatusCode::NOT_FOUND),
            Self::RateLimited { .. } => Some(StatusCode::TOO_MANY_REQUESTS),
            Self::Server { status, .. } | Self::UnexpectedStatus { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Returns `true` if the same call may succeed later: after a failed connection, a timeout, or a
    /// response with 429, 502, 503 or 504. Calls that are safe to repeat were retried before they
    /// returned the error; see [`ClientBuilder::retries`](crate::ClientBuilder::retries). A call that
    /// failed without a response may have taken effect.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::RateLimited { .. } | Self::Connection { .. } | Self::Timeout { .. } => true,
            Self::Server { status, .. } => matches!(status.as_u16(), 502..=504),
            _ => false,
        }
    }

    /// Returns how long Pleo asks to wait before the next request: `Retry-After` of a response with
    /// 429 or 5xx.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Server { retry_after, .. } => {
                *retry_after
            }
            _ => None,
        }
    }
}

/// The body of an error response: `{"type": …, "message": …}`. `Display` escapes line breaks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct ApiMessage {
    /// The error's type; empty if the response has none.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The error's message; empty if the response has none.
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

/// Why a [`SubscriptionRequest`](crate::SubscriptionRequest) is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRequest {
    /// The endpoint URL cannot receive deliveries.
    #[error("the endpoint URL `{url}` is invalid: {reason}")]
    #[non_exhaustive]
    EndpointUrl {
        /// The URL; empty if it may hold a password.
        url: String,
        /// What is wrong with the URL.
        reason: &'static str,
    },
    /// The request has no event types.
    #[error(
        "the subscription has no event types; give at least one, such as `v1.export-job.created`"
    )]
    NoEventTypes,
    /// Pleo requires unique event types.
    #[error("the event type `{event_type}` is duplicated; give it once")]
    #[non_exhaustive]
    DuplicateEventType {
        /// The duplicated event type.
        event_type: String,
    },
    /// The custom header would replace a signature header, and no delivery could be verified.
    #[error(
        "the custom header `{name}` would replace a signature header; choose a name that starts \
         with neither `webhook-` nor `svix-`"
    )]
    #[non_exhaustive]
    ReservedHeader {
        /// The header's name.
        name: String,
    },
    /// The name or the value is no valid HTTP header. The value isn't shown, since it may be secret.
    #[error("the custom header `{name}` or its value is not a valid HTTP header")]
    #[non_exhaustive]
    InvalidHeader {
        /// The header's name.
        name: String,
    },
    /// Basic authentication lacks the user name or the password.
    #[error("the endpoint authentication `BASIC` needs a user name and a password; give both")]
    BasicWithoutCredentials,
}

/// Why a client, or its credentials, cannot be constructed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The token or API key is invalid. It isn't shown.
    #[error(
        "the token or API key is empty or has an invalid character, such as a space or a line break"
    )]
    Credentials,
    /// The URL of Pleo's API is invalid.
    #[error("the URL of Pleo's API `{url}` is invalid: {reason}")]
    #[non_exhaustive]
    BaseUrl {
        /// The URL; empty if it may hold a password.
        url: String,
        /// What is wrong with the URL.
        reason: &'static str,
    },
    /// The machine has no root certificates.
    #[error("found no root certificates on this machine; install `ca-certificates`")]
    NoRoots(#[source] Option<Box<dyn StdError + Send + Sync>>),
    /// The additional root certificates cannot be parsed.
    #[error("the additional root certificates are not valid PEM, or the PEM is empty")]
    Roots(#[source] Option<Box<dyn StdError + Send + Sync>>),
    /// TLS cannot be configured.
    #[error("cannot configure TLS")]
    Tls(#[source] Box<dyn StdError + Send + Sync>),
}

impl ConfigError {
    pub(crate) fn from_http(error: pleo_http::Error) -> Self {
        match error {
            pleo_http::Error::NoRoots(source) => Self::NoRoots(source),
            pleo_http::Error::Roots(source) => Self::Roots(source),
            pleo_http::Error::Client(source) => Self::Tls(source),
            other => Self::Tls(other.into()),
        }
    }
}
