//! Clients without the secret that try to keep the sender out.
//!
//! During each attack, deliveries of several sizes are acknowledged, and no more than a second later
//! than by a server that is not attacked: complete and in two segments, from a source that delivered
//! before and from sources that never did.

// Only Linux binds all of 127.0.0.0/8.
#![cfg(target_os = "linux")]

use core::time::Duration;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::support::delay::DelayMeter;
use crate::support::program::{RunningServer, SECRET, WorkDir};
use crate::support::tls::{certify, connect_over, connector, framed, http2};
use crate::support::{Answer, Request, SlowBody};
use bytes::Bytes;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time;
use tokio_rustls::TlsConnector;

/// The size of an attacker's body.
const LARGE: usize = 1024 * 1024;

/// How long an attacker waits before it connects again: the test measures the server, not this
/// machine.
const RECONNECT: Duration = Duration::from_millis(500);

/// How long after each other the attackers connect first.
const RAMP: Duration = Duration::from_micros(300);

/// Limits that few attackers reach. Slow bodies last for the whole test.
const SMALL: &str = "[limits]\nconnections = 128\nin_flight = 64\nunverified_bytes = 2097152\n\
                     body_rate = 0\nbody_timeout = \"1m\"\n";

/// The default limits. Slow bodies last for the whole test.
const DEFAULTS: &str = "[limits]\nbody_rate = 0\nbody_timeout = \"1m\"\n";

/// A cheap request, answered 404.
const REQUEST: &[u8] = b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n";

#[derive(Clone, Copy, Debug)]
enum Attack {
    /// Sends a cheap request on each connection, again and again after a pause.
    Busy(Duration),
    /// Sends all but the end of a large body.
    IncompleteBody,
    /// Sends the headers of a request with a body, and nothing of the body.
    MissingBody,
    /// Sends requests, and never reads an answer.
    NeverReads,
    /// Begins a TLS handshake.
    UnfinishedHandshake,
    /// Fills an HTTP/2 connection with requests whose bodies don't end.
    OpenStreams,
}

#[derive(Clone)]
struct Target {
    http: SocketAddr,
    https: SocketAddr,
    tls: TlsConnector,
}

