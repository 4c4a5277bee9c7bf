//! What a newcomer meets in the first minutes: help, lists and error messages.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::program::{CommandOutput, OTHER_SECRET, SECRET, WorkDir};

const ENV: &[(&str, &str)] = &[("PLEO_WEBHOOK_SECRET", SECRET)];

/// Runs `serve` with these arguments, which it refuses. Returns what it says.
fn refused(dir: &WorkDir, args: &[&str]) -> String {
    let args = [&["serve"], args].concat();
    let output = dir.run_with(&args, ENV, b"");
    assert_eq!(output.code, 2, "{output:?}");
    output.stderr
}

fn send(dir: &WorkDir, url: &str, more: &[&str]) -> CommandOutput {
    dir.run_with(&[&["send", url], more].concat(), ENV, b"")
}

/// Sends messages until the handler starts soon enough for `send` to tell its outcome, as it does
/// unless the machine is busy. Returns what `send` printed.
fn sent_and_attempted(dir: &WorkDir, url: &str) -> String {
    let sent = (0..20).map(|_| send(dir, url, &[]).stdout);
    let mut attempted = sent.filter(|sent| !sent.contains("no attempt yet"));
    attempted.next().unwrap()
}

#[test]
fn send_prints_message_id_and_outcome() {
    let dir = WorkDir::new();
    let server = dir.serve(&["--exec", "true"], ENV);
    let sent = sent_and_attempted(&dir, &server.url);
    let (answer, message) = sent.split_once('\n').unwrap();
    assert_eq!(answer, "204 No Content");
    assert!(message.starts_with("message msg_"), "{sent}");
    assert!(message.ends_with(": done, 1 attempt\n"), "{sent}");
    // The inbox of a receiver elsewhere is not here.
    let elsewhere = WorkDir::new();
    let sent = send(&elsewhere, &server.url, &["--id", "msg_2"]);
    assert_eq!(sent.stdout, "204 No Content\nmessage msg_2\n", "{sent:?}");
    // A file that `send` does not need.
    elsewhere.write("pleo.toml", "no TOML");
    let sent = send(&elsewhere, &server.url, &["--id", "msg_4"]);
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
fn send_shows_why_the_handler_failed() {
    let dir = WorkDir::new();
    let server = dir.serve(&["--exec", "sh -c 'echo no ledger >&2; exit 3'"], ENV);
    let sent = sent_and_attempted(&dir, &server.url);
    let outcome = ": pending, 1 attempt, last error: ";
    assert!(sent.contains(outcome), "{sent}");
    assert!(sent.contains("no ledger"), "{sent}");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn send_says_how_to_start_a_receiver() {
    let dir = WorkDir::new();
    let free = crate::support::program::free_address();
    let sent = send(&dir, &format!("http://user:hunter2@{free}/x"), &[]);
    assert_eq!(sent.code, 1);
    assert!(sent.stderr.contains("`pleo-receiver serve`"), "{sent:?}");
    assert!(
        sent.stderr.contains(&format!("http://{free}/x")),
        "{sent:?}"
    );
    assert!(!sent.stderr.contains("hunter2"), "{sent:?}");
}

#[test]
fn send_names_the_scheme_of_a_server_without_tls() {
    let dir = WorkDir::new();
    let server = dir.serve(&[], ENV);
    let sent = send(&dir, &server.url.replace("http:", "https:"), &[]);
    assert_eq!(sent.code, 1);
    assert!(sent.stderr.contains("give an `http` URL"), "{sent:?}");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn commands_without_a_secret_name_its_variable() {
    let dir = WorkDir::new();
    for command in ["serve", "send", "sign", "verify"] {
        let output = dir.run(&[command]);
        assert_eq!(output.code, 2, "{output:?}");
        let fix = "no signing secret: set PLEO_WEBHOOK_SECRET";
        assert!(output.stderr.contains(fix), "{command}: {output:?}");
    }
}

#[test]
fn serve_says_that_messages_stay_pending_without_a_handler() {
    let dir = WorkDir::new();
    let (code, log) = dir.serve(&[], ENV).stop("-TERM");
    assert_eq!(code, Some(0));
    assert!(log.contains("no handler; messages stay pending"), "{log}");
}

#[test]
fn send_says_how_to_trust_a_certificate() {
    let dir = WorkDir::new();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    dir.write("cert.pem", &made.cert.pem());
    dir.write("key.pem", &made.signing_key.serialize_pem());
    let tls =
        "tls_listen = \"127.0.0.1:0\"\ntls_certificate = \"cert.pem\"\ntls_key = \"key.pem\"\n";
    dir.write("pleo.toml", tls);
    let mut server = dir.serve(&[], ENV);
    let line = server.wait_for_log("https://");
    let port = line.split("https://127.0.0.1:").nth(1).unwrap();
    let port = port.split('/').next().unwrap();
    let url = format!("https://localhost:{port}/webhooks/pleo");
    let refused = send(&dir, &url, &[]);
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
fn every_command_reads_the_same_configuration() {
    let dir = WorkDir::new();
    let file = format!("secret = \"{SECRET}\"\ninbox = \"sqlite:books.db\"\n");
    dir.write("pleo.toml", &file);
    dir.write("other.toml", &file.replace("books", "other"));
    for (config, env, database) in [
        (&[][..], &[][..], "books.db"),
        (&["--config", "other.toml"], &[], "other.db"),
        (&[], &[("PLEO_CONFIG", "other.toml")], "other.db"),
        (
            &["--config", "pleo.toml"],
            &[("PLEO_CONFIG", "other.toml")],
            "books.db",
        ),
        (
            &["--config", "pleo.toml"],
            &[("PLEO_INBOX", "env.db")],
            "env.db",
        ),
        (
            &["--inbox", "flag.db"],
            &[("PLEO_INBOX", "env.db")],
            "flag.db",
        ),
    ] {
        let server = dir.serve(config, env);
        let with_secret = [env, ENV].concat();
        let sent = [&["send", &server.url, "--id", "msg_1"], config].concat();
        let sent = dir.run_with(&sent, &with_secret, b"");
        assert!(sent.stdout.contains("message msg_1: pending"), "{sent:?}");
        let list = dir.run_with(&[&["inbox", "list"], config].concat(), env, b"");
        assert!(
            list.stdout.contains("msg_1"),
            "{config:?} {env:?}: {list:?}"
        );
        assert_eq!(server.stop("-TERM").0, Some(0));
        assert!(dir.path().join(database).exists(), "{config:?} {env:?}");
        std::fs::remove_file(dir.path().join(database)).unwrap();
    }
    let output = dir.run(&["inbox", "list", "--config", "none.toml"]);
    assert_eq!(output.code, 2, "{output:?}");
    assert!(output.stderr.contains("none.toml"), "{output:?}");
}

#[test]
fn list_shows_endpoint_and_last_error_in_columns() {
    let dir = WorkDir::new();
    let started = Instant::now();
    let long = "msg_0123456789_0123456789_0123456789_0123456789";
    let server = dir.serve(&["--exec", "sh -c 'echo no ledger >&2; exit 3'"], ENV);
    send(&dir, &server.url, &["--id", "msg_1"]);
    send(
        &dir,
        &server.url,
        &["--id", long, "--event", "v1.vendor.created"],
    );
    let has_failed = |entry: &serde_json::Value| entry["last_error"].is_string();
    while !(dir.json(&["inbox", "list", "--json"]).iter()).all(has_failed) {
        assert!(started.elapsed() < Duration::from_secs(60), "no attempt");
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
    let table = dir.run(&["inbox", "list"]).stdout;
    let lines: Vec<_> = table.lines().collect();
    for (head, values) in [
        ("ENDPOINT", ["/webhooks/pleo", "/webhooks/pleo"]),
        ("WEBHOOK ID", ["msg_1 ", long]),
        ("EVENT TYPE", ["v1.export-job.created", "v1.vendor.created"]),
        ("LAST ERROR", ["", ""]),
    ] {
        let column = lines[0].find(head).unwrap();
        for (line, value) in lines[1..].iter().zip(values) {
            assert_eq!(&line[column - 1..column], " ", "{table}");
            assert!(line[column..].starts_with(value), "{head} of {table}");
        }
    }
    for line in &lines[1..] {
        assert!(line.ends_with("no ledger"), "{table}");
    }
}

#[test]
fn list_shows_the_newest_fifty_unless_told_otherwise() {
    let dir = WorkDir::new();
    let server = dir.serve(&[], ENV);
    let empty = dir.run(&["inbox", "list"]);
    assert_eq!(
        (empty.code, &*empty.stdout, &*empty.stderr),
        (0, "", "no messages\n")
    );
    let empty = dir.run(&["inbox", "list", "--json"]);
    assert_eq!((empty.code, &*empty.stdout, &*empty.stderr), (0, "", ""));
    let count = |args: &[&str]| dir.run(&[&["inbox", "list"], args].concat());
    // Each is stored at once; only the last ones are looked at.
    let elsewhere = WorkDir::new();
    for number in 0..52 {
        let sent = send(&elsewhere, &server.url, &["--id", &format!("msg_{number}")]);
        assert_eq!(sent.code, 0, "{sent:?}");
    }
    let newest = count(&[]);
    assert_eq!(newest.stdout.lines().count(), 51, "{newest:?}");
    assert!(!newest.stdout.contains("msg_1 "), "{newest:?}");
    assert!(
        newest.stdout.lines().last().unwrap().contains("msg_51 "),
        "{newest:?}"
    );
    assert!(newest.stderr.contains("only the newest 50"), "{newest:?}");
    for (args, lines) in [(&["--limit", "52"][..], 53), (&["--json"], 52)] {
        let all = count(args);
        assert_eq!(all.stdout.lines().count(), lines, "{all:?}");
        assert_eq!(all.stderr, "");
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn inbox_may_be_a_file_name() {
    let dir = WorkDir::new();
    let server = dir.serve(&["--inbox", "books.db"], ENV);
    send(&dir, &server.url, &["--id", "msg_1"]);
    let listed = dir.json(&["inbox", "list", "--json", "--inbox", "books.db"]);
    assert_eq!(listed[0]["webhook_id"], "msg_1");
    assert_eq!(server.stop("-TERM").0, Some(0));
    let missing = dir.run(&["inbox", "list", "--inbox", "boks.db"]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("`boks.db`"), "{missing:?}");
    assert!(missing.stderr.contains("serve` creates it"), "{missing:?}");
}

#[test]
fn wrong_listen_says_what_to_give() {
    let dir = WorkDir::new();
    let said = refused(&dir, &["--listen", "no-such-host:8787"]);
    assert!(said.contains("give an IP address and a port"), "{said}");
    // An address of the documentation range is nobody's.
    let said = refused(&dir, &["--listen", "192.0.2.1:8787"]);
    assert!(said.contains("an address of this machine"), "{said}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let said = refused(&dir, &["--listen", &address.to_string()]);
    let port = format!("another program listens on port {}", address.port());
    assert!(said.contains(&port), "{said}");
    dir.write("pleo.toml", "listen = \"localhost\"\n");
    let said = refused(&dir, &[]);
    assert!(said.contains("pleo.toml, line 1, key `listen`"), "{said}");
    assert!(said.contains("give an IP address and a port"), "{said}");
}

#[test]
fn missing_configuration_says_how_to_name_another() {
    let dir = WorkDir::new();
    let said = refused(&dir, &["--config", "plea.toml"]);
    assert!(
        said.contains("cannot read the configuration `plea.toml`"),
        "{said}"
    );
    assert!(said.contains("name another with `--config`"), "{said}");
}

#[test]
fn missing_handler_program_is_reported() {
    let dir = WorkDir::new();
    dir.write("not-executable", "");
    for (program, is_missing) in [
        ("./not-there", true),
        ("not-there-either", true),
        ("./not-executable", true),
        ("true", false),
        ("/bin/sh", false),
    ] {
        let server = dir.serve(&["--exec", program], ENV);
        let (code, log) = server.stop("-TERM");
        assert_eq!(code, Some(0));
        let said = format!("correct `exec`, or install it program=\"{program}\"");
        assert_eq!(log.contains(&said), is_missing, "{log}");
    }
}

#[test]
fn certificate_of_an_authority_is_reported() {
    let dir = WorkDir::new();
    for is_authority in [true, false] {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        if is_authority {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        dir.write("cert.pem", &certificate.pem());
        dir.write("key.pem", &key.serialize_pem());
        let args = [
            "--tls-listen",
            "127.0.0.1:0",
            "--tls-certificate",
            "cert.pem",
        ];
        let server = dir.serve(&[&args[..], &["--tls-key", "key.pem"]].concat(), ENV);
        let (code, log) = server.stop("-TERM");
        assert_eq!(code, Some(0));
        assert_eq!(
            log.contains("basicConstraints=critical,CA:FALSE"),
            is_authority,
            "{log}"
        );
    }
}

#[test]
fn variables_without_effect_are_reported() {
    let dir = WorkDir::new();
    dir.write("other", OTHER_SECRET);
    dir.write(
        "pleo.toml",
        "[[endpoint]]\npath = \"/a\"\nsecret = \"file:other\"\n",
    );
    let env = [ENV, &[("PLEO_TOLERANCE", "60")]].concat();
    let server = dir.serve(&[], &env);
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    let reported = |variable| {
        let field = format!("variable=\"{variable}\"");
        let mut lines = log.lines();
        lines.any(|line| line.contains("variable ignored") && line.contains(&field))
    };
    assert!(
        reported("PLEO_WEBHOOK_SECRET") && reported("PLEO_TOLERANCE"),
        "{log}"
    );
    assert!(!reported("PLEO_PATH"), "{log}");
}

#[test]
fn error_names_the_key_that_is_in_the_file() {
    let dir = WorkDir::new();
    for key in ["secret", "secrets"] {
        for (file, place_of_key) in [
            (
                format!("{key} = \"whsec_x\"\n"),
                format!("`{key}` in pleo.toml"),
            ),
            (
                format!("[[endpoint]]\npath = \"/a\"\n{key} = [\"whsec_x\"]\n"),
                format!("number 1 (`/a`), key `{key}`"),
            ),
        ] {
            dir.write("pleo.toml", &file);
            let output = dir.run(&["serve"]);
            assert_eq!(output.code, 2, "{output:?}");
            assert!(output.stderr.contains(&place_of_key), "{output:?}");
        }
    }
    let both = format!("secret = \"{SECRET}\"\nsecrets = \"{OTHER_SECRET}\"\n");
    for file in [both.clone(), format!("[[endpoint]]\npath = \"/a\"\n{both}")] {
        dir.write("pleo.toml", &file);
        let output = dir.run(&["serve"]);
        assert!(output.stderr.contains("keep one of them"), "{output:?}");
    }
}

#[test]
fn reload_names_only_the_changed_keys() {
    let dir = WorkDir::new();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    for name in ["a.pem", "b.pem"] {
        dir.write(name, &made.cert.pem());
    }
    dir.write("key.pem", &made.signing_key.serialize_pem());
    let configure = |certificate: &str| {
        let tls = format!(
            "secret = \"{SECRET}\"\ntls_listen = \"127.0.0.1:0\"\n\
             tls_certificate = \"{certificate}\"\ntls_key = \"key.pem\"\n"
        );
        dir.write("pleo.toml", &tls);
    };
    configure("a.pem");
    let mut server = dir.serve(&[], &[]);
    configure("b.pem");
    server.signal_and_wait("-HUP", "configuration reloaded");
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    let changed: Vec<_> = log.lines().filter(|line| line.contains("key=")).collect();
    assert_eq!(changed.len(), 1, "{log}");
    assert!(changed[0].ends_with("key=\"tls_certificate\""), "{log}");
}

#[test]
fn help_fits_the_terminal_and_has_examples() {
    let dir = WorkDir::new();
    let commands: &[&[&str]] = &[
        &[],
        &["demo"],
        &["serve"],
        &["inbox"],
        &["inbox", "list"],
        &["inbox", "show"],
        &["inbox", "replay"],
        &["inbox", "prune"],
        &["inbox", "tail"],
        &["sign"],
        &["send"],
        &["verify"],
        &["setup"],
        &["doctor"],
        &["catch-up"],
        &["subscriptions"],
    ];
    for command in commands {
        let help = dir.run_with(
            &[command, &["--help"][..]].concat(),
            &[("COLUMNS", "80")],
            b"",
        );
        assert_eq!(help.code, 0, "{help:?}");
        assert!(help.stdout.contains("Example"), "{}", help.stdout);
        for line in help.stdout.lines() {
            assert!(line.chars().count() <= 80, "{command:?}: {line}");
        }
    }
    let serve = dir.run(&["serve", "--help"]).stdout;
    for heading in ["Network:", "Endpoint:", "Handler:", "Operation:"] {
        assert!(serve.contains(heading), "{serve}");
    }
}

#[test]
fn last_line_of_the_demo_is_a_command_that_works_anywhere() {
    use std::io::{BufRead, BufReader};
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
    // Nothing came after the command but the delivery that it sent.
    let received = stdout.next().unwrap().unwrap();
    assert!(received.starts_with("received msg_"), "{received}");
    demo.kill().unwrap();
    demo.wait().unwrap();
}
