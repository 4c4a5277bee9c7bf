//! Tests of `subscriptions sync`.

use pleo_sandbox::{Fault, Token};
use serde_json::Value;

use super::{LIST, URL, config, create, id};
use crate::support::harness::{EXPORT, Harness, VENDOR};
use crate::support::program::SECRET;

#[test]
fn syncs_own_subscriptions_only() {
    let harness = Harness::new();
    let foreign = id(&create(&harness, &[]));
    harness
        .dir
        .write("pleo.toml", &config(&[("a", EXPORT), ("b", EXPORT)]));
    let sync = ["subscriptions", "sync"];

    let writes = harness.write_requests();
    let output = harness.run(&sync);
    let lines = "create   https://x.example.com/a for v1.export-job.created\n\
                 fetch    signing secret into a.secret\n\
                 create   https://x.example.com/b for v1.export-job.created\n\
                 fetch    signing secret into b.secret\n";
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (0, lines),
        "{output:?}"
    );
    assert!(
        output.stderr.contains("add `--yes` to apply this"),
        "{output:?}"
    );
    assert_eq!(
        harness.write_requests(),
        writes,
        "nothing is changed without --yes"
    );
    assert!(!harness.read_file("pleo.toml").contains("[subscriptions]"));

    let printed = harness.run_ok(&["subscriptions", "sync", "--yes"]);
    assert_eq!(printed.matches("created ").count(), 2, "{printed}");
    assert!(harness.read_file("a.secret").starts_with("whsec_"));
    let before = harness.read_file("pleo.toml");
    assert!(
        before.contains("secret = \"file:b.secret\" # b"),
        "comments stay: {before}"
    );
    let writes = harness.write_requests();
    let kept = harness.json(&["subscriptions", "sync", "--yes"]);
    assert!(kept.iter().all(|line| line["do"] == "keep"), "{kept:?}");
    assert_eq!(harness.write_requests(), writes);

    // One endpoint changed, one removed, one added.
    let owner = before.split("[subscriptions]").nth(1).unwrap();
    std::fs::remove_file(harness.dir.path().join("b.secret")).unwrap();
    let output = harness.run(&["subscriptions", "sync", "--yes"]);
    assert!(output.stdout.contains("fetched "), "{output:?}");
    assert!(output.stderr.contains("kill -HUP"), "{output:?}");
    let changed = config(&[("a", VENDOR), ("c", EXPORT)]);
    harness
        .dir
        .write("pleo.toml", &format!("{changed}\n[subscriptions]{owner}"));
    let shown = harness.run(&["subscriptions", "sync", "--delete"]);
    assert!(shown.stdout.contains("delete  "), "{shown:?}");
    let output = harness.run(&["subscriptions", "sync", "--yes"]);
    assert!(output.stdout.contains("delete  "), "{output:?}");
    assert!(output.stderr.contains("add `--yes --delete`"), "{output:?}");
    let b = "https://x.example.com/b";
    assert!(
        harness.run_ok(LIST).contains(b),
        "nothing is deleted without --delete"
    );
    let printed = format!(
        "{}{}",
        output.stdout,
        harness.run_ok(&["subscriptions", "sync", "--yes", "--delete"])
    );
    for part in [
        "updated ",
        "event types: v1.export-job.created → v1.vendor.created",
        "created  https://x.example.com/c",
        "deleted ",
        " https://x.example.com/b\n",
    ] {
        assert!(printed.contains(part), "{part} is not in {printed}");
    }
    let urls = || -> Vec<_> {
        let listed = harness.json(LIST);
        let url = |subscription: &Value| subscription["endpointUrl"].as_str().unwrap().to_owned();
        listed.iter().map(url).collect()
    };
    assert_eq!(
        urls(),
        [URL, "https://x.example.com/a", "https://x.example.com/c"]
    );

    // No endpoint is left. Another configuration is another owner.
    harness
        .dir
        .write("other.toml", "[subscriptions]\nname = \"another\"\n");
    let all = ["subscriptions", "sync", "--yes", "--delete"];
    let nothing = harness.run_ok(&[&all[..], &["--config", "other.toml"]].concat());
    assert_eq!(nothing, "");
    harness
        .dir
        .write("pleo.toml", &format!("[subscriptions]{owner}"));
    harness.run_ok(&all);
    assert_eq!(urls(), [URL]);
    assert_eq!(id(&harness.json(LIST)[0]), foreign);
}

