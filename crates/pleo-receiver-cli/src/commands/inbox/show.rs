//! `pleo-receiver inbox show`: prints a message with its headers, attempts and body.

use std::io::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pleo_receiver::{Attempt, StoredMessage};
use serde_json::{Map, Value, json};

use super::{find_id, not_found, open};
use crate::args::inbox::InboxShow;
use crate::escape::{escape, escape_lines};
use crate::failure::Failure;
use crate::inbox_url::messages;
use crate::output::{self, Row as _};

pub(super) async fn show(args: InboxShow) -> Result<(), Failure> {
    let inbox = open(&args.inbox).await?;
    let id = find_id(&*inbox, &args.id).await?;
    let found = messages(&*inbox, id.as_deref().unwrap_or(&args.id)).await?;
    if found.is_empty() {
        return Err(not_found(&args.id));
    }
    for message in found {
        if args.json {
            output::json(&to_json(&message))?;
        } else {
            print(&message)?;
        }
    }
    Ok(())
}

fn to_json(message: &StoredMessage) -> Value {
    let mut object = message.entry.json();
    let headers = message.headers.iter();
    let headers = headers.map(|(name, value)| (name.to_owned(), Value::from(value)));
    object["headers"] = Value::Object(headers.collect::<Map<_, _>>());
    let history = message.attempts.iter().map(|attempt| {
        json!({
            "number": attempt.number,
            "worker": &*attempt.worker,
            "started_at": attempt.started_at.to_string(),
            "duration_ms": attempt.duration.map(|duration| duration.as_millis()),
            "result": attempt.result.as_str(),
            "error": attempt.error,
        })
    });
    object["history"] = history.collect();
    match str::from_utf8(&message.body) {
        Ok(text) => object["body"] = text.into(),
        Err(_) => object["body_base64"] = STANDARD.encode(&message.body).into(),
    }
    object
}

fn print(message: &StoredMessage) -> io::Result<()> {
    output::fields(&message.entry.json())?;
    let mut out = io::stdout().lock();
    let mut headers = message.headers.iter().peekable();
    if headers.peek().is_some() {
        writeln!(out, "\nHEADERS")?;
    }
    for (name, value) in headers {
        writeln!(out, "{}: {}", escape(name), escape(value))?;
    }
    if !message.attempts.is_empty() {
        writeln!(out, "\nATTEMPTS")?;
    }
    for attempt in &message.attempts {
        writeln!(out, "{}", escape(&describe(attempt)))?;
    }
    writeln!(out, "\nBODY")?;
    writeln!(out, "{}", escape_lines(&message.body))?;
    out.flush()
}

fn describe(attempt: &Attempt) -> String {
    let Attempt {
        number,
        started_at,
        result,
        ..
    } = attempt;
    let duration = attempt.duration.map_or_else(
        || "the process crashed".to_owned(),
        |duration| format!("{:.3} s", duration.as_secs_f64()),
    );
    let error = attempt.error.as_deref();
    let error = error.map_or_else(String::new, |error| format!(": {}", error.trim_end()));
    format!("{number} at {started_at}, {duration}, {result}{error}")
}
