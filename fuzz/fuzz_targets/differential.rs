//! `verify` agrees with the reference implementation, which uses another HMAC library. Lines: now,
//! tolerance, up to four secrets, id, timestamp, signature list with `@0` to `@3` for the valid
//! base64 by a secret; then the body.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use pleo_fuzz::{input, reference};
use pleo_webhook_verify::{Secret, Verifier, VerifyError};

fuzz_target!(|data: &[u8]| {
    let mut body = data;
    let now = input::number(&input::line(&mut body));
    let tolerance = input::number(&input::line(&mut body));
    let keys = input::keys(&input::line(&mut body));
    let [id, timestamp, list] = [(); 3].map(|()| input::header(&mut body));
    let id_bytes = id.as_deref().unwrap_or_default();
    let timestamp_bytes = timestamp.as_deref().unwrap_or_default();
    let list = list.map(|list| fill_in(&list, &keys, id_bytes, timestamp_bytes, body));

    let values = [id.as_deref(), timestamp.as_deref(), list.as_deref()];
    let headers = input::headers(values);
    let secrets = keys
        .iter()
        .map(|key| Secret::from_bytes(key).expect("a valid length"));
    let verifier = Verifier::from_secrets(secrets)
        .expect("one to four keys")
        .with_tolerance(Duration::from_secs(tolerance));

    let expected = reference::check_headers(values, now, tolerance).and_then(|()| {
        let list = list.as_deref().expect("checked");
        reference::signer(&keys, id_bytes, timestamp_bytes, body, list)
            .ok_or(VerifyError::SignatureMismatch)
    });
    let actual = verifier.verify(&headers, body, now).map(|verified| {
        assert_eq!(verified.body(), body);
        assert_eq!(verified.id().as_bytes(), id_bytes);
        assert_eq!(
            Some(verified.timestamp()),
            reference::decimal(timestamp_bytes)
        );
        verified.secret_index()
    });
    assert_eq!(actual, expected);
});

/// Replaces the placeholders. Without them, no mutation would ever find a valid signature.
fn fill_in(list: &[u8], keys: &[Vec<u8>], id: &[u8], timestamp: &[u8], body: &[u8]) -> Vec<u8> {
    let sign = |key: &Vec<u8>| reference::to_base64(&reference::mac(key, id, timestamp, body));
    let signatures: Vec<Vec<u8>> = keys.iter().map(sign).collect();
    let mut filled = Vec::new();
    let mut rest = list;
    while let [first, after @ ..] = rest {
        rest = after;
        let nth = after.first().and_then(|digit| digit.checked_sub(b'0'));
        match nth.and_then(|nth| signatures.get(usize::from(nth))) {
            Some(signature) if *first == b'@' => {
                filled.extend(signature);
                rest = &after[1..];
            }
            _ => filled.push(*first),
        }
    }
    filled
}
