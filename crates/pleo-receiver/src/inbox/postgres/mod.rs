//! The inbox in PostgreSQL, which several processes share.
//!
//! A thread with a runtime of its own has all connections: two that append, one for leases, one for
//! renewals and outcomes, one for statistics, one for everything else, and one that listens. Appends that
//! arrive together are one statement. Every call runs in a task of that runtime, so that a caller that
//! drops its future leaves nothing half done.

mod append;
mod complete;
mod connect;
mod error;
mod full_scan;
mod health;
mod hosts;
mod import;
mod lease;
mod listen;
mod maintenance;
mod manage;
mod options;
mod passfile;
mod progress;
mod queries;
mod queue;
mod ready;
mod rows;
mod schema;
mod schema_name;
mod session;
mod shared;
mod text;
mod tls;

use core::fmt;
use core::pin::Pin;
use core::time::Duration;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time;

use self::append::Append;
use self::complete::Complete;
use self::connect::Connector;
pub use self::error::PostgresOpenError;
use self::error::{Failure, UrlError};
pub use self::options::PostgresOptions;
use self::queue::AppendQueue;
use self::shared::Shared;
use super::contract::{Inbox, InboxFuture};
use super::error::{InboxError, InboxErrorKind};
use super::lease::{Completed, LeaseId, LeaseRequest, Leased, Outcome, Version};
use super::measurements::Measurements;
use super::message::{Appended, Key, NewMessage, StoredMessage};
use super::query::{EndpointStats, Page, Query, Selection};

/// The estimated memory of a queued message without its body, in bytes.
const MESSAGE_OVERHEAD: usize = 512;

/// How often [`Inbox::changed`] resolves spuriously, so that the dispatcher sees what it was not
/// notified of.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The time limit of a statement of a migration.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(3600);

/// An inbox in PostgreSQL 13 or newer, which several processes share.
///
/// [`append`](Inbox::append) resolves after the commit. The server must keep what it commits: opening
/// fails if `fsync` is off, or if `synchronous_commit` is less than `on` for the user of the inbox.
///
/// Each process has seven connections. Calls fail with [`Unavailable`](InboxErrorKind::Unavailable) while
/// the server is away, and succeed when it is back; no restart is needed. Of several hosts in the URL,
/// the one that accepts writes is used, also after a failover; one that does not respond is skipped.
///
/// Leases end by the server's clock. The limits of a [`LeaseRequest`] hold for all processes together;
/// the turns of endpoints are each process's own.
///
/// The tables are in a schema of their own: `message` has the messages as they arrived, `dispatch` their
/// state, `attempt` the history. Other programs may read them with SQL. In texts, NUL is stored as
/// `U+001A 0`, since PostgreSQL stores no NUL.
///
/// The crate `tokio-postgres` logs statements with their values, which are messages, at the level
/// `debug` of the crate `log`. Do not enable that level.
pub struct PostgresInbox {
    server: String,
    options: PostgresOptions,
    shared: Arc<Shared>,
    appends: mpsc::UnboundedSender<Append>,
    /// `None` once the inbox is closed.
    completes: Mutex<Option<mpsc::UnboundedSender<Complete>>>,
    runtime: Handle,
    /// Dropped to end the thread.
    _running: oneshot::Sender<()>,
    /// The tasks that end when the inbox is closed.
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

impl PostgresInbox {
    /// Opens the inbox at this URL, see [`PostgresOptions`]. Creates its schema if it is missing, and
    /// upgrades it if an older release created it.
    ///
    /// # Errors
    /// [`PostgresOpenError::Url`] if the URL is wrong; [`PostgresOpenError::Open`] if the server cannot
    /// be reached, is a standby or may lose committed messages, or if the schema cannot be used.
    pub async fn open(url: &str) -> Result<Self, PostgresOpenError> {
        Self::open_with(url.parse()?).await
    }

    /// Opens the inbox as [`open`](Self::open) does, with other options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(options: PostgresOptions) -> Result<Self, PostgresOpenError> {
        let server = options.server();
        let version = watch::Sender::new(0);
        let connector = Arc::new(connector(&options, version.clone())?);
        let migrations = connector.with_statement_timeout(MIGRATION_TIMEOUT);
        connector.warn_of_weak_tls(options.verification);
        let (runtime, running) =
            start_runtime().map_err(|error| failed(&server, Box::new(error)))?;
        let shared = Arc::new(Shared::new(connector, version));
        let opening = {
            let (shared, is_enabled) = (Arc::clone(&shared), options.migrate);
            runtime.spawn(async move {
                if is_enabled {
                    migrate(&migrations).await?;
                }
                // The first connection shows that the schema can be used.
                shared.leasing.session().await.map(drop)
            })
        };
        let opened = opening
            .await
            .map_err(|error| failed(&server, Box::new(error)))?;
        opened.map_err(|failure| failed(&server, Box::new(failure)))?;

