//! A handler that posts each message to a URL.

use core::fmt;
use core::time::Duration;
use std::error::Error;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use pleo_webhook_verify::{Secret, VerifyError, unix_now};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tokio::time;

use super::contract::{Delivery, Handler, HandlerFuture};

/// The time limit of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an idle connection is kept. Shorter than most servers' limits, so that a request rarely
/// meets a connection that is being closed.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// How many bytes of a response body are read. A body read to its end lets the connection be reused.
const MAX_RESPONSE_BODY: usize = 64 * 1024;

/// Posts each message to a URL. The body is unchanged.
///
/// A 2xx response is a success; any other response is a failed attempt. Redirects are not followed.
/// The request has these headers, if they have a value: `webhook-id`, `pleo-endpoint`,
/// `pleo-event-type`, `pleo-event-id`, `pleo-attempt` (from 1), `pleo-received-at` and
/// `pleo-expires-at` (RFC 3339), and `pleo-expired: true` if the export job expired before this
/// attempt.
#[derive(Clone)]
pub struct Forward {
    client: Client,
    url: Url,
    credentials: Option<HeaderValue>,
    timeout: Duration,
    secret: Option<Secret>,
}

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
        let (url, credentials) = parse(url)?;
        Ok(Self {
            client: client(&url)?,
            url,
            credentials,
            timeout: Duration::from_secs(30),
            secret: None,
        })
    }

    /// Sets the time limit of a request, including the response; 30 seconds by default.
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

    async fn forward(&self, delivery: Delivery) -> Result<(), ForwardError> {
        let headers = self.headers(&delivery)?;
        let request = self.client.post(self.url.clone());
        let request = request.headers(headers).body(delivery.body);
        let exchange = async {
            let mut response = request.send().await?;
            let mut read = 0;
            // A body that is too long or incomplete does not change the status.
            while read < MAX_RESPONSE_BODY
                && let Ok(Some(chunk)) = response.chunk().await
            {
                read += chunk.len();
            }
            Ok(response.status())
        };
        let after = self.timeout;
        let result = time::timeout(after, exchange).await;
        let result = result.map_err(|_| ForwardError::Timeout { after })?;
        // The URL may contain secrets.
        let status = result
            .map_err(|error: reqwest::Error| ForwardError::Request(error.without_url().into()))?;
        if status.is_success() {
            Ok(())
        } else {
            Err(ForwardError::Status { status })
        }
    }

    fn headers(&self, delivery: &Delivery) -> Result<HeaderMap, VerifyError> {
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
        if delivery.expired {
            set("pleo-expired", "true");
        }
        if let Some(secret) = &self.secret {
            let now = unix_now();
            let signature = secret.sign(&delivery.webhook_id, now, &delivery.body)?;
            set("webhook-timestamp", &now.to_string());
            set("webhook-signature", signature.as_str());
        }
        let json = HeaderValue::from_static("application/json");
        headers.insert(CONTENT_TYPE, json);
        if let Some(credentials) = &self.credentials {
            headers.insert(AUTHORIZATION, credentials.clone());
        }
        Ok(headers)
    }
}

impl Handler for Forward {
    fn handle(&self, delivery: Delivery) -> HandlerFuture<'_> {
        Box::pin(async move { self.forward(delivery).await.map_err(Into::into) })
    }
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forward")
            .field("target", &self.url.origin().ascii_serialization())
            .field("timeout", &self.timeout)
            .field("is_signed", &self.secret.is_some())
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
    /// The system has no certificate authorities to verify an `https` target with.
    #[error("no certificate authorities found; install `ca-certificates` or set `SSL_CERT_FILE`")]
    NoCertificateAuthorities,
    /// The HTTP client could not be set up.
    #[error("cannot set up the HTTP client")]
    Client(#[source] Box<dyn Error + Send + Sync>),
    /// The request failed before a response.
    #[error("cannot forward")]
    Request(#[source] Box<dyn Error + Send + Sync>),
    /// The response was not complete within the time limit.
    #[error("cannot forward: no complete response within {after:?}")]
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
    Sign(#[from] VerifyError),
}

/// Returns the URL without its user and password, and these as `Authorization`.
fn parse(text: &str) -> Result<(Url, Option<HeaderValue>), ForwardError> {
    let invalid = |reason: &str| ForwardError::Url {
        reason: reason.to_owned(),
    };
    // `Url::parse` removes or encodes whitespace.
    if text.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        return Err(invalid("it contains whitespace"));
    }
    let mut url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid("its scheme is not `http` or `https`"));
    }
    if url.fragment().is_some() {
        return Err(invalid("it has a fragment (`#…`)"));
    }
    // `Url::parse` also repairs what `Uri` rejects, such as `http:host`.
    let uri = text.parse::<Uri>();
    let uri = uri.map_err(|_| invalid("it has a character that must be percent-encoded"))?;
    let (Some(_), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return Err(invalid("it has no host after `//`"));
    };
    let credentials = match authority.as_str().rsplit_once('@') {
        Some((userinfo, _)) => Some(basic(userinfo)?),
        None => None,
    };
    if url.set_username("").is_err() || url.set_password(None).is_err() {
        return Err(invalid("it has no host"));
    }
    let is_same = |one: &str, other: &str| percent_decode_str(one).eq(percent_decode_str(other));
    if !is_same(uri.path(), url.path())
        || !is_same(
            uri.query().unwrap_or_default(),
            url.query().unwrap_or_default(),
        )
    {
        return Err(invalid("its path has a segment `.` or `..`, or a `\\`"));
    }
    Ok((url, credentials))
}

/// Returns the `Authorization` of a URL's `user:password`.
fn basic(userinfo: &str) -> Result<HeaderValue, ForwardError> {
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let mut plain: Vec<u8> = percent_decode_str(user).collect();
    plain.push(b':');
    plain.extend(percent_decode_str(password));
    let value = format!("Basic {}", STANDARD.encode(plain));
    let mut value = HeaderValue::try_from(value).map_err(|_| ForwardError::Url {
        reason: "its user and password cannot be sent".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn client(url: &Url) -> Result<Client, ForwardError> {
    let mut roots = RootCertStore::empty();
    if url.scheme() == "https" {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(ForwardError::NoCertificateAuthorities);
        }
    }
    // Named explicitly: other crates of the program may enable a second provider, and then there is
    // no default.
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ForwardError::Client(error.into()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .user_agent(concat!("pleo-receiver/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| ForwardError::Client(error.into()))
}
