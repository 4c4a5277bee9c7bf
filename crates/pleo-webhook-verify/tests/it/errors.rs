//! Error codes and messages, and the auto traits of all types.

use std::error::Error as _;
use std::time::Duration;

use pleo_webhook_verify::{
    Header, InvalidId, Secret, SecretCountError, SecretError, Signature, SignatureHeaders,
    Verification, Verified, Verifier, VerifyError,
};

#[test]
fn each_error_has_code_and_message() {
    let header = Header::Id;
    let [skew, tolerance] = [400, 300].map(Duration::from_secs);
    for (error, code, text) in [
        (
            VerifyError::DuplicateHeader { header },
            "duplicate_header",
            "the webhook id header is duplicated",
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
            "the webhook timestamp is 400 s in the past; the tolerance is 300 s",
        ),
        (
            VerifyError::TimestampTooNew { skew, tolerance },
            "timestamp_too_new",
            "the webhook timestamp is 400 s in the future; the tolerance is 300 s",
        ),
        (
            VerifyError::NoSupportedSignature { v1a: false },
            "no_supported_signature",
            "the webhook signature header has no `v1` signature",
        ),
        (
            VerifyError::NoSupportedSignature { v1a: true },
            "no_supported_signature",
            "the webhook signature header has no `v1` signature, only `v1a` (Ed25519), which a `Verifier` does not take; use a subscription with a `whsec_…` secret",
        ),
        (
            VerifyError::SignatureMismatch,
            "signature_mismatch",
            "no signature matches the id, timestamp and body",
        ),
    ] {
        assert_eq!(error.code(), code);
        assert_eq!(error.to_string(), text);
        assert!(error.source().is_none(), "{error:?}");
    }
    assert_eq!(
        SecretCountError::TooManySecrets.to_string(),
        "a verifier has at most 4 secrets; remove those that were rotated out"
    );
    assert_eq!(
        SecretCountError::NoSecret.to_string(),
        "a verifier needs a secret; set at least one"
    );
}

#[test]
fn all_types_are_send_sync_and_unwind_safe() {
    use std::panic::{RefUnwindSafe, UnwindSafe};
    fn holds<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() {}
    holds::<Header>();
    holds::<InvalidId>();
    holds::<Secret>();
    holds::<SecretCountError>();
    holds::<SecretError>();
    holds::<Signature>();
    holds::<SignatureHeaders<'_>>();
    holds::<Verification<'_>>();
    holds::<Verified<Vec<u8>>>();
    holds::<Verifier>();
    holds::<VerifyError>();
}
