//! Floods of HTTP/2 frames that cost who sends them next to nothing, against the real program: they
//! are told to calm down, others are served meanwhile, and the memory stays bounded.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

use core::time::Duration;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crate::support::program::{Place, SECRET};
use crate::support::tls::{certify, connect, connector};
use crate::support::{Answer, PATH, Request, send_to};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, split};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How many attackers there are at once.
const ATTACKERS: usize = 2;

/// How many deliveries are made meanwhile.
const DELIVERIES: usize = 20;

/// How many kilobytes more than before an attack the program may have at its most.
const MORE_MEMORY: usize = 32 * 1024;

/// Whatever goes wrong, no test waits longer.
const LONG: Duration = Duration::from_secs(60);

/// Frame types and flags of RFC 9113 section 6.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// What tells a peer that it asks too much (RFC 9113 section 7).
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()];
    [&head.concat(), payload].concat()
}

/// A header as it stands, with nothing to be remembered (RFC 7541 section 6.2.2).
fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [&[0][..], &text(name), &text(value)].concat()
}

/// The head of a delivery that would be taken if its body came: the dearest that can be had.
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

/// Streams that are opened and reset at once (CVE-2023-44487).
fn rapid_reset(stream: u32) -> Vec<u8> {
    let cancel = 8_u32.to_be_bytes();
    [head(stream), frame(RST_STREAM, 0, stream, &cancel)].concat()
}

/// Streams that the server has to reset (CVE-2025-8671), since their windows grow too large.
fn made_reset(stream: u32) -> Vec<u8> {
    [
        head(stream),
        frame(WINDOW_UPDATE, 0, stream, &i32::MAX.to_be_bytes()),
    ]
    .concat()
}

/// Headers that never end (CVE-2024-27316).
fn continuation(stream: u32) -> Vec<u8> {
    match stream {
        1 => frame(HEADERS, 0, 1, &literal("x", "y")),
        _ => frame(CONTINUATION, 0, 1, &literal("x", "y")),
    }
}

/// Streams that are reset as soon as their heads were read, so that they look like any client's that
/// gives up. Nothing tells them from that, and they cost no more.
fn late_reset(stream: u32) -> Vec<u8> {
    let reset = match stream {
        1 => Vec::new(),
        _ => frame(RST_STREAM, 0, stream - 2, &8_u32.to_be_bytes()),
    };
    [reset, head(stream), frame(PING, 0, 0, &[0; 8])].concat()
}

struct Attack {
    name: &'static str,
    /// What it sends for each stream.
    frames: fn(u32) -> Vec<u8>,
    /// How many streams a connection has, unless it ends before.
    streams: u32,
    /// Whether it waits in between until the server has read it.
    is_paced: bool,
    /// How it ends.
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
        name: "made reset",
        frames: made_reset,
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
    /// Goes on until the server ends it, or for so many streams; gives the reason that it was told.
    async fn run(&self, connector: &TlsConnector, address: SocketAddr) -> Option<u32> {
        let stream = connect(connector, address).await.unwrap();
        let (read, mut write) = split(stream);
        let (pong, mut pongs) = unbounded_channel();
        let told = tokio::spawn(reason(read, pong));
        let begin = [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
            &frame(SETTINGS, 0, 0, &[]),
        ];
        write.write_all(&begin.concat()).await.unwrap();
        for number in 0..self.streams {
            let frames = (self.frames)(2 * number + 1);
            // It may be over by now.
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
        time::timeout(LONG, told).await.unwrap().unwrap()
    }
}

/// Reads all that the server says, and tells of each answer to a PING; gives the reason why the
/// connection ended.
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_told_to_calm_down_and_keeps_nobody_waiting() {
    let place = Place::new();
    let certificate = certify(place.path());
    let tls = "tls_listen = \"127.0.0.1:0\"\ntls_certificate = \"cert.pem\"\ntls_key = \"key.pem\"";
    place.write("pleo.toml", tls);
    let mut server = place.serve(
        &["--config", "pleo.toml"],
        &[("PLEO_WEBHOOK_SECRET", SECRET)],
    );
    let line = server.wait_for("listening url=\"https://");
    let https = line.split("https://").nth(1).unwrap().split('/').next();
    let https = https.unwrap().parse().unwrap();
    let http1 = connector(&certificate, &["http/1.1"]);
    let http2 = connector(&certificate, &["h2"]);

    for attack in &ATTACKS {
        let before = server.memory("VmHWM");
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
        let mut slowest = Duration::ZERO;
        let mut number = 0;
        let begun = Instant::now();
        // Each attacker is at its end at least once.
        while number < DELIVERIES || ended.load(Ordering::Relaxed) < ATTACKERS {
            assert!(begun.elapsed() < LONG, "{}: it does not end", attack.name);
            let request = Request::signed(&format!("msg_{number}"), b"{}");
            let mut start = Instant::now();
            let answer = send_to(server.address(), &request).await;
            assert_eq!(answer.status, 204, "{}", attack.name);
            slowest = slowest.max(start.elapsed());
            start = Instant::now();
            let mut stream = connect(&http1, https).await.unwrap();
            stream.write_all(&request.bytes()).await.unwrap();
            assert_eq!(
                Answer::read(&mut stream).await.status,
                204,
                "{}",
                attack.name
            );
            slowest = slowest.max(start.elapsed());
            number += 1;
        }
        over.store(true, Ordering::Relaxed);
        time::timeout(LONG, attackers.join_all()).await.unwrap();
        assert!(
            slowest < Duration::from_secs(1),
            "{}: only after {slowest:?}",
            attack.name
        );
        let after = server.memory("VmHWM");
        assert!(
            after < before + MORE_MEMORY,
            "{}: from {before} to {after} kilobytes",
            attack.name
        );
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}
