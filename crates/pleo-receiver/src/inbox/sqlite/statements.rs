//! The statements of the dispatch and management commands, inside a transaction.

use core::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, Row};

use super::queries::origin;
use crate::inbox::types::{
    LeaseId, LeaseRequest, Leased, LeasedMessage, NewMessage, Outcome, Selection, State,
    ceil_millisecond, from_millisecond, to_u64,
};

/// The statements of one connection, which caches them.
pub(super) struct Statements<'a>(pub(super) &'a Connection);

impl Statements<'_> {
    pub(super) fn lease(
        &self,
        request: &LeaseRequest,
        now: Timestamp,
        lease: Duration,
    ) -> rusqlite::Result<Leased> {
        self.0
            .prepare_cached(
                "UPDATE message INDEXED BY message_waiting SET due_at = NULL, leased = 0
                 WHERE state = 'pending' AND due_at IS NOT NULL AND due_at <= ?1",
            )?
            .execute([now.as_millisecond()])?;
        let mut take = self.0.prepare_cached(
            "UPDATE message SET leased = 1, due_at = ?2, attempts = attempts + 1,
                 claims = claims + 1
             WHERE sequence = ?1
             RETURNING sequence, endpoint, webhook_id, received_at, origin, attempts, claims,
                 (SELECT body FROM body WHERE body.sequence = ?1) AS body",
        )?;
        let ends_at = ceil_millisecond(now.checked_add(lease).unwrap_or(Timestamp::MAX));
        let mut messages = Vec::new();
        for sequence in self.next_ready(request)? {
            messages.push(take.query_one((sequence, ends_at), leased_message)?);
        }
        let next_due = self
            .0
            .prepare_cached(
                "SELECT min(due_at) FROM message INDEXED BY message_waiting
                 WHERE state = 'pending' AND due_at IS NOT NULL",
            )?
            .query_row([], |row| row.get::<_, Option<i64>>(0))?;
        Ok(Leased {
            messages,
            next_due: next_due.map(from_millisecond),
        })
    }

    /// Finds the next ready messages in dispatch order. Reads no more messages of an endpoint than
    /// may be leased, so that a backlog of one endpoint does not delay the others.
    fn next_ready(&self, request: &LeaseRequest) -> rusqlite::Result<Vec<i64>> {
        let mut next_endpoint = self.0.prepare_cached(
            "SELECT min(endpoint) FROM message INDEXED BY message_ready
             WHERE state = 'pending' AND due_at IS NULL AND endpoint > ?1",
        )?;
        let mut of_endpoint = self.0.prepare_cached(
            "SELECT coalesce(expires_at, 9223372036854775807) AS expiry, sequence
             FROM message INDEXED BY message_ready
             WHERE state = 'pending' AND due_at IS NULL AND endpoint = ?1
             ORDER BY expiry, sequence LIMIT ?2",
        )?;
        let mut next: Vec<(i64, i64)> = Vec::new();
        let mut endpoint: Option<String> = self
            .0
            .prepare_cached(
                "SELECT min(endpoint) FROM message INDEXED BY message_ready
                 WHERE state = 'pending' AND due_at IS NULL",
            )?
            .query_row([], |row| row.get(0))?;
        while let Some(name) = endpoint {
            let limit = i64::try_from(request.max_of(&name)).unwrap_or(i64::MAX);
            let rows =
                of_endpoint.query_map((&name, limit), |row| Ok((row.get(0)?, row.get(1)?)))?;
            for row in rows {
                next.push(row?);
            }
            endpoint = next_endpoint.query_row([&name], |row| row.get(0))?;
        }
        next.sort_unstable();
        next.truncate(request.max);
        Ok(next.into_iter().map(|(_, sequence)| sequence).collect())
    }

    pub(super) fn complete(&self, lease: LeaseId, outcome: Outcome) -> rusqlite::Result<()> {
        let columns = outcome.into_columns();
        self.0
            .prepare_cached(
                "UPDATE message SET state = ?1, due_at = ?2, leased = 0, attempts = attempts - ?3,
                     last_error = coalesce(?4, last_error)
                 WHERE sequence = ?5 AND claims = ?6 AND state = 'pending' AND leased = 1",
            )?
            .execute((
                columns.state.as_str(),
                columns.due_at,
                columns.uncounted_attempts,
                columns.last_error,
                lease.message,
                lease.number,
            ))?;
        Ok(())
    }

    /// Replays those of the messages that still match. Only their state and lease can have changed
    /// since they were found.
    pub(super) fn replay(&self, sequences: &[i64], selection: &Selection) -> rusqlite::Result<u64> {
        let mut replay = self.0.prepare_cached(
            "UPDATE message SET state = 'pending', due_at = NULL, leased = 0, attempts = 0
             WHERE sequence = ?1 AND leased = 0 AND (?2 IS NULL OR state = ?2)",
        )?;
        let state = selection.state.map(State::as_str);
        let replayed = sequences
            .iter()
            .map(|sequence| replay.execute((sequence, state)));
        replayed.sum::<rusqlite::Result<usize>>().map(to_u64)
    }

    pub(super) fn prune(&self, sequences: &[i64], state: State) -> rusqlite::Result<u64> {
        let mut prune = self.0.prepare_cached(
            "DELETE FROM message
             WHERE sequence = ?1 AND state = ?2 AND state <> 'pending'",
        )?;
        let pruned = sequences
            .iter()
            .map(|sequence| prune.execute((sequence, state.as_str())));
        pruned.sum::<rusqlite::Result<usize>>().map(to_u64)
    }
}

fn leased_message(row: &Row<'_>) -> rusqlite::Result<LeasedMessage> {
    Ok(LeasedMessage {
        lease: LeaseId {
            message: row.get("sequence")?,
            number: row.get("claims")?,
        },
        message: NewMessage {
            endpoint: row.get::<_, String>("endpoint")?.into(),
            webhook_id: row.get("webhook_id")?,
            received_at: from_millisecond(row.get("received_at")?),
            origin: origin(row)?,
            body: row.get::<_, Vec<u8>>("body")?.into(),
        },
        attempt: row.get("attempts")?,
    })
}
