//! Reads of lists, single messages and statistics.

use core::time::Duration;
use std::sync::Arc;
use std::time::SystemTime;

use tokio_postgres::types::{ToSql, Type};

use super::error::Failure;
use super::rows::{self, ENTRY};
use super::session::{Param, Session};
use super::text::{decode, encode};
use crate::inbox::message::{Entry, Key, State, StoredMessage};
use crate::inbox::query::{EndpointStats, OLDEST_SCANNED, Page, Query, Selection};

/// Waits until all messages with lower sequences than [`LAST`] are committed, and lets no other begin.
const WAIT_FOR_APPENDS: &str = "SELECT pg_advisory_xact_lock(hashtextextended('inbox append', 0))";

const LAST: &str = "SELECT last_value FROM inbox.message_sequence";

const ATTEMPTS: &str = "
    SELECT number, worker, started_at, (extract(epoch FROM duration) * 1000000)::bigint AS duration,
           result, error
    FROM inbox.attempt JOIN inbox.message USING (sequence)
    WHERE webhook_id = $1 AND endpoint = $2 ORDER BY n
";

/// Reads counters, all messages that are leased or scheduled, and a part of those that are ready.
const STATS: &str = "
    WITH counted AS (
        SELECT endpoint, sum(pending)::bigint AS pending, sum(scheduled)::bigint AS scheduled,
               sum(done)::bigint AS done, sum(dead)::bigint AS dead,
               max(delivered_at) AS delivered_at
        FROM inbox.tally GROUP BY endpoint
    ),
    waiting AS MATERIALIZED (
        SELECT endpoint, count(lease) AS leased, count(*) FILTER (WHERE due_at <= inbox.clock()) AS due,
               min(sequence) AS first,
               min(expires_at) FILTER (WHERE expires_at > inbox.clock() AND expires_at < 'infinity')
                   AS nearest_expiry,
               count(*) FILTER (WHERE expires_at <= inbox.clock()) AS expired
        FROM (SELECT * FROM inbox.dispatch WHERE lease IS NOT NULL
              UNION ALL
              SELECT * FROM inbox.dispatch WHERE due_at IS NOT NULL) AS leased_or_scheduled
        GROUP BY endpoint
    )
    SELECT endpoint, paused.endpoint IS NOT NULL AS paused, coalesce(pending, 0) AS pending,
           coalesce(scheduled, 0) AS scheduled, coalesce(done, 0) AS done, coalesce(dead, 0) AS dead,
           coalesce(leased, 0) AS leased, coalesce(due, 0) AS due, delivered_at,
           (SELECT (extract(epoch FROM inbox.clock() - received_at) * 1000000)::bigint
            FROM inbox.message WHERE sequence = least(
                waiting.first,
                (SELECT min(sequence) FROM (
                    (SELECT sequence FROM inbox.dispatch
                     WHERE state = 'pending' AND lease IS NULL AND due_at IS NULL
                       AND dispatch.endpoint = counted.endpoint AND expires_at < 'infinity'
                     ORDER BY expires_at LIMIT $1)
                    UNION ALL
                    (SELECT sequence FROM inbox.dispatch
                     WHERE state = 'pending' AND lease IS NULL AND due_at IS NULL
                       AND dispatch.endpoint = counted.endpoint AND expires_at < 'infinity'
                     ORDER BY expires_at DESC LIMIT $1)
                    UNION ALL
                    (SELECT sequence FROM inbox.dispatch
                     WHERE state = 'pending' AND lease IS NULL AND due_at IS NULL
                       AND dispatch.endpoint = counted.endpoint AND expires_at >= 'infinity'
                     ORDER BY expires_at, sequence LIMIT 1)
                ) AS ready))
           ) AS oldest,
           least(
               waiting.nearest_expiry,
               (SELECT expires_at FROM inbox.dispatch
                WHERE state = 'pending' AND lease IS NULL AND due_at IS NULL
                  AND dispatch.endpoint = counted.endpoint
                  AND expires_at > inbox.clock() AND expires_at < 'infinity'
                ORDER BY expires_at LIMIT 1)
           ) AS nearest_expiry,
           coalesce(waiting.expired, 0)
           + (SELECT count(*) FROM inbox.dispatch
              WHERE state = 'pending' AND lease IS NULL AND due_at IS NULL
                AND dispatch.endpoint = counted.endpoint AND expires_at <= inbox.clock()) AS expired
    FROM counted
    FULL JOIN inbox.paused USING (endpoint)
    LEFT JOIN waiting USING (endpoint)
    ORDER BY endpoint
