//! The server as a program: what it takes, keeps, hands on, and how it ends.

#![cfg(unix)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::support::program::{OTHER, Place, SECRET, free_address};
use serde_json::Value;

const LIST: &[&str] = &["inbox", "list", "--json"];

fn env() -> [(&'static str, &'static str); 1] {
    [("PLEO_WEBHOOK_SECRET", SECRET)]
}

fn send(place: &Place, url: &str, secret: &str, more: &[&str]) -> String {
    let args = [&["send", url], more].concat();
    let ended = place.run_with(&args, &[("PLEO_WEBHOOK_SECRET", secret)], b"");
    assert_eq!(
        ended.code,
        i32::from(!ended.stdout.starts_with("204")),
        "{ended:?}"
    );
    ended.stdout
}

fn states(place: &Place) -> Vec<(String, String)> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
    let entries = place.json(LIST);
    entries
        .iter()
        .map(|entry| (text(entry, "event_type"), text(entry, "state")))
        .collect()
}

#[test]
fn it_stores_before_it_answers_and_keeps_what_it_has_when_killed() {
    let place = Place::new();
    let server = place.serve(&[], &env());
    send(&place, &server.url, SECRET, &["--id", "msg_1"]);
    let (code, _) = server.stop("-KILL");
    assert_eq!(code, None, "killed");

    let server = place.serve(&[], &env());
    let known = send(
        &place,
        &server.url,
        SECRET,
        &["--id", "msg_1", "--event", "v1.export-job.created"],
    );
    assert!(known.starts_with("204"), "{known}");
    let [entry] = &place.json(LIST)[..] else {
        panic!("not once")
    };
    assert_eq!(entry["webhook_id"], "msg_1");
    assert_eq!(entry["state"], "pending");
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    assert!(
        log.contains("known id with other bytes: kept the first"),
        "{log}"
    );
}

#[test]
fn it_ends_in_good_order_at_either_signal() {
    for signal in ["-TERM", "-INT"] {
        let place = Place::new();
        let server = place.serve(&[], &env());
        let address = server.address().to_owned();
        let (code, log) = server.stop(signal);
        assert_eq!(code, Some(0), "{signal}: {log}");
        assert!(log.contains("stopped in good order"), "{log}");
        assert!(TcpStream::connect(address).is_err(), "it still listens");
    }
}

#[test]
fn a_request_in_flight_is_finished_at_the_end() {
    let place = Place::new();
    let server = place.serve(&[], &env());
    let body = br#"{"eventType":"v9.new","eventId":"e1","data":{}}"#;
    let signed = place.run_with(&["sign", "--id", "msg_1"], &env(), body);
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
    // Its answer to `expect` says that the request is in flight.
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
    // From the first moment of shutdown on, nothing new is taken, but what began before is.
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    assert_eq!(stopping.join().unwrap().0, Some(0));
    assert_eq!(
        states(&place),
        [("v9.new".to_owned(), "pending".to_owned())]
    );
}

