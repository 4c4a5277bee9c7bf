//! The queries that only read.

use core::num::NonZeroU32;
use core::time::Duration;

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, ToSql};

use crate::inbox::attempt::{Attempt, AttemptResult};
use crate::inbox::message::{
    Entry, Key, Origin, State, StoredHeaders, StoredMessage, ceil_millisecond, from_millisecond,
};
use crate::inbox::query::{Page, Query, Selection};

/// The columns of [`entry`].
const ENTRY_COLUMNS: &str = "sequence, endpoint, webhook_id, event_type, event_id, resource_id, \
    origin, source, state, leased, attempts, received_at, expires_at, due_at, last_error";

/// The conditions of a selection, except its limit. Only those that are set, so that SQLite chooses
/// the best index for them.
struct Conditions {
    sql: String,
    values: Vec<(&'static str, Value)>,
}

impl Conditions {
    fn new(selection: &Selection) -> Self {
        let text = |value: &Option<String>| value.clone().map(Value::Text);
        let time = |at: Option<Timestamp>| at.map(ceil_millisecond).map(Value::Integer);
        let conditions = [
            ("webhook_id = :webhook_id", text(&selection.webhook_id)),
            ("endpoint = :endpoint", text(&selection.endpoint)),
            ("event_type = :event_type", text(&selection.event_type)),
            ("event_id = :event_id", text(&selection.event_id)),
            ("resource_id = :resource_id", text(&selection.resource_id)),
            ("received_at >= :since", time(selection.since)),
            ("received_at < :until", time(selection.until)),
        ];
        // As a literal, so that the index of dead messages serves.
        let mut sql = match selection.state {
            Some(State::Pending) => "state = 'pending'",
            Some(State::Done) => "state = 'done'",
            Some(State::Dead) => "state = 'dead'",
            None => "TRUE",
        }
        .to_owned();
        let mut values = Vec::new();
        for (condition, value) in conditions {
            if let (Some(value), Some((_, name))) = (value, condition.rsplit_once(' ')) {
                sql.extend([" AND ", condition]);
                values.push((name, value));
            }
        }
        Self { sql, values }
    }

    /// Returns the parameters of these and other conditions.
    fn with<'a>(&'a self, others: &'a [(&'a str, Value)]) -> Vec<(&'a str, &'a dyn ToSql)> {
        let values = self.values.iter().chain(others);
        values
            .map(|(name, value)| {
                let value: &dyn ToSql = value;
                (*name, value)
            })
            .collect()
    }
}

pub(super) fn list(connection: &Connection, query: &Query) -> rusqlite::Result<Page> {
    let Query {
        selection,
        limit,
        after,
        newest_first,
        ..
    } = query;
    let (order, follows, start) = if *newest_first {
        ("DESC", "<", i64::MAX)
    } else {
        ("ASC", ">", i64::MIN)
    };
    let conditions = Conditions::new(selection);
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {ENTRY_COLUMNS},
                (SELECT length(body) FROM body WHERE body.sequence = message.sequence) AS body_len
         FROM message WHERE sequence {follows} :after AND {}
         ORDER BY sequence {order} LIMIT :limit",
        conditions.sql
    ))?;
    let others = [
        (
            ":after",
            after.map_or(start, |after| after.sequence()).into(),
        ),
        // One more shows whether there are more.
        (":limit", (i64::from(*limit) + 1).into()),
    ];
    let rows = statement.query_map(&*conditions.with(&others), |row| {
        let body_len: Option<u64> = row.get("body_len")?;
        entry(row, body_len.unwrap_or_default())
    })?;
    let mut entries = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
    let has_more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| has_more).map(Entry::cursor);
    Ok(Page::new(entries, next))
}

pub(super) fn get(connection: &Connection, key: &Key) -> rusqlite::Result<Option<StoredMessage>> {
    let sequence = connection
        .prepare_cached("SELECT sequence FROM message WHERE endpoint = ?1 AND webhook_id = ?2")?
        .query_row((&*key.endpoint, &*key.webhook_id), |row| row.get(0))
        .optional()?;
    sequence
        .map(|sequence| stored(connection, sequence))
        .transpose()
}

