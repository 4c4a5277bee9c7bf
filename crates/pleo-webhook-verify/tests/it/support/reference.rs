//! Reference implementation of the verifier: simple, slow, and independent of the crate's code.

use std::str;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use pleo_webhook_verify::{Header, SecretError, VerifyError};
use sha2::Sha256;

/// Parses a canonical decimal that fits a `u64`: digits only, no leading zero.
pub fn decimal(text: &[u8]) -> Option<u64> {
    let text = str::from_utf8(text).ok()?;
    let number: u64 = text.parse().ok()?;
    // A text is canonical if printing its number gives the same text.
    (number.to_string() == text).then_some(number)
}

/// Returns `true` if an id is valid.
pub fn is_id(id: &[u8]) -> bool {
    !id.is_empty()
        && id.len() <= 256
        && id
            .iter()
            .all(|byte| (0x21..=0x7e).contains(byte) && *byte != 0x2e)
}

/// Splits a signature list into its entries.
pub fn entries(list: &[u8]) -> Vec<Vec<u8>> {
    let mut entries = vec![Vec::new()];
    for byte in list {
        if *byte == b' ' {
            entries.push(Vec::new());
        } else {
            entries.last_mut().expect("never empty").push(*byte);
        }
    }
    entries
}

/// Runs the checks that come before hashing, on id, timestamp and signature list. The tolerance is in
/// seconds.
pub fn check_headers(
    headers: [Option<&[u8]>; 3],
    now: u64,
    tolerance: u64,
) -> Result<(), VerifyError> {
    let missing = |header| Err(VerifyError::MissingHeader { header });
    let [id, timestamp, list] = headers;
    let Some(id) = id else {
        return missing(Header::Id);
    };
    let Some(timestamp) = timestamp else {
        return missing(Header::Timestamp);
    };
    let Some(list) = list else {
        return missing(Header::Signature);
    };
    if !is_id(id) {
        return Err(VerifyError::InvalidId);
    }
    let Some(timestamp) = decimal(timestamp) else {
        return Err(VerifyError::InvalidTimestamp);
    };
    let skew = i128::from(now) - i128::from(timestamp);
    let distance = u64::try_from(skew.abs()).expect("no more than a u64");
    if distance > tolerance {
        let [skew_time, tolerance] = [distance, tolerance].map(Duration::from_secs);
        return Err(if skew > 0 {
            VerifyError::TimestampTooOld {
                skew: skew_time,
                tolerance,
            }
        } else {
            VerifyError::TimestampTooNew {
                skew: skew_time,
                tolerance,
            }
        });
    }
    let entries = entries(list);
    if !entries.iter().any(|entry| entry.starts_with(b"v1,")) {
        let v1a = entries.iter().any(|entry| entry.starts_with(b"v1a,"));
        return Err(VerifyError::NoSupportedSignature { v1a });
    }
    Ok(())
}

/// Returns the index of the first key that made a signature in the list over these bytes.
pub fn signer(
    keys: &[Vec<u8>],
    id: &[u8],
    timestamp: &[u8],
    body: &[u8],
    list: &[u8],
) -> Option<usize> {
    let given: Vec<Vec<u8>> = entries(list)
        .iter()
        .filter_map(|entry| base64(entry.strip_prefix(b"v1,")?))
        .collect();
    let signed = |key: &Vec<u8>| given.contains(&mac(key, id, timestamp, body));
    keys.iter().position(signed)
}

/// Computes `HMAC-SHA256(key, id "." timestamp "." body)`.
pub fn mac(key: &[u8], id: &[u8], timestamp: &[u8], body: &[u8]) -> Vec<u8> {
    let signed = [id, timestamp, body].join(&b'.');
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes any length");
    mac.update(&signed);
    mac.finalize().into_bytes().to_vec()
}

/// Parses a secret into its key.
pub fn secret(text: &[u8]) -> Result<Vec<u8>, SecretError> {
    let (Some(first), Some(last)) = (text.first(), text.last()) else {
        return Err(SecretError::Empty);
    };
    let begins_or_ends_with =
        |characters: &[u8]| characters.contains(first) || characters.contains(last);
    if begins_or_ends_with(b" \t\n\r\x0c") {
        return Err(SecretError::Whitespace);
    }
    if begins_or_ends_with(b"\"'`") {
        return Err(SecretError::Quotes);
    }
    for (start, error) in [
        (&b"v1,whsec_"[..], SecretError::Version),
        (b"v1a,whsec_", SecretError::Version),
        (b"whsk_", SecretError::PrivateKey),
        (b"v1,whsk_", SecretError::PrivateKey),
        (b"v1a,whsk_", SecretError::PrivateKey),
        (b"whpk_", SecretError::PublicKey),
        (b"v1,whpk_", SecretError::PublicKey),
        (b"v1a,whpk_", SecretError::PublicKey),
    ] {
        if text.starts_with(start) {
            return Err(error);
        }
    }
    let encoded = text
        .strip_prefix(b"whsec_")
        .ok_or(SecretError::MissingPrefix)?;
    // The length alone decides, whatever the characters are.
    if encoded.len() > 100 {
        return Err(SecretError::TooLong);
    }
    let key = base64(encoded).ok_or_else(|| not_base64(encoded))?;
    match key.len() {
        bytes @ ..24 => Err(SecretError::TooShort { bytes }),
        24..=75 => Ok(key),
        _ => Err(SecretError::TooLong),
    }
}

/// Finds out why a text is not base64 by trying what would fix it: another alphabet, or padding.
fn not_base64(text: &[u8]) -> SecretError {
    let translated: Vec<u8> = text
        .iter()
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            // Rejects the symbols of the standard alphabet.
            b'+' | b'/' => b'!',
            byte => *byte,
        })
        .collect();
    let digits = |text: &[u8]| {
        let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
        let digits = &text[..text.len() - padding];
        (padding <= 2 && digits.iter().all(|digit| ALPHABET.contains(digit)))
            .then_some(digits.len())
    };
    if text.iter().any(|byte| b"-_".contains(byte)) && digits(&translated).is_some() {
        SecretError::UrlSafe
    } else if digits(text).is_some_and(|len| len % 4 >= 2) && text.len() % 4 >= 2 {
        SecretError::Unpadded
    } else {
        SecretError::InvalidBase64
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Decodes canonical, padded, standard base64 (RFC 4648 section 4).
pub fn base64(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() % 4 != 0 {
        return None;
    }
    let digits = match text {
        [digits @ .., b'=', b'='] | [digits @ .., b'='] => digits,
        digits => digits,
    };
    let mut bits = Vec::new();
    for digit in digits {
        let value = ALPHABET.iter().position(|known| known == digit)?;
        bits.extend((0..6).rev().map(|bit| value >> bit & 1));
    }
    let bytes = bits.len() / 8;
    // The remaining bits are padding, and must be 0.
    if bits[bytes * 8..].iter().any(|bit| *bit != 0) {
        return None;
    }
    let byte = |bits: &[usize]| {
        let value = bits.iter().fold(0, |value, bit| value << 1 | bit);
        u8::try_from(value).expect("eight bits")
    };
    Some(bits[..bytes * 8].chunks(8).map(byte).collect())
}

/// Encodes padded, standard base64.
pub fn to_base64(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for chunk in bytes.chunks(3) {
        let value = (0..3).fold(0, |value, index| {
            value << 8 | usize::from(chunk.get(index).copied().unwrap_or(0))
        });
        for digit in 0..4 {
            text.push(if digit <= chunk.len() {
                ALPHABET[value >> (18 - 6 * digit) & 63]
            } else {
                b'='
            });
        }
    }
    text
}
