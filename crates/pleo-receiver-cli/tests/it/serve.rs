//! Tests of `serve`: storing, dispatching, shutdown, endpoints.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::support::program::{ENV, OTHER_SECRET, SECRET, WorkDir};
use serde_json::Value;

const LIST: &[&str] = &["inbox", "list", "--json"];

fn states(dir: &WorkDir) -> Vec<(String, String)> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
    let entries = dir.json(LIST);
    entries
        .iter()
        .map(|entry| (text(entry, "event_type"), text(entry, "state")))
        .collect()
}

#[test]
fn keeps_acknowledged_message_after_kill() {
    let dir = WorkDir::new();
    let server = dir.serve(&[], ENV);
    dir.send_with(SECRET, &server.url, &["--id", "msg_1"]);
    let (code, _) = server.stop("-KILL");
    assert_eq!(code, None, "killed");

    let server = dir.serve(&[], ENV);
    let duplicate = dir.send_with(
        SECRET,
        &server.url,
        &["--id", "msg_1", "--event", "v1.export-job.created"],
    );
    assert!(duplicate.starts_with("204"), "{duplicate}");
    let [entry] = &dir.json(LIST)[..] else {
        panic!("the message is not stored once")
    };
    assert_eq!(entry["webhook_id"], "msg_1");
    assert_eq!(entry["state"], "pending");
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    assert!(
        log.contains("duplicate id with another body; the first is kept"),
        "{log}"
    );
}

#[test]
fn shuts_down_on_sigterm_and_sigint() {
    for signal in ["-TERM", "-INT"] {
        let dir = WorkDir::new();
        let server = dir.serve(&[], ENV);
        let address = server.address().to_owned();
        let (code, log) = server.stop(signal);
        assert_eq!(code, Some(0), "{signal}: {log}");
        assert!(log.contains("shutdown complete"), "{log}");
        assert!(
            TcpStream::connect(address).is_err(),
            "the server still listens"
        );
    }
}

