//! `doctor` finds what is wrong, and says what to do.

#![cfg(unix)]

use crate::support::pleo::{EXPORT, VENDOR, World, lines};
use crate::support::program::{OTHER, SECRET};
use pleo_sandbox::Fault;
use serde_json::Value;

fn examined(world: &World, more: &[&str]) -> (i32, Vec<Value>) {
    let ended = world.run(&[&["doctor", "--json"], more].concat());
    assert_eq!(ended.stderr, "", "{ended:?}");
    (ended.code, lines(&ended.stdout))
}

/// What a check came to.
fn state<'c>(checks: &'c [Value], check: &str) -> &'c str {
    let found = checks.iter().find(|one| one["check"] == check);
    found.map_or("", |one| one["state"].as_str().unwrap())
}

/// A check that must have failed: what was found, and what to do.
fn failed(checks: &[Value], check: &str) -> String {
    assert_eq!(state(checks, check), "failed", "{check}: {checks:?}");
    let one = checks.iter().find(|one| one["check"] == check).unwrap();
    format!("{} | {}", one["found"], one["fix"])
}

fn set_up(world: &World) -> String {
    let url = world.url("/webhooks/pleo");
    world.done(&["setup", "--url", &url, "--event", EXPORT]);
    let id = &world.json(&["subscriptions", "list"])[0]["id"];
    id.as_str().unwrap().to_owned()
}

#[test]
fn all_that_is_well_is_said_to_be() {
    let world = World::new();
    set_up(&world);
    let _server = world.serve(&[]);
    let (code, checks) = examined(&world, &[]);
    let not_ok: Vec<_> = checks.iter().filter(|one| one["state"] != "ok").collect();
    // Loopback is all that a test has.
    let [url] = not_ok[..] else {
        panic!("{not_ok:?}")
    };
    assert_eq!((&url["check"], code), (&Value::from("url"), 1));
    assert!(
        url["found"].as_str().unwrap().contains("127.0.0.1"),
        "{url}"
    );
    let seen: Vec<_> = checks
        .iter()
        .map(|one| one["check"].as_str().unwrap())
        .collect();
    let all = [
        "configuration",
        "inbox",
        "receiver",
        "url",
        "pleo",
        "clock",
        "subscription",
        "events",
        "secret",
        "certificate",
        "reachable",
        "delivery",
    ];
    assert_eq!(seen, all);
    let [entry] = &world.inbox("pending", 1)[..] else {
        panic!("not one test delivery")
    };
    assert_eq!(entry["event_type"], "pleo-receiver.doctor");
    let (_, checks) = examined(&world, &["--no-delivery"]);
    assert_eq!(state(&checks, "delivery"), "skipped");
    assert_eq!(world.inbox("pending", 1).len(), 1, "no other one");
}

#[test]
fn an_endpoint_that_lets_only_pleo_in_is_left_alone() {
    let world = World::new();
    set_up(&world);
    let before = world.read("pleo.toml");
    let sources = "path = \"/webhooks/pleo\"\nsources = [\"52.215.16.239\"]";
    let after = before.replace("path = \"/webhooks/pleo\"", sources);
    world.place.write("pleo.toml", &after);
    let _server = world.serve(&[]);
    let (_, checks) = examined(&world, &[]);
    assert_eq!(
        (state(&checks, "reachable"), state(&checks, "delivery")),
        ("ok", "skipped")
    );
}

