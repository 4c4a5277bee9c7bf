//! Renews leases and records outcomes.

use core::time::Duration;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::error::Failure;
use super::rows::microseconds;
use super::session::{Param, Session};
use super::shared::Shared;
use super::text::{decode, encode};
use crate::inbox::attempt::{AttemptResult, MAX_ATTEMPTS_KEPT};
use crate::inbox::error::InboxError;
use crate::inbox::lease::{Completed, LeaseId, Outcome};
use crate::inbox::message::{State, truncate_error};

// The statements find a message by its lease in a subquery, which `OFFSET 0` keeps apart, and then by its
// sequence. The server could read the index of leases from its first entry otherwise, with those that
// ended and are not removed yet.

/// The most outcomes of one statement.
const MAX_BATCH: usize = 256;

/// [`MAX_ATTEMPTS_KEPT`] as an `integer`.
#[allow(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "it is small"
)]
pub(super) const KEPT: i32 = MAX_ATTEMPTS_KEPT as i32;

const RENEW: &str = "
    WITH held AS (
        SELECT dispatch.sequence, id
        FROM (
            SELECT sequence, id FROM unnest($1::uuid[]) AS given (id)
            CROSS JOIN LATERAL (SELECT sequence FROM inbox.dispatch WHERE lease = id OFFSET 0) AS held
        ) AS found
        JOIN inbox.dispatch USING (sequence)
        WHERE lease IS NOT DISTINCT FROM id
        ORDER BY dispatch.sequence FOR UPDATE OF dispatch
    )
    UPDATE inbox.dispatch SET lease_ends_at = inbox.clock() + $2 * interval '1 microsecond'
    FROM held WHERE dispatch.sequence = held.sequence AND lease IS NOT DISTINCT FROM id
    RETURNING lease
";

/// Ends leases and records their attempts. Need not survive a crash of the server's machine, so the
/// commit does not wait for the disk.
const COMPLETE: &str = "
    WITH outcome AS (
        SELECT *
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[])
             AS given (lease, state, result, delay, error),
             (SELECT set_config('synchronous_commit', 'off', true) AS relaxed) AS setting
    ),
    held AS (
        SELECT dispatch.sequence, dispatch.lease, attempts, ended, worker, leased_at
        FROM (
            SELECT sequence, outcome.lease AS id FROM outcome
            CROSS JOIN LATERAL (
                SELECT sequence FROM inbox.dispatch WHERE dispatch.lease = outcome.lease OFFSET 0
            ) AS held
            WHERE relaxed = 'off'
        ) AS found
        JOIN inbox.dispatch USING (sequence)
        WHERE dispatch.lease IS NOT DISTINCT FROM id
        ORDER BY dispatch.sequence FOR UPDATE OF dispatch
    ),
    recorded AS (
        INSERT INTO inbox.attempt (sequence, n, number, worker, started_at, duration, result, error)
        SELECT sequence, ended + 1, attempts, worker, leased_at, inbox.clock() - leased_at, result,
               error
        FROM held JOIN outcome USING (lease)
    ),
    trimmed AS (
        DELETE FROM inbox.attempt USING held
        WHERE attempt.sequence = held.sequence AND attempt.n <= held.ended + 1 - $6
    )
    UPDATE inbox.dispatch
    SET state = outcome.state,
        due_at = inbox.clock() + outcome.delay * interval '1 microsecond',
        last_error = coalesce(outcome.error, last_error),
        attempts = dispatch.attempts - (outcome.result = 'released')::integer,
        ended = dispatch.ended + 1,
        lease = NULL, leased_at = NULL, lease_ends_at = NULL, worker = NULL
    FROM held JOIN outcome USING (lease)
    WHERE dispatch.sequence = held.sequence AND dispatch.lease IS NOT DISTINCT FROM held.lease
    RETURNING held.lease
";

/// Ends a lease whose message cannot be read, or whose outcome cannot be recorded.
const SET_ASIDE: &str = "
    UPDATE inbox.dispatch
    SET state = 'dead', last_error = $2,
        lease = NULL, leased_at = NULL, lease_ends_at = NULL, worker = NULL
    FROM (SELECT sequence FROM inbox.dispatch WHERE lease = $1 OFFSET 0) AS held
    WHERE dispatch.sequence = held.sequence AND lease IS NOT DISTINCT FROM $1
    RETURNING dispatch.sequence
";

const KEY: &str = "SELECT endpoint, webhook_id FROM inbox.message WHERE sequence = $1";

/// An outcome to record.
pub(super) struct Complete {
    pub(super) lease: LeaseId,
    pub(super) outcome: Outcome,
    pub(super) reply: oneshot::Sender<Result<Completed, InboxError>>,
}

