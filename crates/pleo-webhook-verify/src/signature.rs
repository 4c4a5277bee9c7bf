//! Signatures: how one is made, and how the list of a delivery is read.

use core::fmt::{self, Write as _};

use arrayvec::ArrayString;
use base64::Engine as _;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use constant_time_eq::constant_time_eq;

use crate::mac::{Mac, TAG_LEN, Tag};
use crate::{InvalidId, Secret, VerifyError, headers};

/// The version of HMAC-SHA256 signatures.
const V1: &[u8] = b"v1,";

/// Bytes in `v1,` and the base64 of a tag.
const SIGNATURE_LEN: usize = V1.len() + 44;

/// The value of a `webhook-signature` header with one signature: `v1,` and base64.
///
/// Made by [`Secret::sign`]. It cannot be compared with `==`, whose time depends on where two texts
/// differ; [`Verifier`](crate::Verifier) compares in constant time:
///
/// ```compile_fail,E0369
/// # use pleo_webhook_verify::{InvalidId, Secret};
/// # fn check(secret: &Secret, header: &str) -> Result<bool, InvalidId> {
/// Ok(secret.sign("msg_1", 1614265330, b"{}")? == header)
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct Signature(ArrayString<SIGNATURE_LEN>);

impl Signature {
    /// Returns the value of the header.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Signature {
    fn as_ref(&self) -> &str {
        self.as_str()
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
    /// Standard Webhooks, "Signature scheme": a `v1` signature is the base64 of
    /// `HMAC-SHA256(key, id "." timestamp "." body)`.
    ///
    /// # Errors
    /// [`InvalidId`] if a verifier would reject the id.
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> Result<Signature, InvalidId> {
        headers::parse_id(id.as_bytes())?;
        let mut digits = itoa::Buffer::new();
        let mut mac = Mac::new(&self.key);
        for part in signed_prefix(id, digits.format(timestamp).as_bytes()) {
            mac.update(part);
        }
        mac.update(body);
        let tag = mac.finish();
        let mut text = ArrayString::new();
        let written = write!(text, "v1,{}", Base64Display::new(tag.as_ref(), &STANDARD));
        debug_assert!(written.is_ok() && text.is_full(), "the length is fixed");
        Ok(Signature(text))
    }
}

/// Returns what is signed before the body: `id "." timestamp "."`.
pub(crate) const fn signed_prefix<'h>(id: &'h str, timestamp: &'h [u8]) -> [&'h [u8]; 4] {
    [id.as_bytes(), b".", timestamp, b"."]
}

/// Checks that a signature list has a `v1` entry.
///
/// Runs before anything is hashed. A malformed `v1` entry passes here and matches no secret later.
pub(crate) fn check_list(list: &[u8]) -> Result<(), VerifyError> {
    if list.starts_with(V1) || list.windows(4).any(|bytes| bytes == b" v1,") {
        return Ok(());
    }
    Err(VerifyError::NoSupportedSignature {
        v1a: list.starts_with(b"v1a,") || list.windows(5).any(|bytes| bytes == b" v1a,"),
    })
}

/// Returns `true` if a signature list contains the signature `expected`.
///
/// Compares every entry in constant time, without an early exit. Decoding an entry is not constant
/// time, since the sender chose its text.
pub(crate) fn list_contains(list: &[u8], expected: &Tag) -> bool {
    list.split(|byte| *byte == b' ')
        .filter_map(decode)
        .fold(false, |found, tag| {
            found | constant_time_eq(&tag, expected.as_ref())
        })
}

/// Decodes an entry of a signature list; `None` if it is not `v1,` and the canonical base64 of 32
/// bytes.
///
/// Standard Webhooks, "Signature scheme": entries are separated by spaces, and each is a version, a
/// comma and the signature.
fn decode(entry: &[u8]) -> Option<[u8; TAG_LEN]> {
    let mut tag = [0; TAG_LEN];
    match STANDARD.decode_slice(entry.strip_prefix(V1)?, &mut tag) {
        Ok(TAG_LEN) => Some(tag),
        _ => None,
    }
}
