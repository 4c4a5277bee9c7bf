//! Tests of parsing and serializing envelopes.

use std::borrow::Cow;

use pleo_events::{Envelope, Event, EventType, VendorState};
use serde_json::{Value, json};

use crate::support::assert_round_trip;

#[test]
fn accepts_and_keeps_every_spelling_of_event_type() {
    for (spelling, kind) in [
        ("v1.export-job.created", EventType::ExportJobCreated),
        ("v2.export-job.created", EventType::ExportJobCreated),
        ("v1.export.job-created", EventType::ExportJobCreated),
        ("v1.vendor.created", EventType::VendorCreated),
    ] {
        let body = json!({"eventType": spelling, "eventId": "e", "data": {}}).to_string();
        let envelope = Envelope::parse(body.as_bytes()).unwrap();
        assert_eq!((envelope.event_type(), envelope.kind()), (spelling, kind));
        assert_round_trip(body.as_bytes());
    }
}

#[test]
fn event_type_keeps_unknown_spelling() {
    for spelling in ["v1.receipt.created", "V1.VENDOR.CREATED", ""] {
        let event_type: EventType = spelling.parse().unwrap();
        assert!(matches!(&event_type, EventType::Other(other) if other.as_str() == spelling));
        assert_eq!(event_type, EventType::from(spelling.to_owned()));
        assert_eq!(event_type.as_str(), spelling);
        assert_eq!(event_type.to_string(), spelling);
    }
    let known: EventType = "v1.export.job-created".parse().unwrap();
    assert_eq!(known, EventType::from("v1.export.job-created".to_owned()));
    assert_eq!(AsRef::<str>::as_ref(&known), "v1.export-job.created");
}

#[test]
fn envelope_borrows_strings_without_escapes() {
    let body = br#"{"eventType":"v1.vendor.created","eventId":"e","data":{"a":1}}"#;
    let envelope = Envelope::parse(body).unwrap();
    assert!(
        body.as_ptr_range()
            .contains(&envelope.event_type().as_ptr())
    );
    assert!(matches!(envelope.event_id(), Some(Cow::Borrowed("e"))));
    assert_eq!(envelope.data().unwrap().get(), r#"{"a":1}"#);

    let escaped = br#"{"eventType":"v1.vendor.\u0063reated","event\u0049d":"\n"}"#;
    let envelope = Envelope::parse(escaped).unwrap();
    assert_eq!(envelope.kind(), EventType::VendorCreated);
    assert_eq!(envelope.event_id().as_deref(), Some("\n"));
    assert!(envelope.data().is_none());
    assert_round_trip(escaped);
}

#[test]
fn envelope_keeps_other_values_and_fields() {
    for body in [
        r#"{"eventType":"t"}"#,
        r#"{"eventType":"t","eventId":null,"data":null}"#,
        r#"{"eventType":"t","eventId":7,"data":[1,2]}"#,
        r#"{"z":1,"eventType":"t","a":{"b":[]},"data":"text"}"#,
    ] {
        assert_round_trip(body.as_bytes());
    }
}

#[test]
fn rejects_invalid_envelope() {
    let deep = "[".repeat(200_000);
    for body in [
        "",
        "null",
        "[]",
        "{}",
        "7",
        "{\"eventType\":1}",
        "{\"eventType\":\"t\"",
        "{\"eventType\":\"t\"} x",
        r#"{"eventType":"a","eventType":"b"}"#,
        r#"{"eventType":"a","x":1,"y":2,"x":3}"#,
        r#"{"eventType":"a","data":1,"data":2}"#,
        &deep,
    ] {
        assert!(Envelope::parse(body.as_bytes()).is_err(), "{body:.60}");
    }
}

#[test]
fn deep_nesting_is_error() {
    let depth = 200_000;
    let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let body = format!(r#"{{"eventType":"v1.vendor.created","data":{{"x":{deep}}}}}"#);
    let envelope = Envelope::parse(body.as_bytes()).unwrap();
    assert!(envelope.vendor().is_err());
}

/// Deliveries captured from Pleo.
#[test]
fn captured_deliveries_parse_and_round_trip() {
    let captured: Value = serde_json::from_str(include_str!("captured.json")).unwrap();
    let deliveries = captured["deliveries"].as_array().unwrap();
    assert_eq!(deliveries.len(), 4);
    for delivery in deliveries {
        let body = delivery["body"].as_str().unwrap().as_bytes();
        assert_round_trip(body);
        let envelope = Envelope::parse(body).unwrap();
        match envelope.event().unwrap() {
            Event::ExportJobCreated(job) => assert_eq!(job.number_of_items, 1),
            Event::VendorCreated(vendor) => {
                assert_eq!(
                    (&*vendor.name, vendor.state),
                    ("Blumen Müller 🌼", VendorState::Draft)
                );
            }
            other => panic!("{other:?}"),
        }
    }
}
