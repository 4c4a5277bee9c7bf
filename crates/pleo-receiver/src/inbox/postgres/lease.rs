//! Leases messages.

use core::num::NonZeroU32;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::collections::HashMap;

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::complete::make_dead;
use super::error::Failure;
use super::progress::Held;
use super::ready::{LOCK, Scan, held_params};
use super::rows::{self, microseconds};
use super::session::{Param, Session};
use super::shared::{ENOUGH_BYTES, Shared};
use super::text::{decode, encode};
use crate::error::error_chain;
use crate::inbox::lease::{LeaseId, LeaseRequest, Leased, LeasedMessage, Version};
use crate::inbox::message::StoredMessage;
use crate::telemetry;

/// How often messages are chosen again after other processes were faster.
const MAX_ROUNDS: u32 = 5;

/// Leases the chosen messages as far as they are still ready and the limits allow. Returns also what is
/// held already, without attempts. The leases are numbered, see [`super::progress`].
const LEASE: &str = "
    WITH before AS MATERIALIZED (
        SELECT sequence, endpoint, lease FROM inbox.dispatch
        WHERE lease IS NOT NULL AND lease > $7
        UNION ALL
        SELECT sequence, endpoint, lease
        FROM unnest($6::uuid[]) AS known (id)
        CROSS JOIN LATERAL (SELECT * FROM inbox.dispatch WHERE lease = known.id OFFSET 0) AS held
    ),
    held AS (
        SELECT endpoint, count(*) AS leases FROM before GROUP BY endpoint
    ),
    free AS (
        SELECT sequence, dispatch.endpoint, chosen.ordinal
        FROM unnest($1::bigint[]) WITH ORDINALITY AS chosen (sequence, ordinal)
        JOIN inbox.dispatch USING (sequence)
        -- Not the condition of `dispatch_ready`, whose dead entries must not be read.
        WHERE CASE WHEN state = 'pending' THEN lease IS NULL AND due_at IS NULL ELSE FALSE END
          AND NOT EXISTS (SELECT FROM inbox.paused WHERE paused.endpoint = dispatch.endpoint)
        FOR UPDATE OF dispatch SKIP LOCKED
    ),
    per_endpoint AS (
        SELECT free.sequence, free.ordinal,
               coalesce(held.leases, 0) + row_number() OVER (PARTITION BY endpoint ORDER BY ordinal)
                   AS leases
        FROM free LEFT JOIN held USING (endpoint)
    ),
    total AS (
        SELECT sequence, ordinal,
               (SELECT coalesce(sum(held.leases), 0) FROM held) + row_number() OVER (ORDER BY ordinal)
                   AS leases
        FROM per_endpoint WHERE leases <= $2
    ),
    leased AS (
        UPDATE inbox.dispatch
        SET lease = (lpad(to_hex(nextval('inbox.lease_number')), 16, '0')
                     || right(replace(gen_random_uuid()::text, '-', ''), 16))::uuid,
            leased_at = inbox.clock(),
            lease_ends_at = inbox.clock() + $4 * interval '1 microsecond',
            worker = $5, attempts = dispatch.attempts + 1
        FROM total WHERE dispatch.sequence = total.sequence AND total.leases <= $3
        RETURNING dispatch.sequence, dispatch.lease, dispatch.attempts, dispatch.last_error
    )
    SELECT sequence, lease, attempts, last_error FROM leased
    UNION ALL
    SELECT sequence, lease, NULL, NULL FROM before
";

