//! Tests of messages that can be read, but not changed: they block no other.

use super::stats::assert_counts;
use super::*;

/// Makes changes of the first message fail, as a damaged page does.
const DAMAGE: &str = "CREATE TRIGGER damage BEFORE UPDATE ON message WHEN OLD.sequence = 1
    BEGIN SELECT RAISE(ABORT, 'damaged'); END;";

const REPAIR: &str = "DROP TRIGGER damage;";

fn execute(path: &Path, statements: &str) {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(statements).unwrap();
}

/// Returns an inbox with the first of three messages leased.
async fn leased(path: &Path, clock: &Arc<TestClock>) -> (SqliteInbox, LeasedMessage) {
    let inbox = open(path, clock);
    for id in ["a", "b", "c"] {
        inbox.append(message(id)).await.unwrap();
    }
    let first = lease(&inbox, 1).await.remove(0);
    (inbox, first)
}

/// Leases messages until the inbox has given up the damaged one.
async fn lease_others(inbox: &SqliteInbox) -> Vec<String> {
    let mut others = Vec::new();
    for _ in 0..4 {
        let request = LeaseRequest::new(10, TTL, "test");
        let leased = inbox.lease(request).await;
        let leased = leased.map_or_else(|_| Vec::new(), |leased| leased.messages);
        let ids = leased
            .iter()
            .map(|leased| leased.message.entry.webhook_id.to_string());
        others.extend(ids);
    }
    others
}

async fn assert_set_aside(inbox: &SqliteInbox) {
    let entries = list(inbox).await;
    assert_eq!((entries[0].state, entries[0].leased), (State::Dead, false));
    let error = entries[0].last_error.as_deref().unwrap();
    assert!(error.starts_with("unreadable: "), "{error}");
    assert_counts(inbox, &entries).await;
}

#[tokio::test]
async fn leases_others_if_lost_lease_cannot_be_ended() {
    for is_repaired in [false, true] {
        let (_directory, path) = directory();
        let clock = Arc::<TestClock>::default();
        let (inbox, _) = leased(&path, &clock).await;
        execute(&path, DAMAGE);
        clock.advance(TTL);
        assert_eq!(lease(&inbox, 1).await.len(), 1);
        if is_repaired {
            execute(&path, REPAIR);
        }
        assert_eq!(lease_others(&inbox).await, ["c"]);
        if is_repaired {
            assert_set_aside(&inbox).await;
        }
    }
}

#[tokio::test]
async fn leases_others_if_message_cannot_be_leased() {
    let (_directory, path) = directory();
    let clock = Arc::<TestClock>::default();
    let (inbox, first) = leased(&path, &clock).await;
    let release = Outcome::Release;
    inbox.complete(first.lease, release).await.unwrap();
    execute(&path, DAMAGE);
    assert_eq!(lease_others(&inbox).await, ["b", "c"]);
}

/// Cuts the last pages off the log for a while. They belong to the first message's body.
#[cfg(unix)]
#[tokio::test]
async fn leases_others_if_reading_a_body_is_an_io_error() {
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt as _;

    let (_directory, path) = directory();
    let clock = Arc::<TestClock>::default();
    let (inbox, first) = leased(&path, &clock).await;
    let release = Outcome::Release;
    inbox.complete(first.lease, release).await.unwrap();
    // Prevents that the pages are read from the database.
    let reader = Connection::open(&path).unwrap();
    let start = "BEGIN; SELECT count(*) FROM message;";
    reader.execute_batch(start).unwrap();
    let long = "UPDATE body SET body = zeroblob(1000000) WHERE sequence = 1;";
    execute(&path, long);
    let log = path.with_file_name("inbox.db-wal");
    let intact = fs::read(&log).unwrap();
    let log = File::options().write(true).open(log).unwrap();
    let end = intact.len() - 10 * 4096;
    log.set_len(end.try_into().unwrap()).unwrap();

    let request = LeaseRequest::new(10, TTL, "test");
    inbox.lease(request).await.unwrap_err();
    assert!(list(&inbox).await.iter().all(|entry| !entry.leased));
    log.write_all_at(&intact[end..], end.try_into().unwrap())
        .unwrap();
    assert_eq!(lease_others(&inbox).await, ["b", "c"]);
    assert_set_aside(&inbox).await;
}

#[tokio::test]
async fn gives_up_lease_whose_outcome_cannot_be_recorded() {
    let (_directory, path) = directory();
    let clock = Arc::<TestClock>::default();
    let (inbox, first) = leased(&path, &clock).await;
    execute(&path, DAMAGE);
    let completed = inbox.complete(first.lease, Outcome::Done).await.unwrap();
    assert_eq!(completed, Completed::Lost);
    let one_at_a_time = LeaseRequest::new(1, TTL, "test").with_per_endpoint(1);
    // The first two calls try to set the message aside.
    inbox.lease(one_at_a_time.clone()).await.unwrap_err();
    inbox.lease(one_at_a_time.clone()).await.unwrap_err();
    let leased = inbox.lease(one_at_a_time).await.unwrap();
    assert_eq!(&*leased.messages[0].message.entry.webhook_id, "b");
}

#[tokio::test]
async fn opens_if_lease_of_crashed_server_cannot_be_ended() {
    let (_directory, path) = directory();
    let clock = Arc::<TestClock>::default();
    drop(leased(&path, &clock).await);
    execute(&path, DAMAGE);
    let inbox = open(&path, &clock);
    assert_eq!(lease_others(&inbox).await, ["b", "c"]);
    drop(inbox);
    execute(&path, REPAIR);
    let not_utf8 = "UPDATE message SET worker = CAST(x'ff' AS TEXT) WHERE sequence = 1";
    execute(&path, not_utf8);
    let inbox = open(&path, &clock);
    assert_set_aside(&inbox).await;
}

#[tokio::test]
async fn retry_is_ready_within_delay_if_lease_failed_after_clock_was_set_back() {
    let (_directory, path) = directory();
    let clock = Arc::<TestClock>::default();
    clock.set_ahead(Duration::from_secs(365 * 24 * 3600));
    let inbox = open(&path, &clock);
    for id in ["other", "retry"] {
        inbox.append(message(id)).await.unwrap();
    }
    let leased = lease(&inbox, 2).await;
    let after = Duration::from_secs(60);
    let error = "why".to_owned();
    let retry = Outcome::Retry { after, error };
    inbox.complete(leased[1].lease, retry).await.unwrap();
    let release = Outcome::Release;
    inbox.complete(leased[0].lease, release).await.unwrap();
    execute(&path, DAMAGE);
    clock.set_ahead(Duration::ZERO);
    let request = LeaseRequest::new(1, TTL, "test");
    inbox.lease(request.clone()).await.unwrap_err();
    execute(&path, REPAIR);
    inbox.lease(request).await.unwrap();
    let due_at = list(&inbox).await[1].due_at.unwrap();
    assert_eq!(due_at.duration_since(clock.now()).as_secs(), 60);
}
