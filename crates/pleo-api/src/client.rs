//! The calls.

use core::fmt;
use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use http::header::DATE;
use http::{Method, Response, Uri};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::list::Query;
use crate::transport::{Call, Transport, date, http_client, read};
use crate::{
    Activity, ActivityList, ConfigError, Credentials, Error, ExportJob, ExportJobList, Page, Pages,
    Sensitive, Subscription, SubscriptionList, SubscriptionRequest,
};

/// RFC 3986 section 2.3: what may stand as it is.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A client of Pleo's API. Cheap to clone; the clones share their connections.
#[derive(Clone)]
pub struct Client(Arc<Transport>);

impl Client {
    /// Where Pleo's API is.
    pub const PRODUCTION: &'static str = "https://external.pleo.io";
    /// Where Pleo's API is for trying things out.
    pub const STAGING: &'static str = "https://external.staging.pleo.io";

    /// A client of the production API.
    ///
    /// # Errors
    /// [`ConfigError::NoRoots`] where this machine has no certificate authorities.
    pub fn new(credentials: Credentials) -> Result<Self, ConfigError> {
        Self::builder(credentials).build()
    }

    /// A client that is otherwise than usual.
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

    /// One page of the subscriptions.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(&self, list: &SubscriptionList) -> Result<Page<Subscription>, Error> {
        self.page("/v1/subscriptions", list).await
    }

    /// All subscriptions, page after page, from the one that `list` asks for.
    pub fn subscriptions(&self, list: SubscriptionList) -> Pages<Subscription> {
        self.pages("/v1/subscriptions".to_owned(), list)
    }

    /// Makes a subscription. Never tried again by itself: if the answer was lost, the subscription
    /// may be there all the same, so look before you try again.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the request can't be meant so; see [`Error`] for the rest.
    pub async fn create(&self, request: &SubscriptionRequest) -> Result<Subscription, Error> {
        self.write(Method::POST, "/v1/subscriptions".to_owned(), request)
            .await
    }

    /// The subscription with this id.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is none; see [`Error`] for the rest.
    pub async fn get(&self, id: Uuid) -> Result<Subscription, Error> {
        self.read(format!("/v1/subscriptions/{id}")).await
    }

    /// Makes the subscription with this id what the request says, all of it:
    /// `SubscriptionRequest::from(&subscription)` is where to begin for changing one field.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the request can't be meant so, [`Error::NotFound`] where there is no
    /// such subscription; see [`Error`] for the rest.
    pub async fn update(
        &self,
        id: Uuid,
        request: &SubscriptionRequest,
    ) -> Result<Subscription, Error> {
        self.write(Method::PUT, format!("/v1/subscriptions/{id}"), request)
            .await
    }

    /// Ends the subscription with this id. What Pleo still tries to deliver for it is lost.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is none; see [`Error`] for the rest.
    pub async fn delete(&self, id: Uuid) -> Result<(), Error> {
        let target = format!("/v1/subscriptions/{id}");
        match self.0.send(&call(Method::DELETE, target)).await {
            // An attempt whose answer was lost has done it already.
            (Err(Error::NotFound(_)), true) => Ok(()),
            (result, _) => result.map(drop),
        }
    }

    /// What the deliveries of the subscription with this id are signed with: `whsec_…`.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such subscription; see [`Error`] for the rest.
    pub async fn secret(&self, id: Uuid) -> Result<Sensitive, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Secret {
            secret_key: Sensitive,
        }
        let secret: Secret = self.read(format!("/v1/subscriptions/{id}/secret")).await?;
        Ok(secret.secret_key)
    }

    /// One page of what was done to the subscription with this id.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such subscription; see [`Error`] for the rest.
    pub async fn activities(&self, id: Uuid, list: &ActivityList) -> Result<Page<Activity>, Error> {
        self.page(&activities(id), list).await
    }

    /// All that was done to the subscription with this id, page after page, from the one that `list`
    /// asks for.
    pub fn all_activities(&self, id: Uuid, list: ActivityList) -> Pages<Activity> {
        self.pages(activities(id), list)
    }

    /// All export jobs, page after page, from the one that `list` asks for. Reads only: what a
    /// webhook should have told of is still there when it got lost.
    pub fn export_jobs(&self, list: ExportJobList) -> Pages<ExportJob> {
        self.pages("/v3/export-jobs".to_owned(), list)
    }

    /// The time by Pleo's clock, to the second, from the `Date` of an answer; `None` where it has
    /// none. Signatures are good for minutes only, so both clocks should agree.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn time(&self) -> Result<Option<Timestamp>, Error> {
        let target = "/v1/subscriptions?limit=1".to_owned();
        let answer = self.0.send(&call(Method::GET, target)).await.0?;
        let text = answer.headers().get(DATE).map(|text| text.to_str().ok());
        Ok(text.flatten().and_then(date))
    }

    /// Who is asked: host, and port where it isn't the usual one.
    #[must_use]
    pub fn host(&self) -> String {
        self.0.host()
    }

    async fn read<T: DeserializeOwned>(&self, target: String) -> Result<T, Error> {
        data(&self.0.send(&call(Method::GET, target)).await.0?)
    }

    async fn write(
        &self,
        method: Method,
        target: String,
        request: &SubscriptionRequest,
    ) -> Result<Subscription, Error> {
        request.check()?;
        // It is maps and texts: nothing in it can fail.
        let body = serde_json::to_vec(request).unwrap_or_default();
        let call = Call {
            body: Some(body.into()),
            secrets: request.secrets().collect(),
            ..call(method, target)
        };
        data(&self.0.send(&call).await.0?)
    }

    async fn page<Q: Query>(&self, path: &str, query: &Q) -> Result<Page<Q::Item>, Error> {
        let mut target = path.to_owned();
        for (index, (name, value)) in query.pairs().into_iter().enumerate() {
            target.push(if index == 0 { '?' } else { '&' });
            target.push_str(name);
            target.push('=');
            target.extend(utf8_percent_encode(&value, RESERVED));
        }
        read(&self.0.send(&call(Method::GET, target)).await.0?)
    }

    fn pages<Q>(&self, path: String, query: Q) -> Pages<Q::Item>
    where
        Q: Query + Clone + Sync + 'static,
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
            .field("base", &self.0.base)
            .finish_non_exhaustive()
    }
}

