//! Signed deliveries, and HTTP/1.1 clients that send them byte by byte.

#![allow(dead_code, reason = "the tests of two crates share this file")]

use core::convert::Infallible;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::fmt::Write as _;

use bytes::Bytes;
use http_body::{Body, Frame};
use pleo_receiver::verify::{Secret, unix_now};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{self, Sleep};

pub(crate) const PATH: &str = "/webhooks/pleo";

pub(crate) fn secret() -> Secret {
    Secret::from_bytes(&[7; 32]).unwrap()
}

/// A signed delivery that a test may change.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn signed(id: &str, body: &[u8]) -> Self {
        Self::signed_at(id, body, unix_now())
    }

    pub(crate) fn signed_at(id: &str, body: &[u8], timestamp: u64) -> Self {
        let signature = secret().sign(id, timestamp, body).unwrap();
        let headers = [
            ("host", "localhost".to_owned()),
            ("content-type", "application/json".to_owned()),
            ("content-length", body.len().to_string()),
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", timestamp.to_string()),
            ("webhook-signature", signature.to_string()),
        ];
        Self {
            method: "POST",
            path: PATH.to_owned(),
            headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
            body: body.to_vec(),
        }
    }

    /// Sets a header. `None` removes it.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Option<&'static str>>) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.and(name, value)
    }

    /// Adds a header, even if it is duplicated then.
    pub(crate) fn and(mut self, name: &str, value: impl Into<Option<&'static str>>) -> Self {
        if let Some(value) = value.into() {
            self.headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        head.push_str("\r\n");
        [head.as_bytes(), &self.body].concat()
    }
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl Answer {
    /// Reads a response. Status 0 means that the connection closed without one.
    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Self {
        Self::read_from(stream, &mut Vec::new()).await
    }

    async fn read_from(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> Self {
        loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                let headers = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
                let length = headers
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .map_or(0, |length| length.parse().unwrap());
                if bytes.len() >= end + 4 + length {
                    let answer: Vec<u8> = bytes.drain(..end + 4 + length).collect();
                    return Self {
                        status: headers.split(' ').nth(1).unwrap().parse().unwrap(),
                        body: String::from_utf8(answer[end + 4..].to_vec()).unwrap(),
                        headers,
                    };
                }
            }
            if !matches!(stream.read_buf(bytes).await, Ok(1..)) {
                assert!(bytes.is_empty(), "incomplete response: {bytes:?}");
                return Self {
                    status: 0,
                    headers: String::new(),
                    body: String::new(),
                };
            }
        }
    }

    /// Asserts that the inbox failed and that the sender should retry.
    pub(crate) fn assert_inbox_failed(&self) {
        let code = self.code();
        assert_eq!((self.status, &*code), (503, "inbox_failed"), "{self:?}");
        assert_eq!(self.header("retry-after"), Some("5"));
    }

    pub(crate) fn code(&self) -> String {
        let problem: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        problem["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let find = |line: &'_ str| {
            line.split_once(": ")
                .filter(|(other, _)| *other == name)
                .is_some()
        };
        let line = self.headers.lines().find(|line| find(line))?;
        Some(line.split_once(": ")?.1)
    }
}

/// A client that keeps its connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub(crate) const fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// Sends bytes. Ignores errors, since the server may have closed the connection.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Reads the next response. Status 0 means that the connection closed.
    pub(crate) async fn answer(&mut self) -> Answer {
        Answer::read_from(&mut self.stream, &mut self.read).await
    }
}

/// Sends a request on a new connection.
pub(crate) async fn send_to(address: &str, request: &Request) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&request.bytes()).await.unwrap();
    Answer::read(&mut stream).await
}

/// A body that sends a first chunk, then one byte per second.
pub(crate) struct SlowBody {
    first: Bytes,
    left: usize,
    next: Pin<Box<Sleep>>,
}

impl SlowBody {
    pub(crate) fn new(bytes: usize) -> Self {
        Self::after(Bytes::new(), bytes)
    }

    pub(crate) fn after(first: Bytes, bytes: usize) -> Self {
        Self {
            first,
            left: bytes,
            next: Box::pin(time::sleep(Duration::from_secs(1))),
        }
    }
}

impl Body for SlowBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.first.is_empty() {
            let first = core::mem::take(&mut self.first);
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        ready!(self.next.as_mut().poll(cx));
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.next = Box::pin(time::sleep(Duration::from_secs(1)));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }
}
