//! The client and its builder.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use http::Method;
use http::header::DATE;
use jiff::Timestamp;

use crate::auth::Credentials;
use crate::base_url;
use crate::error::{ConfigError, Error};
use crate::export_jobs::ExportJobs;
use crate::subscriptions::Subscriptions;
use crate::transport::{Call, Transport, parse_date};

const USER_AGENT: &str = concat!("pleo-api/", env!("CARGO_PKG_VERSION"));

/// An async client of Pleo's API. Requires a tokio runtime.
///
/// Cheap to clone; clones use the same connections. So does [`Self::with_credentials`].
#[derive(Clone)]
pub struct Client(Arc<Transport>);

impl Client {
    /// The URL of Pleo's production API.
    pub const PRODUCTION: &'static str = "https://external.pleo.io";
    /// The URL of Pleo's staging API.
    pub const STAGING: &'static str = "https://external.staging.pleo.io";

    /// Creates a client of the production API.
    ///
    /// # Errors
    /// [`ConfigError::NoRoots`] if this machine has no root certificates.
    pub fn new(credentials: Credentials) -> Result<Self, ConfigError> {
        Self::builder(credentials).build()
    }

    /// Creates a builder, to change the defaults.
    pub fn builder(credentials: Credentials) -> ClientBuilder {
        ClientBuilder {
            credentials,
            base_url: Self::PRODUCTION.to_owned(),
            timeout: Duration::from_secs(30),
            retries: 4,
            first_delay: Duration::from_millis(500),
            roots: Vec::new(),
        }
    }

    /// Returns a client with other credentials, which uses the same connections. For a new token
    /// before the old one expires, or the token of another company.
    #[must_use]
    pub fn with_credentials(&self, credentials: Credentials) -> Self {
        Self(Arc::new(Transport {
            credentials,
            ..Transport::clone(&self.0)
        }))
    }

    /// Returns the calls of the Subscriptions API.
    #[must_use]
    pub fn subscriptions(&self) -> Subscriptions {
        Subscriptions::new(Arc::clone(&self.0))
    }

    /// Returns the calls of the Export API.
    #[must_use]
    pub fn export_jobs(&self) -> ExportJobs {
        ExportJobs::new(Arc::clone(&self.0))
    }

    /// Returns the time of Pleo's clock in seconds, from a response's `Date`; `None` if it has none.
    /// Signatures are valid for minutes only, so both clocks should agree.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn time(&self) -> Result<Option<Timestamp>, Error> {
        let call = Call {
            query: vec![("limit", "1".to_owned())],
            ..Call::new(Method::GET, "/v1/subscriptions".to_owned())
        };
        let response = self.0.send(&call).await.0?;
        let date = response.headers.get(DATE);
        let date = date.and_then(|date| date.to_str().ok());
        Ok(date.and_then(parse_date))
    }

    /// Returns the API's host, with the port unless it is the scheme's default.
    #[must_use]
    pub fn host(&self) -> String {
        self.0.host()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base_url", &self.0.base_url.as_str())
            .finish_non_exhaustive()
    }
}

/// Builds a [`Client`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    credentials: Credentials,
    base_url: String,
    timeout: Duration,
    retries: usize,
    first_delay: Duration,
    roots: Vec<Vec<u8>>,
}

impl ClientBuilder {
    /// Sets the API's URL; [`Client::PRODUCTION`] by default.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = url.into();
        self
    }

    /// Sets the timeout of an attempt, from connecting to the last byte of the response; 30 seconds by
    /// default.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how often a request is retried, and the delay before the first retry; 4 times
    /// and 500 ms by default. The delay grows exponentially with jitter, and is never shorter than
    /// the response's `Retry-After`.
    ///
    /// `GET`, `PUT` and `DELETE` are retried after an error that [is transient](Error::is_transient),
    /// except that only `GET` is retried after a timeout.
    pub const fn retries(mut self, times: usize, first_delay: Duration) -> Self {
        self.retries = times;
        self.first_delay = first_delay;
        self
    }

    /// Adds root certificates to those of this machine: one or more in PEM. For a TLS-inspecting
    /// proxy, or a test.
    pub fn add_root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots.push(pem.into());
        self
    }

    /// Builds the client.
    ///
    /// # Errors
    /// [`ConfigError::BaseUrl`] if the URL isn't `https`, or `http` on a loopback host;
    /// [`ConfigError::NoRoots`] if this machine has no root certificates and none were added;
    /// [`ConfigError::Roots`] if the added ones cannot be parsed.
    pub fn build(self) -> Result<Client, ConfigError> {
        Ok(Client(Arc::new(Transport {
            base_url: base_url::parse(&self.base_url)?,
            credentials: self.credentials,
            timeout: self.timeout,
            retries: self.retries,
            first_delay: self.first_delay,
            http: pleo_http::client(USER_AGENT, &self.roots).map_err(ConfigError::from_http)?,
        })))
    }
}
