//! Limits of connections, headers, bodies and requests in flight. Other clients are served meanwhile.

// Other systems don't bind all of 127.0.0.0/8.
#![cfg(target_os = "linux")]

use core::time::Duration;
use std::time::Instant;

use crate::support::{Answer, Client, PATH, Request, Server, SlowBody, counted, endpoint, secret};
use pleo_receiver::verify::unix_now;
use pleo_receiver::{MemoryInbox, Receiver, ReceiverBuilder, ServerOptions};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time;

const BODY: &[u8] = br#"{"eventType":"v9.new","eventId":"e1","data":{}}"#;

/// Larger than all limits here and a socket's buffers.
const LARGE: usize = 1024 * 1024;

/// Another source than that of the valid deliveries.
const OTHER_SOURCE: &str = "127.0.0.2";

fn builder() -> ReceiverBuilder {
    Receiver::builder()
        .endpoint(endpoint())
        .inbox(MemoryInbox::new())
}

/// Asserts that a valid delivery is accepted within a second.
async fn assert_serves(server: &Server) {
    let start = Instant::now();
    let answer = server.send(&Request::signed("msg_1", BODY)).await;
    let took = start.elapsed();
    assert_eq!(answer.status, 204, "{answer:?}");
    assert!(took < Duration::from_secs(1), "took {took:?}");
}

/// Waits until this many refused connections are counted.
async fn assert_refused(server: &Server, reason: &str, count: u64) {
    let line = format!("pleo_receiver_refused_connections_total{{reason=\"{reason}\"}}");
    // The client may notice before the server counts.
    let until_counted = async {
        while counted(&server.receiver, &line) != count {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(&line, until_counted).await;
}

/// Awaits a future. Fails after 20 seconds, with this text.
async fn soon<T>(text: &str, future: impl Future<Output = T>) -> T {
    let result = time::timeout(Duration::from_secs(20), future).await;
    result.expect(text)
}

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
async fn closes_connection_with_slow_headers() {
    let options = ServerOptions::default().with_header_timeout(Duration::from_millis(400));
    let server = Server::start_with(builder(), options).await;
    let mut slow = JoinSet::new();
    for number in 0..100 {
        let mut client = server.connect_from(OTHER_SOURCE).await;
        // Half of them send a valid request first.
        let valid = Request::signed("msg_1", BODY).bytes();
        slow.spawn(async move {
            if number % 2 == 0 {
                client.write(&valid).await;
                assert_eq!(client.answer().await.status, 204);
            }
            client.write(b"POST /webhooks/pleo HTTP/1.1\r\nx: ").await;
            let until_closed = async {
                loop {
                    client.write(b"x").await;
                    time::sleep(Duration::from_millis(20)).await;
                    if client.stream.try_read(&mut [0]).is_ok_and(|read| read == 0) {
                        break;
                    }
                    if client.stream.peer_addr().is_err() {
                        break;
                    }
                }
            };
            soon("connection with slow headers is closed", until_closed).await;
        });
    }
    assert_serves(&server).await;
    while let Some(ended) = slow.join_next().await {
        ended.unwrap();
    }
    assert_refused(&server, "slow_headers", 100).await;
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
            let answer = soon("slow body is answered", until_answered).await;
            assert_eq!((answer.status, &*answer.code()), (408, "body_timeout"));
        });
    }
    assert_serves(&server).await;
    while let Some(ended) = slow.join_next().await {
        ended.unwrap();
    }
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rejects_body_below_min_rate_before_timeout() {
    for (rate, status, seconds) in [(1, 204, 30), (2, 408, 10), (1024, 408, 5), (0, 204, 30)] {
        let receiver = builder()
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

#[tokio::test]
async fn closes_connection_of_client_that_never_reads() {
    let options = ServerOptions::default().with_write_timeout(Duration::from_millis(400));
    let server = Server::start_with(builder(), options).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(server.address).await.unwrap();
    // Their responses exceed all buffers.
    let requests = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000);
    let write = async {
        loop {
            stream.writable().await.unwrap();
            match stream.try_write(&requests) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
    };
    tokio::join!(
        soon("connection that never reads is closed", write),
        assert_serves(&server)
    );
    assert_refused(&server, "slow_reader", 1).await;
    server.stop().await;
}

#[tokio::test]
async fn closes_idle_connection_after_idle_timeout() {
    let options = ServerOptions::default()
        .with_header_timeout(Duration::from_millis(100))
        .with_idle_timeout(Duration::from_millis(1500));
    let server = Server::start_with(builder(), options).await;
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.write(&Request::signed("msg_1", BODY).bytes()).await;
        assert_eq!(client.answer().await.status, 204);
        // Longer than the header timeout, which doesn't apply to an idle connection.
        time::sleep(Duration::from_millis(400)).await;
    }
    let closed = soon("idle connection is closed", client.answer()).await;
    assert_eq!(closed.status, 0);
    server.stop().await;
}

#[tokio::test]
async fn limits_connections_per_source() {
    let two = ServerOptions::default().with_max_connections_per_source(2);
    let server = Server::start_with(builder(), two.clone()).await;
    let mut first = server.connect_from(OTHER_SOURCE).await;
    let mut second = server.connect_from(OTHER_SOURCE).await;
    let request = Request::signed("msg_1", BODY).bytes();
    for client in [&mut first, &mut second] {
        client.write(&request).await;
        assert_eq!(client.answer().await.status, 204);
    }
    let mut third = server.connect_from(OTHER_SOURCE).await;
    assert_eq!(third.answer().await.status, 0, "closed at once");
    assert_refused(&server, "source", 1).await;
    assert_serves(&server).await;

    drop(first);
    // The server takes a moment to notice.
    let until_accepted = async {
        loop {
            let mut client = server.connect_from(OTHER_SOURCE).await;
            client.write(&request).await;
            if client.answer().await.status == 204 {
                break;
            }
        }
    };
    soon("one more connection is accepted", until_accepted).await;
    server.stop().await;

    let proxied = builder().trusted_proxies(["127.0.0.2/32".parse().unwrap()]);
    let server = Server::start_with(proxied, two).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = server.connect_from(OTHER_SOURCE).await;
        client.write(&request).await;
        assert_eq!(client.answer().await.status, 204, "a trusted proxy");
        clients.push(client);
    }
    server.stop().await;
}

