//! Memory and time that `verify` takes to explain the refusal of any body.

#![cfg(target_os = "linux")]

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::program::{CommandOutput, OTHER_SECRET, SECRET, WorkDir};

/// The size of the largest bodies. The receiver accepts no larger ones by default.
const LARGE: usize = 1024 * 1024;

/// The memory that the program may take, in KiB: 64 times the largest body.
const MEMORY_KIB: usize = 64 * 1024;

/// The time that the program may take, in seconds. A quadratic algorithm takes hours.
const SECONDS: usize = 60;

/// Runs `verify` with a signature by another secret, in limited memory and time.
fn verify(dir: &WorkDir, body: &[u8]) -> CommandOutput {
    let script = format!("ulimit -d {MEMORY_KIB} && exec timeout {SECONDS} \"$@\"");
    let program = env!("CARGO_BIN_EXE_pleo-receiver");
    let mut child = Command::new("sh")
        .args([
            "-c",
            &script,
            "sh",
            program,
            "verify",
            "--headers",
            "headers",
        ])
        .args(["--at", "1614265330"])
        .current_dir(dir.path())
        .env("PLEO_WEBHOOK_SECRET", SECRET)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(body).unwrap();
    child.wait_with_output().unwrap().into()
}

/// Returns bytes that look like JSON, from a generator with a fixed seed.
fn random_json(length: usize) -> Vec<u8> {
    const PARTS: &[u8] = b"[]{}\",:\\u0019 \n\xc3\xa9tfn-e.";
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        PARTS[usize::from(state.to_le_bytes()[4]) % PARTS.len()]
    };
    (0..length).map(|_| next()).collect()
}

fn nested(open: &str, close: &str, length: usize) -> String {
    let depth = length / (open.len() + close.len());
    format!("{}{}", open.repeat(depth), close.repeat(depth))
}

fn list(item: &str, length: usize) -> String {
    format!(
        "[{item}{}]",
        format!(",{item}").repeat(length / (item.len() + 1) - 1)
    )
}

#[test]
fn verify_takes_bounded_memory_and_time_for_any_body() {
    let dir = WorkDir::new();
    let sign = ["sign", "--id", "msg_1", "--timestamp", "1614265330"];
    let env = [("PLEO_WEBHOOK_SECRET", OTHER_SECRET)];
    dir.write("headers", &dir.run_with(&sign, &env, b"{}").stdout);
    let keys: String = (0..LARGE / 16)
        .map(|n| format!(",\"key{n:06}\":{}", n % 10))
        .collect();
    let spaces = " ".repeat(LARGE);
    for (name, body) in [
        ("20 KB of brackets", nested("[", "]", 20_000).into_bytes()),
        ("120 KB of brackets", nested("[", "]", 120_000).into_bytes()),
        ("brackets", nested("[", "]", LARGE).into_bytes()),
        ("objects", nested("{\"a\":", "}", LARGE).into_bytes()),
        (
            "brackets and spaces",
            nested("[ ", "] ", LARGE).into_bytes(),
        ),
        ("open brackets", "[".repeat(LARGE).into_bytes()),
        ("keys", format!("{{\"a\":1{keys}}}").into_bytes()),
        ("numbers", list("1", LARGE).into_bytes()),
        ("empty lists", list("[]", LARGE).into_bytes()),
        ("spaces", format!("[{spaces}]").into_bytes()),
        (
            "escapes",
            format!("[\"{}\"]", "\\u0001".repeat(LARGE / 6)).into_bytes(),
        ),
        (
            "letters",
            format!("[\"{}\"]", "é".repeat(LARGE / 2)).into_bytes(),
        ),
        ("short strings", list("\"/\"", LARGE).into_bytes()),
        ("line breaks", "\n".repeat(LARGE).into_bytes()),
        ("random bytes", random_json(LARGE)),
    ] {
        let output = verify(&dir, &body);
        let is_explained =
            output.stdout.contains("FAILED  signature") && output.stdout.contains("another secret");
        assert!(output.code == 1 && is_explained, "{name}: {output:?}");
    }
}

#[test]
fn verify_still_recognizes_indented_original_of_large_body() {
    let dir = WorkDir::new();
    let item = r#"{"id":"0192","lines":[{"name":"Café","tax":{"code":"V25","rate":[25,1]}}]}"#;
    let compact: serde_json::Value = serde_json::from_str(&list(item, LARGE / 2)).unwrap();
    let original = serde_json::to_string_pretty(&compact).unwrap();
    let sign = ["sign", "--id", "msg_1", "--timestamp", "1614265330"];
    let env = [("PLEO_WEBHOOK_SECRET", SECRET)];
    let signed = dir.run_with(&sign, &env, original.as_bytes());
    dir.write("headers", &signed.stdout);
    let output = verify(&dir, compact.to_string().as_bytes());
    let is_found = output.stdout.contains("indented by 2 spaces");
    assert!(output.code == 1 && is_found, "{output:?}");
}

#[test]
fn verify_refuses_too_many_headers() {
    let dir = WorkDir::new();
    let lines = |count: usize| -> String { (0..count).map(|n| format!("x-{n}: 1\n")).collect() };
    for (count, code, text) in [
        (24_576, 1, "FAILED  headers"),
        (24_577, 2, "line 24577: too many headers"),
        (100_000, 2, "line 24577: too many headers"),
    ] {
        dir.write("headers", &lines(count));
        let output = verify(&dir, b"{}");
        assert_eq!(output.code, code, "{count}: {output:?}");
        let printed = output.stdout + &output.stderr;
        assert!(printed.contains(text), "{count}: {printed}");
    }
}
