//! What the server does to those who go too far, over a raw socket.

#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

mod common;

use core::time::Duration;

use common::{Answer, Request, Server, endpoint};
use pleo_receiver::{MemoryInbox, Receiver};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const BODY: &[u8] = br#"{"eventType":"v9.new","eventId":"e1","data":{}}"#;

/// More than any limit, and than a socket's buffers hold.
const HALF: usize = 1024 * 1024;

#[tokio::test]
async fn whoever_is_still_writing_sees_the_answer() {
    let builder = Receiver::builder()
        .endpoint(endpoint())
        .inbox(MemoryInbox::new())
        .body_limit(1000)
        .body_timeout(Duration::from_millis(100));
    let server = Server::start(builder).await;
    let large = || Request::signed("msg_1", &[b'x'; 2 * HALF]);
    let chunked = || {
        let mut request = large().with("content-length", None);
        let size = format!("{:x}\r\n", request.body.len());
        request.body = [size.as_bytes(), &request.body].concat();
        request.with("transfer-encoding", "chunked")
    };
    let mut elsewhere = large();
    elsewhere.path = "/elsewhere".into();
    let mut late = Request::signed("msg_1", BODY).with("content-length", "1000");
    late.body.clear();
    let x = "x".repeat(HALF).leak();
    for (what, request, status) in [
        ("too large by its length", large(), 413),
        ("too large in chunks", chunked(), 413),
        ("late", late, 408),
        ("not JSON", large().with("content-type", "text/plain"), 415),
        ("nowhere", elsewhere, 404),
        ("headers too large", large().and("x", Some(&*x)), 431),
        ("no HTTP", large().with("host", "\r\n\u{0}"), 400),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let bytes = request.bytes();
        let (first, second) = bytes.split_at(bytes.len().min(HALF));
        stream.write_all(first).await.unwrap();
        // The answer is there, but this client doesn't look before it has written all.
        stream.readable().await.unwrap();
        for piece in [second, x.as_bytes()].concat().chunks(16 * 1024) {
            let written = stream.write_all(piece).await;
            assert!(written.is_ok(), "{what}: {written:?}");
        }
        assert_eq!(Answer::read(&mut stream).await.status, status, "{what}");
    }
    server.stop().await;
}
