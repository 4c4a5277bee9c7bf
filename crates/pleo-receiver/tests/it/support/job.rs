//! The body of an export job.

use bytes::Bytes;
use jiff::{Timestamp, ToSpan};

/// The body of one that expires then.
pub(crate) fn job(expires_at: Timestamp) -> Bytes {
    let created_at = expires_at - 1.hour();
    let data = format!(r#"{{"id":"resource","createdAt":"{created_at}","expiresIn":3600}}"#);
    format!(r#"{{"eventType":"type","eventId":"event","data":{data}}}"#).into()
}
