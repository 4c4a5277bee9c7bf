//! A verifier with public keys agrees with ring, in one call and in chunks. Lines: text that may be a
//! public key, now, tolerance, up to four private keys of which the first 32 bytes count, id,
//! timestamp, signature list with `@0` to `@3` for the valid base64 by a key, sizes of the chunks; then
//! the body.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use pleo_fuzz::{asymmetric, input, reference};
use pleo_webhook_verify::{PublicKey, PublicKeyVerifier, VerifyError};

fuzz_target!(|data: &[u8]| {
    let mut body = data;
    parse(&input::line(&mut body));
    let now = input::number(&input::line(&mut body));
    let tolerance = input::number(&input::line(&mut body));
    let seeds = seeds(&input::line(&mut body));
    let [id, timestamp, list] = [(); 3].map(|()| input::header(&mut body));
    let sizes = input::numbers(&input::line(&mut body));
    let id_bytes = id.as_deref().unwrap_or_default();
    let timestamp_bytes = timestamp.as_deref().unwrap_or_default();
    let list = list.map(|list| fill_in(&list, &seeds, id_bytes, timestamp_bytes, body));

    let values = [id.as_deref(), timestamp.as_deref(), list.as_deref()];
    let headers = input::headers(values);
    let keys: Vec<[u8; 32]> = seeds.iter().map(asymmetric::public_key).collect();
    let public_keys = keys
        .iter()
        .map(|key| PublicKey::from_bytes(key).expect("a key that ring made"));
    let verifier = PublicKeyVerifier::from_keys(public_keys)
        .expect("one to four keys")
        .with_tolerance(Duration::from_secs(tolerance));

    let headers_checked = asymmetric::check_headers(values, keys.len(), now, tolerance);
    let expected = headers_checked.and_then(|()| {
        let list = list.as_deref().expect("checked");
        asymmetric::signer(&keys, id_bytes, timestamp_bytes, body, list)
            .ok_or(VerifyError::SignatureMismatch)
    });
    let one_call = verifier.verify(&headers, body, now).map(|verified| {
        assert_eq!(verified.body(), body);
        assert_eq!(verified.id().as_bytes(), id_bytes);
        verified.secret_index()
    });
    assert_eq!(one_call, expected);

    let streamed = verifier.begin(&headers, now).and_then(|mut stream| {
        let mut left = body;
        for size in sizes {
            let (chunk, rest) = left.split_at(input::index(size, left.len() + 1));
            stream.update(chunk);
            left = rest;
        }
        stream.update(left);
        Ok(stream.finish()?.secret_index())
    });
    assert_eq!(streamed, expected);
});

/// Parses a text, and a key of its first 32 bytes. Both agree with the reference implementation, and a key
/// displays as the text that it parses from.
fn parse(text: &[u8]) {
    let parsed = PublicKey::parse(text).ok();
    let expected = asymmetric::parse_key(text);
    assert_eq!(parsed.as_ref().map(PublicKey::as_bytes), expected.as_ref());
    if let Some(key) = parsed {
        assert_eq!(key.to_string().as_bytes(), text);
    }
    if let Some(bytes) = text.first_chunk() {
        let made = PublicKey::from_bytes(bytes).ok();
        assert_eq!(made.is_some(), asymmetric::is_key(bytes));
        if let Some(key) = made {
            assert_eq!(key.as_bytes(), bytes);
            assert_eq!(key.to_string().parse(), Ok(key));
        }
    }
}

/// Makes one to four private keys of words.
fn seeds(text: &[u8]) -> Vec<[u8; 32]> {
    text.split(|byte| *byte == b' ')
        .take(4)
        .map(|word| {
            let mut seed = [7; 32];
            seed.iter_mut().zip(word).for_each(|(to, from)| *to = *from);
            seed
        })
        .collect()
}

/// Replaces the placeholders. Without them, no mutation would ever find a valid signature.
fn fill_in(list: &[u8], seeds: &[[u8; 32]], id: &[u8], timestamp: &[u8], body: &[u8]) -> Vec<u8> {
    let sign = |seed| reference::to_base64(&asymmetric::sign(seed, id, timestamp, body));
    let mut filled = Vec::new();
    let mut rest = list;
    while let [first, after @ ..] = rest {
        rest = after;
        let nth = after.first().and_then(|digit| digit.checked_sub(b'0'));
        match nth.and_then(|nth| seeds.get(usize::from(nth))) {
            Some(seed) if *first == b'@' => {
                filled.extend(sign(seed));
                rest = &after[1..];
            }
            _ => filled.push(*first),
        }
    }
    filled
}
