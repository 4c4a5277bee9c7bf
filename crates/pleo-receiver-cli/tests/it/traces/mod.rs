//! Traces: spans at a local OTLP/HTTP collector, `traceparent` at handlers, and a collector that is
//! away.

mod collector;

use std::fs;
use std::net::TcpListener as Socket;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::HeaderMap;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use pleo_sandbox::{Authority, TlsProxy};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use self::collector::{Collector, TIMEOUT, assert_attributes, context, links, only, status, texts};
use crate::support::program::{SECRET, WorkDir, free_address, read_metrics};
use crate::support::{PATH, Request, send_to};

const BODY: &[u8] = br#"{"eventType":"v1.vendor.created","eventId":"e1","data":{}}"#;

/// The sender's trace.
const SENDER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A command that writes the variable `TRACEPARENT` into a file, without a line break.
const WRITE_TRACEPARENT: &str =
    "sh -c 'printf \"<%s>\" \"$TRACEPARENT\" > out.new; mv out.new out'";

fn written_traceparent(dir: &WorkDir) -> String {
    let start = Instant::now();
    loop {
        if let Ok(text) = fs::read_to_string(dir.path().join("out")) {
            return text.trim_matches(['<', '>']).to_owned();
        }
        assert!(start.elapsed() < TIMEOUT);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn links_attempt_to_delivery_and_delivery_to_sender() {
    let (dir, collector) = (WorkDir::new(), Collector::start());
    let (sender, forwarded) = mpsc::channel();
    let keep = move |headers: HeaderMap| {
        sender.send(headers).unwrap();
        async {}
    };
    let listener = TcpListener::bind("127.0.0.1:0");
    let listener = collector.runtime.block_on(listener).unwrap();
    let target = format!("http://{}/", listener.local_addr().unwrap());
    let app = Router::new().fallback(keep);
    collector
        .runtime
        .spawn(async { axum::serve(listener, app).await });
    let env = collector.env(&[(
        "OTEL_RESOURCE_ATTRIBUTES",
        "deployment.environment.name=test",
    )]);
    let server = dir.serve(&["--forward", &target], &env);
    let request = Request::signed("msg_1", BODY).with("traceparent", SENDER);
    assert_eq!(collector.send(&server, &request), 204);

    let first = collector.next();
    assert_eq!(first.path, "/v1/traces");
    assert_eq!(first.headers["content-type"], "application/x-protobuf");
    let (resource, scope, schema) = first.source();
    let resource = texts(&resource.attributes);
    assert_eq!(resource["service.name"], "pleo-receiver");
    assert_eq!(resource["deployment.environment.name"], "test");
    assert_eq!(scope.name, "pleo-receiver");
    assert_eq!(schema, "https://opentelemetry.io/schemas/1.42.0");
    let mut spans = first.spans();
    if spans.len() < 2 {
        spans.extend(collector.spans(1));
    }

    let receive = only(&spans, SpanKind::Server);
    assert_eq!(receive.name, format!("POST {PATH}"));
    assert_eq!(receive.parent_span_id, [0; 0], "the sender is no parent");
    assert_eq!(links(receive), [SENDER]);
    assert_attributes(
        receive,
        &[
            ("http.request.method", "POST"),
            ("http.route", PATH),
            ("url.path", PATH),
            ("http.response.status_code", "204"),
            ("network.protocol.version", "1.1"),
            ("client.address", "127.0.0.1"),
            ("messaging.message.id", "msg_1"),
            ("pleo.outcome", "stored"),
        ],
    );
    assert_eq!(status(receive), StatusCode::Unset);

    let attempt = only(&spans, SpanKind::Consumer);
    assert_eq!(attempt.name, format!("process {PATH}"));
    assert_eq!(attempt.parent_span_id, [0; 0]);
    assert_eq!(links(attempt), [context(receive)]);
    assert_attributes(
        attempt,
        &[
            ("messaging.system", "pleo"),
            ("messaging.operation.type", "process"),
            ("messaging.destination.name", PATH),
            ("messaging.message.id", "msg_1"),
            ("pleo.event_type", "v1.vendor.created"),
            ("pleo.attempt", "1"),
            ("pleo.outcome", "done"),
        ],
    );
    let headers = forwarded.recv_timeout(TIMEOUT).unwrap();
    assert_eq!(headers["traceparent"], context(attempt));
    assert!(receive.start_time_unix_nano <= receive.end_time_unix_nano);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn links_attempt_after_restart_to_first_delivery() {
    let (dir, collector) = (WorkDir::new(), Collector::start());
    // Only the shutdown exports.
    let server = dir.serve(
        &[],
        &collector.env(&[("OTEL_BSP_SCHEDULE_DELAY", "3600000")]),
    );
    let request = Request::signed("msg_1", BODY).with("receive-traceparent", SENDER);
    assert_eq!(collector.send(&server, &request), 204);
    assert_eq!(collector.send(&server, &request), 204);
    assert_eq!(server.stop("-TERM").0, Some(0));
    let received = collector.rest();
    let [first, second] = &received[..] else {
        panic!("{received:?}");
    };
    assert_attributes(first, &[("pleo.outcome", "stored")]);
    assert_attributes(second, &[("pleo.outcome", "known")]);

    let server = dir.serve(&["--exec", WRITE_TRACEPARENT], &collector.env(&[]));
    let attempts = collector.spans(1);
    assert_eq!(attempts[0].kind(), SpanKind::Consumer);
    assert_eq!(links(&attempts[0]), [context(first)]);
    assert_eq!(written_traceparent(&dir), context(&attempts[0]));
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn records_outcome_of_each_attempt() {
    let (dir, collector) = (WorkDir::new(), Collector::start());
    dir.write(
        "pleo.toml",
        "[retry]\nmin_delay = \"1ms\"\nmax_delay = \"1ms\"\n",
    );
    // Fails, then succeeds.
    let script = "sh -c 'test -e tried || { touch tried; echo no account >&2; exit 1; }'";
    let args = ["--config", "pleo.toml", "--exec", script];
    let server = dir.serve(&args, &collector.env(&[]));
    assert_eq!(
        collector.send(&server, &Request::signed("msg_1", BODY)),
        204
    );
    let spans = collector.spans(3);
    let receive = only(&spans, SpanKind::Server);
    let attempts: Vec<_> = spans
        .iter()
        .filter(|span| span.kind() == SpanKind::Consumer)
        .collect();
    for attempt in &attempts {
        assert_eq!(links(attempt), [context(receive)]);
        assert_ne!(attempt.trace_id, receive.trace_id);
    }
    assert_ne!(attempts[0].trace_id, attempts[1].trace_id);
    let failed = [
        ("pleo.attempt", "1"),
        ("pleo.outcome", "retry"),
        ("error.type", "handler_failed"),
    ];
    assert_attributes(attempts[0], &failed);
    assert_eq!(status(attempts[0]), StatusCode::Error);
    let error = &attempts[0].status.as_ref().unwrap().message;
    assert!(error.ends_with("no account"), "{error}");
    assert_attributes(
        attempts[1],
        &[("pleo.attempt", "2"), ("pleo.outcome", "done")],
    );
    assert_eq!(status(attempts[1]), StatusCode::Unset);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn limits_spans_of_rejected_requests() {
    let (dir, collector) = (WorkDir::new(), Collector::start());
    let server = dir.serve(&[], &collector.env(&[]));
    let valid = Request::signed("msg_1", BODY);
    let mut unknown = valid.clone();
    unknown.path = "/wp-login.php".to_owned();
    let forged = valid.clone().with("webhook-id", "msg_2");
    for _ in 0..50 {
        assert_eq!(collector.send(&server, &unknown), 404);
        assert_eq!(collector.send(&server, &forged), 401);
    }
    assert_eq!(collector.send(&server, &valid), 204);
    assert_eq!(server.stop("-TERM").0, Some(0));
    let spans = collector.rest();
    let is_stored = |span: &&Span| texts(&span.attributes).contains_key("pleo.outcome");
    let (stored, rejected): (Vec<_>, Vec<_>) = spans.iter().partition(is_stored);
    assert_eq!(stored.len(), 1, "{spans:?}");
    assert!(
        (5..50).contains(&rejected.len()),
        "{} spans",
        rejected.len()
    );
    for span in rejected {
        assert_eq!(
            (span.kind(), status(span)),
            (SpanKind::Server, StatusCode::Unset)
        );
        assert_attributes(
            span,
            &[
                ("url.path", PATH),
                ("http.response.status_code", "401"),
                ("error.type", "signature_mismatch"),
                ("messaging.message.id", "msg_2"),
            ],
        );
    }
}

#[test]
fn repeated_deliveries_leave_space_for_others() {
    let dir = WorkDir::new();
    let collector = Collector::start();
    // Nothing is exported before the shutdown.
    let env = collector.env(&[
        ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "40"),
    ]);
    let server = dir.serve(&["--admin", "127.0.0.1:0"], &env);
    let repeated = Request::signed("msg_0", BODY);
    for _ in 0..30 {
        assert_eq!(collector.send(&server, &repeated), 204);
    }
    for number in 1..=10 {
        let request = Request::signed(&format!("msg_{number}"), BODY);
        assert_eq!(collector.send(&server, &request), 204);
    }
    // The first is stored; nine of its copies fill a quarter of the queue.
    let page = read_metrics(server.admin_address());
    assert!(
        page.contains("spans_total{outcome=\"dropped\"} 20\n"),
        "{page}"
    );
    assert_eq!(server.stop("-TERM").0, Some(0));
    let spans = collector.rest();
    let stored = spans
        .iter()
        .filter(|span| texts(&span.attributes)["pleo.outcome"] == "stored");
    assert_eq!((spans.len(), stored.count()), (20, 11));
}

#[test]
fn absent_or_hanging_collector_delays_neither_deliveries_nor_shutdown() {
    let hanging = Socket::bind("127.0.0.1:0").unwrap();
    let urls = [
        format!("http://{}", free_address()),
        format!("http://{}", hanging.local_addr().unwrap()),
    ];
    let runtime = Runtime::new().unwrap();
    for url in &urls {
        let dir = WorkDir::new();
        let env = [
            ("PLEO_WEBHOOK_SECRET", SECRET),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", url),
            // An export that delays something delays it for a minute.
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "60000"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "60000"),
            ("OTEL_BSP_SCHEDULE_DELAY", "10"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
        ];
        let server = dir.serve(&["--exec", "true", "--admin", "127.0.0.1:0"], &env);
        let start = Instant::now();
        for number in 0..50 {
            let request = Request::signed(&format!("msg_{number}"), BODY);
            assert_eq!(
                runtime.block_on(send_to(server.address(), &request)).status,
                204
            );
        }
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{:?}",
            start.elapsed()
        );
        let page = read_metrics(server.admin_address());
        assert!(
            page.contains("spans_total{outcome=\"exported\"} 0\n"),
            "{page}"
        );
        assert!(
            !page.contains("spans_total{outcome=\"dropped\"} 0\n"),
            "{page}"
        );
        let start = Instant::now();
        let (code, log) = server.stop("-TERM");
        // Two seconds for the collector.
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("WARN spans lost spans="), "{log}");
    }
}

#[test]
fn exports_to_https_and_logs_no_secret() {
    let (dir, collector) = (WorkDir::new(), Collector::start());
    let address = collector.url.split("//").nth(1).unwrap().parse().unwrap();
    let (proxy, pem) = collector.runtime.block_on(async {
        let authority = Authority::new().unwrap();
        let target = move || Some(address);
        let proxy = TlsProxy::start(&authority, "localhost", target).await;
        (proxy.unwrap(), authority.pem())
    });
    let url = format!("https://user:hunter2@localhost:{}/otlp-4711", proxy.port());
    dir.write("authority.pem", &pem);
    let env = [
        ("PLEO_WEBHOOK_SECRET", SECRET),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*url),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "authority.pem"),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "x-key=correct%20horse,x-tenant=t1",
        ),
        ("OTEL_SERVICE_NAME", "books"),
    ];
    let server = dir.serve(&["--log", "trace"], &env);
    assert_eq!(
        collector.send(&server, &Request::signed("msg_1", BODY)),
        204
    );
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0), "{log}");
    let export = collector.exports.try_recv().expect(&log);
    assert_eq!(export.path, "/otlp-4711", "the URL for traces is complete");
    assert_eq!(export.headers["authorization"], "Basic dXNlcjpodW50ZXIy");
    assert_eq!(export.headers["x-key"], "correct horse");
    assert_eq!(export.headers["x-tenant"], "t1");
    assert_eq!(
        texts(&export.source().0.attributes)["service.name"],
        "books"
    );
    assert!(
        log.contains("BatchSpanProcessor"),
        "the level is `trace`: {log}"
    );
    for secret in ["hunter2", "dXNlcjpodW50ZXIy", "correct", "4711"] {
        assert!(!log.contains(secret), "{secret} is in {log}");
    }
}

