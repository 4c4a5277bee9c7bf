//! Verifying deliveries: bodies, secrets, tolerance, and what `Debug` shows.

use std::time::Duration;

use pleo_webhook_verify::{Secret, SecretCountError, Verified, Verifier, VerifyError};

use crate::support::{NOW, SECRET, TIMESTAMP, headers, secret};

#[test]
fn returns_body_as_passed() {
    let signature = secret(1).sign("msg_1", NOW, b"{}").unwrap();
    let headers = headers("msg_1", TIMESTAMP, signature.as_str());
    let verifier = Verifier::new(secret(1));

    let verified: Verified<Vec<u8>> = verifier.verify(&headers, b"{}".to_vec(), NOW).unwrap();
    assert_eq!((verified.body(), verified.timestamp()), (&b"{}"[..], NOW));
    assert_eq!(verified.into_body(), b"{}");
    // By reference, and other types that are bytes.
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
fn rotation_reports_first_matching_secret() {
    let signature = secret(3).sign("msg_1", NOW, b"{}").unwrap();
    let headers = headers("msg_1", TIMESTAMP, signature.as_str());
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

    // During a rotation the sender signs with both secrets, in either order.
    for signers in [[4, 2], [2, 4]] {
        let list = signers.map(|byte| secret(byte).sign("msg_1", NOW, b"{}").unwrap().to_string());
        let list = list.join(" ");
        let both = self::headers("msg_1", TIMESTAMP, &list);
        let verified = verifier.verify(&both, b"{}", NOW).unwrap();
        assert_eq!(verified.secret_index(), 1);
    }
}

#[test]
fn accepts_one_to_four_secrets() {
    let verifier = |count| Verifier::from_secrets((1..=count).map(secret));
    assert_eq!(verifier(0).err(), Some(SecretCountError::NoSecret));
    assert!(verifier(1).is_ok());
    assert_eq!(verifier(5).err(), Some(SecretCountError::TooManySecrets));
    let four = verifier(4).unwrap();
    assert_eq!(
        four.and_secret(secret(5)).err(),
        Some(SecretCountError::TooManySecrets)
    );
}

#[test]
fn proof_outlives_headers_and_verifier() {
    let long = "x".repeat(256);
    let prove = |id: &str| -> Verified<Vec<u8>> {
        let signature = secret(1).sign(id, NOW, b"{}").unwrap();
        let headers = headers(id, TIMESTAMP, signature.as_str());
        let verifier = Verifier::from(secret(1));
        let stream = verifier.begin(&headers, NOW).map(|mut stream| {
            stream.update(b"{}");
            stream.finish()
        });
        assert_eq!(stream.unwrap().unwrap().id(), id);
        verifier.verify(&headers, b"{}".to_vec(), NOW).unwrap()
    };
    for id in ["m", &long] {
        assert_eq!(prove(id).clone().id(), id);
    }
}

#[test]
fn timestamp_error_has_skew_in_seconds() {
    let verifier = Verifier::new(secret(1)).with_tolerance(Duration::from_millis(10_999));
    let headers = headers("msg_1", "1000", "v1,");
    for (now, error) in [
        (
            1011,
            VerifyError::TimestampTooOld {
                skew: Duration::from_secs(11),
                tolerance: Duration::from_secs(10),
            },
        ),
        (
            900,
            VerifyError::TimestampTooNew {
                skew: Duration::from_secs(100),
                tolerance: Duration::from_secs(10),
            },
        ),
        (1010, VerifyError::SignatureMismatch),
    ] {
        assert_eq!(verifier.verify(&headers, b"", now), Err(error));
    }
}

#[test]
fn reports_v1a_signatures() {
    for (list, v1a) in [("v1a,AAAA", true), ("v2,AAAA", false), ("", false)] {
        let headers = headers("msg_1", "1000", list);
        assert_eq!(
            Verifier::new(secret(1)).begin(&headers, 1000).err(),
            Some(VerifyError::NoSupportedSignature { v1a })
        );
    }
}

#[test]
fn debug_shows_no_secret_and_no_body() {
    let secret: Secret = SECRET.parse().unwrap();
    let signature = secret.sign("msg_1", NOW, b"money").unwrap();
    let verifier = Verifier::new(secret);
    let headers = headers("msg_1", TIMESTAMP, signature.as_str());
    assert_eq!(
        format!("{:?}", verifier.begin(&headers, NOW).unwrap()),
        "Verification { claimed_id: \"msg_1\", .. }"
    );
    assert_eq!(
        format!("{:?}", verifier.verify(&headers, "money", NOW).unwrap()),
        "Verified { id: \"msg_1\", timestamp: 1614265330, secret_index: 0, .. }"
    );
    assert_eq!(
        format!("{verifier:?}"),
        "Verifier { secrets: [Secret(..)], tolerance: 300 }"
    );
}

#[cfg(feature = "std")]
#[test]
fn verifies_by_system_clock() {
    let now = pleo_webhook_verify::unix_now();
    assert!(now > 1_767_225_600, "2026-01-01");
    let verifier = Verifier::new(secret(1));
    let check = |timestamp: u64| {
        let signature = secret(1).sign("msg_1", timestamp, b"{}").unwrap();
        let timestamp = timestamp.to_string();
        let headers = headers("msg_1", &timestamp, signature.as_str());
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
