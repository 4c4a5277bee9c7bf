//! The page.

use pleo_http::reqwest::Method;
use pleo_sandbox::{ExportRequest, Sandbox};
use serde_json::json;

use crate::support::{Answer, Receiver, call, control, request, secret, send, subscribe};

async fn page(sandbox: &Sandbox) -> String {
    let answer = send(request(sandbox, Method::GET, "/")).await;
    assert_eq!(answer.status, 200);
    answer.text
}

/// Submits a form of the page, as a browser does.
async fn submit(sandbox: &Sandbox, action: &str, fields: &str) -> Answer {
    let post = request(sandbox, Method::POST, action)
        .header("accept", "text/html,application/xhtml+xml")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("origin", sandbox.url())
        .header("sec-fetch-site", "same-origin");
    send(post.body(fields.to_owned())).await
}

#[tokio::test]
async fn exports_by_button_and_shows_answer() {
    let sandbox = Sandbox::start().await.unwrap();
    let receiver = Receiver::start().await;
    assert!(page(&sandbox).await.contains("No subscription is active"));
    subscribe(&sandbox, &receiver.url()).await;
    let answer = submit(&sandbox, "/sandbox/export", "jobs=2&copies=2&reverse=true").await;
    assert_eq!(
        (answer.status, &answer.headers["location"]),
        (303, &"/".parse().unwrap())
    );
    sandbox.wait_for_attempts(4).await.unwrap();
    let page = page(&sandbox).await;
    assert_eq!(
        page.matches(r#"<span class="good">delivered</span>"#)
            .count(),
        2
    );
    assert_eq!(page.matches(r#"<span class="good">204</span>"#).count(), 4);
    assert!(page.contains(&receiver.url()), "{page}");
    assert!(!page.contains("No subscription is active"), "{page}");
}

#[tokio::test]
async fn offers_every_action_as_form() {
    let sandbox = Sandbox::start().await.unwrap();
    let subscription = subscribe(&sandbox, "http://127.0.0.1:1/").await;
    let export = sandbox.export(&ExportRequest::new());
    sandbox.wait_for_message(&export.messages[0]).await.unwrap();
    sandbox.rotate_secret(subscription).unwrap();
    let shown = page(&sandbox).await;
    let forms = shown.split("<form").skip(1);
    let mut actions = Vec::new();
    for form in forms {
        let action = form
            .split("action=\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap();
        let hidden = form.split("type=\"hidden\"").skip(1).map(|input| {
            let mut values = input.split('"').skip(1).step_by(2);
            format!("{}={}", values.next().unwrap(), values.next().unwrap())
        });
        actions.push((action.to_owned(), hidden.collect::<Vec<_>>().join("&")));
    }
    assert_eq!(actions.len(), 8, "{actions:?}");
    for (action, fields) in actions {
        let answer = submit(&sandbox, &action, &fields).await;
        // A job that has started cannot start again, or fail twice.
        assert!([303, 409].contains(&answer.status), "{action}: {answer:?}");
    }
    assert!(
        page(&sandbox).await.contains("Enable"),
        "the subscription is disabled"
    );
}

#[tokio::test]
async fn escapes_data_and_shows_no_secret() {
    let sandbox = Sandbox::start().await.unwrap();
    let body = json!({
        "endpointUrl": "http://127.0.0.1:1/?a=%3Cb&c='x'",
        "eventTypes": ["v1.export-job.created"],
        "customHeaders": { "x-key": "hunter2" },
        "endpointAuth": {
            "type": "BASIC", "credentials": { "username": "user", "password": "hunter2" }
        },
    });
    let created = call(&sandbox, Method::POST, "/v1/subscriptions", Some(body)).await;
    assert_eq!(created.status, 200, "{created:?}");
    let id = created.json()["data"]["id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let export = sandbox.export(&ExportRequest::new());
    let job = export.jobs[0].id;
    let failed = json!({ "event": "failed", "jobId": job,
        "failureReason": "<script>alert(1)</script>" });
    assert_eq!(
        control(&sandbox, "export-job-events", Some(failed))
            .await
            .status,
        200
    );
    let shown = page(&sandbox).await;
    assert!(
        shown.contains("&lt;script&gt;alert(1)&lt;/script&gt;"),
        "{shown}"
    );
    assert!(!shown.contains("<script"), "{shown}");
    assert!(shown.contains("a=%3Cb&amp;c="), "{shown}");
    let state = send(request(&sandbox, Method::GET, "/sandbox/state"))
        .await
        .text;
    let secret = secret(&sandbox, id).await;
    for text in [shown, state, format!("{sandbox:?}")] {
        for hidden in [&secret, &sandbox.token(), &sandbox.api_key(), "hunter2"] {
            assert!(!text.contains(hidden), "{hidden} in {text}");
        }
    }
}

#[tokio::test]
async fn needs_no_script_and_no_other_host() {
    let sandbox = Sandbox::start().await.unwrap();
    let answer = send(request(&sandbox, Method::GET, "/")).await;
    let policy = answer.headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'self'"),
        "{policy}"
    );
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert!(
        answer
            .text
            .contains(r#"<meta http-equiv="refresh" content="10">"#)
    );
    let style = send(request(&sandbox, Method::GET, "/sandbox.css")).await;
    assert_eq!(
        (
            style.status,
            &style.headers["content-type"].to_str().unwrap()[..8]
        ),
        (200, "text/css")
    );
    assert!(style.text.contains("prefers-color-scheme: dark"));
    for text in [answer.text, style.text] {
        assert!(!text.contains("style=") && !text.contains("url("), "{text}");
        for link in text.split("://").skip(1) {
            assert!(link.starts_with("127.0.0.1"), "{link}");
        }
    }
}
