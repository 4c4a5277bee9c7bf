//! The indexes that statements use, whatever the statistics of the tables say.

use pleo_receiver::inbox::{LeaseRequest, Outcome};
use pleo_receiver::{Inbox, PostgresInbox};

use super::{PATIENCE, append_until_stored, execute, scans, server, url_to_count};
use crate::support::postgres::schema;

/// How many messages are done.
const DONE: u64 = 20_000;

/// The statistics say that all messages are ready and do not expire. Then the primary key seems as good as
/// the index of ready messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_no_done_messages_after_backlog_without_expiry() {
    let Some(server) = server() else { return };
    let schema = schema();
    let url = url_to_count(server, &schema);
    PostgresInbox::open(&url).await.unwrap();
    let sql = format!(
        "INSERT INTO {schema}.message
             (sequence, endpoint, webhook_id, origin, received_at, headers, body)
         SELECT nextval('{schema}.message_sequence'), 'books', n, 'webhook', now(), '', ''
         FROM generate_series(1, {DONE}) AS n;
         ALTER TABLE {schema}.dispatch SET (autovacuum_enabled = false);
         INSERT INTO {schema}.dispatch (sequence, endpoint) SELECT sequence, 'books' FROM {schema}.message;
         ANALYZE {schema}.dispatch;
         UPDATE {schema}.dispatch SET state = 'done'"
    );
    execute(server, &sql);
    let inbox = PostgresInbox::open(&url).await.unwrap();
    append_until_stored(&inbox, "new").await;
    let stats = inbox.stats().await.unwrap().remove(0);
    assert_eq!((stats.ready, stats.done), (1, DONE));
    assert!(stats.oldest_pending.is_some());
    let request = LeaseRequest::new(1, PATIENCE, "worker");
    let leased = inbox.lease(request).await.unwrap().messages;
    let outcome = inbox.complete(leased[0].lease, Outcome::Done).await;
    outcome.unwrap();
    inbox.close().await.unwrap();
    let (scans, read) = scans(server, &schema, "dispatch_pkey").await;
    assert!(scans > 0);
    assert!(read < DONE / 2, "{read}");
}
