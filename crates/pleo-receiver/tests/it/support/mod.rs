//! Helpers of the tests: a receiver on a real socket, and clients.

pub(crate) mod clock;
pub(crate) mod http;
pub(crate) mod job;
pub(crate) mod on_event;
#[cfg(all(unix, feature = "postgres"))]
pub(crate) mod postgres;
#[cfg(all(unix, feature = "postgres"))]
pub(crate) mod tcp_proxy;
pub(crate) mod tls;
#[macro_use]
mod wrapped;

use core::time::Duration;
use std::net::SocketAddr;
use std::sync::Arc;

use pleo_receiver::{
    Endpoint, Entry, Inbox, Key, MemoryInbox, Receiver, ReceiverBuilder, ServeError, ServerOptions,
    State, StoredMessage,
};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, yield_now};
use tokio::time;

pub(crate) use http::{Answer, Client, PATH, Request, SlowBody, secret};

/// The time limit of an asynchronous step.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// The body of an event of unknown type.
pub(crate) const BODY: &[u8] = br#"{"eventType":"v9.new","eventId":"e1","data":{}}"#;

/// Returns a builder of a receiver with one endpoint and an inbox in memory.
pub(crate) fn builder() -> ReceiverBuilder {
    builder_with(endpoint())
}

pub(crate) fn builder_with(endpoint: Endpoint) -> ReceiverBuilder {
    Receiver::builder(MemoryInbox::new()).endpoint(endpoint)
}

pub(crate) fn endpoint() -> Endpoint {
    Endpoint::new(PATH, secret()).unwrap()
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) receiver: Receiver,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    pub(crate) async fn start(builder: ReceiverBuilder) -> Self {
        Self::start_with(builder, ServerOptions::default()).await
    }

    pub(crate) async fn start_with(builder: ReceiverBuilder, options: ServerOptions) -> Self {
        let (receiver, dispatcher) = builder.build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let server = pleo_receiver::Server::new(receiver.clone(), dispatcher);
        let running = tokio::spawn(server.options(options).listen(listener).run(shutdown));
        Self {
            address,
            receiver,
            stop,
            running,
        }
    }

    pub(crate) fn inbox(&self) -> &Arc<dyn Inbox> {
        self.receiver.inbox()
    }

    pub(crate) async fn send(&self, request: &Request) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(&request.bytes()).await.unwrap();
        Answer::read(&mut stream).await
    }

    /// Connects from this address of the machine.
    pub(crate) async fn connect_from(&self, source: &str) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
        Client::new(socket.connect(self.address).await.unwrap())
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.address).await.unwrap())
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.running.await.unwrap().unwrap();
    }

    /// Waits for the server to end by itself.
    pub(crate) async fn ended(self) -> Result<(), ServeError> {
        self.running.await.unwrap()
    }
}

/// Returns the message with this id of the endpoint [`PATH`].
pub(crate) async fn stored(inbox: &dyn Inbox, id: &str) -> StoredMessage {
    inbox.get(Key::new(PATH, id)).await.unwrap().unwrap()
}

pub(crate) async fn entry(inbox: &dyn Inbox, id: &str) -> Entry {
    stored(inbox, id).await.entry
}

/// Counts the messages of all endpoints in this state.
pub(crate) async fn count(inbox: &dyn Inbox, state: State) -> u64 {
    let stats = inbox.stats().await.unwrap();
    let counts = stats.iter().map(|stats| match state {
        State::Pending => stats.pending(),
        State::Done => stats.done,
        State::Dead => stats.dead,
        other => panic!("unknown state {other}"),
    });
    counts.sum()
}

/// Reads the value of a metric. `line` is its name with its labels.
pub(crate) fn counted(receiver: &Receiver, line: &str) -> u64 {
    let metrics = receiver.metrics();
    let value = (metrics.lines()).find_map(|candidate| candidate.strip_prefix(line));
    value.map_or(0, |value| value.trim().parse().unwrap())
}

/// Awaits a future. Fails after [`TIMEOUT`].
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    time::timeout(TIMEOUT, future).await.unwrap()
}

/// Awaits a future. Fails after [`TIMEOUT`], with this text.
pub(crate) async fn wait_for<T>(text: &str, future: impl Future<Output = T>) -> T {
    time::timeout(TIMEOUT, future).await.expect(text)
}

/// Runs the other tasks on the test's thread until they wait.
pub(crate) async fn run_until_idle() {
    for _ in 0..100 {
        yield_now().await;
    }
}
