//! Faults that a test injects into API requests.

use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::Notify;

/// A fault of one API request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Fault {
    /// The API responds with this and does nothing.
    Status {
        /// The status code.
        status: u16,
        /// The value of `Retry-After`.
        #[serde(default)]
        retry_after: Option<String>,
        /// The body, or `None` for an error of the API.
        #[serde(default)]
        body: Option<String>,
    },
    /// The API closes the connection and does nothing.
    Closed,
    /// The API handles the request, then closes the connection without a response.
    AnswerLost,
    /// The API never responds.
    Silence,
    /// The API handles the request, and responds once it is notified.
    #[serde(skip)]
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
