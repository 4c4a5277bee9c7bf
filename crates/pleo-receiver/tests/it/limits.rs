//! What the server does to those who go too far, and that nobody else notices.

// Elsewhere not all of 127.0.0.0/8 is this machine.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails loudly"
)]

use core::time::Duration;
use std::time::Instant;

use crate::support::{Answer, Client, PATH, Request, Server, SlowBody, counted, endpoint, secret};
use pleo_receiver::verify::unix_now;
use pleo_receiver::{MemoryInbox, Receiver, ReceiverBuilder, ServerOptions};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time;

const BODY: &[u8] = br#"{"eventType":"v9.new","eventId":"e1","data":{}}"#;

/// More than any limit here, and than a socket's buffers hold.
const HALF: usize = 1024 * 1024;

/// Another address of this machine than the one that ordinary requests come from.
const ELSEWHERE: &str = "127.0.0.2";

fn builder() -> ReceiverBuilder {
    Receiver::builder()
        .endpoint(endpoint())
        .inbox(MemoryInbox::new())
}

fn options(change: impl FnOnce(&mut ServerOptions)) -> ServerOptions {
    let mut options = ServerOptions::default();
    change(&mut options);
    options
}

/// A valid delivery is answered within a second.
async fn assert_serves(server: &Server) {
    let start = Instant::now();
    let answer = server.send(&Request::signed("msg_1", BODY)).await;
    let took = start.elapsed();
    assert_eq!(answer.status, 204, "{answer:?}");
    assert!(took < Duration::from_secs(1), "only after {took:?}");
}

