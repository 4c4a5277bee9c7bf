//! Maintenance by each receiver for all: adds up counters, and corrects times.

use core::time::Duration;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::time::{self, MissedTickBehavior};
use tokio_postgres::types::Type;

use super::error::Failure;
use super::session::{Param, Session};
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

const CLOCK: &str = "SELECT inbox.clock()";

/// By how much the server's clock may fall behind ours until it counts as set back.
const TOLERANCE: Duration = Duration::from_secs(1);

/// Corrects leases that begin more than a minute from now: the server's clock was set back, by this many
/// seconds if that is known. The end of a lease that was renewed since is right. Returns how many there
/// were, and how many were corrected.
const CORRECT_LEASES: &str = "
    WITH ahead AS (
        SELECT sequence FROM inbox.dispatch
        WHERE lease IS NOT NULL AND leased_at > inbox.clock() + interval '1 minute'
    ),
    free AS (
        SELECT sequence FROM ahead JOIN inbox.dispatch USING (sequence)
        WHERE lease IS NOT NULL AND leased_at > inbox.clock() + interval '1 minute'
        FOR UPDATE OF dispatch SKIP LOCKED
    ),
    corrected AS (
        UPDATE inbox.dispatch
        SET leased_at = inbox.clock(),
            lease_ends_at = CASE
                WHEN lease_ends_at > leased_at
                THEN lease_ends_at - greatest(make_interval(secs => $1), leased_at - inbox.clock())
                ELSE lease_ends_at
            END
        FROM free WHERE dispatch.sequence = free.sequence
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM ahead), (SELECT count(*) FROM corrected)
";

/// Corrects retries whose last attempt ends more than a minute from now: the server's clock was set back
/// by as much. Returns how many there were, and how many were corrected.
const CORRECT_RETRIES: &str = "
    WITH scheduled AS (
        SELECT sequence, ended, due_at FROM inbox.dispatch
        WHERE due_at > inbox.clock() + interval '1 minute'
    ),
    ahead AS (
        SELECT sequence, n, due_at, started_at + duration - inbox.clock() AS step
        FROM scheduled JOIN inbox.attempt USING (sequence)
        WHERE n = scheduled.ended AND started_at + duration > inbox.clock() + interval '1 minute'
    ),
    free AS (
        SELECT sequence, n, step FROM ahead JOIN inbox.dispatch USING (sequence)
        -- Another receiver may have corrected it.
        WHERE dispatch.due_at = ahead.due_at
        FOR UPDATE OF dispatch SKIP LOCKED
    ),
    attempts AS (
        UPDATE inbox.attempt SET started_at = started_at - step
        FROM free WHERE attempt.sequence = free.sequence AND attempt.n = free.n
    ),
    corrected AS (
        UPDATE inbox.dispatch SET due_at = due_at - step
        FROM free WHERE dispatch.sequence = free.sequence
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM ahead), (SELECT count(*) FROM corrected)
";

/// Maintains the inbox until it is closed.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut closing = shared.closing.subscribe();
    let closed = async { drop(closing.wait_for(|closing| *closing).await) };
    let maintain = async {
        let mut ticks = time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = None;
        loop {
            ticks.tick().await;
            if let Ok(session) = shared.statistics.session().await {
                // After a failure there is more to do the next time.
                let _ = session.query_locally(ADD_UP, &[]).await;
                if correct_times(&session, &mut look)
                    .await
                    .is_ok_and(|count| count > 0)
                {
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

/// The server's clock and ours, after which the times in the inbox were right.
type Look = (SystemTime, Instant);

/// Corrects times if the server's clock was set back since the last look, or if there was none. Returns how
/// many leases and retries were corrected.
async fn correct_times(session: &Session, look: &mut Option<Look>) -> Result<i64, Failure> {
    let rows = session.query(CLOCK, &[]).await?;
    let now: SystemTime = rows.first().ok_or(Failure::Lost)?.try_get(0)?;
    let here = Instant::now();
    let step = look.map(|(then, at)| {
        let expected = then + here.duration_since(at);
        expected.duration_since(now).unwrap_or_default()
    });
    let (mut ahead, mut corrected) = (0, 0);
    if step.is_none_or(|step| step > TOLERANCE) {
        let seconds = step.map(|step| step.as_secs_f64());
        let leases: [Param<'_>; 1] = [(&seconds, Type::FLOAT8)];
        for (sql, params) in [(CORRECT_LEASES, &leases[..]), (CORRECT_RETRIES, &[])] {
            let rows = session.query_locally(sql, params).await?;
            let counts = rows.first().ok_or(Failure::Lost)?;
            ahead += counts.try_get::<_, i64>(0)?;
            corrected += counts.try_get::<_, i64>(1)?;
        }
    }
    // What others had locked, as renewals do, is corrected the next time.
    if ahead == corrected {
        *look = Some((now, here));
    }
    Ok(corrected)
}
