//! Formats subscriptions and activities, without secrets.

use pleo_api::{Activity, Subscription};
use serde_json::Value;

use crate::output::Row;
use crate::pleo::owner::OWNER_HEADER;

impl Row for Subscription {
    const COLUMNS: &'static [&'static str] = &["ID", "STATUS", "ENDPOINT URL", "EVENT TYPES"];

    /// The id, which other commands need complete, and the status.
    const UNCUT: usize = 2;

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.status.to_string(),
            self.endpoint_url.clone(),
            self.event_types.join(" "),
        ]
    }

    fn json(&self) -> Value {
        let mut object = self.to_redacted_json();
        // The name of the owner is no secret.
        if let Some(owner) = self.custom_headers.get(OWNER_HEADER) {
            object["customHeaders"][OWNER_HEADER] = owner.expose().into();
        }
        object
    }
}

impl Row for Activity {
    const COLUMNS: &'static [&'static str] = &["AT", "OPERATION", "BY"];

    fn cells(&self) -> Vec<String> {
        vec![
            format!("{:.0}", self.created_at),
            self.operation_type.to_string(),
            self.actor_urn.as_deref().unwrap_or("-").to_owned(),
        ]
    }

    fn json(&self) -> Value {
        self.to_redacted_json()
    }
}
