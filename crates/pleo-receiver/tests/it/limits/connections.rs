//! Tests of the limits of connections and headers.

use core::time::Duration;

use pleo_receiver::ServerOptions;
use tokio::net::TcpSocket;
use tokio::task::{self, JoinSet};
use tokio::time;

use super::{OTHER_SOURCE, assert_refused, assert_serves};
use crate::support::{BODY, Request, Server, builder, counted, wait_for};

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
            wait_for("connection with slow headers is closed", until_closed).await;
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
        wait_for("connection that never reads is closed", write),
        assert_serves(&server)
    );
    assert_refused(&server, "slow_reader", 1).await;
    server.stop().await;
}

#[tokio::test]
async fn answers_one_rejected_request_of_a_connection_at_a_time() {
    // The connection and this test take turns on one thread.
    let options = ServerOptions::default().with_threads(0);
    let server = Server::start_with(builder(), options).await;
    let mut client = server.connect_from(OTHER_SOURCE).await;
    let requests = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
    client.write(&requests).await;
    let rejected = "pleo_receiver_rejected_total{endpoint=\"\",reason=\"no_such_path\"}";
    let mut before = 0;
    let until_all_rejected = async {
        while before < 100 {
            task::yield_now().await;
            let now = counted(&server.receiver, rejected);
            assert!(now <= before + 1, "{before}, then {now}");
            before = now;
        }
    };
    wait_for("all requests are rejected", until_all_rejected).await;
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
    let closed = wait_for("idle connection is closed", client.answer()).await;
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
    assert_eq!(third.answer().await.status, 0, "closed immediately");
    assert_refused(&server, "source", 1).await;
    assert_serves(&server).await;

    drop(first);
    // The server notices the closed connection with a delay.
    let until_accepted = async {
        loop {
            let mut client = server.connect_from(OTHER_SOURCE).await;
            client.write(&request).await;
            if client.answer().await.status == 204 {
                break;
            }
        }
    };
    wait_for("another connection is accepted", until_accepted).await;
    server.stop().await;

    let proxied = builder().trusted_proxies(&["127.0.0.2/32".parse().unwrap()]);
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
        wait_for("idle connection is closed", first.answer())
            .await
            .status,
        0
    );
    assert_refused(&server, "evicted", 1).await;
    second.write(&request).await;
    assert_eq!(second.answer().await.status, 204);
    server.stop().await;
}
