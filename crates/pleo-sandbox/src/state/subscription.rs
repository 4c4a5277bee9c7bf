//! Subscriptions and their signing secrets.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// How many old secrets can sign beside the newest one.
const MAX_OLD_SECRETS: usize = 10;

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Subscription {
    pub(crate) id: Uuid,
    pub(crate) sequence: u64,
    pub(crate) company: Uuid,
    /// The validated JSON object that the API returns.
    pub(crate) object: Map<String, Value>,
    /// Newest first.
    secrets: Vec<SigningSecret>,
    /// The start of the first attempt since the last success, if all have failed.
    pub(crate) failing_since: Option<Timestamp>,
}

#[derive(Clone, Serialize, Deserialize)]
struct SigningSecret {
    text: String,
    /// When the secret stops signing.
    until: Option<Timestamp>,
}

impl Subscription {
    pub(crate) fn new(
        id: Uuid,
        sequence: u64,
        company: Uuid,
        object: Map<String, Value>,
        secret: String,
    ) -> Self {
        Self {
            id,
            sequence,
            company,
            object,
            secrets: vec![SigningSecret {
                text: secret,
                until: None,
            }],
            failing_since: None,
        }
    }

    pub(crate) fn url(&self) -> &str {
        self.text("endpointUrl")
    }

    pub(crate) fn is_active(&self) -> bool {
        self.text("status") == "ACTIVE"
    }

    pub(crate) fn set_active(&mut self, active: bool, now: Timestamp) {
        let status = if active { "ACTIVE" } else { "INACTIVE" };
        self.object.insert("status".to_owned(), json!(status));
        self.object.insert("updatedAt".to_owned(), json!(now));
        self.failing_since = None;
    }

    pub(crate) fn event_types(&self) -> impl Iterator<Item = &str> {
        let list = self.object.get("eventTypes").and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str)
    }

    /// Returns the names and values of the custom headers.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let map = self.object.get("customHeaders").and_then(Value::as_object);
        let pairs = map.into_iter().flatten();
        pairs.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
    }

    /// Returns the username and password of Basic credentials.
    pub(crate) fn basic(&self) -> Option<(&str, &str)> {
        let auth = self.object.get("endpointAuth")?;
        if auth.get("type")?.as_str()? != "BASIC" {
            return None;
        }
        let credentials = auth.get("credentials")?;
        let text = |name| credentials.get(name).and_then(Value::as_str);
        Some((text("username")?, text("password")?))
    }

    /// Returns the newest secret.
    pub(crate) fn secret(&self) -> &str {
        self.secrets.first().map_or("", |secret| &secret.text)
    }

    /// Returns the secrets that sign at this time, newest first.
    pub(crate) fn signing_secrets(&self, now: Timestamp) -> impl Iterator<Item = &str> {
        let is_signing =
            move |secret: &&SigningSecret| secret.until.is_none_or(|until| now < until);
        let signing = self.secrets.iter().filter(is_signing);
        signing.map(|secret| secret.text.as_str())
    }

    /// Adds a new secret. The present one signs for `overlap` longer.
    pub(crate) fn rotate(&mut self, secret: String, now: Timestamp, overlap: SignedDuration) {
        if let Some(present) = self.secrets.first_mut() {
            present.until = now.checked_add(overlap).ok();
        }
        let until = None;
        self.secrets.insert(
            0,
            SigningSecret {
                text: secret,
                until,
            },
        );
        self.secrets.truncate(1 + MAX_OLD_SECRETS);
    }

    pub(crate) fn retire_old_secrets(&mut self) {
        self.secrets.truncate(1);
    }

    fn text(&self, name: &str) -> &str {
        let value = self.object.get(name).and_then(Value::as_str);
        value.unwrap_or_default()
    }
}

impl core::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Subscription")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
