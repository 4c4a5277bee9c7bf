//! The log, on standard error. A separate thread writes it, so that a stalled reader never blocks the
//! server. If its queue is full, lines are dropped and counted.

mod fields;

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::{Arc, OnceLock};
use std::thread;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use tracing::warn;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use self::fields::LogfmtFields;

/// The maximum number of lines in the queue.
const QUEUE: usize = 4096;

/// How long to wait if standard error is non-blocking and full.
const PAUSE: Duration = Duration::from_millis(10);

/// The log of this process.
pub(crate) struct Log {
    level: reload::Handle<LevelFilter, Registry>,
    /// The level from the flag or the environment. It beats the file.
    given: Option<LevelFilter>,
    default: LevelFilter,
    queue: NonBlocking,
    guard: Option<WorkerGuard>,
    lost: LostLines,
}

impl Log {
    /// Starts to log at the `given` level, or at the default one.
    pub(crate) fn start(given: Option<LevelFilter>, default: LevelFilter) -> Self {
        let lost = LostLines::default();
        let (queue, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(QUEUE)
            .thread_name("pleo-log")
            .finish(Stderr {
                lost: lost.clone(),
                reported: 0,
            });
        // The cell is still empty.
        let _ = lost.dropped.set(queue.error_counter());
        let (filter, level) = reload::Layer::new(given.unwrap_or(default));
        let lines = fmt::layer()
            .with_writer(queue.clone())
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .fmt_fields(LogfmtFields);
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .init();
        Self {
            level,
            given,
            default,
            queue,
            guard: Some(guard),
            lost,
        }
    }

    /// Sets the level to the one in the configuration, unless a flag or the environment gives one.
    pub(crate) fn configure(&self, file: Option<LevelFilter>) {
        let level = self.given.or(file).unwrap_or(self.default);
        // Fails only after the subscriber is dropped.
        let _ = self.level.reload(level);
    }

    /// Returns the count of lost lines.
    pub(crate) fn lost_lines(&self) -> LostLines {
        self.lost.clone()
    }

    /// Writes a line, whatever the level.
    pub(crate) fn print(&self, text: &str) {
        // If the queue is full, the line is counted as lost.
        let _ = self.queue.clone().write_all(format!("{text}\n").as_bytes());
    }
}

impl Drop for Log {
    /// Writes the pending lines. Gives up after a second if the reader is stalled.
    fn drop(&mut self) {
        // If the queue is full, the guard would print a message to standard output, which is for data.
        let before = self.lost.count();
        let _ = self.queue.write_all(b"");
        if self.lost.count() > before {
            core::mem::forget(self.guard.take());
        }
    }
}

/// Counts the lines that were dropped because the queue was full, or that could not be written.
#[derive(Clone, Debug, Default)]
pub(crate) struct LostLines {
    dropped: Arc<OnceLock<ErrorCounter>>,
    unwritten: Arc<AtomicU64>,
}

impl LostLines {
    fn count(&self) -> u64 {
        let dropped = self.dropped.get().map_or(0, ErrorCounter::dropped_lines);
        let dropped = u64::try_from(dropped).unwrap_or(u64::MAX);
        dropped.saturating_add(self.unwritten.load(Ordering::Relaxed))
    }
}

impl Collector for LostLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), core::fmt::Error> {
        let counter = ConstCounter::new(self.count());
        let help = "Log lines that were not read in time, or could not be written";
        let encoder =
            encoder.encode_descriptor("log_lines_lost", help, None, counter.metric_type())?;
        counter.encode(encoder)
    }
}

/// Writes lines to standard error. Never fails; counts the lines that cannot be written.
struct Stderr {
    lost: LostLines,
    /// How many lost lines the log has reported.
    reported: u64,
}

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut rest = line;
        while !rest.is_empty() {
            match io::stderr().write(rest) {
                Ok(written) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => {
                    self.lost.unwritten.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
        }
        Ok(line.len())
    }

    /// Reports lost lines. The log's thread calls it when the queue is empty.
    fn flush(&mut self) -> io::Result<()> {
        let lost = self.lost.count();
        if lost > self.reported {
            warn!(lines = lost - self.reported, "log lines lost");
            self.reported = lost;
        }
        Ok(())
    }
}
