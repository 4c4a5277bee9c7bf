//! The counters of statistics.

use core::time::Duration;
use std::sync::Arc;

use tokio::time::{self, MissedTickBehavior};

use super::shared::Shared;

/// How often changes of counters are added up.
const INTERVAL: Duration = Duration::from_secs(5);

/// Replaces many changes by one row of each endpoint. One process does so at a time; changes that are
/// committed meanwhile stay.
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

/// Adds up changes of counters until the inbox is closed.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut closing = shared.closing.subscribe();
    let closed = async { drop(closing.wait_for(|closing| *closing).await) };
    let add_up = async {
        let mut ticks = time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Ok(session) = shared.managing.session().await {
                // After a failure there is more to add up the next time.
                let _ = session.query_locally(ADD_UP, &[]).await;
            }
        }
    };
    tokio::select! {
        () = closed => {}
        () = add_up => {}
    }
}
