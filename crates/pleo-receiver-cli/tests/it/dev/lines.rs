//! The lines of `dev`, without a terminal.

use std::net::TcpListener;

use axum::Router;
use axum::http::StatusCode;

use super::session::{Page, Session, request, temporary_files};
use crate::support::program::{OTHER_SECRET, WorkDir};

#[test]
fn shows_attempt_with_escaped_error_and_rejection_with_advice() {
    let dir = WorkDir::new();
    dir.write(
        "fail",
        "printf 'unknown \\033[2Jaccount 4711' >&2\nexit 1\n",
    );
    let mut session = Session::start(&dir, &["--exec", "sh fail"], &[]);
    let (url, sandbox) = (session.field("receiver"), session.field("sandbox"));
    assert!(request("GET", &sandbox).contains("/sandbox/export"));
    let page = request("GET", &session.field("page"));
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");

    let exported = request("POST", &format!("{sandbox}sandbox/export"));
    assert!(exported.starts_with("HTTP/1.1 200 "), "{exported}");
    let shown = session.wait_for("4711");
    assert!(
        shown.contains("  204 stored     v1.export-job.created "),
        "{shown}"
    );
    assert!(shown.contains("  retry          attempt 1, "), "{shown}");
    assert!(shown.contains(r"unknown \u{1b}[2Jaccount 4711"), "{shown}");

    let refused = dir.send_with(OTHER_SECRET, &url, &["--id", "msg_forged"]);
    assert!(refused.starts_with("401"), "{refused}");
    let shown = session.wait_for("changed in transit");
    let line = shown.lines().find(|line| line.contains(" 401 ")).unwrap();
    assert!(
        line.contains("  401 rejected   signature_mismatch "),
        "{line}"
    );
    assert!(line.ends_with("…g_forged"), "{line}");
    request("POST", &url.replace("/webhooks/pleo", "/elsewhere"));
    let shown = session.wait_for("no_such_path /elsewhere");
    assert!(
        session
            .wait_for(&format!("deliver to\n          {url}"))
            .len()
            >= shown.len()
    );

    let (code, log) = session.stop("-TERM");
    assert_eq!((code, &*log), (Some(0), ""));
    let shown = session.printed();
    assert!(!shown.contains('\x1b'), "{shown}");
    for line in shown.lines().filter(|line| !line.starts_with("inbox")) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert_eq!(temporary_files(&dir), [""; 0]);
}

#[test]
fn records_without_handler_and_dispatches_with_one() {
    let dir = WorkDir::new();
    let keep = ["--keep", "box"];
    let mut session = Session::start(&dir, &keep, &[]);
    assert!(session.printed().contains("none, so messages stay pending"));
    request(
        "POST",
        &format!("{}sandbox/vendor", session.field("sandbox")),
    );
    session.wait_for("204 stored     v1.vendor.created");
    assert_eq!(session.stop("-INT").0, Some(0));
    let inbox = ["inbox", "list", "--inbox", "box/inbox.db", "--json"];
    assert_eq!(dir.json(&inbox)[0]["state"], "pending");
    let mut session = Session::start(&dir, &[&keep[..], &["--exec", "true"]].concat(), &[]);
    session.wait_for("  done           attempt 1, ");
    assert_eq!(session.stop("-TERM").0, Some(0));
    assert_eq!(dir.json(&inbox)[0]["state"], "done");
    assert_eq!(temporary_files(&dir), [""; 0]);
}

#[test]
fn busy_default_ports_do_not_stop_it() {
    let dir = WorkDir::new();
    // Another program may have them: they are busy too then.
    let busy = [8787, 8788, 9187].map(|port| TcpListener::bind(("127.0.0.1", port)));
    let mut command = dir.command(&["dev"]);
    let mut child = command.spawn().unwrap();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut shown = String::new();
    while !shown.contains("\nend ") {
        let read = std::io::BufRead::read_line(&mut stdout, &mut shown).unwrap();
        assert_ne!(read, 0, "{shown}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for name in ["receiver", "sandbox ", "page "] {
        let line = shown.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.contains("http://127.0.0.1:"), "{shown}");
    }
    for port in [8787, 8788, 9187] {
        assert!(!shown.contains(&format!(":{port}/")), "{shown}");
        let note = format!("\n          port {port} is busy\n");
        assert!(shown.contains(&note), "{shown}");
    }
    // A port that is asked for is not replaced by another.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let refused = dir.run(&["dev", "--listen", &address]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("another program listens"),
        "{refused:?}"
    );
    drop(busy);
}

#[test]
fn refuses_wrong_arguments_with_their_fix() {
    let dir = WorkDir::new();
    for (args, part) in [
        (
            &["--admin", "0.0.0.0:0"][..],
            "give an address of this machine",
        ),
        (
            &["--listen", "192.0.2.1:8787"],
            "`--listen`: the sandbox delivers only to this machine",
        ),
        (&["--url", "example.com/pleo"], "https://host/path"),
        (
            &[
                "--url",
                "https://example.com/pleo",
                "--listen",
                "127.0.0.1:0",
            ],
            "PLEO_API_TOKEN",
        ),
        (
            &["--exec", "a", "--forward", "http://b/"],
            "cannot be used with",
        ),
        (&["--forward", "http://b b/"], "`--forward`"),
    ] {
        let output = dir.run(&[&["dev"], args].concat());
        assert_eq!(output.code, 2, "{args:?}: {output:?}");
        assert!(output.stderr.contains(part), "{part}: {output:?}");
    }
}

