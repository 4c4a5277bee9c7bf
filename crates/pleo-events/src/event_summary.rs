//! The little that a queue wants to know of a body.

use alloc::borrow::Cow;
use core::fmt;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::envelope::{Text, text};
use crate::export_job::Expiry;
use crate::{Envelope, ParseError};

/// What a queue wants to know of a body, whatever the event's type. Only the fields that say so are
/// read, so that it is quick, and right also where another field is not what it should be.
///
/// ```
/// use pleo_events::EventSummary;
///
/// let body = br#"{"eventType": "v9.new", "eventId": "e1", "data": {"id": "a", "state": 7}}"#;
/// let outline = EventSummary::parse(body)?;
/// assert_eq!(outline.event_type, "v9.new");
/// assert_eq!(outline.resource_id.as_deref(), Some("a"));
/// # Ok::<(), pleo_events::ParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventSummary<'a> {
    /// The event's type, as it was spelled.
    pub event_type: Cow<'a, str>,
    /// The event's id; `None` where it is absent or not a string.
    pub event_id: Option<Cow<'a, str>>,
    /// The resource's `id`; `None` where it is absent or not a string.
    pub resource_id: Option<Cow<'a, str>>,
    /// When the export job expires, as [`ExportJob::expires_at`](crate::ExportJob::expires_at);
    /// `None` where the data isn't one.
    pub expires_at: Option<Timestamp>,
}

impl<'a> EventSummary<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// As [`Envelope::parse`].
    pub fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        Self::at_once(body).map_or_else(|| Self::in_steps(body), Ok)
    }

    /// In one pass, which does for whatever Pleo sends; gives up on anything else.
    fn at_once(body: &'a [u8]) -> Option<Self> {
        let body = str::from_utf8(body).ok()?;
        // Of an array, serde would take the first value for the first field.
        let object = body.trim_ascii_start().starts_with('{').then_some(body)?;
        let whole: Whole<'a> = serde_json::from_str(object).ok()?;
        Some(Self {
            event_type: whole.event_type.0,
            event_id: whole.event_id.and_then(text),
            resource_id: whole.data.resource_id(),
            expires_at: whole.data.expires_at(),
        })
    }

    /// First the envelope and then the data, each as far as it is what it should be.
    fn in_steps(body: &'a [u8]) -> Result<Self, ParseError> {
        let envelope = Envelope::parse(body)?;
        let data = envelope.data().map(RawValue::get);
        let object = data.filter(|data| data.starts_with('{'));
        let fields = object.and_then(|data| {
            let mut json = serde_json::Deserializer::from_str(data);
            fields(&mut json).ok()
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
struct Whole<'a> {
    #[serde(borrow)]
    event_type: Text<'a>,
    #[serde(borrow)]
    event_id: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "fields")]
    data: Fields<'a>,
}

/// The fields of the data that count, raw, so that one which is wrong spoils no other.
#[derive(Default)]
struct Fields<'a> {
    id: Option<&'a RawValue>,
    created_at: Option<&'a RawValue>,
    last_updated_at: Option<&'a RawValue>,
    expires_in: Option<&'a RawValue>,
}

impl<'a> Fields<'a> {
    fn resource_id(&self) -> Option<Cow<'a, str>> {
        self.id.and_then(text)
    }

    fn expires_at(&self) -> Option<Timestamp> {
        // First the one that only an export job has.
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

/// Reads an object, and nothing else.
fn fields<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fields<'de>, D::Error> {
    deserializer.deserialize_map(FieldsVisitor)
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        while let Some(Text(name)) = map.next_key()? {
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
                return Err(A::Error::custom("a field stands twice"));
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

    /// Values that fields have, and others that they shouldn't.
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
        fn one_pass_finds_what_steps_find(
            data in prop_oneof![4 => object("id|createdAt|lastUpdatedAt|expiresIn|x"), 1 => value()],
            kind in value(), id in value(), more in object("eventId|data|y"), with_more in any::<bool>(),
        ) {
            let known = format!(r#""eventType":{kind},"eventId":{id},"data":{data}"#);
            let body = if with_more && more.len() > 2 {
                format!("{{{known},{}", more.trim_start_matches('{'))
            } else {
                format!("{{{known}}}")
            };
            if let Some(outline) = EventSummary::at_once(body.as_bytes()) {
                prop_assert_eq!(outline, EventSummary::in_steps(body.as_bytes()).unwrap());
            }
        }

        #[test]
        fn no_bytes_are_read_in_one_pass_only(body in prop::collection::vec(any::<u8>(), 0..64)) {
            if EventSummary::at_once(&body).is_some() {
                prop_assert!(EventSummary::in_steps(&body).is_ok());
            }
        }
    }

    #[test]
    fn what_pleo_sends_takes_one_pass() {
        let body = br#"{"data":{"id":"a","createdAt":"2026-11-24T09:30:00Z","expiresIn":3600,
            "status":"pending","startedAt":null},"eventType":"v1.export-job.created","eventId":"e"}"#;
        let outline = EventSummary::at_once(body).unwrap();
        assert_eq!(outline, EventSummary::in_steps(body).unwrap());
        assert_eq!(outline.expires_at, "2026-11-24T10:30:00Z".parse().ok());
    }
}
