//! The page: an *Export* button, deliveries, subscriptions, export jobs. Works without scripts.

mod format;

use bytes::Bytes;
use http::header::{
    CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use jiff::{SignedDuration, Timestamp};
use maud::{DOCTYPE, Markup, html};
use pleo_events::{ExportJob, ExportJobStatus};

use self::format::{duration, time_of_day};
use crate::http_message::response;
use crate::state::State;
use crate::state::export_job::expiry;
use crate::state::message::{Attempt, Message, MessageState};
use crate::state::subscription::Subscription;

/// How many deliveries and export jobs the page shows, the newest.
const SHOWN: usize = 50;

/// The page reloads this often, in seconds, if something is about to happen, or else.
const RELOADS: [&str; 2] = ["2", "10"];

/// How far ahead something is about to happen.
const SOON: SignedDuration = SignedDuration::from_mins(1);

/// Nothing but the page's own style sheet and forms; no script at all.
const POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; \
                      frame-ancestors 'none'";

/// Responds with the page.
pub(crate) fn respond(state: &State, url: &str) -> Response<Full<Bytes>> {
    let page = page(state, url, Timestamp::now()).into_string();
    let mut response = response(StatusCode::OK, "text/html;charset=UTF-8", page);
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // Stricter policies make browsers send `Origin: null` with the page's own forms.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// Responds with the style sheet.
pub(crate) fn stylesheet() -> Response<Full<Bytes>> {
    let style = include_str!("style.css");
    response(StatusCode::OK, "text/css;charset=UTF-8", style)
}

fn page(state: &State, url: &str, now: Timestamp) -> Markup {
    let mut subscriptions: Vec<_> = state.subscriptions.values().collect();
    subscriptions.sort_by_key(|subscription| subscription.sequence);
    let messages: Vec<_> = state.messages.values().rev().take(SHOWN).collect();
    let jobs = state.export_jobs.iter().rev().take(SHOWN);
    let jobs: Vec<_> = jobs.map(|(_, job)| job).collect();
    let attempts = messages
        .iter()
        .filter_map(|message| message.next_attempt_at);
    let mut times = attempts.chain(jobs.iter().filter_map(|job| expiry(job)));
    let is_busy = times.any(|time| time.duration_since(now) < SOON);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content=(RELOADS[usize::from(!is_busy)]);
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/sandbox.css";
                title { "Pleo sandbox" }
            }
            body {
                header {
                    h1 { "Pleo sandbox" }
                    p { "API: " code { (url) } ", company " code { (state.access.company) } }
                }
                main {
                    (export_form(subscriptions.iter().any(|one| one.is_active())))
                    section {
                        h2 { "Deliveries" }
                        @if messages.is_empty() { p { "None yet." } }
                        @for message in &messages { (delivery(message, now)) }
                    }
                    section {
                        h2 { "Export jobs" }
                        @if jobs.is_empty() { p { "None yet." } }
                        @for job in &jobs { (export_job(job, now)) }
                    }
                    section {
                        h2 { "Subscriptions" }
                        @if subscriptions.is_empty() {
                            p {
                                "None yet. Create one: "
                                code {
                                    "pleo-receiver setup --api-url " (url)
                                    " --url http://127.0.0.1:8787/webhooks/pleo"
                                }
                            }
                        }
                        @for one in &subscriptions { (subscription(one, now)) }
                    }
                }
            }
        }
    }
}

fn export_form(has_receiver: bool) -> Markup {
    html! {
        form.export method="post" action="/sandbox/export" {
            button.main { "Export" }
            label { "jobs " input type="number" name="jobs" min="1" max="100" value="1"; }
            label { input type="checkbox" name="copies" value="2"; " send each twice" }
            label { input type="checkbox" name="reverse" value="true"; " newest first" }
            @if !has_receiver {
                p.note { "No subscription is active, so nobody gets the event." }
            }
        }
        form method="post" action="/sandbox/vendor" { button { "Create a vendor" } }
    }
}

