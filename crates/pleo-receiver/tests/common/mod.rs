//! A receiver on a real socket, and requests to it byte for byte.

#![allow(dead_code, reason = "not every test uses everything")]
#![allow(unreachable_pub, reason = "a module of each test")]
#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

use core::convert::Infallible;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use http_body::{Body, Frame};
use pleo_receiver::verify::{Secret, unix_now};
use pleo_receiver::{Builder, Endpoint, Inbox, Receiver, ServeError, ServerOptions};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{self, Sleep};

pub const PATH: &str = "/webhooks/pleo";

pub fn secret() -> Secret {
    Secret::from_bytes(&[7; 32]).unwrap()
}

pub fn endpoint() -> Endpoint {
    Endpoint::new(PATH, secret()).unwrap()
}

pub struct Server {
    pub address: SocketAddr,
    pub receiver: Receiver,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    pub async fn start(builder: Builder) -> Self {
        Self::start_with(builder, ServerOptions::default()).await
    }

    pub async fn start_with(builder: Builder, options: ServerOptions) -> Self {
        let receiver = builder.build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let server = pleo_receiver::Server::new(receiver.clone());
        let running = tokio::spawn(server.options(options).listen(listener).run(shutdown));
        Self {
            address,
            receiver,
            stop,
            running,
        }
    }

    pub fn inbox(&self) -> &Arc<dyn Inbox> {
        self.receiver.inbox()
    }

    pub async fn send(&self, request: &Request) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(&request.bytes()).await.unwrap();
        Answer::read(&mut stream).await
    }

    /// Connects from an address of this machine.
    pub async fn connect_from(&self, source: &str) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
        Client::new(socket.connect(self.address).await.unwrap())
    }

    pub async fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.address).await.unwrap())
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.running.await.unwrap().unwrap();
    }
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

/// Takes whatever is forwarded, and counts how often each message came.
pub async fn target() -> (String, Arc<Mutex<HashMap<String, usize>>>) {
    let handed = Arc::new(Mutex::new(HashMap::new()));
    let take = {
        let handed = Arc::clone(&handed);
        move |headers: HeaderMap| {
            let id = headers["webhook-id"].to_str().unwrap().to_owned();
            *handed.lock().unwrap().entry(id).or_insert(0) += 1;
            async { StatusCode::NO_CONTENT }
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let app = Router::new().fallback(take);
    tokio::spawn(async { axum::serve(listener, app).await });
    (url, handed)
}

/// A line of a metrics page.
pub fn counted(receiver: &Receiver, line: &str) -> u64 {
    let page = receiver.metrics();
    let value = page
        .lines()
        .find_map(|candidate| candidate.strip_prefix(line));
    value.map_or(0, |value| value.trim().parse().unwrap())
}

/// A test that waits for what never happens should fail rather than hang.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    time::timeout(Duration::from_secs(20), future)
        .await
        .unwrap()
}

/// Lets every task go as far as it gets. Nothing else runs on the thread of a test.
pub async fn settle_down() {
    for _ in 0..100 {
        yield_now().await;
    }
}
