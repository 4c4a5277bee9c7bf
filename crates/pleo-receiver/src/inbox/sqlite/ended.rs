//! The statements that end leases, of this server and of one that crashed.

use core::time::Duration;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;

use super::error::is_damage;
use super::held::Lease;
use crate::error::error_chain;
use crate::inbox::attempt::{AttemptResult, MAX_ATTEMPTS_KEPT};
use crate::inbox::lost::delay_after_loss;
use crate::inbox::message::{State, from_millisecond};
use crate::telemetry;

/// Ends the leases of a server that crashed. Sets messages aside whose leases cannot be ended.
pub(super) fn end_all_leases(connection: &mut Connection, now: Timestamp) -> rusqlite::Result<()> {
    // An end that is lost in a crash of the machine is repeated.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let leased: Vec<i64> = connection
        .prepare("SELECT sequence FROM message INDEXED BY message_leased WHERE leased = 1")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for sequence in leased {
        // Each in its own transaction: SQLite may refuse to commit after it read a damaged page.
        let ended = end_crashed(connection, sequence, now);
        if let Err(error) = ended {
            if !is_damage(&error) {
                return Err(error);
            }
            let error = log_unreadable(sequence, &error);
            // If that fails too, the message stays leased, and blocks no other.
            let _ = make_dead(connection, sequence, &error);
        }
    }
    // The clock may have been set back meanwhile.
    reschedule(connection, now, SignedDuration::ZERO)
}

/// Ends the lease of a server that crashed.
fn end_crashed(connection: &mut Connection, sequence: i64, now: Timestamp) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let lease = transaction
        .prepare_cached(
            "SELECT endpoint, attempts, worker, leased_at FROM message WHERE sequence = ?1",
        )?
        .query_row([sequence], |row| {
            // An older release stored neither worker nor time.
            let started_at: Option<i64> = row.get("leased_at")?;
            Ok(Lease {
                sequence,
                endpoint: row.get("endpoint")?,
                attempt: row.get("attempts")?,
                worker: row
                    .get::<_, Option<Arc<str>>>("worker")?
                    .unwrap_or_default(),
                started_at: started_at.map_or(now, from_millisecond),
                started: Duration::ZERO,
                ends: Duration::ZERO,
            })
        })?;
    end_lease(&transaction, &lease, &Ended::lost(&lease, now))?;
    record_attempt(&transaction, &lease, None, AttemptResult::Lost, None)?;
    transaction.commit()
}

/// Logs that a message cannot be read or changed. Returns the error to store.
pub(super) fn log_unreadable(sequence: i64, error: &rusqlite::Error) -> String {
    let error = format!("unreadable: {}", error_chain(error));
    telemetry::message_unreadable(sequence, &error);
    error
}

/// Makes a message dead that cannot be read.
pub(super) fn make_dead(
    connection: &Connection,
    sequence: i64,
    error: &str,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE message SET state = 'dead', last_error = ?2, leased = 0 WHERE sequence = ?1",
        )?
        .execute((sequence, error))?;
    Ok(())
}

/// What becomes of a message whose lease ends.
pub(super) struct Ended {
    pub(super) state: State,
    pub(super) delay: Option<Duration>,
    /// Subtracted from the message's attempts.
    pub(super) uncounted: u32,
    pub(super) now: Timestamp,
}

impl Ended {
    pub(super) fn lost(lease: &Lease, now: Timestamp) -> Self {
        let delay = delay_after_loss(lease.attempt);
        Self {
            state: State::Pending,
            delay: (!delay.is_zero()).then_some(delay),
            uncounted: 0,
            now,
        }
    }
}

pub(super) fn end_lease(
    connection: &Connection,
    lease: &Lease,
    ended: &Ended,
) -> rusqlite::Result<()> {
    // Rounded up, so that no message is ready before its time.
    let delay = ended
        .delay
        .map(|delay| delay.as_nanos().div_ceil(1_000_000));
    let delay = delay.map(|delay| i64::try_from(delay).unwrap_or(i64::MAX));
    let due_at = delay.map(|delay| ended.now.as_millisecond().saturating_add(delay));
    connection
        .prepare_cached(
            "UPDATE message SET state = ?2, due_at = ?3, delay = ?4, leased = 0, leased_at = NULL,
                 worker = NULL, attempts = attempts - ?5
             WHERE sequence = ?1",
        )?
        .execute((
            lease.sequence,
            ended.state.as_str(),
            due_at,
            delay,
            ended.uncounted,
        ))?;
    Ok(())
}

pub(super) fn record_attempt(
    connection: &Connection,
    lease: &Lease,
    duration: Option<Duration>,
    result: AttemptResult,
    error: Option<&str>,
) -> rusqlite::Result<()> {
    let n: usize = connection
        .prepare_cached(
            "INSERT INTO attempt (sequence, n, number, worker, started_at, duration, result, error)
             SELECT ?1, coalesce(max(n), 0) + 1, ?2, ?3, ?4, ?5, ?6, ?7
             FROM attempt WHERE sequence = ?1
             RETURNING n",
        )?
        .query_row(
            (
                lease.sequence,
                lease.attempt,
                &*lease.worker,
                lease.started_at.as_millisecond(),
                duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
                result.as_str(),
                error,
            ),
            |row| row.get(0),
        )?;
    if let Some(oldest) = n.checked_sub(MAX_ATTEMPTS_KEPT) {
        connection
            .prepare_cached("DELETE FROM attempt WHERE sequence = ?1 AND n <= ?2")?
            .execute((lease.sequence, oldest))?;
    }
    if error.is_some() {
        connection
            .prepare_cached("UPDATE message SET last_error = ?2 WHERE sequence = ?1")?
            .execute((lease.sequence, error))?;
    }
    Ok(())
}

/// Brings messages that are scheduled later than in their delay nearer by this time, and at least to
/// their delay.
pub(super) fn reschedule(
    connection: &Connection,
    now: Timestamp,
    by: SignedDuration,
) -> rusqlite::Result<()> {
    let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "UPDATE message INDEXED BY message_scheduled
             SET due_at = min(due_at - ?2, ?1 + delay)
             WHERE state = 'pending' AND due_at IS NOT NULL AND due_at > ?1 + delay",
        )?
        .execute((now.as_millisecond(), by))?;
    Ok(())
}
