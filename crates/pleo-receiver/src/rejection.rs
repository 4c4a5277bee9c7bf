//! Every rejection: its status, its stable code and its problem document.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use pleo_webhook_verify::VerifyError;

/// Why a request was rejected. A rejected request is never stored.
///
/// The response has it in its extensions, so that a layer around the receiver can observe it:
///
/// ```
/// use pleo_receiver::Rejection;
/// use pleo_receiver::http::Response;
///
/// fn observe<B>(response: &Response<B>) {
///     if let Some(rejection) = response.extensions().get::<Rejection>() {
///         println!("{}: {rejection}", rejection.code());
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// No endpoint has the path: 404.
    #[error("no endpoint has this path")]
    NoSuchPath,
    /// The request has several `Host` headers: 400.
    #[error("the request has more than one `Host` header")]
    AmbiguousHost,
    /// 400: HTTP/1.1 requires one `Host` (RFC 9112 section 3.2).
    #[error("the request has no `Host`")]
    MissingHost,
    /// 400: two servers could disagree where the body ends (RFC 9112 section 6.1).
    #[error("the request has a `Transfer-Encoding` other than one `chunked`")]
    AmbiguousFraming,
    /// The method is not POST: 405 with `Allow`.
    #[error("the method must be POST")]
    MethodNotAllowed,
    /// The source address is unknown or not in an allowed network: 403.
    #[error("the source address is not in an allowed network")]
    SourceNotAllowed,
    /// The content type is missing or not JSON: 415.
    #[error("the `Content-Type` must be JSON")]
    NotJson,
    /// The body has a content encoding, such as gzip: 415.
    #[error("a `Content-Encoding` is not supported")]
    ContentEncoding,
    /// The body exceeds the limit: 413.
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The signature check failed: 401 for a timestamp outside the tolerance and for a wrong
    /// signature, else 400.
    #[error(transparent)]
    Signature(#[from] VerifyError),
    /// The Basic credentials are missing or wrong: 401.
    #[error("the Basic credentials are missing or wrong")]
    WrongCredentials,
    /// A required header is missing or wrong: 401.
    #[error("a required header is missing or wrong")]
    WrongHeader,
    /// The body exceeded its timeout or fell below the minimum rate: 408.
    #[error("the body arrived too slowly")]
    BodyTimeout,
    /// The body ended early or is malformed: 400. The sender sees it only if the connection is
    /// still open.
    #[error("the body is incomplete or malformed")]
    BodyBroken,
    /// Too many messages are being stored, too many requests wait for their bodies, or their bodies
    /// have too many bytes: 503.
    #[error("too many requests are in flight; retry later")]
    Overloaded,
    /// The source has too many requests with incomplete bodies, or too many bytes of them: 503.
    #[error("too many incomplete requests from this source; retry later")]
    SourceOverloaded,
    /// The inbox's queue is full: 503.
    #[error("the inbox queue is full; retry later")]
    InboxFull,
    /// The inbox could not store the message: 503.
    #[error("the message could not be stored; retry later")]
    InboxFailed,
    /// The receiver is shutting down: 503.
    #[error("the receiver is shutting down; retry later")]
    ShuttingDown,
}

/// A request that was rejected; see
/// [`ReceiverBuilder::on_rejected`](crate::ReceiverBuilder::on_rejected).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Rejected<'a> {
    /// The name of the endpoint; `None` if no endpoint has the path.
    pub endpoint: Option<&'a str>,
    /// The path as the client sent it, if no endpoint has it.
    pub path: Option<&'a str>,
    /// The message id that the headers claim, if they were read. It may be forged.
    pub webhook_id: Option<&'a str>,
    /// The client's address, if it is known.
    pub source: Option<IpAddr>,
    /// Why the request was rejected.
    pub rejection: Rejection,
}

impl Rejection {
    /// Returns the stable code, for logs, metrics and senders.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoSuchPath => "no_such_path",
            Self::AmbiguousHost => "ambiguous_host",
            Self::MissingHost => "missing_host",
            Self::AmbiguousFraming => "ambiguous_framing",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::SourceNotAllowed => "source_not_allowed",
            Self::NotJson => "not_json",
            Self::ContentEncoding => "content_encoding",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::Signature(error) => error.code(),
            Self::WrongCredentials => "wrong_credentials",
            Self::WrongHeader => "wrong_header",
            Self::BodyTimeout => "body_timeout",
            Self::BodyBroken => "body_broken",
            Self::Overloaded => "overloaded",
            Self::SourceOverloaded => "source_overloaded",
            Self::InboxFull => "inbox_full",
            Self::InboxFailed => "inbox_failed",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// Returns the HTTP status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchPath => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::SourceNotAllowed => StatusCode::FORBIDDEN,
            Self::NotJson | Self::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Signature(
                VerifyError::TimestampTooOld { .. }
                | VerifyError::TimestampTooNew { .. }
                | VerifyError::SignatureMismatch,
            )
            | Self::WrongCredentials
            | Self::WrongHeader => StatusCode::UNAUTHORIZED,
            Self::AmbiguousHost
            | Self::MissingHost
            | Self::AmbiguousFraming
            | Self::Signature(_)
            | Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Overloaded
            | Self::SourceOverloaded
            | Self::InboxFull
            | Self::InboxFailed
            | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns the header that the status requires.
    const fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        Some(match self {
            Self::MethodNotAllowed => (ALLOW, HeaderValue::from_static("POST")),
            Self::WrongCredentials => (
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"pleo\""),
            ),
            // The rest of the body stays unread, so the connection can't be reused. In HTTP/2 only
            // the stream ends, and hyper drops the header.
            Self::BodyTooLarge { .. } | Self::BodyTimeout | Self::AmbiguousFraming => {
                (CONNECTION, HeaderValue::from_static("close"))
            }
            Self::Overloaded
            | Self::SourceOverloaded
            | Self::InboxFull
            | Self::InboxFailed
            | Self::ShuttingDown => (RETRY_AFTER, HeaderValue::from_static("5")),
            _ => return None,
        })
    }
}

/// Creates the response to a stored delivery: 204.
pub(crate) fn accepted() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Creates the response to a rejected request: a problem document (RFC 9457 section 3) with a
/// `code` member.
pub(crate) fn rejected(rejection: &Rejection) -> Response<Full<Bytes>> {
    let status = rejection.status();
    let problem = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "code": rejection.code(),
        "detail": rejection.to_string(),
    });
    let mut response = Response::new(Full::new(Bytes::from(problem.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.extend(rejection.header());
    response.extensions_mut().insert(*rejection);
    response
}
