//! What one receiver does for all from time to time: adds up counters, and corrects times.

use core::time::Duration;
use std::sync::Arc;

use tokio::time::{self, MissedTickBehavior};

use super::error::Failure;
use super::session::Session;
use super::shared::Shared;

const INTERVAL: Duration = Duration::from_secs(5);

/// Replaces many changes of the counters of statistics by one row of each endpoint. One process does so
/// at a time; changes that are committed meanwhile stay.
const ADD_UP: &str = "
    WITH lock AS MATERIALIZED (
        SELECT pg_try_advisory_xact_lock(hashtextextended('inbox tally', 0))
               AND (SELECT count(*) > 100 FROM inbox.tally) AS is_taken
    ),
    changes AS (
        DELETE FROM inbox.tally USING lock WHERE is_taken RETURNING tally.*
    )
    INSERT INTO inbox.tally (endpoint, pending, scheduled, done, dead, delivered_at)
    SELECT endpoint, sum(pending), sum(scheduled), sum(done), sum(dead), max(delivered_at)
    FROM changes GROUP BY endpoint
";

/// Corrects leases that begin more than a minute from now: the server's clock was set back. Each lasts
/// from now on as long as before. The end of one that was renewed since is right.
const CORRECT_LEASES: &str = "
    WITH ahead AS (
        SELECT sequence FROM inbox.dispatch
        WHERE lease IS NOT NULL AND leased_at > inbox.clock() + interval '1 minute'
        FOR UPDATE SKIP LOCKED
    )
    UPDATE inbox.dispatch
    SET leased_at = inbox.clock(),
        lease_ends_at = CASE WHEN lease_ends_at > leased_at
                             THEN inbox.clock() + (lease_ends_at - leased_at) ELSE lease_ends_at END
    FROM ahead WHERE dispatch.sequence = ahead.sequence
    RETURNING 1
";

/// Corrects retries whose last attempt ends more than a minute from now: the server's clock was set back
/// by as much. Reads the first ones only; the others become first.
const CORRECT_RETRIES: &str = "
    WITH scheduled AS (
        SELECT sequence, ended, due_at FROM inbox.dispatch
        WHERE due_at > inbox.clock() + interval '1 minute'
        ORDER BY due_at LIMIT 10000
    ),
    ahead AS (
        SELECT sequence, n, started_at + duration - inbox.clock() AS step
        FROM scheduled JOIN inbox.attempt USING (sequence) JOIN inbox.dispatch USING (sequence)
        WHERE n = scheduled.ended AND started_at + duration > inbox.clock() + interval '1 minute'
          -- Another receiver may have corrected it.
          AND dispatch.due_at = scheduled.due_at
        FOR UPDATE OF dispatch SKIP LOCKED
    ),
    attempts AS (
        UPDATE inbox.attempt SET started_at = started_at - step
        FROM ahead WHERE attempt.sequence = ahead.sequence AND attempt.n = ahead.n
    )
    UPDATE inbox.dispatch SET due_at = due_at - step
    FROM ahead WHERE dispatch.sequence = ahead.sequence
    RETURNING 1
";

/// Maintains the inbox until it is closed.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut closing = shared.closing.subscribe();
    let closed = async { drop(closing.wait_for(|closing| *closing).await) };
    let maintain = async {
        let mut ticks = time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Ok(session) = shared.statistics.session().await {
                // After a failure there is more to do the next time.
                let _ = session.query_locally(ADD_UP, &[]).await;
                if correct_times(&session).await.is_ok_and(|count| count > 0) {
                    shared.changed();
                }
            }
        }
    };
    tokio::select! {
        () = closed => {}
        () = maintain => {}
    }
}

/// Returns how many leases and retries were corrected.
async fn correct_times(session: &Session) -> Result<usize, Failure> {
    let leases = session.query_locally(CORRECT_LEASES, &[]).await?;
    let retries = session.query_locally(CORRECT_RETRIES, &[]).await?;
    Ok(leases.len() + retries.len())
}
