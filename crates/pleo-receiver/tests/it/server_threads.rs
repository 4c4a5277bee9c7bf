//! The threads that serve connections, and what they keep apart.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails loudly"
)]

use core::convert::Infallible;
use core::future::pending;
use core::time::Duration;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, mpsc};
use std::{fmt, thread};

use crate::support::{Request, Server, endpoint};
use pleo_receiver::{Delivery, MemoryInbox, Receiver, ReceiverBuilder, ServeError, ServerOptions};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

const BODY: &[u8] = br#"{"eventType":"v9.new","eventId":"e1","data":{}}"#;

const LONG: Duration = Duration::from_secs(20);

fn builder() -> ReceiverBuilder {
    Receiver::builder()
        .endpoint(endpoint())
        .inbox(MemoryInbox::new())
}

/// Sends a delivery over a new connection, from a thread that no runtime has; gives the status line.
fn send_blocking(address: SocketAddr, id: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let request = Request::signed(id, BODY).with("connection", "close");
    stream.write_all(&request.bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap().to_owned()
}

/// With everything but the connections on one thread.
#[tokio::test(flavor = "current_thread")]
async fn acknowledges_while_handler_blocks_its_runtime() {
    let (tell, told) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let may_go_on = Mutex::new(may_go_on);
    let handler = move |_: Delivery| {
        tell.send("blocks").unwrap();
        let went_on = may_go_on.lock().unwrap().recv_timeout(LONG);
        tell.send(went_on.unwrap_or("waited in vain")).unwrap();
        async { Ok::<_, Infallible>(()) }
    };
    let server = Server::start(builder().handler(handler)).await;
    let address = server.address;
    let sender = thread::spawn(move || {
        let first = send_blocking(address, "msg_1");
        assert_eq!(told.recv_timeout(LONG), Ok("blocks"));
        let second = send_blocking(address, "msg_2");
        for _ in 0..2 {
            go_on.send("goes on").unwrap();
        }
        let story: Vec<_> = told.iter().take(3).collect();
        assert_eq!(story, ["goes on", "blocks", "goes on"]);
        [first, second]
    });
    let answers = tokio::task::spawn_blocking(|| sender.join().unwrap()).await;
    assert_eq!(answers.unwrap(), ["HTTP/1.1 204 No Content"; 2]);
    server.stop().await;
}

#[tokio::test]
async fn serves_connections_on_any_number_of_threads() {
    for threads in [0, 1, 2, 7] {
        let mut options = ServerOptions::default();
        options.threads = threads;
        let server = Server::start_with(builder(), options).await;
        let mut clients = Vec::new();
        for _ in 0..20 {
            clients.push(server.connect().await);
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let request = Request::signed(&format!("msg_{number}"), BODY);
            client.write(&request.bytes()).await;
            assert_eq!(client.answer().await.status, 204, "{threads} threads");
        }
        assert_eq!(server.inbox().counts().await.unwrap().pending, 20);
        server.stop().await;
    }
}

#[tokio::test]
async fn closes_connections_when_server_is_dropped() {
    for threads in [0, 2] {
        let mut options = ServerOptions::default();
        options.threads = threads;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = pleo_receiver::Server::new(builder().build().unwrap());
        let mut running = JoinSet::new();
        running.spawn(server.options(options).listen(listener).run(pending()));
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let answered = tokio::task::spawn_blocking(move || send_blocking(address, "msg_1"));
        assert_eq!(answered.await.unwrap(), "HTTP/1.1 204 No Content");
        running.shutdown().await;
        let ended = tokio::time::timeout(LONG, stream.read(&mut [0])).await;
        // Closed in order or reset, but not left open.
        assert!(matches!(ended.expect("an end"), Ok(0) | Err(_)));
        tokio::time::timeout(LONG, async {
            while tokio::net::TcpStream::connect(address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("nobody listens any more");
    }
}

/// A log that panics where a connection is refused.
struct Fragile;

impl Subscriber for Fragile {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Self);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl Visit for Fragile {
    fn record_debug(&mut self, _: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        assert!(!text.starts_with("closed at once"), "part of the test");
    }
}

#[tokio::test]
async fn stops_after_panic_while_accepting() {
    tracing::subscriber::set_global_default(Fragile).unwrap();
    for threads in [0, 1, 2] {
        let mut options = ServerOptions::default();
        options.threads = threads;
        options.max_connections_per_source = 1;
        options.grace = Duration::from_millis(10);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = pleo_receiver::Server::new(builder().build().unwrap());
        let running = server.options(options).listen(listener).run(pending());
        let clients = async {
            let one = tokio::net::TcpStream::connect(address).await.unwrap();
            let other = tokio::net::TcpStream::connect(address).await.unwrap();
            pending::<()>().await;
            drop((one, other));
        };
        let ended = tokio::select! {
            ended = tokio::time::timeout(LONG, running) => ended.expect("an end"),
            () = clients => unreachable!(),
        };
        assert!(matches!(ended, Err(ServeError::Panicked)), "{ended:?}");
    }
}
