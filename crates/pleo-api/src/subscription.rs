//! Subscriptions, and requests to create or update them.

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderName, HeaderValue, Uri};
use jiff::Timestamp;
use pleo_events::open_enum;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::error::InvalidRequest;
use crate::sensitive::{Extra, Sensitive};

/// A webhook subscription.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Subscription {
    /// The subscription's id.
    pub id: Uuid,
    /// The URL that receives deliveries.
    pub endpoint_url: String,
    /// The event types that are delivered. Also parsed from a bare string, as in one of Pleo's
    /// samples.
    #[serde(deserialize_with = "string_or_list")]
    pub event_types: Vec<String>,
    /// Whether the subscription delivers events.
    pub status: Status,
    /// Headers that are added to each delivery.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub custom_headers: BTreeMap<String, Sensitive>,
    /// Credentials that are added to each delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_auth: Option<EndpointAuth>,
    /// When the subscription was created.
    pub created_at: Timestamp,
    /// When the subscription last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// When the subscription was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// The URN of the actor that deleted the subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_by: Option<String>,
    /// Fields that this version doesn't know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The body of a request to create or replace a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SubscriptionRequest {
    /// The URL that receives deliveries: public, `https`.
    pub endpoint_url: String,
    /// The event types to deliver, such as `v1.export-job.created`.
    pub event_types: Vec<String>,
    /// Whether the subscription delivers events.
    pub status: Status,
    /// Headers that are added to each delivery.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub custom_headers: BTreeMap<String, Sensitive>,
    /// Credentials that are added to each delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_auth: Option<EndpointAuth>,
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
    /// signature verification. `create` and `update` of [`Client`](crate::Client) also validate.
    ///
    /// # Errors
    /// The first problem found.
    pub fn check(&self) -> Result<(), InvalidRequest> {
        check_url(&self.endpoint_url)?;
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
        match &self.endpoint_auth {
            Some(auth) if auth.kind == AuthType::Basic => auth.check_basic(),
            _ => Ok(()),
        }
    }

    /// Returns the values that must not appear in an error.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Sensitive> {
        let credentials = self
            .endpoint_auth
            .iter()
            .filter_map(|auth| auth.credentials.as_ref());
        let credentials =
            credentials.flat_map(|parts| [&parts.username, &parts.password, &parts.token]);
        self.custom_headers.values().chain(credentials.flatten())
    }
}

impl From<&Subscription> for SubscriptionRequest {
    /// Copies all fields of the subscription. To update one field, change it in the copy.
    fn from(subscription: &Subscription) -> Self {
        Self {
            endpoint_url: subscription.endpoint_url.clone(),
            event_types: subscription.event_types.clone(),
            status: subscription.status.clone(),
            custom_headers: subscription.custom_headers.clone(),
            endpoint_auth: subscription.endpoint_auth.clone(),
        }
    }
}

open_enum! {
    /// Whether a subscription delivers events.
    Status {
        /// Events are delivered.
        Active = "ACTIVE",
        /// Nothing is delivered.
        Inactive = "INACTIVE",
    }
}

/// How a delivery is authenticated besides its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EndpointAuth {
    /// The authentication scheme.
    #[serde(rename = "type")]
    pub kind: AuthType,
    /// The credentials of the scheme.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<AuthCredentials>,
}

impl EndpointAuth {
    /// Sends no credentials.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            kind: AuthType::None,
            credentials: None,
        }
    }

    /// Sends Basic credentials (RFC 7617).
    pub fn basic(username: impl Into<Sensitive>, password: impl Into<Sensitive>) -> Self {
        Self {
            kind: AuthType::Basic,
            credentials: Some(AuthCredentials {
                username: Some(username.into()),
                password: Some(password.into()),
                token: None,
            }),
        }
    }

    fn check_basic(&self) -> Result<(), InvalidRequest> {
        let credentials = self.credentials.as_ref();
        let is_complete =
            credentials.is_some_and(|parts| parts.username.is_some() && parts.password.is_some());
        if is_complete {
            Ok(())
        } else {
            Err(InvalidRequest::BasicWithoutCredentials)
        }
    }
}

open_enum! {
    /// The authentication schemes of [`EndpointAuth`].
    AuthType {
        /// No credentials.
        None = "NONE",
        /// `Authorization: Basic …`.
        Basic = "BASIC",
    }
}

/// The credentials of [`EndpointAuth`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuthCredentials {
    /// The user name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<Sensitive>,
    /// The password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Sensitive>,
    /// A token. No scheme uses it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Sensitive>,
}

/// An operation on a subscription.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Activity {
    /// The activity's id.
    pub id: Uuid,
    /// The subscription's id.
    pub subscription_id: Uuid,
    /// The operation.
    pub operation_type: OperationType,
    /// The operation as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The URN of the actor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_urn: Option<String>,
    /// When the operation happened.
    pub created_at: Timestamp,
    /// Fields that this version doesn't know.
    #[serde(flatten)]
    pub extra: Extra,
}

open_enum! {
    /// The type of an operation on a subscription.
    OperationType {
        /// The subscription was created.
        Create = "CREATE",
        /// The subscription was updated.
        Update = "UPDATE",
        /// The subscription was deleted.
        Delete = "DELETE",
    }
}

/// Validates an endpoint URL. Pleo, "Configuring Receiving Endpoints": HTTPS, public domain.
fn check_url(url: &str) -> Result<(), InvalidRequest> {
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

fn string_or_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        String(String),
        List(Vec<String>),
    }
    Ok(match Form::deserialize(deserializer)? {
        Form::String(text) => vec![text],
        Form::List(texts) => texts,
    })
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
