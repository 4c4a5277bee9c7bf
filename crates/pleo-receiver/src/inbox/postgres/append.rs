//! The statements of appends.

use std::time::SystemTime;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::connect::check_fsync;
use super::error::Failure;
use super::rows;
use super::session::{Param, Session};
use super::text::encode;
use crate::inbox::error::InboxError;
use crate::inbox::message::{Appended, Entry, NewMessage, StoredHeaders};

/// How often messages whose row is pruned between two statements are appended again.
const MAX_ROUNDS: u32 = 3;

/// Lets the commit wait for the disk, whatever the session or another client of a pooler has set.
macro_rules! durable {
    () => {
        "set_config('synchronous_commit',
                    CASE current_setting('synchronous_commit')
                         WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END,
                    true)"
    };
}
pub(super) use durable;

/// Stores new messages. The shared lock lets `list` wait until all lower sequences are committed.
const APPEND: &str = concat!(
    "
    WITH lock AS MATERIALIZED (
        SELECT pg_advisory_xact_lock_shared(hashtextextended('inbox append', 0)),
               ",
    durable!(),
    ",
               date_trunc('milliseconds', inbox.clock()) AS received_at
    ),
    stored AS (
        INSERT INTO inbox.message (sequence, endpoint, webhook_id, event_type, event_id, resource_id,
                                   origin, source, expires_at, headers, body, received_at)
        SELECT nextval('inbox.message_sequence'), given.*, received_at
        FROM lock, unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
                          $7::inet[], $8::timestamptz[], $9::text[], $10::bytea[]) AS given
        ON CONFLICT (webhook_id, endpoint) DO NOTHING
        RETURNING sequence, webhook_id, endpoint, expires_at
    ),
    queued AS (
        INSERT INTO inbox.dispatch (sequence, endpoint, expires_at)
        SELECT sequence, endpoint, coalesce(expires_at, 'infinity') FROM stored
    )
    SELECT array_agg(webhook_id), array_agg(endpoint), current_setting('fsync') FROM stored
"
);

/// Compares messages with those that are stored under their keys. Commits as an append does: the wait
/// for a standby that a stored message needed may have been cancelled, and this one waits again.
const COMPARE: &str = concat!(
    "
    WITH durable AS MATERIALIZED (
        SELECT ",
    durable!(),
    ",
               pg_logical_emit_message(true, 'pleo_inbox', '')
    )
    SELECT given.ordinal, message.body = given.body, current_setting('fsync')
    FROM durable, unnest($1::text[], $2::text[], $3::bytea[]) WITH ORDINALITY
         AS given (endpoint, webhook_id, body, ordinal)
    JOIN inbox.message USING (webhook_id, endpoint)
"
);

/// A message to append. Parsed before it is queued, on the caller's thread.
pub(super) struct Append {
    entry: Entry,
    headers: StoredHeaders,
    body: Bytes,
    /// The message's part of the queue's bytes.
    pub(super) size: usize,
    /// The caller's runtime; `None` outside of one.
    pub(super) runtime: Option<Handle>,
    pub(super) reply: oneshot::Sender<Result<Appended, InboxError>>,
}

impl Append {
    pub(super) fn new(
        message: NewMessage,
        size: usize,
        reply: oneshot::Sender<Result<Appended, InboxError>>,
    ) -> Self {
        Self {
            // The server chooses the sequence and the time of arrival.
            entry: Entry::new(0, Timestamp::UNIX_EPOCH, &message),
            headers: message.headers,
            body: message.body,
            size,
            runtime: Handle::try_current().ok(),
            reply,
        }
    }

    /// Returns the message id and the endpoint.
    pub(super) fn key(&self) -> (&str, &str) {
        (&self.entry.webhook_id, &self.entry.endpoint)
    }
}

/// Stores the messages, sorted by key, and returns their results after the commit.
pub(super) async fn append(session: &Session, batch: &[Append]) -> Result<Vec<Appended>, Failure> {
    let mut results = vec![None; batch.len()];
    for _ in 0..MAX_ROUNDS {
        let missing: Vec<usize> = (0..batch.len()).filter(|n| results[*n].is_none()).collect();
        if missing.is_empty() {
            break;
        }
        // Of equal keys, only the first is inserted: the server would not say which of them it stored.
        let (mut new, mut known) = (Vec::<usize>::new(), Vec::new());
        for n in missing {
            match new.last() {
                Some(last) if batch[*last].key() == batch[n].key() => known.push(n),
                _ => new.push(n),
            }
        }
        let stored = insert(session, new.iter().map(|n| &batch[*n])).await?;
        for (n, is_stored) in new.into_iter().zip(stored) {
            if is_stored {
                results[n] = Some(Appended::Stored);
            } else {
                known.push(n);
            }
        }
        if !known.is_empty() {
            let compared = compare(session, known.iter().map(|n| &batch[*n])).await?;
            for (ordinal, is_same) in compared {
                let result = if is_same {
                    Appended::Duplicate
                } else {
                    Appended::Conflict
                };
                if let Some(n) = known.get(ordinal) {
                    results[*n] = Some(result);
                }
            }
        }
    }
    let results = results.into_iter().collect::<Option<Vec<_>>>();
    results.ok_or_else(|| Failure::Server {
        code: tokio_postgres::error::SqlState::T_R_SERIALIZATION_FAILURE,
        message: "messages are deleted while they are appended".into(),
    })
}

