//! The contenders.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use pleo_receiver::{
    Appended, Claim, ClaimId, Counts, Endpoint, Entry, Filter, Inbox, InboxError, InboxFuture,
    MemoryInbox, NewMessage, Outcome, Receiver, Selection, SqliteInbox, State, serve,
};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::load::{self, Requests};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    Bare,
    VerifyOnly,
    Memory,
    Sqlite,
    SqliteScattered,
}

impl Contender {
    /// The bare server first: the others are measured by it.
    pub const ALL: [Self; 5] = [
        Self::Bare,
        Self::VerifyOnly,
        Self::Memory,
        Self::Sqlite,
        Self::SqliteScattered,
    ];

    pub const fn what(self) -> &'static str {
        match self {
            Self::Bare => "bare hyper",
            Self::VerifyOnly => "receiver, nothing kept",
            Self::Memory => "receiver, inbox in memory",
            Self::Sqlite => "receiver, SQLite inbox, rising ids",
            Self::SqliteScattered => "receiver, SQLite inbox, ids in no order",
        }
    }
}

/// Starts a server with an empty inbox, sends it all requests, and stops it.
pub fn measure(contender: Contender, requests: &Requests, connections: usize) -> f64 {
    let (server, client) = (runtime(), runtime());
    let folder = tempfile::tempdir().expect("a place for the inbox");
    let receiver = |inbox: Box<dyn Inbox>| {
        let endpoint = Endpoint::new("/webhooks/pleo", load::secret()).expect("a path");
        let receiver = Receiver::builder().endpoint(endpoint.tolerance(1_000_000));
        receiver
            .shared_inbox(inbox.into())
            .build()
            .expect("all it needs")
    };
    let receiver = match contender {
        Contender::Bare => None,
        Contender::VerifyOnly => Some(receiver(Box::new(Forgetful))),
        Contender::Memory => Some(receiver(Box::new(MemoryInbox::new()))),
        Contender::Sqlite | Contender::SqliteScattered => {
            let inbox = SqliteInbox::open(folder.path().join("inbox.db"));
            Some(receiver(Box::new(inbox.expect("an inbox"))))
        }
    };
    let listener = server
        .block_on(TcpListener::bind("127.0.0.1:0"))
        .expect("a free port");
    let address: SocketAddr = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel::<()>();
    let running = match receiver.clone() {
        None => server.spawn(bare(listener)),
        Some(receiver) => server.spawn(async {
            let stopped = async { stopped.await.unwrap_or(()) };
            serve(listener, receiver, stopped)
                .await
                .expect("a good end");
        }),
    };
    let rate = client.block_on(requests.send(address, connections));
    if let Some(receiver) = receiver {
        let counts = server.block_on(receiver.inbox().counts()).expect("counts");
        let kept = usize::try_from(counts.pending).expect("as many as were sent");
        assert!(
            contender == Contender::VerifyOnly || kept == requests.len(),
            "not all are kept"
        );
        stop.send(()).expect("it runs");
        server.block_on(running).expect("a good end");
    }
    rate
}

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// The least that a hyper server can do.
async fn bare(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("a TCP socket");
        let service = service_fn(|request: Request<Incoming>| async {
            request.into_body().collect().await.expect("a body");
            let mut response = Response::new(Full::<Bytes>::default());
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok::<_, Infallible>(response)
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// Says that it stored everything, and keeps nothing: what is left is the rest of the way.
#[derive(Debug)]
struct Forgetful;

fn ready<T: Send + 'static>(value: T) -> InboxFuture<'static, T> {
    Box::pin(std::future::ready(Ok::<_, InboxError>(value)))
}

impl Inbox for Forgetful {
    fn append(&self, _: NewMessage) -> InboxFuture<'_, Appended> {
        ready(Appended::Stored)
    }

    fn claim(&self, _: usize, _: Timestamp, _: Duration) -> InboxFuture<'_, Claim> {
        ready(Claim::default())
    }

    fn settle(&self, _: ClaimId, _: Outcome) -> InboxFuture<'_, ()> {
        ready(())
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }

    fn list(&self, _: Filter) -> InboxFuture<'_, Vec<Entry>> {
        ready(Vec::new())
    }

    fn show(&self, _: String) -> InboxFuture<'_, Vec<(Entry, Bytes)>> {
        ready(Vec::new())
    }

    fn replay(&self, _: Selection) -> InboxFuture<'_, u64> {
        ready(0)
    }

    fn prune(&self, _: State, _: Timestamp) -> InboxFuture<'_, u64> {
        ready(0)
    }

    fn counts(&self) -> InboxFuture<'_, Counts> {
        ready(Counts::default())
    }

    fn close(&self) -> InboxFuture<'_, ()> {
        ready(())
    }
}
