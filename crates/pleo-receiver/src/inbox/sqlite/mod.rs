//! The inbox in one SQLite file.
//!
//! One thread writes. It takes whatever waits (appends, claims, outcomes), does it in one
//! transaction, commits once with `synchronous=FULL`, and only then answers all: many messages share
//! one flush of the disk. Reading has a connection of its own, and so has the thread that moves what
//! was committed from the log into the file.

mod append;
mod checkpoint;
mod file;
mod statements;
mod writer;

use core::fmt;
use core::future::pending;
use core::future::ready;
use core::pin::Pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Connection, Row, named_params, params};
use tokio::sync::{Notify, oneshot, watch};
use tokio::{task, time};

use self::append::New;
use self::checkpoint::Checkpointer;
use self::file::Opened;
use self::writer::{Command, Reply, Writer};
use super::{
    Appended, Counts, Entry, Filter, Inbox, InboxError, InboxFuture, LeaseId, LeaseRequest, Leased,
    NewMessage, Origin, Outcome, Selection, State, ceil, timestamp,
};

/// What a waiting message takes beside its body, roughly.
const MESSAGE_OVERHEAD: usize = 512;

/// How often [`Inbox::ready`] resolves for nothing, so that what another process replayed is seen.
const POLL: Duration = Duration::from_secs(1);

/// How many messages are replayed or deleted in one transaction, so that others wait no longer.
const STEP: u32 = 500;

/// What [`entry`] reads; not the body, which may be long.
const ENTRY: &str = "sequence, endpoint, webhook_id, event_type, event_id, resource_id, origin,
    state, attempts, received_at, expires_at, due_at, last_error,
    (SELECT length(body) FROM body WHERE body.sequence = message.sequence) AS body_len";

/// What an inbox in a file is opened with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// How many bytes of messages may wait to be stored; while there are more, appends are refused
    /// as [`InboxError::Full`]. 64 MiB unless set.
    pub queue_bytes: usize,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            queue_bytes: 64 * 1024 * 1024,
        }
    }
}

/// An inbox in a SQLite file, made when it isn't there.
///
/// Beside the file SQLite keeps two more while it is open (`-wal`, `-shm`), and the server that owns
/// it keeps a `.lock`, locked, with its process id. The messages are in the table `message`, their raw bytes in
/// `body`, both keyed by `sequence`; they may be read by SQL at any time:
///
/// | column | what it is |
/// | --- | --- |
/// | `sequence` | the order of arrival |
/// | `endpoint`, `webhook_id` | the key |
/// | `event_type`, `event_id` | from the envelope; null where the body isn't one |
/// | `resource_id` | the `id` in the event's data |
/// | `origin` | `webhook` where the sender posted it, `catch-up` where it was fetched |
/// | `received_at`, `expires_at` | milliseconds since 1970 |
/// | `state` | `pending`, `done` or `dead` |
/// | `attempts` | how often it was handed to a handler |
/// | `due_at` | while pending: when it is due again, in milliseconds since 1970; null for now |
/// | `leased` | whether a handler has it |
/// | `last_error` | why the last attempt failed |
pub struct SqliteInbox {
    path: String,
    options: SqliteOptions,
    /// `None` only while this is dropped.
    commands: Option<mpsc::Sender<Command>>,
    waiting: Arc<AtomicUsize>,
    ready: Arc<Notify>,
    /// Whether the writer has ended in good order; its sender is gone once it has ended at all.
    ended: watch::Receiver<bool>,
    /// `None` once closed.
    reader: Arc<Mutex<Option<Connection>>>,
    writer: Option<thread::JoinHandle<()>>,
}

