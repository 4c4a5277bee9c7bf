//! Migrations.

use futures_util::future::try_join_all;
use pleo_receiver::inbox::{LeaseRequest, Outcome};
use pleo_receiver::{Appended, Inbox, PostgresInbox, PostgresOptions, Query, Selection};
use tokio::task;

use super::wakeups::{SOON, time_until_woken};
use super::{PATIENCE, append_until_stored, execute, message, refused, server, text};
use crate::support::postgres::schema;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_together_create_schema_once() {
    let Some(server) = server() else { return };
    let url = server.url(&schema());
    let inboxes = (0..6).map(|_| PostgresInbox::open(&url));
    let inboxes = try_join_all(inboxes).await.unwrap();
    for inbox in &inboxes {
        inbox.append(message("same")).await.unwrap();
    }
    assert_eq!(inboxes[0].stats().await.unwrap()[0].ready, 1);
    let options: PostgresOptions = url.parse().unwrap();
    assert!(PostgresInbox::migrate(options).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opens_without_migrations_only_if_schema_is_current() {
    let Some(server) = server() else { return };
    let url = server.url(&schema());
    let options: PostgresOptions = url.parse().unwrap();
    let without = options.clone().with_migrations(false);
    let error = PostgresInbox::open_with(without.clone()).await.unwrap_err();
    assert!(text(&error).contains("inbox migrate"), "{}", text(&error));
    assert_eq!(PostgresInbox::migrate(options).await.unwrap(), [1, 2, 3]);
    PostgresInbox::open_with(without).await.unwrap();
}

/// Words of SQL as names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepts_reserved_words_as_schema() {
    let Some(server) = server() else { return };
    for name in ["user", "select"] {
        let url = server.url(name);
        let inbox = PostgresInbox::open(&url).await.unwrap();
        let other = PostgresInbox::open(&url).await.unwrap();
        append_until_stored(&inbox, "first").await;
        let request = LeaseRequest::new(1, PATIENCE, "worker");
        let leased = inbox.lease(request).await.unwrap().messages.remove(0);
        inbox.complete(leased.lease, Outcome::Done).await.unwrap();
        let all = Selection::all();
        let page = inbox.list(Query::new(all.clone(), 1)).await.unwrap();
        assert_eq!(page.entries.len(), 1);
        assert_eq!(inbox.stats().await.unwrap()[0].done, 1);
        assert!(inbox.measurements().await.unwrap().file_bytes.unwrap() > 0);
        let message = inbox.get(leased.message.entry.key()).await.unwrap();
        let copy = PostgresInbox::open(&server.url(&schema())).await.unwrap();
        assert_eq!(copy.import(message.into_iter().collect()).await.unwrap(), 1);
        assert_eq!(inbox.replay(all).await.unwrap(), 1);
        inbox.set_paused("books".into(), true).await.unwrap();
        let mut times = Vec::new();
        for round in 0..5 {
            times.push(time_until_woken(&inbox, &other, &round.to_string()).await);
        }
        times.sort();
        assert!(times[2] < SOON, "{times:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_database_that_cannot_store_all_characters() {
    let Some(server) = server() else { return };
    task::block_in_place(|| {
        server.execute("CREATE DATABASE latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    });
    let url = server.url(&schema()).replace("/postgres?", "/latin1?");
    let error = refused(&url).await;
    let expected = "server_encoding is `LATIN1`: the database cannot store all characters; create \
                    one with `createdb --encoding=UTF8 --template=template0`";
    assert!(error.contains(expected), "{error}");
    let migrated = PostgresInbox::migrate(url.parse().unwrap()).await;
    let error = text(&migrated.unwrap_err());
    assert!(error.contains(expected), "{error}");
}

/// A rolling upgrade: the new release migrates first, and the old one goes on until it is replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uses_newer_schema_only_if_it_is_compatible() {
    let Some(server) = server() else { return };
    let name = schema();
    let url = server.url(&name);
    let running = PostgresInbox::open(&url).await.unwrap();
    let upgrade = |version: i32, compatible_with: i32| {
        task::block_in_place(|| {
            server.execute(&format!(
                "INSERT INTO {name}.schema_version (version, compatible_with, program)
                 VALUES ({version}, {compatible_with}, '9.8.7')"
            ))
        });
    };
    upgrade(4, 1);
    let restarted = PostgresInbox::open(&url).await.unwrap();
    for inbox in [&running, &restarted] {
        append_until_stored(inbox, "first").await;
    }
    upgrade(5, 4);
    let error = refused(&url).await;
    let expected =
        "has version 5, which this program (version 3) cannot use; use pleo-receiver 9.8.7";
    assert!(error.contains(expected), "{error}");
    assert_eq!(
        append_until_stored(&restarted, "first").await,
        Appended::Duplicate
    );
}

/// With `migrate` off, the user of the inbox needs these rights only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documented_grants_suffice() {
    let Some(server) = server() else { return };
    let name = schema();
    let url = server.url(&name);
    PostgresInbox::migrate(url.parse().unwrap()).await.unwrap();
    let documentation = include_str!("../../../../../docs/postgres.md");
    let grants = documentation
        .split("```sql\n")
        .find(|block| block.starts_with("CREATE ROLE"));
    let grants = grants.unwrap().split("```").next().unwrap();
    let role = format!("role_{name}");
    let grants = grants
        .replace("pleo_inbox", &name)
        .replace("pleo_receiver", &role);
    let url = url.replace("postgres@", &format!("{role}@"));
    execute(server, &grants);
    let options: PostgresOptions = url.parse().unwrap();
    let inbox = PostgresInbox::open_with(options.with_migrations(false))
        .await
        .unwrap();
    append_until_stored(&inbox, "first").await;
    let request = LeaseRequest::new(1, PATIENCE, "worker");
    let leased = inbox.lease(request).await.unwrap().messages.remove(0);
    let done = Outcome::Done;
    inbox.complete(leased.lease, done).await.unwrap();
    let all = Selection::all();
    inbox.list(Query::new(all.clone(), 1)).await.unwrap();
    inbox.set_paused("books".into(), true).await.unwrap();
    inbox.set_paused("books".into(), false).await.unwrap();
    assert_eq!(inbox.replay(all).await.unwrap(), 1);
    let request = LeaseRequest::new(1, PATIENCE, "worker");
    let leased = inbox.lease(request).await.unwrap().messages.remove(0);
    let error = "failed".to_owned();
    let dead = Outcome::Dead { error };
    inbox.complete(leased.lease, dead).await.unwrap();
    assert_eq!(inbox.prune(Selection::dead()).await.unwrap(), 1);
    let other = url.replace(&format!("schema={name}"), "schema=other");
    let error = refused(&other).await;
    assert!(error.contains("permission denied"), "{error}");
}
