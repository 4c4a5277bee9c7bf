//! Reloading the configuration on SIGHUP.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::program::{OTHER_SECRET, SECRET, WorkDir};
use crate::support::tls::certify;
use pleo_receiver::verify::{Secret, unix_now};

const RELOADED: &str = "configuration reloaded";
const ARGS: &[&str] = &["--config", "pleo.toml"];

/// A sender that keeps its connection.
struct Sender {
    stream: TcpStream,
    name: usize,
    sent: usize,
}

impl Sender {
    fn new(address: &str, name: usize) -> Self {
        Self {
            stream: TcpStream::connect(address).unwrap(),
            name,
            sent: 0,
        }
    }

    /// Sends a delivery signed with these secrets. Returns the status line.
    fn send(&mut self, path: &str, secrets: &[&str]) -> String {
        self.sent += 1;
        let (id, now) = (format!("msg_{}_{}", self.name, self.sent), unix_now());
        let body = "{}";
        let sign = |secret: &&str| {
            let secret: Secret = secret.parse().unwrap();
            secret.sign(&id, now, body.as_bytes()).unwrap().to_string()
        };
        let signatures = secrets.iter().map(sign).collect::<Vec<_>>().join(" ");
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             content-length: 2\r\nwebhook-id: {id}\r\nwebhook-timestamp: {now}\r\n\
             webhook-signature: {signatures}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 1024];
        let read = self.stream.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]);
        answer.lines().next().unwrap_or_default().to_owned()
    }
}

#[test]
fn log_tells_removed_secret_from_forgery() {
    const FORGED: &str = "whsec_AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=";
    let dir = WorkDir::new();
    let configure = |secret: &str| {
        let endpoint = format!("[[endpoint]]\npath = \"/a\"\nsecret = \"{secret}\"\n");
        dir.write("pleo.toml", &format!("inbox = \"memory:\"\n{endpoint}"));
    };
    configure(SECRET);
    let mut server = dir.serve(ARGS, &[]);
    configure(OTHER_SECRET);
    server.signal_and_wait("-HUP", RELOADED);
    // Another reload forgets nothing.
    server.signal_and_wait("-HUP", RELOADED);
    let mut answers = Vec::new();
    for (secret, id, is_removed) in [(FORGED, "msg_1", false), (SECRET, "msg_2", true)] {
        // A body that arrives with its headers, and one that does not.
        for size in [2, 900_000] {
            let body = format!("\"{}\"", "x".repeat(size - 2));
            dir.write("body", &body);
            let args = ["--id", id, "--body", "body"];
            answers.push(dir.send_with(secret, &server.url, &args).replace(id, "ID"));
            let line = server.wait_for_log("delivery rejected");
            assert!(line.contains("code=signature_mismatch"), "{line}");
            assert_eq!(line.contains("removed_secret=true"), is_removed, "{line}");
            assert_eq!(line.contains("was removed"), is_removed, "{line}");
        }
    }
    // The sender learns nothing.
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    configure(SECRET);
    server.signal_and_wait("-HUP", RELOADED);
    assert!(dir.send_with(SECRET, &server.url, &[]).starts_with("204"));
    assert!(
        dir.send_with(OTHER_SECRET, &server.url, &[])
            .starts_with("401")
    );
    server.wait_for_log("removed_secret=true");
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    assert!(!log.contains("whsec_"), "{log}");
}

