//! Tests of the `subscriptions` commands.

mod sync;

use std::os::unix::fs::PermissionsExt;

use crate::support::harness::{EXPORT, Harness, TOKEN, VENDOR, assert_failed};
use pleo_sandbox::{Fault, Token};
use serde_json::{Value, json};

const URL: &str = "https://receiver.example.com/webhooks/pleo";
const LIST: &[&str] = &["subscriptions", "list"];

fn create(harness: &Harness, more: &[&str]) -> Value {
    let create = ["subscriptions", "create", "--url", URL, "--event", EXPORT];
    harness.json(&[&create[..], more].concat()).remove(0)
}

fn id(subscription: &Value) -> String {
    subscription["id"].as_str().unwrap().to_owned()
}

#[test]
fn creates_shows_updates_and_deletes_subscription() {
    let harness = Harness::new();
    harness.dir.write("key", "x-key: hunter2\n");
    let extras = [
        ["--header", "file:key"],
        ["--username", "pleo"],
        ["--password", "hunter2"],
    ];
    let created = create(&harness, &extras.concat());
    assert_eq!(created["customHeaders"]["x-key"], "(not shown)");
    assert_eq!(created["endpointAuth"]["type"], "BASIC");
    let id = id(&created);

    let table = harness.run_ok(LIST);
    let [head, row] = &table.lines().collect::<Vec<_>>()[..] else {
        panic!("{table}")
    };
    assert!(head.starts_with("ID ") && head.contains("STATUS"), "{head}");
    assert_eq!(*row, format!("{id}  ACTIVE  {URL}  {EXPORT}"));
    assert_eq!(harness.json(LIST)[0], created);
    let shown = harness.run_ok(&["subscriptions", "get", &id]);
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
    let changed = &harness.json(&update)[0];
    assert_eq!(changed["status"], "INACTIVE");
    assert_eq!(changed["eventTypes"][0], VENDOR);
    assert_eq!(changed["endpointUrl"], URL, "a field without a flag stays");
    assert_eq!(changed["endpointAuth"]["type"], "BASIC");
    let update = [
        "subscriptions",
        "update",
        &id,
        "--remove-header",
        "X-Key",
        "--remove-credentials",
    ];
    let changed = &harness.json(&update)[0];
    assert!(changed.get("customHeaders").is_none(), "{changed}");
    assert_eq!(changed["endpointAuth"]["type"], "NONE");

    assert_eq!(
        harness.run_ok(&["subscriptions", "delete", &id]),
        format!("deleted {id}\n")
    );
    assert_eq!(harness.json(LIST), [Value::Null; 0]);
    assert_eq!(harness.run(LIST).stderr, "Pleo has no matching entries\n");
    harness.run_fails(&["subscriptions", "get", &id], 1, &["(404)", &id]);

    let activities = harness.json(&["subscriptions", "activities", &id]);
    let operations: Vec<_> = activities
        .iter()
        .map(|activity| &activity["operationType"])
        .collect();
    assert_eq!(operations, ["CREATE", "UPDATE", "UPDATE", "DELETE"]);
    let last = ["subscriptions", "activities", &id, "--operation", "DELETE"];
    let table = harness.run_ok(&last);
    assert!(
        table.starts_with("AT ") && table.contains("DELETE     urn:pleo:company:"),
        "{table}"
    );
}

#[test]
fn shows_secret_only_in_secret_command() {
    let harness = Harness::new();
    let id = id(&create(&harness, &[]));
    let secret = harness.run_ok(&["subscriptions", "secret", &id]);
    assert!(
        secret.starts_with("whsec_") && secret.ends_with('\n'),
        "{secret}"
    );
    let object = &harness.json(&["subscriptions", "secret", &id])[0];
    assert_eq!(object["secretKey"], secret.trim_end());
    // An existing file may have other permissions.
    harness.dir.write("acme.secret", &secret);
    let printed = harness.run_ok(&["subscriptions", "secret", &id, "--output", "acme.secret"]);
    assert_eq!(printed, "wrote acme.secret\n");
    assert_eq!(harness.read_file("acme.secret"), secret);
    let file = harness.dir.path().join("acme.secret");
    let mode = std::fs::metadata(file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // A file that holds no secret.
    harness
        .dir
        .write("pleo.toml", "inbox = \"sqlite:books.db\"\n");
    let mistake = ["subscriptions", "secret", &id, "--output", "pleo.toml"];
    harness.run_fails(&mistake, 2, &["pleo.toml", "name another file"]);
    assert_eq!(
        harness.read_file("pleo.toml"),
        "inbox = \"sqlite:books.db\"\n"
    );
}

#[test]
fn filters_sorts_and_pages_list() {
    let harness = Harness::new();
    let ids: Vec<_> = (0..5).map(|_| id(&create(&harness, &[]))).collect();
    let vendor = ["--event", VENDOR, "--status", "INACTIVE"];
    let sixth = id(&create(&harness, &vendor));
    let listed = |more: &[&str]| -> Vec<_> {
        let rows = harness.json(&[LIST, more].concat());
        rows.iter().map(id).collect()
    };
    assert_eq!(listed(&["--event", VENDOR]), [sixth.as_str()]);
    assert_eq!(listed(&["--status", "ACTIVE"]), ids);
    assert_eq!(listed(&["--sort", "createdAt:DESC"])[0], sixth);
    assert_eq!(listed(&["--offset", "4", "--limit", "1"]), ids[4..]);
    let output = harness.run(&[LIST, &["--json", "--limit", "2", "--event", EXPORT]].concat());
    let cursor = output
        .stderr
        .strip_prefix("the next page: --after ")
        .unwrap()
        .trim();
    assert_eq!(listed(&["--limit", "2", "--after", cursor]), ids[2..4]);
    let output = harness.run(&[LIST, &["--after", cursor]].concat());
    let cursor = output
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
        harness.run_fails(&[LIST, args].concat(), 2, &[part]);
    }
}

