//! Who can reach a sandbox: addresses, host names, other web pages.

use std::net::SocketAddr;

use pleo_http::reqwest::Method;
use pleo_sandbox::{Error, Sandbox, SandboxOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{request, send};

#[tokio::test]
async fn refuses_address_that_others_can_reach() {
    let all = SocketAddr::from(([0, 0, 0, 0], 0));
    let options = SandboxOptions::new().with_listen(all);
    let refused = Sandbox::start_with(options).await;
    assert!(matches!(refused, Err(Error::NotLoopback { address }) if address == all));
    let options = SandboxOptions::new().with_listen(all).with_host("sandbox");
    let sandbox = Sandbox::start_with(options).await.unwrap();
    let port = sandbox.address().port();
    assert_eq!(sandbox.url(), format!("http://sandbox:{port}"));
}

#[tokio::test]
async fn refuses_other_host_names() {
    let options = SandboxOptions::new().with_host("sandbox");
    let sandbox = Sandbox::start_with(options).await.unwrap();
    for (host, status) in [
        ("127.0.0.1", 200),
        ("127.0.0.1:80", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:1", 200),
        ("sandbox:8788", 200),
        ("sandbox.example.com", 421),
        ("localhost.example.com", 421),
        ("127.0.0.1.example.com", 421),
        ("evil", 421),
        ("", 421),
    ] {
        let get = request(&sandbox, Method::GET, "/sandbox/state").header("host", host);
        assert_eq!(send(get).await.status, status, "{host:?}");
    }
}

#[tokio::test]
async fn refuses_requests_of_other_web_pages() {
    let sandbox = Sandbox::start().await.unwrap();
    let own = sandbox.url().to_owned();
    let other_port = "http://127.0.0.1:1".to_owned();
    for (name, value, status) in [
        ("origin", own.as_str(), 200),
        ("origin", &other_port, 403),
        ("origin", "https://evil.example.com", 403),
        ("origin", "null", 403),
        ("origin", "", 403),
        ("sec-fetch-site", "same-origin", 200),
        ("sec-fetch-site", "none", 200),
        ("sec-fetch-site", "same-site", 403),
        ("sec-fetch-site", "cross-site", 403),
    ] {
        let post = request(&sandbox, Method::POST, "/sandbox/export").header(name, value);
        let answer = send(post).await;
        assert_eq!(answer.status, status, "{name}: {value}: {answer:?}");
    }
    // Of Pleo's API as well, so that no page uses up faults. A link may open the sandbox's page.
    for (path, status) in [
        ("/v1/subscriptions", 403),
        ("/v3/export-jobs", 403),
        ("/sandbox/state", 403),
        ("/", 200),
    ] {
        let get = request(&sandbox, Method::GET, path).header("sec-fetch-site", "cross-site");
        assert_eq!(send(get).await.status, status, "{path}");
    }
    assert_eq!(sandbox.requests().len(), 0);
    let text = request(&sandbox, Method::POST, "/sandbox/export");
    let text = text
        .header("content-type", "text/plain")
        .body(r#"{"jobs":1}"#);
    assert_eq!(send(text).await.status, 415);
}

#[tokio::test]
async fn refuses_other_host_name_before_the_body() {
    let sandbox = Sandbox::start().await.unwrap();
    let mut stream = TcpStream::connect(sandbox.address()).await.unwrap();
    let head = "POST /sandbox/export HTTP/1.1\r\nhost: evil\r\ncontent-length: 9\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 421");
}

#[tokio::test]
async fn limits_size_of_body() {
    let sandbox = Sandbox::start().await.unwrap();
    let post = request(&sandbox, Method::POST, "/sandbox/export");
    let answer = send(post.body(" ".repeat(1024 * 1024 + 1))).await;
    assert_eq!(answer.status, 413);
}