impl SqliteInbox {
    /// Opens the inbox for a server, and makes the file when it isn't there. What a server that died
    /// had in hand is due again at once; from its third attempt on after a while, since it may be what
    /// they die of.
    ///
    /// # Errors
    /// [`InboxError::InUse`] where another server has it, [`InboxError::Open`] where the file can't
    /// be made, written, or isn't an inbox.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, InboxError> {
        Self::open_with(path, SqliteOptions::default())
    }

    /// Like [`Self::open`], with other options.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, InboxError> {
        let path = file::make(path.as_ref())?;
        let lock = file::lock(&path)?;
        let mut writer = file::open(&path)?;
        file::flush_log(&path).map_err(|error| file::open_error(&path, error))?;
        file::free_leases(&writer).map_err(|error| file::open_error(&path, error))?;
        let checkpointer = Checkpointer::start(&mut writer, file::open(&path)?)
            .map_err(|error| file::open_error(&path, error))?;
        Self::start(&path, options, writer, Some((checkpointer, lock)))
    }

    /// Opens an inbox beside the server that owns it, to look and to replay.
    ///
    /// # Errors
    /// [`InboxError::Open`] where there is no such file or it isn't an inbox.
    pub fn open_shared(path: impl AsRef<Path>) -> Result<Self, InboxError> {
        let path = path.as_ref();
        let writer = file::open(path)?;
        Self::start(path, SqliteOptions::default(), writer, None)
    }

    /// Whether a server has the inbox open, whatever a server that died left behind.
    #[must_use]
    pub fn is_served(path: impl AsRef<Path>) -> bool {
        file::is_locked(path.as_ref())
    }

    /// The process id of the server that has the inbox open, to send it a signal; `None` where none
    /// has, or it can't be seen from here: on Linux, where it runs in another container or as another
    /// user.
    #[must_use]
    pub fn server_pid(path: impl AsRef<Path>) -> Option<u32> {
        file::locked_by(path.as_ref())
    }

    fn start(
        path: &Path,
        options: SqliteOptions,
        connection: Connection,
        owner: Option<(Checkpointer, File)>,
    ) -> Result<Self, InboxError> {
        let reader = file::open(path)?;
        let opened = Opened::at(path).map_err(|error| file::open_error(path, error))?;
        let waiting = Arc::new(AtomicUsize::new(0));
        let ready = Arc::new(Notify::new());
        let (commands, receiver) = mpsc::channel();
        let (end, ended) = watch::channel(false);
        let (checkpointer, lock) = owner.unzip();
        let writer = Writer {
            connection,
            opened,
            checkpointer,
            lock,
            waiting: Arc::clone(&waiting),
            ready: Arc::clone(&ready),
        };
        let writer = thread::Builder::new()
            .name("pleo-inbox".into())
            .spawn(move || {
                writer.run(&receiver);
                end.send_replace(true);
            })
            .map_err(|error| file::open_error(path, error))?;
        Ok(Self {
            path: path.display().to_string(),
            options,
            commands: Some(commands),
            waiting,
            ready,
            ended,
            reader: Arc::new(Mutex::new(Some(reader))),
            writer: Some(writer),
        })
    }

    /// Sends a command to the writer and waits for its answer.
    fn command<T: Send + 'static>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> InboxFuture<'_, T> {
        let (reply, answer) = oneshot::channel();
        if let Some(commands) = &self.commands {
            // Where the writer is gone, `reply` is too.
            let _ = commands.send(command(reply));
        }
        Box::pin(async {
            match answer.await {
                Ok(result) => result,
                Err(_) if self.has_panicked().await => Err(InboxError::Panicked),
                Err(_) => Err(InboxError::Closed),
            }
        })
    }

    /// Waits until the writer has ended, and says how.
    async fn has_panicked(&self) -> bool {
        self.ended.clone().wait_for(|ended| *ended).await.is_err()
    }

    fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> InboxFuture<'_, T> {
        let reader = Arc::clone(&self.reader);
        Box::pin(async move {
            // A panic while the lock was held can't have left a read half done.
            let read = move || {
                let reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
                query(reader.as_ref().ok_or(InboxError::Closed)?).map_err(failed)
            };
            let result = task::spawn_blocking(read).await;
            result.map_err(|_| InboxError::Closed)?
        })
    }
}