#[test]
fn a_command_gets_the_body_and_the_facts_but_none_of_the_secrets() {
    let place = Place::new();
    let done = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = done.local_addr().unwrap().port();
    let script = format!("cat > body; env > environment; echo > /dev/tcp/127.0.0.1/{port}");
    place.write("pleo.toml", "secret = \"env:BOOKS_SECRET\"\n");
    let args = [
        "--config",
        "pleo.toml",
        "--exec",
        &format!("bash -c '{script}'"),
    ];
    let secrets = [("BOOKS_SECRET", SECRET), ("PLEO_FORWARD_SECRET", OTHER)];
    let server = place.serve(&args, &secrets);
    send(&place, &server.url, SECRET, &["--id", "msg_1"]);
    done.accept().unwrap();
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));

    let shown = place.json(&["inbox", "show", "msg_1", "--json"]);
    let read = |name| std::fs::read_to_string(place.path().join(name)).unwrap();
    assert_eq!(shown[0]["state"], "done");
    assert_eq!(shown[0]["attempts"], 1);
    assert_eq!(shown[0]["body"], *read("body"));
    let environment = read("environment");
    assert!(
        environment.contains("PLEO_WEBHOOK_ID=msg_1\n"),
        "{environment}"
    );
    for text in [environment, log] {
        assert!(!text.contains(SECRET) && !text.contains(OTHER), "{text}");
        assert!(!text.contains(&SECRET[6..]), "{text}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn its_limit_of_open_files_is_raised_no_further_than_it_needs() {
    let place = Place::new();
    place.write("pleo.toml", "[limits]\nconnections = 16\n");
    let done = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = done.local_addr().unwrap().port();
    let exec = format!("bash -c 'ulimit -Sn > files; echo > /dev/tcp/127.0.0.1/{port}'");
    let mut args = vec!["serve", "--listen", "127.0.0.1:0"];
    args.extend(["--config", "pleo.toml", "--exec", &exec]);
    let program = place.command(&args);
    for (before, inherited) in [("64:", "8208\n"), ("9000:", "9000\n"), ("64:200", "200\n")] {
        let mut limited = std::process::Command::new("prlimit");
        limited
            .args([&format!("--nofile={before}"), "--"])
            .arg(program.get_program())
            .args(program.get_args())
            .current_dir(place.path())
            .envs(env())
            .stderr(std::process::Stdio::piped());
        let server = crate::support::program::Serving::start(limited);
        send(&place, &server.url, SECRET, &[]);
        done.accept().unwrap();
        assert_eq!(server.stop("-TERM").0, Some(0));
        let files = std::fs::read_to_string(place.path().join("files"));
        assert_eq!(files.unwrap(), inherited, "{before}");
    }
}

#[test]
fn a_target_that_fails_gets_it_again_and_then_it_is_dead_until_replayed() {
    let place = Place::new();
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", target.local_addr().unwrap());
    place.write(
        "pleo.toml",
        &format!("forward = \"{url}\"\n[retry]\nmax_attempts = 2\nmin_delay = \"1ms\"\nmax_delay = \"1ms\"\n"),
    );
    let server = place.serve(&["--config", "pleo.toml"], &env());
    send(
        &place,
        &server.url,
        SECRET,
        &["--id", "msg_1", "--event", "v9.new"],
    );
    for attempt in ["1", "2"] {
        let head = take(&target, "HTTP/1.1 500 Oops");
        assert!(
            head.contains(&format!("pleo-attempt: {attempt}\r\n")),
            "{head}"
        );
    }
    // The server ends only when the outcome is recorded.
    assert_eq!(server.stop("-TERM").0, Some(0));
    let shown = place.json(&["inbox", "show", "msg_1", "--json"]);
    assert_eq!(shown[0]["state"], "dead");
    assert_eq!(shown[0]["attempts"], 2);
    assert_eq!(
        shown[0]["last_error"],
        "cannot forward: target answered 500 Internal Server Error"
    );

    let server = place.serve(&["--config", "pleo.toml"], &env());
    let replayed = place.json(&["inbox", "replay", "--dead", "--json"]);
    assert_eq!(replayed[0]["replayed"], 1);
    let head = take(&target, "HTTP/1.1 204 No Content");
    assert!(head.contains("pleo-attempt: 1\r\n"), "{head}");
    assert_eq!(server.stop("-TERM").0, Some(0));
    assert_eq!(states(&place), [("v9.new".to_owned(), "done".to_owned())]);
}

/// Takes one request, and answers it.
fn take(target: &TcpListener, status: &str) -> String {
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
fn each_endpoint_of_the_file_has_its_own_rules() {
    let place = Place::new();
    place.write("rotating", &format!("{SECRET}\n{OTHER}\n"));
    place.write(
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
    let server = place.serve(&["--config", "pleo.toml"], &secrets);
    let url = |path: &str| format!("http://{}{path}", server.address());
    let credentials = [
        "-H",
        "authorization: Basic cGxlbzpwYXNz",
        "-H",
        "x-tenant: acme",
    ];
    let late = (pleo_receiver::verify::unix_now() - 60).to_string();
    for (path, secret, more, answer) in [
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
            OTHER,
            &credentials,
            "401 Unauthorized {\"code\":\"signature_mismatch\"",
        ),
        ("/hooks/rotating", SECRET, &[], "204"),
        ("/hooks/rotating", OTHER, &[], "204"),
        (
            "/hooks/rotating",
            SECRET,
            &["--timestamp", &late],
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
        let answered = send(&place, &url(path), secret, more);
        assert!(answered.starts_with(answer), "{path}: {answered}");
    }
    let stored = place.json(&["inbox", "list", "--json", "--inbox", "sqlite:books.db"]);
    let endpoints: Vec<_> = stored
        .iter()
        .map(|entry| entry["endpoint"].as_str().unwrap())
        .collect();
    assert_eq!(endpoints, ["acme", "/hooks/rotating", "/hooks/rotating"]);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn a_flag_beats_the_environment_and_that_beats_the_file() {
    let place = Place::new();
    place.write(
        "pleo.toml",
        &format!("path = \"/file\"\nsecret = \"{OTHER}\"\ninbox = \"sqlite:file.db\"\n"),
    );
    let from_env = [
        ("PLEO_CONFIG", "pleo.toml"),
        ("PLEO_PATH", "/env"),
        ("PLEO_WEBHOOK_SECRET", SECRET),
    ];
    for (args, env, path, secret) in [
        (&[][..], &from_env[..1], "/file", OTHER),
        (&[], &from_env[..], "/env", SECRET),
        (
            &["--path", "/flag", "--secret", OTHER],
            &from_env[..],
            "/flag",
            OTHER,
        ),
    ] {
        let server = place.serve(args, env);
        assert!(server.url.ends_with(path), "{}", server.url);
        assert!(send(&place, &server.url, secret, &[]).starts_with("204"));
        let (_, log) = server.stop("-TERM");
        assert!(!log.contains("whsec_"), "{log}");
        let warned = log.contains("every user of this machine can read a secret in the arguments");
        assert_eq!(warned, args.contains(&"--secret"), "{log}");
    }
    assert!(place.path().join("file.db").exists());
}

#[test]
fn counters_are_served_however_many_clients_keep_their_connection() {
    let place = Place::new();
    let free = free_address();
    let server = place.serve(&["--metrics", &free], &env());
    // As many as are served at once, and some more.
    let kept: Vec<_> = (0..40).map(|_| ask_for_counters(&free)).collect();
    assert_eq!(kept.len(), 40);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

/// Reads no farther than the status, and keeps the connection.
fn ask_for_counters(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut status = [0; 15];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(status, *b"HTTP/1.1 200 OK");
    stream
}

#[test]
fn counters_are_served_apart() {
    let place = Place::new();
    let free = free_address();
    let server = place.serve(&["--metrics", &free], &env());
    send(&place, &server.url, SECRET, &[]);
    send(&place, &server.url, OTHER, &[]);
    let mut stream = TcpStream::connect(&free).unwrap();
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    for line in [
        "pleo_receiver_accepted_total{endpoint=\"/webhooks/pleo\",outcome=\"stored\"} 1",
        "pleo_receiver_rejected_total{endpoint=\"/webhooks/pleo\",reason=\"signature_mismatch\"} 1",
        "# EOF",
    ] {
        assert!(page.contains(line), "{line} is not in:\n{page}");
    }
    assert!(send(&place, &format!("http://{free}/webhooks/pleo"), SECRET, &[]).starts_with("404"));
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn it_says_so_where_the_system_gives_it_no_thread() {
    let place = Place::new();
    place.write("many.toml", "[limits]\nthreads = 300\n");
    let program = place.command(&["serve", "--listen", "127.0.0.1:0", "--config", "many.toml"]);
    // Less than so many threads' stacks take.
    let ended = std::process::Command::new("prlimit")
        .args(["--as=600000000", "--"])
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(place.path())
        .envs(env())
        .output();
    let ended = crate::support::program::Ended::from(ended.unwrap());
    let said = ended
        .stderr
        .contains("error: cannot start to serve connections: ");
    assert!(said && ended.code == 1, "{ended:?}");
}