fn delivery(message: &Message, now: Timestamp) -> Markup {
    let (class, state) = match message.state {
        MessageState::Pending => ("open", "pending"),
        MessageState::Delivered => ("good", "delivered"),
        MessageState::Failed => ("bad", "failed"),
        MessageState::Canceled => ("bad", "canceled"),
    };
    html! {
        article {
            h3 { (message.event_type) " " span class=(class) { (state) } }
            p { code { (message.id) } " " (time_of_day(message.created_at)) }
            @if !message.attempts.is_empty() {
                ol { @for one in &message.attempts { li { (attempt(one)) } } }
            }
            @if let Some(next) = message.next_attempt_at {
                p { "Next attempt in " (duration(next.duration_since(now))) "." }
            }
            (button(&format!("/sandbox/messages/{}/resend", message.id), "Resend"))
        }
    }
}

fn attempt(attempt: &Attempt) -> Markup {
    let class = if attempt.is_success() { "good" } else { "bad" };
    html! {
        (time_of_day(attempt.at)) " "
        @match (attempt.status, &attempt.error) {
            (Some(status), _) => span class=(class) { (status) },
            (None, error) => span class=(class) { (error.as_deref().unwrap_or("no response")) },
        }
        " after " (attempt.duration.as_millis()) " ms, "
        (attempt.signatures) @if attempt.signatures == 1 { " signature" } @else { " signatures" }
    }
}

fn export_job(job: &ExportJob, now: Timestamp) -> Markup {
    let class = match job.status {
        ExportJobStatus::Pending | ExportJobStatus::InProgress => "open",
        ExportJobStatus::Completed => "good",
        _ => "bad",
    };
    let events: &[(&str, &str)] = match job.status {
        ExportJobStatus::Pending => &[("started", "Start"), ("failed", "Fail")],
        ExportJobStatus::InProgress => &[
            ("completed", "Complete"),
            ("completed_with_errors", "Complete with errors"),
            ("failed", "Fail"),
        ],
        _ => &[],
    };
    html! {
        article {
            h3 { (job.number_of_items) " entries " span class=(class) { (job.status.as_str()) } }
            p { code { (job.id) } " " (time_of_day(job.created_at)) }
            @if let Some(expiry) = expiry(job) {
                p { "Expires in " (duration(expiry.duration_since(now))) "." }
            }
            @if let Some(reason) = &job.failure_reason { p { (reason) } }
            @for (event, label) in events {
                form method="post" action="/sandbox/export-job-events" {
                    input type="hidden" name="jobId" value=(job.id);
                    input type="hidden" name="event" value=(event);
                    button { (label) }
                }
            }
        }
    }
}

fn subscription(one: &Subscription, now: Timestamp) -> Markup {
    let path = |action: &str| format!("/sandbox/subscriptions/{}/{action}", one.id);
    let signatures = one.signing_secrets(now).count();
    html! {
        article {
            h3 {
                (one.url()) " "
                @if one.is_active() { span.good { "ACTIVE" } } @else { span.bad { "INACTIVE" } }
            }
            p { code { (one.id) } " " (one.event_types().collect::<Vec<_>>().join(", ")) }
            @if let Some(since) = one.failing_since {
                p { "Every attempt has failed for " (duration(now.duration_since(since))) "." }
            }
            @if signatures > 1 { p { (signatures) " secrets sign." } }
            (button(&path("rotate"), "Rotate the secret"))
            @if signatures > 1 { (button(&path("retire"), "Retire old secrets")) }
            @if one.is_active() {
                (button(&path("disable"), "Disable"))
            } @else {
                (button(&path("enable"), "Enable"))
            }
        }
    }
}

fn button(action: &str, label: &str) -> Markup {
    html! { form method="post" action=(action) { button { (label) } } }
}
