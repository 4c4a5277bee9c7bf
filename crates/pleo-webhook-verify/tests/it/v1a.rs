//! Verifying deliveries with public keys (`v1a`): lists, both versions in one list, keys, limits.

use std::time::Duration;

use pleo_webhook_verify::{
    KeyCountError, PublicKey, PublicKeyError, PublicKeyVerification, PublicKeyVerifier, Secret,
    SignatureHeaders, Verifier, VerifyError,
};

use crate::support::asymmetric::{self, to_entry};
use crate::support::keys::{SVIX_KEY, key, signed};
use crate::support::{NOW, TIMESTAMP, headers, headers_of, reference, secret};

/// The signature of the Svix server's own test, over the sample delivery of Pleo's documentation.
const SVIX_SIGNATURE: &str =
    "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";
const SAMPLE_ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const SAMPLE_BODY: &[u8] = b"{\"test\": 2432232314}";

/// Verifies that message with a list, in one call and in chunks. Returns the index of the key.
fn verify(verifier: &PublicKeyVerifier, list: &str) -> Result<usize, VerifyError> {
    let headers = headers("msg_1", TIMESTAMP, list);
    let one_call = verifier.verify(&headers, b"{}", NOW);
    let one_call = one_call.map(|verified| verified.secret_index());
    let streamed = verifier.begin(&headers, NOW).and_then(|mut stream| {
        stream.update(b"{");
        stream.update(b"}");
        Ok(stream.finish()?.secret_index())
    });
    assert_eq!(one_call, streamed);
    one_call
}

#[test]
fn accepts_signature_of_svix_server() {
    let verifier = PublicKeyVerifier::from(SVIX_KEY.parse::<PublicKey>().unwrap());
    for names in [
        ["webhook-id", "webhook-timestamp", "webhook-signature"],
        ["svix-id", "svix-timestamp", "svix-signature"],
    ] {
        let values = [SAMPLE_ID, TIMESTAMP, SVIX_SIGNATURE];
        let headers = SignatureHeaders::from_pairs(names.into_iter().zip(values)).unwrap();
        let verified = verifier.verify(&headers, SAMPLE_BODY, NOW).unwrap();
        assert_eq!((verified.id(), verified.timestamp()), (SAMPLE_ID, NOW));
        assert_eq!((verified.body(), verified.secret_index()), (SAMPLE_BODY, 0));

        for size in 1..=SAMPLE_BODY.len() {
            let mut stream = verifier.begin(&headers, NOW).unwrap();
            assert_eq!(stream.claimed_id(), SAMPLE_ID);
            SAMPLE_BODY
                .chunks(size)
                .for_each(|chunk| stream.update(chunk));
            assert_eq!(stream.finish().unwrap().id(), SAMPLE_ID);
        }
    }
}

#[test]
fn never_accepts_hmac_by_public_key() {
    let public = key(1);
    let text = public.to_string();
    let raw = public.as_bytes();
    let encoded = text.strip_prefix("whpk_").unwrap();
    let verifier = PublicKeyVerifier::new(public.clone());
    // What a forger knows: the key as bytes, as text and as base64.
    for known in [&raw[..], text.as_bytes(), encoded.as_bytes()] {
        let tag = reference::mac(known, b"msg_1", TIMESTAMP.as_bytes(), b"{}");
        let base64 = String::from_utf8(reference::to_base64(&tag)).unwrap();
        let forged = format!("v1,{base64}");
        assert_eq!(
            Secret::from_bytes(known)
                .unwrap()
                .sign("msg_1", NOW, b"{}")
                .unwrap()
                .as_str(),
            forged
        );
        assert_eq!(
            verify(&verifier, &forged),
            Err(VerifyError::NoAsymmetricSignature { v1: true })
        );
        for list in [
            format!("v1a,{base64}"),
            to_entry(&[&*tag, &*tag].concat()),
            to_entry(&[&*tag, &[0; 32]].concat()),
            format!("{forged} v1a,{base64}"),
        ] {
            assert_eq!(
                verify(&verifier, &list),
                Err(VerifyError::SignatureMismatch),
                "{list}"
            );
        }
        // Nor does a secret parse if it is a public key.
        assert!(text.parse::<Secret>().is_err());
    }
}

