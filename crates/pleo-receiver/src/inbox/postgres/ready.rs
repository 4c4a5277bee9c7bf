//! Scans for ready messages and for retries, before messages are leased.

use core::time::Duration;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use jiff::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::complete::{KEPT, set_aside};
use super::error::Failure;
use super::progress::{Held, Progress};
use super::rows::{self, microseconds};
use super::session::{Param, Session};
use super::shared::Shared;
use super::text::decode;
use crate::inbox::lease::LeaseRequest;
use crate::inbox::lost::delay_after_loss;
use crate::inbox::order::{Queue, Rank};

/// Lets one process lease at a time, so that the limits hold. In a statement of its own: the next
/// statement sees all leases of the processes before. The commit waits for no standby.
pub(super) const LOCK: &str = "
    SELECT pg_advisory_xact_lock(hashtextextended('inbox lease', 0)),
           set_config('synchronous_commit', 'local', true)
";

/// The time until another scan, if something could not be changed in this one.
const RESCAN_DELAY: Duration = Duration::from_millis(100);

/// All leases of all processes, with the time: those that are known, and those that began since.
pub(super) const HELD: &str = "
    SELECT sequence, endpoint, lease, attempts,
           (extract(epoch FROM lease_ends_at - inbox.clock()) * 1000000)::bigint AS ends_in
    FROM inbox.dispatch WHERE lease IS NOT NULL AND lease > $2
    UNION ALL
    SELECT sequence, endpoint, lease, attempts,
           (extract(epoch FROM lease_ends_at - inbox.clock()) * 1000000)::bigint
    FROM unnest($1::uuid[]) AS known (id)
    CROSS JOIN LATERAL (SELECT * FROM inbox.dispatch WHERE lease = known.id OFFSET 0) AS held
";

/// The number of the last lease.
const LAST_LEASE: &str = "
    SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM inbox.lease_number
";

/// In how many microseconds the next retry is ready, 0 or less if one is; with the number of the last
/// lease, and how long the statement took.
pub(super) const NEXT_DUE: &str = "
    SELECT (extract(epoch FROM due_at - inbox.clock()) * 1000000)::bigint, inbox.clock(), due_at,
           (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM inbox.lease_number),
           (extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000000)::bigint
    FROM (VALUES (1)) AS one_row
    LEFT JOIN (
        SELECT due_at FROM inbox.dispatch
        WHERE due_at IS NOT NULL AND due_at >= coalesce($1, '-infinity') ORDER BY due_at LIMIT 1
    ) AS first ON TRUE
";

/// The first ready messages of each endpoint that is not paused, in dispatch order. Reads no more of
/// them, so that a backlog costs nothing. The last row has the microseconds that this took.
const READY: &str = "
    WITH RECURSIVE ready (endpoint) AS (
        (SELECT endpoint FROM inbox.dispatch
         WHERE state = 'pending' AND lease IS NULL AND due_at IS NULL
         ORDER BY endpoint LIMIT 1)
        UNION ALL
        SELECT (SELECT dispatch.endpoint FROM inbox.dispatch
                WHERE state = 'pending' AND lease IS NULL AND due_at IS NULL
                  AND dispatch.endpoint > ready.endpoint
                ORDER BY dispatch.endpoint LIMIT 1)
        FROM ready WHERE ready.endpoint IS NOT NULL
    )
    SELECT ready.endpoint, first.sequence, nullif(first.expires_at, 'infinity') AS expires_at
    FROM ready
    CROSS JOIN LATERAL (
        SELECT * FROM (
            (SELECT false AS expired, expires_at, sequence FROM inbox.dispatch
             WHERE state = 'pending' AND lease IS NULL AND due_at IS NULL
               AND dispatch.endpoint = ready.endpoint AND expires_at > inbox.clock()
             ORDER BY expires_at, sequence LIMIT $1)
            UNION ALL
            (SELECT true, expires_at, sequence FROM inbox.dispatch
             WHERE state = 'pending' AND lease IS NULL AND due_at IS NULL
               AND dispatch.endpoint = ready.endpoint AND expires_at <= inbox.clock()
             ORDER BY expires_at, sequence LIMIT $1)
        ) AS both_kinds
        ORDER BY expired, expires_at, sequence LIMIT $1
    ) AS first
    WHERE ready.endpoint IS NOT NULL
      AND NOT EXISTS (SELECT FROM inbox.paused WHERE paused.endpoint = ready.endpoint)
    UNION ALL
    SELECT NULL, (extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000000)::bigint, NULL
";