";

const SIZE: &str = "
    SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
    WHERE relkind = 'r' AND relnamespace = (
        SELECT relnamespace FROM pg_class WHERE oid = 'inbox.message'::regclass)
";

/// Conditions of a selection, with their values.
#[derive(Default)]
pub(super) struct Conditions {
    sql: String,
    values: Vec<(Box<dyn ToSql + Send + Sync>, Type)>,
}

impl Conditions {
    pub(super) fn new(selection: &Selection) -> Self {
        let mut conditions = Self::default();
        // Each part of the pending messages has an index.
        conditions.sql += match selection.state {
            Some(State::Pending) => {
                "(state = 'pending' AND (
                     (lease IS NULL AND due_at IS NULL) OR due_at IS NOT NULL OR lease IS NOT NULL))"
            }
            Some(State::Done) => "state = 'done'",
            Some(State::Dead) => "state = 'dead'",
            None => "TRUE",
        };
        for (column, value) in [
            ("message.webhook_id", &selection.webhook_id),
            ("message.endpoint", &selection.endpoint),
            ("event_type", &selection.event_type),
            ("event_id", &selection.event_id),
            ("resource_id", &selection.resource_id),
        ] {
            if let Some(value) = value {
                let value = encode(value).into_owned();
                conditions.add(&format!("{column} ="), value, Type::TEXT);
            }
        }
        if let Some(since) = selection.since {
            conditions.add("received_at >=", rows::bound(since), Type::TIMESTAMPTZ);
        }
        if let Some(until) = selection.until {
            conditions.add("received_at <", rows::bound(until), Type::TIMESTAMPTZ);
        }
        conditions
    }

    fn add(&mut self, condition: &str, value: impl ToSql + Send + Sync + 'static, kind: Type) {
        self.values.push((Box::new(value), kind));
        self.sql += &format!(" AND {condition} ${}", self.values.len());
    }

    fn params(&self) -> Vec<Param<'_>> {
        let values = self.values.iter();
        values
            .map(|(value, kind)| -> Param<'_> { (&**value, kind.clone()) })
            .collect()
    }
}

pub(super) async fn list(session: &Session, query: &Query) -> Result<Page, Failure> {
    let [_, last] = session
        .transaction([(WAIT_FOR_APPENDS, &[]), (LAST, &[])])
        .await?;
    let last: i64 = last.first().ok_or(Failure::Lost)?.try_get(0)?;
    let mut conditions = Conditions::new(&query.selection);
    conditions.add("message.sequence <=", last, Type::INT8);
    if let Some(after) = query.after {
        let follows = if query.newest_first {
            "message.sequence <"
        } else {
            "message.sequence >"
        };
        conditions.add(follows, after.sequence(), Type::INT8);
    }
    let order = if query.newest_first { "DESC" } else { "ASC" };
    // One more shows whether there are more.
    let limit = i64::from(query.limit) + 1;
    let sql = format!(
        "SELECT {ENTRY} FROM inbox.message JOIN inbox.dispatch USING (sequence)
         WHERE {} ORDER BY message.sequence {order} LIMIT {limit}",
        conditions.sql
    );
    let rows = session.query_text(&sql, &conditions.params()).await?;
    let entries = rows.iter().map(rows::entry);
    let mut entries = entries.collect::<rows::Result<Vec<_>>>()?;
    let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let has_more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| has_more).map(Entry::cursor);
    Ok(Page::new(entries, next))
}

