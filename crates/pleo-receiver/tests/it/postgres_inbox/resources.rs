//! Resources of the server that are used up, and locks of others. Nothing is restarted.

use core::time::Duration;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use futures_util::future::join_all;
use pleo_receiver::inbox::{Completed, LeaseRequest, Outcome};
use pleo_receiver::{
    Inbox, InboxErrorKind, NewMessage, PostgresInbox, PostgresOptions, Query, Selection,
};
use tokio::{task, time};
use tokio_postgres::Client;

use super::{
    PATIENCE, append_until_stored, connect, execute, message, refused, server, text, wait_for_check,
};
use crate::support::postgres::{Server, schema, skip};
use crate::support::tcp_proxy::TcpProxy;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovers_once_connections_are_free() {
    let Some(server) = server() else { return };
    let name = schema();
    let role = format!("role_{name}");
    let execute = |sql: String| execute(server, &sql);
    execute(format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 20"));
    execute(format!("GRANT CREATE ON DATABASE postgres TO {role}"));
    let url = server.url(&name).replace("postgres@", &format!("{role}@"));
    let inbox = PostgresInbox::open(&url).await.unwrap();
    append_until_stored(&inbox, "first").await;

    execute(format!("ALTER ROLE {role} CONNECTION LIMIT 0"));
    execute(format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
    ));
    let expected = "too many connections for role";
    wait_for_check(&inbox, |check| {
        check
            .as_ref()
            .is_err_and(|error| text(error).contains(expected))
    })
    .await;
    let error = inbox.append(message("second")).await.unwrap_err();
    assert_eq!(
        error.kind(),
        InboxErrorKind::Unavailable,
        "{}",
        text(&error)
    );
    let error = refused(&url).await;
    assert!(error.contains(expected), "{error}");

    execute(format!("ALTER ROLE {role} CONNECTION LIMIT 20"));
    append_until_stored(&inbox, "second").await;
    wait_for_check(&inbox, Result::is_ok).await;
    assert_eq!(inbox.stats().await.unwrap()[0].ready, 2);
}