#[test]
fn finishes_request_in_flight_during_shutdown() {
    let dir = WorkDir::new();
    let server = dir.serve(&[], ENV);
    let body = br#"{"eventType":"v9.new","eventId":"e1","data":{}}"#;
    let signed = dir.run_with(&["sign", "--id", "msg_1"], ENV, body);
    let mut stream = TcpStream::connect(server.address()).unwrap();
    write!(
        stream,
        "POST /webhooks/pleo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    )
    .unwrap();
    write!(
        stream,
        "{}content-length: {}\r\n",
        signed.stdout.replace('\n', "\r\n"),
        body.len()
    )
    .unwrap();
    write!(stream, "expect: 100-continue\r\n\r\n").unwrap();
    // 100 Continue shows that the request is in flight.
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100 Continue"), "{interim:?}");

    let address = server.address().to_owned();
    let stopping = std::thread::spawn(|| server.stop("-TERM"));
    while TcpStream::connect(&address).is_ok() {
        std::thread::yield_now();
    }
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    // Shutdown refuses new connections and finishes requests in flight.
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    assert_eq!(stopping.join().unwrap().0, Some(0));
    assert_eq!(states(&dir), [("v9.new".to_owned(), "pending".to_owned())]);
}

#[test]
fn passes_body_and_metadata_but_no_secrets_to_command() {
    let dir = WorkDir::new();
    let done = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = done.local_addr().unwrap().port();
    let script = format!("cat > body; env > environment; echo > /dev/tcp/127.0.0.1/{port}");
    // `--exec` overrides the target in the file. The command must not see its secrets either.
    let file = "secret = \"env:BOOKS_SECRET\"\nforward = \"env:TARGET\"\n\
                forward_secret = \"env:KEY\"\nexec_env = [\"LEDGER\"]\n";
    dir.write("pleo.toml", file);
    let args = [
        "--config",
        "pleo.toml",
        "--forward-secret",
        "env:OTHER_KEY",
        "--exec",
        &format!("bash -c '{script}'"),
    ];
    let secrets = [
        ("BOOKS_SECRET", SECRET),
        ("KEY", OTHER_SECRET),
        ("OTHER_KEY", OTHER_SECRET),
        ("TARGET", "http://user:hunter2@127.0.0.1/"),
        ("PLEO_FORWARD_SECRET", OTHER_SECRET),
        ("UNRELATED", "hunter2"),
        ("LEDGER", "acme"),
    ];
    let server = dir.serve(&args, &secrets);
    dir.send_with(SECRET, &server.url, &["--id", "msg_1"]);
    done.accept().unwrap();
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));

    let shown = dir.json(&["inbox", "show", "msg_1", "--json"]);
    let read = |name| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(shown[0]["state"], "done");
    assert_eq!(shown[0]["attempts"], 1);
    assert_eq!(shown[0]["body"], *read("body"));
    let environment = read("environment");
    assert!(
        environment.contains("PLEO_WEBHOOK_ID=msg_1\n"),
        "{environment}"
    );
    assert!(environment.contains("LEDGER=acme\n"), "{environment}");
    assert!(environment.contains("PATH="), "{environment}");
    for text in [environment, log] {
        assert!(
            !text.contains(SECRET) && !text.contains(OTHER_SECRET),
            "{text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
        assert!(!text.contains(&SECRET[6..]), "{text}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn raises_open_file_limit_only_as_needed() {
    let dir = WorkDir::new();
    dir.write("pleo.toml", "[limits]\nconnections = 16\n");
    let done = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = done.local_addr().unwrap().port();
    let exec = format!("bash -c 'ulimit -Sn > files; echo > /dev/tcp/127.0.0.1/{port}'");
    let mut args = vec!["serve", "--listen", "127.0.0.1:0"];
    args.extend(["--config", "pleo.toml", "--exec", &exec]);
    let program = dir.command(&args);
    for (before, expected) in [("64:", "8208\n"), ("9000:", "9000\n"), ("64:200", "200\n")] {
        let mut limited = std::process::Command::new("prlimit");
        limited
            .args([&format!("--nofile={before}"), "--"])
            .arg(program.get_program())
            .args(program.get_args())
            .current_dir(dir.path())
            .env("PLEO_LOG_FORMAT", "text")
            .envs(ENV.iter().copied())
            .stderr(std::process::Stdio::piped());
        let server = crate::support::program::RunningServer::start(limited);
        dir.send_with(SECRET, &server.url, &[]);
        done.accept().unwrap();
        assert_eq!(server.stop("-TERM").0, Some(0));
        let files = std::fs::read_to_string(dir.path().join("files"));
        assert_eq!(files.unwrap(), expected, "{before}");
    }
}

#[test]
fn retries_failing_target_until_dead_and_replays() {
    let dir = WorkDir::new();
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", target.local_addr().unwrap());
    dir.write(
        "pleo.toml",
        &format!("forward = \"{url}\"\n[retry]\nmax_attempts = 2\nmin_delay = \"1ms\"\nmax_delay = \"1ms\"\n"),
    );
    let server = dir.serve(&["--config", "pleo.toml"], ENV);
    dir.send_with(SECRET, &server.url, &["--id", "msg_1", "--event", "v9.new"]);
    for attempt in ["1", "2"] {
        let head = receive(&target, "HTTP/1.1 500 Oops");
        assert!(
            head.contains(&format!("pleo-attempt: {attempt}\r\n")),
            "{head}"
        );
    }
    // The server exits only after the outcome is recorded.
    assert_eq!(server.stop("-TERM").0, Some(0));
    let shown = dir.json(&["inbox", "show", "msg_1", "--json"]);
    assert_eq!(shown[0]["state"], "dead");
    assert_eq!(shown[0]["attempts"], 2);
    assert_eq!(
        shown[0]["last_error"],
        "cannot forward: target answered 500 Internal Server Error"
    );

    let server = dir.serve(&["--config", "pleo.toml"], ENV);
    let replayed = dir.json(&["inbox", "replay", "--dead", "--json"]);
    assert_eq!(replayed[0]["replayed"], 1);
    let head = receive(&target, "HTTP/1.1 204 No Content");
    assert!(head.contains("pleo-attempt: 1\r\n"), "{head}");
    assert_eq!(server.stop("-TERM").0, Some(0));
    assert_eq!(states(&dir), [("v9.new".to_owned(), "done".to_owned())]);
}

/// Receives a request and responds with this status. Returns the request.
fn receive(target: &TcpListener, status: &str) -> String {
    let (mut stream, _) = target.accept().unwrap();
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"}") {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).unwrap();
        assert_ne!(read, 0, "closed early");
        bytes.extend_from_slice(&chunk[..read]);
    }
    write!(
        stream,
        "{status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    )
    .unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn applies_rules_of_each_endpoint() {
    let dir = WorkDir::new();
    dir.write("rotating", &format!("{SECRET}\n{OTHER_SECRET}\n"));
    dir.write(
        "pleo.toml",
        r#"
        inbox = "sqlite:books.db"

        [[endpoint]]
        name = "acme"
        path = "/hooks/acme"
        secret = "env:ACME_SECRET"
        basic = { username = "pleo", password = "env:ACME_PASSWORD" }
        headers = { x-tenant = "acme" }

        [[endpoint]]
        path = "/hooks/rotating"
        secrets = ["file:rotating"]
        tolerance = 10

        [[endpoint]]
        path = "/hooks/elsewhere"
        secret = "env:ACME_SECRET"
        sources = ["52.215.16.239", "2a05:d028:17:8000::/56"]
        "#,
    );
    let secrets = [("ACME_SECRET", SECRET), ("ACME_PASSWORD", "pass")];
    let server = dir.serve(&["--config", "pleo.toml"], &secrets);
    let url = |path: &str| format!("http://{}{path}", server.address());
    let credentials = [
        "-H",
        "authorization: Basic cGxlbzpwYXNz",
        "-H",
        "x-tenant: acme",
    ];
    let old = (pleo_receiver::verify::unix_now() - 60).to_string();
    for (path, secret, more, expected) in [
        ("/hooks/acme", SECRET, &credentials[..], "204"),
        (
            "/hooks/acme",
            SECRET,
            &credentials[..2],
            "401 Unauthorized {\"code\":\"wrong_header\"",
        ),
        (
            "/hooks/acme",
            SECRET,
            &credentials[2..],
            "401 Unauthorized {\"code\":\"wrong_credentials\"",
        ),
        (
            "/hooks/acme",
            OTHER_SECRET,
            &credentials,
            "401 Unauthorized {\"code\":\"signature_mismatch\"",
        ),
        ("/hooks/rotating", SECRET, &[], "204"),
        ("/hooks/rotating", OTHER_SECRET, &[], "204"),
        (
            "/hooks/rotating",
            SECRET,
            &["--timestamp", &old],
            "401 Unauthorized {\"code\":\"timestamp_too_old\"",
        ),
        (
            "/hooks/elsewhere",
            SECRET,
            &[],
            "403 Forbidden {\"code\":\"source_not_allowed\"",
        ),
        (
            "/hooks",
            SECRET,
            &[],
            "404 Not Found {\"code\":\"no_such_path\"",
        ),
    ] {
        let answer = dir.send_with(secret, &url(path), more);
        assert!(answer.starts_with(expected), "{path}: {answer}");
    }
    let stored = dir.json(&["inbox", "list", "--json", "--inbox", "sqlite:books.db"]);
    let endpoints: Vec<_> = stored
        .iter()
        .map(|entry| entry["endpoint"].as_str().unwrap())
        .collect();
    assert_eq!(endpoints, ["acme", "/hooks/rotating", "/hooks/rotating"]);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn prefers_flag_over_environment_over_file() {
    let dir = WorkDir::new();
    dir.write(
        "pleo.toml",
        &format!("path = \"/file\"\nsecret = \"{OTHER_SECRET}\"\ninbox = \"sqlite:file.db\"\n"),
    );
    let from_env = [
        ("PLEO_CONFIG", "pleo.toml"),
        ("PLEO_PATH", "/env"),
        ("PLEO_WEBHOOK_SECRET", SECRET),
    ];
    for (args, env, path, secret) in [
        (&[][..], &from_env[..1], "/file", OTHER_SECRET),
        (&[], &from_env[..], "/env", SECRET),
        (
            &["--path", "/flag", "--secret", OTHER_SECRET],
            &from_env[..],
            "/flag",
            OTHER_SECRET,
        ),
    ] {
        let server = dir.serve(args, env);
        assert!(server.url.ends_with(path), "{}", server.url);
        assert!(dir.send_with(secret, &server.url, &[]).starts_with("204"));
        let (_, log) = server.stop("-TERM");
        assert!(!log.contains("whsec_"), "{log}");
        let warns = log.contains("every user of this machine can read the flag in the arguments");
        assert_eq!(warns, args.contains(&"--secret"), "{log}");
    }
    assert!(dir.path().join("file.db").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn reports_failed_thread_creation() {
    let dir = WorkDir::new();
    dir.write("many.toml", "[limits]\nthreads = 300\n");
    let program = dir.command(&["serve", "--listen", "127.0.0.1:0", "--config", "many.toml"]);
    // Enough for a few stacks of 100 MB, but not for 300. Smaller stacks would leave too little for
    // anything else.
    let output = std::process::Command::new("prlimit")
        .args(["--as=2000000000", "--"])
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(dir.path())
        .env("PLEO_LOG_FORMAT", "text")
        .envs(ENV.iter().copied())
        .env("RUST_MIN_STACK", "100000000")
        .output();
    let output = crate::support::program::CommandOutput::from(output.unwrap());
    let is_reported = output
        .stderr
        .contains("error: cannot start to serve connections: ");
    assert!(is_reported && output.code == 1, "{output:?}");
}
