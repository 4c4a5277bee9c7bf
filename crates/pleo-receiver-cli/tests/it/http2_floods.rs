//! HTTP/2 frame floods: the server ends them, serves other clients, and bounds its memory.

#![cfg(target_os = "linux")]

use core::time::Duration;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crate::support::delay::DelayMeter;
use crate::support::program::{RunningServer, SECRET, WorkDir};
use crate::support::tls::{certify, connect, connector};
use crate::support::{Answer, PATH, Request, send_to};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, split};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The number of concurrent attackers.
const ATTACKERS: usize = 2;

/// The number of deliveries during each attack.
const DELIVERIES: usize = 20;

/// The limit on memory growth during an attack, in KiB.
const MAX_GROWTH_KIB: usize = 32 * 1024;

const TIMEOUT: Duration = Duration::from_secs(60);

/// The time in which the server closes a connection that floods; below its header timeout.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Frame types and flags (RFC 9113 section 6).
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const UNKNOWN: u8 = 0xfa;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// The error code for excessive load (RFC 9113 section 7).
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()];
    [&head.concat(), payload].concat()
}

/// Encodes the start of a connection (RFC 9113 section 3.4).
fn preface() -> Vec<u8> {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    [&preface[..], &frame(SETTINGS, 0, 0, &[])].concat()
}

/// Encodes a literal header field without indexing (RFC 7541 section 6.2.2).
fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [&[0][..], &text(name), &text(value)].concat()
}

/// Encodes the header of a valid delivery, the costliest for the server to handle.
fn head(stream: u32) -> Vec<u8> {
    let pseudo = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", PATH),
        (":authority", "x"),
    ];
    let request = Request::signed("msg_1", b"{}");
    let headers = request.headers.iter().filter(|(name, _)| name != "host");
    let headers = headers.map(|(name, value)| (&**name, &**value));
    let block: Vec<_> = pseudo
        .into_iter()
        .chain(headers)
        .map(|(name, value)| literal(name, value))
        .collect();
    frame(HEADERS, END_HEADERS, stream, &block.concat())
}

/// Opens a stream and resets it immediately (CVE-2023-44487).
fn rapid_reset(stream: u32) -> Vec<u8> {
    let cancel = 8_u32.to_be_bytes();
    [head(stream), frame(RST_STREAM, 0, stream, &cancel)].concat()
}

/// Makes the server reset a stream by a window overflow (CVE-2025-8671).
fn server_reset(stream: u32) -> Vec<u8> {
    [
        head(stream),
        frame(WINDOW_UPDATE, 0, stream, &i32::MAX.to_be_bytes()),
    ]
    .concat()
}

/// Sends headers without end (CVE-2024-27316).
fn continuation(stream: u32) -> Vec<u8> {
    match stream {
        1 => frame(HEADERS, 0, 1, &literal("x", "y")),
        _ => frame(CONTINUATION, 0, 1, &literal("x", "y")),
    }
}

/// Resets each stream after the server has read its header. To the server, this is
/// the same as a client that gives up, and each stream costs no more.
fn late_reset(stream: u32) -> Vec<u8> {
    let reset = match stream {
        1 => Vec::new(),
        _ => frame(RST_STREAM, 0, stream - 2, &8_u32.to_be_bytes()),
    };
    [reset, head(stream), frame(PING, 0, 0, &[0; 8])].concat()
}

struct Attack {
    name: &'static str,
    /// Returns the frames to send for a stream.
    frames: fn(u32) -> Vec<u8>,
    /// The number of streams per connection.
    streams: u32,
    /// Waits after each stream until the server has read it.
    is_paced: bool,
    /// The error code with which the server closes the connection.
    reason: Option<u32>,
}

const ATTACKS: [Attack; 4] = [
    Attack {
        name: "rapid reset",
        frames: rapid_reset,
        streams: 2000,
        is_paced: false,
        reason: Some(ENHANCE_YOUR_CALM),
    },
    Attack {
        name: "server reset",
        frames: server_reset,
        streams: 2000,
        is_paced: false,
        reason: Some(ENHANCE_YOUR_CALM),
    },
    Attack {
        name: "continuation",
        frames: continuation,
        streams: 2000,
        is_paced: false,
        reason: Some(ENHANCE_YOUR_CALM),
    },
    Attack {
        name: "late reset",
        frames: late_reset,
        streams: 200,
        is_paced: true,
        reason: None,
    },
];

