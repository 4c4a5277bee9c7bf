//! `pleo-receiver verify`: says which check a delivery fails, and what usually causes it.

use std::fs;
use std::io::{self, Write};

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use pleo_receiver::verify::{Headers, Secret, Verifier, VerifyError, unix_now};

use crate::args::Verify;
use crate::failure::Failure;
use crate::input::read;
use crate::secret_ref::{SecretRef, signing_secrets};

mod rewrite;

pub(crate) fn run(args: &Verify) -> Result<(), Failure> {
    let secrets = signing_secrets(&args.secret)
        .map_err(|why| Failure::usage("`--secret` (PLEO_WEBHOOK_SECRET)", &why))?;
    let map = header_map(args)?;
    let body = read(args.body.as_deref())?;
    let now = args.at.unwrap_or_else(unix_now);
    let mut out = io::stdout().lock();
    let headers = match Headers::from_map(&map) {
        Ok(headers) => headers,
        Err(error) => return refuse(&mut out, "headers", error),
    };
    let begin = |tolerance| {
        let verifier = Verifier::new(secrets[0].clone()).with_tolerance(tolerance);
        verifier.begin(&headers, now).map(drop)
    };
    // Any time will do at first, so that a recorded delivery's other faults show too.
    if let Err(error) = begin(u64::MAX) {
        return refuse(&mut out, "headers", error);
    }
    let clock = begin(args.tolerance);
    writeln!(
        out,
        "ok      headers    all three are there and well-formed"
    )?;
    match clock {
        Ok(()) => writeln!(out, "ok      timestamp  within {} s of now", args.tolerance)?,
        Err(error) => {
            writeln!(out, "FAILED  timestamp  {error}")?;
            writeln!(out, "{}", indent(&clock_causes(error, now)))?;
        }
    }
    let matches = |secret: &Secret, body: &[u8]| {
        let verifier = Verifier::new(secret.clone()).with_tolerance(u64::MAX);
        verifier.verify(&headers, body, now).is_ok()
    };
    if let Some(index) = secrets.iter().position(|secret| matches(secret, &body)) {
        writeln!(
            out,
            "ok      signature  made with secret {} of {}",
            index + 1,
            secrets.len()
        )?;
        return clock.map_err(|_| Failure::AlreadyReported);
    }
    writeln!(out, "FAILED  signature  {}", VerifyError::SignatureMismatch)?;
    let rewritten = rewrite::candidates(&body)
        .find(|(_, candidate)| secrets.iter().any(|secret| matches(secret, candidate)));
    let undecoded = raw_keys(&args.secret)?;
    let causes = if let Some((what, _)) = rewritten {
        format!(
            "The body was rewritten on its way: it matches {what}.\n\
             Something between the sender and this check (a proxy, a framework's JSON parser, an \
             editor) changed the bytes. Verify the raw body, before anything parses it."
        )
    } else if undecoded.iter().any(|secret| matches(secret, &body)) {
        "Whoever signed it used the secret's text as the key. The key is what the base64 after \
         `whsec_` decodes to."
            .to_owned()
    } else {
        mismatch_causes(&body)
    };
    writeln!(out, "{}", indent(&causes))?;
    Err(Failure::AlreadyReported)
}

fn refuse(out: &mut impl Write, check: &str, error: VerifyError) -> Result<(), Failure> {
    writeln!(out, "FAILED  {check:<9}  {error}")?;
    writeln!(out, "{}", indent(header_causes(error)))?;
    Err(Failure::AlreadyReported)
}

fn header_causes(error: VerifyError) -> &'static str {
    match error {
        VerifyError::MissingHeader { .. } => {
            "Either the request doesn't come from Pleo, or a proxy dropped the header. The three \
             must come from one set: webhook-id, webhook-timestamp, webhook-signature, or the same \
             with svix-. Sets are never mixed."
        }
        VerifyError::DuplicateHeader { .. } => {
            "A proxy added its own, or joined two requests. A custom header of the subscription may \
             also have the name of a signature header: rename it."
        }
        VerifyError::NoSupportedSignature { v1a: true } => {
            "The subscription signs with an asymmetric key. Switch it to a `whsec_…` secret."
        }
        VerifyError::NoSupportedSignature { .. } => {
            "The header must hold `v1,` and base64, or several of these parted by spaces. Was it \
             cut off, or is it another header?"
        }
        VerifyError::InvalidTimestamp => "It must be Unix seconds, with nothing before or after.",
        _ => "It is not what Pleo sends: was it cut off, or changed on its way?",
    }
}

fn clock_causes(error: VerifyError, now: u64) -> String {
    let here = i64::try_from(now)
        .ok()
        .and_then(|now| Timestamp::from_second(now).ok());
    let here = here.map_or_else(String::new, |here| format!(" (it says {here})"));
    match error {
        VerifyError::TimestampTooNew { skew, .. } => format!(
            "The clock here{here} is probably slow by {skew} s: check that the machine gets its time \
             from a time server."
        ),
        VerifyError::TimestampTooOld { skew, .. } => format!(
            "Either the clock here{here} is fast by {skew} s, or the delivery was held up or \
             recorded that long ago, or somebody sends an old one again. For a recorded one, give \
             the time of its arrival with `--at`."
        ),
        _ => String::new(),
    }
}

fn mismatch_causes(body: &[u8]) -> String {
    let mut causes = String::new();
    if body.is_empty() {
        causes.push_str("The body is empty: was it read by something else before?\n");
    }
    causes.push_str(
        "Usual causes, the commonest first:\n\
         - another secret: each subscription has its own, production and staging differ, and a \
         rotation makes a new one\n\
         - another body: it was parsed and written again, or changed in a way that the rewritings \
         tried here don't undo\n\
         - id, timestamp or signature are from another attempt: each attempt is signed anew",
    );
    causes
}

/// The secrets as somebody has them who forgot to decode them.
fn raw_keys(hidden: &[SecretRef]) -> Result<Vec<Secret>, Failure> {
    let mut keys = Vec::new();
    for hidden in hidden {
        let text = hidden.resolve().map_err(Failure::Usage)?;
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
    let mut add = |line: &str, place: &str| {
        // As `curl -v` prints them.
        let line = line.trim_start_matches(['<', '>']).trim();
        let pair = line.split_once(':').and_then(|(name, value)| {
            let name: HeaderName = name.trim().parse().ok()?;
            Some((name, HeaderValue::from_bytes(value.trim().as_bytes()).ok()?))
        });
        let (name, value) = pair
            .ok_or_else(|| Failure::Usage(format!("{place}: not a header: give `name: value`")))?;
        map.append(name, value);
        Ok::<_, Failure>(())
    };
    for header in &args.headers {
        add(header, "`--header`")?;
    }
    if let Some(path) = &args.headers_file {
        let text = fs::read(path)
            .map_err(|error| Failure::Run(format!("cannot read {}: {error}", path.display())))?;
        for (number, line) in String::from_utf8_lossy(&text).lines().enumerate() {
            let is_request_line = line.contains(" HTTP/");
            if !line.trim_matches(['<', '>', ' ']).is_empty() && !is_request_line {
                add(line, &format!("{}, line {}", path.display(), number + 1))?;
            }
        }
    }
    Ok(map)
}

fn indent(text: &str) -> String {
    text.lines()
        .map(|line| format!("        {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}
