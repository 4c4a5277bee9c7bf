//! Validation of API requests, and the API's errors.

use std::collections::BTreeSet;

use http::{HeaderName, HeaderValue, Uri};
use pleo_events::EventType;
use serde_json::{Value, json};

use crate::state::Token;

/// An error response of the API.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    kind: &'static str,
    message: String,
}

impl ApiError {
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        let kind = match status {
            400 => "BAD_REQUEST",
            401 => "UNAUTHORIZED",
            403 => "ACCESS_DENIED",
            404 => "NOT_FOUND",
            405 => "METHOD_NOT_ALLOWED",
            _ => "UNSUPPORTED_MEDIA_TYPE",
        };
        let message = message.into();
        Self {
            status,
            kind,
            message,
        }
    }

    pub(crate) fn body(&self) -> Value {
        json!({ "type": self.kind, "message": self.message })
    }
}

pub(crate) fn bad_request<T>(message: impl Into<String>) -> Result<T, ApiError> {
    Err(ApiError::new(400, message))
}

/// Validates a create or update request. Fills in defaults.
/// `more` are the fields besides the documented ones.
pub(crate) fn subscription(
    body: &[u8],
    token: &Token,
    more: &BTreeSet<String>,
) -> Result<Value, ApiError> {
    let Ok(Value::Object(mut request)) = serde_json::from_slice(body) else {
        return bad_request("the body is not a JSON object");
    };
    for (name, value) in &request {
        match name.as_str() {
            "endpointUrl" => endpoint_url(value)?,
            "eventTypes" => event_types(value, token)?,
            "status" => status(value)?,
            "customHeaders" => custom_headers(value)?,
            "endpointAuth" => endpoint_auth(value, more)?,
            name if more.contains(name) => {}
            _ => return bad_request(format!("unknown field {name}")),
        }
    }
    for name in ["endpointUrl", "eventTypes"] {
        if !request.contains_key(name) {
            return bad_request(format!("{name} is required"));
        }
    }
    request.entry("status").or_insert(json!("ACTIVE"));
    Ok(Value::Object(request))
}

fn endpoint_url(value: &Value) -> Result<(), ApiError> {
    let uri = value.as_str().and_then(|text| text.parse::<Uri>().ok());
    match uri {
        Some(uri) if uri.scheme_str() == Some("https") && uri.authority().is_some() => Ok(()),
        _ => bad_request("endpointUrl must be an https URL"),
    }
}

fn event_types(value: &Value, token: &Token) -> Result<(), ApiError> {
    let Some(list) = value.as_array().filter(|list| !list.is_empty()) else {
        return bad_request("eventTypes must be a list that is not empty");
    };
    let mut seen = BTreeSet::new();
    for value in list {
        let Some(text) = value.as_str() else {
            return bad_request("eventTypes must be strings");
        };
        let event_type = EventType::from(text);
        if matches!(event_type, EventType::Other(_)) {
            return bad_request(format!("unknown event type {text}"));
        }
        if !seen.insert(text) {
            return bad_request(format!("eventTypes must be unique: {text}"));
        }
        if event_type == EventType::ExportJobCreated {
            for scope in ["export-jobs:read", "export-jobs:write"] {
                require(token, scope)?;
            }
        }
    }
    Ok(())
}

pub(crate) fn require(token: &Token, scope: &str) -> Result<(), ApiError> {
    if token.has_scope(scope) {
        return Ok(());
    }
    Err(ApiError::new(403, format!("the scope {scope} is missing")))
}

fn status(value: &Value) -> Result<(), ApiError> {
    match value.as_str() {
        Some("ACTIVE" | "INACTIVE") => Ok(()),
        _ => bad_request("status must be ACTIVE or INACTIVE"),
    }
}

/// Accepts `webhook-…` names, as Pleo does. Such a header replaces the sender's own.
fn custom_headers(value: &Value) -> Result<(), ApiError> {
    let Some(map) = value.as_object() else {
        return bad_request("customHeaders must be an object");
    };
    for (name, value) in map {
        let sendable = name.parse::<HeaderName>().is_ok()
            && value
                .as_str()
                .is_some_and(|text| HeaderValue::from_str(text).is_ok());
        if !sendable || name.to_ascii_lowercase().starts_with("svix-") {
            return bad_request(format!("customHeaders: {name} cannot be sent: {value}"));
        }
    }
    Ok(())
}

fn endpoint_auth(value: &Value, more: &BTreeSet<String>) -> Result<(), ApiError> {
    let Some(map) = value.as_object() else {
        return bad_request("endpointAuth must be an object");
    };
    let is_known =
        |name: &String, names: &[&str]| names.contains(&name.as_str()) || more.contains(name);
    if !map
        .keys()
        .all(|name| is_known(name, &["type", "credentials"]))
    {
        return bad_request("endpointAuth has an unknown field");
    }
    let credentials = map.get("credentials");
    if let Some(credentials) = credentials {
        let is_complete = credentials.as_object().is_some_and(|map| {
            map.iter().all(|(name, value)| {
                is_known(name, &["username", "password", "token"])
                    && (value.is_string() || more.contains(name))
            })
        });
        if !is_complete {
            return bad_request("endpointAuth.credentials must hold username, password, token");
        }
    }
    match map.get("type").and_then(Value::as_str) {
        Some("NONE") => Ok(()),
        Some("BASIC") => {
            let has = |name| credentials.is_some_and(|map| map[name].is_string());
            if has("username") && has("password") {
                return Ok(());
            }
            bad_request("endpointAuth BASIC needs username and password")
        }
        _ => bad_request("endpointAuth.type must be NONE or BASIC"),
    }
}
