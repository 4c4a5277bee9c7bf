//! Tests of `doctor`: it reports problems with their fixes.

use crate::support::harness::{EXPORT, Harness, VENDOR, parse_json};
use crate::support::program::{OTHER_SECRET, SECRET, free_address};
use pleo_sandbox::Fault;
use serde_json::Value;

fn run_doctor(harness: &Harness, more: &[&str]) -> (i32, Vec<Value>) {
    let output = harness.run(&[&["doctor", "--json"], more].concat());
    assert_eq!(output.stderr, "", "{output:?}");
    (output.code, parse_json(&output.stdout))
}

/// Returns the state of a check.
fn state<'c>(checks: &'c [Value], check: &str) -> &'c str {
    let found = checks.iter().find(|result| result["check"] == check);
    found.map_or("", |check| check["state"].as_str().unwrap())
}

/// Asserts that a check failed. Returns its finding and its fix.
fn failed(checks: &[Value], check: &str) -> String {
    assert_eq!(state(checks, check), "failed", "{check}: {checks:?}");
    let result = checks
        .iter()
        .find(|result| result["check"] == check)
        .unwrap();
    format!("{} | {}", result["found"], result["fix"])
}

#[test]
fn reports_every_passing_check() {
    let harness = Harness::new();
    harness.set_up(EXPORT);
    let _server = harness.serve(&[]);
    let (code, checks) = run_doctor(&harness, &[]);
    let not_ok: Vec<_> = checks
        .iter()
        .filter(|check| check["state"] == "failed")
        .collect();
    // A test has only loopback addresses.
    let [url] = not_ok[..] else {
        panic!("{not_ok:?}")
    };
    assert_eq!((&url["check"], code), (&Value::from("url"), 1));
    assert!(
        url["found"].as_str().unwrap().contains("127.0.0.1"),
        "{url}"
    );
    let names: Vec<_> = checks
        .iter()
        .map(|check| check["check"].as_str().unwrap())
        .collect();
    let all = [
        "configuration",
        "handler",
        "retention",
        "inbox",
        "receiver",
        "disk",
        "replicas",
        "messages",
        "admin",
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
    assert_eq!(names, all);
    let [entry] = &harness.wait_for_inbox("pending", 1)[..] else {
        panic!("there is not exactly one test delivery")
    };
    assert_eq!(entry["event_type"], "pleo-receiver.doctor");
    let (_, checks) = run_doctor(&harness, &["--no-delivery"]);
    assert_eq!(state(&checks, "delivery"), "skipped");
    assert_eq!(
        harness.wait_for_inbox("pending", 1).len(),
        1,
        "no second delivery"
    );
}

#[test]
fn skips_delivery_to_endpoint_with_allowed_networks() {
    let harness = Harness::new();
    harness.set_up(EXPORT);
    let before = harness.read_file("pleo.toml");
    let sources = "path = \"/webhooks/pleo\"\nsources = [\"52.215.16.239\"]";
    let after = before.replace("path = \"/webhooks/pleo\"", sources);
    harness.dir.write("pleo.toml", &after);
    let _server = harness.serve(&[]);
    let (_, checks) = run_doctor(&harness, &[]);
    assert_eq!(
        (state(&checks, "reachable"), state(&checks, "delivery")),
        ("ok", "skipped")
    );
}

#[test]
fn prints_one_line_per_check_with_its_fix() {
    let harness = Harness::new();
    harness.set_up(EXPORT);
    let output = harness.run(&["doctor"]);
    assert_eq!((output.code, output.stderr.as_str()), (1, ""));
    let mut lines = output.stdout.lines();
    assert_eq!(
        lines.next(),
        Some("ok      configuration pleo.toml is valid")
    );
    // Neither a handler nor a retention is set.
    let mut lines = lines.skip(2);
    let inbox = lines.next().unwrap();
    assert!(
        inbox.starts_with("FAILED  inbox         pleo-inbox.db does not exist"),
        "{inbox}"
    );
    let fix = lines.next().unwrap();
    assert!(
        fix.starts_with("        fix           if it was moved, put it back first"),
        "{fix}"
    );
}

#[test]
fn reports_subscription_token_and_secret_problems() {
    let harness = Harness::new();
    let id = harness.set_up(EXPORT);
    let _server = harness.serve(&[]);
    let update =
        |more: &[&str]| harness.run_ok(&[&["subscriptions", "update", &id], more].concat());

    update(&["--status", "INACTIVE", "--event", VENDOR]);
    let (code, checks) = run_doctor(&harness, &[]);
    assert_eq!(code, 1);
    assert!(failed(&checks, "subscription").contains("INACTIVE"));
    assert!(failed(&checks, "events").contains("not subscribed: v1.export-job.created"));
    assert!(failed(&checks, "events").contains("subscriptions sync"));
    harness.run_ok(&["subscriptions", "sync", "--yes"]);
    let (_, checks) = run_doctor(&harness, &[]);
    assert_eq!(
        (state(&checks, "subscription"), state(&checks, "events")),
        ("ok", "ok")
    );

    let env = [("SSL_CERT_FILE", "authority.pem")];
    let checks = parse_json(
        &harness
            .dir
            .run_with(&["doctor", "--json"], &env, b"")
            .stdout,
    );
    assert!(failed(&checks, "pleo").contains("PLEO_API_TOKEN"));
    assert_eq!(
        state(&checks, "reachable"),
        "ok",
        "this check needs no token"
    );

    harness.sandbox.rotate_secret(id.parse().unwrap()).unwrap();
    let (_, checks) = run_doctor(&harness, &[]);
    let fix = failed(&checks, "secret");
    assert!(
        fix.contains("signs with a secret that the endpoint does not have")
            && fix.contains("setup --url"),
        "{fix}"
    );
    harness.run_ok(&[
        "setup",
        "--url",
        &harness.url("/webhooks/pleo"),
        "--event",
        EXPORT,
    ]);
    let (_, checks) = run_doctor(&harness, &[]);
    assert_eq!(state(&checks, "secret"), "ok");
    harness.run_ok(&["subscriptions", "delete", &id]);
    let (_, checks) = run_doctor(&harness, &[]);
    assert!(failed(&checks, "subscription").contains("Pleo has no subscription"));

    let output = harness.run_with_token(&["doctor", "--json"], "a.b.c");
    assert!(failed(&parse_json(&output.stdout), "pleo").contains("(401)"));
    harness.sandbox.fail_next([Fault::status(500)]);
    let (_, checks) = run_doctor(&harness, &[]);
    assert!(failed(&checks, "pleo").contains("(500)"));
}

#[test]
fn reports_network_and_delivery_problems() {
    let harness = Harness::new();
    let url = harness.url("/webhooks/pleo");
    harness.set_up(EXPORT);
    let (_, checks) = run_doctor(&harness, &[]);
    assert!(failed(&checks, "reachable").contains("start the receiver"));

    let server = harness.serve(&[]);
    let good = harness.read_file("pleo.toml");
    let doctor_with = |from: &str, to: &str| {
        harness.dir.write("pleo.toml", &good.replace(from, to));
        let (code, checks) = run_doctor(&harness, &[]);
        assert_eq!(code, 1, "{checks:?}");
        checks
    };
    // Pleo's URL has another path than the proxy forwards.
    let checks = doctor_with("pleo\", events", "elsewhere\", events");
    assert!(failed(&checks, "delivery").contains("no_such_path"));
    assert!(failed(&checks, "delivery").contains("keep the path"));
    // The certificate is valid for `localhost` only.
    let checks = doctor_with("https://localhost", "https://127.0.0.1");
    assert!(failed(&checks, "certificate").contains("for this name"));
    let checks = doctor_with("https://localhost", "https://name.invalid");
    assert!(failed(&checks, "url").contains("cannot resolve"));
    let checks = doctor_with("https://localhost", "http://localhost");
    assert!(failed(&checks, "url").contains("not an `https` URL"));
    // The receiver has not reloaded the new secret.
    let checks = doctor_with("file:webhooks-pleo.secret", SECRET);
    assert!(failed(&checks, "delivery").contains("signature_mismatch"));
    assert!(failed(&checks, "delivery").contains("restart it"));
    // The inbox of another receiver.
    harness
        .dir
        .write("pleo.toml", &format!("inbox = \"sqlite:other.db\"\n{good}"));
    let other = harness.dir.serve(&["--config", "pleo.toml"], &[]);
    drop(other);
    let (_, checks) = run_doctor(&harness, &[]);
    assert!(failed(&checks, "delivery").contains("it is not in the inbox"));
    assert!(failed(&checks, "receiver").contains("no receiver is running"));
    drop(server);

    // A server that accepts every request.
    harness.connect_permissive_server();
    harness.dir.write("pleo.toml", &good);
    let (_, checks) = run_doctor(&harness, &[]);
    assert!(
        failed(&checks, "reachable").contains("accepts unsigned requests"),
        "{url}"
    );
}

#[test]
fn stops_at_invalid_configuration() {
    let harness = Harness::new();
    let (code, checks) = run_doctor(&harness, &[]);
    assert_eq!((code, checks.len()), (1, 1), "{checks:?}");
    assert!(failed(&checks, "configuration").contains("pleo.toml"));
    for text in [
        "listem = 1",
        "[[endpoint]]\npath = \"/a\"\nsecret = \"file:not-there\"",
        &format!(
            "[[endpoint]]\npath = \"/a\"\nsecret = \"{OTHER_SECRET}\"\n[[endpoint]]\npath = \"/b\"\n\
             name = \"/a\"\nsecret = \"{OTHER_SECRET}\""
        ),
    ] {
        harness.dir.write("pleo.toml", text);
        let (code, checks) = run_doctor(&harness, &[]);
        assert_eq!((code, checks.len()), (1, 1), "{checks:?}");
    }
    harness
        .dir
        .write("pleo.toml", &format!("secret = \"{OTHER_SECRET}\""));
    // The short form of a single endpoint.
    let (_, checks) = run_doctor(&harness, &[]);
    for check in ["endpoint", "clock"] {
        assert_eq!(state(&checks, check), "skipped", "{checks:?}");
    }
    let found = format!("{checks:?}");
    assert!(found.contains("/webhooks/pleo is at the top"), "{found}");
    assert!(found.contains("setup --url"), "{found}");
}

#[test]
fn prints_checks_by_endpoint_and_counts_them() {
    let harness = Harness::new();
    harness.set_up(EXPORT);
    let _server = harness.serve(&[]);
    let output = harness.run(&["doctor"]);
    assert_eq!((output.code, output.stderr.as_str()), (1, ""));
    let (receiver, endpoint) = output
        .stdout
        .split_once("\n\nendpoint /webhooks/pleo\n")
        .unwrap();
    assert_eq!(receiver.lines().count(), 9, "{receiver}");
    let is_fine = |line: &str| line.starts_with("ok      ") || line.starts_with("skipped ");
    assert!(receiver.lines().all(is_fine), "{receiver}");
    assert!(
        endpoint.starts_with("FAILED  url           localhost resolves to 127.0.0.1"),
        "{endpoint}"
    );
    assert!(
        endpoint.ends_with("\n\n14 ok, 1 failed, 3 skipped\n"),
        "{endpoint}"
    );
}

#[test]
fn names_configuration_in_each_fix() {
    let harness = Harness::new();
    harness.set_up(EXPORT);
    let elsewhere = harness
        .read_file("pleo.toml")
        .replace("/pleo\", events", "/a\", events");
    harness.dir.write("other.toml", &elsewhere);
    let (_, checks) = run_doctor(&harness, &["--config", "other.toml"]);
    for check in ["inbox", "subscription"] {
        assert!(failed(&checks, check).contains("--config other.toml"));
    }
}

#[test]
fn checks_settings_and_admin_listener() {
    let harness = Harness::new();
    harness.set_up(EXPORT);
    let (_, checks) = run_doctor(&harness, &[]);
    for check in ["handler", "retention", "admin"] {
        assert_eq!(state(&checks, check), "skipped", "{checks:?}");
    }
    let config = harness.read_file("pleo.toml");
    let address = free_address();
    let settings = format!(
        "exec = \"true\"\nadmin = \"{address}\"\nadmin_token = \"file:token\"\n{config}\
         [retention]\ndone = \"30d\"\n"
    );
    harness.dir.write("pleo.toml", &settings);
    harness.dir.write("token", "swordfish");
    let (_, checks) = run_doctor(&harness, &[]);
    assert!(failed(&checks, "admin").contains("no answer from"));
    let mut server = harness.serve(&[]);
    let (_, checks) = run_doctor(&harness, &[]);
    for check in ["handler", "retention", "disk", "replicas", "admin"] {
        assert_eq!(state(&checks, check), "ok", "{checks:?}");
    }
    // The receiver has not reloaded the token.
    harness.dir.write("token", "marlin");
    let (_, checks) = run_doctor(&harness, &[]);
    assert!(failed(&checks, "admin").contains("refuses the credentials"));
    server.signal_and_wait("-HUP", "configuration reloaded");
    let (_, checks) = run_doctor(&harness, &[]);
    assert_eq!(state(&checks, "admin"), "ok");
}

#[test]
fn reports_dead_messages_and_paused_endpoints_with_their_fix() {
    let harness = Harness::new();
    harness.set_up(EXPORT);
    let _server = harness.serve(&["--exec", "sh -c 'exit 65'"]);
    // Leaves a message in the inbox.
    assert_eq!(state(&run_doctor(&harness, &[]).1, "messages"), "ok");
    harness.wait_for_inbox("dead", 1);
    let found = failed(&run_doctor(&harness, &["--no-delivery"]).1, "messages");
    assert!(found.contains("1 message dead"), "{found}");
    assert!(
        found.contains("`pleo-receiver inbox replay --dead`"),
        "{found}"
    );
    let pruned = ["inbox", "prune", "--state", "dead", "--older-than", "0s"];
    assert_eq!(harness.run(&pruned).code, 0);
    let checks = run_doctor(&harness, &["--no-delivery"]).1;
    assert_eq!(state(&checks, "messages"), "ok");
    let pause = harness.run(&["inbox", "pause", "/webhooks/pleo"]);
    assert_eq!(pause.code, 0, "{pause:?}");
    let found = failed(&run_doctor(&harness, &["--no-delivery"]).1, "messages");
    assert!(found.contains("paused: /webhooks/pleo"), "{found}");
}

#[test]
fn reports_missing_handler_program_and_short_retention() {
    let harness = Harness::new();
    let config = |settings: &str| {
        let secret = format!("secret = \"{OTHER_SECRET}\"\n");
        harness
            .dir
            .write("pleo.toml", &format!("{secret}{settings}"));
        run_doctor(&harness, &[]).1
    };
    harness.dir.write("not-executable", "");
    for program in ["./not-there", "./not-executable", "not-there-either"] {
        let checks = config(&format!("exec = \"{program} --all\""));
        let handler = failed(&checks, "handler");
        assert!(handler.contains(&format!("`{program}`")), "{handler}");
        assert!(handler.contains("correct `exec`"), "{handler}");
    }
    for (ages, found) in [
        ("done = \"1h\"", "done messages are deleted after 1h"),
        ("done = \"90m\"", "done messages are deleted after 1h 30m"),
        (
            "done = \"30d\"\ndead = \"36h\"",
            "done messages are deleted after 30d, dead messages are deleted after 1d 12h",
        ),
    ] {
        let checks = config(&format!("exec = \"true\"\n[retention]\n{ages}\n"));
        assert_eq!(state(&checks, "handler"), "ok");
        let retention = checks.iter().find(|check| check["check"] == "retention");
        assert_eq!(retention.unwrap()["found"], found);
    }
}

#[test]
fn checks_certificate_and_key_of_receiver() {
    let harness = Harness::new();
    harness.dir.write(
        "pleo.toml",
        &format!(
            "secret = \"{OTHER_SECRET}\"\ntls_listen = \"127.0.0.1:0\"\n\
             tls_certificate = \"cert.pem\"\ntls_key = \"key.pem\"\n"
        ),
    );
    let tls = || run_doctor(&harness, &[]).1;
    assert!(failed(&tls(), "tls").contains("cannot read cert.pem"));
    let key = rcgen::KeyPair::generate().unwrap();
    let write = |year, key: &rcgen::KeyPair| {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 2, 28);
        harness
            .dir
            .write("cert.pem", &params.self_signed(key).unwrap().pem());
    };
    harness.dir.write("key.pem", &key.serialize_pem());
    write(2100, &key);
    let checks = tls();
    assert_eq!(state(&checks, "tls"), "ok", "{checks:?}");
    assert!(format!("{checks:?}").contains("valid until 2100-02-28"));
    write(2020, &key);
    assert!(failed(&tls(), "tls").contains("expired at 2020-02-28"));
    write(2100, &rcgen::KeyPair::generate().unwrap());
    assert!(failed(&tls(), "tls").contains("cannot be used together"));
}

