//! The program in its environment: a sandbox of Pleo, a TLS proxy and a working directory.

use core::time::Duration;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use pleo_sandbox::{Attempt, Authority, Sandbox, SandboxOptions, TlsProxy, Token};
use serde_json::Value;
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::support::program::{CommandOutput, RunningServer, WorkDir};

pub(crate) const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2VjcmV0";
pub(crate) const EXPORT: &str = "v1.export-job.created";
pub(crate) const VENDOR: &str = "v1.vendor.created";

const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct Harness {
    pub(crate) dir: WorkDir,
    pub(crate) sandbox: Sandbox,
    pub(crate) company: Uuid,
    proxy: TlsProxy,
    /// The proxy's target: the receiver's address while it runs.
    target: Arc<Mutex<Option<SocketAddr>>>,
    runtime: Runtime,
}

impl Harness {
    pub(crate) fn new() -> Self {
        Self::with_scopes(&["export-jobs:read", "export-jobs:write"])
    }

    pub(crate) fn with_scopes(scopes: &[&str]) -> Self {
        let dir = WorkDir::new();
        let runtime = Runtime::new().unwrap();
        let authority = Authority::new().unwrap();
        let options = SandboxOptions::new().with_tls(authority);
        let sandbox = runtime.block_on(Sandbox::start_with(options)).unwrap();
        let authority = sandbox.authority().unwrap();
        let company = sandbox.grant(Token::bearer(TOKEN).scopes(scopes.iter().copied()));
        dir.write("authority.pem", &authority.pem());
        let target = Arc::new(Mutex::new(None));
        let current = Arc::clone(&target);
        let current = move || *current.lock().unwrap();
        let proxy = runtime
            .block_on(TlsProxy::start(authority, "localhost", current))
            .unwrap();
        Self {
            dir,
            sandbox,
            company,
            proxy,
            target,
            runtime,
        }
    }

    /// Runs `setup` for an endpoint and this event. Returns the subscription's id.
    pub(crate) fn set_up(&self, event: &str) -> String {
        let url = self.url("/webhooks/pleo");
        self.run_ok(&["setup", "--url", &url, "--event", event]);
        let id = &self.json(&["subscriptions", "list"])[0]["id"];
        id.as_str().unwrap().to_owned()
    }

