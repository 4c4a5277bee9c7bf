//! Tests of `demo`.

use std::io::{BufRead, BufReader, Read};
use std::process::Command;

use crate::support::program::WorkDir;

#[test]
fn prints_command_that_works_in_any_folder() {
    let (dir, elsewhere) = (WorkDir::new(), WorkDir::new());
    let mut demo = dir.command(&["demo"]).spawn().unwrap();
    let mut stdout = BufReader::new(demo.stdout.take().unwrap()).lines();
    let command = stdout.find_map(|line| {
        let line = line.unwrap();
        line.starts_with("PLEO_WEBHOOK_SECRET=").then_some(line)
    });
    let sent = Command::new("sh")
        .args(["-c", &command.unwrap()])
        .current_dir(elsewhere.path())
        .output()
        .unwrap();
    assert!(sent.status.success(), "{sent:?}");
    // The next line reports the delivery of the command.
    let received = stdout.next().unwrap().unwrap();
    assert!(received.starts_with("received msg_"), "{received}");
    demo.kill().unwrap();
    demo.wait().unwrap();
}

#[test]
fn prints_every_outcome_once() {
    let dir = WorkDir::new();
    let output = dir.run(&["demo", "--once"]);
    assert_eq!(output.code, 0, "{output:?}");
    let lines: Vec<_> = output
        .stdout
        .lines()
        .skip_while(|line| !line.starts_with("SENT"))
        .collect();
    assert_eq!(lines.len(), 9, "{output:?}");
    for (line, (answer, messages)) in lines[1..].iter().zip([
        ("204 stored, dispatched", "1 message"),
        ("204 stored, dispatched", "2 messages"),
        ("204 stored, dispatched", "3 messages"),
        ("204 duplicate", "3 messages"),
        ("401 signature_mismatch", "3 messages"),
        ("401 signature_mismatch", "3 messages"),
        ("401 timestamp_too_old", "3 messages"),
        ("413 body_too_large", "3 messages"),
    ]) {
        assert!(line.contains(answer) && line.ends_with(messages), "{line}");
    }
    assert_eq!(output.stderr, "");
}

#[test]
fn serves_until_stopped_and_prints_command_that_delivers() {
    let dir = WorkDir::new();
    let mut demo = dir.command(&["demo"]).spawn().unwrap();
    let mut stdout = BufReader::new(demo.stdout.take().unwrap());
    let mut line = String::new();
    let mut command = String::new();
    while command.is_empty() {
        line.clear();
        assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "the demo exited");
        if line.starts_with("PLEO_WEBHOOK_SECRET=") {
            command = line.trim().to_owned();
        }
    }
    let sent = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert_eq!(
        String::from_utf8(sent.stdout).unwrap().lines().next(),
        Some("204 No Content"),
        "{command}"
    );
    line.clear();
    stdout.read_line(&mut line).unwrap();
    assert!(
        line.starts_with("received msg_") && line.ends_with("v1.vendor.created\n"),
        "{line}"
    );
    let stop = Command::new("kill")
        .args(["-INT", &demo.id().to_string()])
        .status();
    assert!(stop.unwrap().success());
    stdout.read_to_string(&mut line).unwrap();
    assert!(demo.wait().unwrap().success());
}
