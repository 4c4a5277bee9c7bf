//! Sample events.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

/// Returns the body of an event of this type, with new ids and the current time. An unknown type
/// has empty data.
pub(crate) fn event(event_type: &str) -> String {
    let data = match event_type {
        "v1.export-job.created" | "v2.export-job.created" | "v1.export.job-created" => export_job(),
        "v1.vendor.created" => vendor(),
        _ => json!({}),
    };
    json!({ "data": data, "eventType": event_type, "eventId": Uuid::new_v4() }).to_string()
}

fn export_job() -> Value {
    json!({
        "id": Uuid::new_v4(),
        "companyId": Uuid::new_v4(),
        "createdBy": Uuid::new_v4(),
        "createdAt": now(),
        "numberOfItems": 3,
        "expiresIn": 3600,
        "status": "pending",
        "startedAt": null,
        "completedAt": null,
        "expiredAt": null,
        "lastUpdatedAt": null,
        "failureReason": null,
        "failureReasonType": null,
    })
}

fn vendor() -> Value {
    json!({
        "id": Uuid::new_v4(),
        "companyId": Uuid::new_v4(),
        "name": "Kaffe & Kage ApS",
        "state": "ACTIVE",
        "defaultCurrency": "DKK",
        "country": "DK",
        "registrationNumber": "12345678",
        "taxRegistrationNumber": "DK12345678",
        "code": "V-1001",
        "externalId": "",
        "accountingSystem": null,
        "createdBy": Uuid::new_v4(),
        "createdAt": now(),
        "updatedAt": now(),
        "deletedAt": null,
    })
}

fn now() -> String {
    Timestamp::now().to_string()
}
