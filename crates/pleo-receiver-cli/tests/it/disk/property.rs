//! A random test: whatever fails, each acknowledged message is on the disk after a power cut, once,
//! with its bytes.
//!
//! `PLEO_TEST_SEED` repeats a failure: the order of operations is the same, the timing is not.
//! `PLEO_TEST_SECONDS` sets how long the test runs.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::env;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rusqlite::Connection;
use tokio::time;

use super::{assert_on_disk, deliver_all, read_all, wait_until};
use crate::support::counting_target;
use crate::support::disk::{DATABASE, Disk, Fault, INBOX, LOG, Random};
use crate::support::program::RunningServer;

const DEFAULT_SECONDS: u64 = 30;

const HANDLED: &str =
    "[retry]\nmin_delay = \"1ms\"\nmax_delay = \"10ms\"\nmax_attempts = 1000000\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_acknowledged_messages_whatever_fails() {
    let number = |name| env::var(name).ok().map(|value| value.parse().unwrap());
    let seed = number("PLEO_TEST_SEED");
    let mut seeds = Random(RandomState::new().hash_one(0));
    let seconds = number("PLEO_TEST_SECONDS").unwrap_or(DEFAULT_SECONDS);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut rounds = 0;
    while rounds == 0 || Instant::now() < end {
        let seed = seed.unwrap_or_else(|| seeds.next());
        let Some(disk) = Disk::new() else { return };
        #[allow(clippy::print_stderr, reason = "libtest shows it if the test fails")]
        {
            eprintln!("PLEO_TEST_SEED={seed}");
        }
        Round::new(disk, seed).await.run().await;
        rounds += 1;
    }
}

/// One inbox, from its creation to its last server.
struct Round {
    disk: Disk,
    random: Random,
    delivered: Arc<Mutex<HashMap<String, usize>>>,
    sent: BTreeSet<String>,
    acknowledged: BTreeSet<String>,
    is_handled: bool,
}

impl Round {
    async fn new(disk: Disk, seed: u64) -> Self {
        let mut random = Random(seed);
        let (url, delivered) = counting_target().await;
        let is_handled = !random.one_in(4);
        let forward = if is_handled {
            format!("forward = \"{url}\"\n{HANDLED}")
        } else {
            String::new()
        };
        disk.dir.write("pleo.toml", &forward);
        Self {
            disk,
            random,
            delivered,
            sent: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            is_handled,
        }
    }

    async fn run(mut self) {
        for _ in 0..=self.random.below(5) {
            if self.random.one_in(4) {
                self.set_faults();
            }
            let command = self.disk.command(&self.serve_args());
            match RunningServer::try_start(command) {
                Ok(server) => self.run_server(server).await,
                Err(log) => {
                    assert!(!self.disk.hits().is_empty(), "the server exited: {log}");
                }
            }
            self.disk.repair();
            match self.random.below(4) {
                0 => {}
                1 | 2 => self.disk.cut_power(),
                _ => self.disk.tear(&mut self.random),
            }
            let states = assert_on_disk(&self.disk, &self.acknowledged);
            self.assert_consistent(&states);
        }
        self.finish().await;
    }

    fn serve_args(&self) -> [&'static str; 7] {
        let [config, file] = ["--config", "pleo.toml"];
        [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--inbox",
            INBOX,
            config,
            file,
        ]
    }

