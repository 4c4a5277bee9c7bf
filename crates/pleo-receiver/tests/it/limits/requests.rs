//! Tests of the limits of bodies and incomplete requests.

use core::time::Duration;

use pleo_receiver::ServerOptions;
use pleo_receiver::verify::unix_now;
use tokio::task::JoinSet;
use tokio::time;

use super::{OTHER_SOURCE, assert_serves};
use crate::support::{
    Answer, BODY, Client, PATH, Request, Server, SlowBody, builder, secret, wait_for,
};

/// Larger than all limits here and a socket's buffers.
const LARGE: usize = 1024 * 1024;

#[tokio::test]
async fn delivers_response_to_client_still_sending() {
    let builder = builder()
        .body_limit(1000)
        .body_timeout(Duration::from_millis(100));
    let server = Server::start(builder).await;
    let large = || Request::signed("msg_1", &[b'x'; 2 * LARGE]);
    let chunked = || {
        let mut request = large().with("content-length", None);
        let size = format!("{:x}\r\n", request.body.len());
        request.body = [size.as_bytes(), &request.body].concat();
        request.with("transfer-encoding", "chunked")
    };
    let mut unknown_path = large();
    unknown_path.path = "/unknown".into();
    let mut slow = Request::signed("msg_1", BODY).with("content-length", "1000");
    slow.body.clear();
    let x = "x".repeat(LARGE).leak();
    for (case, request, status) in [
        ("too large by its length", large(), 413),
        ("too large in chunks", chunked(), 413),
        ("too slow", slow, 408),
        ("not JSON", large().with("content-type", "text/plain"), 415),
        ("unknown path", unknown_path, 404),
        ("headers too large", large().and("x", Some(&*x)), 431),
        ("no HTTP", large().with("host", "\r\n\u{0}"), 400),
    ] {
        let mut client = server.connect().await;
        let bytes = request.bytes();
        let (first, second) = bytes.split_at(bytes.len().min(LARGE));
        client.write(first).await;
        // The client sends everything before it reads the response.
        client.stream.readable().await.unwrap();
        for piece in [second, x.as_bytes()].concat().chunks(16 * 1024) {
            let written = tokio::io::AsyncWriteExt::write_all(&mut client.stream, piece).await;
            assert!(written.is_ok(), "{case}: {written:?}");
        }
        assert_eq!(client.answer().await.status, status, "{case}");
    }
    server.stop().await;
}

#[tokio::test]
async fn answers_408_to_slow_body() {
    let server = Server::start(builder().body_timeout(Duration::from_millis(400))).await;
    let mut slow = JoinSet::new();
    for number in 0..100 {
        let mut client = server.connect_from(OTHER_SOURCE).await;
        slow.spawn(async move {
            let mut request = Request::signed("msg_1", BODY);
            request.body.clear();
            if number % 2 == 0 {
                request = request.with("content-length", None);
                request = request.with("transfer-encoding", "chunked");
                request.body = b"ff\r\n".to_vec();
            }
            client.write(&request.bytes()).await;
            let until_answered = async {
                while time::timeout(Duration::from_millis(20), client.stream.readable())
                    .await
                    .is_err()
                {
                    client.write(b"x").await;
                }
                client.answer().await
            };
            let answer = wait_for("slow body is answered", until_answered).await;
            assert_eq!((answer.status, &*answer.code()), (408, "body_timeout"));
        });
    }
    assert_serves(&server).await;
    while let Some(ended) = slow.join_next().await {
        ended.unwrap();
    }
    server.stop().await;
}