#[test]
fn syncs_each_endpoint_with_its_own_credentials() {
    let harness = Harness::new();
    harness
        .sandbox
        .grant(Token::api_key("plp_acme").scopes(["export-jobs:read", "export-jobs:write"]));
    harness.dir.write("acme.key", "plp_acme\n");
    let own = "api_key = \"file:acme.key\", url =";
    let both = config(&[("a", EXPORT), ("acme", EXPORT)]);
    let (first, second) = both.rsplit_once("url =").unwrap();
    harness
        .dir
        .write("pleo.toml", &format!("{first}{own}{second}"));
    harness.run_ok(&["subscriptions", "sync", "--yes"]);
    let [subscription] = &harness.json(LIST)[..] else {
        panic!("there is not exactly one subscription")
    };
    assert_eq!(subscription["endpointUrl"], "https://x.example.com/a");
    let kept = harness.json(&["subscriptions", "sync", "--yes"]);
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(kept.iter().all(|line| line["do"] == "keep"), "{kept:?}");
}

#[test]
fn syncs_credentials_and_headers_that_endpoint_requires() {
    let harness = Harness::new();
    let url = harness.url("/webhooks/pleo");
    harness.dir.write(
        "pleo.toml",
        &format!(
            "[[endpoint]]\npath = \"/webhooks/pleo\"\nsecret = [\"{SECRET}\", \"file:pleo.secret\"]\n\
             basic = {{ username = \"pleo\", password = \"hunter2\" }}\n\
             headers = {{ x-tenant = \"hunter2\" }}\n\
             subscription = {{ url = \"{url}\", events = [\"{EXPORT}\"] }}\n"
        ),
    );
    harness.run_ok(&["subscriptions", "sync", "--yes"]);
    let _server = harness.serve(&[]);
    let messages = harness
        .sandbox
        .emit(harness.company, EXPORT, &serde_json::json!({}));
    assert_eq!(harness.final_attempt(&messages[0]).status, Some(204));
    let kept = harness.json(&["subscriptions", "sync"]);
    assert_eq!(kept[0]["do"], "keep", "{kept:?}");
    let checks = harness.run(&["doctor", "--json"]);
    let delivered = crate::support::harness::parse_json(&checks.stdout)
        .pop()
        .unwrap();
    assert_eq!(
        (&delivered["check"], &delivered["state"]),
        (&"delivery".into(), &"ok".into())
    );
}

#[test]
fn refuses_sync_without_subscription_tables() {
    let harness = Harness::new();
    harness.dir.write(
        "pleo.toml",
        &format!("[[endpoint]]\npath = \"/a\"\nsecret = \"{SECRET}\"\n"),
    );
    let sync = ["subscriptions", "sync", "--yes"];
    harness.run_fails(&sync, 2, &["pleo.toml", "`subscription`"]);
    harness.run_fails(
        &["subscriptions", "sync", "--config", "not.toml"],
        2,
        &["not.toml", "`pleo-receiver setup --url"],
    );
    let twice = config(&[("a", EXPORT), ("b", EXPORT)]).replace("com/b", "com/a");
    harness.dir.write("pleo.toml", &twice);
    harness.run_fails(&sync, 2, &["`/a` and `/b`", "the same URL"]);
    assert_eq!(harness.write_requests(), 0);
}

