//! The writer thread and its commands.

use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use jiff::Timestamp;
use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tracing::error;

use super::append::{Appends, ParsedMessage};
use super::checkpoint::Checkpointer;
use super::error::failed;
use super::file::OpenFiles;
use super::statements::Statements;
use crate::error::error_chain;
use crate::inbox::error::InboxError;
use crate::inbox::types::{Appended, LeaseId, LeaseRequest, Leased, Outcome, Selection, State};

/// The most commands in one transaction.
const MAX_BATCH: usize = 1024;

/// Sends the result of a command.
pub(super) type Reply<T> = oneshot::Sender<Result<T, InboxError>>;

pub(super) enum Command {
    Append {
        message: ParsedMessage,
        /// The message's part of `queued_bytes`.
        size: usize,
        /// The caller's runtime; `None` outside of one.
        runtime: Option<Handle>,
        reply: Reply<Appended>,
    },
    Lease {
        request: LeaseRequest,
        now: Timestamp,
        lease: Duration,
        reply: Reply<Leased>,
    },
    Complete {
        lease: LeaseId,
        outcome: Outcome,
        reply: Reply<()>,
    },
    /// Replays those of the messages that still match the selection.
    Replay {
        sequences: Vec<i64>,
        selection: Arc<Selection>,
        reply: Reply<u64>,
    },
    /// Deletes those of the messages that are in this state.
    Prune {
        sequences: Vec<i64>,
        state: State,
        reply: Reply<u64>,
    },
    Close {
        reply: Reply<()>,
    },
    /// Panics in the writer thread.
    #[cfg(test)]
    Panic,
}

impl Command {
    /// Returns `true` if the command must survive a crash of the machine. If a lease or an outcome is
    /// lost, the message is redelivered.
    const fn is_durable(&self) -> bool {
        !matches!(
            self,
            Self::Lease { .. } | Self::Complete { .. } | Self::Close { .. }
        )
    }

    fn refuse(self, error: InboxError) {
        // The caller may have dropped its future.
        match self {
            Self::Append { reply, .. } => drop(reply.send(Err(error))),
            Self::Lease { reply, .. } => drop(reply.send(Err(error))),
            Self::Complete { reply, .. } | Self::Close { reply } => drop(reply.send(Err(error))),
            Self::Replay { reply, .. } | Self::Prune { reply, .. } => drop(reply.send(Err(error))),
            #[cfg(test)]
            Self::Panic => {}
        }
    }
}

/// Replies that wait for the commit.
#[derive(Default)]
struct PendingReplies {
    /// By the callers' runtime.
    appends: Vec<(Option<Handle>, Vec<AppendReply>)>,
    others: Vec<OtherReply>,
}

/// Takes the error if the commit failed.
type OtherReply = Box<dyn FnOnce(Option<&InboxError>)>;

type AppendReply = (Reply<Appended>, Result<Appended, InboxError>);

/// Sends the replies to appends when it is dropped, after the commit.
struct CommittedAppends {
    replies: Vec<AppendReply>,
    /// The error if the commit failed.
    failure: Option<InboxError>,
}

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) files: OpenFiles,
    /// `None` if the inbox is shared.
    pub(super) checkpointer: Option<Checkpointer>,
    /// Held while the writer runs; `None` if the inbox is shared.
    pub(super) lock: Option<File>,
    pub(super) queued_bytes: Arc<AtomicUsize>,
    pub(super) ready: Arc<Notify>,
}

