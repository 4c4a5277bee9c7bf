//! Signs and verifies messages.

use core::time::Duration;

use http::header::{CONTENT_TYPE, InvalidHeaderValue};
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use pleo_receiver::StoredMessage;
use pleo_receiver::verify::{Secret, SignatureHeaders, Verified, Verifier};
use uuid::Uuid;

use crate::failure::{Failure, chain};

/// A proof that a message was signed.
pub(crate) struct Proof {
    /// The number of the secret, from 1.
    pub(crate) secret: usize,
    pub(crate) secrets: usize,
    pub(crate) signed_at: Option<Timestamp>,
}

/// Returns a new message id.
pub(crate) fn new_id() -> String {
    format!("msg_{}", Uuid::new_v4().simple())
}

/// Returns the signature headers of a message, with a signature by each secret.
pub(crate) fn signature_headers(
    secrets: &[Secret],
    id: &str,
    timestamp: u64,
    body: &[u8],
) -> Result<[(&'static str, String); 3], Failure> {
    let mut signatures = Vec::new();
    for secret in secrets {
        let signature = secret.sign(id, timestamp, body);
        let signature = signature.map_err(|error| Failure::usage("`--id`", &chain(&error)))?;
        signatures.push(signature.to_string());
    }
    Ok([
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", timestamp.to_string()),
        ("webhook-signature", signatures.join(" ")),
    ])
}

/// Returns the position of the secret that signed a message, and the proof. Accepts any timestamp.
pub(crate) fn matching_secret<'b>(
    secrets: &[Secret],
    headers: &SignatureHeaders<'_>,
    body: &'b [u8],
) -> Option<(usize, Verified<&'b [u8]>)> {
    secrets.iter().enumerate().find_map(|(index, secret)| {
        let verifier = Verifier::new(secret.clone()).with_tolerance(Duration::MAX);
        let verified = verifier.verify(headers, body, 0).ok()?;
        Some((index, verified))
    })
}

/// Verifies the stored body with the stored headers, at any time.
pub(crate) fn prove(message: &StoredMessage, secrets: &[Secret]) -> Result<Proof, String> {
    let headers = SignatureHeaders::from_pairs(message.headers.iter());
    let headers = headers.map_err(|error| format!("the stored headers are invalid: {error}"))?;
    if headers.signature().is_none() {
        return Err(
            "stored without signature headers, by `catch-up` or by an older release, so that it \
             cannot be verified"
                .to_owned(),
        );
    }
    let (index, verified) = matching_secret(secrets, &headers, &message.body).ok_or(
        "no secret matches: give the secret of the time of arrival with `--secret`, or the \
         message was changed since",
    )?;
    if verified.id() != &*message.entry.webhook_id {
        return Err(format!("it was signed with the id `{}`", verified.id()));
    }
    let timestamp = i64::try_from(verified.timestamp()).ok();
    Ok(Proof {
        secret: index + 1,
        secrets: secrets.len(),
        signed_at: timestamp.and_then(|seconds| Timestamp::from_second(seconds).ok()),
    })
}

/// Returns the headers of a delivery: the content type and these.
pub(crate) fn header_map(headers: &[(&'static str, String)]) -> Result<HeaderMap, Failure> {
    let mut map = HeaderMap::new();
    map.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in headers {
        let value = value
            .parse()
            .map_err(|error: InvalidHeaderValue| Failure::run(&error))?;
        map.insert(*name, value);
    }
    Ok(map)
}
