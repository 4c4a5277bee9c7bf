//! A client without the secret cannot fill the log.

#![cfg(target_os = "linux")]

use core::time::Duration;
use std::net::SocketAddr;
use std::time::Instant;

use crate::support::program::{ENV, RunningServer, WorkDir, free_address, read_metrics};
use crate::support::tls::{certify, connect, connector};
use crate::support::{Answer, PATH, Request, http::Client, send_to};
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time;
use tokio_rustls::rustls::pki_types::CertificateDer;

/// The size of each flood, in requests.
const REQUESTS: usize = 5000;

/// The size of the HTTP/2 flood, in frames.
const FRAMES: usize = 200_000;

/// The limit on the size of the log, in bytes.
const MAX_LOG: usize = 16 * 1024;

const MAX_DELAY: Duration = Duration::from_secs(1);

const TIMEOUT: Duration = Duration::from_secs(60);

/// A server that logs at this level, and its addresses.
struct Target {
    server: RunningServer,
    https: SocketAddr,
    metrics: String,
    certificate: CertificateDer<'static>,
}

impl Target {
    fn start(dir: &WorkDir, level: &str) -> Self {
        let certificate = certify(dir.path());
        dir.write(
            "pleo.toml",
            "inbox = \"memory:\"\ntls_listen = \"127.0.0.1:0\"\n\
             tls_certificate = \"cert.pem\"\ntls_key = \"key.pem\"",
        );
        let metrics = free_address();
        let args = [
            "--config",
            "pleo.toml",
            "--log",
            level,
            "--metrics",
            &metrics,
        ];
        let mut server = dir.serve(&args, ENV);
        let https = server.https_address();
        Self {
            server,
            https,
            metrics,
            certificate,
        }
    }

    /// Waits for the flood to end, and sends deliveries meanwhile. Asserts that each is answered soon.
    async fn deliver_during(&self, flood: JoinHandle<()>) {
        let start = Instant::now();
        let mut number = 0;
        while number == 0 || !flood.is_finished() {
            assert!(start.elapsed() < TIMEOUT, "the flood does not end");
            let request = Request::signed(&format!("msg_{number}"), b"{}");
            let sent = Instant::now();
            assert_eq!(send_to(self.server.address(), &request).await.status, 204);
            assert!(sent.elapsed() < MAX_DELAY, "took {:?}", sent.elapsed());
            number += 1;
            time::sleep(Duration::from_millis(200)).await;
        }
        flood.await.unwrap();
    }

    /// Asserts that the server counted this many rejections.
    fn assert_counted(&self, labels: &str, count: usize) {
        let page = read_metrics(&self.metrics);
        let sample = format!("pleo_receiver_{labels} {count}\n");
        assert!(page.contains(&sample), "{sample} is not in {page}");
    }

    /// Stops the server. Asserts that its log is small, and returns it.
    fn stop(self) -> String {
        let (code, log) = self.server.stop("-TERM");
        assert_eq!(code, Some(0));
        let start = log.get(..4096).unwrap_or(&log);
        assert!(log.len() < MAX_LOG, "{} bytes: {start}", log.len());
        log
    }
}

/// Sends a request many times on one connection, without waiting for the answers. Asserts the status
/// of each answer.
fn pipelined(address: &str, request: Request, status: u16) -> JoinHandle<()> {
    let address = address.to_owned();
    tokio::spawn(async move {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let answers = tokio::spawn(async move {
            let mut bytes = Vec::new();
            read.read_to_end(&mut bytes).await.unwrap();
            let text = String::from_utf8(bytes).unwrap();
            assert_eq!(text.matches("HTTP/1.1 ").count(), REQUESTS);
            assert_eq!(
                text.matches(&format!("HTTP/1.1 {status} ")).count(),
                REQUESTS
            );
        });
        for _ in 1..REQUESTS {
            write.write_all(&request.bytes()).await.unwrap();
        }
        let last = request.and("connection", "close").bytes();
        write.write_all(&last).await.unwrap();
        answers.await.unwrap();
    })
}

