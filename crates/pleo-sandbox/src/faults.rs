//! Faults that a test injects into API requests.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use tokio::sync::Notify;

/// A fault of one API request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The API responds with this and does nothing.
    Status {
        /// The status code.
        status: u16,
        /// The value of `Retry-After`.
        retry_after: Option<String>,
        /// The body, or `None` for an error of the API.
        body: Option<String>,
    },
    /// The API closes the connection and does nothing.
    Closed,
    /// The API handles the request, then closes the connection without a response.
    AnswerLost,
    /// The API never responds.
    Silence,
    /// The API handles the request, and responds once it is notified.
    Held(Arc<Notify>),
    /// No fault: the API responds as usual.
    None,
}

impl Fault {
    /// Responds with this status and an error of the API.
    #[must_use]
    pub const fn status(status: u16) -> Self {
        Self::Status {
            status,
            retry_after: None,
            body: None,
        }
    }

    /// Responds with this status and `Retry-After`.
    pub fn retry_after(status: u16, wait: impl Into<String>) -> Self {
        Self::Status {
            status,
            retry_after: Some(wait.into()),
            body: None,
        }
    }

    /// Responds with 200 and this body.
    pub fn body(body: impl Into<String>) -> Self {
        Self::Status {
            status: 200,
            retry_after: None,
            body: Some(body.into()),
        }
    }
}

/// Builds the response of [`Fault::Status`].
pub(crate) fn response(
    status: u16,
    retry_after: Option<String>,
    body: Option<String>,
) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(status).unwrap();
    let reason = r#"{"type":"SIMULATED","message":"injected fault"}"#;
    let mut builder = Response::builder()
        .status(status)
        .header("content-type", "application/json;charset=UTF-8");
    if let Some(wait) = retry_after {
        builder = builder.header("retry-after", wait);
    }
    if status.is_redirection() {
        builder = builder.header("location", "/v1/elsewhere");
    }
    let body = body.unwrap_or_else(|| reason.to_owned());
    builder.body(Full::from(body)).unwrap()
}
