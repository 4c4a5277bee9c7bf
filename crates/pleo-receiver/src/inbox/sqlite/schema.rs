//! The schema and its migrations.

use std::error::Error;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};

use super::error::OpenCause;

/// SQLite's `application_id`: "PleI".
const APPLICATION_ID: i32 = 0x506C_6549;

/// The migrations. SQLite's `user_version` is the number of those that were applied. Never change
/// one that was released.
const MIGRATIONS: [&str; 3] = [V1, V2, V3];

/// Bodies have a table of their own, so that an update of the state does not rewrite the body.
///
/// A sequence is never reused: `last_deleted` keeps the last one that was deleted. (`AUTOINCREMENT`
/// would write each new sequence. A `CHECK` with `IN` and three or more values would build a table for
/// each row.)
///
/// The key begins with `webhook_id`: the sender's ids increase with time, so that inserts append to
/// the index, with any number of endpoints.
const V1: &str = "
    CREATE TABLE message (
        sequence    INTEGER PRIMARY KEY,
        endpoint    TEXT NOT NULL,
        webhook_id  TEXT NOT NULL,
        event_type  TEXT,
        event_id    TEXT,
        resource_id TEXT,
        origin      TEXT NOT NULL CHECK (origin IN ('webhook', 'catch-up')),
        received_at INTEGER NOT NULL,
        expires_at  INTEGER,
        state       TEXT NOT NULL DEFAULT 'pending'
                    CHECK (state = 'pending' OR state = 'done' OR state = 'dead'),
        attempts    INTEGER NOT NULL DEFAULT 0,
        claims      INTEGER NOT NULL DEFAULT 0,
        due_at      INTEGER,
        leased      INTEGER NOT NULL DEFAULT 0,
        last_error  TEXT
    ) STRICT;
    CREATE TABLE body (
        sequence    INTEGER PRIMARY KEY,
        body        BLOB NOT NULL
    ) STRICT;
    CREATE TABLE last_deleted (
        sequence    INTEGER NOT NULL
    ) STRICT;
    INSERT INTO last_deleted VALUES (0);
    CREATE TRIGGER message_deleted AFTER DELETE ON message BEGIN
        DELETE FROM body WHERE sequence = OLD.sequence;
        UPDATE last_deleted SET sequence = OLD.sequence WHERE sequence < OLD.sequence;
    END;
    CREATE UNIQUE INDEX message_key ON message (webhook_id, endpoint);
    CREATE INDEX message_ready ON message (endpoint, coalesce(expires_at, 9223372036854775807))
        WHERE state = 'pending' AND due_at IS NULL;
    CREATE INDEX message_waiting ON message (due_at, leased)
        WHERE state = 'pending' AND due_at IS NOT NULL;
    CREATE INDEX message_dead ON message (received_at) WHERE state = 'dead';
";