/// Connects from a source address of this machine.
async fn connect(source: IpAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match source {
        IpAddr::V4(_) => TcpSocket::new_v4(),
        IpAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_recv_buffer_size(4096)?;
    socket.bind(SocketAddr::from((source, 0)))?;
    socket.connect(address).await
}

/// Counts the attackers that hold what they want.
#[derive(Clone, Default)]
struct Holding(Arc<AtomicUsize>);

impl Holding {
    /// Counts one more, as long as the returned value lives.
    fn one(&self) -> Holder {
        self.0.fetch_add(1, Ordering::Relaxed);
        Holder(Arc::clone(&self.0))
    }

    /// Waits until so many attackers hold what they want, and no more have come for a while.
    async fn settle(&self, least: usize) {
        let (mut most, mut since) = (0, Instant::now());
        while most < least || since.elapsed() < Duration::from_millis(600) {
            time::sleep(Duration::from_millis(100)).await;
            let now = self.0.load(Ordering::Relaxed);
            if now > most {
                (most, since) = (now, Instant::now());
            }
        }
    }
}

struct Holder(Arc<AtomicUsize>);

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Attack {
    /// Attacks on one connection until the server closes it.
    async fn once(self, source: IpAddr, target: &Target, holding: &Holding) -> io::Result<()> {
        match self {
            Self::Busy(pause) => {
                let mut stream = connect(source, target.http).await?;
                let mut holder = None;
                loop {
                    stream.write_all(REQUEST).await?;
                    if Answer::read(&mut stream).await.status != 404 {
                        return Ok(());
                    }
                    holder.get_or_insert_with(|| holding.one());
                    time::sleep(pause).await;
                }
            }
            Self::IncompleteBody => {
                let mut stream = connect(source, target.http).await?;
                let bytes = Request::signed("msg_attack", &vec![b'x'; LARGE]).bytes();
                let some = bytes.get(..bytes.len() - 1000).unwrap_or_default();
                stream.write_all(some).await?;
                let _holder = holding.one();
                stream.read(&mut [0]).await.map(drop)
            }
            Self::MissingBody => {
                let mut stream = connect(source, target.http).await?;
                let bytes = Request::signed("msg_attack", b"{}").bytes();
                stream.write_all(&bytes[..bytes.len() - 2]).await?;
                let _holder = holding.one();
                stream.read(&mut [0]).await.map(drop)
            }
            Self::NeverReads => {
                let mut stream = connect(source, target.http).await?;
                let requests = REQUEST.repeat(100);
                let blocked = async |stream: &mut TcpStream| {
                    let write = stream.write_all(&requests);
                    time::timeout(Duration::from_millis(500), write).await
                };
                while blocked(&mut stream)
                    .await
                    .is_ok_and(|written| written.is_ok())
                {}
                let _holder = holding.one();
                stream.write_all(&requests).await
            }
            Self::UnfinishedHandshake => {
                let mut stream = connect(source, target.https).await?;
                // A record header that announces a client hello of 512 bytes.
                stream
                    .write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3])
                    .await?;
                let _holder = holding.one();
                stream.read(&mut [0]).await.map(drop)
            }
            Self::OpenStreams => {
                let stream = connect(source, target.https).await?;
                let stream = connect_over(&target.tls, stream).await?;
                let mut client = http2(stream).await.map_err(io::Error::other)?;
                let large = Bytes::from(vec![b'x'; LARGE]);
                let request = framed(&Request::signed("msg_attack", &large));
                let mut answers = JoinSet::new();
                for _ in 0..64 {
                    if client.ready().await.is_err() {
                        return Ok(());
                    }
                    let body = SlowBody::after(large.slice(..1000), LARGE - 1000);
                    let answer = client.send_request(request.clone().map(|_| body));
                    answers.spawn(async { drop(answer.await) });
                }
                let _holder = holding.one();
                while answers.join_next().await.is_some() {}
                Ok(())
            }
        }
    }

    /// Attacks on many connections at once, until the returned set is dropped.
    fn start(
        self,
        sources: &[IpAddr],
        per_source: usize,
        target: &Target,
        holding: &Holding,
    ) -> JoinSet<()> {
        let mut running = JoinSet::new();
        for number in 0..per_source * sources.len() {
            let source = sources[number % sources.len()];
            let (target, holding) = (target.clone(), holding.clone());
            running.spawn(async move {
                // One after the other: a flood of connections is another attack.
                time::sleep(RAMP * u32::try_from(number).unwrap()).await;
                loop {
                    let _ = self.once(source, &target, &holding).await;
                    time::sleep(RECONNECT).await;
                }
            });
        }
        running
    }
}

/// Delivers a message from a source, with a pause within the body. Returns the status.
async fn deliver(source: IpAddr, body: &[u8], pause: Duration, target: &Target) -> u16 {
    let mut stream = connect(source, target.http).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let id = format!("msg_{source}_{}_{}", body.len(), pause.as_millis());
    let request = Request::signed(&id.replace(['.', ':'], "-"), body);
    let bytes = request.bytes();
    let (first, second) = bytes.split_at(bytes.len() - body.len() / 2);
    // The server may have rejected the request.
    let _ = stream.write_all(first).await;
    if !pause.is_zero() {
        time::sleep(pause).await;
    }
    let _ = stream.write_all(second).await;
    Answer::read(&mut stream).await.status
}

/// Delivers messages of each size from a source that delivered before, and each from another source
/// that never did. Asserts that the attack delays none by a second.
async fn assert_delivers(
    attack: &str,
    known: IpAddr,
    unseen: impl Fn(u8) -> IpAddr,
    target: &Target,
    mut delay: DelayMeter,
) {
    let mut count = 0;
    for size in [100, 9_000, 60_000] {
        for pause in [Duration::ZERO, Duration::from_millis(5)] {
            for _ in 0..3 {
                count += 1;
                for source in [unseen(count), known] {
                    let name = format!("{attack}: {size} bytes from {source}, pause {pause:?}");
                    let body = vec![b'a'; size];
                    delay
                        .measure(&name, deliver(source, &body, pause, target))
                        .await;
                }
            }
        }
    }
    delay.assert_prompt(attack);
}

