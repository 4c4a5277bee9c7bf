//! Tests of `Forward`, with real sockets.

#![cfg(feature = "forward")]

use core::time::Duration;
use std::error::Error;
use std::process::{Command, Stdio};
use std::sync::Arc;

use pleo_receiver::verify::{Secret, SignatureHeaders, Verifier};
use pleo_receiver::{Delivery, Forward, Handler, HandlerError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_blocking;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::support::tls::certify;
use crate::support::within;

const BODY: &[u8] = b"{\"eventType\": \"v9.new\", \"eventId\":\"e1\",\"data\":\"\\u00e9\xc3\xa9\"}";

fn delivery() -> Delivery {
    let delivery = Delivery::builder(BODY).endpoint("books").id("msg_1");
    delivery.attempt(2).build()
}

/// A target that accepts one connection after the other.
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

/// Reads one request with a body as long as `BODY`, and answers it.
async fn answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    answer: &str,
) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        assert_ne!(
            stream.read_buf(&mut bytes).await.unwrap(),
            0,
            "the connection was closed early"
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

async fn handled(
    forward: &Forward,
    target: &Target,
    reply: &str,
) -> (Result<(), HandlerError>, String) {
    let (result, (head, body)) = tokio::join!(forward.handle(delivery()), async {
        let mut stream = target.accept().await;
        answer(&mut stream, reply).await
    });
    assert_eq!(body, BODY, "the body was changed");
    (result, head)
}

async fn forwarded(
    forward: &Forward,
    target: &Target,
    reply: &str,
) -> (Result<(), String>, String) {
    let (result, head) = handled(forward, target, reply).await;
    (result.map_err(|error| chain(error.error())), head)
}

fn chain(error: &(dyn Error + 'static)) -> String {
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
async fn posts_body_and_metadata() {
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
async fn only_2xx_succeeds_and_redirects_are_not_followed() {
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
            Err(format!("cannot forward: target answered {status}"))
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
async fn response_decides_retry() {
    const BACKOFF: (bool, Option<Duration>) = (false, None);
    const DELAY: (bool, Option<Duration>) = (false, Some(Duration::from_secs(90)));
    const PERMANENT: (bool, Option<Duration>) = (true, None);
    let (target, authority) = Target::new().await;
    let forward = Forward::new(&format!("http://{authority}/")).unwrap();
    for (head, expected) in [
        ("500 Internal Server Error", BACKOFF),
        ("404 Not Found", BACKOFF),
        ("410 Gone", PERMANENT),
        ("410 Gone\r\nretry-after: 90", PERMANENT),
        ("503 Service Unavailable\r\nretry-after: 90", DELAY),
        ("429 Too Many Requests\r\nRetry-After: 90", DELAY),
        ("302 Found\r\nretry-after: 90", DELAY),
        ("503 Service Unavailable\r\nretry-after: soon", BACKOFF),
    ] {
        let reply = format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let error = handled(&forward, &target, &reply).await.0.unwrap_err();
        assert_eq!((error.is_permanent(), error.delay()), expected, "{head}");
    }
    let reply = "HTTP/1.1 503 Busy\r\nretry-after: Wed, 01 Jan 2200 00:00:00 GMT\r\n\r\n";
    let error = handled(&forward, &target, reply).await.0.unwrap_err();
    let years = error.delay().unwrap().as_secs() / (365 * 24 * 3600);
    assert!((100..175).contains(&years), "{years}");
}

#[tokio::test]
async fn head_of_2xx_is_success_whatever_becomes_of_body() {
    let (target, authority) = Target::new().await;
    let forward = Forward::new(&format!("http://{authority}/")).unwrap();
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\npart";
    // The body never ends.
    let mut open = None;
    let (handled, ()) = within(async {
        tokio::join!(forward.handle(delivery()), async {
            let mut stream = target.accept().await;
            answer(&mut stream, head).await;
            open = Some(stream);
        })
    })
    .await;
    handled.unwrap();
    // The connection breaks.
    assert_eq!(forwarded(&forward, &target, head).await.0, Ok(()));
}

#[tokio::test]
async fn time_limit_ends_endless_informational_responses() {
    let (target, authority) = Target::new().await;
    let forward = Forward::new(&format!("http://{authority}/"))
        .unwrap()
        .with_timeout(Duration::from_millis(100));
    let serve = async {
        let informational = "HTTP/1.1 103 Early Hints\r\n\r\n";
        let mut stream = target.accept().await;
        answer(&mut stream, informational).await;
        // Until the client closes the connection.
        while (stream.write_all(informational.as_bytes()).await).is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let (handled, ()) = within(async { tokio::join!(forward.handle(delivery()), serve) }).await;
    let error = handled.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot forward: no response within 100ms"
    );
}

#[tokio::test]
async fn reuses_connection() {
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
async fn fails_if_target_is_down_or_silent() {
    let (target, authority) = Target::new().await;
    let forward = Forward::new(&format!("http://{authority}/"))
        .unwrap()
        .with_timeout(Duration::from_millis(50));
    let error = chain(forward.handle(delivery()).await.unwrap_err().error());
    assert_eq!(error, "cannot forward: no response within 50ms");
    drop(target);
    let error = chain(forward.handle(delivery()).await.unwrap_err().error());
    let refused = "connection refused; is the server running?";
    assert_eq!(
        error,
        format!("cannot connect to http://{authority}: {refused}")
    );
}

#[tokio::test]
async fn observer_gets_start_of_body_of_failed_response() {
    for (status, sent, length, observed) in [
        (
            "422 No",
            "unknown account",
            15,
            Some("unknown account".to_owned()),
        ),
        ("500 Oops", &*"x".repeat(3000), 3000, Some("x".repeat(1024))),
        // The rest never arrives.
        ("500 Oops", "part", 9, Some("part".to_owned())),
        ("200 OK", "fine", 4, None),
    ] {
        let (target, authority) = Target::new().await;
        let (sender, mut bodies) = tokio::sync::mpsc::unbounded_channel();
        let forward = Forward::new(&format!("http://{authority}/")).unwrap();
        let forward = forward.on_failed(move |delivery, body| {
            assert_eq!(delivery.id(), "msg_1");
            sender
                .send(String::from_utf8_lossy(body).into_owned())
                .unwrap();
        });
        let reply = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{sent}");
        let (result, _) = tokio::join!(forward.handle(delivery()), async {
            let mut stream = target.accept().await;
            answer(&mut stream, &reply).await;
            stream
        });
        assert_eq!(result.is_err(), observed.is_some(), "{status}");
        assert_eq!(bodies.try_recv().ok(), observed, "{status}");
    }
}

#[tokio::test]
async fn signs_with_verifiable_signature() {
    let secret = || Secret::from_bytes(&[9; 32]).unwrap();
    let (target, authority) = Target::new().await;
    let forward = Forward::new(&format!("http://{authority}/"))
        .unwrap()
        .signed_with(secret());
    let (result, head) = forwarded(&forward, &target, "HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(result, Ok(()));
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let pairs = names.map(|name| (name, header(&head, name).unwrap()));
    let headers = SignatureHeaders::from_pairs(pairs).unwrap();
    let verified = Verifier::new(secret()).verify_now(&headers, BODY).unwrap();
    assert_eq!(verified.id(), "msg_1");
}

#[tokio::test]
async fn sends_url_credentials_and_never_shows_them() {
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
    let refused = chain(forward.handle(delivery()).await.unwrap_err().error());
    for text in [format!("{forward:?}"), format!("{result:?}"), refused] {
        assert!(
            !text.contains("p%40ss") && !text.contains("p@ss") && !text.contains("dXNl"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn sends_path_and_query_as_given() {
    let (target, authority) = Target::new().await;
    for (given, sent) in [
        ("", "/"),
        ("?q", "/?q"),
        ("//a//b/", "//a//b/"),
        ("/a%2Fb/%7e%C3%a9%zz%", "/a%2Fb/%7e%C3%a9%zz%"),
        (
            "/a..b/...?x=/../&y=%2F%20+&&",
            "/a..b/...?x=/../&y=%2F%20+&&",
        ),
        ("/a;b=c,d'!$&*()[]|^?{}|^`[]", "/a;b=c,d'!$&*()[]|^?{}|^`[]"),
        ("/é?é'", "/%C3%A9?%C3%A9%27"),
    ] {
        let forward = Forward::new(&format!("http://{authority}{given}")).unwrap();
        let reply = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
        let (result, head) = forwarded(&forward, &target, reply).await;
        assert_eq!(result, Ok(()));
        let line = head.lines().next().unwrap();
        assert_eq!(line, format!("POST {sent} HTTP/1.1"));
    }
}

#[tokio::test]
async fn sends_credentials_of_any_bytes() {
    let (target, authority) = Target::new().await;
    for (userinfo, sent) in [
        ("u", "Basic dTo="),
        ("u:", "Basic dTo="),
        (":p", "Basic OnA="),
        ("", "Basic Og=="),
        ("u:p:q", "Basic dTpwOnE="),
        ("u%FF:p%zz", "Basic df86cCV6eg=="),
    ] {
        let forward = Forward::new(&format!("http://{userinfo}@{authority}/")).unwrap();
        let reply = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
        let (result, head) = forwarded(&forward, &target, reply).await;
        assert_eq!(result, Ok(()));
        assert_eq!(header(&head, "authorization"), Some(sent), "{userinfo}");
        assert_eq!(header(&head, "host"), Some(&*authority));
    }
}

#[test]
fn refuses_invalid_url_without_showing_it() {
    for (url, reason) in [
        ("user:pass@host", "scheme"),
        ("/path", "relative URL"),
        ("ftp://user:pass@host/", "scheme"),
        ("http://user:pass@host/#x", "fragment"),
        ("http://user:pass@/", "empty host"),
        ("http://user:pa ss@host/", "whitespace"),
        ("", "absolute URL"),
        // What URL parsers would repair or rewrite is not sent elsewhere.
        ("http:user:pass@host", "no host"),
        ("http:///user:pass@host", "percent-encoded"),
        ("http:\\\\user:pass@host/", "percent-encoded"),
        ("http://user:pass@host/<x>", "percent-encoded"),
        ("http://user:pass@host/a/../b", "`..`"),
        ("http://user:pass@host/a/%2E%2e/b", "`..`"),
        ("http://user:pass@host/./b", "`.`"),
        ("http://user:pass@host/a\\b", "`\\`"),
    ] {
        let error = chain(&Forward::new(url).unwrap_err());
        assert!(error.contains(reason), "{url}: {error}");
        assert!(!error.contains("pass"), "{error}");
    }
}

/// Names the target for a process with other certificate authorities.
const HTTPS_TARGET: &str = "PLEO_TEST_HTTPS_TARGET";

#[tokio::test]
async fn verifies_certificate_of_https_target() {
    if let Ok(url) = std::env::var(HTTPS_TARGET) {
        let result = Forward::new(&url).unwrap().handle(delivery()).await;
        return result.unwrap_or_else(|error| panic!("{}", chain(error.error())));
    }
    let [trusted, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let certificate = certify(trusted.path());
    certify(other.path());
    let key = PrivateKeyDer::from_pem_file(trusted.path().join("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (target, authority) = Target::new().await;
    let url = format!("https://{}/", authority.replace("127.0.0.1", "localhost"));
    for (directory, is_trusted) in [(&trusted, true), (&other, false)] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "forward::verifies_certificate_of_https_target"])
            .env(HTTPS_TARGET, &url)
            .env("SSL_CERT_FILE", directory.path().join("cert.pem"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let serve = async {
            if let Ok(mut stream) = acceptor.accept(target.accept().await).await {
                let (_, body) = answer(&mut stream, "HTTP/1.1 204 No Content\r\n\r\n").await;
                assert_eq!(body, BODY);
            }
        };
        let output = spawn_blocking(|| child.wait_with_output());
        let (output, ()) = within(async { tokio::join!(output, serve) }).await;
        let output = output.unwrap().unwrap();
        assert_eq!(output.status.success(), is_trusted, "{output:?}");
        let output = [output.stdout, output.stderr].concat();
        let output = String::from_utf8_lossy(&output);
        let refused = output.contains("invalid peer certificate");
        assert_eq!(refused, !is_trusted, "{output}");
    }
}
