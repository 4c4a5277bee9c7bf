//! The HTTP client of the program.

use core::error::Error;
use core::time::Duration;
use std::io::{self, ErrorKind};

use pleo_http::reqwest::{self, Client, RequestBuilder, StatusCode};
use pleo_http::{Target, read_limited};
use serde_json::Value;

use crate::failure::{Failure, chain};

const USER_AGENT: &str = concat!("pleo-receiver/", env!("CARGO_PKG_VERSION"));

/// The time limit of a request: the same as Pleo's.
const TIMEOUT: Duration = Duration::from_secs(15);

/// How many bytes of an answer are read.
const ANSWER_LIMIT: usize = 64 * 1024;

/// An answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

/// Builds a client for this target.
pub(crate) fn build(target: &Target) -> Result<Client, Failure> {
    let client = target.client(USER_AGENT);
    client.map_err(|error| Failure::run(&error))
}

/// Parses an `http` or `https` URL. The error does not show it, since it may hold a password.
pub(crate) fn parse_url(text: &str) -> Result<Target, String> {
    text.parse().map_err(|error| match error {
        pleo_http::Error::Url { reason } => format!("{reason}; give `https://host/path`"),
        other => chain(&other),
    })
}

/// Sends a request, and reads the answer. The error does not show the URL, since it may hold a
/// password.
pub(crate) async fn send(request: RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.timeout(TIMEOUT).send().await;
    let mut response = response.map_err(reqwest::Error::without_url)?;
    let mut body = Vec::new();
    // A body that is too long or incomplete does not change the status.
    let _ = read_limited(&mut response, ANSWER_LIMIT, &mut body).await;
    Ok(Answer {
        status: response.status(),
        body,
    })
}

/// Returns the innermost cause of an error, which is the most specific.
pub(crate) fn cause(error: &reqwest::Error) -> String {
    let causes = core::iter::successors(Some::<&dyn Error>(error), |&error| error.source());
    causes.last().map_or_else(String::new, |cause| {
        let io = cause.downcast_ref::<io::Error>();
        if io.is_some_and(|error| error.kind() == ErrorKind::UnexpectedEof) {
            // The text of this rustls error is a link to its manual.
            return "the connection was closed".to_owned();
        }
        cause.to_string()
    })
}

impl Answer {
    /// Returns the `code` of a problem document (RFC 9457), or an empty text.
    pub(crate) fn code(&self) -> String {
        let problem: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let code = problem.get("code").and_then(Value::as_str);
        code.unwrap_or_default().to_owned()
    }
}
