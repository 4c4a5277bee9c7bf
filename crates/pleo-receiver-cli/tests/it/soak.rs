//! Repeated connections of every kind leak no memory and no files.
//!
//! `PLEO_SOAK_SECONDS` sets the duration (default: 5 s). `--nocapture` shows the figures.

#![cfg(target_os = "linux")]

use core::time::Duration;
use std::env;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::support::program::{RunningServer, SECRET, WorkDir};
use crate::support::tls::{certify, connect, connector, framed, http2};
use crate::support::{Answer, Request, counting_target, send_to};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time;
use tokio_rustls::TlsConnector;

/// The number of concurrent clients.
const CLIENTS: usize = 16;

/// The number of connections before the first measurement, which fill caches and buffers.
const WARM_UP: usize = 1500;

/// The number of measurements after the first.
const ROUNDS: u32 = 8;

/// The limit on memory growth after the warm-up, in KiB. A run of 5 s makes some thousand
/// connections, so that this is about half a KiB per connection.
const MAX_GROWTH_KIB: usize = 1024;

/// The number of concurrent attempts.
const HANDLERS: usize = 8;

/// The limit on additional open files: pooled connections to the forward target.
const MAX_MORE_FILES: usize = 2 * HANDLERS;

const TIMEOUT: Duration = Duration::from_secs(60);

