//! Verifying deliveries: bodies, secrets, tolerance, and what `Debug` shows.

use pleo_webhook_verify::{Headers, Secret, TooManySecrets, Verified, Verifier, VerifyError};

use crate::support::{NOW, SECRET, TIMESTAMP, secret, verifier};

#[test]
fn returns_body_as_passed() {
    let signature = secret(1).sign("msg_1", NOW, b"{}").unwrap();
    let headers = Headers::new(b"msg_1", TIMESTAMP, signature.as_str().as_bytes());
    let verifier = Verifier::new(secret(1));

    let verified: Verified<'_, Vec<u8>> = verifier.verify(&headers, b"{}".to_vec(), NOW).unwrap();
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
    let headers = Headers::new(b"msg_1", TIMESTAMP, signature.as_str().as_bytes());
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
        let headers = Headers::new(b"msg_1", TIMESTAMP, list.as_bytes());
        let verified = verifier.verify(&headers, b"{}", NOW).unwrap();
        assert_eq!(verified.secret_index(), 1);
    }
}

#[test]
fn rejects_fifth_secret() {
    let four = verifier([1, 2, 3, 4].map(secret));
    assert_eq!(four.and_secret(secret(5)).err(), Some(TooManySecrets));
}

#[test]
fn timestamp_error_has_skew_in_seconds() {
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
fn reports_v1a_signatures() {
    for (list, v1a) in [("v1a,AAAA", true), ("v2,AAAA", false), ("", false)] {
        let headers = Headers::new(b"msg_1", b"1000", list.as_bytes());
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
    let headers = Headers::new(b"msg_1", TIMESTAMP, signature.as_str().as_bytes());
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
fn clock_is_past_2026() {
    assert!(pleo_webhook_verify::unix_now() > 1_767_225_600);
}
