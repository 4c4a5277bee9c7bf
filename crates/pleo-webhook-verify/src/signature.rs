//! The signature list, and how one entry of it is made.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::{Choice, ConstantTimeEq};

use crate::mac::{Mac, TAG_LEN};
use crate::{Secret, VerifyError, headers};

/// `v1,` and the 44 characters that 32 bytes take in base64.
const LEN: usize = 3 + 44;

/// The value of a `webhook-signature` header with one entry: `v1,` and base64.
///
/// Made by [`Secret::sign`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; LEN]);

impl Signature {
    /// The header's value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Base64 and the version are ASCII, so the default never shows.
        core::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signature").field(&self.as_str()).finish()
    }
}

impl Secret {
    /// Signs a message as Pleo does, for tests and tools. `timestamp` is in Unix seconds.
    ///
    /// Standard Webhooks, "Signature scheme": `v1` is the base64 of
    /// `HMAC-SHA256(key, id "." timestamp "." body)`.
    ///
    /// # Errors
    /// [`VerifyError::InvalidId`] where a verifier would refuse the id.
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> Result<Signature, VerifyError> {
        headers::parse_id(id.as_bytes())?;
        let mut digits = [0; 20];
        let mut mac = begin(self, id.as_bytes(), decimal(timestamp, &mut digits));
        mac.update(body);
        let mut signature = [0; LEN];
        let (version, encoded) = signature.split_at_mut(3);
        version.copy_from_slice(b"v1,");
        STANDARD
            .encode_slice(mac.finish(), encoded)
            .map_or(Err(VerifyError::SignatureMismatch), |_| {
                Ok(Signature(signature))
            })
    }
}

/// Starts the MAC over the signed content: `id "." timestamp "."`, and the body comes next.
pub(crate) fn begin(secret: &Secret, id: &[u8], timestamp: &[u8]) -> Mac {
    let mut mac = Mac::new(&secret.key);
    mac.update(id);
    mac.update(b".");
    mac.update(timestamp);
    mac.update(b".");
    mac
}

/// Checks the form of a signature list before anything is hashed.
///
/// Standard Webhooks, "Signature scheme": entries are parted by spaces, and each is a version, a
/// comma and the signature.
pub(crate) fn check_form(list: &[u8]) -> Result<(), VerifyError> {
    if entries(list).any(|entry| entry.starts_with(b"v1,")) {
        return Ok(());
    }
    Err(VerifyError::NoSupportedSignature {
        v1a: entries(list).any(|entry| entry.starts_with(b"v1a,")),
    })
}

/// The `v1` signatures of a list, decoded. What isn't the canonical base64 of 32 bytes is passed
/// over. The list is the sender's and public, so that time may depend on it.
pub(crate) fn candidates(list: &[u8]) -> impl Iterator<Item = [u8; TAG_LEN]> {
    entries(list).filter_map(|entry| {
        let encoded = entry.strip_prefix(b"v1,")?;
        if encoded.len() != LEN - 3 {
            return None;
        }
        let mut tag = [0; TAG_LEN];
        match STANDARD.decode_slice(encoded, &mut tag) {
            Ok(TAG_LEN) => Some(tag),
            _ => None,
        }
    })
}

/// Compares in a time that doesn't depend on where the two differ.
pub(crate) fn equal(candidate: &[u8; TAG_LEN], expected: &[u8; TAG_LEN]) -> Choice {
    candidate.ct_eq(expected)
}

fn entries(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b' ')
}

/// Writes `number` in decimal to the end of `digits`, which holds the longest `u64`.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut start = digits.len();
    for digit in digits.iter_mut().rev() {
        // A remainder of ten always fits.
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        start -= 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    digits.get(start..).unwrap_or_default()
}
