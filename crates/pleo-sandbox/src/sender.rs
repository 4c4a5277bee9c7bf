//! The webhook sender: signs, delivers, retries.

use core::time::Duration;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use pleo_webhook_verify::{Secret, unix_now};
use tokio::time;
use uuid::Uuid;

use crate::shared::Shared;
use crate::state::Attempt;

/// Pleo's retry schedule: the delay after each failed attempt.
const SCHEDULE: [Duration; 7] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 60 * 60),
    Duration::from_secs(5 * 60 * 60),
    Duration::from_secs(10 * 60 * 60),
    Duration::from_secs(10 * 60 * 60),
];

/// The sandbox divides Pleo's delays by this factor: 10 h become 0.36 s.
const SPEEDUP: u32 = 100_000;

/// The time limit for a response, in real time.
const TIMEOUT: Duration = Duration::from_secs(15);

impl Shared {
    /// Delivers a message, with retries.
    pub(crate) fn send(self: &Arc<Self>, message: &str) {
        let (shared, message) = (Arc::clone(self), message.to_owned());
        self.runtime.spawn(async move {
            let mut schedule = SCHEDULE.iter();
            loop {
                let (attempt, retry_after) = shared.attempt(&message).await;
                let accepted = matches!(attempt.status, Some(200..=299));
                let delay = schedule.next().copied();
                let is_final = accepted || delay.is_none();
                shared.record(attempt, is_final);
                match delay {
                    Some(delay) if !accepted => {
                        // Svix clamps `Retry-After` to once or twice the scheduled delay.
                        let delay =
                            retry_after.map_or(delay, |after| after.clamp(delay, delay * 2));
                        time::sleep(delay / SPEEDUP).await;
                    }
                    _ => return,
                }
            }
        });
    }

    /// Delivers a message, without retries.
    pub(crate) fn send_once(self: &Arc<Self>, message: &str) {
        let (shared, message) = (Arc::clone(self), message.to_owned());
        self.runtime.spawn(async move {
            let (attempt, _) = shared.attempt(&message).await;
            shared.record(attempt, false);
        });
    }

    fn record(&self, attempt: Attempt, is_final: bool) {
        let mut state = self.state();
        if is_final {
            let message = state.messages.get_mut(&attempt.message).unwrap();
            message.final_attempt = Some(attempt.clone());
        }
        state.attempts.push(attempt);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Makes one attempt. Returns it with the delay of `Retry-After`.
    async fn attempt(&self, message: &str) -> (Attempt, Option<Duration>) {
        let (request, subscription, signatures) = self.request(message);
        let response = match request {
            Some(request) => time::timeout(TIMEOUT, self.client.request(request)).await,
            // The subscription was deleted.
            None => return (Attempt::new(message, subscription, None, 0), None),
        };
        let response = response.ok().and_then(Result::ok);
        let retry_after = response.as_ref().and_then(retry_after);
        let status = response.map(|response| response.status().as_u16());
        (
            Attempt::new(message, subscription, status, signatures),
            retry_after,
        )
    }

    fn request(&self, id: &str) -> (Option<Request<Full<Bytes>>>, Uuid, usize) {
        let state = self.state();
        let message = &state.messages[id];
        let Some(subscription) = state.subscriptions.get(&message.subscription) else {
            return (None, message.subscription, 0);
        };
        let now = unix_now();
        let signatures: Vec<_> = subscription
            .secrets
            .iter()
            .map(|text| {
                let secret: Secret = text.parse().unwrap();
                secret
                    .sign(id, now, message.body.as_bytes())
                    .unwrap()
                    .to_string()
            })
            .collect();
        let value = &subscription.value;
        let mut request = Request::post(value["endpointUrl"].as_str().unwrap())
            .header("user-agent", "Svix-Webhooks/1.100.0")
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", signatures.join(" "))
            .body(Full::from(message.body.clone()))
            .unwrap();
        let auth = &value["endpointAuth"];
        if auth["type"] == "BASIC" {
            let text = |name: &str| auth["credentials"][name].as_str().unwrap();
            let pair = STANDARD.encode(format!("{}:{}", text("username"), text("password")));
            let basic = HeaderValue::try_from(format!("Basic {pair}")).unwrap();
            request.headers_mut().insert("authorization", basic);
        }
        // Custom headers replace those set above.
        for (name, value) in value["customHeaders"].as_object().into_iter().flatten() {
            let name: HeaderName = name.parse().unwrap();
            let value: HeaderValue = value.as_str().unwrap().parse().unwrap();
            request.headers_mut().insert(name, value);
        }
        (Some(request), message.subscription, signatures.len())
    }
}

fn retry_after(response: &Response<Incoming>) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.parse().ok().map(Duration::from_secs)
}
