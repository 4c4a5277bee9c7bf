//! HTTPS: both HTTP versions, the same limits as HTTP, and certificates that are reloaded.

#![cfg(feature = "tls")]

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::time::SystemTime;

use crate::support::tls::{connector, framed};
use crate::support::{Answer, BODY, Request, builder, wait_for};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use pleo_receiver::{ReceiverBuilder, ServeError, Server, ServerOptions, Tls, TlsError};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::CertificateDer;

/// Counts written files. The count is their modification time, which therefore always differs.
static TICKS: AtomicU64 = AtomicU64::new(0);

/// A folder with a certificate for `localhost` and its key.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a new certificate and key.
    fn renew(&self) -> CertificateDer<'static> {
        let (certificate, key, trusted) = crate::support::tls::certificate();
        self.write("cert.pem", &certificate);
        self.write("key.pem", &key);
        trusted
    }

    fn write(&self, name: &str, text: &str) {
        let file = File::create(self.0.path().join(name)).unwrap();
        (&file).write_all(text.as_bytes()).unwrap();
        // The clock of the file system may be too coarse to notice quick changes.
        let ticks = TICKS.fetch_add(1, Ordering::Relaxed);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(ticks);
        file.set_modified(time).unwrap();
    }

    fn tls(&self) -> Result<Tls, TlsError> {
        let path = |name| self.0.path().join(name);
        Tls::from_pem_files(path("cert.pem"), path("key.pem"))
    }
}

struct HttpsServer {
    https: SocketAddr,
    http: SocketAddr,
    tls: Tls,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), ServeError>>,
}

impl HttpsServer {
    async fn start(files: &Files, builder: ReceiverBuilder, options: ServerOptions) -> Self {
        Self::start_with(files.tls().unwrap(), builder, options).await
    }

    async fn start_with(tls: Tls, builder: ReceiverBuilder, options: ServerOptions) -> Self {
        let (https, http) = (listener().await, listener().await);
        let (stop, stopped) = oneshot::channel::<()>();
        let (receiver, dispatcher) = builder.build().unwrap();
        Self {
            https: https.local_addr().unwrap(),
            http: http.local_addr().unwrap(),
            tls: tls.clone(),
            stop,
            running: tokio::spawn(
                Server::new(receiver, dispatcher)
                    .options(options)
                    .listen(http)
                    .listen_tls(https, tls)
                    .run(async { drop(stopped.await) }),
            ),
        }
    }

    /// Connects to the server. Trusts only this certificate.
    async fn connect(
        &self,
        certificate: &CertificateDer<'static>,
        protocols: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        crate::support::tls::connect(&connector(certificate, protocols), self.https).await
    }

