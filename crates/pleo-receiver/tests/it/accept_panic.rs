//! A panic in the task that accepts connections.

// Only Linux can bind every address of 127.0.0.0/8.
#![cfg(target_os = "linux")]

use core::fmt;
use core::future::pending;
use core::time::Duration;
use std::net::SocketAddr;

use crate::support::on_event::OnEvent;
use crate::support::{TIMEOUT, builder};
use pleo_receiver::{ServeError, Server, ServerOptions};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time;
use tracing::Event;
use tracing::field::{Field, Visit};

/// The source whose refused connections make the subscriber panic. All tests share the subscriber.
const PANIC_SOURCE: &str = "127.0.0.99";

/// Panics when a connection of [`PANIC_SOURCE`] is refused.
fn panic_if_refused(event: &Event<'_>) {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let is_refused = fields.message == "connection refused" && fields.peer == PANIC_SOURCE;
    assert!(!is_refused, "this panic is part of the test");
}

#[derive(Default)]
struct Fields {
    message: String,
    peer: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "peer" => self.peer = format!("{value:?}"),
            _ => {}
        }
    }
}

async fn connect_from(source: &str, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    socket.connect(address).await.unwrap()
}

#[tokio::test]
async fn stops_server_after_panic_while_accepting() {
    tracing::subscriber::set_global_default(OnEvent(panic_if_refused)).unwrap();
    for threads in [0, 1, 2] {
        let options = ServerOptions::default()
            .with_threads(threads)
            .with_max_connections_per_source(1)
            .with_grace(Duration::from_millis(10));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (receiver, dispatcher) = builder().build().unwrap();
        let server = Server::new(receiver, dispatcher);
        let running = server.options(options).listen(listener).run(pending());
        let clients = async {
            let first = connect_from(PANIC_SOURCE, address).await;
            let second = connect_from(PANIC_SOURCE, address).await;
            pending::<()>().await;
            drop((first, second));
        };
        let ended = tokio::select! {
            ended = time::timeout(TIMEOUT, running) => ended.expect("the server stops"),
            () = clients => unreachable!(),
        };
        assert!(matches!(ended, Err(ServeError::Panicked)), "{ended:?}");
    }
}
