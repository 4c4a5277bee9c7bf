//! A body in chunks has the same result as in one call. Lines: `1` (any odd byte) to add a valid
//! signature or `0`, secrets, id, timestamp, signature list, sizes of the chunks; then the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pleo_fuzz::{input, reference};
use pleo_webhook_verify::{Headers, Secret, Verifier};

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

    let mut secrets = keys
        .iter()
        .map(|key| Secret::from_bytes(key).expect("a valid length"));
    let first = Verifier::new(secrets.next().expect("at least one key"));
    let verifier = secrets.fold(first, |verifier, secret| {
        verifier.and_secret(secret).expect("at most four")
    });
    let headers = Headers::new(&id, &timestamp, &list);

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
    let one_call =
        one_call.map(|verified| (verified.id(), verified.timestamp(), verified.secret_index()));
    let streamed =
        streamed.map(|verified| (verified.id(), verified.timestamp(), verified.secret_index()));
    assert_eq!(one_call, streamed);

    let well_formed =
        reference::check_headers(&headers, number, Verifier::DEFAULT_TOLERANCE).is_ok();
    if add_valid && well_formed {
        let (signed_id, timestamp, _) = one_call.expect("a valid signature passes");
        assert_eq!(signed_id.as_bytes(), id);
        assert_eq!(timestamp, number);
    }
});
