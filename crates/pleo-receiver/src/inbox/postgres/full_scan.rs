//! Full scans beside those before messages are leased, when they take long.

use std::sync::Arc;
use std::time::SystemTime;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::error::Failure;
use super::progress::{First, Held, Progress};
use super::ready::{HELD, NEXT_DUE, held_params, last_lease, took};
use super::rows;
use super::session::{Param, Session};
use super::shared::Shared;

/// The settings of a full scan. A pooler's connection may have a shorter time limit, and a bitmap does
/// not mark dead entries.
const SETTINGS: &str = "
    SELECT set_config('statement_timeout', '60s', true), set_config('enable_bitmapscan', 'off', true)
";

/// The last sequence. Read before what is ready, since messages arrive meanwhile.
const LAST_SEQUENCE: &str = "SELECT last_value FROM inbox.message_sequence";

/// The first ready message of each kind, of all endpoints that have or had messages. The last row has
/// the microseconds that this took. With `=` instead of `>=`, the primary key would have the same order,
/// and the server could read it, with all messages that are done.
const FIRST: &str = "
    WITH arriving AS MATERIALIZED (
        SELECT endpoint, min(expires_at) AS expires_at
        FROM (SELECT endpoint, expires_at FROM inbox.message ORDER BY sequence DESC LIMIT 1000) AS last
        WHERE expires_at > inbox.clock() GROUP BY endpoint
    )
    SELECT known.endpoint, live.expires_at AS live, live.sequence AS live_sequence,
           lasting.sequence AS lasting,
           expired.expires_at AS expired, expired.sequence AS expired_sequence,
           arriving.expires_at AS arriving
    FROM (SELECT DISTINCT endpoint FROM inbox.tally) AS known
    LEFT JOIN LATERAL (
        SELECT expires_at, sequence FROM inbox.dispatch
        WHERE state = 'pending' AND lease IS NULL AND due_at IS NULL
          AND dispatch.endpoint = known.endpoint
          AND expires_at > inbox.clock() AND expires_at < 'infinity'
        ORDER BY expires_at, sequence LIMIT 1
    ) AS live ON TRUE
    LEFT JOIN LATERAL (
        SELECT sequence FROM inbox.dispatch
        WHERE state = 'pending' AND lease IS NULL AND due_at IS NULL
          AND dispatch.endpoint = known.endpoint AND expires_at >= 'infinity'
        ORDER BY expires_at, sequence LIMIT 1
    ) AS lasting ON TRUE
    LEFT JOIN LATERAL (
        SELECT expires_at, sequence FROM inbox.dispatch
        WHERE state = 'pending' AND lease IS NULL AND due_at IS NULL
          AND dispatch.endpoint = known.endpoint AND expires_at <= inbox.clock()
        ORDER BY expires_at, sequence LIMIT 1
    ) AS expired ON TRUE
    LEFT JOIN arriving ON arriving.endpoint = known.endpoint
    UNION ALL
    SELECT NULL, NULL, NULL,
           (extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000000)::bigint,
           NULL, NULL, NULL
";

/// Runs full scans when it is time, until the inbox is closed.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut closing = shared.closing.subscribe();
    let closed = async { drop(closing.wait_for(|closing| *closing).await) };
    let scans = async {
        loop {
            shared.full_scan_needed.notified().await;
            run_if_due(&shared).await;
        }
    };
    tokio::select! {
        () = closed => {}
        () = scans => {}
    }
}

async fn run_if_due(shared: &Shared) {
    let (leasing, needs_held) = {
        let progress = shared.progress.lock().await;
        if !progress.is_full_scan_due() {
            return;
        }
        (progress.session(), progress.needs_held())
    };
    let found = scan(shared, needs_held).await;
    let mut progress = shared.progress.lock().await;
    // Behind another connection may be another server.
    if progress.session() == leasing {
        let noted = found.and_then(|found| note(&mut progress, found));
        if let Err(failure) = noted {
            progress.full_scan_failed(failure);
        }
    }
    drop(progress);
    // The dispatcher waits for what this found.
    shared.version.send_modify(|version| *version += 1);
}

/// The results of a full scan.
struct Found {
    /// The leases that may be held, unless they were known.
    held: Option<Held>,
    last_sequence: Vec<Row>,
    due: Vec<Row>,
    first: Vec<Row>,
}

async fn scan(shared: &Shared, needs_held: bool) -> Result<Found, Failure> {
    let session = shared.managing.session().await?;
    let mut held = None;
    if needs_held {
        held = Some(read_held(&session).await?);
    }
    let all: [Param<'_>; 1] = [(&None::<SystemTime>, Type::TIMESTAMPTZ)];
    let calls = [
        (SETTINGS, &[][..]),
        (LAST_SEQUENCE, &[]),
        (NEXT_DUE, &all),
        (FIRST, &[]),
    ];
    let [_, last_sequence, due, first] = session.transaction(calls).await?;
    Ok(Found {
        held,
        last_sequence,
        due,
        first,
    })
}

async fn read_held(session: &Session) -> Result<Held, Failure> {
    let mut held = Held::default();
    let last = last_lease(session).await?;
    let all = Held::default();
    let calls = [(SETTINGS, &[][..]), (HELD, &held_params(&all))];
    let [_, leases] = session.transaction(calls).await?;
    let leases = leases.iter().map(|row| row.try_get("lease"));
    held.found(leases.collect::<rows::Result<Vec<Uuid>>>()?.into_iter());
    held.has_seen(last);
    Ok(held)
}

fn note(progress: &mut Progress, found: Found) -> Result<(), Failure> {
    if let Some(held) = found.held {
        progress.found_held(held);
    }
    let last_sequence = found.last_sequence.first().ok_or(Failure::Lost)?;
    let last_sequence: i64 = last_sequence.try_get(0)?;
    let due = found.due.first().ok_or(Failure::Lost)?;
    let now = due.try_get(1)?;
    progress.found_due(due.try_get(2)?, now);
    let mut elapsed = took(due.try_get(4)?);
    for row in &found.first {
        let time = |column| row.try_get::<_, Option<SystemTime>>(column);
        let lasting: Option<i64> = row.try_get("lasting")?;
        let Some(endpoint) = row.try_get("endpoint")? else {
            elapsed += took(lasting.unwrap_or_default());
            continue;
        };
        let first = First {
            live: time("live")?.zip(row.try_get("live_sequence")?),
            lasting: lasting.unwrap_or(last_sequence),
            expired: time("expired")?.zip(row.try_get("expired_sequence")?),
            arriving: time("arriving")?,
        };
        progress.found_first(endpoint, &first, now);
    }
    progress.full_scan_ended(elapsed);
    Ok(())
}
