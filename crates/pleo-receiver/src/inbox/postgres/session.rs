//! A connection: executes statements, each with a time limit.

use core::fmt;
use core::future::poll_fn;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{join, join_all, join3};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Connection, Row, Socket, Statement};

use super::error::Failure;
use super::schema_name::SchemaName;
use super::tls::{self, Stream};
use crate::telemetry;

/// How much longer than the server the client waits for the end of a statement.
const GRACE: Duration = Duration::from_secs(1);

/// How long a statement whose time is over is still waited for: a process that was suspended sees its
/// timers before the responses that arrived meanwhile.
const AFTER_SUSPENSION: Duration = Duration::from_millis(250);

/// How long a statement may take to end after it was cancelled.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// Lets a transaction wait for the server's disk, but for no standby.
const COMMIT_LOCALLY: &str = "SELECT set_config('synchronous_commit', 'local', true)";

/// The number of the next connection.
static SESSIONS: AtomicU64 = AtomicU64::new(1);

/// A value of a statement with its type.
pub(super) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// A statement with its values. Its text never changes, so that it is prepared once. The schema is
/// named `inbox` in it.
pub(super) type Call<'a> = (&'static str, &'a [Param<'a>]);

/// A connection to the server.
pub(super) struct Session {
    number: u64,
    client: Client,
    /// For the connections that cancel statements.
    tls: tls::Connector,
    schema: SchemaName,
    /// `None` if the connection goes through a pooler that has no prepared statements.
    prepared: Option<Mutex<HashMap<&'static str, Statement>>>,
    statement_timeout: Duration,
    is_broken: AtomicBool,
    unreplicated: Arc<AtomicU64>,
    /// Closed when the connection ends.
    open: watch::Receiver<()>,
    driver: JoinHandle<()>,
}

impl Session {
    /// Takes a new connection. `notified` is called for each notification with its sender's process.
    pub(super) fn new(
        client: Client,
        connection: Connection<Socket, Stream<Socket>>,
        tls: tls::Connector,
        schema: SchemaName,
        is_pooled: bool,
        statement_timeout: Duration,
        notified: impl Fn(i32) + Send + 'static,
    ) -> Self {
        let unreplicated = Arc::new(AtomicU64::new(0));
        let (closed, open) = watch::channel(());
        let driver = drive(connection, Arc::clone(&unreplicated), notified, closed);
        Self {
            number: SESSIONS.fetch_add(1, Ordering::Relaxed),
            client,
            tls,
            schema,
            prepared: (!is_pooled).then(Mutex::default),
            statement_timeout,
            is_broken: AtomicBool::new(false),
            unreplicated,
            open,
            driver: tokio::spawn(driver),
        }
    }

