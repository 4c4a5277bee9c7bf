//! Signed deliveries and HTTP/1.1 clients that send them byte for byte.

#![allow(dead_code, reason = "the tests of two crates share it")]
#![allow(unreachable_pub, reason = "a module of each test")]

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

pub const PATH: &str = "/webhooks/pleo";

pub fn secret() -> Secret {
    Secret::from_bytes(&[7; 32]).unwrap()
}

/// A signed delivery, which a test then spoils.
#[derive(Clone)]
pub struct Request {
    pub method: &'static str,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn signed(id: &str, body: &[u8]) -> Self {
        Self::signed_at(id, body, unix_now())
    }

    pub fn signed_at(id: &str, body: &[u8], timestamp: u64) -> Self {
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

    /// Sets a header, or removes it.
    pub fn with(mut self, name: &str, value: impl Into<Option<&'static str>>) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.and(name, value)
    }

    /// Adds a header, also where it stands already.
    pub fn and(mut self, name: &str, value: impl Into<Option<&'static str>>) -> Self {
        if let Some(value) = value.into() {
            self.headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        head.push_str("\r\n");
        [head.as_bytes(), &self.body].concat()
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: String,
}

impl Answer {
    /// Reads one answer; status 0 where the connection closed without one.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Self {
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
                assert!(bytes.is_empty(), "half an answer: {bytes:?}");
                return Self {
                    status: 0,
                    headers: String::new(),
                    body: String::new(),
                };
            }
        }
    }

    /// It could not be stored, and is to be sent again.
    pub fn assert_inbox_failed(&self) {
        let code = self.code();
        assert_eq!((self.status, &*code), (503, "inbox_failed"), "{self:?}");
        assert_eq!(self.header("retry-after"), Some("5"));
    }

    pub fn code(&self) -> String {
        let problem: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        problem["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let find = |line: &'_ str| {
            line.split_once(": ")
                .filter(|(other, _)| *other == name)
                .is_some()
        };
        let line = self.headers.lines().find(|line| find(line))?;
        Some(line.split_once(": ")?.1)
    }
}

/// A connection that is used more than once.
pub struct Client {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub const fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// Sends bytes; whether the server still took them shows in its answer.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next answer; status 0 where the connection is closed.
    pub async fn answer(&mut self) -> Answer {
        Answer::read_from(&mut self.stream, &mut self.read).await
    }
}

/// Sends a request on a connection of its own.
pub async fn send_to(address: &str, request: &Request) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&request.bytes()).await.unwrap();
    Answer::read(&mut stream).await
}

/// A body of which a byte comes every second, perhaps after a first piece.
pub struct Drip {
    first: Bytes,
    left: usize,
    next: Pin<Box<Sleep>>,
}

impl Drip {
    pub fn new(bytes: usize) -> Self {
        Self::after(Bytes::new(), bytes)
    }

    pub fn after(first: Bytes, bytes: usize) -> Self {
        Self {
            first,
            left: bytes,
            next: Box::pin(time::sleep(Duration::from_secs(1))),
        }
    }
}

impl Body for Drip {
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