    /// Returns the public URL of this path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.proxy.port())
    }

    /// Runs the program until it exits.
    pub(crate) fn run(&self, args: &[&str]) -> CommandOutput {
        self.run_with_token(args, TOKEN)
    }

    /// Runs the program with this API token. Asserts that it prints no secret.
    pub(crate) fn run_with_token(&self, args: &[&str], token: &str) -> CommandOutput {
        let url = self.sandbox.url();
        let output = self.dir.run_with(args, &api_env(url, token), b"");
        for secret in [TOKEN, "hunter2"] {
            assert!(!format!("{output:?}").contains(secret), "{output:?}");
        }
        output
    }

    /// Starts the program.
    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        let url = self.sandbox.url();
        let mut command = self.dir.command(args);
        command.envs(api_env(url, TOKEN)).spawn().unwrap()
    }

    /// Waits for this number of API requests.
    pub(crate) fn wait_for_requests(&self, count: usize) {
        let wait = self.sandbox.wait_for_requests(count);
        self.runtime.block_on(wait).unwrap();
    }

    /// Runs the program, and kills it once it has requested an API path that ends with `end`.
    pub(crate) fn kill_at_request(&self, end: &str, args: &[&str]) {
        let mut child = self.spawn(args);
        let deadline = Instant::now() + TIMEOUT;
        let is_last = |request: &pleo_sandbox::ApiRequest| request.target.ends_with(end);
        while !self.sandbox.requests().iter().any(is_last) {
            assert!(Instant::now() < deadline, "{args:?}");
            thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Runs the program, and asserts that it succeeds. Returns its standard output.
    pub(crate) fn run_ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.code, 0, "{args:?}: {output:?}");
        output.stdout
    }

    /// Runs a command with `--json` and returns the objects that it prints.
    pub(crate) fn json(&self, args: &[&str]) -> Vec<Value> {
        parse_json(&self.run_ok(&[args, &["--json"]].concat()))
    }

    /// Runs the program, and asserts its exit code and that its error contains these parts.
    pub(crate) fn run_fails(&self, args: &[&str], code: i32, parts: &[&str]) {
        assert_failed(&self.run(args), code, parts);
    }

    /// Starts the receiver with `pleo.toml`, behind the proxy.
    pub(crate) fn serve(&self, args: &[&str]) -> RunningServer {
        self.serve_with(args, &[])
    }

    /// Starts the receiver as [`Self::serve`] does, with access to the sandbox's API.
    pub(crate) fn serve_with_api(&self, args: &[&str]) -> RunningServer {
        self.serve_with(args, &api_env(self.sandbox.url(), TOKEN))
    }

    fn serve_with(&self, args: &[&str], env: &[(&str, &str)]) -> RunningServer {
        let args = [&["--config", "pleo.toml"], args].concat();
        let server = self.dir.serve(&args, env);
        let address = server.address().parse().unwrap();
        *self.target.lock().unwrap() = Some(address);
        server
    }

    /// Lets the proxy refuse connections.
    pub(crate) fn disconnect_receiver(&self) {
        *self.target.lock().unwrap() = None;
    }

    /// Connects the proxy to a server that answers 200 to every request.
    pub(crate) fn connect_permissive_server(&self) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        *self.target.lock().unwrap() = Some(listener.local_addr().unwrap());
        // The thread ends with the test process.
        thread::spawn(move || {
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

    /// Waits until a message is delivered or given up. Returns its last attempt.
    pub(crate) fn final_attempt(&self, message: &str) -> Attempt {
        let wait = self.sandbox.wait_for_message(message);
        let mut message = self.runtime.block_on(wait).unwrap();
        message.attempts.pop().unwrap()
    }

    /// Waits for this number of delivery attempts.
    pub(crate) fn wait_for_attempts(&self, count: usize) -> Vec<Attempt> {
        let wait = self.sandbox.wait_for_attempts(count);
        self.runtime.block_on(wait).unwrap()
    }

    pub(crate) fn read_file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap()
    }

    pub(crate) fn has_file(&self, name: &str) -> bool {
        self.dir.path().join(name).exists()
    }

    /// Waits until the inbox has this number of messages in a state. Returns them.
    pub(crate) fn wait_for_inbox(&self, state: &str, count: usize) -> Vec<Value> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let args = ["inbox", "list", "--state", state, "--json"];
            let output = self.dir.run(&args);
            let entries = parse_json(&output.stdout);
            if output.code == 0 && entries.len() >= count {
                return entries;
            }
            assert!(Instant::now() < deadline, "{output:?}");
            thread::yield_now();
        }
    }

    /// Counts the API requests that change something.
    pub(crate) fn write_requests(&self) -> usize {
        let requests = self.sandbox.requests();
        requests
            .iter()
            .filter(|request| request.method != "GET")
            .count()
    }
}

/// The environment variables with which the program uses the sandbox.
const fn api_env<'a>(url: &'a str, token: &'a str) -> [(&'static str, &'a str); 3] {
    [
        ("SSL_CERT_FILE", "authority.pem"),
        ("PLEO_API_URL", url),
        ("PLEO_API_TOKEN", token),
    ]
}

/// Parses consecutive JSON values.
pub(crate) fn parse_json(text: &str) -> Vec<Value> {
    let values = serde_json::Deserializer::from_str(text).into_iter();
    values.map(Result::unwrap).collect()
}

/// Asserts the exit code, and that the error contains these parts.
pub(crate) fn assert_failed(output: &CommandOutput, code: i32, parts: &[&str]) {
    assert_eq!(output.code, code, "{output:?}");
    for part in parts {
        assert!(
            output.stderr.contains(part),
            "{part:?} is not in {output:?}"
        );
    }
}
