//! Rows as the types of the contract.

use core::time::Duration;
use std::net::IpAddr;
use std::time::SystemTime;

use jiff::Timestamp;
use tokio_postgres::Row;

use super::text::decode;
use crate::inbox::attempt::{Attempt, AttemptResult};
use crate::inbox::message::{
    Entry, Origin, State, StoredHeaders, StoredMessage, ceil_millisecond, from_millisecond,
};

/// The columns of [`entry`], of the tables `message` and `dispatch`.
pub(super) const ENTRY: &str = "
    message.sequence, message.endpoint, message.webhook_id, message.event_type, message.event_id,
    message.resource_id, message.origin, message.source, message.received_at, message.expires_at,
    coalesce(octet_length(message.body), 0)::bigint AS body_len,
    dispatch.state, dispatch.lease IS NOT NULL AS leased, dispatch.attempts, dispatch.due_at,
    dispatch.last_error
";

/// The longest delay that is stored, so that every time is one of PostgreSQL's: 200 years.
const MAX_DELAY: Duration = Duration::from_secs(200 * 366 * 24 * 3600);

pub(super) type Result<T> = core::result::Result<T, tokio_postgres::Error>;

pub(super) fn entry(row: &Row) -> Result<Entry> {
    let text = |column| -> Result<Option<String>> {
        Ok(row.try_get::<_, Option<String>>(column)?.map(decode))
    };
    let time = |column| row.try_get::<_, Option<SystemTime>>(column);
    let due_at = time("due_at")?.map(exact);
    Ok(Entry {
        sequence: row.try_get("sequence")?,
        endpoint: text("endpoint")?.unwrap_or_default().into(),
        webhook_id: text("webhook_id")?.unwrap_or_default().into(),
        event_type: text("event_type")?,
        event_id: text("event_id")?,
        resource_id: text("resource_id")?,
        // The schema allows these two.
        origin: match row.try_get("origin")? {
            "catch-up" => Origin::CatchUp,
            _ => Origin::Webhook,
        },
        source: row.try_get::<_, Option<IpAddr>>("source")?,
        // The schema allows these three.
        state: match row.try_get("state")? {
            "done" => State::Done,
            "dead" => State::Dead,
            _ => State::Pending,
        },
        leased: row.try_get("leased")?,
        attempts: row.try_get::<_, i32>("attempts")?.unsigned_abs(),
        received_at: millisecond(row.try_get("received_at")?),
        expires_at: time("expires_at")?.map(millisecond),
        due_at: due_at.map(|at| from_millisecond(ceil_millisecond(at))),
        last_error: text("last_error")?,
        body_len: row.try_get::<_, i64>("body_len")?.unsigned_abs(),
    })
}

/// Returns a message without its attempts, from the columns of [`entry`], `headers` and `body`.
pub(super) fn message(row: &Row) -> Result<StoredMessage> {
    let headers = decode(row.try_get("headers")?);
    let body: Vec<u8> = row.try_get("body")?;
    Ok(StoredMessage::new(
        entry(row)?,
        StoredHeaders::from_text(headers),
        body.into(),
    ))
}

/// Returns an attempt, whose `duration` is in microseconds: less than zero if the server's clock was set
/// back meanwhile.
pub(super) fn attempt(row: &Row) -> Result<Attempt> {
    let number: i32 = row.try_get("number")?;
    let duration: Option<i64> = row.try_get("duration")?;
    let error: Option<String> = row.try_get("error")?;
    let result = match row.try_get("result")? {
        "done" => AttemptResult::Done,
        "retry" => AttemptResult::Retry,
        "dead" => AttemptResult::Dead,
        "released" => AttemptResult::Released,
        _ => AttemptResult::Lost,
    };
    Ok(Attempt::new(
        number
            .unsigned_abs()
            .try_into()
            .unwrap_or(core::num::NonZeroU32::MIN),
        decode(row.try_get("worker")?),
        millisecond(row.try_get("started_at")?),
        duration.map(|duration| Duration::from_micros(duration.max(0).unsigned_abs())),
        result,
        error.map(decode),
    ))
}

/// Converts a time without rounding; one that [`Timestamp`] does not have is the latest.
pub(super) fn exact(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX)
}

pub(super) fn millisecond(time: SystemTime) -> Timestamp {
    from_millisecond(exact(time).as_millisecond())
}

/// Converts a time; one before the year 1 is that year, since PostgreSQL's begin later than ours.
pub(super) fn time(at: Timestamp) -> SystemTime {
    let earliest = Timestamp::constant(-62_135_596_800, 0);
    let since_epoch = at.max(earliest).duration_since(Timestamp::UNIX_EPOCH);
    if since_epoch.is_negative() {
        SystemTime::UNIX_EPOCH - since_epoch.unsigned_abs()
    } else {
        SystemTime::UNIX_EPOCH + since_epoch.unsigned_abs()
    }
}

/// Converts a time to compare with times in milliseconds, as `<` and `>=` do.
pub(super) fn bound(at: Timestamp) -> SystemTime {
    time(from_millisecond(ceil_millisecond(at)))
}

/// Converts a delay to microseconds, rounded up.
pub(super) fn microseconds(delay: Duration) -> i64 {
    let microseconds = delay.min(MAX_DELAY).as_nanos().div_ceil(1000);
    i64::try_from(microseconds).unwrap_or(i64::MAX)
}