#[test]
fn verifier_with_secret_never_accepts_v1a() {
    let public = key(1);
    let valid = signed(1);
    let by_key = Verifier::from_secrets([
        secret(1),
        Secret::from_bytes(public.as_bytes()).unwrap(),
        Secret::from_bytes(public.to_string().as_bytes()).unwrap(),
    ])
    .unwrap();
    let result = |list: &str| {
        let headers = headers("msg_1", TIMESTAMP, list);
        by_key
            .verify(&headers, b"{}", NOW)
            .map(|verified| verified.secret_index())
    };
    assert_eq!(
        result(&valid),
        Err(VerifyError::NoSupportedSignature { v1a: true })
    );
    let relabelled = valid.replace("v1a,", "v1,");
    assert_eq!(result(&relabelled), Err(VerifyError::SignatureMismatch));
    // Either half is as long as a tag.
    let signature = asymmetric::sign(&[1; 32], b"msg_1", TIMESTAMP.as_bytes(), b"{}");
    for half in signature.chunks(32) {
        let list = to_entry(half).replace("v1a,", "v1,");
        assert_eq!(result(&list), Err(VerifyError::SignatureMismatch));
    }
}

#[test]
fn each_verifier_reads_its_own_version() {
    let symmetric = secret(9).sign("msg_1", NOW, b"{}").unwrap();
    let with_secret = Verifier::new(secret(9));
    let with_key = PublicKeyVerifier::new(key(1));
    for list in [
        format!("{symmetric} {}", signed(1)),
        format!("{} {symmetric}", signed(1)),
        format!(
            "v2,AAAA v1a v1, v1a, {} v1aa,AAAA {symmetric} v9",
            signed(1)
        ),
    ] {
        assert_eq!(verify(&with_key, &list), Ok(0), "{list}");
        let headers = headers("msg_1", TIMESTAMP, &list);
        assert!(with_secret.verify(&headers, b"{}", NOW).is_ok(), "{list}");
    }
    // A valid signature of one version does not help the other.
    for (list, by_key, by_secret) in [
        (format!("{symmetric} {}", signed(2)), false, true),
        (format!("v1,AAAA {}", signed(1)), true, false),
    ] {
        assert_eq!(verify(&with_key, &list).is_ok(), by_key);
        let headers = headers("msg_1", TIMESTAMP, &list);
        assert_eq!(with_secret.verify(&headers, b"{}", NOW).is_ok(), by_secret);
    }
}

#[test]
fn rejects_list_without_v1a() {
    let verifier = PublicKeyVerifier::new(key(1));
    for (list, v1) in [
        ("", false),
        ("v2,AAAA", false),
        ("V1A,AAAA v1aa,AAAA v1a", false),
        ("v1,AAAA", true),
        ("v2,AAAA v1,", true),
    ] {
        let headers = headers("msg_1", TIMESTAMP, list);
        assert_eq!(
            verifier.begin(&headers, NOW).err(),
            Some(VerifyError::NoAsymmetricSignature { v1 }),
            "{list}"
        );
    }
}

#[test]
fn skips_malformed_entries() {
    let verifier = PublicKeyVerifier::new(key(1));
    let valid = signed(1);
    let noncanonical = {
        // The last digit before the padding has four bits that must be 0.
        let (digits, padding) = valid.split_at(valid.len() - 3);
        let last = char::from(padding.as_bytes()[0] + 1);
        format!("{digits}{last}==")
    };
    let url_safe = valid.replace('+', "-").replace('/', "_");
    assert_ne!(url_safe, valid, "the signature has such a digit");
    for malformed in [
        "v1a,",
        "v1a,AAAA",
        valid.trim_end_matches('='),
        &format!("{valid}="),
        &noncanonical,
        &url_safe,
        &valid.replace("v1a,", "v1a, "),
        &valid.replace("v1a,", "v1a,v1a,"),
        &valid.replace(',', ";"),
        &to_entry(&[0; 63]),
        &to_entry(&[0; 65]),
        &format!("{valid},x"),
    ] {
        let has_v1a = malformed.starts_with("v1a,");
        assert_eq!(
            verify(&verifier, malformed),
            Err(if has_v1a {
                VerifyError::SignatureMismatch
            } else {
                VerifyError::NoAsymmetricSignature { v1: false }
            }),
            "{malformed}"
        );
        assert_eq!(
            verify(&verifier, &format!("{malformed} {valid}")),
            Ok(0),
            "{malformed}"
        );
        assert_eq!(
            verify(&verifier, &format!("{valid}  {malformed}")),
            Ok(0),
            "{malformed}"
        );
    }
}

