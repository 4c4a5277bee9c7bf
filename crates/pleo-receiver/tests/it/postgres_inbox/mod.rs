//! Tests of the PostgreSQL inbox alone: durability, failover, migrations, poolers, resources.

#![cfg(all(unix, feature = "postgres"))]

mod appends;
mod clock;
mod durability;
mod failover;
mod limits;
mod open_transaction;
mod outcomes;
mod plans;
mod pooler;
mod resources;
mod schema;
mod standby;
mod tls;
mod upgrade;
mod wakeups;

use core::time::Duration;
use std::error::Error;
use std::time::Instant;

use pleo_receiver::{
    Appended, Inbox, InboxError, NewMessage, PostgresInbox, PostgresOpenError, PostgresOptions,
};
use tokio::{task, time};
use tokio_postgres::{Client, NoTls};

use crate::support::postgres::Server;

/// How long a recovery may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Returns the shared server; `None` skips the test.
fn server() -> Option<&'static Server> {
    task::block_in_place(Server::shared)
}

/// Starts a server with these settings; `None` skips the test.
fn start(settings: &[&'static str]) -> Option<Server> {
    task::block_in_place(|| Server::start(settings))
}

/// Executes SQL as the superuser, and returns its rows.
fn execute(server: &Server, sql: &str) -> String {
    task::block_in_place(|| server.execute(sql))
}

fn message(id: &str) -> NewMessage {
    NewMessage::new("books", id, id.to_owned())
}

/// Returns the error and its causes.
fn text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

async fn refused(url: &str) -> String {
    let opened = PostgresInbox::open(url).await;
    text(&opened.map(drop).unwrap_err())
}

/// Repeats an append until it succeeds.
async fn append_until_stored(inbox: &dyn Inbox, id: &str) -> Appended {
    let started = Instant::now();
    loop {
        match inbox.append(message(id)).await {
            Ok(appended) => return appended,
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                assert!(started.elapsed() < PATIENCE, "{}", text(&error));
            }
        }
        time::sleep(Duration::from_millis(20)).await;
    }
}

async fn wait_for_check(inbox: &dyn Inbox, is_expected: impl Fn(&Result<(), InboxError>) -> bool) {
    let started = Instant::now();
    loop {
        let check = inbox.check().await;
        if is_expected(&check) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{check:?}");
        time::sleep(Duration::from_millis(20)).await;
    }
}

/// Connects as the superuser.
async fn connect(server: &Server) -> Client {
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", server.port());
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Returns the URL of an inbox for [`scans`].
fn url_to_count(server: &Server, schema: &str) -> String {
    format!("{}&application_name={schema}", server.url(schema))
}

/// Returns how often an index was scanned, and how many of its entries were read, after the inbox was
/// closed.
async fn scans(server: &Server, schema: &str, index: &str) -> (u64, u64) {
    let started = Instant::now();
    // Connections report what they read when they end.
    let open = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{schema}'");
    while execute(server, &open).trim() != "0" {
        assert!(started.elapsed() < PATIENCE);
        time::sleep(Duration::from_millis(20)).await;
    }
    let sql = format!(
        "SELECT idx_scan, idx_tup_read FROM pg_stat_all_indexes
         WHERE schemaname = '{schema}' AND indexrelname = '{index}'"
    );
    let row = execute(server, &sql);
    let (scans, read) = row.trim().split_once('\t').unwrap();
    (scans.parse().unwrap(), read.parse().unwrap())
}

#[test]
fn rejects_wrong_urls() {
    for (url, cause) in [
        ("postgres:///db", "it is not `postgres://"),
        (
            "postgres://pleo:hidden@host:port/db",
            "it is not `postgres://",
        ),
        ("postgres://host/db?hidden", "it is not `postgres://"),
        ("postgres://pleo:p@hidden@host/db", "as `%40`"),
        (
            "postgres://host/db?sslmode=require&sslrootcert=ca.pem",
            "set one",
        ),
        (
            "postgres://host/db?sslmode=verify",
            "`sslmode` cannot be `verify`",
        ),
        (
            "postgres://host/db?pooler=session",
            "`pooler` cannot be `session`",
        ),
        (
            "postgres://host/db?target_session_attrs=any",
            "use read-write",
        ),
        (
            "postgres://host/db?passfile=/missing",
            "cannot read `/missing`",
        ),
    ] {
        let error = url.parse::<PostgresOptions>().unwrap_err();
        assert!(matches!(error, PostgresOpenError::Url { .. }));
        let text = text(&error);
        assert!(text.contains(cause), "{url}: {text}");
        assert!(!text.contains("hidden"), "{text}");
    }
}

#[test]
fn debug_shows_no_password() {
    let options: PostgresOptions = "postgres://pleo:hidden@a,b:5433/db".parse().unwrap();
    let options = options.with_password("hidden too");
    let shown = format!("{options:?}");
    assert!(shown.contains("a:5432,b:5433/db"), "{shown}");
    assert!(!shown.contains("hidden"), "{shown}");
}
