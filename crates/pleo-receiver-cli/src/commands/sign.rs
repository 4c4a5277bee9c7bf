//! `pleo-receiver sign` and `pleo-receiver send`

use core::time::Duration;
use std::io::{self, Write};
use std::path::Path;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use pleo_receiver::HttpClient;
use pleo_receiver::verify::unix_now;

use crate::args::{Send, Sign, Signing};
use crate::failure::{Failure, chain};
use crate::input::read;
use crate::message::{new_id, signature_headers};
use crate::samples;
use crate::secret_ref::signing_secrets;

/// How long the receiver may take: what the sender waits.
const TIMEOUT: Duration = Duration::from_secs(15);

pub(crate) fn sign(args: &Sign) -> Result<(), Failure> {
    let body = read(None)?;
    let mut out = io::stdout().lock();
    for (name, value) in headers(&args.signing, &body)? {
        writeln!(out, "{name}: {value}")?;
    }
    Ok(())
}

pub(crate) async fn send(args: Send) -> Result<(), Failure> {
    let body = match &args.body {
        Some(path) => read(
            Some(path)
                .filter(|path| *path != Path::new("-"))
                .map(|path| &**path),
        )?,
        None => samples::event(&args.event).into(),
    };
    let mut map = HeaderMap::new();
    map.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut set = |name: &str, value: &str| {
        let pair = name.trim().parse().ok().zip(value.trim().parse().ok());
        let (name, value): (HeaderName, HeaderValue) =
            pair.ok_or_else(|| Failure::Usage("`--header`: give it as `name: value`".to_owned()))?;
        map.insert(name, value);
        Ok::<_, Failure>(())
    };
    for (name, value) in headers(&args.signing, &body)? {
        set(name, &value)?;
    }
    for header in &args.headers {
        let header = header
            .resolve()
            .map_err(|why| Failure::Usage(format!("`--header`: {why}")))?;
        let (name, value) = header.split_once(':').unwrap_or_default();
        set(name, value)?;
    }
    let url = args
        .url
        .resolve()
        .map_err(|why| Failure::Usage(format!("the URL: {why}")))?;
    let client = HttpClient::new(&url).map_err(|error| Failure::Usage(chain(&error)))?;
    let answer = client.post(map, body, TIMEOUT).await;
    let answer = answer.map_err(|error| {
        Failure::Run(format!(
            "cannot post to {}: {}",
            client.target(),
            chain(&error)
        ))
    })?;
    let mut out = io::stdout().lock();
    let (status, text) = (answer.status(), String::from_utf8_lossy(answer.body()));
    // Whatever was answered, the terminal gets one line of plain text.
    let text: String = text.chars().filter(|letter| !letter.is_control()).collect();
    writeln!(out, "{}", format!("{status} {text}").trim_end())?;
    if status.is_success() {
        Ok(())
    } else {
        Err(Failure::AlreadyReported)
    }
}

/// Signs the body.
fn headers(signing: &Signing, body: &[u8]) -> Result<[(&'static str, String); 3], Failure> {
    let secrets = signing_secrets(&signing.secret)
        .map_err(|why| Failure::usage("`--secret` (PLEO_WEBHOOK_SECRET)", &why))?;
    let id = signing.id.clone().unwrap_or_else(new_id);
    let timestamp = signing.timestamp.unwrap_or_else(unix_now);
    signature_headers(&secrets, &id, timestamp, body)
}
