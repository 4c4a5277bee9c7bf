//! Whether what Pleo sends to the public URL arrives.

use core::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use pleo_receiver::verify::{Secret, unix_now};
use pleo_receiver::{HttpClient, Inbox as _, SqliteInbox};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Report;
use crate::args::pleo::Doctor;
use crate::failure::{Failure, chain};
use crate::pleo::declared::Endpoint;

/// How long the endpoint may take: what the sender waits.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The type of the test's event. A handler sees it like any other that it doesn't know.
const EVENT_TYPE: &str = "pleo-receiver.doctor";

pub(super) async fn check(
    args: &Doctor,
    endpoint: &Endpoint,
    secrets: &[Secret],
    inbox: Option<&SqliteInbox>,
    report: &mut Report,
) -> Result<(), Failure> {
    let Some(subscription) = &endpoint.subscription else {
        return Ok(());
    };
    let client = match HttpClient::new(&subscription.url) {
        Ok(client) => client,
        Err(error) => {
            return Ok(report.failed("certificate", &chain(&error), "see what it says")?);
        }
    };
    if !check_unsigned(&client, endpoint, report).await? {
        return Ok(());
    }
    let Some(secret) = secrets.first() else {
        return Ok(());
    };
    if args.no_delivery {
        return Ok(report.skipped("delivery", "as `--no-delivery` asks")?);
    }
    let id = format!("msg_doctor{}", Uuid::new_v4().simple());
    let event_id = Uuid::new_v4();
    let body = json!({ "data": {}, "eventType": EVENT_TYPE, "eventId": event_id }).to_string();
    let headers = signed(endpoint, secret, &id, &body)?;
    let answer = match client.post(headers, body.into(), TIMEOUT).await {
        Ok(answer) => answer,
        Err(error) => return Ok(report.failed("delivery", &chain(&error), "try again")?),
    };
    let (status, code) = (answer.status(), code(&answer));
    if code == "source_not_allowed" {
        let why = "`sources` lets only Pleo in, as it should";
        return Ok(report.skipped("delivery", why)?);
    }
    if status != 204 {
        let found = format!("a signed delivery is answered {status} {code}");
        return Ok(report.failed("delivery", found.trim_end(), fix_for(&code))?);
    }
    let Some(inbox) = inbox else {
        return Ok(report.ok("delivery", "a signed one is answered 204")?);
    };
    if inbox.show(id.clone()).await?.is_empty() {
        let fix = "let the URL lead here, or look there with the configuration of that receiver";
        let found = "answered 204, but not by the receiver of this inbox";
        return Ok(report.failed("delivery", found, fix)?);
    }
    Ok(report.ok(
        "delivery",
        &format!("a signed one is answered 204, and stored as {id}"),
    )?)
}

/// Posts without a signature. The certificate must match, and the receiver must say no.
async fn check_unsigned(
    client: &HttpClient,
    endpoint: &Endpoint,
    report: &mut Report,
) -> Result<bool, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let answer = match client
        .post(headers, Bytes::from_static(b"{}"), TIMEOUT)
        .await
    {
        Ok(answer) => answer,
        Err(error) => {
            let why = chain(&error);
            if why.contains("certificate") {
                let fix = "give the server a certificate for this name, by an authority that \
                           everybody trusts, with the whole chain";
                report.failed("certificate", &why, fix)?;
            } else {
                let fix = "start the receiver and what stands in front of it, and open the \
                           firewall; where only this machine can't reach it, that is fine";
                report.failed("reachable", &why, fix)?;
            }
            return Ok(false);
        }
    };
    report.ok(
        "certificate",
        "matches the name, and its authority is trusted here",
    )?;
    let (status, code) = (answer.status(), code(&answer));
    if status.is_success() {
        let found = format!("what answers there takes unsigned requests ({status})");
        report.failed("reachable", &found, "let the URL lead to the receiver")?;
        return Ok(false);
    }
    if code.is_empty() {
        let found = format!("something else answers there ({status})");
        let fix = format!(
            "let the URL lead to the receiver's path `{}`",
            endpoint.path
        );
        report.failed("reachable", &found, &fix)?;
        return Ok(false);
    }
    report.ok(
        "reachable",
        &format!("a receiver refuses what is unsigned ({status} {code})"),
    )?;
    Ok(true)
}

fn signed(
    endpoint: &Endpoint,
    secret: &Secret,
    id: &str,
    body: &str,
) -> Result<HeaderMap, Failure> {
    let now = unix_now();
    let signature = secret.sign(id, now, body.as_bytes());
    let signature = signature.map_err(|error| Failure::Run(error.to_string()))?;
    let extras = endpoint.extras()?;
    let mut headers = HeaderMap::new();
    let mut set = |name: &str, value: &str| {
        let pair = name.parse().ok().zip(value.parse().ok());
        let (name, value): (HeaderName, HeaderValue) = pair.ok_or_else(|| {
            Failure::Usage(format!("the header `{name}` or its value cannot be sent"))
        })?;
        headers.insert(name, value);
        Ok::<_, Failure>(())
    };
    set(CONTENT_TYPE.as_str(), "application/json")?;
    set("webhook-id", id)?;
    set("webhook-timestamp", &now.to_string())?;
    set("webhook-signature", signature.as_str())?;
    for (name, value) in &extras.headers {
        set(name, value.expose())?;
    }
    if let Some((username, password)) = &extras.basic {
        let pair = STANDARD.encode(format!("{username}:{password}"));
        set(AUTHORIZATION.as_str(), &format!("Basic {pair}"))?;
    }
    Ok(headers)
}

/// The code of a receiver's problem document; empty where it is none.
fn code(answer: &Response<Bytes>) -> String {
    let problem: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    problem["code"].as_str().unwrap_or_default().to_owned()
}

fn fix_for(code: &str) -> &'static str {
    match code {
        "signature_mismatch" => {
            "either the receiver runs with another secret (restart it), or something in front of it \
             rewrites the body"
        }
        "timestamp_too_old" | "timestamp_too_new" => "set the clock of the receiver's machine",
        "missing_header" | "duplicate_header" => {
            "let what stands in front pass the `webhook-…` headers on as they are"
        }
        "wrong_credentials" | "wrong_header" => {
            "restart the receiver with this configuration; what stands in front must pass these \
             headers on"
        }
        "no_such_path" => "let what stands in front keep the path, or say `--path` to `setup`",
        "inbox_full" | "inbox_failed" => "look at the receiver's log and its disk",
        _ => "look at the receiver's log",
    }
}
