//! What the vectors don't reach: secrets, signing, header maps, rotation, and what is printed.

#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pleo_webhook_verify::{
    Header, Headers, Secret, SecretError, Signature, TooManySecrets, Verification, Verified,
    Verifier, VerifyError,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NOW: u64 = 1_614_265_330;

fn secret(byte: u8) -> Secret {
    Secret::from_bytes(&[byte; 32]).unwrap()
}

#[test]
fn a_secret_in_a_wrong_form_gets_an_error_that_names_the_repair() {
    use SecretError::*;
    let too_long = format!("whsec_{}", "A".repeat(104));
    for (text, error, repair) in [
        ("", Empty, "set it to the subscription's `whsec_…`"),
        (" ", Whitespace, "remove that"),
        (
            " whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            Whitespace,
            "remove that",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n",
            Whitespace,
            "remove that",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\r\n",
            Whitespace,
            "remove that",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\t",
            Whitespace,
            "remove that",
        ),
        (
            "\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"",
            Quotes,
            "remove them",
        ),
        (
            "'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'",
            Quotes,
            "remove them",
        ),
        (
            "`whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw`",
            Quotes,
            "remove them",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"",
            Quotes,
            "remove them",
        ),
        (
            "v1,whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            Version,
            "remove what stands before `whsec_`",
        ),
        (
            "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            PrivateKey,
            "give the subscription's `whsec_…`",
        ),
        (
            "whpk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            PublicKey,
            "give the subscription's `whsec_…`",
        ),
        (
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            MissingPrefix,
            "with its prefix",
        ),
        (
            "WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            MissingPrefix,
            "with its prefix",
        ),
        ("whsec", MissingPrefix, "with its prefix"),
        (&too_long, TooLong, "more than 75 bytes: give one secret"),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa-_",
            UrlSafe,
            "`+` for each `-`",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw-w==",
            UrlSafe,
            "`/` for each `_`",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS_w",
            UrlSafe,
            "`/` for each `_`",
        ),
        // 25 bytes without padding, and with half of it; 24 bytes cut off.
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAA",
            Unpadded,
            "append `=`",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAA=",
            Unpadded,
            "append `=`",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",
            Unpadded,
            "copy it whole",
        ),
        // No text of base64 has a last group of one character, or ends in set bits.
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwA",
            InvalidBase64,
            "copy it whole",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAB==",
            InvalidBase64,
            "copy it whole",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw====",
            InvalidBase64,
            "copy it whole",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw==",
            InvalidBase64,
            "copy it whole",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAAA==",
            InvalidBase64,
            "copy it whole",
        ),
        (
            "whsec_MfKQ 9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            InvalidBase64,
            "copy it whole",
        ),
        (
            "whsec_MfKQ9r8+KYqrTwjUPD8ILPZIo2LaLa-_",
            InvalidBase64,
            "copy it whole",
        ),
        (
            "whsec_",
            TooShort { bytes: 0 },
            "0 bytes, at least 24 are needed",
        ),
        (
            "whsec_AAAA",
            TooShort { bytes: 3 },
            "3 bytes, at least 24 are needed",
        ),
    ] {
        assert_eq!(text.parse::<Secret>().err(), Some(error), "{text:?}");
        assert!(error.to_string().contains(repair), "{error}");
        assert!(!error.to_string().contains("MfKQ"), "{error}");
    }
    let padded = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAA==";
    assert!(padded.parse::<Secret>().is_ok());
}

#[test]
fn a_key_has_24_to_75_bytes() {
    for (len, error) in [
        (0, Some(SecretError::TooShort { bytes: 0 })),
        (23, Some(SecretError::TooShort { bytes: 23 })),
        (24, None),
        (75, None),
        (76, Some(SecretError::TooLong)),
    ] {
        let key = vec![7; len];
        assert_eq!(Secret::from_bytes(&key).err(), error, "{len}");
        let text = format!("whsec_{}", STANDARD.encode(&key));
        assert_eq!(text.parse::<Secret>().err(), error, "{text}");
    }
}

#[test]
fn nothing_of_a_secret_or_a_body_is_printed() {
    let secret: Secret = SECRET.parse().unwrap();
    assert_eq!(format!("{secret:?}"), "Secret(..)");
    let signature = secret.sign("msg_1", NOW, b"money").unwrap();
    let verifier = Verifier::new(secret);
    let headers = Headers::new(b"msg_1", b"1614265330", signature.as_str().as_bytes());
    assert_eq!(
        format!("{:?}", verifier.begin(&headers, NOW).unwrap()),
        "Verification { claimed_id: \"msg_1\", .. }"
    );
    assert_eq!(
        format!("{:?}", verifier.verify(&headers, "money", NOW).unwrap()),
        "Verified { id: \"msg_1\", timestamp: 1614265330, secret_index: 0, .. }"
    );
    let shown = format!("{verifier:?}");
    let nothing = "first: Secret(..), others: [None, None, None], tolerance: 300";
    assert_eq!(shown, format!("Verifier {{ {nothing} }}"));
}

