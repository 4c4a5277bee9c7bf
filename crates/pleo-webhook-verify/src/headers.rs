//! The three headers, as they came.

use crate::{Header, VerifyError};

/// The values of the three signature headers, as bytes; `None` where one is absent.
///
/// [`Self::from_pairs`] finds them among all headers of a request, and `from_map` (feature `http`)
/// in an `http::HeaderMap`. Whoever fills this by hand takes all three from one set (`webhook-…` or
/// `svix-…`), and refuses a header that stands twice.
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

    /// Finds the three headers among all headers of a request, in any order; names in any case.
    ///
    /// They are taken from one set: `webhook-…` where that is whole, else `svix-…` where that is
    /// whole. They are never mixed. Where neither is whole, the set that has any header is returned
    /// as it is, `webhook-…` first, for [`Verifier`](crate::Verifier) to name what is missing.
    ///
    /// ```
    /// use pleo_webhook_verify::{Header, Headers, VerifyError};
    ///
    /// let request = [("Webhook-Id", "msg_1"), ("Accept", "*/*"), ("Webhook-Timestamp", "1614265330")];
    /// let headers = Headers::from_pairs(request.map(|(name, value)| (name, value.as_bytes())))?;
    /// assert_eq!((headers.id, headers.signature), (Some(&b"msg_1"[..]), None));
    ///
    /// let twice = [("webhook-id", &b"msg_1"[..]), ("webhook-id", b"msg_2")];
    /// let error = Headers::from_pairs(twice).unwrap_err();
    /// assert_eq!(error, VerifyError::DuplicateHeader { header: Header::Id });
    /// # Ok::<(), VerifyError>(())
    /// ```
    ///
    /// # Errors
    /// [`VerifyError::DuplicateHeader`] where any of the six headers stands more than once.
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
        let whole = |set: &Self| set.require().is_ok();
        let any = |set: &Self| set.id.or(set.timestamp).or(set.signature).is_some();
        Ok(if whole(&webhook) || (any(&webhook) && !whole(&svix)) {
            webhook
        } else {
            svix
        })
    }

    /// Finds the three headers in a header map, by the rules of [`Self::from_pairs`].
    ///
    /// # Errors
    /// [`VerifyError::DuplicateHeader`] where any of the six headers stands more than once.
    #[cfg(feature = "http")]
    pub fn from_map(map: &'h http::HeaderMap) -> Result<Self, VerifyError> {
        Self::from_pairs(
            map.iter()
                .map(|(name, value)| (name.as_str(), value.as_bytes())),
        )
    }

    pub(crate) fn require(&self) -> Result<[&'h [u8]; 3], VerifyError> {
        let require =
            |value: Option<&'h [u8]>, header| value.ok_or(VerifyError::MissingHeader { header });
        Ok([
            require(self.id, Header::Id)?,
            require(self.timestamp, Header::Timestamp)?,
            require(self.signature, Header::Signature)?,
        ])
    }
}

/// The most digits that a timestamp may have: those of the greatest `u64`.
pub(crate) const MAX_TIMESTAMP_LEN: usize = 20;

/// Checks an id: 1 to 256 bytes of visible ASCII, no full stop.
///
/// Standard Webhooks, "Signature scheme": the signed content is the id, the timestamp and the
/// payload joined by full stops; an id with a full stop would let the boundary between the fields
/// move.
pub(crate) fn check_id(bytes: &[u8]) -> Result<(), VerifyError> {
    if !matches!(bytes.len(), 1..=256) {
        return Err(VerifyError::InvalidId);
    }
    // Without an early exit, so that the compiler looks at many bytes at once.
    let visible = bytes.iter().fold(true, |visible, byte| {
        visible & byte.is_ascii_graphic() & (*byte != b'.')
    });
    visible.then_some(()).ok_or(VerifyError::InvalidId)
}

/// Reads a timestamp: Unix seconds as a decimal that fits a `u64`, without sign, space or leading
/// zero, so that each moment has one spelling.
pub(crate) fn parse_timestamp(bytes: &[u8]) -> Result<u64, VerifyError> {
    let fits = match bytes.len() {
        ..MAX_TIMESTAMP_LEN => true,
        // Texts of one length are in the order of their numbers.
        MAX_TIMESTAMP_LEN => bytes <= &b"18446744073709551615"[..],
        _ => false,
    };
    if !fits || matches!(bytes, [] | [b'0', _, ..]) {
        return Err(VerifyError::InvalidTimestamp);
    }
    bytes
        .iter()
        .try_fold(0_u64, |seconds, byte| {
            let digit = byte.wrapping_sub(b'0');
            (digit <= 9).then(|| seconds.wrapping_mul(10).wrapping_add(digit.into()))
        })
        .ok_or(VerifyError::InvalidTimestamp)
}
