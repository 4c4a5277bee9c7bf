//! Copies messages of another inbox, with their state and history.

use std::time::SystemTime;

use tokio_postgres::types::Type;

use super::append::{durable, query_durably};
use super::error::Failure;
use super::rows;
use super::session::Session;
use super::text::encode;
use crate::inbox::message::{Entry, StoredMessage};

/// Stores messages whose keys are new, as they are in the other inbox. Their leases have ended. Commits
/// as an append does, also if all are stored already: the wait for a standby may have been cancelled.
const IMPORT: &str = concat!(
    "
    WITH lock AS MATERIALIZED (
        SELECT pg_advisory_xact_lock_shared(hashtextextended('inbox append', 0)),
               ",
    durable!(),
    ",
               pg_logical_emit_message(true, 'pleo_inbox', '')
    ),
    new AS MATERIALIZED (
        SELECT nextval('inbox.message_sequence') AS sequence, given.*
        FROM lock, unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
                          $7::inet[], $8::timestamptz[], $9::timestamptz[], $10::text[], $11::bytea[],
                          $12::text[], $13::integer[], $14::timestamptz[], $15::text[])
             WITH ORDINALITY
             AS given (endpoint, webhook_id, event_type, event_id, resource_id, origin, source,
                       received_at, expires_at, headers, body, state, attempts, due_at, last_error,
                       ordinal)
    ),
    stored AS (
        INSERT INTO inbox.message (sequence, endpoint, webhook_id, event_type, event_id, resource_id,
                                   origin, source, received_at, expires_at, headers, body)
        SELECT sequence, endpoint, webhook_id, event_type, event_id, resource_id,
               origin, source, received_at, expires_at, headers, body
        FROM new
        ON CONFLICT (webhook_id, endpoint) DO NOTHING
        RETURNING sequence
    ),
    past AS MATERIALIZED (
        SELECT new.sequence, row_number() OVER (PARTITION BY new.sequence ORDER BY ended.n)::integer AS n,
               ended.number, ended.worker, ended.started_at,
               ended.duration * interval '1 microsecond' AS duration, ended.result, ended.error
        FROM unnest($16::bigint[], $17::integer[], $18::text[], $19::timestamptz[], $20::bigint[],
                    $21::text[], $22::text[]) WITH ORDINALITY
             AS ended (ordinal, number, worker, started_at, duration, result, error, n)
        JOIN new USING (ordinal) JOIN stored USING (sequence)
    ),
    recorded AS (
        INSERT INTO inbox.attempt (sequence, n, number, worker, started_at, duration, result, error)
        SELECT * FROM past
    ),
    queued AS (
        INSERT INTO inbox.dispatch (sequence, endpoint, expires_at, state, attempts, ended, due_at,
                                    last_error)
        SELECT sequence, endpoint, coalesce(expires_at, 'infinity'), state, attempts,
               (SELECT count(*) FROM past WHERE past.sequence = new.sequence), due_at, last_error
        FROM new JOIN stored USING (sequence)
    )
    SELECT count(*), NULL, current_setting('fsync') FROM stored
"
);

/// Stores the messages. Returns how many were new.
pub(super) async fn import(session: &Session, messages: &[StoredMessage]) -> Result<u64, Failure> {
    let entries = || messages.iter().map(|message| &message.entry);
    let texts = |text: fn(&Entry) -> Option<&str>| -> Vec<Option<_>> {
        entries().map(|entry| text(entry).map(encode)).collect()
    };
    let endpoints = texts(|entry| Some(&entry.endpoint));
    let ids = texts(|entry| Some(&entry.webhook_id));
    let event_types = texts(|entry| entry.event_type.as_deref());
    let event_ids = texts(|entry| entry.event_id.as_deref());
    let resource_ids = texts(|entry| entry.resource_id.as_deref());
    let origins = texts(|entry| Some(entry.origin.as_str()));
    let states = texts(|entry| Some(entry.state.as_str()));
    let errors = texts(|entry| entry.last_error.as_deref());
    let times = |time: fn(&Entry) -> Option<jiff::Timestamp>| -> Vec<Option<SystemTime>> {
        entries().map(|entry| time(entry).map(rows::time)).collect()
    };
    let arrivals = times(|entry| Some(entry.received_at));
    let expiries = times(|entry| entry.expires_at);
    let due = times(|entry| entry.due_at);
    let sources: Vec<_> = entries().map(|entry| entry.source).collect();
    let attempts: Vec<_> = entries().map(|entry| to_i32(entry.attempts)).collect();
    let headers: Vec<_> = messages
        .iter()
        .map(|message| encode(message.headers.as_text()))
        .collect();
    let bodies: Vec<&[u8]> = messages.iter().map(|message| &*message.body).collect();

    let past = || {
        let messages = (1_i64..).zip(messages);
        messages
            .flat_map(|(ordinal, message)| message.attempts.iter().map(move |past| (ordinal, past)))
    };
    let ordinals: Vec<i64> = past().map(|(ordinal, _)| ordinal).collect();
    let numbers: Vec<_> = past().map(|(_, past)| to_i32(past.number.get())).collect();
    let workers: Vec<_> = past().map(|(_, past)| encode(&past.worker)).collect();
    let starts: Vec<_> = past()
        .map(|(_, past)| rows::time(past.started_at))
        .collect();
    let durations = past().map(|(_, past)| past.duration.map(rows::microseconds));
    let durations: Vec<Option<i64>> = durations.collect();
    let results: Vec<_> = past().map(|(_, past)| past.result.as_str()).collect();
    let causes: Vec<_> = past()
        .map(|(_, past)| past.error.as_deref().map(encode))
        .collect();
    let rows = query_durably(
        session,
        IMPORT,
        &[
            (&endpoints, Type::TEXT_ARRAY),
            (&ids, Type::TEXT_ARRAY),
            (&event_types, Type::TEXT_ARRAY),
            (&event_ids, Type::TEXT_ARRAY),
            (&resource_ids, Type::TEXT_ARRAY),
            (&origins, Type::TEXT_ARRAY),
            (&sources, Type::INET_ARRAY),
            (&arrivals, Type::TIMESTAMPTZ_ARRAY),
            (&expiries, Type::TIMESTAMPTZ_ARRAY),
            (&headers, Type::TEXT_ARRAY),
            (&bodies, Type::BYTEA_ARRAY),
            (&states, Type::TEXT_ARRAY),
            (&attempts, Type::INT4_ARRAY),
            (&due, Type::TIMESTAMPTZ_ARRAY),
            (&errors, Type::TEXT_ARRAY),
            (&ordinals, Type::INT8_ARRAY),
            (&numbers, Type::INT4_ARRAY),
            (&workers, Type::TEXT_ARRAY),
            (&starts, Type::TIMESTAMPTZ_ARRAY),
            (&durations, Type::INT8_ARRAY),
            (&results, Type::TEXT_ARRAY),
            (&causes, Type::TEXT_ARRAY),
        ],
    )
    .await?;
    let imported: i64 = rows.first().ok_or(Failure::Lost)?.try_get(0)?;
    Ok(imported.unsigned_abs())
}

fn to_i32(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