fn rejected(code: &str) -> String {
    format!("rejected_total{{endpoint=\"{PATH}\",reason=\"{code}\"}}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_paths_write_little() {
    let dir = WorkDir::exclusive();
    for level in ["info", "debug"] {
        let target = Target::start(&dir, level);
        let mut request = Request::signed("msg", b"{}");
        request.path = format!("/{}", "x".repeat(1000));
        let flood = pipelined(target.server.address(), request, 404);
        target.deliver_during(flood).await;
        let labels = "rejected_total{endpoint=\"\",reason=\"no_such_path\"}";
        target.assert_counted(labels, REQUESTS);
        let log = target.stop();
        assert_eq!(log.contains("no_such_path"), level == "debug", "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_signatures_write_little_and_are_counted() {
    let dir = WorkDir::exclusive();
    let target = Target::start(&dir, "debug");
    let mut request = Request::signed("msg", b"{}");
    request.body = b"[]".to_vec();
    let flood = pipelined(target.server.address(), request, 401);
    target.deliver_during(flood).await;
    target.assert_counted(&rejected("signature_mismatch"), REQUESTS);
    let log = target.stop();
    assert!(log.contains(" WARN delivery rejected"), "{log}");
    // Each request is in the log: with a line of its own, or in a count.
    let logged = log.matches("code=signature_mismatch").count();
    let counts = log.split(" suppressed=").skip(1);
    let suppressed: usize = counts
        .map(|rest| rest.split_whitespace().next().unwrap())
        .map(|count| count.parse::<usize>().unwrap())
        .sum();
    // The last line has the code and a count, and is no rejection.
    let summaries = log.matches("log lines suppressed").count();
    assert_eq!(logged - summaries + suppressed, REQUESTS, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_write_little() {
    let dir = WorkDir::exclusive();
    let target = Target::start(&dir, "debug");
    let address = target.server.address().to_owned();
    // These are answered by the receiver, on one connection.
    for (request, code) in [
        (
            Request::signed("msg", b"{}").with("content-type", "text/plain"),
            "not_json",
        ),
        (
            Request::signed("msg", b"{}").with("webhook-id", "a.b"),
            "invalid_id",
        ),
        (
            Request::signed("msg", b"{}").with("webhook-timestamp", "1"),
            "timestamp_too_old",
        ),
    ] {
        let status = match code {
            "not_json" => 415,
            "invalid_id" => 400,
            _ => 401,
        };
        let flood = pipelined(&address, request, status);
        target.deliver_during(flood).await;
        target.assert_counted(&rejected(code), REQUESTS);
    }
    // These are answered by hyper, which closes the connection.
    let flood = tokio::spawn(async move {
        for number in 0..500 {
            let stream = TcpStream::connect(&address).await.unwrap();
            let mut client = Client::new(stream);
            let request = match number % 3 {
                0 => "\u{1b}[31m / HTTP/1.1\r\n\r\n",
                1 => "POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
                _ => "POST / HTTP/9.9\r\n\r\n",
            };
            client.write(request.as_bytes()).await;
            assert_ne!(client.answer().await.status, 204);
        }
    });
    target.deliver_during(flood).await;
    target.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_delivery_writes_little() {
    let dir = WorkDir::exclusive();
    let target = Target::start(&dir, "debug");
    let request = Request::signed("msg_recorded", b"{}");
    let flood = pipelined(target.server.address(), request, 204);
    target.deliver_during(flood).await;
    let labels = format!("accepted_total{{endpoint=\"{PATH}\",outcome=\"known\"}}");
    target.assert_counted(&labels, REQUESTS - 1);
    let log = target.stop();
    assert!(log.contains("duplicate delivery"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ping_acknowledgements_write_little() {
    let dir = WorkDir::exclusive();
    let target = Target::start(&dir, "debug");
    let http2 = connector(&target.certificate, &["h2"]);
    let https = target.https;
    let flood = tokio::spawn(async move {
        const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
        const PING_ACK: &[u8] = &[0, 0, 8, 6, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let frames = PING_ACK.repeat(1000);
        let mut sent = 0;
        while sent < FRAMES {
            let stream = connect(&http2, https).await.unwrap();
            let (mut read, mut write) = split(stream);
            // The server may send frames, and close the connection.
            let drain = tokio::spawn(async move {
                let _ = tokio::io::copy(&mut read, &mut tokio::io::sink()).await;
            });
            let _ = write.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
            let _ = write.write_all(SETTINGS).await;
            while sent < FRAMES && write.write_all(&frames).await.is_ok() {
                sent += 1000;
            }
            let _ = write.flush().await;
            sent += 1000;
            drain.abort();
        }
    });
    target.deliver_during(flood).await;
    let delivery = Request::signed("msg_last", b"{}");
    let http1 = connector(&target.certificate, &["http/1.1"]);
    let mut stream = connect(&http1, https).await.unwrap();
    stream.write_all(&delivery.bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.status, 204);
    target.stop();
}
