//! Bodies of requests: JSON, or the form of a page.

use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Refusal;
use crate::http_message::Request;

/// Parses a body. Without one, all fields have their defaults.
pub(super) fn parse<T: DeserializeOwned>(request: &Request) -> Result<T, Refusal> {
    let body = request.body.trim_ascii();
    let is_form = request.has_type("application/x-www-form-urlencoded");
    let value = if body.is_empty() {
        Ok(Value::Object(Map::new()))
    } else if request.has_type("application/json") || (is_form && body.starts_with(b"{")) {
        // `curl --data` names JSON a form too.
        serde_json::from_slice(body)
    } else if is_form {
        Ok(Value::Object(form(&String::from_utf8_lossy(body))))
    } else {
        let message = "the body must be application/json".to_owned();
        return Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    };
    let parsed = value.and_then(serde_json::from_value);
    parsed.map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))
}

/// Returns the fields of a form. Numbers, `true` and `false` are those of JSON; empty fields are left
/// out.
fn form(text: &str) -> Map<String, Value> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    let fields = pairs.filter(|(_, value)| !value.is_empty());
    fields
        .map(|(name, value)| {
            let spaced = value.replace('+', " ");
            let value = percent_decode_str(&spaced).decode_utf8_lossy().into_owned();
            let parsed = match serde_json::from_str(&value) {
                Ok(parsed @ (Value::Number(_) | Value::Bool(_))) => parsed,
                _ => Value::String(value),
            };
            (name.to_owned(), parsed)
        })
        .collect()
}
