//! Property tests: every generated payload round-trips, and no input panics.

use pleo_events::{Envelope, ExportJob, Vendor};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{assert_round_trip, export_job};

proptest! {
    #[test]
    fn any_export_job_round_trips(job in any_export_job()) {
        let typed: ExportJob = serde_json::from_value(job.clone()).unwrap();
        let _ = typed.expires_at();
        prop_assert_eq!(serde_json::to_value(&typed).unwrap(), job);
    }

    #[test]
    fn any_vendor_round_trips(vendor in any_vendor()) {
        let typed: Vendor = serde_json::from_value(vendor.clone()).unwrap();
        prop_assert_eq!(serde_json::to_value(&typed).unwrap(), vendor);
    }

    #[test]
    fn any_envelope_round_trips(
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
    fn changed_byte_never_panics(at: prop::sample::Index, byte: u8) {
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

/// Generates an object with every required field, any optional fields, and unknown fields.
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

fn text(values: impl Strategy<Value = String> + 'static) -> BoxedStrategy<Value> {
    values.prop_map(Value::from).boxed()
}
