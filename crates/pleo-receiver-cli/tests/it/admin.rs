//! Tests of the admin listener.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::program::{CommandOutput, ENV, RunningServer, SECRET, WorkDir};

const ADMIN: &[&str] = &["--admin", "127.0.0.1:0"];
const PATHS: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// An answer of the admin listener.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// In lower case, with the status line.
    head: String,
    body: String,
}

/// Sends a request with these header lines, and reads the answer.
fn request(server: &RunningServer, request_line: &str, headers: &str) -> Answer {
    request_at("localhost", server, request_line, headers)
}

/// Sends a request to this host name.
fn request_at(host: &str, server: &RunningServer, request_line: &str, headers: &str) -> Answer {
    let mut stream = TcpStream::connect(server.admin_address()).unwrap();
    let timeout = Some(Duration::from_secs(10));
    stream.set_read_timeout(timeout).unwrap();
    write!(
        stream,
        "{request_line} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

fn get(server: &RunningServer, path: &str) -> Answer {
    request(server, &format!("GET {path}"), "")
}

/// Returns the status of `/readyz`, and its checks.
fn readiness(server: &RunningServer) -> (u16, Value) {
    let answer = get(server, "/readyz");
    let mut report: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(report["ready"], answer.status == 200, "{report}");
    (answer.status, report["checks"].take())
}

/// Waits until `/readyz` answers 200 with this header line: the server listens before it is ready.
fn wait_until_ready(server: &RunningServer, header: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while request(server, "GET /readyz", header).status != 200 {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
}

/// Waits until `/readyz` has this status. Returns its checks.
pub(crate) fn wait_for_readiness(server: &RunningServer, status: u16) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (now, checks) = readiness(server);
        if now == status {
            return checks;
        }
        assert!(Instant::now() < deadline, "{checks}");
        thread::yield_now();
    }
}

#[test]
fn serves_health_and_metrics() {
    let dir = WorkDir::new();
    let server = dir.serve(ADMIN, ENV);
    wait_until_ready(&server, "");
    for path in PATHS {
        let answer = get(&server, path);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(
            answer.head.contains("cache-control: no-store"),
            "{answer:?}"
        );
        let head = request(&server, &format!("HEAD {path}"), "");
        assert_eq!((head.status, &*head.body), (200, ""), "{head:?}");
        let post = request(&server, &format!("POST {path}"), "content-length: 0\r\n");
        assert_eq!(post.status, 405, "{post:?}");
        assert!(post.head.contains("allow: get, head"), "{post:?}");
    }
    assert_eq!(get(&server, "/livez").body, "ok\n");
    let (_, checks) = readiness(&server);
    for check in ["inbox", "dispatcher", "shutdown"] {
        assert_eq!(checks[check]["ok"], true, "{checks}");
        assert!(checks[check]["reason"].is_string(), "{checks}");
    }
    for path in ["/livez/", "/webhooks/pleo"] {
        assert_eq!(get(&server, path).status, 404);
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn answers_beside_silent_connections() {
    let dir = WorkDir::new();
    let server = dir.serve(ADMIN, ENV);
    wait_until_ready(&server, "");
    let connect = || TcpStream::connect(server.admin_address()).unwrap();
    // Twice the limit. Half of them begin a request.
    let silent: Vec<_> = (0..64)
        .map(|number| {
            let mut stream = connect();
            if number % 2 == 0 {
                stream.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
            }
            stream
        })
        .collect();
    for path in PATHS {
        assert_eq!(get(&server, path).status, 200);
    }
    drop(silent);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn closes_silent_connection() {
    let dir = WorkDir::new();
    let server = dir.serve(ADMIN, ENV);
    let mut silent = TcpStream::connect(server.admin_address()).unwrap();
    silent
        .set_read_timeout(Some(Duration::from_secs(25)))
        .unwrap();
    silent.write_all(b"GET /livez HTTP/1.1\r\n").unwrap();
    let mut answer = String::new();
    silent.read_to_string(&mut answer).unwrap();
    assert!(!answer.contains("200"), "{answer}");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn refuses_address_of_other_machines_without_credentials() {
    let dir = WorkDir::new();
    let serve = |args: &[&str], env: &[(&str, &str)]| {
        let args = [
            &["serve", "--listen", "127.0.0.1:0", "--inbox", "memory:"],
            args,
        ]
        .concat();
        dir.run_with(&args, &[ENV, env].concat(), b"")
    };
    let fails = |output: &CommandOutput, parts: &[&str]| {
        assert_eq!(output.code, 2, "{output:?}");
        for part in parts {
            assert!(output.stderr.contains(part), "{part} is not in {output:?}");
        }
    };
    for address in ["0.0.0.0:0", "[::]:0"] {
        fails(
            &serve(&["--admin", address], &[]),
            &["--admin", "without credentials", "admin_token", "127.0.0.1"],
        );
        fails(&serve(&["--metrics", address], &[]), &["--admin"]);
        fails(&serve(&[], &[("PLEO_ADMIN", address)]), &["--admin"]);
    }
    let user = [("PLEO_ADMIN_USER", "probe")];
    fails(
        &serve(&["--admin", "0.0.0.0:0"], &user),
        &["--admin-password"],
    );
    let empty = [("PLEO_ADMIN_TOKEN", "")];
    fails(
        &serve(&["--admin", "0.0.0.0:0"], &empty),
        &["--admin-token"],
    );

    let args = ["--admin", "0.0.0.0:0", "--admin-token", "env:TOKEN"];
    let server = dir.serve(&args, &[ENV, &[("TOKEN", "swordfish")]].concat());
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn refuses_token_that_no_client_can_send() {
    let dir = WorkDir::new();
    // No machine has this address: `serve` ends in any case.
    for token in [
        "sword fish",
        "swordfish\n ",
        "schwertfi\u{17f}ch",
        "sword\tfish",
        "a\u{7f}",
    ] {
        let args = [
            "serve",
            "--listen",
            "192.0.2.1:1",
            "--admin-token",
            "env:TOKEN",
        ];
        let output = dir.run_with(&args, &[ENV, &[("TOKEN", token)]].concat(), b"");
        assert_eq!(output.code, 2, "{token:?}: {output:?}");
        for part in ["--admin-token", "which no client can send"] {
            assert!(output.stderr.contains(part), "{token:?}: {output:?}");
        }
        assert!(!output.stderr.contains(token), "{output:?}");
    }
}

#[test]
fn requires_credentials_except_for_liveness() {
    let dir = WorkDir::new();
    dir.write("token", "swordfish\n");
    let settings = "admin = \"127.0.0.1:0\"\nadmin_token = \"file:token\"\n\
                    admin_user = \"probe\"\nadmin_password = \"env:PROBE\"\n";
    dir.write("pleo.toml", &format!("secret = \"{SECRET}\"\n{settings}"));
    let server = dir.serve(&[], &[("PROBE", "hunter2")]);
    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
    wait_until_ready(&server, &bearer("swordfish"));
    // `probe:hunter2`
    let basic = "authorization: basic cHJvYmU6aHVudGVyMg==\r\n";
    let wrong = [
        String::new(),
        bearer("swordfis"),
        bearer("Swordfish"),
        bearer(""),
        // `probe:hunter3`
        "authorization: Basic cHJvYmU6aHVudGVyMw==\r\n".to_owned(),
        "authorization: swordfish\r\n".to_owned(),
        bearer("swordfish") + &bearer("swordfish"),
    ];
    for path in ["/readyz", "/metrics", "/nowhere"] {
        for wrong in &wrong {
            let answer = request(&server, &format!("GET {path}"), wrong);
            assert_eq!(answer.status, 401, "{path} {wrong}: {answer:?}");
            assert!(
                answer.head.contains("www-authenticate: basic"),
                "{answer:?}"
            );
            assert_eq!(answer.body, "credentials required\n");
        }
        for right in [&*bearer("swordfish"), basic] {
            let expected = if path == "/nowhere" { 404 } else { 200 };
            let answer = request(&server, &format!("GET {path}"), right);
            assert_eq!(answer.status, expected, "{path} {right}: {answer:?}");
        }
    }
    assert_eq!(get(&server, "/livez").status, 200);
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    assert!(
        !log.contains("swordfish") && !log.contains("hunter2"),
        "{log}"
    );
}

#[test]
fn refuses_unknown_host_names() {
    let dir = WorkDir::new();
    let configure = |hosts: &str| {
        let admin = format!("admin = \"127.0.0.1:0\"\nadmin_hosts = [{hosts}]\n");
        dir.write("pleo.toml", &format!("secret = \"{SECRET}\"\n{admin}"));
    };
    configure("");
    let mut server = dir.serve(&[], &[]);
    wait_until_ready(&server, "");
    for path in PATHS {
        let get = format!("GET {path}");
        for host in ["localhost", "127.0.0.1:9187", "[::1]"] {
            assert_eq!(request_at(host, &server, &get, "").status, 200, "{host}");
        }
        // The name of a page that resolves to the address of this machine.
        let answer = request_at("evil.example:9187", &server, &get, "");
        assert_eq!(answer.status, 421, "{answer:?}");
        assert!(
            answer.head.contains("application/problem+json"),
            "{answer:?}"
        );
        let problem: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(problem["code"], "unknown_host");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("`admin_hosts`"), "{detail}");
    }
    let proxied =
        |server: &RunningServer| request_at("receiver.internal", server, "GET /readyz", "").status;
    assert_eq!(proxied(&server), 421);
    configure("\"receiver.internal\"");
    server.signal_and_wait("-HUP", "configuration reloaded");
    assert_eq!(proxied(&server), 200);
    assert_eq!(server.stop("-TERM").0, Some(0));
    configure("\"http://receiver.internal\"");
    let refused = dir.run(&["serve"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("is not a host name"), "{refused:?}");
}

#[test]
fn limits_guesses_of_credentials() {
    let dir = WorkDir::new();
    let args = [ADMIN, &["--admin-token", "env:TOKEN"]].concat();
    let server = dir.serve(&args, &[ENV, &[("TOKEN", "swordfish")]].concat());
    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
    wait_until_ready(&server, &bearer("swordfish"));
    let guess = |token: &str| request(&server, "GET /metrics", &bearer(token));
    let statuses: Vec<_> = (0..40).map(|_| guess("marlin").status).collect();
    let (wrong, limited) = statuses.split_at(20);
    assert!(wrong.iter().all(|status| *status == 401), "{statuses:?}");
    // A slow machine may take seconds for them, in each of which another guess is allowed.
    assert!(limited.contains(&429), "{statuses:?}");
    let start = Instant::now();
    let answer = loop {
        let answer = guess("marlin");
        if answer.status == 429 {
            break answer;
        }
        assert!(start.elapsed() < Duration::from_secs(60));
    };
    assert!(answer.head.contains("retry-after: 1"), "{answer:?}");
    assert!(answer.body.contains("too_many_guesses"), "{answer:?}");
    // Probes without credentials are no guesses.
    assert_eq!(get(&server, "/livez").status, 200);
    assert_eq!(get(&server, "/metrics").status, 401);
    // The right token is right again after a while.
    while guess("swordfish").status != 200 {
        assert!(start.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn accepts_long_token_despite_wrong_guesses_of_others() {
    const LONG: &str = "swordfish-marlin-tuna-";
    let dir = WorkDir::new();
    let args = [ADMIN, &["--admin-token", "env:TOKEN"]].concat();
    let server = dir.serve(&args, &[ENV, &[("TOKEN", LONG)]].concat());
    let guess = |token: &str| {
        let bearer = format!("authorization: Bearer {token}\r\n");
        request(&server, "GET /metrics", &bearer).status
    };
    let start = Instant::now();
    while guess("swordfish-marlin-tuna!") != 429 {
        assert!(start.elapsed() < Duration::from_secs(60));
    }
    assert_eq!(guess(LONG), 200);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn reloads_credentials() {
    let dir = WorkDir::new();
    let configure = |admin: &str| {
        let settings = "admin_token = \"file:token\"\n";
        let text = format!("secret = \"{SECRET}\"\nadmin = \"{admin}\"\n{settings}");
        dir.write("pleo.toml", &text);
    };
    dir.write("token", "old");
    configure("127.0.0.1:0");
    let mut server = dir.serve(&[], &[]);
    let status = |server: &RunningServer, token: &str| {
        let header = format!("authorization: Bearer {token}\r\n");
        request(server, "GET /readyz", &header).status
    };
    wait_until_ready(&server, "authorization: Bearer old\r\n");
    assert_eq!(status(&server, "new"), 401);
    dir.write("token", "new");
    server.signal_and_wait("-HUP", "configuration reloaded");
    assert_eq!((status(&server, "old"), status(&server, "new")), (401, 200));
    // The credentials of another address are applied with that address, after a restart.
    dir.write("token", "newest");
    configure("127.0.0.1:1");
    server.signal_and_wait("-HUP", "configuration reloaded");
    assert_eq!(status(&server, "new"), 200);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn is_not_ready_while_inbox_cannot_store() {
    let dir = WorkDir::new();
    let server = dir.serve(ADMIN, ENV);
    let (inbox, elsewhere) = (dir.path().join("pleo-inbox.db"), dir.path().join("away.db"));
    std::fs::rename(&inbox, &elsewhere).unwrap();
    assert!(dir.send_with(SECRET, &server.url, &[]).starts_with("503"));
    let checks = wait_for_readiness(&server, 503);
    assert_eq!(checks["inbox"]["ok"], false, "{checks}");
    let reason = checks["inbox"]["reason"].as_str().unwrap();
    assert!(reason.contains("cannot store"), "{reason}");
    assert_eq!(checks["dispatcher"]["ok"], true, "{checks}");
    assert_eq!(get(&server, "/livez").status, 200);
    std::fs::rename(&elsewhere, &inbox).unwrap();
    assert!(dir.send_with(SECRET, &server.url, &[]).starts_with("204"));
    wait_for_readiness(&server, 200);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn accepts_deliveries_during_shutdown_delay() {
    let dir = WorkDir::new();
    let settings = "admin = \"127.0.0.1:0\"\n[limits]\nshutdown_delay = \"10m\"\n";
    dir.write("pleo.toml", &format!("secret = \"{SECRET}\"\n{settings}"));
    let mut server = dir.serve(&[], &[]);
    server.signal_and_wait("-TERM", "listeners close after the delay");
    let checks = wait_for_readiness(&server, 503);
    assert_eq!(checks["shutdown"]["ok"], false, "{checks}");
    assert_eq!(checks["inbox"]["ok"], true, "{checks}");
    assert_eq!(get(&server, "/livez").status, 200);
    assert!(dir.send_with(SECRET, &server.url, &[]).starts_with("204"));
    // A second signal ends the delay.
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    assert!(log.contains("shutdown complete"), "{log}");
}

#[test]
fn stays_available_until_end_of_shutdown() {
    let dir = WorkDir::new();
    let mut args = ADMIN.to_vec();
    // The handler runs until the end of the grace period.
    args.extend(["--exec", "sleep 600"]);
    dir.write("pleo.toml", "[limits]\ngrace = \"3s\"\n");
    let mut server = dir.serve(&args, ENV);
    assert!(dir.send_with(SECRET, &server.url, &[]).starts_with("204"));
    server.signal_and_wait("-TERM", "shutting down");
    // The listener for deliveries is closed.
    let deadline = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect(server.address()).is_ok() {
        assert!(Instant::now() < deadline);
    }
    let (status, checks) = readiness(&server);
    assert_eq!(
        (status, &checks["shutdown"]["ok"]),
        (503, &Value::Bool(false))
    );
    assert_eq!(get(&server, "/metrics").status, 200);
    assert_eq!(server.wait().0, Some(0));
}
