//! The sandbox's data: tokens, subscriptions, export jobs, messages.

pub(crate) mod export_job;
pub(crate) mod message;
pub(crate) mod request;
pub(crate) mod subscription;
pub(crate) mod token;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use pleo_events::ExportJob;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use self::message::{Message, MessageState};
use self::request::ApiRequest;
use self::subscription::Subscription;
use self::token::{Identity, Token};
use crate::error::Error;
use crate::faults::Fault;
use crate::ids::{Ids, Kind};

/// The scopes of the sandbox's own token and API key.
pub(crate) const SCOPES: [&str; 2] = ["export-jobs:read", "export-jobs:write"];

/// How many messages are kept. Beyond it, the oldest finished ones are removed.
const MAX_MESSAGES: usize = 10_000;

/// How many export jobs are kept. Beyond it, the oldest ones are removed.
const MAX_EXPORT_JOBS: usize = 10_000;

/// How many requests are kept, the newest.
const MAX_REQUESTS: usize = 10_000;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) ids: Ids,
    /// The sandbox's own company, token and API key.
    pub(crate) access: Access,
    pub(crate) tokens: Vec<Token>,
    /// The last number given to a listed item or an attempt.
    sequence: u64,
    pub(crate) subscriptions: BTreeMap<Uuid, Subscription>,
    pub(crate) activities: Vec<(u64, Value)>,
    pub(crate) export_jobs: VecDeque<(u64, ExportJob)>,
    pub(crate) messages: BTreeMap<String, Message>,
    /// Not kept in a file.
    #[serde(skip)]
    pub(crate) faults: VecDeque<Fault>,
    #[serde(skip)]
    pub(crate) requests: VecDeque<ApiRequest>,
    #[serde(skip)]
    pub(crate) request_count: usize,
    #[serde(skip)]
    pub(crate) deviations: Deviations,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Access {
    pub(crate) company: Uuid,
    pub(crate) token: String,
    pub(crate) api_key: String,
}

impl core::fmt::Debug for Access {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Access")
            .field("company", &self.company)
            .finish_non_exhaustive()
    }
}

/// Where the API's answers differ from Pleo's documentation.
#[derive(Debug, Default)]
pub(crate) struct Deviations {
    pub(crate) bare_event_types: bool,
    pub(crate) endless_lists: bool,
    /// The fields of subscriptions besides the documented ones.
    pub(crate) more_fields: BTreeSet<String>,
}