/// Makes leases end after `ttl`. Returns those that were lost.
pub(super) async fn renew(
    session: &Session,
    mut leases: Vec<LeaseId>,
    ttl: Duration,
) -> Result<Vec<LeaseId>, Failure> {
    let ids = leases.iter().map(|lease| Uuid::from_u128(lease.get()));
    let ids: Vec<Uuid> = ids.collect();
    let ttl = microseconds(ttl);
    let params: [Param<'_>; 2] = [(&ids, Type::UUID_ARRAY), (&ttl, Type::INT8)];
    let rows = session.query_locally(RENEW, &params).await?;
    let renewed = returned(&rows)?;
    leases.retain(|lease| !renewed.contains(&lease.get()));
    Ok(leases)
}

/// Records queued outcomes until the inbox is closed.
pub(super) async fn run(shared: Arc<Shared>, mut queue: mpsc::UnboundedReceiver<Complete>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, MAX_BATCH).await > 0 {
        let recorded = record(&shared, &batch).await;
        if recorded.as_ref().is_ok_and(|recorded| !recorded.is_empty()) {
            shared.changed();
        }
        let error = recorded.as_ref().err().cloned().map(InboxError::from);
        let mut recorded = recorded.unwrap_or_default();
        for Complete { lease, reply, .. } in batch.drain(..) {
            let result = match &error {
                Some(error) => Err(error.clone()),
                // Of two outcomes of a lease, one is recorded.
                None => match recorded.remove(&lease.get()) {
                    Some(result) => result.map(|()| Completed::Recorded).map_err(Into::into),
                    None => Ok(Completed::Lost),
                },
            };
            // The caller may have dropped its future.
            let _ = reply.send(result);
        }
    }
}

/// The results by lease. Leases that were lost before have none.
type Recorded = HashMap<u128, Result<(), Failure>>;

/// Records outcomes: together or, if one cannot be recorded, one by one.
async fn record(shared: &Shared, batch: &[Complete]) -> Result<Recorded, Failure> {
    let session = shared.outcomes.session().await?;
    let mut result = complete(&session, batch).await;
    if result.as_ref().is_err_and(Failure::is_transient) {
        result = complete(&session, batch).await;
    }
    if !result.as_ref().is_err_and(Failure::is_data_error) {
        let ended = result?.into_iter();
        return Ok(ended.map(|lease| (lease, Ok(()))).collect());
    }
    let mut recorded = HashMap::new();
    for one in batch {
        let lease = one.lease.get();
        let failure = match complete(&session, core::slice::from_ref(one)).await {
            Ok(ended) => {
                recorded.extend(ended.into_iter().map(|lease| (lease, Ok(()))));
                continue;
            }
            Err(failure) if failure.is_data_error() => {
                let set_aside = set_aside(&session, Uuid::from_u128(lease), &failure).await;
                set_aside.unwrap_or_else(|other| other)
            }
            Err(failure) => failure,
        };
        recorded.insert(lease, Err(failure));
    }
    Ok(recorded)
}

/// Sets a message aside since the end of its lease cannot be recorded. Returns the error that names it.
pub(super) async fn set_aside(
    session: &Session,
    lease: Uuid,
    failure: &Failure,
) -> Result<Failure, Failure> {
    let error = format!("the outcome cannot be recorded: {failure}");
    let mut rows = make_dead(session, lease, error).await;
    if let Ok([row]) = rows.as_deref() {
        let sequence: i64 = row.try_get(0)?;
        rows = session.query(KEY, &[(&sequence, Type::INT8)]).await;
    }
    let rows = match rows {
        Err(other) if other.is_data_error() => Vec::new(),
        rows => rows?,
    };
    let Some(key) = rows.first() else {
        return Ok(failure.clone());
    };
    Ok(Failure::Unrecorded {
        endpoint: decode(key.try_get(0)?),
        webhook_id: decode(key.try_get(1)?),
        source: Box::new(failure.clone()),
    })
}

/// Ends a lease, and makes its message dead with this error. Returns a row with the message's sequence, or
/// none if the lease was lost.
pub(super) async fn make_dead(
    session: &Session,
    lease: Uuid,
    error: String,
) -> Result<Vec<Row>, Failure> {
    let error = truncate_error(error);
    let error = encode(&error);
    let params: [Param<'_>; 2] = [(&lease, Type::UUID), (&error, Type::TEXT)];
    session.query_locally(SET_ASIDE, &params).await
}

/// Returns the leases that ended.
async fn complete(session: &Session, batch: &[Complete]) -> Result<HashSet<u128>, Failure> {
    let mut known = HashSet::new();
    let mut leases = Vec::with_capacity(batch.len());
    let (mut states, mut results) = (Vec::new(), Vec::new());
    let (mut delays, mut errors) = (Vec::new(), Vec::new());
    for Complete { lease, outcome, .. } in batch {
        if !known.insert(lease.get()) {
            continue;
        }
        let (state, result, delay, error) = match outcome {
            Outcome::Done => (State::Done, AttemptResult::Done, None, None),
            Outcome::Retry { after, error } => {
                let delay = (!after.is_zero()).then(|| microseconds(*after));
                (State::Pending, AttemptResult::Retry, delay, Some(error))
            }
            Outcome::Dead { error } => (State::Dead, AttemptResult::Dead, None, Some(error)),
            Outcome::Release => (State::Pending, AttemptResult::Released, None, None),
        };
        leases.push(Uuid::from_u128(lease.get()));
        states.push(state.as_str());
        results.push(result.as_str());
        delays.push(delay);
        let error = error.map(|error| truncate_error(error.clone()));
        errors.push(error.map(|error| encode(&error).into_owned()));
    }
    let params: [Param<'_>; 6] = [
        (&leases, Type::UUID_ARRAY),
        (&states, Type::TEXT_ARRAY),
        (&results, Type::TEXT_ARRAY),
        (&delays, Type::INT8_ARRAY),
        (&errors, Type::TEXT_ARRAY),
        (&KEPT, Type::INT4),
    ];
    returned(&session.query(COMPLETE, &params).await?)
}

fn returned(rows: &[Row]) -> Result<HashSet<u128>, Failure> {
    let leases = rows
        .iter()
        .map(|row| Ok(row.try_get::<_, Uuid>(0)?.as_u128()));
    leases.collect()
}
