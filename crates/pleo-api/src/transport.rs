//! HTTP: requests, timeouts, size limits and retries.

use core::fmt;
use core::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use pleo_http::read_limited;
use pleo_http::reqwest::{self, Url};
use serde::de::DeserializeOwned;

use crate::auth::Credentials;
use crate::error::{ApiMessage, Error};
use crate::page_request::Parameter;

/// The maximum size of a response's body.
const BODY_LIMIT: usize = 8 * 1024 * 1024;

/// The maximum length of an [`ApiMessage`]'s texts, in characters.
const MESSAGE_LIMIT: usize = 1024;

/// The maximum `Retry-After` that a call waits for. A call fails immediately if Pleo asks for more.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// The maximum delay between two attempts without `Retry-After`.
const MAX_DELAY: Duration = Duration::from_secs(10);

/// Sends requests to one API with one company's credentials. Clones use the same connections.
#[derive(Clone)]
pub(crate) struct Transport {
    pub(crate) base_url: Url,
    pub(crate) credentials: Credentials,
    pub(crate) timeout: Duration,
    pub(crate) retries: usize,
    pub(crate) first_delay: Duration,
    pub(crate) http: reqwest::Client,
}

/// One request, which may be sent several times.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Vec<Parameter>,
    pub(crate) body: Option<Vec<u8>>,
    /// The secrets in the body, which must not appear in an error.
    pub(crate) secrets: Vec<&'a str>,
}

/// A response with its complete body.
pub(crate) struct Response {
    status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Vec<u8>,
}

impl Transport {
    /// Sends a request, and retries it if that is safe. Also returns whether it was retried.
    pub(crate) async fn send(&self, call: &Call<'_>) -> (Result<Response, Error>, bool) {
        let is_retried = |error: &Error| match (error, &call.method) {
            // The API may still execute the request, after a later change.
            (Error::Timeout { .. }, method) => *method == Method::GET,
            // Idempotent methods (RFC 9110 section 9.2.2).
            (_, &Method::GET | &Method::PUT | &Method::DELETE) => error.is_transient(),
            _ => false,
        };
        let mut was_retried = false;
        let schedule = ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(self.first_delay)
            .with_max_delay(MAX_DELAY)
            .with_max_times(self.retries);
        let result = (|| self.attempt(call))
            .retry(schedule)
            .when(is_retried)
            .adjust(|error: &Error, delay| match error.retry_after() {
                Some(wanted) if wanted > MAX_RETRY_AFTER => None,
                Some(wanted) => delay.map(|delay| delay.max(wanted)),
                None => delay,
            })
            .notify(|_, _| was_retried = true)
            .await;
        (result, was_retried)
    }

    async fn attempt(&self, call: &Call<'_>) -> Result<Response, Error> {
        let response = self.exchange(call).await?;
        if response.status.is_success() {
            return Ok(response);
        }
        let message = self.message(&response.body, call);
        let retry_after = retry_after(&response.headers, Timestamp::now());
        Err(Error::from_status(response.status, message, retry_after))
    }

    async fn exchange(&self, call: &Call<'_>) -> Result<Response, Error> {
        let mut request = self
            .http
            .request(call.method.clone(), call.url(&self.base_url))
            .timeout(self.timeout)
            .header(AUTHORIZATION, self.credentials.header())
            .header(ACCEPT, "application/json");
        if let Some(body) = &call.body {
            request = request
                .header(CONTENT_TYPE, "application/json;charset=UTF-8")
                .body(body.clone());
        }
        let response = request.send().await;
        let mut response = response.map_err(|error| self.connection_error(error))?;
        let mut body = Vec::new();
        let read = read_limited(&mut response, BODY_LIMIT, &mut body).await;
        read.map_err(|error| self.body_error(error))?;
        Ok(Response {
            status: response.status(),
            headers: response.headers().clone(),
            body,
        })
    }

