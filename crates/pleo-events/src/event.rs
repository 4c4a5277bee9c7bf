//! Which event it is.

use crate::{ExportJob, Vendor};

/// A kind of event, whatever the spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventType {
    /// Somebody clicked *Export*: `v1.export-job.created`, `v2.export-job.created` or
    /// `v1.export.job-created`.
    ExportJobCreated,
    /// A vendor was created: `v1.vendor.created`.
    VendorCreated,
    /// A type that this version doesn't know; [`Envelope::event_type`](crate::Envelope::event_type)
    /// has its spelling.
    Unknown,
}

impl From<&str> for EventType {
    fn from(text: &str) -> Self {
        match text {
            "v1.export-job.created" | "v2.export-job.created" | "v1.export.job-created" => {
                Self::ExportJobCreated
            }
            "v1.vendor.created" => Self::VendorCreated,
            _ => Self::Unknown,
        }
    }
}

/// An event with its payload.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Somebody clicked *Export*.
    ExportJobCreated(ExportJob),
    /// A vendor was created.
    VendorCreated(Vendor),
    /// A type that this version doesn't know. The [`Envelope`](crate::Envelope) has all of it.
    Unknown,
}