fn body(id: &str) -> Vec<u8> {
    format!(r#"{{"eventType":"v9.new","padding":"{}"}}"#, id.repeat(100)).into()
}

fn signed(id: &str) -> Request {
    Request::signed(id, &body(id))
}

/// The state that all clients share.
struct Clients {
    http: String,
    https: SocketAddr,
    http1: TlsConnector,
    http2: TlsConnector,
    /// The number of opened connections.
    opened: AtomicUsize,
    /// The number of acknowledged deliveries.
    acknowledged: AtomicUsize,
}

impl Clients {
    /// Opens connections of each kind in turn, until `end` and until at least `least` were opened.
    async fn run(self: Arc<Self>, end: Instant, least: usize) {
        while Instant::now() < end || self.opened.load(Ordering::Relaxed) < least {
            let number = self.opened.fetch_add(1, Ordering::Relaxed);
            let id = format!("msg_{number:08}");
            time::timeout(TIMEOUT, self.open(number, &id))
                .await
                .unwrap();
        }
    }

    async fn open(&self, number: usize, id: &str) {
        match number % 10 {
            0 => self.count_acknowledged(send_to(&self.http, &signed(id)).await.status),
            1 => {
                let forged = signed(id).with("webhook-signature", "v1,AAAA");
                assert_eq!(send_to(&self.http, &forged).await.status, 401);
            }
            2 => {
                let mut stream = TcpStream::connect(&self.http).await.unwrap();
                for nth in 0..3 {
                    let request = signed(&format!("{id}_{nth}")).bytes();
                    stream.write_all(&request).await.unwrap();
                    self.count_acknowledged(Answer::read(&mut stream).await.status);
                }
            }
            3 => self.abort(id, 30, false).await,
            4 => self.abort(id, 30, true).await,
            // In the middle of the body.
            5 => self.abort(id, signed(id).bytes().len() - 10, false).await,
            6 => self.abort(id, signed(id).bytes().len() - 10, true).await,
            7 => {
                let mut stream = connect(&self.http1, self.https).await.unwrap();
                stream.write_all(&signed(id).bytes()).await.unwrap();
                self.count_acknowledged(Answer::read(&mut stream).await.status);
            }
            8 => {
                let stream = connect(&self.http2, self.https).await.unwrap();
                let mut client = http2(stream).await.unwrap();
                let unanswered = client.send_request(framed(&signed(&format!("{id}_x"))));
                drop(unanswered);
                for nth in 0..3 {
                    let request = framed(&signed(&format!("{id}_{nth}")));
                    let answer = client.send_request(request).await.unwrap();
                    self.count_acknowledged(answer.status().as_u16());
                }
            }
            // An incomplete TLS handshake.
            _ => {
                let mut stream = TcpStream::connect(self.https).await.unwrap();
                stream.write_all(b"\x16\x03\x01").await.unwrap();
            }
        }
    }

    /// Closes the connection after `at` bytes of a request, with or without a reset.
    async fn abort(&self, id: &str, at: usize, reset: bool) {
        let mut stream = TcpStream::connect(&self.http).await.unwrap();
        stream.write_all(&signed(id).bytes()[..at]).await.unwrap();
        if reset {
            stream.set_zero_linger().unwrap();
        } else {
            // The server may respond before it closes the connection.
            stream.shutdown().await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        }
    }

    fn count_acknowledged(&self, status: u16) {
        assert_eq!(status, 204);
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until the server has at most this many files open. The server closes a connection shortly
/// after its client.
async fn wait_for_open_files(server: &RunningServer, most: usize) -> usize {
    let start = Instant::now();
    loop {
        let open = server.open_files();
        if open <= most {
            return open;
        }
        assert!(
            start.elapsed() < TIMEOUT,
            "{open} files stay open, not {most}"
        );
        time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_every_kind_leak_no_memory_or_files() {
    let seconds = env::var("PLEO_SOAK_SECONDS").map_or(5, |seconds| seconds.parse().unwrap());
    let dir = WorkDir::new();
    let certificate = certify(dir.path());
    let (url, delivered) = counting_target().await;
    let tls = "tls_listen = \"127.0.0.1:0\"\ntls_certificate = \"cert.pem\"\ntls_key = \"key.pem\"";
    let retry = format!("[retry]\nconcurrency = {HANDLERS}");
    dir.write(
        "pleo.toml",
        &format!("{tls}\nforward = \"{url}\"\n{retry}\n"),
    );
    let env = [("PLEO_WEBHOOK_SECRET", SECRET)];
    let mut server = dir.serve(&["--config", "pleo.toml"], &env);
    let clients = Arc::new(Clients {
        http: server.address().to_owned(),
        https: server.https_address(),
        http1: connector(&certificate, &["http/1.1"]),
        http2: connector(&certificate, &["h2"]),
        opened: AtomicUsize::new(0),
        acknowledged: AtomicUsize::new(0),
    });
    // The first delivery opens the files that stay open.
    clients.count_acknowledged(send_to(&clients.http, &signed("first")).await.status);
    let files = server.open_files();
    let mut sizes = Vec::new();
    for round in 0..=ROUNDS {
        let length = Duration::from_secs(seconds) / ROUNDS * round.min(1);
        let end = Instant::now() + length;
        let run = |_| Arc::clone(&clients).run(end, WARM_UP);
        (0..CLIENTS)
            .map(run)
            .collect::<JoinSet<_>>()
            .join_all()
            .await;
        let open = wait_for_open_files(&server, files + MAX_MORE_FILES).await;
        sizes.push(server.memory_kib("VmRSS"));
        #[allow(clippy::print_stderr, reason = "the figures of a long run")]
        {
            eprintln!(
                "{:?} connections, {:?} deliveries acknowledged, {} dispatched: {open} files, {} KiB",
                clients.opened,
                clients.acknowledged,
                delivered.lock().unwrap().len(),
                sizes[sizes.len() - 1],
            );
        }
    }
    let (first, last) = (sizes[0], sizes[sizes.len() - 1]);
    assert!(
        last < first + MAX_GROWTH_KIB,
        "KiB after each round: {sizes:?}"
    );
    assert!(
        clients.opened.load(Ordering::Relaxed) > 1000,
        "too few connections"
    );

    // Every acknowledged message is dispatched.
    let acknowledged = clients.acknowledged.load(Ordering::Relaxed);
    let (mut count, mut since) = (0, Instant::now());
    while count < acknowledged {
        time::sleep(Duration::from_millis(20)).await;
        let now = delivered.lock().unwrap().len();
        if now > count {
            (count, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < TIMEOUT, "{count} of {acknowledged}");
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_connections_leak_no_memory_or_files() {
    let dir = WorkDir::new();
    let server = dir.serve(&[], &[("PLEO_WEBHOOK_SECRET", SECRET)]);
    // The first delivery opens the files that stay open.
    assert_eq!(
        send_to(server.address(), &signed("msg_0")).await.status,
        204
    );
    let mut sizes = Vec::new();
    let mut files = Vec::new();
    for _ in 0..8 {
        let remaining = Arc::new(AtomicUsize::new(1000));
        let senders = (0..CLIENTS).map(|sender| {
            let (remaining, address) = (Arc::clone(&remaining), server.address().to_owned());
            tokio::spawn(async move {
                let take = |remaining: usize| remaining.checked_sub(1);
                while remaining
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                    .is_ok()
                {
                    // Duplicates, so that the inbox does not grow.
                    let answer = send_to(&address, &signed(&format!("msg_{sender}"))).await;
                    assert_eq!(answer.status, 204);
                }
            })
        });
        for sender in senders.collect::<Vec<_>>() {
            sender.await.unwrap();
        }
        // The server closes a connection shortly after its client.
        let start = Instant::now();
        let mut open = server.open_files();
        while files.first().is_some_and(|first| open > *first) {
            assert!(
                start.elapsed() < TIMEOUT,
                "{open} files stay open: {files:?}"
            );
            time::sleep(Duration::from_millis(20)).await;
            open = server.open_files();
        }
        if files.is_empty() {
            // Later rounds must not leave more files open than the first.
            time::sleep(Duration::from_millis(200)).await;
            open = server.open_files();
        }
        files.push(open);
        sizes.push(server.memory_kib("VmRSS"));
    }
    let (first, last) = (sizes[1], sizes[sizes.len() - 1]);
    assert!(last < first + 2048, "KiB after each round: {sizes:?}");
    assert_eq!(server.stop("-TERM").0, Some(0));
}
