//! A handler that posts each message to a URL.

use core::fmt;
use core::time::Duration;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pleo_http::reqwest::{Client, Response};
use pleo_http::{Target, read_limited};
use pleo_webhook_verify::{InvalidId, Secret, unix_now};
use tokio::time;

use super::cloud_events::CloudEvents;
use super::contract::{Handler, HandlerError, HandlerFuture};
use super::delivery::Delivery;

const USER_AGENT: &str = concat!("pleo-receiver/", env!("CARGO_PKG_VERSION"));

/// How many bytes of a response body are read. A body read to its end lets the connection be reused.
const MAX_RESPONSE_BODY: usize = 64 * 1024;

/// How many bytes of a failed response's body an observer gets.
const MAX_OBSERVED_BODY: usize = 1024;

/// How long an observer waits for a failed response's body.
const OBSERVED_BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a response body is read.
const RESPONSE_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Posts each message to a URL. The body is unchanged.
///
/// | response | outcome |
/// | --- | --- |
/// | 2xx | success, whatever becomes of the response's body |
/// | 410 | permanent failure: the message is dead |
/// | another status, with `Retry-After` (seconds or an HTTP date) | retry after that time |
/// | another status | retry with backoff |
/// | none within the time limit, or no connection | retry with backoff |
///
/// Redirects are not followed. The request has these headers, if they have a value: `webhook-id`, `pleo-endpoint`,
/// `pleo-event-type`, `pleo-event-id`, `pleo-attempt` (from 1), `pleo-received-at` and
/// `pleo-expires-at` (RFC 3339), and `pleo-expired: true` if the export job expired before this
/// attempt. `traceparent` has the context of the attempt's OpenTelemetry span, if there is one.
#[derive(Clone)]
pub struct Forward {
    client: Client,
    target: Target,
    timeout: Duration,
    secret: Option<Secret>,
    cloud_events: Option<CloudEvents>,
    on_failed: Option<OnFailed>,
}

/// The function of [`Forward::on_failed`].
type OnFailed = Arc<dyn Fn(&Delivery, &[u8]) + Send + Sync>;

impl Forward {
    /// Forwards to this `http` or `https` URL. A user and password in the URL are sent as Basic
    /// credentials (RFC 7617) and never shown.
    ///
    /// Path and query are sent as given, except that characters which a URL may not contain are
    /// percent-encoded. A path that URL parsers rewrite, such as `/a/../b`, is an error.
    ///
    /// An `https` target is verified with the system's certificate authorities, or those of
    /// `SSL_CERT_FILE`.
    ///
    /// # Errors
    /// [`ForwardError::Url`] if the URL is invalid; [`ForwardError::NoCertificateAuthorities`] if the
    /// URL is `https` and the system has none; [`ForwardError::Client`] if the client cannot be set
    /// up.
    pub fn new(url: &str) -> Result<Self, ForwardError> {
        let target: Target = url.parse().map_err(client_error)?;
        Ok(Self {
            client: target.client(USER_AGENT).map_err(client_error)?,
            target,
            timeout: Duration::from_secs(30),
            secret: None,
            cloud_events: None,
            on_failed: None,
        })
    }

