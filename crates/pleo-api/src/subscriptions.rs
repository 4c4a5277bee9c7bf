//! The calls of the Subscriptions API.

use std::sync::Arc;

use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::error::{Error, InvalidRequest};
use crate::pages::Pages;
use crate::query::{ActivityQuery, SubscriptionQuery};
use crate::request::SubscriptionRequest;
use crate::sensitive::Sensitive;
use crate::subscription::{Activity, Subscription};
use crate::transport::{Call, Response, Transport};

/// The subscriptions that a client's credentials give access to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Subscriptions(Arc<Transport>);

impl Subscriptions {
    pub(crate) const fn new(transport: Arc<Transport>) -> Self {
        Self(transport)
    }

    /// Lists the subscriptions that a query selects, from its first page to the last.
    pub fn list(&self, query: SubscriptionQuery) -> Pages<Subscription> {
        let path = "/v1/subscriptions".to_owned();
        Pages::new(Arc::clone(&self.0), path, query.filters(), query.page)
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
        self.read(path(id)).await
    }

    /// Replaces every field of the subscription with this id.
    ///
    /// To change one field, start from `SubscriptionRequest::from(&subscription)`: it keeps all other
    /// fields, also those that this version doesn't know.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if the request is invalid, [`Error::NotFound`] if there is no such
    /// subscription; see [`Error`] for the rest.
    pub async fn update(
        &self,
        id: Uuid,
        request: &SubscriptionRequest,
    ) -> Result<Subscription, Error> {
        self.write(Method::PUT, path(id), request).await
    }

    /// Deletes the subscription with this id. Its pending deliveries are lost.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none; see [`Error`] for the rest.
    pub async fn delete(&self, id: Uuid) -> Result<(), Error> {
        match self.0.send(&Call::new(Method::DELETE, path(id))).await {
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
        let secret: Secret = self.read(format!("{}/secret", path(id))).await?;
        Ok(secret.secret_key)
    }

    /// Lists the activities of the subscription with this id that a query selects, from its first
    /// page to the last. The subscription may be deleted.
    pub fn activities(&self, id: Uuid, query: ActivityQuery) -> Pages<Activity> {
        let path = format!("{}/activities", path(id));
        Pages::new(Arc::clone(&self.0), path, query.filters(), query.page)
    }

    /// Validates a request as [`SubscriptionRequest::check`] does. If the API's URL is `http`, and thus
    /// that of a sandbox on this machine, an endpoint may have an `http` URL on this machine too.
    ///
    /// # Errors
    /// The first problem found.
    pub fn check(&self, request: &SubscriptionRequest) -> Result<(), InvalidRequest> {
        request.check_for(self.0.base_url.scheme() == "http")
    }

    async fn read<T: DeserializeOwned>(&self, path: String) -> Result<T, Error> {
        data(&self.0.send(&Call::new(Method::GET, path)).await.0?)
    }

    async fn write(
        &self,
        method: Method,
        path: String,
        request: &SubscriptionRequest,
    ) -> Result<Subscription, Error> {
        self.check(request)?;
        let call = Call {
            body: Some(request.to_body()),
            secrets: request.secrets(),
            ..Call::new(method, path)
        };
        data(&self.0.send(&call).await.0?)
    }
}

fn path(id: Uuid) -> String {
    format!("/v1/subscriptions/{id}")
}

/// Parses a response that wraps one resource.
fn data<T: DeserializeOwned>(response: &Response) -> Result<T, Error> {
    #[derive(Deserialize)]
    struct Data<T> {
        data: T,
    }
    response.json().map(|Data { data }| data)
}
