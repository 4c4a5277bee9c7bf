//! Statistics. Their time depends on the numbers of endpoints, of leases, of messages that expired while
//! they were pending, of retries that are ready, and of pending messages up to four times
//! [`OLDEST_SCANNED`] for each endpoint, but not on the number of messages.

use core::time::Duration;
use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row};

use crate::inbox::message::from_millisecond;
use crate::inbox::query::{EndpointStats, OLDEST_SCANNED};

/// The expiry in the index of ready messages.
const EXPIRY: &str = "coalesce(expires_at, 9223372036854775807)";

/// Returns the statistics of each endpoint.
pub(super) fn stats(
    connection: &Connection,
    now: Timestamp,
) -> rusqlite::Result<Vec<EndpointStats>> {
    // In one transaction, so that a message that changes its state is counted once.
    let transaction = connection.unchecked_transaction()?;
    let mut endpoints = transaction.prepare_cached(
        // Never negative, even if messages were inserted by hand.
        "SELECT endpoint, max(pending, 0) AS pending, max(scheduled, 0) AS scheduled,
                max(done, 0) AS done, max(dead, 0) AS dead, delivered_at,
                endpoint IN (SELECT endpoint FROM paused) AS is_paused
         FROM endpoint_stats
         WHERE endpoint_stats.pending > 0 OR endpoint_stats.done > 0 OR endpoint_stats.dead > 0
            OR is_paused
         UNION ALL
         SELECT endpoint, 0, 0, 0, 0, NULL, TRUE
         FROM paused WHERE endpoint NOT IN (SELECT endpoint FROM endpoint_stats)
         ORDER BY endpoint",
    )?;
    let due = due_retries(&transaction, now)?;
    let endpoints = endpoints.query_map([], |row| endpoint(&transaction, row, &due, now))?;
    endpoints.collect()
}

