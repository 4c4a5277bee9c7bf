//! Acknowledgement: 204 only after the append, also while the inbox fails and during shutdown.

use core::time::Duration;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::support::{
    Answer, BODY, PATH, Request, Server, counted, endpoint, run_until_idle, within,
};
use pleo_receiver::inbox::{InboxFuture, LeaseRequest, Leased};
use pleo_receiver::{
    Appended, Inbox, InboxError, InboxErrorKind, MemoryInbox, NewMessage, Receiver,
    ReceiverBuilder, ServeError, ServerOptions, handler_fn,
};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinHandle, yield_now};
use tokio::time;

/// An inbox whose appends fail or wait for the test, and whose leases may panic.
#[derive(Debug)]
struct GatedInbox {
    inner: MemoryInbox,
    failure: Option<InboxError>,
    /// Gets a permit per append.
    appends: Arc<Semaphore>,
    /// Takes a permit per append.
    gate: Arc<Semaphore>,
    /// How many leases panic.
    panics: AtomicUsize,
    log: Arc<Mutex<Vec<String>>>,
}

impl GatedInbox {
    fn new(failure: Option<InboxError>) -> Self {
        Self {
            inner: MemoryInbox::new(),
            failure,
            appends: Arc::new(Semaphore::new(0)),
            gate: Arc::new(Semaphore::new(0)),
            panics: AtomicUsize::new(0),
            log: Arc::default(),
        }
    }
}

impl Inbox for GatedInbox {
    fn append(&self, message: NewMessage) -> InboxFuture<'_, Appended> {
        Box::pin(async move {
            self.appends.add_permits(1);
            if let Some(failure) = &self.failure {
                return Err(failure.clone());
            }
            self.gate.acquire().await.unwrap().forget();
            let appended = self.inner.append(message).await?;
            self.log.lock().unwrap().push(format!("{appended:?}"));
            Ok(appended)
        })
    }

    fn close(&self) -> InboxFuture<'_, ()> {
        self.log.lock().unwrap().push("Closed".into());
        self.inner.close()
    }

    fn lease(&self, request: LeaseRequest) -> InboxFuture<'_, Leased> {
        let panics = &self.panics;
        let panic = panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            left.checked_sub(1)
        });
        assert!(panic.is_err(), "this panic is part of the test");
        self.inner.lease(request)
    }

    delegate_to_inner!(renew, complete);
}

fn builder(inbox: GatedInbox) -> ReceiverBuilder {
    Receiver::builder(inbox).endpoint(endpoint())
}

#[tokio::test]
async fn answers_503_if_append_fails() {
    for (kind, code) in [
        (InboxErrorKind::Busy, "inbox_full"),
        (InboxErrorKind::Unavailable, "inbox_failed"),
        (InboxErrorKind::Unsupported, "inbox_failed"),
        (InboxErrorKind::Closed, "shutting_down"),
    ] {
        let failure = InboxError::new(kind, "disk secret");
        let server = Server::start(builder(GatedInbox::new(Some(failure)))).await;
        for count in 1..=2 {
            let answer = server.send(&Request::signed("msg_1", BODY)).await;
            assert_eq!((answer.status, &*answer.code()), (503, code));
            assert_eq!(answer.header("retry-after"), Some("5"));
            let shown = answer.body.contains("disk secret");
            assert!(!shown, "shows the cause: {}", answer.body);
            let line =
                format!("pleo_receiver_rejected_total{{endpoint=\"{PATH}\",reason=\"{code}\"}}");
            assert_eq!(counted(&server.receiver, &line), count);
        }
        let stored =
            format!("pleo_receiver_accepted_total{{endpoint=\"{PATH}\",outcome=\"stored\"}}");
        assert_eq!(counted(&server.receiver, &stored), 0);
        server.stop().await;
    }
}

