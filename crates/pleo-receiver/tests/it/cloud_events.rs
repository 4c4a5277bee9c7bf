//! Messages forwarded as CloudEvents in binary mode, to a real target.

#![cfg(feature = "forward")]

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use pleo_receiver::{Delivery, DeliveryBuilder, Forward, ForwardError, Handler};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const BODY: &[u8] = b"{\"eventType\": \"v9.new\",\"data\":\"\\u00e9\xc3\xa9\"}\n";

/// A target that keeps the requests.
struct Target {
    url: String,
    requests: mpsc::UnboundedReceiver<(HeaderMap, Bytes)>,
}

impl Target {
    async fn start() -> Self {
        let (sender, requests) = mpsc::unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let keep = async move |headers: HeaderMap, body: Bytes| {
            sender.send((headers, body)).unwrap();
        };
        let app = Router::new().fallback(keep);
        tokio::spawn(async { axum::serve(listener, app).await });
        Self { url, requests }
    }

    /// Forwards a message. Returns its headers with the prefix `ce-`, and the others.
    async fn forward(
        &mut self,
        source: &str,
        delivery: DeliveryBuilder,
    ) -> (BTreeMap<String, String>, HeaderMap) {
        let delivery = delivery.build();
        let body = delivery.body().clone();
        let forward = Forward::new(&self.url).unwrap();
        let forward = forward.with_cloud_events(source).unwrap();
        forward.handle(delivery).await.unwrap();
        let (headers, received) = self.requests.recv().await.unwrap();
        assert_eq!(received, body, "the body is unchanged");
        let attributes = headers.iter().filter_map(|(name, value)| {
            let name = name.as_str().strip_prefix("ce-")?;
            Some((name.to_owned(), value.to_str().unwrap().to_owned()))
        });
        (attributes.collect(), headers)
    }
}

fn delivery() -> DeliveryBuilder {
    let delivery = Delivery::builder(BODY)
        .id("msg_1")
        .endpoint("/webhooks/pleo");
    delivery.received_at("2026-11-26T07:00:00.123Z".parse().unwrap())
}

#[tokio::test]
async fn adds_attributes_beside_other_headers() {
    let mut target = Target::start().await;
    let (attributes, headers) = target.forward("", delivery().attempt(2)).await;
    let expected = [
        ("id", "msg_1"),
        ("source", "/webhooks/pleo"),
        ("specversion", "1.0"),
        ("time", "2026-11-26T07:00:00.123Z"),
        ("type", "v9.new"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(attributes, expected.into());
    for (name, value) in [
        ("content-type", "application/json"),
        ("webhook-id", "msg_1"),
        ("pleo-endpoint", "/webhooks/pleo"),
        ("pleo-attempt", "2"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    let (again, _) = target.forward("", delivery().attempt(3)).await;
    assert_eq!(again, attributes, "the same for each attempt");
}

#[tokio::test]
async fn source_is_uri_reference_of_endpoint() {
    let mut target = Target::start().await;
    for (start, endpoint, source) in [
        ("", "/", "/"),
        ("", "/acme", "/acme"),
        ("", "acme", "#acme"),
        ("", "//host/x", "/%2Fhost/x"),
        ("", "acme:eu", "#acme%3Aeu"),
        (
            "https://hooks.example.com",
            "/webhooks/pleo",
            "https://hooks.example.com/webhooks/pleo",
        ),
        (
            "https://hooks.example.com/a%20b/",
            "acme",
            "https://hooks.example.com/a%20b#acme",
        ),
        ("urn:acme:pleo", "books", "urn:acme:pleo#books"),
        (
            "https://x",
            "Bücher & co",
            "https://x#B%C3%BCcher%20%26%20co",
        ),
    ] {
        let (attributes, _) = target.forward(start, delivery().endpoint(endpoint)).await;
        assert_eq!(decode(&attributes["source"]), source, "{endpoint}");
    }
}

#[tokio::test]
async fn percent_encodes_values() {
    let mut target = Target::start().await;
    let id = "a\"b%41~!";
    let body = "{\"eventType\": \"Euro \\u20ac \\ud83d\\ude00 50%\\\"\"}";
    let delivery = Delivery::builder(body).id(id).endpoint("a b");
    let (attributes, _) = target.forward("", delivery).await;
    // The example in section 3.1.3.2 of the HTTP binding, and more.
    assert_eq!(
        attributes["type"],
        "Euro%20%E2%82%AC%20%F0%9F%98%80%2050%25%22"
    );
    assert_eq!(attributes["id"], "a%22b%2541~!");
    assert_eq!(attributes["source"], "#a%2520b");
    assert_eq!(decode(&attributes["id"]), id);
}

#[tokio::test]
async fn type_is_unknown_without_usable_event_type() {
    let mut target = Target::start().await;
    let long = format!("{{\"eventType\": \"{}\"}}", "x".repeat(2000));
    for body in [
        "no envelope",
        "{}",
        "{\"eventType\": \"\"}",
        "{\"eventType\": \"a\\u0007b\"}",
        &long,
    ] {
        let (attributes, _) = target.forward("", Delivery::builder(body.to_owned())).await;
        assert_eq!(attributes["type"], "unknown", "{body}");
        assert_eq!(attributes.len(), 5, "{attributes:?}");
    }
}

#[test]
fn rejects_start_that_no_uri_has() {
    for source in [
        "a b",
        "https://x/?a",
        "https://x/#a",
        "é",
        "a\nb",
        "%",
        "%4",
        "%zz",
        "\"",
        "<x>",
    ] {
        let forward = Forward::new("http://localhost/").unwrap();
        let error = forward.with_cloud_events(source).unwrap_err();
        assert!(
            matches!(error, ForwardError::Source { .. }),
            "{source}: {error}"
        );
    }
}

/// Decodes a header value, as section 3.1.3.2 of the HTTP binding says.
fn decode(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let [first, behind @ ..] = rest {
        assert!((0x21..=0x7e).contains(first) && *first != b'"', "{value}");
        if let ([high, low, behind @ ..], b'%') = (behind, first) {
            let digits = String::from_utf8(vec![*high, *low]).unwrap();
            bytes.push(u8::from_str_radix(&digits, 16).unwrap());
            rest = behind;
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    String::from_utf8(bytes).unwrap()
}
