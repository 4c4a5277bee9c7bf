//! `begin` and `verify` reject the same headers as the reference implementation, and all headers come
//! from one set. Lines: now, tolerance, id, timestamp, signature list, then `name: value`.
#![no_main]

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use pleo_fuzz::{input, reference};
use pleo_webhook_verify::{Header, Secret, SignatureHeaders, Verifier, VerifyError};

const WEBHOOK: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];
const SVIX: [&str; 3] = ["svix-id", "svix-timestamp", "svix-signature"];

const KINDS: [Header; 3] = [Header::Id, Header::Timestamp, Header::Signature];

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    let now = input::number(&input::line(&mut rest));
    let tolerance = input::number(&input::line(&mut rest));
    let [id, timestamp, list] = [(); 3].map(|()| input::header(&mut rest));
    let headers = input::headers([id.as_deref(), timestamp.as_deref(), list.as_deref()]);
    let secret = Secret::from_bytes(&[7; 24]).expect("24 bytes");
    let verifier = Verifier::new(secret).with_tolerance(Duration::from_secs(tolerance));
    check(&verifier, &headers, now, tolerance);

    let pairs = pairs(rest);
    let mut map = HeaderMap::new();
    for (name, value) in &pairs {
        map.append(name, value.clone());
    }
    match SignatureHeaders::from_pairs(&map) {
        Ok(taken) => {
            let set = expected_set(&pairs);
            let expected = set.map(|name| only(&pairs, name));
            assert_eq!(values(&taken), expected);
            assert!(KINDS.iter().all(|header| !is_duplicated(&pairs, *header)));
            check(&verifier, &taken, now, tolerance);
        }
        Err(VerifyError::DuplicateHeader { header }) => assert!(is_duplicated(&pairs, header)),
        Err(error) => panic!("{error:?}, but only a duplicated header is an error"),
    }
    let upper_case = pairs.iter().map(|(name, value)| {
        let name = name.as_str().to_ascii_uppercase();
        (name, value.as_bytes())
    });
    let upper_case: Vec<(String, &[u8])> = upper_case.collect();
    let taken = SignatureHeaders::from_pairs(upper_case.iter().map(|(name, value)| (name, *value)));
    // If several headers are duplicated, each order names another one.
    let same = SignatureHeaders::from_pairs(&map).ok();
    assert_eq!(taken.ok().as_ref().map(values), same.as_ref().map(values));
});

fn values<'h>(headers: &SignatureHeaders<'h>) -> [Option<&'h [u8]>; 3] {
    [headers.id(), headers.timestamp(), headers.signature()]
}

fn check(verifier: &Verifier, headers: &SignatureHeaders<'_>, now: u64, tolerance: u64) {
    let expected = reference::check_headers(values(headers), now, tolerance);
    match verifier.begin(headers, now) {
        Ok(verification) => {
            assert_eq!(expected, Ok(()));
            let id = headers.id().expect("checked");
            assert_eq!(verification.claimed_id().as_bytes(), id);
            // No input contains a signature by this secret.
            let result = verifier.verify(headers, b"body", now);
            assert_eq!(result.err(), Some(VerifyError::SignatureMismatch));
        }
        Err(error) => {
            assert_eq!(expected, Err(error));
            assert_eq!(verifier.verify(headers, b"body", now), Err(error));
            assert!(!error.code().is_empty() && !error.to_string().is_empty());
        }
    }
}

fn pairs(mut rest: &[u8]) -> Vec<(HeaderName, HeaderValue)> {
    let mut pairs = Vec::new();
    while !rest.is_empty() && pairs.len() < 32 {
        let line = input::line(&mut rest);
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            pairs.push((name, value));
        }
    }
    pairs
}

fn count(pairs: &[(HeaderName, HeaderValue)], name: &str) -> usize {
    pairs.iter().filter(|pair| pair.0 == name).count()
}

fn only<'p>(pairs: &'p [(HeaderName, HeaderValue)], name: &str) -> Option<&'p [u8]> {
    let found = pairs.iter().find(|pair| pair.0 == name);
    found.map(|pair| pair.1.as_bytes())
}

/// Returns `true` if a header is duplicated in one of the sets.
fn is_duplicated(pairs: &[(HeaderName, HeaderValue)], header: Header) -> bool {
    let named = [WEBHOOK, SVIX].map(|set| set.into_iter().zip(KINDS));
    let mut named = named.into_iter().flatten();
    named.any(|(name, kind)| kind == header && count(pairs, name) > 1)
}

/// Returns the complete set, `webhook-` first; if none is complete, the one that has any header.
fn expected_set(pairs: &[(HeaderName, HeaderValue)]) -> [&'static str; 3] {
    let present = |set: [&str; 3]| set.iter().filter(|name| count(pairs, name) > 0).count();
    match (present(WEBHOOK), present(SVIX)) {
        (3, _) => WEBHOOK,
        (_, 3) => SVIX,
        (0, _) => SVIX,
        _ => WEBHOOK,
    }
}
