//! Properties of the verifier on random input that is mostly valid. The fuzz targets test the same
//! properties; `support::reference` is the reference implementation of both.

use std::str;
use std::time::Duration;

use pleo_webhook_verify::{Header, Secret, SignatureHeaders, Verifier, VerifyError};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::support::{headers, headers_of, reference};

type Bytes = Vec<u8>;

/// Generates text that matches a regex, and sometimes random bytes.
fn mostly(regex: &'static str) -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => regex.prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..300),
    ]
}

fn id() -> impl Strategy<Value = Bytes> {
    mostly("[!-\\-/-~]{1,20}|[ -~]{0,20}|[a-z]{250,260}")
}

fn timestamp() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        mostly("0|[1-9][0-9]{0,19}|[+ 0]?[0-9]{1,21}"),
        any::<u64>().prop_map(|number| number.to_string().into_bytes()),
    ]
}

/// Generates a signature list with placeholders: `@0` to `@3` are the valid base64 by that key.
fn list() -> impl Strategy<Value = Bytes> {
    let entry = prop_oneof![
        3 => "v1,@[0-3]",
        1 => "v1,@[0-3]@[0-3]",
        1 => "v1,[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=",
        1 => "v1,[A-Za-z0-9+/]{40,46}={0,2}",
        1 => "v1a?,?[A-Za-z0-9+/=@0]{0,50}",
        1 => "(v1a|v2|V1|v1),@0",
        1 => "[ -~]{0,4}",
    ];
    vec(entry, 0..6).prop_map(|entries| entries.join(" ").into_bytes())
}

/// Replaces the placeholders.
fn fill_in(list: &[u8], keys: &[Bytes], id: &[u8], timestamp: &[u8], body: &[u8]) -> Bytes {
    let Ok(mut list) = String::from_utf8(list.to_vec()) else {
        return list.to_vec();
    };
    for (nth, key) in keys.iter().enumerate() {
        let tag = reference::to_base64(&reference::mac(key, id, timestamp, body));
        list = list.replace(&format!("@{nth}"), str::from_utf8(&tag).unwrap());
    }
    list.into_bytes()
}

fn key() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 24..=75)
}

fn verifier(keys: &[Bytes]) -> Verifier {
    Verifier::from_secrets(keys.iter().map(|key| Secret::from_bytes(key).unwrap())).unwrap()
}

const NAMES: [(&str, Header); 6] = [
    ("webhook-id", Header::Id),
    ("webhook-timestamp", Header::Timestamp),
    ("webhook-signature", Header::Signature),
    ("svix-id", Header::Id),
    ("svix-timestamp", Header::Timestamp),
    ("svix-signature", Header::Signature),
];

/// Returns the index of a name in [`NAMES`].
fn known(name: &str) -> Option<usize> {
    NAMES
        .iter()
        .position(|(known, _)| *known == name.to_lowercase())
}