impl State {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        let mut ids = Ids::new(seed);
        let company = ids.uuid(Kind::Company);
        let access = Access {
            company,
            token: ids.bearer(company),
            api_key: ids.api_key(),
        };
        let tokens = [
            Token::bearer(&access.token),
            Token::api_key(&access.api_key),
        ];
        Self {
            ids,
            access,
            tokens: tokens
                .map(|token| token.scopes(SCOPES).company(company))
                .to_vec(),
            sequence: 0,
            subscriptions: BTreeMap::new(),
            activities: Vec::new(),
            export_jobs: VecDeque::new(),
            messages: BTreeMap::new(),
            faults: VecDeque::new(),
            requests: VecDeque::new(),
            request_count: 0,
            deviations: Deviations::default(),
        }
    }

    /// Accepts a token. Returns its company.
    pub(crate) fn grant(&mut self, token: Token) -> Uuid {
        let company = token
            .company
            .unwrap_or_else(|| self.ids.uuid(Kind::Company));
        self.tokens.push(token.company(company));
        company
    }

    pub(crate) fn identity(&self, authorization: &str) -> Option<Identity> {
        let mut tokens = self.tokens.iter();
        let token = tokens.find(|token| token.authorization == authorization)?;
        Some(Identity {
            company: token.company?,
            scopes: token.scopes.clone(),
        })
    }

    pub(crate) fn record_request(&mut self, request: ApiRequest) {
        self.request_count += 1;
        self.requests.push_back(request);
        if self.requests.len() > MAX_REQUESTS {
            self.requests.pop_front();
        }
    }

    /// Creates a subscription from a validated request. Returns its id.
    pub(crate) fn create(
        &mut self,
        company: Uuid,
        mut object: Map<String, Value>,
        now: Timestamp,
    ) -> Uuid {
        let id = self.ids.uuid(Kind::Subscription);
        object.insert("id".to_owned(), json!(id));
        object.insert("createdAt".to_owned(), json!(now));
        object.insert("updatedAt".to_owned(), json!(now));
        let (sequence, secret) = (self.next(), self.ids.secret());
        let subscription = Subscription::new(id, sequence, company, object, secret);
        self.subscriptions.insert(id, subscription);
        self.record(id, company, "CREATE", now);
        id
    }

    /// Replaces a subscription with a validated request.
    pub(crate) fn update(&mut self, id: Uuid, mut object: Map<String, Value>, now: Timestamp) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return;
        };
        object.insert("id".to_owned(), json!(id));
        if let Some(created_at) = subscription.object.get("createdAt") {
            object.insert("createdAt".to_owned(), created_at.clone());
        }
        object.insert("updatedAt".to_owned(), json!(now));
        let was_active = subscription.is_active();
        subscription.object = object;
        if !was_active {
            subscription.failing_since = None;
        }
        let (company, is_active) = (subscription.company, subscription.is_active());
        if !is_active {
            self.cancel_messages(id);
        }
        self.record(id, company, "UPDATE", now);
    }

    pub(crate) fn delete(&mut self, id: Uuid, now: Timestamp) {
        if let Some(subscription) = self.subscriptions.remove(&id) {
            self.cancel_messages(id);
            self.record(id, subscription.company, "DELETE", now);
        }
    }

    /// Sets the status of a subscription.
    pub(crate) fn set_active(
        &mut self,
        id: Uuid,
        active: bool,
        now: Timestamp,
    ) -> Result<(), Error> {
        let subscription = self.subscription(id)?;
        subscription.set_active(active, now);
        let company = subscription.company;
        if !active {
            self.cancel_messages(id);
        }
        self.record(id, company, "UPDATE", now);
        Ok(())
    }

    pub(crate) fn subscription(&mut self, id: Uuid) -> Result<&mut Subscription, Error> {
        let found = self.subscriptions.get_mut(&id);
        found.ok_or(Error::NoSubscription(id))
    }

    pub(crate) fn add_export_job(&mut self, job: ExportJob) {
        let sequence = self.next();
        self.export_jobs.push_back((sequence, job));
        if self.export_jobs.len() > MAX_EXPORT_JOBS {
            self.export_jobs.pop_front();
        }
    }

    pub(crate) fn export_job(&mut self, id: Uuid) -> Result<&mut ExportJob, Error> {
        let mut jobs = self.export_jobs.iter_mut().map(|(_, job)| job);
        jobs.find(|job| job.id == id).ok_or(Error::NoExportJob(id))
    }

    /// Adds a message for each active subscription of the company to this event type. Returns them.
    pub(crate) fn add_messages(
        &mut self,
        company: Uuid,
        event_type: &str,
        body: &str,
        now: Timestamp,
    ) -> Vec<Message> {
        let is_subscribed = |subscription: &&Subscription| {
            subscription.company == company
                && subscription.is_active()
                && subscription
                    .event_types()
                    .any(|wanted| wanted == event_type)
        };
        let mut subscribed: Vec<_> = self
            .subscriptions
            .values()
            .filter(is_subscribed)
            .map(|subscription| (subscription.sequence, subscription.id))
            .collect();
        subscribed.sort_unstable();
        let mut added = Vec::new();
        for (_, subscription) in subscribed {
            let message = Message {
                id: self.ids.message(),
                subscription,
                event_type: event_type.to_owned(),
                body: body.to_owned(),
                created_at: now,
                state: MessageState::Pending,
                next_attempt_at: Some(now),
                attempts: Vec::new(),
                failures: 0,
            };
            self.messages.insert(message.id.clone(), message.clone());
            added.push(message);
        }
        self.remove_old_messages();
        added
    }

    pub(crate) fn message(&self, id: &str) -> Result<&Message, Error> {
        let found = self.messages.get(id);
        found.ok_or_else(|| Error::NoMessage(id.to_owned()))
    }

    /// Returns a number that no listed item and no attempt has.
    pub(crate) const fn next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Ends the deliveries of a subscription that was deleted or disabled.
    fn cancel_messages(&mut self, subscription: Uuid) {
        for message in self.messages.values_mut() {
            if message.subscription == subscription && message.state == MessageState::Pending {
                message.state = MessageState::Canceled;
                message.next_attempt_at = None;
            }
        }
    }

    fn remove_old_messages(&mut self) {
        let excess = self.messages.len().saturating_sub(MAX_MESSAGES);
        let finished = self.messages.values();
        let finished = finished.filter(|message| message.state != MessageState::Pending);
        let oldest: Vec<_> = finished.take(excess).map(|one| one.id.clone()).collect();
        for id in oldest {
            self.messages.remove(&id);
        }
    }

    fn record(&mut self, subscription: Uuid, company: Uuid, operation: &str, now: Timestamp) {
        let activity = json!({
            "id": self.ids.uuid(Kind::Activity),
            "subscriptionId": subscription,
            "operationType": operation,
            "description": format!("{operation} of the subscription"),
            "actorUrn": format!("urn:pleo:company:{company}"),
            "createdAt": now,
        });
        let sequence = self.next();
        self.activities.push((sequence, activity));
    }
}