/// Starts a server after a shell command, such as one that limits its resources.
fn serve(dir: &WorkDir, limits: &str, shell: &str) -> (RunningServer, Target) {
    let certificate = certify(dir.path());
    let tls = "tls_listen = \"[::]:0\"\ntls_certificate = \"cert.pem\"\ntls_key = \"key.pem\"\n";
    let config = format!("listen = \"[::]:0\"\n{tls}{limits}");
    dir.write("pleo.toml", &config);
    let program = dir.command(&["serve", "--log", "info"]);
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{shell} exec \"$0\" \"$@\"")])
        .arg(program.get_program())
        .args(program.get_args())
        .env("PLEO_WEBHOOK_SECRET", SECRET)
        .env("PLEO_LOG_FORMAT", "text")
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut server = RunningServer::start(command);
    let local = |address: SocketAddr| SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()));
    let target = Target {
        http: local(server.address().parse().unwrap()),
        https: local(server.https_address()),
        tls: connector(&certificate, &["h2"]),
    };
    (server, target)
}

fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Attackers: what they do, from which sources, and on how many connections each.
type Attackers<'a> = (Attack, &'a [IpAddr], usize);

/// Asserts that the server delivers during these attacks, all at once.
async fn assert_resists(
    (limits, shell): (&str, &str),
    attackers: &[Attackers<'_>],
    known: IpAddr,
    unseen: impl Fn(u8) -> IpAddr,
) {
    raise_file_limit();
    let names = attackers.iter().map(|(attack, sources, connections)| {
        format!(
            "{attack:?} from {} sources, {connections} connections each",
            sources.len()
        )
    });
    let names: Vec<_> = names.collect();
    let name = format!("{}; {limits:?} {shell}", names.join(" and "));
    let dir = WorkDir::exclusive();
    let delay = DelayMeter::start(&dir);
    let (server, mut target) = serve(&dir, limits, shell);
    if known.is_ipv6() {
        for address in [&mut target.http, &mut target.https] {
            address.set_ip(IpAddr::from(Ipv6Addr::LOCALHOST));
        }
    }
    assert_eq!(
        deliver(known, b"{}", Duration::ZERO, &target).await,
        204,
        "{name}"
    );
    let holding = Holding::default();
    let started = |(attack, sources, connections): &Attackers<'_>| {
        attack.start(sources, *connections, &target, &holding)
    };
    let running: Vec<_> = attackers.iter().map(started).collect();
    // It takes the server longest to fill the buffers of clients that never read.
    let never_read = attackers
        .iter()
        .filter(|(attack, ..)| matches!(attack, NeverReads));
    let never_read: usize = never_read
        .map(|(_, sources, each)| sources.len() * each)
        .sum();
    let least = 1.max(never_read * 8 / 10);
    let settled = time::timeout(Duration::from_secs(60), holding.settle(least));
    settled.await.expect(&name);
    assert_delivers(&name, known, unseen, &target, delay).await;
    drop(running);
    drop(server);
}

fn v4(count: u8) -> Vec<IpAddr> {
    let address = |last| IpAddr::from(Ipv4Addr::new(127, 0, 1, last));
    (1..=count).map(address).collect()
}

async fn assert_resists_v4(limits: (&str, &str), attackers: &[(Attack, u8, usize)]) {
    let sources: Vec<_> = attackers.iter().map(|(_, count, _)| v4(*count)).collect();
    let attackers: Vec<_> = attackers
        .iter()
        .zip(&sources)
        .map(|((attack, _, connections), sources)| (*attack, &**sources, *connections))
        .collect();
    let known = IpAddr::from(Ipv4Addr::LOCALHOST);
    let unseen = |number| IpAddr::from(Ipv4Addr::new(127, 0, 2, number));
    assert_resists(limits, &attackers, known, unseen).await;
}

/// Sends requests often.
const BUSY: Attack = Attack::Busy(Duration::from_millis(300));

/// Sends requests just often enough to keep so many connections.
const KEPT: Attack = Attack::Busy(Duration::from_secs(20));

