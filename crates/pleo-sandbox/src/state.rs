//! The sandbox's data: tokens, subscriptions, export jobs, messages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::faults::Fault;

/// An accepted API token, with its company and scopes.
#[derive(Clone, Debug)]
pub struct Token {
    pub(crate) authorization: String,
    pub(crate) company: Uuid,
    pub(crate) scopes: Vec<String>,
}

impl Token {
    /// An OAuth bearer token.
    #[must_use]
    pub fn bearer(token: &str) -> Self {
        Self::new(format!("Bearer {token}"))
    }

    /// An API key, sent as the username of Basic credentials.
    #[must_use]
    pub fn api_key(key: &str) -> Self {
        Self::new(format!("Basic {}", STANDARD.encode(format!("{key}:"))))
    }

    fn new(authorization: String) -> Self {
        Self {
            authorization,
            company: Uuid::new_v4(),
            scopes: Vec::new(),
        }
    }

    /// Adds scopes.
    #[must_use]
    pub fn scopes<'a>(mut self, scopes: impl IntoIterator<Item = &'a str>) -> Self {
        self.scopes.extend(scopes.into_iter().map(Into::into));
        self
    }

    pub(crate) fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|granted| granted == scope)
    }
}

/// A request that the API received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRequest {
    /// The method.
    pub method: String,
    /// The path and query.
    pub target: String,
}

/// A delivery attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The message id.
    pub message: String,
    /// The subscription id.
    pub subscription: Uuid,
    /// The response status, or `None` without a response.
    pub status: Option<u16>,
    /// The number of signatures sent.
    pub signatures: usize,
}

impl Attempt {
    pub(crate) fn new(
        message: &str,
        subscription: Uuid,
        status: Option<u16>,
        signatures: usize,
    ) -> Self {
        Self {
            message: message.to_owned(),
            subscription,
            status,
            signatures,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) tokens: Vec<Token>,
    pub(crate) faults: VecDeque<Fault>,
    pub(crate) requests: Vec<ApiRequest>,
    pub(crate) bare_event_types: bool,
    pub(crate) endless_lists: bool,
    /// The fields of subscriptions besides the documented ones.
    pub(crate) more_fields: BTreeSet<String>,
    /// The last number given to a listed item.
    sequence: u64,
    pub(crate) subscriptions: BTreeMap<Uuid, Subscription>,
    pub(crate) activities: Vec<(u64, Value)>,
    pub(crate) export_jobs: Vec<(u64, Value)>,
    pub(crate) messages: BTreeMap<String, Message>,
    pub(crate) attempts: Vec<Attempt>,
}

#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) sequence: u64,
    pub(crate) company: Uuid,
    /// The JSON object that the API returns.
    pub(crate) value: Value,
    /// Newest first.
    pub(crate) secrets: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) subscription: Uuid,
    pub(crate) body: String,
    /// Set once the message is delivered or given up.
    pub(crate) final_attempt: Option<Attempt>,
}

impl State {
    /// Creates a subscription from a validated request.
    pub(crate) fn create(&mut self, company: Uuid, request: Value) -> Value {
        let id = Uuid::new_v4();
        let mut value = request;
        value["id"] = json!(id);
        value["createdAt"] = now();
        value["updatedAt"] = now();
        let subscription = Subscription {
            sequence: self.next(),
            company,
            value: value.clone(),
            secrets: vec![new_secret()],
        };
        self.subscriptions.insert(id, subscription);
        self.record(id, company, "CREATE");
        value
    }

    /// Replaces a subscription with a validated request.
    pub(crate) fn update(&mut self, id: Uuid, request: Value) -> Value {
        let subscription = self.subscriptions.get_mut(&id).unwrap();
        let company = subscription.company;
        let mut value = request;
        value["id"] = json!(id);
        value["createdAt"] = subscription.value["createdAt"].clone();
        value["updatedAt"] = now();
        subscription.value = value.clone();
        self.record(id, company, "UPDATE");
        value
    }

    pub(crate) fn delete(&mut self, id: Uuid) {
        if let Some(subscription) = self.subscriptions.remove(&id) {
            self.record(id, subscription.company, "DELETE");
        }
    }

    pub(crate) fn rotate_secret(&mut self, id: Uuid) -> String {
        let secret = new_secret();
        let subscription = self.subscriptions.get_mut(&id).unwrap();
        subscription.secrets.insert(0, secret.clone());
        secret
    }

    pub(crate) fn retire_old_secrets(&mut self, id: Uuid) {
        let subscription = self.subscriptions.get_mut(&id).unwrap();
        subscription.secrets.truncate(1);
    }

    pub(crate) fn add_export_job(&mut self, job: Value) {
        let sequence = self.next();
        self.export_jobs.push((sequence, job));
    }

    /// Adds a message for each active subscription of the company to this event type.
    pub(crate) fn add_messages(
        &mut self,
        company: Uuid,
        event_type: &str,
        body: &str,
    ) -> Vec<String> {
        let matches = |subscription: &&Subscription| {
            let value = &subscription.value;
            let mut types = value["eventTypes"].as_array().unwrap().iter();
            subscription.company == company
                && value["status"] == "ACTIVE"
                && types.any(|wanted| wanted == event_type)
        };
        let subscribed = self.subscriptions.values().filter(matches);
        let ids: Vec<Uuid> = subscribed
            .map(|subscription| id(&subscription.value["id"]))
            .collect();
        let mut messages = Vec::new();
        for subscription in ids {
            let message = Message {
                subscription,
                body: body.to_owned(),
                final_attempt: None,
            };
            // Ids sort by time, as Pleo's do.
            let id = format!("msg_{:08}{}", self.next(), Uuid::new_v4().simple());
            self.messages.insert(id.clone(), message);
            messages.push(id);
        }
        messages
    }

    pub(crate) fn final_attempt(&self, message: &str) -> Option<&Attempt> {
        self.messages.get(message)?.final_attempt.as_ref()
    }

    fn record(&mut self, subscription: Uuid, company: Uuid, operation: &str) {
        let activity = json!({
            "id": Uuid::new_v4(),
            "subscriptionId": subscription,
            "operationType": operation,
            "description": format!("{operation} of the subscription"),
            "actorUrn": format!("urn:pleo:company:{company}"),
            "createdAt": now(),
        });
        let sequence = self.next();
        self.activities.push((sequence, activity));
    }

    /// Returns a number that no listed item has.
    pub(crate) const fn next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}

pub(crate) fn id(value: &Value) -> Uuid {
    value.as_str().unwrap().parse().unwrap()
}

fn now() -> Value {
    json!(Timestamp::now().to_string())
}

/// Generates a secret of 24 bytes, as in Pleo's published example.
fn new_secret() -> String {
    let key = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
    format!("whsec_{}", STANDARD.encode(&key[..24]))
}
