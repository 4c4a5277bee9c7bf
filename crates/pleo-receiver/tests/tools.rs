//! The commands beside the server: demo, inbox, sign, send, verify.

#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

mod program;

use std::io::{BufRead, BufReader, Read};

use program::{Ended, OTHER, Place, SECRET};

const ENV: &[(&str, &str)] = &[("PLEO_WEBHOOK_SECRET", SECRET)];

#[test]
fn the_demo_shows_every_outcome_and_ends() {
    let place = Place::new();
    let ended = place.run(&["demo", "--once"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let lines: Vec<_> = ended
        .stdout
        .lines()
        .skip_while(|line| !line.starts_with("SENT"))
        .collect();
    assert_eq!(lines.len(), 9, "{ended:?}");
    for (line, (answer, messages)) in lines[1..].iter().zip([
        ("204 stored, handed on", "1 message"),
        ("204 stored, handed on", "2 messages"),
        ("204 stored, handed on", "3 messages"),
        ("204 known already", "3 messages"),
        ("401 signature_mismatch", "3 messages"),
        ("401 signature_mismatch", "3 messages"),
        ("401 timestamp_too_old", "3 messages"),
        ("413 body_too_large", "3 messages"),
    ]) {
        assert!(line.contains(answer) && line.ends_with(messages), "{line}");
    }
    assert_eq!(ended.stderr, "");
}

#[test]
fn the_demo_goes_on_and_its_command_sends_one_more() {
    let place = Place::new();
    let mut demo = place.command(&["demo"]).spawn().unwrap();
    let mut stdout = BufReader::new(demo.stdout.take().unwrap());
    let mut line = String::new();
    let mut command = String::new();
    while !line.starts_with("Ctrl-C") {
        line.clear();
        assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "it ended");
        if line.trim_start().starts_with("PLEO_WEBHOOK_SECRET=") {
            command = line.trim().to_owned();
        }
    }
    let sent = std::process::Command::new("sh")
        .args(["-c", &command])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(sent.stdout).unwrap(),
        "204 No Content\n",
        "{command}"
    );
    line.clear();
    stdout.read_line(&mut line).unwrap();
    assert!(
        line.starts_with("received msg_") && line.ends_with("v1.vendor.created\n"),
        "{line}"
    );
    let stop = std::process::Command::new("kill")
        .args(["-INT", &demo.id().to_string()])
        .status();
    assert!(stop.unwrap().success());
    stdout.read_to_string(&mut line).unwrap();
    assert!(demo.wait().unwrap().success());
}

#[test]
fn the_inbox_is_listed_shown_replayed_and_pruned() {
    let place = Place::new();
    let server = place.serve(&[], ENV);
    let url = server.url.clone();
    for (id, event) in [
        ("msg_1", "v1.export-job.created"),
        ("msg_2", "v1.vendor.created"),
        ("msg_3", "v9.new"),
    ] {
        let sent = place.run_with(&["send", &url, "--id", id, "--event", event], ENV, b"");
        assert_eq!(
            (sent.code, &*sent.stdout),
            (0, "204 No Content\n"),
            "{sent:?}"
        );
    }
    place.write("binary", "");
    std::fs::write(place.path().join("binary"), b"\xff\x00").unwrap();
    let sent = place.run_with(
        &["send", &url, "--id", "msg_4", "--body", "binary"],
        ENV,
        b"",
    );
    assert_eq!(sent.code, 0, "{sent:?}");

    let listed = place.json(&["inbox", "list", "--json"]);
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
        place.json(&["inbox", "list", "--json", "--limit", "2"])[..],
        listed[..2]
    );
    assert_eq!(
        place
            .json(&["inbox", "list", "--json", "--state", "done"])
            .len(),
        0
    );
    assert_eq!(
        place.json(&["inbox", "tail", "--json", "-n", "1"])[..],
        listed[3..]
    );

    let shown = place.json(&["inbox", "show", "msg_3", "--json"]);
    let body: serde_json::Value = serde_json::from_str(shown[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["eventType"], "v9.new");
    let shown = place.json(&["inbox", "show", "msg_4", "--json"]);
    assert_eq!(shown[0]["body_base64"], "/wA=");
    let shown = place.run(&["inbox", "show", "msg_1"]);
    assert!(
        shown.stdout.contains("state         pending\n")
            && shown.stdout.contains("\"numberOfItems\":3")
    );
    let table = place.run(&["inbox", "list"]).stdout;
    assert_eq!(table.lines().count(), 5, "{table}");
    let missing = place.run(&["inbox", "show", "msg_9"]);
    assert_eq!((missing.code, &*missing.stdout), (1, ""), "{missing:?}");
    assert_eq!(server.stop("-TERM").0, Some(0));

    // Handed on, and only then old enough to go.
    let done = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = done.local_addr().unwrap().port();
    let exec = format!("bash -c 'echo > /dev/tcp/127.0.0.1/{port}'");
    let server = place.serve(&["--exec", &exec], ENV);
    (0..4).for_each(|_| drop(done.accept().unwrap()));
    assert_eq!(server.stop("-TERM").0, Some(0));
    assert_eq!(
        place
            .json(&["inbox", "list", "--json", "--state", "done"])
            .len(),
        4
    );
    assert_eq!(
        place.json(&["inbox", "replay", "msg_2", "--json"])[0]["replayed"],
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
        let done = place.json(&args);
        assert_eq!(done[0]["replayed"], replayed, "{conditions:?}");
    }
    for wrong in [&["--since", "soon"][..], &[], &["msg_1", "--dead"]] {
        assert_eq!(place.run(&[&["inbox", "replay"], wrong].concat()).code, 2);
    }
    let unknown = place.run(&["inbox", "replay", "msg_9"]);
    assert!(
        unknown.code == 1 && unknown.stderr.contains("msg_9"),
        "{unknown:?}"
    );
    assert_eq!(place.json(&["inbox", "prune", "--json"])[0]["pruned"], 0);
    assert_eq!(
        place.json(&["inbox", "prune", "--older-than", "0s", "--json"])[0]["pruned"],
        0
    );
    let left = place.json(&["inbox", "list", "--json"]);
    assert_eq!(left.len(), 4);
    assert!(left.iter().all(|entry| entry["state"] == "pending"));
}

