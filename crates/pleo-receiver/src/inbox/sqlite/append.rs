//! Appends, inside of a transaction.

use jiff::Timestamp;
use rusqlite::{CachedStatement, Connection};

use super::{Appended, NewMessage};
use crate::inbox::Known;

/// A message, and what its row says of the body: that is read before it gets to the writer, so that
/// nobody waits meanwhile.
pub(super) struct New {
    pub(super) message: NewMessage,
    known: Known,
}

impl New {
    pub(super) fn read(message: NewMessage) -> Self {
        let known = Known::of(message.summary());
        Self { message, known }
    }
}

/// The appends of one transaction.
pub(super) struct Appends<'c> {
    connection: &'c Connection,
    message: CachedStatement<'c>,
    body: CachedStatement<'c>,
    /// The place of the next message that is new.
    next: i64,
}

impl<'c> Appends<'c> {
    pub(super) fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        let next = connection
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
                      received_at, expires_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (webhook_id, endpoint) DO NOTHING",
            )?,
            body: connection.prepare_cached("INSERT INTO body (sequence, body) VALUES (?1, ?2)")?,
            next,
        })
    }

    pub(super) fn append(&mut self, new: &New) -> rusqlite::Result<Appended> {
        let New { message, known } = new;
        let inserted = self.message.execute((
            self.next,
            &*message.endpoint,
            &message.webhook_id,
            &known.event_type,
            &known.event_id,
            &known.resource_id,
            message.origin.as_str(),
            message.received_at.as_millisecond(),
            known.expires_at.map(Timestamp::as_millisecond),
        ))?;
        if inserted == 0 {
            return self.compare(message);
        }
        if let Err(error) = self.body.execute((self.next, &*message.body)) {
            self.take_back()?;
            return Err(error);
        }
        self.next += 1;
        Ok(Appended::Stored)
    }

    fn compare(&self, message: &NewMessage) -> rusqlite::Result<Appended> {
        let mut compare = self.connection.prepare_cached(
            "SELECT body = ?3 FROM message JOIN body USING (sequence)
             WHERE endpoint = ?1 AND webhook_id = ?2",
        )?;
        let key = (&*message.endpoint, &message.webhook_id, &*message.body);
        let same = compare.query_row(key, |row| row.get(0))?;
        Ok(if same {
            Appended::Duplicate
        } else {
            Appended::Conflict
        })
    }

    /// Half a message must not be stored; better nothing of the whole transaction.
    fn take_back(&self) -> rusqlite::Result<()> {
        if self.connection.is_autocommit() {
            return Ok(());
        }
        let mut delete = self
            .connection
            .prepare_cached("DELETE FROM message WHERE sequence = ?1")?;
        if delete.execute([self.next]).is_err() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        Ok(())
    }
}
