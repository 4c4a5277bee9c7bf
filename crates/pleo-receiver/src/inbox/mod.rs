//! Stores of messages: their contract, and the stores that come with the crate.

mod contract;
mod error;
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;
mod types;

pub use contract::{Inbox, InboxFuture};
pub use error::InboxError;
pub use memory::MemoryInbox;
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteInbox, SqliteOptions};
pub(crate) use types::SummaryColumns;
pub use types::{
    Appended, Counts, Entry, Filter, LeaseId, LeaseRequest, Leased, LeasedMessage, NewMessage,
    Origin, Outcome, Selection, State,
};
