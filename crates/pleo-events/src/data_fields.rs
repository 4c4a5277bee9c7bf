//! Reads the fields of `data` that any event type may have.

use alloc::borrow::Cow;
use core::fmt;

use jiff::Timestamp;
use serde::Deserializer as _;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::envelope::{CowStr, parse_str};
use crate::export_job::Expiry;

/// The id and the expiry of a resource, raw: one invalid field doesn't hide the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct DataFields<'a> {
    id: Option<&'a RawValue>,
    created_at: Option<&'a RawValue>,
    last_updated_at: Option<&'a RawValue>,
    expires_in: Option<&'a RawValue>,
}

impl<'a> DataFields<'a> {
    /// Reads `data`. All fields are absent if it isn't an object, or has a duplicate field.
    pub(crate) fn parse(data: &'a RawValue) -> Self {
        let mut json = serde_json::Deserializer::from_str(data.get());
        json.deserialize_map(DataFieldsVisitor).unwrap_or_default()
    }

    pub(crate) fn resource_id(&self) -> Option<Cow<'a, str>> {
        self.id.and_then(parse_str)
    }

    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
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
