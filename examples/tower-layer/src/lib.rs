//! A tower layer that verifies webhooks in front of an existing service, and passes the proof on in the
//! request's extensions.

use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use pleo_webhook_verify::{SignatureHeaders, Verifier};
use tower::{BoxError, Layer, Service};

/// The largest body in bytes.
const LIMIT: usize = 1024 * 1024;

/// Verifies each request. The service gets only authentic ones, each with a
/// [`Verified<Bytes>`](pleo_webhook_verify::Verified) in its extensions.
#[derive(Clone, Debug)]
pub struct VerifyLayer(pub Arc<Verifier>);

impl<S> Layer<S> for VerifyLayer {
    type Service = Verify<S>;

    fn layer(&self, inner: S) -> Verify<S> {
        let verifier = Arc::clone(&self.0);
        Verify { inner, verifier }
    }
}

/// The service that [`VerifyLayer`] makes.
#[derive(Clone, Debug)]
pub struct Verify<S> {
    inner: S,
    verifier: Arc<Verifier>,
}

impl<S, B, R> Service<Request<B>> for Verify<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // Only the service that `poll_ready` was called on is ready.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let verifier = Arc::clone(&self.verifier);
        Box::pin(async move {
            match verify(&verifier, request).await {
                Ok(request) => inner.call(request).await,
                Err(status) => {
                    let mut response = Response::default();
                    *response.status_mut() = status;
                    Ok(response)
                }
            }
        })
    }
}

/// Reads the body and verifies it.
async fn verify<B: Body<Error: Into<BoxError>>>(
    verifier: &Verifier,
    request: Request<B>,
) -> Result<Request<Full<Bytes>>, StatusCode> {
    let (mut parts, body) = request.into_parts();
    let body = Limited::new(body, LIMIT).collect().await;
    let body = body.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?.to_bytes();
    let verified = SignatureHeaders::from_pairs(&parts.headers)
        .and_then(|headers| verifier.verify_now(&headers, body.clone()))
        .map_err(|_| StatusCode::UNAUTHORIZED)?;
    parts.extensions.insert(verified);
    Ok(Request::from_parts(parts, Full::new(body)))
}

#[cfg(test)]
mod tests {
    use core::convert::Infallible;

    use pleo_webhook_verify::{Secret, Verified, unix_now};
    use tower::{ServiceExt, service_fn};

    use super::*;

    /// An existing service, which responds with the verified id.
    async fn existing(request: Request<Full<Bytes>>) -> Result<Response<String>, Infallible> {
        let delivery: &Verified<Bytes> = request.extensions().get().unwrap();
        assert_eq!(delivery.body(), b"{}");
        let id = delivery.id().to_owned();
        let body = request.into_body().collect().await?.to_bytes();
        assert_eq!(body, "{}");
        Ok(Response::new(id))
    }

    #[tokio::test]
    async fn passes_signed_on_and_rejects_forged_request() {
        let secret = Secret::from_bytes(&[7; 24]).unwrap();
        let signature = secret.sign("msg_1", unix_now(), b"{}").unwrap();
        let service = VerifyLayer(Arc::new(secret.into())).layer(service_fn(existing));
        for (body, status, id) in [
            ("{}", StatusCode::OK, "msg_1"),
            ("[]", StatusCode::UNAUTHORIZED, ""),
        ] {
            let request = Request::post("/")
                .header("webhook-id", "msg_1")
                .header("webhook-timestamp", unix_now())
                .header("webhook-signature", signature.as_str())
                .body(Full::<Bytes>::from(body));
            let response = service.clone().oneshot(request.unwrap()).await.unwrap();
            assert_eq!((response.status(), &**response.body()), (status, id));
        }
    }
}
