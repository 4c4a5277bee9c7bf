//! Payloads and assertions for the tests.

use pleo_events::Envelope;
use serde_json::{Value, json};

pub fn export_job() -> Value {
    json!({
        "id": "b4c4d068-ebbe-45b7-b562-2f16f0deb8b9",
        "companyId": "b5fdaec1-1b43-4b62-996a-b0471c3bb336",
        "createdAt": "2025-05-23T15:21:32Z",
        "numberOfItems": 1,
        "expiresIn": 3600,
        "status": "pending",
    })
}

pub fn vendor() -> Value {
    json!({
        "id": "c27ed4d6-3d3d-458e-8f3f-735fdf32a3bc",
        "companyId": "00000000-0000-0000-0000-000000000000",
        "name": "Blumen Müller 🌼",
        "state": "DRAFT",
        "defaultCurrency": "EUR",
    })
}

/// Returns the object with one field replaced.
pub fn with(mut value: Value, field: &str, new: Value) -> Value {
    value[field] = new;
    value
}

/// Asserts that the body parses, and that the envelope serializes to equal JSON.
pub fn assert_round_trip(body: &[u8]) {
    let envelope = Envelope::parse(body).unwrap();
    let before: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(serde_json::to_value(&envelope).unwrap(), before);
}
