//! Every row of the table of responses, over a real socket.

use core::time::Duration;
use std::sync::{Arc, Mutex};

use crate::support::{
    Answer, BODY, PATH, Request, Server, builder_with, count, counted, endpoint, stored,
};
use pleo_receiver::verify::unix_now;
use pleo_receiver::{ServerOptions, State};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

async fn assert_rejected(server: &Server, request: &Request, status: u16, code: &str) -> Answer {
    let before = counted(&server.receiver, &rejected(code));
    let answer = server.send(request).await;
    assert_eq!(
        (answer.status, &*answer.code()),
        (status, code),
        "{answer:?}"
    );
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(
        counted(&server.receiver, &rejected(code)),
        before + 1,
        "{code} is counted"
    );
    let stats = server.inbox().stats().await.unwrap();
    assert!(stats.is_empty(), "{code} stores {stats:?}");
    answer
}

fn rejected(code: &str) -> String {
    let endpoint = if code == "no_such_path" { "" } else { PATH };
    format!("pleo_receiver_rejected_total{{endpoint=\"{endpoint}\",reason=\"{code}\"}}")
}

#[tokio::test]
async fn stores_authentic_delivery_once() {
    let server = Server::start(builder_with(endpoint())).await;
    for _ in 0..2 {
        let answer = server.send(&Request::signed("msg_1", BODY)).await;
        assert_eq!((answer.status, &*answer.body), (204, ""));
    }
    let stats = server.inbox().stats().await.unwrap();
    assert_eq!((stats.len(), stats[0].pending()), (1, 1));
    let stored = stored(server.inbox(), "msg_1").await;
    let entry = stored.entry;
    assert_eq!(&stored.body[..], BODY);
    assert_eq!(entry.event_type.as_deref(), Some("v9.new"));
    assert_eq!(entry.event_id.as_deref(), Some("e1"));
    for (outcome, count) in [("stored", 1), ("known", 1), ("conflict", 0)] {
        let line =
            format!("pleo_receiver_accepted_total{{endpoint=\"{PATH}\",outcome=\"{outcome}\"}}");
        assert_eq!(counted(&server.receiver, &line), count, "{outcome}");
    }
    server.stop().await;
}

#[tokio::test]
async fn rejects_with_code_and_stores_nothing() {
    let server = Server::start(builder_with(endpoint())).await;
    let good = || Request::signed("msg_1", BODY);
    let at = |skew: i64| Request::signed_at("msg_1", BODY, unix_now().saturating_add_signed(skew));
    let mut unknown_path = good();
    unknown_path.path = "/webhooks".into();
    let mut get = good();
    get.method = "GET";
    let mut tampered = good();
    tampered.body[2] ^= 1;

    for (request, status, code) in [
        (unknown_path, 404, "no_such_path"),
        (get, 405, "method_not_allowed"),
        (good().with("content-type", None), 415, "not_json"),
        (good().with("content-type", "text/plain"), 415, "not_json"),
        (
            good().with("content-encoding", "gzip"),
            415,
            "content_encoding",
        ),
        (good().with("webhook-id", None), 400, "missing_header"),
        (
            good()
                .with("webhook-timestamp", None)
                .and("svix-timestamp", "1"),
            400,
            "missing_header",
        ),
        (
            good().with("webhook-signature", None),
            400,
            "missing_header",
        ),
        (good().and("webhook-id", "msg_2"), 400, "duplicate_header"),
        (
            good().and("webhook-signature", "v1,AAAA"),
            400,
            "duplicate_header",
        ),
        (good().with("webhook-id", "msg_1.2"), 400, "invalid_id"),
        (
            good().with("webhook-timestamp", "+1"),
            400,
            "invalid_timestamp",
        ),
        (
            good().with("webhook-signature", "v1a,AAAA"),
            400,
            "no_supported_signature",
        ),
        (
            good().with("webhook-signature", "v1,AAAA"),
            401,
            "signature_mismatch",
        ),
        (
            good().with("webhook-id", "msg_2"),
            401,
            "signature_mismatch",
        ),
        (tampered, 401, "signature_mismatch"),
        (at(-330), 401, "timestamp_too_old"),
        (at(330), 401, "timestamp_too_new"),
    ] {
        let answer = assert_rejected(&server, &request, status, code).await;
        assert_eq!(answer.header("allow"), (status == 405).then_some("post"));
    }
    server.stop().await;
}

