//! The command `sandbox`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::program::{WorkDir, free_address};

/// The documentation of the command.
const PAGE: &str = include_str!("../../../../docs/sandbox.md");

/// A running sandbox. Killed on drop.
struct Sandbox {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Sandbox {
    fn start(dir: &WorkDir, args: &[&str]) -> Self {
        let mut command = dir.command(&[&["sandbox", "--port", "0"], args].concat());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(
            self.stdout.read_line(&mut line).unwrap(),
            0,
            "the sandbox exited"
        );
        line
    }

    fn json(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// Sends a signal. Returns the exit code.
    fn stop(mut self, signal: &str) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
        self.child.wait().unwrap().code()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Posts to the control API.
fn post(url: &str, path: &str) -> Value {
    let host = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    serde_json::from_str(body).unwrap()
}

#[test]
fn leads_newcomer_to_dispatched_export_job() {
    let dir = WorkDir::new();
    let mut sandbox = Sandbox::start(&dir, &["--token-file", "sandbox.token"]);
    let mut shown = String::new();
    while !shown.contains("Ctrl-C") {
        shown.push_str(&sandbox.line());
    }
    let token = std::fs::read_to_string(dir.path().join("sandbox.token")).unwrap();
    assert!(!shown.contains(&token), "{shown}");

    // Runs the printed commands, on a free port.
    let address = free_address();
    let shown = shown.replace("127.0.0.1:8787", &address);
    let printed = |start: &str| shown.lines().find(|line| line.starts_with(start)).unwrap();
    let variables = printed("export ").split(' ').skip(1);
    let env: Vec<_> = variables
        .map(|pair| pair.split_once('=').unwrap())
        .collect();
    let is_setup = |line: &&str| line.contains(" setup --url ");
    let setup = shown.lines().find(is_setup).unwrap();
    let args: Vec<_> = setup.split(' ').skip(1).collect();
    let output = dir.run_with(&args, &env, b"");
    assert_eq!(output.code, 0, "{output:?}");
    let serve = shown.lines().find(|line| line.contains(" serve ")).unwrap();
    assert!(
        serve.ends_with("serve --exec 'tee last-event.json'"),
        "{serve}"
    );
    let mut command = dir.command(&[
        "serve",
        "--listen",
        &address,
        "--exec",
        "tee last-event.json",
    ]);
    command.stdout(Stdio::null());
    let receiver = crate::support::program::RunningServer::start(command);

    let url = env
        .iter()
        .find(|(name, _)| *name == "PLEO_API_URL")
        .unwrap()
        .1;
    let export = post(url, "/sandbox/export");
    let message = export["messages"][0].as_str().unwrap();
    let mut line = sandbox.line();
    while !line.contains(message) {
        line = sandbox.line();
    }
    assert!(line.trim_end().ends_with(" 204"), "{line}");
    let done = loop {
        let done = dir.json(&["inbox", "list", "--state", "done", "--json"]);
        if !done.is_empty() {
            break done;
        }
    };
    assert_eq!(done[0]["resource_id"], export["jobs"][0]["id"]);
    let event = std::fs::read_to_string(dir.path().join("last-event.json")).unwrap();
    assert!(event.contains("v1.export-job.created"), "{event}");
    assert_eq!(receiver.stop("-TERM").0, Some(0));
    assert_eq!(sandbox.stop("-INT"), Some(0));
}

#[test]
fn repeats_token_of_seed_and_goes_on_from_state_file() {
    let dir = WorkDir::new();
    let args = ["--json", "--seed", "7", "--state", "sandbox.json"];
    let mut sandbox = Sandbox::start(&dir, &args);
    let first = sandbox.json();
    let url = first["url"].as_str().unwrap();
    let job = post(url, "/sandbox/export")["jobs"][0]["id"].clone();
    assert_eq!(sandbox.stop("-TERM"), Some(0));

    let mut sandbox = Sandbox::start(&dir, &args);
    let second = sandbox.json();
    for key in ["token", "api_key", "company"] {
        assert_eq!(first[key], second[key], "{key}");
    }
    let next = post(second["url"].as_str().unwrap(), "/sandbox/export")["jobs"][0]["id"].clone();
    let state = std::fs::read_to_string(dir.path().join("sandbox.json")).unwrap();
    for id in [&job, &next] {
        assert!(state.contains(id.as_str().unwrap()), "{id}: {state}");
    }
    drop(sandbox);
    let mut sandbox = Sandbox::start(&dir, &["--json", "--seed", "7"]);
    let third = sandbox.json();
    assert_eq!(third["token"], first["token"]);
    let again = post(third["url"].as_str().unwrap(), "/sandbox/export");
    assert_eq!(again["jobs"][0]["id"], job);
}

#[test]
fn refuses_wrong_arguments_with_their_fix() {
    let dir = WorkDir::new();
    dir.write("pleo.toml", "[[endpoint]]\n");
    std::os::unix::fs::symlink("missing", dir.path().join("link.json")).unwrap();
    for (args, part) in [
        (
            &["--state", "link.json", "--port", "0"][..],
            "create the target",
        ),
        (&["--listen", "0.0.0.0:0"], "`--host`"),
        (
            &["--state", "pleo.toml", "--port", "0"],
            "delete it, or name another",
        ),
        (&["--compress", "0"], "--compress"),
        (&["--expire-after", "200y"], "--expire-after"),
        (
            &["--port", "1", "--listen", "127.0.0.1:0"],
            "cannot be used with",
        ),
    ] {
        let output = dir.run(&[&["sandbox"], args].concat());
        assert_eq!(output.code, 2, "{args:?}: {output:?}");
        assert!(output.stderr.contains(part), "{part}: {output:?}");
    }
}

#[test]
fn serves_test_suite_in_python() {
    let example = PAGE.split("```python\n").nth(1).unwrap();
    let example = example.split("```").next().unwrap();
    let has_python = Command::new("python3").arg("--version").output().is_ok();
    if !has_python {
        assert!(
            std::env::var_os("PLEO_TEST_FORBID_SKIP").is_none(),
            "no python3"
        );
        eprintln!("SKIPPED: no python3");
        return;
    }
    let dir = WorkDir::new();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_pleo-receiver"));
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", program.parent().unwrap().display());
    let mut command = Command::new("python3");
    let output = command
        .args(["-c", example])
        .current_dir(dir.path())
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"ok\n");
}
