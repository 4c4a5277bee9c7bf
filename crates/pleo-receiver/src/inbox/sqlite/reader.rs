//! A connection that only reads.

use core::ffi::c_int;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;
use tokio::task;

use super::error::unavailable;
use crate::inbox::error::{InboxError, InboxErrorKind};

/// How many instructions of SQLite run between two checks whether the caller still waits.
const INSTRUCTIONS: c_int = 10_000;

/// A connection for one query at a time. Callers wait without a thread, in the order of their calls. A
/// query ends early if its caller has dropped the future, or if the reader is closed.
pub(super) struct Reader {
    /// `None` once the reader is closed.
    connection: Arc<Mutex<Option<Connection>>>,
    turn: Arc<Semaphore>,
}

impl Reader {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection: Arc::new(Mutex::new(Some(connection))),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// Runs a query in a thread for blocking work.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, InboxError> {
        let permit = Arc::clone(&self.turn).acquire_owned().await;
        let permit = permit.map_err(|_| InboxErrorKind::Closed)?;
        // The future holds it until the query ends.
        let caller = Arc::new(());
        let (waiting, turn) = (Arc::downgrade(&caller), Arc::clone(&self.turn));
        let is_cancelled = move || waiting.strong_count() == 0 || turn.is_closed();
        let connection = Arc::clone(&self.connection);
        let read = move || {
            let _permit = permit;
            // A read that panicked has changed nothing.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let connection = connection.as_mut().ok_or(InboxErrorKind::Closed)?;
            if is_cancelled() {
                return Err(InboxErrorKind::Closed.into());
            }
            (connection.progress_handler(INSTRUCTIONS, Some(is_cancelled))).map_err(unavailable)?;
            query(connection).map_err(unavailable)
        };
        let result = task::spawn_blocking(read).await;
        drop(caller);
        match result {
            Err(_) => Err(InboxErrorKind::Closed.into()),
            Ok(Err(_)) if self.turn.is_closed() => Err(InboxErrorKind::Closed.into()),
            Ok(result) => result,
        }
    }

    /// Ends the queries, and closes the connection. Blocks for a moment.
    pub(super) fn close(&self) {
        self.turn.close();
        drop(
            (self
                .connection
                .lock()
                .unwrap_or_else(PoisonError::into_inner))
            .take(),
        );
    }
}

#[cfg(test)]
mod tests {
    use core::future::poll_fn;
    use core::pin::pin;
    use core::task::Poll;
    use core::time::Duration;

    use tokio::runtime::{self, Runtime};
    use tokio::{task, time};

    use super::*;
    use crate::inbox::Inbox as _;
    use crate::inbox::sqlite::SqliteInbox;

    /// Ends only if it is interrupted.
    const ENDLESS: &str =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn reader() -> Arc<Reader> {
        Arc::new(Reader::new(Connection::open_in_memory().unwrap()))
    }

    /// Creates a runtime with two threads for blocking work.
    fn runtime() -> Runtime {
        let mut runtime = runtime::Builder::new_current_thread();
        runtime
            .enable_time()
            .max_blocking_threads(2)
            .build()
            .unwrap()
    }

    async fn query(reader: &Reader, sql: &'static str) -> Result<i64, InboxError> {
        let query = move |connection: &Connection| connection.query_row(sql, [], |row| row.get(0));
        reader.read(query).await
    }

    #[test]
    fn interrupts_query_whose_caller_left() {
        let runtime = runtime();
        let reader = reader();
        runtime.block_on(async {
            let endless = time::timeout(Duration::from_millis(20), query(&reader, ENDLESS));
            assert!(endless.await.is_err());
            let next = time::timeout(TIMEOUT, query(&reader, "SELECT 7")).await;
            assert_eq!(next.expect("the endless query ended").unwrap(), 7);
        });
        reader.close();
    }

    #[test]
    fn waiting_queries_occupy_no_thread() {
        let runtime = runtime();
        let reader = reader();
        runtime.block_on(async {
            let mut first = pin!(query(&reader, ENDLESS));
            poll_fn(|context| Poll::Ready(first.as_mut().poll(context).is_pending())).await;
            let waiting: Vec<_> = (0..10)
                .map(|_| {
                    let reader = Arc::clone(&reader);
                    tokio::spawn(async move { query(&reader, "SELECT 7").await })
                })
                .collect();
            task::yield_now().await;
            let other = time::timeout(TIMEOUT, task::spawn_blocking(|| "runs")).await;
            assert_eq!(other.expect("a thread is free").unwrap(), "runs");
            reader.turn.close();
            for waiting in waiting {
                let error = waiting.await.unwrap().unwrap_err();
                assert_eq!(error.kind(), InboxErrorKind::Closed);
            }
            let first = time::timeout(TIMEOUT, first)
                .await
                .expect("it is interrupted");
            assert_eq!(first.unwrap_err().kind(), InboxErrorKind::Closed);
        });
        reader.close();
        assert!(runtime.block_on(query(&reader, "SELECT 7")).is_err());
    }

    #[test]
    fn statistics_and_close_do_not_wait_for_search() {
        let runtime = runtime();
        let dir = tempfile::tempdir().unwrap();
        let inbox = SqliteInbox::open(dir.path().join("inbox.db")).unwrap();
        runtime.block_on(async {
            let mut search = pin!(query(&inbox.searches, ENDLESS));
            poll_fn(|context| Poll::Ready(search.as_mut().poll(context).is_pending())).await;
            let stats = time::timeout(TIMEOUT, inbox.stats()).await;
            assert_eq!(
                stats.expect("the search has another connection").unwrap(),
                []
            );
            let closed = time::timeout(TIMEOUT, inbox.close()).await;
            closed.expect("the search ends").unwrap();
            assert_eq!(search.await.unwrap_err().kind(), InboxErrorKind::Closed);
        });
    }
}
