//! Tests of `send`.

use crate::support::program::{ENV, OTHER_SECRET, WorkDir};
use crate::support::tls::certify;

/// Sends messages until `send` prints the outcome of an attempt. On a busy machine, the first attempt
/// may start too late. Returns the output of `send`.
fn sent_and_attempted(dir: &WorkDir, url: &str) -> String {
    let sent = (0..20).map(|_| dir.send(url, &[]).stdout);
    let mut attempted = sent.filter(|sent| !sent.contains("no attempt yet"));
    attempted.next().unwrap()
}

#[test]
fn prints_message_id_and_outcome() {
    let dir = WorkDir::new();
    let server = dir.serve(&["--exec", "true"], ENV);
    let sent = sent_and_attempted(&dir, &server.url);
    let (answer, message) = sent.split_once('\n').unwrap();
    assert_eq!(answer, "204 No Content");
    assert!(message.starts_with("message msg_"), "{sent}");
    assert!(message.ends_with(": done, 1 attempt\n"), "{sent}");
    // A folder without the inbox of the receiver.
    let other = WorkDir::new();
    let sent = other.send(&server.url, &["--id", "msg_2"]);
    assert_eq!(sent.stdout, "204 No Content\nmessage msg_2\n", "{sent:?}");
    // A file that `send` does not need.
    other.write("pleo.toml", "no TOML");
    let sent = other.send(&server.url, &["--id", "msg_4"]);
    assert_eq!(sent.stdout, "204 No Content\nmessage msg_4\n", "{sent:?}");
    let refused = dir.run_with(
        &["send", &server.url, "--id", "msg_3"],
        &[("PLEO_WEBHOOK_SECRET", OTHER_SECRET)],
        b"",
    );
    assert!(
        refused.stdout.ends_with("\nmessage msg_3: refused\n"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("another secret"), "{refused:?}");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn tells_duplicate_and_conflict_from_inbox() {
    let dir = WorkDir::new();
    let server = dir.serve(&["--exec", "true"], ENV);
    dir.write("body", "{\"a\":1}");
    let send = |body: &str| {
        dir.write("body", body);
        dir.send(&server.url, &["--id", "msg_1", "--body", "body"])
    };
    for (body, outcome) in [
        ("{\"a\":1}", None),
        ("{\"a\":1}", Some("stored before, so this is a duplicate; ")),
        (
            "{\"a\":2}",
            Some("stored before with another body, which is kept; "),
        ),
    ] {
        let sent = send(body);
        assert!(sent.stdout.starts_with("204 No Content\n"), "{sent:?}");
        let message = sent.stdout.lines().nth(1).unwrap();
        let text = format!("message msg_1: {}", outcome.unwrap_or_default());
        assert!(message.starts_with(&text), "{sent:?}");
        assert_eq!(
            message.contains("stored before"),
            outcome.is_some(),
            "{sent:?}"
        );
    }
    // Without the inbox, the answer reveals nothing.
    let other = WorkDir::new();
    let sent = other.send(&server.url, &["--id", "msg_1"]);
    assert_eq!(sent.stdout, "204 No Content\nmessage msg_1\n", "{sent:?}");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn prints_error_of_handler() {
    let dir = WorkDir::new();
    let server = dir.serve(&["--exec", "sh -c 'echo no ledger >&2; exit 3'"], ENV);
    let sent = sent_and_attempted(&dir, &server.url);
    let outcome = ": pending, 1 attempt, last error: ";
    assert!(sent.contains(outcome), "{sent}");
    assert!(sent.contains("no ledger"), "{sent}");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn suggests_starting_receiver() {
    let dir = WorkDir::new();
    let free = crate::support::program::free_address();
    let sent = dir.send(&format!("http://user:hunter2@{free}/x"), &[]);
    assert_eq!(sent.code, 1);
    assert!(sent.stderr.contains("`pleo-receiver serve`"), "{sent:?}");
    assert!(
        sent.stderr.contains(&format!("http://{free}/x")),
        "{sent:?}"
    );
    assert!(!sent.stderr.contains("hunter2"), "{sent:?}");
}

#[test]
fn suggests_http_url_for_server_without_tls() {
    let dir = WorkDir::new();
    let server = dir.serve(&[], ENV);
    let sent = dir.send(&server.url.replace("http:", "https:"), &[]);
    assert_eq!(sent.code, 1);
    assert!(sent.stderr.contains("give an `http` URL"), "{sent:?}");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn suggests_trusting_certificate() {
    let dir = WorkDir::new();
    certify(dir.path());
    let tls =
        "tls_listen = \"127.0.0.1:0\"\ntls_certificate = \"cert.pem\"\ntls_key = \"key.pem\"\n";
    dir.write("pleo.toml", tls);
    let mut server = dir.serve(&[], ENV);
    let line = server.wait_for_log("https://");
    let port = line.split("https://127.0.0.1:").nth(1).unwrap();
    let port = port.split('/').next().unwrap();
    let url = format!("https://localhost:{port}/webhooks/pleo");
    let refused = dir.send(&url, &[]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("set SSL_CERT_FILE"), "{refused:?}");
    assert!(
        !refused.stderr.contains("start the receiver"),
        "{refused:?}"
    );
    let env = [ENV, &[("SSL_CERT_FILE", "cert.pem")]].concat();
    let sent = dir.run_with(&["send", &url], &env, b"");
    assert_eq!((sent.code, &sent.stdout[..3]), (0, "204"), "{sent:?}");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn prints_rejection() {
    let dir = WorkDir::new();
    let server = dir.serve(&[], ENV);
    let sent = dir.run_with(
        &["send", &server.url],
        &[("PLEO_WEBHOOK_SECRET", OTHER_SECRET)],
        b"",
    );
    assert_eq!(sent.code, 1);
    assert!(
        sent.stdout
            .starts_with("401 Unauthorized {\"code\":\"signature_mismatch\""),
        "{sent:?}"
    );
    let url = server.url.clone();
    server.stop("-TERM");
    let sent = dir.run_with(&["send", &url], ENV, b"");
    assert!(
        sent.code == 1 && sent.stderr.contains("Connection refused"),
        "{sent:?}"
    );
}
