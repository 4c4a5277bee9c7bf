//! The log contains no secret, even at level `trace`.

use std::fs::File;
use std::io::Read;
use std::net::TcpListener;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, thread};

use crate::support::program::{OTHER_SECRET, SECRET, WorkDir};
use crate::support::tls::certify;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::header::{HOST, HeaderValue};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pleo_receiver::verify::{Secret, unix_now};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const BODY: &str = r#"{"eventType":"v1.vendor.created","eventId":"e1","data":{"name":"Hush Ltd"}}"#;

/// `pleo:hunter2`
const BASIC: &str = "cGxlbzpodW50ZXIy";

/// A server that writes its output into files.
struct LoggedServer {
    child: Child,
    dir: WorkDir,
    certificate: CertificateDer<'static>,
}

impl LoggedServer {
    /// Starts a server with a secret in every key that can hold one.
    fn start(handler: &str) -> Self {
        let dir = WorkDir::new();
        let certificate = certify(dir.path());
        dir.write(
            "pleo.toml",
            &format!(
                r#"
                {handler}
                listen = "127.0.0.1:0"
                tls_listen = "127.0.0.1:0"
                tls_certificate = "cert.pem"
                tls_key = "key.pem"
                [[endpoint]]
                path = "/acme"
                secrets = ["{SECRET}", "env:OTHER_SECRET"]
                basic = {{ username = "pleo", password = "hunter2" }}
                headers = {{ x-token = "correct-horse" }}
                [retry]
                max_attempts = 2
                min_delay = "1ms"
                max_delay = "1ms"
                "#
            ),
        );
        let child = dir
            .command(&["serve", "--config", "pleo.toml", "--log", "trace"])
            .env("OTHER_SECRET", OTHER_SECRET)
            .stdout(File::create(dir.path().join("stdout")).unwrap())
            .stderr(File::create(dir.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let server = Self {
            child,
            dir,
            certificate,
        };
        server.wait_for_log("listening url=\"https://", 1);
        server
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap()
    }

    /// Waits until the log contains a text this many times.
    fn wait_for_log(&self, text: &str, times: usize) {
        for _ in 0..2000 {
            if self.read("stderr").matches(text).count() >= times {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(
            self.read("stderr"),
            text,
            "the log never contained the text"
        );
    }

    fn address(&self, scheme: &str) -> String {
        let log = self.read("stderr");
        let url = log.split(&format!("listening url=\"{scheme}://")).nth(1);
        url.unwrap().split('/').next().unwrap().to_owned()
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    async fn http1(&self) -> http1::SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(self.address("http")).await.unwrap();
        let (client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn http2(&self) -> http2::SendRequest<Full<Bytes>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(self.address("https")).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = TokioIo::new(connector.connect(name, stream).await.unwrap());
        let handshake = http2::handshake(TokioExecutor::new(), stream);
        let (client, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Stops the server. Returns its complete output.
    fn stop(mut self) -> String {
        self.signal("-TERM");
        assert!(self.child.wait().unwrap().success());
        self.read("stdout") + &self.read("stderr")
    }
}

impl Drop for LoggedServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request and its expected status.
type Case = (hyper::Request<Full<Bytes>>, u16);

/// Returns a valid delivery and one that fails each check of a secret. Also returns the correct
/// signatures, which the log must not contain.
fn deliveries() -> (Vec<Case>, Vec<String>) {
    let secret: Secret = SECRET.parse().unwrap();
    let mut signatures = Vec::new();
    let mut request = |id: &str, changes: &[(&str, &str)]| {
        let now = unix_now();
        let signature = secret.sign(id, now, BODY.as_bytes()).unwrap().to_string();
        signatures.push(signature["v1,".len()..].to_owned());
        let (basic, now) = (format!("Basic {BASIC}"), now.to_string());
        let mut request = hyper::Request::post("https://localhost/acme");
        for (name, value) in [
            ("content-type", "application/json"),
            ("authorization", &basic),
            ("x-token", "correct-horse"),
            ("webhook-id", id),
            ("webhook-timestamp", &now),
            ("webhook-signature", &signature),
        ] {
            let changed = changes.iter().find(|(changed, _)| *changed == name);
            request = request.header(name, changed.map_or(value, |(_, value)| value));
        }
        request.body(Full::from(BODY)).unwrap()
    };
    let wrong = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let requests = vec![
        (request("msg_1", &[]), 204),
        (request("msg_2", &[("webhook-signature", wrong)]), 401),
        (request("msg_3", &[("webhook-timestamp", "1")]), 401),
        (
            request("msg_4", &[("authorization", "Basic aHVzaDpodXNo")]),
            401,
        ),
        (request("msg_5", &[("x-token", "correct-hors")]), 401),
        (request("msg_6", &[("webhook-signature", "hush")]), 400),
        (request("msg_7", &[("content-type", "text/plain")]), 415),
    ];
    (requests, signatures)
}

fn assert_no_secrets(log: &str, signatures: &[String]) {
    assert!(log.contains("TRACE"), "the log has no trace lines");
    let url = ["hunter3", "fwd:hunter3", "ZndkOmh1bnRlcjM="];
    let typed = [&SECRET["whsec_".len()..], &OTHER_SECRET["whsec_".len()..]];
    let given = ["hunter2", BASIC, "correct-hors", "aHVzaDpodXNo", "hush"];
    let private = ["Hush Ltd", "PRIVATE KEY"];
    let needles = url.iter().chain(&typed).chain(&given).chain(&private);
    for needle in needles
        .copied()
        .chain(signatures.iter().map(String::as_str))
    {
        let line = log.lines().find(|line| line.contains(needle));
        assert_eq!(line, None, "the log contains {needle:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_no_secret_of_deliveries_or_configuration() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = target.local_addr().unwrap();
    // The target closes each connection, so that every attempt fails.
    thread::spawn(move || {
        for stream in target.incoming() {
            let _ = stream.unwrap().read(&mut [0; 16 * 1024]);
        }
    });
    let server = LoggedServer::start(&format!(
        "forward = \"http://fwd:hunter3@{address}/\"\nforward_secret = \"{OTHER_SECRET}\""
    ));
    let (requests, mut signatures) = deliveries();
    let mut client = server.http1().await;
    for (request, status) in requests {
        let (mut parts, body) = request.into_parts();
        parts.uri = "/acme".parse().unwrap();
        let host = HeaderValue::from_static("localhost");
        parts.headers.insert(HOST, host);
        let request = hyper::Request::from_parts(parts, body);
        client.ready().await.unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), status);
        let _ = answer.into_body().collect().await;
    }
    let (requests, more) = deliveries();
    signatures.extend(more);
    let mut client = server.http2().await;
    for (request, status) in requests {
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), status);
        let _ = answer.into_body().collect().await;
    }
    server.wait_for_log("message is dead", 1);
    // The log names an invalid key but not its value.
    let file = server.read("pleo.toml");
    server.signal("-HUP");
    server.wait_for_log("configuration reloaded", 1);
    server
        .dir
        .write("pleo.toml", &file.replace("whsec_", "whsec_!"));
    server.signal("-HUP");
    server.wait_for_log("the old one stays", 1);
    let log = server.stop();
    assert!(log.contains("msg_1"), "the delivery is logged: {log}");
    assert_no_secrets(&log, &signatures);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_no_secret_when_command_fails() {
    let server = LoggedServer::start("exec = [\"sh\", \"-c\", \"exit 3\"]");
    let (requests, signatures) = deliveries();
    let mut client = server.http2().await;
    for (request, status) in requests {
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), status);
    }
    server.wait_for_log("handler failed", 1);
    assert_no_secrets(&server.stop(), &signatures);
}