/// So many connections are counted as refused for a reason.
async fn assert_refused(server: &Server, reason: &str, count: u64) {
    let line = format!("pleo_receiver_refused_connections_total{{reason=\"{reason}\"}}");
    // A client may learn of its end before the server counts it.
    let counted = async {
        while counted(&server.receiver, &line) != count {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(&line, counted).await;
}

/// Fails where something takes so long that it will never happen.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let result = time::timeout(Duration::from_secs(20), future).await;
    result.expect(what)
}

#[tokio::test]
async fn whoever_is_still_writing_sees_the_answer() {
    let builder = builder()
        .body_limit(1000)
        .body_timeout(Duration::from_millis(100));
    let server = Server::start(builder).await;
    let large = || Request::signed("msg_1", &[b'x'; 2 * HALF]);
    let chunked = || {
        let mut request = large().with("content-length", None);
        let size = format!("{:x}\r\n", request.body.len());
        request.body = [size.as_bytes(), &request.body].concat();
        request.with("transfer-encoding", "chunked")
    };
    let mut elsewhere = large();
    elsewhere.path = "/elsewhere".into();
    let mut late = Request::signed("msg_1", BODY).with("content-length", "1000");
    late.body.clear();
    let x = "x".repeat(HALF).leak();
    for (what, request, status) in [
        ("too large by its length", large(), 413),
        ("too large in chunks", chunked(), 413),
        ("late", late, 408),
        ("not JSON", large().with("content-type", "text/plain"), 415),
        ("nowhere", elsewhere, 404),
        ("headers too large", large().and("x", Some(&*x)), 431),
        ("no HTTP", large().with("host", "\r\n\u{0}"), 400),
    ] {
        let mut client = server.connect().await;
        let bytes = request.bytes();
        let (first, second) = bytes.split_at(bytes.len().min(HALF));
        client.write(first).await;
        // The answer is there, but this client doesn't look before it has written all.
        client.stream.readable().await.unwrap();
        for piece in [second, x.as_bytes()].concat().chunks(16 * 1024) {
            let written = tokio::io::AsyncWriteExt::write_all(&mut client.stream, piece).await;
            assert!(written.is_ok(), "{what}: {written:?}");
        }
        assert_eq!(client.answer().await.status, status, "{what}");
    }
    server.stop().await;
}

#[tokio::test]
async fn headers_that_drip_are_cut_off() {
    let options = options(|options| options.header_timeout = Duration::from_millis(400));
    let server = Server::start_with(builder(), options).await;
    let mut slow = JoinSet::new();
    for number in 0..100 {
        let mut client = server.connect_from(ELSEWHERE).await;
        // Half of them after a request that was in order.
        let first = Request::signed("msg_1", BODY).bytes();
        slow.spawn(async move {
            if number % 2 == 0 {
                client.write(&first).await;
                assert_eq!(client.answer().await.status, 204);
            }
            client.write(b"POST /webhooks/pleo HTTP/1.1\r\nx: ").await;
            let drip = async {
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
            soon("the end of a slow client", drip).await;
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
async fn a_body_that_drips_is_answered_408() {
    let server = Server::start(builder().body_timeout(Duration::from_millis(400))).await;
    let mut slow = JoinSet::new();
    for number in 0..100 {
        let mut client = server.connect_from(ELSEWHERE).await;
        slow.spawn(async move {
            let mut request = Request::signed("msg_1", BODY);
            request.body.clear();
            if number % 2 == 0 {
                request = request.with("content-length", None);
                request = request.with("transfer-encoding", "chunked");
                request.body = b"ff\r\n".to_vec();
            }
            client.write(&request.bytes()).await;
            let drip = async {
                while time::timeout(Duration::from_millis(20), client.stream.readable())
                    .await
                    .is_err()
                {
                    client.write(b"x").await;
                }
                client.answer().await
            };
            let answer = soon("the answer to a slow body", drip).await;
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
async fn a_body_below_the_least_rate_is_refused_long_before_its_time_is_up() {
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
async fn a_client_that_never_reads_is_cut_off() {
    let options = options(|options| options.write_timeout = Duration::from_millis(400));
    let server = Server::start_with(builder(), options).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(server.address).await.unwrap();
    // So many answers that they don't fit into any buffer.
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
        soon("the end of a client that never reads", write),
        assert_serves(&server)
    );
    assert_refused(&server, "slow_reader", 1).await;
    server.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_only_after_its_time() {
    let options = options(|options| {
        options.header_timeout = Duration::from_millis(100);
        options.idle_timeout = Duration::from_millis(1500);
    });
    let server = Server::start_with(builder(), options).await;
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.write(&Request::signed("msg_1", BODY).bytes()).await;
        assert_eq!(client.answer().await.status, 204);
        // Longer than headers may take: it sends none.
        time::sleep(Duration::from_millis(400)).await;
    }
    let closed = soon("the end of an idle connection", client.answer()).await;
    assert_eq!(closed.status, 0);
    server.stop().await;
}

#[tokio::test]
async fn one_source_has_only_so_many_connections() {
    let two = options(|options| options.max_connections_per_source = 2);
    let server = Server::start_with(builder(), two.clone()).await;
    let mut first = server.connect_from(ELSEWHERE).await;
    let mut second = server.connect_from(ELSEWHERE).await;
    let request = Request::signed("msg_1", BODY).bytes();
    for client in [&mut first, &mut second] {
        client.write(&request).await;
        assert_eq!(client.answer().await.status, 204);
    }
    let mut third = server.connect_from(ELSEWHERE).await;
    assert_eq!(third.answer().await.status, 0, "it is closed at once");
    assert_refused(&server, "source", 1).await;
    assert_serves(&server).await;

    drop(first);
    // The server learns of it in its own time.
    let again = async {
        loop {
            let mut client = server.connect_from(ELSEWHERE).await;
            client.write(&request).await;
            if client.answer().await.status == 204 {
                break;
            }
        }
    };
    soon("room for one more", again).await;
    server.stop().await;

    let proxied = builder().trusted_proxies(["127.0.0.2/32".parse().unwrap()]);
    let server = Server::start_with(proxied, two).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = server.connect_from(ELSEWHERE).await;
        client.write(&request).await;
        assert_eq!(client.answer().await.status, 204, "a trusted proxy");
        clients.push(client);
    }
    server.stop().await;
}

#[tokio::test]
async fn the_connection_that_is_idle_longest_makes_room() {
    let three = options(|options| options.max_connections = 3);
    let server = Server::start_with(builder(), three).await;
    let request = Request::signed("msg_1", BODY).bytes();
    let mut idle = Vec::new();
    for _ in 0..3 {
        let mut client = server.connect_from(ELSEWHERE).await;
        client.write(&request).await;
        assert_eq!(client.answer().await.status, 204);
        idle.push(client);
        // So that it is clear which one waits longest.
        time::sleep(Duration::from_millis(1100)).await;
    }
    assert_serves(&server).await;
    let [mut first, mut second, _] = <[_; 3]>::try_from(idle).ok().unwrap();
    assert_eq!(soon("its end", first.answer()).await.status, 0);
    assert_refused(&server, "room", 1).await;
    second.write(&request).await;
    assert_eq!(second.answer().await.status, 204);
    server.stop().await;
}

#[tokio::test]
async fn more_requests_than_are_wanted_at_once_are_answered_503_at_once() {
    let server = Server::start(builder().max_in_flight(1)).await;
    let mut slow = Request::signed("msg_1", BODY).with("expect", "100-continue");
    slow.body.clear();
    let mut client = server.connect().await;
    client.write(&slow.bytes()).await;
    // It is in flight, and nothing but its body is missing.
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

/// A request that is in flight, of which nothing but its body is missing.
async fn waiting(server: &Server, source: &str, request: &Request) -> Result<Client, Answer> {
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

/// It is answered 503 by one of these codes, and asked to come again.
#[track_caller]
fn assert_no_room(answer: &Answer, code: &str) {
    assert_eq!((answer.status, &*answer.code()), (503, code), "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("5"));
}

#[tokio::test]
async fn only_so_many_requests_of_one_source_wait_for_their_bodies() {
    let proxy = "127.0.0.9";
    let builder = builder()
        .max_in_flight(8)
        .trusted_proxies(["127.0.0.9/32".parse().unwrap()]);
    let server = Server::start(builder).await;
    let request = Request::signed("msg_1", BODY);
    let from = |address| request.clone().with("x-forwarded-for", address);
    let mut first = waiting(&server, ELSEWHERE, &request).await.unwrap();
    // Whichever way it comes.
    let second = waiting(&server, proxy, &from(ELSEWHERE)).await.unwrap();
    for (source, request) in [(ELSEWHERE, &request), (proxy, &from(ELSEWHERE))] {
        let third = waiting(&server, source, request).await;
        assert_no_room(&third.err().unwrap(), "source_overloaded");
    }
    // What comes whole waits for nothing.
    let mut whole = server.connect_from(ELSEWHERE).await;
    whole.write(&request.bytes()).await;
    assert_eq!(whole.answer().await.status, 204);

    // Others, up to three quarters of all that may be in flight. A proxy's own have no source.
    let mut others = vec![waiting(&server, "127.0.0.3", &request).await.unwrap()];
    for _ in 0..3 {
        others.push(waiting(&server, proxy, &request).await.unwrap());
    }
    let seventh = waiting(&server, "127.0.0.4", &request).await;
    assert_no_room(&seventh.err().unwrap(), "overloaded");
    assert_serves(&server).await;

    // Each way to end makes room.
    first.write(BODY).await;
    assert_eq!(first.answer().await.status, 204);
    let mut again = waiting(&server, ELSEWHERE, &request).await.unwrap();
    drop(second);
    again.write(&[b'x'; BODY.len()]).await;
    assert_eq!(again.answer().await.status, 401);
    let room = async {
        while waiting(&server, ELSEWHERE, &request).await.is_err() {
            // The server learns of an end in its own time.
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("room for one more", room).await;
    drop(others);
    server.stop().await;
}

#[tokio::test]
async fn bodies_that_are_not_there_whole_are_held_up_to_a_limit() {
    let builder = builder().body_limit(1000).max_unverified_bytes(2500);
    // It reads in the order in which all is written.
    let server = Server::start_with(builder, options(|options| options.threads = 1)).await;
    let request = Request::signed("msg_1", &[b'x'; 1000]);
    let begin = async |source, bytes: usize| {
        let mut client = waiting(&server, source, &request).await.unwrap();
        client.write(&request.body[..bytes]).await;
        client
    };
    // One source may have a whole body, though a quarter would be less, and no more than that.
    let mut first = begin(ELSEWHERE, 900).await;
    let mut over = begin(ELSEWHERE, 200).await;
    assert_no_room(&over.answer().await, "source_overloaded");
    // All together have no more than the limit.
    let second = begin("127.0.0.3", 900).await;
    let mut over = begin("127.0.0.4", 800).await;
    assert_no_room(&over.answer().await, "overloaded");
    // What is left of its body can't be told from another request.
    assert_eq!(over.answer().await.status, 0);
    assert_eq!(server.send(&request).await.status, 204, "it comes whole");

    first.write(&request.body[900..]).await;
    assert_eq!(first.answer().await.status, 204);
    let mut third = begin("127.0.0.4", 800).await;
    third.write(&request.body[800..]).await;
    assert_eq!(third.answer().await.status, 204, "there is room again");
    drop(second);
    server.stop().await;
}
