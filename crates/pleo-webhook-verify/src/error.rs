//! What can be wrong with a delivery, and with a secret.

use core::fmt;

/// One of the three headers that carry a signature.
///
/// Displays without a prefix, since the set may be `webhook-…` or `svix-…`. The specification has
/// these three and no more, so that a `match` may be complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Header {
    /// `webhook-id`
    Id,
    /// `webhook-timestamp`
    Timestamp,
    /// `webhook-signature`
    Signature,
}

impl fmt::Display for Header {
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
        header: Header,
    },
    /// A header of the set is absent, or the three come from different sets.
    MissingHeader {
        /// Which one; the first, in the order id, timestamp, signature.
        header: Header,
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

/// Why a text or a sequence of bytes is not a secret, and what to do about it. Never holds any of it.
///
/// The first that applies, in the order of the variants. Each displays with its repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretError {
    /// There is no text at all: usually a variable that isn't set.
    Empty,
    /// White space or a line break stands around it.
    Whitespace,
    /// It stands in quotes.
    Quotes,
    /// A version stands before it, as in `v1,whsec_…`.
    Version,
    /// It is a private key for Ed25519, `whsk_…`.
    PrivateKey,
    /// It is a public key for Ed25519, `whpk_…`.
    PublicKey,
    /// It doesn't begin with `whsec_`, for none of the reasons above.
    MissingPrefix,
    /// The key has more than [`Secret::MAX_LEN`](crate::Secret::MAX_LEN) bytes.
    TooLong,
    /// What follows `whsec_` is base64 in the alphabet for URLs, with `-` and `_`.
    UrlSafe,
    /// What follows `whsec_` is base64 without all of its padding, or was cut off.
    Unpadded,
    /// What follows `whsec_` isn't canonical, padded, standard base64, for none of the reasons
    /// above.
    InvalidBase64,
    /// The key has fewer than [`Secret::MIN_LEN`](crate::Secret::MIN_LEN) bytes.
    TooShort {
        /// How many it has; 0 where nothing follows `whsec_`.
        bytes: usize,
    },
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (min, max) = (crate::Secret::MIN_LEN, crate::Secret::MAX_LEN);
        f.write_str(match self {
            Self::Empty => "the secret is empty: set it to the subscription's `whsec_…`",
            Self::Whitespace => {
                "the secret has white space or a line break around it: remove that"
            }
            Self::Quotes => "the secret is in quotes: remove them",
            Self::Version => {
                "the secret has a version before it: remove what stands before `whsec_`"
            }
            Self::PrivateKey => {
                "this is a private key for Ed25519 (`whsk_`), which is not supported: give the subscription's `whsec_…`"
            }
            Self::PublicKey => {
                "this is a public key for Ed25519 (`whpk_`), which is not supported: give the subscription's `whsec_…`"
            }
            Self::MissingPrefix => {
                "the secret does not begin with `whsec_`: copy it whole, with its prefix"
            }
            Self::TooLong => {
                return write!(
                    f,
                    "the secret's key has more than {max} bytes: give one secret and nothing else"
                );
            }
            Self::UrlSafe => {
                "the secret is in URL-safe base64: write `+` for each `-`, and `/` for each `_` after `whsec_`"
            }
            Self::Unpadded => {
                "the secret's base64 lacks `=` at its end, or more: copy it whole, or append `=` up to a multiple of four characters after `whsec_`"
            }
            Self::InvalidBase64 => {
                "what follows `whsec_` in the secret is not standard base64: copy it whole, and nothing else"
            }
            Self::TooShort { bytes } => {
                return write!(
                    f,
                    "the secret's key has {bytes} bytes, at least {min} are needed: copy it whole"
                );
            }
        })
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