/// Opens an inbox whose statements may take half a second, stores the message `first`, and lets an
/// administrator lock the messages.
async fn open_locked(server: &Server) -> (PostgresInbox, Client) {
    let name = schema();
    let options: PostgresOptions = server.url(&name).parse().unwrap();
    let options = options.with_statement_timeout(Duration::from_millis(500));
    let inbox = PostgresInbox::open_with(options).await.unwrap();
    append_until_stored(&inbox, "first").await;
    let administrator = connect(server).await;
    let lock = format!("BEGIN; LOCK TABLE {name}.message IN ACCESS EXCLUSIVE MODE");
    administrator.batch_execute(&lock).await.unwrap();
    (inbox, administrator)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gives_up_on_lock_of_administrator_and_recovers() {
    let Some(server) = server() else { return };
    let (inbox, administrator) = open_locked(server).await;

    let error = inbox.append(message("second")).await.unwrap_err();
    assert_eq!(error.kind(), InboxErrorKind::Unavailable);
    assert!(text(&error).contains("timeout"), "{}", text(&error));
    assert!(inbox.check().await.is_err());

    administrator.batch_execute("ROLLBACK").await.unwrap();
    append_until_stored(&inbox, "second").await;
    wait_for_check(&inbox, Result::is_ok).await;
    assert_eq!(inbox.stats().await.unwrap()[0].ready, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_nothing_for_callers_that_left() {
    let Some(server) = server() else { return };
    let (inbox, administrator) = open_locked(server).await;

    // Each waits for the lock for half a second, one after the other.
    let list = || inbox.list(Query::new(Selection::all(), 1));
    let lists = join_all((0..60).map(|_| list()));
    let left = time::timeout(Duration::from_millis(100), lists).await;
    assert!(left.is_err());
    let started = Instant::now();
    assert!(list().await.is_err());
    assert!(started.elapsed() < Duration::from_secs(15));
    administrator.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(list().await.unwrap().entries.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_nothing_that_cannot_be_read() {
    let Some(server) = server() else { return };
    let (inbox, administrator) = open_locked(server).await;

    let lease = || inbox.lease(LeaseRequest::new(1, PATIENCE, "worker"));
    let error = lease().await.unwrap_err();
    assert!(text(&error).contains("timeout"), "{}", text(&error));

    administrator.batch_execute("ROLLBACK").await.unwrap();
    let messages = lease().await.unwrap().messages;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].attempt.get(), 1);
}

/// The messages are more than the network transfers in the time limit of a statement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_large_messages_over_slow_network() {
    const COUNT: u32 = 24;
    let Some(server) = server() else { return };
    let name = schema();
    let inbox = PostgresInbox::open(&server.url(&name)).await.unwrap();
    for n in 0..COUNT {
        let message = NewMessage::new("books", n.to_string(), random_bytes(n.into(), 1 << 20));
        inbox.append(message).await.unwrap();
    }
    let proxy = TcpProxy::start(server.port());
    let options: PostgresOptions = server.url_at(proxy.port(), &name).parse().unwrap();
    let options = options.with_statement_timeout(Duration::from_secs(1));
    let slow = PostgresInbox::open_with(options).await.unwrap();
    proxy.throttle(8 << 20);
    let count = usize::try_from(COUNT).unwrap();
    let mut handled = 0;
    while handled < count {
        let request = LeaseRequest::new(count, PATIENCE, "worker");
        let leased = slow.lease(request).await.unwrap();
        assert!(!leased.messages.is_empty());
        handled += leased.messages.len();
        if handled < count {
            assert_eq!(leased.next_due_in, Some(Duration::ZERO));
        }
        for leased in leased.messages {
            assert_eq!(leased.attempt.get(), 1);
            let completed = slow.complete(leased.lease, Outcome::Done).await.unwrap();
            assert_eq!(completed, Completed::Recorded);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_fewer_messages_after_read_took_too_long() {
    const COUNT: usize = 100;
    const SIZE: usize = 8000;
    let Some(server) = server() else { return };
    let name = schema();
    let inbox = PostgresInbox::open(&server.url(&name)).await.unwrap();
    for n in 0..COUNT {
        let body = random_bytes(n.try_into().unwrap(), SIZE);
        let message = NewMessage::new("books", n.to_string(), body);
        inbox.append(message).await.unwrap();
    }
    let proxy = TcpProxy::start(server.port());
    let options: PostgresOptions = server.url_at(proxy.port(), &name).parse().unwrap();
    let options = options.with_statement_timeout(Duration::from_secs(1));
    let slow = PostgresInbox::open_with(options).await.unwrap();
    // All messages take four times the limit.
    proxy.throttle((COUNT * SIZE / 4).try_into().unwrap());
    let started = Instant::now();
    let mut handled = 0;
    while handled < COUNT {
        assert!(started.elapsed() < PATIENCE, "only {handled}");
        let request = LeaseRequest::new(COUNT, PATIENCE, "worker");
        // The first ones take too long.
        let Ok(leased) = slow.lease(request).await else {
            continue;
        };
        for leased in leased.messages {
            assert_eq!(leased.attempt.get(), 1);
            slow.complete(leased.lease, Outcome::Done).await.unwrap();
            handled += 1;
        }
    }
}

/// Returns bytes that cannot be compressed.
fn random_bytes(seed: u64, length: usize) -> Vec<u8> {
    let first = seed * 0x1_0000_0000;
    let words = (first..).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32);
    let bytes = words.flat_map(|word| word.to_le_bytes().into_iter().take(4));
    bytes.take(length).collect()
}

/// A disk of a few MiB in memory.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts a disk for the server; `None` if that is not permitted, which skips the test.
    fn mount(server: &Server) -> Option<Self> {
        let folder = server.folder().join("small");
        fs::create_dir(&folder).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]);
        if !mount
            .arg(&folder)
            .output()
            .is_ok_and(|done| done.status.success())
        {
            skip("a disk cannot be mounted; run as root");
            return None;
        }
        server.own(&folder);
        Some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovers_once_disk_has_space() {
    let Some(server) = super::start(&[]) else {
        return;
    };
    let Some(disk) = task::block_in_place(|| SmallDisk::mount(&server)) else {
        return;
    };
    let execute = |sql: &str| execute(&server, sql);
    let location = disk.0.display();
    execute(&format!("CREATE TABLESPACE small LOCATION '{location}'"));
    execute("ALTER ROLE postgres SET default_tablespace = small");
    execute("CREATE TABLE other AS SELECT repeat('x', 1000) FROM generate_series(1, 3000)");
    let inbox = PostgresInbox::open(&server.url(&schema())).await.unwrap();
    let mut stored = 0;
    let error = loop {
        let body = random_bytes(stored, 64_000);
        let message = NewMessage::new("books", format!("msg_{stored}"), body);
        match inbox.append(message).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 1000, "the disk is never full");
    };
    assert_eq!(error.kind(), InboxErrorKind::Unavailable);
    assert!(text(&error).contains("No space left"), "{}", text(&error));
    let check = inbox.check().await.unwrap_err();
    assert!(text(&check).contains("No space left"), "{}", text(&check));

    execute("DROP TABLE other");
    append_until_stored(&inbox, "later").await;
    wait_for_check(&inbox, Result::is_ok).await;
    assert_eq!(inbox.stats().await.unwrap()[0].ready, stored + 1);
}