/// Reads messages, as they are right after they were leased: in this order, until the bodies have enough
/// bytes. The others have no body.
const MESSAGES: &str = "
    SELECT sequence, endpoint, webhook_id, event_type, event_id, resource_id, origin, source,
           received_at, expires_at, CASE WHEN is_read THEN headers END AS headers,
           CASE WHEN is_read THEN body END AS body,
           octet_length(body)::bigint AS body_len,
           'pending' AS state, true AS leased, 0 AS attempts, NULL::timestamptz AS due_at,
           NULL::text AS last_error, is_read
    FROM (
        SELECT message.*,
               coalesce(sum(octet_length(body)) OVER (
                   ORDER BY ordinal ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) < $2 AS is_read
        FROM unnest($1::bigint[]) WITH ORDINALITY AS chosen (sequence, ordinal)
        JOIN inbox.message USING (sequence)
    ) AS message
";

/// Leases messages for a request.
pub(super) async fn lease(shared: &Shared, request: &LeaseRequest) -> Result<Leased, Failure> {
    let session = shared.leasing.session().await?;
    let mut progress = shared.progress.lock().await;
    progress.begin(session.number(), !session.is_prepared());
    let seen = *shared.version.borrow();
    let mut messages = Vec::new();
    let mut bytes = 0;
    let mut next_due_in = None;
    for _ in 0..MAX_ROUNDS {
        let rest = request.max - messages.len();
        let scanned = Scan::run(shared, &session, &mut progress, request, rest).await;
        // What is leased already must not wait for the end of its lease.
        if scanned.is_err() && !messages.is_empty() {
            break;
        }
        let mut scan = scanned?;
        let mut chosen = scan.choose(shared, request, rest);
        next_due_in = scan.next_due_in;
        if chosen.is_empty() {
            break;
        }
        let count = chosen.len();
        let enough = shared.lease_bytes.load(Ordering::Relaxed);
        let enough = enough.saturating_sub(bytes).max(1);
        let leased = async {
            // First, so that no lease is lost because its message cannot be read.
            let read = read_in_time(shared, &session, &mut chosen, enough).await?;
            lease_read(&session, &mut progress.held, request, &chosen, read).await
        };
        let leased = leased.await;
        if leased.is_err() && !messages.is_empty() {
            break;
        }
        let leased = leased?;
        let ends_in = (!leased.is_empty()).then_some(request.ttl);
        next_due_in = next_due_in.into_iter().chain(ends_in).min();
        let is_complete = leased.len() == chosen.len();
        let bodies = leased.iter().map(|leased| leased.message.body.len());
        bytes += bodies.sum::<usize>();
        messages.extend(leased);
        if chosen.len() < count {
            // The others are ready.
            next_due_in = Some(Duration::ZERO);
            break;
        }
        if is_complete {
            break;
        }
    }
    // The caller is not woken by its own leases, but by all other changes since the scan.
    let mut version = seen;
    if !messages.is_empty() {
        shared.version.send_if_modified(|now| {
            if *now == seen {
                *now += 1;
                version = *now;
            }
            version == *now
        });
    }
    Ok(Leased::new(messages, next_due_in, Version::new(version)))
}

/// Leases the chosen messages, which were read. Returns fewer if another process was faster.
async fn lease_read(
    session: &Session,
    held: &mut Held,
    request: &LeaseRequest,
    chosen: &[i64],
    mut read: HashMap<i64, ReadMessage>,
) -> Result<Vec<LeasedMessage>, Failure> {
    let limit = |limit: usize| i64::try_from(limit).unwrap_or(i64::MAX);
    let (per_endpoint, total) = (limit(request.per_endpoint), limit(request.total));
    let ttl = microseconds(request.ttl);
    let worker = encode(&request.worker);
    let before = held.clone();
    let [known, seen] = held_params(&before);
    let params: [Param<'_>; 7] = [
        (&chosen, Type::INT8_ARRAY),
        (&per_endpoint, Type::INT8),
        (&total, Type::INT8),
        (&ttl, Type::INT8),
        (&worker, Type::TEXT),
        known,
        seen,
    ];
    let calls = [(LOCK, &[][..]), (LEASE, &params)];
    let [_, leases] = session.transaction(calls).await?;
    let mut by_sequence = HashMap::with_capacity(leases.len());
    let mut all = Vec::with_capacity(leases.len());
    for row in &leases {
        all.push(row.try_get("lease")?);
        if let Some(attempts) = row.try_get::<_, Option<i32>>("attempts")? {
            by_sequence.insert(row.try_get::<_, i64>("sequence")?, (row, attempts));
        }
    }
    held.found(all.into_iter());
    let mut messages = Vec::with_capacity(leases.len());
    for sequence in chosen {
        let Some((row, attempts)) = by_sequence.get(sequence) else {
            continue;
        };
        let lease: Uuid = row.try_get("lease")?;
        let message = read.remove(sequence);
        match message.unwrap_or_else(|| Err("the message is missing".into())) {
            Ok(mut message) => {
                let attempt = attempts.unsigned_abs();
                let last_error: Option<String> = row.try_get("last_error")?;
                message.entry.attempts = attempt;
                message.entry.last_error = last_error.map(decode);
                let attempt = NonZeroU32::new(attempt).unwrap_or(NonZeroU32::MIN);
                let lease = LeaseId::new(lease.as_u128());
                messages.push(LeasedMessage::new(lease, attempt, message));
            }
            Err(error) => {
                telemetry::message_unreadable(*sequence, &error);
                make_dead(session, lease, format!("unreadable: {error}")).await?;
            }
        }
    }
    Ok(messages)
}

/// A message, or why it cannot be read.
type ReadMessage = Result<StoredMessage, String>;

/// Reads as [`read`] does. If that takes too long, the next lease reads half as many bytes.
async fn read_in_time(
    shared: &Shared,
    session: &Session,
    chosen: &mut Vec<i64>,
    enough: usize,
) -> Result<HashMap<i64, ReadMessage>, Failure> {
    let read = read(session, chosen, enough).await;
    let bytes = match &read {
        Ok(_) => enough.saturating_mul(2).min(ENOUGH_BYTES),
        Err(failure) if failure.is_hang() || failure.is_statement_timeout() => (enough / 2).max(1),
        Err(_) => return read,
    };
    shared.lease_bytes.store(bytes, Ordering::Relaxed);
    read
}

/// Reads the chosen messages until they have enough bytes, and removes the others from `chosen`.
async fn read(
    session: &Session,
    chosen: &mut Vec<i64>,
    enough: usize,
) -> Result<HashMap<i64, ReadMessage>, Failure> {
    let mut read = match read_together(session, chosen, enough).await {
        Err(failure) if failure.is_data_error() => read_one_by_one(session, chosen, enough).await?,
        read => read?,
    };
    chosen.retain(|sequence| !matches!(read.get(sequence), Some(None)));
    Ok(read
        .drain()
        .filter_map(|(sequence, message)| Some((sequence, message?)))
        .collect())
}

/// Reads messages until they have enough bytes; the others are `None`.
async fn read_together(
    session: &Session,
    sequences: &[i64],
    enough: usize,
) -> Result<HashMap<i64, Option<ReadMessage>>, Failure> {
    let enough = i64::try_from(enough).unwrap_or(i64::MAX);
    let params: [Param<'_>; 2] = [(&sequences, Type::INT8_ARRAY), (&enough, Type::INT8)];
    let rows = session.query(MESSAGES, &params).await?;
    let messages = rows.iter().map(|row| {
        let is_read: bool = row.try_get("is_read")?;
        let message = is_read.then(|| rows::message(row).map_err(|error| error_chain(&error)));
        Ok((row.try_get("sequence")?, message))
    });
    messages.collect()
}

/// Reads messages of which some are damaged.
async fn read_one_by_one(
    session: &Session,
    sequences: &[i64],
    enough: usize,
) -> Result<HashMap<i64, Option<ReadMessage>>, Failure> {
    let mut read = HashMap::new();
    let mut bytes = 0;
    for sequence in sequences {
        if bytes >= enough {
            read.insert(*sequence, None);
            continue;
        }
        match read_together(session, &[*sequence], enough).await {
            Err(failure) if failure.is_data_error() => {
                read.insert(*sequence, Some(Err(failure.to_string())));
            }
            one => {
                let one = one?;
                let messages = one.values().flatten().flatten();
                bytes += messages.map(|message| message.body.len()).sum::<usize>();
                read.extend(one);
            }
        }
    }
    Ok(read)
}
