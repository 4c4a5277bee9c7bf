//! Tests of replays of what a filter shows.

use rusqlite::Connection;

use super::client::{Client, TOKEN, serve};
use crate::support::program::{SECRET, WorkDir};

/// Returns a hidden field of a page's form.
pub(super) fn field<'a>(page: &'a str, name: &str) -> &'a str {
    let start = format!("name=\"{name}\" value=\"");
    let value = page.split(&start).nth(1).unwrap();
    value.split('"').next().unwrap()
}

#[test]
fn replays_what_filter_shows_once() {
    let dir = WorkDir::new();
    let server = serve(&dir, "exec = [\"sh\", \"-c\", \"exit 65\"]\n");
    let client = Client::signed_in(&server, TOKEN);
    let vendor = ["--event", "v1.vendor.created"];
    for (id, more) in [("a", &[][..]), ("b", &[]), ("c", &[]), ("d", &vendor)] {
        let args = [&["--id", id], more].concat();
        dir.deliver(&server.url, &args);
    }
    let filter = "state=dead&type=v1.export-job.created";
    let confirm = client.wait_for(&format!("/replays/new?{filter}"), "3 messages");
    // It arrives after the count.
    dir.deliver(&server.url, &["--id", "e"]);
    let fields = [("question", field(&confirm.body, "question"))];
    assert_eq!(client.post("/replays", &fields).redirect(), "/replays");
    let page = client.wait_for("/replays", "done 3 replayed of").text();
    assert!(page.contains("by admin_token"), "{page}");
    for (id, attempts) in [("a", 2), ("b", 2), ("c", 2), ("d", 1), ("e", 1)] {
        let path = format!("/message?endpoint=/webhooks/pleo&id={id}");
        let page = client.wait_for(&path, "dead Message id");
        let count = page.body.matches("exit status: 65").count();
        // A replay that has not been handled yet leaves the message pending.
        assert_eq!(count, attempts, "{id}: {}", page.text());
    }
    let (_, log) = server.stop("-TERM");
    for text in [
        "replay started by admin account=\"admin_token\" peer=127.0.0.1",
        "replay by admin ended account=\"admin_token\" replayed=3 skipped=0 cancelled=false",
    ] {
        assert!(log.contains(text), "{text:?} is not in {log}");
    }
}

