//! The envelope around every payload.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use core::fmt;

use jiff::Timestamp;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::data_fields::DataFields;
use crate::error::{self, JsonError, ParseError};
use crate::event::{Event, EventType};
use crate::export_job::ExportJob;
use crate::vendor::Vendor;

/// A parsed body whose `data` is still raw JSON: event type, event id and `data`.
///
/// Borrows from the body and keeps unknown fields. Serializing writes equal JSON: each value byte
/// for byte, `data`, `eventType` and `eventId` first.
#[derive(Clone, Debug)]
pub struct Envelope<'a> {
    event_type: Cow<'a, str>,
    event_id: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
    data_fields: DataFields<'a>,
    extra: BTreeMap<Cow<'a, str>, &'a RawValue>,
}

impl<'a> Envelope<'a> {
    /// Parses a body.
    ///
    /// # Errors
    /// [`ParseError::Envelope`] if the body isn't a JSON object with a string `eventType`, or has
    /// a duplicate field.
    pub fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let invalid = |error| ParseError::Envelope(JsonError::new(&error, None));
        serde_json::from_slice(body).map_err(invalid)
    }

    /// Returns the event type as the body spells it.
    #[must_use]
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// Returns the event type, independent of its spelling.
    #[must_use]
    pub fn kind(&self) -> EventType {
        EventType::from(self.event_type())
    }

    /// Returns the event's id, or `None` if it is absent or not a string.
    #[must_use]
    pub fn event_id(&self) -> Option<Cow<'a, str>> {
        parse_str(self.event_id?)
    }

    /// Returns the resource as raw JSON, in its state when the event was generated.
    #[must_use]
    pub const fn data(&self) -> Option<&'a RawValue> {
        self.data
    }

    /// Returns the resource's `id`, for any event type, or `None` if it is absent or not a string.
    ///
    /// Like [`Self::expires_at`], it does not depend on the other fields of `data`, which may be
    /// invalid:
    ///
    /// ```
    /// use pleo_events::Envelope;
    ///
    /// let body = br#"{"eventType": "v9.new", "eventId": "e1", "data": {"id": "a", "state": 7}}"#;
    /// assert_eq!(Envelope::parse(body)?.resource_id().as_deref(), Some("a"));
    /// # Ok::<(), pleo_events::ParseError>(())
    /// ```
    #[must_use]
    pub fn resource_id(&self) -> Option<Cow<'a, str>> {
        self.data_fields.resource_id()
    }

    /// Returns when the export job expires, see [`ExportJob::expires_at`], for any event type, or
    /// `None` if `data` isn't an export job.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.data_fields.expires_at()
    }

    /// Parses `data` as the payload of the event's type.
    ///
    /// # Errors
    /// A [`ParseError`] if `data` is absent or not the payload of the event's type. An unknown type
    /// is no error.
    pub fn event(&self) -> Result<Event, ParseError> {
        Ok(match self.kind() {
            EventType::ExportJobCreated => Event::ExportJobCreated(self.export_job()?),
            EventType::VendorCreated => Event::VendorCreated(self.vendor()?),
            EventType::Other(other) => Event::Other(other),
        })
    }

    /// Parses `data` as an export job, for any event type.
    ///
    /// # Errors
    /// [`ParseError::NoData`] if `data` is absent, [`ParseError::ExportJob`] if it isn't an export
    /// job.
    pub fn export_job(&self) -> Result<ExportJob, ParseError> {
        let data = self.data.ok_or(ParseError::NoData)?;
        error::parse(data.get()).map_err(ParseError::ExportJob)
    }

    /// Parses `data` as a vendor, for any event type.
    ///
    /// # Errors
    /// [`ParseError::NoData`] if `data` is absent, [`ParseError::Vendor`] if it isn't a vendor.
    pub fn vendor(&self) -> Result<Vendor, ParseError> {
        let data = self.data.ok_or(ParseError::NoData)?;
        error::parse(data.get()).map_err(ParseError::Vendor)
    }
}

impl Serialize for Envelope<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(data) = self.data {
            map.serialize_entry("data", data)?;
        }
        map.serialize_entry("eventType", &self.event_type)?;
        if let Some(event_id) = self.event_id {
            map.serialize_entry("eventId", event_id)?;
        }
        for (name, value) in &self.extra {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Envelope<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EnvelopeVisitor)
    }
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with an `eventType`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut event_type, mut event_id, mut data) = (None, None, None);
        let mut extra = BTreeMap::new();
        while let Some(CowStr(name)) = map.next_key()? {
            let is_duplicate = match &*name {
                "eventType" => event_type
                    .replace(map.next_value::<CowStr<'de>>()?.0)
                    .is_some(),
                "eventId" => event_id.replace(map.next_value()?).is_some(),
                "data" => data.replace(map.next_value()?).is_some(),
                _ => extra.insert(name, map.next_value()?).is_some(),
            };
            if is_duplicate {
                return Err(A::Error::custom("duplicate field"));
            }
        }
        Ok(Envelope {
            data_fields: data.map(DataFields::parse).unwrap_or_default(),
            event_type: event_type.ok_or_else(|| A::Error::missing_field("eventType"))?,
            event_id,
            data,
            extra,
        })
    }
}

/// Parses a JSON string, or returns `None` for any other value.
pub(crate) fn parse_str(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text: CowStr<'_> = serde_json::from_str(raw.get()).ok()?;
    Some(text.0)
}

/// A string that borrows from the input if it has no escapes. Serde's `Cow<str>` always copies.
pub(crate) struct CowStr<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for CowStr<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(CowStrVisitor)
    }
}

struct CowStrVisitor;

impl<'de> Visitor<'de> for CowStrVisitor {
    type Value = CowStr<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(CowStr(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(CowStr(Cow::Owned(text.into())))
    }
}