#[tokio::test]
async fn server_ends_after_fatal_inbox_error() {
    let failure = InboxError::new(InboxErrorKind::Fatal, "disk failed");
    let server = Server::start(builder(GatedInbox::new(Some(failure)))).await;
    let answer = server.send(&Request::signed("msg_1", BODY)).await;
    answer.assert_inbox_failed();
    let ended = within(server.ended()).await.unwrap_err();
    let ServeError::Inbox(error) = ended else {
        panic!("{ended:?}");
    };
    assert_eq!(error.kind(), InboxErrorKind::Fatal);
    assert_eq!(error.source().unwrap().to_string(), "disk failed");
}

#[tokio::test]
async fn keeps_forged_delivery_from_inbox() {
    let inbox = GatedInbox::new(Some(InboxErrorKind::Busy.into()));
    let appends = Arc::clone(&inbox.appends);
    let server = Server::start(builder(inbox)).await;
    let forged = Request::signed("msg_1", BODY).with("webhook-signature", "v1,AAAA");
    assert_eq!(server.send(&forged).await.status, 401);
    assert_eq!(appends.available_permits(), 0);
    server.stop().await;
}

#[tokio::test]
async fn answers_503_above_max_in_flight() {
    let inbox = GatedInbox::new(None);
    let (appends, gate) = (Arc::clone(&inbox.appends), Arc::clone(&inbox.gate));
    let server = Server::start(builder(inbox).max_in_flight(1)).await;
    let mut first = server.connect().await;
    first.write(&Request::signed("msg_1", BODY).bytes()).await;
    within(appends.acquire()).await.unwrap().forget();
    let second = Request::signed("msg_2", BODY);
    let start = Instant::now();
    let answer = server.send(&second).await;
    assert_eq!((answer.status, &*answer.code()), (503, "overloaded"));
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert!(start.elapsed() < Duration::from_secs(1));
    let forged = second.clone().with("webhook-signature", "v1,AAAA");
    assert_eq!(server.send(&forged).await.status, 401, "it needs no slot");
    gate.add_permits(2);
    assert_eq!(first.answer().await.status, 204);
    assert_eq!(server.send(&second).await.status, 204);
    server.stop().await;
}

/// A server on the test's thread, with its shutdown.
struct Stoppable {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), ServeError>>,
}

impl Stoppable {
    async fn start(inbox: GatedInbox, options: ServerOptions) -> Self {
        let options = options.with_threads(0);
        let (receiver, dispatcher) = builder(inbox).build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { drop(stopped.await) };
        let server = pleo_receiver::Server::new(receiver, dispatcher).options(options);
        let running = tokio::spawn(server.listen(listener).run(shutdown));
        Self {
            address,
            stop,
            running,
        }
    }

    async fn send(&self, request: &Request) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(&request.bytes()).await.unwrap();
        stream
    }
}

async fn until_refused(address: SocketAddr) {
    while TcpStream::connect(address).await.is_ok() {
        yield_now().await;
    }
}

