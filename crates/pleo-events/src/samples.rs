//! Sample events for tests and local development.
//!
//! The identifiers and the time are arguments; everything else is fixed. To vary more, change a
//! field of the returned value.
//!
//! ```
//! use pleo_events::{Envelope, Event, jiff::Timestamp, samples, serde_json::json, uuid::Uuid};
//!
//! let mut job = samples::export_job(Uuid::from_u128(1), Uuid::from_u128(2), Timestamp::UNIX_EPOCH);
//! job.number_of_items = 7;
//! let body = samples::event("v1.export-job.created", Uuid::from_u128(3), &json!(job));
//!
//! let parsed = Envelope::parse(body.as_bytes())?.event()?;
//! assert_eq!(parsed, Event::ExportJobCreated(job));
//! # Ok::<(), pleo_events::ParseError>(())
//! ```

use alloc::string::{String, ToString};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::export_job::{ExportJob, ExportJobStatus};
use crate::vendor::{Vendor, VendorState};

/// Returns the body of an event with this type, id and `data`.
///
/// Any event type is allowed, also one that this version doesn't know.
#[must_use]
pub fn event(event_type: &str, event_id: Uuid, data: &Value) -> String {
    json!({ "data": data, "eventType": event_type, "eventId": event_id }).to_string()
}

/// Returns the `data` of an export job created event: a pending job of three entries that expires
/// an hour after `created_at`.
#[must_use]
pub fn export_job(id: Uuid, company_id: Uuid, created_at: Timestamp) -> ExportJob {
    ExportJob {
        id,
        company_id,
        created_by: Some(USER_ID),
        created_at,
        number_of_items: 3,
        expires_in: 3600,
        status: ExportJobStatus::Pending,
        is_interactive: None,
        vendor_based_bookkeeping: None,
        started_at: None,
        completed_at: None,
        expired_at: None,
        last_updated_at: None,
        failure_reason: None,
        failure_reason_type: None,
        extra: Map::new(),
    }
}

/// Returns the `data` of a vendor created event: an active vendor in Denmark.
#[must_use]
pub fn vendor(id: Uuid, company_id: Uuid, created_at: Timestamp) -> Vendor {
    Vendor {
        id,
        company_id,
        name: "Kaffe & Kage ApS".into(),
        state: VendorState::Active,
        default_currency: "DKK".into(),
        country: Some("DK".into()),
        registration_number: Some("12345678".into()),
        tax_registration_number: Some("DK12345678".into()),
        code: Some("V-1001".into()),
        external_id: Some(String::new()),
        accounting_system: None,
        created_by: Some(USER_ID),
        created_at: Some(created_at),
        updated_at: Some(created_at),
        deleted_at: None,
        extra: Map::new(),
    }
}

/// The user who created the samples.
const USER_ID: Uuid = Uuid::from_u128(0x7c1e_2d3f_4a5b_4c6d_8e9f_0a1b_2c3d_4e5f);