use Attack::{IncompleteBody, MissingBody, NeverReads, OpenStreams, UnfinishedHandshake};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delivers_during_attacks_on_small_limits() {
    for attackers in [
        &[(BUSY, 1, 200)][..],
        &[(BUSY, 2, 100)],
        &[(BUSY, 16, 12)],
        &[(IncompleteBody, 1, 80)],
        &[(IncompleteBody, 3, 30)],
        &[(IncompleteBody, 16, 6)],
        &[(MissingBody, 3, 40)],
        &[(NeverReads, 2, 70)],
        &[(UnfinishedHandshake, 2, 80)],
        &[(OpenStreams, 2, 4)],
        &[
            (BUSY, 4, 20),
            (IncompleteBody, 4, 20),
            (NeverReads, 4, 20),
            (UnfinishedHandshake, 4, 20),
            (OpenStreams, 4, 1),
        ],
    ] {
        assert_resists_v4((SMALL, ""), attackers).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delivers_during_attacks_on_default_limits() {
    for attackers in [
        &[(KEPT, 16, 1050)][..],
        &[(IncompleteBody, 3, 40)],
        &[(IncompleteBody, 16, 10)],
        // As many requests as may wait for their bodies.
        &[(MissingBody, 4, 1024)],
        &[(NeverReads, 2, 30)],
        &[(UnfinishedHandshake, 16, 100)],
        &[(OpenStreams, 2, 26)],
        &[
            (BUSY, 16, 20),
            (IncompleteBody, 3, 40),
            (NeverReads, 4, 10),
            (UnfinishedHandshake, 4, 50),
            (OpenStreams, 2, 26),
        ],
    ] {
        assert_resists_v4((DEFAULTS, ""), attackers).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delivers_during_attacks_with_few_file_descriptors() {
    for attackers in [
        &[(BUSY, 1, 300)][..],
        &[(BUSY, 2, 150), (IncompleteBody, 3, 30)],
    ] {
        assert_resists_v4((DEFAULTS, "ulimit -n 256 &&"), attackers).await;
    }
}

/// Names the process that runs the test again in a network of its own.
const IN_NAMESPACE: &str = "PLEO_TEST_IN_NAMESPACE";

/// Every address of one /48 is an address of this machine only in a network namespace, which needs
/// root.
#[test]
fn delivers_during_attacks_from_one_ipv6_site() {
    if std::env::var_os(IN_NAMESPACE).is_some() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(attack_from_one_ipv6_site());
    }
    let script = "ip link set lo up && ip -6 route add local 2001:db8::/32 dev lo \
                  && echo 1 > /proc/sys/net/ipv6/ip_nonlocal_bind && exec \"$@\"";
    let inside = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", script, "sh"]).args(args);
        command
            .env(IN_NAMESPACE, "1")
            .stdout(Stdio::null())
            .output()
    };
    if !inside(&["true"]).is_ok_and(|output| output.status.success()) {
        let allowed = std::env::var_os("PLEO_TEST_FORBID_SKIP").is_none();
        assert!(
            allowed,
            "no network namespace can be made; run as root with iproute2"
        );
        // Not captured as `eprintln!` is.
        let _ = writeln!(
            io::stderr(),
            "SKIPPED attacks: no network namespace can be made"
        );
        return;
    }
    let program = std::env::current_exe().unwrap();
    let name = "attacks::delivers_during_attacks_from_one_ipv6_site";
    let output = inside(&[program.to_str().unwrap(), "--exact", name, "--nocapture"]);
    let output = output.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

async fn attack_from_one_ipv6_site() {
    let address = |site: u16, subnet: u16, network: u16| {
        IpAddr::from(Ipv6Addr::new(
            0x2001,
            0xdb8,
            site,
            (subnet << 8) | network,
            0,
            0,
            0,
            1,
        ))
    };
    // Each connection of a network of its own: of one /48, and of one /56.
    let site: Vec<_> = (0..16)
        .flat_map(|subnet| (0..16).map(move |network| address(1, subnet, network)))
        .collect();
    let subnet: Vec<_> = (0..=255).map(|network| address(1, 1, network)).collect();
    let known = address(2, 0, 0);
    for attackers in [
        (BUSY, &*site, 1),
        (BUSY, &subnet, 1),
        (IncompleteBody, &site, 1),
        (IncompleteBody, &subnet, 1),
    ] {
        let unseen = |number: u8| address(3, number.into(), 0);
        assert_resists((SMALL, ""), &[attackers], known, unseen).await;
    }
}
