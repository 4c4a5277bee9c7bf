//! The inbox in a SQLite file.
//!
//! One writer thread executes all commands: appends, leases, completions, replays and prunes. It
//! takes every queued command, executes them in one transaction, commits once, and only then replies
//! (group commit). A commit that appends is flushed to the disk (`synchronous=FULL`). Reads have a
//! their own connection, and so has the checkpoint thread.

mod append;
mod checkpoint;
mod error;
mod file;
mod options;
mod queries;
mod statements;
mod writer;

use core::fmt;
use core::future::{pending, ready};
use core::pin::Pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use tokio::{task, time};

use self::append::ParsedMessage;
use self::checkpoint::Checkpointer;
use self::error::{failed, open_error};
use self::file::OpenFiles;
use self::writer::{Command, Reply, Writer};
use super::contract::{Inbox, InboxFuture};
use super::error::InboxError;
use super::types::{
    Appended, Counts, Entry, Filter, LeaseId, LeaseRequest, Leased, NewMessage, Outcome, Selection,
    State,
};
use crate::dispatch::retry;

pub use self::options::SqliteOptions;

/// The estimated memory of a queued message without its body, in bytes.
const MESSAGE_OVERHEAD: usize = 512;

/// How often [`Inbox::ready`] resolves spuriously, so that the dispatcher sees replays by other
/// processes.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How many messages one transaction replays or prunes. Bounds the delay of other commands.
const CHUNK: u32 = 500;

/// An inbox in a SQLite file.
///
/// The file is in WAL mode. [`append`](Inbox::append) resolves after a commit with
/// `synchronous=FULL`: the write-ahead log is flushed to the disk with fsync. Appends that arrive
/// together are written in one commit (group commit). Leases and outcomes are committed without an fsync: they
/// survive a crash of the process, but not always one of the machine; the messages are then
/// redelivered.
///
/// While the inbox is open, SQLite keeps two files beside it (`-wal`, `-shm`), and the server keeps a
/// `.lock` file, locked, with its process id.
///
/// The messages are in the table `message`, their raw bodies in `body`, both keyed by `sequence`.
/// Other processes may read them with SQL at any time:
///
/// | column | meaning |
/// | --- | --- |
/// | `sequence` | the order of arrival |
/// | `endpoint`, `webhook_id` | the key |
/// | `event_type`, `event_id` | from the envelope; null if the body is not an envelope |
/// | `resource_id` | the `id` in the event's data |
/// | `origin` | `webhook` if the sender posted the message, `catch-up` if it was fetched |
/// | `received_at`, `expires_at` | milliseconds since 1970 |
/// | `state` | `pending`, `done` or `dead` |
/// | `attempts` | how many attempts were started |
/// | `due_at` | if pending: when the retry is ready or the lease ends, in milliseconds since 1970; null if ready |
/// | `leased` | 1 if the message is leased |
/// | `last_error` | why the last failed attempt failed |
pub struct SqliteInbox {
    path: String,
    options: SqliteOptions,
    /// `None` only while the inbox is dropped.
    commands: Option<mpsc::Sender<Command>>,
    queued_bytes: Arc<AtomicUsize>,
    ready: Arc<Notify>,
    /// `true` once the writer has ended. The sender is dropped without that if the writer panicked.
    writer_ended: watch::Receiver<bool>,
    /// `None` once the inbox is closed.
    reader: Arc<Mutex<Option<Connection>>>,
    writer: Option<thread::JoinHandle<()>>,
}

