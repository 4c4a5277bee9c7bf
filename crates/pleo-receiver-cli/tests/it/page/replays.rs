//! Tests of replays of what a filter shows.

use rusqlite::Connection;

use super::client::{Client, TOKEN, serve};
use crate::support::program::WorkDir;

/// Returns the parameter with the last message, from the form of a replay.
fn last(page: &str) -> &str {
    let value = page.split("name=\"last\" value=\"").nth(1).unwrap();
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
        assert!(dir.send(&server.url, &args).stdout.starts_with("204"));
    }
    let filter = "state=dead&type=v1.export-job.created";
    let confirm = client.wait_for(&format!("/replays/new?{filter}"), "3 messages");
    // It arrives after the count.
    assert!(
        dir.send(&server.url, &["--id", "e"])
            .stdout
            .starts_with("204")
    );
    let mut fields = vec![("state", "dead"), ("type", "v1.export-job.created")];
    fields.push(("last", last(&confirm.body)));
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
    let fields = [("state", "dead"), ("last", last(&confirm.body))];
    assert_eq!(client.post("/replays", &fields).redirect(), "/replays");
    assert_eq!(client.post("/replays", &fields).status, 409);
    let page = client.wait_for("/replays", "running").body;
    assert!(page.contains("<progress"), "{page}");
    assert!(page.contains("action=\"/replays/cancel\""), "{page}");
    assert_eq!(client.post("/replays/cancel", &[]).redirect(), "/replays");
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
