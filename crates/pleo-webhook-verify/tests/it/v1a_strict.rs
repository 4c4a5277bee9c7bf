//! Keys and signatures of Ed25519 on which libraries disagree.
//!
//! The cases of "Taming the many EdDSAs" (<https://eprint.iacr.org/2020/1244>) sign messages that are not
//! a delivery's, so that only their keys can be tested. Their signatures are made anew here, over a
//! delivery.

use curve25519_dalek::Scalar;
use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::digest::Digest;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use ed25519_dalek::hazmat::ExpandedSecretKey;
use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};
use pleo_webhook_verify::{PublicKey, PublicKeyError, PublicKeyVerifier, VerifyError};
use sha2::Sha512;

use crate::support::asymmetric::{self, ORDER, to_entry};
use crate::support::{NOW, TIMESTAMP, headers};

/// What `msg_1`, the timestamp and the body `{}` sign.
const MESSAGE: &[u8] = b"msg_1.1614265330.{}";

fn secret_scalar(seed: &[u8; 32]) -> Scalar {
    ExpandedSecretKey::from(seed).scalar
}

/// Computes the k of RFC 8032 section 5.1.7, step 2.
fn challenge(r: &[u8; 32], a: &[u8; 32]) -> Scalar {
    let hash = Sha512::new()
        .chain_update(r)
        .chain_update(a)
        .chain_update(MESSAGE);
    Scalar::from_hash(hash)
}

fn signature(r: [u8; 32], s: [u8; 32]) -> [u8; 64] {
    [r, s].concat().try_into().unwrap()
}

/// Verifies a signature with a key by this crate.
fn verify(key: &[u8; 32], signature: &[u8; 64]) -> Result<(), VerifyError> {
    let verifier = PublicKeyVerifier::new(PublicKey::from_bytes(key).unwrap());
    let list = to_entry(signature);
    let headers = headers("msg_1", TIMESTAMP, &list);
    let one_call = verifier.verify(&headers, b"{}", NOW).map(drop);
    let mut stream = verifier.begin(&headers, NOW)?;
    stream.update(b"{}");
    assert_eq!(stream.finish().map(drop), one_call);
    one_call
}

/// Verifies a signature with a key by `ed25519-dalek`, with its lax rules.
fn is_valid_elsewhere(key: &[u8; 32], signature: &[u8; 64]) -> bool {
    let key = VerifyingKey::from_bytes(key).unwrap();
    key.verify(MESSAGE, &Signature::from_bytes(signature))
        .is_ok()
}

fn hex(text: &str) -> [u8; 32] {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..text.len()).step_by(2).map(byte).collect();
    bytes.try_into().unwrap()
}

#[test]
fn accepts_keys_of_rfc_8032() {
    // Section 7.1: tests 1, 2, 3, 1024 and SHA(abc).
    for (seed, key) in [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        ),
        (
            "f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5",
            "278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e",
        ),
    ] {
        let (seed, key) = (hex(seed), hex(key));
        assert!(PublicKey::from_bytes(&key).is_ok());
        assert_eq!(asymmetric::public_key(&seed), key);
        let signature = asymmetric::sign(&seed, b"msg_1", TIMESTAMP.as_bytes(), b"{}");
        assert_eq!(verify(&key, &signature.try_into().unwrap()), Ok(()));
    }
}

#[test]
fn rejects_keys_of_small_or_mixed_order() {
    let honest = CompressedEdwardsY(asymmetric::public_key(&[1; 32]));
    let honest = honest.decompress().unwrap();
    for (nth, torsion) in EIGHT_TORSION.into_iter().enumerate() {
        let small = torsion.compress().0;
        assert_eq!(
            PublicKey::from_bytes(&small),
            Err(PublicKeyError::InvalidPoint)
        );
        let mixed = (honest + torsion).compress().0;
        assert_eq!(PublicKey::from_bytes(&mixed).is_ok(), nth == 0);
    }
}

#[test]
fn rejects_keys_in_other_encodings() {
    let mut decoded = 0;
    for y in 0..19 {
        for sign in [0, 0x80] {
            // y plus the prime 2^255 - 19.
            let mut bytes = [0xff; 32];
            bytes[0] = 0xed + y;
            bytes[31] = 0x7f | sign;
            decoded += u32::from(VerifyingKey::from_bytes(&bytes).is_ok());
            assert_eq!(
                PublicKey::from_bytes(&bytes),
                Err(PublicKeyError::InvalidPoint)
            );
        }
    }
    assert!(decoded > 4, "the library decodes some: {decoded}");
    // x is 0 and has a sign: y is 1, or -1.
    for mut bytes in [[0; 32], [0xff; 32]] {
        if bytes[0] == 0 {
            bytes[0] = 1;
        } else {
            bytes[0] = 0xec;
        }
        bytes[31] |= 0x80;
        assert_eq!(
            PublicKey::from_bytes(&bytes),
            Err(PublicKeyError::InvalidPoint)
        );
    }
}

