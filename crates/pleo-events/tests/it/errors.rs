//! Errors of parsing: they name the field, and quote no value.

use std::error::Error;

use pleo_events::{Envelope, ParseError};
use serde_json::{Value, json};

use crate::support::{export_job, vendor, with};

/// Returns the error of parsing an event, and its cause.
fn error(event_type: &str, data: &Value) -> (String, String) {
    let body = json!({"eventType": event_type, "data": data}).to_string();
    let envelope = Envelope::parse(body.as_bytes()).unwrap();
    texts(&envelope.event().unwrap_err())
}

fn texts(error: &ParseError) -> (String, String) {
    let cause = error.source().map(ToString::to_string);
    (error.to_string(), cause.unwrap_or_default())
}

#[test]
fn error_names_missing_field() {
    let required = [
        "id",
        "companyId",
        "createdAt",
        "numberOfItems",
        "expiresIn",
        "status",
    ];
    for field in required {
        let mut job = export_job();
        job.as_object_mut().unwrap().remove(field);
        let (error, cause) = error("v1.export-job.created", &job);
        assert_eq!(error, "the event's `data` is not an export job");
        let expected = format!("missing field `{field}` at line 1 column ");
        assert!(cause.starts_with(&expected), "{cause}");
    }
}

#[test]
fn error_names_invalid_field_without_its_value() {
    let secret = "s3cret`, expected `s3cret";
    for (field, value) in [
        ("id", json!(secret)),
        ("id", json!({ secret: secret })),
        ("createdAt", json!(secret)),
        ("createdBy", json!("S3CRET-8-4-4-12")),
        ("numberOfItems", json!(secret)),
        ("numberOfItems", json!(-20_260_724)),
        ("expiresIn", json!([secret])),
        ("status", json!([secret])),
        ("isInteractive", json!(secret)),
    ] {
        let (error, cause) = error("v1.export-job.created", &with(export_job(), field, value));
        assert_eq!(error, "the event's `data` is not an export job");
        let expected = format!("invalid value of `{field}` at line 1 column ");
        assert!(cause.starts_with(&expected), "{cause}");
        assert!(!cause.to_lowercase().contains("s3cret"), "{cause}");
        assert!(!cause.contains("20260724"), "{cause}");
    }
    let (error, cause) = error(
        "v1.vendor.created",
        &with(vendor(), "name", json!([secret])),
    );
    assert_eq!(error, "the event's `data` is not a vendor");
    assert!(cause.starts_with("invalid value of `name` at"), "{cause}");
    assert!(!cause.contains(secret), "{cause}");
}

#[test]
fn envelope_error_quotes_no_value() {
    for (body, expected) in [
        (
            r#""s3cret""#,
            "unexpected type of a value at line 1 column 8",
        ),
        (
            r#"{"eventType":["s3cret"]}"#,
            "unexpected type of a value at line 1 column 13",
        ),
        (
            r#"{"x":"s3cret"}"#,
            "missing field `eventType` at line 1 column 14",
        ),
        (
            r#"{"x":"s3cret","x":"s3cret"}"#,
            "duplicate field at line 1 column 27",
        ),
        (
            r#"{"x":"s3cret" "s3cret"}"#,
            "expected `,` or `}` at line 1 column 15",
        ),
        (r#"{"x":s3cret}"#, "expected value at line 1 column 6"),
        (
            r#"{"x":"s3cret"#,
            "EOF while parsing a string at line 1 column 12",
        ),
    ] {
        let (error, cause) = texts(&Envelope::parse(body.as_bytes()).unwrap_err());
        assert_eq!(error, "the body is not an event envelope");
        assert_eq!(cause, expected, "{body}");
    }
}

#[test]
fn absent_data_is_error() {
    let envelope = Envelope::parse(br#"{"eventType":"v1.vendor.created"}"#).unwrap();
    let (error, cause) = texts(&envelope.event().unwrap_err());
    assert_eq!((&*error, &*cause), ("the event has no `data`", ""));
}
