//! Signing secrets, and what is wrong with a text that is not one.

use core::fmt;
use core::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use crate::mac::Key;

/// A signing secret: `whsec_` and the base64 of 24 to 75 bytes.
///
/// Standard Webhooks ("Signature scheme", "Secret format") requires 24 to 64 bytes. Pleo's sender
/// accepts up to 75, so this crate does too.
///
/// A secret never shows its bytes: [`Debug`](fmt::Debug) prints none, and no method returns the
/// key. It stores the prepared HMAC state instead of the text. That state is not wiped from memory
/// on drop.
///
/// ```
/// use pleo_webhook_verify::Secret;
///
/// let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?;
/// assert_eq!(format!("{secret:?}"), "Secret(..)");
/// # Ok::<(), pleo_webhook_verify::SecretError>(())
/// ```
///
/// It can be neither displayed nor serialized:
///
/// ```compile_fail,E0277
/// # use pleo_webhook_verify::Secret;
/// fn show(secret: &Secret) -> String {
///     format!("{secret}")
/// }
/// ```
///
/// ```compile_fail,E0277
/// # use pleo_webhook_verify::Secret;
/// #[derive(serde::Serialize)]
/// struct Config {
///     secret: Secret,
/// }
/// ```
#[derive(Clone)]
pub struct Secret {
    pub(crate) key: Key,
}

impl Secret {
    /// The shortest key in bytes.
    pub const MIN_LEN: usize = 24;
    /// The longest key in bytes.
    pub const MAX_LEN: usize = 75;

    /// Parses `whsec_…`, exactly as the sender shows it.
    ///
    /// # Errors
    /// Any text except `whsec_` and the canonical, padded, standard base64 of [`Self::MIN_LEN`] to
    /// [`Self::MAX_LEN`] bytes. The error says what to change.
    pub fn parse(text: &[u8]) -> Result<Self, SecretError> {
        let encoded = text
            .strip_prefix(b"whsec_")
            .filter(|encoded| !encoded.last().is_some_and(|byte| is_wrapper(*byte)))
            .ok_or_else(|| explain_prefix(text))?;
        if encoded.len() > Self::MAX_LEN.div_ceil(3) * 4 {
            return Err(SecretError::TooLong);
        }
        let mut key = [0; Self::MAX_LEN];
        let len = STANDARD
            .decode_slice(encoded, &mut key)
            .map_err(|_| explain_base64(encoded))?;
        Self::from_bytes(key.get(..len).unwrap_or_default())
    }

