//! Endpoints that are disabled.

use core::num::NonZeroU32;

use pleo_http::reqwest::Method;
use pleo_sandbox::{ExportRequest, MessageState, Sandbox, SandboxEvent, SandboxOptions};
use serde_json::json;

use crate::support::{EXPORT, Receiver, call, control, status, subscribe};

/// Nobody listens here.
const NOBODY: &str = "http://127.0.0.1:1/";

#[tokio::test]
async fn disables_endpoint_after_five_days_of_failures() {
    // Five days are 43 ms, the longest delay 4 ms.
    let compression = NonZeroU32::new(10_000_000).unwrap();
    let options = SandboxOptions::new().with_compression(compression);
    let sandbox = Sandbox::start_with(options).await.unwrap();
    let subscription = subscribe(&sandbox, NOBODY).await;
    let mut events = sandbox.events();
    let mut exported = 0;
    while status(&sandbox, subscription).await == "ACTIVE" {
        let export = sandbox.export(&ExportRequest::new());
        let Some(message) = export.messages.first() else {
            break;
        };
        sandbox.wait_for_message(message).await.unwrap();
        exported += 1;
    }
    assert!(exported > 0);
    assert_eq!(status(&sandbox, subscription).await, "INACTIVE");
    let disabled = loop {
        if let SandboxEvent::Disabled { subscription } = events.next().await.unwrap() {
            break subscription;
        }
    };
    assert_eq!(disabled, subscription);
    let failing = sandbox.attempts();
    let (first, last) = (failing.first().unwrap(), failing.last().unwrap());
    let five_days = 5 * 24 * 60 * 60 * 1000 / 10_000_000;
    assert!(last.at.duration_since(first.at).as_millis() + 20 >= five_days);
    assert!(
        sandbox.export(&ExportRequest::new()).messages.is_empty(),
        "no more messages"
    );
}

#[tokio::test]
async fn cancels_pending_messages_of_disabled_endpoint() {
    // In real time, the first retry comes after 5 s.
    let options = SandboxOptions::new().with_compression(NonZeroU32::MIN);
    let sandbox = Sandbox::start_with(options).await.unwrap();
    let subscription = subscribe(&sandbox, NOBODY).await;
    let export = sandbox.export(&ExportRequest::new());
    sandbox.wait_for_attempts(1).await.unwrap();
    let path = format!("subscriptions/{subscription}/disable");
    assert_eq!(control(&sandbox, &path, None).await.status, 200);
    let message = sandbox.wait_for_message(&export.messages[0]).await.unwrap();
    assert_eq!(
        (message.state, message.attempts.len()),
        (MessageState::Canceled, 1)
    );
    assert_eq!(status(&sandbox, subscription).await, "INACTIVE");
}

#[tokio::test]
async fn delivers_again_once_enabled() {
    let sandbox = Sandbox::start().await.unwrap();
    let receiver = Receiver::start().await;
    receiver.answer(["503 X\r\nwebhook-delivery: disable"]);
    let subscription = subscribe(&sandbox, &receiver.url()).await;
    let export = sandbox.export(&ExportRequest::new());
    let message = sandbox.wait_for_message(&export.messages[0]).await.unwrap();
    assert_eq!(
        message.state,
        MessageState::Failed,
        "the endpoint asked for it"
    );
    assert_eq!(status(&sandbox, subscription).await, "INACTIVE");

    let body = json!({ "endpointUrl": receiver.url(), "eventTypes": [EXPORT], "status": "ACTIVE" });
    let path = format!("/v1/subscriptions/{subscription}");
    let answer = call(&sandbox, Method::PUT, &path, Some(body)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let export = sandbox.export(&ExportRequest::new());
    let message = sandbox.wait_for_message(&export.messages[0]).await.unwrap();
    assert_eq!(message.state, MessageState::Delivered);
}
