//! Stores of messages: their contract, and the stores that come with the crate.

mod attempt;
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod contract;
mod error;
mod lease;
mod lost;
mod measurements;
mod memory;
mod message;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod meter;
mod order;
#[cfg(feature = "postgres")]
mod postgres;
mod query;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use crate::histogram::Distribution;
pub use attempt::{Attempt, AttemptResult, MAX_ATTEMPTS_KEPT};
pub use clock::{Clock, SystemClock};
pub use contract::{Inbox, InboxFuture};
pub use error::{InboxError, InboxErrorKind};
pub use lease::{Completed, LeaseId, LeaseRequest, Leased, LeasedMessage, Outcome, Version};
pub use lost::delay_after_loss;
pub use measurements::Measurements;
pub use memory::MemoryInbox;
pub use message::{
    Appended, Entry, Key, MAX_ERROR_LEN, NewMessage, Origin, State, StoredHeaders, StoredMessage,
};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresInbox, PostgresOpenError, PostgresOptions};
pub use query::{Cursor, EndpointStats, InvalidCursor, Page, Query, Selection};
#[cfg(feature = "sqlite")]
pub use sqlite::{
    SqliteBackupError, SqliteCheck, SqliteExport, SqliteInbox, SqliteOpenError, SqliteOptions,
    UnreadableMessage,
};
