//! Tests of the delivery that a handler gets.

use http_body_util::Full;

use super::*;
use crate::support::{BODY, Request};

/// A trace parent of W3C Trace Context.
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn handler_gets_kept_headers_and_trace_parent_of_request() {
    let (sender, mut deliveries) = unbounded_channel();
    let handler = handler_fn(move |delivery| {
        let sender = sender.clone();
        async move { Ok(sender.send(delivery)?) }
    });
    let options = options().with_max_attempts(1);
    let (receiver, mut dispatcher) = build(memory(), options, handler);
    let signed = Request::signed("msg_1", BODY)
        .with("traceparent", TRACE)
        .with("authorization", "Basic c2VjcmV0");
    let mut request = http::Request::post(PATH);
    for (name, value) in &signed.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::from(BODY)).unwrap();
    assert_eq!(receiver.respond(request).await.status(), 204);
    dispatcher.run_until_idle().await.unwrap();

    let delivery = deliveries.try_recv().unwrap();
    assert_eq!((delivery.id(), delivery.endpoint()), ("msg_1", PATH));
    assert_eq!(delivery.body(), BODY);
    assert_eq!((delivery.attempt(), delivery.is_last_attempt()), (1, true));
    assert_eq!(delivery.trace_parent(), Some(TRACE));
    let left = (delivery.deadline() - Timestamp::now()).as_secs();
    assert!((240..=300).contains(&left), "{left} s");
    // Others may be secret.
    let mut kept: Vec<_> = delivery.headers().iter().collect();
    kept.sort_unstable();
    let mut sent: Vec<_> = signed
        .headers
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    sent.retain(|(name, _)| name.starts_with("webhook-") || *name == "traceparent");
    sent.sort_unstable();
    assert_eq!(kept, sent);
}
