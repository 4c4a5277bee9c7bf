//! Tests of the inspection page on an inbox in PostgreSQL.

use super::client::{Client, TOKEN, serve};
use super::replays::field;
use crate::support::postgres::{Server, schema};
use crate::support::program::WorkDir;

const HANDLER: &str = "exec = [\"sh\", \"-c\", \"echo ledger is closed >&2; exit 65\"]\n";

#[test]
fn shows_and_changes_inbox_that_receivers_share() {
    let Some(database) = Server::shared() else {
        return;
    };
    let url = database.url(&schema());
    let [dir, other_dir] = [WorkDir::new(), WorkDir::new()];
    let settings = format!("inbox = \"{url}\"\n{HANDLER}");
    let server = serve(&dir, &settings);
    // Its page shows what the other receiver accepts and handles.
    let other = serve(&other_dir, &format!("inbox = \"{url}\"\n"));
    let client = Client::signed_in(&other, TOKEN);
    let mut events = client.open("/messages/live");
    assert!(events.wait_for("200 OK").is_some());
    let send = |args: &[&str]| {
        let sent = dir.send(&server.url, args);
        assert!(sent.stdout.starts_with("204"), "{sent:?}");
    };
    send(&["--id", "msg_1"]);
    send(&["--id", "msg_2", "--event", "v1.vendor.created"]);
    for id in ["msg_1", "msg_2"] {
        assert!(events.wait_for(id).is_some());
    }
    client.wait_for("/", "2 command failed: exit status: 65: ledger is closed");
    client.wait_for("/", "inbox : the inbox can store messages");

    let list = client
        .get("/messages?state=dead&type=v1.vendor.created")
        .text();
    assert!(list.contains("msg_2") && !list.contains("msg_1"), "{list}");
    let found = client.get("/messages?q=msg_1").text();
    assert!(
        found.contains("msg_1") && !found.contains("msg_2"),
        "{found}"
    );
    let path = "/message?endpoint=/webhooks/pleo&id=msg_1";
    let message = client.wait_for(path, "dead Message id").text();
    assert!(message.contains("webhook-signature"), "{message}");

    // A message of an endpoint that is paused stays pending, whichever receiver has it.
    let endpoint = ("endpoint", "/webhooks/pleo");
    assert_eq!(client.post("/pause", &[endpoint]).redirect(), "/");
    client.wait_for("/", "paused");
    let replayed = client.post("/replay", &[endpoint, ("id", "msg_1")]);
    assert!(
        replayed.redirect().ends_with("done=replayed"),
        "{replayed:?}"
    );
    let message = client.wait_for(path, "pending Message id");
    assert_eq!(message.body.matches("exit status: 65").count(), 1);
    assert_eq!(client.post("/resume", &[endpoint]).redirect(), "/");
    let has_ended_again = |path: &str| {
        let page = client.wait_for(path, "dead Message id");
        page.body.matches("exit status: 65").count() == 2
    };
    assert!(has_ended_again(path));

    // What a filter shows.
    let confirm = client.get("/replays/new?state=dead&type=v1.vendor.created");
    let question = [("question", field(&confirm.body, "question"))];
    let started = client.post("/replays", &question);
    assert_eq!(started.redirect(), "/replays");
    client.wait_for("/replays", "done 1 replayed of");
    assert!(has_ended_again("/message?endpoint=/webhooks/pleo&id=msg_2"));
    for server in [server, other] {
        let (code, log) = server.stop("-TERM");
        assert_eq!(code, Some(0), "{log}");
    }
}