#[test]
fn a_body_given_by_value_comes_back_verified_or_not_at_all() {
    let signature = secret(1).sign("msg_1", NOW, b"{}").unwrap();
    let headers = Headers::new(b"msg_1", b"1614265330", signature.as_str().as_bytes());
    let verifier = Verifier::new(secret(1));

    let verified: Verified<'_, Vec<u8>> = verifier.verify(&headers, b"{}".to_vec(), NOW).unwrap();
    assert_eq!((verified.body(), verified.timestamp()), (&b"{}"[..], NOW));
    assert_eq!(verified.into_body(), b"{}");
    // By reference, and of any type that is bytes.
    assert_eq!(
        verifier.verify(&headers, "{}", NOW).unwrap().into_body(),
        "{}"
    );
    assert_eq!(
        verifier.verify(&headers, b"{}", NOW).unwrap().into_body(),
        b"{}"
    );
}

#[test]
fn all_types_cross_threads_and_outlive_a_panic() {
    use std::panic::{RefUnwindSafe, UnwindSafe};
    fn holds<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() {}
    holds::<Header>();
    holds::<Headers<'_>>();
    holds::<Secret>();
    holds::<SecretError>();
    holds::<Signature>();
    holds::<TooManySecrets>();
    holds::<Verification<'_>>();
    holds::<Verified<'_, Vec<u8>>>();
    holds::<Verifier>();
    holds::<VerifyError>();
}

#[test]
fn each_error_has_a_code_and_says_what_is_wrong() {
    let (header, skew, tolerance) = (Header::Id, 400, 300);
    for (error, code, text) in [
        (
            VerifyError::DuplicateHeader { header },
            "duplicate_header",
            "the webhook id header stands more than once",
        ),
        (
            VerifyError::MissingHeader {
                header: Header::Timestamp,
            },
            "missing_header",
            "the webhook timestamp header is missing",
        ),
        (
            VerifyError::MissingHeader {
                header: Header::Signature,
            },
            "missing_header",
            "the webhook signature header is missing",
        ),
        (
            VerifyError::InvalidId,
            "invalid_id",
            "the webhook id is not 1 to 256 visible ASCII characters without a full stop",
        ),
        (
            VerifyError::InvalidTimestamp,
            "invalid_timestamp",
            "the webhook timestamp is not a plain decimal number of Unix seconds",
        ),
        (
            VerifyError::TimestampTooOld { skew, tolerance },
            "timestamp_too_old",
            "the webhook timestamp is 400 s in the past, more than the tolerance of 300 s",
        ),
        (
            VerifyError::TimestampTooNew { skew, tolerance },
            "timestamp_too_new",
            "the webhook timestamp is 400 s in the future, more than the tolerance of 300 s",
        ),
        (
            VerifyError::NoSupportedSignature { v1a: false },
            "no_supported_signature",
            "the webhook signature header holds no `v1,` signature",
        ),
        (
            VerifyError::NoSupportedSignature { v1a: true },
            "no_supported_signature",
            "the webhook signature header holds only `v1a` (Ed25519) signatures, which are not supported",
        ),
        (
            VerifyError::SignatureMismatch,
            "signature_mismatch",
            "no signature matches the id, timestamp and body",
        ),
    ] {
        assert_eq!(error.code(), code);
        assert_eq!(error.to_string(), text);
    }
    assert_eq!(
        TooManySecrets.to_string(),
        "a verifier takes at most 4 secrets: drop those that were rotated out"
    );
}

#[test]
fn a_rotation_says_which_secret_matched_and_has_a_limit() {
    let signature = secret(3).sign("msg_1", NOW, b"{}").unwrap();
    let headers = Headers::new(b"msg_1", b"1614265330", signature.as_str().as_bytes());
    let mut verifier = Verifier::new(secret(1));
    assert_eq!(
        verifier.verify(&headers, b"{}", NOW),
        Err(VerifyError::SignatureMismatch)
    );
    for byte in 2..=4 {
        verifier = verifier.and_secret(secret(byte)).unwrap();
    }
    let verified = verifier.verify(&headers, b"{}", NOW).unwrap();
    assert_eq!((verified.id(), verified.secret_index()), ("msg_1", 2));

    // While the sender rotates it signs with both; the first one counts, in whichever order.
    for signers in [[4, 2], [2, 4]] {
        let list = signers.map(|byte| secret(byte).sign("msg_1", NOW, b"{}").unwrap().to_string());
        let list = list.join(" ");
        let headers = Headers::new(b"msg_1", b"1614265330", list.as_bytes());
        let verified = verifier.verify(&headers, b"{}", NOW).unwrap();
        assert_eq!(verified.secret_index(), 1);
    }
    assert_eq!(verifier.and_secret(secret(5)).err(), Some(TooManySecrets));
}