/// Returns a message with its body and its attempts.
pub(super) fn stored(connection: &Connection, sequence: i64) -> rusqlite::Result<StoredMessage> {
    let mut message = message(connection, sequence)?;
    let mut attempts = connection.prepare_cached(
        "SELECT number, worker, started_at, duration, result, error FROM attempt
         WHERE sequence = ?1 ORDER BY n",
    )?;
    let attempts = attempts.query_map([sequence], attempt)?;
    message.attempts = attempts.collect::<rusqlite::Result<_>>()?;
    Ok(message)
}

/// Returns a message with its body, without its attempts.
pub(super) fn message(connection: &Connection, sequence: i64) -> rusqlite::Result<StoredMessage> {
    let mut body =
        connection.prepare_cached("SELECT body, headers FROM body WHERE sequence = ?1")?;
    let (body, headers) = body.query_row([sequence], |row| {
        let headers: Option<String> = row.get(1)?;
        Ok((row.get::<_, Vec<u8>>(0)?, headers.unwrap_or_default()))
    })?;
    let body_len = u64::try_from(body.len()).unwrap_or(u64::MAX);
    let mut message = connection.prepare_cached(&format!(
        "SELECT {ENTRY_COLUMNS} FROM message WHERE sequence = ?1"
    ))?;
    let entry = message.query_row([sequence], |row| entry(row, body_len))?;
    let headers = StoredHeaders::from_text(headers);
    Ok(StoredMessage::new(entry, headers, body.into()))
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
    limit: u64,
) -> rusqlite::Result<Vec<i64>> {
    let conditions = Conditions::new(selection);
    let mut find = connection.prepare_cached(&format!(
        "SELECT sequence FROM message
         WHERE leased = 0 AND sequence > :after AND sequence <= :last AND {}
         ORDER BY sequence LIMIT :limit",
        conditions.sql
    ))?;
    let others = [
        (":after", after.into()),
        (":last", last.into()),
        (":limit", i64::try_from(limit).unwrap_or(i64::MAX).into()),
    ];
    let found = find.query_map(&*conditions.with(&others), |row| row.get(0))?;
    found.collect()
}

fn entry(row: &Row<'_>, body_len: u64) -> rusqlite::Result<Entry> {
    let time = |column| {
        row.get::<_, Option<i64>>(column)
            .map(|at| at.map(from_millisecond))
    };
    let source: Option<String> = row.get("source")?;
    Ok(Entry {
        sequence: row.get("sequence")?,
        endpoint: row.get("endpoint")?,
        webhook_id: row.get("webhook_id")?,
        event_type: row.get("event_type")?,
        event_id: row.get("event_id")?,
        resource_id: row.get("resource_id")?,
        // The schema allows these two.
        origin: match row.get_ref("origin")?.as_str()? {
            "catch-up" => Origin::CatchUp,
            _ => Origin::Webhook,
        },
        source: source.and_then(|source| source.parse().ok()),
        // The schema allows these three.
        state: match row.get_ref("state")?.as_str()? {
            "done" => State::Done,
            "dead" => State::Dead,
            _ => State::Pending,
        },
        leased: row.get("leased")?,
        attempts: row.get("attempts")?,
        received_at: from_millisecond(row.get("received_at")?),
        expires_at: time("expires_at")?,
        due_at: time("due_at")?,
        last_error: row.get("last_error")?,
        body_len,
    })
}

fn attempt(row: &Row<'_>) -> rusqlite::Result<Attempt> {
    let duration: Option<u64> = row.get("duration")?;
    let result = match row.get_ref("result")?.as_str()? {
        "done" => AttemptResult::Done,
        "retry" => AttemptResult::Retry,
        "dead" => AttemptResult::Dead,
        "released" => AttemptResult::Released,
        _ => AttemptResult::Lost,
    };
    let number: u32 = row.get("number")?;
    Ok(Attempt::new(
        NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN),
        row.get::<_, String>("worker")?,
        from_millisecond(row.get("started_at")?),
        duration.map(Duration::from_millis),
        result,
        row.get("error")?,
    ))
}
