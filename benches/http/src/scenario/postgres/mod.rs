//! The receiver with an inbox in PostgreSQL, whose server runs on the same machine.

pub mod bloat;
pub mod dispatch;
pub mod growth;
pub mod latency;
pub mod throughput;

use crate::postgres_server::Server as Database;

/// Starts a server with its default settings; `None` if PostgreSQL is not installed.
fn database() -> Option<Database> {
    Database::start(&["shared_buffers=128MB"])
}

/// Removes the messages of the rounds before, so that each round starts equally.
fn reset(database: &Database, schema: &str) {
    database.execute(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE"));
    database.execute("CHECKPOINT");
}
