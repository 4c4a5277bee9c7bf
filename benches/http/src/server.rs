//! The measured servers, each in its own process: the program `pleo-receiver`, and three servers that
//! this program runs with `--serve`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, io};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use pleo_receiver::{Endpoint, Receiver, ServerOptions};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Builder;

use crate::discarding_inbox::DiscardingInbox;
use crate::insert_server;
use crate::load::SECRET;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    Bare,
    VerifyOnly,
    Memory,
    Sqlite,
    Postgres,
    /// What is often written: one INSERT per request.
    Insert,
}

impl Contender {
    pub const fn what(self) -> &'static str {
        match self {
            Self::Bare => "bare hyper",
            Self::VerifyOnly => "receiver, nothing stored",
            Self::Memory => "receiver, inbox in memory",
            Self::Sqlite => "receiver, SQLite inbox",
            Self::Postgres => "receiver, PostgreSQL inbox",
            Self::Insert => "axum, one INSERT per request",
        }
    }
}

/// A running server.
pub struct Server {
    process: Child,
    pub address: SocketAddr,
}

impl Server {
    /// Starts a server. Its inbox and its configuration are in this folder.
    pub fn start(contender: Contender, folder: &TempDir) -> Self {
        Self::start_with(contender, folder, "")
    }

    /// Starts a server with the database at this URL, if it needs one.
    pub fn start_with(contender: Contender, folder: &TempDir, database: &str) -> Self {
        let itself = || Command::new(env::current_exe().expect("this program"));
        let mut command = match contender {
            Contender::Bare | Contender::VerifyOnly | Contender::Insert => itself(),
            Contender::Memory | Contender::Sqlite | Contender::Postgres => Command::new(program()),
        };
        match contender {
            Contender::Bare => command.args(["--serve", "bare"]),
            Contender::VerifyOnly => command.args(["--serve", "verify-only"]),
            Contender::Memory => command.args(["serve", "--inbox", "memory:"]),
            Contender::Sqlite => command.args(["serve", "--inbox", "sqlite:inbox.db"]),
            Contender::Postgres => command.args(["serve", "--inbox", database]),
            Contender::Insert => command
                .args(["--serve", "insert"])
                .env(insert_server::DATABASE, database),
        };
        // The tolerance is longer than a round.
        command
            .env("PLEO_WEBHOOK_SECRET", SECRET)
            .env("PLEO_LISTEN", "127.0.0.1:0")
            .env("PLEO_TOLERANCE", "1000000")
            .env("PLEO_CONFIG", write_config(folder))
            .current_dir(folder)
            .env("PLEO_LOG_FORMAT", "text")
            .stderr(Stdio::piped());
        let mut process = command.spawn().expect("the server's program");
        let mut log = BufReader::new(process.stderr.take().expect("piped")).lines();
        let address = loop {
            let line = log.next().expect("a line before the end").expect("text");
            if let Some((_, rest)) = line.split_once("listening url=\"http://") {
                break rest.split('/').next().expect("something").parse();
            }
        };
        // Reads the log, so that the server never blocks on it.
        std::thread::spawn(move || log.for_each(drop));
        Self {
            process,
            address: address.expect("an address"),
        }
    }

    /// Returns the resident memory in MiB.
    pub fn resident(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.expect("Linux");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.and_then(|kib| kib.parse::<f64>().ok())
            .expect("a number")
            / 1024.0
    }

    /// Returns the user and system time so far, in seconds.
    pub fn processor_time(&self) -> [f64; 2] {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()));
        let stat = stat.expect("Linux");
        // proc(5): the name is in parentheses and may contain anything. User time is the 14th field,
        // in hundredths of a second.
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let ticks = fields.split_whitespace().skip(11).take(2);
        let mut seconds = ticks.map(|ticks| ticks.parse::<f64>().expect("a number") / 100.0);
        [(); 2].map(|()| seconds.next().expect("a field"))
    }

    /// Stops the server with SIGTERM, and waits until it exits.
    pub fn stop(mut self) {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.expect("kill").success());
        self.process.wait().expect("an end");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Writes a configuration with limits that the load does not reach.
fn write_config(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("pleo.toml");
    let limits = "[limits]\nconnections_per_source = 100000\n";
    fs::write(&path, limits).expect("a writable folder");
    path
}

fn program() -> PathBuf {
    let built = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../target/release/pleo-receiver"
    );
    let path = env::var_os("PLEO_RECEIVER").map_or_else(|| built.into(), PathBuf::from);
    assert!(
        path.exists(),
        "{} does not exist; run `cargo build --release` first",
        path.display()
    );
    path
}

/// Runs a server in this process, until a signal ends it.
pub fn run(which: &str) {
    let runtime = Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let listener = listen().expect("a free port");
        let address = listener.local_addr().expect("an address");
        eprintln!("listening url=\"http://{address}/\"");
        if which == "bare" {
            bare(listener).await;
        }
        if which == "insert" {
            return insert_server::run(listener).await;
        }
        let secret = SECRET.parse().expect("a secret");
        let endpoint = Endpoint::new("/webhooks/pleo", secret).expect("a path");
        let endpoint = endpoint.with_tolerance(Duration::from_secs(1_000_000));
        let (receiver, dispatcher) = Receiver::builder(DiscardingInbox)
            .endpoint(endpoint)
            .build()
            .expect("a receiver");
        let mut options = ServerOptions::default();
        options.max_connections_per_source = 100_000;
        let server = pleo_receiver::Server::new(receiver, dispatcher).options(options);
        let shutdown = std::future::pending();
        server
            .listen(listener)
            .run(shutdown)
            .await
            .expect("no failure");
    });
}

/// Listens with the same backlog as `pleo-receiver`.
fn listen() -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    socket.listen(4096)
}

/// Reads each body and answers 204.
async fn bare(listener: TcpListener) -> ! {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("a TCP socket");
        let service = service_fn(|request: Request<Incoming>| async {
            request.into_body().collect().await?;
            let mut response = Response::new(Full::<Bytes>::default());
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok::<_, hyper::Error>(response)
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
