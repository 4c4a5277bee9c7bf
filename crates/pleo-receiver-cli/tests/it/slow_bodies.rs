//! Attacks with slow request bodies: the server keeps serving other clients and bounds its memory.

// Only Linux binds all of 127.0.0.0/8.
#![cfg(target_os = "linux")]

use core::time::Duration;
use std::net::{Ipv4Addr, SocketAddr};

use crate::support::delay::DelayMeter;
use crate::support::program::{SECRET, WorkDir, free_address};
use crate::support::tls::{certify, connect_over, connector, framed, http2};
use crate::support::{Answer, Request, SlowBody};
use bytes::Bytes;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time;
use tokio_rustls::TlsConnector;

/// The limit of requests with incomplete bodies, low so that few attackers reach it.
const IN_FLIGHT: usize = 512;

/// The largest body allowed.
const LARGE: usize = 1024 * 1024;

/// The missing bytes of an incomplete large body.
const MISSING: usize = 1000;

/// The number of deliveries of each kind.
const ROUNDS: usize = 3;

const TIMEOUT: Duration = Duration::from_secs(60);

/// The limit of HTTP/2 streams per connection.
const STREAMS: usize = 64;

struct Attack {
    name: &'static str,
    /// The number of source addresses.
    sources: u8,
    /// The number of connections per source address.
    connections: usize,
    kind: Kind,
    /// The limit on memory growth, in MiB.
    memory: usize,
}

#[derive(Clone, Copy)]
enum Kind {
    /// HTTP/2 streams with bodies that send this many bytes, then one byte per second.
    Streams(usize),
    /// One HTTP/1.1 request with such a body.
    Request(usize),
}