impl Attack {
    /// Attacks until the server closes the connection or all streams are sent. Returns the error code
    /// that the server gave.
    async fn run(&self, connector: &TlsConnector, address: SocketAddr) -> Option<u32> {
        let stream = connect(connector, address).await.unwrap();
        let (read, mut write) = split(stream);
        let (pong, mut pongs) = unbounded_channel();
        let received = tokio::spawn(reason(read, pong));
        write.write_all(&preface()).await.unwrap();
        for number in 0..self.streams {
            let frames = (self.frames)(2 * number + 1);
            // The server may have closed the connection.
            if write.write_all(&frames).await.is_err() || write.flush().await.is_err() {
                break;
            }
            if self.is_paced && pongs.recv().await.is_none() {
                break;
            }
        }
        if self.reason.is_none() {
            let _ = write.shutdown().await;
        }
        time::timeout(TIMEOUT, received).await.unwrap().unwrap()
    }
}

/// Reads frames until the connection closes. Reports each PING acknowledgement to `pong`. Returns the
/// error code of GOAWAY.
async fn reason(
    mut stream: ReadHalf<TlsStream<TcpStream>>,
    pong: UnboundedSender<()>,
) -> Option<u32> {
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await.unwrap();
        match head[3] {
            GOAWAY => {
                let reason = payload[4..8].try_into().unwrap();
                return Some(u32::from_be_bytes(reason));
            }
            PING => {
                let _ = pong.send(());
            }
            _ => {}
        }
    }
    None
}

/// Starts a server with TLS. The inbox is in memory, so that disk latency is not measured.
fn serve(dir: &WorkDir) -> RunningServer {
    let config = "inbox = \"memory:\"\ntls_listen = \"127.0.0.1:0\"\n\
                  tls_certificate = \"cert.pem\"\ntls_key = \"key.pem\"";
    dir.write("pleo.toml", config);
    dir.serve(
        &["--config", "pleo.toml"],
        &[("PLEO_WEBHOOK_SECRET", SECRET)],
    )
}

#[tokio::test]
async fn closes_connection_with_too_many_control_frames() {
    let dir = WorkDir::new();
    let certificate = certify(dir.path());
    let mut server = serve(&dir);
    let https = server.https_address();
    let http2 = connector(&certificate, &["h2"]);
    for (name, frame) in [
        ("PING", frame(PING, ACK, 0, &[0; 8])),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 0])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("unknown", frame(UNKNOWN, 0, 0, &[])),
    ] {
        let stream = connect(&http2, https).await.unwrap();
        let (read, mut write) = split(stream);
        let (pong, _pongs) = unbounded_channel();
        write.write_all(&preface()).await.unwrap();
        // The server may have closed the connection before it gets all.
        let _ = write.write_all(&frame.repeat(1100)).await;
        let _ = write.flush().await;
        let closed = time::timeout(CLOSE_TIMEOUT, reason(read, pong)).await;
        assert_eq!(closed.ok(), Some(None), "{name}");
    }
    let request = Request::signed("msg_1", b"{}");
    assert_eq!(send_to(server.address(), &request).await.status, 204);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_http2_floods_and_serves_other_clients() {
    let dir = WorkDir::exclusive();
    let certificate = certify(dir.path());
    let mut server = serve(&dir);
    let https = server.https_address();
    let http1 = connector(&certificate, &["http/1.1"]);
    let http2 = connector(&certificate, &["h2"]);

    for attack in &ATTACKS {
        let mut meter = DelayMeter::start(&dir);
        let before = server.memory_kib("VmHWM");
        let (over, ended) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let attackers: JoinSet<_> = (0..ATTACKERS)
            .map(|_| {
                let (over, ended, http2) = (Arc::clone(&over), Arc::clone(&ended), http2.clone());
                async move {
                    while !over.load(Ordering::Relaxed) {
                        let reason = attack.run(&http2, https).await;
                        assert_eq!(reason, attack.reason, "{}", attack.name);
                        ended.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
            .collect();
        let mut number = 0;
        let attack_start = Instant::now();
        // Each attack ends at least once.
        while number < DELIVERIES || ended.load(Ordering::Relaxed) < ATTACKERS {
            assert!(
                attack_start.elapsed() < TIMEOUT,
                "{}: the attack does not end",
                attack.name
            );
            let request = Request::signed(&format!("msg_{number}"), b"{}");
            let delivery = async { send_to(server.address(), &request).await.status };
            meter.measure(attack.name, delivery).await;
            let delivery = async {
                let mut stream = connect(&http1, https).await.unwrap();
                stream.write_all(&request.bytes()).await.unwrap();
                Answer::read(&mut stream).await.status
            };
            meter.measure(attack.name, delivery).await;
            number += 1;
        }
        over.store(true, Ordering::Relaxed);
        time::timeout(TIMEOUT, attackers.join_all()).await.unwrap();
        meter.assert_prompt(attack.name);
        let after = server.memory_kib("VmHWM");
        assert!(
            after < before + MAX_GROWTH_KIB,
            "{}: from {before} to {after} KiB",
            attack.name
        );
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}
