//! The program between a stand-in for Pleo and a TLS proxy, as it is in earnest.

#![allow(dead_code, reason = "not every test uses everything")]
#![allow(unreachable_pub, reason = "a module of each test")]

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use pleo_sandbox::{Attempt, Front, Sandbox, Token};
use serde_json::Value;
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::support::program::{Ended, Place, Serving};

pub const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2VjcmV0";
pub const EXPORT: &str = "v1.export-job.created";
pub const VENDOR: &str = "v1.vendor.created";

pub struct World {
    pub place: Place,
    pub pleo: Sandbox,
    pub company: Uuid,
    front: Front,
    /// Where the receiver listens, while it runs.
    receiver: Arc<Mutex<Option<SocketAddr>>>,
    runtime: Runtime,
}

impl World {
    pub fn new() -> Self {
        Self::with_scopes(&["export-jobs:read", "export-jobs:write"])
    }

    pub fn with_scopes(scopes: &[&str]) -> Self {
        let runtime = Runtime::new().unwrap();
        let place = Place::new();
        let pleo = runtime.block_on(Sandbox::start());
        let company = pleo.grant(Token::bearer(TOKEN).scopes(scopes.iter().copied()));
        place.write("authority.pem", &pleo.authority().pem());
        let receiver = Arc::new(Mutex::new(None));
        let target = Arc::clone(&receiver);
        let target = move || *target.lock().unwrap();
        let front = runtime.block_on(Front::start(pleo.authority(), "localhost", target));
        Self {
            place,
            pleo,
            company,
            front,
            receiver,
            runtime,
        }
    }

    /// The public URL of this path.
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.front.port())
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Ended {
        self.run_as(args, TOKEN)
    }

    pub fn run_as(&self, args: &[&str], token: &str) -> Ended {
        let url = self.pleo.url();
        let ended = self.place.run_with(args, &env(&url, token), b"");
        for secret in [TOKEN, "hunter2"] {
            assert!(!format!("{ended:?}").contains(secret), "{ended:?}");
        }
        ended
    }

    /// Kills the program as soon as it has asked the API for a path that ends so.
    pub fn killed_at(&self, end: &str, args: &[&str]) {
        let url = self.pleo.url();
        let mut command = self.place.command(args);
        let mut child = command.envs(env(&url, TOKEN)).spawn().unwrap();
        let deadline = std::time::Instant::now() + core::time::Duration::from_secs(60);
        let asked = |pleo: &Sandbox| pleo.requests().iter().any(|one| one.target.ends_with(end));
        while !asked(&self.pleo) {
            assert!(std::time::Instant::now() < deadline, "{args:?}");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Runs it, and expects it to do well.
    pub fn done(&self, args: &[&str]) -> String {
        let ended = self.run(args);
        assert_eq!(ended.code, 0, "{args:?}: {ended:?}");
        ended.stdout
    }

    /// The objects that it prints with `--json`.
    pub fn json(&self, args: &[&str]) -> Vec<Value> {
        lines(&self.done(&[args, &["--json"]].concat()))
    }

    /// Runs it, and expects it to fail so, with all of this said.
    pub fn refused(&self, args: &[&str], code: i32, parts: &[&str]) {
        assert_refused(&self.run(args), code, parts);
    }

    /// Starts the receiver with `pleo.toml`, behind the proxy.
    pub fn serve(&self, args: &[&str]) -> Serving {
        let args = [&["--config", "pleo.toml"], args].concat();
        let serving = self.place.serve(&args, &[]);
        let address = serving.address().parse().unwrap();
        *self.receiver.lock().unwrap() = Some(address);
        serving
    }

    /// Leaves nothing behind the proxy.
    pub fn down(&self) {
        *self.receiver.lock().unwrap() = None;
    }

    /// Puts something behind the proxy that answers 200 to everything.
    pub fn careless(&self) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        *self.receiver.lock().unwrap() = Some(listener.local_addr().unwrap());
        // It ends with the test.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                let read = stream.read(&mut request).unwrap();
                assert_ne!(read, 0);
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer).unwrap();
            }
        });
    }

    /// What became of the last attempt to deliver.
    pub fn settled(&self, message: &str) -> Attempt {
        self.runtime.block_on(self.pleo.settled(message))
    }

    pub fn attempted(&self, count: usize) -> Vec<Attempt> {
        self.runtime.block_on(self.pleo.attempted(count))
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.place.path().join(name)).unwrap()
    }

    pub fn has(&self, name: &str) -> bool {
        self.place.path().join(name).exists()
    }

    /// The inbox, as soon as it has so many messages in this state.
    pub fn inbox(&self, state: &str, count: usize) -> Vec<Value> {
        let deadline = std::time::Instant::now() + core::time::Duration::from_secs(60);
        loop {
            let args = ["inbox", "list", "--state", state, "--json"];
            let ended = self.place.run(&args);
            let entries = lines(&ended.stdout);
            if ended.code == 0 && entries.len() >= count {
                return entries;
            }
            assert!(std::time::Instant::now() < deadline, "{ended:?}");
            std::thread::yield_now();
        }
    }

    /// The requests to the API that change something.
    pub fn writes(&self) -> usize {
        let requests = self.pleo.requests();
        requests.iter().filter(|one| one.method != "GET").count()
    }
}

/// What the program needs to know of the stand-in.
const fn env<'a>(url: &'a str, token: &'a str) -> [(&'static str, &'a str); 3] {
    [
        ("SSL_CERT_FILE", "authority.pem"),
        ("PLEO_API_URL", url),
        ("PLEO_API_TOKEN", token),
    ]
}

/// JSON values, one after the other.
pub fn lines(text: &str) -> Vec<Value> {
    let values = serde_json::Deserializer::from_str(text).into_iter();
    values.map(Result::unwrap).collect()
}

pub fn assert_refused(ended: &Ended, code: i32, parts: &[&str]) {
    assert_eq!(ended.code, code, "{ended:?}");
    for part in parts {
        assert!(ended.stderr.contains(part), "{part:?} is not in {ended:?}");
    }
}
