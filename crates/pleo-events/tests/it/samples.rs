//! Sample events.

use pleo_events::jiff::Timestamp;
use pleo_events::uuid::Uuid;
use pleo_events::{Envelope, Event, EventType, samples};
use serde_json::{Value, json};

use crate::support::assert_round_trip;

const ID: Uuid = Uuid::from_u128(1);
const COMPANY_ID: Uuid = Uuid::from_u128(2);
const EVENT_ID: Uuid = Uuid::from_u128(3);

#[test]
fn sample_of_every_known_type_parses_to_its_event() {
    let at: Timestamp = "2026-11-24T09:30:00.123456789Z".parse().unwrap();
    let job = samples::export_job(ID, COMPANY_ID, at);
    let vendor = samples::vendor(ID, COMPANY_ID, at);
    for event_type in EventType::KNOWN {
        let (data, expires_at, event): (Value, _, _) = match event_type {
            EventType::ExportJobCreated => (
                json!(job),
                "2026-11-24T10:30:00.123456789Z".parse().ok(),
                Event::ExportJobCreated(job.clone()),
            ),
            EventType::VendorCreated => (json!(vendor), None, Event::VendorCreated(vendor.clone())),
            other => panic!("no sample of {other:?}"),
        };
        for spelling in event_type.spellings() {
            let body = samples::event(spelling, EVENT_ID, &data);
            assert_round_trip(body.as_bytes());
            let envelope = Envelope::parse(body.as_bytes()).unwrap();
            assert_eq!(envelope.event_type(), *spelling);
            assert_eq!(envelope.event().unwrap(), event);
            assert_eq!(event.as_str(), event_type.as_str());
            assert_eq!(envelope.event_id().unwrap(), EVENT_ID.to_string());
            assert_eq!(envelope.resource_id().unwrap(), ID.to_string());
            assert_eq!(envelope.expires_at(), expires_at);
        }
    }
}

#[test]
fn sample_of_unknown_type_keeps_its_spelling() {
    let body = samples::event("v9.new", EVENT_ID, &json!({}));
    let envelope = Envelope::parse(body.as_bytes()).unwrap();
    assert_eq!(envelope.event_type(), "v9.new");
    let event = envelope.event().unwrap();
    assert!(matches!(&event, Event::Other(other) if other.as_str() == "v9.new"));
    assert_eq!(event.to_string(), "v9.new");
    assert_eq!(envelope.kind().spellings(), [""; 0]);
}