/// The first ready messages of each endpoint from its floor on. Those that expire up to a second before
/// the floor are read too, since they arrive in another order.
const READY_FROM: &str = "
    SELECT floor.endpoint, first.sequence, nullif(first.expires_at, 'infinity') AS expires_at
    FROM unnest($2::text[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::timestamptz[], $7::bigint[])
         AS floor (endpoint, live, live_sequence, lasting, expired, expired_sequence)
    CROSS JOIN LATERAL (
        SELECT * FROM (
            (SELECT 1 AS kind, expires_at, sequence FROM inbox.dispatch
             WHERE state = 'pending' AND lease IS NULL AND due_at IS NULL
               AND dispatch.endpoint = floor.endpoint
               AND expires_at > greatest(floor.live - interval '1 second', inbox.clock())
               AND expires_at < floor.live
             ORDER BY expires_at, sequence LIMIT $1)
            UNION ALL
            (SELECT 1, expires_at, sequence FROM inbox.dispatch
             WHERE state = 'pending' AND lease IS NULL AND due_at IS NULL
               AND dispatch.endpoint = floor.endpoint
               AND (expires_at, sequence) > (
                   greatest(floor.live, inbox.clock()),
                   CASE WHEN floor.live > inbox.clock() THEN floor.live_sequence
                        ELSE 9223372036854775807 END)
               AND expires_at < 'infinity'
             ORDER BY expires_at, sequence LIMIT $1)
            UNION ALL
            (SELECT 2, expires_at, sequence FROM inbox.dispatch
             WHERE state = 'pending' AND lease IS NULL AND due_at IS NULL
               AND dispatch.endpoint = floor.endpoint
               AND (expires_at, sequence) > ('infinity', floor.lasting)
             ORDER BY expires_at, sequence LIMIT $1)
            UNION ALL
            (SELECT 3, expires_at, sequence FROM inbox.dispatch
             WHERE state = 'pending' AND lease IS NULL AND due_at IS NULL
               AND dispatch.endpoint = floor.endpoint
               AND (expires_at, sequence) > (floor.expired, floor.expired_sequence)
               AND expires_at <= inbox.clock()
             ORDER BY expires_at, sequence LIMIT $1)
        ) AS all_kinds
        ORDER BY kind, expires_at, sequence LIMIT $1
    ) AS first
    WHERE NOT EXISTS (SELECT FROM inbox.paused WHERE paused.endpoint = floor.endpoint)
";

/// Makes retries ready whose time has come.
const MAKE_READY: &str = "
    UPDATE inbox.dispatch SET due_at = NULL
    WHERE sequence IN (
        SELECT sequence FROM inbox.dispatch WHERE due_at >= coalesce($1, '-infinity') AND due_at <= inbox.clock()
        ORDER BY due_at LIMIT 10000 FOR UPDATE SKIP LOCKED
    )
";

/// Ends leases that were not renewed, and records their attempts. The delays are in microseconds, null
/// for none.
const END_LOST: &str = "
    WITH lost AS (
        SELECT dispatch.*, found.delay
        FROM (
            SELECT sequence, id, delay
            FROM unnest($1::uuid[], $2::bigint[]) AS given (id, delay)
            CROSS JOIN LATERAL (SELECT sequence FROM inbox.dispatch WHERE lease = id OFFSET 0) AS held
        ) AS found
        JOIN inbox.dispatch USING (sequence)
        WHERE lease IS NOT DISTINCT FROM id AND lease_ends_at <= inbox.clock()
        FOR UPDATE OF dispatch SKIP LOCKED
    ),
    recorded AS (
        INSERT INTO inbox.attempt (sequence, n, number, worker, started_at, duration, result)
        SELECT sequence, ended + 1, attempts, worker, leased_at, lease_ends_at - leased_at, 'lost'
        FROM lost
    ),
    trimmed AS (
        DELETE FROM inbox.attempt USING lost
        WHERE attempt.sequence = lost.sequence AND attempt.n <= lost.ended + 1 - $3
    )
    UPDATE inbox.dispatch
    SET lease = NULL, leased_at = NULL, lease_ends_at = NULL, worker = NULL,
        ended = dispatch.ended + 1,
        due_at = inbox.clock() + lost.delay * interval '1 microsecond'
    FROM lost WHERE dispatch.sequence = lost.sequence
";

/// The leases and the ready messages that a scan found.
#[derive(Default)]
pub(super) struct Scan {
    now: Timestamp,
    /// The leases of each endpoint.
    held: HashMap<Arc<str>, usize>,
    /// The leases that ended, and the numbers of their attempts.
    lost: Vec<(Uuid, i32)>,
    /// `true` if retries are ready that are still marked as scheduled.
    is_due: bool,
    pub(super) next_due_in: Option<Duration>,
    /// How long reading this took the server.
    took: Duration,
    queues: Vec<Queue>,
}

impl Scan {
    /// Ends lost leases, makes retries ready, and reads what is ready: at most `max` messages of an
    /// endpoint. Finds nothing before a full scan has ended.
    pub(super) async fn run(
        shared: &Shared,
        session: &Session,
        progress: &mut Progress,
        request: &LeaseRequest,
        max: usize,
    ) -> Result<Self, Failure> {
        if let Some(failure) = progress.take_failure() {
            return Err(failure);
        }
        if progress.is_quick() {
            match Self::run_from(session, progress, request, max, true).await {
                Err(failure) if failure.is_statement_timeout() => progress.gave_up(),
                scan => return scan,
            }
        }
        let scan = if progress.is_known() {
            Self::run_from(session, progress, request, max, false).await
        } else {
            Ok(Self::default())
        };
        if progress.is_full_scan_due() {
            shared.full_scan_needed.notify_one();
        }
        scan
    }

    async fn run_from(
        session: &Session,
        progress: &mut Progress,
        request: &LeaseRequest,
        max: usize,
        is_full: bool,
    ) -> Result<Self, Failure> {
        let due = progress.due.filter(|_| !is_full);
        let mut scan = Self::read(session, progress, due).await?;
        if !scan.lost.is_empty() || scan.is_due {
            if !scan.lost.is_empty() {
                end_lost(session, &scan.lost).await?;
            }
            if scan.is_due {
                let params: [Param<'_>; 1] = [(&progress.due, Type::TIMESTAMPTZ)];
                session.query_locally(MAKE_READY, &params).await?;
            }
            let due = progress.due;
            scan = Self::read(session, progress, due).await?;
            if !scan.lost.is_empty() || scan.is_due {
                // Another process is about to change them, or there are many.
                scan.next_due_in = scan.next_due_in.into_iter().chain([RESCAN_DELAY]).min();
            }
        }
        let max = max.min(request.per_endpoint).min(request.total);
        if max > 0 {
            scan.read_queues(session, progress, is_full, max).await?;
        }
        // Messages below the floors wait for the next full scan.
        let pause = progress.pause();
        scan.next_due_in = scan.next_due_in.into_iter().chain(pause).min();
        Ok(scan)
    }

    /// Reads the leases, and the time of the first retry at or after `due`.
    async fn read(
        session: &Session,
        progress: &mut Progress,
        due: Option<SystemTime>,
    ) -> Result<Self, Failure> {
        let held = progress.held.clone();
        let due: [Param<'_>; 1] = [(&due, Type::TIMESTAMPTZ)];
        let [mut leases, due] = session
            .query_both((HELD, &held_params(&held)), (NEXT_DUE, &due))
            .await?;
        let due = due.first().ok_or(Failure::Lost)?;
        if held.is_stale(due.try_get(3)?) {
            leases = read_all_held(session, &mut progress.held).await?;
        }
        let (now, first): (SystemTime, Option<SystemTime>) = (due.try_get(1)?, due.try_get(2)?);
        progress.found_due(first, now);
        let mut scan = Self {
            now: rows::exact(now),
            took: took(due.try_get(4)?),
            ..Self::default()
        };
        let mut next = None;
        let mut held = Vec::with_capacity(leases.len());
        let after_now = |microseconds: i64| u64::try_from(microseconds).ok().filter(|n| *n > 0);
        for row in &leases {
            let endpoint: String = row.try_get("endpoint")?;
            let lease: Uuid = row.try_get("lease")?;
            held.push(lease);
            *scan.held.entry(decode(endpoint).into()).or_default() += 1;
            match after_now(row.try_get("ends_in")?) {
                Some(ends_in) => next = next.into_iter().chain([ends_in]).min(),
                None => scan.lost.push((lease, row.try_get("attempts")?)),
            }
        }
        progress.held.found(held.into_iter());
        if let Some(due_in) = due.try_get::<_, Option<i64>>(0)? {
            match after_now(due_in) {
                Some(due_in) => next = next.into_iter().chain([due_in]).min(),
                None => scan.is_due = true,
            }
        }
        scan.next_due_in = next.map(Duration::from_micros);
        Ok(scan)
    }

    async fn read_queues(
        &mut self,
        session: &Session,
        progress: &mut Progress,
        is_full: bool,
        max: usize,
    ) -> Result<(), Failure> {
        let limit = i64::try_from(max).unwrap_or(i64::MAX);
        let rows = if is_full {
            session.query(READY, &[(&limit, Type::INT8)]).await?
        } else {
            match query_from_floors(session, progress, limit).await {
                Err(failure) if failure.is_statement_timeout() => {
                    progress.gave_up();
                    progress.floors.clear();
                    Vec::new()
                }
                rows => rows?,
            }
        };
        let mut found: BTreeMap<String, Vec<(Option<SystemTime>, i64)>> = BTreeMap::new();
        for row in &rows {
            let sequence = row.try_get("sequence")?;
            match row.try_get("endpoint")? {
                Some(endpoint) => {
                    let messages: &mut Vec<_> = found.entry(endpoint).or_default();
                    messages.push((row.try_get("expires_at")?, sequence));
                }
                None => progress.full_scan_ended(self.took + took(sequence)),
            }
        }
        for (endpoint, messages) in found {
            let is_all = messages.len() < max;
            progress.found(&endpoint, &messages, rows::time(self.now), is_all);
            let ranks = messages.into_iter().map(|(expires_at, sequence)| {
                Rank::new(expires_at.map(rows::exact), self.now, sequence)
            });
            self.queues.push((decode(endpoint).into(), ranks.collect()));
        }
        Ok(())
    }

    /// Chooses messages in dispatch order, within the limits.
    pub(super) fn choose(
        &mut self,
        shared: &Shared,
        request: &LeaseRequest,
        max: usize,
    ) -> Vec<i64> {
        let mut queues = core::mem::take(&mut self.queues);
        for (endpoint, queue) in &mut queues {
            let held = self.held.get(endpoint).copied().unwrap_or_default();
            queue.truncate(request.per_endpoint.saturating_sub(held));
        }
        let held: usize = self.held.values().sum();
        let max = max.min(request.total.saturating_sub(held));
        let mut turns = shared.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let chosen = turns.take(queues, max).into_iter();
        chosen.map(Rank::sequence).collect()
    }
}

/// Returns the values of the leases that may be held.
pub(super) fn held_params(held: &Held) -> [Param<'_>; 2] {
    [(&held.known, Type::UUID_ARRAY), (&held.seen, Type::UUID)]
}

/// Returns the number of the last lease. All leases up to it are committed, so that a statement from now
/// on sees those of them that are held.
pub(super) async fn last_lease(session: &Session) -> Result<i64, Failure> {
    let calls = [(LOCK, &[][..]), (LAST_LEASE, &[])];
    let [_, last] = session.transaction(calls).await?;
    Ok(last.first().ok_or(Failure::Lost)?.try_get(0)?)
}

/// Reads all leases, and notes that those that ended need not be read again.
async fn read_all_held(session: &Session, held: &mut Held) -> Result<Vec<Row>, Failure> {
    let last = last_lease(session).await?;
    if held.has_lost(last) {
        *held = Held::default();
    }
    let leases = session.query(HELD, &held_params(held)).await?;
    held.has_seen(last);
    Ok(leases)
}

async fn query_from_floors(
    session: &Session,
    progress: &Progress,
    limit: i64,
) -> Result<Vec<Row>, Failure> {
    let floors = || progress.floors.values();
    let endpoints: Vec<&String> = progress.floors.keys().collect();
    let (live, live_sequences): (Vec<_>, Vec<_>) = floors().map(|floor| floor.live).unzip();
    let lasting: Vec<i64> = floors().map(|floor| floor.lasting).collect();
    let (expired, expired_sequences): (Vec<_>, Vec<_>) =
        floors().map(|floor| floor.expired).unzip();
    let params: [Param<'_>; 7] = [
        (&limit, Type::INT8),
        (&endpoints, Type::TEXT_ARRAY),
        (&live, Type::TIMESTAMPTZ_ARRAY),
        (&live_sequences, Type::INT8_ARRAY),
        (&lasting, Type::INT8_ARRAY),
        (&expired, Type::TIMESTAMPTZ_ARRAY),
        (&expired_sequences, Type::INT8_ARRAY),
    ];
    session.query(READY_FROM, &params).await
}

pub(super) fn took(microseconds: i64) -> Duration {
    Duration::from_micros(u64::try_from(microseconds).unwrap_or_default())
}

/// Ends lost leases: together or, if the end of one cannot be recorded, one by one.
async fn end_lost(session: &Session, lost: &[(Uuid, i32)]) -> Result<(), Failure> {
    match end_together(session, lost).await {
        Err(failure) if failure.is_data_error() => {}
        result => return result,
    }
    for lease in lost {
        match end_together(session, &[*lease]).await {
            Err(failure) if failure.is_data_error() => {
                set_aside(session, lease.0, &failure).await?;
            }
            result => result?,
        }
    }
    Ok(())
}

async fn end_together(session: &Session, lost: &[(Uuid, i32)]) -> Result<(), Failure> {
    let leases: Vec<Uuid> = lost.iter().map(|(lease, _)| *lease).collect();
    let delays = lost.iter().map(|(_, attempts)| {
        let delay = delay_after_loss(attempts.unsigned_abs());
        (!delay.is_zero()).then(|| microseconds(delay))
    });
    let delays: Vec<Option<i64>> = delays.collect();
    let params: [Param<'_>; 3] = [
        (&leases, Type::UUID_ARRAY),
        (&delays, Type::INT8_ARRAY),
        (&KEPT, Type::INT4),
    ];
    session.query_locally(END_LOST, &params).await?;
    Ok(())
}