#[test]
fn an_inbox_that_is_not_there_is_not_made() {
    let place = Place::new();
    let ended = place.run(&["inbox", "list"]);
    assert!(
        ended.code == 1 && ended.stderr.contains("pleo-inbox.db"),
        "{ended:?}"
    );
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn the_tail_follows_what_arrives() {
    let place = Place::new();
    let server = place.serve(&[], ENV);
    let mut tail = place
        .command(&["inbox", "tail", "--follow", "--json"])
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(tail.stdout.take().unwrap());
    for id in ["msg_1", "msg_2"] {
        place.run_with(&["send", &server.url, "--id", id], ENV, b"");
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert!(line.contains(&format!("\"webhook_id\":\"{id}\"")), "{line}");
    }
    tail.kill().unwrap();
    tail.wait().unwrap();
}

#[test]
fn what_sign_prints_verifies() {
    let place = Place::new();
    let args = [
        "sign",
        "--id",
        "msg_1",
        "--timestamp",
        "1614265330",
        "--secret",
        SECRET,
        "--secret",
        OTHER,
    ];
    let signed = place.run_with(&args, &[], b"{}");
    let lines: Vec<_> = signed.stdout.lines().collect();
    let [id, timestamp, signature] = lines[..] else {
        panic!("{signed:?}")
    };
    assert_eq!(
        (id, timestamp),
        ("webhook-id: msg_1", "webhook-timestamp: 1614265330")
    );
    assert_eq!(signature.matches("v1,").count(), 2, "{signature}");
    for secret in [SECRET, OTHER] {
        let ended = verify(
            &place,
            &signed.stdout,
            secret,
            b"{}",
            &["--at", "1614265330"],
        );
        assert_eq!(ended.code, 0, "{ended:?}");
    }
}

fn verify(place: &Place, headers: &str, secret: &str, body: &[u8], more: &[&str]) -> Ended {
    place.write("headers", headers);
    let args = [&["verify", "--headers", "headers"], more].concat();
    place.run_with(&args, &[("PLEO_WEBHOOK_SECRET", secret)], body)
}

#[test]
fn verify_says_which_check_failed_and_why() {
    let place = Place::new();
    let body = "{\"data\": {\"name\": \"Caf\\u00e9\", \"n\": [1, 2]}, \"eventType\": \"v9.new\"}";
    let args = ["sign", "--id", "msg_1", "--timestamp", "1614265330"];
    let signed = place.run_with(&args, ENV, body.as_bytes()).stdout;
    let at = |offset: &str| {
        let ended = verify(&place, &signed, SECRET, body.as_bytes(), &["--at", offset]);
        (ended.code, ended.stdout)
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
        (OTHER, body, "another secret"),
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
        let ended = verify(
            &place,
            &signed,
            secret,
            body.as_bytes(),
            &["--at", "1614265330"],
        );
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(ended.stdout.contains("FAILED  signature"), "{ended:?}");
        assert!(ended.stdout.contains(cause), "{cause}: {}", ended.stdout);
        // Nothing ever prints the expected signature.
        assert!(!ended.stdout.contains("v1,"), "{ended:?}");
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
        let ended = verify(
            &place,
            &signed.replace(from, to),
            SECRET,
            body.as_bytes(),
            &[],
        );
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(
            ended.stdout.contains("FAILED  headers") && ended.stdout.contains(cause),
            "{ended:?}"
        );
    }
}

#[test]
fn a_signature_made_with_the_undecoded_secret_is_recognised() {
    let place = Place::new();
    let text = SECRET.strip_prefix("whsec_").unwrap();
    let secret = pleo_receiver::verify::Secret::from_bytes(text.as_bytes()).unwrap();
    let signature = secret.sign("msg_1", 1_614_265_330, b"{}").unwrap();
    let headers = format!(
        "webhook-id: msg_1\nwebhook-timestamp: 1614265330\nwebhook-signature: {signature}\n"
    );
    let ended = verify(&place, &headers, SECRET, b"{}", &["--at", "1614265330"]);
    assert!(
        ended.code == 1 && ended.stdout.contains("the secret's text as the key"),
        "{ended:?}"
    );
}

#[test]
fn a_failing_send_says_what_was_answered() {
    let place = Place::new();
    let server = place.serve(&[], ENV);
    let sent = place.run_with(
        &["send", &server.url],
        &[("PLEO_WEBHOOK_SECRET", OTHER)],
        b"",
    );
    assert_eq!(sent.code, 1);
    assert!(
        sent.stdout
            .starts_with("401 Unauthorized {\"code\":\"signature_mismatch\""),
        "{sent:?}"
    );
    let url = server.url.clone();
    server.stop("-TERM");
    let sent = place.run_with(&["send", &url], ENV, b"");
    assert!(
        sent.code == 1 && sent.stderr.contains("Connection refused"),
        "{sent:?}"
    );
}
