//! A body in chunks has the same result as in one call. Lines: `1` (any odd byte) to add a valid
//! signature or `0`, secrets, id, timestamp, signature list, sizes of the chunks; then the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pleo_fuzz::{input, reference};
use pleo_webhook_verify::{Secret, Verifier};

fuzz_target!(|data: &[u8]| {
    let mut body = data;
    let add_valid = input::line(&mut body)
        .first()
        .is_some_and(|byte| byte & 1 == 1);
    let keys = input::keys(&input::line(&mut body));
    let id = input::line(&mut body);
    let timestamp = input::line(&mut body);
    let mut list = input::line(&mut body);
    let sizes = input::numbers(&input::line(&mut body));

    let number = input::number(&timestamp);
    if add_valid {
        // By the last key, so that every other key is tried first.
        let key = keys.last().expect("at least one key");
        let tag = reference::mac(key, &id, &timestamp, body);
        list.extend_from_slice(b" v1,");
        list.extend(reference::to_base64(&tag));
    }

    let secrets = keys
        .iter()
        .map(|key| Secret::from_bytes(key).expect("a valid length"));
    let verifier = Verifier::from_secrets(secrets).expect("one to four keys");
    let values = [&id, &timestamp, &list].map(|value| Some(&**value));
    let headers = input::headers(values);

    let one_call = verifier.verify(&headers, body, number);
    let streamed = verifier
        .begin(&headers, number)
        .and_then(|mut verification| {
            let mut left = body;
            for size in sizes {
                let (chunk, rest) = left.split_at(input::index(size, left.len() + 1));
                verification.update(chunk);
                left = rest;
            }
            verification.update(left);
            verification.finish()
        });
    if let Ok(verified) = &one_call {
        assert_eq!(verified.body(), body);
    }
    let summary = |id: &str, timestamp, secret_index| (id.to_owned(), timestamp, secret_index);
    let one_call = one_call
        .map(|verified| summary(verified.id(), verified.timestamp(), verified.secret_index()));
    let streamed = streamed
        .map(|verified| summary(verified.id(), verified.timestamp(), verified.secret_index()));
    assert_eq!(one_call, streamed);

    let tolerance = Verifier::DEFAULT_TOLERANCE.as_secs();
    if add_valid && reference::check_headers(values, number, tolerance).is_ok() {
        let (signed_id, timestamp, _) = one_call.expect("a valid signature passes");
        assert_eq!(signed_id.as_bytes(), id);
        assert_eq!(timestamp, number);
    }
});
