//! The threads that serve connections.

use core::future::pending;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, mpsc};
use std::thread;

use crate::support::{BODY, Request, Server, TIMEOUT, builder, count};
use pleo_receiver::{ServerOptions, State, handler_fn};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Sends a delivery over a new connection without a runtime. Returns the status line.
fn send_blocking(address: SocketAddr, id: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let request = Request::signed(id, BODY).with("connection", "close");
    stream.write_all(&request.bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap().to_owned()
}

#[tokio::test(flavor = "current_thread")]
async fn acknowledges_while_handler_blocks_its_runtime() {
    let (events_sender, events) = mpsc::channel();
    let (unblock, unblocked) = mpsc::channel();
    let unblocked = Mutex::new(unblocked);
    let handler = handler_fn(move |_| {
        events_sender.send("blocked").unwrap();
        let event = unblocked.lock().unwrap().recv_timeout(TIMEOUT);
        events_sender.send(event.unwrap_or("timed out")).unwrap();
        async { Ok(()) }
    });
    let server = Server::start(builder().handler(handler)).await;
    let address = server.address;
    let sender = thread::spawn(move || {
        let first = send_blocking(address, "msg_1");
        assert_eq!(events.recv_timeout(TIMEOUT), Ok("blocked"));
        let second = send_blocking(address, "msg_2");
        for _ in 0..2 {
            unblock.send("unblocked").unwrap();
        }
        let events: Vec<_> = events.iter().take(3).collect();
        assert_eq!(events, ["unblocked", "blocked", "unblocked"]);
        [first, second]
    });
    let answers = tokio::task::spawn_blocking(|| sender.join().unwrap()).await;
    assert_eq!(answers.unwrap(), ["HTTP/1.1 204 No Content"; 2]);
    server.stop().await;
}

#[tokio::test]
async fn serves_connections_on_any_number_of_threads() {
    for threads in [0, 1, 2, 7] {
        let options = ServerOptions::default().with_threads(threads);
        let server = Server::start_with(builder(), options).await;
        let mut clients = Vec::new();
        for _ in 0..20 {
            clients.push(server.connect().await);
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let request = Request::signed(&format!("msg_{number}"), BODY);
            client.write(&request.bytes()).await;
            assert_eq!(client.answer().await.status, 204, "{threads} threads");
        }
        assert_eq!(count(server.inbox(), State::Pending).await, 20);
        server.stop().await;
    }
}

#[tokio::test]
async fn closes_connections_when_server_is_dropped() {
    for threads in [0, 2] {
        let options = ServerOptions::default().with_threads(threads);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (receiver, dispatcher) = builder().build().unwrap();
        let server = pleo_receiver::Server::new(receiver, dispatcher);
        let mut running = JoinSet::new();
        running.spawn(server.options(options).listen(listener).run(pending()));
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let answered = tokio::task::spawn_blocking(move || send_blocking(address, "msg_1"));
        assert_eq!(answered.await.unwrap(), "HTTP/1.1 204 No Content");
        running.shutdown().await;
        let closed = tokio::time::timeout(TIMEOUT, stream.read(&mut [0])).await;
        assert!(matches!(closed.expect("is closed"), Ok(0) | Err(_)));
        tokio::time::timeout(TIMEOUT, async {
            while tokio::net::TcpStream::connect(address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the listener is closed");
    }
}
