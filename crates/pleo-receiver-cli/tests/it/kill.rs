//! Killing the server: acknowledged messages are stored once and dispatched after a restart.

use core::time::Duration;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::program::{ENV, WorkDir};
use crate::support::{Answer, Request, counting_target};
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use pleo_receiver::{EndpointStats, Inbox, Query, Selection, SqliteInbox, State};
use rusqlite::Connection;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::{task, time};

const KILLS: u64 = 20;

/// The number of concurrent deliveries.
const SENDERS: usize = 32;

const TIMEOUT: Duration = Duration::from_secs(120);

/// A body that differs for each id. Its length varies by id, up to several pages of the database.
fn body(id: &str) -> Vec<u8> {
    let length = id.bytes().map(usize::from).sum::<usize>() % 50 * 100;
    let event_type = "v1.export-job.created";
    let padding = "x".repeat(length);
    format!(r#"{{"eventType":"{event_type}","data":{{"id":"{id}"}},"padding":"{padding}"}}"#).into()
}

/// Sends each message until it is acknowledged, also over restarts of the server.
struct Sender {
    address: watch::Receiver<String>,
    acknowledged: Arc<Mutex<Vec<String>>>,
    count: Arc<watch::Sender<usize>>,
    stop: Arc<AtomicBool>,
}

impl Sender {
    async fn run(mut self, number: usize) {
        let mut connection = None;
        for event in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let id = format!("msg_{event:05}_{number}");
            let request = Request::signed(&id, &body(&id)).bytes();
            while !self.deliver(&mut connection, &request).await {
                connection = None;
                if self.address.has_changed().is_err() {
                    return;
                }
            }
            self.acknowledged.lock().unwrap().push(id);
            self.count.send_modify(|count| *count += 1);
        }
    }

    /// Returns `true` if the server answered 204. Panics at any other status.
    async fn deliver(&mut self, connection: &mut Option<TcpStream>, request: &[u8]) -> bool {
        if connection.is_none() {
            let address = self.address.borrow_and_update().clone();
            *connection = TcpStream::connect(address).await.ok();
        }
        let Some(stream) = connection else {
            // The server was killed. The next one has another address.
            let _ = time::timeout(Duration::from_millis(50), self.address.changed()).await;
            return false;
        };
        if stream.write_all(request).await.is_err() {
            return false;
        }
        match Answer::read(stream).await.status {
            204 => true,
            0 => false,
            status => panic!("answered {status}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_acknowledged_messages_after_repeated_kills() {
    let dir = Arc::new(WorkDir::new());
    let (url, delivered) = counting_target().await;
    dir.write(
        "pleo.toml",
        &format!(
            "forward = \"{url}\"\n[retry]\nmin_delay = \"1ms\"\nmax_delay = \"10ms\"\n\
             max_attempts = 1000000\nconcurrency = 8\n"
        ),
    );
    let random = RandomState::new();
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(watch::channel(0).0);
    let (addresses, address) = watch::channel("127.0.0.1:1".to_owned());
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        let sender = Sender {
            address: address.clone(),
            acknowledged: Arc::clone(&acknowledged),
            count: Arc::clone(&count),
            stop: Arc::clone(&stop),
        };
        senders.spawn(sender.run(number));
    }
    let serve = || {
        let dir = Arc::clone(&dir);
        task::spawn_blocking(move || dir.serve(&["--config", "pleo.toml"], ENV))
    };

    for kill in 0..KILLS {
        if kill % 5 == 4 {
            // Kill a server while it starts.
            let mut starting = dir.command(&["serve", "--config", "pleo.toml"]);
            let mut starting = starting.envs(ENV.iter().copied()).spawn().unwrap();
            time::sleep(Duration::from_micros(random.hash_one(kill) % 30_000)).await;
            starting.kill().unwrap();
            starting.wait().unwrap();
            continue;
        }
        let server = serve().await.unwrap();
        addresses.send_replace(server.address().to_owned());
        let after = *count.borrow() + usize::try_from(random.hash_one(kill) % 500).unwrap();
        let wait = async {
            count
                .subscribe()
                .wait_for(|count| *count >= after)
                .await
                .map(drop)
        };
        time::timeout(TIMEOUT, wait).await.unwrap().unwrap();
        let (code, _) = server.stop("-KILL");
        assert_eq!(code, None, "the server exited before it was killed");
    }

    let server = serve().await.unwrap();
    addresses.send_replace(server.address().to_owned());
    stop.store(true, Ordering::Relaxed);
    let finished = async {
        while let Some(result) = senders.join_next().await {
            result.unwrap()
        }
    };
    time::timeout(TIMEOUT, finished).await.unwrap();
    let acknowledged = core::mem::take(&mut *acknowledged.lock().unwrap());
    let inbox = SqliteInbox::open_shared(dir.path().join("pleo-inbox.db")).unwrap();
    let all_done = async {
        while stats(&inbox).await.pending() > 0 {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(TIMEOUT, all_done).await.unwrap();
    assert_eq!(server.stop("-TERM").0, Some(0));

    let mut stored = HashSet::new();
    let all = Query::new(Selection::all(), u32::MAX);
    for entry in inbox.list(all).await.unwrap().entries {
        let id = entry.webhook_id.to_string();
        assert_eq!(entry.state, State::Done, "{id}");
        let message = inbox.get(entry.key()).await.unwrap().unwrap();
        assert!(message.body == body(&id), "{id} has another body");
        assert!(
            delivered.lock().unwrap().contains_key(&id),
            "{id} was never dispatched"
        );
        assert!(stored.insert(id.clone()), "{id} is stored more than once");
    }
    assert!(
        acknowledged.len() > 1000,
        "too few deliveries: {}",
        acknowledged.len()
    );
    for id in acknowledged {
        assert!(stored.contains(&id), "{id} was acknowledged and lost");
    }
    drop(inbox);
    let file = Connection::open(dir.path().join("pleo-inbox.db")).unwrap();
    let check = file.pragma_query_value(None, "integrity_check", |row| row.get(0));
    assert_eq!(check, Ok("ok".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redelivers_after_kill() {
    let dir = WorkDir::new();
    // The first attempt never ends, so that only a restarted server makes a second one.
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", target.local_addr().unwrap());
    let attempts = Arc::new(AtomicUsize::new(0));
    let first = Arc::new(tokio::sync::Notify::new());
    let app = Router::new().fallback({
        let (attempts, first) = (Arc::clone(&attempts), Arc::clone(&first));
        move |headers: HeaderMap| async move {
            assert_eq!(headers["webhook-id"], "msg_1");
            if attempts.fetch_add(1, Ordering::SeqCst) == 0 {
                first.notify_one();
                core::future::pending::<()>().await;
            }
            assert_eq!(headers["pleo-attempt"], "2");
            StatusCode::NO_CONTENT
        }
    });
    tokio::spawn(async { axum::serve(target, app).await });
    let server = dir.serve(&["--forward", &url], ENV);
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let request = Request::signed("msg_1", &body("msg_1"));
    stream.write_all(&request.bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.status, 204);
    time::timeout(TIMEOUT, first.notified()).await.unwrap();
    assert_eq!(server.stop("-KILL").0, None);

    let server = dir.serve(&["--forward", &url], ENV);
    let inbox = SqliteInbox::open_shared(dir.path().join("pleo-inbox.db")).unwrap();
    let done = async {
        while stats(&inbox).await.done == 0 {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(TIMEOUT, done).await.unwrap();
    assert_eq!(attempts.load(Ordering::SeqCst), 2);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_message_to_dead_letters_after_attempts_end_in_kills() {
    let dir = WorkDir::new();
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", target.local_addr().unwrap());
    // The target never responds. Each attempt ends when the server is killed.
    let (sender, mut attempts) = mpsc::unbounded_channel();
    let app = Router::new().fallback(move |headers: HeaderMap| async move {
        let id = headers["webhook-id"].to_str().unwrap().to_owned();
        let attempt = headers["pleo-attempt"].to_str().unwrap().to_owned();
        sender.send(format!("{id} {attempt}")).unwrap();
        core::future::pending::<()>().await;
    });
    tokio::spawn(async { axum::serve(target, app).await });
    dir.write(
        "pleo.toml",
        &format!("forward = \"{url}\"\n[retry]\nmax_attempts = 2\n"),
    );
    let serve = || dir.serve(&["--config", "pleo.toml"], ENV);
    let server = serve();
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let request = Request::signed("msg_1", &body("msg_1"));
    stream.write_all(&request.bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.status, 204);
    let mut next = async || {
        time::timeout(TIMEOUT, attempts.recv())
            .await
            .unwrap()
            .unwrap()
    };
    assert_eq!(next().await, "msg_1 1");
    assert_eq!(server.stop("-KILL").0, None);
    let server = serve();
    assert_eq!(next().await, "msg_1 2");
    assert_eq!(server.stop("-KILL").0, None);

    let server = serve();
    let inbox = SqliteInbox::open_shared(dir.path().join("pleo-inbox.db")).unwrap();
    let dead = async {
        while stats(&inbox).await.dead == 0 {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = dead => {}
        attempt = next() => panic!("the message was redelivered: {attempt}"),
    }
    let replay = dir.run(&["inbox", "replay", "--dead"]);
    assert_eq!(replay.code, 0, "{replay:?}");
    // A replay restarts the count of attempts.
    assert_eq!(next().await, "msg_1 1");
    let (_, log) = server.stop("-KILL");
    assert!(log.contains("no attempts left"), "{log}");
}

/// Returns the statistics of the only endpoint.
async fn stats(inbox: &SqliteInbox) -> EndpointStats {
    inbox.stats().await.unwrap().pop().unwrap()
}
