//! Subscriptions and their activities, as Pleo returns them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pleo_events::open_enum;
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use crate::endpoint_auth::EndpointAuth;
use crate::sensitive::{Extra, Sensitive};

/// A webhook subscription.
///
/// It cannot be serialized, since it may hold secrets; [`Self::to_redacted_json`] hides them:
///
/// ```compile_fail,E0277
/// fn print(subscription: &pleo_api::Subscription) -> String {
///     pleo_api::serde_json::to_string(subscription).unwrap()
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
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
    #[serde(default, deserialize_with = "null_as_default")]
    pub custom_headers: BTreeMap<String, Sensitive>,
    /// Credentials that are added to each delivery.
    pub endpoint_auth: Option<EndpointAuth>,
    /// When the subscription was created.
    pub created_at: Timestamp,
    /// When the subscription last changed.
    pub updated_at: Option<Timestamp>,
    /// When the subscription was deleted.
    pub deleted_at: Option<Timestamp>,
    /// The URN of the actor that deleted the subscription.
    pub deleted_by: Option<String>,
    /// Fields that this version doesn't know.
    #[serde(flatten)]
    pub extra: Extra,
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

/// An operation on a subscription.
#[derive(Clone, Debug, PartialEq, Deserialize)]
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
    pub description: Option<String>,
    /// The URN of the actor.
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