#[test]
fn rejects_invalid_arguments_with_their_fix() {
    let harness = Harness::new();
    let create = ["subscriptions", "create", "--event", EXPORT, "--url"];
    let with = |more: &[&'static str]| [&create[..], more].concat();
    harness.run_fails(&with(&["http://x.example.com"]), 2, &["only over HTTPS"]);
    harness.run_fails(
        &with(&[URL, "-H", "webhook-id: 1"]),
        2,
        &["`webhook-id` would replace"],
    );
    harness.run_fails(
        &with(&[URL, "-H", "hunter2"]),
        2,
        &["`--header`", "name: value"],
    );
    harness.run_fails(&with(&[URL, "--username", "x"]), 2, &["--password"]);
    harness.run_fails(
        &with(&[URL, "--event", "v9.new"]),
        1,
        &["(400)", "unknown event type"],
    );
    harness.run_fails(&["subscriptions", "get", "1"], 2, &["<ID>"]);
    let staging = ["subscriptions", "list", "--staging"];
    harness.run_fails(&staging, 2, &["cannot be used with"]);

    let env = [
        ("PLEO_API_URL", "http://external.pleo.io"),
        ("PLEO_API_TOKEN", TOKEN),
    ];
    let output = harness.dir.run_with(LIST, &env, b"");
    assert_failed(&output, 2, &["unencrypted"]);
    let env = [("PLEO_API_TOKEN", "file:not-there")];
    let output = harness.dir.run_with(LIST, &env, b"");
    assert_failed(
        &output,
        2,
        &["PLEO_API_TOKEN", "cannot read the file not-there"],
    );
    assert_failed(&harness.dir.run(LIST), 2, &["set PLEO_API_TOKEN"]);
}

#[test]
fn authenticates_with_api_key() {
    let harness = Harness::new();
    harness.sandbox.grant(Token::api_key("plp_123"));
    let url = harness.sandbox.url();
    let env = [
        ("SSL_CERT_FILE", "authority.pem"),
        ("PLEO_API_URL", url),
        ("PLEO_API_KEY", "plp_123"),
    ];
    let create = ["subscriptions", "create", "--url", URL, "--event", VENDOR];
    let output = harness.dir.run_with(&create, &env, b"");
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(
        harness.json(LIST),
        [Value::Null; 0],
        "the subscription belongs to another company"
    );
}

/// Returns a configuration with an endpoint for each name and event type.
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
fn escapes_terminal_control_characters_from_api() {
    let harness = Harness::new();
    let hostile = "\u{1b}]0;x\u{7}\u{9b}31m\u{202e}\nok";
    let mut subscription = json!({
        "id": "00000000-0000-0000-0000-000000000001",
        "endpointUrl": format!("https://x.example.com/{hostile}"),
        "eventTypes": [hostile],
        "status": hostile,
        "createdAt": "2026-11-24T08:00:00Z",
        "customHeaders": { "pleo-receiver-owner": "me", hostile: hostile },
    });
    subscription[hostile] = hostile.into();
    let list = json!({
        "data": [subscription],
        "pagination": { "hasNextPage": false, "hasPreviousPage": false },
    });
    let owner = "[subscriptions]\nname = \"me\"\n";
    let pleo = format!("{}{owner}", config(&[("a", EXPORT)]));
    harness.dir.write("pleo.toml", &pleo);
    let get = [
        "subscriptions",
        "get",
        "00000000-0000-0000-0000-000000000001",
    ];
    let secret = [&["subscriptions", "secret"], &get[2..]].concat();
    for (args, answer, code) in [
        (LIST, &list, 0),
        (&get, &json!({ "data": subscription }), 0),
        (&["subscriptions", "sync"], &list, 2),
        (
            &secret,
            &json!({ "data": { "secretKey": format!("whsec_{hostile}") } }),
            1,
        ),
        (LIST, &json!([hostile]), 1),
    ] {
        harness.sandbox.fail_next([Fault::body(answer.to_string())]);
        let output = harness.run(args);
        assert_eq!(output.code, code, "{args:?}: {output:?}");
        let printed = format!("{}{}", output.stdout, output.stderr);
        let is_unsafe =
            |letter: char| letter.is_control() && letter != '\n' || letter == '\u{202e}';
        assert!(!printed.contains(is_unsafe), "{args:?}: {printed:?}");
        assert!(!printed.contains("\nok"), "{args:?}: {printed:?}");
    }
}
