//! A subscription: who wants which events, where.

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderName, HeaderValue, Uri};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::{Extra, InvalidRequest, Sensitive};

/// A subscription as Pleo has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Subscription {
    /// Names it in every call.
    pub id: Uuid,
    /// Where deliveries are posted.
    pub endpoint_url: String,
    /// The types of events that are delivered. Read from a list, or from a bare text, as one of
    /// Pleo's samples has it.
    #[serde(deserialize_with = "one_or_many")]
    pub event_types: Vec<String>,
    /// Whether anything is delivered.
    pub status: Status,
    /// Headers that go along with each delivery.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub custom_headers: BTreeMap<String, Sensitive>,
    /// Credentials that go along with each delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_auth: Option<EndpointAuth>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// When it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// Who deleted it: a URN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_by: Option<String>,
    /// Fields that this version doesn't know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What a subscription shall be: the body of a create or an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SubscriptionRequest {
    /// Where deliveries are posted: a public `https` URL.
    pub endpoint_url: String,
    /// The types of events that are delivered, such as `v1.export-job.created`.
    pub event_types: Vec<String>,
    /// Whether anything is delivered.
    pub status: Status,
    /// Headers that go along with each delivery.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub custom_headers: BTreeMap<String, Sensitive>,
    /// Credentials that go along with each delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_auth: Option<EndpointAuth>,
}

impl SubscriptionRequest {
    /// An active subscription for these types of events at this URL.
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

    /// Whether a call would send it: what the sender of webhooks can't do, or what would break the
    /// check of signatures, is refused here.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn check(&self) -> Result<(), InvalidRequest> {
        check_url(&self.endpoint_url)?;
        if self.event_types.is_empty() {
            return Err(InvalidRequest::NoEventTypes);
        }
        let mut seen = BTreeSet::new();
        for event_type in &self.event_types {
            if !seen.insert(event_type) {
                let event_type = event_type.clone();
                return Err(InvalidRequest::EventTypeTwice { event_type });
            }
        }
        for (name, value) in &self.custom_headers {
            let lower = name.to_ascii_lowercase();
            let name = name.clone();
            if lower.starts_with("webhook-") || lower.starts_with("svix-") {
                return Err(InvalidRequest::ReservedHeader { name });
            }
            let sendable = lower.parse::<HeaderName>().is_ok()
                && HeaderValue::from_str(value.expose()).is_ok();
            if !sendable {
                return Err(InvalidRequest::Header { name });
            }
        }
        match &self.endpoint_auth {
            Some(auth) if auth.kind == AuthType::Basic => auth.check_basic(),
            _ => Ok(()),
        }
    }

    /// Everything in it that must not come back in an error.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Sensitive> {
        let credentials = self
            .endpoint_auth
            .iter()
            .filter_map(|auth| auth.credentials.as_ref());
        let credentials = credentials.flat_map(|one| [&one.username, &one.password, &one.token]);
        self.custom_headers.values().chain(credentials.flatten())
    }
}

impl From<&Subscription> for SubscriptionRequest {
    /// What would leave the subscription as it is.
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
    /// Whether a subscription delivers.
    Status {
        /// It does:
        Active = "ACTIVE",
        /// It doesn't:
        Inactive = "INACTIVE",
    }
}

/// How a delivery authenticates itself beside its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EndpointAuth {
    /// In which way.
    #[serde(rename = "type")]
    pub kind: AuthType,
    /// With what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<AuthCredentials>,
}

impl EndpointAuth {
    /// Not at all.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            kind: AuthType::None,
            credentials: None,
        }
    }

    /// By Basic credentials (RFC 7617).
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
        let whole = credentials.is_some_and(|one| one.username.is_some() && one.password.is_some());
        if whole {
            Ok(())
        } else {
            Err(InvalidRequest::BasicWithoutCredentials)
        }
    }
}

open_enum! {
    /// The ways of [`EndpointAuth`].
    AuthType {
        /// Nothing beside the signature:
        None = "NONE",
        /// `Authorization: Basic …`:
        Basic = "BASIC",
    }
}

/// What [`EndpointAuth`] sends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthCredentials {
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<Sensitive>,
    /// The password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Sensitive>,
    /// A token; no way of authentication uses it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Sensitive>,
}

/// Something that was done to a subscription.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Activity {
    /// The activity.
    pub id: Uuid,
    /// The subscription.
    pub subscription_id: Uuid,
    /// What was done.
    pub operation_type: OperationType,
    /// The same in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who did it: a URN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_urn: Option<String>,
    /// When.
    pub created_at: Timestamp,
    /// Fields that this version doesn't know.
    #[serde(flatten)]
    pub extra: Extra,
}

open_enum! {
    /// What can be done to a subscription.
    OperationType {
        /// It was made:
        Create = "CREATE",
        /// It was changed:
        Update = "UPDATE",
        /// It was deleted:
        Delete = "DELETE",
    }
}

/// Pleo's page, "Configuring Receiving Endpoints": HTTPS, and in the public domain.
fn check_url(url: &str) -> Result<(), InvalidRequest> {
    let refuse = |reason| {
        // A URL with a password isn't shown.
        let shown = if url.contains('@') { "" } else { url };
        let url = shown.to_owned();
        Err(InvalidRequest::EndpointUrl { url, reason })
    };
    let Ok(uri) = url.parse::<Uri>() else {
        return refuse("it is not a URL");
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return refuse("it is not absolute: give `https://host/path`");
    };
    match scheme {
        "https" => {}
        "http" => {
            return refuse("Pleo delivers only over HTTPS: give the `https:` URL of the endpoint");
        }
        _ => return refuse("its scheme is not `https`"),
    }
    if authority.as_str().contains('@') {
        return refuse("a user in it would be sent as credentials: give them as `endpointAuth`");
    }
    if authority.host().is_empty() {
        return refuse("it names no host");
    }
    if url.contains('#') {
        return refuse("it has a fragment (`#…`)");
    }
    Ok(())
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Form::deserialize(deserializer)? {
        Form::One(text) => vec![text],
        Form::Many(texts) => texts,
    })
}

fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
