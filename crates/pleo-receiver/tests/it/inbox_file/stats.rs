//! Tests of the statistics that the file keeps.

use std::time::Instant;

use super::*;

/// Asserts that the statistics count these messages, which are all that the inbox has.
pub(super) async fn assert_counts(inbox: &SqliteInbox, entries: &[Entry]) {
    let stats = inbox.stats().await.unwrap();
    let counted = [State::Pending, State::Done, State::Dead].map(|state| {
        let entries = entries.iter().filter(|entry| entry.state == state);
        u64::try_from(entries.count()).unwrap()
    });
    let shown = stats.iter().fold([0; 3], |[pending, done, dead], stats| {
        [
            pending + stats.pending(),
            done + stats.done,
            dead + stats.dead,
        ]
    });
    assert_eq!(shown, counted, "{stats:?}");
}

#[tokio::test]
async fn counts_no_message_whose_body_could_not_be_stored() {
    let (_directory, path) = directory();
    let inbox = SqliteInbox::open(&path).unwrap();
    let file = Connection::open(&path).unwrap();
    let fail = "CREATE TRIGGER fail BEFORE INSERT ON body WHEN NEW.sequence = 2
                BEGIN SELECT RAISE(ABORT, 'damaged'); END";
    file.execute_batch(fail).unwrap();
    inbox.append(message("a")).await.unwrap();
    inbox.append(message("b")).await.unwrap_err();
    assert_counts(&inbox, &list(&inbox).await).await;
    file.execute_batch("DROP TRIGGER fail").unwrap();
    inbox.append(message("b")).await.unwrap();
    let stats = inbox.stats().await.unwrap();
    assert_eq!((stats.len(), stats[0].ready), (1, 2));
    assert_counts(&inbox, &list(&inbox).await).await;
}

/// A replay or prune of another process counts too.
#[tokio::test]
async fn counts_changes_of_other_processes() {
    let (_directory, path) = directory();
    let inbox = SqliteInbox::open(&path).unwrap();
    for id in ["a", "b", "c", "d"] {
        inbox.append(message(id)).await.unwrap();
    }
    for (leased, outcome) in lease(&inbox, 3).await.into_iter().zip([
        Outcome::Done,
        Outcome::Dead {
            error: "no".to_owned(),
        },
        Outcome::Retry {
            after: TTL,
            error: "later".to_owned(),
        },
    ]) {
        inbox.complete(leased.lease, outcome).await.unwrap();
    }
    let other = SqliteInbox::open_shared(&path).unwrap();
    let shown = |stats: &[pleo_receiver::EndpointStats]| {
        let stats = &stats[0];
        [stats.ready, stats.scheduled, stats.done, stats.dead]
    };
    assert_eq!(shown(&other.stats().await.unwrap()), [1, 1, 1, 1]);
    // The dead and the scheduled one.
    assert_eq!(other.replay(Selection::dead()).await.unwrap(), 1);
    assert_eq!(other.replay(Selection::id("c")).await.unwrap(), 1);
    assert_eq!(other.prune(Selection::all()).await.unwrap(), 1);
    for inbox in [&inbox, &other] {
        assert_eq!(shown(&inbox.stats().await.unwrap()), [3, 0, 0, 0]);
    }
}

#[tokio::test]
async fn takes_same_time_with_many_messages() {
    let (_directory, path) = directory();
    let inbox = SqliteInbox::open(&path).unwrap();
    inbox.append(message("first")).await.unwrap();
    let shortest = async || {
        let mut shortest = Duration::MAX;
        for _ in 0..20 {
            let started = Instant::now();
            inbox.stats().await.unwrap();
            shortest = shortest.min(started.elapsed());
        }
        shortest
    };
    let with_few = shortest().await;
    let file = Connection::open(&path).unwrap();
    // The first third is done, the second is ready, the last is scheduled.
    let fill = "
        UPDATE message SET state = 'done';
        WITH RECURSIVE number(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM number WHERE n < 200000)
        INSERT INTO message (sequence, endpoint, webhook_id, origin, received_at, expires_at, state,
                             due_at, delay)
        SELECT n, 'books', 'msg_' || n, 'webhook', 0, 4000000000000 + n % 1000,
               iif(n <= 60000, 'done', 'pending'), iif(n > 120000, 4000000000000, NULL),
               iif(n > 120000, 1000, NULL)
        FROM number;
        UPDATE endpoint_stats SET (pending, scheduled, done) =
            (SELECT sum(state = 'pending'), sum(due_at IS NOT NULL), sum(state = 'done')
             FROM message);";
    file.execute_batch(fill).unwrap();
    let stats = inbox.stats().await.unwrap().remove(0);
    assert_eq!(
        (stats.ready, stats.scheduled, stats.done),
        (60_000, 80_000, 60_000)
    );
    assert!(stats.nearest_expiry.is_some());
    let with_many = shortest().await;
    // If it read all messages, it would take a hundred times as long.
    let limit = with_few * 10 + Duration::from_millis(1);
    assert!(with_many < limit, "{with_few:?}, then {with_many:?}");
}