        let mut tasks = JoinSet::new();
        let (appends, queue) = mpsc::unbounded_channel();
        let queue = Arc::new(AppendQueue::new(queue));
        for _ in 0..queue::CONNECTIONS {
            let connection = queue::run_connection(Arc::clone(&shared), Arc::clone(&queue));
            tasks.spawn_on(connection, &runtime);
        }
        let (completes, queue) = mpsc::unbounded_channel();
        tasks.spawn_on(complete::run(Arc::clone(&shared), queue), &runtime);
        tasks.spawn_on(full_scan::run(Arc::clone(&shared)), &runtime);
        tasks.spawn_on(listen::run(Arc::clone(&shared)), &runtime);
        tasks.spawn_on(maintenance::run(Arc::clone(&shared)), &runtime);
        Ok(Self {
            server,
            options,
            shared,
            appends,
            completes: Mutex::new(Some(completes)),
            runtime,
            _running: running,
            tasks: tokio::sync::Mutex::new(tasks),
        })
    }

    /// Creates the schema of the inbox, or upgrades it to the version of this release. Returns the
    /// versions that were added, none if the schema was new enough. Several processes may call this at
    /// a time.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn migrate(options: PostgresOptions) -> Result<Vec<i32>, PostgresOpenError> {
        let server = options.server();
        let connector = connector(&options, watch::Sender::new(0))?;
        let migrated = migrate(&connector.with_statement_timeout(MIGRATION_TIMEOUT)).await;
        migrated.map_err(|failure| failed(&server, Box::new(failure)))
    }

    /// Stores messages of another inbox with their state and history, except those whose keys are stored
    /// already. Returns how many were new. All are stored, or on an error none.
    ///
    /// # Errors
    /// As [`append`](Inbox::append); and [`Refused`](InboxErrorKind::Refused) if the server refuses a
    /// message, as for a constraint or a trigger. Import each alone then.
    pub async fn import(&self, messages: Vec<StoredMessage>) -> Result<u64, InboxError> {
        let shared = Arc::clone(&self.shared);
        let import = async move {
            let session = shared.managing.session().await?;
            let imported = import::import(&session, &messages).await;
            drop(session);
            shared.changed();
            Ok(imported)
        };
        self.run(import).await?.map_err(Failure::of_import)
    }

    /// Runs a call in a task of the inbox's runtime, so that it ends even if the caller drops its future.
    /// Reads wait for their turn before, so that those whose callers left are never executed.
    async fn run<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, InboxError> {
        if self.shared.is_closed() {
            return Err(InboxErrorKind::Closed.into());
        }
        match self.runtime.spawn(call).await {
            Ok(result) => result.map_err(Into::into),
            Err(error) if error.is_panic() => Err(InboxError::new(InboxErrorKind::Fatal, error)),
            Err(_) => Err(InboxErrorKind::Closed.into()),
        }
    }

    async fn enqueue(&self, message: NewMessage) -> Result<Appended, InboxError> {
        if self.shared.is_closed() {
            return Err(InboxErrorKind::Closed.into());
        }
        if !self.shared.health.is_connected() {
            self.shared.health.check()?;
        }
        let size = message.body.len() + MESSAGE_OVERHEAD;
        let meter = &self.shared.meter;
        if meter.queue(size) > self.options.queue_bytes {
            meter.unqueue(1, size);
            return Err(InboxErrorKind::Busy.into());
        }
        let (reply, result) = oneshot::channel();
        if (self.appends.send(Append::new(message, size, reply))).is_err() {
            meter.unqueue(1, size);
            return Err(InboxErrorKind::Closed.into());
        }
        result
            .await
            .unwrap_or_else(|_| Err(InboxErrorKind::Closed.into()))
    }

    async fn record(&self, lease: LeaseId, outcome: Outcome) -> Result<Completed, InboxError> {
        let (reply, result) = oneshot::channel();
        let completes = self.completes.lock();
        let completes = completes.unwrap_or_else(PoisonError::into_inner).clone();
        let complete = Complete {
            lease,
            outcome,
            reply,
        };
        let is_sent = completes.is_some_and(|completes| completes.send(complete).is_ok());
        if !is_sent {
            return Err(InboxErrorKind::Closed.into());
        }
        result
            .await
            .unwrap_or_else(|_| Err(InboxErrorKind::Closed.into()))
    }
}

