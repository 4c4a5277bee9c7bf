//! Another transaction that stays open, so that the server keeps the rows of what was leased and handled.

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use pleo_receiver::inbox::{LeaseRequest, Outcome};
use pleo_receiver::{Inbox, PostgresInbox, PostgresOptions, Query, Selection};
use tokio::{task, time};
use tokio_postgres::Client;

use super::{
    PATIENCE, append_until_stored, connect, execute, message, scans, server, url_to_count,
};
use crate::support::postgres::{Server, schema};

/// Rows of messages that were leased. A scan of all takes much longer than a lease.
const DEAD: u64 = 100_000;

/// Rows of which even one scan takes long.
const MANY_DEAD: u64 = 1_000_000;

/// How many messages are leased at a time.
const BATCH: usize = 32;

/// Begins a transaction that sees the rows of now.
async fn begin(server: &Server) -> Client {
    let client = connect(server).await;
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
    execute(server, &sql);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_read_no_rows_of_messages_leased_before() {
    let Some(server) = server() else { return };
    let schema = schema();
    let inbox = PostgresInbox::open(&url_to_count(server, &schema)).await;
    let inbox = inbox.unwrap();
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
        let (scans, read) = scans(server, &schema, index).await;
        assert!(scans >= leases, "{index}: {scans} in {leases} leases");
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
    execute(server, &later);
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

/// A receiver starts while there are more rows than it can read within the time limit of a statement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dispatches_although_full_scan_takes_longer_than_limit() {
    let Some(server) = server() else { return };
    let schema = schema();
    let url = server.url(&schema);
    PostgresInbox::migrate(url.parse().unwrap()).await.unwrap();
    let other = begin(server).await;
    // Of each kind: ready, scheduled, leased.
    let sql = format!(
        "INSERT INTO {schema}.dispatch (sequence, endpoint, due_at, lease)
         SELECT -n, 'books', CASE n % 4 WHEN 1 THEN now() END,
                CASE n % 4 WHEN 2 THEN lpad(to_hex(n), 32, '0')::uuid END
         FROM generate_series(1, {}) AS n;
         DELETE FROM {schema}.dispatch WHERE sequence < 0",
        MANY_DEAD
    );
    execute(server, &sql);
    let scan = format!(
        "SET enable_seqscan = off; SET enable_bitmapscan = off;
         SELECT * FROM {schema}.dispatch WHERE state = 'pending' AND lease IS NULL AND due_at IS NULL
         ORDER BY endpoint, expires_at, sequence LIMIT 1"
    );
    // The first scan marks the rows. A full scan reads them twice.
    other.batch_execute(&scan).await.unwrap();
    let mut limit = PATIENCE;
    for _ in 0..3 {
        let started = Instant::now();
        other.batch_execute(&scan).await.unwrap();
        limit = limit.min(started.elapsed());
    }

    let options: PostgresOptions = url.parse().unwrap();
    let options = options.with_statement_timeout(limit);
    let inbox = PostgresInbox::open_with(options).await.unwrap();
    let lease = async || {
        let started = Instant::now();
        loop {
            let request = LeaseRequest::new(1, PATIENCE, "worker");
            // The limit is short.
            match inbox.lease(request).await {
                Ok(mut leased) if !leased.messages.is_empty() => break leased.messages.remove(0),
                other => assert!(started.elapsed() < PATIENCE, "{limit:?}: {other:?}"),
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    append_until_stored(&inbox, "first").await;
    let first = lease().await;
    assert_eq!(&*first.message.entry.webhook_id, "first");
    append_until_stored(&inbox, "second").await;
    let second = lease().await;
    assert_eq!(&*second.message.entry.webhook_id, "second");
    let after = Duration::from_millis(1);
    let error = "failed".to_owned();
    let retry = Outcome::Retry { after, error };
    while inbox.complete(second.lease, retry.clone()).await.is_err() {}
    let second = lease().await;
    assert_eq!(&*second.message.entry.webhook_id, "second");
}

/// A search waits, as one of many messages does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_do_not_wait_for_search() {
    let Some(server) = server() else { return };
    let schema = schema();
    let inbox = Arc::new(PostgresInbox::open(&server.url(&schema)).await.unwrap());
    append_until_stored(&*inbox, "first").await;
    let lock = task::block_in_place(|| server.lock(&format!("{schema} append")));
    let search = {
        let inbox = Arc::clone(&inbox);
        tokio::spawn(async move { inbox.list(Query::new(Selection::all(), 1)).await })
    };
    task::block_in_place(|| lock.wait_for_waiters(1));
    let stats = inbox.stats().await.unwrap();
    assert_eq!(stats[0].ready, 1);
    assert!(inbox.measurements().await.unwrap().file_bytes.is_some());
    assert!(!search.is_finished());
    drop(lock);
    assert_eq!(search.await.unwrap().unwrap().entries.len(), 1);
}
