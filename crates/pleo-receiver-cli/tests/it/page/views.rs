//! Tests of what the inspection page shows and does.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Client, TOKEN, serve};
use crate::support::program::{OTHER_SECRET, RunningServer, SECRET, WorkDir};

const HANDLER: &str = "exec = [\"sh\", \"-c\", \"echo ledger is closed >&2; exit 65\"]\n";

fn send(dir: &WorkDir, server: &RunningServer, id: &str) {
    let output = dir.send(&server.url, &["--id", id]);
    assert!(output.stdout.starts_with("204"), "{output:?}");
}

#[test]
fn overview_shows_counts_rejections_and_dead_letters() {
    let dir = WorkDir::new();
    let server = serve(&dir, HANDLER);
    let client = Client::signed_in(&server, TOKEN);
    assert!(client.get("/").text().contains("Deliveries a minute"));
    for id in ["msg_1", "msg_2"] {
        send(&dir, &server, id);
    }
    assert!(
        dir.send_with(OTHER_SECRET, &server.url, &[])
            .starts_with("401")
    );
    let page = client.wait_for("/", "2 command failed: exit status: 65: ledger is closed");
    let text = page.text();
    assert!(
        text.contains("1 signature_mismatch from 127.0.0.1"),
        "{text}"
    );
    for part in [
        "Dead 2",
        "Nearest expiry none",
        "Handler: exec",
        "active",
        "inbox : the inbox can store messages",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    // The counters are read every few seconds.
    let text = client.wait_for("/", "stored 2").text();
    assert!(text.contains("rejected 1"), "{text}");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn pages_stay_while_messages_arrive() {
    let dir = WorkDir::new();
    let server = serve(&dir, "");
    for number in 0..103 {
        dir.write("body", &format!("{{\"number\":{number}}}"));
        send(&dir, &server, &format!("msg_{number:03}"));
    }
    let client = Client::signed_in(&server, TOKEN);
    let ids = |page: &str| -> Vec<u32> {
        let ids = page.match_indices("&amp;id=msg_");
        ids.map(|(at, found)| page[at + found.len()..][..3].parse().unwrap())
            .collect()
    };
    let link = |page: &str, name: &str| {
        let before = page.split(&format!(">{name}</a>")).next().unwrap();
        let href = before.rsplit("href=\"").next().unwrap();
        href.split('"').next().unwrap().replace("&amp;", "&")
    };
    let first = client.get("/messages").body;
    assert_eq!(ids(&first), (53..103).rev().collect::<Vec<_>>());
    let older = link(&first, "Older");
    let second = client.get(&older).body;
    assert_eq!(ids(&second), (3..53).rev().collect::<Vec<_>>());
    for number in 103..106 {
        send(&dir, &server, &format!("msg_{number:03}"));
    }
    assert_eq!(ids(&client.get(&older).body), ids(&second), "unchanged");
    let last = client.get(&link(&second, "Older")).body;
    assert_eq!(ids(&last), [2, 1, 0]);
    assert!(!last.contains(">Older</a>"));
    let newer = client.get(&link(&last, "Newer")).body;
    assert_eq!(ids(&newer), ids(&second), "back again");
    let newest = client.get(&link(&second, "Newest")).body;
    assert_eq!(ids(&newest), (56..106).rev().collect::<Vec<_>>());
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn filters_and_searches_messages() {
    let dir = WorkDir::new();
    let server = serve(&dir, "");
    send(&dir, &server, "msg_job");
    let vendor = ["--id", "msg_vendor", "--event", "v1.vendor.created"];
    dir.deliver(&server.url, &vendor);
    let client = Client::signed_in(&server, TOKEN);
    let shown = |query: &str| {
        let page = client.get(&format!("/messages?{query}"));
        assert_eq!(page.status, 200, "{query}: {page:?}");
        let text = page.text();
        (text.contains("msg_job"), text.contains("msg_vendor"))
    };
    let entry = dir.json(&["inbox", "list", "--json"]).remove(0);
    let search = |field: &str| format!("q={}", entry[field].as_str().unwrap());
    for (query, expected) in [
        ("", (true, true)),
        ("state=pending", (true, true)),
        ("state=dead", (false, false)),
        ("type=v1.vendor.created", (false, true)),
        ("endpoint=/webhooks/pleo", (true, true)),
        ("endpoint=/other", (false, false)),
        ("since=2020-01-01T00:00", (true, true)),
        ("since=2100-01-01T00:00:00", (false, false)),
        ("until=2020-01-01T00:00", (false, false)),
        ("q=msg_job", (true, false)),
        (&search("event_id"), (true, false)),
        (&search("resource_id"), (true, false)),
        ("q=msg_job&state=done", (false, false)),
    ] {
        // The search itself is shown if nothing is found.
        let (job, vendor) = shown(query);
        let page = client.get(&format!("/messages?{query}"));
        let is_none = page.body.contains("role=\"status\">No message");
        assert_eq!((job && !is_none, vendor && !is_none), expected, "{query}");
    }
    let page = client.get("/messages?since=yesterday").body;
    assert!(page.contains("aria-invalid=\"true\""), "{page}");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn message_shows_body_signature_attempts_and_command() {
    let dir = WorkDir::new();
    let server = serve(&dir, HANDLER);
    send(&dir, &server, "msg_1");
    let client = Client::signed_in(&server, TOKEN);
    let path = "/message?endpoint=/webhooks/pleo&id=msg_1";
    let text = client.wait_for(path, "exit status: 65").text();
    for part in [
        "v1.export-job.created dead",
        "An export of",
        "ledger is closed",
        "authentic Signed",
        "with secret 1 of 1",
        "webhook-signature v1,",
        "{ \"data\": { \"",
        "\"numberOfItems\": 3, \"",
        "curl -i 'http://127.0.0.1:8787/webhooks/pleo'",
        "-H 'webhook-id: msg_1'",
        "--data-raw '{\"data\":{",
        "Source 127.0.0.1",
        "Expires in 59 min",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let show = dir.json(&["inbox", "show", "msg_1", "--json"]).remove(0);
    let body = client.get("/message/body?endpoint=/webhooks/pleo&id=msg_1");
    assert_eq!(body.body, show["body"].as_str().unwrap());
    assert_eq!(
        client
            .get("/message?endpoint=/webhooks/pleo&id=none")
            .status,
        404
    );
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn command_repeats_delivery() {
    let dir = WorkDir::new();
    let server = serve(&dir, "");
    dir.write(
        "body",
        "{\"eventType\":\"it's \\\"quoted\\\" $HOME `x` \\\\ \u{e9}\"}\n",
    );
    let send = ["--id", "msg_1", "--body", "body"];
    assert!(dir.send_with(SECRET, &server.url, &send).starts_with("204"));
    let client = Client::signed_in(&server, TOKEN);
    let page = client.get("/message?endpoint=/webhooks/pleo&id=msg_1").body;
    let command = page.split("<pre id=\"command\"").nth(1).unwrap();
    let command = command
        .split_once('>')
        .unwrap()
        .1
        .split("</pre>")
        .next()
        .unwrap();
    let command = command.replace("&quot;", "\"").replace("&lt;", "<");
    let command = command.replace("&gt;", ">").replace("&amp;", "&");
    let command = command.replace("http://127.0.0.1:8787/webhooks/pleo", &server.url);
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    let answer = String::from_utf8(output.stdout).unwrap();
    assert!(answer.contains(" 204 "), "{command}: {answer}");
    let log = server.stop("-TERM").1;
    // The same body: another would be a conflict.
    assert!(log.contains("duplicate delivery"), "{log}");
}

#[test]
fn replays_message() {
    let dir = WorkDir::new();
    let server = serve(&dir, HANDLER);
    send(&dir, &server, "msg_1");
    let client = Client::signed_in(&server, TOKEN);
    let path = "/message?endpoint=/webhooks/pleo&id=msg_1";
    client.wait_for(path, "exit status: 65");
    let fields = [("endpoint", "/webhooks/pleo"), ("id", "msg_1")];
    let target = client.post("/replay", &fields).redirect().to_owned();
    assert!(
        client
            .get(&target)
            .text()
            .contains("Replayed: the message is pending again.")
    );
    // The handler failed twice, each time in its first attempt.
    let deadline = Instant::now() + Duration::from_secs(60);
    while client.get(path).body.matches("ledger is closed").count() < 2 {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn pauses_endpoint_over_restarts() {
    let dir = WorkDir::new();
    let server = serve(&dir, HANDLER);
    let client = Client::signed_in(&server, TOKEN);
    let endpoint = [("endpoint", "/webhooks/pleo")];
    assert_eq!(client.post("/pause", &endpoint).redirect(), "/");
    assert_eq!(client.post("/pause", &[("endpoint", "/no")]).status, 404);
    assert_eq!(server.stop("-TERM").0, Some(0));
    let server = serve(&dir, HANDLER);
    let client = Client::signed_in(&server, TOKEN);
    assert!(client.get("/").text().contains("/webhooks/pleo paused"));
    let paused = |expected: bool| {
        let stats = dir.json(&["inbox", "stats", "--json"]).remove(0);
        assert_eq!(stats["endpoints"][0]["paused"], expected, "{stats}");
        let bearer = format!("authorization: Bearer {TOKEN}\r\n");
        let names: &[&str] = if expected { &["/webhooks/pleo"] } else { &[] };
        // It is read once a second.
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let report = client.send("GET", "/readyz", &bearer, "").body;
            let report: Value = serde_json::from_str(&report).unwrap();
            if report["paused"] == json!(names) {
                break;
            }
            assert!(Instant::now() < deadline, "{report}");
            thread::sleep(Duration::from_millis(50));
        }
    };
    paused(true);
    send(&dir, &server, "msg_1");
    assert!(client.get("/messages").text().contains("pending"));
    assert_eq!(client.post("/resume", &endpoint).redirect(), "/");
    client.wait_for(
        "/message?endpoint=/webhooks/pleo&id=msg_1",
        "exit status: 65",
    );
    paused(false);
    assert_eq!(server.stop("-TERM").0, Some(0));
}
