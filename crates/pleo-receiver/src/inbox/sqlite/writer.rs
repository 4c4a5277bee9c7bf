//! The writer thread and its commands.

use core::iter;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

use super::append::{Appends, ParsedMessage};
use super::batches::QueuedAppend;
use super::checkpoint::Checkpointer;
use super::command::Command;
use super::dispatching::DispatchState;
use super::error::{is_damage, is_flush_failure, unavailable};
use super::file::{self, OpenFiles};
use super::lock::ServerLock;
use super::replies::{PendingReplies, Reply};
use super::{managing, rewrite};
use crate::inbox::error::{InboxError, InboxErrorKind};
use crate::inbox::message::Appended;
use crate::inbox::meter::Meter;
use crate::telemetry::{self, RateLimit};

/// The most commands in one transaction.
const MAX_BATCH: usize = 1024;

/// Whether the writer can store messages, for [`Inbox::check`](crate::Inbox::check).
pub(super) type Health = Arc<Mutex<Result<(), InboxError>>>;

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) files: OpenFiles,
    /// `None` if the inbox is shared.
    pub(super) checkpointer: Option<Checkpointer>,
    /// Held while the writer runs; `None` if the inbox is shared.
    pub(super) lock: Option<ServerLock>,
    pub(super) meter: Arc<Meter>,
    pub(super) version: watch::Sender<u64>,
    pub(super) health: Health,
    pub(super) log_limit: RateLimit,
}

impl Writer {
    /// Executes commands until `Close`, or until all senders are dropped. Drops commands after
    /// `Close`; their callers get [`InboxErrorKind::Closed`].
    pub(super) fn run(self, mut commands: UnboundedReceiver<Command>, mut dispatch: DispatchState) {
        let mut closing = None;
        let mut batch = Vec::new();
        while closing.is_none() && commands.blocking_recv_many(&mut batch, MAX_BATCH) > 0 {
            let begun = self.begin(batch.iter().any(Command::is_durable));
            if begun.is_err() {
                // `begin` may have waited for the busy timeout, and each further batch would wait
                // again. So the commands that arrived since are refused too.
                batch.extend(iter::from_fn(|| commands.try_recv().ok()));
            }
            let close = (batch.iter()).position(|command| matches!(command, Command::Close { .. }));
            if let Some(close) = close
                && let Some(Command::Close { reply }) = batch.drain(close..).next()
            {
                closing = Some(reply);
            }
            match begun {
                Ok(()) => self.execute_all(&mut batch, &mut dispatch),
                Err(error) => self.refuse_all(&mut batch, &error),
            }
            if let Some(checkpointer) = &self.checkpointer {
                checkpointer.after_commit(&self.connection);
            }
        }
        let health = self.health();
        drop(self.checkpointer);
        let closed = match health {
            Ok(()) => file::close(self.connection),
            // The log stays for the next server, which flushes it.
            Err(_) => (self.connection.close()).map_err(|(_, error)| error),
        };
        drop(self.lock);
        if let Some(reply) = closing {
            // The caller may have dropped its future.
            let _ = reply.send(closed.map_err(unavailable));
        }
    }

    /// Begins a transaction. Its commit is flushed to the disk if `durable`.
    fn begin(&self, durable: bool) -> Result<(), InboxError> {
        self.flush_after_failure()?;
        let level = if durable { "FULL" } else { "NORMAL" };
        (self.connection)
            .pragma_update(None, "synchronous", level)
            .and_then(|()| execute(&self.connection, "BEGIN IMMEDIATE"))
            .map_err(unavailable)
    }

    /// After a file could not be flushed, stores nothing more until everything that is
    /// stored was flushed again. If that fails too, the inbox has failed.
    fn flush_after_failure(&self) -> Result<(), InboxError> {
        let has_failed = (self.checkpointer.as_ref()).is_some_and(Checkpointer::has_failed);
        if has_failed && self.health().is_ok() {
            let text = "a file could not be flushed";
            self.set_health(Err(InboxError::new(InboxErrorKind::Unavailable, text)));
        }
        match self.health() {
            Err(error) if error.kind() != InboxErrorKind::Fatal => self.flush(error),
            health => health,
        }
    }

