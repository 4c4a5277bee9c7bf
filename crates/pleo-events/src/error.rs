//! What can be wrong with a body.

use core::fmt;

/// Why a body, or the data in it, could not be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum ParseError {
    /// The body is not a JSON object with a string `eventType`.
    Envelope(serde_json::Error),
    /// There is no `data`.
    NoData,
    /// The data is not an export job.
    ExportJob(serde_json::Error),
    /// The data is not a vendor.
    Vendor(serde_json::Error),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The cause is in `source`, so that a chain doesn't print it twice.
        f.write_str(match self {
            Self::Envelope(_) => "the body is not an envelope of a Pleo event",
            Self::NoData => "the event has no `data`",
            Self::ExportJob(_) => "the `data` of the event is not an export job",
            Self::Vendor(_) => "the `data` of the event is not a vendor",
        })
    }
}

impl core::error::Error for ParseError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Envelope(error) | Self::ExportJob(error) | Self::Vendor(error) => Some(error),
            Self::NoData => None,
        }
    }
}
