//! The program reads its configuration again while it serves.

#![cfg(unix)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::program::{OTHER, Place, SECRET};
use pleo_receiver::verify::{Secret, unix_now};

const AGAIN: &str = "configuration reloaded";
const ARGS: &[&str] = &["--config", "pleo.toml"];

/// A sender that keeps its connection, and signs with whatever secrets it has just then.
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
fn secrets_rotate_under_load_without_a_refusal() {
    let place = Place::new();
    let path = "/webhooks/pleo";
    let configure = |secrets: &[&str]| {
        let file = "[[endpoint]]\npath = \"/webhooks/pleo\"\nsecrets = [\"file:secrets\"]\n";
        place.write("pleo.toml", file);
        place.write("secrets", &(secrets.join("\n") + "\n"));
    };
    configure(&[SECRET]);
    let mut server = place.serve(ARGS, &[]);
    let (signing, done) = (Mutex::new(vec![SECRET]), AtomicBool::new(false));
    let accepted: [AtomicUsize; 4] = Default::default();
    let more = |what: &str| {
        for accepted in &accepted {
            // What was on its way is answered by then, and a lot more after it.
            let enough = accepted.load(Ordering::Relaxed) + 50;
            while accepted.load(Ordering::Relaxed) < enough {
                assert!(!done.load(Ordering::Relaxed), "a delivery failed: {what}");
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
        more("before");
        configure(&[SECRET, OTHER]);
        server.signal("-HUP", AGAIN);
        more("the receiver knows both");
        *signing.lock().unwrap() = vec![OTHER, SECRET];
        more("the sender signs with both");
        *signing.lock().unwrap() = vec![OTHER];
        more("the sender signs with the new one");
        configure(&[OTHER]);
        server.signal("-HUP", AGAIN);
        more("the receiver forgot the old one");
        done.store(true, Ordering::Relaxed);
    });
    let old = Sender::new(server.address(), 9).send(path, &[SECRET]);
    assert_eq!(old, "HTTP/1.1 401 Unauthorized");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

/// Ends the others where one of them fails.
struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn endpoints_come_and_go_while_a_connection_goes_on() {
    let place = Place::new();
    let configure = |paths: &[&str]| {
        let table =
            |path: &&str| format!("[[endpoint]]\npath = \"{path}\"\nsecret = \"{SECRET}\"\n");
        place.write("pleo.toml", &paths.iter().map(table).collect::<String>());
    };
    configure(&["/a", "/b"]);
    let mut server = place.serve(ARGS, &[]);
    let mut sender = Sender::new(server.address(), 0);
    let mut assert_answers = |expected: [&str; 3]| {
        for (path, expected) in ["/a", "/b", "/c"].into_iter().zip(expected) {
            let answer = sender.send(path, &[SECRET]);
            assert_eq!(answer, format!("HTTP/1.1 {expected}"), "{path}");
        }
    };
    assert_answers(["204 No Content", "204 No Content", "404 Not Found"]);
    configure(&["/b", "/c"]);
    let line = server.signal("-HUP", AGAIN);
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
            "number 1 has the name `a` too",
        ),
        (
            "[[endpoint]]\npath = \"/a\"\nsecret = \"env:NOT_THERE\"\n",
            "NOT_THERE is not set",
        ),
    ] {
        place.write("pleo.toml", wrong);
        let line = server.signal("-HUP", "configuration not reloaded");
        assert!(line.contains(why), "{why:?} is not in {line}");
        assert!(!line.contains("hunter2"), "{line}");
        assert_answers(["404 Not Found", "204 No Content", "204 No Content"]);
    }
    std::fs::remove_file(place.path().join("pleo.toml")).unwrap();
    let line = server.signal("-HUP", "configuration not reloaded");
    assert!(line.contains("cannot read the configuration"), "{line}");
    assert_answers(["404 Not Found", "204 No Content", "204 No Content"]);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn nothing_of_a_configuration_that_is_wrong_in_one_place_is_taken() {
    let place = Place::new();
    let renew = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        place.write("cert.pem", &made.cert.pem());
        place.write("key.pem", &made.signing_key.serialize_pem());
    };
    let configure = |endpoints: &str| {
        let tls = "tls_listen = \"127.0.0.1:0\"\ntls_certificate = \"cert.pem\"\n\
                   tls_key = \"key.pem\"\n";
        place.write("pleo.toml", &format!("{tls}{endpoints}"));
    };
    let table = |keys: &str| format!("[[endpoint]]\nsecret = \"{SECRET}\"\n{keys}\n");
    renew();
    configure(&table("path = \"/a\""));
    let mut server = place.serve(ARGS, &[]);
    let mut sender = Sender::new(server.address(), 0);

    place.write("cert.pem", "none");
    let same_name = table("path = \"/b\"\nname = \"/c\"") + &table("path = \"/c\"");
    for (endpoints, why) in [
        // The certificate is looked at only where all else is right.
        (same_name, "number 1 has the name `/c` too"),
        (table("path = \"/b\""), "TLS: cert.pem holds no PEM"),
    ] {
        configure(&endpoints);
        let line = server.signal("-HUP", "configuration not reloaded");
        assert!(line.contains(why), "{why:?} is not in {line}");
        for (path, status) in [("/a", "204"), ("/b", "404"), ("/c", "404")] {
            let answer = sender.send(path, &[SECRET]);
            assert!(answer.contains(status), "{path}: {answer}");
        }
    }
    renew();
    server.signal("-HUP", AGAIN);
    assert!(sender.send("/b", &[SECRET]).contains("204"));
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn what_only_a_restart_changes_is_named() {
    let place = Place::new();
    let secret = format!("secret = \"{SECRET}\"\n");
    place.write("pleo.toml", &secret);
    let mut server = place.serve(ARGS, &[]);
    let changed = "metrics = \"127.0.0.1:1\"\ninbox = \"sqlite:other.db\"\n\
                   trusted_proxies = [\"10.0.0.0/8\"]\n[limits]\ngrace = \"1s\"\n";
    place.write("pleo.toml", &(secret + changed));
    server.signal("-HUP", AGAIN);
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    for key in ["metrics", "inbox", "trusted_proxies", "limits.grace"] {
        let line = format!("restart the receiver to apply it key=\"{key}\"");
        assert!(log.contains(&line), "{log}");
    }
    assert!(!log.contains("key=\"listen\""), "{log}");
    assert!(!place.path().join("other.db").exists());
}

#[test]
fn the_log_is_as_loud_as_the_new_configuration_says() {
    let place = Place::new();
    // What is refused is logged at level `info`.
    let configure =
        |more: &str| place.write("pleo.toml", &format!("secret = \"{SECRET}\"\n{more}"));
    configure("log = \"info\"\n");
    let mut server = place.serve(ARGS, &[]);
    let mut sender = Sender::new(server.address(), 0);
    let mut refuse = || assert!(sender.send("/nowhere", &[SECRET]).contains("404"));
    refuse();
    // So is that the file was read again, but not what only a restart changes.
    configure("log = \"warn\"\nmetrics = \"127.0.0.1:1\"\n");
    server.signal("-HUP", "restart the receiver to apply it key=\"metrics\"");
    refuse();
    configure("log = \"loud\"\n");
    let line = server.signal("-HUP", "configuration not reloaded");
    assert!(line.contains("pleo.toml, line 2, key `log`"), "{line}");
    refuse();
    configure("log = \"info\"\n");
    server.signal("-HUP", AGAIN);
    refuse();
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    assert_eq!(log.matches("rejected").count(), 2, "{log}");
}

#[test]
fn a_level_that_was_told_nearer_stays_at_a_reload() {
    let place = Place::new();
    let quiet = format!("secret = \"{SECRET}\"\nlog = \"off\"\n");
    place.write("pleo.toml", &quiet);
    for (more, env) in [
        (&["--log", "info"][..], &[][..]),
        (&[], &[("PLEO_LOG", "info")]),
        (&["--log", "info"], &[("PLEO_LOG", "off")]),
    ] {
        let mut server = place.serve(&[ARGS, more].concat(), env);
        server.signal("-HUP", AGAIN);
        assert_eq!(server.stop("-TERM").0, Some(0));
    }
}

#[test]
fn messages_go_where_the_new_configuration_says() {
    let place = Place::new();
    let (old, new) = (target(), target());
    let configure = |target: &TcpListener| {
        let url = target.local_addr().unwrap();
        place.write(
            "pleo.toml",
            &format!("secret = \"{SECRET}\"\nforward = \"http://{url}/\"\n"),
        );
    };
    configure(&old);
    let mut server = place.serve(ARGS, &[]);
    let mut sender = Sender::new(server.address(), 0);
    // The old target has one message in hand while the configuration changes.
    assert_eq!(
        sender.send("/webhooks/pleo", &[SECRET]),
        "HTTP/1.1 204 No Content"
    );
    let in_progress = take(&old);
    configure(&new);
    server.signal("-HUP", "handler changed");
    assert_eq!(
        sender.send("/webhooks/pleo", &[SECRET]),
        "HTTP/1.1 204 No Content"
    );
    finish(take(&new));
    finish(in_progress);
    assert_eq!(server.stop("-TERM").0, Some(0));
    let listed = place.json(&["inbox", "list", "--json"]);
    let is_done = |entry: &serde_json::Value| entry["state"] == "done" && entry["attempts"] == 1;
    assert!(
        listed.len() == 2 && listed.iter().all(is_done),
        "{listed:?}"
    );
}

#[test]
fn hundreds_of_endpoints_change_at_once() {
    let place = Place::new();
    let configure = |secret: &str| {
        let table = |n| format!("[[endpoint]]\npath = \"/hooks/{n}\"\nsecret = \"{secret}\"\n");
        place.write("pleo.toml", &(0..500).map(table).collect::<String>());
    };
    configure(SECRET);
    let mut server = place.serve(ARGS, &[]);
    let mut sender = Sender::new(server.address(), 0);
    for (before, after) in [(SECRET, OTHER), (OTHER, SECRET)] {
        for path in ["/hooks/0", "/hooks/499"] {
            assert_eq!(
                sender.send(path, &[before]),
                "HTTP/1.1 204 No Content",
                "{path}"
            );
        }
        configure(after);
        assert!(server.signal("-HUP", AGAIN).contains("endpoints=500"));
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

/// Takes one request, and leaves it unanswered.
fn take(target: &TcpListener) -> TcpStream {
    target.set_nonblocking(true).unwrap();
    let patience = Instant::now() + Duration::from_secs(20);
    let (mut stream, _) = loop {
        match target.accept() {
            Ok(accepted) => break accepted,
            Err(error) => assert!(Instant::now() < patience, "nothing comes: {error}"),
        }
        thread::sleep(Duration::from_millis(5));
    };
    stream.set_nonblocking(false).unwrap();
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"{}") {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).unwrap();
        assert_ne!(read, 0, "closed early");
        bytes.extend_from_slice(&chunk[..read]);
    }
    stream
}

fn finish(mut stream: TcpStream) {
    let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
    stream.write_all(answer).unwrap();
}
