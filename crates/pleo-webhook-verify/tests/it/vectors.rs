//! Conformance vectors, verified in one call, in chunks and from a header map. `PLEO_VECTORS` names
//! another file of the same format.

use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs, str};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pleo_webhook_verify::{Secret, SecretError, SignatureHeaders, Verified, Verifier, VerifyError};
use serde::Deserialize;

use crate::support;

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    expect: String,
    secrets: Vec<String>,
    now: u64,
    tolerance: u64,
    id_b64: Option<String>,
    timestamp_b64: Option<String>,
    signature_b64: Option<String>,
    body_b64: String,
}

impl Case {
    fn verifier(&self) -> Verifier {
        parse(&self.secrets).with_tolerance(Duration::from_secs(self.tolerance))
    }

    fn assert<B>(&self, how: &str, result: Result<Verified<B>, VerifyError>) {
        let outcome = result.map_or_else(|error| error.code(), |_| "ok");
        assert_eq!(outcome, self.expect, "{}, {how}", self.name);
    }
}

fn parse(secrets: &[String]) -> Verifier {
    Verifier::from_secrets(secrets.iter().map(|secret| secret.parse().unwrap())).unwrap()
}

fn decode(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap()
}

#[test]
fn vectors_have_expected_outcome() {
    let file = env::var_os("PLEO_VECTORS").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/vectors/verify.json"
            ))
        },
        PathBuf::from,
    );
    let vectors: Vectors = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert!(!vectors.cases.is_empty());

    for case in vectors.cases {
        let verifier = case.verifier();
        let [id, timestamp, signature] = [&case.id_b64, &case.timestamp_b64, &case.signature_b64]
            .map(|header| header.as_deref().map(decode));
        let values = [id.as_deref(), timestamp.as_deref(), signature.as_deref()];
        let headers = support::headers_of(values);
        let body = decode(&case.body_b64);

        case.assert("one call", verifier.verify(&headers, &body, case.now));
        for size in [1, 2, 3, 7, 63, 64, 65, 1000, 4096] {
            let streamed = verifier.begin(&headers, case.now).and_then(|mut stream| {
                body.chunks(size).for_each(|chunk| stream.update(chunk));
                stream.finish()
            });
            case.assert(&format!("chunks of {size}"), streamed);
        }
        for prefix in ["webhook", "svix"] {
            if let Some(map) = header_map(prefix, values) {
                let result = SignatureHeaders::from_pairs(&map)
                    .and_then(|headers| verifier.verify(&headers, &body, case.now));
                case.assert(&format!("{prefix}- header map"), result);
            }
        }
    }
}

/// Makes a header map; `None` if a value is not valid in HTTP.
fn header_map(prefix: &str, values: [Option<&[u8]>; 3]) -> Option<http::HeaderMap> {
    let mut map = http::HeaderMap::new();
    for (name, value) in ["id", "timestamp", "signature"].into_iter().zip(values) {
        if let Some(value) = value {
            let name = http::HeaderName::try_from(format!("{prefix}-{name}")).unwrap();
            map.insert(name, http::HeaderValue::from_bytes(value).ok()?);
        }
    }
    Some(map)
}

#[derive(Deserialize)]
struct HeaderVectors {
    secret: String,
    now: u64,
    body: String,
    cases: Vec<HeaderCase>,
}

#[derive(Deserialize)]
struct HeaderCase {
    name: String,
    expect: String,
    headers: Vec<(String, String)>,
}

#[test]
fn header_vectors_have_expected_outcome() {
    let HeaderVectors {
        secret,
        now,
        body,
        cases,
    } = serde_json::from_str(include_str!("../vectors/headers.json")).unwrap();
    assert!(!cases.is_empty());

    let verifier = parse(&[secret]);
    for HeaderCase {
        name,
        expect,
        headers,
    } in cases
    {
        let pairs = headers.iter().map(|(name, value)| (name, value));
        let result = SignatureHeaders::from_pairs(pairs)
            .and_then(|headers| verifier.verify(&headers, body.as_bytes(), now));
        let outcome = result.map_or_else(|error| error.code(), |_| "ok");
        assert_eq!(outcome, expect, "{name}");
    }
}

#[derive(Deserialize)]
struct SecretVectors {
    cases: Vec<SecretCase>,
}

#[derive(Deserialize)]
struct SecretCase {
    name: String,
    expect: String,
    secret: String,
}

#[test]
fn secret_vectors_have_expected_outcome() {
    let vectors: SecretVectors =
        serde_json::from_str(include_str!("../vectors/secrets.json")).unwrap();
    assert!(!vectors.cases.is_empty());

    for case in vectors.cases {
        let result = case.secret.parse::<Secret>();
        let outcome = result.map_or_else(|error| snake_case(&error), |_| "ok".to_owned());
        assert_eq!(outcome, case.expect, "{}", case.name);
    }
}

/// Returns the name of the variant in snake case.
fn snake_case(error: &SecretError) -> String {
    let variant = format!("{error:?}");
    let mut name = String::new();
    for letter in variant.chars().take_while(char::is_ascii_alphanumeric) {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[derive(Deserialize)]
struct Captured {
    deliveries: Vec<Delivery>,
}

#[derive(Deserialize)]
struct Delivery {
    secrets_that_signed: Vec<String>,
    headers: Vec<(String, String)>,
    body: String,
}

/// Deliveries of a real Svix server. During a rotation it signs with each of its secrets.
#[test]
fn captured_deliveries_verify_with_each_signing_secret() {
    let captured: Captured =
        serde_json::from_str(include_str!("../vectors/captured.json")).unwrap();
    assert_eq!(captured.deliveries.len(), 4);

    for delivery in captured.deliveries {
        let pairs = delivery.headers.iter().map(|(name, value)| (name, value));
        let headers = SignatureHeaders::from_pairs(pairs).unwrap();
        let sent = str::from_utf8(headers.timestamp().unwrap()).unwrap();
        let now = sent.parse().unwrap();
        for secret in &delivery.secrets_that_signed {
            let verifier = parse(std::slice::from_ref(secret));
            let verified = verifier.verify(&headers, delivery.body.as_bytes(), now);
            assert_eq!(verified.unwrap().timestamp(), now);
            let tampered = delivery.body.replace("companyId", "companyID");
            assert_eq!(
                verifier.verify(&headers, tampered.as_bytes(), now),
                Err(VerifyError::SignatureMismatch)
            );
        }
    }
}
