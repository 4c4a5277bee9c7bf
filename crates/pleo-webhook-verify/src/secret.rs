//! The key that sender and receiver share.

use core::fmt;
use core::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::SecretError;
use crate::mac::Key;

/// A signing secret: `whsec_` and the base64 of 24 to 75 bytes.
///
/// Standard Webhooks ("Signature scheme", "Secret format") asks for 24 to 64 bytes; Pleo's sender
/// accepts up to 75, so this does.
///
/// It is never printed: [`Debug`](fmt::Debug) shows no byte of it, and there is no way to get the
/// key out. It holds the prepared state of the HMAC, not the text; that state stays in memory until
/// it is overwritten by something else, as it isn't wiped on drop.
///
/// ```
/// use pleo_webhook_verify::Secret;
///
/// let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?;
/// assert_eq!(format!("{secret:?}"), "Secret(..)");
/// # Ok::<(), pleo_webhook_verify::SecretError>(())
/// ```
#[derive(Clone)]
pub struct Secret {
    pub(crate) key: Key,
}

impl Secret {
    /// The fewest bytes that a key may have.
    pub const MIN_LEN: usize = 24;
    /// The most bytes that a key may have.
    pub const MAX_LEN: usize = 75;

    /// Reads `whsec_…`, exactly as the sender shows it.
    ///
    /// # Errors
    /// Whatever isn't `whsec_` and the canonical, padded, standard base64 of [`Self::MIN_LEN`] to
    /// [`Self::MAX_LEN`] bytes.
    pub fn parse(text: &[u8]) -> Result<Self, SecretError> {
        let encoded = text
            .strip_prefix(b"whsec_")
            .ok_or(SecretError::MissingPrefix)?;
        // 75 bytes are 100 characters; longer texts are told apart from malformed ones by length.
        if encoded.len() > 100 {
            return Err(SecretError::TooLong);
        }
        let mut key = [0; Self::MAX_LEN];
        let len = STANDARD
            .decode_slice(encoded, &mut key)
            .map_err(|_| SecretError::InvalidBase64)?;
        Self::from_bytes(key.get(..len).unwrap_or_default())
    }

    /// Makes a secret of the bytes of its key.
    ///
    /// # Errors
    /// Fewer than [`Self::MIN_LEN`] or more than [`Self::MAX_LEN`] bytes.
    pub fn from_bytes(key: &[u8]) -> Result<Self, SecretError> {
        match key.len() {
            bytes @ 0..Self::MIN_LEN => Err(SecretError::TooShort { bytes }),
            Self::MIN_LEN..=Self::MAX_LEN => Ok(Self { key: Key::new(key) }),
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
