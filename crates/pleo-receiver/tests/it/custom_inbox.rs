//! Inboxes of somebody else's, which do as they like.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails loudly, and some of it on purpose"
)]

use core::time::Duration;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crate::support::{Request, Server, endpoint};
use jiff::Timestamp;
use pleo_receiver::{
    Appended, Inbox, InboxError, InboxFuture, LeaseRequest, Leased, MemoryInbox, NewMessage,
    Receiver, ServerOptions,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task;

const BODY: &[u8] = b"{}";

const LONG: Duration = Duration::from_secs(20);

/// What it does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Panics,
    /// Waits for what blocks a thread for long.
    Blocks,
    /// Reaches its store by a connection, made where it's first needed.
    Connects,
}

#[derive(Debug)]
struct Foreign {
    inner: MemoryInbox,
    way: Way,
    came: Arc<Semaphore>,
    /// Echoes.
    store: TcpListener,
    connection: Mutex<Option<(TcpStream, TcpStream)>>,
}

impl Foreign {
    async fn new(way: Way) -> Self {
        Self {
            inner: MemoryInbox::new(),
            way,
            came: Arc::new(Semaphore::new(0)),
            store: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            connection: Mutex::default(),
        }
    }

    async fn serve(self) -> Server {
        let receiver = Receiver::builder().endpoint(endpoint());
        let mut options = ServerOptions::default();
        options.threads = 1;
        options.grace = Duration::from_millis(10);
        Server::start_with(receiver.inbox(self), options).await
    }

    /// Sends a byte to the store.
    async fn reach(&self) -> io::Result<()> {
        let mut connection = self.connection.lock().await;
        if connection.is_none() {
            let here = TcpStream::connect(self.store.local_addr()?).await?;
            *connection = Some((here, self.store.accept().await?.0));
        }
        let (here, there) = connection.as_mut().unwrap();
        here.write_all(b"x").await?;
        there.read_exact(&mut [0]).await.map(drop)
    }
}

impl Inbox for Foreign {
    fn append(&self, message: NewMessage) -> InboxFuture<'_, Appended> {
        Box::pin(async move {
            assert!(self.way != Way::Panics, "this panic is part of the test");
            if self.way == Way::Blocks {
                self.came.add_permits(1);
                let blocks = task::spawn_blocking(|| thread::sleep(LONG));
                blocks.await.unwrap();
            }
            if self.way == Way::Connects {
                self.reach().await.unwrap();
            }
            self.inner.append(message).await
        })
    }

    fn lease(
        &self,
        room: LeaseRequest,
        now: Timestamp,
        lease: Duration,
    ) -> InboxFuture<'_, Leased> {
        self.inner.lease(room, now, lease)
    }

    rest_as_inner!();

    fn close(&self) -> InboxFuture<'_, ()> {
        Box::pin(async {
            if self.way == Way::Connects {
                let reached = self.reach().await;
                reached.map_err(|error| InboxError::Failed(Arc::new(error)))?;
            }
            self.inner.close().await
        })
    }
}

#[tokio::test]
async fn answers_503_if_append_panics() {
    let server = Foreign::new(Way::Panics).await.serve().await;
    for _ in 0..2 {
        let answer = server.send(&Request::signed("msg_1", BODY)).await;
        answer.assert_inbox_failed();
    }
    server.stop().await;
}

#[tokio::test]
async fn shuts_down_while_append_blocks() {
    let inbox = Foreign::new(Way::Blocks).await;
    let came = Arc::clone(&inbox.came);
    let server = inbox.serve().await;
    let mut client = server.connect().await;
    client.write(&Request::signed("msg_1", BODY).bytes()).await;
    came.acquire().await.unwrap().forget();
    let stopping = Instant::now();
    server.stop().await;
    assert!(stopping.elapsed() < LONG / 2);
    assert_eq!(client.answer().await.status, 0);
}

#[tokio::test]
async fn keeps_runtimes_until_inbox_is_closed() {
    let server = Foreign::new(Way::Connects).await.serve().await;
    let answer = server.send(&Request::signed("msg_1", BODY)).await;
    assert_eq!(answer.status, 204);
    server.stop().await;
}
