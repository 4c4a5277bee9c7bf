//! Those who take as much as they can of what all share, and never end what they begin, against the
//! real program: others are served meanwhile, and the memory stays bounded.

// Elsewhere not all of 127.0.0.0/8 is this machine.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails loudly"
)]

use core::time::Duration;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use crate::support::program::{Place, SECRET, free_address};
use crate::support::tls::{certify, connector, framed, http2, over};
use crate::support::{Answer, Drip, Request};
use bytes::Bytes;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time;
use tokio_rustls::TlsConnector;

/// Few, so that it takes few attackers. A quarter of it may wait for the bodies of one source, and
/// three quarters for those of all.
const IN_FLIGHT: usize = 512;

/// As large as a body may be.
const LARGE: usize = 1024 * 1024;

/// What is missing of a large body that stops before its end.
const REST: usize = 1000;

/// How often each kind of delivery is made.
const ROUNDS: usize = 3;

/// Whatever goes wrong, no test waits longer.
const LONG: Duration = Duration::from_secs(60);

/// As many streams as a connection may have.
const STREAMS: usize = 64;

struct Attack {
    name: &'static str,
    /// From how many addresses it comes.
    sources: u8,
    /// How many connections it has from each of them.
    connections: usize,
    /// How it uses one of them.
    how: How,
    /// How many megabytes more than before the program may have at its most.
    memory: usize,
}

#[derive(Clone, Copy)]
enum How {
    /// Streams of HTTP/2, each with a body that stops after so many bytes, and then drips.
    Streams(usize),
    /// One such request.
    Request(usize),
}

const ATTACKS: [Attack; 6] = [
    Attack {
        name: "one address: streams that drip",
        sources: 1,
        connections: 10,
        how: How::Streams(1),
        memory: 64,
    },
    Attack {
        name: "one address: streams with large bodies",
        sources: 1,
        connections: 2,
        how: How::Streams(LARGE - REST),
        memory: 64,
    },
    Attack {
        name: "one address: connections that drip",
        sources: 1,
        connections: 640,
        how: How::Request(1),
        memory: 64,
    },
    Attack {
        name: "one address: large bodies",
        sources: 1,
        connections: 120,
        how: How::Request(LARGE - REST),
        // A quarter of 64, and what is read at once of each connection.
        memory: 64,
    },
    Attack {
        name: "many addresses: connections that drip",
        sources: 8,
        connections: 80,
        how: How::Request(1),
        memory: 64,
    },
    Attack {
        name: "many addresses: large bodies",
        sources: 16,
        connections: 20,
        how: How::Request(LARGE - REST),
        memory: 160,
    },
];

#[derive(Clone)]
struct Target {
    http: SocketAddr,
    https: SocketAddr,
    metrics: SocketAddr,
    http2: TlsConnector,
}

impl Attack {
    /// Begins all of it, and goes on until what this gives is dropped.
    async fn begin(&self, target: &Target) -> JoinSet<()> {
        let large = Bytes::from(vec![b'x'; LARGE]);
        let request = Request::signed("msg_1", &large);
        let mut head = request.bytes();
        head.truncate(head.len() - LARGE);
        let mut going_on = JoinSet::new();
        let mut beginning = JoinSet::new();
        for number in 0..self.connections * usize::from(self.sources) {
            let last = u8::try_from(number % usize::from(self.sources)).unwrap();
            let source = Ipv4Addr::new(127, 0, 0, 2 + last);
            match self.how {
                How::Streams(bytes) => {
                    let stream = connect(source, target.https).await;
                    let stream = over(&target.http2, stream).await.unwrap();
                    let mut client = http2(stream).await;
                    for _ in 0..STREAMS {
                        client.ready().await.unwrap();
                        let body = Drip::after(large.slice(..bytes), LARGE - bytes);
                        let answer = client.send_request(framed(&request).map(|_| body));
                        going_on.spawn(async { drop(answer.await) });
                    }
                }
                How::Request(bytes) => {
                    let mut stream = connect(source, target.http).await;
                    let (head, body) = (head.clone(), large.slice(..bytes));
                    beginning.spawn(async move {
                        stream.write_all(&head).await.unwrap();
                        // It may be refused by now.
                        let _ = stream.write_all(&body).await;
                        stream
                    });
                }
            }
        }
        while let Some(stream) = beginning.join_next().await {
            let mut stream = stream.unwrap();
            going_on.spawn(async move {
                while stream.write_all(b"x").await.is_ok() {
                    time::sleep(Duration::from_secs(1)).await;
                }
            });
        }
        going_on
    }