    /// Flushes everything that is stored, after a failure. Only the server can: other processes must
    /// not run checkpoints meanwhile.
    fn flush(&self, failure: InboxError) -> Result<(), InboxError> {
        if let Err(moved) = self.files.check() {
            let error = InboxError::new(InboxErrorKind::Unavailable, moved);
            self.set_health(Err(error.clone()));
            return Err(error);
        }
        let flushed = if let (Some(checkpointer), Some(lock)) = (&self.checkpointer, &self.lock) {
            let _paused = checkpointer.pause();
            let flushed = rewrite::flush(&self.connection, self.files.log(), lock.database());
            if matches!(flushed, Ok(true)) {
                checkpointer.set_flushed();
            }
            flushed
        } else {
            Err(failure.clone().into())
        };
        let health = match flushed {
            Ok(true) => {
                telemetry::inbox_flushed();
                Ok(())
            }
            // The next batch tries again.
            Ok(false) => Err(failure),
            Err(error) => {
                let error = InboxError::new(InboxErrorKind::Fatal, error);
                telemetry::flush_failed(&error);
                Err(error)
            }
        };
        self.set_health(health.clone());
        health
    }

    fn health(&self) -> Result<(), InboxError> {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.clone()
    }

    fn set_health(&self, health: Result<(), InboxError>) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }

    fn refuse_all(&self, batch: &mut Vec<Command>, error: &InboxError) {
        let commands = batch.len();
        telemetry::begin_failed(&self.log_limit, error, commands);
        for command in batch.drain(..) {
            let (appends, bytes) = command.appends();
            self.meter.unqueue(appends, bytes);
            command.refuse(error.clone());
        }
    }

    /// Executes the commands in the current transaction, commits, and then replies.
    fn execute_all(&self, batch: &mut Vec<Command>, dispatch: &mut DispatchState) {
        let mut executor = Executor {
            connection: &self.connection,
            appends: None,
            dispatch,
            version: &self.version,
            flush_failure: false,
            replies: PendingReplies::default(),
        };
        let mut failure = None;
        let (mut appends, mut appended_bytes) = (0, 0);
        let mut is_durable = false;
        let mut changed = false;
        for command in batch.drain(..) {
            let (messages, bytes) = command.appends();
            appends += messages;
            appended_bytes += bytes;
            is_durable |= command.is_durable();
            if let Some(failure) = &failure {
                command.refuse(InboxError::clone(failure));
                continue;
            }
            changed |= command.changes();
            executor.execute(command);
            // A failed statement may have rolled back the transaction. Further commands would then
            // commit on their own.
            if self.connection.is_autocommit() {
                failure = Some(rolled_back());
            }
        }
        let Executor {
            appends: stored,
            flush_failure,
            replies,
            ..
        } = executor;
        let mut flush_failure = flush_failure && failure.is_some();
        if failure.is_none() {
            let started = Instant::now();
            if let Err(error) = self.commit(stored) {
                flush_failure = is_flush_failure(&error);
                failure = Some(unavailable(error));
            } else if is_durable {
                self.meter.commit_time.add_time(started.elapsed());
                self.meter.commit_appends.add_size(appends);
            }
        }
        if failure.is_none() {
            dispatch.committed();
            let checked = self.files.check();
            failure =
                (checked.err()).map(|moved| InboxError::new(InboxErrorKind::Unavailable, moved));
            if let Some(moved) = &failure
                && self.lock.is_some()
            {
                // Until the files are back, and flushed.
                self.set_health(Err(moved.clone()));
            }
        } else {
            dispatch.rolled_back();
        }
        if let Some(failure) = &failure {
            telemetry::commit_failed(&self.log_limit, failure);
        }
        if let Some(error) = failure.clone().filter(|_| flush_failure) {
            if let Some(checkpointer) = &self.checkpointer {
                checkpointer.set_failed();
            }
            // At once: what was written is still in memory. If it fails, the callers must know.
            failure = self.flush(error.clone()).err().or(Some(error));
        }
        self.meter.unqueue(appends, appended_bytes);
        replies.send(failure.as_ref());
        if changed {
            self.version.send_modify(|version| *version += 1);
        }
    }

    fn commit(&self, appends: Option<Appends<'_>>) -> rusqlite::Result<()> {
        let recorded = appends.map_or(Ok(()), Appends::record_stats);
        let result = recorded.and_then(|()| execute(&self.connection, "COMMIT"));
        if result.is_err() && !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        result
    }
}

