//! Appends, inside a transaction.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{CachedStatement, Connection};

use crate::inbox::message::{Appended, Entry, NewMessage, Origin, StoredHeaders};

/// A message to append with its entry. Parsed before it is queued, so that the writer does not parse.
pub(super) struct ParsedMessage {
    entry: Entry,
    headers: StoredHeaders,
    body: Bytes,
}

impl ParsedMessage {
    pub(super) fn parse(message: NewMessage, received_at: Timestamp) -> Self {
        // The writer chooses the sequence.
        let entry = Entry::new(0, received_at, &message);
        Self {
            entry,
            headers: message.headers,
            body: message.body,
        }
    }
}

/// The appends of one transaction.
pub(super) struct Appends<'c> {
    connection: &'c Connection,
    message: CachedStatement<'c>,
    body: CachedStatement<'c>,
    /// The inserted messages by endpoint.
    inserted: HashMap<Arc<str>, Inserted>,
    /// The sequence of the next new message.
    next_sequence: i64,
}

/// The inserted messages of one endpoint.
#[derive(Default)]
struct Inserted {
    messages: u64,
    /// When the last one arrived that the sender posted.
    delivered_at: Option<i64>,
}

impl<'c> Appends<'c> {
    pub(super) fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        let next_sequence = connection
            .prepare_cached(
                "SELECT 1 + max((SELECT coalesce(max(sequence), 0) FROM message),
                                (SELECT sequence FROM last_deleted))",
            )?
            .query_row([], |row| row.get(0))?;
        Ok(Self {
            connection,
            message: connection.prepare_cached(
                "INSERT INTO message
                     (sequence, endpoint, webhook_id, event_type, event_id, resource_id, origin,
                      received_at, expires_at, source)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 ON CONFLICT (webhook_id, endpoint) DO NOTHING",
            )?,
            body: connection
                .prepare_cached("INSERT INTO body (sequence, body, headers) VALUES (?1, ?2, ?3)")?,
            inserted: HashMap::new(),
            next_sequence,
        })
    }

    /// Records the number of inserted messages, before the commit.
    pub(super) fn record_stats(self) -> rusqlite::Result<()> {
        let mut record = self.connection.prepare_cached(
            "INSERT INTO endpoint_stats (endpoint, pending, scheduled, done, dead, delivered_at)
             VALUES (?1, ?2, 0, 0, 0, ?3)
             ON CONFLICT (endpoint) DO UPDATE SET
                 pending = pending + excluded.pending,
                 delivered_at = coalesce(excluded.delivered_at, delivered_at)",
        )?;
        for (endpoint, inserted) in &self.inserted {
            record.execute((&**endpoint, inserted.messages, inserted.delivered_at))?;
        }
        Ok(())
    }

    pub(super) fn append(&mut self, parsed: &ParsedMessage) -> rusqlite::Result<Appended> {
        let ParsedMessage {
            entry,
            headers,
            body,
        } = parsed;
        let inserted = self.message.execute((
            self.next_sequence,
            &*entry.endpoint,
            &entry.webhook_id,
            &entry.event_type,
            &entry.event_id,
            &entry.resource_id,
            entry.origin.as_str(),
            entry.received_at.as_millisecond(),
            entry.expires_at.map(Timestamp::as_millisecond),
            entry.source.map(|source| source.to_string()),
        ))?;
        if inserted == 0 {
            return self.compare(entry, body);
        }
        self.count(entry);
        let headers = headers.as_text();
        let headers = (!headers.is_empty()).then_some(headers);
        let row = (self.next_sequence, &**body, headers);
        if let Err(error) = self.body.execute(row) {
            self.undo_insert()?;
            return Err(error);
        }
        self.next_sequence += 1;
        Ok(Appended::Stored)
    }

    fn count(&mut self, entry: &Entry) {
        let inserted = match self.inserted.get_mut(&entry.endpoint) {
            Some(inserted) => inserted,
            None => (self.inserted.entry(Arc::clone(&entry.endpoint))).or_default(),
        };
        inserted.messages += 1;
        if entry.origin == Origin::Webhook {
            inserted.delivered_at = Some(entry.received_at.as_millisecond());
        }
    }

    fn compare(&self, entry: &Entry, body: &[u8]) -> rusqlite::Result<Appended> {
        let mut compare = self.connection.prepare_cached(
            "SELECT body = ?3 FROM message JOIN body USING (sequence)
             WHERE endpoint = ?1 AND webhook_id = ?2",
        )?;
        let key = (&*entry.endpoint, &entry.webhook_id, body);
        let same = compare.query_row(key, |row| row.get(0))?;
        Ok(if same {
            Appended::Duplicate
        } else {
            Appended::Conflict
        })
    }

    /// Deletes a message whose body could not be inserted, which also uncounts it. If that fails too, rolls back the
    /// transaction.
    fn undo_insert(&self) -> rusqlite::Result<()> {
        if self.connection.is_autocommit() {
            return Ok(());
        }
        let mut delete = self
            .connection
            .prepare_cached("DELETE FROM message WHERE sequence = ?1")?;
        if delete.execute([self.next_sequence]).is_err() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        Ok(())
    }
}
