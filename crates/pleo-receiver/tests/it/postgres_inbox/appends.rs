//! Appends that share a statement.

use core::pin::pin;

use futures_util::poll;
use pleo_receiver::inbox::InboxFuture;
use pleo_receiver::{Appended, Inbox, InboxErrorKind, Key, NewMessage, PostgresInbox};
use tokio::{task, time};

use super::{PATIENCE, connect, execute, message, server};
use crate::support::postgres::{HeldLock, Server, schema};

/// An inbox in a schema of its own.
struct Setup {
    server: &'static Server,
    schema: String,
    inbox: PostgresInbox,
}

impl Setup {
    async fn new() -> Option<Self> {
        let server = server()?;
        let schema = schema();
        let inbox = PostgresInbox::open(&server.url(&schema)).await.unwrap();
        Some(Self {
            server,
            schema,
            inbox,
        })
    }

    fn execute(&self, sql: &str) -> String {
        execute(self.server, sql)
    }

    fn lock(&self, name: &str) -> HeldLock<'_> {
        let name = format!("{} {name}", self.schema);
        task::block_in_place(|| self.server.lock(&name))
    }

    /// Lets each connection of the inbox wait with a message until the lock is dropped, so that the next
    /// messages go into one statement.
    async fn occupy(&self) -> (HeldLock<'_>, [InboxFuture<'_, Appended>; 2]) {
        let appending = self.lock("append");
        let mut appends = ["x", "y"].map(|id| self.inbox.append(message(id)));
        for (append, connections) in appends.iter_mut().zip([1, 2]) {
            assert!(poll!(append).is_pending());
            task::block_in_place(|| appending.wait_for_waiters(connections));
        }
        (appending, appends)
    }
}

/// The server refuses one of three messages of a statement, and stores another one late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_message_delays_no_other() {
    let Some(setup) = Setup::new().await else {
        return;
    };
    let (name, inbox) = (&setup.schema, &setup.inbox);
    setup.execute(&format!(
        "CREATE FUNCTION {name}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.webhook_id = 'b' THEN RAISE check_violation; END IF;
             IF NEW.webhook_id = 'c' THEN
                 PERFORM pg_advisory_xact_lock(hashtextextended('{name} late', 0));
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON {name}.message
         FOR EACH ROW EXECUTE FUNCTION {name}.refuse()"
    ));
    let late = setup.lock("late");
    let (appending, others) = setup.occupy().await;
    let mut a = pin!(inbox.append(message("a")));
    let mut b = pin!(inbox.append(message("b")));
    let mut c = pin!(inbox.append(message("c")));
    assert!(poll!(&mut a).is_pending());
    assert!(poll!(&mut b).is_pending());
    assert!(poll!(&mut c).is_pending());
    drop(appending);
    assert_eq!(a.await.unwrap(), Appended::Stored);
    let refused = time::timeout(PATIENCE, b).await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), InboxErrorKind::Unavailable);
    assert!(poll!(&mut c).is_pending());
    drop(late);
    assert_eq!(c.await.unwrap(), Appended::Stored);
    for append in others {
        assert_eq!(append.await.unwrap(), Appended::Stored);
    }
}

/// The first of two equal messages is pruned before the second is compared with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_equal_message_after_first_is_pruned() {
    let Some(setup) = Setup::new().await else {
        return;
    };
    let (name, inbox) = (&setup.schema, &setup.inbox);
    setup.execute(&format!(
        "CREATE FUNCTION {name}.wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM pg_advisory_xact_lock(hashtextextended('{name} late', 0));
             RETURN NEW;
         END $$;
         CREATE TRIGGER wait BEFORE INSERT ON {name}.message
         FOR EACH ROW WHEN (NEW.webhook_id = 'equal') EXECUTE FUNCTION {name}.wait()"
    ));
    let late = setup.lock("late");
    let (appending, others) = setup.occupy().await;
    let equal = |body: &'static str| inbox.append(NewMessage::new("books", "equal", body));
    let (mut first, mut second) = (pin!(equal("first")), pin!(equal("second")));
    assert!(poll!(&mut first).is_pending());
    assert!(poll!(&mut second).is_pending());
    drop(appending);
    for append in others {
        assert_eq!(append.await.unwrap(), Appended::Stored);
    }
    task::block_in_place(|| late.wait_for_waiters(1));

    // Is next to get the table when the statement is committed.
    let pruner = connect(setup.server).await;
    let begin = format!("BEGIN; LOCK TABLE {name}.message IN ACCESS EXCLUSIVE MODE");
    let begun = pruner.batch_execute(&begin);
    let mut begun = pin!(begun);
    assert!(poll!(&mut begun).is_pending());
    let waiting = format!(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{name}.message'::regclass"
    );
    while setup.execute(&waiting).trim() != "1" {}
    drop(late);
    begun.await.unwrap();
    let prune =
        format!("DELETE FROM {name}.message WHERE webhook_id = 'equal' AND body = 'first'; COMMIT");
    pruner.batch_execute(&prune).await.unwrap();

    assert_eq!(first.await.unwrap(), Appended::Stored);
    assert_eq!(second.await.unwrap(), Appended::Stored);
    let key = Key::new("books", "equal");
    assert_eq!(inbox.get(key).await.unwrap().unwrap().body, "second");
}

/// The message that two equal ones are compared with is pruned while both are appended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_no_message_as_stored_whose_equal_is() {
    let Some(setup) = Setup::new().await else {
        return;
    };
    let (name, inbox) = (&setup.schema, &setup.inbox);
    let append = |body: &'static str| inbox.append(NewMessage::new("books", "equal", body));
    append("stored").await.unwrap();
    let prune = format!(
        "CREATE FUNCTION {name}.prune() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             DELETE FROM {name}.message WHERE webhook_id = 'equal';
             RETURN NEW;
         END $$;
         CREATE TRIGGER prune BEFORE INSERT ON {name}.message
         FOR EACH ROW WHEN (NEW.body = 'second') EXECUTE FUNCTION {name}.prune()"
    );
    setup.execute(&prune);
    let (appending, others) = setup.occupy().await;
    let (mut first, mut second) = (pin!(append("first")), pin!(append("second")));
    assert!(poll!(&mut first).is_pending());
    assert!(poll!(&mut second).is_pending());
    drop(appending);
    assert_eq!(first.await.unwrap(), Appended::Conflict);
    assert_eq!(second.await.unwrap(), Appended::Conflict);
    for append in others {
        assert_eq!(append.await.unwrap(), Appended::Stored);
    }
}
