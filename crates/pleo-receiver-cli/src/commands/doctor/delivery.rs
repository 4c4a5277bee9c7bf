//! Checks that the public URL leads to the receiver.

use pleo_http::Target;
use pleo_http::reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use pleo_http::reqwest::{Client, RequestBuilder, StatusCode};
use pleo_receiver::Inbox;
use pleo_receiver::verify::{Secret, unix_now};
use serde_json::json;
use uuid::Uuid;

use super::report::Report;
use crate::args::pleo::Doctor;
use crate::config::schema::{EndpointTable, SubscriptionTable};
use crate::failure::Failure;
use crate::http_client::{self, Answer, cause, parse_url, send};
use crate::inbox_url::messages;
use crate::message::{header_map, signature_headers};

/// The event type of the test delivery. Handlers treat it as an unknown type.
const EVENT_TYPE: &str = "pleo-receiver.doctor";

pub(super) async fn check(
    args: &Doctor,
    endpoint: &EndpointTable,
    subscription: &SubscriptionTable,
    secrets: &[Secret],
    inbox: Option<&dyn Inbox>,
    report: &mut Report,
) -> Result<(), Failure> {
    let target = match parse_url(&subscription.url) {
        Ok(target) => target,
        Err(why) => {
            let fix = "set the public `https` URL at which Pleo reaches the receiver";
            return Ok(report.failed("reachable", &why, fix)?);
        }
    };
    let client = http_client::build(&target)?;
    if !check_unsigned(&client, &target, endpoint, report).await? {
        return Ok(());
    }
    let Some(secret) = secrets.first() else {
        return Ok(());
    };
    if args.no_delivery {
        return Ok(report.skipped("delivery", "`--no-delivery` is set")?);
    }
    let id = format!("msg_doctor{}", Uuid::new_v4().simple());
    let body = json!({ "data": {}, "eventType": EVENT_TYPE, "eventId": Uuid::new_v4() });
    let request = signed(&client, &target, endpoint, secret, &id, body.to_string())?;
    let answer = match send(request).await {
        Ok(answer) => answer,
        Err(error) => {
            let found = format!("no answer from {}: {}", target.url(), cause(&error));
            return Ok(report.failed("delivery", &found, "run `doctor` again")?);
        }
    };
    if answer.code() == "source_not_allowed" {
        let why = "`sources` allows no deliveries from this machine";
        return Ok(report.skipped("delivery", why)?);
    }
    if answer.status != StatusCode::NO_CONTENT {
        let found = format!("a signed delivery got {}", describe(&answer));
        return Ok(report.failed("delivery", &found, fix_for(&answer.code()))?);
    }
    let Some(inbox) = inbox else {
        return Ok(report.ok("delivery", "a signed delivery got 204")?);
    };
    if messages(inbox, &id).await?.is_empty() {
        let fix = "point the URL at this receiver, or run `doctor` with the configuration of the \
                   receiver that answered";
        let found = "a signed delivery got 204, but it is not in the inbox";
        return Ok(report.failed("delivery", found, fix)?);
    }
    Ok(report.ok("delivery", &format!("stored as {id}"))?)
}

/// Posts without a signature. The certificate must be valid, and the receiver must reject the
/// request.
async fn check_unsigned(
    client: &Client,
    target: &Target,
    endpoint: &EndpointTable,
    report: &mut Report,
) -> Result<bool, Failure> {
    let request = target.post(client).header(CONTENT_TYPE, "application/json");
    let answer = match send(request.body("{}")).await {
        Ok(answer) => answer,
        Err(error) => {
            let cause = cause(&error);
            if cause.contains("certificate") {
                let fix = "install a certificate for this name from a public authority, with its \
                           intermediate certificates";
                report.failed("certificate", &cause, fix)?;
            } else {
                let fix = "start the receiver and its proxy, and open the firewall; ignore this \
                           if only this machine cannot reach the URL";
                let found = format!("no answer from {}: {cause}", target.url());
                report.failed("reachable", &found, fix)?;
            }
            return Ok(false);
        }
    };
    report.ok(
        "certificate",
        "valid for this name, from a trusted authority",
    )?;
    if answer.status.is_success() {
        let found = format!(
            "the server at this URL accepts unsigned requests ({})",
            describe(&answer)
        );
        report.failed("reachable", &found, "point the URL at the receiver")?;
        return Ok(false);
    }
    if answer.code().is_empty() {
        let found = format!(
            "the server at this URL is not a receiver ({})",
            describe(&answer)
        );
        let fix = format!("point the URL at the receiver's path `{}`", endpoint.path);
        report.failed("reachable", &found, &fix)?;
        return Ok(false);
    }
    let found = format!(
        "the receiver rejects unsigned requests ({})",
        describe(&answer)
    );
    report.ok("reachable", &found)?;
    Ok(true)
}

fn signed(
    client: &Client,
    target: &Target,
    endpoint: &EndpointTable,
    secret: &Secret,
    id: &str,
    body: String,
) -> Result<RequestBuilder, Failure> {
    let secrets = core::slice::from_ref(secret);
    let signature = signature_headers(secrets, id, unix_now(), body.as_bytes())?;
    let mut headers = header_map(&signature)?;
    let mut set = |name: &str, value: &str| {
        let pair = name.parse().ok().zip(value.parse().ok());
        let (name, value): (HeaderName, HeaderValue) = pair.ok_or_else(|| {
            Failure::Usage(format!(
                "cannot send the header `{name}`: its name or value is not valid in HTTP"
            ))
        })?;
        headers.insert(name, value);
        Ok::<_, Failure>(())
    };
    let required = endpoint.delivery_headers()?;
    for (name, value) in &required.headers {
        set(name, value.expose())?;
    }
    let mut request = target.post(client).headers(headers).body(body);
    if let Some((username, password)) = &required.basic {
        request = request.basic_auth(username.expose(), Some(password.expose()));
    }
    Ok(request)
}

/// Returns the status and the problem code of an answer.
fn describe(answer: &Answer) -> String {
    let text = format!("{} {}", answer.status.as_u16(), answer.code());
    text.trim_end().to_owned()
}

fn fix_for(code: &str) -> &'static str {
    match code {
        "signature_mismatch" => {
            "the receiver runs with another secret (restart it), or a proxy changes the body"
        }
        "timestamp_too_old" | "timestamp_too_new" => {
            "synchronize the clock of the receiver's machine with a time server (NTP)"
        }
        "missing_header" | "duplicate_header" => {
            "let the proxy pass the `webhook-…` headers unchanged"
        }
        "wrong_credentials" | "wrong_header" => {
            "restart the receiver with this configuration, and let the proxy pass the headers \
             unchanged"
        }
        "no_such_path" => "let the proxy keep the path, or run `setup` with `--path`",
        "inbox_full" | "inbox_failed" => "see the log of the receiver and the space on its disk",
        _ => "see the log of the receiver",
    }
}
