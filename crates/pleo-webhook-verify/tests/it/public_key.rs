//! Parsing public keys.

use std::error::Error as _;

use pleo_webhook_verify::{PublicKey, PublicKeyError};

use crate::support::SECRET;
use crate::support::keys::{SVIX_KEY, key};

/// The secret key of the Svix server's own test: private key and public key.
const SVIX_PRIVATE_KEY: &str =
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";

#[test]
fn malformed_key_gets_error_with_fix() {
    use PublicKeyError::*;
    let with = |before: &str, after: &str| format!("{before}{SVIX_KEY}{after}");
    let der = format!("whpk_MCowBQYDK2VwAyEA{}", &SVIX_KEY[5..]);
    let private_and_public = SVIX_PRIVATE_KEY.replace("whsk_", "whpk_");
    for (text, error, fix) in [
        ("", Empty, "set it to the sender's `whpk_…` key"),
        (" ", Whitespace, "remove the white space"),
        (&with(" ", ""), Whitespace, "remove the white space"),
        (&with("", "\n"), Whitespace, "remove the white space"),
        (&with("\"", "\""), Quotes, "remove the quotes"),
        (&with("", "'"), Quotes, "remove the quotes"),
        (
            &with("v1a,", ""),
            Version,
            "remove everything before `whpk_`",
        ),
        (
            &with("v1,", ""),
            Version,
            "remove everything before `whpk_`",
        ),
        (
            &format!("v1a,{SVIX_PRIVATE_KEY}"),
            PrivateKey,
            "use the `whpk_…` key of the pair",
        ),
        (
            &format!("v1,{SECRET}"),
            Secret,
            "use the sender's `whpk_…` key",
        ),
        (
            &format!("v1a,{SECRET}"),
            Secret,
            "use the sender's `whpk_…` key",
        ),
        (
            "v1a,1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
            MissingPrefix,
            "copy the complete key with its prefix",
        ),
        (&with("\u{a0}", ""), Whitespace, "remove the white space"),
        (&with("", "\u{a0}"), Whitespace, "remove the white space"),
        (&with("", "\u{2003}"), Whitespace, "remove the white space"),
        (
            SVIX_PRIVATE_KEY,
            PrivateKey,
            "an Ed25519 private key (`whsk_`)",
        ),
        ("whsk_", PrivateKey, "use the `whpk_…` key of the pair"),
        (SECRET, Secret, "a symmetric secret (`whsec_`)"),
        ("whsec_", Secret, "use the sender's `whpk_…` key"),
        (
            &SVIX_KEY[5..],
            MissingPrefix,
            "copy the complete key with its prefix",
        ),
        (
            "WHPK_",
            MissingPrefix,
            "copy the complete key with its prefix",
        ),
        (
            "-----BEGIN PUBLIC KEY-----",
            MissingPrefix,
            "does not begin with `whpk_`",
        ),
        (
            "whpk_",
            WrongLength { bytes: 0 },
            "0 bytes after `whpk_`, not 44",
        ),
        (
            SVIX_KEY.trim_end_matches('='),
            WrongLength { bytes: 43 },
            "copy the complete key",
        ),
        (&with("", "="), WrongLength { bytes: 45 }, "nothing else"),
        ("whpk_é", WrongLength { bytes: 2 }, "no white space either"),
        (
            &SVIX_KEY.replace('O', "\u{a0}"),
            WrongLength { bytes: 45 },
            "no white space either",
        ),
        (
            &SVIX_KEY.replace("whpk_", "whpk_ "),
            WrongLength { bytes: 45 },
            "no white space either",
        ),
        (
            &SVIX_KEY.replace('O', " "),
            InvalidBase64,
            "without white space",
        ),
        (&der, WrongLength { bytes: 60 }, "nothing else"),
        (
            &private_and_public,
            WrongLength { bytes: 88 },
            "nothing else",
        ),
        (
            &SVIX_KEY.replace("4=", "5="),
            InvalidBase64,
            "copy the complete key",
        ),
        (
            &SVIX_KEY.replace("4=", "=="),
            InvalidBase64,
            "copy the complete key",
        ),
        (
            &SVIX_KEY.replace("4=", "4A"),
            InvalidBase64,
            "copy the complete key",
        ),
        (
            &SVIX_KEY.replace('a', "_"),
            InvalidBase64,
            "copy the complete key",
        ),
        // 2 is the y of no point.
        (
            "whpk_AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            InvalidPoint,
            "copy the complete key",
        ),
    ] {
        assert_eq!(text.parse::<PublicKey>().err(), Some(error), "{text:?}");
        assert!(error.to_string().contains(fix), "{error}");
        for shown in ["MfKQ", "6Xb/", "1SiA"] {
            assert!(!format!("{error} {error:?}").contains(shown), "{error}");
        }
        assert!(error.source().is_none(), "{error:?}");
    }
}

#[test]
fn key_displays_as_it_parses() {
    let parsed: PublicKey = SVIX_KEY.parse().unwrap();
    assert_eq!(parsed.to_string(), SVIX_KEY);
    assert_eq!(format!("{parsed:?}"), format!("PublicKey({SVIX_KEY})"));
    assert_eq!(PublicKey::from_bytes(parsed.as_bytes()), Ok(parsed.clone()));
    assert_ne!(parsed, key(1));
}