    /// Makes a secret from the bytes of its key.
    ///
    /// # Errors
    /// Fewer than [`Self::MIN_LEN`] or more than [`Self::MAX_LEN`] bytes.
    pub fn from_bytes(key: &[u8]) -> Result<Self, SecretError> {
        match key.len() {
            bytes @ 0..Self::MIN_LEN => Err(SecretError::TooShort { bytes }),
            Self::MIN_LEN..=Self::MAX_LEN => {
                let key = Key::new(key).ok_or(SecretError::TooLong)?;
                Ok(Self { key })
            }
            _ => Err(SecretError::TooLong),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl FromStr for Secret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        Self::parse(text.as_bytes())
    }
}

/// Why a text or a key is not a secret, and how to fix it. Contains no part of the text.
///
/// It is the first variant that applies, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The text is empty, usually because a variable is not set.
    #[error("the secret is empty; set it to the subscription's `whsec_…` secret")]
    Empty,
    /// The text begins or ends with white space or a line break.
    #[error("the secret begins or ends with white space; remove the white space")]
    Whitespace,
    /// The text is in quotes.
    #[error("the secret is in quotes; remove the quotes")]
    Quotes,
    /// The text begins with a version, as in `v1,whsec_…` and `v1a,whsec_…`.
    #[error("the secret begins with a version; remove everything before `whsec_`")]
    Version,
    /// The text is an Ed25519 private key, `whsk_…`, with or without a version.
    #[error(
        "the secret is an Ed25519 private key (`whsk_`), which a `Verifier` does not take; use the subscription's `whsec_…` secret"
    )]
    PrivateKey,
    /// The text is an Ed25519 public key, `whpk_…`, with or without a version. A `PublicKeyVerifier`
    /// (feature `v1a`) takes it.
    #[error(
        "the secret is an Ed25519 public key (`whpk_`), which a `Verifier` does not take; use the subscription's `whsec_…` secret"
    )]
    PublicKey,
    /// The text does not begin with `whsec_`, and no variant above applies.
    #[error("the secret does not begin with `whsec_`; copy the complete secret with its prefix")]
    MissingPrefix,
    /// The key is longer than [`Secret::MAX_LEN`].
    #[error(
        "the secret's key is longer than {} bytes; set one secret and nothing else",
        Secret::MAX_LEN
    )]
    TooLong,
    /// The key is in the URL-safe base64 alphabet, with `-` and `_`.
    #[error(
        "the secret is in URL-safe base64; after `whsec_`, replace `-` with `+` and `_` with `/`"
    )]
    UrlSafe,
    /// The base64 of the key lacks padding, or is cut off.
    #[error(
        "the secret is cut off or lacks `=` padding; copy the complete secret, or append `=` until the length after `whsec_` is a multiple of 4"
    )]
    Unpadded,
    /// The key is not canonical, padded, standard base64, and no variant above applies.
    #[error(
        "the secret is not standard base64 after `whsec_`; copy the complete secret and nothing else"
    )]
    InvalidBase64,
    /// The key is shorter than [`Secret::MIN_LEN`].
    #[error(
        "the secret's key has {bytes} bytes, fewer than {}; copy the complete secret",
        Secret::MIN_LEN
    )]
    TooShort {
        /// The key's length; 0 if the text ends after `whsec_`.
        bytes: usize,
    },
}

/// Finds out why a text has no `whsec_` prefix or ends with white space or a quote.
fn explain_prefix(text: &[u8]) -> SecretError {
    let ([first, ..], [.., last]) = (text, text) else {
        return SecretError::Empty;
    };
    let unversioned = strip_version(text);
    if first.is_ascii_whitespace() || last.is_ascii_whitespace() {
        SecretError::Whitespace
    } else if is_wrapper(*first) || is_wrapper(*last) {
        SecretError::Quotes
    } else if unversioned.starts_with(b"whsec_") {
        SecretError::Version
    } else if unversioned.starts_with(b"whsk_") {
        SecretError::PrivateKey
    } else if unversioned.starts_with(b"whpk_") {
        SecretError::PublicKey
    } else {
        SecretError::MissingPrefix
    }
}

/// Finds out why a text is not canonical, padded, standard base64.
///
/// The base64 library reports where it failed, but not which of these mistakes was made.
fn explain_base64(encoded: &[u8]) -> SecretError {
    let digits = match encoded {
        [digits @ .., b'=', b'='] | [digits @ .., b'='] => digits,
        digits => digits,
    };
    let all_in = |symbols: [u8; 2]| {
        let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || symbols.contains(byte);
        digits.iter().all(is_digit)
    };
    if all_in(*b"-_") && !all_in(*b"+/") {
        SecretError::UrlSafe
    } else if all_in(*b"+/") && encoded.len() % 4 > 1 && digits.len() % 4 > 1 {
        SecretError::Unpadded
    } else {
        SecretError::InvalidBase64
    }
}

/// Returns a text without the version before it, if there is one.
pub(crate) fn strip_version(text: &[u8]) -> &[u8] {
    let unversioned = text.strip_prefix(b"v1,");
    let unversioned = unversioned.or_else(|| text.strip_prefix(b"v1a,"));
    unversioned.unwrap_or(text)
}

/// White space and quotes, which often get copied along with a secret.
pub(crate) const fn is_wrapper(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'`')
}