#[test]
fn signing_reproduces_the_published_sample() {
    let secret: Secret = SECRET.parse().unwrap();
    let signature = secret
        .sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            NOW,
            b"{\"test\": 2432232314}",
        )
        .unwrap();
    assert_eq!(
        signature.as_str(),
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    );
    assert_eq!(signature.to_string(), signature.as_str());
    assert_eq!(
        format!("{signature:?}"),
        "Signature(\"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=\")"
    );
    assert_eq!(
        secret.sign("msg_a.b", NOW, b""),
        Err(VerifyError::InvalidId)
    );
}

#[test]
fn skew_is_reported_in_seconds() {
    let verifier = Verifier::new(secret(1)).with_tolerance(10);
    let headers = Headers::new(b"msg_1", b"1000", b"v1,");
    for (now, error) in [
        (
            1011,
            VerifyError::TimestampTooOld {
                skew: 11,
                tolerance: 10,
            },
        ),
        (
            900,
            VerifyError::TimestampTooNew {
                skew: 100,
                tolerance: 10,
            },
        ),
        (1010, VerifyError::SignatureMismatch),
    ] {
        assert_eq!(verifier.verify(&headers, b"", now), Err(error));
    }
}

#[test]
fn only_ed25519_is_told_apart() {
    for (list, v1a) in [("v1a,AAAA", true), ("v2,AAAA", false), ("", false)] {
        let headers = Headers::new(b"msg_1", b"1000", list.as_bytes());
        assert_eq!(
            Verifier::new(secret(1)).begin(&headers, 1000).err(),
            Some(VerifyError::NoSupportedSignature { v1a })
        );
    }
}

#[cfg(feature = "std")]
#[test]
fn the_systems_clock_is_past_2026() {
    assert!(pleo_webhook_verify::unix_now() > 1_767_225_600);
}

#[cfg(feature = "http")]
mod header_maps {
    use super::*;
    use http::{HeaderMap, HeaderName, HeaderValue};
    use pleo_webhook_verify::Header::{Id, Signature, Timestamp};

    fn check(headers: &[(&str, &str)]) -> Result<(), VerifyError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        Verifier::new(secret(1))
            .verify(&Headers::from_map(&map)?, b"{}", NOW)
            .map(drop)
    }

    #[test]
    fn the_three_headers_come_from_one_set() {
        let good = secret(1).sign("msg_1", NOW, b"{}").unwrap();
        let good = good.as_str();
        let at = "1614265330";
        let missing = |header| Err(VerifyError::MissingHeader { header });
        let webhook = [
            ("webhook-id", "msg_1"),
            ("webhook-timestamp", at),
            ("webhook-signature", good),
        ];
        let svix = [
            ("svix-id", "msg_1"),
            ("svix-timestamp", at),
            ("svix-signature", good),
        ];
        let bad_svix = [
            ("svix-id", "msg_1"),
            ("svix-timestamp", at),
            ("svix-signature", "v1,AA=="),
        ];

        assert_eq!(check(&webhook), Ok(()));
        assert_eq!(check(&svix), Ok(()));
        assert_eq!(check(&[&webhook[..], &bad_svix].concat()), Ok(()));
        assert_eq!(
            check(&[&webhook[..1], &svix[1..]].concat()),
            missing(Timestamp)
        );
        assert_eq!(check(&[&svix[..1], &webhook[1..]].concat()), missing(Id));
        assert_eq!(check(&svix[..2]), missing(Signature));
        assert_eq!(check(&[&webhook[..1], &svix].concat()), Ok(()));
        assert_eq!(check(&[]), missing(Id));
    }

    #[test]
    fn a_header_that_stands_twice_is_refused() {
        let good = secret(1).sign("msg_1", NOW, b"{}").unwrap();
        let all = [
            ("webhook-id", "msg_1"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", good.as_str()),
        ];
        for (again, header) in all.into_iter().zip([Id, Timestamp, Signature]) {
            assert_eq!(
                check(&[&all[..], &[again]].concat()),
                Err(VerifyError::DuplicateHeader { header })
            );
        }
    }
}
