//! The sender's retry schedule, duplicates and order.

use core::num::NonZeroU32;
use core::time::Duration;

use pleo_sandbox::{
    ExportRequest, HeaderPrefix, MessageState, Sandbox, SandboxEvent, SandboxOptions,
};

use crate::support::{Receiver, secret, subscribe};

#[tokio::test]
async fn retries_on_published_schedule() {
    let compression = NonZeroU32::new(20_000).unwrap();
    let options = SandboxOptions::new().with_compression(compression);
    let sandbox = Sandbox::start_with(options).await.unwrap();
    let receiver = Receiver::start().await;
    receiver.answer([
        "503 X", "500 X", "404 X", "302 X", "429 X", "410 X", "503 X",
    ]);
    let subscription = subscribe(&sandbox, &receiver.url()).await;
    let mut events = sandbox.events();
    let export = sandbox.export(&ExportRequest::new());
    let message = sandbox.wait_for_message(&export.messages[0]).await.unwrap();

    let statuses: Vec<_> = message
        .attempts
        .iter()
        .map(|one| one.status.unwrap())
        .collect();
    assert_eq!(statuses, [503, 500, 404, 302, 429, 410, 503, 204]);
    assert_eq!(message.state, MessageState::Delivered);
    // The scheduled delays, as the sender announced them: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 10 h.
    let mut delays = Vec::new();
    let mut attempted = None;
    while delays.len() < 7 {
        match events.next().await.unwrap() {
            SandboxEvent::Attempt(attempt) => attempted = Some(attempt),
            SandboxEvent::Retry { at, .. } => {
                let attempt = attempted.take().unwrap();
                let delay = at.duration_since(attempt.at).unsigned_abs() - attempt.duration;
                delays.push(delay);
            }
            _ => {}
        }
    }
    for (delay, seconds) in delays.iter().zip([5, 300, 1800, 7200, 18000, 36000, 36000]) {
        let scheduled = Duration::from_secs(seconds) / 20_000;
        assert!(
            (scheduled..scheduled + Duration::from_millis(500)).contains(delay),
            "{delays:?}: {scheduled:?}"
        );
    }
    // No attempt is early, and each is signed anew.
    for (pair, delay) in message.attempts.windows(2).zip(&delays) {
        assert!(pair[1].at.duration_since(pair[0].at).unsigned_abs() >= *delay);
    }
    let secret = secret(&sandbox, subscription).await;
    let received = receiver.received();
    assert_eq!(received.len(), 8);
    for one in &received {
        assert!(one.is_signed_by(&secret), "{one:?}");
        assert_eq!(one.header("webhook-id"), message.id);
        assert_eq!(one.body, message.body);
    }
}

#[tokio::test]
async fn gives_up_after_eight_attempts() {
    let sandbox = Sandbox::start().await.unwrap();
    let receiver = Receiver::start().await;
    receiver.answer(["503 X"; 8]);
    subscribe(&sandbox, &receiver.url()).await;
    let export = sandbox.export(&ExportRequest::new());
    let message = sandbox.wait_for_message(&export.messages[0]).await.unwrap();
    assert_eq!(
        (message.state, message.attempts.len()),
        (MessageState::Failed, 8)
    );
    sandbox.resend(&message.id).unwrap();
    sandbox.wait_for_attempts(9).await.unwrap();
    let message = sandbox.wait_for_message(&message.id).await.unwrap();
    assert_eq!(
        message.state,
        MessageState::Delivered,
        "a resend can succeed"
    );
}

#[tokio::test]
async fn tries_broken_connection_again_at_once() {
    let sandbox = Sandbox::start().await.unwrap();
    let receiver = Receiver::start().await;
    receiver.answer([""]);
    subscribe(&sandbox, &receiver.url()).await;
    let export = sandbox.export(&ExportRequest::new());
    let message = sandbox.wait_for_message(&export.messages[0]).await.unwrap();
    assert_eq!(message.attempts.len(), 1, "{message:?}");
    let received = receiver.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].headers, received[1].headers, "the same request");
}

#[tokio::test]
async fn limits_time_for_response() {
    let timeout = Duration::from_millis(100);
    let options = SandboxOptions::new().with_response_timeout(timeout);
    let sandbox = Sandbox::start_with(options).await.unwrap();
    // Accepts connections, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    subscribe(&sandbox, &url).await;
    let export = sandbox.export(&ExportRequest::new());
    let message = sandbox.wait_for_message(&export.messages[0]).await.unwrap();
    assert_eq!(
        (message.state, message.attempts.len()),
        (MessageState::Failed, 8)
    );
    let error = message.attempts[0].error.as_deref();
    assert_eq!(error, Some("no response in time"));
}

#[tokio::test]
async fn ends_retries_on_request_of_endpoint() {
    let sandbox = Sandbox::start().await.unwrap();
    let receiver = Receiver::start().await;
    receiver.answer(["503 X\r\nwebhook-delivery: abort-message"]);
    let subscription = subscribe(&sandbox, &receiver.url()).await;
    let export = sandbox.export(&ExportRequest::new());
    let message = sandbox.wait_for_message(&export.messages[0]).await.unwrap();
    assert_eq!(
        (message.state, message.attempts.len()),
        (MessageState::Failed, 1)
    );
    assert_eq!(
        crate::support::status(&sandbox, subscription).await,
        "ACTIVE"
    );
}

#[tokio::test]
async fn duplicates_and_reorders_on_request() {
    let sandbox = Sandbox::start().await.unwrap();
    let receiver = Receiver::start().await;
    subscribe(&sandbox, &receiver.url()).await;
    let request = ExportRequest::new()
        .with_jobs(5)
        .with_copies(3)
        .with_reverse(true);
    let export = sandbox.export(&request);
    sandbox.wait_for_attempts(15).await.unwrap();
    let received = receiver.received();
    let ids: Vec<_> = received
        .iter()
        .map(|one| one.header("webhook-id"))
        .collect();
    let sent = export.messages.iter().rev().flat_map(|id| [id; 3]);
    assert_eq!(ids, sent.collect::<Vec<_>>());
    assert!(
        export.messages.is_sorted(),
        "ids rise: {:?}",
        export.messages
    );
}

#[tokio::test]
async fn signs_under_either_prefix() {
    for (prefix, has_webhook, has_svix) in [
        (HeaderPrefix::Webhook, true, false),
        (HeaderPrefix::Svix, false, true),
        (HeaderPrefix::Both, true, true),
    ] {
        let options = SandboxOptions::new().with_header_prefix(prefix);
        let sandbox = Sandbox::start_with(options).await.unwrap();
        let receiver = Receiver::start().await;
        let subscription = subscribe(&sandbox, &receiver.url()).await;
        sandbox.export(&ExportRequest::new());
        sandbox.wait_for_attempts(1).await.unwrap();
        let received = receiver.received();
        for (name, sent) in [("webhook-id", has_webhook), ("svix-id", has_svix)] {
            assert_eq!(
                !received[0].header(name).is_empty(),
                sent,
                "{prefix:?} {name}"
            );
        }
        let secret = secret(&sandbox, subscription).await;
        assert!(received[0].is_signed_by(&secret), "{prefix:?}");
    }
}
