//! Rotation of signing secrets.

use jiff::SignedDuration;
use pleo_sandbox::{ExportRequest, Sandbox, SandboxOptions};
use uuid::Uuid;

use crate::support::{Receiver, control, secret, subscribe};

/// Sends a delivery. Returns it and its number of signatures.
async fn deliver(sandbox: &Sandbox, receiver: &Receiver) -> (crate::support::Received, usize) {
    let export = sandbox.export(&ExportRequest::new());
    let message = sandbox.wait_for_message(&export.messages[0]).await.unwrap();
    let received = receiver.received().pop().unwrap();
    let sent = received.header("webhook-signature").split(' ').count();
    assert_eq!(sent, message.attempts[0].signatures);
    (received, sent)
}

async fn start(options: SandboxOptions) -> (Sandbox, Receiver, Uuid) {
    let sandbox = Sandbox::start_with(options).await.unwrap();
    let receiver = Receiver::start().await;
    let subscription = subscribe(&sandbox, &receiver.url()).await;
    (sandbox, receiver, subscription)
}

#[tokio::test]
async fn signs_with_old_and_new_secret_during_rotation() {
    let (sandbox, receiver, subscription) = start(SandboxOptions::new()).await;
    let old = secret(&sandbox, subscription).await;
    let (delivery, signatures) = deliver(&sandbox, &receiver).await;
    assert_eq!(signatures, 1);
    assert!(delivery.is_signed_by(&old));

    let path = format!("subscriptions/{subscription}/rotate");
    assert_eq!(control(&sandbox, &path, None).await.status, 200);
    let new = secret(&sandbox, subscription).await;
    assert_ne!(new, old);
    let (delivery, signatures) = deliver(&sandbox, &receiver).await;
    assert_eq!(signatures, 2);
    assert!(delivery.is_signed_by(&old) && delivery.is_signed_by(&new));
    // The newest comes first.
    let mut first = delivery.clone();
    for (name, value) in &mut first.headers {
        if name == "webhook-signature" {
            *value = value.split(' ').next().unwrap().to_owned();
        }
    }
    assert!(first.is_signed_by(&new) && !first.is_signed_by(&old));

    let path = format!("subscriptions/{subscription}/retire");
    assert_eq!(control(&sandbox, &path, None).await.status, 200);
    let (delivery, signatures) = deliver(&sandbox, &receiver).await;
    assert_eq!(signatures, 1);
    assert!(delivery.is_signed_by(&new) && !delivery.is_signed_by(&old));
}

#[tokio::test]
async fn ends_overlap_of_secrets_by_itself() {
    let options = SandboxOptions::new().with_rotation_overlap(SignedDuration::ZERO);
    let (sandbox, receiver, subscription) = start(options).await;
    let new = sandbox.rotate_secret(subscription).unwrap();
    let (delivery, signatures) = deliver(&sandbox, &receiver).await;
    assert_eq!(signatures, 1);
    assert!(delivery.is_signed_by(&new));
}

#[tokio::test]
async fn signs_with_eleven_secrets_at_most() {
    let (sandbox, receiver, subscription) = start(SandboxOptions::new()).await;
    for _ in 0..15 {
        sandbox.rotate_secret(subscription).unwrap();
    }
    assert_eq!(deliver(&sandbox, &receiver).await.1, 11);
}