#[test]
fn shows_handlers_that_the_end_stops() {
    let dir = WorkDir::new();
    dir.write("slow", "touch started\nexec sleep 600\n");
    let mut session = Session::start(&dir, &["--exec", "sh slow"], &[]);
    let export = format!("{}sandbox/export", session.field("sandbox"));
    request("POST", &export);
    while !dir.path().join("started").exists() {
        std::thread::yield_now();
    }
    let (code, log) = session.stop("-TERM");
    assert_eq!((code, &*log), (Some(0), ""));
    session.wait_for("  stopped        attempt 1, ");
}

#[test]
fn subscribes_loopback_address_if_it_listens_on_all() {
    for (listen, host) in [("0.0.0.0:0", "127.0.0.1"), ("[::]:0", "[::1]")] {
        if TcpListener::bind(listen).is_err() {
            // This machine has no IPv6.
            continue;
        }
        let dir = WorkDir::new();
        let mut session = Session::start(&dir, &["--listen", listen], &[]);
        let url = session.field("receiver");
        assert!(url.starts_with(&format!("http://{host}:")), "{url}");
        let export = format!("{}sandbox/export", session.field("sandbox"));
        request("POST", &export);
        session.wait_for("204 stored");
        assert_eq!(session.stop("-TERM").0, Some(0));
    }
}

#[test]
fn shows_pause_replay_and_resume_of_page() {
    let dir = WorkDir::new();
    let mut session = Session::start(&dir, &["--exec", "true"], &[]);
    let page = Page::new(&session);
    let endpoint = "endpoint=/webhooks/pleo";
    page.post("/pause", endpoint);
    session.wait_for("  paused\n");
    let sandbox = session.field("sandbox");
    let exported = request("POST", &format!("{sandbox}sandbox/export"));
    let id = exported.split("\"messages\":[\"").nth(1).unwrap();
    let (id, _) = id.split_once('"').unwrap();
    session.wait_for("204 stored");
    request("POST", &format!("{sandbox}sandbox/messages/{id}/resend"));
    session.wait_for("204 duplicate");
    page.post("/resume", endpoint);
    session.wait_for("  resumed\n");
    session.wait_for("  done           attempt 1, ");
    page.post("/replay", &format!("{endpoint}&id={id}"));
    let shown = session.wait_for("  replay         1 message ");
    let replay = shown
        .lines()
        .find(|line| line.contains("  replay "))
        .unwrap();
    assert!(replay.ends_with(&id[id.len() - 8..]), "{shown}");
    assert_eq!(session.stop("-TERM").0, Some(0));
}

#[test]
fn shows_path_of_forward_and_hides_its_secrets() {
    let dir = WorkDir::new();
    let url = "http://ann:s3cret@127.0.0.1:9/hooks/pleo?key=k3y";
    let mut session = Session::start(&dir, &["--forward", url], &[]);
    let shown = session.printed();
    let handler = "handler   forward http://127.0.0.1:9/hooks/pleo?…\n";
    assert!(shown.contains(handler), "{shown}");
    assert!(
        !shown.contains("s3cret") && !shown.contains("k3y"),
        "{shown}"
    );
    assert_eq!(session.stop("-TERM").0, Some(0));
}

#[test]
fn says_how_to_start_program_of_this_folder() {
    let dir = WorkDir::new();
    dir.write("book.sh", "#!/bin/sh\n");
    for (exec, fix) in [
        ("book.sh", "book.sh: not in PATH: write ./book.sh "),
        (
            "./book.sh",
            "./book.sh: not executable: chmod +x ./book.sh)",
        ),
        ("./bock.sh", "./bock.sh: not found)"),
    ] {
        let mut session = Session::start(&dir, &["--exec", exec], &[]);
        let shown = session.printed();
        assert!(shown.contains(fix), "{shown}");
        assert_eq!(session.stop("-TERM").0, Some(0));
    }
}

#[test]
fn shows_output_of_handler() {
    let dir = WorkDir::new();
    let job = "printf 'booked\\n\\033[31mtwice\\033[0m\\n'; echo careful >&2; exit $(cat code)\n";
    dir.write("book", job);
    for (code, lines) in [
        ("0", &["booked", "twice", "careful"][..]),
        (
            "65",
            &[
                "command failed: exit status: 65: careful",
                "booked",
                "twice",
            ],
        ),
    ] {
        dir.write("code", code);
        let mut session = Session::start(&dir, &["--exec", "sh book"], &[]);
        let export = format!("{}sandbox/export", session.field("sandbox"));
        request("POST", &export);
        let lines: Vec<_> = lines
            .iter()
            .map(|line| format!("\n          {line}"))
            .collect();
        session.wait_for(&format!("{}\n", lines.concat()));
        assert_eq!(session.stop("-TERM").0, Some(0));
    }
}

#[test]
fn shows_body_of_answer_that_is_no_success() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
    let listener = listener.unwrap();
    let url = format!("http://{}/pleo", listener.local_addr().unwrap());
    let answer = (
        StatusCode::UNPROCESSABLE_ENTITY,
        "unknown account\n  4711\n",
    );
    let target = Router::new().fallback(async move || answer);
    runtime.spawn(async { axum::serve(listener, target).await });
    let dir = WorkDir::new();
    let mut session = Session::start(&dir, &["--forward", &url], &[]);
    request(
        "POST",
        &format!("{}sandbox/export", session.field("sandbox")),
    );
    let body = "answered 422 Unprocessable Entity\n          unknown account\n            4711\n";
    session.wait_for(body);
    assert_eq!(session.stop("-TERM").0, Some(0));
}
