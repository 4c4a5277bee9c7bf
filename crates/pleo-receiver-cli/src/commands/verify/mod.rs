//! `pleo-receiver verify`: reports which check a delivery fails, and the usual causes.

mod rewrite;

use std::fs;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use pleo_receiver::verify::{Secret, SignatureHeaders, Verifier, VerifyError, unix_now};

use crate::args::Verify;
use crate::failure::Failure;
use crate::input::read;
use crate::message::matching_secret;
use crate::output::line;
use crate::secret_ref::{NO_SECRET, SecretRef, secrets_of_flag};

pub(crate) fn run(args: &Verify) -> Result<(), Failure> {
    let secrets = secrets_of_flag(&args.secret)?;
    let [first, ..] = &*secrets else {
        return Err(Failure::usage("`--secret`", NO_SECRET));
    };
    let map = header_map(args)?;
    let body = read(args.body.as_deref())?;
    let now = args.at.unwrap_or_else(unix_now);
    let headers = match SignatureHeaders::from_pairs(&map) {
        Ok(headers) => headers,
        Err(error) => return failed("headers", error, header_causes(error)),
    };
    let begin = |tolerance| {
        let verifier = Verifier::new(first.clone()).with_tolerance(tolerance);
        verifier.begin(&headers, now).map(drop)
    };
    // Ignores the timestamp, so that the other checks also run on an old recording.
    if let Err(error) = begin(Duration::MAX) {
        return failed("headers", error, header_causes(error));
    }
    line("ok      headers    all three are present and well-formed")?;
    let timestamp = match begin(Duration::from_secs(args.tolerance)) {
        Err(error) => failed("timestamp", error, &timestamp_causes(error, now)),
        Ok(()) => {
            let tolerance = args.tolerance;
            Ok(line(format_args!(
                "ok      timestamp  within {tolerance} s of now"
            ))?)
        }
    };
    if let Err(Failure::Output(_)) = timestamp {
        return timestamp;
    }
    if let Some((index, ..)) = matching_secret(&secrets, &headers, &body) {
        let (number, count) = (index + 1, secrets.len());
        line(format_args!(
            "ok      signature  made with secret {number} of {count}"
        ))?;
        return timestamp;
    }
    let rewritten = rewrite::candidates(&body)
        .find(|(_, candidate)| matching_secret(&secrets, &headers, candidate).is_some());
    let causes = if let Some((what, _)) = rewritten {
        format!(
            "The body was changed in transit: the signature matches it\n\
             {what}.\n\
             A proxy, a framework's JSON parser or an editor changed the bytes.\n\
             Verify the raw body, before anything parses it."
        )
    } else if matching_secret(&undecoded_keys(&args.secret)?, &headers, &body).is_some() {
        "The sender used the secret's text as the key. Use the bytes that the base64\n\
         after `whsec_` decodes to."
            .to_owned()
    } else {
        mismatch_causes(&body)
    };
    failed("signature", VerifyError::SignatureMismatch, &causes)
}

/// Prints a failed check and its usual causes.
fn failed(check: &str, error: VerifyError, causes: &str) -> Result<(), Failure> {
    line(format_args!("FAILED  {check:<9}  {error}"))?;
    for cause in causes.lines() {
        line(format_args!("        {cause}"))?;
    }
    Err(Failure::AlreadyReported)
}

fn header_causes(error: VerifyError) -> &'static str {
    match error {
        VerifyError::MissingHeader { .. } => {
            "Either the request is not from Pleo, or a proxy dropped the header. All three\n\
             must come from one set: webhook-id, webhook-timestamp, webhook-signature,\n\
             or the same with svix-."
        }
        VerifyError::DuplicateHeader { .. } => {
            "Either a proxy added a header, or a custom header of the subscription has the\n\
             name of a signature header: rename it."
        }
        VerifyError::NoSupportedSignature { v1a: true } => {
            "The subscription signs with an asymmetric key. Switch it to a `whsec_…` secret."
        }
        VerifyError::NoSupportedSignature { .. } => {
            "The header must hold `v1,` and base64, or several of these separated by spaces.\n\
             Check that it is complete, and not another header."
        }
        VerifyError::InvalidTimestamp => {
            "It must be Unix seconds, with nothing before or after them."
        }
        _ => "Pleo does not send this: check that the header is complete and unchanged.",
    }
}

fn timestamp_causes(error: VerifyError, now: u64) -> String {
    let now = i64::try_from(now).ok();
    let now = now.and_then(|now| Timestamp::from_second(now).ok());
    let now = now.map_or_else(String::new, |now| format!(" ({now})"));
    match error {
        VerifyError::TimestampTooNew { skew, .. } => format!(
            "This machine's clock{now} is probably slow by {} s: synchronize it\n\
             with a time server (NTP).",
            skew.as_secs()
        ),
        VerifyError::TimestampTooOld { skew, .. } => format!(
            "Either this machine's clock{now} is fast by {} s, or the delivery\n\
             was delayed, recorded or replayed. For a recording, give the time of its\n\
             arrival with `--at`.",
            skew.as_secs()
        ),
        _ => String::new(),
    }
}

fn mismatch_causes(body: &[u8]) -> String {
    let mut causes = String::new();
    if body.is_empty() {
        causes.push_str("The body is empty: check that nothing has read it before.\n");
    }
    causes.push_str(
        "Usual causes, the most common first:\n\
         - another secret: each subscription has its own, production and staging differ,\n  \
         and a rotation makes a new one\n\
         - another body: it was parsed and written again, or changed in another way\n\
         - another attempt's id, timestamp or signature: each attempt has a new signature",
    );
    causes
}

/// Returns the keys of a sender that does not decode the base64 of the secrets.
fn undecoded_keys(refs: &[SecretRef]) -> Result<Vec<Secret>, Failure> {
    let mut keys = Vec::new();
    for secret in refs {
        let text = secret.resolve().map_err(Failure::Usage)?;
        for line in text.lines() {
            let encoded = line.strip_prefix("whsec_").unwrap_or(line);
            let raw = [line, encoded].into_iter();
            keys.extend(raw.filter_map(|key| Secret::from_bytes(key.as_bytes()).ok()));
        }
    }
    Ok(keys)
}

fn header_map(args: &Verify) -> Result<HeaderMap, Failure> {
    let mut map = HeaderMap::new();
    let mut add = |line: &str, location: &str| {
        // `curl -v` prints `<` or `>` before each header.
        let line = line.trim_start_matches(['<', '>']).trim();
        let pair = line.split_once(':').and_then(|(name, value)| {
            let name: HeaderName = name.trim().parse().ok()?;
            Some((name, HeaderValue::from_bytes(value.trim().as_bytes()).ok()?))
        });
        let (name, value) = pair.ok_or_else(|| {
            Failure::Usage(format!(
                "{location}: not a header: give it as `name: value`"
            ))
        })?;
        (map.try_append(name, value))
            .map_err(|_| Failure::Usage(format!("{location}: too many headers")))?;
        Ok::<_, Failure>(())
    };
    for header in &args.headers {
        add(header, "`--header`")?;
    }
    if let Some(path) = &args.headers_file {
        let text = fs::read(path)
            .map_err(|error| Failure::Run(format!("cannot read `{}`: {error}", path.display())))?;
        for (number, line) in String::from_utf8_lossy(&text).lines().enumerate() {
            let is_request_line = line.contains(" HTTP/");
            if !line.trim_matches(['<', '>', ' ']).is_empty() && !is_request_line {
                add(line, &format!("{}, line {}", path.display(), number + 1))?;
            }
        }
    }
    Ok(map)
}