impl SqliteInbox {
    /// Does something with all that is selected, a few at a time. They are found by reading, so that
    /// nobody waits for that.
    fn in_steps(
        &self,
        selection: Arc<Selection>,
        command: impl Fn(Vec<i64>, Reply<u64>) -> Command + Send + 'static,
    ) -> InboxFuture<'_, u64> {
        Box::pin(async move {
            // What arrives from now on isn't meant.
            let last = self.read(|connection| {
                let last = "SELECT max(sequence) FROM message";
                connection.query_row(last, [], |row| row.get::<_, Option<i64>>(0))
            });
            let last = last.await?.unwrap_or(0);
            let mut after = 0;
            let mut count = 0;
            loop {
                let selection = Arc::clone(&selection);
                let found = self.read(move |connection| find(connection, &selection, after, last));
                let places = found.await?;
                let Some(end) = places.last() else {
                    return Ok(count);
                };
                after = *end;
                count += self.command(|reply| command(places, reply)).await?;
            }
        })
    }
}

impl Inbox for SqliteInbox {
    fn append(&self, message: NewMessage) -> InboxFuture<'_, Appended> {
        let size = message.body.len() + MESSAGE_OVERHEAD;
        if self.waiting.fetch_add(size, Ordering::Relaxed) > self.options.queue_bytes {
            self.waiting.fetch_sub(size, Ordering::Relaxed);
            return Box::pin(ready(Err(InboxError::Full)));
        }
        let message = New::read(message);
        self.command(|reply| Command::Append {
            message,
            size,
            reply,
        })
    }

    fn lease(
        &self,
        room: LeaseRequest,
        now: Timestamp,
        lease: Duration,
    ) -> InboxFuture<'_, Leased> {
        self.command(|reply| Command::Leased {
            room,
            now,
            lease,
            reply,
        })
    }

    fn complete(&self, lease: LeaseId, outcome: Outcome) -> InboxFuture<'_, ()> {
        self.command(|reply| Command::Settle {
            lease,
            outcome,
            reply,
        })
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            // Late is as good as notified: either way it's time to look.
            let _ = time::timeout(POLL, self.ready.notified()).await;
        })
    }

    fn list(&self, filter: Filter) -> InboxFuture<'_, Vec<Entry>> {
        self.read(move |connection| {
            let order = if filter.newest_first { "DESC" } else { "ASC" };
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {ENTRY} FROM message
                 WHERE sequence > :after AND (:state IS NULL OR state = :state)
                   AND (:endpoint IS NULL OR endpoint = :endpoint)
                 ORDER BY sequence {order} LIMIT :limit"
            ))?;
            let rows = statement.query_map(
                named_params! {
                    ":after": filter.after.unwrap_or(i64::MIN),
                    ":state": filter.state.map(State::as_str),
                    ":endpoint": filter.endpoint,
                    ":limit": filter.limit.map_or(-1, i64::from),
                },
                entry,
            )?;
            rows.collect()
        })
    }

    fn show(&self, webhook_id: String) -> InboxFuture<'_, Vec<(Entry, Bytes)>> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {ENTRY}, (SELECT body FROM body WHERE body.sequence = message.sequence) AS body
                 FROM message WHERE webhook_id = ?1 ORDER BY sequence"
            ))?;
            let rows = statement.query_map([webhook_id], |row| {
                Ok((entry(row)?, row.get::<_, Vec<u8>>("body")?.into()))
            })?;
            rows.collect()
        })
    }

    fn replay(&self, selection: Selection) -> InboxFuture<'_, u64> {
        let selection = Arc::new(selection);
        self.in_steps(Arc::clone(&selection), move |places, reply| {
            Command::Replay {
                places,
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
        self.in_steps(Arc::new(old), move |places, reply| Command::Prune {
            places,
            state,
            reply,
        })
    }

    fn counts(&self) -> InboxFuture<'_, Counts> {
        self.read(|connection| {
            // In one statement, since messages change their state meanwhile; and by indexes alone.
            let mut count = connection.prepare_cached(
                "SELECT (SELECT count(*) FROM message INDEXED BY message_ready
                         WHERE state = 'pending' AND due_at IS NULL)
                      + (SELECT count(*) FROM message INDEXED BY message_waiting
                         WHERE state = 'pending' AND due_at IS NOT NULL),
                        (SELECT count(*) FROM message INDEXED BY message_dead
                         WHERE state = 'dead'),
                        (SELECT count(*) FROM message)",
            )?;
            count.query_row([], |row| {
                let (pending, dead, all): (u64, u64, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                let done = all.saturating_sub(pending + dead);
                Ok(Counts {
                    pending,
                    done,
                    dead,
                })
            })
        })
    }

    fn broken(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            if !self.has_panicked().await {
                pending().await
            }
        })
    }

    fn close(&self) -> InboxFuture<'_, ()> {
        let reader = Arc::clone(&self.reader);
        let closed = self.command(|reply| Command::Close { reply });
        Box::pin(async move {
            // A read may have it, for a while.
            let close = move || reader.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(task::spawn_blocking(close).await);
            closed.await
        })
    }
}