/// Executes a statement of each transaction, which is compiled once.
fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

/// Executes the commands of one transaction.
struct Executor<'c, 'd> {
    connection: &'c Connection,
    appends: Option<Appends<'c>>,
    dispatch: &'d mut DispatchState,
    version: &'c watch::Sender<u64>,
    /// Whether the operating system could not flush a file.
    flush_failure: bool,
    replies: PendingReplies,
}

impl Executor<'_, '_> {
    fn execute(&mut self, command: Command) {
        let connection = self.connection;
        match command {
            Command::Append { appends, runtime } => {
                let append = |append: QueuedAppend| {
                    // A failed append may have rolled back the transaction. The others would then
                    // commit on their own.
                    if self.connection.is_autocommit() {
                        return (append.message, append.reply, Err(rolled_back()));
                    }
                    let result = self.append(&append.message);
                    self.note_failure(&result);
                    (append.message, append.reply, result.map_err(unavailable))
                };
                let replies = appends.into_iter().map(append).collect();
                self.replies.add_appends(runtime, replies);
            }
            // The caller has dropped its future: nobody would handle the messages.
            Command::Lease { reply, .. } if reply.is_closed() => {}
            Command::Lease { request, reply } => {
                let result = self.dispatch.lease(connection, &request, self.version);
                self.reply(reply, result);
            }
            Command::Renew { leases, ttl, reply } => {
                let lost = self.dispatch.renew(leases, ttl);
                self.reply(reply, Ok(lost));
            }
            Command::Complete {
                lease,
                outcome,
                reply,
            } => {
                let result = self.dispatch.complete(connection, lease, outcome);
                self.reply(reply, result);
            }
            Command::Replay {
                sequences,
                selection,
                reply,
            } => self.reply(reply, managing::replay(connection, &sequences, &selection)),
            Command::Prune {
                sequences,
                selection,
                reply,
            } => self.reply(reply, managing::prune(connection, &sequences, &selection)),
            Command::SetPaused {
                endpoint,
                paused,
                reply,
            } => self.reply(reply, managing::set_paused(connection, &endpoint, paused)),
            Command::Close { reply } => self.reply(reply, Ok(())),
            #[cfg(test)]
            Command::Panic => panic!("this is part of the test"),
            #[cfg(test)]
            Command::RollBack => drop(connection.execute_batch("ROLLBACK")),
        }
    }

    fn append(&mut self, message: &ParsedMessage) -> rusqlite::Result<Appended> {
        let appends = match &mut self.appends {
            Some(appends) => appends,
            None => self.appends.insert(Appends::new(self.connection)?),
        };
        appends.append(message)
    }

    fn reply<T: 'static>(&mut self, reply: Reply<T>, result: rusqlite::Result<T>) {
        self.note_failure(&result);
        self.replies.add(reply, result);
    }

    fn note_failure<T>(&mut self, result: &rusqlite::Result<T>) {
        if result.as_ref().is_err_and(is_damage) {
            self.dispatch.set_met_damage();
        }
        self.flush_failure |= result.as_ref().is_err_and(is_flush_failure);
    }
}

fn rolled_back() -> InboxError {
    InboxError::new(
        InboxErrorKind::Unavailable,
        "the transaction was rolled back",
    )
}

#[cfg(test)]
mod tests;