/// Counts the retries that are ready, by endpoint. The next lease request handles them.
fn due_retries(connection: &Connection, now: Timestamp) -> rusqlite::Result<HashMap<String, u64>> {
    let mut due = connection.prepare_cached(
        "SELECT endpoint, count(*) FROM message INDEXED BY message_scheduled
         WHERE state = 'pending' AND due_at IS NOT NULL AND due_at <= ?1 GROUP BY endpoint",
    )?;
    let due = due.query_map([now.as_millisecond()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    due.collect()
}

fn endpoint(
    connection: &Connection,
    row: &Row<'_>,
    due: &HashMap<String, u64>,
    now: Timestamp,
) -> rusqlite::Result<EndpointStats> {
    let name: String = row.get("endpoint")?;
    let now = now.as_millisecond();
    let mut stats = EndpointStats::new(&*name);
    stats.paused = row.get("is_paused")?;
    stats.done = row.get("done")?;
    stats.dead = row.get("dead")?;
    stats.delivered_at = row
        .get::<_, Option<i64>>("delivered_at")?
        .map(from_millisecond);
    let pending: u64 = row.get("pending")?;
    if pending == 0 {
        return Ok(stats);
    }
    stats.leased = connection
        .prepare_cached(
            "SELECT count(*) FROM message INDEXED BY message_leased
             WHERE leased = 1 AND endpoint = ?1",
        )?
        .query_row([&name], |row| row.get(0))?;
    let due = due.get(&name).copied().unwrap_or_default();
    stats.scheduled = row.get::<_, u64>("scheduled")?.saturating_sub(due);
    stats.ready = pending.saturating_sub(stats.leased + stats.scheduled);
    stats.oldest_pending = oldest_pending(connection, &name, now)?;
    for (pending, expiry) in [
        (
            "message INDEXED BY message_ready
             WHERE state = 'pending' AND due_at IS NULL AND leased = 0",
            EXPIRY,
        ),
        (
            "message INDEXED BY message_scheduled_expiry
             WHERE state = 'pending' AND due_at IS NOT NULL",
            "expires_at",
        ),
        (
            "message INDEXED BY message_leased WHERE leased = 1 AND expires_at IS NOT NULL",
            "expires_at",
        ),
    ] {
        let mut nearest = connection.prepare_cached(&format!(
            "SELECT min({expiry}) FROM {pending} AND endpoint = ?1
             AND {expiry} > ?2 AND {expiry} < 9223372036854775807"
        ))?;
        let nearest: Option<i64> = nearest.query_row((&name, now), |row| row.get(0))?;
        let nearest = nearest.map(from_millisecond);
        stats.nearest_expiry = stats.nearest_expiry.into_iter().chain(nearest).min();
        let mut expired = connection.prepare_cached(&format!(
            "SELECT count(*) FROM {pending} AND endpoint = ?1 AND {expiry} <= ?2"
        ))?;
        stats.expired += expired.query_row((&name, now), |row| row.get::<_, u64>(0))?;
    }
    Ok(stats)
}

/// Returns the age of the pending message that arrived first: the one with the lowest sequence.
///
/// Scans the indexes of ready and scheduled messages, [`OLDEST_SCANNED`] at each end, and of leased messages.
fn oldest_pending(
    connection: &Connection,
    endpoint: &str,
    now: i64,
) -> rusqlite::Result<Option<Duration>> {
    let mut oldest = connection.prepare_cached(
        "SELECT received_at FROM message WHERE sequence = (SELECT min(sequence) FROM (
             SELECT min(sequence) AS sequence FROM (
                 SELECT sequence FROM message INDEXED BY message_ready
                 WHERE state = 'pending' AND due_at IS NULL AND leased = 0 AND endpoint = ?1
                   AND coalesce(expires_at, 9223372036854775807) < 9223372036854775807
                 ORDER BY coalesce(expires_at, 9223372036854775807) LIMIT ?2)
             UNION ALL
             SELECT min(sequence) FROM (
                 SELECT sequence FROM message INDEXED BY message_ready
                 WHERE state = 'pending' AND due_at IS NULL AND leased = 0 AND endpoint = ?1
                   AND coalesce(expires_at, 9223372036854775807) < 9223372036854775807
                 ORDER BY coalesce(expires_at, 9223372036854775807) DESC LIMIT ?2)
             UNION ALL
             SELECT min(sequence) FROM message INDEXED BY message_ready
             WHERE state = 'pending' AND due_at IS NULL AND leased = 0 AND endpoint = ?1
               AND coalesce(expires_at, 9223372036854775807) = 9223372036854775807
             UNION ALL
             SELECT min(sequence) FROM (
                 SELECT sequence FROM message INDEXED BY message_scheduled_expiry
                 WHERE state = 'pending' AND due_at IS NOT NULL AND endpoint = ?1
                   AND expires_at IS NOT NULL
                 ORDER BY expires_at LIMIT ?2)
             UNION ALL
             SELECT min(sequence) FROM (
                 SELECT sequence FROM message INDEXED BY message_scheduled_expiry
                 WHERE state = 'pending' AND due_at IS NOT NULL AND endpoint = ?1
                   AND expires_at IS NOT NULL
                 ORDER BY expires_at DESC LIMIT ?2)
             UNION ALL
             SELECT min(sequence) FROM message INDEXED BY message_scheduled_expiry
             WHERE state = 'pending' AND due_at IS NOT NULL AND endpoint = ?1 AND expires_at IS NULL
             UNION ALL
             SELECT min(sequence) FROM message INDEXED BY message_leased
             WHERE leased = 1 AND endpoint = ?1))",
    )?;
    let received_at = oldest
        .query_row((endpoint, OLDEST_SCANNED), |row| row.get(0))
        .optional()?;
    Ok(received_at.map(|at: i64| {
        let age = now.saturating_sub(at);
        Duration::from_millis(age.try_into().unwrap_or_default())
    }))
}