impl Writer {
    /// Executes commands until `Close`, or until all senders are dropped. Drops commands after
    /// `Close`; their callers get [`InboxError::Closed`].
    pub(super) fn run(self, commands: &Receiver<Command>) {
        let mut closing = None;
        let mut batch = Vec::new();
        while closing.is_none()
            && let Ok(first) = commands.recv()
        {
            batch.push(first);
            batch.extend(commands.try_iter().take(MAX_BATCH - 1));
            let begun = self.begin(batch.iter().any(Command::is_durable));
            if begun.is_err() {
                // `begin` may have waited for the busy timeout, and each further batch would wait
                // again. So the commands that arrived since are refused too.
                batch.extend(commands.try_iter());
            }
            let close = (batch.iter()).position(|command| matches!(command, Command::Close { .. }));
            if let Some(close) = close
                && let Some(Command::Close { reply }) = batch.drain(close..).next()
            {
                closing = Some(reply);
            }
            match begun {
                Ok(()) => self.execute_all(&mut batch),
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
            // The caller may have dropped its future.
            let _ = reply.send(closed);
        }
    }

    /// Begins a transaction. Its commit is flushed to the disk if `durable`.
    fn begin(&self, durable: bool) -> rusqlite::Result<()> {
        let level = if durable { "FULL" } else { "NORMAL" };
        self.connection.pragma_update(None, "synchronous", level)?;
        self.connection.execute_batch("BEGIN IMMEDIATE")
    }

    fn refuse_all(&self, batch: &mut Vec<Command>, error: &InboxError) {
        let commands = batch.len();
        error!(
            error = error_chain(error),
            commands, "cannot begin inbox transaction"
        );
        for command in batch.drain(..) {
            if let Command::Append { size, .. } = &command {
                self.queued_bytes.fetch_sub(*size, Ordering::Relaxed);
            }
            command.refuse(error.clone());
        }
    }

    /// Executes the commands in the current transaction, commits, and then replies.
    fn execute_all(&self, batch: &mut Vec<Command>) {
        let statements = Statements(&self.connection);
        let mut appends = None;
        let mut replies = PendingReplies::default();
        let mut failure = None;
        let mut appended_bytes = 0;
        let mut ready = false;
        for command in batch.drain(..) {
            if let Command::Append { size, .. } = &command {
                appended_bytes += size;
            }
            if let Some(failure) = &failure {
                command.refuse(InboxError::clone(failure));
                continue;
            }
            ready |= !matches!(command, Command::Lease { .. } | Command::Prune { .. });
            execute(&statements, &mut appends, command, &mut replies);
            // A failed statement may have rolled back the transaction. Further commands would then
            // commit on their own.
            if self.connection.is_autocommit() {
                failure = Some(rolled_back());
            }
        }
        if failure.is_none() {
            failure = self.commit().err();
        }
        if let Some(error) = &failure {
            error!(
                error = error_chain(error),
                "cannot commit inbox transaction"
            );
        }
        self.queued_bytes
            .fetch_sub(appended_bytes, Ordering::Relaxed);
        replies.send(failure.as_ref());
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
        let unchanged = self.files.check();
        unchanged.map_err(|moved| InboxError::Failed(Arc::new(moved)))
    }
}

fn execute<'c>(
    statements: &Statements<'c>,
    appends: &mut Option<Appends<'c>>,
    command: Command,
    replies: &mut PendingReplies,
) {
    match command {
        Command::Append {
            message,
            runtime,
            reply,
            ..
        } => replies.add_append(runtime, reply, append(statements.0, appends, &message)),
        Command::Lease {
            request,
            now,
            lease,
            reply,
        } => replies.add(reply, statements.lease(&request, now, lease)),
        Command::Complete {
            lease,
            outcome,
            reply,
        } => replies.add(reply, statements.complete(lease, outcome)),
        Command::Replay {
            sequences,
            selection,
            reply,
        } => replies.add(reply, statements.replay(&sequences, &selection)),
        Command::Prune {
            sequences,
            state,
            reply,
        } => replies.add(reply, statements.prune(&sequences, state)),
        Command::Close { reply } => replies.add(reply, Ok(())),
        #[cfg(test)]
        Command::Panic => panic!("this is part of the test"),
    }
}

fn append<'c>(
    connection: &'c Connection,
    appends: &mut Option<Appends<'c>>,
    message: &ParsedMessage,
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

impl PendingReplies {
    fn add_append(
        &mut self,
        runtime: Option<Handle>,
        reply: Reply<Appended>,
        result: rusqlite::Result<Appended>,
    ) {
        let reply = (reply, result.map_err(failed));
        let id = |runtime: &Option<Handle>| runtime.as_ref().map(Handle::id);
        let mut all = self.appends.iter_mut();
        match all.find(|(other, _)| id(other) == id(&runtime)) {
            Some((_, replies)) => replies.push(reply),
            None => self.appends.push((runtime, vec![reply])),
        }
    }

    fn add<T: 'static>(&mut self, reply: Reply<T>, result: rusqlite::Result<T>) {
        let result = result.map_err(failed);
        self.others.push(Box::new(move |failure| {
            // The caller may have dropped its future.
            let _ = reply.send(failure.cloned().map_or(result, Err));
        }));
    }

    /// Sends all replies after the commit, or its error.
    fn send(self, failure: Option<&InboxError>) {
        for (runtime, replies) in self.appends {
            let failure = failure.cloned();
            let committed = CommittedAppends { replies, failure };
            // A task of the callers' runtime sends the replies: to wake a task from another thread
            // takes a system call, and a commit has many callers.
            if let Some(runtime) = runtime {
                runtime.spawn(async move { drop(committed) });
            }
        }
        for reply in self.others {
            reply(failure);
        }
    }
}

impl Drop for CommittedAppends {
    fn drop(&mut self) {
        for (reply, result) in self.replies.drain(..) {
            // The caller may have dropped its future.
            let _ = reply.send(self.failure.clone().map_or(result, Err));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails loudly")]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::super::file;
    use super::*;
    use crate::inbox::types::NewMessage;

    #[test]
    fn panic_stores_nothing_of_batch_and_sends_no_reply() {
        let directory = tempfile::tempdir().unwrap();
        let path = file::create(&directory.path().join("inbox.db")).unwrap();
        let writer = Writer {
            connection: file::open(&path).unwrap(),
            files: OpenFiles::new(&path).unwrap(),
            checkpointer: None,
            lock: None,
            queued_bytes: Arc::default(),
            ready: Arc::default(),
        };
        let (commands, receiver) = mpsc::channel();
        let append = |id: &str| {
            let (reply, result) = oneshot::channel();
            let append = Command::Append {
                message: ParsedMessage::parse(NewMessage::new("books", id, "{}")),
                size: 0,
                runtime: None,
                reply,
            };
            commands.send(append).unwrap();
            result
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
