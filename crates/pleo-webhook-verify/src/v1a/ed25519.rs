//! Ed25519 by `ed25519-dalek`, with the strict rules of [`PublicKeyVerifier`]. No other file names the
//! library.
//!
//! Standard Webhooks, "Verifying signatures": use a battle tested cryptographic library. This file adds
//! checks of encodings to the library's and computes nothing itself.
//!
//! [`PublicKeyVerifier`]: crate::PublicKeyVerifier

use ed25519_dalek::{StreamVerifier, VerifyingKey};

/// Bytes in a public key.
pub(crate) const KEY_LEN: usize = 32;

/// Bytes in a signature: the point R and the scalar S.
pub(crate) const SIGNATURE_LEN: usize = 64;

/// The order L of the base point (RFC 8032 section 5.1), little endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// The encoding of the identity (RFC 8032 section 5.1.2): y is 1 and x is 0.
const IDENTITY: [u8; 32] = {
    let mut y = [0; 32];
    y[0] = 1;
    y
};

/// A point of order L, canonically encoded.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key(VerifyingKey);

impl Key {
    /// Decodes a key; `None` unless it is the canonical encoding of a point of order L.
    ///
    /// Every key that RFC 8032 section 5.1.5 makes is one: a multiple of the base point, which has the
    /// prime order L. The library decodes other points too, in other encodings too.
    pub(crate) fn new(bytes: &[u8; KEY_LEN]) -> Option<Self> {
        let key = VerifyingKey::from_bytes(bytes).ok()?;
        let point = key.to_edwards();
        let is_canonical = point.compress().as_bytes() == bytes;
        // The identity is free of torsion, but its order is 1.
        (is_canonical && *bytes != IDENTITY && point.is_torsion_free()).then_some(Self(key))
    }

    pub(crate) fn as_bytes(&self) -> &[u8; KEY_LEN] {
        self.0.as_bytes()
    }
}

/// A signature that some key and message could have.
pub(crate) struct Signature(ed25519_dalek::Signature);

impl Signature {
    /// Decodes a signature; `None` if S is not below L, or if R is the identity.
    ///
    /// RFC 8032 section 5.1.7, step 1: S is in the range 0 <= S < L. The library checks it too, unless
    /// another crate in the build enables its feature `legacy_compatibility`.
    pub(crate) fn new(bytes: &[u8; SIGNATURE_LEN]) -> Option<Self> {
        let signature = ed25519_dalek::Signature::from_bytes(bytes);
        let is_reduced = signature.s_bytes().iter().rev().lt(ORDER.iter().rev());
        (is_reduced && *signature.r_bytes() != IDENTITY).then_some(Self(signature))
    }
}

/// The check of one signature with one key over a message that arrives in pieces.
///
/// It is the equation without a cofactor, S·B = R + k·A (RFC 8032 section 5.1.7, step 3): the library
/// computes R from the rest and compares the canonical encoding with that in the signature. As A has
/// order L, such an R is in its group too, so that only the identity has a small order.
pub(crate) struct Check(StreamVerifier);

impl Check {
    /// Begins a check; `None` if the library rejects the form of the signature.
    pub(crate) fn new(key: &Key, signature: &Signature) -> Option<Self> {
        key.0.verify_stream(&signature.0).ok().map(Self)
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns `true` if the signature is valid over what [`Self::update`] took.
    pub(crate) fn finish(self) -> bool {
        self.0.finalize_and_verify().is_ok()
    }
}
