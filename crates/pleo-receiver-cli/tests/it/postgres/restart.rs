//! Rolling restarts and upgrades.

use core::time::Duration;
use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Instant;

use pleo_receiver::{Inbox, PostgresInbox};
use tokio::{task, time};

use super::fleet::{Fleet, Handler, SENDERS_PATIENCE, Senders, balance};
use crate::support::postgres::{Server, schema};
use crate::support::program::{ENV, WorkDir};

/// Each receiver is stopped and started under load, twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_answers_each_delivery() {
    let Some(server) = task::block_in_place(Server::shared) else {
        return;
    };
    let schema = schema();
    let (handler, target) = Handler::start(Duration::from_millis(100)).await;
    let urls = vec![server.url(&schema); 3];
    let mut fleet = task::block_in_place(|| Fleet::start(urls, &config(&target)));
    let address = balance(fleet.addresses.clone()).await;
    let senders = Senders::start(address, 8);
    for number in [0, 1, 2, 0, 1, 2] {
        senders.wait_for(50, Duration::from_secs(60)).await;
        task::block_in_place(|| {
            fleet.stop(number, "-TERM");
            fleet.restart(number);
        });
    }
    assert_all_handled(&server.url(&schema), senders, &handler).await;
}

#[test]
fn stops_while_it_waits_for_migration() {
    let Some(server) = Server::shared() else {
        return;
    };
    let dir = WorkDir::new();
    let schema = schema();
    let lock = server.lock(&format!("{schema} migration"));
    let mut command = dir.command(&["serve", "--inbox", &server.url(&schema)]);
    let mut receiver = command.envs(ENV.iter().copied()).spawn().unwrap();
    lock.wait_for_waiters(1);
    let started = Instant::now();
    let pid = receiver.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(sent.unwrap().success());
    let status = loop {
        let ended = receiver.try_wait().unwrap();
        if ended.is_some() || started.elapsed() > Duration::from_secs(60) {
            break ended;
        }
        thread::yield_now();
    };
    // Before, the lock was held.
    drop(lock);
    receiver.kill().unwrap();
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    let tables = format!("SELECT count(*) FROM pg_tables WHERE schemaname = '{schema}'");
    assert_eq!(server.execute(&tables).trim(), "0");
}

/// Receivers of the release before and of this one together, over a migration: one after the other is
/// stopped, and started with this program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "set PLEO_TEST_OLDER_PROGRAM to the program of the release before"]
async fn rolling_upgrade_answers_each_delivery() {
    let older = env::var_os("PLEO_TEST_OLDER_PROGRAM").map(PathBuf::from);
    assert!(older.is_some(), "set PLEO_TEST_OLDER_PROGRAM");
    let server = task::block_in_place(Server::shared).unwrap();
    let schema = schema();
    let version = format!("SELECT max(version) FROM {schema}.schema_version");
    let version = || task::block_in_place(|| server.execute(&version));
    let (handler, target) = Handler::start(Duration::from_millis(100)).await;
    let urls = vec![server.url(&schema); 3];
    let config = config(&target);
    let mut fleet = task::block_in_place(|| Fleet::start_program(older.clone(), urls, &config));
    let before = version();
    let address = balance(fleet.addresses.clone()).await;
    let senders = Senders::start(address, 8);
    // The second receiver of the release before is restarted on the new schema.
    for (number, program) in [(0, &None), (1, &older), (1, &None), (2, &None)] {
        senders.wait_for(200, Duration::from_secs(60)).await;
        fleet.program.clone_from(program);
        task::block_in_place(|| {
            fleet.stop(number, "-TERM");
            fleet.restart(number);
        });
    }
    senders.wait_for(200, Duration::from_secs(60)).await;
    println!("from version {} to {}", before.trim(), version().trim());
    assert_all_handled(&server.url(&schema), senders, &handler).await;
}

fn config(target: &str) -> String {
    format!(
        "forward = \"{target}\"\n[retry]\nmin_delay = \"1ms\"\nmax_delay = \"20ms\"\n\
         max_attempts = 1000000\nlease_ttl = \"10m\"\n"
    )
}

/// Stops sending. Checks that each delivery was acknowledged in time and is handled soon, by one receiver
/// at a time.
async fn assert_all_handled(url: &str, senders: Senders, handler: &Handler) {
    // A receiver that shuts down may answer 503 to a request on an open connection.
    let (acknowledged, longest, _) = senders.stop().await;
    assert!(longest < SENDERS_PATIENCE, "{longest:?}");
    let inbox = PostgresInbox::open(url).await.unwrap();
    // No lease is left behind: each message is handled without waiting for the end of one.
    let all_done = async {
        while inbox.stats().await.unwrap()[0].pending() > 0 {
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    let all_done = time::timeout(Duration::from_secs(60), all_done).await;
    let stats = inbox.stats().await.unwrap();
    assert!(all_done.is_ok(), "{stats:?}");
    assert_eq!(stats[0].done, u64::try_from(acknowledged.len()).unwrap());
    assert_eq!(handler.results().1, Vec::<String>::new());
}
