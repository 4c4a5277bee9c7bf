//! Properties of the verification with public keys, on random input that is mostly valid.

use std::time::Duration;

use pleo_webhook_verify::{PublicKey, PublicKeyVerifier, VerifyError};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::support::asymmetric::{self, entry};
use crate::support::{headers, headers_of, reference};

/// Generates a signature list with placeholders: `@0` to `@3` are the valid base64 by that key.
fn list() -> impl Strategy<Value = String> {
    let entry = || {
        prop_oneof![
            6 => "v1a,@[0-3]",
            1 => "v1a,[A-Za-z0-9+/]{85}[AQgw]==",
            1 => "v1a,[A-Za-z0-9+/]{84,87}={0,2}",
            1 => "(v1|v2|V1A|v1aa|v1a,v1a),@0",
            1 => "v1a?,?[A-Za-z0-9+/=@0]{0,90}",
        ]
    };
    // The lists of 25 entries and more have too many for one key.
    prop_oneof![3 => vec(entry(), 0..6), 1 => vec(entry(), 6..40)]
        .prop_map(|entries| entries.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn agrees_with_ring_in_one_call_and_in_chunks(
        seeds in vec(any::<[u8; 32]>(), 1..=4),
        id in "[!-\\-/-~]{1,20}|[ -~]{0,3}",
        timestamp in "[1-9][0-9]{0,18}|[+0]?[0-9]{1,21}",
        list in list(),
        body in vec(any::<u8>(), 0..600),
        sizes in vec(0_usize..200, 0..10),
        skew in -4_i64..4,
        tolerance in select(vec![0, 3, 300]),
        tamper in prop::bool::weighted(0.2),
    ) {
        let at = timestamp.as_bytes();
        let mut list = list;
        for (nth, seed) in seeds.iter().enumerate() {
            let signature = asymmetric::sign(seed, id.as_bytes(), at, &body);
            let base64 = String::from_utf8(reference::to_base64(&signature)).unwrap();
            list = list.replace(&format!("@{nth}"), &base64);
        }
        let mut body = body;
        if tamper {
            body.push(b' ');
        }
        let keys: Vec<[u8; 32]> = seeds.iter().map(asymmetric::public_key).collect();
        let values = [id.as_bytes(), at, list.as_bytes()].map(Some);
        let now = reference::decimal(at).unwrap_or(1000).saturating_add_signed(skew);
        let expected = asymmetric::check_headers(values, keys.len(), now, tolerance).and_then(|()| {
            asymmetric::signer(&keys, id.as_bytes(), at, &body, list.as_bytes())
                .ok_or(VerifyError::SignatureMismatch)
        });

        let keys = keys.iter().map(|key| PublicKey::from_bytes(key).unwrap());
        let verifier = PublicKeyVerifier::from_keys(keys)
            .unwrap()
            .with_tolerance(Duration::from_secs(tolerance));
        let headers = headers_of(values);
        let one_call = verifier.verify(&headers, &body, now).map(|verified| {
            assert_eq!((verified.id(), verified.body()), (&*id, &*body));
            assert_eq!(verified.timestamp().to_string(), timestamp);
            verified.secret_index()
        });
        prop_assert_eq!(one_call, expected);

        let streamed = verifier.begin(&headers, now).and_then(|mut stream| {
            let mut rest = &body[..];
            for size in sizes {
                let (chunk, after) = rest.split_at(size.min(rest.len()));
                stream.update(chunk);
                rest = after;
            }
            stream.update(rest);
            Ok(stream.finish()?.secret_index())
        });
        prop_assert_eq!(streamed, expected);
    }

    #[test]
    fn signed_message_fails_after_any_change_of_one_byte(
        seed: [u8; 32],
        id in "[!-\\-/-~]{1,256}",
        timestamp: u64,
        body in vec(any::<u8>(), 0..600),
        change: Index,
        flip in 1_u8..,
    ) {
        let digits = timestamp.to_string();
        let list = entry(&seed, id.as_bytes(), digits.as_bytes(), &body);
        let key = asymmetric::public_key(&seed);
        let verifier = |key: &[u8]| {
            let key = PublicKey::from_bytes(key.try_into().unwrap());
            key.map(|key| PublicKeyVerifier::new(key).with_tolerance(Duration::MAX))
        };
        let original = headers(&*id, &digits, &list);
        prop_assert!(verifier(&key).unwrap().verify(&original, &body, timestamp).is_ok());

        // Changes one byte of the signed content, the signature or the key.
        let mut parts = [id.into_bytes(), digits.into_bytes(), body, list.into_bytes(), key.to_vec()];
        let mut at = change.index(parts.iter().map(Vec::len).sum());
        for part in &mut parts {
            if at < part.len() {
                part[at] ^= flip;
                break;
            }
            at -= part.len();
        }
        let [id, digits, body, list, key] = &parts;
        if let Ok(verifier) = verifier(key) {
            let changed = headers(id, digits, list);
            prop_assert!(verifier.verify(&changed, body, timestamp).is_err());
        }
    }

    #[test]
    fn key_parses_if_and_only_if_it_is_a_key(
        seed: [u8; 32],
        bytes: [u8; 32],
        random_bytes: bool,
    ) {
        let bytes = if random_bytes { bytes } else { asymmetric::public_key(&seed) };
        let parsed = PublicKey::from_bytes(&bytes);
        prop_assert_eq!(parsed.is_ok(), asymmetric::is_key(&bytes));
        let text = format!("whpk_{}", String::from_utf8(reference::to_base64(&bytes)).unwrap());
        let parsed_text = text.parse::<PublicKey>();
        let expected = asymmetric::parse_key(text.as_bytes());
        prop_assert_eq!(parsed_text.as_ref().ok().map(PublicKey::as_bytes), expected.as_ref());
        prop_assert_eq!(parsed_text, parsed);
    }
}
