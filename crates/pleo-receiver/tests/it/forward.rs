//! The handler that posts to a URL, with real sockets.

#![cfg(feature = "forward")]

use core::time::Duration;
use std::error::Error;

use pleo_receiver::verify::{Headers, Secret, Verifier, unix_now};
use pleo_receiver::{Delivery, Forward, Handler, NewMessage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const BODY: &[u8] = b"{\"eventType\": \"v9.new\", \"eventId\":\"e1\",\"data\":\"\\u00e9\xc3\xa9\"}";

fn delivery() -> Delivery {
    Delivery::new(NewMessage::new("books", "msg_1", BODY), 2)
}

/// A target that takes one connection after the other.
struct Target(TcpListener);

impl Target {
    async fn new() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        (Self(listener), authority)
    }

    async fn accept(&self) -> TcpStream {
        self.0.accept().await.unwrap().0
    }
}

/// Reads one request with a body of the length of `BODY`, and answers it.
async fn answer(stream: &mut TcpStream, answer: &str) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        assert_ne!(
            stream.read_buf(&mut bytes).await.unwrap(),
            0,
            "closed early"
        );
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n")
            && bytes.len() >= end + 4 + BODY.len()
        {
            stream.write_all(answer.as_bytes()).await.unwrap();
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            return (head, bytes[end + 4..].to_vec());
        }
    }
}

async fn forwarded(
    forward: &Forward,
    target: &Target,
    reply: &str,
) -> (Result<(), String>, String) {
    let (result, (head, body)) = tokio::join!(forward.handle(delivery()), async {
        let mut stream = target.accept().await;
        answer(&mut stream, reply).await
    });
    assert_eq!(body, BODY, "byte for byte");
    (result.map_err(|error| chain(&*error)), head)
}

fn chain(error: &(dyn Error + Send + Sync)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    Some(lines.find(|(other, _)| *other == name)?.1)
}

#[tokio::test]
async fn the_target_gets_the_body_and_what_the_message_is() {
    let (target, authority) = Target::new().await;
    let forward = Forward::new(&format!("http://{authority}/in?x=1")).unwrap();
    let (result, head) = forwarded(
        &forward,
        &target,
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    assert_eq!(result, Ok(()));
    assert!(head.starts_with("POST /in?x=1 HTTP/1.1\r\n"), "{head}");
    for (name, value) in [
        ("host", Some(&*authority)),
        ("content-type", Some("application/json")),
        ("webhook-id", Some("msg_1")),
        ("pleo-endpoint", Some("books")),
        ("pleo-event-type", Some("v9.new")),
        ("pleo-event-id", Some("e1")),
        ("pleo-attempt", Some("2")),
        ("pleo-expires-at", None),
        ("webhook-signature", None),
        ("authorization", None),
    ] {
        assert_eq!(header(&head, name), value, "{name}");
    }
    assert!(header(&head, "pleo-received-at").is_some());
}

#[tokio::test]
async fn only_2xx_is_a_success_and_no_redirect_is_followed() {
    let (target, authority) = Target::new().await;
    let (elsewhere, other) = Target::new().await;
    let forward = Forward::new(&format!("http://{authority}/")).unwrap();
    for (status, success) in [
        ("204 No Content", true),
        ("202 Accepted", true),
        ("302 Found", false),
        ("307 Temporary Redirect", false),
        ("410 Gone", false),
        ("500 Internal Server Error", false),
    ] {
        let reply = format!(
            "HTTP/1.1 {status}\r\nlocation: http://{other}/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let (result, _) = forwarded(&forward, &target, &reply).await;
        let expected = if success {
            Ok(())
        } else {
            Err(format!("cannot forward: answered {status}"))
        };
        assert_eq!(result, expected);
    }
    tokio::select! {
        biased;
        _ = elsewhere.accept() => panic!("the redirect was followed"),
        () = tokio::task::yield_now() => {}
    }
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let (target, authority) = Target::new().await;
    let forward = Forward::new(&format!("http://{authority}/")).unwrap();
    let serve = async {
        let mut stream = target.accept().await;
        for _ in 0..2 {
            answer(&mut stream, "HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    };
    let send = async {
        for _ in 0..2 {
            forward.handle(delivery()).await.unwrap();
        }
    };
    tokio::join!(serve, send);
}

#[tokio::test]
async fn a_target_that_is_gone_or_silent_is_a_failure() {
    let (target, authority) = Target::new().await;
    let forward = Forward::new(&format!("http://{authority}/"))
        .unwrap()
        .with_timeout(Duration::from_millis(50));
    let error = chain(&*forward.handle(delivery()).await.unwrap_err());
    assert_eq!(error, "cannot forward: no whole answer within 50ms");
    drop(target);
    let error = chain(&*forward.handle(delivery()).await.unwrap_err());
    assert!(error.contains("Connection refused"), "{error}");
}

#[tokio::test]
async fn a_signed_message_verifies_at_the_target() {
    let secret = || Secret::from_bytes(&[9; 32]).unwrap();
    let (target, authority) = Target::new().await;
    let forward = Forward::new(&format!("http://{authority}/"))
        .unwrap()
        .signed_with(secret());
    let (result, head) = forwarded(&forward, &target, "HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(result, Ok(()));
    let value = |name| header(&head, name).unwrap().as_bytes();
    let headers = Headers::new(
        value("webhook-id"),
        value("webhook-timestamp"),
        value("webhook-signature"),
    );
    let verified = Verifier::new(secret())
        .verify(&headers, BODY, unix_now())
        .unwrap();
    assert_eq!(verified.id(), "msg_1");
}

#[tokio::test]
async fn credentials_in_the_url_are_sent_and_never_shown() {
    let (target, authority) = Target::new().await;
    let forward = Forward::new(&format!("http://user:p%40ss@{authority}/")).unwrap();
    let (result, head) = forwarded(
        &forward,
        &target,
        "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(header(&head, "authorization"), Some("Basic dXNlcjpwQHNz"));
    assert_eq!(header(&head, "host"), Some(&*authority));
    drop(target);
    let refused = chain(&*forward.handle(delivery()).await.unwrap_err());
    for text in [format!("{forward:?}"), format!("{result:?}"), refused] {
        assert!(
            !text.contains("p%40ss") && !text.contains("p@ss") && !text.contains("dXNl"),
            "{text}"
        );
    }
}

#[test]
fn a_url_that_cannot_be_used_is_refused_without_showing_it() {
    for (url, reason) in [
        ("user:pass@host", "not absolute"),
        ("/path", "not absolute"),
        ("ftp://user:pass@host/", "scheme"),
        ("http://user:pass@host/#x", "fragment"),
        ("http://user:pass@/", "no"),
        ("http://user:pa ss@host/", "not a URL"),
        ("", "not a URL"),
    ] {
        let error = chain(&Forward::new(url).unwrap_err());
        assert!(error.contains(reason), "{url}: {error}");
        assert!(!error.contains("pass"), "{error}");
    }
}
