//! The state as JSON, without secrets.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::state::State;
use crate::state::subscription::Subscription;

/// Returns the state. Secrets, custom headers and credentials are left out.
pub(super) fn state(state: &State, url: &str) -> Value {
    let mut subscriptions: Vec<_> = state.subscriptions.values().collect();
    subscriptions.sort_by_key(|subscription| subscription.sequence);
    let jobs = state.export_jobs.iter().map(|(_, job)| json!(job));
    let messages = state.messages.values().map(|message| json!(message));
    json!({
        "url": url,
        "company": state.access.company,
        "subscriptions": subscriptions.into_iter().map(subscription).collect::<Vec<_>>(),
        "exportJobs": jobs.collect::<Vec<_>>(),
        "messages": messages.collect::<Vec<_>>(),
    })
}

fn subscription(one: &Subscription) -> Value {
    json!({
        "id": one.id,
        "company": one.company,
        "endpointUrl": one.url(),
        "eventTypes": one.event_types().collect::<Vec<_>>(),
        "status": if one.is_active() { "ACTIVE" } else { "INACTIVE" },
        "signatures": one.signing_secrets(Timestamp::now()).count(),
        "failingSince": one.failing_since,
    })
}
