//! Another transaction that stays open, so that the server keeps the rows of what was leased and handled.

use core::time::Duration;
use std::time::Instant;

use pleo_receiver::inbox::{LeaseRequest, Outcome};
use pleo_receiver::{Inbox, PostgresInbox};
use tokio::{task, time};
use tokio_postgres::{Client, NoTls};

use super::{PATIENCE, message, server};
use crate::support::postgres::{Server, schema};

/// Rows of messages that were leased. A scan of all takes much longer than a lease.
const DEAD: u64 = 100_000;

/// How many messages are leased at a time.
const BATCH: usize = 32;

/// Begins a transaction that sees the rows of now.
async fn begin(server: &Server) -> Client {
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", server.port());
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class";
    client.batch_execute(begin).await.unwrap();
    client
}

/// Creates ready messages in front of all others, and deletes them.
fn create_dead_rows(server: &Server, schema: &str) {
    let sql = format!(
        "INSERT INTO {schema}.dispatch (sequence, endpoint)
         SELECT -n, 'books' FROM generate_series(1, {DEAD}) AS n;
         DELETE FROM {schema}.dispatch WHERE sequence < 0"
    );
    task::block_in_place(|| server.execute(&sql));
}

/// Returns how many entries of an index were read, after the inbox was closed.
async fn entries_read(server: &Server, schema: &str, index: &str, min_scans: u64) -> u64 {
    let sql = format!(
        "SELECT idx_scan, idx_tup_read FROM pg_stat_all_indexes
         WHERE schemaname = '{schema}' AND indexrelname = '{index}'"
    );
    let started = Instant::now();
    loop {
        // Connections report when they end.
        let row = task::block_in_place(|| server.execute(&sql));
        let (scans, read) = row.trim().split_once('\t').unwrap();
        if scans.parse::<u64>().unwrap() >= min_scans {
            return read.parse().unwrap();
        }
        assert!(started.elapsed() < PATIENCE, "{index}: {row}");
        time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_read_no_rows_of_messages_leased_before() {
    let Some(server) = server() else { return };
    let schema = schema();
    let inbox = PostgresInbox::open(&server.url(&schema)).await.unwrap();
    let _other = begin(server).await;
    create_dead_rows(server, &schema);
    let (mut leases, mut handled) = (0, 0);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(4) {
        let appends = (0..BATCH).map(|n| inbox.append(message(&format!("{leases}-{n}"))));
        futures_util::future::try_join_all(appends.collect::<Vec<_>>())
            .await
            .unwrap();
        let request = LeaseRequest::new(BATCH, PATIENCE, "worker");
        let messages = inbox.lease(request).await.unwrap().messages;
        leases += 1;
        handled += messages.len();
        let outcomes = messages
            .iter()
            .map(|leased| inbox.complete(leased.lease, Outcome::Done));
        futures_util::future::try_join_all(outcomes.collect::<Vec<_>>())
            .await
            .unwrap();
    }
    // All but the last few, which wait for the next full scan.
    assert!(
        handled + 2 * BATCH >= leases * BATCH,
        "{handled} in {leases}"
    );
    inbox.close().await.unwrap();
    let leases = u64::try_from(leases).unwrap();
    for (index, limit) in [("dispatch_ready", DEAD / 2), ("dispatch_leased", 1000)] {
        let read = entries_read(server, &schema, index, leases).await;
        assert!(read < leases * limit, "{index}: {read} in {leases} leases");
    }
}

/// A message becomes ready again in front of the rows that are skipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redelivers_retry_behind_dead_rows() {
    let Some(server) = server() else { return };
    let schema = schema();
    let inbox = PostgresInbox::open(&server.url(&schema)).await.unwrap();
    let other = PostgresInbox::open(&server.url(&schema)).await.unwrap();
    inbox.append(message("first")).await.unwrap();
    let lease = async |inbox: &PostgresInbox| {
        let request = LeaseRequest::new(1, PATIENCE, "worker");
        inbox.lease(request).await.unwrap().messages.pop()
    };
    let first = lease(&inbox).await.unwrap();
    // So many messages later that it is not read beside them.
    let later = format!("SELECT setval('{schema}.message_sequence', 100000)");
    task::block_in_place(|| server.execute(&later));
    let _other = begin(server).await;
    create_dead_rows(server, &schema);
    for n in 0..20 {
        inbox.append(message(&n.to_string())).await.unwrap();
        if let Some(leased) = lease(&inbox).await {
            inbox.complete(leased.lease, Outcome::Done).await.unwrap();
        }
    }
    let after = Duration::from_millis(1);
    let retry = Outcome::Retry {
        after,
        error: "failed".into(),
    };
    // By another process, as in a rolling restart.
    other.complete(first.lease, retry).await.unwrap();
    let started = Instant::now();
    loop {
        if let Some(leased) = lease(&inbox).await {
            if &*leased.message.entry.webhook_id == "first" {
                assert_eq!(leased.attempt.get(), 2);
                break;
            }
            inbox.complete(leased.lease, Outcome::Done).await.unwrap();
        }
        assert!(started.elapsed() < PATIENCE, "not redelivered");
        time::sleep(Duration::from_millis(5)).await;
    }
}