#[tokio::test]
async fn accepts_json_content_types() {
    let server = Server::start(builder_with(endpoint())).await;
    for content_type in [
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/cloudevents+json",
    ] {
        let request = Request::signed("msg_1", BODY).with("content-type", content_type);
        assert_eq!(server.send(&request).await.status, 204, "{content_type}");
    }
    server.stop().await;
}

#[tokio::test]
async fn rejects_oversized_body_before_reading_it() {
    let server = Server::start(builder_with(endpoint()).body_limit(BODY.len())).await;
    // Only the headers are sent, so the response cannot wait for the body.
    let mut request = Request::signed("msg_1", &[BODY, b" "].concat());
    request.body.clear();
    let answer = assert_rejected(&server, &request, 413, "body_too_large").await;
    assert_eq!(answer.header("connection"), Some("close"));

    let mut chunked = Request::signed("msg_1", &[BODY, b" "].concat())
        .with("content-length", None)
        .with("transfer-encoding", "chunked");
    chunked.body = format!(
        "{:x}\r\n{}\r\n1\r\n \r\n",
        BODY.len(),
        str::from_utf8(BODY).unwrap()
    )
    .into();
    assert_rejected(&server, &chunked, 413, "body_too_large").await;

    assert_eq!(
        server.send(&Request::signed("msg_1", BODY)).await.status,
        204
    );
    server.stop().await;
}

#[tokio::test]
async fn verifies_body_sent_in_pieces() {
    let server = Server::start(builder_with(endpoint())).await;
    let mut request = Request::signed("msg_1", BODY)
        .with("content-length", None)
        .with("transfer-encoding", "chunked");
    request.body = Vec::new();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&request.bytes()).await.unwrap();
    for piece in BODY.chunks(10) {
        let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
        stream.write_all(&chunk).await.unwrap();
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.status, 204);
    assert_eq!(&stored(server.inbox(), "msg_1").await.body[..], BODY);
    server.stop().await;
}

#[tokio::test]
async fn rejects_slow_body_and_slow_headers() {
    let options = ServerOptions::default().with_header_timeout(Duration::from_millis(100));
    let builder = builder_with(endpoint()).body_timeout(Duration::from_millis(100));
    let server = Server::start_with(builder, options).await;
    let mut incomplete = Request::signed("msg_1", BODY);
    incomplete.body.truncate(5);
    assert_rejected(&server, &incomplete, 408, "body_timeout").await;

    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost:").await.unwrap();
    assert!(matches!(Answer::read(&mut stream).await.status, 0 | 408));
    server.stop().await;
}

#[tokio::test]
async fn rejects_oversized_headers() {
    let server = Server::start(builder_with(endpoint())).await;
    let request = Request::signed("msg_1", BODY).and("x", Some(&*"x".repeat(20_000).leak()));
    assert_eq!(server.send(&request).await.status, 431);
    server.stop().await;
}

#[tokio::test]
async fn checks_credentials_and_required_headers() {
    let endpoint = endpoint()
        .credentials("user", "pass:word")
        .require_header("x-tenant", "acme")
        .unwrap();
    let server = Server::start(builder_with(endpoint)).await;
    let good = || {
        Request::signed("msg_1", BODY)
            .with("authorization", "Basic dXNlcjpwYXNzOndvcmQ=")
            .with("x-tenant", "acme")
    };
    for (request, code) in [
        (good().with("authorization", None), "wrong_credentials"),
        (
            good().with("authorization", "Basic dXNlcjpwYXNz"),
            "wrong_credentials",
        ),
        (
            good().with("authorization", "Bearer dXNlcjpwYXNzOndvcmQ="),
            "wrong_credentials",
        ),
        (
            good().and("authorization", "Basic dXNlcjpwYXNzOndvcmQ="),
            "wrong_credentials",
        ),
        (good().with("x-tenant", None), "wrong_header"),
        (good().with("x-tenant", "ACME"), "wrong_header"),
        (good().and("x-tenant", "acme"), "wrong_header"),
    ] {
        let answer = assert_rejected(&server, &request, 401, code).await;
        assert_eq!(
            answer.header("www-authenticate").is_some(),
            code == "wrong_credentials"
        );
    }
    assert_eq!(server.send(&good()).await.status, 204);
    server.stop().await;
}

