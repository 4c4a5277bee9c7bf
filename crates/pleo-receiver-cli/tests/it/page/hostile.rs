//! Tests that nothing from a message is markup.

use rusqlite::Connection;

use super::client::{Client, TOKEN, serve};
use crate::support::program::{SECRET, WorkDir};

/// Markup, an end of an attribute, and characters that turn or hide text.
const HOSTILE: &str =
    "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&lt;\u{202e}\u{200b}\u{0}";

const VENDOR: &str = r#"{"eventType":"v1.vendor.created","eventId":"HOSTILE","data":{
    "id":"3f0b1f6e-7c1e-4f58-9f0c-5f1f6a2f9b10","companyId":"3f0b1f6e-7c1e-4f58-9f0c-5f1f6a2f9b11",
    "name":"HOSTILE","state":"HOSTILE","defaultCurrency":"HOSTILE","country":"HOSTILE",
    "registrationNumber":"HOSTILE","taxRegistrationNumber":"HOSTILE","code":"HOSTILE",
    "externalId":"HOSTILE","accountingSystem":"HOSTILE"}}"#;

/// Asserts that a page has the hostile text, and only as text.
fn assert_harmless(page: &str, path: &str) {
    assert!(page.contains("alert(1)"), "{path}: {page}");
    for markup in ["<script>", "<img"] {
        assert!(!page.contains(markup), "{markup:?} is in {path}: {page}");
    }
    // The values of a form's fields are exact. No quote ends them early.
    let mut shown = page.split("value=\"").enumerate().map(|(index, part)| {
        let end = if index == 0 {
            0
        } else {
            part.find('"').unwrap()
        };
        &part[end..]
    });
    let hides = |part: &str| part.contains(['\u{202e}', '\u{200b}', '\u{0}']);
    assert!(!shown.any(hides), "{path}: {page}");
    assert_eq!(page.matches("<script").count(), 1, "{path}: {page}");
}

