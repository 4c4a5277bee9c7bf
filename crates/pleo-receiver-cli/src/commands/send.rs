//! `pleo-receiver send`: signs a message and posts it, as Pleo does.

use core::time::Duration;
use std::path::Path;

use jiff::Timestamp;
use pleo_http::reqwest::header::{HeaderName, HeaderValue};
use pleo_receiver::verify::unix_now;
use pleo_receiver::{Entry, State, StoredMessage};
use tokio::time::{Instant, sleep};

use crate::args::Send;
use crate::config::load::inbox_url;
use crate::failure::Failure;
use crate::inbox_url::{messages, open_shared};
use crate::message::{header_map, new_id, signature_headers};
use crate::secret_ref::secrets_of_flag;
use crate::{http_client, input, output, samples};

/// How long to wait for the first attempt to start. The receiver may have no handler.
const START: Duration = Duration::from_millis(200);

/// How long to wait for the first attempt to end.
const END: Duration = Duration::from_secs(3);

/// How often to read the inbox.
const POLL: Duration = Duration::from_millis(25);

pub(crate) async fn run(args: Send) -> Result<(), Failure> {
    let secrets = secrets_of_flag(&args.signing.secret)?;
    // The outcome is an extra: `send` needs no configuration.
    let inbox = inbox_url(args.inbox.inbox, args.inbox.config.as_deref()).ok();
    let body = match args.body.as_deref() {
        None => samples::event(&args.event).into(),
        Some(path) if path == Path::new("-") => input::read(None)?,
        path => input::read(path)?,
    };
    let id = args.signing.id.unwrap_or_else(new_id);
    let timestamp = args.signing.timestamp.unwrap_or_else(unix_now);
    let mut headers = header_map(&signature_headers(&secrets, &id, timestamp, &body)?)?;
    for header in &args.headers {
        let header = header.resolve();
        let header = header.map_err(|why| Failure::usage("`--header`", &why))?;
        let (name, value) = parse_header(&header)
            .ok_or_else(|| Failure::usage("`--header`", "give it as `name: value`"))?;
        headers.insert(name, value);
    }
    let target = (args.url.resolve()).and_then(|url| http_client::parse_url(&url));
    let target = target.map_err(|why| Failure::usage("the URL", &why))?;
    let request = target.post(&http_client::build(&target)?);
    let request = request.headers(headers).body(body.clone());
    let sent_at = Timestamp::now();
    let answer = http_client::send(request).await.map_err(|error| {
        let (url, why) = (target.url(), http_client::cause(&error));
        let fix = if why.contains("certificate") {
            "; set SSL_CERT_FILE to the certificates to trust, or correct the server's certificate"
        } else if why.contains("corrupt message") {
            "; the server does not speak TLS there: give an `http` URL"
        } else if error.is_connect() {
            "; start the receiver (`pleo-receiver serve`), or give the URL of a running one"
        } else {
            ""
        };
        Failure::Run(format!("cannot post to {url}: {why}{fix}"))
    })?;
    let text = String::from_utf8_lossy(&answer.body);
    output::line(format!("{} {text}", answer.status).trim_end())?;
    if !answer.status.is_success() {
        output::line(format_args!("message {id}: refused"))?;
        match &*answer.code() {
            "signature_mismatch" => {
                output::note("the receiver has another secret: set PLEO_WEBHOOK_SECRET to it")?;
            }
            "no_such_path" => {
                output::note(
                    "give the URL of an endpoint: `pleo-receiver serve` logs its address and the \
                     paths of its endpoints",
                )?;
            }
            _ => {}
        }
        return Err(Failure::AlreadyReported);
    }
    let found = match inbox {
        Some(inbox) => outcome(&inbox, &id).await,
        None => None,
    };
    let text = found.map_or_else(String::new, |found| {
        // The answer is 204 in any case; the inbox on this machine knows more.
        let is_older = found.entry.received_at.as_millisecond() < sent_at.as_millisecond();
        let stored = match is_older {
            true if found.body != body => "stored before with another body, which is kept; ",
            true => "stored before, so this is a duplicate; ",
            false => "",
        };
        format!(": {stored}{}", describe(&found.entry))
    });
    Ok(output::line(format_args!("message {id}{text}"))?)
}

fn parse_header(header: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = header.split_once(':')?;
    Some((name.trim().parse().ok()?, value.trim().parse().ok()?))
}

/// Returns the stored message. Waits briefly for the end of its first attempt. Returns `None` if the
/// inbox does not exist or has no such message.
async fn outcome(inbox: &str, id: &str) -> Option<StoredMessage> {
    let inbox = open_shared(inbox).await.ok()?;
    let sent = Instant::now();
    loop {
        let found = messages(&*inbox, id).await.ok()?;
        let found = found.into_iter().next()?;
        let entry = &found.entry;
        let limit = if entry.attempts == 0 { START } else { END };
        let has_ended = entry.state != State::Pending || entry.last_error.is_some();
        if has_ended || sent.elapsed() > limit {
            return Some(found);
        }
        sleep(POLL).await;
    }
}

fn describe(entry: &Entry) -> String {
    let attempts = match entry.attempts {
        0 => "no attempt yet".to_owned(),
        1 => "1 attempt".to_owned(),
        attempts => format!("{attempts} attempts"),
    };
    let error = entry.last_error.as_ref();
    let error = error.map_or_else(String::new, |error| format!(", last error: {error}"));
    format!("{}, {attempts}{error}", entry.state.as_str())
}
