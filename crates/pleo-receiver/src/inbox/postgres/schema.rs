//! The schema and its migrations.

use tokio_postgres::types::Type;

use super::error::Failure;
use super::schema_name::SchemaName;
use super::session::Session;
use crate::telemetry;

/// A step from one version of the schema to the next.
struct Migration {
    /// The oldest version whose programs can use the schema after this step. The version before, so
    /// that processes can be replaced one by one, unless that is impossible.
    compatible_with: i32,
    sql: &'static str,
}

/// The migrations to version 1, 2 and so on.
const MIGRATIONS: &[Migration] = &[
    Migration {
        compatible_with: 1,
        sql: include_str!("migrations/1_initial.sql"),
    },
    Migration {
        compatible_with: 1,
        sql: include_str!("migrations/2_last_delivery.sql"),
    },
    Migration {
        compatible_with: 2,
        sql: include_str!("migrations/3_cheaper_appends.sql"),
    },
];

const CREATE: &str = "
    CREATE SCHEMA IF NOT EXISTS inbox;
    CREATE TABLE IF NOT EXISTS inbox.schema_version (
        version integer PRIMARY KEY,
        compatible_with integer NOT NULL,
        program text NOT NULL,
        migrated_at timestamptz NOT NULL DEFAULT now()
    );
";

/// The version of the schema that this program needs.
fn needed() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// Checks that this program can use the schema.
pub(super) async fn check(session: &Session, schema: &SchemaName) -> Result<(), Failure> {
    let name = || schema.name().to_owned();
    let Some(found) = version(session, schema).await? else {
        return Err(Failure::NoSchema { schema: name() });
    };
    if found.version < needed() {
        return Err(Failure::OldSchema {
            schema: name(),
            found: found.version,
            needed: needed(),
        });
    }
    if found.compatible_with > needed() {
        return Err(Failure::NewSchema {
            schema: name(),
            found: found.version,
            supported: needed(),
            program: found.program,
        });
    }
    Ok(())
}

/// Creates the schema, or upgrades it to the version that this program needs. Returns the versions that
/// were added. Each is a transaction, in which one process migrates at a time: of one that fails, nothing
/// stays.
pub(super) async fn migrate(session: &Session, schema: &SchemaName) -> Result<Vec<i32>, Failure> {
    let mut added = Vec::new();
    loop {
        let found = version(session, schema).await?;
        if found.is_some_and(|found| found.version >= needed()) {
            return Ok(added);
        }
        session
            .batch("BEGIN ISOLATION LEVEL READ COMMITTED")
            .await?;
        let migrated = add_next_version(session, schema).await;
        let end = if migrated.is_ok() {
            "COMMIT"
        } else {
            "ROLLBACK"
        };
        session.batch(end).await?;
        if let Some(version) = migrated? {
            telemetry::schema_migrated(schema.name(), version);
            added.push(version);
        }
    }
}

/// Adds the next version, unless another process has added all.
async fn add_next_version(session: &Session, schema: &SchemaName) -> Result<Option<i32>, Failure> {
    // Another process may migrate for long.
    session.batch("SET LOCAL lock_timeout = 0").await?;
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended('inbox migration', 0))";
    session.query(lock, &[]).await?;
    // A change of a table that waits makes all others wait.
    session.batch("SET LOCAL lock_timeout = '5s'").await?;
    let found = version(session, schema).await?;
    let found = found.map_or(0, |found| found.version);
    if found == 0 {
        session.batch(CREATE).await?;
    }
    let next = (1..).zip(MIGRATIONS).find(|(version, _)| *version > found);
    let Some((version, migration)) = next else {
        return Ok(None);
    };
    let migrated = session.batch(migration.sql).await;
    migrated.map_err(|failure| Failure::Migration {
        schema: schema.name().to_owned(),
        version,
        source: Box::new(failure),
    })?;
    let record = "INSERT INTO inbox.schema_version (version, compatible_with, program)
                  VALUES ($1, $2, $3)";
    let program = env!("CARGO_PKG_VERSION");
    session
        .query(
            record,
            &[
                (&version, Type::INT4),
                (&migration.compatible_with, Type::INT4),
                (&program, Type::TEXT),
            ],
        )
        .await?;
    Ok(Some(version))
}

struct Found {
    version: i32,
    /// The oldest version whose programs can use the schema.
    compatible_with: i32,
    /// The program that migrated the schema last.
    program: String,
}

/// Returns the version of the schema; `None` if there is no inbox. Refuses a database that cannot store
/// all texts.
async fn version(session: &Session, schema: &SchemaName) -> Result<Option<Found>, Failure> {
    let exists = "SELECT current_setting('server_encoding'),
                         EXISTS (SELECT FROM pg_class
                                 JOIN pg_namespace ON pg_namespace.oid = relnamespace
                                 WHERE nspname = $1 AND relname = 'schema_version')";
    let name = schema.name();
    let rows = session.query(exists, &[(&name, Type::TEXT)]).await?;
    let row = rows.first().ok_or(Failure::Lost)?;
    let encoding: String = row.try_get(0)?;
    if encoding != "UTF8" {
        return Err(Failure::Encoding(encoding));
    }
    if !row.try_get::<_, bool>(1)? {
        return Ok(None);
    }
    let newest = "SELECT version, compatible_with, program FROM inbox.schema_version
                  ORDER BY version DESC LIMIT 1";
    let rows = session.query(newest, &[]).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    Ok(Some(Found {
        version: row.try_get(0)?,
        compatible_with: row.try_get(1)?,
        program: row.try_get(2)?,
    }))
}