    /// Sets the time limit until the head of the final response; 30 seconds by default.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Signs each request with this secret, as Standard Webhooks specifies. By default requests have
    /// no signature: the sender's signature would be stale.
    #[must_use]
    pub fn signed_with(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Sends each message as a CloudEvent 1.0.2 too, in binary mode: adds the headers
    /// `ce-specversion`, `ce-id` (the message id), `ce-source`, `ce-type` (the event type, or
    /// `unknown` if the body is not an envelope) and `ce-time` (the time of arrival). Their values are
    /// percent-encoded, as the HTTP binding says in section 3.1.3.2.
    ///
    /// `source` is the start of `ce-source`, such as `https://hooks.example.com`; the endpoint's name
    /// follows as a path. Without a start (`""`), the source is a relative URI reference such as
    /// `/webhooks/pleo`.
    ///
    /// # Errors
    /// [`ForwardError::Source`] if `source` can't be the start of a URI.
    pub fn with_cloud_events(mut self, source: &str) -> Result<Self, ForwardError> {
        let cloud_events = CloudEvents::new(source);
        let cloud_events = cloud_events.map_err(|reason| ForwardError::Source { reason })?;
        self.cloud_events = Some(cloud_events);
        Ok(self)
    }

    /// Calls a function with the body of each response that is not 2xx, before the outcome is recorded:
    /// its first 1,024 bytes, as far as they arrive within a second. It must not block.
    #[must_use]
    pub fn on_failed(mut self, observe: impl Fn(&Delivery, &[u8]) + Send + Sync + 'static) -> Self {
        self.on_failed = Some(Arc::new(observe));
        self
    }

    async fn forward(&self, delivery: Delivery) -> Result<(), HandlerError> {
        let mut response = self.send(&delivery).await?;
        let status = response.status();
        let delay = retry_after(response.headers(), SystemTime::now());
        if status.is_success() {
            read_in_background(response);
            return Ok(());
        }
        if let Some(observe) = &self.on_failed {
            let mut body = Vec::new();
            // A longer body is cut.
            let read = read_limited(&mut response, MAX_OBSERVED_BODY, &mut body);
            let _ = time::timeout(OBSERVED_BODY_TIMEOUT, read).await;
            observe(&delivery, &body);
        }
        read_in_background(response);
        let error = ForwardError::Status { status };
        Err(match delay {
            _ if status == StatusCode::GONE => HandlerError::permanent(error),
            Some(delay) => HandlerError::retry_after(delay, error),
            None => HandlerError::retry(error),
        })
    }

    /// Sends the message. Returns the response before its body has arrived.
    async fn send(&self, delivery: &Delivery) -> Result<Response, ForwardError> {
        let headers = self.headers(delivery)?;
        let request = self.target.post(&self.client);
        let request = request.headers(headers).body(delivery.body().clone());
        let after = self.timeout;
        let result = time::timeout(after, request.send()).await;
        let result = result.map_err(|_| ForwardError::Timeout { after })?;
        // The URL may contain secrets.
        result.map_err(|error| match is_refused(&error) {
            true => ForwardError::Refused {
                origin: self.target.url().origin().ascii_serialization(),
            },
            false => ForwardError::Request(error.without_url().into()),
        })
    }

    fn headers(&self, delivery: &Delivery) -> Result<HeaderMap, InvalidId> {
        let mut headers = HeaderMap::new();
        let mut set = |name, value: &str| {
            // The sender chooses some values. Those that are invalid in a header are left out.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        for (_, name, value) in delivery.metadata() {
            set(name, &value);
        }
        if delivery.is_expired() {
            set("pleo-expired", "true");
        }
        for (name, value) in (self.cloud_events.iter()).flat_map(|format| format.headers(delivery))
        {
            set(name, &value);
        }
        if let Some(secret) = &self.secret {
            let now = unix_now();
            let signature = secret.sign(delivery.id(), now, delivery.body())?;
            set("webhook-timestamp", &now.to_string());
            set("webhook-signature", signature.as_str());
        }
        let json = HeaderValue::from_static("application/json");
        headers.insert(CONTENT_TYPE, json);
        Ok(headers)
    }
}

impl Handler for Forward {
    fn handle(&self, delivery: Delivery) -> HandlerFuture<'_> {
        Box::pin(self.forward(delivery))
    }
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forward")
            .field("target", &self.target.url().origin().ascii_serialization())
            .field("timeout", &self.timeout)
            .field("is_signed", &self.secret.is_some())
            .field("cloud_events", &self.cloud_events)
            .finish_non_exhaustive()
    }
}

/// Why a message was not forwarded. Contains no credentials or secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// The URL is invalid. It may contain a password, so the error leaves it out.
    #[error("invalid URL: {reason}; use an absolute URL such as `https://host/path`")]
    Url {
        /// What is invalid.
        reason: String,
    },
    /// The start of a CloudEvent's source is not the start of a URI.
    #[error("invalid source of CloudEvents: {reason}")]
    Source {
        /// What is invalid.
        reason: &'static str,
    },
    /// The system has no certificate authorities to verify an `https` target with.
    #[error("no certificate authorities found; install `ca-certificates` or set `SSL_CERT_FILE`")]
    NoCertificateAuthorities,
    /// The HTTP client could not be set up.
    #[error("cannot set up the HTTP client")]
    Client(#[source] Box<dyn Error + Send + Sync>),
    /// The target refused the connection.
    #[error("cannot connect to {origin}: connection refused; is the server running?")]
    Refused {
        /// Scheme, host and port of the target.
        origin: String,
    },
    /// The request failed before a response.
    #[error("cannot forward")]
    Request(#[source] Box<dyn Error + Send + Sync>),
    /// There was no response within the time limit.
    #[error("cannot forward: no response within {after:?}")]
    Timeout {
        /// The time limit.
        after: Duration,
    },
    /// The response was not 2xx.
    #[error("cannot forward: target answered {status}")]
    Status {
        /// The status of the response.
        status: StatusCode,
    },
    /// The message's id cannot be signed. The receiver accepts no such id.
    #[error("cannot sign the message")]
    Sign(#[from] InvalidId),
}

/// Returns `true` if nobody listens at the target.
fn is_refused(error: &(dyn Error + 'static)) -> bool {
    let mut causes = core::iter::successors(Some(error), |&error| error.source());
    causes.any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
    })
}

/// Reads the rest of a response, so that the connection can be reused. The outcome of the attempt does
/// not wait for it.
fn read_in_background(mut response: Response) {
    tokio::spawn(async move {
        let mut body = Vec::new();
        let read = read_limited(&mut response, MAX_RESPONSE_BODY, &mut body);
        let _ = time::timeout(RESPONSE_BODY_TIMEOUT, read).await;
    });
}

/// Returns the delay of a `Retry-After` header (RFC 9110 section 10.2.3); zero for a date in the past.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

fn client_error(error: pleo_http::Error) -> ForwardError {
    match error {
        pleo_http::Error::Url { reason } => ForwardError::Url { reason },
        pleo_http::Error::NoRoots(_) => ForwardError::NoCertificateAuthorities,
        pleo_http::Error::Client(source) => ForwardError::Client(source),
        other => ForwardError::Client(other.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_delay_from_seconds_and_dates() {
        // Sun, 06 Nov 1994 08:49:37 GMT
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (value, seconds) in [
            ("0", Some(0)),
            ("120", Some(120)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(retry_after(&headers, now), expected, "{value}");
        }
    }
}
