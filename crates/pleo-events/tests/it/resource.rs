//! The id and the expiry of the resource, for any event type.

use std::borrow::Cow;

use pleo_events::Envelope;
use serde_json::{Value, json};

use crate::support::{export_job, vendor, with};

#[test]
fn resource_ignores_other_invalid_fields() {
    let job = "b4c4d068-ebbe-45b7-b562-2f16f0deb8b9";
    let (expiry, none) = (Some("2025-05-23T16:21:32Z"), None);
    for (data, resource_id, expires_at) in [
        (export_job(), Some(job), expiry),
        (with(export_job(), "id", json!(5)), None, expiry),
        (with(export_job(), "id", Value::Null), None, expiry),
        (with(export_job(), "id", json!("ø\n")), Some("ø\n"), expiry),
        (with(export_job(), "status", json!({})), Some(job), expiry),
        (
            with(export_job(), "createdAt", json!("soon")),
            Some(job),
            none,
        ),
        (
            with(export_job(), "lastUpdatedAt", json!(7)),
            Some(job),
            none,
        ),
        (with(export_job(), "expiresIn", json!("7")), Some(job), none),
        (vendor(), Some("c27ed4d6-3d3d-458e-8f3f-735fdf32a3bc"), none),
        (json!(["x", "2025-05-23T15:21:32Z", null, 3600]), None, none),
        (json!("x"), None, none),
        (Value::Null, None, none),
    ] {
        let plain = json!({"eventType": "v9.new", "eventId": "e1", "data": data});
        let more = with(plain.clone(), "more", json!({"id": "b"}));
        for body in [plain.to_string(), more.to_string()] {
            let envelope = Envelope::parse(body.as_bytes()).unwrap();
            assert_eq!(envelope.event_type(), "v9.new");
            assert_eq!(envelope.event_id().as_deref(), Some("e1"));
            assert_eq!(envelope.resource_id().as_deref(), resource_id, "{body}");
            let found = envelope.expires_at().map(|at| at.to_string());
            assert_eq!(found.as_deref(), expires_at, "{body}");
        }
    }
    for body in [
        r#"{"eventType":"v9.new"}"#,
        r#"{"eventType":"v9.new","eventId":7}"#,
        r#"{"eventType":"v9.new","data":{"id":"a","id":"b"}}"#,
    ] {
        let envelope = Envelope::parse(body.as_bytes()).unwrap();
        assert_eq!(envelope.event_id(), None, "{body}");
        assert_eq!(envelope.resource_id(), None, "{body}");
        assert_eq!(envelope.expires_at(), None, "{body}");
    }
    for body in [r#"{"data":{"id":"a"}}"#, r#"["t",null,{}]"#, "{", ""] {
        assert!(Envelope::parse(body.as_bytes()).is_err(), "{body}");
    }
    let envelope = Envelope::parse(br#"{"eventType":"t","data":{"id":"a"}}"#).unwrap();
    assert!(matches!(envelope.resource_id(), Some(Cow::Borrowed("a"))));
}
