//! Sample events with new ids and the current time.

use jiff::Timestamp;
use pleo_receiver::events::{EventType, samples};
use serde_json::json;
use uuid::Uuid;

/// Returns the body of a sample event. An unknown event type gets empty data.
pub(crate) fn event(event_type: &str) -> String {
    let (id, company_id, now) = (Uuid::new_v4(), Uuid::new_v4(), Timestamp::now());
    let data = match EventType::from(event_type) {
        EventType::ExportJobCreated => json!(samples::export_job(id, company_id, now)),
        EventType::VendorCreated => json!(samples::vendor(id, company_id, now)),
        _ => json!({}),
    };
    samples::event(event_type, Uuid::new_v4(), &data)
}
