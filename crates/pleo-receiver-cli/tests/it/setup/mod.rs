//! `setup`: from a token to a dispatched export job.

mod concurrent;
mod files;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use crate::support::harness::{EXPORT, Harness, TOKEN, VENDOR, assert_failed};
use crate::support::program::{OTHER_SECRET, free_address};
use pleo_sandbox::Fault;

#[test]
fn creates_subscription_and_dispatches_export_job() {
    let harness = Harness::new();
    let url = harness.url("/webhooks/pleo");
    let printed = harness.run_ok(&["setup", "--url", &url, "--event", EXPORT]);
    for part in [
        "create",
        &url,
        "webhooks-pleo.secret",
        "pleo.toml",
        "serve --config pleo.toml --exec COMMAND",
        "`--forward URL`",
    ] {
        assert!(printed.contains(part), "{part} is not in {printed}");
    }
    assert!(!printed.contains("whsec_"), "{printed}");
    let file = harness.dir.path().join("webhooks-pleo.secret");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(
        harness
            .read_file("webhooks-pleo.secret")
            .starts_with("whsec_")
    );
    assert!(!harness.read_file("pleo.toml").contains("whsec_"));

    let server = harness.serve(&["--exec", "tee -a books.jsonl"]);
    let job = harness.sandbox.add_export_job(harness.company);
    let [message] = &harness.sandbox.emit(harness.company, EXPORT, &job)[..] else {
        panic!("there is not exactly one subscription")
    };
    let attempt = harness.final_attempt(message);
    assert_eq!(attempt.status, Some(204));
    let [entry] = &harness.wait_for_inbox("done", 1)[..] else {
        panic!("there is not exactly one message")
    };
    assert_eq!(entry["webhook_id"], **message);
    assert_eq!(entry["resource_id"], job["id"]);
    assert_eq!(entry["origin"], "webhook");
    let [booked] = &crate::support::harness::parse_json(&harness.read_file("books.jsonl"))[..]
    else {
        panic!("there is not exactly one message")
    };
    assert_eq!(booked["data"], job, "the job as it was sent");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn works_without_proxy() {
    let harness = Harness::new();
    let (certificate, key) = harness
        .sandbox
        .authority()
        .unwrap()
        .certify(&["localhost"])
        .unwrap();
    harness.dir.write("certificate.pem", &certificate);
    harness.dir.write("key.pem", &key);
    let address: SocketAddr = free_address().parse().unwrap();
    harness.dir.write(
        "pleo.toml",
        &format!(
            "tls_listen = \"{address}\"\ntls_certificate = \"certificate.pem\"\n\
             tls_key = \"key.pem\"\n"
        ),
    );
    let url = format!("https://localhost:{}/webhooks/pleo", address.port());
    harness.run_ok(&["setup", "--url", &url]);
    let _server = harness.serve(&[]);
    let job = harness.sandbox.add_export_job(harness.company);
    let messages = harness.sandbox.emit(harness.company, EXPORT, &job);
    assert_eq!(harness.final_attempt(&messages[0]).status, Some(204));
    let checks = crate::support::harness::parse_json(&harness.run(&["doctor", "--json"]).stdout);
    let failed: Vec<_> = checks
        .iter()
        .filter(|check| check["state"] == "failed")
        .collect();
    assert!(
        failed.iter().all(|check| check["check"] == "url"),
        "{failed:?}"
    );
}

#[test]
fn changes_nothing_when_run_twice() {
    let harness = Harness::new();
    let url = harness.url("/webhooks/pleo");
    let setup = ["setup", "--url", &url, "--event", EXPORT, "--event", VENDOR];
    harness.run_ok(&setup);
    let files = || ["pleo.toml", "webhooks-pleo.secret"].map(|name| snapshot(&harness, name));
    let (before, writes) = (files(), harness.write_requests());
    let printed = harness.run_ok(&setup);
    assert!(printed.contains("nothing to change"), "{printed}");
    assert_eq!(files(), before);
    assert_eq!(harness.write_requests(), writes);
    let object = &harness.json(&setup)[0];
    assert_eq!(object["changed"], serde_json::json!({}));
    assert_eq!(object["id"].as_str().unwrap().len(), 36);
}

#[test]
fn updates_existing_subscription() {
    let harness = Harness::new();
    let url = harness.url("/webhooks/pleo");
    let create = ["subscriptions", "create", "--url", &url, "--event", EXPORT];
    let created = &harness.json(&[&create[..], &["--status", "INACTIVE"]].concat())[0];
    let printed = harness.run_ok(&["setup", "--url", &url, "--event", EXPORT]);
    assert!(printed.contains("status: INACTIVE → ACTIVE"), "{printed}");
    let [subscription] = &harness.json(&["subscriptions", "list"])[..] else {
        panic!("there is not exactly one subscription")
    };
    assert_eq!(subscription["id"], created["id"]);
    assert_eq!(subscription["status"], "ACTIVE");
    // `setup` does not mark a subscription that it did not create.
    assert!(
        subscription.get("customHeaders").is_none(),
        "{subscription}"
    );
}

#[test]
fn names_no_handler_if_configuration_has_one() {
    let harness = Harness::new();
    harness.dir.write("pleo.toml", "exec = \"true\"\n");
    let printed = harness.run_ok(&["setup", "--url", &harness.url("/webhooks/pleo")]);
    assert!(
        printed.contains("pleo-receiver serve --config pleo.toml\n"),
        "{printed}"
    );
    assert!(!printed.contains("--exec"), "{printed}");
}

#[test]
fn reloads_running_receiver() {
    let harness = Harness::new();
    let setup = |path: &str| harness.run_ok(&["setup", "--url", &harness.url(path)]);
    setup("/webhooks/pleo");
    let mut server = harness.serve(&[]);
    let printed = setup("/webhooks/acme");
    assert!(
        printed.contains("reloaded") && !printed.contains("next"),
        "{printed}"
    );
    server.wait_for_log("configuration reloaded");
    let messages = harness
        .sandbox
        .emit(harness.company, EXPORT, &serde_json::json!({}));
    assert_eq!(messages.len(), 2, "one per subscription");
    for message in &messages {
        assert_eq!(harness.final_attempt(message).status, Some(204));
    }
    let endpoints: Vec<_> = harness.wait_for_inbox("pending", 2);
    let mut endpoints: Vec<_> = endpoints
        .iter()
        .map(|endpoint| &endpoint["endpoint"])
        .collect();
    endpoints.sort_by_key(ToString::to_string);
    assert_eq!(endpoints, ["/webhooks/acme", "/webhooks/pleo"]);

    let listed = harness.json(&["subscriptions", "list"]);
    let id = listed[0]["id"].as_str().unwrap().parse().unwrap();
    harness.sandbox.rotate_secret(id).unwrap();
    harness.sandbox.retire_old_secrets(id).unwrap();
    setup("/webhooks/pleo");
    server.wait_for_log("configuration reloaded");
    let messages = harness
        .sandbox
        .emit(harness.company, EXPORT, &serde_json::json!({}));
    for message in &messages {
        assert_eq!(
            harness.final_attempt(message).status,
            Some(204),
            "with the new secret"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn signals_no_unrelated_process_with_same_pid() {
    let harness = Harness::new();
    harness.run_ok(&["setup", "--url", &harness.url("/a")]);
    let _server = harness.serve(&[]);
    // As if the receiver ran in another container, with pids of its own.
    let mut unrelated = std::process::Command::new("sleep")
        .arg("600")
        .spawn()
        .unwrap();
    let pid = unrelated.id().to_string();
    harness.dir.write("pleo-inbox.db.lock", &pid);
    let printed = harness.run_ok(&["setup", "--url", &harness.url("/b")]);
    assert!(
        printed.contains("next ") && printed.contains("kill -HUP"),
        "{printed}"
    );
    let checks = crate::support::harness::parse_json(&harness.run(&["doctor", "--json"]).stdout);
    let receiver = checks.iter().find(|check| check["check"] == "receiver");
    assert_eq!(receiver.unwrap()["state"], "ok");
    assert_eq!(unrelated.try_wait().unwrap(), None, "the process lives");
    unrelated.kill().unwrap();
    unrelated.wait().unwrap();
}

#[test]
fn finds_created_subscription_after_kill() {
    let harness = Harness::new();
    let url = harness.url("/webhooks/pleo");
    harness
        .sandbox
        .fail_next([Fault::None, Fault::None, Fault::Silence]);
    harness.kill_at_request("/secret", &["setup", "--url", &url]);
    assert_eq!(harness.write_requests(), 1, "the subscription is created");
    assert!(!harness.has_file("webhooks-pleo.secret"));
    let [created] = &harness.json(&["subscriptions", "list"])[..] else {
        panic!("there is not exactly one subscription")
    };
    let owner = created["customHeaders"]["pleo-receiver-owner"]
        .as_str()
        .unwrap();
    assert!(harness.read_file("pleo.toml").contains(owner));

    harness.run_ok(&["setup", "--url", &url]);
    assert_eq!(harness.write_requests(), 1, "the subscription is found");
    let _server = harness.serve(&[]);
    let messages = harness
        .sandbox
        .emit(harness.company, EXPORT, &serde_json::json!({}));
    assert_eq!(harness.final_attempt(&messages[0]).status, Some(204));
}

#[test]
fn dry_run_changes_nothing() {
    let harness = Harness::new();
    let url = harness.url("/webhooks/pleo");
    let printed = harness.run_ok(&["setup", "--url", &url, "--dry-run"]);
    assert!(printed.contains("create"), "{printed}");
    let [object] = &harness.json(&["setup", "--url", &url, "--dry-run"])[..] else {
        panic!("there is not exactly one object")
    };
    assert_eq!(
        (&object["do"], &object["id"]),
        (&"create".into(), &().into())
    );
    assert_eq!(harness.write_requests(), 0);
    assert!(!harness.has_file("pleo.toml") && !harness.has_file("webhooks-pleo.secret"));
    // A dry run fails where a real run would.
    harness.dir.write("webhooks-pleo.secret", OTHER_SECRET);
    let dry = ["setup", "--url", &url, "--dry-run"];
    harness.run_fails(&dry, 2, &["webhooks-pleo.secret"]);
}

#[test]
fn finds_subscription_created_without_response() {
    let harness = Harness::new();
    let setup = ["setup", "--url", &harness.url("/webhooks/pleo")];
    harness.sandbox.fail_next([Fault::None, Fault::AnswerLost]);
    harness.run_fails(&setup, 1, &["no answer", "run the command again"]);
    assert!(harness.run_ok(&setup).contains("keep "));
    assert_eq!(harness.json(&["subscriptions", "list"]).len(), 1);
}

#[test]
fn writes_token_reference_but_not_token() {
    let harness = Harness::new();
    harness.dir.write("token", &format!("{TOKEN}\n"));
    let url = harness.url("/webhooks/pleo");
    let output = harness.run_with_token(
        &["setup", "--url", &url, "--token", "file:token"],
        "not a token",
    );
    assert_eq!(output.code, 0, "{output:?}");
    assert!(
        harness
            .read_file("pleo.toml")
            .contains("token = \"file:token\"")
    );
    let doctor = ["doctor", "--no-delivery", "--json"];
    let checks =
        crate::support::harness::parse_json(&harness.run_with_token(&doctor, "not-a-token").stdout);
    let pleo = checks
        .iter()
        .find(|check| check["check"] == "pleo")
        .unwrap();
    assert_eq!(pleo["state"], "ok", "with the token in the file: {pleo}");
}

#[test]
fn reports_problems_with_their_fix() {
    let harness = Harness::new();
    let url = harness.url("/webhooks/pleo");
    let setup = |more: &[&str]| harness.run(&[&["setup"], more].concat());
    let plain = url.replace("https", "http");
    assert_failed(&setup(&["--url", &plain]), 2, &["only over HTTPS"]);
    assert_failed(&setup(&["--url", "receiver"]), 2, &["not absolute"]);
    let typo = setup(&["--url", &url, "--event", "v1.export-job.craeted"]);
    assert_failed(
        &typo,
        2,
        &[
            "v1.export-job.craeted",
            "v1.export-job.created",
            "--unknown-events",
        ],
    );
    let unknown = setup(&["--url", &url, "--event", "v9.new", "--unknown-events"]);
    assert_failed(&unknown, 1, &["(400)", "unknown event type v9.new"]);
    let unknown_token = harness.run_with_token(&["setup", "--url", &url], "a.b.c");
    assert_failed(
        &unknown_token,
        1,
        &["does not accept the token (401)", "expired"],
    );
    let no_token = harness.run_with_token(&["setup", "--url", &url], "");
    assert_failed(&no_token, 2, &["PLEO_API_TOKEN"]);
    harness.sandbox.fail_next([Fault::status(500)]);
    assert_failed(
        &setup(&["--url", &url]),
        1,
        &["Pleo failed (500)", "try again later"],
    );
    harness.sandbox.fail_next([Fault::status(418)]);
    assert_failed(&setup(&["--url", &url]), 1, &["answered 418"]);
    assert_failed(&setup(&["--url", &url, "--path", "pleo"]), 2, &["`--path`"]);
    assert_eq!(
        harness.write_requests(),
        1,
        "only the request with the unknown event type"
    );
    let named =
        format!("[[endpoint]]\npath = \"/a\"\nname = \"acme\"\nsecret = \"{OTHER_SECRET}\"\n");
    harness.dir.write("named.toml", &named);
    let named = ["--url", &url, "--config", "named.toml", "--name", "acme"];
    assert_failed(&setup(&named), 2, &["`--name`", "`/a`"]);

    harness
        .dir
        .write("single.toml", &format!("secret = \"{OTHER_SECRET}\"\n"));
    let single = setup(&["--url", &url, "--config", "single.toml"]);
    assert_failed(&single, 2, &["single.toml", "[[endpoint]]"]);
    let list = format!("endpoint = [{{ path = \"/a\", secret = \"{OTHER_SECRET}\" }}]\n");
    harness.dir.write("list.toml", &list);
    let list = setup(&["--url", &url, "--config", "list.toml"]);
    assert_failed(&list, 2, &["list.toml", "[[endpoint]]"]);
    harness.dir.write("broken.toml", "listem = 1\n");
    let broken = setup(&["--url", &url, "--config", "broken.toml"]);
    assert_failed(&broken, 2, &["broken.toml, line 1", "listem"]);
    let dry_run = setup(&["--url", &url, "--config", "not/there.toml", "--dry-run"]);
    assert_eq!(dry_run.code, 0, "{dry_run:?}");
    assert!(
        !harness.read_file("pleo.toml").contains("endpoint"),
        "only the owner name"
    );
    assert!(!harness.has_file("webhooks-pleo.secret"));
    assert_eq!(
        harness.write_requests(),
        1,
        "only the request with the unknown event type"
    );

    let harness = Harness::with_scopes(&["export-jobs:read"]);
    let output = harness.run(&["setup", "--url", &harness.url("/"), "--event", EXPORT]);
    let parts = ["(403)", "export-jobs:write", "ask Pleo"];
    assert_failed(&output, 1, &parts);
}

#[test]
fn warns_of_plain_token_in_arguments() {
    let harness = Harness::new();
    let list = ["subscriptions", "list", "--json"];
    let output = harness.run(&list);
    assert_eq!(output.stderr, "");
    let url = harness.sandbox.url();
    let env = [("SSL_CERT_FILE", "authority.pem"), ("PLEO_API_URL", url)];
    let args = [&list[..], &["--token", TOKEN]].concat();
    let output = harness.dir.run_with(&args, &env, b"");
    assert!(
        output
            .stderr
            .contains("every user of this machine can read"),
        "{output:?}"
    );
    assert!(!output.stderr.contains(TOKEN), "{output:?}");
}

/// Returns the content and modification time of a file.
fn snapshot(harness: &Harness, name: &str) -> (Vec<u8>, std::time::SystemTime) {
    let path = harness.dir.path().join(name);
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    (std::fs::read(path).unwrap(), modified)
}
