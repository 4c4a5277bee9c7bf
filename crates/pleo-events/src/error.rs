//! Errors of parsing.

use alloc::format;
use alloc::string::{String, ToString};

use serde::Deserialize;

/// Why a body, or its `data`, could not be parsed.
///
/// Neither it nor its source quotes a value of the body, so that it can be logged and stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The body is not a JSON object with a string `eventType`, or has a duplicate field.
    #[error("the body is not an event envelope")]
    Envelope(#[source] JsonError),
    /// The event has no `data`.
    #[error("the event has no `data`")]
    NoData,
    /// The `data` is not an export job.
    #[error("the event's `data` is not an export job")]
    ExportJob(#[source] JsonError),
    /// The `data` is not a vendor.
    #[error("the event's `data` is not a vendor")]
    Vendor(#[source] JsonError),
}

/// What is wrong with a JSON text, and where: a line and a column of the body, or of `data`. Quotes no
/// value.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

impl JsonError {
    /// Describes an error. `field` is the name of the field whose value is invalid, if it is known.
    pub(crate) fn new(error: &serde_json::Error, field: Option<&str>) -> Self {
        let text = error.to_string();
        // Messages about syntax, and about fields that are missing or duplicated, contain no value.
        // Those about values quote them.
        if !error.is_data()
            || text.starts_with("missing field")
            || text.starts_with("duplicate field")
        {
            return Self(text);
        }
        let (line, column) = (error.line(), error.column());
        Self(match field {
            Some(field) => format!("invalid value of `{field}` at line {line} column {column}"),
            None => format!("unexpected type of a value at line {line} column {column}"),
        })
    }
}

/// Parses a JSON text; an error names the invalid field.
pub(crate) fn parse<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, JsonError> {
    serde_json::from_str(json).map_err(|error| {
        // Parses again, since tracking the path takes longer.
        let mut again = serde_json::Deserializer::from_str(json);
        let tracked: Result<T, _> = serde_path_to_error::deserialize(&mut again);
        let path = tracked.err().map(|error| error.path().to_string());
        JsonError::new(&error, path.as_deref())
    })
}