#[test]
fn reports_refused_reload() {
    let harness = Harness::new();
    let address = free_address();
    let good = format!("secret = \"{OTHER_SECRET}\"\nadmin = \"{address}\"\n");
    harness.dir.write("pleo.toml", &good);
    let mut server = harness.serve(&[]);
    let reload = || run_doctor(&harness, &[]).1;
    assert_eq!(state(&reload(), "reload"), "ok", "no reload yet");
    harness.dir.write("pleo.toml", "listem = 1");
    server.signal_and_wait("-HUP", "configuration not reloaded");
    // Somebody has corrected the file, but not reloaded it.
    harness.dir.write("pleo.toml", &good);
    let refused = failed(&reload(), "reload");
    assert!(
        refused.contains("refused its configuration at 20"),
        "{refused}"
    );
    assert!(refused.contains("reload again"), "{refused}");
    server.signal_and_wait("-HUP", "configuration reloaded");
    assert_eq!(state(&reload(), "reload"), "ok");
}

#[test]
fn advises_to_put_moved_inbox_back() {
    let harness = Harness::new();
    harness
        .dir
        .write("pleo.toml", &format!("secret = \"{OTHER_SECRET}\"\n"));
    let server = harness.serve(&[]);
    let file = |name: &str| harness.dir.path().join(name);
    std::fs::rename(file("pleo-inbox.db"), file("away.db")).unwrap();
    for server in [Some(server), None] {
        let (_, checks) = run_doctor(&harness, &[]);
        let inbox = failed(&checks, "inbox");
        for part in ["was moved or deleted", "pleo-inbox.db-wal", "put it back"] {
            assert!(inbox.contains(part), "{part} is not in {inbox}");
        }
        assert!(!inbox.contains("`pleo-receiver serve"), "{inbox}");
        if let Some(server) = server {
            server.stop("-KILL");
        }
    }
}
