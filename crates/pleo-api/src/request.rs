//! Requests to create or update a subscription.

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderName, HeaderValue, Uri};
use pleo_http::is_loopback;

use crate::endpoint_auth::EndpointAuth;
use crate::error::InvalidRequest;
use crate::sensitive::{Extra, Sensitive};
use crate::subscription::{Status, Subscription};

/// The body of a request to create or replace a subscription.
///
/// It cannot be serialized, since it may hold secrets:
///
/// ```compile_fail,E0277
/// fn print(request: &pleo_api::SubscriptionRequest) -> String {
///     pleo_api::serde_json::to_string(request).unwrap()
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionRequest {
    /// The URL that receives deliveries: public, `https`; for a sandbox also `http` on its machine.
    pub endpoint_url: String,
    /// The event types to deliver, such as `v1.export-job.created`.
    pub event_types: Vec<String>,
    /// Whether the subscription delivers events.
    pub status: Status,
    /// Headers that are added to each delivery.
    pub custom_headers: BTreeMap<String, Sensitive>,
    /// Credentials that are added to each delivery.
    pub endpoint_auth: Option<EndpointAuth>,
    /// Fields that this version doesn't know, sent unchanged.
    pub extra: Extra,
}

impl SubscriptionRequest {
    /// Requests an active subscription to these event types, delivered to this URL.
    pub fn new<T: Into<String>>(
        endpoint_url: impl Into<String>,
        event_types: impl IntoIterator<Item = T>,
    ) -> Self {
        Self {
            endpoint_url: endpoint_url.into(),
            event_types: event_types.into_iter().map(Into::into).collect(),
            status: Status::Active,
            custom_headers: BTreeMap::new(),
            endpoint_auth: None,
            extra: Extra::default(),
        }
    }

    /// Sets whether the subscription delivers events.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// Adds a header to each delivery, or replaces the one with this name.
    #[must_use]
    pub fn with_custom_header(
        mut self,
        name: impl Into<String>,
        value: impl Into<Sensitive>,
    ) -> Self {
        self.custom_headers.insert(name.into(), value.into());
        self
    }

    /// Sets the credentials that are added to each delivery.
    #[must_use]
    pub fn with_endpoint_auth(mut self, auth: EndpointAuth) -> Self {
        self.endpoint_auth = Some(auth);
        self
    }

    /// Validates the request. Rejects requests that Pleo cannot deliver, and headers that would break
    /// signature verification. `create` and `update` of [`Subscriptions`](crate::Subscriptions)
    /// validate by [`Subscriptions::check`](crate::Subscriptions::check).
    ///
    /// # Errors
    /// The first problem found.
    pub fn check(&self) -> Result<(), InvalidRequest> {
        self.check_for(false)
    }

    /// Validates the request for Pleo or for a sandbox.
    pub(crate) fn check_for(&self, is_sandbox: bool) -> Result<(), InvalidRequest> {
        check_url(&self.endpoint_url, is_sandbox)?;
        if self.event_types.is_empty() {
            return Err(InvalidRequest::NoEventTypes);
        }
        let mut seen = BTreeSet::new();
        for event_type in &self.event_types {
            if !seen.insert(event_type) {
                let event_type = event_type.clone();
                return Err(InvalidRequest::DuplicateEventType { event_type });
            }
        }
        for (name, value) in &self.custom_headers {
            let lower = name.to_ascii_lowercase();
            let name = name.clone();
            if lower.starts_with("webhook-") || lower.starts_with("svix-") {
                return Err(InvalidRequest::ReservedHeader { name });
            }
            let is_valid = lower.parse::<HeaderName>().is_ok()
                && HeaderValue::from_str(value.expose()).is_ok();
            if !is_valid {
                return Err(InvalidRequest::InvalidHeader { name });
            }
        }
        self.endpoint_auth
            .as_ref()
            .map_or(Ok(()), EndpointAuth::check)
    }

    /// Returns the values that must not appear in an error.
    pub(crate) fn secrets(&self) -> Vec<&str> {
        let mut secrets: Vec<&str> = self
            .custom_headers
            .values()
            .map(Sensitive::expose)
            .collect();
        secrets.extend(self.extra.strings());
        if let Some(auth) = &self.endpoint_auth {
            secrets.extend(auth.extra.strings());
            if let Some(credentials) = &auth.credentials {
                secrets.extend(credentials.fields().map(|(_, value)| value.expose()));
                secrets.extend(credentials.extra.strings());
            }
        }
        secrets
    }
}

impl From<&Subscription> for SubscriptionRequest {
    /// Copies the fields of the subscription, and those that this version doesn't know. To update
    /// one field, change it in the copy.
    fn from(subscription: &Subscription) -> Self {
        Self {
            endpoint_url: subscription.endpoint_url.clone(),
            event_types: subscription.event_types.clone(),
            status: subscription.status.clone(),
            custom_headers: subscription.custom_headers.clone(),
            endpoint_auth: subscription.endpoint_auth.clone(),
            extra: subscription.extra.clone(),
        }
    }
}

/// Validates an endpoint URL. Pleo, "Configuring Receiving Endpoints": HTTPS, public domain. A sandbox
/// also delivers over HTTP, on its own machine.
fn check_url(url: &str, is_sandbox: bool) -> Result<(), InvalidRequest> {
    let reject = |reason| {
        // The URL may hold a password.
        let shown = if url.contains('@') { "" } else { url };
        let url = shown.to_owned();
        Err(InvalidRequest::EndpointUrl { url, reason })
    };
    let Ok(uri) = url.parse::<Uri>() else {
        return reject("it is not a URL");
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return reject("it is not absolute; give `https://host/path`");
    };
    match scheme {
        "https" => {}
        "http" if is_sandbox && is_loopback(authority.host()) => {}
        "http" => {
            return reject("Pleo delivers only over HTTPS; give an `https` URL");
        }
        _ => return reject("its scheme is not `https`"),
    }
    if authority.as_str().contains('@') {
        return reject("it has a user name; give credentials as `endpointAuth`");
    }
    if authority.host().is_empty() {
        return reject("it has no host");
    }
    if url.contains('#') {
        return reject("it has a fragment (`#…`)");
    }
    Ok(())
}
