//! The one thread that writes, and the commands it takes.

use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use jiff::Timestamp;
use rusqlite::{Connection, Row, named_params};
use tokio::sync::{Notify, oneshot};
use tracing::error;

use super::{
    Appended, Claim, ClaimId, InboxError, NewMessage, Outcome, Selection, State, failed, origin,
    timestamp,
};
use crate::inbox::{Claimed, cut};

/// The most commands that share one commit.
const BATCH: usize = 1024;

/// Where the answer to a command goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, InboxError>>;

pub(super) enum Command {
    Append {
        message: NewMessage,
        /// What it counts against the limit of what may wait.
        size: usize,
        reply: Reply<Appended>,
    },
    Claim {
        limit: usize,
        now: Timestamp,
        lease: Duration,
        reply: Reply<Claim>,
    },
    Settle {
        claim: ClaimId,
        outcome: Outcome,
        reply: Reply<()>,
    },
    Replay {
        selection: Selection,
        reply: Reply<u64>,
    },
    Prune {
        state: State,
        before: Timestamp,
        reply: Reply<u64>,
    },
    Close {
        reply: Reply<()>,
    },
}

impl Command {
    fn refuse(self, error: InboxError) {
        // Whoever asked may be gone.
        match self {
            Self::Append { reply, .. } => drop(reply.send(Err(error))),
            Self::Claim { reply, .. } => drop(reply.send(Err(error))),
            Self::Settle { reply, .. } | Self::Close { reply } => drop(reply.send(Err(error))),
            Self::Replay { reply, .. } | Self::Prune { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// An answer that waits for the commit; given the error where that failed.
type Answer = Box<dyn FnOnce(Option<&InboxError>)>;

pub(super) struct Writer {
    connection: Connection,
    /// Held as long as this may write.
    lock: Option<File>,
    waiting: Arc<AtomicUsize>,
    ready: Arc<Notify>,
}

impl Writer {
    pub(super) const fn new(
        connection: Connection,
        lock: Option<File>,
        waiting: Arc<AtomicUsize>,
        ready: Arc<Notify>,
    ) -> Self {
        Self {
            connection,
            lock,
            waiting,
            ready,
        }
    }

    /// Works until it is told to close or nobody is left who could tell it anything. Commands behind
    /// a close are dropped, which their senders see as closed.
    pub(super) fn run(self, commands: &Receiver<Command>) {
        let mut closing = None;
        let mut answers = Vec::new();
        while closing.is_none()
            && let Ok(first) = commands.recv()
        {
            let mut failure = self
                .connection
                .execute_batch("BEGIN IMMEDIATE")
                .err()
                .map(failed);
            let mut ready = false;
            let others = core::iter::from_fn(|| commands.try_recv().ok());
            for command in core::iter::once(first).chain(others).take(BATCH) {
                if let Command::Close { reply } = command {
                    closing = Some(reply);
                    break;
                }
                if let Command::Append { size, .. } = &command {
                    self.waiting.fetch_sub(*size, Ordering::Relaxed);
                }
                if let Some(error) = &failure {
                    command.refuse(error.clone());
                    continue;
                }
                ready |= !matches!(command, Command::Claim { .. } | Command::Prune { .. });
                answers.push(self.perform(command));
                // A failed statement may have rolled the whole transaction back; what follows would
                // be on its own then, and told that it failed all the same.
                if self.connection.is_autocommit() {
                    failure = Some(rolled_back());
                }
            }
            if failure.is_none() {
                failure = self.commit().err().map(failed);
            }
            if let Some(error) = &failure {
                error!(%error, "the inbox could not commit");
            }
            for answer in answers.drain(..) {
                answer(failure.as_ref());
            }
            if ready {
                self.ready.notify_one();
            }
        }
        let closed = self.connection.close().map_err(|(_, error)| failed(error));
        drop(self.lock);
        if let Some(reply) = closing {
            // Nobody need wait for it.
            let _ = reply.send(closed);
        }
    }

    fn commit(&self) -> rusqlite::Result<()> {
        let result = self.connection.execute_batch("COMMIT");
        if result.is_err() && !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        result
    }

    fn perform(&self, command: Command) -> Answer {
        match command {
            Command::Append { message, reply, .. } => answer(reply, self.append(&message)),
            Command::Claim {
                limit,
                now,
                lease,
                reply,
            } => answer(reply, self.claim(limit, now, lease)),
            Command::Settle {
                claim,
                outcome,
                reply,
            } => answer(reply, self.settle(claim, outcome)),
            Command::Replay { selection, reply } => answer(reply, self.replay(selection)),
            Command::Prune {
                state,
                before,
                reply,
            } => answer(reply, self.prune(state, before)),
            Command::Close { reply } => answer(reply, Ok(())),
        }
    }

    fn append(&self, message: &NewMessage) -> rusqlite::Result<Appended> {
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO message
                 (endpoint, webhook_id, event_type, event_id, resource_id, origin, received_at,
                  expires_at, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (endpoint, webhook_id) DO NOTHING",
        )?;
        let inserted = insert.execute((
            &*message.endpoint,
            &message.webhook_id,
            &message.event_type,
            &message.event_id,
            &message.resource_id,
            message.origin.as_str(),
            message.received_at.as_millisecond(),
            message.expires_at.map(Timestamp::as_millisecond),
            &*message.body,
        ))?;
        if inserted == 1 {
            return Ok(Appended::Stored);
        }
        let mut compare = self.connection.prepare_cached(
            "SELECT body = ?3 FROM message WHERE endpoint = ?1 AND webhook_id = ?2",
        )?;
        let key = (&*message.endpoint, &message.webhook_id, &*message.body);
        let same = compare.query_row(key, |row| row.get(0))?;
        Ok(if same {
            Appended::Known
        } else {
            Appended::Conflict
        })
    }

    fn claim(&self, limit: usize, now: Timestamp, lease: Duration) -> rusqlite::Result<Claim> {
        self.connection
            .prepare_cached(
                "UPDATE message SET due_at = NULL, leased = 0
                 WHERE state = 'pending' AND due_at IS NOT NULL AND due_at <= ?1",
            )?
            .execute([now.as_millisecond()])?;
        let mut next = self.connection.prepare_cached(
            "UPDATE message SET leased = 1, due_at = :until, attempts = attempts + 1,
                 claims = claims + 1
             WHERE sequence = (
                 SELECT sequence FROM message WHERE state = 'pending' AND due_at IS NULL
                 ORDER BY coalesce(expires_at, 9223372036854775807), sequence LIMIT 1
             )
             RETURNING sequence, endpoint, webhook_id, received_at, event_type, event_id,
                 resource_id, origin, expires_at, attempts, claims, body",
        )?;
        let until = now.checked_add(lease).unwrap_or(Timestamp::MAX);
        let mut messages = Vec::new();
        while messages.len() < limit {
            let mut rows = next.query(named_params! { ":until": ceil(until) })?;
            let Some(row) = rows.next()? else { break };
            messages.push(claimed(row)?);
            // An UPDATE is done only when it was stepped to its end.
            while rows.next()?.is_some() {}
        }
        let next_due = self
            .connection
            .prepare_cached(
                "SELECT min(due_at) FROM message WHERE state = 'pending' AND due_at IS NOT NULL",
            )?
            .query_row([], |row| row.get::<_, Option<i64>>(0))?;
        Ok(Claim {
            messages,
            next_due: next_due.map(timestamp),
        })
    }

    fn settle(&self, claim: ClaimId, outcome: Outcome) -> rusqlite::Result<()> {
        let (state, due_at, error, uncounted) = match outcome {
            Outcome::Done => (State::Done, None, None, 0),
            Outcome::Retry { at, error } => (State::Pending, Some(ceil(at)), Some(error), 0),
            Outcome::Dead { error } => (State::Dead, None, Some(error), 0),
            Outcome::Release => (State::Pending, None, None, 1),
        };
        self.connection
            .prepare_cached(
                "UPDATE message SET state = :state, due_at = :due_at, leased = 0,
                     attempts = attempts - :uncounted, last_error = coalesce(:error, last_error)
                 WHERE sequence = :sequence AND claims = :number
                   AND state = 'pending' AND leased = 1",
            )?
            .execute(named_params! {
                ":state": state.as_str(),
                ":due_at": due_at,
                ":uncounted": uncounted,
                ":error": error.map(cut),
                ":sequence": claim.message,
                ":number": claim.number,
            })?;
        Ok(())
    }

    fn replay(&self, selection: Selection) -> rusqlite::Result<u64> {
        let (webhook_id, state) = match selection {
            Selection::WebhookId(webhook_id) => (Some(webhook_id), None),
            Selection::Dead => (None, Some(State::Dead.as_str())),
        };
        let replayed = self.connection.execute(
            "UPDATE message SET state = 'pending', due_at = NULL, leased = 0, attempts = 0
             WHERE leased = 0 AND (?1 IS NULL OR webhook_id = ?1) AND (?2 IS NULL OR state = ?2)",
            (webhook_id, state),
        )?;
        Ok(u64::try_from(replayed).unwrap_or(u64::MAX))
    }

    fn prune(&self, state: State, before: Timestamp) -> rusqlite::Result<u64> {
        let pruned = self.connection.execute(
            "DELETE FROM message WHERE state = ?1 AND received_at < ?2 AND leased = 0",
            (state.as_str(), before.as_millisecond()),
        )?;
        Ok(u64::try_from(pruned).unwrap_or(u64::MAX))
    }
}

fn rolled_back() -> InboxError {
    InboxError::Failed(Arc::from(Box::from("the transaction was rolled back")))
}

fn answer<T: 'static>(reply: Reply<T>, result: rusqlite::Result<T>) -> Answer {
    let result = result.map_err(failed);
    Box::new(move |failure| {
        // Whoever asked may be gone.
        let _ = reply.send(failure.cloned().map_or(result, Err));
    })
}

fn claimed(row: &Row<'_>) -> rusqlite::Result<Claimed> {
    Ok(Claimed {
        claim: ClaimId {
            message: row.get("sequence")?,
            number: row.get("claims")?,
        },
        message: NewMessage {
            endpoint: row.get::<_, String>("endpoint")?.into(),
            webhook_id: row.get("webhook_id")?,
            received_at: timestamp(row.get("received_at")?),
            event_type: row.get("event_type")?,
            event_id: row.get("event_id")?,
            resource_id: row.get("resource_id")?,
            origin: origin(row)?,
            expires_at: row.get::<_, Option<i64>>("expires_at")?.map(timestamp),
            body: row.get::<_, Vec<u8>>("body")?.into(),
        },
        attempt: row.get("attempts")?,
    })
}

/// In milliseconds, rounded up: nothing is due before its time.
fn ceil(at: Timestamp) -> i64 {
    let millisecond = at.as_millisecond();
    if at.subsec_nanosecond() % 1_000_000 > 0 {
        millisecond + 1
    } else {
        millisecond
    }
}
