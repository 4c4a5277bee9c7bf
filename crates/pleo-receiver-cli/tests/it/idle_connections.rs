//! Ten thousand connections that say nothing, and one that has something to say.

// Elsewhere not all of 127.0.0.0/8 is this machine.
#![cfg(target_os = "linux")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::support::program::{SECRET, WorkDir};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// How many of them.
const CROWD: u16 = 10_000;

/// How many of them come from one address: one source may have no more than 1,024.
const FROM_ONE: u16 = 1000;

/// Open files of this process that are none of them.
const OTHERS: u64 = 64;

/// How many connections this process can open.
fn most() -> u16 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let files = limit.maximum.unwrap_or(u64::MAX).saturating_sub(OTHERS);
    let most = u16::try_from(files).unwrap_or(u16::MAX).min(CROWD);
    if most < CROWD {
        #[allow(clippy::print_stderr, reason = "it is not the whole test")]
        {
            eprintln!("ONLY {most} CONNECTIONS INSTEAD OF {CROWD}: raise the limit of open files");
        }
    }
    most
}

async fn connect(number: u16, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let last = u8::try_from(2 + number / FROM_ONE).unwrap();
    let source = IpAddr::from(Ipv4Addr::new(127, 0, 0, last));
    socket.bind(SocketAddr::new(source, 0)).unwrap();
    socket.connect(address).await.unwrap()
}

#[tokio::test]
async fn accepts_deliveries_among_idle_connections() {
    let most = most();
    let dir = WorkDir::exclusive();
    // All must be there at once, however long it takes to open them here.
    dir.write("pleo.toml", "[limits]\nheader_timeout = \"5m\"\n");
    let env = [("PLEO_WEBHOOK_SECRET", SECRET)];
    let server = dir.serve(&["--config", "pleo.toml"], &env);
    let address = server.address().parse().unwrap();
    let mut crowd = Vec::new();
    let mut slowest = Duration::ZERO;
    for first in (0..most).step_by(500) {
        let start = Instant::now();
        let numbers = first..most.min(first + 500);
        let opening: JoinSet<_> = numbers.map(|number| connect(number, address)).collect();
        crowd.extend(opening.join_all().await);
        slowest = slowest.max(start.elapsed());
        let start = Instant::now();
        let sent = dir.run_with(&["send", &server.url], &env, b"");
        slowest = slowest.max(start.elapsed());
        assert!(sent.stdout.starts_with("204"), "{first}: {sent:?}");
    }
    // Neither a burst of connections nor a delivery in their midst (starting a program is in that)
    // is left to a client's second try.
    assert!(slowest < Duration::from_secs(1), "only after {slowest:?}");
    // They are still there: nobody was shut out to get here.
    let open = crowd.iter().filter(|one| one.try_read(&mut [0]).is_err());
    assert_eq!(open.count(), usize::from(most));
    drop(crowd);
    assert_eq!(server.stop("-TERM").0, Some(0));
}
