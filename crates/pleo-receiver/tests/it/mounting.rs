//! A receiver as a tower service inside another server.

use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::Request;
use pleo_receiver::{BuildError, Endpoint, PeerAddr, Receiver, Rejection, State};
use tower_service::Service as _;

use crate::support::{self, BODY, builder_with, count, secret, stored};

/// Returns a signed request for this path.
fn request(path: &str) -> Request<Body> {
    let signed = support::Request::signed("msg_1", BODY);
    let mut request = Request::post(path);
    for (name, value) in signed.headers {
        request = request.header(name, value);
    }
    request.body(Body::from(signed.body)).unwrap()
}

async fn call(router: &Router, request: Request<Body>) -> Response {
    router.clone().call(request).await.unwrap()
}

fn books() -> Endpoint {
    support::endpoint().with_name("books")
}

fn build(endpoint: Endpoint) -> Receiver {
    builder_with(endpoint).build().unwrap().0
}

#[tokio::test]
async fn endpoint_service_answers_at_any_path() {
    let receiver = build(books());
    let books = receiver.endpoint_service("books").unwrap();
    let router = Router::new()
        .nest_service("/nested/books", books.clone())
        .route_service("/other", books);
    for path in [
        "/nested/books",
        "/nested/books/",
        "/nested/books/x",
        "/other",
    ] {
        assert_eq!(call(&router, request(path)).await.status(), 204, "{path}");
    }
    assert_eq!(count(receiver.inbox(), State::Pending).await, 1);
    let key = pleo_receiver::Key::new("books", "msg_1");
    assert!(receiver.inbox().get(key).await.unwrap().is_some());
}

#[tokio::test]
async fn receiver_service_answers_at_paths_of_its_endpoints() {
    let receiver = build(books());
    let router = Router::new()
        .route_service(support::PATH, receiver.clone())
        .route_service("/other", receiver);
    let answer = call(&router, request(support::PATH)).await;
    assert_eq!(answer.status(), 204);
    let answer = call(&router, request("/other")).await;
    let rejection = answer.extensions().get::<Rejection>();
    assert_eq!(rejection, Some(&Rejection::NoSuchPath));
}

#[tokio::test]
async fn endpoint_service_requires_endpoint_with_name() {
    let receiver = build(books());
    let error = receiver.endpoint_service(support::PATH).unwrap_err();
    let name = support::PATH.to_owned();
    assert_eq!(error, BuildError::NoSuchEndpoint { name });

    let router = Router::new().fallback_service(receiver.endpoint_service("books").unwrap());
    let bills = Endpoint::new("/bills", secret()).unwrap();
    receiver.replace_endpoints([bills]).unwrap();
    assert_eq!(call(&router, request("/")).await.status(), 404);
    receiver.replace_endpoints([books()]).unwrap();
    assert_eq!(call(&router, request("/")).await.status(), 204);
}

#[tokio::test]
async fn finds_peer_in_extensions() {
    let peer = |last| SocketAddr::from(([203, 0, 113, last], 4711));
    let allowed = || support::endpoint().allow_sources(&["203.0.113.9/32".parse().unwrap()]);
    let default = build(allowed());
    let (by_connect_info, _dispatcher) = builder_with(allowed())
        .peer_from(|extensions| Some(extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip()))
        .build()
        .unwrap();
    for (receiver, connect_info, peer_addr, status) in [
        (&default, None, None, 403),
        (&default, None, Some(9), 204),
        (&default, None, Some(8), 403),
        (&default, Some(9), None, 403),
        (&by_connect_info, Some(9), None, 204),
        (&by_connect_info, Some(8), None, 403),
        (&by_connect_info, Some(8), Some(9), 403),
        (&by_connect_info, None, None, 403),
    ] {
        let case = format!("{connect_info:?} {peer_addr:?}");
        let mut request = request(support::PATH);
        let extensions = request.extensions_mut();
        if let Some(last) = connect_info {
            extensions.insert(ConnectInfo(peer(last)));
        }
        if let Some(last) = peer_addr {
            extensions.insert(PeerAddr(peer(last).ip()));
        }
        let answer = receiver.respond(request).await;
        assert_eq!(answer.status(), status, "{case}");
        let rejection = answer.extensions().get::<Rejection>();
        let expected = (status == 403).then_some(&Rejection::SourceNotAllowed);
        assert_eq!(rejection, expected, "{case}");
    }
    let source: IpAddr = "203.0.113.9".parse().unwrap();
    for receiver in [&default, &by_connect_info] {
        let stored = stored(receiver.inbox(), "msg_1").await;
        assert_eq!(stored.entry.source, Some(source));
    }
}
