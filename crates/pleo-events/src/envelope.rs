//! What surrounds every payload.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Event, EventType, ExportJob, ParseError, Vendor};

/// A body, read no deeper than necessary: the event's type and id, and its data as raw JSON.
///
/// Borrows from the body. Fields that this version doesn't know are kept. Serialising gives equal
/// JSON: each value byte for byte, known fields first.
#[derive(Clone, Debug)]
pub struct Envelope<'a> {
    event_type: Cow<'a, str>,
    event_id: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
    others: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Envelope<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// [`ParseError::Envelope`] where it isn't a JSON object with a string `eventType`, or has a
    /// field twice.
    pub fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        serde_json::from_slice(body).map_err(ParseError::Envelope)
    }

    /// The type, as it was spelled.
    #[must_use]
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    pub(crate) fn into_event_type(self) -> Cow<'a, str> {
        self.event_type
    }

    /// The type, whatever the spelling.
    #[must_use]
    pub fn kind(&self) -> EventType {
        EventType::from(self.event_type())
    }

    /// The event's id; `None` where it is absent or not a string.
    #[must_use]
    pub fn event_id(&self) -> Option<Cow<'a, str>> {
        text(self.event_id?)
    }

    /// The resource as it was when the event was generated, as raw JSON.
    #[must_use]
    pub const fn data(&self) -> Option<&'a RawValue> {
        self.data
    }

    /// The data as what the event's type says.
    ///
    /// # Errors
    /// The type is known, and the data is absent or not what belongs to it.
    pub fn event(&self) -> Result<Event, ParseError> {
        Ok(match self.kind() {
            EventType::ExportJobCreated => Event::ExportJobCreated(self.export_job()?),
            EventType::VendorCreated => Event::VendorCreated(self.vendor()?),
            EventType::Unknown => Event::Unknown,
        })
    }

    /// The data as an export job, whatever the event's type.
    ///
    /// # Errors
    /// The data is absent or not an export job.
    pub fn export_job(&self) -> Result<ExportJob, ParseError> {
        let data = self.data.ok_or(ParseError::NoData)?;
        serde_json::from_str(data.get()).map_err(ParseError::ExportJob)
    }

    /// The data as a vendor, whatever the event's type.
    ///
    /// # Errors
    /// The data is absent or not a vendor.
    pub fn vendor(&self) -> Result<Vendor, ParseError> {
        let data = self.data.ok_or(ParseError::NoData)?;
        serde_json::from_str(data.get()).map_err(ParseError::Vendor)
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
        for (name, value) in &self.others {
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
        let mut others = Vec::new();
        while let Some(Text(name)) = map.next_key()? {
            let twice = match &*name {
                "eventType" => event_type
                    .replace(map.next_value::<Text<'de>>()?.0)
                    .is_some(),
                "eventId" => event_id.replace(map.next_value()?).is_some(),
                "data" => data.replace(map.next_value()?).is_some(),
                _ => {
                    others.push((name, map.next_value()?));
                    false
                }
            };
            if twice {
                return Err(A::Error::custom("a field stands twice"));
            }
        }
        others.sort_by(|(one, _), (other, _)| one.cmp(other));
        if others
            .windows(2)
            .any(|pair| matches!(pair, [one, other] if one.0 == other.0))
        {
            return Err(A::Error::custom("a field stands twice"));
        }
        Ok(Envelope {
            event_type: event_type.ok_or_else(|| A::Error::missing_field("eventType"))?,
            event_id,
            data,
            others,
        })
    }
}

/// The string that this is, if it's one.
pub(crate) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text: Text<'_> = serde_json::from_str(raw.get()).ok()?;
    Some(text.0)
}

/// A string that borrows where it holds no escape; serde's own `Cow` always copies.
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(text.into())))
    }
}