proptest! {
    #[test]
    fn agrees_with_reference_in_one_call_and_in_chunks(
        keys in vec(key(), 1..=4),
        id in option::weighted(0.95, id()),
        timestamp in option::weighted(0.95, timestamp()),
        list in option::weighted(0.95, list()),
        body in vec(any::<u8>(), 0..600),
        sizes in vec(0_usize..200, 0..10),
        skew in -400_i64..400,
        tolerance in select(vec![0, 1, 300, u64::MAX]),
    ) {
        let (id_bytes, at) = (id.clone().unwrap_or_default(), timestamp.clone().unwrap_or_default());
        let list = list.map(|list| fill_in(&list, &keys, &id_bytes, &at, &body));
        let values = [id.as_deref(), timestamp.as_deref(), list.as_deref()];
        let headers = headers_of(values);
        let now = reference::decimal(&at).unwrap_or(1000).saturating_add_signed(skew);
        let expected = reference::check_headers(values, now, tolerance).and_then(|()| {
            reference::signer(&keys, &id_bytes, &at, &body, list.as_ref().unwrap())
                .ok_or(VerifyError::SignatureMismatch)
        });

        let verifier = verifier(&keys).with_tolerance(Duration::from_secs(tolerance));
        let one_call = verifier.verify(&headers, &body, now).map(|verified| {
            assert_eq!(verified.id().as_bytes(), id_bytes);
            assert_eq!(verified.timestamp().to_string().as_bytes(), at);
            assert_eq!(verified.body(), body);
            verified.secret_index()
        });
        prop_assert_eq!(one_call, expected);

        let streamed = verifier.begin(&headers, now).and_then(|mut stream| {
            assert_eq!(stream.claimed_id().as_bytes(), id_bytes);
            let mut rest = &body[..];
            for size in sizes {
                let (chunk, after) = rest.split_at(size.min(rest.len()));
                stream.update(chunk);
                rest = after;
            }
            stream.update(rest);
            let verified = stream.finish()?;
            assert_eq!(verified.id().as_bytes(), id_bytes);
            assert_eq!(verified.timestamp().to_string().as_bytes(), at);
            Ok(verified.secret_index())
        });
        prop_assert_eq!(streamed, expected);
    }

    #[test]
    fn signed_message_fails_after_any_change_of_one_byte(
        key in key(),
        id in "[!-\\-/-~]{1,256}",
        timestamp: u64,
        body in vec(any::<u8>(), 0..600),
        change: Index,
        flip in 1_u8..,
    ) {
        let secret = Secret::from_bytes(&key).unwrap();
        let signature = secret.sign(&id, timestamp, &body).unwrap();
        let digits = timestamp.to_string();
        let tag = reference::to_base64(&reference::mac(&key, id.as_bytes(), digits.as_bytes(), &body));
        prop_assert_eq!(&signature.as_str().as_bytes()[3..], tag);
        let verifier = Verifier::new(secret).with_tolerance(Duration::MAX);
        let original = headers(&*id, &digits, signature.as_str());
        prop_assert!(verifier.verify(&original, &body, timestamp).is_ok());

        // Changes one byte of the signed content, the signature or the key.
        let mut parts = [id.into_bytes(), digits.into_bytes(), body, signature.as_str().into(), key];
        let mut at = change.index(parts.iter().map(Vec::len).sum());
        for part in &mut parts {
            if at < part.len() {
                part[at] ^= flip;
                break;
            }
            at -= part.len();
        }
        let [id, digits, body, signature, key] = &parts;
        let verifier = Verifier::new(Secret::from_bytes(key).unwrap()).with_tolerance(Duration::MAX);
        let changed = headers(id, digits, signature);
        prop_assert!(verifier.verify(&changed, body, timestamp).is_err());
    }

    #[test]
    fn parses_secrets_like_reference(
        key in vec(any::<u8>(), 0..80),
        before in select(vec!["", "", "", "", " ", "\"", "'", "v1,", "\n", "x"]),
        prefix in select(vec!["whsec_", "whsec_", "whsec_", "whsk_", "whpk_", "WHSEC_", ""]),
        after in select(vec!["", "", "", "", " ", "\"", "`", "\r\n", "=", "x", "\u{e9}"]),
        alphabet in select(vec![b"+/", b"+/", b"-_", b"+_"]),
        cut in 0_usize..4,
        change: Index,
        byte in select(b"AQgw+/-_= \n!".to_vec()),
        changed in prop::bool::weighted(0.2),
    ) {
        let mut encoded = reference::to_base64(&key);
        encoded.truncate(encoded.len().saturating_sub(cut));
        for digit in &mut encoded {
            *digit = match *digit {
                b'+' => alphabet[0],
                b'/' => alphabet[1],
                digit => digit,
            };
        }
        if changed && !encoded.is_empty() {
            let at = change.index(encoded.len());
            encoded[at] = byte;
        }
        let text = [before.as_bytes(), prefix.as_bytes(), &encoded, after.as_bytes()].concat();
        match (Secret::parse(&text), reference::secret(&text)) {
            (Ok(secret), Ok(key)) => {
                let signature = secret.sign("1", 1, b"2").unwrap();
                let tag = reference::to_base64(&reference::mac(&key, b"1", b"1", b"2"));
                prop_assert_eq!(&signature.as_str().as_bytes()[3..], tag);
            }
            (parsed, expected) => prop_assert_eq!(parsed.err(), expected.err(), "{:?}", text),
        }
    }

    #[test]
    fn takes_headers_from_one_set_and_rejects_duplicates(
        pairs in vec((0_usize..8, any::<bool>(), "[a-z]{0,3}"), 0..8),
    ) {
        let pairs: Vec<(String, String)> = pairs
            .into_iter()
            .map(|(nth, upper, value)| {
                let name = NAMES.get(nth).map_or("webhook-ids", |(name, _)| *name);
                (if upper { name.to_uppercase() } else { name.to_owned() }, value)
            })
            .collect();
        let found = SignatureHeaders::from_pairs(pairs.iter().map(|(name, value)| (name, value)));

        let mut values: [Vec<&[u8]>; 6] = Default::default();
        let mut duplicated = None;
        for (name, value) in &pairs {
            if let Some(nth) = known(name) {
                values[nth].push(value.as_bytes());
                if values[nth].len() > 1 && duplicated.is_none() {
                    duplicated = Some(NAMES[nth].1);
                }
            }
        }
        match (found, duplicated) {
            (Err(error), Some(header)) => {
                prop_assert_eq!(error, VerifyError::DuplicateHeader { header });
            }
            (Ok(headers), None) => {
                let [webhook, svix] = [0, 3].map(|start| {
                    [start, start + 1, start + 2].map(|nth| values[nth].first().copied())
                });
                let count = |set: &[Option<&[u8]>; 3]| set.iter().flatten().count();
                let expected = match (count(&webhook), count(&svix)) {
                    (3, _) => webhook,
                    (_, 3) | (0, _) => svix,
                    _ => webhook,
                };
                prop_assert_eq!([headers.id(), headers.timestamp(), headers.signature()], expected);
            }
            (found, duplicated) => prop_assert!(false, "{found:?}, duplicated: {duplicated:?}"),
        }
    }
}
