//! Subscriptions are made to match a configuration.

use pleo_sandbox::{Fault, Token};
use serde_json::Value;

use super::{LIST, URL, config, create, id};
use crate::support::pleo::{EXPORT, VENDOR, World};
use crate::support::program::SECRET;

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
                 fetch    signing secret into a.secret\n\
                 create   https://x.example.com/b for v1.export-job.created\n\
                 fetch    signing secret into b.secret\n";
    assert_eq!((ended.code, ended.stdout.as_str()), (0, lines), "{ended:?}");
    assert!(
        ended.stderr.contains("add `--yes` to apply this"),
        "{ended:?}"
    );
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
    assert!(ended.stderr.contains("add `--yes --delete`"), "{ended:?}");
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
    let delivered = crate::support::pleo::lines(&checks.stdout).pop().unwrap();
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
        "looks like a copy",
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
fn prints_each_difference_on_its_own_line() {
    let world = World::new();
    world.place.write("pleo.toml", &config(&[("a", EXPORT)]));
    world.done(&["subscriptions", "sync", "--yes"]);
    let subscription = id(&world.json(LIST)[0]);
    world.done(&[
        "subscriptions",
        "update",
        &subscription,
        "--status",
        "INACTIVE",
        "--event",
        VENDOR,
    ]);
    let url = "https://x.example.com/a";
    let differences = [
        format!("event types: {VENDOR} → {EXPORT}"),
        "status: INACTIVE → ACTIVE".to_owned(),
    ];
    let plan = world.done(&["subscriptions", "sync"]);
    let [first, second] = &differences;
    let expected = format!("update   {subscription} {url}\n         {first}\n         {second}\n");
    assert_eq!(plan, expected);
    let json = &world.json(&["subscriptions", "sync"])[0];
    let expected = format!("{subscription} {url}: {}", differences.join("; "));
    assert_eq!(json["what"], expected, "one text");
}