const ATTACKS: [Attack; 6] = [
    Attack {
        name: "one address: streams with slow bodies",
        sources: 1,
        connections: 10,
        kind: Kind::Streams(1),
        memory: 64,
    },
    Attack {
        name: "one address: streams with large bodies",
        sources: 1,
        connections: 2,
        kind: Kind::Streams(LARGE - MISSING),
        memory: 160,
    },
    Attack {
        name: "one address: connections with slow bodies",
        sources: 1,
        connections: 640,
        kind: Kind::Request(1),
        memory: 64,
    },
    Attack {
        name: "one address: large bodies",
        sources: 1,
        connections: 120,
        kind: Kind::Request(LARGE - MISSING),
        memory: 160,
    },
    Attack {
        name: "many addresses: connections with slow bodies",
        sources: 8,
        connections: 80,
        kind: Kind::Request(1),
        memory: 64,
    },
    Attack {
        name: "many addresses: large bodies",
        sources: 16,
        connections: 20,
        kind: Kind::Request(LARGE - MISSING),
        memory: 200,
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
    /// Starts the attack. It lasts until the returned set is dropped.
    async fn start(&self, target: &Target) -> JoinSet<()> {
        let large = Bytes::from(vec![b'x'; LARGE]);
        let request = Request::signed("msg_1", &large);
        let mut head = request.bytes();
        head.truncate(head.len() - LARGE);
        let mut running = JoinSet::new();
        let mut starting = JoinSet::new();
        for number in 0..self.connections * usize::from(self.sources) {
            let last = u8::try_from(number % usize::from(self.sources)).unwrap();
            let source = Ipv4Addr::new(127, 0, 0, 2 + last);
            match self.kind {
                Kind::Streams(bytes) => {
                    let stream = connect(source, target.https).await;
                    let stream = connect_over(&target.http2, stream).await.unwrap();
                    let mut client = http2(stream).await.unwrap();
                    for _ in 0..STREAMS {
                        client.ready().await.unwrap();
                        let body = SlowBody::after(large.slice(..bytes), LARGE - bytes);
                        let answer = client.send_request(framed(&request).map(|_| body));
                        running.spawn(async { drop(answer.await) });
                    }
                }
                Kind::Request(bytes) => {
                    let mut stream = connect(source, target.http).await;
                    let (head, body) = (head.clone(), large.slice(..bytes));
                    starting.spawn(async move {
                        stream.write_all(&head).await.unwrap();
                        // The server may have rejected the request.
                        let _ = stream.write_all(&body).await;
                        stream
                    });
                }
            }
        }
        while let Some(stream) = starting.join_next().await {
            let mut stream = stream.unwrap();
            running.spawn(async move {
                while stream.write_all(b"x").await.is_ok() {
                    time::sleep(Duration::from_secs(1)).await;
                }
            });
        }
        running
    }

    /// The number of requests of the attack.
    fn requests(&self) -> usize {
        let each = match self.kind {
            Kind::Streams(_) => STREAMS,
            Kind::Request(_) => 1,
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
    /// Waits until this many requests are in flight or rejected. Returns the number in flight.
    async fn wait_for_requests(&self, requests: usize) -> usize {
        loop {
            let mut stream = TcpStream::connect(self.metrics).await.unwrap();
            let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
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

    /// Delivers a message, with a pause before the body. Returns the status.
    async fn deliver(&self, body: &[u8], pause: Duration) -> u16 {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        let bytes = Request::signed(&format!("msg_{}", body.len()), body).bytes();
        let (head, body) = bytes.split_at(bytes.len() - body.len());
        if pause.is_zero() {
            stream.write_all(&bytes).await.unwrap();
        } else {
            stream.write_all(head).await.unwrap();
            time::sleep(pause).await;
            // The server may have rejected the request.
            let _ = stream.write_all(body).await;
        }
        Answer::read(&mut stream).await.status
    }

    async fn deliver_by_http2(&self) -> u16 {
        let stream = TcpStream::connect(self.https).await.unwrap();
        let stream = connect_over(&self.http2, stream).await.unwrap();
        let mut client = http2::<Full<_>>(stream).await.unwrap();
        let request = framed(&Request::signed("msg_1", b"{}"));
        client
            .send_request(request)
            .await
            .unwrap()
            .status()
            .as_u16()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serves_other_clients_during_slow_body_attacks() {
    for attack in &ATTACKS {
        let name = attack.name;
        let dir = WorkDir::exclusive();
        let certificate = certify(dir.path());
        // Slow bodies last until the test ends.
        // The inbox is in memory, so that disk latency is not measured.
        let limits = format!(
            "inbox = \"memory:\"\ntls_listen = \"127.0.0.1:0\"\n\
             tls_certificate = \"cert.pem\"\ntls_key = \"key.pem\"\n\
             [limits]\nin_flight = {IN_FLIGHT}\nbody_rate = 0\nbody_timeout = \"5m\"\ngrace = \"1ms\"\n"
        );
        dir.write("pleo.toml", &limits);
        let metrics = free_address();
        let mut server = dir.serve(
            &["--config", "pleo.toml", "--metrics", &metrics],
            &[("PLEO_WEBHOOK_SECRET", SECRET)],
        );
        let target = Target {
            http: server.address().parse().unwrap(),
            https: server.https_address(),
            metrics: metrics.parse().unwrap(),
            http2: connector(&certificate, &["h2"]),
        };
        let mut meter = DelayMeter::start(&dir);
        let before = server.memory_kib("VmHWM");
        let running = time::timeout(TIMEOUT, attack.start(&target));
        let running = running.await.expect(name);
        let in_flight = time::timeout(TIMEOUT, target.wait_for_requests(attack.requests()));
        assert!(
            in_flight.await.expect(name) > 0,
            "{name}: no request is in flight"
        );

        let small = br#"{"eventType":"v9.new","eventId":"e1","data":{}}"#;
        let large = vec![b'x'; LARGE];
        let pause = Duration::from_millis(50);
        for _ in 0..ROUNDS {
            meter
                .measure(name, target.deliver(small, Duration::ZERO))
                .await;
            meter.measure(name, target.deliver(small, pause)).await;
            meter.measure(name, target.deliver(&large, pause)).await;
            meter.measure(name, target.deliver_by_http2()).await;
        }
        meter.assert_prompt(name);
        assert!(
            target.wait_for_requests(0).await > 0,
            "{name}: the attack ended early"
        );
        let more = (server.memory_kib("VmHWM") - before) / 1024;
        assert!(more < attack.memory, "{name}: {more} MiB more");
        drop(running);
        assert_eq!(server.stop("-TERM").0, Some(0), "{name}");
    }
}
