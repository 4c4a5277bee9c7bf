//! Deliveries while 10,000 connections are idle.

// Only Linux binds all of 127.0.0.0/8.
#![cfg(target_os = "linux")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::support::program::{SECRET, WorkDir};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// The number of idle connections.
const CONNECTIONS: u16 = 10_000;

/// The number of connections per source address, below the limit of 1,024.
const PER_SOURCE: u16 = 1000;

/// The number of other files that this process needs. No other test runs at the same time.
const OTHER_FILES: u64 = 64;

/// Raises the limit of open files. Returns the number of connections that this process can open.
fn raise_file_limit() -> u16 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let files = limit
        .maximum
        .unwrap_or(u64::MAX)
        .saturating_sub(OTHER_FILES);
    let count = u16::try_from(files).unwrap_or(u16::MAX).min(CONNECTIONS);
    if count < CONNECTIONS {
        #[allow(clippy::print_stderr, reason = "a warning of a reduced test")]
        {
            eprintln!(
                "ONLY {count} CONNECTIONS INSTEAD OF {CONNECTIONS}: raise the limit of open files"
            );
        }
    }
    count
}

async fn connect(number: u16, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let last = u8::try_from(2 + number / PER_SOURCE).unwrap();
    let source = IpAddr::from(Ipv4Addr::new(127, 0, 0, last));
    socket.bind(SocketAddr::new(source, 0)).unwrap();
    socket.connect(address).await.unwrap()
}

#[tokio::test]
async fn accepts_deliveries_among_idle_connections() {
    let count = raise_file_limit();
    let dir = WorkDir::exclusive();
    // The first connection must still be open when the last one opens.
    // The inbox is in memory, so that disk latency is not measured.
    let config = "inbox = \"memory:\"\n[limits]\nheader_timeout = \"5m\"\n";
    dir.write("pleo.toml", config);
    let env = [("PLEO_WEBHOOK_SECRET", SECRET)];
    let server = dir.serve(&["--config", "pleo.toml"], &env);
    let address = server.address().parse().unwrap();
    let mut idle = Vec::new();
    let mut slowest = Duration::ZERO;
    for first in (0..count).step_by(500) {
        let start = Instant::now();
        let numbers = first..count.min(first + 500);
        let opening: JoinSet<_> = numbers.map(|number| connect(number, address)).collect();
        idle.extend(opening.join_all().await);
        slowest = slowest.max(start.elapsed());
        let start = Instant::now();
        let sent = dir.run_with(&["send", &server.url], &env, b"");
        slowest = slowest.max(start.elapsed());
        assert!(sent.stdout.starts_with("204"), "{first}: {sent:?}");
    }
    // Less than a second: no connection attempt needed a retransmission. The time of a delivery
    // includes starting the program `send`.
    assert!(
        slowest < Duration::from_secs(1),
        "the slowest took {slowest:?}"
    );
    // Every connection is still open.
    let open = idle
        .iter()
        .filter(|connection| connection.try_read(&mut [0]).is_err());
    assert_eq!(open.count(), usize::from(count));
    drop(idle);
    assert_eq!(server.stop("-TERM").0, Some(0));
}
