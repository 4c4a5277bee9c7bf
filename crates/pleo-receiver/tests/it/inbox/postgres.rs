//! The inbox in PostgreSQL, over connections that fail.

use core::time::Duration;
use std::sync::Arc;

use pleo_receiver::inbox::Clock;
use pleo_receiver::inbox::conformance::{self, Harness, ManualClock};
use pleo_receiver::jiff::Timestamp;
use pleo_receiver::{Inbox, Key, MemoryInbox, PostgresInbox};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use crate::support::postgres::{Server, schema};
use crate::support::tcp_proxy::TcpProxy;

/// Without PostgreSQL the tests pass with an inbox in memory, and a message says so.
struct Postgres {
    server: Option<&'static Server>,
    schema: String,
    proxy: TcpProxy,
    clock: ManualClock,
    /// Sets the clock of the inbox.
    client: OnceCell<Client>,
}

impl Postgres {
    async fn client(&self) -> &Client {
        let connect = || async {
            let port = self.server.unwrap().port();
            let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
            tokio::spawn(connection);
            client
        };
        self.client.get_or_init(connect).await
    }

    async fn set_clock(&self) {
        let (schema, now) = (&self.schema, self.clock.now());
        let set = format!("UPDATE {schema}.test_clock SET now = '{now}'");
        self.client().await.batch_execute(&set).await.unwrap();
    }
}

impl Harness for Postgres {
    fn new() -> Self {
        let server = Server::shared();
        Self {
            server,
            schema: schema(),
            proxy: TcpProxy::start(server.map_or(0, Server::port)),
            clock: ManualClock::default(),
            client: OnceCell::new(),
        }
    }

    async fn open(&self) -> Arc<dyn Inbox> {
        let Some(server) = self.server else {
            return Arc::new(MemoryInbox::with_clock(Arc::new(self.clock.clone())));
        };
        let url = server.url_at(self.proxy.port(), &self.schema);
        let inbox = PostgresInbox::open(&url).await.unwrap();
        let (schema, now) = (&self.schema, self.clock.now());
        let replace_clock = format!(
            "CREATE TABLE IF NOT EXISTS {schema}.test_clock (now timestamptz NOT NULL);
             INSERT INTO {schema}.test_clock SELECT '{now}'
             WHERE NOT EXISTS (SELECT FROM {schema}.test_clock);
             CREATE OR REPLACE FUNCTION {schema}.clock() RETURNS timestamptz LANGUAGE sql STABLE
             AS 'SELECT now FROM {schema}.test_clock'"
        );
        let client = self.client().await;
        client.batch_execute(&replace_clock).await.unwrap();
        Arc::new(inbox)
    }

    async fn reopen(&self) -> Option<Arc<dyn Inbox>> {
        self.server?;
        Some(self.open().await)
    }

    async fn open_replica(&self) -> Option<Arc<dyn Inbox>> {
        self.server?;
        Some(self.open().await)
    }

    async fn advance(&self, duration: Duration) {
        self.clock.advance(duration);
        if self.server.is_some() {
            self.set_clock().await;
        }
    }

    async fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn fail_writes(&self, after: u32) -> bool {
        self.proxy.cut_after(after);
        self.server.is_some()
    }

    fn repair(&self) {
        self.proxy.repair();
    }

    async fn damage(&self, key: &Key) -> bool {
        if self.server.is_none() {
            return false;
        }
        let schema = &self.schema;
        let damage = format!(
            "ALTER TABLE {schema}.message ALTER body DROP NOT NULL;
             UPDATE {schema}.message SET body = NULL
             WHERE endpoint = '{}' AND webhook_id = '{}'",
            key.endpoint, key.webhook_id
        );
        self.client().await.batch_execute(&damage).await.unwrap();
        true
    }
}

conformance::tests!(Postgres);