impl SqliteInbox {
    /// Opens the inbox as its server; creates the file if it is missing.
    ///
    /// Ends the leases of a server that crashed. Its messages are ready immediately; from the third
    /// attempt on they are delayed, because one of them may have caused the crash.
    ///
    /// # Errors
    /// [`InboxError::InUse`] if another server has the inbox open; [`InboxError::Open`] if the file
    /// cannot be created or written, or is not an inbox.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, InboxError> {
        Self::open_with(path, SqliteOptions::default())
    }

    /// Opens the inbox as [`open`](Self::open) does, with other options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, InboxError> {
        let path = file::create(path.as_ref())?;
        let lock = file::lock(&path)?;
        let mut writer = file::open(&path)?;
        file::sync_wal(&path).map_err(|error| open_error(&path, error))?;
        file::end_leases(&mut writer, Timestamp::now(), retry::delay_after_crash)
            .map_err(|error| open_error(&path, error))?;
        let checkpointer = Checkpointer::start(&mut writer, file::open(&path)?)
            .map_err(|error| open_error(&path, error))?;
        Self::start(&path, options, writer, Some((checkpointer, lock)))
    }

    /// Opens an inbox that a server may have open, to read and to replay.
    ///
    /// # Errors
    /// [`InboxError::Open`] if the file is missing or is not an inbox.
    pub fn open_shared(path: impl AsRef<Path>) -> Result<Self, InboxError> {
        let path = path.as_ref();
        let writer = file::open(path)?;
        Self::start(path, SqliteOptions::default(), writer, None)
    }

    /// Returns `true` if a running server has the inbox open.
    #[must_use]
    pub fn is_served(path: impl AsRef<Path>) -> bool {
        file::is_locked(path.as_ref())
    }

    /// Returns the process id of the server that has the inbox open, to signal it.
    ///
    /// `None` if no server has it open, or if the process is not visible: on Linux, if it runs in
    /// another container or as another user.
    #[must_use]
    pub fn server_pid(path: impl AsRef<Path>) -> Option<u32> {
        file::lock_owner(path.as_ref())
    }

    fn start(
        path: &Path,
        options: SqliteOptions,
        connection: Connection,
        server: Option<(Checkpointer, File)>,
    ) -> Result<Self, InboxError> {
        let reader = file::open(path)?;
        let files = OpenFiles::new(path).map_err(|error| open_error(path, error))?;
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let ready = Arc::new(Notify::new());
        let (commands, receiver) = mpsc::channel();
        let (ended, writer_ended) = watch::channel(false);
        let (checkpointer, lock) = server.unzip();
        let writer = Writer {
            connection,
            files,
            checkpointer,
            lock,
            queued_bytes: Arc::clone(&queued_bytes),
            ready: Arc::clone(&ready),
        };
        let writer = thread::Builder::new()
            .name("pleo-inbox".into())
            .spawn(move || {
                writer.run(&receiver);
                ended.send_replace(true);
            })
            .map_err(|error| open_error(path, error))?;
        Ok(Self {
            path: path.display().to_string(),
            options,
            commands: Some(commands),
            queued_bytes,
            ready,
            writer_ended,
            reader: Arc::new(Mutex::new(Some(reader))),
            writer: Some(writer),
        })
    }

    /// Queues a command; the future resolves with the writer's reply.
    fn command<T: Send + 'static>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> InboxFuture<'_, T> {
        let (reply, result) = oneshot::channel();
        if let Some(commands) = &self.commands {
            // If the writer has ended, `reply` is dropped with the command.
            let _ = commands.send(command(reply));
        }
        Box::pin(async {
            match result.await {
                Ok(result) => result,
                Err(_) if self.writer_panicked().await => Err(InboxError::Panicked),
                Err(_) => Err(InboxError::Closed),
            }
        })
    }

    /// Waits until the writer has ended; returns `true` if it panicked.
    async fn writer_panicked(&self) -> bool {
        let mut writer_ended = self.writer_ended.clone();
        writer_ended.wait_for(|ended| *ended).await.is_err()
    }

    fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> InboxFuture<'_, T> {
        let reader = Arc::clone(&self.reader);
        Box::pin(async move {
            // A read that panicked has changed nothing.
            let read = move || {
                let reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
                query(reader.as_ref().ok_or(InboxError::Closed)?).map_err(failed)
            };
            let result = task::spawn_blocking(read).await;
            result.map_err(|_| InboxError::Closed)?
        })
    }

    /// Executes a command for all selected messages, [`CHUNK`] at a time. The reader finds them, so
    /// that the search does not delay the writer.
    fn in_chunks(
        &self,
        selection: Arc<Selection>,
        command: impl Fn(Vec<i64>, Reply<u64>) -> Command + Send + 'static,
    ) -> InboxFuture<'_, u64> {
        Box::pin(async move {
            // Messages that arrive from now on are not selected.
            let last = self.read(queries::last_sequence).await?;
            let mut after = 0;
            let mut count = 0;
            loop {
                let selection = Arc::clone(&selection);
                let found = self.read(move |connection| {
                    queries::find(connection, &selection, after, last, CHUNK)
                });
                let sequences = found.await?;
                let Some(end) = sequences.last() else {
                    return Ok(count);
                };
                after = *end;
                count += self.command(|reply| command(sequences, reply)).await?;
            }
        })
    }
}

