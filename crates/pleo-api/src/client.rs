//! The client and its calls.

use core::fmt;
use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

use http::header::DATE;
use http::{Method, Uri};
use jiff::Timestamp;
use pleo_http::reqwest::Url;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::auth::Credentials;
use crate::error::{ConfigError, Error};
use crate::export_job::{ExportJobList, ListedExportJob};
use crate::list::Query;
use crate::list::{ActivityList, SubscriptionList};
use crate::pages::{Page, Pages};
use crate::sensitive::Sensitive;
use crate::subscription::{Activity, Subscription, SubscriptionRequest};
use crate::transport::{Call, Response, Transport, parse_date};

const USER_AGENT: &str = concat!("pleo-api/", env!("CARGO_PKG_VERSION"));

/// An async client of Pleo's API. Requires a tokio runtime.
///
/// Cheap to clone; clones use the same connections.
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

    /// Returns one page of subscriptions.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(&self, list: &SubscriptionList) -> Result<Page<Subscription>, Error> {
        self.page("/v1/subscriptions", list).await
    }

    /// Streams all subscriptions, from the page that `list` requests to the last.
    pub fn subscriptions(&self, list: SubscriptionList) -> Pages<Subscription> {
        self.pages("/v1/subscriptions".to_owned(), list)
    }

    /// Creates a subscription. Never retried: if the response is lost, the subscription may exist.
    /// List the subscriptions before you call again.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if the request is invalid; see [`Error`] for the rest.
    pub async fn create(&self, request: &SubscriptionRequest) -> Result<Subscription, Error> {
        self.write(Method::POST, "/v1/subscriptions".to_owned(), request)
            .await
    }

    /// Returns the subscription with this id.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none; see [`Error`] for the rest.
    pub async fn get(&self, id: Uuid) -> Result<Subscription, Error> {
        self.read(format!("/v1/subscriptions/{id}")).await
    }

    /// Replaces every field of the subscription with this id.
    ///
    /// To change one field, start from `SubscriptionRequest::from(&subscription)`.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if the request is invalid, [`Error::NotFound`] if there is no such
    /// subscription; see [`Error`] for the rest.
    pub async fn update(
        &self,
        id: Uuid,
        request: &SubscriptionRequest,
    ) -> Result<Subscription, Error> {
        self.write(Method::PUT, format!("/v1/subscriptions/{id}"), request)
            .await
    }

    /// Deletes the subscription with this id. Its pending deliveries are lost.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none; see [`Error`] for the rest.
    pub async fn delete(&self, id: Uuid) -> Result<(), Error> {
        let path = format!("/v1/subscriptions/{id}");
        match self.0.send(&call(Method::DELETE, path)).await {
            // An earlier attempt deleted the subscription, and its response was lost.
            (Err(Error::NotFound(_)), true) => Ok(()),
            (result, _) => result.map(drop),
        }
    }

    /// Returns the signing secret of the subscription with this id: `whsec_…`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such subscription; see [`Error`] for the rest.
    pub async fn secret(&self, id: Uuid) -> Result<Sensitive, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Secret {
            secret_key: Sensitive,
        }
        let secret: Secret = self.read(format!("/v1/subscriptions/{id}/secret")).await?;
        Ok(secret.secret_key)
    }

    /// Returns one page of the activities of the subscription with this id.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such subscription; see [`Error`] for the rest.
    pub async fn activities(&self, id: Uuid, list: &ActivityList) -> Result<Page<Activity>, Error> {
        self.page(&activities(id), list).await
    }

    /// Streams all activities of the subscription with this id, from the page that `list` requests
    /// to the last.
    pub fn all_activities(&self, id: Uuid, list: ActivityList) -> Pages<Activity> {
        self.pages(activities(id), list)
    }

    /// Streams all export jobs, from the page that `list` requests to the last. Finds the jobs whose
    /// webhooks were lost.
    pub fn export_jobs(&self, list: ExportJobList) -> Pages<ListedExportJob> {
        self.pages("/v3/export-jobs".to_owned(), list)
    }

    /// Returns the time of Pleo's clock in seconds, from a response's `Date`; `None` if it has none.
    /// Signatures are valid for minutes only, so both clocks should agree.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn time(&self) -> Result<Option<Timestamp>, Error> {
        let call = Call {
            query: vec![("limit", "1".to_owned())],
            ..call(Method::GET, "/v1/subscriptions".to_owned())
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

    async fn read<T: DeserializeOwned>(&self, path: String) -> Result<T, Error> {
        data(&self.0.send(&call(Method::GET, path)).await.0?)
    }

    async fn write(
        &self,
        method: Method,
        path: String,
        request: &SubscriptionRequest,
    ) -> Result<Subscription, Error> {
        request.check()?;
        // Maps and strings always serialize.
        let body = serde_json::to_vec(request).unwrap_or_default();
        let call = Call {
            body: Some(body),
            secrets: request.secrets().collect(),
            ..call(method, path)
        };
        data(&self.0.send(&call).await.0?)
    }

    async fn page<Q: Query>(&self, path: &str, query: &Q) -> Result<Page<Q::Item>, Error> {
        let call = Call {
            query: query.pairs(),
            ..call(Method::GET, path.to_owned())
        };
        self.0.send(&call).await.0?.json()
    }

    fn pages<Q>(&self, path: String, query: Q) -> Pages<Q::Item>
    where
        Q: Query + Clone + Send + Sync + 'static,
    {
        let client = self.clone();
        Pages::new(query, move |query| {
            let (client, path) = (client.clone(), path.clone());
            async move { client.page(&path, &query).await }
        })
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

    /// Sets how often an idempotent request is retried, and the delay before the first retry; 4 times
    /// and 500 ms by default. The delay grows exponentially with jitter, and is never shorter than
    /// the response's `Retry-After`.
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
            base_url: parse_base_url(&self.base_url)?,
            credentials: self.credentials,
            timeout: self.timeout,
            retries: self.retries,
            first_delay: self.first_delay,
            http: pleo_http::client(USER_AGENT, &self.roots).map_err(ConfigError::from_http)?,
        })))
    }
}

fn parse_base_url(text: &str) -> Result<Url, ConfigError> {
    let reject = |reason| {
        // The URL may hold a password.
        let shown = if text.contains('@') { "" } else { text };
        let url = shown.to_owned();
        Err(ConfigError::BaseUrl { url, reason })
    };
    // `Url` would repair invalid input, such as backslashes, that `Uri` rejects.
    let Ok(uri) = text.parse::<Uri>() else {
        return reject("it is not a URL");
    };
    let (Some(_), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return reject("it is not absolute; give `https://host`");
    };
    let Ok(url) = text.parse::<Url>() else {
        return reject("it is not a URL");
    };
    if authority.as_str().contains('@') {
        return reject("it has a user name; give the token or API key separately");
    }
    if url.query().is_some() || text.contains('#') {
        return reject("it has a query or a fragment");
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(url.host_str().unwrap_or_default()) => Ok(url),
        "http" => reject("the token would be sent unencrypted; give an `https` URL"),
        _ => reject("its scheme is not `https`"),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

fn activities(id: Uuid) -> String {
    format!("/v1/subscriptions/{id}/activities")
}

const fn call<'a>(method: Method, path: String) -> Call<'a> {
    Call {
        method,
        path,
        query: Vec::new(),
        body: None,
        secrets: Vec::new(),
    }
}

/// Parses a response that wraps one resource.
fn data<T: DeserializeOwned>(response: &Response) -> Result<T, Error> {
    #[derive(Deserialize)]
    struct Data<T> {
        data: T,
    }
    response.json().map(|Data { data }| data)
}