#[tokio::test]
async fn evicts_longest_idle_connection() {
    let three = ServerOptions::default().with_max_connections(3);
    let server = Server::start_with(builder(), three).await;
    let request = Request::signed("msg_1", BODY).bytes();
    let mut idle = Vec::new();
    for _ in 0..3 {
        let mut client = server.connect_from(OTHER_SOURCE).await;
        client.write(&request).await;
        assert_eq!(client.answer().await.status, 204);
        idle.push(client);
        // A connection is evictable after a second.
        time::sleep(Duration::from_millis(1100)).await;
    }
    assert_serves(&server).await;
    let [mut first, mut second, _] = <[_; 3]>::try_from(idle).ok().unwrap();
    assert_eq!(
        soon("idle connection is closed", first.answer())
            .await
            .status,
        0
    );
    assert_refused(&server, "room", 1).await;
    second.write(&request).await;
    assert_eq!(second.answer().await.status, 204);
    server.stop().await;
}

#[tokio::test]
async fn answers_503_above_max_in_flight() {
    let server = Server::start(builder().max_in_flight(1)).await;
    let mut slow = Request::signed("msg_1", BODY).with("expect", "100-continue");
    slow.body.clear();
    let mut client = server.connect().await;
    client.write(&slow.bytes()).await;
    // The request is in flight and waits for its body.
    assert_eq!(client.answer().await.status, 100);
    let start = Instant::now();
    let answer = server.send(&Request::signed("msg_2", BODY)).await;
    assert_eq!((answer.status, &*answer.code()), (503, "overloaded"));
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert!(start.elapsed() < Duration::from_secs(1));
    client.write(BODY).await;
    assert_eq!(client.answer().await.status, 204);
    assert_serves(&server).await;
    server.stop().await;
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
async fn limits_incomplete_requests_per_source() {
    let proxy = "127.0.0.9";
    let builder = builder()
        .max_in_flight(8)
        .trusted_proxies(["127.0.0.9/32".parse().unwrap()]);
    let server = Server::start(builder).await;
    let request = Request::signed("msg_1", BODY);
    let from = |address| request.clone().with("x-forwarded-for", address);
    let mut first = start_request(&server, OTHER_SOURCE, &request)
        .await
        .unwrap();
    // The same source through a proxy.
    let second = start_request(&server, proxy, &from(OTHER_SOURCE))
        .await
        .unwrap();
    for (source, request) in [(OTHER_SOURCE, &request), (proxy, &from(OTHER_SOURCE))] {
        let third = start_request(&server, source, request).await;
        assert_overloaded(&third.err().unwrap(), "source_overloaded");
    }
    // Complete requests don't count.
    let mut complete = server.connect_from(OTHER_SOURCE).await;
    complete.write(&request.bytes()).await;
    assert_eq!(complete.answer().await.status, 204);

    // All sources may use three quarters of the limit. Requests of the proxy itself have no source.
    let mut others = vec![start_request(&server, "127.0.0.3", &request).await.unwrap()];
    for _ in 0..3 {
        others.push(start_request(&server, proxy, &request).await.unwrap());
    }
    let seventh = start_request(&server, "127.0.0.4", &request).await;
    assert_overloaded(&seventh.err().unwrap(), "overloaded");
    assert_serves(&server).await;

    // A response and a closed connection both free capacity.
    first.write(BODY).await;
    assert_eq!(first.answer().await.status, 204);
    let mut again = start_request(&server, OTHER_SOURCE, &request)
        .await
        .unwrap();
    drop(second);
    again.write(&[b'x'; BODY.len()]).await;
    assert_eq!(again.answer().await.status, 401);
    let until_accepted = async {
        while start_request(&server, OTHER_SOURCE, &request)
            .await
            .is_err()
        {
            // The server takes a moment to notice.
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("one more request is accepted", until_accepted).await;
    drop(others);
    server.stop().await;
}

#[tokio::test]
async fn limits_bytes_of_incomplete_bodies() {
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
    // A source may send one body of the maximum size, though a quarter of the limit is less.
    let mut first = begin(OTHER_SOURCE, 900).await;
    let mut over = begin(OTHER_SOURCE, 200).await;
    assert_overloaded(&over.answer().await, "source_overloaded");
    // All sources share the limit.
    let second = begin("127.0.0.3", 900).await;
    let mut over = begin("127.0.0.4", 800).await;
    assert_overloaded(&over.answer().await, "overloaded");
    // The rest of its body could be read as a request, so the connection closes.
    assert_eq!(over.answer().await.status, 0);
    assert_eq!(server.send(&request).await.status, 204, "complete request");

    first.write(&request.body[900..]).await;
    assert_eq!(first.answer().await.status, 204);
    let mut third = begin("127.0.0.4", 800).await;
    third.write(&request.body[800..]).await;
    assert_eq!(third.answer().await.status, 204, "capacity is free again");
    drop(second);
    server.stop().await;
}
