//! One message: its body, signature, attempts and expiry.

use std::sync::Arc;

use http::header::CONTENT_DISPOSITION;
use http::{HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use maud::{Markup, html};
use pleo_receiver::{Attempt, AttemptResult, Endpoint, Key, State, StoredMessage};
use tokio::{task, time};

use super::form::{Form, link};
use super::layout::{
    self, TITLE, countdown, cut, duration, failure, number, page, response, token,
};
use super::overview::TIMEOUT;
use super::session::Session;
use super::{Page, curl, json, summary};
use crate::admin::Body;
use crate::escape::{escape, escape_lines};
use crate::failure::chain;
use crate::message::prove;

/// The largest body that is shown, in bytes. A larger one can be saved.
const BODY: usize = 256 * 1024;

/// The longest event or resource id that is shown completely, in bytes.
const ID: usize = 256;

/// Responds with the page of a message.
pub(super) async fn respond(admin: &Arc<Page>, session: &Session, form: &Form) -> Response<Body> {
    let message = match find(admin, form).await {
        Ok(message) => message,
        Err((status, text)) => return failure(status, Some(session), &text),
    };
    let (admin, owner, done) = (
        Arc::clone(admin),
        session.clone(),
        form.get("done").to_owned(),
    );
    // A large body takes long to verify and to format.
    let shown = task::spawn_blocking(move || show(&admin, &owner, &message, &done)).await;
    shown.unwrap_or_else(|_| {
        let text = "The message cannot be shown; see the log.";
        failure(StatusCode::INTERNAL_SERVER_ERROR, Some(session), text)
    })
}

fn show(admin: &Page, session: &Session, message: &StoredMessage, done: &str) -> Response<Body> {
    let endpoints = admin.receiver.endpoints();
    let name = &message.entry.endpoint;
    let endpoint = endpoints.iter().find(|endpoint| endpoint.name() == name);
    let now = Timestamp::now();
    let shows_bodies = admin.shows_bodies();
    let event_type = message.entry.event_type.as_deref();
    let title = event_type.unwrap_or("Message without event type");
    let content = html! {
        p { a href="/messages" { "Messages" } }
        div.title { h1 { (cut(title, TITLE)) } }
        @if done == "replayed" {
            p.notice role="status" { "Replayed: the message is pending again." }
        }
        @if done == "leased" {
            p.alert role="alert" { "Not replayed: a handler is processing the message." }
        }
        // A pending message changes while somebody looks at it.
        div data-refresh=(if message.entry.state == State::Pending { 1000 } else { 5000 }) {
            p { (layout::state(message.entry.state, message.entry.leased)) }
            (facts(message, now))
            @if session.account.may_act { (replay(message, session)) }
            @if shows_bodies && let Some(summary) = summary::markup(&message.body, now) {
                section aria-labelledby="summary" { h2 id="summary" { "Summary" } (summary) }
            }
            section aria-labelledby="attempts" {
                h2 id="attempts" { "Attempts" }
                (attempts(message))
            }
        }
        section aria-labelledby="signature" {
            h2 id="signature" { "Signature" }
            (signature(message, endpoint))
        }
        section aria-labelledby="body" {
            h2 id="body" { "Body" }
            @if shows_bodies { (body(message)) } @else { p { "Bodies are hidden: " code { "admin_bodies" } " is " code { "false" } "." } }
        }
        section aria-labelledby="curl" {
            h2 id="curl" { "Repeat with curl" }
            (repeat(message, endpoint, shows_bodies))
        }
    };
    page("", title, session, &content)
}

/// Responds with the raw body, as a file.
pub(super) async fn respond_body(admin: &Page, session: &Session, form: &Form) -> Response<Body> {
    if !admin.shows_bodies() {
        let text = "bodies are hidden: `admin_bodies` is `false`";
        return failure(StatusCode::FORBIDDEN, Some(session), text);
    }
    match find(admin, form).await {
        Ok(message) => {
            // Never shown by the browser, whatever it is.
            let mut response = response(StatusCode::OK, "application/octet-stream", message.body);
            let file = HeaderValue::from_static("attachment; filename=\"body.json\"");
            response.headers_mut().insert(CONTENT_DISPOSITION, file);
            response
        }
        Err((status, text)) => failure(status, Some(session), &text),
    }
}

/// Reads the message that the parameters name.
async fn find(admin: &Page, form: &Form) -> Result<StoredMessage, (StatusCode, String)> {
    let key = Key::new(form.get("endpoint"), form.get("id"));
    match time::timeout(TIMEOUT, admin.receiver.inbox().get(key)).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err((
            StatusCode::NOT_FOUND,
            "The inbox has no such message; it may have been pruned.".to_owned(),
        )),
        Ok(Err(error)) => Err((
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the inbox cannot be read: {}", chain(&error)),
        )),
        Err(_) => Err((
            StatusCode::SERVICE_UNAVAILABLE,
            "the inbox did not respond in time; retry later".to_owned(),
        )),
    }
}

