//! What can be wrong with a delivery, and with a secret.

use core::fmt;

/// One of the three headers that carry a signature.
///
/// Displays without a prefix, since the set may be `webhook-…` or `svix-…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderName {
    /// `webhook-id`
    Id,
    /// `webhook-timestamp`
    Timestamp,
    /// `webhook-signature`
    Signature,
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Id => "id",
            Self::Timestamp => "timestamp",
            Self::Signature => "signature",
        })
    }
}

/// Why a delivery was refused: the first check that failed, in the order of the variants.
///
/// No variant ever holds the expected signature or anything of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyError {
    /// A header of the set stands twice, so that two readers could take different ones.
    DuplicateHeader {
        /// Which one.
        header: HeaderName,
    },
    /// A header of the set is absent, or the three come from different sets.
    MissingHeader {
        /// Which one; the first, in the order id, timestamp, signature.
        header: HeaderName,
    },
    /// The id isn't 1 to 256 bytes of visible ASCII without a full stop.
    InvalidId,
    /// The timestamp isn't a canonical decimal that fits a `u64`.
    InvalidTimestamp,
    /// The timestamp lies further in the past than the tolerance allows: a replay, a delivery
    /// held up on its way, or a clock here that runs ahead.
    TimestampTooOld {
        /// How far, in seconds.
        skew: u64,
        /// How far it may, in seconds.
        tolerance: u64,
    },
    /// The timestamp lies further in the future than the tolerance allows: usually the clock
    /// here is slow.
    TimestampTooNew {
        /// How far, in seconds.
        skew: u64,
        /// How far it may, in seconds.
        tolerance: u64,
    },
    /// No entry of the signature list begins with `v1,`.
    NoSupportedSignature {
        /// Whether there was a `v1a` (Ed25519) entry, which this crate doesn't check: the
        /// subscription signs with an asymmetric key then.
        v1a: bool,
    },
    /// No signature in the list was made over these bytes with any of the secrets.
    SignatureMismatch,
}

impl VerifyError {
    /// A stable name for logs and metrics: that of the variant in snake case.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::DuplicateHeader { .. } => "duplicate_header",
            Self::MissingHeader { .. } => "missing_header",
            Self::InvalidId => "invalid_id",
            Self::InvalidTimestamp => "invalid_timestamp",
            Self::TimestampTooOld { .. } => "timestamp_too_old",
            Self::TimestampTooNew { .. } => "timestamp_too_new",
            Self::NoSupportedSignature { .. } => "no_supported_signature",
            Self::SignatureMismatch => "signature_mismatch",
        }
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DuplicateHeader { header } => {
                write!(f, "the webhook {header} header stands more than once")
            }
            Self::MissingHeader { header } => write!(f, "the webhook {header} header is missing"),
            Self::InvalidId => f.write_str(
                "the webhook id is not 1 to 256 visible ASCII characters without a full stop",
            ),
            Self::InvalidTimestamp => {
                f.write_str("the webhook timestamp is not a plain decimal number of Unix seconds")
            }
            Self::TimestampTooOld { skew, tolerance } => write!(
                f,
                "the webhook timestamp is {skew} s in the past, more than the tolerance of {tolerance} s"
            ),
            Self::TimestampTooNew { skew, tolerance } => write!(
                f,
                "the webhook timestamp is {skew} s in the future, more than the tolerance of {tolerance} s"
            ),
            Self::NoSupportedSignature { v1a: false } => {
                f.write_str("the webhook signature header holds no `v1,` signature")
            }
            Self::NoSupportedSignature { v1a: true } => f.write_str(
                "the webhook signature header holds only `v1a` (Ed25519) signatures, which are not supported",
            ),
            Self::SignatureMismatch => {
                f.write_str("no signature matches the id, timestamp and body")
            }
        }
    }
}

impl core::error::Error for VerifyError {}

/// Why a text or a sequence of bytes is not a secret. Never holds any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretError {
    /// The text doesn't begin with `whsec_`.
    MissingPrefix,
    /// What follows `whsec_` isn't canonical, padded, standard base64.
    InvalidBase64,
    /// The key has fewer than [`Secret::MIN_LEN`](crate::Secret::MIN_LEN) bytes.
    TooShort {
        /// How many it has; 0 where the text after the prefix is empty.
        bytes: usize,
    },
    /// The key has more than [`Secret::MAX_LEN`](crate::Secret::MAX_LEN) bytes.
    TooLong,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingPrefix => f.write_str(
                "the secret does not begin with `whsec_`: copy it whole, without a version, quotes or spaces before it",
            ),
            Self::InvalidBase64 => f.write_str(
                "what follows `whsec_` in the secret is not standard base64 with its padding: copy it whole, without quotes, spaces or a line break after it",
            ),
            Self::TooShort { bytes } => write!(
                f,
                "the secret's key has {bytes} bytes, at least {} are needed: copy it whole",
                crate::Secret::MIN_LEN
            ),
            Self::TooLong => write!(
                f,
                "the secret's key has more than {} bytes: is this one secret?",
                crate::Secret::MAX_LEN
            ),
        }
    }
}

impl core::error::Error for SecretError {}

/// More than [`Verifier::MAX_SECRETS`](crate::Verifier::MAX_SECRETS) secrets in one verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManySecrets;

impl fmt::Display for TooManySecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a verifier takes at most {} secrets: drop those that were rotated out",
            crate::Verifier::MAX_SECRETS
        )
    }
}

impl core::error::Error for TooManySecrets {}