#[test]
fn cancels_replay_and_refuses_second() {
    let dir = WorkDir::new();
    assert_eq!(serve(&dir, "").stop("-TERM").0, Some(0));
    let file = Connection::open(dir.path().join("pleo-inbox.db")).unwrap();
    file.execute_batch(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
         INSERT INTO message (sequence, endpoint, webhook_id, origin, received_at, state)
         SELECT i, '/webhooks/pleo', 'msg_' || i, 'webhook', 0, 'dead' FROM n;
         INSERT INTO endpoint_stats VALUES ('/webhooks/pleo', 0, 0, 0, 100000, NULL);",
    )
    .unwrap();
    drop(file);
    let mut server = serve(&dir, "");
    let client = Client::signed_in(&server, TOKEN);
    let confirm = client.get("/replays/new?state=dead");
    assert!(
        confirm.text().contains("More than 10"),
        "{}",
        confirm.text()
    );
    let fields = [("question", field(&confirm.body, "question"))];
    assert_eq!(client.post("/replays", &fields).redirect(), "/replays");
    assert_eq!(client.post("/replays", &fields).status, 409);
    let page = client.wait_for("/replays", "running").body;
    assert!(page.contains("<progress"), "{page}");
    assert!(page.contains("action=\"/replays/cancel\""), "{page}");
    for other in [&[][..], &[("replay", "other")]] {
        client.post("/replays/cancel", other).redirect();
    }
    let running = client.get("/replays");
    assert!(running.text().contains("running"), "{}", running.text());
    let replay = [("replay", field(&running.body, "replay"))];
    assert_eq!(
        client.post("/replays/cancel", &replay).redirect(),
        "/replays"
    );
    client.wait_for("/replays", "cancelled");
    let line = server.wait_for_log("replay by admin ended");
    assert!(line.contains("cancelled=true"), "{line}");
    let stats = dir.json(&["inbox", "stats", "--json"]).remove(0);
    let pending = stats["endpoints"][0]["pending"].as_u64().unwrap();
    assert!(pending < 100_000, "{stats}");
    let replayed = line.split("replayed=").nth(1).unwrap();
    assert_eq!(replayed.split(' ').next().unwrap(), pending.to_string());
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn asks_again_if_more_messages_entered_filter() {
    let dir = WorkDir::new();
    let server = serve(&dir, "");
    for id in ["a", "b", "c"] {
        dir.deliver(&server.url, &["--id", id]);
    }
    let file = Connection::open(dir.path().join("pleo-inbox.db")).unwrap();
    let set_state = |id: &str, state: &str| {
        let update = "UPDATE message SET state = ?1 WHERE webhook_id = ?2";
        assert_eq!(file.execute(update, [state, id]).unwrap(), 1);
    };
    set_state("b", "done");
    set_state("c", "dead");
    let client = Client::signed_in(&server, TOKEN);
    let first = client.get("/replays/new?state=dead");
    assert!(
        first.text().contains("1 message becomes"),
        "{}",
        first.text()
    );
    set_state("b", "dead");
    let first = [("question", field(&first.body, "question"))];
    let second = client.post("/replays", &first);
    assert_eq!(second.status, 200, "{second:?}");
    for text in [
        "Before, there were 1: nothing was replayed",
        "2 messages become",
    ] {
        assert!(second.text().contains(text), "{}", second.text());
    }
    assert_eq!(client.post("/replays", &first).status, 409);
    // The question of another session is none.
    let second = [("question", field(&second.body, "question"))];
    let other = Client::signed_in(&server, TOKEN);
    assert_eq!(other.post("/replays", &second).status, 409);
    assert_eq!(client.post("/replays", &second).redirect(), "/replays");
    client.wait_for("/replays", "done 2 replayed of 2");
    set_state("a", "dead");
    assert_eq!(client.post("/replays", &second).status, 409);
    client.wait_for("/message?endpoint=/webhooks/pleo&id=a", "dead Message id");
    let (_, log) = server.stop("-TERM");
    assert_eq!(log.matches("replay started by admin").count(), 1, "{log}");
}

#[test]
fn search_of_replay_stays_what_was_counted() {
    let dir = WorkDir::new();
    let server = serve(&dir, "");
    let send = |id: &str, event_id: &str| {
        dir.write(
            "body",
            &format!("{{\"eventType\":\"x\",\"eventId\":\"{event_id}\",\"data\":{{}}}}"),
        );
        let sent = dir.send_with(SECRET, &server.url, &["--id", id, "--body", "body"]);
        assert!(sent.starts_with("204"), "{sent}");
    };
    send("a", "event");
    let client = Client::signed_in(&server, TOKEN);
    let asked = client.get("/replays/new?q=event");
    assert!(
        asked.text().contains("1 message becomes"),
        "{}",
        asked.text()
    );
    // Now it is a message id too.
    send("event", "other");
    let fields = [("question", field(&asked.body, "question"))];
    client.post("/replays", &fields).redirect();
    client.wait_for("/replays", "done 1 replayed of 1");
    let (_, log) = server.stop("-TERM");
    assert!(log.contains("replayed=1 skipped=0"), "{log}");
}

#[test]
fn invalid_filter_selects_nothing() {
    let dir = WorkDir::new();
    let server = serve(&dir, "");
    dir.deliver(&server.url, &["--id", "a"]);
    let client = Client::signed_in(&server, TOKEN);
    for (filter, name) in [
        ("state=Dead", "state"),
        ("since=x", "since"),
        ("until=9", "until"),
    ] {
        let error = format!("The filter is invalid: correct {name}.");
        let list = client.get(&format!("/messages?{filter}"));
        assert!(list.text().contains(&error), "{}", list.text());
        for absent in ["message-", "data-live", "/replays/new"] {
            assert!(!list.body.contains(absent), "{absent}: {}", list.body);
        }
        for path in ["/replays/new", "/messages/live"] {
            let page = client.get(&format!("{path}?{filter}"));
            assert_eq!(page.status, 400, "{page:?}");
            assert!(page.text().contains(&error), "{}", page.text());
        }
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}
