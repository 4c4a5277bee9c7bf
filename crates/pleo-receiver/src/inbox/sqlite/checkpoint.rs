//! Moves what was committed from the write-ahead log into the file, out of the writer's way.
//!
//! Beside the writer, a thread of its own moves the greater part. What is written meanwhile is left
//! over each time, so that the log would never end: when it is long and little is left, the writer
//! moves the rest itself, and the next commit starts the log anew.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rusqlite::Connection;
use tracing::warn;

/// How many pages of the log are moved at once, at least: 400 KiB. A flush of more holds up the
/// commits beside it for longer.
const SOME: usize = 100;

/// And how many commits, where each writes many pages: what several of them wrote is moved once.
const SOME_COMMITS: usize = 5;

/// How many pages, or commits, the writer moves without anybody noticing.
const FEW: usize = 100;
const FEW_COMMITS: usize = 2;

/// From how many pages on the log is to start anew: 16 MiB.
const LONG: usize = 4000;

/// How many pages the log may have at the most, unless somebody who reads holds it: 64 MiB.
const MOST: usize = 16_000;

/// The thread, and how long the log is.
pub(super) struct Checkpointer {
    log: Arc<Log>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Log {
    /// How many pages it had after the last commit.
    pages: AtomicUsize,
    /// How many of these the last commit wrote.
    last: AtomicUsize,
    /// How many of them are in the file.
    moved: AtomicUsize,
    stop: AtomicBool,
}

impl Checkpointer {
    /// Takes over from the writer's connection; `own` is for the thread.
    pub(super) fn start(writer: &mut Connection, own: Connection) -> io::Result<Self> {
        let log = Arc::new(Log::default());
        let hook = {
            let log = Arc::clone(&log);
            move |_: &mut rusqlite::hooks::Wal, pages| {
                log.committed(usize::try_from(pages).unwrap_or(usize::MAX));
                Ok(())
            }
        };
        // With a hook in its place, SQLite does no checkpoint by itself.
        writer.wal_hook(Some(hook)).map_err(io::Error::other)?;
        let thread = thread::Builder::new()
            .name("pleo-checkpoint".into())
            .spawn({
                let log = Arc::clone(&log);
                move || {
                    while !log.stop.load(Ordering::Relaxed) {
                        thread::park();
                        if log.left() >= log.some() {
                            log.checkpoint(&own);
                        }
                    }
                }
            })?;
        Ok(Self {
            log,
            thread: Some(thread),
        })
    }

    /// To be called between two transactions.
    pub(super) fn after_commit(&self, writer: &Connection) {
        let (pages, left) = (self.log.pages.load(Ordering::Relaxed), self.log.left());
        if pages >= MOST || (pages >= LONG && left <= self.log.few()) {
            self.log.checkpoint(writer);
        } else if left >= self.log.some()
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.log.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It doesn't panic; if it did, there is nothing left to wait for.
            let _ = thread.join();
        }
    }
}

impl Log {
    fn committed(&self, pages: usize) {
        let before = self.pages.swap(pages, Ordering::Relaxed);
        let is_new = pages < before;
        if is_new {
            self.moved.store(0, Ordering::Relaxed);
        }
        let last = if is_new { pages } else { pages - before };
        self.last.store(last, Ordering::Relaxed);
    }

    fn some(&self) -> usize {
        SOME.max(SOME_COMMITS * self.last.load(Ordering::Relaxed))
    }

    fn few(&self) -> usize {
        FEW.max(FEW_COMMITS * self.last.load(Ordering::Relaxed))
    }

    fn left(&self) -> usize {
        let moved = self.moved.load(Ordering::Relaxed);
        self.pages.load(Ordering::Relaxed).saturating_sub(moved)
    }

    /// Moves what it can without waiting for anybody.
    fn checkpoint(&self, connection: &Connection) {
        let moved = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            Ok((row.get::<_, bool>(0)?, row.get::<_, i64>(2)?))
        });
        match moved {
            Ok((false, moved)) => {
                let moved = usize::try_from(moved).unwrap_or(0);
                self.moved.store(moved, Ordering::Relaxed);
            }
            // Another one is at it.
            Ok((true, _)) => {}
            Err(error) => warn!(%error, "the inbox's log stays longer than it should"),
        }
    }
}
