//! What can go wrong on the way.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;

/// How a request to the API goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This is answered, and nothing is done.
    Status {
        /// The status.
        status: u16,
        /// The value of `Retry-After`.
        retry_after: Option<String>,
        /// The body; an error of the API where it is `None`.
        body: Option<String>,
    },
    /// The connection closes, and nothing is done.
    Closed,
    /// It is done, and then the connection closes without an answer.
    AnswerLost,
    /// No answer ever comes.
    Silence,
    /// Nothing goes wrong yet: it is answered as usual.
    None,
}

impl Fault {
    /// Answers this status, with an error of the API.
    #[must_use]
    pub const fn status(status: u16) -> Self {
        Self::Status {
            status,
            retry_after: None,
            body: None,
        }
    }

    /// Answers this status and asks to wait.
    pub fn retry_after(status: u16, wait: impl Into<String>) -> Self {
        Self::Status {
            status,
            retry_after: Some(wait.into()),
            body: None,
        }
    }

    /// Answers 200 and this.
    pub fn body(body: impl Into<String>) -> Self {
        Self::Status {
            status: 200,
            retry_after: None,
            body: Some(body.into()),
        }
    }
}

/// The answer of [`Fault::Status`].
pub(crate) fn answer(
    status: u16,
    retry_after: Option<String>,
    body: Option<String>,
) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(status).unwrap();
    let reason = r#"{"type":"SIMULATED","message":"as the test wished"}"#;
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
