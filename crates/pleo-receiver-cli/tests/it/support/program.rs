//! The program itself, run as a user runs it.

#![allow(dead_code, reason = "not every test uses everything")]
#![allow(unreachable_pub, reason = "a module of each test")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

pub const SECRET: &str = "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
pub const OTHER: &str = "whsec_CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";

/// An address that was free just now, for what must know its port beforehand.
pub fn free_address() -> String {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().to_string()
}

/// A folder in which to run it, with nothing of this process's own settings.
pub struct Place(pub TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pleo-receiver"));
        command.args(args).current_dir(self.path());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PLEO_")) {
            command.env_remove(name);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Ended {
        self.run_with(args, &[], b"")
    }

    pub fn run_with(&self, args: &[&str], env: &[(&str, &str)], stdin: &[u8]) -> Ended {
        let mut command = self.command(args);
        let mut child = command.envs(env.iter().copied()).spawn().unwrap();
        // It may end without reading.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        child.wait_with_output().unwrap().into()
    }

    /// The objects that a command with `--json` prints.
    pub fn json(&self, args: &[&str]) -> Vec<Value> {
        let ended = self.run(args);
        assert_eq!(ended.code, 0, "{ended:?}");
        let lines = ended.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Starts a server on a free port, and waits until it listens.
    pub fn serve(&self, args: &[&str], env: &[(&str, &str)]) -> Serving {
        let args = [&["serve", "--listen", "127.0.0.1:0"], args].concat();
        let mut command = self.command(&args);
        command.envs(env.iter().copied());
        Serving::start(command)
    }
}

#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub struct Serving {
    child: Child,
    lines: mpsc::Receiver<String>,
    log: String,
    /// Of the first endpoint.
    pub url: String,
}

impl Serving {
    /// Waits until it listens. Its standard error must be a pipe.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut log = String::new();
        while !log.contains("listening url=") {
            assert_ne!(stderr.read_line(&mut log).unwrap(), 0, "it ended: {log}");
        }
        let url = log.split("listening url=").nth(1).unwrap();
        let url = url.split('"').nth(1).unwrap().to_owned();
        // A server whose log nobody reads would lose lines of it.
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).unwrap() > 0 {
                let _ = sender.send(core::mem::take(&mut line));
            }
        });
        Self {
            child,
            lines,
            log,
            url,
        }
    }

    pub fn address(&self) -> &str {
        self.url.split('/').nth(2).unwrap()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kilobytes of memory: `VmRSS` for what it has now, `VmHWM` for the most that it had so far.
    #[cfg(target_os = "linux")]
    pub fn memory(&self, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let mut lines = status.lines().filter_map(|line| line.strip_prefix(name));
        let value = lines.next().unwrap().split_whitespace().nth(1).unwrap();
        value.parse().unwrap()
    }

    /// How many files and sockets it has open.
    #[cfg(target_os = "linux")]
    pub fn files(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.id());
        std::fs::read_dir(folder).unwrap().count()
    }

    /// Sends it a signal, and waits until it logs a line with this text.
    pub fn signal(&mut self, signal: &str, text: &str) -> String {
        self.kill(signal);
        self.wait_for(text)
    }

    /// Waits until it logs a line with this text, from now on.
    pub fn wait_for(&mut self, text: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv() else {
                panic!("it ended: {}", self.log)
            };
            self.log.push_str(&line);
            if line.contains(text) {
                return line;
            }
        }
    }

    fn kill(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Asks it to stop; gives its exit code and all that it logged.
    pub fn stop(mut self, signal: &str) -> (Option<i32>, String) {
        self.kill(signal);
        self.log.extend(self.lines.iter());
        let code = self.child.wait().unwrap().code();
        (code, core::mem::take(&mut self.log))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
