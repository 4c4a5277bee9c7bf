//! Upgrades of the schema, and migrations that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pleo_receiver::inbox::{LeaseRequest, Outcome};
use pleo_receiver::{Inbox, PostgresInbox};
use tokio::task::JoinSet;
use tokio::time;

use super::{PATIENCE, append_until_stored, connect, execute, message, refused, server};
use crate::support::postgres::{Server, schema};

/// The schema of the first release.
const VERSION_1: &str = include_str!("../../../src/inbox/postgres/migrations/1_initial.sql");

/// Creates a schema as the first release does, with a message.
fn create_version_1(server: &Server, name: &str) {
    let sql = format!(
        "BEGIN; CREATE SCHEMA {name};
         CREATE TABLE {name}.schema_version (
             version integer PRIMARY KEY, compatible_with integer NOT NULL, program text NOT NULL,
             migrated_at timestamptz NOT NULL DEFAULT now());
         INSERT INTO {name}.schema_version VALUES (1, 1, '0.1.0');
         {}
         INSERT INTO {name}.message
             (sequence, endpoint, webhook_id, origin, received_at, headers, body)
         VALUES (nextval('{name}.message_sequence'), 'books', 'old', 'webhook', now(), '', 'old');
         INSERT INTO {name}.dispatch (sequence, endpoint) VALUES (1, 'books');
         COMMIT",
        VERSION_1.replace("inbox.", &format!("{name}."))
    );
    execute(server, &sql);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_first_version_with_its_messages() {
    let Some(server) = server() else { return };
    let name = schema();
    create_version_1(server, &name);
    let options = server.url(&name).parse().unwrap();
    assert_eq!(PostgresInbox::migrate(options).await.unwrap(), [2, 3]);
    let inbox = PostgresInbox::open(&server.url(&name)).await.unwrap();
    assert_eq!(inbox.stats().await.unwrap()[0].delivered_at, None);
    append_until_stored(&inbox, "new").await;
    let stats = inbox.stats().await.unwrap().remove(0);
    assert_eq!(stats.ready, 2);
    assert!(stats.delivered_at.is_some());
}

/// Receivers of the first release store and dispatch messages meanwhile: their statements lock the tables
/// that the migrations change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_first_version_under_load() {
    let Some(server) = server() else { return };
    let name = schema();
    create_version_1(server, &name);
    let append = format!(
        "WITH stored AS (
             INSERT INTO {name}.message
                 (sequence, endpoint, webhook_id, origin, received_at, headers, body)
             SELECT nextval('{name}.message_sequence'), 'books', gen_random_uuid()::text, 'webhook', now(),
                    '', ''
             FROM generate_series(1, 20)
             RETURNING sequence
         )
         INSERT INTO {name}.dispatch (sequence, endpoint) SELECT sequence, 'books' FROM stored"
    );
    let complete = format!("UPDATE {name}.dispatch SET state = 'done' WHERE state = 'pending'");
    let is_migrated = Arc::new(AtomicBool::new(false));
    let mut receivers = JoinSet::new();
    for statement in [append.clone(), append, complete] {
        let client = connect(server).await;
        let is_migrated = Arc::clone(&is_migrated);
        receivers.spawn(async move {
            let mut count = 0;
            while !is_migrated.load(Ordering::Relaxed) {
                client.batch_execute(&statement).await.unwrap();
                count += 1;
            }
            count
        });
    }
    let written = format!("SELECT count(*) > 100 FROM {name}.tally");
    while execute(server, &written).trim() != "t" {}
    let options = server.url(&name).parse().unwrap();
    let migrated = PostgresInbox::migrate(options).await;
    is_migrated.store(true, Ordering::Relaxed);
    assert_eq!(migrated.unwrap(), [2, 3]);
    assert!(receivers.join_all().await.iter().all(|count| *count > 0));
}

