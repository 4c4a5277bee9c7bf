//! The signature list, and how one entry of it is made.

use core::{fmt, iter};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::{Choice, ConstantTimeEq};

use crate::headers::MAX_TIMESTAMP_LEN;
use crate::mac::{Mac, TAG_LEN};
use crate::{Secret, VerifyError, headers};

/// HMAC-SHA256, the one version that this crate knows.
const VERSION: &[u8] = b"v1,";

/// `v1,` and the 44 characters that 32 bytes take in base64.
const LEN: usize = VERSION.len() + 44;

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
        headers::check_id(id.as_bytes())?;
        let mut digits = [0; MAX_TIMESTAMP_LEN];
        let mut mac = Mac::new(&self.key);
        feed_prefix(&mut mac, id.as_bytes(), decimal(timestamp, &mut digits));
        mac.update(body);
        let mut signature = [0; LEN];
        let (version, encoded) = signature.split_at_mut(VERSION.len());
        version.copy_from_slice(VERSION);
        let written = STANDARD.encode_slice(mac.finish().unwrap_or_default(), encoded);
        // 32 bytes take the 44 characters that there are.
        debug_assert_eq!(written, Ok(LEN - VERSION.len()));
        Ok(Signature(signature))
    }
}

/// Feeds what is signed before the body: `id "." timestamp "."`.
pub(crate) fn feed_prefix(mac: &mut Mac, id: &[u8], timestamp: &[u8]) {
    mac.update(id);
    mac.update(b".");
    mac.update(timestamp);
    mac.update(b".");
}

/// Checks the form of a signature list before anything is hashed.
///
/// Standard Webhooks, "Signature scheme": entries are parted by spaces, and each is a version, a
/// comma and the signature.
pub(crate) fn check_form(list: &[u8]) -> Result<(), VerifyError> {
    if list.starts_with(VERSION) || list.windows(4).any(|at| at == b" v1,") {
        return Ok(());
    }
    Err(VerifyError::NoSupportedSignature {
        v1a: list.starts_with(b"v1a,") || list.windows(5).any(|at| at == b" v1a,"),
    })
}

/// The `v1` signatures of a list, decoded. What isn't the canonical base64 of 32 bytes is passed
/// over. The list is the sender's and public, so that time may depend on it.
pub(crate) fn candidates(list: &[u8]) -> impl Iterator<Item = [u8; TAG_LEN]> {
    let mut rest = Some(list);
    iter::from_fn(move || {
        loop {
            let list = rest?;
            // Nearly every entry is as long as a signature. One that decodes holds no space, so
            // that nobody needs to look for where it ends.
            if let Some((entry, after @ ([] | [b' ', ..]))) = list.split_at_checked(LEN)
                && let Some(tag) = decode(entry)
            {
                rest = after.split_first().map(|(_, after)| after);
                return Some(tag);
            }
            let mut parts = list.splitn(2, |byte| *byte == b' ');
            rest = parts.nth(1);
        }
    })
}

fn decode(entry: &[u8]) -> Option<[u8; TAG_LEN]> {
    let mut tag = [0; TAG_LEN];
    match STANDARD.decode_slice(entry.strip_prefix(VERSION)?, &mut tag) {
        Ok(TAG_LEN) => Some(tag),
        _ => None,
    }
}

/// Compares in a time that doesn't depend on where the two differ. In words, since a comparison in
/// constant time costs about as much for eight bytes as for one.
pub(crate) fn equal(candidate: &[u8; TAG_LEN], expected: &[u8; TAG_LEN]) -> Choice {
    // 32 bytes are four words, and nothing remains.
    let ((candidate, _), (expected, _)) = (candidate.as_chunks(), expected.as_chunks());
    let words = candidate.iter().zip(expected);
    words.fold(Choice::from(1), |equal, (one, other)| {
        equal & u64::from_ne_bytes(*one).ct_eq(&u64::from_ne_bytes(*other))
    })
}

/// Writes `number` in decimal to the end of `digits`, which holds the longest `u64`.
fn decimal(mut number: u64, digits: &mut [u8; MAX_TIMESTAMP_LEN]) -> &[u8] {
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