/// Adds the source and headers of messages, the history of attempts, and paused endpoints. The ends
/// of leases are no longer stored.
///
/// Ready, scheduled, leased and dead messages each have a partial index, so that the time to find
/// them does not depend on the number of done messages. `delay` is the delay of a scheduled message:
/// if the clock was set back, `due_at` may be further in the future than that.
const V2: &str = "
    DROP INDEX message_ready;
    DROP INDEX message_waiting;
    DROP TRIGGER message_deleted;
    ALTER TABLE message DROP COLUMN claims;
    ALTER TABLE message ADD COLUMN source TEXT;
    ALTER TABLE message ADD COLUMN delay INTEGER;
    ALTER TABLE message ADD COLUMN leased_at INTEGER;
    ALTER TABLE message ADD COLUMN worker TEXT;
    UPDATE message SET due_at = NULL WHERE leased = 1;
    UPDATE message SET delay = 7200000 WHERE due_at IS NOT NULL;
    ALTER TABLE body ADD COLUMN headers TEXT;
    CREATE TABLE attempt (
        sequence    INTEGER NOT NULL,
        n           INTEGER NOT NULL,
        number      INTEGER NOT NULL,
        worker      TEXT NOT NULL,
        started_at  INTEGER NOT NULL,
        duration    INTEGER,
        result      TEXT NOT NULL,
        error       TEXT,
        PRIMARY KEY (sequence, n)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE paused (
        endpoint    TEXT PRIMARY KEY
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE program (
        version     TEXT NOT NULL
    ) STRICT;
    INSERT INTO program VALUES ('');
    CREATE TRIGGER message_deleted AFTER DELETE ON message BEGIN
        DELETE FROM body WHERE sequence = OLD.sequence;
        DELETE FROM attempt WHERE sequence = OLD.sequence;
        UPDATE last_deleted SET sequence = OLD.sequence WHERE sequence < OLD.sequence;
    END;
    CREATE INDEX message_ready ON message (endpoint, coalesce(expires_at, 9223372036854775807))
        WHERE state = 'pending' AND due_at IS NULL AND leased = 0;
    CREATE INDEX message_scheduled ON message (due_at)
        WHERE state = 'pending' AND due_at IS NOT NULL;
    CREATE INDEX message_leased ON message (endpoint) WHERE leased = 1;
";

/// Adds the numbers of messages by endpoint and state, and what else statistics need, so that their
/// time does not depend on the number of messages.
///
/// Triggers count all changes except inserts: the writer counts those, once per transaction and
/// endpoint. A number may be negative within a transaction.
const V3: &str = "
    CREATE TABLE endpoint_stats (
        endpoint    TEXT PRIMARY KEY,
        pending     INTEGER NOT NULL,
        scheduled   INTEGER NOT NULL,
        done        INTEGER NOT NULL,
        dead        INTEGER NOT NULL,
        delivered_at INTEGER
    ) STRICT, WITHOUT ROWID;
    INSERT INTO endpoint_stats
        SELECT endpoint,
               count(*) FILTER (WHERE state = 'pending'),
               count(*) FILTER (WHERE state = 'pending' AND due_at IS NOT NULL),
               count(*) FILTER (WHERE state = 'done'),
               count(*) FILTER (WHERE state = 'dead'),
               max(received_at) FILTER (WHERE origin = 'webhook')
        FROM message GROUP BY endpoint;
    CREATE TRIGGER message_changed AFTER UPDATE OF state, due_at ON message
    WHEN OLD.state <> NEW.state OR (OLD.due_at IS NULL) <> (NEW.due_at IS NULL) BEGIN
        INSERT INTO endpoint_stats (endpoint, pending, scheduled, done, dead) VALUES (
            NEW.endpoint,
            (NEW.state = 'pending') - (OLD.state = 'pending'),
            (NEW.state = 'pending' AND NEW.due_at IS NOT NULL)
                - (OLD.state = 'pending' AND OLD.due_at IS NOT NULL),
            (NEW.state = 'done') - (OLD.state = 'done'),
            (NEW.state = 'dead') - (OLD.state = 'dead')
        ) ON CONFLICT (endpoint) DO UPDATE SET
            pending = pending + excluded.pending,
            scheduled = scheduled + excluded.scheduled,
            done = done + excluded.done,
            dead = dead + excluded.dead;
    END;
    CREATE TRIGGER message_uncounted AFTER DELETE ON message BEGIN
        INSERT INTO endpoint_stats (endpoint, pending, scheduled, done, dead) VALUES (
            OLD.endpoint,
            -(OLD.state = 'pending'),
            -(OLD.state = 'pending' AND OLD.due_at IS NOT NULL),
            -(OLD.state = 'done'),
            -(OLD.state = 'dead')
        ) ON CONFLICT (endpoint) DO UPDATE SET
            pending = pending + excluded.pending,
            scheduled = scheduled + excluded.scheduled,
            done = done + excluded.done,
            dead = dead + excluded.dead;
    END;
    CREATE INDEX message_scheduled_expiry ON message (endpoint, expires_at)
        WHERE state = 'pending' AND due_at IS NOT NULL;
";

/// Applies the missing migrations, in one transaction. An empty file becomes an inbox.
///
/// # Errors
/// The file is not an inbox, or a newer program wrote it.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), Box<dyn Error + Send + Sync>> {
    // Another process may migrate at the same time.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = version(&transaction)?;
    if let Some(missing) = MIGRATIONS
        .get(version..)
        .filter(|missing| !missing.is_empty())
    {
        for migration in missing {
            transaction.execute_batch(migration)?;
        }
        transaction.execute(
            "UPDATE program SET version = ?1",
            [env!("CARGO_PKG_VERSION")],
        )?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", MIGRATIONS.len())?;
    }
    transaction.commit()?;
    Ok(())
}

/// Returns `true` if migrations are missing.
///
/// # Errors
/// As [`migrate`].
pub(super) fn is_outdated(connection: &Connection) -> Result<bool, Box<dyn Error + Send + Sync>> {
    Ok(version(connection)? < MIGRATIONS.len())
}

/// Returns the number of migrations that were applied; 0 if the file is empty.
///
/// # Errors
/// As [`migrate`].
pub(super) fn version(connection: &Connection) -> Result<usize, Box<dyn Error + Send + Sync>> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    if (application, version) == (0, 0) && is_empty(connection)? {
        return Ok(0);
    }
    if application != APPLICATION_ID {
        return Err(OpenCause::NotAnInbox.into());
    }
    match usize::try_from(version) {
        Ok(version @ 1..) if version <= MIGRATIONS.len() => Ok(version),
        _ => {
            let program = "SELECT version FROM program";
            let program = connection.query_row(program, [], |row| row.get::<_, String>(0));
            Err(OpenCause::Newer {
                schema: version,
                supported: MIGRATIONS.len(),
                program: program.optional().ok().flatten().unwrap_or_default(),
            }
            .into())
        }
    }
}

pub(super) fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| {
        row.get(0)
    })
}
