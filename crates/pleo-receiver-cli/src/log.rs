//! The log, on standard error. A separate thread writes it, so that a stalled reader never blocks the
//! server. If its queue is full, lines are dropped and counted.

mod fields;
mod filter;
mod format;
mod journald;

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::unix::net::UnixDatagram;
use std::panic::{self, PanicHookInfo};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use tracing::{Level, error, field, warn};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use self::fields::LogfmtFields;
pub(crate) use self::filter::LogFilter;
pub(crate) use self::format::LogFormat;
use self::format::{LineFormat, SharedFormat};
use crate::escape::escape;

/// The maximum number of lines in the queue.
const QUEUE: usize = 4096;

/// How long to wait if standard error is non-blocking and full.
const PAUSE: Duration = Duration::from_millis(10);

/// How long the log's thread collects lines after each write. Otherwise, each line under load would
/// wake it.
const COLLECT_TIME: Duration = Duration::from_millis(2);

/// The size at which collected lines are written, in bytes.
const WRITE_SIZE: usize = 64 * 1024;

/// The settings of a log. Those that are `None` have their defaults.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogSettings {
    pub(crate) filter: Option<LogFilter>,
    pub(crate) format: Option<LogFormat>,
}

/// What the log of a command is without settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogDefaults {
    pub(crate) level: LevelFilter,
    /// The format that `auto` stands for if standard error is no terminal.
    pub(crate) piped: LogFormat,
}

/// The log of this process.
pub(crate) struct Log {
    filter: reload::Handle<Targets, Registry>,
    format: SharedFormat,
    /// The settings from flags and the environment. They beat the file.
    given: LogSettings,
    defaults: LogDefaults,
    queue: NonBlocking,
    guard: Option<WorkerGuard>,
    lost: LostLines,
}

impl Log {
    /// Starts to log with these settings.
    pub(crate) fn start(given: LogSettings, defaults: LogDefaults) -> Self {
        let lost = LostLines::default();
        let (queue, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(QUEUE)
            .thread_name("pleo-log")
            .finish(Stderr {
                lines: Vec::new(),
                lost: lost.clone(),
                reported: 0,
                is_broken: false,
                journald: UnixDatagram::unbound().ok(),
            });
        // The cell is still empty.
        let _ = lost.dropped.set(queue.error_counter());
        let (filter, handle) = reload::Layer::new(Targets::new());
        let format = SharedFormat::default();
        let lines = fmt::layer()
            .with_writer(queue.clone())
            .with_ansi(io::stderr().is_terminal())
            .fmt_fields(LogfmtFields)
            .event_format(LineFormat::new(format.clone()));
        let log = Self {
            filter: handle,
            format,
            given,
            defaults,
            queue,
            guard: Some(guard),
            lost,
        };
        log.configure(LogSettings::default());
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .init();
        panic::set_hook(Box::new(log_panic));
        log
    }

    /// Applies the settings in the configuration, unless a flag or the environment gives others.
    pub(crate) fn configure(&self, file: LogSettings) {
        let filter = self
            .given
            .filter
            .clone()
            .or(file.filter)
            .unwrap_or_default();
        // Fails only after the subscriber is dropped.
        let _ = self.filter.reload(filter.targets(self.defaults.level));
        let format = match self.given.format.or(file.format).unwrap_or_default() {
            LogFormat::Auto if io::stderr().is_terminal() => LogFormat::Text,
            LogFormat::Auto => self.defaults.piped,
            format => format,
        };
        if format == LogFormat::Journald && !Path::new(journald::SOCKET).exists() {
            self.format.set(self.defaults.piped);
            warn!(
                socket = journald::SOCKET,
                "no journald; the log goes to standard error"
            );
            return;
        }
        self.format.set(format);
    }

    /// Returns the count of lost lines.
    pub(crate) fn lost_lines(&self) -> LostLines {
        self.lost.clone()
    }

    /// Writes an error, whatever the level.
    pub(crate) fn print_error(&self, text: &str) {
        let lines = match self.format.get() {
            LogFormat::Json => format::json_line("ERROR", text).unwrap_or_default(),
            LogFormat::Journald => journald::entry(Level::ERROR, text).unwrap_or_default(),
            LogFormat::Auto | LogFormat::Text => {
                let lines: Vec<_> = text.lines().map(escape).collect();
                format!("error: {}\n", lines.join("\n"))
            }
        };
        // If the queue is full, the line is counted as lost.
        let _ = self.queue.clone().write_all(lines.as_bytes());
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

/// Logs a panic, so that its line has the format of the others.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let backtrace = Backtrace::capture();
    let is_captured = backtrace.status() == BacktraceStatus::Captured;
    error!(
        thread = thread.name(),
        location = panic.location().map(field::display),
        error = panic.payload_as_str(),
        backtrace = is_captured.then(|| field::display(&backtrace)),
        "panic"
    );
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

/// Writes lines to standard error, several at once, and entries to journald. Never fails; counts the
/// lines that cannot be written.
struct Stderr {
    /// The lines that are not written yet.
    lines: Vec<u8>,
    lost: LostLines,
    /// How many lost lines the log has reported.
    reported: u64,
    /// Whether the last write failed, as after the reader is gone.
    is_broken: bool,
    /// Not connected: journald may restart.
    journald: Option<UnixDatagram>,
}

impl Stderr {
    fn send_entry(&self, entry: &[u8]) {
        let sent = (self.journald.as_ref()).map(|socket| socket.send_to(entry, journald::SOCKET));
        if !matches!(sent, Some(Ok(_))) {
            self.lost.unwritten.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write_lines(&mut self) {
        let mut rest = &*self.lines;
        while !rest.is_empty() {
            match io::stderr().write(rest) {
                Ok(written) if written > 0 => {
                    self.is_broken = false;
                    rest = rest.get(written..).unwrap_or_default();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => {
                    let lines = rest.split_inclusive(|byte| *byte == b'\n').count();
                    let lines = u64::try_from(lines).unwrap_or(u64::MAX);
                    self.lost.unwritten.fetch_add(lines, Ordering::Relaxed);
                    self.is_broken = true;
                    break;
                }
            }
        }
        self.lines.clear();
    }

    fn report_lost(&mut self) {
        let lost = self.lost.count();
        if lost > self.reported {
            warn!(lines = lost - self.reported, "log lines lost");
            self.reported = lost;
        }
    }
}

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if line.starts_with(journald::START.as_bytes()) {
            self.send_entry(line);
            return Ok(line.len());
        }
        self.lines.extend_from_slice(line);
        if self.lines.len() >= WRITE_SIZE {
            self.write_lines();
        }
        Ok(line.len())
    }

    /// Reports lost lines, and writes the collected lines. The log's thread calls it when the queue is
    /// empty.
    fn flush(&mut self) -> io::Result<()> {
        let was_broken = self.is_broken;
        if !was_broken {
            // Before the write, which may block while the queue fills: the report needs a place in it.
            self.report_lost();
        }
        self.write_lines();
        if was_broken && !self.is_broken {
            self.report_lost();
        }
        thread::sleep(COLLECT_TIME);
        Ok(())
    }
}

#[cfg(test)]
mod lines;
