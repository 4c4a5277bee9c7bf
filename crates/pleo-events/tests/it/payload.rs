//! Export jobs and vendors: spellings, unknown values, absent fields, errors.

use pleo_events::{Envelope, ExportJob, ExportJobStatus, Vendor, VendorState};
use serde_json::{Value, json};

use crate::support::{export_job, vendor, with};

#[test]
fn parses_status_in_both_cases() {
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
fn text_parses_to_value_and_back() {
    for (text, state, spelling) in [
        ("ACTIVE", Some(VendorState::Active), "ACTIVE"),
        ("active", Some(VendorState::Active), "ACTIVE"),
        ("Sleeping", None, "Sleeping"),
    ] {
        let parsed: VendorState = text.parse().unwrap();
        assert_eq!(parsed, VendorState::from(text));
        assert_eq!(parsed, VendorState::from(text.to_owned()));
        assert_eq!(parsed.as_str(), spelling);
        assert_eq!(AsRef::<str>::as_ref(&parsed), spelling);
        assert_eq!(parsed.to_string(), spelling);
        match (&parsed, state) {
            (VendorState::Other(other), None) => assert_eq!(other.to_string(), spelling),
            (parsed, state) => assert_eq!(Some(parsed), state.as_ref()),
        }
    }
}

#[test]
fn round_trip_keeps_unknown_values_and_fields() {
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
fn null_equals_absent() {
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
        let parsed: Vendor = serde_json::from_value(with(vendor(), field, Value::Null)).unwrap();
        assert_eq!(parsed, serde_json::from_value(vendor()).unwrap(), "{field}");
    }
}

#[test]
fn timestamps_keep_nanoseconds() {
    let time = "2025-02-21T10:05:43.530450712Z";
    let value = with(vendor(), "createdAt", json!(time));
    let vendor: Vendor = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(vendor.created_at.unwrap().subsec_nanosecond(), 530_450_712);
    assert_eq!(serde_json::to_value(&vendor).unwrap(), value);
}

#[test]
fn expiry_counts_from_last_action() {
    let expiry = |job: Value| {
        let body = json!({"eventType": "v1.export-job.created", "data": job}).to_string();
        let envelope = Envelope::parse(body.as_bytes()).unwrap();
        let expires_at = envelope.export_job().unwrap().expires_at();
        assert_eq!(envelope.expires_at(), expires_at);
        expires_at.map(|at| at.to_string())
    };
    assert_eq!(expiry(export_job()).unwrap(), "2025-05-23T16:21:32Z");
    let touched = with(export_job(), "lastUpdatedAt", json!("2025-05-23T16:00:00Z"));
    assert_eq!(expiry(touched).unwrap(), "2025-05-23T17:00:00Z");
    assert_eq!(
        expiry(with(export_job(), "expiresIn", json!(i64::MAX))),
        None
    );
}
