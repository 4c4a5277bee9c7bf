//! The receiver with an inbox in PostgreSQL, whose server runs on the same machine.

pub mod bloat;
pub mod dispatch;
pub mod growth;
pub mod latency;
pub mod throughput;

use crate::postgres_server::Server as Database;

/// Starts a server with its default settings; `None` if PostgreSQL is not installed.
///
/// A new server creates each 16 MB file of its log, which takes 15 to 25 ms. One that has run for a
/// while uses old files again, and so does this one: it writes as much as between two checkpoints.
fn database() -> Option<Database> {
    let database = Database::start(&["shared_buffers=128MB"])?;
    let megabytes = "SELECT pg_logical_emit_message(false, '', repeat('x', 1 << 20))
                     FROM generate_series(1, 1024)";
    database.execute(megabytes);
    database.execute("CHECKPOINT");
    Some(database)
}

/// Removes the messages of the rounds before, so that each round starts equally.
fn reset(database: &Database, schema: &str) {
    database.execute(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE"));
    database.execute("CHECKPOINT");
}
