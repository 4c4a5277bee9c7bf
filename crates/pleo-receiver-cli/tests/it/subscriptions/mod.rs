//! The commands that look after subscriptions.

#![cfg(unix)]

mod sync;

use std::os::unix::fs::PermissionsExt;

use crate::support::pleo::{EXPORT, TOKEN, VENDOR, World, assert_refused};
use pleo_sandbox::{Fault, Token};
use serde_json::{Value, json};

const URL: &str = "https://receiver.example.com/webhooks/pleo";
const LIST: &[&str] = &["subscriptions", "list"];

fn create(world: &World, more: &[&str]) -> Value {
    let create = ["subscriptions", "create", "--url", URL, "--event", EXPORT];
    world.json(&[&create[..], more].concat()).remove(0)
}

fn id(subscription: &Value) -> String {
    subscription["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_subscription_is_made_shown_changed_and_ended() {
    let world = World::new();
    world.place.write("key", "x-key: hunter2\n");
    let extras = [
        ["--header", "file:key"],
        ["--username", "pleo"],
        ["--password", "hunter2"],
    ];
    let made = create(&world, &extras.concat());
    assert_eq!(made["customHeaders"]["x-key"], "(not shown)");
    assert_eq!(made["endpointAuth"]["type"], "BASIC");
    let id = id(&made);

    let table = world.done(LIST);
    let [head, row] = &table.lines().collect::<Vec<_>>()[..] else {
        panic!("{table}")
    };
    assert!(head.starts_with("ID ") && head.contains("STATUS"), "{head}");
    assert_eq!(*row, format!("{id}  ACTIVE  {URL}  {EXPORT}"));
    assert_eq!(world.json(LIST)[0], made);
    let shown = world.done(&["subscriptions", "get", &id]);
    assert!(shown.contains(&format!("endpointUrl   {URL}\n")), "{shown}");

    let update = [
        "subscriptions",
        "update",
        &id,
        "--status",
        "inactive",
        "--event",
        VENDOR,
    ];
    let changed = &world.json(&update)[0];
    assert_eq!(changed["status"], "INACTIVE");
    assert_eq!(changed["eventTypes"][0], VENDOR);
    assert_eq!(changed["endpointUrl"], URL, "what no flag speaks of stays");
    assert_eq!(changed["endpointAuth"]["type"], "BASIC");
    let update = [
        "subscriptions",
        "update",
        &id,
        "--remove-header",
        "X-Key",
        "--remove-credentials",
    ];
    let changed = &world.json(&update)[0];
    assert!(changed.get("customHeaders").is_none(), "{changed}");
    assert_eq!(changed["endpointAuth"]["type"], "NONE");

    assert_eq!(
        world.done(&["subscriptions", "delete", &id]),
        format!("deleted {id}\n")
    );
    assert_eq!(world.json(LIST), [Value::Null; 0]);
    assert_eq!(world.run(LIST).stderr, "Pleo has no matching entries\n");
    world.refused(&["subscriptions", "get", &id], 1, &["(404)", &id]);

    let done = world.json(&["subscriptions", "activities", &id]);
    let operations: Vec<_> = done.iter().map(|one| &one["operationType"]).collect();
    assert_eq!(operations, ["CREATE", "UPDATE", "UPDATE", "DELETE"]);
    let last = ["subscriptions", "activities", &id, "--operation", "DELETE"];
    let table = world.done(&last);
    assert!(
        table.starts_with("AT ") && table.contains("DELETE     urn:pleo:company:"),
        "{table}"
    );
}

#[test]
fn only_the_command_for_it_shows_a_secret() {
    let world = World::new();
    let id = id(&create(&world, &[]));
    let secret = world.done(&["subscriptions", "secret", &id]);
    assert!(
        secret.starts_with("whsec_") && secret.ends_with('\n'),
        "{secret}"
    );
    let object = &world.json(&["subscriptions", "secret", &id])[0];
    assert_eq!(object["secretKey"], secret.trim_end());
    // As somebody may have left it.
    world.place.write("acme.secret", &secret);
    let said = world.done(&["subscriptions", "secret", &id, "--output", "acme.secret"]);
    assert_eq!(said, "wrote acme.secret\n");
    assert_eq!(world.read("acme.secret"), secret);
    let file = world.place.path().join("acme.secret");
    let mode = std::fs::metadata(file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // A slip of the pen.
    world
        .place
        .write("pleo.toml", "inbox = \"sqlite:books.db\"\n");
    let slip = ["subscriptions", "secret", &id, "--output", "pleo.toml"];
    world.refused(&slip, 2, &["pleo.toml", "name another file"]);
    assert_eq!(world.read("pleo.toml"), "inbox = \"sqlite:books.db\"\n");
}

#[test]
fn a_list_is_filtered_sorted_and_paged() {
    let world = World::new();
    let ids: Vec<_> = (0..5).map(|_| id(&create(&world, &[]))).collect();
    let vendor = ["--event", VENDOR, "--status", "INACTIVE"];
    let sixth = id(&create(&world, &vendor));
    let listed = |more: &[&str]| -> Vec<_> {
        let rows = world.json(&[LIST, more].concat());
        rows.iter().map(id).collect()
    };
    assert_eq!(listed(&["--event", VENDOR]), [sixth.as_str()]);
    assert_eq!(listed(&["--status", "ACTIVE"]), ids);
    assert_eq!(listed(&["--sort", "createdAt:DESC"])[0], sixth);
    assert_eq!(listed(&["--offset", "4", "--limit", "1"]), ids[4..]);
    let ended = world.run(&[LIST, &["--json", "--limit", "2", "--event", EXPORT]].concat());
    let cursor = ended
        .stderr
        .strip_prefix("the next page: --after ")
        .unwrap()
        .trim();
    assert_eq!(listed(&["--limit", "2", "--after", cursor]), ids[2..4]);
    let ended = world.run(&[LIST, &["--after", cursor]].concat());
    let cursor = ended
        .stderr
        .strip_prefix("the page before: --before ")
        .unwrap()
        .trim();
    assert_eq!(listed(&["--before", cursor]), ids[..2]);

    for (args, part) in [
        (&["--sort", "createdAt:UP"][..], "give ASC or DESC"),
        (&["--status", "SLEEPING"], "neither `ACTIVE` nor `INACTIVE`"),
        (&["--after", "x"], "not a cursor"),
        (&["--after", "A", "--offset", "1"], "cannot be used with"),
    ] {
        world.refused(&[LIST, args].concat(), 2, &[part]);
    }
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let world = World::new();
    let create = ["subscriptions", "create", "--event", EXPORT, "--url"];
    let with = |more: &[&'static str]| [&create[..], more].concat();
    world.refused(&with(&["http://x.example.com"]), 2, &["only over HTTPS"]);
    world.refused(
        &with(&[URL, "-H", "webhook-id: 1"]),
        2,
        &["`webhook-id` would replace"],
    );
    world.refused(
        &with(&[URL, "-H", "hunter2"]),
        2,
        &["`--header`", "name: value"],
    );
    world.refused(&with(&[URL, "--username", "x"]), 2, &["--password"]);
    world.refused(
        &with(&[URL, "--event", "v9.new"]),
        1,
        &["(400)", "unknown event type"],
    );
    world.refused(&["subscriptions", "get", "1"], 2, &["<ID>"]);
    let staging = ["subscriptions", "list", "--staging"];
    world.refused(&staging, 2, &["cannot be used with"]);

    let env = [
        ("PLEO_API_URL", "http://external.pleo.io"),
        ("PLEO_API_TOKEN", TOKEN),
    ];
    let ended = world.place.run_with(LIST, &env, b"");
    assert_refused(&ended, 2, &["unencrypted"]);
    let env = [("PLEO_API_TOKEN", "file:not-there")];
    let ended = world.place.run_with(LIST, &env, b"");
    assert_refused(
        &ended,
        2,
        &["PLEO_API_TOKEN", "cannot read the file not-there"],
    );
    assert_refused(&world.place.run(LIST), 2, &["set PLEO_API_TOKEN"]);
}

#[test]
fn an_api_key_opens_it_too() {
    let world = World::new();
    world.pleo.grant(Token::api_key("plp_123"));
    let url = world.pleo.url();
    let env = [
        ("SSL_CERT_FILE", "authority.pem"),
        ("PLEO_API_URL", url.as_str()),
        ("PLEO_API_KEY", "plp_123"),
    ];
    let create = ["subscriptions", "create", "--url", URL, "--event", VENDOR];
    let ended = world.place.run_with(&create, &env, b"");
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(world.json(LIST), [Value::Null; 0], "another company's");
}

fn config(endpoints: &[(&str, &str)]) -> String {
    let endpoints = endpoints.iter().map(|(name, event)| {
        format!(
            "\n[[endpoint]]\npath = \"/{name}\"\nsecret = \"file:{name}.secret\" # {name}\n\
             subscription = {{ url = \"https://x.example.com/{name}\", events = [\"{event}\"] }}\n"
        )
    });
    endpoints.collect()
}

#[test]
fn nothing_that_pleo_says_steers_the_terminal() {
    let world = World::new();
    let hostile = "\u{1b}]0;x\u{7}\u{9b}31m\u{202e}\nok";
    let mut one = json!({
        "id": "00000000-0000-0000-0000-000000000001",
        "endpointUrl": format!("https://x.example.com/{hostile}"),
        "eventTypes": [hostile],
        "status": hostile,
        "createdAt": "2026-11-24T08:00:00Z",
        "customHeaders": { "pleo-receiver-owner": "me", hostile: hostile },
    });
    one[hostile] = hostile.into();
    let list = json!({
        "data": [one],
        "pagination": { "hasNextPage": false, "hasPreviousPage": false },
    });
    let owner = "[subscriptions]\nname = \"me\"\n";
    let pleo = format!("{}{owner}", config(&[("a", EXPORT)]));
    world.place.write("pleo.toml", &pleo);
    let get = [
        "subscriptions",
        "get",
        "00000000-0000-0000-0000-000000000001",
    ];
    let secret = [&["subscriptions", "secret"], &get[2..]].concat();
    for (args, answer, code) in [
        (LIST, &list, 0),
        (&get, &json!({ "data": one }), 0),
        (&["subscriptions", "sync"], &list, 2),
        (
            &secret,
            &json!({ "data": { "secretKey": format!("whsec_{hostile}") } }),
            1,
        ),
        (LIST, &json!([hostile]), 1),
    ] {
        world.pleo.fail_next([Fault::body(answer.to_string())]);
        let ended = world.run(args);
        assert_eq!(ended.code, code, "{args:?}: {ended:?}");
        let said = format!("{}{}", ended.stdout, ended.stderr);
        let steers = |letter: char| letter.is_control() && letter != '\n' || letter == '\u{202e}';
        assert!(!said.contains(steers), "{args:?}: {said:?}");
        assert!(!said.contains("\nok"), "{args:?}: {said:?}");
    }
}
