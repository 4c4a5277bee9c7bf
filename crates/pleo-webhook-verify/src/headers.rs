//! The three signature headers: how they are found in a request, and which values are valid.

use core::str;

use crate::{Header, InvalidId, VerifyError};

/// The values of the three signature headers, from one set: `webhook-…` or `svix-…`.
///
/// Only [`Self::from_pairs`] makes one, so values of both sets cannot be mixed, nor two of them
/// swapped:
///
/// ```compile_fail,E0451
/// # use pleo_webhook_verify::SignatureHeaders;
/// # let (webhook_id, svix_timestamp, svix_signature): (&[u8], &[u8], &[u8]) = (b"", b"", b"");
/// let mixed = SignatureHeaders {
///     id: Some(webhook_id),
///     timestamp: Some(svix_timestamp),
///     signature: Some(svix_signature),
/// };
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SignatureHeaders<'h> {
    id: Option<&'h [u8]>,
    timestamp: Option<&'h [u8]>,
    signature: Option<&'h [u8]>,
}

impl<'h> SignatureHeaders<'h> {
    const EMPTY: Self = Self {
        id: None,
        timestamp: None,
        signature: None,
    };

    /// Finds the three headers among all headers of a request. Order and case do not matter.
    ///
    /// `pairs` is anything that iterates over names and references to values: `&http::HeaderMap` of
    /// any version of `http`, a reference to a map, or an array.
    ///
    /// All three come from one set: `webhook-…` if it is complete, else `svix-…` if it is complete.
    /// If both are incomplete, the result is the set that has any header, `webhook-…` first, and
    /// [`Verifier`](crate::Verifier) reports which header is missing.
    ///
    /// ```
    /// use std::collections::HashMap;
    ///
    /// use pleo_webhook_verify::{Header, SignatureHeaders, VerifyError};
    ///
    /// let array = [("Webhook-Id", "msg_1"), ("Accept", "*/*"), ("Webhook-Timestamp", "1614265330")];
    /// let headers = SignatureHeaders::from_pairs(array)?;
    /// assert_eq!((headers.id(), headers.signature()), (Some(&b"msg_1"[..]), None));
    ///
    /// let map = HashMap::from([("svix-id".to_owned(), b"msg_1".to_vec())]);
    /// assert_eq!(SignatureHeaders::from_pairs(&map)?.id(), Some(&b"msg_1"[..]));
    ///
    /// let duplicated = [("webhook-id", "msg_1"), ("webhook-id", "msg_2")];
    /// let error = SignatureHeaders::from_pairs(duplicated).unwrap_err();
    /// assert_eq!(error, VerifyError::DuplicateHeader { header: Header::Id });
    /// # Ok::<(), VerifyError>(())
    /// ```
    ///
    /// # Errors
    /// [`VerifyError::DuplicateHeader`] if any of the six headers is duplicated.
    pub fn from_pairs<N, V>(
        pairs: impl IntoIterator<Item = (N, &'h V)>,
    ) -> Result<Self, VerifyError>
    where
        N: AsRef<str>,
        V: AsRef<[u8]> + ?Sized + 'h,
    {
        let (mut webhook, mut svix) = (Self::EMPTY, Self::EMPTY);
        for (name, value) in pairs {
            let name = name.as_ref();
            // `HeaderMap` and HTTP/2 have lower-case names, and `==` is faster.
            let is = |known: &str| name == known || name.eq_ignore_ascii_case(known);
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
            if field.replace(value.as_ref()).is_some() {
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

    /// Returns the value of `webhook-id` as received; `None` if it is missing. It is not authentic.
    #[must_use]
    pub const fn id(&self) -> Option<&'h [u8]> {
        self.id
    }

    /// Returns the value of `webhook-timestamp` as received; `None` if it is missing. It is not
    /// authentic.
    #[must_use]
    pub const fn timestamp(&self) -> Option<&'h [u8]> {
        self.timestamp
    }

    /// Returns the value of `webhook-signature` as received; `None` if it is missing.
    #[must_use]
    pub const fn signature(&self) -> Option<&'h [u8]> {
        self.signature
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

/// The longest id in bytes.
pub(crate) const MAX_ID_LEN: usize = 256;

/// Parses an id: 1 to 256 bytes of visible ASCII without a full stop.
///
/// Standard Webhooks, "Signature scheme": the signed content is the id, the timestamp and the
/// payload, joined by full stops. A full stop in the id would make the boundary ambiguous.
pub(crate) fn parse_id(bytes: &[u8]) -> Result<&str, InvalidId> {
    let is_valid = |byte: &u8| byte.is_ascii_graphic() && *byte != b'.';
    if !matches!(bytes.len(), 1..=MAX_ID_LEN) || !bytes.iter().all(is_valid) {
        return Err(InvalidId);
    }
    str::from_utf8(bytes).map_err(|_| InvalidId)
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