    fn connection_error(&self, error: reqwest::Error) -> Error {
        let host = self.host();
        if error.is_timeout() && !error.is_connect() {
            let after = self.timeout;
            return Error::Timeout { host, after };
        }
        let source = error.without_url().into();
        Error::Connection { host, source }
    }

    fn body_error(&self, error: pleo_http::Error) -> Error {
        match error {
            pleo_http::Error::BodyTooLarge { limit } => Error::ResponseTooLarge { limit },
            pleo_http::Error::Body(error) => self.connection_error(error),
            other => Error::Connection {
                host: self.host(),
                source: other.into(),
            },
        }
    }

    /// Parses an error response, and removes the secrets that the request held.
    fn message(&self, body: &[u8], call: &Call<'_>) -> ApiMessage {
        let mut message: ApiMessage = serde_json::from_slice(body).unwrap_or_default();
        for text in [&mut message.kind, &mut message.message] {
            let own = self.credentials.secret().expose();
            for secret in call.secrets.iter().copied().chain([own]) {
                // A secret of one or two characters may occur in any text.
                if secret.len() > 2 {
                    *text = text.replace(secret, "[not shown]");
                }
            }
            if let Some((end, _)) = text.char_indices().nth(MESSAGE_LIMIT) {
                text.truncate(end);
            }
        }
        message
    }

    /// Returns the API's host, with the port unless it is the scheme's default.
    pub(crate) fn host(&self) -> String {
        self.base_url.authority().to_owned()
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("base_url", &self.base_url.as_str())
            .finish_non_exhaustive()
    }
}

impl Call<'_> {
    pub(crate) const fn new(method: Method, path: String) -> Self {
        Self {
            method,
            path,
            query: Vec::new(),
            body: None,
            secrets: Vec::new(),
        }
    }

    fn url(&self, base_url: &Url) -> Url {
        let mut url = base_url.clone();
        let base_path = base_url.path().trim_end_matches('/');
        url.set_path(&format!("{base_path}{}", self.path));
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        url
    }
}

impl Response {
    /// Parses the body.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::invalid_response(&error))
    }
}

/// Parses `Retry-After`, in seconds or as a date (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = parse_date(text)?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

/// Parses an HTTP date in its preferred format (RFC 9110 section 5.6.7), a subset of RFC 2822.
pub(crate) fn parse_date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn joins_base_url_with_path_and_encodes_query() {
        let call = |query: &[(&'static str, &str)]| Call {
            query: query
                .iter()
                .map(|&(name, value)| (name, value.to_owned()))
                .collect(),
            ..Call::new(Method::GET, "/v1/subscriptions".to_owned())
        };
        let filters = [
            ("event_types", "v1.a&b=c"),
            ("event_types", "d#"),
            ("after", "A2=~"),
        ];
        for (base_url, query, url) in [
            (
                "https://pleo.test",
                &[][..],
                "https://pleo.test/v1/subscriptions",
            ),
            (
                "http://[::1]:1/a/",
                &[],
                "http://[::1]:1/a/v1/subscriptions",
            ),
            (
                "https://pleo.test:8443/a",
                &filters,
                "https://pleo.test:8443/a/v1/subscriptions\
                 ?event_types=v1.a%26b%3Dc&event_types=d%23&after=A2%3D%7E",
            ),
        ] {
            let base_url = base_url.parse().unwrap();
            assert_eq!(call(query).url(&base_url).as_str(), url);
        }
    }

    #[test]
    fn parses_retry_after_in_seconds_and_as_date() {
        let now: Timestamp = "2026-11-24T08:00:00Z".parse().unwrap();
        for (text, seconds) in [
            ("0", Some(0)),
            ("120", Some(120)),
            ("Tue, 24 Nov 2026 08:00:30 GMT", Some(30)),
            ("Tue, 24 Nov 2026 07:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            let wanted = seconds.map(Duration::from_secs);
            assert_eq!(retry_after(&headers, now), wanted, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
