//! The one thread that writes, and the commands it takes.

use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::{Notify, oneshot};
use tracing::error;

use super::append::{Appends, New};
use super::checkpoint::Checkpointer;
use super::file::Opened;
use super::statements::Statements;
use super::{
    Appended, InboxError, LeaseId, LeaseRequest, Leased, Outcome, Selection, State, failed,
};

/// How many commands share one commit at most.
const BATCH: usize = 1024;

/// Where the answer to a command goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, InboxError>>;

pub(super) enum Command {
    Append {
        message: New,
        /// What it counts against the limit of what may wait.
        size: usize,
        reply: Reply<Appended>,
    },
    Leased {
        room: LeaseRequest,
        now: Timestamp,
        lease: Duration,
        reply: Reply<Leased>,
    },
    Settle {
        lease: LeaseId,
        outcome: Outcome,
        reply: Reply<()>,
    },
    /// Of these places, makes pending what is selected.
    Replay {
        places: Vec<i64>,
        selection: Arc<Selection>,
        reply: Reply<u64>,
    },
    /// Of these places, deletes what is in this state.
    Prune {
        places: Vec<i64>,
        state: State,
        reply: Reply<u64>,
    },
    Close {
        reply: Reply<()>,
    },
    /// A fault of our own.
    #[cfg(test)]
    Panic,
}

impl Command {
    /// Whether what it does has to outlast the machine. A claim or an outcome that is lost with the
    /// machine only means that a message comes again.
    const fn is_durable(&self) -> bool {
        !matches!(
            self,
            Self::Leased { .. } | Self::Settle { .. } | Self::Close { .. }
        )
    }

    fn refuse(self, error: InboxError) {
        // Whoever asked may be gone.
        match self {
            Self::Append { reply, .. } => drop(reply.send(Err(error))),
            Self::Leased { reply, .. } => drop(reply.send(Err(error))),
            Self::Settle { reply, .. } | Self::Close { reply } => drop(reply.send(Err(error))),
            Self::Replay { reply, .. } | Self::Prune { reply, .. } => drop(reply.send(Err(error))),
            #[cfg(test)]
            Self::Panic => {}
        }
    }
}

/// An answer that waits for the commit; given the error where that failed.
type Answer = Box<dyn FnOnce(Option<&InboxError>)>;

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) opened: Opened,
    /// Only who owns the inbox has one.
    pub(super) checkpointer: Option<Checkpointer>,
    /// Held as long as this may write.
    pub(super) lock: Option<File>,
    pub(super) waiting: Arc<AtomicUsize>,
    pub(super) ready: Arc<Notify>,
}

impl Writer {
    /// Works until it is told to close or nobody is left who could tell it anything. Commands behind
    /// a close are dropped, which their senders see as closed.
    pub(super) fn run(self, commands: &Receiver<Command>) {
        let mut closing = None;
        let mut batch = Vec::new();
        while closing.is_none()
            && let Ok(first) = commands.recv()
        {
            batch.push(first);
            batch.extend(commands.try_iter().take(BATCH - 1));
            let begun = self.begin(batch.iter().any(Command::is_durable));
            if begun.is_err() {
                // It took its time, and what came meanwhile would only fail after as long again.
                batch.extend(commands.try_iter());
            }
            let place = (batch.iter()).position(|one| matches!(one, Command::Close { .. }));
            if let Some(place) = place
                && let Some(Command::Close { reply }) = batch.drain(place..).next()
            {
                closing = Some(reply);
            }
            match begun {
                Ok(()) => self.perform_all(&mut batch),
                Err(error) => self.refuse_all(&mut batch, &failed(error)),
            }
            if let Some(checkpointer) = &self.checkpointer {
                checkpointer.after_commit(&self.connection);
            }
        }
        drop(self.checkpointer);
        let closed = self.connection.close().map_err(|(_, error)| failed(error));
        drop(self.lock);
        if let Some(reply) = closing {
            // Nobody need wait for it.
            let _ = reply.send(closed);
        }
    }

    /// Begins a transaction whose commit waits for the disk or not.
    fn begin(&self, durable: bool) -> rusqlite::Result<()> {
        let level = if durable { "FULL" } else { "NORMAL" };
        self.connection.pragma_update(None, "synchronous", level)?;
        self.connection.execute_batch("BEGIN IMMEDIATE")
    }

