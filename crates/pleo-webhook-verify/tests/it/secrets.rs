//! Parsing secrets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pleo_webhook_verify::{Secret, SecretError};

use crate::support::SECRET;

#[test]
fn malformed_secret_gets_error_with_fix() {
    use SecretError::*;
    let too_long = format!("whsec_{}", "A".repeat(104));
    for (text, error, fix) in [
        ("", Empty, "set it to the subscription's `whsec_…` secret"),
        (" ", Whitespace, "remove the white space"),
        (
            " whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            Whitespace,
            "remove the white space",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n",
            Whitespace,
            "remove the white space",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\r\n",
            Whitespace,
            "remove the white space",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\t",
            Whitespace,
            "remove the white space",
        ),
        (
            "\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"",
            Quotes,
            "remove the quotes",
        ),
        (
            "'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'",
            Quotes,
            "remove the quotes",
        ),
        (
            "`whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw`",
            Quotes,
            "remove the quotes",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"",
            Quotes,
            "remove the quotes",
        ),
        (
            "v1,whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            Version,
            "remove everything before `whsec_`",
        ),
        (
            "v1a,whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            Version,
            "remove everything before `whsec_`",
        ),
        (
            "v1a,whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            PrivateKey,
            "which a `Verifier` does not take",
        ),
        (
            "v1a,whpk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            PublicKey,
            "which a `Verifier` does not take",
        ),
        (
            "v1,MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            MissingPrefix,
            "copy the complete secret with its prefix",
        ),
        (
            "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            PrivateKey,
            "use the subscription's `whsec_…` secret",
        ),
        (
            "whpk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            PublicKey,
            "use the subscription's `whsec_…` secret",
        ),
        (
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            MissingPrefix,
            "copy the complete secret with its prefix",
        ),
        (
            "WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            MissingPrefix,
            "copy the complete secret with its prefix",
        ),
        (
            "whsec",
            MissingPrefix,
            "copy the complete secret with its prefix",
        ),
        (&too_long, TooLong, "longer than 75 bytes; set one secret"),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa-_",
            UrlSafe,
            "replace `-` with `+`",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw-w==",
            UrlSafe,
            "`_` with `/`",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS_w",
            UrlSafe,
            "`_` with `/`",
        ),
        // 25 bytes without padding and with half of it; 24 bytes, cut off.
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
            "copy the complete secret",
        ),
        // Base64 never ends with a group of one character, or with padding bits set.
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwA",
            InvalidBase64,
            "copy the complete secret",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAB==",
            InvalidBase64,
            "copy the complete secret",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw====",
            InvalidBase64,
            "copy the complete secret",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw==",
            InvalidBase64,
            "copy the complete secret",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAAA==",
            InvalidBase64,
            "copy the complete secret",
        ),
        (
            "whsec_MfKQ 9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            InvalidBase64,
            "copy the complete secret",
        ),
        (
            "whsec_MfKQ9r8+KYqrTwjUPD8ILPZIo2LaLa-_",
            InvalidBase64,
            "copy the complete secret",
        ),
        ("whsec_", TooShort { bytes: 0 }, "0 bytes, fewer than 24"),
        (
            "whsec_AAAA",
            TooShort { bytes: 3 },
            "3 bytes, fewer than 24",
        ),
    ] {
        assert_eq!(text.parse::<Secret>().err(), Some(error), "{text:?}");
        assert!(error.to_string().contains(fix), "{error}");
        assert!(!error.to_string().contains("MfKQ"), "{error}");
    }
    let padded = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAA==";
    assert!(padded.parse::<Secret>().is_ok());
}

#[test]
fn accepts_keys_of_24_to_75_bytes() {
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
fn debug_shows_no_key() {
    let secret: Secret = SECRET.parse().unwrap();
    assert_eq!(format!("{secret:?}"), "Secret(..)");
}
