//! Errors of parsing.

/// Why a body, or its `data`, could not be parsed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The body is not a JSON object with a string `eventType`, or has a duplicate field.
    #[error("the body is not an event envelope")]
    Envelope(#[source] serde_json::Error),
    /// The event has no `data`.
    #[error("the event has no `data`")]
    NoData,
    /// The `data` is not an export job.
    #[error("the event's `data` is not an export job")]
    ExportJob(#[source] serde_json::Error),
    /// The `data` is not a vendor.
    #[error("the event's `data` is not a vendor")]
    Vendor(#[source] serde_json::Error),
}