/// Executes a statement whose rows end with the setting `fsync`. What it reads or stores is durable, on a
/// synchronous standby too.
pub(super) async fn query_durably(
    session: &Session,
    sql: &'static str,
    params: &[Param<'_>],
) -> Result<Vec<Row>, Failure> {
    let unreplicated = session.unreplicated();
    let rows = session.query(sql, params).await?;
    if session.unreplicated() != unreplicated {
        return Err(Failure::NotReplicated);
    }
    if let Some(row) = rows.first() {
        check_fsync(row.try_get(2)?)?;
    }
    Ok(rows)
}

/// Inserts messages with different keys, those whose keys are new. Returns for each whether it was.
async fn insert<'a>(
    session: &Session,
    batch: impl Iterator<Item = &'a Append> + Clone,
) -> Result<Vec<bool>, Failure> {
    let texts = |text: fn(&Entry) -> Option<&str>| -> Vec<Option<_>> {
        let entries = batch.clone().map(|append| &append.entry);
        entries.map(|entry| text(entry).map(encode)).collect()
    };
    let entries = batch.clone().map(|append| &append.entry);
    let endpoints: Vec<_> = entries
        .clone()
        .map(|entry| encode(&entry.endpoint))
        .collect();
    let ids: Vec<_> = entries
        .clone()
        .map(|entry| encode(&entry.webhook_id))
        .collect();
    let event_types = texts(|entry| entry.event_type.as_deref());
    let event_ids = texts(|entry| entry.event_id.as_deref());
    let resource_ids = texts(|entry| entry.resource_id.as_deref());
    let origins = texts(|entry| Some(entry.origin.as_str()));
    let sources: Vec<_> = entries.clone().map(|entry| entry.source).collect();
    let expiries = entries.map(|entry| entry.expires_at.map(rows::time));
    let expiries: Vec<Option<SystemTime>> = expiries.collect();
    let headers = batch.clone().map(|append| encode(append.headers.as_text()));
    let headers: Vec<_> = headers.collect();
    let bodies: Vec<&[u8]> = batch.clone().map(|append| &*append.body).collect();
    let rows = query_durably(
        session,
        APPEND,
        &[
            (&endpoints, Type::TEXT_ARRAY),
            (&ids, Type::TEXT_ARRAY),
            (&event_types, Type::TEXT_ARRAY),
            (&event_ids, Type::TEXT_ARRAY),
            (&resource_ids, Type::TEXT_ARRAY),
            (&origins, Type::TEXT_ARRAY),
            (&sources, Type::INET_ARRAY),
            (&expiries, Type::TIMESTAMPTZ_ARRAY),
            (&headers, Type::TEXT_ARRAY),
            (&bodies, Type::BYTEA_ARRAY),
        ],
    )
    .await?;
    let row = rows.first().ok_or(Failure::Lost)?;
    let stored_ids: Option<Vec<&str>> = row.try_get(0)?;
    let stored_endpoints: Option<Vec<&str>> = row.try_get(1)?;
    // In the order of the batch, whose keys differ.
    let stored = stored_ids.unwrap_or_default().into_iter();
    let mut stored = stored.zip(stored_endpoints.unwrap_or_default()).peekable();
    let keys = ids.iter().zip(&endpoints);
    Ok(keys
        .map(|(id, endpoint)| {
            let is_stored = |(stored_id, stored_endpoint): &(&str, &str)| {
                id == stored_id && endpoint == stored_endpoint
            };
            stored.next_if(is_stored).is_some()
        })
        .collect())
}

/// Compares the bodies with those of the stored messages: the ordinal in the batch, and whether they are
/// equal.
async fn compare<'a>(
    session: &Session,
    batch: impl Iterator<Item = &'a Append> + Clone,
) -> Result<Vec<(usize, bool)>, Failure> {
    let endpoints: Vec<_> = (batch.clone())
        .map(|append| encode(&append.entry.endpoint))
        .collect();
    let ids: Vec<_> = (batch.clone())
        .map(|append| encode(&append.entry.webhook_id))
        .collect();
    let bodies: Vec<&[u8]> = batch.map(|append| &*append.body).collect();
    let rows = query_durably(
        session,
        COMPARE,
        &[
            (&endpoints, Type::TEXT_ARRAY),
            (&ids, Type::TEXT_ARRAY),
            (&bodies, Type::BYTEA_ARRAY),
        ],
    )
    .await?;
    let compared = rows.iter().map(|row| {
        let ordinal = usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or_default();
        Ok((ordinal.saturating_sub(1), row.try_get(1)?))
    });
    compared.collect()
}