#[test]
fn escapes_every_field_of_stored_message() {
    let dir = WorkDir::new();
    assert_eq!(serve(&dir, "").stop("-TERM").0, Some(0));
    let file = Connection::open(dir.path().join("pleo-inbox.db")).unwrap();
    let text = HOSTILE.replace('\u{0}', "");
    // An authentic id has no such characters; another program may write them.
    file.execute(
        "INSERT INTO message (sequence, endpoint, webhook_id, event_type, event_id, resource_id,
                              origin, received_at, source, state, attempts, last_error)
         VALUES (1, ?1, ?1, ?1, ?1, ?1, 'webhook', 0, ?1, 'dead', 1, ?1)",
        [&text],
    )
    .unwrap();
    file.execute(
        "INSERT INTO endpoint_stats VALUES (?1, 0, 0, 0, 1, NULL)",
        [&text],
    )
    .unwrap();
    let headers = format!("webhook-id: {text}\n{text}: {text}\n");
    file.execute(
        "INSERT INTO body VALUES (1, CAST(?1 AS BLOB), ?2)",
        [HOSTILE, &headers],
    )
    .unwrap();
    file.execute(
        "INSERT INTO attempt VALUES (1, 1, 1, ?1, 0, 1, 'dead', ?1)",
        [&text],
    )
    .unwrap();
    drop(file);
    let server = serve(&dir, "");
    let client = Client::signed_in(&server, TOKEN);
    let mut query = form_urlencoded::Serializer::new(String::new());
    let query = query.extend_pairs([
        ("endpoint", &text),
        ("id", &text),
        ("q", &text),
        ("type", &text),
    ]);
    let query = query.finish();
    for path in [
        "/".to_owned(),
        "/messages".to_owned(),
        format!("/messages?{query}"),
        format!("/message?{query}"),
        "/messages?since=%22&until=%3Cscript%3Ealert(1)&state=%3Cscript%3E".to_owned(),
    ] {
        let page = client.get(&path);
        assert_eq!(page.status, 200, "{page:?}");
        assert_harmless(&page.body, &path);
        // The exact value of the search field may hide characters: the page shows them.
        let is_search = path.starts_with("/messages?") && path.contains("q=");
        assert_eq!(
            page.text().contains("characters that are not shown"),
            is_search
        );
    }
    // The raw body is a file, never a page.
    let body = client.get(&format!("/message/body?{query}"));
    assert_eq!(
        body.header("content-type"),
        Some("application/octet-stream")
    );
    assert!(
        body.header("content-disposition")
            .unwrap()
            .starts_with("attachment")
    );
    assert_eq!(body.body, HOSTILE);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn escapes_hostile_vendor_and_type() {
    let dir = WorkDir::new();
    let server = serve(&dir, "");
    let text = serde_json::to_string(HOSTILE).unwrap();
    let vendor = VENDOR.replace("HOSTILE", text.trim_matches('"'));
    dir.write("vendor.json", &vendor);
    dir.write(
        "type.json",
        &format!("{{\"eventType\":{text},\"data\":{{\"id\":{text}}}}}"),
    );
    for name in ["vendor", "type"] {
        let send = ["--id", name, "--body", &format!("{name}.json")];
        assert!(dir.send_with(SECRET, &server.url, &send).starts_with("204"));
    }
    let client = Client::signed_in(&server, TOKEN);
    for path in [
        "/messages",
        "/message?endpoint=/webhooks/pleo&id=vendor",
        "/message?endpoint=/webhooks/pleo&id=type",
    ] {
        assert_harmless(&client.get(path).body, path);
    }
    let page = client
        .get("/message?endpoint=/webhooks/pleo&id=vendor")
        .text();
    assert!(
        page.contains("The vendor \"'><script>alert(1)</script>"),
        "{page}"
    );
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn hides_bodies_and_their_contents() {
    let dir = WorkDir::new();
    let server = serve(&dir, "admin_bodies = false\n");
    dir.write("vendor.json", &VENDOR.replace("HOSTILE", "swallow"));
    let send = ["--id", "vendor", "--body", "vendor.json"];
    assert!(dir.send_with(SECRET, &server.url, &send).starts_with("204"));
    let client = Client::signed_in(&server, TOKEN);
    let key = "endpoint=/webhooks/pleo&id=vendor";
    let page = client.get(&format!("/message?{key}"));
    assert_eq!(page.status, 200);
    assert!(page.text().contains("Bodies are hidden"), "{}", page.text());
    // The event id is a part of the list, not only of the body.
    let elsewhere = page
        .body
        .replace(">swallow</a>", "")
        .replace("q=swallow", "");
    assert!(!elsewhere.contains("swallow"), "{}", page.body);
    assert_eq!(client.get(&format!("/message/body?{key}")).status, 403);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn cuts_long_type_and_ids() {
    let dir = WorkDir::new();
    let server = serve(&dir, "admin_bodies = false\n");
    let long = "x".repeat(300_000);
    let body = format!(
        "{{\"eventType\":\"{long}\",\"eventId\":\"{long}\",\"data\":{{\"id\":\"{long}\"}}}}"
    );
    dir.write("long.json", &body);
    let send = ["--id", "long", "--body", "long.json"];
    assert!(dir.send_with(SECRET, &server.url, &send).starts_with("204"));
    let client = Client::signed_in(&server, TOKEN);
    for (path, text) in [
        ("/messages", "xxx…"),
        (
            "/message?endpoint=/webhooks/pleo&id=long",
            "it has 300\u{202f}000 bytes",
        ),
    ] {
        let page = client.get(path);
        assert_eq!(page.status, 200, "{}", page.head);
        assert!(page.body.contains(text), "{path}");
        assert!(
            page.body.len() < 20_000,
            "{path}: {} bytes",
            page.body.len()
        );
    }
    let mut events = client.open("/messages/live");
    let row = events.wait_for("data: ").unwrap();
    assert!(row.len() < 2000, "{} bytes", row.len());
    assert_eq!(server.stop("-TERM").0, Some(0));
}
