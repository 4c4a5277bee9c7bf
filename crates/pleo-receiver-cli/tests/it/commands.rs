//! Tests of the commands `inbox`, `sign` and `verify`.

use std::io::{BufRead, BufReader};

use crate::support::program::{CommandOutput, ENV, OTHER_SECRET, SECRET, WorkDir};

#[test]
fn inbox_lists_shows_replays_and_prunes() {
    let dir = WorkDir::new();
    let server = dir.serve(&[], ENV);
    let url = server.url.clone();
    for (id, event) in [
        ("msg_1", "v1.export-job.created"),
        ("msg_2", "v1.vendor.created"),
        ("msg_3", "v9.new"),
    ] {
        let sent = dir.run_with(&["send", &url, "--id", id, "--event", event], ENV, b"");
        assert_eq!(
            (sent.code, sent.stdout.lines().next()),
            (0, Some("204 No Content")),
            "{sent:?}"
        );
    }
    dir.write("binary", "");
    std::fs::write(dir.path().join("binary"), b"\xff\x00").unwrap();
    let sent = dir.run_with(
        &["send", &url, "--id", "msg_4", "--body", "binary"],
        ENV,
        b"",
    );
    assert_eq!(sent.code, 0, "{sent:?}");

    let listed = dir.json(&["inbox", "list", "--json"]);
    let ids: Vec<_> = listed
        .iter()
        .map(|entry| entry["webhook_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["msg_1", "msg_2", "msg_3", "msg_4"]);
    let first = listed[0].as_object().unwrap();
    for key in [
        "webhook_id",
        "endpoint",
        "event_type",
        "event_id",
        "resource_id",
        "origin",
        "state",
        "attempts",
        "received_at",
        "expires_at",
    ] {
        assert!(first.contains_key(key), "{key}");
    }
    assert_eq!(first["endpoint"], "/webhooks/pleo");
    assert_eq!(first["origin"], "webhook");
    assert!(first["resource_id"].is_string() && listed[3]["resource_id"].is_null());
    assert!(first["expires_at"].is_string() && listed[1]["expires_at"].is_null());
    assert!(listed[3]["event_type"].is_null());
    assert_eq!(
        dir.json(&["inbox", "list", "--json", "--limit", "2"])[..],
        listed[2..]
    );
    assert_eq!(
        dir.json(&["inbox", "list", "--json", "--state", "done"])
            .len(),
        0
    );
    assert_eq!(
        dir.json(&["inbox", "tail", "--json", "-n", "1"])[..],
        listed[3..]
    );

    let shown = dir.json(&["inbox", "show", "msg_3", "--json"]);
    let body: serde_json::Value = serde_json::from_str(shown[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["eventType"], "v9.new");
    let shown = dir.json(&["inbox", "show", "msg_4", "--json"]);
    assert_eq!(shown[0]["body_base64"], "/wA=");
    let shown = dir.run(&["inbox", "show", "msg_1"]);
    assert!(
        shown.stdout.contains("state         pending\n")
            && shown.stdout.contains("\"numberOfItems\":3")
    );
    let table = dir.run(&["inbox", "list"]).stdout;
    assert_eq!(table.lines().count(), 5, "{table}");
    let missing = dir.run(&["inbox", "show", "msg_9"]);
    assert_eq!((missing.code, &*missing.stdout), (1, ""), "{missing:?}");
    assert_eq!(server.stop("-TERM").0, Some(0));

    // Messages are dispatched before they are pruned.
    let done = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = done.local_addr().unwrap().port();
    let exec = format!("bash -c 'echo > /dev/tcp/127.0.0.1/{port}'");
    let server = dir.serve(&["--exec", &exec], ENV);
    (0..4).for_each(|_| drop(done.accept().unwrap()));
    assert_eq!(server.stop("-TERM").0, Some(0));
    assert_eq!(
        dir.json(&["inbox", "list", "--json", "--state", "done"])
            .len(),
        4
    );
    assert_eq!(
        dir.json(&["inbox", "replay", "msg_2", "--json"])[0]["replayed"],
        1
    );
    for (conditions, replayed) in [
        (&["--state", "dead"][..], 0),
        (&["--dead"], 0),
        (&["--event-type", "v9.new"], 1),
        (&["--event-type", "v9.new", "--state", "done"], 0),
        (&["--endpoint", "/elsewhere"], 0),
        (&["--since", "0s"], 0),
        (&["--until", "1d"], 0),
        (&["--until", "2026-01-01T00:00:00Z"], 0),
        (&["--since", "1d", "--until", "0s", "--state", "done"], 2),
    ] {
        let args = [&["inbox", "replay", "--json"], conditions].concat();
        let done = dir.json(&args);
        assert_eq!(done[0]["replayed"], replayed, "{conditions:?}");
    }
    for wrong in [&["--since", "soon"][..], &[], &["msg_1", "--dead"]] {
        assert_eq!(dir.run(&[&["inbox", "replay"], wrong].concat()).code, 2);
    }
    let unknown = dir.run(&["inbox", "replay", "msg_9"]);
    assert!(
        unknown.code == 1 && unknown.stderr.contains("msg_9"),
        "{unknown:?}"
    );
    assert_eq!(dir.json(&["inbox", "prune", "--json"])[0]["pruned"], 0);
    assert_eq!(
        dir.json(&["inbox", "prune", "--older-than", "0s", "--json"])[0]["pruned"],
        0
    );
    let remaining = dir.json(&["inbox", "list", "--json"]);
    assert_eq!(remaining.len(), 4);
    assert!(remaining.iter().all(|entry| entry["state"] == "pending"));
}

#[test]
fn inbox_list_creates_no_file() {
    let dir = WorkDir::new();
    let output = dir.run(&["inbox", "list"]);
    assert!(
        output.code == 1 && output.stderr.contains("pleo-inbox.db"),
        "{output:?}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn inbox_tail_follows_new_messages() {
    let dir = WorkDir::new();
    let server = dir.serve(&[], ENV);
    let mut tail = dir
        .command(&["inbox", "tail", "--follow", "--json"])
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(tail.stdout.take().unwrap());
    for id in ["msg_1", "msg_2"] {
        dir.run_with(&["send", &server.url, "--id", id], ENV, b"");
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert!(line.contains(&format!("\"webhook_id\":\"{id}\"")), "{line}");
    }
    tail.kill().unwrap();
    tail.wait().unwrap();
}

#[test]
fn verify_accepts_output_of_sign() {
    let dir = WorkDir::new();
    let args = [
        "sign",
        "--id",
        "msg_1",
        "--timestamp",
        "1614265330",
        "--secret",
        SECRET,
        "--secret",
        OTHER_SECRET,
    ];
    let signed = dir.run_with(&args, &[], b"{}");
    let lines: Vec<_> = signed.stdout.lines().collect();
    let [id, timestamp, signature] = lines[..] else {
        panic!("{signed:?}")
    };
    assert_eq!(
        (id, timestamp),
        ("webhook-id: msg_1", "webhook-timestamp: 1614265330")
    );
    assert_eq!(signature.matches("v1,").count(), 2, "{signature}");
    for secret in [SECRET, OTHER_SECRET] {
        let output = verify(&dir, &signed.stdout, secret, b"{}", &["--at", "1614265330"]);
        assert_eq!(output.code, 0, "{output:?}");
    }
}

fn verify(dir: &WorkDir, headers: &str, secret: &str, body: &[u8], more: &[&str]) -> CommandOutput {
    dir.write("headers", headers);
    let args = [&["verify", "--headers", "headers"], more].concat();
    dir.run_with(&args, &[("PLEO_WEBHOOK_SECRET", secret)], body)
}

#[test]
fn verify_names_failed_check_and_cause() {
    let dir = WorkDir::new();
    let body = "{\"data\": {\"name\": \"Caf\\u00e9\", \"n\": [1, 2]}, \"eventType\": \"v9.new\"}";
    let args = ["sign", "--id", "msg_1", "--timestamp", "1614265330"];
    let signed = dir.run_with(&args, ENV, body.as_bytes()).stdout;
    let at = |offset: &str| {
        let output = verify(&dir, &signed, SECRET, body.as_bytes(), &["--at", offset]);
        (output.code, output.stdout)
    };
    assert_eq!(at("1614265330").0, 0);
    let (code, text) = at("1614265730");
    assert!(
        code == 1 && text.contains("FAILED  timestamp") && text.contains("400 s"),
        "{text}"
    );
    assert!(text.contains("ok      signature"), "{text}");
    let (code, text) = at("1614264930");
    assert!(code == 1 && text.contains("slow by 400 s"), "{text}");

    let compact = r#"{"data":{"name":"Café","n":[1,2]},"eventType":"v9.new"}"#;
    let python = r#"{"data": {"name": "Café", "n": [1, 2]}, "eventType": "v9.new"}"#;
    for (secret, body, cause) in [
        (OTHER_SECRET, body, "another secret"),
        (
            SECRET,
            compact,
            "with a space after each comma and colon and with `\\u` escapes",
        ),
        (SECRET, python, "with `\\u` escapes instead of letters"),
        (
            SECRET,
            &format!("{body}\n"),
            "without the line break at its end",
        ),
        (SECRET, "", "The body is empty"),
        (SECRET, "{}", "another body"),
    ] {
        let output = verify(
            &dir,
            &signed,
            secret,
            body.as_bytes(),
            &["--at", "1614265330"],
        );
        assert_eq!(output.code, 1, "{output:?}");
        assert!(output.stdout.contains("FAILED  signature"), "{output:?}");
        assert!(output.stdout.contains(cause), "{cause}: {}", output.stdout);
        // The expected signature is never printed.
        assert!(!output.stdout.contains("v1,"), "{output:?}");
    }
    for (from, to, cause) in [
        ("webhook-id: msg_1\n", "", "id header is missing"),
        ("webhook-id", "svix-id", "header is missing"),
        (
            "webhook-id: msg_1\n",
            "webhook-id: a\nwebhook-id: b\n",
            "header is duplicated",
        ),
        (
            "1614265330",
            "+1614265330",
            "timestamp is not a plain decimal",
        ),
        ("v1,", "v1a,", "asymmetric key"),
    ] {
        let output = verify(
            &dir,
            &signed.replace(from, to),
            SECRET,
            body.as_bytes(),
            &[],
        );
        assert_eq!(output.code, 1, "{output:?}");
        assert!(
            output.stdout.contains("FAILED  headers") && output.stdout.contains(cause),
            "{output:?}"
        );
    }
}

#[test]
fn verify_recognizes_undecoded_secret() {
    let dir = WorkDir::new();
    let text = SECRET.strip_prefix("whsec_").unwrap();
    let secret = pleo_receiver::verify::Secret::from_bytes(text.as_bytes()).unwrap();
    let signature = secret.sign("msg_1", 1_614_265_330, b"{}").unwrap();
    let headers = format!(
        "webhook-id: msg_1\nwebhook-timestamp: 1614265330\nwebhook-signature: {signature}\n"
    );
    let output = verify(&dir, &headers, SECRET, b"{}", &["--at", "1614265330"]);
    assert!(
        output.code == 1 && output.stdout.contains("the secret's text as the key"),
        "{output:?}"
    );
}
