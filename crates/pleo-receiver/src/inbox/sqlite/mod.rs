//! The inbox in a SQLite file.
//!
//! One writer thread executes all commands: appends, leases, completions, replays and prunes. It
//! takes every queued command, executes them in one transaction, commits once, and only then replies
//! (group commit). A commit that appends is flushed to the disk (`synchronous=FULL`). Searches and other
//! reads have a connection each, and so has the checkpoint thread.

mod append;
mod batches;
mod checkpoint;
mod command;
mod dispatching;
mod ended;
mod error;
mod export;
mod file;
mod held;
mod lock;
mod maintenance;
mod managing;
mod options;
mod queries;
mod reader;
mod replies;
mod rewrite;
mod schema;
mod sizes;
mod stats;
mod writer;

use core::fmt;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::{task, time};

use self::append::ParsedMessage;
use self::batches::{AppendBatches, QueuedAppend};
use self::checkpoint::Checkpointer;
use self::command::Command;
use self::dispatching::DispatchState;
pub use self::error::SqliteOpenError;
pub use self::export::SqliteExport;
use self::file::OpenFiles;
use self::lock::ServerLock;
pub use self::maintenance::{SqliteBackupError, SqliteCheck, UnreadableMessage};
pub use self::options::SqliteOptions;
use self::reader::Reader;
use self::replies::Reply;
use self::writer::{Health, Writer};
use super::contract::{Inbox, InboxFuture};
use super::error::{InboxError, InboxErrorKind};
use super::lease::{Completed, LeaseId, LeaseRequest, Leased, Outcome, Version};
use super::measurements::Measurements;
use super::message::{Appended, Key, NewMessage, StoredMessage};
use super::meter::Meter;
use super::query::{EndpointStats, Page, Query, Selection};
use crate::telemetry::RateLimit;

/// The estimated memory of a queued message without its body, in bytes.
const MESSAGE_OVERHEAD: usize = 512;

/// How often [`Inbox::changed`] resolves spuriously, so that the dispatcher sees replays by other
/// processes.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The free space on the disk below which the inbox counts as unable to store messages. A commit of
/// many messages needs about as much.
const MIN_FREE_BYTES: u64 = 1024 * 1024;

/// How many messages one transaction replays or prunes. Bounds the delay of other commands.
const CHUNK: u64 = 500;

/// An inbox in a SQLite file.
///
/// The file is in WAL mode. [`append`](Inbox::append) resolves after a commit with
/// `synchronous=FULL`: the write-ahead log is flushed to the disk with fsync. Appends that arrive
/// together are written in one commit (group commit). Leases and outcomes are committed without an fsync: they
/// survive a crash of the process, but not always one of the machine; the messages are then
/// redelivered.
///
/// While the inbox is open, SQLite keeps two files beside it (`-wal`, `-shm`), and the server keeps a
/// `.lock` file, locked, with its process id. Only a server copies the log (`-wal`) into the file: keep
/// the two together.
///
/// After a failed flush the inbox stores nothing more until everything that is stored was
/// written and flushed again. If that fails too, the inbox has failed
/// ([`Fatal`](InboxErrorKind::Fatal)), and it can be opened again only after such a flush.
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
/// | `source` | the address that sent the message |
/// | `state` | `pending`, `done` or `dead` |
/// | `attempts` | how many attempts were started since the message arrived or was replayed |
/// | `due_at` | when the message is ready, if it is scheduled for a retry, in milliseconds since 1970 |
/// | `leased` | 1 if the message is leased |
/// | `last_error` | why the last failed attempt failed |
///
/// Leases end with the process, and they are measured with a monotonic clock. The table `attempt` has
/// the history of attempts, `body.headers` the headers that were kept, `endpoint_stats` the numbers of
/// messages by endpoint and state.
pub struct SqliteInbox {
    path: String,
    options: SqliteOptions,
    is_server: bool,
    is_closed: AtomicBool,
    /// `None` only while the inbox is dropped.
    commands: Option<mpsc::UnboundedSender<Command>>,
    batches: Arc<AppendBatches>,
    meter: Arc<Meter>,
    version: watch::Sender<u64>,
    health: Health,
    /// `true` once the writer has ended. The sender is dropped without that if the writer panicked.
    writer_ended: watch::Receiver<bool>,
    /// Reads what indexes find at once.
    lookups: Arc<Reader>,
    /// Runs searches, which may visit all messages, so that nothing else waits for them.
    searches: Arc<Reader>,
    writer: Option<thread::JoinHandle<()>>,
}

