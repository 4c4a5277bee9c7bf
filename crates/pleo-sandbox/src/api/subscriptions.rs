//! The Subscriptions API.

use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::pagination::{Query, page};
use super::validation::{ApiError, Rules};
use crate::http_message::Request;
use crate::state::State;
use crate::state::subscription::Subscription;
use crate::state::token::Identity;

/// Answers a request to a path below `/v1/subscriptions`.
pub(super) fn answer(
    state: &mut State,
    rules: &Rules<'_>,
    request: &Request,
    path: &[&str],
    now: Timestamp,
) -> Result<Value, ApiError> {
    let identity = rules.identity;
    let (text, rest) = match (&request.method, path) {
        (&Method::GET, []) => return list(state, identity, request.query()),
        (&Method::POST, []) => {
            let object = rules.subscription(request, &state.deviations.more_fields)?;
            let id = state.create(identity.company, object, now);
            return one(state, identity, &id.to_string());
        }
        (_, []) => return Err(ApiError::method_not_allowed()),
        (_, [text, rest @ ..]) => (*text, rest),
    };
    if (&request.method, rest) == (&Method::GET, &["activities"]) {
        return activities(state, identity, text, request.query());
    }
    let found = find(state, identity, text)?;
    let id = found.id;
    match (&request.method, rest) {
        (&Method::GET, []) => one(state, identity, text),
        (&Method::PUT, []) => {
            let object = rules.subscription(request, &state.deviations.more_fields)?;
            state.update(id, object, now);
            one(state, identity, text)
        }
        (&Method::DELETE, []) => {
            state.delete(id, now);
            Ok(Value::Null)
        }
        (&Method::GET, ["secret"]) => Ok(json!({ "data": { "secretKey": found.secret() } })),
        (_, [] | ["secret" | "activities"]) => Err(ApiError::method_not_allowed()),
        _ => Err(ApiError::new(StatusCode::NOT_FOUND, "no such path")),
    }
}

fn one(state: &State, identity: &Identity, text: &str) -> Result<Value, ApiError> {
    let found = find(state, identity, text)?;
    Ok(json!({ "data": render(state, &found.object) }))
}

/// Finds a subscription. A token does not see those of other companies.
fn find<'a>(
    state: &'a State,
    identity: &Identity,
    text: &str,
) -> Result<&'a Subscription, ApiError> {
    let id: Option<Uuid> = text.parse().ok();
    let found = id.and_then(|id| state.subscriptions.get(&id));
    let found = found.filter(|found| found.company == identity.company);
    found.ok_or_else(|| missing(text))
}

fn missing(text: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("no subscription {text}"))
}

fn list(state: &State, identity: &Identity, query: &str) -> Result<Value, ApiError> {
    let query = Query::parse(query, &["status", "event_types"])?;
    let status = query.one_of("status", &["ACTIVE", "INACTIVE"])?;
    let event_types = query.all("event_types");
    let matches = |subscription: &&Subscription| {
        let mut types = subscription.event_types();
        subscription.company == identity.company
            && status.is_none_or(|status| (status == "ACTIVE") == subscription.is_active())
            && (event_types.is_empty() || types.any(|one| event_types.contains(&one)))
    };
    let matching = state.subscriptions.values().filter(matches);
    let list = matching.map(|one| (one.sequence, render(state, &one.object)));
    page(list.collect(), &query)
}

/// Lists the activities of a subscription, including a deleted one.
fn activities(
    state: &State,
    identity: &Identity,
    text: &str,
    query: &str,
) -> Result<Value, ApiError> {
    let query = Query::parse(query, &["operation_types"])?;
    let types = query.any_of("operation_types", &["CREATE", "UPDATE", "DELETE"])?;
    let actor = json!(format!("urn:pleo:company:{}", identity.company));
    let id: Uuid = text.parse().map_err(|_| missing(text))?;
    let id = json!(id);
    let own: Vec<_> = state
        .activities
        .iter()
        .filter(|(_, one)| one["subscriptionId"] == id && one["actorUrn"] == actor)
        .collect();
    if own.is_empty() {
        return Err(missing(text));
    }
    let matches = |activity: &Value| {
        let kind = activity["operationType"].as_str().unwrap_or_default();
        types.is_empty() || types.contains(&kind)
    };
    let matching = own.into_iter().filter(|(_, activity)| matches(activity));
    page(matching.cloned().collect(), &query)
}

/// Returns a subscription as a response shows it.
fn render(state: &State, object: &Map<String, Value>) -> Value {
    let mut object = object.clone();
    if state.deviations.bare_event_types
        && let Some(event_types) = object.get_mut("eventTypes")
        && let Some([event_type]) = event_types.as_array().map(Vec::as_slice)
    {
        *event_types = event_type.clone();
    }
    Value::Object(object)
}
