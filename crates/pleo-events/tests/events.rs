//! Every spelling, what is unknown, what is absent, and that nothing is lost.

#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

use std::borrow::Cow;
use std::error::Error;

use pleo_events::{
    Envelope, Event, EventSummary, EventType, ExportJob, ExportJobStatus, Vendor, VendorState,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn export_job() -> Value {
    json!({
        "id": "b4c4d068-ebbe-45b7-b562-2f16f0deb8b9",
        "companyId": "b5fdaec1-1b43-4b62-996a-b0471c3bb336",
        "createdAt": "2025-05-23T15:21:32Z",
        "numberOfItems": 1,
        "expiresIn": 3600,
        "status": "pending",
    })
}

fn vendor() -> Value {
    json!({
        "id": "c27ed4d6-3d3d-458e-8f3f-735fdf32a3bc",
        "companyId": "00000000-0000-0000-0000-000000000000",
        "name": "Blumen Müller 🌼",
        "state": "DRAFT",
        "defaultCurrency": "EUR",
    })
}

fn with(mut value: Value, field: &str, new: Value) -> Value {
    value[field] = new;
    value
}

fn assert_round_trip(body: &[u8]) {
    let envelope = Envelope::parse(body).unwrap();
    let before: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(serde_json::to_value(&envelope).unwrap(), before);
}

#[test]
fn every_spelling_of_a_type_is_known_and_kept() {
    for (spelling, kind) in [
        ("v1.export-job.created", EventType::ExportJobCreated),
        ("v2.export-job.created", EventType::ExportJobCreated),
        ("v1.export.job-created", EventType::ExportJobCreated),
        ("v1.vendor.created", EventType::VendorCreated),
        ("v1.receipt.created", EventType::Unknown),
        ("", EventType::Unknown),
    ] {
        let body = json!({"eventType": spelling, "eventId": "e", "data": {}}).to_string();
        let envelope = Envelope::parse(body.as_bytes()).unwrap();
        assert_eq!((envelope.event_type(), envelope.kind()), (spelling, kind));
        assert_round_trip(body.as_bytes());
    }
}

#[test]
fn a_status_is_read_in_both_cases() {
    for (text, status) in [
        ("pending", ExportJobStatus::Pending),
        ("in_progress", ExportJobStatus::InProgress),
        ("failed", ExportJobStatus::Failed),
        ("completed", ExportJobStatus::Completed),
        (
            "completed_with_errors",
            ExportJobStatus::CompletedWithErrors,
        ),
    ] {
        for spelling in [text.to_owned(), text.to_uppercase()] {
            let job = with(export_job(), "status", json!(spelling));
            let job: ExportJob = serde_json::from_value(job).unwrap();
            assert_eq!(job.status, status);
            assert_eq!(serde_json::to_value(&job).unwrap()["status"], text);
        }
    }
}

#[test]
fn what_is_unknown_survives_a_round_trip() {
    for unknown in [
        with(export_job(), "status", json!("Half_Way")),
        with(export_job(), "failureReasonType", json!("moon_phase")),
        with(export_job(), "newField", json!({"deep": [1, null, "x"]})),
    ] {
        let job: ExportJob = serde_json::from_value(unknown.clone()).unwrap();
        assert_eq!(serde_json::to_value(&job).unwrap(), unknown);
    }
    for unknown in [
        with(vendor(), "state", json!("Sleeping")),
        with(vendor(), "iban", json!("DE00")),
    ] {
        let vendor: Vendor = serde_json::from_value(unknown.clone()).unwrap();
        assert_eq!(serde_json::to_value(&vendor).unwrap(), unknown);
    }
}

#[test]
fn null_and_absent_are_both_none() {
    for field in [
        "createdBy",
        "isInteractive",
        "vendorBasedBookkeeping",
        "startedAt",
        "completedAt",
        "expiredAt",
        "lastUpdatedAt",
        "failureReason",
        "failureReasonType",
    ] {
        let job: ExportJob =
            serde_json::from_value(with(export_job(), field, Value::Null)).unwrap();
        assert_eq!(
            job,
            serde_json::from_value(export_job()).unwrap(),
            "{field}"
        );
    }
    for field in [
        "country",
        "registrationNumber",
        "taxRegistrationNumber",
        "code",
        "externalId",
        "accountingSystem",
        "createdBy",
        "createdAt",
        "updatedAt",
        "deletedAt",
    ] {
        let one: Vendor = serde_json::from_value(with(vendor(), field, Value::Null)).unwrap();
        assert_eq!(one, serde_json::from_value(vendor()).unwrap(), "{field}");
    }
}

#[test]
fn a_missing_or_wrong_field_is_named() {
    let errors = [
        "id",
        "companyId",
        "createdAt",
        "numberOfItems",
        "expiresIn",
        "status",
    ];
    for field in errors {
        let mut job = export_job();
        job.as_object_mut().unwrap().remove(field);
        let body = json!({"eventType": "v1.export-job.created", "data": job}).to_string();
        let error = Envelope::parse(body.as_bytes())
            .unwrap()
            .event()
            .unwrap_err();
        assert!(error.to_string().contains("export job"));
        let cause = error.source().unwrap().to_string();
        assert!(cause.contains(&format!("`{field}`")), "{cause}");
    }
}

#[test]
fn times_keep_their_nanoseconds() {
    let time = "2025-02-21T10:05:43.530450712Z";
    let value = with(vendor(), "createdAt", json!(time));
    let vendor: Vendor = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(vendor.created_at.unwrap().subsec_nanosecond(), 530_450_712);
    assert_eq!(serde_json::to_value(&vendor).unwrap(), value);
}

#[test]
fn expiry_counts_from_the_last_action() {
    let expiry = |job: Value| {
        let body = json!({"eventType": "v1.export-job.created", "data": job}).to_string();
        let envelope = Envelope::parse(body.as_bytes()).unwrap();
        let whole = envelope.export_job().unwrap().expires_at();
        assert_eq!(
            EventSummary::parse(body.as_bytes()).unwrap().expires_at,
            whole
        );
        whole.map(|at| at.to_string())
    };
    assert_eq!(expiry(export_job()).unwrap(), "2025-05-23T16:21:32Z");
    let touched = with(export_job(), "lastUpdatedAt", json!("2025-05-23T16:00:00Z"));
    assert_eq!(expiry(touched).unwrap(), "2025-05-23T17:00:00Z");
    assert_eq!(
        expiry(with(export_job(), "expiresIn", json!(i64::MAX))),
        None
    );
}

#[test]
fn an_outline_needs_no_more_than_its_own_fields() {
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
        // The same, and what no sample has.
        let more = with(plain.clone(), "more", json!({"id": "b"}));
        for body in [plain.to_string(), more.to_string()] {
            let outline = EventSummary::parse(body.as_bytes()).unwrap();
            assert_eq!(outline.event_type, "v9.new");
            assert_eq!(outline.event_id.as_deref(), Some("e1"));
            assert_eq!(outline.resource_id.as_deref(), resource_id, "{body}");
            let found = outline.expires_at.map(|at| at.to_string());
            assert_eq!(found.as_deref(), expires_at, "{body}");
        }
    }
    for body in [
        r#"{"eventType":"v9.new"}"#,
        r#"{"eventType":"v9.new","eventId":7}"#,
        r#"{"eventType":"v9.new","data":{"id":"a","id":"b"}}"#,
    ] {
        let outline = EventSummary::parse(body.as_bytes()).unwrap();
        let nothing = (None, None, None);
        assert_eq!(
            (outline.event_id, outline.resource_id, outline.expires_at),
            nothing,
            "{body}"
        );
    }
    for body in [r#"{"data":{"id":"a"}}"#, r#"["t",null,{}]"#, "{", ""] {
        assert!(EventSummary::parse(body.as_bytes()).is_err(), "{body}");
    }
    let outline = EventSummary::parse(br#"{"eventType":"t","data":{"id":"a"}}"#).unwrap();
    assert!(matches!(outline.resource_id, Some(Cow::Borrowed("a"))));
    assert!(matches!(outline.event_type, Cow::Borrowed("t")));
}

#[test]
fn an_envelope_borrows_where_it_can() {
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
fn whatever_else_an_envelope_holds_is_kept() {
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
fn what_is_no_envelope_is_refused() {
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
fn deep_nesting_is_an_error_and_no_overflow() {
    let depth = 200_000;
    let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let body = format!(r#"{{"eventType":"v1.vendor.created","data":{{"x":{deep}}}}}"#);
    let envelope = Envelope::parse(body.as_bytes()).unwrap();
    assert!(envelope.vendor().is_err());
}

/// Deliveries of the real sender.
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

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn time() -> impl Strategy<Value = String> {
    (-2_000_000_000_i64..4_000_000_000, 0_i32..1_000_000_000)
        .prop_map(|(second, nano)| jiff::Timestamp::new(second, nano).unwrap().to_string())
}

fn id() -> impl Strategy<Value = String> {
    any::<u128>().prop_map(|bits| uuid::Uuid::from_u128(bits).to_string())
}

/// An object of required and optional fields, of which any may be missing.
fn object(
    required: Vec<(&'static str, BoxedStrategy<Value>)>,
    optional: Vec<(&'static str, BoxedStrategy<Value>)>,
) -> impl Strategy<Value = Value> {
    let required: Vec<_> = required
        .into_iter()
        .map(|(name, value)| value.prop_map(move |value| Some((name.to_owned(), value))))
        .map(Strategy::boxed)
        .collect();
    let optional = optional.into_iter().map(|(name, value)| {
        prop::option::of(value.prop_map(move |value| (name.to_owned(), value))).boxed()
    });
    let fields: Vec<_> = required.into_iter().chain(optional).collect();
    let unknown = prop::collection::btree_map("x[a-z]{0,5}", json_value(), 0..3);
    (fields, unknown).prop_map(|(fields, unknown)| {
        Value::Object(fields.into_iter().flatten().chain(unknown).collect())
    })
}

fn text(values: impl Strategy<Value = String> + 'static) -> BoxedStrategy<Value> {
    values.prop_map(Value::from).boxed()
}

fn any_export_job() -> impl Strategy<Value = Value> {
    object(
        vec![
            ("id", text(id())),
            ("companyId", text(id())),
            ("createdAt", text(time())),
            ("numberOfItems", any::<u64>().prop_map(Value::from).boxed()),
            ("expiresIn", any::<i64>().prop_map(Value::from).boxed()),
            ("status", text("pending|failed|unheard_of|[a-z]{0,9}")),
        ],
        vec![
            ("createdBy", text(id())),
            ("isInteractive", any::<bool>().prop_map(Value::from).boxed()),
            (
                "vendorBasedBookkeeping",
                any::<bool>().prop_map(Value::from).boxed(),
            ),
            ("startedAt", text(time())),
            ("completedAt", text(time())),
            ("expiredAt", text(time())),
            ("lastUpdatedAt", text(time())),
            ("failureReason", text(".*")),
            ("failureReasonType", text("job_expired|[a-z_]{0,9}")),
        ],
    )
}

fn any_vendor() -> impl Strategy<Value = Value> {
    object(
        vec![
            ("id", text(id())),
            ("companyId", text(id())),
            ("name", text(".*")),
            ("state", text("DRAFT|ACTIVE|[A-Z]{0,9}")),
            ("defaultCurrency", text("[A-Z]{3}")),
        ],
        vec![
            ("country", text("[A-Z]{2}")),
            ("registrationNumber", text(".*")),
            ("code", text(".*")),
            ("externalId", text(".*")),
            ("createdBy", text(id())),
            ("createdAt", text(time())),
            ("deletedAt", text(time())),
        ],
    )
}

proptest! {
    #[test]
    fn any_export_job_survives_a_round_trip(job in any_export_job()) {
        let typed: ExportJob = serde_json::from_value(job.clone()).unwrap();
        let _ = typed.expires_at();
        prop_assert_eq!(serde_json::to_value(&typed).unwrap(), job);
    }

    #[test]
    fn any_vendor_survives_a_round_trip(vendor in any_vendor()) {
        let typed: Vendor = serde_json::from_value(vendor.clone()).unwrap();
        prop_assert_eq!(serde_json::to_value(&typed).unwrap(), vendor);
    }

    #[test]
    fn any_envelope_survives_a_round_trip(
        kind in ".*", data in json_value(), others in prop::collection::btree_map(".{0,6}", json_value(), 0..4),
    ) {
        let mut envelope = Value::Object(others.into_iter().collect());
        envelope["eventType"] = kind.into();
        envelope["data"] = data;
        assert_round_trip(envelope.to_string().as_bytes());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        if let Ok(envelope) = Envelope::parse(&bytes) {
            let _ = (envelope.event(), envelope.event_id());
            assert_round_trip(&bytes);
        }
    }

    #[test]
    fn a_changed_byte_never_panics(at: prop::sample::Index, byte: u8) {
        let mut body = json!({"eventType": "v1.export-job.created", "eventId": "e", "data": export_job()})
            .to_string()
            .into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok(envelope) = Envelope::parse(&body) {
            let _ = envelope.event();
            assert_round_trip(&body);
        }
    }
}
