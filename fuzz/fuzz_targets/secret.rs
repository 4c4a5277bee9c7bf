//! `Secret::parse` agrees with the reference implementation, and its key is the decoded one. The
//! complete input is the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pleo_fuzz::reference;
use pleo_webhook_verify::{Secret, SecretError};

fuzz_target!(|data: &[u8]| {
    check(data);
    // Saves the fuzzer from finding the prefix.
    check(&[b"whsec_", data].concat());

    match Secret::from_bytes(data) {
        Ok(secret) => check_key(&secret, data),
        Err(SecretError::TooShort { bytes }) => {
            assert_eq!(bytes, data.len());
            assert!(bytes < 24);
        }
        Err(error) => {
            assert_eq!(error, SecretError::TooLong);
            assert!(data.len() > 75);
        }
    }
});

fn check(text: &[u8]) {
    match (Secret::parse(text), reference::secret(text)) {
        (Ok(secret), Ok(key)) => {
            check_key(&secret, &key);
            let shown = [b"whsec_", &reference::to_base64(&key)[..]].concat();
            assert_eq!(shown, text, "a key has exactly one spelling");
        }
        (Err(error), Err(expected)) => assert_eq!(error, expected),
        (parsed, expected) => panic!("{parsed:?}, but expected {expected:?}"),
    }
    if let Ok(text) = str::from_utf8(text) {
        let parsed: Result<Secret, SecretError> = text.parse();
        assert_eq!(parsed.err(), Secret::parse(text.as_bytes()).err());
    }
}

fn check_key(secret: &Secret, key: &[u8]) {
    assert_eq!(format!("{secret:?}"), "Secret(..)");
    let signature = secret.sign("1", 1, key).expect("a valid id");
    let expected = reference::to_base64(&reference::mac(key, b"1", b"1", key));
    let encoded = signature.as_str().strip_prefix("v1,").expect("version 1");
    assert_eq!(encoded.as_bytes(), expected);
}