/// The program of the release before goes on while the next one migrates: its statements and triggers
/// work with tables that have more columns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_while_next_release_migrates_and_after() {
    let Some(server) = server() else { return };
    let name = schema();
    let url = server.url(&name);
    let running = Arc::new(PostgresInbox::open(&url).await.unwrap());
    let load = {
        let inbox = Arc::clone(&running);
        tokio::spawn(async move {
            for n in 0..400 {
                // No append fails.
                inbox.append(message(&n.to_string())).await.unwrap();
                let request = LeaseRequest::new(1, PATIENCE, "worker");
                for leased in inbox.lease(request).await.unwrap().messages {
                    inbox.complete(leased.lease, Outcome::Done).await.unwrap();
                }
            }
        })
    };
    while running.stats().await.unwrap().is_empty() {
        time::sleep(core::time::Duration::from_millis(10)).await;
    }
    let next_release = format!(
        "BEGIN;
         ALTER TABLE {name}.message ADD COLUMN note text;
         ALTER TABLE {name}.dispatch ADD COLUMN priority integer NOT NULL DEFAULT 0;
         ALTER TABLE {name}.tally ADD COLUMN bytes bigint NOT NULL DEFAULT 0;
         CREATE INDEX ON {name}.dispatch (priority) WHERE priority > 0;
         INSERT INTO {name}.schema_version VALUES (4, 3, '9.8.7');
         COMMIT"
    );
    execute(server, &next_release);
    // A replica of this release that is restarted meanwhile.
    let restarted = PostgresInbox::open(&url).await.unwrap();
    append_until_stored(&restarted, "restarted").await;
    // A message of the next release.
    execute(
        server,
        &format!(
            "WITH new AS (INSERT INTO {name}.message
                 (sequence, endpoint, webhook_id, origin, received_at, headers, body, note)
             VALUES (nextval('{name}.message_sequence'), 'books', 'next', 'webhook', now(), '', 'next',
                     'of the next release') RETURNING sequence)
             INSERT INTO {name}.dispatch (sequence, endpoint, priority) SELECT sequence, 'books', 7 FROM new"
        ),
    );
    load.await.unwrap();
    let request = LeaseRequest::new(10, PATIENCE, "worker");
    for leased in restarted.lease(request).await.unwrap().messages {
        restarted
            .complete(leased.lease, Outcome::Done)
            .await
            .unwrap();
    }
    let stats = running.stats().await.unwrap().remove(0);
    assert_eq!((stats.done, stats.pending()), (402, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_that_fails_changes_nothing_and_can_be_repeated() {
    let Some(server) = server() else { return };
    let name = schema();
    let url = server.url(&name);
    // In the way of the first migration, after half of it.
    execute(
        server,
        &format!("CREATE SCHEMA {name}; CREATE TABLE {name}.paused ()"),
    );
    let error = refused(&url).await;
    let expected =
        format!("cannot migrate the schema `{name}` to version 1; its changes are undone");
    assert!(
        error.contains(&expected) && error.contains("already exists"),
        "{error}"
    );
    let tables = format!("SELECT count(*) FROM pg_tables WHERE schemaname = '{name}'");
    assert_eq!(execute(server, &tables).trim(), "1");
    execute(server, &format!("DROP SCHEMA {name} CASCADE"));

    // In the way of the second.
    create_version_1(server, &name);
    execute(
        server,
        &format!("ALTER TABLE {name}.tally ADD COLUMN delivered_at text"),
    );
    let error = refused(&url).await;
    assert!(
        error.contains("to version 2; its changes are undone"),
        "{error}"
    );
    let version = format!("SELECT max(version) FROM {name}.schema_version");
    assert_eq!(execute(server, &version).trim(), "1");
    // In the way of the third. The second stays.
    execute(
        server,
        &format!(
            "ALTER TABLE {name}.tally DROP COLUMN delivered_at; DROP INDEX {name}.dispatch_pending"
        ),
    );
    let error = refused(&url).await;
    assert!(
        error.contains("to version 3; its changes are undone"),
        "{error}"
    );
    assert_eq!(execute(server, &version).trim(), "2");
    execute(
        server,
        &format!("CREATE INDEX dispatch_pending ON {name}.dispatch (sequence)"),
    );
    let inbox = PostgresInbox::open(&url).await.unwrap();
    append_until_stored(&inbox, "new").await;
    assert_eq!(inbox.stats().await.unwrap()[0].ready, 2);
}
