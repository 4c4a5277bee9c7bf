//! Connections of every kind that come and go, with a handler, for as long as is asked: the memory
//! and the open files of the real program stay where they were.
//!
//! A few seconds unless `PLEO_SOAK_SECONDS` says otherwise; with `--nocapture` it shows its figures.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

use core::time::Duration;
use std::env;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::support::program::{Place, SECRET, Serving};
use crate::support::tls::{certify, connect, connector, framed, http2};
use crate::support::{Answer, Request, send_to, target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time;
use tokio_rustls::TlsConnector;

/// How many clients there are at once.
const CLIENTS: usize = 16;

/// How many connections there are before anything is measured: caches and buffers fill.
const WARM_UP: usize = 1500;

/// How often it is looked at from then on.
const ROUNDS: u32 = 8;

/// How many kilobytes more than after the warm-up there may be in the end. A few seconds are some
/// thousand connections, so that this is half a kilobyte for each, and far less in a longer run.
const MORE_MEMORY: usize = 1024;

/// How many messages are handed on at once.
const HANDLERS: usize = 8;

/// How many more open files there may be: the connections to the handler's target, which stay open
/// for the next messages, and now and then a spare one.
const MORE_FILES: usize = 2 * HANDLERS;

/// Whatever goes wrong, no test waits longer.
const LONG: Duration = Duration::from_secs(60);

fn body(id: &str) -> Vec<u8> {
    format!(r#"{{"eventType":"v9.new","padding":"{}"}}"#, id.repeat(100)).into()
}

fn signed(id: &str) -> Request {
    Request::signed(id, &body(id))
}

/// What all clients know.
struct Clients {
    http: String,
    https: SocketAddr,
    http1: TlsConnector,
    http2: TlsConnector,
    /// How many connections were opened, and how many deliveries were acknowledged.
    opened: AtomicUsize,
    acknowledged: AtomicUsize,
}

impl Clients {
    /// Opens a connection of one kind after the other until then, and until there were so many.
    async fn run(self: Arc<Self>, end: Instant, least: usize) {
        while Instant::now() < end || self.opened.load(Ordering::Relaxed) < least {
            let number = self.opened.fetch_add(1, Ordering::Relaxed);
            let id = format!("msg_{number:08}");
            time::timeout(LONG, self.open(number, &id)).await.unwrap();
        }
    }

    async fn open(&self, number: usize, id: &str) {
        match number % 10 {
            0 => self.took(send_to(&self.http, &signed(id)).await.status),
            1 => {
                let forged = signed(id).with("webhook-signature", "v1,AAAA");
                assert_eq!(send_to(&self.http, &forged).await.status, 401);
            }
            2 => {
                let mut stream = TcpStream::connect(&self.http).await.unwrap();
                for nth in 0..3 {
                    let request = signed(&format!("{id}_{nth}")).bytes();
                    stream.write_all(&request).await.unwrap();
                    self.took(Answer::read(&mut stream).await.status);
                }
            }
            3 => self.break_off(id, 30, false).await,
            4 => self.break_off(id, 30, true).await,
            // In its body.
            5 => {
                self.break_off(id, signed(id).bytes().len() - 10, false)
                    .await
            }
            6 => {
                self.break_off(id, signed(id).bytes().len() - 10, true)
                    .await
            }
            7 => {
                let mut stream = connect(&self.http1, self.https).await.unwrap();
                stream.write_all(&signed(id).bytes()).await.unwrap();
                self.took(Answer::read(&mut stream).await.status);
            }
            8 => {
                let mut client = http2(connect(&self.http2, self.https).await.unwrap()).await;
                let unanswered = client.send_request(framed(&signed(&format!("{id}_x"))));
                drop(unanswered);
                for nth in 0..3 {
                    let request = framed(&signed(&format!("{id}_{nth}")));
                    let answer = client.send_request(request).await.unwrap();
                    self.took(answer.status().as_u16());
                }
            }
            // Half a handshake.
            _ => {
                let mut stream = TcpStream::connect(self.https).await.unwrap();
                stream.write_all(b"\x16\x03\x01").await.unwrap();
            }
        }
    }

    /// Ends in the middle of a request, with a reset or in good order.
    async fn break_off(&self, id: &str, at: usize, reset: bool) {
        let mut stream = TcpStream::connect(&self.http).await.unwrap();
        stream.write_all(&signed(id).bytes()[..at]).await.unwrap();
        if reset {
            stream.set_zero_linger().unwrap();
        } else {
            // Perhaps an answer, then the end.
            stream.shutdown().await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        }
    }

    fn took(&self, status: u16) {
        assert_eq!(status, 204);
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// The last ones end a moment later than their clients.
async fn settled(server: &Serving, most: usize) -> usize {
    let start = Instant::now();
    loop {
        let open = server.files();
        if open <= most {
            return open;
        }
        assert!(start.elapsed() < LONG, "{open} files stay open, not {most}");
        time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_and_goes_leaves_nothing_behind() {
    let seconds = env::var("PLEO_SOAK_SECONDS").map_or(5, |seconds| seconds.parse().unwrap());
    let place = Place::new();
    let certificate = certify(place.path());
    let (url, handed) = target().await;
    let tls = "tls_listen = \"127.0.0.1:0\"\ntls_certificate = \"cert.pem\"\ntls_key = \"key.pem\"";
    let retry = format!("[retry]\nconcurrency = {HANDLERS}");
    place.write(
        "pleo.toml",
        &format!("{tls}\nforward = \"{url}\"\n{retry}\n"),
    );
    let env = [("PLEO_WEBHOOK_SECRET", SECRET)];
    let mut server = place.serve(&["--config", "pleo.toml"], &env);
    let line = server.wait_for("listening url=\"https://");
    let https = line.split("https://").nth(1).unwrap().split('/').next();
    let clients = Arc::new(Clients {
        http: server.address().to_owned(),
        https: https.unwrap().parse().unwrap(),
        http1: connector(&certificate, &["http/1.1"]),
        http2: connector(&certificate, &["h2"]),
        opened: AtomicUsize::new(0),
        acknowledged: AtomicUsize::new(0),
    });
    // One answer opens what stays open.
    clients.took(send_to(&clients.http, &signed("first")).await.status);
    let files = server.files();
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
        let open = settled(&server, files + MORE_FILES).await;
        sizes.push(server.memory("VmRSS"));
        #[allow(clippy::print_stderr, reason = "the figures of a long run")]
        {
            eprintln!(
                "{:?} connections, {:?} deliveries acknowledged, {} handed on: {open} files, {} kB",
                clients.opened,
                clients.acknowledged,
                handed.lock().unwrap().len(),
                sizes[sizes.len() - 1],
            );
        }
    }
    let (first, last) = (sizes[0], sizes[sizes.len() - 1]);
    assert!(
        last < first + MORE_MEMORY,
        "kilobytes after each round: {sizes:?}"
    );
    assert!(
        clients.opened.load(Ordering::Relaxed) > 1000,
        "hardly any load"
    );

    // And all is handed on.
    let acknowledged = clients.acknowledged.load(Ordering::Relaxed);
    let (mut count, mut since) = (0, Instant::now());
    while count < acknowledged {
        time::sleep(Duration::from_millis(20)).await;
        let now = handed.lock().unwrap().len();
        if now > count {
            (count, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < LONG, "{count} of {acknowledged}");
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}