    fn refuse_all(&self, batch: &mut Vec<Command>, error: &InboxError) {
        error!(%error, refused = batch.len(), "the inbox cannot be written");
        for command in batch.drain(..) {
            if let Command::Append { size, .. } = &command {
                self.waiting.fetch_sub(*size, Ordering::Relaxed);
            }
            command.refuse(error.clone());
        }
    }

    /// Does all of it in the transaction that was begun, commits, and only then answers.
    fn perform_all(&self, batch: &mut Vec<Command>) {
        let statements = Statements(&self.connection);
        let mut appends = None;
        let mut answers = Vec::with_capacity(batch.len());
        let mut failure = None;
        let mut stored = 0;
        let mut ready = false;
        for command in batch.drain(..) {
            if let Command::Append { size, .. } = &command {
                stored += size;
            }
            if let Some(failure) = &failure {
                command.refuse(InboxError::clone(failure));
                continue;
            }
            ready |= !matches!(command, Command::Leased { .. } | Command::Prune { .. });
            answers.push(perform(&statements, &mut appends, command));
            // A failed statement may have rolled the whole transaction back; what follows would be
            // on its own then, and told that it failed all the same.
            if self.connection.is_autocommit() {
                failure = Some(rolled_back());
            }
        }
        if failure.is_none() {
            failure = self.commit().err();
        }
        if let Some(error) = &failure {
            error!(%error, "the inbox could not commit");
        }
        self.waiting.fetch_sub(stored, Ordering::Relaxed);
        for answer in answers {
            answer(failure.as_ref());
        }
        if ready {
            self.ready.notify_one();
        }
    }

    fn commit(&self) -> Result<(), InboxError> {
        let result = self.connection.execute_batch("COMMIT");
        if result.is_err() && !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK").map_err(failed)?;
        }
        result.map_err(failed)?;
        let there = self.opened.are_there();
        there.map_err(|gone| InboxError::Failed(Arc::new(gone)))
    }
}

fn perform<'c>(
    statements: &Statements<'c>,
    appends: &mut Option<Appends<'c>>,
    command: Command,
) -> Answer {
    match command {
        Command::Append { message, reply, .. } => {
            answer(reply, append(statements.0, appends, &message))
        }
        Command::Leased {
            room,
            now,
            lease,
            reply,
        } => answer(reply, statements.lease(&room, now, lease)),
        Command::Settle {
            lease,
            outcome,
            reply,
        } => answer(reply, statements.complete(lease, outcome)),
        Command::Replay {
            places,
            selection,
            reply,
        } => answer(reply, statements.replay(&places, &selection)),
        Command::Prune {
            places,
            state,
            reply,
        } => answer(reply, statements.prune(&places, state)),
        Command::Close { reply } => answer(reply, Ok(())),
        #[cfg(test)]
        Command::Panic => panic!("this is part of the test"),
    }
}

fn append<'c>(
    connection: &'c Connection,
    appends: &mut Option<Appends<'c>>,
    message: &New,
) -> rusqlite::Result<Appended> {
    let appends = match appends {
        Some(appends) => appends,
        None => appends.insert(Appends::new(connection)?),
    };
    appends.append(message)
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails loudly")]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::super::{NewMessage, file};
    use super::*;

    #[test]
    fn of_a_batch_in_which_it_panics_nothing_is_answered_and_nothing_stored() {
        let directory = tempfile::tempdir().unwrap();
        let path = file::make(&directory.path().join("inbox.db")).unwrap();
        let writer = Writer {
            connection: file::open(&path).unwrap(),
            opened: Opened::at(&path).unwrap(),
            checkpointer: None,
            lock: None,
            waiting: Arc::default(),
            ready: Arc::default(),
        };
        let (commands, receiver) = mpsc::channel();
        let append = |id: &str| {
            let (reply, answer) = oneshot::channel();
            let append = Command::Append {
                message: New::read(NewMessage::new("one", id, "{}")),
                size: 0,
                reply,
            };
            commands.send(append).unwrap();
            answer
        };
        let before = append("before");
        commands.send(Command::Panic).unwrap();
        let after = append("after");
        thread::spawn(move || writer.run(&receiver))
            .join()
            .unwrap_err();
        assert!(before.blocking_recv().is_err());
        assert!(after.blocking_recv().is_err());
        let count = "SELECT count(*) FROM message";
        let count = file::open(&path)
            .unwrap()
            .query_row(count, [], |row| row.get::<_, i64>(0));
        assert_eq!(count.unwrap(), 0);
    }
}
