//! Several receivers on one inbox, a load balancer in front, senders, and a handler that fails now and
//! then.

use core::time::Duration;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use tokio::io::{self, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time;

use crate::support::program::{ENV, RunningServer, WorkDir, free_address};
use crate::support::{Answer, Request};

/// How long the sender waits for an answer.
pub(super) const SENDERS_PATIENCE: Duration = Duration::from_secs(15);

/// The pause of a sender after each message.
const PAUSE: Duration = Duration::from_millis(50);

/// How long the handler of a lost lease may run on until its connection is closed.
const STOP_TIME: Duration = Duration::from_secs(1);

/// A body that differs for each id.
pub(super) fn body(id: &str) -> Vec<u8> {
    let length = id.bytes().map(usize::from).sum::<usize>() % 50 * 50;
    let padding = "x".repeat(length);
    format!(r#"{{"eventType":"v1.vendor.created","data":{{"id":"{id}"}},"padding":"{padding}"}}"#)
        .into()
}

/// The receivers, each at an address of its own.
pub(super) struct Fleet {
    dir: WorkDir,
    urls: Vec<String>,
    pub(super) addresses: Vec<String>,
    receivers: Vec<Option<RunningServer>>,
    /// Runs the receivers that are started; `None` for the program of this release.
    pub(super) program: Option<PathBuf>,
}

impl Fleet {
    /// Starts a receiver for each inbox URL.
    pub(super) fn start(urls: Vec<String>, config: &str) -> Self {
        Self::start_program(None, urls, config)
    }

    /// Starts a receiver of this program for each inbox URL.
    pub(super) fn start_program(program: Option<PathBuf>, urls: Vec<String>, config: &str) -> Self {
        let dir = WorkDir::new();
        dir.write("pleo.toml", config);
        let addresses = urls.iter().map(|_| free_address()).collect();
        let receivers = urls.iter().map(|_| None).collect();
        let mut fleet = Self {
            dir,
            urls,
            addresses,
            receivers,
            program,
        };
        for number in 0..fleet.receivers.len() {
            fleet.restart(number);
        }
        fleet
    }

    /// Stops a receiver with a signal. Returns its log.
    pub(super) fn stop(&mut self, number: usize, signal: &str) -> String {
        let receiver = self.receivers[number].take().unwrap();
        let (code, log) = receiver.stop(signal);
        let expected = (signal == "-TERM").then_some(0);
        assert_eq!(code, expected, "{log}");
        log
    }

    /// Starts a receiver that was stopped.
    pub(super) fn restart(&mut self, number: usize) {
        let args = [
            "serve",
            "--config",
            "pleo.toml",
            "--listen",
            &self.addresses[number],
            "--inbox",
            &self.urls[number],
        ];
        let started = Instant::now();
        let receiver = loop {
            let mut command = match &self.program {
                Some(program) => self.dir.command_of(program, &args),
                None => self.dir.command(&args),
            };
            command.envs(ENV.iter().copied());
            match RunningServer::try_start(command) {
                Ok(receiver) => break receiver,
                // The database may be away, which a supervisor waits for.
                Err(log) => assert!(started.elapsed() < Duration::from_secs(60), "{log}"),
            }
            std::thread::sleep(Duration::from_millis(200));
        };
        self.receivers[number] = Some(receiver);
    }
}

/// Forwards connections to the receivers in turn, and leaves out those that refuse them. Returns its
/// address.
pub(super) async fn balance(receivers: Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let receivers = Arc::new(receivers);
        for turn in 0.. {
            let (mut client, _) = listener.accept().await.unwrap();
            let receivers = Arc::clone(&receivers);
            tokio::spawn(async move {
                for next in 0..receivers.len() {
                    let receiver = &receivers[(turn + next) % receivers.len()];
                    if let Ok(mut server) = TcpStream::connect(receiver).await {
                        let _ = io::copy_bidirectional(&mut client, &mut server).await;
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Sends messages through the load balancer, each until it is acknowledged.
pub(super) struct Senders {
    tasks: JoinSet<()>,
    pub(super) shared: Arc<Sending>,
}

/// What all senders share.
pub(super) struct Sending {
    address: String,
    is_stopped: AtomicBool,
    acknowledged: watch::Sender<usize>,
    ids: Mutex<Vec<String>>,
    /// The longest time until a message was acknowledged.
    longest: Mutex<Duration>,
    /// How many answers were 503.
    unavailable: AtomicUsize,
}

impl Senders {
    pub(super) fn start(address: String, count: usize) -> Self {
        let shared = Arc::new(Sending {
            address,
            is_stopped: AtomicBool::new(false),
            acknowledged: watch::Sender::new(0),
            ids: Mutex::default(),
            longest: Mutex::default(),
            unavailable: AtomicUsize::new(0),
        });
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let shared = Arc::clone(&shared);
            tasks.spawn(async move { shared.send_all(number).await });
        }
        Self { tasks, shared }
    }

    /// Waits until this many more messages are acknowledged.
    pub(super) async fn wait_for(&self, more: usize, patience: Duration) {
        let mut acknowledged = self.shared.acknowledged.subscribe();
        let wanted = *acknowledged.borrow() + more;
        let waited = acknowledged.wait_for(|count| *count >= wanted);
        let waited = time::timeout(patience, waited).await;
        assert!(waited.is_ok(), "no deliveries within {patience:?}");
    }

    /// Stops sending, after each message in progress is acknowledged. Returns the ids of all messages,
    /// the longest time until one was acknowledged, and the number of answers 503.
    pub(super) async fn stop(mut self) -> (Vec<String>, Duration, usize) {
        self.shared.is_stopped.store(true, Ordering::SeqCst);
        let ended = async { while self.tasks.join_next().await.transpose().unwrap().is_some() {} };
        let ended = time::timeout(Duration::from_secs(60), ended).await;
        ended.expect("each message is acknowledged in the end");
        let ids = core::mem::take(&mut *self.shared.ids.lock().unwrap());
        let longest = *self.shared.longest.lock().unwrap();
        (ids, longest, self.shared.unavailable.load(Ordering::SeqCst))
    }
}

impl Sending {
    async fn send_all(&self, number: usize) {
        let mut connection = None;
        for event in 0.. {
            if self.is_stopped.load(Ordering::SeqCst) {
                return;
            }
            let id = format!("msg_{event:05}_{number}");
            let request = Request::signed(&id, &body(&id)).bytes();
            let started = Instant::now();
            while !self.deliver(&mut connection, &request).await {
                connection = None;
                time::sleep(Duration::from_millis(20)).await;
            }
            {
                let mut longest = self.longest.lock().unwrap();
                *longest = longest.max(started.elapsed());
            }
            self.ids.lock().unwrap().push(id);
            self.acknowledged.send_modify(|count| *count += 1);
            // The handler keeps up.
            time::sleep(PAUSE).await;
            // New connections reach all receivers.
            if event % 20 == 0 {
                connection = None;
            }
        }
    }

    async fn deliver(&self, connection: &mut Option<TcpStream>, request: &[u8]) -> bool {
        if connection.is_none() {
            *connection = TcpStream::connect(&self.address).await.ok();
        }
        let Some(stream) = connection else {
            return false;
        };
        let exchange = async {
            stream.write_all(request).await.ok()?;
            Some(Answer::read(stream).await.status)
        };
        match time::timeout(SENDERS_PATIENCE, exchange).await {
            Ok(Some(204)) => true,
            Ok(Some(503)) => {
                self.unavailable.fetch_add(1, Ordering::SeqCst);
                false
            }
            // The connection was closed.
            Ok(None | Some(0)) | Err(_) => false,
            Ok(Some(status)) => panic!("answered {status}"),
        }
    }
}

/// A handler that all receivers forward to. It fails now and then, and takes longer than a lease now and
/// then.
#[derive(Default)]
pub(super) struct Handler {
    handling: Mutex<HashMap<String, usize>>,
    /// How often each message was handled.
    handled: Mutex<HashMap<String, usize>>,
    /// The messages that two receivers handled at a time.
    overlaps: Mutex<Vec<String>>,
    random: RandomState,
    calls: AtomicUsize,
}

impl Handler {
    /// Starts the handler, which takes this long now and then. Returns its URL.
    pub(super) async fn start(long: Duration) -> (Arc<Self>, String) {
        let handler = Arc::<Self>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let shared = Arc::clone(&handler);
        let app = Router::new().fallback(move |headers: HeaderMap| {
            let id = headers["webhook-id"].to_str().unwrap().to_owned();
            let handler = Arc::clone(&shared);
            async move { handler.handle(id, long).await }
        });
        tokio::spawn(async { axum::serve(listener, app).await });
        (handler, url)
    }

    async fn handle(self: Arc<Self>, id: String, long: Duration) -> StatusCode {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let random = self.random.hash_one(call);
        let guard = Handling::start(&self, id.clone());
        // A receiver whose lease is lost stops this handler at its next await point.
        if guard.is_second() {
            time::sleep(STOP_TIME).await;
            if guard.is_second() {
                self.overlaps.lock().unwrap().push(id.clone());
            }
        }
        let time = if random.is_multiple_of(300) {
            long
        } else {
            Duration::from_millis(random % 20)
        };
        time::sleep(time).await;
        *self.handled.lock().unwrap().entry(id).or_default() += 1;
        if random % 25 == 1 {
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
        StatusCode::NO_CONTENT
    }

    /// Returns how often each message was handled, and those that two receivers handled at a time.
    pub(super) fn results(&self) -> (HashMap<String, usize>, Vec<String>) {
        let handled = self.handled.lock().unwrap().clone();
        (handled, self.overlaps.lock().unwrap().clone())
    }
}

/// A message that is being handled. Dropped when its connection is closed.
struct Handling {
    handler: Arc<Handler>,
    id: String,
}

impl Handling {
    fn start(handler: &Arc<Handler>, id: String) -> Self {
        *handler
            .handling
            .lock()
            .unwrap()
            .entry(id.clone())
            .or_default() += 1;
        let handler = Arc::clone(handler);
        Self { handler, id }
    }

    fn is_second(&self) -> bool {
        self.handler.handling.lock().unwrap()[&self.id] > 1
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        let mut handling = self.handler.handling.lock().unwrap();
        if let Some(count) = handling.get_mut(&self.id) {
            *count -= 1;
        }
    }
}