impl Inbox for PostgresInbox {
    fn append(&self, message: NewMessage) -> InboxFuture<'_, Appended> {
        Box::pin(self.enqueue(message))
    }

    fn lease(&self, request: LeaseRequest) -> InboxFuture<'_, Leased> {
        let shared = Arc::clone(&self.shared);
        Box::pin(self.run(async move { lease::lease(&shared, &request).await }))
    }

    fn renew(&self, leases: Vec<LeaseId>, ttl: Duration) -> InboxFuture<'_, Vec<LeaseId>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(self.run(async move {
            let session = shared.outcomes.session().await?;
            complete::renew(&session, leases, ttl).await
        }))
    }

    fn complete(&self, lease: LeaseId, outcome: Outcome) -> InboxFuture<'_, Completed> {
        Box::pin(self.record(lease, outcome))
    }

    fn changed(&self, seen: Version) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let mut version = self.shared.version.subscribe();
            let changed = version.wait_for(|version| Version::new(*version) != seen);
            // After the interval it resolves spuriously.
            let _ = time::timeout(POLL_INTERVAL, changed).await;
        })
    }

    fn list(&self, query: Query) -> InboxFuture<'_, Page> {
        Box::pin(async move {
            let turn = self.shared.managing.turn().await;
            self.run(async move {
                let session = turn.session().await?;
                queries::list(&session, &query).await
            })
            .await
        })
    }

    fn get(&self, key: Key) -> InboxFuture<'_, Option<StoredMessage>> {
        Box::pin(async move {
            let turn = self.shared.managing.turn().await;
            self.run(async move {
                let session = turn.session().await?;
                queries::get(&session, &key).await
            })
            .await
        })
    }

    fn replay(&self, selection: Selection) -> InboxFuture<'_, u64> {
        let shared = Arc::clone(&self.shared);
        Box::pin(self.run(async move { manage::replay(&shared, selection).await }))
    }

    fn prune(&self, selection: Selection) -> InboxFuture<'_, u64> {
        let shared = Arc::clone(&self.shared);
        Box::pin(self.run(async move { manage::prune(&shared, selection).await }))
    }

    fn set_paused(&self, endpoint: Arc<str>, paused: bool) -> InboxFuture<'_, ()> {
        let shared = Arc::clone(&self.shared);
        Box::pin(self.run(async move {
            let session = shared.managing.session().await?;
            manage::set_paused(&session, &endpoint, paused).await?;
            drop(session);
            shared.changed();
            Ok(())
        }))
    }

    fn stats(&self) -> InboxFuture<'_, Vec<EndpointStats>> {
        Box::pin(async move {
            let turn = self.shared.statistics.turn().await;
            self.run(async move {
                let session = turn.session().await?;
                queries::stats(&session).await
            })
            .await
        })
    }

    fn measurements(&self) -> InboxFuture<'_, Measurements> {
        Box::pin(async move {
            let mut measurements = self.shared.meter.measurements();
            let turn = self.shared.statistics.turn().await;
            let size = self.run(async move {
                let session = turn.session().await?;
                queries::size(&session).await
            });
            measurements.file_bytes = Some(size.await?);
            Ok(measurements)
        })
    }

    fn check(&self) -> InboxFuture<'_, ()> {
        Box::pin(async {
            if self.shared.is_closed() {
                return Err(InboxErrorKind::Closed.into());
            }
            if self.shared.meter.queued_bytes() > self.options.queue_bytes {
                return Err(InboxErrorKind::Busy.into());
            }
            self.shared.health.check()
        })
    }

    fn close(&self) -> InboxFuture<'_, ()> {
        Box::pin(async {
            if self.shared.closing.send_replace(true) {
                return Err(InboxErrorKind::Closed.into());
            }
            let completes = self.completes.lock();
            drop(completes.unwrap_or_else(PoisonError::into_inner).take());
            // Wakes waiters.
            self.shared.version.send_modify(|version| *version += 1);
            let mut tasks = self.tasks.lock().await;
            while tasks.join_next().await.is_some() {}
            self.shared.leasing.close().await;
            self.shared.outcomes.close().await;
            self.shared.statistics.close().await;
            self.shared.managing.close().await;
            Ok(())
        })
    }
}

impl fmt::Debug for PostgresInbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresInbox")
            .field("server", &self.server)
            .field("schema", &self.shared.connector.schema().name())
            .finish_non_exhaustive()
    }
}

fn connector(
    options: &PostgresOptions,
    version: watch::Sender<u64>,
) -> Result<Connector, PostgresOpenError> {
    Connector::new(options, version).map_err(|error: UrlError| PostgresOpenError::Url {
        source: error.into(),
    })
}

/// Creates or upgrades the schema, over a connection of its own.
async fn migrate(connector: &Connector) -> Result<Vec<i32>, Failure> {
    let session = connector.connect_without_schema().await?;
    schema::migrate(&session, connector.schema()).await
}

fn failed(server: &str, source: Box<dyn std::error::Error + Send + Sync>) -> PostgresOpenError {
    PostgresOpenError::Open {
        server: server.to_owned(),
        source,
    }
}

/// Starts a thread with a runtime, which ends when the sender is dropped.
fn start_runtime() -> std::io::Result<(Handle, oneshot::Sender<()>)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (running, dropped) = oneshot::channel::<()>();
    thread::Builder::new()
        .name("pleo-inbox".into())
        .spawn(move || {
            // Nothing is ever sent.
            let _ = runtime.block_on(dropped);
        })?;
    Ok((handle, running))
}
