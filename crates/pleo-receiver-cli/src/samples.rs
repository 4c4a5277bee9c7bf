//! Sample events with new ids and the current time.

use jiff::Timestamp;
use pleo_receiver::events::{EventType, samples};
use serde_json::{Value, json};
use uuid::Uuid;

/// Returns the body of a sample event. An unknown event type gets empty data.
pub(crate) fn event(event_type: &str) -> String {
    let (id, company_id, now) = (Uuid::new_v4(), Uuid::new_v4(), Timestamp::now());
    let data = match EventType::from(event_type) {
        EventType::ExportJobCreated => with_nulls(
            json!(samples::export_job(id, company_id, now)),
            &[
                "startedAt",
                "completedAt",
                "expiredAt",
                "lastUpdatedAt",
                "failureReason",
                "failureReasonType",
            ],
        ),
        EventType::VendorCreated => with_nulls(
            json!(samples::vendor(id, company_id, now)),
            &["accountingSystem", "deletedAt"],
        ),
        _ => json!({}),
    };
    samples::event(event_type, Uuid::new_v4(), &data)
}

/// Adds the fields that Pleo sends as `null`. Handlers should meet them before production.
fn with_nulls(mut data: Value, fields: &[&str]) -> Value {
    if let Some(object) = data.as_object_mut() {
        for &field in fields {
            object.entry(field).or_insert(Value::Null);
        }
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_the_null_fields_of_pleo() {
        for (event_type, fields, nulls) in [
            ("v1.export-job.created", 13, 6),
            ("v2.export-job.created", 13, 6),
            ("v1.export.job-created", 13, 6),
            ("v1.vendor.created", 15, 2),
            ("v9.new", 0, 0),
        ] {
            let event: Value = serde_json::from_str(&event(event_type)).unwrap();
            let data = event["data"].as_object().unwrap();
            assert_eq!(data.len(), fields, "{event}");
            let found = data.values().filter(|value| value.is_null()).count();
            assert_eq!(found, nulls, "{event}");
        }
    }
}
