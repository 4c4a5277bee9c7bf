//! Compares the level, text and fields of every event with `events.jsonl`.

// All events are there with these features.
#![cfg(all(
    feature = "sqlite",
    feature = "postgres",
    feature = "exec",
    feature = "tls"
))]

use core::fmt::Debug;
use core::time::Duration;
use std::io;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Metadata, Subscriber};

use super::*;
use crate::inbox::{Appended, InboxError, InboxErrorKind, Key, Outcome};
use crate::rejection::Rejection;
use pleo_webhook_verify::VerifyError;

/// Records each event as a line of JSON.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("pleo_receiver::telemetry")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = json!(event.metadata().level().as_str());
        let line = [
            ("level".to_owned(), level),
            ("message".to_owned(), fields.message),
        ];
        let line = line.into_iter().chain(fields.others);
        let members: Vec<_> = line
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        let line = format!("{{{}}}", members.join(","));
        self.0.lock().unwrap().push(line);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Fields {
    message: Value,
    others: Vec<(String, Value)>,
}

impl Fields {
    fn record(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => self.message = value,
            name => self.others.push((name.to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record(field, json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record(field, json!(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, json!(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record(field, json!(format!("{value:?}")));
    }
}

/// Returns the lines of the events that `emit` causes.
fn recorded(emit: impl FnOnce()) -> Vec<String> {
    let recorder = Recorder::default();
    tracing::subscriber::with_default(recorder.clone(), emit);
    let lines = recorder.0.lock().unwrap();
    lines.clone()
}

fn endpoint() -> Arc<str> {
    "/webhooks/pleo".into()
}

fn source() -> Option<std::net::IpAddr> {
    Some([203, 0, 113, 7].into())
}

fn inbox_error() -> InboxError {
    let cause = io::Error::other("disk is full");
    InboxError::new(InboxErrorKind::Unavailable, cause)
}

fn emit_request_events(telemetry: &Telemetry) {
    let endpoint = endpoint();
    let counters = telemetry.metrics.accepted(&endpoint);
    let delivery = AuthenticDelivery {
        endpoint: &endpoint,
        webhook_id: "msg_1",
        source: source(),
        elapsed: Duration::from_micros(3_999),
    };
    for appended in [Appended::Stored, Appended::Duplicate, Appended::Conflict] {
        telemetry.accepted(&counters, delivery, appended);
    }
    let request = RejectedRequest {
        endpoint: Some(&endpoint),
        webhook_id: Some("msg_1"),
        source: source(),
        ..RejectedRequest::default()
    };
    for rejection in [
        Rejection::Signature(VerifyError::SignatureMismatch),
        Rejection::WrongCredentials,
        Rejection::WrongHeader,
        Rejection::NotJson,
        Rejection::MethodNotAllowed,
    ] {
        telemetry.rejected(request, &rejection);
    }
    let unrouted = RejectedRequest {
        path: Some("/nowhere"),
        source: source(),
        ..RejectedRequest::default()
    };
    telemetry.rejected(unrouted, &Rejection::NoSuchPath);
    telemetry.rejected(unrouted, &Rejection::MissingHost);
    telemetry.append_failed(&endpoint, "msg_1", &inbox_error());
    telemetry.evicted("request", "203.0.113.7");
    untrusted_proxy([203, 0, 113, 7].into());
}

fn emit_server_events(telemetry: &Telemetry) {
    let peer = [203, 0, 113, 7].into();
    telemetry.connection_refused(peer);
    telemetry.connection_closed(peer, Some("slow_headers"), &io::Error::other("timed out"));
    telemetry.accept_failed(&io::Error::other("too many open files"));
    connections_aborted(2);
    inbox_failed();
    server_panicked();
    certificate_reloaded("cert.pem");
    certificate_not_reloaded("cert.pem", &io::Error::other("no PEM certificate"));
    certificate_expires_soon("cert.pem", Timestamp::UNIX_EPOCH);
    certificate_expired("cert.pem", Timestamp::UNIX_EPOCH);
}

fn emit_dispatch_events(telemetry: &Telemetry) {
    let endpoint = endpoint();
    let key = Key::new(Arc::clone(&endpoint), "msg_1");
    let event_type = Some("v1.export-job.created");
    let attempt = HandlerAttempt {
        endpoint: &endpoint,
        webhook_id: "msg_1",
        event_type,
        attempt: 2,
        elapsed: Duration::from_millis(1_250),
    };
    let error = || "exit status: 1".to_owned();
    let after = Duration::from_secs(8);
    telemetry.attempt_ended(attempt, &Outcome::Done);
    telemetry.attempt_ended(
        attempt,
        &Outcome::Retry {
            after,
            error: error(),
        },
    );
    telemetry.attempt_ended(attempt, &Outcome::Dead { error: error() });
    telemetry.attempt_ended(attempt, &Outcome::Release);
    telemetry.lease_lost(attempt);
    telemetry.attempts_exhausted(&key, event_type, "12 of 12 attempts started");
    telemetry.expired(&key, event_type, Some(Timestamp::UNIX_EPOCH));
    telemetry.dispatcher_panicked("task 7 panicked");
    grace_period_over(2);
    lease_request_failed(&inbox_error());
    lease_request_abandoned();
    renewal_failed(&inbox_error());
    outcome_lost(&key);
    outcome_unknown(&key);
    outcome_delayed(&key, &inbox_error());
    outcome_unrecorded(&key, &inbox_error());
    outcomes_abandoned(2);
    command_exited(&endpoint, "msg_1", "exit status: 0", "out", "err");
}

fn emit_removed_secret(telemetry: &Telemetry) {
    let request = RejectedRequest {
        endpoint: Some(&endpoint()),
        removed_secret: true,
        ..RejectedRequest::default()
    };
    telemetry.rejected(request, &VerifyError::SignatureMismatch.into());
}

fn emit_inbox_events() {
    let limit = RateLimit::new();
    file_made_private("inbox.db".as_ref(), 0o100_644);
    checkpoint_failed(&inbox_error());
    message_unreadable(7, "database disk image is malformed");
    inbox_flushed();
    flush_failed(&inbox_error());
    begin_failed(&limit, &inbox_error(), 2);
    commit_failed(&limit, &inbox_error());
}

fn emit_database_events() {
    schema_migrated("pleo_inbox", 1);
    connection_unsafe("an attacker in the network can impersonate the server");
    full_page_writes_off();
    pooler_settings_missing("jit, enable_seqscan");
    connection_lost(&inbox_error());
    database_unavailable(&inbox_error());
    database_available();
}

#[tokio::test(start_paused = true)]
async fn every_event_has_its_level_text_and_fields() {
    let telemetry = Telemetry::new(None);
    let error = io::Error::other("too many open files");
    let mut lines = recorded(|| {
        emit_removed_secret(&telemetry);
        emit_request_events(&telemetry);
        emit_server_events(&telemetry);
        emit_dispatch_events(&telemetry);
        emit_inbox_events();
        emit_database_events();
        for _ in 0..10 {
            telemetry.accept_failed(&error);
        }
    });
    tokio::time::advance(Duration::from_secs(10)).await;
    lines.extend(recorded(|| {
        telemetry.accept_failed(&error);
        telemetry.accept_failed(&error);
        telemetry.report_suppressed();
    }));
    let written: Vec<_> = include_str!("events.jsonl").lines().collect();
    let actual = lines.join("\n");
    assert!(lines == written, "events.jsonl differs from:\n{actual}\n");
}

#[test]
fn counts_each_event_with_its_line() {
    let telemetry = Telemetry::new(None);
    let lines = recorded(|| {
        for _ in 0..100 {
            emit_request_events(&telemetry);
            emit_dispatch_events(&telemetry);
        }
    });
    let page = telemetry.metrics.encode();
    for (text, sample) in [
        (
            "\"delivery stored\"",
            "accepted_total{endpoint=\"/webhooks/pleo\",outcome=\"stored\"}",
        ),
        (
            "\"message handled\"",
            "handled_total{endpoint=\"/webhooks/pleo\",outcome=\"done\"}",
        ),
        (
            "\"handler failed\"",
            "handled_total{endpoint=\"/webhooks/pleo\",outcome=\"retry\"}",
        ),
        (
            "\"lease lost; handler stopped\"",
            "handled_total{endpoint=\"/webhooks/pleo\",outcome=\"lost\"}",
        ),
        (
            "\"export job expired before dispatch\"",
            "expired_total{endpoint=\"/webhooks/pleo\"}",
        ),
        ("\"dispatcher panicked\"", "dispatcher_restarts_total"),
    ] {
        let logged = lines.iter().filter(|line| line.contains(text)).count();
        assert_eq!(logged, 100, "{text}");
        assert!(
            page.contains(&format!("pleo_receiver_{sample} 100\n")),
            "{sample} in {page}"
        );
    }
    // These are counted, and a few are logged.
    for (field, sample) in [
        (
            "\"duplicate delivery\"",
            "accepted_total{endpoint=\"/webhooks/pleo\",outcome=\"known\"}",
        ),
        (
            "\"signature_mismatch\"",
            "rejected_total{endpoint=\"/webhooks/pleo\",reason=\"signature_mismatch\"}",
        ),
        (
            "\"no_such_path\"",
            "rejected_total{endpoint=\"\",reason=\"no_such_path\"}",
        ),
    ] {
        let logged = lines.iter().filter(|line| line.contains(field)).count();
        assert!((5..10).contains(&logged), "{logged} lines of {field}");
        assert!(
            page.contains(&format!("pleo_receiver_{sample} 100\n")),
            "{sample} in {page}"
        );
    }
}
