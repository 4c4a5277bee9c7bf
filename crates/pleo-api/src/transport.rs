//! Requests and their answers: TLS, time-outs, and trying again.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::Arc;

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::time;

use crate::{ApiMessage, ConfigError, Credentials, Error, Sensitive};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an idle connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// How much of an answer is read.
const ANSWER_LIMIT: usize = 8 * 1024 * 1024;

/// The longest that an answer's `Retry-After` is waited for; asked for more, a call fails at once.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// The longest wait between two attempts that no answer asked for.
const MAX_DELAY: Duration = Duration::from_secs(10);

/// Sends requests to one API.
pub(crate) struct Transport {
    pub(crate) base: Uri,
    pub(crate) credentials: Credentials,
    pub(crate) timeout: Duration,
    pub(crate) retries: usize,
    pub(crate) first_delay: Duration,
    pub(crate) http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// One request, which may be sent several times.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) body: Option<Bytes>,
    /// What is in the body and must not come back in an error.
    pub(crate) secrets: Vec<&'a Sensitive>,
}

impl Transport {
    /// Sends until there is a success, an error that will stay, or no attempt left. Says beside it
    /// whether an attempt failed before.
    pub(crate) async fn send(&self, call: &Call<'_>) -> (Result<Response<Bytes>, Error>, bool) {
        // RFC 9110 section 9.2.2: doing these twice is doing them once.
        let is_idempotent = matches!(call.method, Method::GET | Method::PUT | Method::DELETE);
        let failed_before = AtomicBool::new(false);
        let schedule = ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(self.first_delay)
            .with_max_delay(MAX_DELAY)
            .with_max_times(self.retries);
        let result = (|| self.attempt(call))
            .retry(schedule)
            .sleep(time::sleep)
            .when(|error| is_idempotent && error.is_transient())
            .adjust(|error: &Error, delay| match error.retry_after() {
                Some(wanted) if wanted > MAX_RETRY_AFTER => None,
                Some(wanted) => delay.map(|delay| delay.max(wanted)),
                None => delay,
            })
            .notify(|_, _| failed_before.store(true, Ordering::Relaxed))
            .await;
        (result, failed_before.into_inner())
    }

    async fn attempt(&self, call: &Call<'_>) -> Result<Response<Bytes>, Error> {
        let exchange = time::timeout(self.timeout, self.exchange(call)).await;
        let answer = exchange.unwrap_or_else(|_| {
            let host = self.host();
            let after = self.timeout;
            Err(Error::Timeout { host, after })
        })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let message = self.message(answer.body(), call);
        let wait = retry_after(answer.headers(), Timestamp::now());
        Err(Error::from_status(answer.status(), message, wait))
    }

    async fn exchange(&self, call: &Call<'_>) -> Result<Response<Bytes>, Error> {
        let connection = |source| Error::Connection {
            host: self.host(),
            source,
        };
        let base = self.base.to_string();
        let mut request = Request::builder()
            .method(&call.method)
            .uri(format!("{}{}", base.trim_end_matches('/'), call.target))
            .header(AUTHORIZATION, self.credentials.header())
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("pleo-api/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(call.body.clone().unwrap_or_default()))
            .map_err(|error| connection(error.into()))?;
        if call.body.is_some() {
            let json = HeaderValue::from_static("application/json;charset=UTF-8");
            request.headers_mut().insert(CONTENT_TYPE, json);
        }
        let answer = self.http.request(request).await;
        let (head, body) = answer
            .map_err(|error| connection(error.into()))?
            .into_parts();
        match Limited::new(body, ANSWER_LIMIT).collect().await {
            Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(Error::AnswerTooLong {
                limit: ANSWER_LIMIT,
            }),
            Err(error) => Err(connection(error)),
        }
    }

    /// What the answer says of the error, without anything secret that the request held.
    fn message(&self, body: &[u8], call: &Call<'_>) -> ApiMessage {
        let mut message: ApiMessage = serde_json::from_slice(body).unwrap_or_default();
        for text in [&mut message.kind, &mut message.message] {
            for secret in call
                .secrets
                .iter()
                .copied()
                .chain([self.credentials.secret()])
            {
                // A letter or two are in every text.
                if secret.expose().len() > 2 {
                    *text = text.replace(secret.expose(), "[not shown]");
                }
            }
            text.truncate(text.floor_char_boundary(1024));
        }
        message
    }

    pub(crate) fn host(&self) -> String {
        self.base
            .authority()
            .map(ToString::to_string)
            .unwrap_or_default()
    }
}

/// RFC 9110 section 10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = date(text)?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

/// RFC 9110 section 5.6.7: the one form of a date that is still made, which is one of RFC 2822's too.
pub(crate) fn date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

/// A client that checks certificates against this machine's authorities, and these too.
pub(crate) fn http_client(
    more_roots: &[Vec<u8>],
) -> Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>, ConfigError> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    for pem in more_roots {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate =
                certificate.map_err(|error| ConfigError::Roots(Some(error.into())))?;
            let added = roots.add(certificate);
            added.map_err(|error| ConfigError::Roots(Some(error.into())))?;
        }
        if roots.len() == before {
            return Err(ConfigError::Roots(None));
        }
    }
    if roots.is_empty() {
        let error = native.errors.into_iter().next();
        return Err(ConfigError::NoRoots(error.map(Into::into)));
    }
    // Named, since another crate of the same program may bring a second one.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::Tls(error.into()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        // `http` only where `ClientBuilder` allowed it.
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .build(connector))
}

/// Reads a successful answer.
pub(crate) fn read<T: serde::de::DeserializeOwned>(answer: &Response<Bytes>) -> Result<T, Error> {
    // Not the error itself, which shows what it found: that may be secret.
    serde_json::from_slice(answer.body()).map_err(|error| Error::Answer {
        line: error.line(),
        column: error.column(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_seconds_and_as_a_date() {
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