/// Makes a [`Client`].
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
    /// Asks here instead of [`Client::PRODUCTION`]; [`Client::STAGING`] is another place.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = url.into();
        self
    }

    /// Sets how long an attempt may take, from connecting to the last byte of the answer; 30 seconds
    /// unless set.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how often a request that is safe to repeat is tried again, and how long to wait before
    /// the first time; the wait doubles each time, is lengthened at random, and is never shorter than
    /// the answer's `Retry-After`. 4 times from 500 ms on, unless set.
    pub const fn retries(mut self, times: usize, first_delay: Duration) -> Self {
        self.retries = times;
        self.first_delay = first_delay;
        self
    }

    /// Trusts these certificate authorities too, beside those of this machine: one or more
    /// certificates in PEM. For a proxy that opens TLS, or a test.
    pub fn add_root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots.push(pem.into());
        self
    }

    /// Puts it together.
    ///
    /// # Errors
    /// [`ConfigError::BaseUrl`] where the URL isn't `https`, or `http` of this machine itself;
    /// [`ConfigError::NoRoots`] where this machine has no certificate authorities and none were
    /// given; [`ConfigError::Roots`] where those given can't be read.
    pub fn build(self) -> Result<Client, ConfigError> {
        Ok(Client(Arc::new(Transport {
            base: base(&self.base_url)?,
            credentials: self.credentials,
            timeout: self.timeout,
            retries: self.retries,
            first_delay: self.first_delay,
            http: http_client(&self.roots)?,
        })))
    }
}

fn base(url: &str) -> Result<Uri, ConfigError> {
    let refuse = |reason| {
        let shown = if url.contains('@') { "" } else { url };
        let url = shown.to_owned();
        Err(ConfigError::BaseUrl { url, reason })
    };
    let Ok(uri) = url.parse::<Uri>() else {
        return refuse("it is not a URL");
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return refuse("it is not absolute: give `https://host`");
    };
    if authority.as_str().contains('@') {
        return refuse("it holds a user: give the token or API key by itself");
    }
    if uri.query().is_some() || url.contains('#') {
        return refuse("it has a query or a fragment");
    }
    match scheme {
        "https" => Ok(uri),
        "http" if is_loopback(authority.host()) => Ok(uri),
        "http" => refuse("the token would go over the network unencrypted: give `https:`"),
        _ => refuse("its scheme is not `https`"),
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

const fn call<'a>(method: Method, target: String) -> Call<'a> {
    Call {
        method,
        target,
        body: None,
        secrets: Vec::new(),
    }
}

/// What a single answer wraps its resource in.
fn data<T: DeserializeOwned>(answer: &Response<Bytes>) -> Result<T, Error> {
    #[derive(Deserialize)]
    struct Data<T> {
        data: T,
    }
    read(answer).map(|Data { data }| data)
}