/// The keys of the twelve cases. Those of the cases 0 to 5 and 8 to 11 have a small or mixed order; the
/// two of case 6 and 7 have S above the order.
#[test]
fn rejects_keys_of_taming_the_many_eddsas() {
    for key in [
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ] {
        assert_eq!(
            PublicKey::from_bytes(&hex(key)),
            Err(PublicKeyError::InvalidPoint)
        );
    }
    let of_prime_order = hex("442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623");
    assert!(PublicKey::from_bytes(&of_prime_order).is_ok());
}

/// Cases 6 and 7. In this build another crate enables `legacy_compatibility` of `ed25519-dalek`, which
/// then accepts some of these signatures.
#[test]
fn rejects_scalar_that_is_not_reduced() {
    let key = asymmetric::public_key(&[1; 32]);
    let signed = asymmetric::sign(&[1; 32], b"msg_1", TIMESTAMP.as_bytes(), b"{}");
    let signed: [u8; 64] = signed.try_into().unwrap();
    assert_eq!(verify(&key, &signed), Ok(()));
    let mut changed = signed;
    let mut accepted_elsewhere = 0;
    // Adds the order until 256 bits overflow.
    for _ in 0..15 {
        let mut carry = 0;
        for (digit, order) in changed[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*digit) + u16::from(order) + carry;
            [*digit, _] = sum.to_le_bytes();
            carry = sum >> 8;
        }
        if carry != 0 {
            break;
        }
        accepted_elsewhere += u32::from(is_valid_elsewhere(&key, &changed));
        assert_eq!(verify(&key, &changed), Err(VerifyError::SignatureMismatch));
    }
    assert_eq!(accepted_elsewhere, 1);
    // The order itself is not below the order.
    let r: [u8; 32] = signed[..32].try_into().unwrap();
    assert_eq!(
        verify(&key, &signature(r, ORDER)),
        Err(VerifyError::SignatureMismatch)
    );
}

/// As in cases 0 and 2, where R has a small order. With a key of prime order, only the identity fulfils
/// the equation.
#[test]
fn rejects_identity_as_r() {
    let seed = [1; 32];
    let key = asymmetric::public_key(&seed);
    for (torsion, is_accepted_elsewhere) in
        (EIGHT_TORSION.iter()).zip([true].into_iter().chain([false; 7]))
    {
        let r = torsion.compress().0;
        let s = challenge(&r, &key) * secret_scalar(&seed);
        let signature = signature(r, s.to_bytes());
        assert_eq!(is_valid_elsewhere(&key, &signature), is_accepted_elsewhere);
        assert_eq!(
            verify(&key, &signature),
            Err(VerifyError::SignatureMismatch)
        );
    }
    // Cases 8 and 9: the identity in another encoding, whether it is reduced for the hash or not.
    let canonical = EIGHT_TORSION[0].compress().0;
    let mut r = [0xff; 32];
    (r[0], r[31]) = (0xee, 0x7f);
    for hashed in [canonical, r] {
        let s = challenge(&hashed, &key) * secret_scalar(&seed);
        let signature = signature(r, s.to_bytes());
        assert_eq!(
            verify(&key, &signature),
            Err(VerifyError::SignatureMismatch)
        );
    }
}

/// Case 4: valid only if the equation is multiplied by the cofactor.
#[test]
fn rejects_signature_that_needs_cofactor() {
    let seed = [1; 32];
    let key = asymmetric::public_key(&seed);
    let nonce = Scalar::from(7_u8);
    for (nth, torsion) in EIGHT_TORSION.into_iter().enumerate() {
        let point = EdwardsPoint::mul_base(&nonce) + torsion;
        let r = point.compress().0;
        let k = challenge(&r, &key);
        let s = nonce + k * secret_scalar(&seed);
        let difference =
            EdwardsPoint::mul_base(&s) - point - CompressedEdwardsY(key).decompress().unwrap() * k;
        assert_eq!(difference.mul_by_cofactor(), EdwardsPoint::default());
        assert_eq!(verify(&key, &signature(r, s.to_bytes())).is_ok(), nth == 0);
    }
}

/// A key of small order would verify one signature over many messages.
#[test]
fn signature_under_weak_key_would_be_valid_for_many_messages() {
    let weak = EIGHT_TORSION[0].compress().0;
    let nonce = Scalar::from(7_u8);
    let r = EdwardsPoint::mul_base(&nonce).compress().0;
    let signature = signature(r, nonce.to_bytes());
    let key = VerifyingKey::from_bytes(&weak).unwrap();
    for message in [MESSAGE, b"anything"] {
        assert!(
            key.verify(message, &Signature::from_bytes(&signature))
                .is_ok()
        );
    }
    assert!(PublicKey::from_bytes(&weak).is_err());
}