impl Drop for SqliteInbox {
    /// Waits until what was given to the writer is stored, so that the next owner finds it.
    fn drop(&mut self) {
        self.commands = None;
        if let Some(writer) = self.writer.take() {
            // If it panicked, there is nothing left to wait for.
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

fn failed(error: rusqlite::Error) -> InboxError {
    InboxError::Failed(Arc::new(error))
}

/// The first few places of what is selected and in nobody's hands.
fn find(
    connection: &Connection,
    selection: &Selection,
    after: i64,
    last: i64,
) -> rusqlite::Result<Vec<i64>> {
    let mut find = connection.prepare_cached(
        "SELECT sequence FROM message
         WHERE (?1 IS NULL OR webhook_id = ?1) AND (?2 IS NULL OR endpoint = ?2)
           AND (?3 IS NULL OR event_type = ?3) AND (?4 IS NULL OR state = ?4)
           AND (?5 IS NULL OR received_at >= ?5) AND (?6 IS NULL OR received_at < ?6)
           AND leased = 0 AND sequence > ?7 AND sequence <= ?8
         ORDER BY sequence LIMIT ?9",
    )?;
    let found = find.query_map(
        params![
            selection.webhook_id,
            selection.endpoint,
            selection.event_type,
            selection.state.map(State::as_str),
            selection.since.map(ceil),
            selection.until.map(ceil),
            after,
            last,
            STEP
        ],
        |row| row.get(0),
    )?;
    found.collect()
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let state: String = row.get("state")?;
    Ok(Entry {
        sequence: row.get("sequence")?,
        endpoint: row.get("endpoint")?,
        webhook_id: row.get("webhook_id")?,
        event_type: row.get("event_type")?,
        event_id: row.get("event_id")?,
        resource_id: row.get("resource_id")?,
        origin: origin(row)?,
        // The schema allows these three.
        state: match &*state {
            "done" => State::Done,
            "dead" => State::Dead,
            _ => State::Pending,
        },
        attempts: row.get("attempts")?,
        received_at: timestamp(row.get("received_at")?),
        expires_at: row.get::<_, Option<i64>>("expires_at")?.map(timestamp),
        due_at: row.get::<_, Option<i64>>("due_at")?.map(timestamp),
        last_error: row.get("last_error")?,
        body_len: row.get("body_len")?,
    })
}

fn origin(row: &Row<'_>) -> rusqlite::Result<Origin> {
    // The schema allows these two.
    Ok(match row.get_ref("origin")?.as_str()? {
        "catch-up" => Origin::CatchUp,
        _ => Origin::Webhook,
    })
}
