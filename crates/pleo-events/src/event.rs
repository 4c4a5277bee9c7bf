//! Events and their types.

use crate::export_job::ExportJob;
use crate::vendor::Vendor;

/// An event type, independent of its spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventType {
    /// A user started an export.
    ExportJobCreated,
    /// A vendor was created.
    VendorCreated,
    /// An event type that this version doesn't know;
    /// [`Envelope::event_type`](crate::Envelope::event_type) returns its spelling.
    Unknown,
}

impl EventType {
    /// Every event type that this version knows.
    pub const KNOWN: &'static [Self] = &[Self::ExportJobCreated, Self::VendorCreated];

    /// Returns every spelling of the event type in Pleo's documentation; none for
    /// [`Self::Unknown`].
    #[must_use]
    pub const fn spellings(self) -> &'static [&'static str] {
        match self {
            Self::ExportJobCreated => &[
                "v1.export-job.created",
                "v2.export-job.created",
                "v1.export.job-created",
            ],
            Self::VendorCreated => &["v1.vendor.created"],
            Self::Unknown => &[],
        }
    }
}

impl From<&str> for EventType {
    fn from(spelling: &str) -> Self {
        Self::KNOWN
            .iter()
            .copied()
            .find(|event_type| event_type.spellings().contains(&spelling))
            .unwrap_or(Self::Unknown)
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
    Unknown,
}
