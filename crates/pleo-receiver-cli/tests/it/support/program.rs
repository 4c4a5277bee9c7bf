//! Runs the program in a working directory of its own.

use core::time::Duration;
use std::io::{BufRead, BufReader, Read, Write};
#[cfg(target_os = "linux")]
use std::net::SocketAddr;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::turn::Turn;

/// The maximum time until a server logs an event.
const TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) const SECRET: &str = "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
pub(crate) const OTHER_SECRET: &str = "whsec_CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";

/// The environment with [`SECRET`].
pub(crate) const ENV: &[(&str, &str)] = &[("PLEO_WEBHOOK_SECRET", SECRET)];

/// Returns an address on a free port, for a test that must know the port before it is bound.
pub(crate) fn free_address() -> String {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().to_string()
}

/// Returns the response of the metrics listener, with its headers.
pub(crate) fn read_metrics(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

/// A working directory in which a test runs the program.
pub(crate) struct WorkDir {
    folder: TempDir,
    _turn: Turn,
}

impl WorkDir {
    /// Creates a directory for a test that may run concurrently with others.
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            _turn: Turn::shared(),
        }
    }

    /// Creates a directory for a test that measures time: no other test runs while it exists.
    #[cfg(target_os = "linux")]
    pub(crate) fn exclusive() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            _turn: Turn::exclusive(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    /// Returns a command that runs the program here, without this process's `PLEO_` and `OTEL_`
    /// variables.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_pleo-receiver")), args)
    }

    /// Returns a command that runs another program, as that of an older release.
    pub(crate) fn command_of(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.path());
        let is_own = |name: &str| name.starts_with("PLEO_") || name.starts_with("OTEL_");
        for (name, _) in std::env::vars().filter(|(name, _)| is_own(name)) {
            command.env_remove(name);
        }
        // Tests read the log as text.
        command.env("PLEO_LOG_FORMAT", "text");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the program until it exits.
    pub(crate) fn run(&self, args: &[&str]) -> CommandOutput {
        self.run_with(args, &[], b"")
    }

    /// Runs the program with environment variables and standard input until it exits.
    pub(crate) fn run_with(
        &self,
        args: &[&str],
        env: &[(&str, &str)],
        stdin: &[u8],
    ) -> CommandOutput {
        let mut command = self.command(args);
        let mut child = command.envs(env.iter().copied()).spawn().unwrap();
        // The program may exit without reading.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        child.wait_with_output().unwrap().into()
    }

    /// Runs `send` with [`SECRET`].
    pub(crate) fn send(&self, url: &str, more: &[&str]) -> CommandOutput {
        self.run_with(&[&["send", url], more].concat(), ENV, b"")
    }

    /// Delivers a message, which must be answered 204. Returns the output of `send`.
    #[track_caller]
    pub(crate) fn deliver(&self, url: &str, more: &[&str]) -> CommandOutput {
        let output = self.send(url, more);
        assert!(output.stdout.starts_with("204"), "{output:?}");
        output
    }

    /// Runs `send` with this secret. Asserts that the exit code matches the status. Returns the output.
    pub(crate) fn send_with(&self, secret: &str, url: &str, more: &[&str]) -> String {
        let args = [&["send", url], more].concat();
        let output = self.run_with(&args, &[("PLEO_WEBHOOK_SECRET", secret)], b"");
        assert_eq!(
            output.code,
            i32::from(!output.stdout.starts_with("204")),
            "{output:?}"
        );
        output.stdout
    }

    /// Runs a command with `--json` and returns the objects that it prints.
    pub(crate) fn json(&self, args: &[&str]) -> Vec<Value> {
        let output = self.run(args);
        assert_eq!(output.code, 0, "{output:?}");
        let lines = output.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Starts a server on a free port, and waits until it listens.
    pub(crate) fn serve(&self, args: &[&str], env: &[(&str, &str)]) -> RunningServer {
        let args = [&["serve", "--listen", "127.0.0.1:0"], args].concat();
        let mut command = self.command(&args);
        command.envs(env.iter().copied());
        RunningServer::start(command)
    }
}

