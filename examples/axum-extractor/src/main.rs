//! An axum extractor that yields a verified webhook.
//!
//! ```sh
//! PLEO_WEBHOOK_SECRET=whsec_… cargo run -p example-axum-extractor
//! ```

use std::error::Error;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRef, FromRequest, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use pleo_webhook_verify::{SignatureHeaders, Verified, Verifier};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let verifier = Verifier::new(std::env::var("PLEO_WEBHOOK_SECRET")?.parse()?);
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    axum::serve(listener, app(verifier)).await?;
    Ok(())
}

fn app(verifier: Verifier) -> Router {
    Router::new()
        .route("/webhooks/pleo", post(webhook))
        .with_state(Arc::new(verifier))
}

/// Handles a delivery. It cannot be called with an unverified body.
async fn webhook(Webhook(delivery): Webhook) -> StatusCode {
    // Store it durably, once per id, before the response.
    let (_id, _body) = (delivery.id(), delivery.body());
    StatusCode::NO_CONTENT
}

/// Extracts a verified delivery.
struct Webhook(Verified<Bytes>);

impl<S> FromRequest<S> for Webhook
where
    S: Send + Sync,
    Arc<Verifier>: FromRef<S>,
{
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let headers = request.headers().clone();
        let body = Bytes::from_request(request, state)
            .await
            .map_err(IntoResponse::into_response)?;
        let verifier: Arc<Verifier> = FromRef::from_ref(state);
        SignatureHeaders::from_pairs(&headers)
            .and_then(|headers| verifier.verify_now(&headers, body))
            .map(Self)
            .map_err(|error| (StatusCode::UNAUTHORIZED, error.code()).into_response())
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use pleo_webhook_verify::{Secret, unix_now};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn accepts_signed_and_rejects_forged_request() {
        let secret = Secret::from_bytes(&[7; 24]).unwrap();
        let signature = secret.sign("msg_1", unix_now(), b"{}").unwrap();
        let app = app(Verifier::new(secret));
        for (body, status) in [
            ("{}", StatusCode::NO_CONTENT),
            ("[]", StatusCode::UNAUTHORIZED),
        ] {
            let request = Request::post("/webhooks/pleo")
                .header("webhook-id", "msg_1")
                .header("webhook-timestamp", unix_now())
                .header("webhook-signature", signature.as_str())
                .body(Body::from(body));
            let response = app.clone().oneshot(request.unwrap()).await.unwrap();
            assert_eq!(response.status(), status);
        }
    }
}
