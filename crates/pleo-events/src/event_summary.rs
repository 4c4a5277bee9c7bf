//! Reads the fields of a body that an inbox stores as columns.

use alloc::borrow::Cow;
use core::fmt;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::envelope::Envelope;
use crate::envelope::{CowStr, parse_str};
use crate::error::ParseError;
use crate::export_job::Expiry;

/// The event's type and id, and the resource's id and expiry, for any event type.
///
/// Parses no other field, so it is fast and accepts bodies whose other fields are invalid.
///
/// ```
/// use pleo_events::EventSummary;
///
/// let body = br#"{"eventType": "v9.new", "eventId": "e1", "data": {"id": "a", "state": 7}}"#;
/// let summary = EventSummary::parse(body)?;
/// assert_eq!(summary.event_type, "v9.new");
/// assert_eq!(summary.resource_id.as_deref(), Some("a"));
/// # Ok::<(), pleo_events::ParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventSummary<'a> {
    /// The event type as the body spells it.
    pub event_type: Cow<'a, str>,
    /// The event's id; `None` if it is absent or not a string.
    pub event_id: Option<Cow<'a, str>>,
    /// The resource's `id`; `None` if it is absent or not a string.
    pub resource_id: Option<Cow<'a, str>>,
    /// When the export job expires, see [`ExportJob::expires_at`](crate::ExportJob::expires_at);
    /// `None` if `data` isn't an export job.
    pub expires_at: Option<Timestamp>,
}

impl<'a> EventSummary<'a> {
    /// Parses a body.
    ///
    /// # Errors
    /// The same as [`Envelope::parse`].
    pub fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        Self::parse_one_pass(body).map_or_else(|| Self::parse_two_passes(body), Ok)
    }

    /// Parses the bodies that Pleo documents. Returns `None` for any other, valid or not.
    fn parse_one_pass(body: &'a [u8]) -> Option<Self> {
        let body = core::str::from_utf8(body).ok()?;
        // Serde would also parse a struct from an array.
        let object = body.trim_ascii_start().starts_with('{').then_some(body)?;
        let body: DocumentedBody<'a> = serde_json::from_str(object).ok()?;
        Some(Self {
            event_type: body.event_type.0,
            event_id: body.event_id.and_then(parse_str),
            resource_id: body.data.resource_id(),
            expires_at: body.data.expires_at(),
        })
    }

    /// Parses the envelope, then `data` if it is an object.
    fn parse_two_passes(body: &'a [u8]) -> Result<Self, ParseError> {
        let envelope = Envelope::parse(body)?;
        let data = envelope.data().map(RawValue::get);
        let object = data.filter(|data| data.starts_with('{'));
        let fields = object.and_then(|data| {
            let mut json = serde_json::Deserializer::from_str(data);
            data_fields(&mut json).ok()
        });
        let fields = fields.unwrap_or_default();
        Ok(Self {
            event_id: envelope.event_id(),
            event_type: envelope.into_event_type(),
            resource_id: fields.resource_id(),
            expires_at: fields.expires_at(),
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DocumentedBody<'a> {
    #[serde(borrow)]
    event_type: CowStr<'a>,
    #[serde(borrow)]
    event_id: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "data_fields")]
    data: DataFields<'a>,
}

/// The fields of `data` that a summary needs, raw: one invalid field doesn't hide the others.
#[derive(Default)]
struct DataFields<'a> {
    id: Option<&'a RawValue>,
    created_at: Option<&'a RawValue>,
    last_updated_at: Option<&'a RawValue>,
    expires_in: Option<&'a RawValue>,
}

