//! The log, on standard error. A reader of it that stands still holds up nothing else: lines wait for
//! it up to a limit, and then are dropped and counted.

use core::time::Duration;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use prometheus_client::metrics::counter::Counter;
use tracing::warn;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

/// How many bytes wait for the reader of standard error, beside as many that are being written.
const LIMIT: usize = 256 * 1024;

/// How long the end of the program waits for that reader.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long to wait where standard error is in non-blocking mode, and full.
const PAUSE: Duration = Duration::from_millis(10);

/// The log of this process.
pub(crate) struct Log {
    level: reload::Handle<LevelFilter, Registry>,
    told: Option<LevelFilter>,
    default: LevelFilter,
    queue: Arc<Queue>,
}

impl Log {
    /// Begins to log, as loud as flag or environment `told`.
    pub(crate) fn start(told: Option<LevelFilter>, default: LevelFilter) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let writing = Arc::clone(&queue);
        thread::Builder::new()
            .name("pleo-log".into())
            .spawn(move || writing.write_all(&mut io::stderr()))?;
        let (filter, level) = reload::Layer::new(told.unwrap_or(default));
        let lines = fmt::layer()
            .with_writer(Arc::clone(&queue))
            .with_ansi(io::stderr().is_terminal())
            .with_target(false);
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .init();
        Ok(Self {
            level,
            told,
            default,
            queue,
        })
    }

    /// Goes on as loud as the configuration says, unless told otherwise nearer.
    pub(crate) fn configure(&self, file: Option<LevelFilter>) {
        let level = self.told.or(file).unwrap_or(self.default);
        // The log is there as long as the process.
        let _ = self.level.reload(level);
    }

    /// How many lines were lost.
    pub(crate) fn lost(&self) -> &Counter {
        &self.queue.lost
    }

    /// Says something however quiet the log is, and however full.
    pub(crate) fn say(&self, text: &str) {
        self.queue.push(format!("{text}\n").as_bytes(), usize::MAX);
    }
}

impl Drop for Log {
    /// Waits until all of it is written, but not for ever on a reader that stands still.
    fn drop(&mut self) {
        let is_busy = |waiting: &mut Waiting| waiting.writing || !waiting.text.is_empty();
        let queue = &self.queue;
        let waited = (queue.changed).wait_timeout_while(queue.waiting(), PATIENCE, is_busy);
        drop(waited);
    }
}

/// What waits to be written.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    lost: Counter,
}

#[derive(Debug, Default)]
struct Waiting {
    text: Vec<u8>,
    /// Whether what was here before is still being written.
    writing: bool,
    /// How many lines found no room behind it.
    dropped: u64,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // A panic between two of its states is not possible.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8], limit: usize) {
        let mut waiting = self.waiting();
        let length = waiting.text.len().saturating_add(line.len());
        if length > limit && !waiting.text.is_empty() {
            waiting.dropped += 1;
            self.lost.inc();
            return;
        }
        waiting.text.extend_from_slice(line);
        self.changed.notify_all();
    }

    /// Writes whatever comes, as long as the process lives.
    fn write_all(&self, out: &mut impl Write) {
        loop {
            let nothing = |waiting: &mut Waiting| waiting.text.is_empty();
            let waited = self.changed.wait_while(self.waiting(), nothing);
            let mut waiting = waited.unwrap_or_else(PoisonError::into_inner);
            let text = core::mem::take(&mut waiting.text);
            let dropped = core::mem::take(&mut waiting.dropped);
            waiting.writing = true;
            drop(waiting);
            let left = write(out, &text);
            let lines = left.iter().filter(|byte| **byte == b'\n').count();
            self.lost.inc_by(u64::try_from(lines).unwrap_or(u64::MAX));
            if dropped > 0 {
                warn!(
                    lines = dropped,
                    "lines of the log are lost, since nobody read it"
                );
            }
            self.waiting().writing = false;
            self.changed.notify_all();
        }
    }
}

impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line, LIMIT);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes as much as it can; gives what is left.
fn write<'a>(out: &mut impl Write, mut text: &'a [u8]) -> &'a [u8] {
    while !text.is_empty() {
        match out.write(text) {
            Ok(0) => break,
            Ok(written) => text = text.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    text
}
