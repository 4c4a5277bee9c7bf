//! An inbox behind PgBouncer in transaction mode.

use core::time::Duration;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Instant;

use pleo_receiver::inbox::{LeaseRequest, Outcome};
use pleo_receiver::{Inbox, PostgresInbox, Query, Selection};
use tokio::{task, time};

use super::wakeups::time_until_woken;
use super::{PATIENCE, append_until_stored, execute, message, server};
use crate::support::postgres::{Server, schema, skip};

/// Where distributions install it.
const PROGRAMS: [&str; 3] = [
    "/usr/sbin/pgbouncer",
    "/usr/bin/pgbouncer",
    "/usr/local/bin/pgbouncer",
];

/// A running PgBouncer.
struct Pooler {
    process: Child,
    port: u16,
}

impl Pooler {
    /// Starts a pooler with fewer connections than two inboxes have; `None` if it is not installed,
    /// which skips the test.
    fn start(server: &Server) -> Option<Self> {
        let Some(program) = PROGRAMS.iter().find(|program| Path::new(program).exists()) else {
            skip("PgBouncer is not installed");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let port = port.unwrap().port();
        let file = |name: &str, text: &str| {
            let path = server.folder().join(format!("{name}.{port}"));
            fs::write(&path, text).unwrap();
            server.own(&path);
            path
        };
        let users = file("users", "\"postgres\" \"\"\n");
        let config = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = 4\n",
            server.port(),
            users.display()
        );
        let config = file("pgbouncer.ini", &config);
        let process = server
            .command_as_user(Path::new(program))
            .arg(config)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < PATIENCE);
            thread::yield_now();
        }
        Some(Self { process, port })
    }

    fn url(&self, server: &Server, schema: &str) -> String {
        format!("{}&pooler=transaction", server.url_at(self.port, schema))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Behind a pooler, a connection outlives a failover to a server that lacks the last outcomes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redelivers_message_whose_outcome_the_next_server_lacks() {
    let Some(server) = server() else { return };
    let schema = schema();
    let url = format!("{}&pooler=transaction", server.url(&schema));
    let inbox = PostgresInbox::open(&url).await.unwrap();
    inbox.append(message("first")).await.unwrap();
    let lease = async || {
        let request = LeaseRequest::new(1, PATIENCE, "worker");
        inbox.lease(request).await.unwrap().messages.pop()
    };
    let first = lease().await.unwrap();
    inbox.complete(first.lease, Outcome::Done).await.unwrap();
    assert!(lease().await.is_none());

    let lose_outcome = format!(
        "UPDATE {schema}.dispatch
         SET state = 'pending', lease = '{:032x}', leased_at = now(), lease_ends_at = now(),
             worker = 'worker'",
        first.lease.get()
    );
    execute(server, &lose_outcome);
    let started = Instant::now();
    let again = loop {
        if let Some(leased) = lease().await {
            break leased;
        }
        assert!(started.elapsed() < PATIENCE, "not redelivered");
        time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(again.attempt.get(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_behind_pgbouncer_in_transaction_mode() {
    let Some(server) = server() else { return };
    let Some(pooler) = task::block_in_place(|| Pooler::start(server)) else {
        return;
    };
    let url = pooler.url(server, &schema());
    let first = PostgresInbox::open(&url).await.unwrap();
    let second = PostgresInbox::open(&url).await.unwrap();
    append_until_stored(&first, "first").await;
    // Without notifications, the inbox polls.
    let time = time_until_woken(&first, &second, "second").await;
    assert!(time < PATIENCE, "{time:?}");

    let appends = (0..200).map(|n| {
        let inbox = if n % 2 == 0 { &first } else { &second };
        let id = format!("msg_{n}");
        async move { append_until_stored(inbox, &id).await }
    });
    futures_util::future::join_all(appends).await;
    let mut handled = 0;
    while handled < 202 {
        for inbox in [&first, &second] {
            let request = LeaseRequest::new(50, PATIENCE, "worker");
            for leased in inbox.lease(request).await.unwrap().messages {
                let lost = inbox.renew(vec![leased.lease], PATIENCE).await.unwrap();
                assert!(lost.is_empty());
                inbox.complete(leased.lease, Outcome::Done).await.unwrap();
                handled += 1;
            }
        }
    }
    let page = first.list(Query::new(Selection::all(), 500)).await.unwrap();
    assert_eq!(page.entries.len(), 202);
    assert_eq!(second.stats().await.unwrap()[0].done, 202);
    assert_eq!(second.replay(Selection::id("first")).await.unwrap(), 1);
    assert_eq!(first.prune(Selection::all()).await.unwrap(), 201);
    first.append(message("first")).await.unwrap();
    first.close().await.unwrap();
    second.close().await.unwrap();
}