pub(super) async fn get(session: &Session, key: &Key) -> Result<Option<StoredMessage>, Failure> {
    let (endpoint, webhook_id) = (encode(&key.endpoint), encode(&key.webhook_id));
    let params: [Param<'_>; 2] = [(&webhook_id, Type::TEXT), (&endpoint, Type::TEXT)];
    let message = format!(
        "SELECT {ENTRY}, headers, body FROM inbox.message JOIN inbox.dispatch USING (sequence)
         WHERE webhook_id = $1 AND message.endpoint = $2"
    );
    let rows = session.query_text(&message, &params).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let mut message = rows::message(row)?;
    let attempts = session.query(ATTEMPTS, &params).await?;
    let attempts = attempts.iter().map(rows::attempt);
    message.attempts = attempts.collect::<rows::Result<_>>()?;
    Ok(Some(message))
}

pub(super) async fn stats(session: &Session) -> Result<Vec<EndpointStats>, Failure> {
    let scanned = i64::from(OLDEST_SCANNED);
    let rows = session.query(STATS, &[(&scanned, Type::INT8)]).await?;
    let mut all = Vec::with_capacity(rows.len());
    for row in &rows {
        let count = |column| -> rows::Result<u64> {
            Ok(row
                .try_get::<_, i64>(column)?
                .try_into()
                .unwrap_or_default())
        };
        let endpoint = decode(row.try_get("endpoint")?);
        let mut stats = EndpointStats::new(endpoint);
        let (pending, scheduled, due) = (count("pending")?, count("scheduled")?, count("due")?);
        stats.paused = row.try_get("paused")?;
        stats.leased = count("leased")?;
        stats.scheduled = scheduled.saturating_sub(due);
        stats.ready = pending.saturating_sub(stats.leased + stats.scheduled);
        stats.done = count("done")?;
        stats.dead = count("dead")?;
        stats.expired = count("expired")?;
        let delivered: Option<SystemTime> = row.try_get("delivered_at")?;
        stats.delivered_at = delivered.map(rows::millisecond);
        let oldest: Option<i64> = row.try_get("oldest")?;
        // The age is negative if the clock was set back.
        stats.oldest_pending =
            oldest.map(|age| Duration::from_micros(age.try_into().unwrap_or_default()));
        let nearest: Option<SystemTime> = row.try_get("nearest_expiry")?;
        stats.nearest_expiry = nearest.map(rows::exact);
        if stats.paused || stats.pending() + stats.done + stats.dead > 0 {
            all.push(stats);
        }
    }
    Ok(all)
}

/// Returns the size of the tables with their indexes in bytes.
pub(super) async fn size(session: &Session) -> Result<u64, Failure> {
    let rows = session.query(SIZE, &[]).await?;
    let size: i64 = rows.first().ok_or(Failure::Lost)?.try_get(0)?;
    Ok(size.unsigned_abs())
}

/// Returns the sequence of the last message; 0 if there are none.
pub(super) async fn last_sequence(session: &Session) -> Result<i64, Failure> {
    let last = "SELECT coalesce(max(sequence), 0) FROM inbox.message";
    let rows = session.query(last, &[]).await?;
    Ok(rows.first().ok_or(Failure::Lost)?.try_get(0)?)
}

/// Finds the first `limit` selected messages whose sequence is greater than `after` and at most `last`,
/// and that also satisfy `condition`.
pub(super) async fn find(
    session: &Session,
    selection: &Arc<Selection>,
    condition: &str,
    (after, last): (i64, i64),
    limit: u64,
) -> Result<Vec<i64>, Failure> {
    let mut conditions = Conditions::new(selection);
    conditions.add("message.sequence >", after, Type::INT8);
    conditions.add("message.sequence <=", last, Type::INT8);
    let sql = format!(
        "SELECT sequence FROM inbox.message JOIN inbox.dispatch USING (sequence)
         WHERE {} AND {condition} ORDER BY message.sequence LIMIT {limit}",
        conditions.sql
    );
    let rows = session.query_text(&sql, &conditions.params()).await?;
    let sequences = rows.iter().map(|row| Ok(row.try_get(0)?));
    sequences.collect()
}