#[tokio::test]
async fn acknowledges_only_after_append() {
    let inbox = GatedInbox::new(None);
    let (appends, gate) = (Arc::clone(&inbox.appends), Arc::clone(&inbox.gate));
    let server = Stoppable::start(inbox, ServerOptions::default()).await;
    let mut stream = server.send(&Request::signed("msg_1", BODY)).await;
    within(appends.acquire()).await.unwrap().forget();
    run_until_idle().await;
    let early = stream.try_read(&mut [0]).unwrap_err();
    assert_eq!(early.kind(), io::ErrorKind::WouldBlock);
    gate.add_permits(1);
    assert_eq!(within(Answer::read(&mut stream)).await.status, 204);
    server.stop.send(()).unwrap();
    drop(stream);
    within(server.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn finishes_requests_in_flight_at_shutdown() {
    let inbox = GatedInbox::new(None);
    let (appends, gate) = (Arc::clone(&inbox.appends), Arc::clone(&inbox.gate));
    let log = Arc::clone(&inbox.log);
    let server = Stoppable::start(inbox, ServerOptions::default()).await;

    // One connection is idle, one has a request in flight.
    gate.add_permits(1);
    let mut idle = server.send(&Request::signed("msg_1", BODY)).await;
    assert_eq!(within(Answer::read(&mut idle)).await.status, 204);
    within(appends.acquire()).await.unwrap().forget();
    let mut in_flight = server.send(&Request::signed("msg_2", BODY)).await;
    within(appends.acquire()).await.unwrap().forget();

    server.stop.send(()).unwrap();
    within(until_refused(server.address)).await;
    assert_eq!(within(Answer::read(&mut idle)).await.status, 0);
    // The grace period is not over yet.
    time::pause();
    time::advance(Duration::from_secs(19)).await;
    run_until_idle().await;
    assert!(!server.running.is_finished());
    time::resume();
    assert_eq!(*log.lock().unwrap(), ["Stored"]);

    gate.add_permits(1);
    assert_eq!(within(Answer::read(&mut in_flight)).await.status, 204);
    within(server.running).await.unwrap().unwrap();
    assert_eq!(*log.lock().unwrap(), ["Stored", "Stored", "Closed"]);
}

#[tokio::test]
async fn stores_delivery_whose_connection_was_accepted_before_shutdown() {
    let inbox = GatedInbox::new(None);
    let (appends, gate) = (Arc::clone(&inbox.appends), Arc::clone(&inbox.gate));
    let server = Stoppable::start(inbox, ServerOptions::default()).await;
    // Incomplete headers keep the connection open. They are read before the later connection.
    let request = Request::signed("msg_2", BODY).bytes();
    let (first, rest) = request.split_at(30);
    let mut early = TcpStream::connect(server.address).await.unwrap();
    early.write_all(first).await.unwrap();
    // Another one has sent nothing yet.
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut in_flight = server.send(&Request::signed("msg_1", BODY)).await;
    within(appends.acquire()).await.unwrap().forget();
    server.stop.send(()).unwrap();
    within(until_refused(server.address)).await;

    early.write_all(rest).await.unwrap();
    let request = Request::signed("msg_3", BODY);
    silent.write_all(&request.bytes()).await.unwrap();
    within(appends.acquire_many(2)).await.unwrap().forget();
    gate.add_permits(3);
    assert_eq!(within(Answer::read(&mut early)).await.status, 204);
    assert_eq!(within(Answer::read(&mut silent)).await.status, 204);
    assert_eq!(within(Answer::read(&mut in_flight)).await.status, 204);
    within(server.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn acknowledges_nothing_after_grace_period() {
    let inbox = GatedInbox::new(None);
    let (appends, gate) = (Arc::clone(&inbox.appends), Arc::clone(&inbox.gate));
    let log = Arc::clone(&inbox.log);
    let options = ServerOptions::default().with_grace(Duration::from_millis(10));
    let server = Stoppable::start(inbox, options).await;
    let mut stream = server.send(&Request::signed("msg_1", BODY)).await;
    within(appends.acquire()).await.unwrap().forget();
    server.stop.send(()).unwrap();
    within(server.running).await.unwrap().unwrap();
    gate.add_permits(1);
    let status = within(Answer::read(&mut stream)).await.status;
    assert!(matches!(status, 0 | 503), "{status}");
    assert_eq!(*log.lock().unwrap(), ["Closed"]);
}

#[tokio::test]
async fn restarts_dispatcher_after_inbox_panic() {
    let inbox = GatedInbox::new(None);
    inbox.gate.add_permits(1);
    inbox.panics.store(2, Ordering::SeqCst);
    let (sender, mut handled) = mpsc::unbounded_channel();
    let handler = handler_fn(move |delivery| {
        sender.send(delivery.id().to_owned()).unwrap();
        async { Ok(()) }
    });
    let server = Server::start(builder(inbox).handler(handler)).await;
    // Receiving doesn't depend on the dispatcher.
    assert_eq!(
        server.send(&Request::signed("msg_1", BODY)).await.status,
        204
    );
    assert_eq!(within(handled.recv()).await.unwrap(), "msg_1");
    let line = "pleo_receiver_dispatcher_restarts_total";
    assert_eq!(counted(&server.receiver, line), 2);
    let receiver = server.receiver.clone();
    within(server.stop()).await;
    let done = format!("pleo_receiver_handled_total{{endpoint=\"{PATH}\",outcome=\"done\"}}");
    assert_eq!(counted(&receiver, &done), 1);
}
