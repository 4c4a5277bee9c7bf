//! Runs the conformance tests for each store.

mod memory;
mod shared;
#[cfg(feature = "sqlite")]
mod sqlite;
