//! Events and their types.

use alloc::string::String;
use core::convert::Infallible;
use core::fmt;
use core::str::FromStr;

use crate::export_job::ExportJob;
use crate::open_enum::OtherValue;
use crate::vendor::Vendor;

/// An event type, independent of its spelling.
///
/// Parse it with [`str::parse`] or `from`, which never fail. The spelling of a known type is not
/// kept; [`Envelope::event_type`](crate::Envelope::event_type) returns it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventType {
    /// A user started an export.
    ExportJobCreated,
    /// A vendor was created.
    VendorCreated,
    /// An event type that this version doesn't know. A later minor version may know it.
    Other(OtherValue),
}

impl EventType {
    /// Every event type that this version knows.
    pub const KNOWN: &'static [Self] = &[Self::ExportJobCreated, Self::VendorCreated];

    const EXPORT_JOB_CREATED: &'static [&'static str] = &[
        "v1.export-job.created",
        "v2.export-job.created",
        "v1.export.job-created",
    ];

    const VENDOR_CREATED: &'static [&'static str] = &["v1.vendor.created"];

    /// Returns the first of [`Self::spellings`], or the spelling of an unknown type.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::ExportJobCreated => Self::EXPORT_JOB_CREATED[0],
            Self::VendorCreated => Self::VENDOR_CREATED[0],
            Self::Other(other) => other.as_str(),
        }
    }

    /// Returns every spelling of the event type in Pleo's documentation; none for
    /// [`Self::Other`].
    #[must_use]
    pub const fn spellings(&self) -> &'static [&'static str] {
        match self {
            Self::ExportJobCreated => Self::EXPORT_JOB_CREATED,
            Self::VendorCreated => Self::VENDOR_CREATED,
            Self::Other(_) => &[],
        }
    }

    fn known(spelling: &str) -> Option<Self> {
        let mut known = Self::KNOWN.iter();
        known
            .find(|event_type| event_type.spellings().contains(&spelling))
            .cloned()
    }
}

impl AsRef<str> for EventType {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<&str> for EventType {
    fn from(spelling: &str) -> Self {
        Self::known(spelling).unwrap_or_else(|| Self::Other(OtherValue::new(spelling)))
    }
}

impl From<String> for EventType {
    fn from(spelling: String) -> Self {
        Self::known(&spelling).unwrap_or_else(|| Self::Other(OtherValue::new(spelling)))
    }
}

impl FromStr for EventType {
    type Err = Infallible;

    fn from_str(spelling: &str) -> Result<Self, Infallible> {
        Ok(spelling.into())
    }
}

/// An event with its typed payload.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A user started an export.
    ExportJobCreated(ExportJob),
    /// A vendor was created.
    VendorCreated(Vendor),
    /// An event type that this version doesn't know. The [`Envelope`](crate::Envelope) holds the
    /// complete event.
    Other(OtherValue),
}

impl Event {
    /// Returns the event type, as [`EventType::as_str`] does.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::ExportJobCreated(_) => EventType::EXPORT_JOB_CREATED[0],
            Self::VendorCreated(_) => EventType::VENDOR_CREATED[0],
            Self::Other(other) => other.as_str(),
        }
    }
}

/// Writes the event type.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
