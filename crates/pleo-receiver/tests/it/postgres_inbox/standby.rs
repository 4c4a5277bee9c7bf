//! A synchronous standby that does not respond: every commit that waits for it waits for ever.

use core::time::Duration;
use std::time::Instant;

use futures_util::future::join_all;
use pleo_receiver::inbox::{Completed, LeaseRequest, Outcome};
use pleo_receiver::{Inbox, InboxErrorKind, PostgresInbox, PostgresOptions, Query, Selection};
use tokio::{task, time};

use super::{PATIENCE, append_until_stored, execute, message, start, text, wait_for_check};
use crate::support::postgres::{Server, schema};

/// How long the standby does not respond.
const STALL: Duration = Duration::from_secs(20);

const STATEMENT_TIMEOUT: Duration = Duration::from_secs(1);

/// The time limit of a statement, and those of its end and of its cancellation.
const APPEND_LIMIT: Duration = Duration::from_secs(5);

/// How long changes that wait for no standby may take together. Those that wait take a minute each.
const PROMPT: Duration = Duration::from_secs(20);

/// Those of an inbox, and one for each that is replaced.
const MAX_CONNECTIONS: usize = 7 + 2;

fn require_standby(server: &Server, name: &str) {
    task::block_in_place(|| {
        let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'");
        server.execute(&set);
        server.execute("SELECT pg_reload_conf()");
    });
}

fn count_connections(server: &Server) -> usize {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pleo-receiver'";
    let count = execute(server, count);
    count.trim().parse().unwrap()
}

async fn open(server: &Server) -> PostgresInbox {
    let options: PostgresOptions = server.url(&schema()).parse().unwrap();
    let options = options.with_statement_timeout(STATEMENT_TIMEOUT);
    PostgresInbox::open_with(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_fail_in_time_over_same_connections_while_standby_stalls() {
    let Some(server) = start(&[]) else { return };
    let inbox = open(&server).await;
    append_until_stored(&inbox, "first").await;

    require_standby(&server, "nobody");
    let started = Instant::now();
    let mut ids = Vec::new();
    while started.elapsed() < STALL {
        let new: Vec<String> = (0..4).map(|n| format!("{}-{n}", ids.len())).collect();
        // At different times, so that they are in different statements.
        let appends = new.iter().zip(0..).map(|(id, n)| {
            let inbox = &inbox;
            async move {
                time::sleep(Duration::from_millis(100) * n).await;
                let started = Instant::now();
                (inbox.append(message(id)).await, started.elapsed())
            }
        });
        for (appended, took) in join_all(appends).await {
            let error = appended.unwrap_err();
            assert_eq!(error.kind(), InboxErrorKind::Unavailable);
            assert!(text(&error).contains("standby"), "{}", text(&error));
            assert!(took < APPEND_LIMIT, "{took:?}");
        }
        let count = count_connections(&server);
        assert!(count <= MAX_CONNECTIONS, "{count} connections");
        ids.extend(new);
    }

    require_standby(&server, "");
    for id in &ids {
        append_until_stored(&inbox, id).await;
    }
    wait_for_check(&inbox, Result::is_ok).await;
    let stats = inbox.stats().await.unwrap();
    assert_eq!(stats[0].ready, u64::try_from(ids.len()).unwrap() + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dispatches_while_standby_stalls() {
    let Some(server) = start(&[]) else { return };
    let inbox = open(&server).await;
    for id in ["first", "second"] {
        append_until_stored(&inbox, id).await;
    }

    require_standby(&server, "nobody");
    let lease = async |ttl| {
        let request = LeaseRequest::new(1, ttl, "worker");
        inbox.lease(request).await.unwrap().messages.pop()
    };
    let lost = lease(Duration::from_millis(1)).await.unwrap();
    time::sleep(Duration::from_millis(10)).await;
    let again = lease(PATIENCE).await.unwrap();
    assert_eq!(
        again.message.entry.webhook_id,
        lost.message.entry.webhook_id
    );
    let retry = Outcome::Retry {
        after: Duration::from_millis(1),
        error: "failed".into(),
    };
    let completed = inbox.complete(again.lease, retry).await.unwrap();
    assert_eq!(completed, Completed::Recorded);
    for _ in 0..2 {
        let leased = lease(PATIENCE).await.unwrap();
        let lost = inbox.renew(vec![leased.lease], PATIENCE).await.unwrap();
        assert!(lost.is_empty());
        let completed = inbox.complete(leased.lease, Outcome::Done).await.unwrap();
        assert_eq!(completed, Completed::Recorded);
        time::sleep(Duration::from_millis(10)).await;
    }
    // The counters of statistics are added up meanwhile, over the connection of statistics.
    time::sleep(Duration::from_secs(6)).await;
    let stats = time::timeout(Duration::from_secs(2), inbox.stats()).await;
    assert_eq!(stats.unwrap().unwrap()[0].done, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replays_prunes_and_pauses_while_standby_stalls() {
    let Some(server) = start(&[]) else { return };
    let inbox = open(&server).await;
    for id in ["first", "second"] {
        append_until_stored(&inbox, id).await;
    }
    let handle = async || {
        let request = LeaseRequest::new(1, PATIENCE, "worker");
        let leased = inbox.lease(request).await.unwrap().messages.pop().unwrap();
        inbox.complete(leased.lease, Outcome::Done).await.unwrap();
    };
    handle().await;
    handle().await;

    require_standby(&server, "nobody");
    let managed = time::timeout(PROMPT, async {
        assert_eq!(inbox.replay(Selection::id("first")).await.unwrap(), 1);
        assert_eq!(inbox.prune(Selection::all()).await.unwrap(), 1);
        inbox.set_paused("books".into(), true).await.unwrap();
        assert!(inbox.stats().await.unwrap()[0].paused);
        inbox.set_paused("books".into(), false).await.unwrap();
        let page = inbox.list(Query::new(Selection::all(), 10)).await.unwrap();
        assert_eq!(page.entries.len(), 1);
        handle().await;
    });
    managed.await.expect("the changes wait for the standby");
}