/// The exit code and output of a finished command.
#[derive(Debug)]
pub(crate) struct CommandOutput {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for CommandOutput {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A server process. Killed on drop.
pub(crate) struct RunningServer {
    child: Child,
    lines: mpsc::Receiver<String>,
    log: String,
    /// The URL of the first endpoint.
    pub(crate) url: String,
}

impl RunningServer {
    /// Starts a server, and waits until it listens. Its standard error must be a pipe.
    pub(crate) fn start(command: Command) -> Self {
        Self::try_start(command).unwrap_or_else(|log| panic!("the server exited: {log}"))
    }

    /// Starts a server as [`start`](Self::start) does. Returns its log if it exits.
    pub(crate) fn try_start(mut command: Command) -> Result<Self, String> {
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut log = String::new();
        let is_listening =
            |log: &str| log.contains("listening url=") || log.contains("\"message\":\"listening\"");
        while !is_listening(&log) {
            if stderr.read_line(&mut log).unwrap() == 0 {
                child.wait().unwrap();
                return Err(log);
            }
        }
        let last = log.lines().last().unwrap();
        let base = field(last, "url").trim_end_matches('/');
        let url = format!("{base}{}", field(&log, "path"));
        // Reads the log all the time, since the server drops lines if the log is not read.
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).unwrap() > 0 {
                let _ = sender.send(core::mem::take(&mut line));
            }
        });
        Ok(Self {
            child,
            lines,
            log,
            url,
        })
    }

    pub(crate) fn address(&self) -> &str {
        self.url.split('/').nth(2).unwrap()
    }

    /// Returns the address of the admin listener.
    pub(crate) fn admin_address(&self) -> &str {
        let address = self
            .log
            .split("admin listener started url=\"http://")
            .nth(1);
        address.unwrap().split('/').next().unwrap()
    }

    /// Waits until the server logs its HTTPS address. Returns the address.
    #[cfg(target_os = "linux")]
    pub(crate) fn https_address(&mut self) -> SocketAddr {
        let line = self.wait_for_log("listening url=\"https://");
        let url = line.split("https://").nth(1).unwrap();
        url.split('/').next().unwrap().parse().unwrap()
    }

    /// Returns a memory figure in KiB: `VmRSS` is the present size, `VmHWM` the largest so far.
    #[cfg(target_os = "linux")]
    pub(crate) fn memory_kib(&self, name: &str) -> usize {
        memory_kib(&self.child, name)
    }

    /// Counts open files and sockets.
    #[cfg(target_os = "linux")]
    pub(crate) fn open_files(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(folder).unwrap().count()
    }

    /// Sends a signal, and waits until the server logs a line with this text.
    pub(crate) fn signal_and_wait(&mut self, signal: &str, text: &str) -> String {
        self.send_signal(signal);
        self.wait_for_log(text)
    }

    /// Waits until the server logs another line with this text. Returns the line.
    pub(crate) fn wait_for_log(&mut self, text: &str) -> String {
        loop {
            let line = match self.lines.recv_timeout(TIMEOUT) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => panic!("the server exited: {}", self.log),
                Err(RecvTimeoutError::Timeout) => panic!("no {text:?} in the log: {}", self.log),
            };
            self.log.push_str(&line);
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Sends a signal, and waits until the server exits. Returns its exit code and its log.
    pub(crate) fn stop(self, signal: &str) -> (Option<i32>, String) {
        self.send_signal(signal);
        self.wait()
    }

    /// Waits until the server exits. Returns its exit code and its log.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        self.log.extend(self.lines.iter());
        let code = self.child.wait().unwrap().code();
        (code, core::mem::take(&mut self.log))
    }

    /// Sends a signal.
    pub(crate) fn send_signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }
}

/// Returns the first value of a field with a text, in a log of either format.
fn field<'l>(log: &'l str, name: &str) -> &'l str {
    let after = log.split_once(&format!(" {name}=\""));
    let after = after.or_else(|| log.split_once(&format!("\"{name}\":\"")));
    after.unwrap().1.split('"').next().unwrap()
}

/// Returns a memory figure of a process in KiB, as in [`RunningServer::memory_kib`].
#[cfg(target_os = "linux")]
pub(crate) fn memory_kib(process: &Child, name: &str) -> usize {
    let status = format!("/proc/{}/status", process.id());
    let status = std::fs::read_to_string(status).unwrap();
    let mut lines = status.lines().filter_map(|line| line.strip_prefix(name));
    let value = lines.next().unwrap().split_whitespace().nth(1).unwrap();
    value.parse().unwrap()
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
