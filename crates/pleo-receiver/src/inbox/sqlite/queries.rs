//! The queries that only read.

use bytes::Bytes;
use rusqlite::{Connection, Row, named_params, params};

use crate::inbox::types::{
    Counts, Entry, Filter, Origin, Selection, State, ceil_millisecond, from_millisecond,
};

/// The columns of [`entry`], without the body.
const ENTRY_COLUMNS: &str =
    "sequence, endpoint, webhook_id, event_type, event_id, resource_id, origin,
    state, attempts, received_at, expires_at, due_at, last_error,
    (SELECT length(body) FROM body WHERE body.sequence = message.sequence) AS body_len";

pub(super) fn list(connection: &Connection, filter: Filter) -> rusqlite::Result<Vec<Entry>> {
    let order = if filter.newest_first { "DESC" } else { "ASC" };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {ENTRY_COLUMNS} FROM message
         WHERE sequence > :after AND (:state IS NULL OR state = :state)
           AND (:endpoint IS NULL OR endpoint = :endpoint)
         ORDER BY sequence {order} LIMIT :limit"
    ))?;
    let rows = statement.query_map(
        named_params! {
            ":after": filter.after.unwrap_or(i64::MIN),
            ":state": filter.state.map(State::as_str),
            ":endpoint": filter.endpoint,
            ":limit": filter.limit.map_or(-1, i64::from),
        },
        entry,
    )?;
    rows.collect()
}

pub(super) fn show(
    connection: &Connection,
    webhook_id: &str,
) -> rusqlite::Result<Vec<(Entry, Bytes)>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {ENTRY_COLUMNS},
                (SELECT body FROM body WHERE body.sequence = message.sequence) AS body
         FROM message WHERE webhook_id = ?1 ORDER BY sequence"
    ))?;
    let rows = statement.query_map([webhook_id], |row| {
        Ok((entry(row)?, row.get::<_, Vec<u8>>("body")?.into()))
    })?;
    rows.collect()
}

/// Counts in one statement, so that a message that changes its state is counted once. The subqueries
/// read only indexes.
pub(super) fn counts(connection: &Connection) -> rusqlite::Result<Counts> {
    let mut count = connection.prepare_cached(
        "SELECT (SELECT count(*) FROM message INDEXED BY message_ready
                 WHERE state = 'pending' AND due_at IS NULL)
              + (SELECT count(*) FROM message INDEXED BY message_waiting
                 WHERE state = 'pending' AND due_at IS NOT NULL),
                (SELECT count(*) FROM message INDEXED BY message_dead
                 WHERE state = 'dead'),
                (SELECT count(*) FROM message)",
    )?;
    count.query_row([], |row| {
        let (pending, dead, all): (u64, u64, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let done = all.saturating_sub(pending + dead);
        Ok(Counts {
            pending,
            done,
            dead,
        })
    })
}

/// Returns the sequence of the last message; 0 if there are none.
pub(super) fn last_sequence(connection: &Connection) -> rusqlite::Result<i64> {
    let last = "SELECT coalesce(max(sequence), 0) FROM message";
    connection.query_row(last, [], |row| row.get(0))
}

/// Finds the first `limit` selected messages that are not leased and whose sequence is greater than
/// `after` and at most `last`.
pub(super) fn find(
    connection: &Connection,
    selection: &Selection,
    after: i64,
    last: i64,
    limit: u32,
) -> rusqlite::Result<Vec<i64>> {
    let mut find = connection.prepare_cached(
        "SELECT sequence FROM message
         WHERE (?1 IS NULL OR webhook_id = ?1) AND (?2 IS NULL OR endpoint = ?2)
           AND (?3 IS NULL OR event_type = ?3) AND (?4 IS NULL OR state = ?4)
           AND (?5 IS NULL OR received_at >= ?5) AND (?6 IS NULL OR received_at < ?6)
           AND leased = 0 AND sequence > ?7 AND sequence <= ?8
         ORDER BY sequence LIMIT ?9",
    )?;
    let found = find.query_map(
        params![
            selection.webhook_id,
            selection.endpoint,
            selection.event_type,
            selection.state.map(State::as_str),
            selection.since.map(ceil_millisecond),
            selection.until.map(ceil_millisecond),
            after,
            last,
            limit
        ],
        |row| row.get(0),
    )?;
    found.collect()
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        sequence: row.get("sequence")?,
        endpoint: row.get("endpoint")?,
        webhook_id: row.get("webhook_id")?,
        event_type: row.get("event_type")?,
        event_id: row.get("event_id")?,
        resource_id: row.get("resource_id")?,
        origin: origin(row)?,
        // The schema allows these three.
        state: match row.get_ref("state")?.as_str()? {
            "done" => State::Done,
            "dead" => State::Dead,
            _ => State::Pending,
        },
        attempts: row.get("attempts")?,
        received_at: from_millisecond(row.get("received_at")?),
        expires_at: row
            .get::<_, Option<i64>>("expires_at")?
            .map(from_millisecond),
        due_at: row.get::<_, Option<i64>>("due_at")?.map(from_millisecond),
        last_error: row.get("last_error")?,
        body_len: row.get("body_len")?,
    })
}

pub(super) fn origin(row: &Row<'_>) -> rusqlite::Result<Origin> {
    // The schema allows these two.
    Ok(match row.get_ref("origin")?.as_str()? {
        "catch-up" => Origin::CatchUp,
        _ => Origin::Webhook,
    })
}
