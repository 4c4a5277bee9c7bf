//! A client that posts to one URL, over HTTP or HTTPS.

use core::fmt;
use core::time::Duration;
use std::error::Error;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, USER_AGENT};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as LegacyError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::percent_decode_str;
use tokio::time;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an idle connection is kept: less than servers usually do, so that it rarely is closed
/// just when it's used.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// How much of an answer's body is read.
const ANSWER_LIMIT: usize = 64 * 1024;

/// Posts to one URL. Follows no redirects; keeps connections open between requests.
#[derive(Clone)]
pub struct HttpClient {
    target: Uri,
    credentials: Option<HeaderValue>,
    connector: Connector,
}

#[derive(Clone)]
enum Connector {
    Http(Client<HttpConnector, Full<Bytes>>),
    Https(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

impl HttpClient {
    /// A client for this URL. A user and password in it are sent as Basic credentials (RFC 7617),
    /// and are never shown.
    ///
    /// # Errors
    /// [`ClientError::Url`] where it isn't an absolute `http` or `https` URL;
    /// [`ClientError::NoRoots`] where it is `https` and the machine has no certificate authorities.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        let invalid = |reason| ClientError::Url { reason };
        if url.contains('#') {
            return Err(invalid("it has a fragment (`#…`)"));
        }
        let uri: Uri = url.parse().map_err(|_| invalid("it is not a URL"))?;
        let mut parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (&parts.scheme, &parts.authority) else {
            return Err(invalid("it is not absolute: `https://host/path`"));
        };
        let (credentials, host) = match authority.as_str().rsplit_once('@') {
            None => (None, authority.as_str()),
            Some((userinfo, host)) => (Some(basic(userinfo)?), host),
        };
        let host: Authority = host.parse().map_err(|_| invalid("its host is not one"))?;
        if host.host().is_empty() {
            return Err(invalid("it names no host"));
        }
        let connector = Connector::new(scheme)?;
        parts.authority = Some(host);
        Ok(Self {
            target: Uri::from_parts(parts).map_err(|_| invalid("it is not a URL"))?,
            credentials,
            connector,
        })
    }

    /// The URL, without credentials.
    #[must_use]
    pub const fn target(&self) -> &Uri {
        &self.target
    }

    /// Posts a body, and gives back whatever answer comes, with at most 64 KiB of its body.
    ///
    /// # Errors
    /// [`ClientError::Request`] where no answer came, [`ClientError::Timeout`] where the whole
    /// exchange took longer than `timeout`.
    pub async fn post(
        &self,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Response<Bytes>, ClientError> {
        let mut request = Request::post(self.target.clone())
            .body(Full::new(body))
            .map_err(|error| ClientError::Request(error.into()))?;
        *request.headers_mut() = headers;
        let agent = HeaderValue::from_static(concat!("pleo-receiver/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().entry(USER_AGENT).or_insert(agent);
        if let Some(credentials) = &self.credentials {
            let headers = request.headers_mut();
            headers.insert(AUTHORIZATION, credentials.clone());
        }
        let exchange = async {
            let (head, body) = self.connector.request(request).await?.into_parts();
            // The status is what counts; a body too long or broken off changes nothing.
            let read = Limited::new(body, ANSWER_LIMIT).collect().await;
            let body = read.map(|body| body.to_bytes()).unwrap_or_default();
            Ok(Response::from_parts(head, body))
        };
        time::timeout(timeout, exchange)
            .await
            .unwrap_or(Err(ClientError::Timeout { after: timeout }))
    }
}

impl Connector {
    fn new(scheme: &Scheme) -> Result<Self, ClientError> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new());
        client.pool_idle_timeout(IDLE_TIMEOUT);
        if *scheme == Scheme::HTTP {
            return Ok(Self::Http(client.build(tcp)));
        }
        if *scheme != Scheme::HTTPS {
            let reason = "its scheme is neither `https` nor `http`";
            return Err(ClientError::Url { reason });
        }
        tcp.enforce_http(false);
        // Named, since another crate of the same program may bring a second one, and then the
        // default is none.
        let provider = rustls::crypto::ring::default_provider();
        let tls = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(provider)
            .map_err(ClientError::NoRoots)?
            .https_only()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self::Https(client.build(tls)))
    }

    async fn request(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError> {
        let response = match self {
            Self::Http(client) => client.request(request).await,
            Self::Https(client) => client.request(request).await,
        };
        response.map_err(|error: LegacyError| ClientError::Request(error.into()))
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient")
            .field("target", &self.target)
            .field("has_credentials", &self.credentials.is_some())
            .finish_non_exhaustive()
    }
}

/// Why a request couldn't be made or got no answer. Never holds credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The URL can't be used. It may hold a password, so it isn't shown.
    #[error("the URL cannot be used: {reason}")]
    Url {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nothing to check an `https` server's certificate against.
    #[error("found no certificate authorities on this machine: install `ca-certificates`")]
    NoRoots(#[source] io::Error),
    /// No answer came.
    #[error("the request failed")]
    Request(#[source] Box<dyn Error + Send + Sync>),
    /// It took too long.
    #[error("no whole answer within {after:?}")]
    Timeout {
        /// How long it was waited for.
        after: Duration,
    },
    /// The answer was not 2xx.
    #[error("answered {status}")]
    Status {
        /// What it was.
        status: StatusCode,
    },
}

/// The `Authorization` that a URL's `user:password` stands for.
fn basic(userinfo: &str) -> Result<HeaderValue, ClientError> {
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let mut plain: Vec<u8> = percent_decode_str(user).collect();
    plain.push(b':');
    plain.extend(percent_decode_str(password));
    let value = format!("Basic {}", STANDARD.encode(plain));
    let reason = "its user and password cannot be sent";
    let mut value = HeaderValue::try_from(value).map_err(|_| ClientError::Url { reason })?;
    value.set_sensitive(true);
    Ok(value)
}
