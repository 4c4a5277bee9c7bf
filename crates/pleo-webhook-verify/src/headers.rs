//! The three signature headers: how they are found in a request, and which values are valid.

use core::str;

use crate::{Header, VerifyError};

/// The values of the three signature headers as bytes; `None` if a header is missing.
///
/// [`Self::from_pairs`] finds them among all headers of a request, and `from_map` (feature `http`)
/// in an `http::HeaderMap`. If you fill in the fields yourself, take all three from one set
/// (`webhook-…` or `svix-…`) and reject a duplicated header.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'h> {
    /// The value of `webhook-id`.
    pub id: Option<&'h [u8]>,
    /// The value of `webhook-timestamp`.
    pub timestamp: Option<&'h [u8]>,
    /// The value of `webhook-signature`.
    pub signature: Option<&'h [u8]>,
}

impl<'h> Headers<'h> {
    /// Takes the values of all three headers.
    #[must_use]
    pub const fn new(id: &'h [u8], timestamp: &'h [u8], signature: &'h [u8]) -> Self {
        Self {
            id: Some(id),
            timestamp: Some(timestamp),
            signature: Some(signature),
        }
    }

    /// Finds the three headers among all headers of a request. Order and case do not matter.
    ///
    /// All three come from one set: `webhook-…` if it is complete, else `svix-…` if it is complete.
    /// If both are incomplete, the result is the set that has any header, `webhook-…` first, and
    /// [`Verifier`](crate::Verifier) reports which header is missing.
    ///
    /// ```
    /// use pleo_webhook_verify::{Header, Headers, VerifyError};
    ///
    /// let request = [("Webhook-Id", "msg_1"), ("Accept", "*/*"), ("Webhook-Timestamp", "1614265330")];
    /// let headers = Headers::from_pairs(request.map(|(name, value)| (name, value.as_bytes())))?;
    /// assert_eq!((headers.id, headers.signature), (Some(&b"msg_1"[..]), None));
    ///
    /// let duplicated = [("webhook-id", &b"msg_1"[..]), ("webhook-id", b"msg_2")];
    /// let error = Headers::from_pairs(duplicated).unwrap_err();
    /// assert_eq!(error, VerifyError::DuplicateHeader { header: Header::Id });
    /// # Ok::<(), VerifyError>(())
    /// ```
    ///
    /// # Errors
    /// [`VerifyError::DuplicateHeader`] if any of the six headers is duplicated.
    pub fn from_pairs<'n>(
        pairs: impl IntoIterator<Item = (&'n str, &'h [u8])>,
    ) -> Result<Self, VerifyError> {
        let (mut webhook, mut svix) = (Self::default(), Self::default());
        for (name, value) in pairs {
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            let (field, header) = if is("webhook-id") {
                (&mut webhook.id, Header::Id)
            } else if is("webhook-timestamp") {
                (&mut webhook.timestamp, Header::Timestamp)
            } else if is("webhook-signature") {
                (&mut webhook.signature, Header::Signature)
            } else if is("svix-id") {
                (&mut svix.id, Header::Id)
            } else if is("svix-timestamp") {
                (&mut svix.timestamp, Header::Timestamp)
            } else if is("svix-signature") {
                (&mut svix.signature, Header::Signature)
            } else {
                continue;
            };
            if field.replace(value).is_some() {
                return Err(VerifyError::DuplicateHeader { header });
            }
        }
        let is_complete = |set: &Self| set.require_all().is_ok();
        let has_any = |set: &Self| set.id.or(set.timestamp).or(set.signature).is_some();
        Ok(
            if is_complete(&webhook) || (has_any(&webhook) && !is_complete(&svix)) {
                webhook
            } else {
                svix
            },
        )
    }

    /// Finds the three headers in a header map, by the rules of [`Self::from_pairs`].
    ///
    /// # Errors
    /// [`VerifyError::DuplicateHeader`] if any of the six headers is duplicated.
    #[cfg(feature = "http")]
    pub fn from_map(map: &'h http::HeaderMap) -> Result<Self, VerifyError> {
        Self::from_pairs(
            map.iter()
                .map(|(name, value)| (name.as_str(), value.as_bytes())),
        )
    }

    /// Returns id, timestamp and signature list, or the first missing header.
    pub(crate) fn require_all(&self) -> Result<[&'h [u8]; 3], VerifyError> {
        let require =
            |value: Option<&'h [u8]>, header| value.ok_or(VerifyError::MissingHeader { header });
        Ok([
            require(self.id, Header::Id)?,
            require(self.timestamp, Header::Timestamp)?,
            require(self.signature, Header::Signature)?,
        ])
    }
}

/// Parses an id: 1 to 256 bytes of visible ASCII without a full stop.
///
/// Standard Webhooks, "Signature scheme": the signed content is the id, the timestamp and the
/// payload, joined by full stops. A full stop in the id would make the boundary ambiguous.
pub(crate) fn parse_id(bytes: &[u8]) -> Result<&str, VerifyError> {
    let is_valid = |byte: &u8| byte.is_ascii_graphic() && *byte != b'.';
    if !matches!(bytes.len(), 1..=256) || !bytes.iter().all(is_valid) {
        return Err(VerifyError::InvalidId);
    }
    str::from_utf8(bytes).map_err(|_| VerifyError::InvalidId)
}

/// Parses a timestamp: Unix seconds as a decimal that fits a `u64`, without sign, space or leading
/// zero, so that each time has exactly one spelling.
pub(crate) fn parse_timestamp(bytes: &[u8]) -> Result<u64, VerifyError> {
    // `u64::from_str` accepts a plus sign and leading zeros.
    if !matches!(bytes, [b'0'] | [b'1'..=b'9', ..]) {
        return Err(VerifyError::InvalidTimestamp);
    }
    str::from_utf8(bytes)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or(VerifyError::InvalidTimestamp)
}
