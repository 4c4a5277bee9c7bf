//! The log as text and as JSON.

use crate::support::program::{CommandOutput, ENV, RunningServer, WorkDir};
use crate::support::{Request, send_to};
use serde_json::Value;

const CONFIG: &str = r#"
inbox = "memory:"
exec = ["sh", "-c", "test $PLEO_WEBHOOK_ID != msg_2"]
log = "debug"
[[endpoint]]
name = "acme"
path = "/webhooks/pleo"
secret = "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
[retry]
max_attempts = 1
"#;

const BODY: &[u8] = br#"{"eventType":"v1.vendor.created","eventId":"e1","data":{}}"#;

/// Returns the log of a server after deliveries of every kind, a reload and a shutdown.
async fn log(format: &str) -> String {
    let dir = WorkDir::new();
    dir.write("pleo.toml", CONFIG);
    let args = ["--config", "pleo.toml", "--log-format", format];
    let mut server = dir.serve(&args, &[]);
    let valid = Request::signed("msg_1", BODY);
    let mut unknown = valid.clone();
    unknown.path = "/nowhere".to_owned();
    let mut wrong_method = valid.clone();
    wrong_method.method = "PUT";
    let mut forged = Request::signed("msg_3", BODY);
    forged.body[0] = b'[';
    for (request, status) in [
        (valid.clone(), 204),
        (valid.clone(), 204),
        (Request::signed("msg_1", b"{}"), 204),
        (Request::signed("msg_2", BODY), 204),
        (unknown, 404),
        (wrong_method, 405),
        (forged, 401),
        (valid.with("content-type", "text/plain"), 415),
    ] {
        let answer = send_to(server.address(), &request).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    server.wait_for_log("message is dead");
    dir.write("pleo.toml", &CONFIG.replace("memory:", "other.db"));
    server.signal_and_wait("-HUP", "configuration reloaded");
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    log.lines().map(|line| masked(line) + "\n").collect()
}

/// Replaces what differs from run to run: times, ports and durations.
fn masked(line: &str) -> String {
    let (time, rest) = match line.strip_prefix("{\"timestamp\":\"") {
        None => line.split_once('Z').unwrap(),
        Some(line) => line.split_once('Z').unwrap(),
    };
    assert_eq!(time.len(), "2026-11-26T01:47:24.120161".len(), "{line}");
    let start = line.split(time).next().unwrap();
    let mut masked = format!("{start}TIME{rest}");
    for before in ["127.0.0.1:", "milliseconds=", "\"milliseconds\":"] {
        if let Some((start, end)) = masked.split_once(before) {
            let end = end.trim_start_matches(|letter: char| letter.is_ascii_digit());
            masked = format!("{start}{before}0{end}");
        }
    }
    masked
}

/// Asserts that both have the same lines. The server and its handler log concurrently.
#[track_caller]
fn assert_same_lines(log: &str, expected: &str) {
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(log), sorted(expected), "\n{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_has_every_event_and_field() {
    assert_same_lines(&log("text").await, include_str!("log_format/log.txt"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_has_every_event_and_field() {
    let log = log("json").await;
    for line in log.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        let members = value.as_object().unwrap().values();
        for value in members {
            assert!(!value.is_object() && !value.is_array(), "{line}");
        }
    }
    assert_same_lines(&log, include_str!("log_format/log.jsonl"));
}

fn is_json(line: &str) -> bool {
    serde_json::from_str::<Value>(line).is_ok_and(|value| value.is_object())
}

/// Runs the program without the variable by which other tests get a text log.
fn run_piped(dir: &WorkDir, args: &[&str]) -> CommandOutput {
    let mut command = dir.command(args);
    let command = command.env_remove("PLEO_LOG_FORMAT");
    command.output().unwrap().into()
}

#[test]
fn log_of_server_is_json_unless_on_terminal() {
    let dir = WorkDir::new();
    let mut command = dir.command(&["serve", "--listen", "127.0.0.1:0", "--inbox", "memory:"]);
    command.env_remove("PLEO_LOG_FORMAT").envs(ENV.to_vec());
    let (_, log) = RunningServer::start(command).stop("-TERM");
    assert!(log.lines().all(is_json), "{log}");
    // A wrong configuration is reported in the same format.
    dir.write("pleo.toml", "log = \"loud\"");
    let failed = run_piped(&dir, &["serve"]);
    assert_eq!(failed.code, 2);
    assert!(is_json(failed.stderr.trim_end()), "{failed:?}");
    assert!(
        failed.stderr.contains("`loud` is not a level"),
        "{failed:?}"
    );
}

#[test]
fn errors_of_other_commands_are_text() {
    let dir = WorkDir::new();
    let failed = run_piped(&dir, &["inbox", "list", "--inbox", "none.db"]);
    assert!(failed.stderr.starts_with("error: "), "{failed:?}");
    let failed = run_piped(
        &dir,
        &[
            "inbox",
            "list",
            "--inbox",
            "none.db",
            "--log-format",
            "json",
        ],
    );
    assert!(is_json(failed.stderr.trim_end()), "{failed:?}");
}

#[test]
fn reload_changes_format_unless_flag_gives_it() {
    let dir = WorkDir::new();
    let configure = |format: &str| {
        let inbox = "inbox = \"memory:\"";
        dir.write(
            "pleo.toml",
            &format!("{inbox}\nlog_format = \"{format}\"\n"),
        );
    };
    for (more, ends_as_json) in [(&[][..], true), (&["--log-format", "text"][..], false)] {
        configure("text");
        let args = ["serve", "--listen", "127.0.0.1:0", "--config", "pleo.toml"];
        let mut command = dir.command(&[&args[..], more].concat());
        command.env_remove("PLEO_LOG_FORMAT").envs(ENV.to_vec());
        let mut server = RunningServer::start(command);
        configure("json");
        let line = server.signal_and_wait("-HUP", "configuration reloaded");
        assert_eq!(is_json(line.trim_end()), ends_as_json, "{line}");
        let (_, log) = server.stop("-TERM");
        assert!(!is_json(log.lines().next().unwrap()), "{log}");
        let last = log.lines().last().unwrap();
        assert_eq!(is_json(last), ends_as_json, "{log}");
    }
}