#[test]
fn for_people_it_is_a_line_each_with_the_fix_below() {
    let world = World::new();
    set_up(&world);
    let ended = world.run(&["doctor"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (1, ""));
    let mut lines = ended.stdout.lines();
    assert_eq!(
        lines.next(),
        Some("ok      configuration pleo.toml is valid")
    );
    let inbox = lines.next().unwrap();
    assert!(
        inbox.starts_with("FAILED  inbox         pleo-inbox.db does not exist"),
        "{inbox}"
    );
    let fix = lines.next().unwrap();
    assert!(
        fix.starts_with("        fix           run `pleo-receiver serve --config pleo.toml`"),
        "{fix}"
    );
}

#[test]
fn what_is_wrong_at_pleo_is_found() {
    let world = World::new();
    let id = set_up(&world);
    let _server = world.serve(&[]);
    let update = |more: &[&str]| world.done(&[&["subscriptions", "update", &id], more].concat());

    update(&["--status", "INACTIVE", "--event", VENDOR]);
    let (code, checks) = examined(&world, &[]);
    assert_eq!(code, 1);
    assert!(failed(&checks, "subscription").contains("INACTIVE"));
    assert!(failed(&checks, "events").contains("not subscribed: v1.export-job.created"));
    assert!(failed(&checks, "events").contains("subscriptions sync"));
    world.done(&["subscriptions", "sync", "--yes"]);
    let (_, checks) = examined(&world, &[]);
    assert_eq!(
        (state(&checks, "subscription"), state(&checks, "events")),
        ("ok", "ok")
    );

    let env = [("SSL_CERT_FILE", "authority.pem")];
    let checks = lines(
        &world
            .place
            .run_with(&["doctor", "--json"], &env, b"")
            .stdout,
    );
    assert!(failed(&checks, "pleo").contains("PLEO_API_TOKEN"));
    assert_eq!(state(&checks, "reachable"), "ok", "that needs no token");

    world.pleo.rotate(id.parse().unwrap());
    let (_, checks) = examined(&world, &[]);
    let fix = failed(&checks, "secret");
    assert!(
        fix.contains("signs with a secret that the endpoint does not have")
            && fix.contains("setup --url"),
        "{fix}"
    );
    world.done(&[
        "setup",
        "--url",
        &world.url("/webhooks/pleo"),
        "--event",
        EXPORT,
    ]);
    let (_, checks) = examined(&world, &[]);
    assert_eq!(state(&checks, "secret"), "ok");
    // The one that runs still has the old one only: restart, or reload, brings it up.
    world.done(&["subscriptions", "delete", &id]);
    let (_, checks) = examined(&world, &[]);
    assert!(failed(&checks, "subscription").contains("Pleo has no subscription"));

    let ended = world.run_as(&["doctor", "--json"], "a.b.c");
    assert!(failed(&lines(&ended.stdout), "pleo").contains("(401)"));
    world.pleo.fail_next([Fault::status(500)]);
    let (_, checks) = examined(&world, &[]);
    assert!(failed(&checks, "pleo").contains("(500)"));
}

#[test]
fn what_is_wrong_on_the_way_is_found() {
    let world = World::new();
    let url = world.url("/webhooks/pleo");
    set_up(&world);
    let (_, checks) = examined(&world, &[]);
    assert!(failed(&checks, "reachable").contains("start the receiver"));

    let server = world.serve(&[]);
    let good = world.read("pleo.toml");
    let with = |from: &str, to: &str| {
        world.place.write("pleo.toml", &good.replace(from, to));
        let (code, checks) = examined(&world, &[]);
        assert_eq!(code, 1, "{checks:?}");
        checks
    };
    // As if Pleo was given another path than the proxy passes on.
    let checks = with("pleo\", events", "elsewhere\", events");
    assert!(failed(&checks, "delivery").contains("no_such_path"));
    assert!(failed(&checks, "delivery").contains("keep the path"));
    // The certificate is for `localhost` only.
    let checks = with("https://localhost", "https://127.0.0.1");
    assert!(failed(&checks, "certificate").contains("for this name"));
    let checks = with("https://localhost", "https://name.invalid");
    assert!(failed(&checks, "url").contains("cannot resolve"));
    let checks = with("https://localhost", "http://localhost");
    assert!(failed(&checks, "url").contains("not an `https` URL"));
    // The receiver was not told of the new secret yet.
    let checks = with("file:webhooks-pleo.secret", SECRET);
    assert!(failed(&checks, "delivery").contains("signature_mismatch"));
    assert!(failed(&checks, "delivery").contains("restart it"));
    // Another receiver's inbox.
    world
        .place
        .write("pleo.toml", &format!("inbox = \"sqlite:other.db\"\n{good}"));
    let other = world.place.serve(&["--config", "pleo.toml"], &[]);
    drop(other);
    let (_, checks) = examined(&world, &[]);
    assert!(failed(&checks, "delivery").contains("it is not in the inbox"));
    assert!(failed(&checks, "receiver").contains("no receiver is running"));
    drop(server);

    // Something that says yes to everything.
    world.careless();
    world.place.write("pleo.toml", &good);
    let (_, checks) = examined(&world, &[]);
    assert!(
        failed(&checks, "reachable").contains("accepts unsigned requests"),
        "{url}"
    );
}

#[test]
fn a_configuration_that_cannot_be_served_ends_it() {
    let world = World::new();
    let (code, checks) = examined(&world, &[]);
    assert_eq!((code, checks.len()), (1, 1), "{checks:?}");
    assert!(failed(&checks, "configuration").contains("pleo.toml"));
    for text in [
        "listem = 1",
        "[[endpoint]]\npath = \"/a\"\nsecret = \"file:not-there\"",
        &format!(
            "[[endpoint]]\npath = \"/a\"\nsecret = \"{OTHER}\"\n[[endpoint]]\npath = \"/b\"\n\
             name = \"/a\"\nsecret = \"{OTHER}\""
        ),
    ] {
        world.place.write("pleo.toml", text);
        let (code, checks) = examined(&world, &[]);
        assert_eq!((code, checks.len()), (1, 1), "{checks:?}");
    }
    world
        .place
        .write("pleo.toml", &format!("secret = \"{OTHER}\""));
    let (_, checks) = examined(&world, &[]);
    assert!(failed(&checks, "endpoint").contains("setup"), "{checks:?}");
}

#[test]
fn prints_checks_by_endpoint_and_counts_them() {
    let world = World::new();
    set_up(&world);
    let _server = world.serve(&[]);
    let ended = world.run(&["doctor"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (1, ""));
    let (receiver, endpoint) = ended
        .stdout
        .split_once("\n\nendpoint /webhooks/pleo\n")
        .unwrap();
    assert_eq!(receiver.lines().count(), 3, "{receiver}");
    assert!(receiver.lines().all(|line| line.starts_with("ok      ")));
    assert!(
        endpoint.starts_with("FAILED  url           localhost resolves to 127.0.0.1"),
        "{endpoint}"
    );
    assert!(
        endpoint.ends_with("\n\n11 ok, 1 failed, 0 skipped\n"),
        "{endpoint}"
    );
}

#[test]
fn names_the_configuration_in_each_fix() {
    let world = World::new();
    set_up(&world);
    let elsewhere = world
        .read("pleo.toml")
        .replace("/pleo\", events", "/a\", events");
    world.place.write("other.toml", &elsewhere);
    let (_, checks) = examined(&world, &["--config", "other.toml"]);
    for check in ["inbox", "subscription"] {
        assert!(failed(&checks, check).contains("--config other.toml"));
    }
}
