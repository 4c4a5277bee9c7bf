//! Appends that the server refuses.

use core::pin::pin;

use futures_util::poll;
use pleo_receiver::{Appended, Inbox, InboxErrorKind, PostgresInbox};
use tokio::{task, time};

use super::{PATIENCE, message, server};
use crate::support::postgres::schema;

/// The server refuses one of three messages of a statement, and stores another one late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_message_delays_no_other() {
    let Some(server) = server() else { return };
    let name = schema();
    let inbox = PostgresInbox::open(&server.url(&name)).await.unwrap();
    let lock = |lock: &str| task::block_in_place(|| server.lock(&format!("{name} {lock}")));
    let execute = |sql: &str| task::block_in_place(|| server.execute(sql));
    execute(&format!(
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
    let late = lock("late");
    let appending = lock("append");
    // Each connection waits with one of these. The others go into one statement then.
    let mut first = ["x", "y"].map(|id| Box::pin(inbox.append(message(id))));
    for (append, connections) in first.iter_mut().zip([1, 2]) {
        assert!(poll!(append).is_pending());
        task::block_in_place(|| appending.wait_for_waiters(connections));
    }
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
    for append in first {
        assert_eq!(append.await.unwrap(), Appended::Stored);
    }
}
