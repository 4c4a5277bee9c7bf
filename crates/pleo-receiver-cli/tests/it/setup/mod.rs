//! From a token to a verified, stored and handed-on export job, and what is in the way of it.

#![cfg(unix)]

mod files;

use std::os::unix::fs::PermissionsExt;

use crate::support::pleo::{EXPORT, TOKEN, VENDOR, World, assert_refused};
use crate::support::program::OTHER;
use pleo_sandbox::Fault;

#[test]
fn from_an_empty_directory_and_a_token_to_an_export_job_handed_on() {
    let world = World::new();
    let url = world.url("/webhooks/pleo");
    let said = world.done(&["setup", "--url", &url, "--event", EXPORT]);
    for part in [
        "create",
        &url,
        "webhooks-pleo.secret",
        "pleo.toml",
        "serve --config pleo.toml",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(!said.contains("whsec_"), "{said}");
    let file = world.place.path().join("webhooks-pleo.secret");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(world.read("webhooks-pleo.secret").starts_with("whsec_"));
    assert!(!world.read("pleo.toml").contains("whsec_"));

    let server = world.serve(&["--exec", "tee -a books.jsonl"]);
    let job = world.pleo.add_export_job(world.company);
    let [message] = &world.pleo.emit(world.company, EXPORT, &job)[..] else {
        panic!("nobody wants it")
    };
    let attempt = world.settled(message);
    assert_eq!(attempt.status, Some(204));
    let [entry] = &world.inbox("done", 1)[..] else {
        panic!("not once")
    };
    assert_eq!(entry["webhook_id"], **message);
    assert_eq!(entry["resource_id"], job["id"]);
    assert_eq!(entry["origin"], "webhook");
    let [booked] = &crate::support::pleo::lines(&world.read("books.jsonl"))[..] else {
        panic!("not once")
    };
    assert_eq!(booked["data"], job, "as it was sent");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn it_works_without_a_proxy_too() {
    let world = World::new();
    let (certificate, key) = world.pleo.authority().certify(&["localhost"]);
    world.place.write("certificate.pem", &certificate);
    world.place.write("key.pem", &key);
    // Free a moment ago: the URL must be known before anything listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    world.place.write(
        "pleo.toml",
        &format!(
            "tls_listen = \"{address}\"\ntls_certificate = \"certificate.pem\"\n\
             tls_key = \"key.pem\"\n"
        ),
    );
    let url = format!("https://localhost:{}/webhooks/pleo", address.port());
    world.done(&["setup", "--url", &url]);
    let _server = world.serve(&[]);
    let job = world.pleo.add_export_job(world.company);
    let messages = world.pleo.emit(world.company, EXPORT, &job);
    assert_eq!(world.settled(&messages[0]).status, Some(204));
    let checks = crate::support::pleo::lines(&world.run(&["doctor", "--json"]).stdout);
    let failed: Vec<_> = checks.iter().filter(|one| one["state"] != "ok").collect();
    assert!(failed.iter().all(|one| one["check"] == "url"), "{failed:?}");
}

#[test]
fn twice_is_once() {
    let world = World::new();
    let url = world.url("/webhooks/pleo");
    let setup = ["setup", "--url", &url, "--event", EXPORT, "--event", VENDOR];
    world.done(&setup);
    let files = || ["pleo.toml", "webhooks-pleo.secret"].map(|name| stamp(&world, name));
    let (before, writes) = (files(), world.writes());
    let said = world.done(&setup);
    assert!(said.contains("nothing to change"), "{said}");
    assert_eq!(files(), before);
    assert_eq!(world.writes(), writes);
    let object = &world.json(&setup)[0];
    assert_eq!(object["changed"], serde_json::json!({}));
    assert_eq!(object["id"].as_str().unwrap().len(), 36);
}

#[test]
fn a_subscription_that_is_there_is_found_and_mended() {
    let world = World::new();
    let url = world.url("/webhooks/pleo");
    let create = ["subscriptions", "create", "--url", &url, "--event", EXPORT];
    let made = &world.json(&[&create[..], &["--status", "INACTIVE"]].concat())[0];
    let said = world.done(&["setup", "--url", &url, "--event", EXPORT]);
    assert!(said.contains("status: INACTIVE → ACTIVE"), "{said}");
    let [one] = &world.json(&["subscriptions", "list"])[..] else {
        panic!("another one")
    };
    assert_eq!(one["id"], made["id"]);
    assert_eq!(one["status"], "ACTIVE");
    // Who made it by hand may delete it by hand.
    assert!(one.get("customHeaders").is_none(), "{one}");
}

#[test]
fn a_receiver_that_runs_takes_on_what_is_set_up() {
    let world = World::new();
    let setup = |path: &str| world.done(&["setup", "--url", &world.url(path)]);
    setup("/webhooks/pleo");
    let mut server = world.serve(&[]);
    let said = setup("/webhooks/acme");
    assert!(
        said.contains("reloaded") && !said.contains("next"),
        "{said}"
    );
    server.wait_for("configuration reloaded");
    let messages = world
        .pleo
        .emit(world.company, EXPORT, &serde_json::json!({}));
    assert_eq!(messages.len(), 2, "one for each subscription");
    for message in &messages {
        assert_eq!(world.settled(message).status, Some(204));
    }
    let endpoints: Vec<_> = world.inbox("pending", 2);
    let mut endpoints: Vec<_> = endpoints.iter().map(|one| &one["endpoint"]).collect();
    endpoints.sort_by_key(ToString::to_string);
    assert_eq!(endpoints, ["/webhooks/acme", "/webhooks/pleo"]);

    let listed = world.json(&["subscriptions", "list"]);
    let id = listed[0]["id"].as_str().unwrap().parse().unwrap();
    world.pleo.rotate(id);
    world.pleo.retire(id);
    setup("/webhooks/pleo");
    server.wait_for("configuration reloaded");
    let messages = world
        .pleo
        .emit(world.company, EXPORT, &serde_json::json!({}));
    for message in &messages {
        assert_eq!(
            world.settled(message).status,
            Some(204),
            "with the new secret"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn no_process_is_told_that_only_has_the_same_number_here() {
    let world = World::new();
    world.done(&["setup", "--url", &world.url("/a")]);
    let _server = world.serve(&[]);
    // As if the receiver ran in another container, where processes are counted anew.
    let mut stranger = std::process::Command::new("sleep")
        .arg("600")
        .spawn()
        .unwrap();
    let number = stranger.id().to_string();
    world.place.write("pleo-inbox.db.lock", &number);
    let said = world.done(&["setup", "--url", &world.url("/b")]);
    assert!(
        said.contains("next ") && said.contains("kill -HUP"),
        "{said}"
    );
    let checks = crate::support::pleo::lines(&world.run(&["doctor", "--json"]).stdout);
    let receiver = checks.iter().find(|one| one["check"] == "receiver");
    assert_eq!(receiver.unwrap()["state"], "ok");
    assert_eq!(stranger.try_wait().unwrap(), None, "it lives");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn killed_at_any_moment_it_leaves_nothing_that_nobody_owns() {
    let world = World::new();
    let url = world.url("/webhooks/pleo");
    world
        .pleo
        .fail_next([Fault::None, Fault::None, Fault::Silence]);
    world.killed_at("/secret", &["setup", "--url", &url]);
    assert_eq!(world.writes(), 1, "it is made");
    assert!(!world.has("webhooks-pleo.secret"));
    let [made] = &world.json(&["subscriptions", "list"])[..] else {
        panic!("not one")
    };
    let owner = made["customHeaders"]["pleo-receiver-owner"]
        .as_str()
        .unwrap();
    assert!(world.read("pleo.toml").contains(owner));

    world.done(&["setup", "--url", &url]);
    assert_eq!(world.writes(), 1, "what is there is found");
    let _server = world.serve(&[]);
    let messages = world
        .pleo
        .emit(world.company, EXPORT, &serde_json::json!({}));
    assert_eq!(world.settled(&messages[0]).status, Some(204));
}

#[test]
fn a_dry_run_only_shows() {
    let world = World::new();
    let url = world.url("/webhooks/pleo");
    let said = world.done(&["setup", "--url", &url, "--dry-run"]);
    assert!(said.contains("create"), "{said}");
    let [object] = &world.json(&["setup", "--url", &url, "--dry-run"])[..] else {
        panic!("not one object")
    };
    assert_eq!(
        (&object["do"], &object["id"]),
        (&"create".into(), &().into())
    );
    assert_eq!(world.writes(), 0);
    assert!(!world.has("pleo.toml") && !world.has("webhooks-pleo.secret"));
    // What would be refused is refused already.
    world.place.write("webhooks-pleo.secret", OTHER);
    let dry = ["setup", "--url", &url, "--dry-run"];
    world.refused(&dry, 2, &["webhooks-pleo.secret"]);
}

#[test]
fn what_was_made_without_an_answer_is_found_the_next_time() {
    let world = World::new();
    let setup = ["setup", "--url", &world.url("/webhooks/pleo")];
    world.pleo.fail_next([Fault::None, Fault::AnswerLost]);
    world.refused(&setup, 1, &["no answer", "run the command again"]);
    assert!(world.done(&setup).contains("keep "));
    assert_eq!(world.json(&["subscriptions", "list"]).len(), 1);
}

#[test]
fn where_the_token_is_stands_in_the_configuration_but_not_the_token() {
    let world = World::new();
    world.place.write("token", &format!("{TOKEN}\n"));
    let url = world.url("/webhooks/pleo");
    let ended = world.run_as(
        &["setup", "--url", &url, "--token", "file:token"],
        "not a token",
    );
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(world.read("pleo.toml").contains("token = \"file:token\""));
    let doctor = ["doctor", "--no-delivery", "--json"];
    let checks = crate::support::pleo::lines(&world.run_as(&doctor, "not-a-token").stdout);
    let pleo = checks.iter().find(|one| one["check"] == "pleo").unwrap();
    assert_eq!(pleo["state"], "ok", "by the token in the file: {pleo}");
}

#[test]
fn what_is_in_the_way_is_said_with_what_to_do() {
    let world = World::new();
    let url = world.url("/webhooks/pleo");
    let setup = |more: &[&str]| world.run(&[&["setup"], more].concat());
    let plain = url.replace("https", "http");
    assert_refused(&setup(&["--url", &plain]), 2, &["only over HTTPS"]);
    assert_refused(&setup(&["--url", "receiver"]), 2, &["not absolute"]);
    let typo = setup(&["--url", &url, "--event", "v1.export-job.craeted"]);
    assert_refused(
        &typo,
        2,
        &[
            "v1.export-job.craeted",
            "v1.export-job.created",
            "--unknown-events",
        ],
    );
    let unknown = setup(&["--url", &url, "--event", "v9.new", "--unknown-events"]);
    assert_refused(&unknown, 1, &["(400)", "unknown event type v9.new"]);
    let stranger = world.run_as(&["setup", "--url", &url], "a.b.c");
    assert_refused(
        &stranger,
        1,
        &["does not accept the token (401)", "expired"],
    );
    let nobody = world.run_as(&["setup", "--url", &url], "");
    assert_refused(&nobody, 2, &["PLEO_API_TOKEN"]);
    world.pleo.fail_next([Fault::status(500)]);
    assert_refused(
        &setup(&["--url", &url]),
        1,
        &["Pleo failed (500)", "try again later"],
    );
    world.pleo.fail_next([Fault::status(418)]);
    assert_refused(&setup(&["--url", &url]), 1, &["answered 418"]);
    assert_refused(&setup(&["--url", &url, "--path", "pleo"]), 2, &["`--path`"]);
    assert_eq!(world.writes(), 1, "the type that only Pleo could know");
    let named = format!("[[endpoint]]\npath = \"/a\"\nname = \"acme\"\nsecret = \"{OTHER}\"\n");
    world.place.write("named.toml", &named);
    let named = ["--url", &url, "--config", "named.toml", "--name", "acme"];
    assert_refused(&setup(&named), 2, &["`--name`", "`/a`"]);

    world
        .place
        .write("single.toml", &format!("secret = \"{OTHER}\"\n"));
    let single = setup(&["--url", &url, "--config", "single.toml"]);
    assert_refused(&single, 2, &["single.toml", "[[endpoint]]"]);
    let list = format!("endpoint = [{{ path = \"/a\", secret = \"{OTHER}\" }}]\n");
    world.place.write("list.toml", &list);
    let list = setup(&["--url", &url, "--config", "list.toml"]);
    assert_refused(&list, 2, &["list.toml", "[[endpoint]]"]);
    world.place.write("broken.toml", "listem = 1\n");
    let broken = setup(&["--url", &url, "--config", "broken.toml"]);
    assert_refused(&broken, 2, &["broken.toml, line 1", "listem"]);
    let nowhere = setup(&["--url", &url, "--config", "not/there.toml", "--dry-run"]);
    assert_eq!(nowhere.code, 0, "{nowhere:?}");
    assert!(!world.read("pleo.toml").contains("endpoint"), "only a mark");
    assert!(!world.has("webhooks-pleo.secret"));
    let made = world.writes();
    assert_eq!(made, 1, "the type that only Pleo could know");

    let world = World::with_scopes(&["export-jobs:read"]);
    let refused = world.run(&["setup", "--url", &world.url("/"), "--event", EXPORT]);
    let parts = ["(403)", "export-jobs:write", "ask Pleo"];
    assert_refused(&refused, 1, &parts);
}

#[test]
fn a_plain_token_in_the_arguments_is_warned_of() {
    let world = World::new();
    let list = ["subscriptions", "list", "--json"];
    let quiet = world.run(&list);
    assert_eq!(quiet.stderr, "");
    let url = world.pleo.url();
    let env = [("SSL_CERT_FILE", "authority.pem"), ("PLEO_API_URL", &*url)];
    let args = [&list[..], &["--token", TOKEN]].concat();
    let ended = world.place.run_with(&args, &env, b"");
    assert!(
        ended.stderr.contains("every user of this machine can read"),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains(TOKEN), "{ended:?}");
}

fn stamp(world: &World, name: &str) -> (Vec<u8>, std::time::SystemTime) {
    let path = world.place.path().join(name);
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    (std::fs::read(path).unwrap(), modified)
}

#[test]
fn help_groups_flags_and_ends_with_an_example() {
    let place = crate::support::program::Place::new();
    for command in [
        &["setup"][..],
        &["doctor"],
        &["catch-up"],
        &["subscriptions", "sync"],
        &["subscriptions", "create"],
    ] {
        for flag in ["-h", "--help"] {
            let help = place.run(&[command, &[flag]].concat()).stdout;
            assert!(help.contains("\nPleo's API:\n"), "{help}");
            let (_, example) = help.rsplit_once("\nExample").unwrap();
            let usage = format!("pleo-receiver {}", command.join(" "));
            assert!(example.contains(&usage), "{help}");
            assert!(
                help.lines().all(|line| line.chars().count() <= 100),
                "{help}"
            );
        }
    }
}