#[test]
fn exports_nothing_if_off() {
    let collector = Collector::start();
    for (variable, value) in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
        ("OTEL_TRACES_SAMPLER", "always_off"),
    ] {
        let dir = WorkDir::new();
        let server = dir.serve(
            &["--exec", WRITE_TRACEPARENT],
            &collector.env(&[(variable, value)]),
        );
        let request = Request::signed("msg_1", BODY).with("traceparent", SENDER);
        assert_eq!(collector.send(&server, &request), 204);
        let written = written_traceparent(&dir);
        if variable == "OTEL_TRACES_SAMPLER" {
            assert!(
                written.ends_with("-00") && written.len() == SENDER.len(),
                "{written}"
            );
        } else {
            assert_eq!(written, "", "{variable}");
        }
        assert_eq!(server.stop("-TERM").0, Some(0));
        let message = &dir.json(&["inbox", "show", "msg_1", "--json"])[0];
        assert_eq!(message["headers"]["traceparent"], SENDER);
        assert!(
            message["headers"].get("receive-traceparent").is_none(),
            "{message}"
        );
        assert_eq!(collector.rest(), [], "{variable}");
    }
}

#[test]
fn refuses_wrong_and_unsupported_variables() {
    let dir = WorkDir::new();
    for (variable, value, part) in [
        ("OTEL_SDK_DISABLED", "maybe", "`true` or `false`"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "give `otlp` or `none`"),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "grpc",
            "only `http/protobuf` is supported",
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "http/json",
            "only `http/protobuf`",
        ),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip", "give `none`"),
        (
            "OTEL_EXPORTER_OTLP_CLIENT_KEY",
            "hush",
            "client certificates are not supported",
        ),
        (
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            "none.pem",
            "cannot read `none.pem`",
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "collector:hush",
            "scheme",
        ),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "hush", "relative URL"),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization hush",
            "give `name=value,name=value`",
        ),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "a b=hush",
            "give `name=value,name=value`",
        ),
        (
            "OTEL_EXPORTER_OTLP_TIMEOUT",
            "10s",
            "an integer of at least 1",
        ),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "team",
            "give `key=value,key=value`",
        ),
        (
            "OTEL_TRACES_SAMPLER",
            "xray",
            "no such sampler; give one of always_on,",
        ),
        ("OTEL_BSP_SCHEDULE_DELAY", "0", "an integer of at least 1"),
        (
            "OTEL_BSP_MAX_QUEUE_SIZE",
            "99999999",
            "an integer from 1 to 1048576",
        ),
        (
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
            "4096",
            "an integer from 1 to 2048",
        ),
        ("OTEL_BSP_EXPORT_TIMEOUT", "-1", "an integer of at least 1"),
    ] {
        let env = [
            ("PLEO_WEBHOOK_SECRET", SECRET),
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "http://localhost:4318",
            ),
            (variable, value),
        ];
        // The variable for traces beats the other.
        let env = &env[usize::from(variable == "OTEL_EXPORTER_OTLP_ENDPOINT") * 2..];
        let output = dir.run_with(&["serve", "--secret", SECRET], env, b"");
        assert_eq!(output.code, 2, "{variable}: {output:?}");
        for part in [&format!("environment variable {variable}: "), part] {
            assert!(
                output.stderr.contains(part),
                "{part:?} is not in {output:?}"
            );
        }
        assert!(!output.stderr.contains("hush"), "{output:?}");
    }
    let ratio = [
        ("OTEL_TRACES_EXPORTER", "otlp"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "10"),
    ];
    let output = dir.run_with(&["serve", "--secret", SECRET], &ratio, b"");
    assert_eq!(output.code, 2, "{output:?}");
    assert!(
        output.stderr.contains("OTEL_TRACES_SAMPLER_ARG: "),
        "{output:?}"
    );
}
