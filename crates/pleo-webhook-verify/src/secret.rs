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
    /// [`Self::MAX_LEN`] bytes. The error says what to change.
    pub fn parse(text: &[u8]) -> Result<Self, SecretError> {
        let encoded = text
            .strip_prefix(b"whsec_")
            .filter(|encoded| !encoded.last().is_some_and(stands_around))
            .ok_or_else(|| wrong_outside(text))?;
        if encoded.len() > Self::MAX_LEN.div_ceil(3) * 4 {
            return Err(SecretError::TooLong);
        }
        let mut key = [0; Self::MAX_LEN];
        let len = STANDARD
            .decode_slice(encoded, &mut key)
            .map_err(|_| wrong_base64(encoded))?;
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

/// White space and quotes, which come along when a secret is copied.
const fn stands_around(byte: &u8) -> bool {
    byte.is_ascii_whitespace() || is_quote(*byte)
}

const fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'' | b'`')
}

/// What is wrong with a text that doesn't begin with `whsec_`, or ends in something that stands
/// around secrets.
fn wrong_outside(text: &[u8]) -> SecretError {
    let ([first, ..], [.., last]) = (text, text) else {
        return SecretError::Empty;
    };
    if first.is_ascii_whitespace() || last.is_ascii_whitespace() {
        SecretError::Whitespace
    } else if is_quote(*first) || is_quote(*last) {
        SecretError::Quotes
    } else if text.starts_with(b"v1,") {
        SecretError::Version
    } else if text.starts_with(b"whsk_") {
        SecretError::PrivateKey
    } else if text.starts_with(b"whpk_") {
        SecretError::PublicKey
    } else {
        SecretError::MissingPrefix
    }
}

/// What is wrong with a text that isn't canonical, padded, standard base64.
fn wrong_base64(encoded: &[u8]) -> SecretError {
    let digits = match encoded {
        [digits @ .., b'=', b'='] | [digits @ .., b'='] => digits,
        digits => digits,
    };
    let all = |extra: [u8; 2]| {
        let known = |byte: &u8| byte.is_ascii_alphanumeric() || extra.contains(byte);
        digits.iter().all(known)
    };
    if all(*b"-_") && !all(*b"+/") {
        SecretError::UrlSafe
    } else if all(*b"+/") && encoded.len() % 4 > 1 && digits.len() % 4 > 1 {
        SecretError::Unpadded
    } else {
        SecretError::InvalidBase64
    }
}