    /// Performs random operations, and ends the server.
    async fn run_server(&mut self, server: RunningServer) {
        let address = server.address().to_owned();
        for _ in 0..2 + self.random.below(8) {
            match self.random.below(10) {
                0..=4 => {
                    if !self.deliver(&address).await {
                        let hits = self.disk.hits();
                        let (code, log) = server.wait();
                        assert_eq!(code, Some(1), "{log}");
                        assert!(!hits.is_empty(), "the server exited: {log}");
                        return;
                    }
                }
                5 | 6 => self.set_faults(),
                7 => self.disk.repair(),
                8 => {
                    let state = self.random.choose(&["done", "dead", "pending"]);
                    let args = ["inbox", "replay", "--inbox", INBOX, "--state", state];
                    // Fails if the disk does.
                    self.disk.run(&args);
                }
                _ => time::sleep(Duration::from_millis(self.random.below(30))).await,
            }
        }
        let (code, log) = server.stop(self.random.choose(&["-KILL", "-KILL", "-TERM"]));
        let failed = code == Some(1) && !self.disk.hits().is_empty();
        assert!(failed || matches!(code, None | Some(0)), "{code:?}: {log}");
    }

    /// Delivers new and repeated messages concurrently. Returns `false` if the server has exited.
    async fn deliver(&mut self, address: &str) -> bool {
        let mut ids = BTreeSet::new();
        for _ in 0..=self.random.below(40) {
            let known = u64::try_from(self.sent.len()).unwrap();
            let number = if known > 0 && self.random.one_in(5) {
                self.random.below(known)
            } else {
                known + u64::try_from(ids.len()).unwrap()
            };
            ids.insert(format!("msg_{number:05}"));
        }
        self.sent.extend(ids.iter().cloned());
        // Each is sent twice in some batches.
        let repeated = self.random.one_in(4).then(|| ids.clone());
        let ids = ids.into_iter().chain(repeated.into_iter().flatten());
        let mut is_running = true;
        for (id, status) in deliver_all(address, ids).await {
            match status {
                204 => drop(self.acknowledged.insert(id)),
                503 => {}
                0 => is_running = false,
                _ => panic!("{id}: {status}"),
            }
        }
        is_running
    }

    fn set_faults(&mut self) {
        let random = &mut self.random;
        let faults: Vec<_> = (0..=random.below(2))
            .map(|_| {
                let file = random.choose(&[LOG, LOG, DATABASE]);
                let fault = match random.below(8) {
                    0 => Fault::on("write", file, "EIO"),
                    1 => Fault::on("write", file, "ENOSPC"),
                    2 => Fault::on("write", file, "half"),
                    3 => Fault::on("truncate", file, "EIO"),
                    4 => Fault::on("flush", file, "ENOSPC"),
                    _ => Fault::on("flush", file, "EIO"),
                };
                let skip = random.below(12).try_into().unwrap();
                fault.after(skip).times(random.choose(&[1, 1, 1, 2, 3, 20]))
            })
            .collect();
        self.disk.fail(&faults);
    }

    fn assert_consistent(&self, states: &BTreeMap<String, String>) {
        let delivered = self.delivered.lock().unwrap();
        for (id, state) in states {
            assert!(self.sent.contains(id), "{id} was never sent");
            assert_ne!(state, "dead", "{id}");
            let is_dispatched = delivered.contains_key(id);
            assert!(
                state != "done" || is_dispatched,
                "{id} is done and was never dispatched"
            );
        }
    }

    /// Repairs the disk, and waits until everything is dispatched that is ready.
    async fn finish(self) {
        let server = RunningServer::start(self.disk.command(&self.serve_args()));
        let inbox = Connection::open(self.disk.file("inbox.db")).unwrap();
        if self.is_handled {
            // A message that was in progress in several crashes is delayed.
            let ready = "SELECT count(*) FROM message
                WHERE state = 'pending' AND (due_at IS NULL OR due_at < 1000 * unixepoch() + 500)";
            let count = || {
                inbox
                    .query_row(ready, [], |row| row.get::<_, i64>(0))
                    .unwrap()
            };
            wait_until("dispatch", || count() == 0).await;
        }
        let states = read_all(&inbox);
        self.assert_consistent(&states);
        for id in &self.acknowledged {
            assert!(states.contains_key(id), "{id} was acknowledged and lost");
        }
        drop(inbox);
        assert_eq!(server.stop("-TERM").0, Some(0));
    }
}
