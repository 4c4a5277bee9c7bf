//! Errors as numbers: a code below 0, and more about it. `npm/verifier.mjs` has the same numbers.

use pleo_webhook_verify::{Header, SecretError, VerifyError};

/// A verifier needs a secret.
pub(crate) const NO_SECRET: i32 = -30;
/// A verifier cannot have so many secrets.
pub(crate) const TOO_MANY_SECRETS: i32 = -31;
/// A call needs another one before it. JavaScript never does so.
pub(crate) const WRONG_ORDER: i32 = -40;
/// An error that this module does not know.
const UNKNOWN: (i32, f64) = (-41, 0.0);

/// Returns the code of a delivery's error, and its detail: the header, or the skew in seconds.
pub(crate) fn of_delivery(error: VerifyError) -> (i32, f64) {
    match error {
        VerifyError::DuplicateHeader { header } => (-1, of_header(header)),
        VerifyError::MissingHeader { header } => (-2, of_header(header)),
        VerifyError::InvalidId => (-3, 0.0),
        VerifyError::InvalidTimestamp => (-4, 0.0),
        VerifyError::TimestampTooOld { skew, .. } => (-5, skew.as_secs() as f64),
        VerifyError::TimestampTooNew { skew, .. } => (-6, skew.as_secs() as f64),
        VerifyError::NoSupportedSignature { v1a } => (-7, f64::from(u8::from(v1a))),
        VerifyError::SignatureMismatch => (-8, 0.0),
        _ => UNKNOWN,
    }
}

/// Returns the code of a secret's error, and its detail: the length of the key.
pub(crate) fn of_secret(error: SecretError) -> (i32, f64) {
    match error {
        SecretError::Empty => (-11, 0.0),
        SecretError::Whitespace => (-12, 0.0),
        SecretError::Quotes => (-13, 0.0),
        SecretError::Version => (-14, 0.0),
        SecretError::PrivateKey => (-15, 0.0),
        SecretError::PublicKey => (-16, 0.0),
        SecretError::MissingPrefix => (-17, 0.0),
        SecretError::TooLong => (-18, 0.0),
        SecretError::UrlSafe => (-19, 0.0),
        SecretError::Unpadded => (-20, 0.0),
        SecretError::InvalidBase64 => (-21, 0.0),
        SecretError::TooShort { bytes } => (-22, bytes as f64),
        _ => UNKNOWN,
    }
}

fn of_header(header: Header) -> f64 {
    match header {
        Header::Id => 0.0,
        Header::Timestamp => 1.0,
        Header::Signature => 2.0,
    }
}
