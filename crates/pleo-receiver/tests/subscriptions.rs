//! The commands that look after subscriptions.

#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

mod pleo;
mod program;

use std::os::unix::fs::PermissionsExt;

use pleo::{EXPORT, TOKEN, VENDOR, World, assert_refused};
use pleo_stand_in::{Fault, Token};
use program::SECRET;
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
    assert_eq!(*row, format!("{id} ACTIVE   {URL} {EXPORT}"));
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
    assert_eq!(world.run(LIST).stderr, "Pleo has none that fits\n");
    world.refused(&["subscriptions", "get", &id], 1, &["(404)", &id]);

    let done = world.json(&["subscriptions", "activities", &id]);
    let operations: Vec<_> = done.iter().map(|one| &one["operationType"]).collect();
    assert_eq!(operations, ["CREATE", "UPDATE", "UPDATE", "DELETE"]);
    let last = ["subscriptions", "activities", &id, "--operation", "DELETE"];
    let table = world.done(&last);
    assert!(
        table.starts_with("AT ") && table.contains("DELETE    urn:pleo:company:"),
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
        (&["--sort", "createdAt:UP"][..], "an order is ASC or DESC"),
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
    assert_refused(&world.place.run(LIST), 2, &["no token: set PLEO_API_TOKEN"]);
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
fn pleo_is_made_to_match_the_configuration_and_nothing_else_is_touched() {
    let world = World::new();
    let foreign = id(&create(&world, &[]));
    world
        .place
        .write("pleo.toml", &config(&[("a", EXPORT), ("b", EXPORT)]));
    let sync = ["subscriptions", "sync"];

    let writes = world.writes();
    let ended = world.run(&sync);
    let lines = "create   https://x.example.com/a for v1.export-job.created\n\
                 fetch    its secret into a.secret\n\
                 create   https://x.example.com/b for v1.export-job.created\n\
                 fetch    its secret into b.secret\n";
    assert_eq!((ended.code, ended.stdout.as_str()), (0, lines), "{ended:?}");
    assert!(ended.stderr.contains("`--yes` applies it"), "{ended:?}");
    assert_eq!(world.writes(), writes, "only shown");
    assert!(!world.read("pleo.toml").contains("[subscriptions]"));

    let said = world.done(&["subscriptions", "sync", "--yes"]);
    assert_eq!(said.matches("created ").count(), 2, "{said}");
    assert!(world.read("a.secret").starts_with("whsec_"));
    let before = world.read("pleo.toml");
    assert!(
        before.contains("secret = \"file:b.secret\" # b"),
        "comments stay: {before}"
    );
    let writes = world.writes();
    let kept = world.json(&["subscriptions", "sync", "--yes"]);
    assert!(kept.iter().all(|line| line["do"] == "keep"), "{kept:?}");
    assert_eq!(world.writes(), writes);

    // One changed, one gone, one new.
    let owner = before.split("[subscriptions]").nth(1).unwrap();
    std::fs::remove_file(world.place.path().join("b.secret")).unwrap();
    let ended = world.run(&["subscriptions", "sync", "--yes"]);
    assert!(ended.stdout.contains("fetched "), "{ended:?}");
    assert!(ended.stderr.contains("kill -HUP"), "{ended:?}");
    let changed = config(&[("a", VENDOR), ("c", EXPORT)]);
    world
        .place
        .write("pleo.toml", &format!("{changed}\n[subscriptions]{owner}"));
    let shown = world.run(&["subscriptions", "sync", "--delete"]);
    assert!(shown.stdout.contains("delete  "), "{shown:?}");
    let ended = world.run(&["subscriptions", "sync", "--yes"]);
    assert!(ended.stdout.contains("delete  "), "{ended:?}");
    assert!(ended.stderr.contains("only with `--delete`"), "{ended:?}");
    let b = "https://x.example.com/b";
    assert!(world.done(LIST).contains(b), "nothing is lost by the way");
    let said = format!(
        "{}{}",
        ended.stdout,
        world.done(&["subscriptions", "sync", "--yes", "--delete"])
    );
    for part in [
        "updated ",
        "event types: v1.export-job.created → v1.vendor.created",
        "created  https://x.example.com/c",
        "deleted ",
        " https://x.example.com/b\n",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    let urls = || -> Vec<_> {
        let listed = world.json(LIST);
        let url = |one: &Value| one["endpointUrl"].as_str().unwrap().to_owned();
        listed.iter().map(url).collect()
    };
    assert_eq!(
        urls(),
        [URL, "https://x.example.com/a", "https://x.example.com/c"]
    );

    // All gone; another configuration is another owner.
    world
        .place
        .write("other.toml", "[subscriptions]\nname = \"another\"\n");
    let all = ["subscriptions", "sync", "--yes", "--delete"];
    let nothing = world.done(&[&all[..], &["--config", "other.toml"]].concat());
    assert_eq!(nothing, "");
    world
        .place
        .write("pleo.toml", &format!("[subscriptions]{owner}"));
    world.done(&all);
    assert_eq!(urls(), [URL]);
    assert_eq!(id(&world.json(LIST)[0]), foreign);
}

#[test]
fn each_customer_is_asked_for_with_its_own_token() {
    let world = World::new();
    world
        .pleo
        .grant(Token::api_key("plp_acme").scopes(["export-jobs:read", "export-jobs:write"]));
    world.place.write("acme.key", "plp_acme\n");
    let own = "api_key = \"file:acme.key\", url =";
    let both = config(&[("a", EXPORT), ("acme", EXPORT)]);
    let (first, second) = both.rsplit_once("url =").unwrap();
    world
        .place
        .write("pleo.toml", &format!("{first}{own}{second}"));
    world.done(&["subscriptions", "sync", "--yes"]);
    let [one] = &world.json(LIST)[..] else {
        panic!("not one each")
    };
    assert_eq!(one["endpointUrl"], "https://x.example.com/a");
    let kept = world.json(&["subscriptions", "sync", "--yes"]);
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(kept.iter().all(|line| line["do"] == "keep"), "{kept:?}");
}

#[test]
fn what_an_endpoint_asks_for_beside_the_signature_is_sent() {
    let world = World::new();
    let url = world.url("/webhooks/pleo");
    world.place.write(
        "pleo.toml",
        &format!(
            "[[endpoint]]\npath = \"/webhooks/pleo\"\nsecret = [\"{SECRET}\", \"file:pleo.secret\"]\n\
             basic = {{ username = \"pleo\", password = \"hunter2\" }}\n\
             headers = {{ x-tenant = \"hunter2\" }}\n\
             subscription = {{ url = \"{url}\", events = [\"{EXPORT}\"] }}\n"
        ),
    );
    world.done(&["subscriptions", "sync", "--yes"]);
    let _server = world.serve(&[]);
    let messages = world
        .pleo
        .emit(world.company, EXPORT, &serde_json::json!({}));
    assert_eq!(world.settled(&messages[0]).status, Some(204));
    let kept = world.json(&["subscriptions", "sync"]);
    assert_eq!(kept[0]["do"], "keep", "{kept:?}");
    let checks = world.run(&["doctor", "--json"]);
    let delivered = pleo::lines(&checks.stdout).pop().unwrap();
    assert_eq!(
        (&delivered["check"], &delivered["state"]),
        (&"delivery".into(), &"ok".into())
    );
}

#[test]
fn a_configuration_that_says_nothing_of_pleo_is_refused() {
    let world = World::new();
    world.place.write(
        "pleo.toml",
        &format!("[[endpoint]]\npath = \"/a\"\nsecret = \"{SECRET}\"\n"),
    );
    let sync = ["subscriptions", "sync", "--yes"];
    world.refused(&sync, 2, &["pleo.toml", "`subscription`"]);
    world.refused(
        &["subscriptions", "sync", "--config", "not.toml"],
        2,
        &["not.toml", "`pleo-receiver setup --url"],
    );
    let twice = config(&[("a", EXPORT), ("b", EXPORT)]).replace("com/b", "com/a");
    world.place.write("pleo.toml", &twice);
    world.refused(&sync, 2, &["`/a` and `/b`", "the same URL"]);
    assert_eq!(world.writes(), 0);
}

#[test]
fn no_secret_is_written_over_that_may_be_another_endpoints() {
    let world = World::new();
    let sync = ["subscriptions", "sync", "--yes"];
    world
        .place
        .write("pleo.toml", &config(&[("a", EXPORT), ("b", EXPORT)]));
    let theirs = format!("{SECRET}\n");
    world.place.write("b.secret", &theirs);
    world.refused(&sync, 2, &["b.secret holds another secret", "delete it"]);
    assert_eq!((world.writes(), world.read("b.secret")), (0, theirs));

    std::fs::remove_file(world.place.path().join("b.secret")).unwrap();
    let shared = config(&[("a", EXPORT), ("b", EXPORT)]).replace("b.secret", "./a.secret");
    world.place.write("pleo.toml", &shared);
    world.refused(&sync, 2, &["a.secret", "another endpoint's"]);
    assert_eq!(world.writes(), 0, "nothing is made that could not be kept");

    // What can't be read may be anybody's.
    world.place.write("pleo.toml", &config(&[("a", EXPORT)]));
    std::fs::create_dir(world.place.path().join("a.secret")).unwrap();
    world.refused(&sync, 2, &["cannot read a.secret"]);
    assert_eq!(world.writes(), 0);
}

#[test]
fn what_was_cut_short_is_done_the_next_time() {
    let world = World::new();
    world.place.write("pleo.toml", &config(&[("a", EXPORT)]));
    world
        .pleo
        .fail_next([Fault::None, Fault::None, Fault::Silence]);
    let sync = ["subscriptions", "sync", "--yes"];
    world.killed_at("/secret", &sync);
    assert!(!world.has("a.secret"));
    let said = world.done(&sync);
    assert!(
        said.contains("keep ") && said.contains("fetched "),
        "{said}"
    );
    assert_eq!(world.writes(), 1);
    assert!(world.read("a.secret").starts_with("whsec_"));
    let said = world.done(&sync);
    assert!(!said.contains("fetched"), "{said}");
}

#[test]
fn a_copy_of_a_configuration_ends_nothing_of_the_original() {
    let world = World::new();
    world
        .place
        .write("pleo.toml", &config(&[("a", EXPORT), ("b", EXPORT)]));
    world.done(&["subscriptions", "sync", "--yes"]);
    let made = world.done(LIST);

    let staging = world
        .read("pleo.toml")
        .replace("x.example", "staging.example");
    world.place.write("staging.toml", &staging);
    let parts = [
        "staging.toml",
        "as if it were a copy",
        "https://x.example.com/a",
    ];
    let writes = world.writes();
    for more in [&[][..], &["--yes"], &["--yes", "--delete"]] {
        let sync = ["subscriptions", "sync", "--config", "staging.toml"];
        world.refused(&[&sync[..], more].concat(), 2, &parts);
    }
    let url = "https://staging.example.com/c";
    world.refused(
        &["setup", "--url", url, "--config", "staging.toml"],
        2,
        &parts,
    );
    assert_eq!((world.writes(), world.done(LIST)), (writes, made));

    // As it is told to.
    let (endpoints, _) = staging.split_once("[subscriptions]").unwrap();
    let endpoints = endpoints.replace(".secret", ".staging");
    world.place.write("staging.toml", &endpoints);
    let sync = ["subscriptions", "sync", "--yes", "--delete", "--config"];
    world.done(&[&sync[..], &["staging.toml"]].concat());
    for config in ["pleo.toml", "staging.toml"] {
        let kept = world.json(&[&sync[..], &[config]].concat());
        let verbs: Vec<_> = kept.iter().map(|line| &line["do"]).collect();
        assert_eq!(verbs, ["keep", "keep"], "{config}");
    }
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
