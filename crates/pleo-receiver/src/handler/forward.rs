//! A handler that posts each message to a URL.

use core::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use pleo_webhook_verify::{Secret, VerifyError, unix_now};

use super::{Delivery, Handler, HandlerFuture};
use crate::{ClientError, HttpClient};

/// Posts each message to a URL, the body byte for byte as it was signed.
///
/// Only an answer of 2xx is a success; a redirect isn't followed, and is a failure like any other.
/// Beside the body go these headers, those without a value left out: `webhook-id`, `pleo-endpoint`,
/// `pleo-event-type`, `pleo-event-id`, `pleo-attempt` (counted from 1), `pleo-received-at` and
/// `pleo-expires-at` (RFC 3339), and `pleo-expired`, which is `true` where the job expired before this
/// attempt.
#[derive(Clone, Debug)]
pub struct Forward {
    client: HttpClient,
    timeout: Duration,
    secret: Option<Secret>,
}

impl Forward {
    /// Posts to this `http` or `https` URL. A user and password in it are sent as Basic credentials,
    /// and are never shown.
    ///
    /// # Errors
    /// [`ForwardError::Client`] where the URL can't be used, or where it is `https` and the machine
    /// has no certificate authorities.
    pub fn new(url: &str) -> Result<Self, ForwardError> {
        Ok(Self {
            client: HttpClient::new(url)?,
            timeout: Duration::from_secs(30),
            secret: None,
        })
    }

    /// Sets how long the target may take to answer; 30 seconds unless set.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Signs each request afresh with this secret, so that the target can check it with any library
    /// of Standard Webhooks. Without it, no signature is sent: the sender's would soon be stale.
    #[must_use]
    pub fn signed_with(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    async fn post(&self, delivery: Delivery) -> Result<(), ForwardError> {
        let mut headers = HeaderMap::new();
        let mut set = |name, value: &str| {
            // The sender chose some of these: what can't stand in a header is left out.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        for (_, name, value) in delivery.metadata() {
            set(name, &value);
        }
        if delivery.expired {
            set("pleo-expired", "true");
        }
        if let Some(secret) = &self.secret {
            let now = unix_now();
            let signature = secret.sign(&delivery.webhook_id, now, &delivery.body)?;
            set("webhook-timestamp", &now.to_string());
            set("webhook-signature", signature.as_str());
        }
        let json = HeaderValue::from_static("application/json");
        headers.insert(CONTENT_TYPE, json);
        let answer = self.client.post(headers, delivery.body, self.timeout);
        let status = answer.await?.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(ClientError::Status { status }.into())
        }
    }
}

impl Handler for Forward {
    fn handle(&self, delivery: Delivery) -> HandlerFuture<'_> {
        Box::pin(async move { self.post(delivery).await.map_err(Into::into) })
    }
}

/// Why a message couldn't be forwarded. Never holds credentials or a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// The target can't be used, didn't answer, or didn't answer 2xx.
    #[error("cannot forward")]
    Client(#[from] ClientError),
    /// The message's id can't be signed; such an id is never received.
    #[error("cannot sign the message")]
    Sign(#[from] VerifyError),
}
