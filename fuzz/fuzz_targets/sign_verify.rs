//! A message that `sign` signed is authentic, and any single change makes it fail. Lines: secret, id,
//! timestamp, positions of the changes; then the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pleo_fuzz::input;
use pleo_webhook_verify::{Secret, Verifier, VerifyError};

fuzz_target!(|data: &[u8]| {
    let mut body = data;
    let mut key = input::key(&input::line(&mut body));
    let id = input::line(&mut body);
    let timestamp = input::number(&input::line(&mut body));
    let positions = input::numbers(&input::line(&mut body));
    let mut body = body.to_vec();

    let position = |nth: usize| positions.get(nth).copied().unwrap_or_default();
    let bit = 1_u8 << (position(1) % 8);

    let secret = Secret::from_bytes(&key).expect("a valid length");
    let signed = str::from_utf8(&id)
        .ok()
        .and_then(|id| secret.sign(id, timestamp, &body).ok());
    let Some(signature) = signed else {
        assert!(!pleo_fuzz::reference::is_id(&id));
        return;
    };
    let signature = signature.as_str().as_bytes().to_vec();
    assert!(pleo_fuzz::reference::is_id(&id));
    let verifier = Verifier::new(secret);
    // `now` is the timestamp, so that the tolerance never hides the result of the signature.
    let verify = |verifier: &Verifier, id: &[u8], timestamp: u64, list: &[u8], body: &[u8]| {
        let text = timestamp.to_string();
        let headers = input::headers([Some(id), Some(text.as_bytes()), Some(list)]);
        verifier.verify(&headers, body, timestamp).map(|verified| {
            assert_eq!(verified.id().as_bytes(), id);
            assert_eq!(verified.timestamp(), timestamp);
        })
    };
    const FAILED: Result<(), VerifyError> = Err(VerifyError::SignatureMismatch);
    assert_eq!(verify(&verifier, &id, timestamp, &signature, &body), Ok(()));

    let other = timestamp ^ 1 << (position(0) % 64);
    assert_eq!(verify(&verifier, &id, other, &signature, &body), FAILED);

    let mut other = id.clone();
    let at = input::index(position(0), other.len());
    other[at] ^= bit;
    assert!(verify(&verifier, &other, timestamp, &signature, &body).is_err());
    other[at] = if id[at] == b'x' { b'y' } else { b'x' };
    assert_eq!(
        verify(&verifier, &other, timestamp, &signature, &body),
        FAILED
    );

    let mut other = signature.clone();
    let at = input::index(position(0), other.len());
    other[at] ^= bit;
    assert!(verify(&verifier, &id, timestamp, &other, &body).is_err());
    other[at] = u8::try_from(position(2) % 256).expect("below 256");
    assert_eq!(
        verify(&verifier, &id, timestamp, &other, &body).is_ok(),
        other == signature
    );
    other.remove(at);
    assert!(verify(&verifier, &id, timestamp, &other, &body).is_err());

    body.push(b' ');
    assert_eq!(verify(&verifier, &id, timestamp, &signature, &body), FAILED);
    body.pop();
    if !body.is_empty() {
        let at = input::index(position(0), body.len());
        body[at] ^= bit;
        assert_eq!(verify(&verifier, &id, timestamp, &signature, &body), FAILED);
        body[at] ^= bit;
        let shorter = &body[..body.len() - 1];
        assert_eq!(
            verify(&verifier, &id, timestamp, &signature, shorter),
            FAILED
        );
    }

    let at = input::index(position(0), key.len());
    key[at] ^= bit;
    let other = Verifier::new(Secret::from_bytes(&key).expect("as long as before"));
    assert_eq!(verify(&other, &id, timestamp, &signature, &body), FAILED);
});
