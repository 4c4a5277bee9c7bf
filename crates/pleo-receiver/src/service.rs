//! The receiver and its endpoints as tower services.

use core::convert::Infallible;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;

use crate::receiver::Receiver;
use crate::routes::BuildError;

type ResponseFuture =
    Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;

impl<B> tower_service::Service<Request<B>> for Receiver
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Send,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let receiver = self.clone();
        Box::pin(async move { Ok(receiver.respond(request).await) })
    }
}

impl Receiver {
    /// Returns the service of the endpoint with this name (the path unless
    /// [set](crate::Endpoint::with_name)). It answers requests at any path, for routers that strip a
    /// prefix.
    ///
    /// The service uses the endpoint that has the name at the time of each request. If there is none
    /// after [`replace_endpoints`](Self::replace_endpoints), it answers 404.
    ///
    /// ```
    /// use axum::Router;
    /// use pleo_receiver::{BuildError, Receiver};
    ///
    /// fn router(receiver: &Receiver) -> Result<Router, BuildError> {
    ///     let books = receiver.endpoint_service("books")?;
    ///     Ok(Router::new().nest_service("/hooks/books", books))
    /// }
    /// ```
    ///
    /// # Errors
    /// No endpoint has the name.
    pub fn endpoint_service(
        &self,
        name: impl Into<Arc<str>>,
    ) -> Result<EndpointService, BuildError> {
        let name = name.into();
        if self.route_by_name(&name).is_none() {
            let name = name.to_string();
            return Err(BuildError::NoSuchEndpoint { name });
        }
        let receiver = self.clone();
        Ok(EndpointService { receiver, name })
    }
}

/// A tower service that receives the deliveries of one endpoint, see
/// [`Receiver::endpoint_service`].
#[derive(Clone, Debug)]
pub struct EndpointService {
    receiver: Receiver,
    name: Arc<str>,
}

impl<B> tower_service::Service<Request<B>> for EndpointService
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Send,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Self { receiver, name } = self.clone();
        Box::pin(async move { Ok(receiver.respond_for(&name, request).await) })
    }
}
