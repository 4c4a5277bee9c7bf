//! The event parser never panics, keeps every field, and accepts every valid envelope. The input is
//! the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pleo_events::{Envelope, Event, ExportJob, Vendor};
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    // May fail although the envelope parses, since an envelope doesn't parse raw values.
    let before: Option<Value> = serde_json::from_slice(data).ok();
    if let Some(value) = before
        .as_ref()
        .filter(|value| value["eventType"].is_string())
    {
        // A `Value` has no duplicate fields, the only other reason to reject an envelope.
        let printed = serde_json::to_vec(value).expect("a value prints");
        let envelope = Envelope::parse(&printed).expect("an object with a type is an envelope");
        assert_eq!(Some(envelope.event_type()), value["eventType"].as_str());
        assert_eq!(envelope.event_id().as_deref(), value["eventId"].as_str());
    }

    let Ok(envelope) = Envelope::parse(data) else {
        return;
    };
    let written = serde_json::to_vec(&envelope).expect("an envelope prints");
    let again = Envelope::parse(&written).expect("a serialised envelope parses");
    assert_eq!(again.event_type(), envelope.event_type());
    assert_eq!(again.event_id(), envelope.event_id());
    assert_eq!(again.resource_id(), envelope.resource_id());
    assert_eq!(again.expires_at(), envelope.expires_at());
    let rewritten = serde_json::to_vec(&again).expect("an envelope serializes");
    assert_eq!(rewritten, written);
    if let Some(before) = &before {
        let after: Value = serde_json::from_slice(&written).expect("a serialised envelope is JSON");
        assert_eq!(after, *before);
    }

    let (job, vendor) = (envelope.export_job().ok(), envelope.vendor().ok());
    match envelope.event() {
        Ok(Event::ExportJobCreated(found)) => assert_eq!(Some(found), job),
        Ok(Event::VendorCreated(found)) => assert_eq!(Some(found), vendor),
        Ok(_) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let data: Option<Value> = envelope
        .data()
        .and_then(|data| serde_json::from_str(data.get()).ok());
    if let Some(job) = job {
        assert_eq!(envelope.expires_at(), job.expires_at());
        assert!(envelope.resource_id().is_some());
        let printed = serde_json::to_string(&job).expect("a job prints");
        let again: ExportJob = serde_json::from_str(&printed).expect("a printed job reads");
        assert_eq!(again, job);
        assert_kept(data.as_ref(), &printed);
    }
    if let Some(vendor) = vendor {
        let printed = serde_json::to_string(&vendor).expect("a vendor serializes");
        let again: Vendor = serde_json::from_str(&printed).expect("a serialized vendor parses");
        assert_eq!(again, vendor);
        assert_kept(data.as_ref(), &printed);
    }
});

/// Asserts that no field but a null one is lost. Values may change their spelling.
fn assert_kept(before: Option<&Value>, printed: &str) {
    let after: Value = serde_json::from_str(printed).expect("serialized JSON");
    for (name, value) in before.and_then(Value::as_object).into_iter().flatten() {
        assert!(value.is_null() || after.get(name).is_some(), "{name}");
    }
}