impl<'a> DataFields<'a> {
    fn resource_id(&self) -> Option<Cow<'a, str>> {
        self.id.and_then(parse_str)
    }

    fn expires_at(&self) -> Option<Timestamp> {
        // Only an export job has `expiresIn`, so any other `data` returns here.
        let expires_in = serde_json::from_str(self.expires_in?.get()).ok()?;
        let time = |raw: &RawValue| serde_json::from_str(raw.get()).ok();
        let expiry = Expiry {
            expires_in,
            created_at: time(self.created_at?)?,
            last_updated_at: match self.last_updated_at {
                Some(raw) if raw.get() != "null" => Some(time(raw)?),
                _ => None,
            },
        };
        expiry.at()
    }
}

/// Parses an object; an array is an error.
fn data_fields<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DataFields<'de>, D::Error> {
    deserializer.deserialize_map(DataFieldsVisitor)
}

struct DataFieldsVisitor;

impl<'de> Visitor<'de> for DataFieldsVisitor {
    type Value = DataFields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = DataFields::default();
        while let Some(CowStr(name)) = map.next_key()? {
            let field = match &*name {
                "id" => &mut fields.id,
                "createdAt" => &mut fields.created_at,
                "lastUpdatedAt" => &mut fields.last_updated_at,
                "expiresIn" => &mut fields.expires_in,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if field.replace(map.next_value()?).is_some() {
                return Err(A::Error::custom("duplicate field"));
            }
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;

    use proptest::prelude::*;

    use super::*;

    /// Generates valid and invalid field values.
    fn value() -> impl Strategy<Value = String> {
        const ODD: &[&str] = &[
            "null",
            "7",
            "1e999",
            r#""a""#,
            r#""\u0041""#,
            r#""\ud800""#,
            r#"["t"]"#,
            "{}",
            r#"{"id":"b"}"#,
            r#"{"id":"a","id":"b"}"#,
            r#"{"\ud800":1,"id":"b"}"#,
            "x",
        ];
        prop_oneof![
            3 => prop::sample::select(ODD).prop_map(String::from),
            1 => r#""2026-11-24T09:30:00(\.[0-9]{1,9})?Z""#,
            1 => "3600|-5|0",
        ]
    }

    fn object(names: &'static str) -> impl Strategy<Value = String> {
        let fields = prop::collection::vec((names, value()), 0..6);
        fields.prop_map(|fields| {
            let fields = fields
                .iter()
                .map(|(name, value)| format!("{name:?}:{value}"));
            let fields: alloc::vec::Vec<_> = fields.collect();
            format!("{{{}}}", fields.join(","))
        })
    }

    proptest! {
        #[test]
        fn one_pass_equals_two_passes(
            data in prop_oneof![4 => object("id|createdAt|lastUpdatedAt|expiresIn|x"), 1 => value()],
            kind in value(), id in value(), more in object("eventId|data|y"), with_more in any::<bool>(),
        ) {
            let fields = format!(r#""eventType":{kind},"eventId":{id},"data":{data}"#);
            let body = if with_more && more.len() > 2 {
                format!("{{{fields},{}", more.trim_start_matches('{'))
            } else {
                format!("{{{fields}}}")
            };
            if let Some(summary) = EventSummary::parse_one_pass(body.as_bytes()) {
                prop_assert_eq!(summary, EventSummary::parse_two_passes(body.as_bytes()).unwrap());
            }
        }

        #[test]
        fn one_pass_accepts_no_more_than_two_passes(body in prop::collection::vec(any::<u8>(), 0..64)) {
            if EventSummary::parse_one_pass(&body).is_some() {
                prop_assert!(EventSummary::parse_two_passes(&body).is_ok());
            }
        }
    }

    #[test]
    fn parses_documented_body_in_one_pass() {
        let body = br#"{"data":{"id":"a","createdAt":"2026-11-24T09:30:00Z","expiresIn":3600,
            "status":"pending","startedAt":null},"eventType":"v1.export-job.created","eventId":"e"}"#;
        let summary = EventSummary::parse_one_pass(body).unwrap();
        assert_eq!(summary, EventSummary::parse_two_passes(body).unwrap());
        assert_eq!(summary.expires_at, "2026-11-24T10:30:00Z".parse().ok());
    }
}
