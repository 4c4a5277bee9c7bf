//! Public keys of senders, and what is wrong with a text that is not one.

use core::fmt;
use core::str::FromStr;

use base64::Engine as _;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use super::ed25519::{KEY_LEN, Key};
use crate::secret::{is_wrapper, strip_version};

/// Characters of the base64 of a key.
const ENCODED_LEN: usize = 44;

/// A sender's Ed25519 public key: `whpk_` and the base64 of 32 bytes.
///
/// Standard Webhooks, "Signature scheme", calls it the serialized public key. Get it from the sender's
/// settings or documentation, not from a request: a forger who chooses the key can sign.
///
/// It is not secret. It can be displayed and compared:
///
/// ```
/// use pleo_webhook_verify::PublicKey;
///
/// let key: PublicKey = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=".parse()?;
/// assert_eq!(key.to_string(), "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=");
/// # Ok::<(), pleo_webhook_verify::PublicKeyError>(())
/// ```
///
/// A [`Verifier`](crate::Verifier) does not take one. With a public key as the secret of HMAC, anybody
/// could sign:
///
/// ```compile_fail,E0308
/// # use pleo_webhook_verify::{PublicKey, Verifier};
/// # fn confuse(key: PublicKey) -> Verifier {
/// Verifier::new(key)
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    pub(super) key: Key,
}

impl PublicKey {
    /// Parses `whpk_…`, exactly as the sender shows it.
    ///
    /// # Errors
    /// Any text except `whpk_` and the canonical, padded, standard base64 of 32 bytes that
    /// [`Self::from_bytes`] accepts. The error says what to change.
    pub fn parse(text: &[u8]) -> Result<Self, PublicKeyError> {
        let encoded = text
            .strip_prefix(b"whpk_")
            .filter(|_| !is_padded(text) && !text.last().is_some_and(|byte| is_wrapper(*byte)))
            .ok_or_else(|| explain_prefix(text))?;
        if encoded.len() != ENCODED_LEN {
            let bytes = encoded.len();
            return Err(PublicKeyError::WrongLength { bytes });
        }
        let mut bytes = [0; KEY_LEN];
        match STANDARD.decode_slice(encoded, &mut bytes) {
            Ok(KEY_LEN) => Self::from_bytes(&bytes),
            _ => Err(PublicKeyError::InvalidBase64),
        }
    }

    /// Makes a public key from its encoding in RFC 8032.
    ///
    /// # Errors
    /// The bytes are not the canonical encoding of a point of the prime order L, as each public key is
    /// that RFC 8032 makes. So keys of small order are rejected: they verify a signature over any
    /// message.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, PublicKeyError> {
        let key = Key::new(bytes).ok_or(PublicKeyError::InvalidPoint)?;
        Ok(Self { key })
    }

    /// Returns the encoding in RFC 8032.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "whpk_{}", Base64Display::new(self.as_bytes(), &STANDARD))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = PublicKeyError;

    fn from_str(text: &str) -> Result<Self, PublicKeyError> {
        Self::parse(text.as_bytes())
    }
}

/// Why a text or bytes are not a public key, and how to fix it. Contains no part of the text, which may
/// be a secret by mistake.
///
/// It is the first variant that applies, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PublicKeyError {
    /// The text is empty, usually because a variable is not set.
    #[error("the public key is empty; set it to the sender's `whpk_…` key")]
    Empty,
    /// The text begins or ends with white space, also non-breaking, or a line break.
    #[error("the public key begins or ends with white space; remove the white space")]
    Whitespace,
    /// The text is in quotes.
    #[error("the public key is in quotes; remove the quotes")]
    Quotes,
    /// The text begins with a version, as in `v1a,whpk_…`.
    #[error("the public key begins with a version; remove everything before `whpk_`")]
    Version,
    /// The text is an Ed25519 private key, `whsk_…`, with or without a version.
    #[error(
        "this is an Ed25519 private key (`whsk_`), which only the sender may have; use the `whpk_…` key of the pair"
    )]
    PrivateKey,
    /// The text is a symmetric secret, `whsec_…`, with or without a version.
    #[error(
        "this is a symmetric secret (`whsec_`), not a public key; use it in a `Verifier`, or use the sender's `whpk_…` key"
    )]
    Secret,
    /// The text does not begin with `whpk_`, and no variant above applies.
    #[error("the public key does not begin with `whpk_`; copy the complete key with its prefix")]
    MissingPrefix,
    /// The base64 of the key does not have 44 bytes.
    #[error(
        "the public key has {bytes} bytes after `whpk_`, not 44; copy the complete key and nothing else, no white space either"
    )]
    WrongLength {
        /// The number of bytes after `whpk_`.
        bytes: usize,
    },
    /// The 44 bytes are not the canonical, padded, standard base64 of 32 bytes.
    #[error(
        "the public key is not standard base64 of 32 bytes after `whpk_`; copy the complete key without white space"
    )]
    InvalidBase64,
    /// The bytes are not the canonical encoding of a point of prime order.
    #[error("the public key is not a valid Ed25519 public key; copy the complete key again")]
    InvalidPoint,
}

/// Finds out why a text has no `whpk_` prefix or ends with white space or a quote.
fn explain_prefix(text: &[u8]) -> PublicKeyError {
    let ([first, ..], [.., last]) = (text, text) else {
        return PublicKeyError::Empty;
    };
    let unversioned = strip_version(text);
    if is_padded(text) {
        PublicKeyError::Whitespace
    } else if is_wrapper(*first) || is_wrapper(*last) {
        PublicKeyError::Quotes
    } else if unversioned.starts_with(b"whpk_") {
        PublicKeyError::Version
    } else if unversioned.starts_with(b"whsk_") {
        PublicKeyError::PrivateKey
    } else if unversioned.starts_with(b"whsec_") {
        PublicKeyError::Secret
    } else {
        PublicKeyError::MissingPrefix
    }
}

/// Returns `true` if a text begins or ends with white space, in ASCII or in Unicode.
fn is_padded(text: &[u8]) -> bool {
    let is_padded = |text: &str| text.trim() != text;
    text.trim_ascii() != text || core::str::from_utf8(text).is_ok_and(is_padded)
}