fn facts(message: &StoredMessage, now: Timestamp) -> Markup {
    let entry = &message.entry;
    html! {
        dl.facts {
            (fact("Message id", &html! { code { (escape(&entry.webhook_id)) } }))
            (fact("Endpoint", &html! { a href=(link("/messages", [("endpoint", &*entry.endpoint)])) { (escape(&entry.endpoint)) } }))
            @for (name, id) in [("Event id", &entry.event_id), ("Resource id", &entry.resource_id)] {
                @if let Some(id) = id { (fact(name, &self::id(id))) }
            }
            (fact("Received", &layout::time(entry.received_at)))
            (fact("Source", &html! { @match entry.source { Some(source) => (source), None => "unknown" } }))
            (fact("Origin", &html! { (entry.origin.as_str()) }))
            (fact("Attempts", &html! { (entry.attempts) }))
            @if let Some(at) = entry.due_at {
                (fact("Next attempt", &html! { (countdown(at, now)) ", " (layout::time(at)) }))
            }
            @if let Some(at) = entry.expires_at {
                (fact("Expires", &html! { (countdown(at, now)) ", " (layout::time(at)) }))
            }
            (fact("Body", &html! { (number(entry.body_len)) " bytes" }))
        }
    }
}

fn fact(name: &str, value: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// An id with a link to its messages. A long one is cut.
fn id(id: &str) -> Markup {
    html! {
        @if id.len() <= ID {
            a href=(link("/messages", [("q", id)])) { (escape(id)) }
        } @else {
            (cut(id, ID)) " (cut: it has " (number(to_u64(id.len()))) " bytes; the raw body has all)"
        }
    }
}

fn to_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn replay(message: &StoredMessage, session: &Session) -> Markup {
    let entry = &message.entry;
    html! {
        form method="post" action="/replay" {
            (token(session))
            input type="hidden" name="endpoint" value=(entry.endpoint);
            input type="hidden" name="id" value=(entry.webhook_id);
            button.main disabled[entry.leased] { "Replay" }
            " "
            span.note {
                @if entry.leased { "A handler is processing it." }
                @else if entry.state == State::Pending { "It is pending: a replay makes it ready now." }
                @else { "The handler gets it again." }
            }
        }
    }
}

fn attempts(message: &StoredMessage) -> Markup {
    html! {
        @if message.attempts.is_empty() { p { "None that ended." } }
        @if message.entry.leased { p { "One is in progress." } }
        ol.timeline reversed {
            @for attempt in message.attempts.iter().rev() { (self::attempt(attempt)) }
        }
    }
}

fn attempt(attempt: &Attempt) -> Markup {
    let class = match attempt.result {
        AttemptResult::Done => "done",
        AttemptResult::Released => "pending",
        _ => "dead",
    };
    html! {
        li value=(attempt.number) {
            span.state.(class) { (attempt.result.as_str()) } " "
            (layout::time(attempt.started_at)) ", "
            @match attempt.duration {
                Some(time) if time.as_secs() < 60 => (format!("{:.3} s", time.as_secs_f64())),
                Some(time) => (duration(time)),
                None => "the process crashed",
            }
            ", by " (escape(&attempt.worker))
            @if let Some(error) = &attempt.error {
                pre tabindex="0" { (escape_lines(error.trim_end().as_bytes())) }
            }
        }
    }
}

fn signature(message: &StoredMessage, endpoint: Option<&Endpoint>) -> Markup {
    html! {
        @match endpoint {
            None => p { "Not verified: the configuration has no endpoint of this name." },
            Some(endpoint) => @match prove(message, endpoint.secrets()) {
                Ok(proof) => p {
                    span.state.done { "authentic" } " Signed"
                    @if let Some(at) = proof.signed_at { " " (layout::time(at)) }
                    " with secret " (proof.secret) " of " (proof.secrets)
                    " of the endpoint. Verified now; the time window is not checked."
                }
                Err(why) => p { span.state.dead { "not verified" } " " (escape(&why)) }
            }
        }
        div.scroll tabindex="0" role="region" aria-label="Stored headers" {
            table {
                thead { tr { th scope="col" { "Header" } th scope="col" { "Value" } } }
                tbody {
                    @for (name, value) in message.headers.iter() {
                        tr { th scope="row" { (escape(name)) } td { code { (escape(value)) } } }
                    }
                }
            }
        }
    }
}

fn body(message: &StoredMessage) -> Markup {
    let entry = &message.entry;
    let save = link(
        "/message/body",
        [("endpoint", &*entry.endpoint), ("id", &*entry.webhook_id)],
    );
    let text = str::from_utf8(&message.body).ok();
    html! {
        p { a href=(save) { "Save the raw body" } }
        @if message.body.len() > BODY {
            p { "It is too large to show." }
        } @else {
            @if let Some(formatted) = text.and_then(json::format) {
                pre tabindex="0" aria-label="Formatted JSON" { (escape_lines(formatted.as_bytes())) }
                details { summary { "Raw" } (raw(message)) }
            } @else {
                p.note { "It is not JSON, nested too deeply, or too large to format." }
                (raw(message))
            }
        }
    }
}

fn raw(message: &StoredMessage) -> Markup {
    html! { pre tabindex="0" aria-label="Raw body" { (escape_lines(&message.body)) } }
}

fn repeat(message: &StoredMessage, endpoint: Option<&Endpoint>, shows_bodies: bool) -> Markup {
    let path = endpoint.map_or("/", Endpoint::path);
    let (command, from_file) = curl::command(message, path, shows_bodies);
    html! {
        @if from_file { p { "Save the raw body as " code { "body.json" } " first." } }
        pre id="command" tabindex="0" aria-label="Command" { (command) }
        button type="button" data-copy="command" hidden { "Copy" }
        p.note {
            "The signature is that of the delivery. A receiver takes it within its tolerance; later, "
            code { "pleo-receiver send" } " signs anew. A receiver that has the message answers 204 and "
            "does not dispatch it again: that is what " em { "Replay" } " is for."
        }
    }
}
