//! Validation of API requests, and the API's errors.

use std::collections::BTreeSet;

use http::{HeaderName, HeaderValue, StatusCode};
use pleo_events::EventType;
use pleo_http::{Target, is_loopback};
use serde_json::{Map, Value, json};

use crate::http_message::Request;
use crate::options::PlainHttp;
use crate::state::token::Identity;

/// An error response of the API.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) kind: &'static str,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let kind = match status {
            StatusCode::BAD_REQUEST => "BAD_REQUEST",
            StatusCode::UNAUTHORIZED => "UNAUTHORIZED",
            StatusCode::FORBIDDEN => "ACCESS_DENIED",
            StatusCode::NOT_FOUND => "NOT_FOUND",
            StatusCode::METHOD_NOT_ALLOWED => "METHOD_NOT_ALLOWED",
            _ => "UNSUPPORTED_MEDIA_TYPE",
        };
        let message = message.into();
        Self {
            status,
            kind,
            message,
        }
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
    }

    pub(crate) fn body(&self) -> Value {
        json!({ "type": self.kind, "message": self.message })
    }
}

pub(crate) fn bad_request<T>(message: impl Into<String>) -> Result<T, ApiError> {
    Err(ApiError::new(StatusCode::BAD_REQUEST, message))
}

pub(crate) fn require(identity: &Identity, scope: &str) -> Result<(), ApiError> {
    if identity.has_scope(scope) {
        return Ok(());
    }
    let message = format!("the scope {scope} is missing");
    Err(ApiError::new(StatusCode::FORBIDDEN, message))
}

pub(crate) fn require_json(request: &Request) -> Result<(), ApiError> {
    if request.has_type("application/json") {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "the body must be application/json",
    ))
}

/// What a subscription request may ask for.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) plain_http: PlainHttp,
}

impl Rules<'_> {
    /// Validates a create or update request. Fills in defaults.
    /// `more` are the fields besides the documented ones.
    pub(crate) fn subscription(
        &self,
        request: &Request,
        more: &BTreeSet<String>,
    ) -> Result<Map<String, Value>, ApiError> {
        require_json(request)?;
        let Ok(Value::Object(mut object)) = serde_json::from_slice(&request.body) else {
            return bad_request("the body is not a JSON object");
        };
        for (name, value) in &object {
            match name.as_str() {
                "endpointUrl" => endpoint_url(value, self.plain_http)?,
                "eventTypes" => event_types(value, self.identity)?,
                "status" => status(value)?,
                "customHeaders" => custom_headers(value)?,
                "endpointAuth" => endpoint_auth(value, more)?,
                name if more.contains(name) => {}
                _ => return bad_request(format!("unknown field {name}")),
            }
        }
        for name in ["endpointUrl", "eventTypes"] {
            if !object.contains_key(name) {
                return bad_request(format!("{name} is required"));
            }
        }
        object.entry("status").or_insert_with(|| json!("ACTIVE"));
        Ok(object)
    }
}

fn endpoint_url(value: &Value, plain_http: PlainHttp) -> Result<(), ApiError> {
    let Some(Ok(target)) = value.as_str().map(str::parse::<Target>) else {
        return bad_request("endpointUrl must be an https URL");
    };
    let is_allowed = match (target.url().scheme(), plain_http) {
        ("https", _) | (_, PlainHttp::Allowed) => true,
        (_, PlainHttp::Refused) => false,
        (_, PlainHttp::Loopback) => is_loopback(target.url().host_str().unwrap_or_default()),
    };
    match (is_allowed, plain_http) {
        (true, _) => Ok(()),
        (false, PlainHttp::Refused) => bad_request("endpointUrl must be an https URL"),
        (false, _) => bad_request("endpointUrl must be an https URL, or one on this machine"),
    }
}

fn event_types(value: &Value, identity: &Identity) -> Result<(), ApiError> {
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
                require(identity, scope)?;
            }
        }
    }
    Ok(())
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
            let has =
                |name| credentials.is_some_and(|map| map.get(name).is_some_and(Value::is_string));
            if has("username") && has("password") {
                return Ok(());
            }
            bad_request("endpointAuth BASIC needs username and password")
        }
        _ => bad_request("endpointAuth.type must be NONE or BASIC"),
    }
}
