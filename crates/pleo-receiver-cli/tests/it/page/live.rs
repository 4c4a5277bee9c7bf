//! Tests of the live view.

use rusqlite::Connection;

use super::client::{Client, READ_TOKEN, TOKEN, serve};
use crate::support::program::{SECRET, WorkDir};

const PATH: &str = "/messages/live";

#[test]
fn sends_new_and_changed_rows() {
    let dir = WorkDir::new();
    let handler = "exec = [\"sh\", \"-c\", \"until test -e go; do sleep 0.05; done\"]\n";
    let server = serve(&dir, handler);
    let send = |id: &str| {
        assert!(
            dir.send(&server.url, &["--id", id])
                .stdout
                .starts_with("204")
        )
    };
    send("msg_old");
    let client = Client::signed_in(&server, READ_TOKEN);
    let mut events = client.open(PATH);
    assert!(events.wait_for("200 OK").is_some());
    assert!(events.wait_for("text/event-stream").is_some());
    assert!(events.wait_for("msg_old").is_some());
    send("msg_new");
    let row = events.wait_for("msg_new").unwrap();
    assert!(row.starts_with("data: <tr id=\"message-"), "{row}");
    assert!(!row.contains(">done<"), "{row}");
    dir.write("go", "");
    for _ in 0..2 {
        assert!(events.wait_for(">done<").is_some());
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn sends_older_rows_that_enter_or_leave_filter() {
    let dir = WorkDir::new();
    let server = serve(&dir, "");
    for id in ["msg_a", "msg_b"] {
        let sent = dir.send(&server.url, &["--id", id]);
        assert!(sent.stdout.starts_with("204"));
    }
    let file = Connection::open(dir.path().join("pleo-inbox.db")).unwrap();
    let set_state = |id: &str, state: &str| {
        let update = "UPDATE message SET state = ?1 WHERE webhook_id = ?2";
        assert_eq!(file.execute(update, [state, id]).unwrap(), 1);
    };
    set_state("msg_b", "dead");
    let client = Client::signed_in(&server, TOKEN);
    let mut events = client.open(&format!("{PATH}?state=dead"));
    assert!(events.wait_for("msg_b").is_some());
    set_state("msg_a", "dead");
    assert!(events.wait_for("msg_a").unwrap().contains(">dead<"));
    set_state("msg_b", "pending");
    assert!(events.wait_for("msg_b").unwrap().contains(">pending<"));
    set_state("msg_b", "done");
    assert!(events.wait_for("msg_b").unwrap().contains(">done<"));
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn sends_only_rows_of_filter_as_single_lines() {
    let dir = WorkDir::new();
    let server = serve(&dir, "");
    let client = Client::signed_in(&server, TOKEN);
    let mut events = client.open(&format!("{PATH}?type=v1.vendor.created"));
    assert!(events.wait_for("200 OK").is_some());
    dir.write(
        "other",
        "{\"eventType\":\"a\\r\\n\\nevent: row\",\"data\":{}}",
    );
    let other = ["--id", "msg_other", "--body", "other"];
    assert!(
        dir.send_with(SECRET, &server.url, &other)
            .starts_with("204")
    );
    let vendor = ["--id", "msg_vendor", "--event", "v1.vendor.created"];
    assert!(
        dir.send_with(SECRET, &server.url, &vendor)
            .starts_with("204")
    );
    let row = events.wait_for("data: ").unwrap();
    assert!(
        row.contains("msg_vendor") && row.ends_with("</tr>\n"),
        "{row}"
    );
    let mut all = client.open(PATH);
    let row = all.wait_for("msg_other").unwrap();
    assert!(
        row.starts_with("data: ") && row.ends_with("</tr>\n"),
        "{row}"
    );
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn limits_streams_and_ends_them_with_their_session() {
    let dir = WorkDir::new();
    let server = serve(&dir, "");
    let client = Client::signed_in(&server, TOKEN);
    let mut streams: Vec<_> = (0..8).map(|_| client.open(PATH)).collect();
    for stream in &mut streams {
        assert!(stream.wait_for("200 OK").is_some());
    }
    let mut refused = client.open(PATH);
    assert!(refused.wait_for("503 Service Unavailable").is_some());
    assert_eq!(client.get("/livez").status, 200);
    assert_eq!(client.get("/").status, 200);
    client.post("/sign-out", &[]);
    let start = std::time::Instant::now();
    for stream in &mut streams {
        assert_eq!(stream.wait_for("never"), None);
    }
    // Sooner than their time is over.
    assert!(start.elapsed() < std::time::Duration::from_secs(20));
    let client = Client::signed_in(&server, TOKEN);
    assert!(client.open(PATH).wait_for("200 OK").is_some());
    assert_eq!(server.stop("-TERM").0, Some(0));
}
