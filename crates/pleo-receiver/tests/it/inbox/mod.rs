//! Runs the conformance tests for each store.

mod memory;
#[cfg(all(unix, feature = "postgres"))]
mod postgres;
mod shared;
#[cfg(feature = "sqlite")]
mod sqlite;
