//! The control API, as test suites of other languages use it.

use pleo_http::reqwest::Method;
use pleo_sandbox::{Sandbox, SandboxOptions};
use serde_json::{Value, json};

use crate::support::{Receiver, call, control, request, secret, send, subscribe};

#[tokio::test]
async fn exports_and_waits_for_delivery() {
    let sandbox = Sandbox::start().await.unwrap();
    let receiver = Receiver::start().await;
    subscribe(&sandbox, &receiver.url()).await;
    let body = json!({ "jobs": 2, "numberOfItems": 7, "expiresIn": 60 });
    let export = control(&sandbox, "export", Some(body)).await.json();
    assert_eq!(export["jobs"][1]["numberOfItems"], 7);
    let id = export["messages"][1].as_str().unwrap();
    let path = format!("/sandbox/messages/{id}?wait=30");
    let message = send(request(&sandbox, Method::GET, &path)).await.json();
    assert_eq!(
        (&message["id"], &message["state"]),
        (&json!(id), &json!("delivered"))
    );
    assert_eq!(message["attempts"][0]["status"], 204);
    assert!(message["attempts"][0]["durationMs"].is_u64(), "{message}");
    let state = send(request(&sandbox, Method::GET, "/sandbox/state"))
        .await
        .json();
    assert_eq!(state["messages"].as_array().unwrap().len(), 2);
    assert_eq!(state["exportJobs"][0]["id"], export["jobs"][0]["id"]);
    assert_eq!(state["subscriptions"][0]["status"], "ACTIVE");
}

#[tokio::test]
async fn sends_any_event() {
    let sandbox = Sandbox::start().await.unwrap();
    let receiver = Receiver::start().await;
    let body = json!({ "endpointUrl": receiver.url(), "eventTypes": ["v1.vendor.created"] });
    let created = call(&sandbox, Method::POST, "/v1/subscriptions", Some(body)).await;
    assert_eq!(created.status, 200, "{created:?}");
    let event = json!({ "eventType": "v1.vendor.created", "data": { "name": "<b>" } });
    for (path, body) in [("vendor", None), ("event", Some(event))] {
        let sent = control(&sandbox, path, body).await.json();
        let id = sent["messages"][0].as_str().unwrap().to_owned();
        sandbox.wait_for_message(&id).await.unwrap();
    }
    let received = receiver.received();
    let body = |index: usize| serde_json::from_str::<Value>(&received[index].body).unwrap();
    assert_eq!(body(0)["eventType"], "v1.vendor.created");
    assert_eq!(body(0)["data"]["name"], "Kaffe & Kage ApS");
    assert_eq!(body(1)["data"], json!({ "name": "<b>" }));
}

#[tokio::test]
async fn injects_faults() {
    let sandbox = Sandbox::start().await.unwrap();
    let faults = json!({ "faults": [
        { "status": { "status": 503, "retryAfter": "7" } }, "closed", "none",
    ] });
    assert_eq!(control(&sandbox, "faults", Some(faults)).await.status, 200);
    let get = || request(&sandbox, Method::GET, "/v1/subscriptions").bearer_auth(sandbox.token());
    let answer = send(get()).await;
    assert_eq!(
        (answer.status, &answer.headers["retry-after"]),
        (503, &"7".parse().unwrap())
    );
    assert!(get().send().await.is_err());
    assert_eq!(send(get()).await.status, 200);
}

#[tokio::test]
async fn reports_wrong_requests() {
    let sandbox = Sandbox::start().await.unwrap();
    let nobody = "subscriptions/00000000-0000-4000-8000-000000000000";
    for (path, body, status) in [
        ("export", Some(json!({ "job": 1 })), 400),
        ("export", Some(json!({ "jobs": -1 })), 400),
        ("event", None, 400),
        ("messages/msg_x/resend", None, 404),
        (&format!("{nobody}/rotate"), None, 404),
        (&format!("{nobody}/explode"), None, 404),
        ("subscriptions/x/rotate", None, 404),
        ("nothing", None, 404),
    ] {
        let answer = control(&sandbox, path, body).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(answer.json()["error"].is_string(), "{answer:?}");
    }
    let get = request(&sandbox, Method::GET, "/sandbox/messages/x?wait=soon");
    assert_eq!(send(get).await.status, 400);
}

#[tokio::test]
async fn repeats_ids_secrets_and_token_of_seed() {
    let run = async |seed| {
        let sandbox = Sandbox::start_with(SandboxOptions::new().with_seed(seed))
            .await
            .unwrap();
        let receiver = Receiver::start().await;
        let subscription = subscribe(&sandbox, &receiver.url()).await;
        let export = control(&sandbox, "export", Some(json!({ "jobs": 2 })))
            .await
            .json();
        let ids = export["jobs"].as_array().unwrap().iter();
        json!([
            sandbox.token(),
            sandbox.api_key(),
            sandbox.company(),
            subscription,
            secret(&sandbox, subscription).await,
            ids.map(|job| job["id"].clone()).collect::<Vec<_>>(),
            export["messages"],
        ])
    };
    let first = run(7).await;
    assert_eq!(run(7).await, first);
    let other = run(8).await;
    let (first, other) = (first.as_array().unwrap(), other.as_array().unwrap());
    for (one, two) in first.iter().zip(other) {
        assert_ne!(one, two);
    }
}