    async fn http2(&self, certificate: &CertificateDer<'static>) -> SendRequest<Full<Bytes>> {
        let stream = self.connect(certificate, &["h2"]).await.unwrap();
        crate::support::tls::http2(stream).await.unwrap()
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.running.await.unwrap().unwrap();
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

async fn send_http1(stream: &mut TlsStream<TcpStream>) -> Answer {
    let request = Request::signed("msg_1", BODY).bytes();
    stream.write_all(&request).await.unwrap();
    Answer::read(stream).await
}

#[tokio::test]
async fn serves_each_http_version_beside_plain_http() {
    let files = Files::new();
    let certificate = files.renew();
    let server = HttpsServer::start(&files, builder(), ServerOptions::default()).await;
    for protocols in [&["http/1.1"][..], &[]] {
        let mut stream = server.connect(&certificate, protocols).await.unwrap();
        for _ in 0..2 {
            let answer = send_http1(&mut stream).await;
            assert_eq!(answer.status, 204, "{protocols:?}");
        }
    }
    let both = server.connect(&certificate, &["http/1.1", "h2"]).await;
    assert_eq!(both.unwrap().get_ref().1.alpn_protocol(), Some(&b"h2"[..]));

    let mut client = server.http2(&certificate).await;
    for _ in 0..2 {
        let request = framed(&Request::signed("msg_1", BODY));
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 204);
    }
    let mut plain = TcpStream::connect(server.http).await.unwrap();
    let request = Request::signed("msg_1", BODY).bytes();
    plain.write_all(&request).await.unwrap();
    assert_eq!(Answer::read(&mut plain).await.status, 204);
    server.stop().await;
}

#[tokio::test]
async fn answers_http2_like_http1() {
    let files = Files::new();
    let certificate = files.renew();
    let builder = builder()
        .body_limit(1000)
        .body_timeout(Duration::from_millis(200));
    let server = HttpsServer::start(&files, builder, ServerOptions::default()).await;
    let mut client = server.http2(&certificate).await;
    let good = || Request::signed("msg_1", BODY);
    let large = || Request::signed("msg_1", &[b'x'; 200_000]);
    let mut unknown_path = framed(&good());
    *unknown_path.uri_mut() = "https://localhost/unknown".parse().unwrap();
    for (case, request, status, code) in [
        ("unknown path", unknown_path, 404, "no_such_path"),
        (
            "forged",
            framed(&good().with("webhook-id", "msg_2")),
            401,
            "signature_mismatch",
        ),
        (
            "too large by its length",
            framed(&large()),
            413,
            "body_too_large",
        ),
        (
            "too large",
            framed(&large().with("content-length", None)),
            413,
            "body_too_large",
        ),
        (
            "headers too large",
            framed(&good().and("x", Some(&*"x".repeat(17_000).leak()))),
            431,
            "",
        ),
    ] {
        let answer = wait_for(case, client.send_request(request)).await.unwrap();
        assert_eq!(answer.status(), status, "{case}");
        assert!(!answer.headers().contains_key("connection"), "{case}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        assert_eq!(problem["code"].as_str().unwrap_or_default(), code, "{case}");
    }
    // The connection stays open.
    let answer = client.send_request(framed(&good())).await.unwrap();
    assert_eq!(answer.status(), 204);
    server.stop().await;
}

#[tokio::test]
async fn closes_slow_tls_connections() {
    let files = Files::new();
    let certificate = files.renew();
    let options = ServerOptions::default()
        .with_header_timeout(Duration::from_millis(300))
        .with_idle_timeout(Duration::from_millis(600));
    let server = HttpsServer::start(&files, builder(), options).await;

    // No handshake, an incomplete one and an invalid one.
    for bytes in [
        &b""[..],
        b"\x16\x03\x01",
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(server.https).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        // The server may send an alert before it closes.
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        let _ = wait_for("connection without a handshake is closed", ended).await;
    }
    // A handshake without a request.
    for protocol in ["h2", "http/1.1"] {
        let mut stream = server.connect(&certificate, &[protocol]).await.unwrap();
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        let _ = wait_for("connection without a request is closed", ended).await;
    }
    // An idle connection.
    let mut client = server.http2(&certificate).await;
    let request = framed(&Request::signed("msg_1", BODY));
    assert_eq!(client.send_request(request).await.unwrap().status(), 204);
    let closed = async {
        while client.ready().await.is_ok() {
            time::sleep(Duration::from_millis(10)).await;
        }
    };
    wait_for("idle connection is closed", closed).await;
    server.stop().await;
}

/// The client's connection preface and an empty SETTINGS frame (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A PING frame (RFC 9113 section 6.7).
const HTTP2_PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0pingpong";

#[tokio::test]
async fn closes_http2_connection_without_requests() {
    let files = Files::new();
    let certificate = files.renew();
    let timeout = Duration::from_millis(300);
    let options = ServerOptions::default().with_header_timeout(timeout);
    let server = HttpsServer::start(&files, builder(), options).await;
    let stream = server.connect(&certificate, &["h2"]).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let frames = async {
        writer.write_all(HTTP2_PREFACE).await.unwrap();
        // The server closes the connection though frames keep arriving.
        while writer.write_all(HTTP2_PING).await.is_ok() {
            time::sleep(timeout / 10).await;
        }
    };
    let mut answers = Vec::new();
    let both = async { tokio::join!(frames, reader.read_to_end(&mut answers)) };
    let _ = wait_for("connection without a request is closed", both).await;
    server.stop().await;
}

#[tokio::test]
async fn limits_streams_of_http2_connection() {
    let files = Files::new();
    let certificate = files.renew();
    let server = HttpsServer::start(&files, builder(), ServerOptions::default()).await;
    let mut stream = server.connect(&certificate, &["h2"]).await.unwrap();
    stream.write_all(HTTP2_PREFACE).await.unwrap();
    // The first frame of a server is SETTINGS (RFC 9113 section 3.4).
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "a SETTINGS frame");
    let mut settings = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    stream.read_exact(&mut settings).await.unwrap();
    // SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113 section 6.5.2).
    let streams = settings.chunks(6).find(|setting| setting[..2] == [0, 3]);
    assert_eq!(streams.unwrap()[2..], [0, 0, 0, 64]);
    server.stop().await;
}

#[tokio::test]
async fn reloads_certificate_while_connections_stay_open() {
    let files = Files::new();
    files.renew();
    let tls = files.tls().unwrap();
    // Renewed after the files are read and before the server starts.
    let first = files.renew();
    let server = HttpsServer::start_with(tls, builder(), ServerOptions::default()).await;
    let until_served = async |certificate| {
        let served = async {
            while server.connect(certificate, &[]).await.is_err() {
                time::sleep(Duration::from_millis(20)).await;
            }
        };
        wait_for("new certificate is served", served).await;
    };
    until_served(&first).await;
    let mut before = server.connect(&first, &[]).await.unwrap();
    assert_eq!(send_http1(&mut before).await.status, 204);

    let second = files.renew();
    until_served(&second).await;
    assert!(server.connect(&first, &[]).await.is_err());
    assert_eq!(send_http1(&mut before).await.status, 204);

    // An explicit reload applies immediately.
    let third = files.renew();
    server.tls.reload().unwrap();
    assert!(server.connect(&third, &[]).await.is_ok());
    server.stop().await;
}

#[tokio::test]
async fn keeps_old_certificate_if_new_one_is_unusable() {
    let files = Files::new();
    files.renew();
    let foreign = std::fs::read_to_string(files.0.path().join("key.pem")).unwrap();
    let certificate = files.renew();
    let pem = |name| std::fs::read_to_string(files.0.path().join(name)).unwrap();
    let (good, key) = (pem("cert.pem"), pem("key.pem"));
    let server = HttpsServer::start(&files, builder(), ServerOptions::default()).await;
    for (cert, key, expected) in [
        (&*good, &*foreign, "cannot be used together"),
        (&good, "", "key.pem holds no PEM"),
        (&good, &good, "key.pem holds no PEM"),
        (
            &good,
            "-----BEGIN PRIVATE KEY-----\nhunter2\n",
            "key.pem holds no PEM",
        ),
        ("nothing", &key, "cert.pem holds no PEM"),
        (&key, &key, "cert.pem holds no PEM"),
    ] {
        files.write("cert.pem", cert);
        files.write("key.pem", key);
        for error in [server.tls.reload().unwrap_err(), files.tls().unwrap_err()] {
            let text = error.to_string();
            assert!(text.contains(expected), "{expected:?} is not in {text:?}");
            let debug = format!("{error:?}");
            assert!(
                !text.contains("hunter2") && !debug.contains("hunter2"),
                "{debug}"
            );
        }
        assert!(server.connect(&certificate, &[]).await.is_ok());
    }
    std::fs::remove_file(files.0.path().join("cert.pem")).unwrap();
    let error = server.tls.reload().unwrap_err().to_string();
    assert!(
        error.contains("cannot read") && error.contains("cert.pem"),
        "{error}"
    );
    server.stop().await;
}
