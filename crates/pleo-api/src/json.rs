//! JSON of requests and subscriptions, with and without their secrets.

use serde_json::{Map, Value, json};

use crate::endpoint_auth::EndpointAuth;
use crate::request::SubscriptionRequest;
use crate::sensitive::{Extra, Sensitive};
use crate::subscription::{Activity, Subscription};

/// The value that replaces a secret.
const HIDDEN: &str = "(not shown)";

/// Whether secrets are written or replaced.
#[derive(Clone, Copy)]
enum Secrets {
    Written,
    Hidden,
}

impl Subscription {
    /// Returns the subscription as JSON for display. Values of custom headers, credentials and fields
    /// that this version doesn't know are replaced by `(not shown)`.
    #[must_use]
    pub fn to_redacted_json(&self) -> Value {
        let request = SubscriptionRequest::from(self);
        let mut fields = request_fields(&request, Secrets::Hidden);
        fields.insert("id".to_owned(), json!(self.id));
        fields.insert("createdAt".to_owned(), json!(self.created_at));
        insert_some(&mut fields, "updatedAt", self.updated_at);
        insert_some(&mut fields, "deletedAt", self.deleted_at);
        insert_some(&mut fields, "deletedBy", self.deleted_by.as_deref());
        Value::Object(fields)
    }
}

impl Activity {
    /// Returns the activity as JSON for display. Values of fields that this version doesn't know are
    /// replaced by `(not shown)`.
    #[must_use]
    pub fn to_redacted_json(&self) -> Value {
        let mut fields = Secrets::Hidden.extra(&self.extra);
        fields.insert("id".to_owned(), json!(self.id));
        fields.insert("subscriptionId".to_owned(), json!(self.subscription_id));
        fields.insert("operationType".to_owned(), json!(self.operation_type));
        insert_some(&mut fields, "description", self.description.as_deref());
        insert_some(&mut fields, "actorUrn", self.actor_urn.as_deref());
        fields.insert("createdAt".to_owned(), json!(self.created_at));
        Value::Object(fields)
    }
}

impl SubscriptionRequest {
    /// Returns the request's body, with its secrets.
    pub(crate) fn to_body(&self) -> Vec<u8> {
        let fields = request_fields(self, Secrets::Written);
        Value::Object(fields).to_string().into_bytes()
    }
}

fn request_fields(request: &SubscriptionRequest, secrets: Secrets) -> Map<String, Value> {
    let mut fields = secrets.extra(&request.extra);
    fields.insert("endpointUrl".to_owned(), json!(request.endpoint_url));
    fields.insert("eventTypes".to_owned(), json!(request.event_types));
    fields.insert("status".to_owned(), json!(request.status));
    if !request.custom_headers.is_empty() {
        let headers = request.custom_headers.iter();
        let headers = headers.map(|(name, value)| (name.clone(), secrets.value(value)));
        fields.insert("customHeaders".to_owned(), headers.collect());
    }
    if let Some(auth) = &request.endpoint_auth {
        fields.insert("endpointAuth".to_owned(), auth_fields(auth, secrets).into());
    }
    fields
}

fn auth_fields(auth: &EndpointAuth, secrets: Secrets) -> Map<String, Value> {
    let mut fields = secrets.extra(&auth.extra);
    fields.insert("type".to_owned(), json!(auth.kind));
    if let Some(credentials) = &auth.credentials {
        let mut object = secrets.extra(&credentials.extra);
        for (name, value) in credentials.fields() {
            object.insert(name.to_owned(), secrets.value(value));
        }
        fields.insert("credentials".to_owned(), object.into());
    }
    fields
}

fn insert_some(fields: &mut Map<String, Value>, name: &str, value: Option<impl serde::Serialize>) {
    if let Some(value) = value {
        fields.insert(name.to_owned(), json!(value));
    }
}

impl Secrets {
    fn value(self, secret: &Sensitive) -> Value {
        match self {
            Self::Written => secret.expose().into(),
            Self::Hidden => HIDDEN.into(),
        }
    }

    fn extra(self, extra: &Extra) -> Map<String, Value> {
        match self {
            Self::Written => extra.as_map().clone(),
            Self::Hidden => {
                let names = extra.as_map().keys();
                names.map(|name| (name.clone(), HIDDEN.into())).collect()
            }
        }
    }
}