impl Inbox for SqliteInbox {
    fn append(&self, message: NewMessage) -> InboxFuture<'_, Appended> {
        let size = message.body.len() + MESSAGE_OVERHEAD;
        if self.queued_bytes.fetch_add(size, Ordering::Relaxed) > self.options.queue_bytes {
            self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            return Box::pin(ready(Err(InboxError::Full)));
        }
        let message = ParsedMessage::parse(message);
        self.command(|reply| Command::Append {
            message,
            size,
            runtime: Handle::try_current().ok(),
            reply,
        })
    }

    fn lease(
        &self,
        request: LeaseRequest,
        now: Timestamp,
        lease: Duration,
    ) -> InboxFuture<'_, Leased> {
        self.command(|reply| Command::Lease {
            request,
            now,
            lease,
            reply,
        })
    }

    fn complete(&self, lease: LeaseId, outcome: Outcome) -> InboxFuture<'_, ()> {
        self.command(|reply| Command::Complete {
            lease,
            outcome,
            reply,
        })
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            // After the interval `ready` resolves spuriously.
            let _ = time::timeout(POLL_INTERVAL, self.ready.notified()).await;
        })
    }

    fn list(&self, filter: Filter) -> InboxFuture<'_, Vec<Entry>> {
        self.read(|connection| queries::list(connection, filter))
    }

    fn show(&self, webhook_id: String) -> InboxFuture<'_, Vec<(Entry, Bytes)>> {
        self.read(move |connection| queries::show(connection, &webhook_id))
    }

    fn replay(&self, selection: Selection) -> InboxFuture<'_, u64> {
        let selection = Arc::new(selection);
        self.in_chunks(Arc::clone(&selection), move |sequences, reply| {
            Command::Replay {
                sequences,
                selection: Arc::clone(&selection),
                reply,
            }
        })
    }

    fn prune(&self, state: State, before: Timestamp) -> InboxFuture<'_, u64> {
        let old = Selection {
            state: Some(state),
            until: Some(before),
            ..Selection::default()
        };
        self.in_chunks(Arc::new(old), move |sequences, reply| Command::Prune {
            sequences,
            state,
            reply,
        })
    }

    fn counts(&self) -> InboxFuture<'_, Counts> {
        self.read(queries::counts)
    }

    fn broken(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            if !self.writer_panicked().await {
                pending().await
            }
        })
    }

    fn close(&self) -> InboxFuture<'_, ()> {
        let reader = Arc::clone(&self.reader);
        let closed = self.command(|reply| Command::Close { reply });
        Box::pin(async move {
            // Waits for a read in progress.
            let close = move || reader.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(task::spawn_blocking(close).await);
            closed.await
        })
    }
}

impl Drop for SqliteInbox {
    /// Waits until the writer has executed the queued commands, so that the next owner sees them.
    fn drop(&mut self) {
        self.commands = None;
        if let Some(writer) = self.writer.take() {
            // If the writer panicked, there is nothing to wait for.
            let _ = writer.join();
        }
    }
}

impl fmt::Debug for SqliteInbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteInbox")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
