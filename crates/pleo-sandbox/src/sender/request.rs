//! One signed request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use pleo_webhook_verify::Secret;

use crate::options::HeaderPrefix;
use crate::state::message::Message;
use crate::state::subscription::Subscription;

/// The URL, headers and body of an attempt. Copies are byte for byte equal.
#[derive(Debug)]
pub(crate) struct SignedRequest {
    pub(crate) url: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) signatures: usize,
}

impl SignedRequest {
    /// Signs a message with every secret that its subscription has at this time.
    pub(crate) fn new(
        message: &Message,
        subscription: &Subscription,
        prefix: HeaderPrefix,
        now: Timestamp,
    ) -> Self {
        let timestamp = u64::try_from(now.as_second()).unwrap_or_default();
        let signatures: Vec<_> = subscription
            .signing_secrets(now)
            .filter_map(|text| {
                let secret: Secret = text.parse().ok()?;
                let signature = secret.sign(&message.id, timestamp, message.body.as_bytes());
                Some(signature.ok()?.to_string())
            })
            .collect();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let prefixes: &[&str] = match prefix {
            HeaderPrefix::Webhook => &["webhook"],
            HeaderPrefix::Svix => &["svix"],
            HeaderPrefix::Both => &["webhook", "svix"],
        };
        for prefix in prefixes {
            insert(&mut headers, &format!("{prefix}-id"), &message.id);
            let seconds = timestamp.to_string();
            insert(&mut headers, &format!("{prefix}-timestamp"), &seconds);
            let list = signatures.join(" ");
            insert(&mut headers, &format!("{prefix}-signature"), &list);
        }
        if let Some((username, password)) = subscription.basic() {
            let pair = STANDARD.encode(format!("{username}:{password}"));
            insert(
                &mut headers,
                AUTHORIZATION.as_str(),
                &format!("Basic {pair}"),
            );
        }
        // Custom headers replace those above.
        for (name, value) in subscription.headers() {
            insert(&mut headers, name, value);
        }
        Self {
            url: subscription.url().to_owned(),
            headers,
            body: message.body.clone(),
            signatures: signatures.len(),
        }
    }
}

/// Inserts a header. The API has refused names and values that cannot be sent.
fn insert(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
        headers.insert(name, value);
    }
}
