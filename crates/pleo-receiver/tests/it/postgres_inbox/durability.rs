//! Only what is durable is acknowledged.

use core::time::Duration;
use std::sync::Arc;

use pleo_receiver::{Appended, Inbox, InboxErrorKind, PostgresInbox, Query, Selection};
use tokio::{task, time};

use super::{
    PATIENCE, append_until_stored, execute, message, refused, server, start, text, wait_for_check,
};
use crate::support::postgres::schema;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_server_that_may_lose_commits() {
    let Some(server) = server() else { return };
    let url = server.url(&schema());
    for level in ["off", "local", "remote_write"] {
        let url = format!("{url}&options=-c%20synchronous_commit%3D{level}");
        let error = refused(&url).await;
        let expected = format!("synchronous_commit is `{level}`: the server would acknowledge");
        assert!(error.contains(&expected), "{error}");
    }
    let stronger = format!("{url}&options=-c%20synchronous_commit%3Dremote_apply");
    PostgresInbox::open(&stronger).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_server_without_fsync() {
    let Some(server) = start(&["fsync=off"]) else {
        return;
    };
    let error = refused(&server.url(&schema())).await;
    assert!(error.contains("fsync is `off`: a crash"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_fails_once_server_may_lose_commits() {
    let Some(server) = start(&[]) else { return };
    let inbox = PostgresInbox::open(&server.url(&schema())).await.unwrap();
    wait_for_check(&inbox, Result::is_ok).await;
    let set = |value: &str| {
        task::block_in_place(|| {
            server.execute(&format!("ALTER SYSTEM SET synchronous_commit = {value}"));
            server.execute("SELECT pg_reload_conf()");
        });
    };
    set("off");
    wait_for_check(&inbox, |check| {
        (check.as_ref()).is_err_and(|error| text(error).contains("synchronous_commit is `off`"))
    })
    .await;
    // An append asks for `on` itself. Its success doesn't hide the setting.
    append_until_stored(&inbox, "first").await;
    assert!(inbox.check().await.is_err());
    set("on");
    wait_for_check(&inbox, Result::is_ok).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledges_nothing_once_server_does_not_flush() {
    let Some(server) = start(&[]) else { return };
    let inbox = PostgresInbox::open(&server.url(&schema())).await.unwrap();
    append_until_stored(&inbox, "first").await;
    let set = |value: &str| {
        task::block_in_place(|| {
            server.execute(&format!("ALTER SYSTEM SET fsync = {value}"));
            server.execute("SELECT pg_reload_conf()");
        });
    };
    set("off");
    wait_for_check(&inbox, Result::is_err).await;
    for id in ["second", "first"] {
        let error = inbox.append(message(id)).await.unwrap_err();
        assert!(text(&error).contains("fsync is `off`"), "{}", text(&error));
    }
    set("on");
    wait_for_check(&inbox, Result::is_ok).await;
    assert_eq!(append_until_stored(&inbox, "third").await, Appended::Stored);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_pooler_that_hides_warnings() {
    let Some(server) = server() else { return };
    let url = server.url(&schema());
    let hidden = format!("{url}&pooler=transaction&options=-c%20client_min_messages%3Derror");
    let error = refused(&hidden).await;
    assert!(error.contains("client_min_messages is `error`"), "{error}");
    // Without a pooler, each connection sets it.
    let set = format!("{url}&options=-c%20client_min_messages%3Derror");
    PostgresInbox::open(&set).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imports_only_what_is_durable() {
    let Some(server) = start(&[]) else { return };
    let inbox = PostgresInbox::open(&server.url(&schema())).await.unwrap();
    append_until_stored(&inbox, "first").await;
    let stored = inbox.get(message("first").key()).await.unwrap().unwrap();
    let url = server.url(&schema());
    let target = Arc::new(PostgresInbox::open(&url).await.unwrap());
    let import = || {
        let (target, stored) = (Arc::clone(&target), stored.clone());
        tokio::spawn(async move { target.import(vec![stored]).await })
    };
    let set = |setting: &str| {
        task::block_in_place(|| {
            server.execute(&format!("ALTER SYSTEM SET {setting}"));
            server.execute("SELECT pg_reload_conf()");
        });
    };
    // The import opens no connection, which would be checked.
    assert!(target.list(Query::new(Selection::all(), 1)).await.is_ok());
    set("synchronous_commit = off");
    set("synchronous_standby_names = 'missing'");
    // Once new, and once stored already.
    for _ in 0..2 {
        let import = import();
        let waiting = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
                       WHERE wait_event = 'SyncRep'";
        while execute(&server, waiting).trim() == "0" {
            assert!(!import.is_finished());
            time::sleep(Duration::from_millis(20)).await;
        }
        let error = text(&import.await.unwrap().unwrap_err());
        assert!(error.contains("synchronous standby"), "{error}");
    }
    set("synchronous_standby_names = ''");
    assert_eq!(import().await.unwrap().unwrap(), 0);
    set("fsync = off");
    let started = std::time::Instant::now();
    loop {
        match import().await.unwrap() {
            Err(error) => break assert!(text(&error).contains("fsync is `off`"), "{error}"),
            // The server has not read the setting yet.
            Ok(_) => assert!(started.elapsed() < PATIENCE),
        }
    }
}

/// A cancelled wait for a standby commits on the primary alone, and the server reports success.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledges_nothing_that_no_synchronous_standby_has() {
    let Some(server) = start(&[]) else { return };
    let inbox = Arc::new(PostgresInbox::open(&server.url(&schema())).await.unwrap());
    append_until_stored(&*inbox, "first").await;
    let require = |standby: &str| {
        task::block_in_place(|| {
            let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{standby}'");
            server.execute(&set);
            server.execute("SELECT pg_reload_conf()");
        });
    };
    require("missing");
    let append = {
        let inbox = Arc::clone(&inbox);
        tokio::spawn(async move { inbox.append(message("second")).await })
    };
    let waiting = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
                   WHERE wait_event = 'SyncRep'";
    while execute(&server, waiting).trim() == "0" {
        time::sleep(Duration::from_millis(20)).await;
    }
    let error = append.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), InboxErrorKind::Unavailable);
    assert!(
        text(&error).contains("synchronous standby"),
        "{}",
        text(&error)
    );
    // It is stored, and no standby has it yet: a repetition waits too.
    let repeated = {
        let inbox = Arc::clone(&inbox);
        tokio::spawn(async move { inbox.append(message("second")).await })
    };
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    while execute(&server, waits).trim() == "0" {
        assert!(!repeated.is_finished());
        time::sleep(Duration::from_millis(20)).await;
    }
    require("");
    let repeated = repeated.await.unwrap();
    assert!(!matches!(repeated, Ok(Appended::Stored)), "{repeated:?}");
    assert_eq!(
        append_until_stored(&*inbox, "second").await,
        Appended::Duplicate
    );
}
