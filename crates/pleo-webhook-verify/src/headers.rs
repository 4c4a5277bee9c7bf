//! The three headers, as they came.

use crate::{HeaderName, VerifyError};

/// The values of the three signature headers, as bytes; `None` where one is absent.
///
/// With the `http` feature, `Headers::from_map` takes them from an `http::HeaderMap`. Whoever
/// fills this by hand takes all three from one set (`webhook-…` or `svix-…`), and refuses a header
/// that stands twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'h> {
    /// `webhook-id`
    pub id: Option<&'h [u8]>,
    /// `webhook-timestamp`
    pub timestamp: Option<&'h [u8]>,
    /// `webhook-signature`
    pub signature: Option<&'h [u8]>,
}

impl<'h> Headers<'h> {
    /// The headers where all three are there.
    #[must_use]
    pub const fn new(id: &'h [u8], timestamp: &'h [u8], signature: &'h [u8]) -> Self {
        Self {
            id: Some(id),
            timestamp: Some(timestamp),
            signature: Some(signature),
        }
    }

    /// Takes the three headers from one set: `webhook-…` where that is whole, else `svix-…` where
    /// that is whole. They are never mixed. Where neither is whole, the set that has any header
    /// is returned as it is, for [`Verifier`](crate::Verifier) to name what is missing.
    ///
    /// # Errors
    /// [`VerifyError::DuplicateHeader`] where any of the six headers stands more than once.
    #[cfg(feature = "http")]
    pub fn from_map(map: &'h http::HeaderMap) -> Result<Self, VerifyError> {
        let set = |[id, timestamp, signature]: [&str; 3]| {
            Ok(Self {
                id: single(map, id, HeaderName::Id)?,
                timestamp: single(map, timestamp, HeaderName::Timestamp)?,
                signature: single(map, signature, HeaderName::Signature)?,
            })
        };
        let webhook = set(["webhook-id", "webhook-timestamp", "webhook-signature"])?;
        let svix = set(["svix-id", "svix-timestamp", "svix-signature"])?;
        Ok(
            if webhook.is_whole() || (webhook.any() && !svix.is_whole()) {
                webhook
            } else {
                svix
            },
        )
    }

    pub(crate) fn require(&self) -> Result<[&'h [u8]; 3], VerifyError> {
        let require =
            |value: Option<&'h [u8]>, header| value.ok_or(VerifyError::MissingHeader { header });
        Ok([
            require(self.id, HeaderName::Id)?,
            require(self.timestamp, HeaderName::Timestamp)?,
            require(self.signature, HeaderName::Signature)?,
        ])
    }

    #[cfg(feature = "http")]
    const fn is_whole(&self) -> bool {
        self.id.is_some() && self.timestamp.is_some() && self.signature.is_some()
    }

    #[cfg(feature = "http")]
    const fn any(&self) -> bool {
        self.id.is_some() || self.timestamp.is_some() || self.signature.is_some()
    }
}

#[cfg(feature = "http")]
fn single<'h>(
    map: &'h http::HeaderMap,
    name: &str,
    header: HeaderName,
) -> Result<Option<&'h [u8]>, VerifyError> {
    let mut values = map.get_all(name).iter();
    let value = values.next().map(http::HeaderValue::as_bytes);
    match values.next() {
        None => Ok(value),
        Some(_) => Err(VerifyError::DuplicateHeader { header }),
    }
}

/// Reads an id: 1 to 256 bytes of visible ASCII, no full stop.
///
/// Standard Webhooks, "Signature scheme": the signed content is the id, the timestamp and the
/// payload joined by full stops; an id with a full stop would let the boundary between the fields
/// move.
pub(crate) fn parse_id(bytes: &[u8]) -> Result<&str, VerifyError> {
    let valid = matches!(bytes.len(), 1..=256)
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_graphic() && *byte != b'.');
    match core::str::from_utf8(bytes) {
        Ok(id) if valid => Ok(id),
        _ => Err(VerifyError::InvalidId),
    }
}

/// Reads a timestamp: Unix seconds as a decimal that fits a `u64`, without sign, space or leading
/// zero, so that each moment has one spelling.
pub(crate) fn parse_timestamp(bytes: &[u8]) -> Result<u64, VerifyError> {
    if let [] | [b'0', _, ..] = bytes {
        return Err(VerifyError::InvalidTimestamp);
    }
    bytes
        .iter()
        .try_fold(0_u64, |seconds, byte| {
            let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
            seconds.checked_mul(10)?.checked_add(u64::from(digit))
        })
        .ok_or(VerifyError::InvalidTimestamp)
}
