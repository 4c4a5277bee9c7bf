//! A server that goes away, and a cluster that fails over.

use core::time::Duration;
use std::net::TcpListener;
use std::time::Instant;

use pleo_receiver::{Appended, Inbox, InboxErrorKind, PostgresInbox};
use tokio::task;

use super::{append_until_stored, message, refused, server, start, text, wait_for_check};
use crate::support::postgres::{Server, schema};
use crate::support::tcp_proxy::TcpProxy;

/// How long an append may take while the server is away: less than a connection attempt.
const QUICK: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovers_after_crash_of_server() {
    let Some(mut server) = start(&[]) else { return };
    let inbox = PostgresInbox::open(&server.url(&schema())).await.unwrap();
    for round in 0..3 {
        let id = round.to_string();
        assert_eq!(append_until_stored(&inbox, &id).await, Appended::Stored);
        task::block_in_place(|| server.stop("immediate"));
        wait_for_check(&inbox, Result::is_err).await;
        let started = Instant::now();
        let error = inbox.append(message("new")).await.unwrap_err();
        assert_eq!(error.kind(), InboxErrorKind::Unavailable);
        assert!(started.elapsed() < QUICK, "{:?}", started.elapsed());
        task::block_in_place(|| server.run());
        // Nothing that was stored is lost.
        assert_eq!(append_until_stored(&inbox, &id).await, Appended::Duplicate);
        wait_for_check(&inbox, Result::is_ok).await;
        assert_eq!(inbox.stats().await.unwrap()[0].ready, round + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovers_after_all_connections_are_terminated() {
    let Some(server) = start(&[]) else { return };
    let inbox = PostgresInbox::open(&server.url(&schema())).await.unwrap();
    for round in 0..5 {
        let id = round.to_string();
        assert_eq!(append_until_stored(&inbox, &id).await, Appended::Stored);
        task::block_in_place(|| {
            server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE application_name = 'pleo-receiver'",
            )
        });
    }
    append_until_stored(&inbox, "last").await;
    wait_for_check(&inbox, Result::is_ok).await;
}

/// The server accepts connections and answers nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_fail_in_time_while_network_hangs() {
    let Some(server) = server() else { return };
    let proxy = TcpProxy::start(server.port());
    let options: pleo_receiver::PostgresOptions =
        server.url_at(proxy.port(), &schema()).parse().unwrap();
    let limit = Duration::from_secs(1);
    let inbox = PostgresInbox::open_with(options.with_statement_timeout(limit))
        .await
        .unwrap();
    append_until_stored(&inbox, "first").await;
    proxy.slow(Duration::from_secs(60));
    let started = Instant::now();
    let error = inbox.append(message("second")).await.unwrap_err();
    assert_eq!(error.kind(), InboxErrorKind::Unavailable);
    // Long before the network responds.
    assert!(started.elapsed() < limit * 10, "{:?}", started.elapsed());
    // Later ones wait for a connection attempt at most.
    wait_for_check(&inbox, Result::is_err).await;
    proxy.cut();
    proxy.repair();
    append_until_stored(&inbox, "second").await;
    wait_for_check(&inbox, Result::is_ok).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_read_only_server() {
    let Some(server) = server() else { return };
    let url = server.url(&schema());
    let error = refused(&format!(
        "{url}&options=-c%20default_transaction_read_only%3Don"
    ))
    .await;
    assert!(error.contains("read-only standby"), "{error}");
}

/// As a machine that is suspended: the system accepts connections, and nothing responds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skips_host_that_does_not_respond() {
    let Some(server) = server() else { return };
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().port();
    let url = server.url(&schema());
    let hosts = url.replace("@127.0.0.1:", &format!("@127.0.0.1:{silent},127.0.0.1:"));
    let inbox = PostgresInbox::open(&hosts).await.unwrap();
    append_until_stored(&inbox, "first").await;
    let alone = url.replace(&format!(":{}/", server.port()), &format!(":{silent}/"));
    let error = refused(&format!("{alone}&connect_timeout=1")).await;
    assert!(error.contains("no response within 1s"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follows_primary_after_failover() {
    let Some(mut primary) = start(&["wal_level=replica"]) else {
        return;
    };
    let Some(standby) = task::block_in_place(|| primary.start_standby()) else {
        return;
    };
    let schema = schema();
    let error = refused(&standby.url(&schema)).await;
    assert!(error.contains("read-only standby"), "{error}");
    // Waits for the standby, so that nothing is lost.
    task::block_in_place(|| {
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'");
        primary.execute("SELECT pg_reload_conf()");
    });
    let hosts = |servers: [&Server; 2]| {
        let [first, second] = servers.map(|server| format!("127.0.0.1:{}", server.port()));
        format!("postgres://postgres@{first},{second}/postgres?schema={schema}")
    };
    let inbox = PostgresInbox::open(&hosts([&standby, &primary]))
        .await
        .unwrap();
    assert_eq!(append_until_stored(&inbox, "first").await, Appended::Stored);
    task::block_in_place(|| {
        primary.stop("immediate");
        standby.promote();
    });
    assert_eq!(
        append_until_stored(&inbox, "first").await,
        Appended::Duplicate
    );
    assert_eq!(
        append_until_stored(&inbox, "second").await,
        Appended::Stored
    );
    wait_for_check(&inbox, Result::is_ok).await;
    let pending = inbox.stats().await;
    assert_eq!(
        pending
            .map(|stats| stats[0].ready)
            .map_err(|error| text(&error)),
        Ok(2)
    );
}