#[tokio::test]
async fn serves_without_time_limits() {
    let limits = builder().body_timeout(Duration::MAX).min_body_rate(0);
    let options = ServerOptions::default()
        .with_header_timeout(Duration::MAX)
        .with_idle_timeout(Duration::MAX);
    let server = Server::start_with(limits, options).await;
    let mut client = server.connect().await;
    for id in ["msg_1", "msg_2"] {
        let mut request = Request::signed(id, BODY).with("expect", "100-continue");
        let body = core::mem::take(&mut request.body);
        client.write(&request.bytes()).await;
        assert_eq!(client.answer().await.status, 100);
        client.write(&body).await;
        assert_eq!(client.answer().await.status, 204);
    }
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rejects_body_below_min_rate_before_timeout() {
    for (rate, status, seconds) in [(1, 204, 30), (2, 408, 10), (1024, 408, 5), (0, 204, 30)] {
        let (receiver, _dispatcher) = builder()
            .body_timeout(Duration::from_secs(60))
            .min_body_rate(rate)
            .build()
            .unwrap();
        let (now, body) = (unix_now(), "x".repeat(30));
        let signature = secret().sign("msg_1", now, body.as_bytes()).unwrap();
        let request = hyper::Request::post(PATH)
            .header("content-type", "application/json")
            .header("webhook-id", "msg_1")
            .header("webhook-timestamp", now)
            .header("webhook-signature", signature.to_string())
            .body(SlowBody::new(30))
            .unwrap();
        let start = time::Instant::now();
        let answer = receiver.respond(request).await;
        assert_eq!(answer.status(), status, "{rate} bytes a second");
        let took = start.elapsed().as_secs();
        assert!(took.abs_diff(seconds) <= 1, "{rate} bytes a second: {took}");
    }
}

/// Starts a request without its body. Returns the response if it is rejected.
async fn start_request(server: &Server, source: &str, request: &Request) -> Result<Client, Answer> {
    let mut request = request.clone().with("expect", "100-continue");
    request.body.clear();
    let mut client = server.connect_from(source).await;
    client.write(&request.bytes()).await;
    let answer = client.answer().await;
    if answer.status == 100 {
        Ok(client)
    } else {
        Err(answer)
    }
}

/// Asserts that the response is 503 with this code and `Retry-After`.
#[track_caller]
fn assert_overloaded(answer: &Answer, code: &str) {
    assert_eq!((answer.status, &*answer.code()), (503, code), "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("5"));
}

#[tokio::test]
async fn shares_incomplete_requests_among_sources() {
    let proxy = "127.0.0.9";
    let builder = builder()
        .max_in_flight(6)
        .trusted_proxies(&["127.0.0.9/32".parse().unwrap()]);
    let server = Server::start(builder).await;
    let request = Request::signed("msg_1", BODY);
    let proxied = request.clone().with("x-forwarded-for", OTHER_SOURCE);
    let both = [(OTHER_SOURCE, &request), (proxy, &proxied)];
    // One source may use all of the limit, directly and through a proxy.
    let mut held = Vec::new();
    for (source, request) in both.iter().cycle().take(6) {
        held.push(start_request(&server, source, request).await.unwrap());
    }
    for (source, request) in both {
        let seventh = start_request(&server, source, request).await;
        assert_overloaded(&seventh.err().unwrap(), "source_overloaded");
    }
    // Complete requests don't count.
    let mut complete = server.connect_from("127.0.0.5").await;
    complete
        .write(&Request::signed("msg_2", BODY).bytes())
        .await;
    assert_eq!(complete.answer().await.status, 204);

    // Another source takes the newest.
    let sender = "127.0.0.3";
    let mut first = start_request(&server, sender, &request).await.unwrap();
    let evicted = held.pop().unwrap().answer().await;
    assert_overloaded(&evicted, "source_overloaded");
    // Once it delivered something authentic, it takes all of them, and keeps them.
    first.write(BODY).await;
    assert_eq!(first.answer().await.status, 204);
    let mut trusted = Vec::new();
    for _ in 0..6 {
        trusted.push(start_request(&server, sender, &request).await.unwrap());
    }
    for mut client in held {
        assert_overloaded(&client.answer().await, "source_overloaded");
    }
    let other = start_request(&server, OTHER_SOURCE, &request).await;
    assert_overloaded(&other.err().unwrap(), "overloaded");
    assert_serves(&server).await;

    // A response and a closed connection both free a place.
    trusted.pop().unwrap().write(BODY).await;
    trusted.pop();
    let mut left = 2;
    let until_accepted = async {
        while left > 0 {
            match start_request(&server, OTHER_SOURCE, &request).await {
                Ok(mut client) => {
                    client.write(&[b'x'; BODY.len()]).await;
                    assert_eq!(client.answer().await.status, 401);
                    left -= 1;
                }
                // The server takes a moment to notice.
                Err(_) => time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    wait_for("two more requests are accepted", until_accepted).await;
    server.stop().await;
}

#[tokio::test]
async fn shares_memory_for_incomplete_bodies_among_sources() {
    let builder = builder().body_limit(1000).max_unverified_bytes(2500);
    // One thread reads the bodies in the order in which they are sent.
    let options = ServerOptions::default().with_threads(1);
    let server = Server::start_with(builder, options).await;
    let request = Request::signed("msg_1", &[b'x'; 1000]);
    let begin = async |source, bytes: usize| {
        let mut client = start_request(&server, source, &request).await.unwrap();
        client.write(&request.body[..bytes]).await;
        client
    };
    let mut first = begin(OTHER_SOURCE, 900).await;
    let mut second = begin(OTHER_SOURCE, 800).await;
    let mut over = begin(OTHER_SOURCE, 900).await;
    assert_overloaded(&over.answer().await, "source_overloaded");
    // The rest of its body could be read as a request, so the connection closes.
    assert_eq!(over.answer().await.status, 0);
    // Another source takes the largest.
    let mut sender = begin("127.0.0.3", 900).await;
    assert_overloaded(&first.answer().await, "source_overloaded");
    sender.write(&request.body[900..]).await;
    assert_eq!(sender.answer().await.status, 204);
    let response = server.send(&request).await;
    assert_eq!(response.status, 204, "it arrives complete");
    second.write(&request.body[800..]).await;
    assert_eq!(second.answer().await.status, 204);
    server.stop().await;
}
