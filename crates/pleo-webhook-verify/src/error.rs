//! Errors of a verification.

use core::fmt;
use core::time::Duration;

use thiserror::Error;

/// Why a delivery was rejected: the first check that failed, in the order of the variants.
///
/// No variant contains the expected signature or any part of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A signature header is duplicated. Two readers could use different values.
    #[error("the webhook {header} header is duplicated")]
    DuplicateHeader {
        /// The duplicated header.
        header: Header,
    },
    /// A signature header is missing, or the three have different prefixes.
    #[error("the webhook {header} header is missing")]
    MissingHeader {
        /// The first missing header, in the order id, timestamp, signature.
        header: Header,
    },
    /// The id is not 1 to 256 bytes of visible ASCII without a full stop.
    #[error("the webhook id is not 1 to 256 visible ASCII characters without a full stop")]
    InvalidId,
    /// The timestamp is not a canonical decimal that fits a `u64`.
    #[error("the webhook timestamp is not a plain decimal number of Unix seconds")]
    InvalidTimestamp,
    /// The timestamp is further in the past than the tolerance allows: the delivery is replayed or
    /// delayed, or the local clock is fast.
    #[error("the webhook timestamp is {} s in the past; the tolerance is {} s", .skew.as_secs(), .tolerance.as_secs())]
    TimestampTooOld {
        /// The time between the timestamp and now.
        skew: Duration,
        /// The verifier's tolerance.
        tolerance: Duration,
    },
    /// The timestamp is further in the future than the tolerance allows: usually the local clock
    /// is slow.
    #[error("the webhook timestamp is {} s in the future; the tolerance is {} s", .skew.as_secs(), .tolerance.as_secs())]
    TimestampTooNew {
        /// The time between now and the timestamp.
        skew: Duration,
        /// The verifier's tolerance.
        tolerance: Duration,
    },
    /// No entry of the signature list begins with `v1,`. Only [`Verifier`](crate::Verifier) returns it.
    #[error("the webhook signature header has no `v1` signature{}", only_v1a(.v1a))]
    NoSupportedSignature {
        /// `true` if the list has a `v1a` entry: the subscription signs with an Ed25519 key. A
        /// `PublicKeyVerifier` (feature `v1a`) verifies that with the public key.
        v1a: bool,
    },
    /// No entry of the signature list begins with `v1a,`. Only
    /// [`PublicKeyVerifier`](crate::PublicKeyVerifier) returns it.
    #[cfg(feature = "v1a")]
    #[error("the webhook signature header has no `v1a` signature{}", only_v1(.v1))]
    NoAsymmetricSignature {
        /// `true` if the list has a `v1` entry: the sender signs with a `whsec_…` secret, which a
        /// [`Verifier`](crate::Verifier) takes.
        v1: bool,
    },
    /// The `v1a` signatures times the keys are more than 24
    /// ([`PublicKeyVerifier::MAX_CHECKS`](crate::PublicKeyVerifier::MAX_CHECKS)). Only
    /// [`PublicKeyVerifier`](crate::PublicKeyVerifier) returns it.
    #[cfg(feature = "v1a")]
    #[error(
        "the webhook signature header has too many `v1a` signatures: signatures times public keys are more than {}; remove public keys that were rotated out",
        crate::PublicKeyVerifier::MAX_CHECKS
    )]
    TooManySignatures,
    /// No signature in the list matches the id, the timestamp and the body under any of the
    /// secrets or public keys.
    #[error("no signature matches the id, timestamp and body")]
    SignatureMismatch,
}

impl VerifyError {
    /// Returns a stable code for logs and metrics: the variant's name in snake case.
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
            #[cfg(feature = "v1a")]
            Self::NoAsymmetricSignature { .. } => "no_asymmetric_signature",
            #[cfg(feature = "v1a")]
            Self::TooManySignatures => "too_many_signatures",
            Self::SignatureMismatch => "signature_mismatch",
        }
    }
}

/// [`Secret::sign`](crate::Secret::sign) refuses an id that verifiers would reject: it is not 1 to 256
/// bytes of visible ASCII without a full stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the webhook id is not 1 to 256 visible ASCII characters without a full stop")]
#[non_exhaustive]
pub struct InvalidId;

/// One of the three signature headers.
///
/// The specification defines no others, so a `match` can be exhaustive. `Display` writes the name
/// without its prefix, which is `webhook-` or `svix-`.
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

const fn only_v1a(v1a: &bool) -> &'static str {
    if *v1a {
        ", only `v1a` (Ed25519), which a `Verifier` does not take; use a subscription with a `whsec_…` secret"
    } else {
        ""
    }
}

#[cfg(feature = "v1a")]
const fn only_v1(v1: &bool) -> &'static str {
    if *v1 {
        ", only `v1` (HMAC); use a `Verifier` with the sender's `whsec_…` secret"
    } else {
        ""
    }
}