impl SqliteInbox {
    /// Opens the inbox as its server; creates the file if it is missing, and upgrades it if an older
    /// release wrote it.
    ///
    /// Ends the leases of a server that crashed. Its messages are ready immediately; from the third
    /// attempt on they are delayed, because one of them may have caused the crash.
    ///
    /// # Errors
    /// [`SqliteOpenError::InUse`] if another server has the inbox open; [`SqliteOpenError::Open`] if
    /// the file cannot be created, written or flushed, is not an inbox, or is where other users or
    /// machines can write to it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SqliteOpenError> {
        Self::open_with(path, SqliteOptions::default())
    }

    /// Opens the inbox as [`open`](Self::open) does, with other options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(
        path: impl AsRef<Path>,
        options: SqliteOptions,
    ) -> Result<Self, SqliteOpenError> {
        let path = file::create(path.as_ref(), options.allow_shared_directory)?;
        let failed = |error| SqliteOpenError::new(&path, error);
        let lock = ServerLock::acquire(&path)?;
        let mut writer = file::open(&path, lock.database())?;
        ended::end_all_leases(&mut writer, options.clock.now())
            .map_err(|error| SqliteOpenError::new(&path, error))?;
        let checkpoints = file::connect(&path).map_err(failed)?;
        let checkpointer = Checkpointer::start(&mut writer, checkpoints)
            .map_err(|error| SqliteOpenError::new(&path, error))?;
        Self::start(&path, options, writer, Some((checkpointer, lock)))
    }

    /// Opens an inbox that a server may have open, to read and to replay. It cannot lease messages.
    ///
    /// # Errors
    /// [`SqliteOpenError::Open`] if the file is missing or is not an inbox.
    pub fn open_shared(path: impl AsRef<Path>) -> Result<Self, SqliteOpenError> {
        let failed = |error| SqliteOpenError::new(path.as_ref(), error);
        let path = path.as_ref().canonicalize().map_err(failed)?;
        let writer = file::open_shared(&path, lock::is_locked(&path))?;
        Self::start(&path, SqliteOptions::default(), writer, None)
    }

    /// Returns `true` if a running server has the inbox open.
    #[must_use]
    pub fn is_served(path: impl AsRef<Path>) -> bool {
        lock::is_locked(path.as_ref())
    }

    /// Returns the process id of the server that has the inbox open, to signal it.
    ///
    /// `None` if no server has it open, or if the process is not visible: on Linux, if it runs in
    /// another container or as another user.
    #[must_use]
    pub fn server_pid(path: impl AsRef<Path>) -> Option<u32> {
        lock::owner(path.as_ref())
    }

    fn start(
        path: &Path,
        options: SqliteOptions,
        connection: Connection,
        server: Option<(Checkpointer, ServerLock)>,
    ) -> Result<Self, SqliteOpenError> {
        let reader = || file::connect(path).map(|connection| Arc::new(Reader::new(connection)));
        let lookups = reader().map_err(|error| SqliteOpenError::new(path, error))?;
        let searches = reader().map_err(|error| SqliteOpenError::new(path, error))?;
        let files = OpenFiles::new(path).map_err(|error| SqliteOpenError::new(path, error))?;
        let meter = Arc::<Meter>::default();
        let version = watch::Sender::new(0);
        let health: Health = Arc::new(Mutex::new(Ok(())));
        let (commands, receiver) = mpsc::unbounded_channel();
        let (ended, writer_ended) = watch::channel(false);
        let is_server = server.is_some();
        let (checkpointer, lock) = server.unzip();
        let writer = Writer {
            connection,
            files,
            checkpointer,
            lock,
            meter: Arc::clone(&meter),
            version: version.clone(),
            health: Arc::clone(&health),
            log_limit: RateLimit::new(),
        };
        let dispatch = DispatchState::new(Arc::clone(&options.clock));
        let writer = thread::Builder::new()
            .name("pleo-inbox".into())
            .spawn(move || {
                writer.run(receiver, dispatch);
                ended.send_replace(true);
            })
            .map_err(|error| SqliteOpenError::new(path, error))?;
        Ok(Self {
            path: path.display().to_string(),
            options,
            is_server,
            is_closed: AtomicBool::new(false),
            commands: Some(commands),
            batches: Arc::default(),
            meter,
            version,
            health,
            writer_ended,
            lookups,
            searches,
            writer: Some(writer),
        })
    }

    /// Sends a command to the writer and waits for its reply.
    async fn command<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, InboxError> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(self.ended());
        }
        self.send(command).await
    }

    async fn send<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, InboxError> {
        let (reply, result) = oneshot::channel();
        if let Some(commands) = &self.commands {
            // If the writer has ended, `reply` is dropped with the command.
            let _ = commands.send(command(reply));
        }
        self.result(result).await
    }

    /// Waits for the writer's reply.
    async fn result<T>(
        &self,
        result: oneshot::Receiver<Result<T, InboxError>>,
    ) -> Result<T, InboxError> {
        match result.await {
            Ok(result) => result,
            Err(_) if self.writer_panicked().await => Err(panicked()),
            Err(_) => Err(InboxErrorKind::Closed.into()),
        }
    }

    /// Sends a command that only the inbox's server can execute.
    async fn server_command<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, InboxError> {
        if !self.is_server {
            return Err(InboxErrorKind::Unsupported.into());
        }
        self.command(command).await
    }

    /// Waits until the writer has ended; returns `true` if it panicked.
    async fn writer_panicked(&self) -> bool {
        let mut writer_ended = self.writer_ended.clone();
        writer_ended.wait_for(|ended| *ended).await.is_err()
    }

    /// Returns why the inbox executes no more commands.
    fn ended(&self) -> InboxError {
        let has_panicked = self.writer_ended.has_changed().is_err() && !*self.writer_ended.borrow();
        if has_panicked {
            return panicked();
        }
        InboxErrorKind::Closed.into()
    }

    /// Returns the reader that finds the selected messages.
    fn reader(&self, selection: &Selection) -> &Reader {
        match selection.webhook_id {
            Some(_) => &self.lookups,
            None => &self.searches,
        }
    }

    /// Executes a command for all selected messages, [`CHUNK`] at a time. The reader finds them, so
    /// that the search does not delay the writer.
    fn in_chunks(
        &self,
        selection: Selection,
        command: impl Fn(Vec<i64>, Arc<Selection>, Reply<u64>) -> Command + Send + Sync + 'static,
    ) -> InboxFuture<'_, u64> {
        Box::pin(async move {
            let selection = Arc::new(selection);
            // Messages that arrive from now on are not selected.
            let last = self.lookups.read(queries::last_sequence).await?;
            let (mut after, mut count) = (0, 0);
            let mut missing = selection.limit.unwrap_or(u64::MAX);
            while missing > 0 {
                let (selected, limit) = (Arc::clone(&selection), missing.min(CHUNK));
                let find = move |reader: &_| queries::find(reader, &selected, after, last, limit);
                let sequences = self.reader(&selection).read(find).await?;
                let Some(end) = sequences.last() else { break };
                after = *end;
                let selection = Arc::clone(&selection);
                let changed = self.command(|reply| command(sequences, selection, reply));
                let changed = changed.await?;
                count += changed;
                missing = missing.saturating_sub(changed);
            }
            Ok(count)
        })
    }
}

