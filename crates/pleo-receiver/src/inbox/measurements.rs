//! What a store measures of itself.

use crate::histogram::Distribution;

/// What a store measures of itself, for metrics. A store that does not measure something leaves out
/// the value.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Measurements {
    /// The number of appends that wait to be committed.
    pub queued_appends: Option<u64>,
    /// The size of their messages in bytes.
    pub queued_bytes: Option<u64>,
    /// How long commits took that were durable, in seconds.
    pub commit_seconds: Option<Distribution>,
    /// How many messages were appended in one durable commit.
    pub commit_appends: Option<Distribution>,
    /// The size of the store's file or tables in bytes.
    pub file_bytes: Option<u64>,
    /// The size of the store's log in bytes.
    pub log_bytes: Option<u64>,
    /// How many bytes the store can still grow by.
    pub free_bytes: Option<u64>,
}