#[test]
fn rotation_reports_first_matching_key() {
    let mut verifier = PublicKeyVerifier::new(key(1));
    assert_eq!(
        verify(&verifier, &signed(3)),
        Err(VerifyError::SignatureMismatch)
    );
    for byte in 2..=4 {
        verifier = verifier.and_key(key(byte)).unwrap();
    }
    for byte in 1..=4 {
        assert_eq!(verify(&verifier, &signed(byte)), Ok(usize::from(byte) - 1));
    }
    // During a rotation the sender signs with both keys, in either order.
    for list in [[4, 2], [2, 4]] {
        assert_eq!(verify(&verifier, &list.map(signed).join(" ")), Ok(1));
    }
}

#[test]
fn accepts_one_to_four_keys() {
    let verifier = |count| PublicKeyVerifier::from_keys((1..=count).map(key));
    assert_eq!(verifier(0).err(), Some(KeyCountError::NoKey));
    assert!(verifier(1).is_ok());
    assert_eq!(verifier(5).err(), Some(KeyCountError::TooManyKeys));
    let four = verifier(4).unwrap();
    assert_eq!(four.and_key(key(5)).err(), Some(KeyCountError::TooManyKeys));
}

/// The Svix server signs with the current key, then with up to ten old keys, the oldest first.
#[test]
fn accepts_eleven_signatures_of_repeated_rotations() {
    let list = |order: [u8; 11]| order.map(signed).join(" ");
    let matches_first = list([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    let matches_last = list([11, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1]);
    let one_key = PublicKeyVerifier::new(key(1));
    let two_keys = PublicKeyVerifier::from_keys([key(20), key(1)]).unwrap();
    for list in [&matches_first, &matches_last] {
        assert_eq!(verify(&one_key, list), Ok(0));
        assert_eq!(verify(&two_keys, list), Ok(1));
    }
}

#[test]
fn accepts_up_to_24_checks() {
    for (keys, signatures) in [(1, 24), (2, 12), (3, 8), (4, 6)] {
        // The last key matches; the others match nothing.
        let verifier = PublicKeyVerifier::from_keys((1..=keys).rev().map(key)).unwrap();
        let index = usize::from(keys) - 1;
        let others = vec![signed(9); signatures - 1].join(" ");
        let list = format!("{others} {}", signed(1));
        assert_eq!(verify(&verifier, &list), Ok(index), "last of {signatures}");
        let list = format!("{} {others}", signed(1));
        assert_eq!(verify(&verifier, &list), Ok(index), "first of {signatures}");
        let list = format!("{others} {}", signed(9));
        assert_eq!(
            verify(&verifier, &list),
            Err(VerifyError::SignatureMismatch)
        );

        for list in [
            format!("{others} {} {}", signed(9), signed(1)),
            format!("{} {} {others}", signed(1), signed(9)),
            vec![signed(1); signatures + 1].join(" "),
            vec![signed(1); 1000].join(" "),
        ] {
            let result = verify(&verifier, &list);
            assert_eq!(result, Err(VerifyError::TooManySignatures));
        }
        // What cannot be a signature causes no check, so it does not count.
        let malformed = vec!["v1a,AAAA"; 100].join(" ");
        let list = format!("{malformed} {others} {} {malformed}", signed(1));
        assert_eq!(verify(&verifier, &list), Ok(index));
    }
}

#[test]
fn checks_headers_before_signatures() {
    let verifier = PublicKeyVerifier::new(key(1)).with_tolerance(Duration::from_millis(10_999));
    let many = vec![signed(1); 25].join(" ");
    let code = |values: [Option<&str>; 3], now| {
        let headers = headers_of(values);
        let one_call = verifier.verify(&headers, b"{}", now).err();
        assert_eq!(one_call, verifier.begin(&headers, now).err());
        one_call.unwrap().code()
    };
    let (id, at, list) = (Some("msg_1"), Some(TIMESTAMP), Some(&*many));
    assert_eq!(code([None, at, list], NOW), "missing_header");
    assert_eq!(code([Some("a.b"), at, list], NOW), "invalid_id");
    assert_eq!(code([id, Some("+1"), list], NOW), "invalid_timestamp");
    assert_eq!(code([id, at, list], NOW + 11), "timestamp_too_old");
    assert_eq!(code([id, at, list], NOW - 11), "timestamp_too_new");
    assert_eq!(code([id, at, Some("v1,")], NOW), "no_asymmetric_signature");
    assert_eq!(code([id, at, list], NOW + 10), "too_many_signatures");
}

#[test]
fn each_error_has_code_and_message() {
    for (error, code, text) in [
        (
            VerifyError::NoAsymmetricSignature { v1: false },
            "no_asymmetric_signature",
            "the webhook signature header has no `v1a` signature",
        ),
        (
            VerifyError::NoAsymmetricSignature { v1: true },
            "no_asymmetric_signature",
            "the webhook signature header has no `v1a` signature, only `v1` (HMAC); use a `Verifier` with the sender's `whsec_…` secret",
        ),
        (
            VerifyError::TooManySignatures,
            "too_many_signatures",
            "the webhook signature header has too many `v1a` signatures: signatures times public keys are more than 24; remove public keys that were rotated out",
        ),
    ] {
        assert_eq!((error.code(), &*error.to_string()), (code, text));
    }
    assert_eq!(
        KeyCountError::TooManyKeys.to_string(),
        "a verifier has at most 4 public keys; remove those that were rotated out"
    );
    assert_eq!(
        KeyCountError::NoKey.to_string(),
        "a verifier needs a public key; set at least one"
    );
}

#[test]
fn debug_shows_no_body() {
    let verifier = PublicKeyVerifier::new(SVIX_KEY.parse().unwrap());
    let headers = headers("msg_1", TIMESTAMP, SVIX_SIGNATURE);
    let mut stream = verifier.begin(&headers, NOW).unwrap();
    stream.update(b"money");
    assert_eq!(
        format!("{stream:?}"),
        "PublicKeyVerification { claimed_id: \"msg_1\", .. }"
    );
    assert_eq!(
        format!("{verifier:?}"),
        format!("PublicKeyVerifier {{ keys: [PublicKey({SVIX_KEY})], tolerance: 300 }}")
    );
}

#[test]
fn all_types_are_send_sync_and_unwind_safe() {
    use std::panic::{RefUnwindSafe, UnwindSafe};
    fn holds<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() {}
    holds::<KeyCountError>();
    holds::<PublicKey>();
    holds::<PublicKeyError>();
    holds::<PublicKeyVerification<'_>>();
    holds::<PublicKeyVerifier>();
}

#[test]
fn state_is_as_large_as_documented() {
    let state = size_of::<PublicKeyVerification<'_>>();
    assert!((12_000..=12_400).contains(&state), "{state} bytes");
    let verifier = size_of::<PublicKeyVerifier>();
    assert!(verifier <= 800, "{verifier} bytes");
}

#[cfg(feature = "std")]
#[test]
fn verifies_by_system_clock() {
    let verifier = PublicKeyVerifier::new(key(1));
    let now = pleo_webhook_verify::unix_now();
    let check = |timestamp: u64| {
        let timestamp = timestamp.to_string();
        let list = asymmetric::entry(&[1; 32], b"msg_1", timestamp.as_bytes(), b"{}");
        let headers = headers("msg_1", &timestamp, &list);
        let streamed = verifier.begin_now(&headers).and_then(|mut stream| {
            stream.update(b"{}");
            stream.finish()
        });
        let one_call = verifier.verify_now(&headers, b"{}");
        assert_eq!(streamed.is_ok(), one_call.is_ok());
        one_call.map_or_else(|error| error.code(), |_| "ok")
    };
    assert_eq!(check(now), "ok");
    assert_eq!(check(now - 1000), "timestamp_too_old");
    assert_eq!(check(now + 1000), "timestamp_too_new");
}