#[test]
fn never_overwrites_secret_of_another_endpoint() {
    let harness = Harness::new();
    let sync = ["subscriptions", "sync", "--yes"];
    harness
        .dir
        .write("pleo.toml", &config(&[("a", EXPORT), ("b", EXPORT)]));
    let before = format!("{SECRET}\n");
    harness.dir.write("b.secret", &before);
    harness.run_fails(&sync, 2, &["b.secret holds another secret", "delete it"]);
    assert_eq!(
        (harness.write_requests(), harness.read_file("b.secret")),
        (0, before)
    );

    std::fs::remove_file(harness.dir.path().join("b.secret")).unwrap();
    let shared = config(&[("a", EXPORT), ("b", EXPORT)]).replace("b.secret", "./a.secret");
    harness.dir.write("pleo.toml", &shared);
    harness.run_fails(&sync, 2, &["a.secret", "another endpoint's"]);
    assert_eq!(
        harness.write_requests(),
        0,
        "no subscription is created whose secret cannot be written"
    );

    // An unreadable file may be another endpoint's.
    harness.dir.write("pleo.toml", &config(&[("a", EXPORT)]));
    std::fs::create_dir(harness.dir.path().join("a.secret")).unwrap();
    harness.run_fails(&sync, 2, &["cannot read a.secret"]);
    assert_eq!(harness.write_requests(), 0);
}

#[test]
fn resumes_sync_after_kill() {
    let harness = Harness::new();
    harness.dir.write("pleo.toml", &config(&[("a", EXPORT)]));
    harness
        .sandbox
        .fail_next([Fault::None, Fault::None, Fault::Silence]);
    let sync = ["subscriptions", "sync", "--yes"];
    harness.kill_at_request("/secret", &sync);
    assert!(!harness.has_file("a.secret"));
    let printed = harness.run_ok(&sync);
    assert!(
        printed.contains("keep ") && printed.contains("fetched "),
        "{printed}"
    );
    assert_eq!(harness.write_requests(), 1);
    assert!(harness.read_file("a.secret").starts_with("whsec_"));
    let printed = harness.run_ok(&sync);
    assert!(!printed.contains("fetched"), "{printed}");
}

#[test]
fn refuses_to_sync_copied_configuration() {
    let harness = Harness::new();
    harness
        .dir
        .write("pleo.toml", &config(&[("a", EXPORT), ("b", EXPORT)]));
    harness.run_ok(&["subscriptions", "sync", "--yes"]);
    let before = harness.run_ok(LIST);

    let staging = harness
        .read_file("pleo.toml")
        .replace("x.example", "staging.example");
    harness.dir.write("staging.toml", &staging);
    let parts = [
        "staging.toml",
        "looks like a copy",
        "https://x.example.com/a",
    ];
    let writes = harness.write_requests();
    for more in [&[][..], &["--yes"], &["--yes", "--delete"]] {
        let sync = ["subscriptions", "sync", "--config", "staging.toml"];
        harness.run_fails(&[&sync[..], more].concat(), 2, &parts);
    }
    let url = "https://staging.example.com/c";
    harness.run_fails(
        &["setup", "--url", url, "--config", "staging.toml"],
        2,
        &parts,
    );
    assert_eq!(
        (harness.write_requests(), harness.run_ok(LIST)),
        (writes, before)
    );

    // The copy works after the changes that the error asks for.
    let (endpoints, _) = staging.split_once("[subscriptions]").unwrap();
    let endpoints = endpoints.replace(".secret", ".staging");
    harness.dir.write("staging.toml", &endpoints);
    let sync = ["subscriptions", "sync", "--yes", "--delete", "--config"];
    harness.run_ok(&[&sync[..], &["staging.toml"]].concat());
    for config in ["pleo.toml", "staging.toml"] {
        let kept = harness.json(&[&sync[..], &[config]].concat());
        let verbs: Vec<_> = kept.iter().map(|line| &line["do"]).collect();
        assert_eq!(verbs, ["keep", "keep"], "{config}");
    }
}

#[test]
fn prints_each_difference_on_its_own_line() {
    let harness = Harness::new();
    harness.dir.write("pleo.toml", &config(&[("a", EXPORT)]));
    harness.run_ok(&["subscriptions", "sync", "--yes"]);
    let subscription = id(&harness.json(LIST)[0]);
    harness.run_ok(&[
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
    let plan = harness.run_ok(&["subscriptions", "sync"]);
    let [first, second] = &differences;
    let expected = format!("update   {subscription} {url}\n         {first}\n         {second}\n");
    assert_eq!(plan, expected);
    let json = &harness.json(&["subscriptions", "sync"])[0];
    let expected = format!("{subscription} {url}: {}", differences.join("; "));
    assert_eq!(json["what"], expected, "one text");
}