#[test]
fn rotates_secrets_under_load_without_rejection() {
    let dir = WorkDir::new();
    let path = "/webhooks/pleo";
    let configure = |secrets: &[&str]| {
        let endpoint = "[[endpoint]]\npath = \"/webhooks/pleo\"\nsecrets = [\"file:secrets\"]\n";
        // In memory, so that the rate of deliveries does not depend on the disk.
        dir.write("pleo.toml", &format!("inbox = \"memory:\"\n{endpoint}"));
        dir.write("secrets", &(secrets.join("\n") + "\n"));
    };
    configure(&[SECRET]);
    let mut server = dir.serve(ARGS, &[]);
    let (signing, done) = (Mutex::new(vec![SECRET]), AtomicBool::new(false));
    let accepted: [AtomicUsize; 4] = Default::default();
    let wait_for_more = |phase: &str| {
        for accepted in &accepted {
            // Far more deliveries than were in flight.
            let enough = accepted.load(Ordering::Relaxed) + 50;
            while accepted.load(Ordering::Relaxed) < enough {
                assert!(!done.load(Ordering::Relaxed), "a delivery failed: {phase}");
                thread::yield_now();
            }
        }
    };
    thread::scope(|scope| {
        for (name, accepted) in accepted.iter().enumerate() {
            let (signing, done) = (&signing, &done);
            let mut sender = Sender::new(server.address(), name);
            scope.spawn(move || {
                let stop = StopOnPanic(done);
                while !done.load(Ordering::Relaxed) {
                    let secrets = signing.lock().unwrap().clone();
                    let answer = sender.send(path, &secrets);
                    assert_eq!(answer, "HTTP/1.1 204 No Content", "signed with {secrets:?}");
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
                drop(stop);
            });
        }
        wait_for_more("before the rotation");
        configure(&[SECRET, OTHER_SECRET]);
        server.signal_and_wait("-HUP", RELOADED);
        wait_for_more("the receiver accepts both secrets");
        *signing.lock().unwrap() = vec![OTHER_SECRET, SECRET];
        wait_for_more("the sender signs with both secrets");
        *signing.lock().unwrap() = vec![OTHER_SECRET];
        wait_for_more("the sender signs with the new secret");
        configure(&[OTHER_SECRET]);
        server.signal_and_wait("-HUP", RELOADED);
        wait_for_more("the receiver accepts only the new secret");
        done.store(true, Ordering::Relaxed);
    });
    let old = Sender::new(server.address(), 9).send(path, &[SECRET]);
    assert_eq!(old, "HTTP/1.1 401 Unauthorized");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

/// Stops the other threads when one of them panics.
struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn changes_endpoints_on_open_connection() {
    let dir = WorkDir::new();
    let configure = |paths: &[&str]| {
        let table =
            |path: &&str| format!("[[endpoint]]\npath = \"{path}\"\nsecret = \"{SECRET}\"\n");
        dir.write("pleo.toml", &paths.iter().map(table).collect::<String>());
    };
    configure(&["/a", "/b"]);
    let mut server = dir.serve(ARGS, &[]);
    let mut sender = Sender::new(server.address(), 0);
    let mut assert_answers = |expected: [&str; 3]| {
        for (path, expected) in ["/a", "/b", "/c"].into_iter().zip(expected) {
            let answer = sender.send(path, &[SECRET]);
            assert_eq!(answer, format!("HTTP/1.1 {expected}"), "{path}");
        }
    };
    assert_answers(["204 No Content", "204 No Content", "404 Not Found"]);
    configure(&["/b", "/c"]);
    let line = server.signal_and_wait("-HUP", RELOADED);
    assert!(line.contains("endpoints=2"), "{line}");
    assert_answers(["404 Not Found", "204 No Content", "204 No Content"]);

    for (wrong, why) in [
        ("path = ", "pleo.toml, line 1"),
        (
            "[[endpoint]]\npath = \"/a\"\nsecret = \"whsec_hunter2\"\n",
            "key `secret`",
        ),
        (
            &format!(
                "[[endpoint]]\nname = \"a\"\npath = \"/a\"\nsecret = \"{SECRET}\"\n\
                   [[endpoint]]\nname = \"a\"\npath = \"/d\"\nsecret = \"{SECRET}\"\n"
            ),
            "number 1 also has the name `a`",
        ),
        (
            "[[endpoint]]\npath = \"/a\"\nsecret = \"env:NOT_THERE\"\n",
            "NOT_THERE is not set",
        ),
    ] {
        dir.write("pleo.toml", wrong);
        let line = server.signal_and_wait("-HUP", "configuration not reloaded");
        assert!(line.contains(why), "{why:?} is not in {line}");
        assert!(!line.contains("hunter2"), "{line}");
        assert_answers(["404 Not Found", "204 No Content", "204 No Content"]);
    }
    std::fs::remove_file(dir.path().join("pleo.toml")).unwrap();
    let line = server.signal_and_wait("-HUP", "configuration not reloaded");
    assert!(line.contains("cannot read the configuration"), "{line}");
    assert_answers(["404 Not Found", "204 No Content", "204 No Content"]);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn partly_invalid_configuration_changes_nothing() {
    let dir = WorkDir::new();
    let renew = || {
        certify(dir.path());
    };
    let configure = |endpoints: &str| {
        let tls = "tls_listen = \"127.0.0.1:0\"\ntls_certificate = \"cert.pem\"\n\
                   tls_key = \"key.pem\"\n";
        dir.write("pleo.toml", &format!("{tls}{endpoints}"));
    };
    let table = |keys: &str| format!("[[endpoint]]\nsecret = \"{SECRET}\"\n{keys}\n");
    renew();
    configure(&table("path = \"/a\""));
    let mut server = dir.serve(ARGS, &[]);
    let mut sender = Sender::new(server.address(), 0);

    dir.write("cert.pem", "none");
    let same_name = table("path = \"/b\"\nname = \"/c\"") + &table("path = \"/c\"");
    for (endpoints, why) in [
        // The certificate is read last.
        (same_name, "number 1 also has the name `/c`"),
        (table("path = \"/b\""), "TLS: cert.pem holds no PEM"),
    ] {
        configure(&endpoints);
        let line = server.signal_and_wait("-HUP", "configuration not reloaded");
        assert!(line.contains(why), "{why:?} is not in {line}");
        for (path, status) in [("/a", "204"), ("/b", "404"), ("/c", "404")] {
            let answer = sender.send(path, &[SECRET]);
            assert!(answer.contains(status), "{path}: {answer}");
        }
    }
    renew();
    server.signal_and_wait("-HUP", RELOADED);
    assert!(sender.send("/b", &[SECRET]).contains("204"));
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn names_keys_that_need_restart() {
    let dir = WorkDir::new();
    let secret = format!("secret = \"{SECRET}\"\n");
    dir.write("pleo.toml", &secret);
    let mut server = dir.serve(ARGS, &[]);
    let changed = "admin = \"127.0.0.1:1\"\ninbox = \"sqlite:other.db\"\n\
                   trusted_proxies = [\"10.0.0.0/8\"]\n[limits]\ngrace = \"1s\"\n";
    dir.write("pleo.toml", &(secret + changed));
    server.signal_and_wait("-HUP", RELOADED);
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    for key in ["admin", "inbox", "trusted_proxies", "limits.grace"] {
        let line = format!("restart the receiver to apply it key=\"{key}\"");
        assert!(log.contains(&line), "{log}");
    }
    assert!(!log.contains("key=\"listen\""), "{log}");
    assert!(!dir.path().join("other.db").exists());
}

#[test]
fn applies_new_log_level() {
    let dir = WorkDir::new();
    // Deliveries are logged at level `info`.
    let configure = |more: &str| dir.write("pleo.toml", &format!("secret = \"{SECRET}\"\n{more}"));
    configure("log = \"info\"\n");
    let mut server = dir.serve(ARGS, &[]);
    let mut sender = Sender::new(server.address(), 0);
    let mut deliver = || assert!(sender.send("/webhooks/pleo", &[SECRET]).contains("204"));
    deliver();
    // A reload is logged at `info`, a change that needs a restart at `warn`.
    configure("log = \"warn\"\nmetrics = \"127.0.0.1:1\"\n");
    server.signal_and_wait("-HUP", "restart the receiver to apply it key=\"admin\"");
    deliver();
    configure("log = \"loud\"\n");
    let line = server.signal_and_wait("-HUP", "configuration not reloaded");
    assert!(line.contains("pleo.toml, line 2, key `log`"), "{line}");
    deliver();
    configure("log = \"info\"\n");
    server.signal_and_wait("-HUP", RELOADED);
    deliver();
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    assert_eq!(log.matches("delivery stored").count(), 2, "{log}");
}

#[test]
fn keeps_log_level_of_flag_or_environment() {
    let dir = WorkDir::new();
    let quiet = format!("secret = \"{SECRET}\"\nlog = \"off\"\n");
    dir.write("pleo.toml", &quiet);
    for (more, env) in [
        (&["--log", "info"][..], &[][..]),
        (&[], &[("PLEO_LOG", "info")]),
        (&["--log", "info"], &[("PLEO_LOG", "off")]),
    ] {
        let mut server = dir.serve(&[ARGS, more].concat(), env);
        server.signal_and_wait("-HUP", RELOADED);
        assert_eq!(server.stop("-TERM").0, Some(0));
    }
}

#[test]
fn dispatches_to_new_target() {
    let dir = WorkDir::new();
    let (old, new) = (target(), target());
    let configure = |target: &TcpListener| {
        let url = target.local_addr().unwrap();
        dir.write(
            "pleo.toml",
            &format!("secret = \"{SECRET}\"\nforward = \"http://{url}/\"\n"),
        );
    };
    configure(&old);
    let mut server = dir.serve(ARGS, &[]);
    let mut sender = Sender::new(server.address(), 0);
    // The old target has a delivery in progress during the reload.
    assert_eq!(
        sender.send("/webhooks/pleo", &[SECRET]),
        "HTTP/1.1 204 No Content"
    );
    let in_progress = receive(&old);
    configure(&new);
    server.signal_and_wait("-HUP", "handler changed");
    assert_eq!(
        sender.send("/webhooks/pleo", &[SECRET]),
        "HTTP/1.1 204 No Content"
    );
    respond(receive(&new));
    respond(in_progress);
    assert_eq!(server.stop("-TERM").0, Some(0));
    let listed = dir.json(&["inbox", "list", "--json"]);
    let is_done = |entry: &serde_json::Value| entry["state"] == "done" && entry["attempts"] == 1;
    assert!(
        listed.len() == 2 && listed.iter().all(is_done),
        "{listed:?}"
    );
}

#[test]
fn replaces_500_endpoints_in_one_reload() {
    let dir = WorkDir::new();
    let configure = |secret: &str| {
        let table = |n| format!("[[endpoint]]\npath = \"/hooks/{n}\"\nsecret = \"{secret}\"\n");
        dir.write("pleo.toml", &(0..500).map(table).collect::<String>());
    };
    configure(SECRET);
    let mut server = dir.serve(ARGS, &[]);
    let mut sender = Sender::new(server.address(), 0);
    for (before, after) in [(SECRET, OTHER_SECRET), (OTHER_SECRET, SECRET)] {
        for path in ["/hooks/0", "/hooks/499"] {
            assert_eq!(
                sender.send(path, &[before]),
                "HTTP/1.1 204 No Content",
                "{path}"
            );
        }
        configure(after);
        assert!(
            server
                .signal_and_wait("-HUP", RELOADED)
                .contains("endpoints=500")
        );
        assert_eq!(
            sender.send("/hooks/250", &[before]),
            "HTTP/1.1 401 Unauthorized"
        );
        assert_eq!(
            sender.send("/hooks/250", &[after]),
            "HTTP/1.1 204 No Content"
        );
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

fn target() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// Receives a request, and leaves it without a response.
fn receive(target: &TcpListener) -> TcpStream {
    target.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let (mut stream, _) = loop {
        match target.accept() {
            Ok(accepted) => break accepted,
            Err(error) => assert!(Instant::now() < deadline, "no connection: {error}"),
        }
        thread::sleep(Duration::from_millis(5));
    };
    stream.set_nonblocking(false).unwrap();
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"{}") {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).unwrap();
        assert_ne!(read, 0, "the connection closed early");
        bytes.extend_from_slice(&chunk[..read]);
    }
    stream
}

fn respond(mut stream: TcpStream) {
    let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
    stream.write_all(answer).unwrap();
}
