//! The answer to each kind of request: status, stable code, and the body that explains it.

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use pleo_webhook_verify::VerifyError;

/// Why a request was refused. Nothing refused is ever stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// 404
    #[error("no endpoint has this path")]
    NoSuchPath,
    /// 400
    #[error("the request has more than one `Host`")]
    AmbiguousHost,
    /// 405
    #[error("this endpoint takes POST only")]
    MethodNotAllowed,
    /// 403
    #[error("the source address is not in a network that this endpoint allows")]
    SourceNotAllowed,
    /// 415
    #[error("the content type is not JSON")]
    NotJson,
    /// 415
    #[error("the body has a content encoding, and must be sent without")]
    ContentEncoding,
    /// 413
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge {
        /// How many bytes are taken.
        limit: usize,
    },
    /// 400 or 401
    #[error(transparent)]
    Signature(#[from] VerifyError),
    /// 401
    #[error("the Basic credentials are missing or wrong")]
    WrongCredentials,
    /// 401
    #[error("a header that this endpoint requires is missing or wrong")]
    WrongHeader,
    /// 408
    #[error("the body took too long to arrive")]
    BodyTimeout,
    /// 400; the sender rarely sees this, since its connection broke
    #[error("the body broke off")]
    BodyBroken,
    /// 503
    #[error("too many requests are in flight, or too much of their bodies; send it again later")]
    Overloaded,
    /// 503
    #[error(
        "too many requests from this source wait for their bodies, or hold too much of them; send it again later"
    )]
    SourceOverloaded,
    /// 503
    #[error("the inbox has too many messages waiting to be stored; send it again later")]
    InboxFull,
    /// 503
    #[error("the inbox could not store the message; send it again later")]
    InboxFailed,
    /// 503
    #[error("the receiver is shutting down; send it again later")]
    ShuttingDown,
}

impl Rejection {
    /// A stable name, for logs, metrics and whoever reads the answer.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoSuchPath => "no_such_path",
            Self::AmbiguousHost => "ambiguous_host",
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

    /// The status it is answered with.
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
            Self::AmbiguousHost | Self::Signature(_) | Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Overloaded
            | Self::SourceOverloaded
            | Self::InboxFull
            | Self::InboxFailed
            | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// A header that the status calls for.
    const fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        Some(match self {
            Self::MethodNotAllowed => (ALLOW, HeaderValue::from_static("POST")),
            Self::WrongCredentials => (
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"pleo\""),
            ),
            // What is left of the body is not read, so the connection can't be used again. (hyper leaves
            // it out of HTTP/2, where only the stream ends.)
            Self::BodyTooLarge { .. } | Self::BodyTimeout => {
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

/// 204: the message is on disk.
pub(crate) fn accepted() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// The problem document of RFC 9457, section 3, with a `code` of ours.
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
    response
}
