//! Load generator: two threads send signed requests over many connections.

use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pleo_receiver::verify::{Secret, unix_now};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio::task::{JoinSet, LocalSet};
use tokio::time;

pub const SECRET: &str = "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH";

/// The number of threads that send requests.
const THREADS: usize = 2;

/// The event of an export job, as in Pleo's documentation.
pub const BODY: &str = r#"{"data":{"id":"0a9f7c4e-5b1d-4c57-9a39-5f1c1f0c9d11","companyId":"3f0b4a6e-6d5c-4b6e-8f1a-2c9d7e5b4a33","createdBy":"7c1e2d3f-4a5b-4c6d-8e9f-0a1b2c3d4e5f","createdAt":"2026-11-24T09:30:00Z","numberOfItems":3,"expiresIn":3600,"status":"pending","startedAt":null,"completedAt":null,"failureReason":null},"eventType":"v1.export-job.created","eventId":"a257a31e-e8a6-4c36-a98d-451250e5b5c4"}"#;

/// Signed HTTP requests, as bytes.
#[derive(Clone)]
pub struct Requests(Arc<Vec<Bytes>>);

/// How connections are used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// A connection is reused for many requests.
    Reused,
    /// Each request has a new connection.
    Single,
}

impl Requests {
    /// Signs a request for each number. `id` returns its message id.
    pub fn new(numbers: std::ops::Range<u64>, id: impl Fn(u64) -> String) -> Self {
        let secret: Secret = SECRET.parse().expect("a secret");
        let now = unix_now();
        let request = |number| {
            let id = id(number);
            let signature = secret.sign(&id, now, BODY.as_bytes()).expect("a plain id");
            let length = BODY.len();
            Bytes::from(format!(
                "POST /webhooks/pleo HTTP/1.1\r\nhost: localhost\r\nuser-agent: Svix-Webhooks/1.100\r\n\
                 content-type: application/json\r\ncontent-length: {length}\r\nwebhook-id: {id}\r\n\
                 webhook-timestamp: {now}\r\nwebhook-signature: {signature}\r\n\r\n{BODY}"
            ))
        };
        Self(Arc::new(numbers.map(request).collect()))
    }

    pub fn all(&self) -> &[Bytes] {
        &self.0
    }

    /// Sends all requests without delay over this number of concurrent connections, distributed over the
    /// addresses. Returns the requests per second.
    pub fn send(&self, addresses: &[SocketAddr], connections: usize, kind: Connections) -> f64 {
        let all = Arc::<[SocketAddr]>::from(addresses);
        let task = async move |requests: Self, first, stream, _| {
            let address = address_of(&all, first);
            let mut stream = Some(stream);
            for request in requests.0.iter().skip(first).step_by(connections) {
                let mut open = match stream.take() {
                    Some(open) => open,
                    None => connect(address).await,
                };
                exchange(&mut open, request).await;
                if kind == Connections::Reused {
                    stream = Some(open);
                }
            }
        };
        let (taken, _) = self.each_connection(addresses, connections, task);
        self.0.len() as f64 / taken.as_secs_f64()
    }

    /// Sends the requests at `rate` per second over reused connections. Returns the response times,
    /// measured from the scheduled time of each request.
    pub fn send_at_rate(
        &self,
        address: SocketAddr,
        connections: usize,
        rate: f64,
    ) -> Vec<Duration> {
        let task = async move |requests: Self, first, mut stream, start: Instant| {
            let mut taken = Vec::new();
            let numbered = requests.0.iter().enumerate();
            for (number, request) in numbered.skip(first).step_by(connections) {
                let mut scheduled = start + Duration::from_secs_f64(number as f64 / rate);
                if Instant::now() < scheduled {
                    time::sleep_until(scheduled.into()).await;
                    // The timer may fire late, which is not the server's delay.
                    scheduled = Instant::now();
                }
                exchange(&mut stream, request).await;
                taken.push(scheduled.elapsed());
            }
            taken
        };
        let (_, taken) = self.each_connection(&[address], connections, task);
        taken.into_iter().flatten().collect()
    }

    /// Opens the connections, then runs a task for each, distributed over the threads. Returns the
    /// duration and the results of the tasks.
    fn each_connection<T: Send + 'static>(
        &self,
        addresses: &[SocketAddr],
        connections: usize,
        task: impl AsyncFn(Self, usize, TcpStream, Instant) -> T + Clone + Send + 'static,
    ) -> (Duration, Vec<T>) {
        let open = Arc::new(Barrier::new(THREADS + 1));
        let run = |thread: usize| {
            let (requests, task, all_open) = (self.clone(), task.clone(), Arc::clone(&open));
            let addresses = addresses.to_vec();
            thread::spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build();
                LocalSet::new().block_on(&runtime.expect("a runtime"), async {
                    let mut streams = Vec::new();
                    for first in (thread..connections).step_by(THREADS) {
                        let address = address_of(&addresses, first);
                        streams.push((first, connect(address).await));
                    }
                    all_open.wait();
                    let start = Instant::now();
                    let mut tasks = JoinSet::new();
                    for (first, stream) in streams {
                        let (requests, task) = (requests.clone(), task.clone());
                        tasks
                            .spawn_local(async move { task(requests, first, stream, start).await });
                    }
                    tasks.join_all().await
                })
            })
        };
        let threads: Vec<_> = (0..THREADS).map(run).collect();
        open.wait();
        let start = Instant::now();
        let join = |thread: thread::JoinHandle<Vec<T>>| thread.join().expect("no panic");
        let results = threads.into_iter().flat_map(join).collect();
        (start.elapsed(), results)
    }
}

/// Returns the address of a connection.
fn address_of(addresses: &[SocketAddr], connection: usize) -> SocketAddr {
    addresses[connection % addresses.len()]
}

pub async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_nodelay(true).expect("a TCP socket");
    // Frees the port immediately. Thousands of connections per second would otherwise use up all
    // ports.
    socket.set_zero_linger().expect("a TCP socket");
    socket.connect(address).await.expect("the server listens")
}

/// Sends a request and reads its response, which must be 204.
pub async fn exchange(stream: &mut TcpStream, request: &[u8]) {
    stream.write_all(request).await.expect("the server reads");
    let mut answer = [0; 1024];
    let mut len = 0;
    while !answer[..len].ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut answer[len..]).await.expect("an answer");
        assert_ne!(read, 0, "the server closed the connection");
        len += read;
    }
    assert!(answer.starts_with(b"HTTP/1.1 204 "), "not 204");
}

/// Returns message ids that increase, as Pleo's do.
pub fn increasing_id(number: u64) -> String {
    format!("msg_{number:027}")
}

/// Returns message ids in random order.
pub fn random_id(number: u64) -> String {
    let (low, high) = (mix(number), mix(number ^ 0x9E37_79B9_7F4A_7C15));
    format!("msg_{low:016x}{high:011x}")
}

/// Scrambles a number without collisions (the finalizer of SplitMix64).
fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}
