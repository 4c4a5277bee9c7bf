//! Custom inboxes that panic, block or use the runtime of an append.

use core::time::Duration;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crate::support::{BODY, Request, Server, TIMEOUT, endpoint};
use pleo_receiver::inbox::InboxFuture;
use pleo_receiver::{
    Appended, Inbox, InboxError, InboxErrorKind, MemoryInbox, NewMessage, Receiver, ServerOptions,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task;

/// How an append behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behavior {
    Panic,
    /// Waits for a task that blocks its thread.
    Block,
    /// Sends to a store over a connection that the first append opens.
    Connect,
}

#[derive(Debug)]
struct CustomInbox {
    inner: MemoryInbox,
    behavior: Behavior,
    /// Gets a permit per append.
    appends: Arc<Semaphore>,
    store: TcpListener,
    connection: Mutex<Option<(TcpStream, TcpStream)>>,
}

impl CustomInbox {
    async fn new(behavior: Behavior) -> Self {
        Self {
            inner: MemoryInbox::new(),
            behavior,
            appends: Arc::new(Semaphore::new(0)),
            store: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            connection: Mutex::default(),
        }
    }

    async fn serve(self) -> Server {
        let options = ServerOptions::default()
            .with_threads(1)
            .with_grace(Duration::from_millis(10));
        let receiver = Receiver::builder(self).endpoint(endpoint());
        Server::start_with(receiver, options).await
    }

    /// Sends a byte to the store.
    async fn send_to_store(&self) -> io::Result<()> {
        let mut connection = self.connection.lock().await;
        if connection.is_none() {
            let client = TcpStream::connect(self.store.local_addr()?).await?;
            *connection = Some((client, self.store.accept().await?.0));
        }
        let (client, store) = connection.as_mut().unwrap();
        client.write_all(b"x").await?;
        store.read_exact(&mut [0]).await.map(drop)
    }
}

impl Inbox for CustomInbox {
    fn append(&self, message: NewMessage) -> InboxFuture<'_, Appended> {
        Box::pin(async move {
            match self.behavior {
                Behavior::Panic => panic!("this panic is part of the test"),
                Behavior::Block => {
                    self.appends.add_permits(1);
                    let blocked = task::spawn_blocking(|| thread::sleep(TIMEOUT));
                    blocked.await.unwrap();
                }
                Behavior::Connect => self.send_to_store().await.unwrap(),
            }
            self.inner.append(message).await
        })
    }

    delegate_to_inner!(lease, renew, complete);

    fn close(&self) -> InboxFuture<'_, ()> {
        Box::pin(async {
            if self.behavior == Behavior::Connect {
                let failed = |error| InboxError::new(InboxErrorKind::Unavailable, error);
                self.send_to_store().await.map_err(failed)?;
            }
            self.inner.close().await
        })
    }
}

#[tokio::test]
async fn answers_503_if_append_panics() {
    let server = CustomInbox::new(Behavior::Panic).await.serve().await;
    for _ in 0..2 {
        let answer = server.send(&Request::signed("msg_1", BODY)).await;
        answer.assert_inbox_failed();
    }
    server.stop().await;
}

#[tokio::test]
async fn shuts_down_while_append_blocks() {
    let inbox = CustomInbox::new(Behavior::Block).await;
    let appends = Arc::clone(&inbox.appends);
    let server = inbox.serve().await;
    let mut client = server.connect().await;
    client.write(&Request::signed("msg_1", BODY).bytes()).await;
    appends.acquire().await.unwrap().forget();
    let start = Instant::now();
    server.stop().await;
    assert!(start.elapsed() < TIMEOUT / 2);
    assert_eq!(client.answer().await.status, 0);
}

#[tokio::test]
async fn keeps_runtimes_until_inbox_is_closed() {
    let server = CustomInbox::new(Behavior::Connect).await.serve().await;
    let answer = server.send(&Request::signed("msg_1", BODY)).await;
    assert_eq!(answer.status, 204);
    server.stop().await;
}