impl Inbox for SqliteInbox {
    fn append(&self, message: NewMessage) -> InboxFuture<'_, Appended> {
        Box::pin(async move {
            let size = message.body.len() + MESSAGE_OVERHEAD;
            if self.is_closed.load(Ordering::Relaxed) {
                return Err(self.ended());
            }
            if self.meter.queue(size) > self.options.queue_bytes {
                self.meter.unqueue(1, size);
                return Err(InboxErrorKind::Busy.into());
            }
            let message = Box::new(ParsedMessage::parse(message, self.options.clock.now()));
            let (reply, result) = oneshot::channel();
            if let Some(commands) = &self.commands {
                let append = QueuedAppend {
                    message,
                    size,
                    reply,
                };
                self.batches.add(append, commands);
            }
            self.result(result).await
        })
    }

    fn lease(&self, request: LeaseRequest) -> InboxFuture<'_, Leased> {
        Box::pin(self.server_command(|reply| Command::Lease { request, reply }))
    }

    fn renew(&self, leases: Vec<LeaseId>, ttl: Duration) -> InboxFuture<'_, Vec<LeaseId>> {
        Box::pin(self.server_command(move |reply| Command::Renew { leases, ttl, reply }))
    }

    fn complete(&self, lease: LeaseId, outcome: Outcome) -> InboxFuture<'_, Completed> {
        Box::pin(self.server_command(move |reply| Command::Complete {
            lease,
            outcome,
            reply,
        }))
    }

    fn changed(&self, seen: Version) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let mut version = self.version.subscribe();
            let changed = version.wait_for(|version| Version::new(*version) != seen);
            // After the interval it resolves spuriously.
            let _ = time::timeout(POLL_INTERVAL, changed).await;
        })
    }

    fn list(&self, query: Query) -> InboxFuture<'_, Page> {
        Box::pin(async move {
            let reader = self.reader(&query.selection);
            let list = move |connection: &_| queries::list(connection, &query);
            reader.read(list).await
        })
    }

    fn get(&self, key: Key) -> InboxFuture<'_, Option<StoredMessage>> {
        Box::pin((self.lookups).read(move |connection| queries::get(connection, &key)))
    }

    fn replay(&self, selection: Selection) -> InboxFuture<'_, u64> {
        self.in_chunks(selection, |sequences, selection, reply| Command::Replay {
            sequences,
            selection,
            reply,
        })
    }

    fn prune(&self, selection: Selection) -> InboxFuture<'_, u64> {
        self.in_chunks(selection, |sequences, selection, reply| Command::Prune {
            sequences,
            selection,
            reply,
        })
    }

    fn set_paused(&self, endpoint: Arc<str>, paused: bool) -> InboxFuture<'_, ()> {
        Box::pin(self.command(move |reply| Command::SetPaused {
            endpoint,
            paused,
            reply,
        }))
    }

    fn stats(&self) -> InboxFuture<'_, Vec<EndpointStats>> {
        let now = self.options.clock.now();
        Box::pin((self.lookups).read(move |connection| stats::stats(connection, now)))
    }

    fn measurements(&self) -> InboxFuture<'_, Measurements> {
        let (meter, path) = (Arc::clone(&self.meter), PathBuf::from(&self.path));
        Box::pin(async move {
            let measure = move || {
                let mut measurements = meter.measurements();
                sizes::add_sizes(&mut measurements, &path);
                measurements
            };
            let measured = task::spawn_blocking(measure).await;
            measured.map_err(|_| InboxErrorKind::Closed.into())
        })
    }

    fn check(&self) -> InboxFuture<'_, ()> {
        Box::pin(async {
            let has_ended = self.writer_ended.has_changed().is_err();
            if has_ended || self.is_closed.load(Ordering::Relaxed) {
                return Err(self.ended());
            }
            if self.meter.queued_bytes() > self.options.queue_bytes {
                return Err(InboxErrorKind::Busy.into());
            }
            {
                let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
                health.clone()?;
            }
            let path = PathBuf::from(&self.path);
            match task::spawn_blocking(move || sizes::free_bytes(&path)).await {
                Ok(Some(free)) if free < MIN_FREE_BYTES => Err(InboxError::new(
                    InboxErrorKind::Unavailable,
                    format!("the disk is full: {free} bytes are free"),
                )),
                _ => Ok(()),
            }
        })
    }

    fn close(&self) -> InboxFuture<'_, ()> {
        Box::pin(async move {
            self.is_closed.store(true, Ordering::Relaxed);
            let readers = [&self.lookups, &self.searches].map(Arc::clone);
            // The writer closes the last connection.
            let close = move || readers.iter().for_each(|reader| reader.close());
            drop(task::spawn_blocking(close).await);
            self.send(|reply| Command::Close { reply }).await
        })
    }
}

fn panicked() -> InboxError {
    InboxError::new(
        InboxErrorKind::Fatal,
        "the inbox panicked; the panic is in the log, please report it",
    )
}

impl Drop for SqliteInbox {
    /// Waits until the writer has executed the queued commands, so that the next owner sees them.
    fn drop(&mut self) {
        // The writer closes the last connection.
        self.lookups.close();
        self.searches.close();
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