    /// How many requests it is.
    fn requests(&self) -> usize {
        let each = match self.how {
            How::Streams(_) => STREAMS,
            How::Request(_) => 1,
        };
        self.connections * usize::from(self.sources) * each
    }
}

async fn connect(source: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((source, 0))).unwrap();
    socket.connect(address).await.unwrap()
}

impl Target {
    /// Waits until so many requests are in flight or refused; gives how many are in flight.
    async fn busy(&self, requests: usize) -> usize {
        loop {
            let mut stream = TcpStream::connect(self.metrics).await.unwrap();
            let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut page = String::new();
            stream.read_to_string(&mut page).await.unwrap();
            let sum = |name| -> usize {
                let lines = page.lines().filter(|line| line.starts_with(name));
                let values =
                    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok());
                values.sum()
            };
            let in_flight = sum("pleo_receiver_in_flight ");
            if in_flight + sum("pleo_receiver_rejected_total{") >= requests {
                return in_flight;
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes a delivery, whose body comes after a pause where there is one.
    async fn deliver(&self, body: &[u8], pause: Duration) -> u16 {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        let bytes = Request::signed(&format!("msg_{}", body.len()), body).bytes();
        let (head, body) = bytes.split_at(bytes.len() - body.len());
        if pause.is_zero() {
            stream.write_all(&bytes).await.unwrap();
        } else {
            stream.write_all(head).await.unwrap();
            time::sleep(pause).await;
            // It may be refused by now.
            let _ = stream.write_all(body).await;
        }
        Answer::read(&mut stream).await.status
    }

    async fn deliver_by_http2(&self) -> u16 {
        let stream = TcpStream::connect(self.https).await.unwrap();
        let mut client = http2::<Full<_>>(over(&self.http2, stream).await.unwrap()).await;
        let request = framed(&Request::signed("msg_1", b"{}"));
        client
            .send_request(request)
            .await
            .unwrap()
            .status()
            .as_u16()
    }
}

/// It is taken within a second.
async fn prompt(name: &str, delivery: impl Future<Output = u16>) {
    let start = Instant::now();
    assert_eq!(delivery.await, 204, "{name}");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(1), "{name}: only after {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_hoards_what_all_share_keeps_nobody_waiting() {
    for attack in &ATTACKS {
        let name = attack.name;
        let place = Place::new();
        let certificate = certify(place.path());
        // What drips may do so for the whole test.
        let limits = format!(
            "tls_listen = \"127.0.0.1:0\"\ntls_certificate = \"cert.pem\"\ntls_key = \"key.pem\"\n\
             [limits]\nin_flight = {IN_FLIGHT}\nbody_rate = 0\nbody_timeout = \"5m\"\ngrace = \"1ms\"\n"
        );
        place.write("pleo.toml", &limits);
        let metrics = free_address();
        let mut server = place.serve(
            &["--config", "pleo.toml", "--metrics", &metrics],
            &[("PLEO_WEBHOOK_SECRET", SECRET)],
        );
        let line = server.wait_for("listening url=\"https://");
        let https = line.split("https://").nth(1).unwrap().split('/').next();
        let target = Target {
            http: server.address().parse().unwrap(),
            https: https.unwrap().parse().unwrap(),
            metrics: metrics.parse().unwrap(),
            http2: connector(&certificate, &["h2"]),
        };
        let before = server.memory("VmHWM");
        let attacking = time::timeout(LONG, attack.begin(&target));
        let attacking = attacking.await.expect(name);
        let busy = time::timeout(LONG, target.busy(attack.requests()));
        assert!(busy.await.expect(name) > 0, "{name}: it holds nothing");

        let small = br#"{"eventType":"v9.new","eventId":"e1","data":{}}"#;
        let large = vec![b'x'; LARGE];
        let pause = Duration::from_millis(50);
        for _ in 0..ROUNDS {
            prompt(name, target.deliver(small, Duration::ZERO)).await;
            // What waits for its own body needs a share of what is left by others.
            if attack.sources == 1 {
                prompt(name, target.deliver(small, pause)).await;
                prompt(name, target.deliver(&large, pause)).await;
                prompt(name, target.deliver_by_http2()).await;
            }
        }
        assert!(target.busy(0).await > 0, "{name}: it has ended before");
        let more = (server.memory("VmHWM") - before) / 1024;
        assert!(more < attack.memory, "{name}: {more} megabytes more");
        drop(attacking);
        assert_eq!(server.stop("-TERM").0, Some(0), "{name}");
    }
}
