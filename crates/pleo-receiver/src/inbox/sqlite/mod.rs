//! The inbox in one SQLite file.
//!
//! One thread writes. It takes whatever waits (appends, claims, outcomes), does it in one
//! transaction, commits once with `synchronous=FULL`, and only then answers all: many messages share
//! one flush of the disk. Reading has a connection of its own.

mod file;
mod writer;

use core::fmt;
use core::pin::Pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Connection, Row, named_params};
use tokio::sync::{Notify, oneshot};
use tokio::{task, time};

use self::writer::{Command, Reply, Writer};
use super::{
    Appended, Claim, ClaimId, Counts, Entry, Filter, Inbox, InboxError, InboxFuture, NewMessage,
    Origin, Outcome, Selection, State,
};

/// How many bytes of messages may wait to be stored.
const WAITING_LIMIT: usize = 256 * 1024 * 1024;

/// What a waiting message takes beside its body, roughly.
const MESSAGE_OVERHEAD: usize = 512;

/// How often [`Inbox::ready`] resolves for nothing, so that what another process replayed is seen.
const POLL: Duration = Duration::from_secs(1);

/// What [`entry`] reads; not the body, which may be long.
const ENTRY: &str =
    "sequence, endpoint, webhook_id, event_type, event_id, resource_id, origin, state,
    attempts, received_at, expires_at, due_at, last_error, length(body) AS body_len";

/// An inbox in a SQLite file, made when it isn't there.
///
/// Beside the file SQLite keeps two more while it is open (`-wal`, `-shm`), and the server that owns
/// it keeps a `.lock` with its process id. The messages are in the table `message`, which may be read by SQL at any time:
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
/// | `body` | the raw bytes |
pub struct SqliteInbox {
    path: String,
    /// `None` only while this is dropped.
    commands: Option<mpsc::Sender<Command>>,
    waiting: Arc<AtomicUsize>,
    ready: Arc<Notify>,
    /// `None` once closed.
    reader: Arc<Mutex<Option<Connection>>>,
    writer: Option<thread::JoinHandle<()>>,
}

impl SqliteInbox {
    /// Opens the inbox for a server, and makes the file when it isn't there. What a server that died
    /// had in hand is due again at once.
    ///
    /// # Errors
    /// [`InboxError::InUse`] where another server has it, [`InboxError::Open`] where the file can't
    /// be made, written, or isn't an inbox.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, InboxError> {
        let path = file::make(path.as_ref())?;
        let lock = file::lock(&path)?;
        let writer = file::open(&path)?;
        file::free_leases(&writer).map_err(|error| file::open_error(&path, error))?;
        Self::start(&path, writer, Some(lock))
    }

    /// Opens an inbox beside the server that owns it, to look and to replay.
    ///
    /// # Errors
    /// [`InboxError::Open`] where there is no such file or it isn't an inbox.
    pub fn open_shared(path: impl AsRef<Path>) -> Result<Self, InboxError> {
        let path = path.as_ref();
        let writer = file::open(path)?;
        Self::start(path, writer, None)
    }

    /// The process id of the server that has the inbox open, to send it a signal; `None` where none
    /// has, whatever a server that died left behind.
    #[must_use]
    pub fn server_pid(path: impl AsRef<Path>) -> Option<u32> {
        file::locked_by(path.as_ref())
    }

    fn start(path: &Path, writer: Connection, lock: Option<File>) -> Result<Self, InboxError> {
        let reader = file::open(path)?;
        let waiting = Arc::new(AtomicUsize::new(0));
        let ready = Arc::new(Notify::new());
        let (commands, receiver) = mpsc::channel();
        let writer = Writer::new(writer, lock, Arc::clone(&waiting), Arc::clone(&ready));
        let writer = thread::Builder::new()
            .name("pleo-inbox".into())
            .spawn(move || writer.run(&receiver))
            .map_err(|error| file::open_error(path, error))?;
        Ok(Self {
            path: path.display().to_string(),
            commands: Some(commands),
            waiting,
            ready,
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
        let commands = self.commands.as_ref();
        let sent = commands.and_then(|commands| commands.send(command(reply)).ok());
        Box::pin(async move {
            sent.ok_or(InboxError::Closed)?;
            answer.await.map_err(|_| InboxError::Closed)?
        })
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

impl Inbox for SqliteInbox {
    fn append(&self, message: NewMessage) -> InboxFuture<'_, Appended> {
        let size = message.body.len() + MESSAGE_OVERHEAD;
        if self.waiting.fetch_add(size, Ordering::Relaxed) > WAITING_LIMIT {
            self.waiting.fetch_sub(size, Ordering::Relaxed);
            return Box::pin(async { Err(InboxError::Full) });
        }
        self.command(|reply| Command::Append {
            message,
            size,
            reply,
        })
    }

    fn claim(&self, limit: usize, now: Timestamp, lease: Duration) -> InboxFuture<'_, Claim> {
        self.command(|reply| Command::Claim {
            limit,
            now,
            lease,
            reply,
        })
    }

    fn settle(&self, claim: ClaimId, outcome: Outcome) -> InboxFuture<'_, ()> {
        self.command(|reply| Command::Settle {
            claim,
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
                "SELECT {ENTRY}, body FROM message WHERE webhook_id = ?1 ORDER BY sequence"
            ))?;
            let rows = statement.query_map([webhook_id], |row| {
                Ok((entry(row)?, row.get::<_, Vec<u8>>("body")?.into()))
            })?;
            rows.collect()
        })
    }

    fn replay(&self, selection: Selection) -> InboxFuture<'_, u64> {
        self.command(|reply| Command::Replay { selection, reply })
    }

    fn prune(&self, state: State, before: Timestamp) -> InboxFuture<'_, u64> {
        self.command(|reply| Command::Prune {
            state,
            before,
            reply,
        })
    }

    fn counts(&self) -> InboxFuture<'_, Counts> {
        self.read(|connection| {
            // In one statement, since messages change their state meanwhile.
            let count = |state: State| format!("count(*) FILTER (WHERE state = '{state}')");
            let [pending, done, dead] = [State::Pending, State::Done, State::Dead].map(count);
            let query = format!("SELECT {pending}, {done}, {dead} FROM message");
            connection.prepare_cached(&query)?.query_row([], |row| {
                Ok(Counts {
                    pending: row.get(0)?,
                    done: row.get(1)?,
                    dead: row.get(2)?,
                })
            })
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
            // It doesn't panic; if it did, there is nothing left to wait for.
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

/// Milliseconds beyond what a timestamp holds become the last moment that it does.
fn timestamp(millisecond: i64) -> Timestamp {
    Timestamp::from_millisecond(millisecond).unwrap_or(Timestamp::MAX)
}