#[tokio::test]
async fn rejects_source_outside_allowed_networks() {
    let endpoint = endpoint().allow_sources(&["52.215.16.239/32".parse().unwrap()]);
    let server = Server::start(builder_with(endpoint.clone())).await;
    assert_rejected(
        &server,
        &Request::signed("msg_1", BODY),
        403,
        "source_not_allowed",
    )
    .await;
    let forwarded = Request::signed("msg_1", BODY).and("x-forwarded-for", "52.215.16.239");
    assert_rejected(&server, &forwarded, 403, "source_not_allowed").await;
    server.stop().await;

    let proxied = builder_with(endpoint).trusted_proxies(&["127.0.0.0/8".parse().unwrap()]);
    let server = Server::start(proxied).await;
    assert_eq!(server.send(&forwarded).await.status, 204);
    server.stop().await;

    let allowed = crate::support::endpoint().allow_sources(&["127.0.0.0/8".parse().unwrap()]);
    let server = Server::start(builder_with(allowed)).await;
    assert_eq!(
        server.send(&Request::signed("msg_1", BODY)).await.status,
        204
    );
    server.stop().await;
}

#[tokio::test]
async fn answers_503_after_inbox_is_closed() {
    let server = Server::start(builder_with(endpoint())).await;
    server.inbox().close().await.unwrap();
    let answer = server.send(&Request::signed("msg_1", BODY)).await;
    assert_eq!((answer.status, &*answer.code()), (503, "shutting_down"));
    assert_eq!(answer.header("retry-after"), Some("5"));
}

#[tokio::test]
async fn stores_authentic_body_that_is_not_json() {
    let server = Server::start(builder_with(endpoint())).await;
    for (id, body) in [
        ("msg_1", &b"not json"[..]),
        ("msg_2", b""),
        ("msg_3", b"\xff\x00"),
    ] {
        assert_eq!(server.send(&Request::signed(id, body)).await.status, 204);
        let stored = stored(server.inbox(), id).await;
        assert_eq!((&stored.body[..], stored.entry.event_type), (body, None));
    }
    server.stop().await;
}

#[tokio::test]
async fn keeps_first_body_of_duplicate_id() {
    let server = Server::start(builder_with(endpoint())).await;
    for body in [BODY, b"{}"] {
        assert_eq!(
            server.send(&Request::signed("msg_1", body)).await.status,
            204
        );
    }
    assert_eq!(count(server.inbox(), State::Pending).await, 1);
    assert_eq!(&stored(server.inbox(), "msg_1").await.body[..], BODY);
    let line = format!("pleo_receiver_accepted_total{{endpoint=\"{PATH}\",outcome=\"conflict\"}}");
    assert_eq!(counted(&server.receiver, &line), 1);
    server.stop().await;
}

#[tokio::test]
async fn observer_gets_rejections_and_nothing_else() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let observed = Arc::clone(&seen);
    let builder = builder_with(endpoint()).on_rejected(move |rejected| {
        let endpoint = rejected.endpoint.map(str::to_owned);
        let source = rejected.source.map(|source| source.to_string());
        let seen = (endpoint, source, rejected.rejection.code());
        observed.lock().unwrap().push(seen);
    });
    let server = Server::start(builder).await;
    let names: Vec<_> = server.receiver.endpoints();
    let names: Vec<_> = names.iter().map(|endpoint| &**endpoint.name()).collect();
    assert_eq!(names, [PATH]);
    server.send(&Request::signed("msg_1", BODY)).await;
    let mut unknown_path = Request::signed("msg_2", BODY);
    unknown_path.path = "/webhooks".into();
    server.send(&unknown_path).await;
    let mut tampered = Request::signed("msg_3", BODY);
    tampered.body[2] ^= 1;
    server.send(&tampered).await;
    let source = Some("127.0.0.1".to_owned());
    assert_eq!(
        *seen.lock().unwrap(),
        [
            (None, source.clone(), "no_such_path"),
            (Some(PATH.to_owned()), source, "signature_mismatch"),
        ]
    );
    server.stop().await;
}
