//! Formats subscriptions and activities, without secrets.

use pleo_api::{Activity, Subscription};
use serde::Serialize;
use serde_json::Value;

use crate::output::Row;
use crate::pleo::owner::OWNER_HEADER;

impl Row for Subscription {
    const COLUMNS: &'static [&'static str] = &["ID", "STATUS", "ENDPOINT URL", "EVENT TYPES"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.status.to_string(),
            self.endpoint_url.clone(),
            self.event_types.join(" "),
        ]
    }

    fn json(&self) -> Value {
        masked(self)
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
        masked(self)
    }
}

/// Serializes an entry, and masks the values of its headers and credentials.
fn masked(entry: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(entry).unwrap_or_default();
    for pointer in ["/customHeaders", "/endpointAuth/credentials"] {
        let map = value.pointer_mut(pointer).and_then(Value::as_object_mut);
        for (name, value) in map.into_iter().flatten() {
            if name != OWNER_HEADER {
                *value = "(not shown)".into();
            }
        }
    }
    value
}
