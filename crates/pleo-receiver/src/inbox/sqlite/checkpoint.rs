//! Checkpoints: copies committed pages from the write-ahead log (WAL) into the database file.
//!
//! The checkpoint thread copies most pages, so that the writer does not wait. The writer adds pages
//! at the same time, so this thread rarely copies all of them, and the log would grow without limit.
//! If the log is long and few pages remain, the writer copies them itself. SQLite then starts the
//! log over.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;

use super::error::is_flush_failure;
use crate::telemetry;

/// The minimum number of pages per checkpoint of the thread: 400 KiB. Larger flushes delay
/// concurrent commits.
const MIN_PAGES: usize = 100;

/// The minimum number of commits per checkpoint of the thread, if each writes many pages.
const MIN_COMMITS: usize = 5;

/// The maximum number of pages, or of commits, that the writer copies itself.
const MAX_WRITER_PAGES: usize = 100;
const MAX_WRITER_COMMITS: usize = 2;

/// The length in pages from which the log should start over: 16 MiB.
const LONG_WAL: usize = 4000;

/// The length in pages from which the writer copies any number of pages: 64 MiB. A long read can
/// prevent that, and the log then grows further.
const MAX_WAL: usize = 16_000;

/// The length in bytes to which SQLite truncates a log that starts over, for example after a long
/// read: 16 MiB.
pub(super) const MAX_KEPT_LOG: i64 = 16 * 1024 * 1024;

/// Runs the checkpoint thread.
pub(super) struct Checkpointer {
    wal: Arc<Wal>,
    thread: Option<JoinHandle<()>>,
}

/// The progress of the write-ahead log, in pages.
#[derive(Default)]
struct Wal {
    /// The length after the last commit.
    len: AtomicUsize,
    /// The pages of the last commit.
    last_commit: AtomicUsize,
    /// The pages that are copied.
    copied: AtomicUsize,
    /// Whether a file could not be flushed. There is no checkpoint then: it would empty
    /// the log although not everything that was copied is on the disk.
    has_failed: AtomicBool,
    /// Locked during a checkpoint.
    checkpoint: Mutex<()>,
    stop: AtomicBool,
}

impl Checkpointer {
    /// Replaces the automatic checkpoints of the writer's connection. The thread uses `connection`.
    pub(super) fn start(writer: &mut Connection, connection: Connection) -> io::Result<Self> {
        let wal = Arc::new(Wal::default());
        let hook = {
            let wal = Arc::clone(&wal);
            move |_: &mut rusqlite::hooks::Wal, pages| {
                wal.record_commit(usize::try_from(pages).unwrap_or(usize::MAX));
                Ok(())
            }
        };
        // The hook replaces the one that does SQLite's automatic checkpoints.
        writer.wal_hook(Some(hook)).map_err(io::Error::other)?;
        let thread = thread::Builder::new()
            .name("pleo-checkpoint".into())
            .spawn({
                let wal = Arc::clone(&wal);
                move || {
                    while !wal.stop.load(Ordering::Relaxed) {
                        thread::park();
                        if wal.remaining() >= wal.min_for_thread() {
                            wal.checkpoint(&connection);
                        }
                    }
                }
            })?;
        Ok(Self {
            wal,
            thread: Some(thread),
        })
    }

    /// Returns `true` if a file could not be flushed.
    pub(super) fn has_failed(&self) -> bool {
        self.wal.has_failed.load(Ordering::Relaxed)
    }

    /// Stops all checkpoints.
    pub(super) fn set_failed(&self) {
        self.wal.has_failed.store(true, Ordering::Relaxed);
    }

    /// Continues the checkpoints, after everything was flushed.
    pub(super) fn set_flushed(&self) {
        self.wal.has_failed.store(false, Ordering::Relaxed);
    }

    /// Waits for a checkpoint in progress, and prevents the next one.
    pub(super) fn pause(&self) -> MutexGuard<'_, ()> {
        let checkpoint = self.wal.checkpoint.lock();
        checkpoint.unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a checkpoint if one is needed. Call it between two transactions.
    pub(super) fn after_commit(&self, writer: &Connection) {
        let (len, remaining) = (self.wal.len.load(Ordering::Relaxed), self.wal.remaining());
        if len >= MAX_WAL || (len >= LONG_WAL && remaining <= self.wal.max_for_writer()) {
            self.wal.checkpoint(writer);
        } else if remaining >= self.wal.min_for_thread()
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.wal.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // If the thread panicked, there is nothing to wait for.
            let _ = thread.join();
        }
    }
}

impl Wal {
    fn record_commit(&self, len: usize) {
        let before = self.len.swap(len, Ordering::Relaxed);
        let started_over = len < before;
        if started_over {
            self.copied.store(0, Ordering::Relaxed);
        }
        let last_commit = if started_over { len } else { len - before };
        self.last_commit.store(last_commit, Ordering::Relaxed);
    }

    fn min_for_thread(&self) -> usize {
        MIN_PAGES.max(MIN_COMMITS * self.last_commit.load(Ordering::Relaxed))
    }

    fn max_for_writer(&self) -> usize {
        MAX_WRITER_PAGES.max(MAX_WRITER_COMMITS * self.last_commit.load(Ordering::Relaxed))
    }

    fn remaining(&self) -> usize {
        let copied = self.copied.load(Ordering::Relaxed);
        self.len.load(Ordering::Relaxed).saturating_sub(copied)
    }

    /// Copies as many pages as possible without waiting for readers.
    fn checkpoint(&self, connection: &Connection) {
        let _running = match self.checkpoint.try_lock() {
            Err(TryLockError::WouldBlock) => return,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Ok(running) => running,
        };
        if self.has_failed.load(Ordering::Relaxed) {
            return;
        }
        let result = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            Ok((row.get::<_, bool>(0)?, row.get::<_, i64>(2)?))
        });
        match result {
            Ok((false, copied)) => {
                let copied = usize::try_from(copied).unwrap_or(0);
                self.copied.store(copied, Ordering::Relaxed);
            }
            // Another process runs a checkpoint.
            Ok((true, _)) => {}
            Err(error) => {
                telemetry::checkpoint_failed(&error);
                self.has_failed
                    .fetch_or(is_flush_failure(&error), Ordering::Relaxed);
            }
        }
    }
}
