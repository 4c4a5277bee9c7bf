//! Reference implementation of `PublicKeyVerifier`, by ring, which needs the signed content in one piece.
//! And a signer.

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use pleo_webhook_verify::VerifyError;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::reference::{self, base64, entries, to_base64};

/// The order of the base point, little endian.
pub const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// Returns the public key of a private key.
pub fn public_key(seed: &[u8; 32]) -> [u8; 32] {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes");
    let key = pair.public_key().as_ref();
    key.try_into().expect("32 bytes")
}

/// Signs a message. Returns the 64 bytes of the signature.
pub fn sign(seed: &[u8; 32], id: &[u8], timestamp: &[u8], body: &[u8]) -> Vec<u8> {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes");
    let signature = pair.sign(&[id, timestamp, body].join(&b'.'));
    signature.as_ref().to_vec()
}

/// Signs a message. Returns `v1a,` and the base64 of the signature.
pub fn entry(seed: &[u8; 32], id: &[u8], timestamp: &[u8], body: &[u8]) -> String {
    to_entry(&sign(seed, id, timestamp, body))
}

/// Returns `v1a,` and the base64 of a signature.
pub fn to_entry(signature: &[u8]) -> String {
    let text = [b"v1a,", &*to_base64(signature)].concat();
    String::from_utf8(text).expect("ASCII")
}

/// Runs the checks that come before hashing, on id, timestamp and signature list, for a number of keys. The
/// tolerance is in seconds.
pub fn check_headers(
    [id, timestamp, list]: [Option<&[u8]>; 3],
    keys: usize,
    now: u64,
    tolerance: u64,
) -> Result<(), VerifyError> {
    // The list is checked below.
    let any_list = list.map(|_| &b"v1,"[..]);
    reference::check_headers([id, timestamp, any_list], now, tolerance)?;
    let list = list.expect("checked");
    let has = |version: &[u8]| entries(list).iter().any(|entry| entry.starts_with(version));
    if !has(b"v1a,") {
        return Err(VerifyError::NoAsymmetricSignature { v1: has(b"v1,") });
    }
    if signatures(list).len() * keys > 24 {
        return Err(VerifyError::TooManySignatures);
    }
    Ok(())
}

/// Returns the index of the first key under which a signature in the list is valid over these bytes.
pub fn signer(
    keys: &[[u8; 32]],
    id: &[u8],
    timestamp: &[u8],
    body: &[u8],
    list: &[u8],
) -> Option<usize> {
    let signed = [id, timestamp, body].join(&b'.');
    keys.iter().position(|key| {
        let key = UnparsedPublicKey::new(&ED25519, key);
        let is_valid = |signature: &Vec<u8>| key.verify(&signed, signature).is_ok();
        signatures(list).iter().any(is_valid)
    })
}

/// Returns the signatures in a list, without those that no message has: R is the identity, or S is not
/// below the order.
pub fn signatures(list: &[u8]) -> Vec<Vec<u8>> {
    let order = (
        1_u128 << 124,
        0x14de_f9de_a2f7_9cd6_5812_631a_5cf5_d3ed_u128,
    );
    let half = |bytes: &[u8]| u128::from_le_bytes(bytes.try_into().expect("16 bytes"));
    entries(list)
        .iter()
        .filter_map(|entry| base64(entry.strip_prefix(b"v1a,")?))
        .filter(|bytes| {
            bytes.len() == 64
                && (half(&bytes[48..]), half(&bytes[32..48])) < order
                && (half(&bytes[..16]), half(&bytes[16..32])) != (1, 0)
        })
        .collect()
}

/// Returns `true` if bytes are a key: the multiplication by the order gives the identity, and they are
/// what the point encodes to.
pub fn is_key(bytes: &[u8; 32]) -> bool {
    CompressedEdwardsY(*bytes)
        .decompress()
        .is_some_and(|point| {
            let mut multiple = EdwardsPoint::default();
            for byte in ORDER.iter().rev() {
                for bit in (0..8).rev() {
                    multiple = multiple + multiple;
                    if byte >> bit & 1 == 1 {
                        multiple += point;
                    }
                }
            }
            multiple == EdwardsPoint::default()
                && point != EdwardsPoint::default()
                && point.compress().0 == *bytes
        })
}

/// Parses a text into the bytes of a key; `None` if it is not `whpk_` and the base64 of a key.
pub fn parse_key(text: &[u8]) -> Option<[u8; 32]> {
    let bytes = base64(text.strip_prefix(b"whpk_")?)?.try_into().ok()?;
    is_key(&bytes).then_some(bytes)
}