    /// Returns the number of the connection in this process, from 1.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Returns `true` if another connection is needed.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed) || self.client.is_closed()
    }

    /// Waits until the connection is lost.
    pub(super) async fn lost(&self) {
        let mut open = self.open.clone();
        // Nothing is ever sent.
        while open.changed().await.is_ok() {}
    }

    /// Returns how many commits the server did not wait for until a synchronous standby had them.
    pub(super) fn unreplicated(&self) -> u64 {
        self.unreplicated.load(Ordering::Relaxed)
    }

    /// Returns `true` if statements are prepared.
    pub(super) const fn is_prepared(&self) -> bool {
        self.prepared.is_some()
    }

    /// Executes a statement in a transaction of its own.
    pub(super) async fn query(
        &self,
        sql: &'static str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, Failure> {
        let call = (sql, params);
        self.limit(async {
            let statement = self.prepare(call).await?;
            Ok(self.execute(call, statement.as_ref()).await?)
        })
        .await
    }

    /// Executes a statement that may be lost together with the server: its commit waits for no standby.
    pub(super) async fn query_locally(
        &self,
        sql: &'static str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, Failure> {
        let calls = [(COMMIT_LOCALLY, &[][..]), (sql, params)];
        let [_, rows] = self.transaction(calls).await?;
        Ok(rows)
    }

    /// Executes two statements without waiting between them.
    pub(super) async fn query_both(
        &self,
        first: Call<'_>,
        second: Call<'_>,
    ) -> Result<[Vec<Row>; 2], Failure> {
        self.limit(async {
            let prepared = [self.prepare(first).await?, self.prepare(second).await?];
            let first = self.execute(first, prepared[0].as_ref());
            let second = self.execute(second, prepared[1].as_ref());
            let (first, second) = join(first, second).await;
            Ok([first?, second?])
        })
        .await
    }

    /// Executes a statement whose text is built from a query.
    pub(super) async fn query_text(
        &self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, Failure> {
        let text = self.schema.name_in(sql);
        self.limit(async { Ok(self.client.query_typed(&text, params).await?) })
            .await
    }

    /// Executes statements in one transaction. All are sent at once, so that the transaction does not
    /// wait for the client, whatever the network does.
    pub(super) async fn transaction<const N: usize>(
        &self,
        calls: [Call<'_>; N],
    ) -> Result<[Vec<Row>; N], Failure> {
        self.limit(async {
            let mut prepared = Vec::with_capacity(N);
            for call in calls {
                prepared.push(self.prepare(call).await?);
            }
            // Each future sends its message when it is first polled, and these poll in order.
            let begin = self
                .client
                .batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED");
            let calls = calls.into_iter().zip(&prepared);
            let queries = calls.map(|(call, statement)| self.execute(call, statement.as_ref()));
            let commit = self.client.batch_execute("COMMIT");
            let (begun, results, committed) = join3(begin, join_all(queries), commit).await;
            begun?;
            // After an error the commit rolls back and succeeds.
            let results = results.into_iter().collect::<Result<Vec<_>, _>>()?;
            committed?;
            let mut results = results.into_iter();
            Ok(core::array::from_fn(|_| results.next().unwrap_or_default()))
        })
        .await
    }

    /// Executes statements without values, separated by semicolons.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), Failure> {
        let text = self.schema.name_in(sql);
        self.limit(async { Ok(self.client.batch_execute(&text).await?) })
            .await
    }

    async fn prepare(&self, (sql, params): Call<'_>) -> Result<Option<Statement>, Failure> {
        let Some(prepared) = &self.prepared else {
            return Ok(None);
        };
        let known = || prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(statement) = known().get(sql) {
            return Ok(Some(statement.clone()));
        }
        let types: Vec<Type> = params.iter().map(|(_, kind)| kind.clone()).collect();
        let text = self.schema.name_in(sql);
        let statement = self.client.prepare_typed(&text, &types).await?;
        known().insert(sql, statement.clone());
        Ok(Some(statement))
    }

    async fn execute(
        &self,
        (sql, params): Call<'_>,
        statement: Option<&Statement>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let Some(statement) = statement else {
            let text = self.schema.name_in(sql);
            return self.client.query_typed(&text, params).await;
        };
        let values: Vec<&(dyn ToSql + Sync)> = params.iter().map(|(value, _)| *value).collect();
        self.client.query(statement, &values).await
    }

    /// Ends statements that take too long with an error, and marks the connection if it is not usable
    /// any more. The server may execute the statement nevertheless.
    async fn limit<T>(
        &self,
        statements: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        // A future that is dropped leaves statements in progress.
        let mut guard = BreakOnDrop(Some(&self.is_broken));
        let limit = self.statement_timeout + GRACE;
        let mut statements = pin!(statements);
        let mut result = time::timeout(limit, &mut statements).await;
        if result.is_err() {
            result = time::timeout(AFTER_SUSPENSION, &mut statements).await;
        }
        let result = match result {
            Ok(result) => result,
            Err(_) => self.cancel(statements, limit).await,
        };
        if !result.as_ref().is_err_and(Failure::ends_session) {
            guard.0 = None;
        }
        result
    }

    /// Cancels the statement in progress, so that this connection is usable again. One that waits for a
    /// standby would occupy the server for as long as the standby does not respond.
    async fn cancel<T>(
        &self,
        statements: impl Future<Output = Result<T, Failure>>,
        limit: Duration,
    ) -> Result<T, Failure> {
        let unreplicated = self.unreplicated();
        let token = self.client.cancel_token();
        // The end of the statement shows whether the request arrived.
        let ended = join(token.cancel_query(self.tls.clone()), statements);
        match time::timeout(CANCEL_TIMEOUT, ended).await {
            Ok((_, Ok(_))) if self.unreplicated() != unreplicated => Err(Failure::NotReplicated),
            Ok((_, result)) => result,
            Err(_) => Err(Failure::Timeout(limit)),
        }
    }
}

/// Marks a connection as unusable when it is dropped.
struct BreakOnDrop<'a>(Option<&'a AtomicBool>);

impl Drop for BreakOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(is_broken) = self.0 {
            is_broken.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Session {
    /// Closes the connection. One that does not respond is aborted.
    fn drop(&mut self) {
        if self.is_broken() {
            self.driver.abort();
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// Reads and writes the connection until it ends, then drops `closed`.
async fn drive(
    mut connection: Connection<Socket, Stream<Socket>>,
    unreplicated: Arc<AtomicU64>,
    notified: impl Fn(i32),
    closed: watch::Sender<()>,
) {
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notification(notification)) => notified(notification.process_id()),
            Ok(AsyncMessage::Notice(notice)) => {
                // The text depends on the server's language.
                if notice.routine() == Some("SyncRepWaitForLSN") {
                    unreplicated.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(_) => {}
            Err(error) => {
                telemetry::connection_lost(&error);
                break;
            }
        }
    }
    drop(closed);
}
